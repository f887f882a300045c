"""Layers of transposed convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ..functional._conv_transpose import conv_transpose_nd, padding_for, transposed_geometry
from . import _args as args
from ._conv import KernelLayer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Array, Float

    from ._conv import IntOrSizes


class _ConvTransposeNd(KernelLayer):
    _input_axis = 0

    @args.torch_order(
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "output_padding",
        "groups",
        "bias",
        "dilation",
        "padding_mode",
    )
    def __init__(
        self,
        out_channels: int,
        kernel_size: IntOrSizes,
        *,
        in_channels: int | None = None,
        stride: IntOrSizes = 1,
        padding: IntOrSizes = 0,
        output_padding: IntOrSizes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: IntOrSizes = 1,
        padding_mode: str = "zeros",
        dtype: Any = jnp.float32,
    ) -> None:
        name, ndim = type(self).__name__, self._ndim
        self._declare(out_channels, kernel_size, in_channels, groups, bias, dtype)
        self.stride = args.sizes_or_int(stride, ndim, name, "stride")
        self.padding = args.sizes_or_int(padding, ndim, name, "padding", 0)
        self.output_padding = args.sizes_or_int(output_padding, ndim, name, "output_padding", 0)
        self.dilation = args.sizes_or_int(dilation, ndim, name, "dilation")
        transposed_geometry(ndim, name, stride, padding, output_padding, groups, dilation)
        if padding_mode != "zeros":
            raise ValueError(
                f"{name}: padding_mode must be 'zeros', got {padding_mode!r}; "
                "padding is what is left out of the output, so there is nothing to fill in."
            )

    def build(self, x: Any, output_size: Sequence[int] | None = None) -> None:
        """Take the number of channels from the input."""
        self._take_channels(x)

    def forward(
        self, x: Float[Array, "*n c *size"], output_size: Sequence[int] | None = None
    ) -> Float[Array, "*n out *size_out"]:
        """Convolve backwards, to an output of that size if one is given (with or without batch and channels)."""
        extra = self.output_padding
        if output_size is not None:
            name = type(self).__name__
            window = self.weight.shape[2:]
            extra = padding_for(name, x, output_size, window, self.stride, self.padding, self.dilation)
        options = (self.stride, self.padding, extra, self.groups, self.dilation)
        return conv_transpose_nd(self._ndim, x, self.weight, self.bias, *options)

    def extra_repr(self) -> str:
        return self._repr(stride=1, padding=0, output_padding=0, groups=1, dilation=1)


class ConvTranspose1d(_ConvTransposeNd):
    r"""Transposed convolution along sequences: kernels, each multiplied by an input, are added up.

    .. math:: y_{n,o} = b_o + \sum_c W_{c,o}^T \star x_{n,c}

    It is linear in the input, with the transpose of the matrix of :class:`Conv1d`: it brings an output of
    that layer back to the size of its input.

    Args:
        out_channels: number of channels of the output.
        kernel_size: size of the kernels.
        in_channels: number of channels of the input; taken from the first input when not given.
        stride: the step between the kernels in the output.
        padding: how many elements of the output are left out on each side.
        output_padding: how many elements the output has more at its end; less than ``stride`` or
            ``dilation``. Sizes that a stride brings to the same size differ in it.
        groups: number of parts into which the channels are split, each of which gives its own
            ``out_channels / groups`` channels.
        bias: whether to add :math:`b`.
        dilation: the step between the elements of a kernel in the output.
        padding_mode: ``"zeros"``, the only one.
        dtype: of the parameters.

    Shape:
        ``(N, C, L)`` to ``(N, out_channels, LO)``, or the same without ``N``, with
        ``LO = (L - 1) * stride - 2 * padding + dilation * (kernel_size - 1) + output_padding + 1``.
        ``layer(x, output_size)`` chooses the ``output_padding`` that gives that size.

    Parameters:
        weight: ``(in_channels, out_channels / groups, K)``, drawn from :math:`U(-k, k)` with
            :math:`k = 1 / \sqrt{K \, \text{out\_channels} / \text{groups}}`.
        bias: ``(out_channels,)``, drawn from the same distribution.

    Raises:
        ShapeMismatchError: the input has other axes or channels, or nothing is left of the output.
        TypeError: an argument has the wrong type; or the input holds integers.
        ValueError: an option is out of range, or the output can't have the size.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.ConvTranspose1d(16, 4, stride=2, padding=1)
        >>> layer(jnp.ones((2, 32, 50))).shape
        (2, 16, 100)
        >>> layer
        ConvTranspose1d(32 → 16, kernel_size=4, stride=2, padding=1)

    Reference:
        ``torch.nn.ConvTranspose1d``.
    """

    _ndim = 1


class ConvTranspose2d(_ConvTransposeNd):
    r"""Transposed convolution over images: kernels, each multiplied by an input, are added up.

    .. math:: y_{n,o} = b_o + \sum_c W_{c,o}^T \star x_{n,c}

    It is linear in the input, with the transpose of the matrix of :class:`Conv2d`: it brings an output of
    that layer back to the size of its input.

    Args:
        out_channels: number of channels of the output.
        kernel_size: size of the kernels; an int or a pair (height, width), as below.
        in_channels: number of channels of the input; taken from the first input when not given.
        stride: the step between the kernels in the output.
        padding: how many rows and columns of the output are left out on each side.
        output_padding: how many rows and columns the output has more at its end; less than ``stride`` or
            ``dilation``. Sizes that a stride brings to the same size differ in it.
        groups: number of parts into which the channels are split, each of which gives its own
            ``out_channels / groups`` channels.
        bias: whether to add :math:`b`.
        dilation: the step between the elements of a kernel in the output.
        padding_mode: ``"zeros"``, the only one.
        dtype: of the parameters.

    Shape:
        ``(N, C, H, W)`` to ``(N, out_channels, HO, WO)``, or the same without ``N``, with
        ``HO = (H - 1) * stride - 2 * padding + dilation * (kernel_size - 1) + output_padding + 1``.
        ``layer(x, output_size)`` chooses the ``output_padding`` that gives that size.

    Parameters:
        weight: ``(in_channels, out_channels / groups, KH, KW)``, drawn from :math:`U(-k, k)` with
            :math:`k = 1 / \sqrt{K_H K_W \, \text{out\_channels} / \text{groups}}`.
        bias: ``(out_channels,)``, drawn from the same distribution.

    Raises:
        ShapeMismatchError: the input has other axes or channels, or nothing is left of the output.
        TypeError: an argument has the wrong type; or the input holds integers.
        ValueError: an option is out of range, or the output can't have the size.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.ConvTranspose2d(16, 3, stride=2, padding=1)
        >>> layer(jnp.ones((2, 32, 7, 7))).shape
        (2, 16, 13, 13)
        >>> layer(jnp.ones((2, 32, 7, 7)), output_size=(14, 14)).shape
        (2, 16, 14, 14)
        >>> layer
        ConvTranspose2d(32 → 16, kernel_size=3, stride=2, padding=1)

    Reference:
        ``torch.nn.ConvTranspose2d``.
    """

    _ndim = 2


class ConvTranspose3d(_ConvTransposeNd):
    r"""Transposed convolution through volumes: kernels, each multiplied by an input, are added up.

    .. math:: y_{n,o} = b_o + \sum_c W_{c,o}^T \star x_{n,c}

    It is linear in the input, with the transpose of the matrix of :class:`Conv3d`: it brings an output of
    that layer back to the size of its input.

    Args:
        out_channels: number of channels of the output.
        kernel_size: size of the kernels; an int or a triple (depth, height, width), as below.
        in_channels: number of channels of the input; taken from the first input when not given.
        stride: the step between the kernels in the output.
        padding: how many elements of the output are left out on each side.
        output_padding: how many elements the output has more at its end; less than ``stride`` or
            ``dilation``. Sizes that a stride brings to the same size differ in it.
        groups: number of parts into which the channels are split, each of which gives its own
            ``out_channels / groups`` channels.
        bias: whether to add :math:`b`.
        dilation: the step between the elements of a kernel in the output.
        padding_mode: ``"zeros"``, the only one.
        dtype: of the parameters.

    Shape:
        ``(N, C, D, H, W)`` to ``(N, out_channels, DO, HO, WO)``, or the same without ``N``, with
        ``DO = (D - 1) * stride - 2 * padding + dilation * (kernel_size - 1) + output_padding + 1``.
        ``layer(x, output_size)`` chooses the ``output_padding`` that gives that size.

    Parameters:
        weight: ``(in_channels, out_channels / groups, KD, KH, KW)``, drawn from :math:`U(-k, k)` with
            :math:`k = 1 / \sqrt{K_D K_H K_W \, \text{out\_channels} / \text{groups}}`.
        bias: ``(out_channels,)``, drawn from the same distribution.

    Raises:
        ShapeMismatchError: the input has other axes or channels, or nothing is left of the output.
        TypeError: an argument has the wrong type; or the input holds integers.
        ValueError: an option is out of range, or the output can't have the size.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.ConvTranspose3d(8, 2, stride=2)
        >>> layer(jnp.ones((2, 16, 3, 8, 8))).shape
        (2, 8, 6, 16, 16)
        >>> layer
        ConvTranspose3d(16 → 8, kernel_size=2, stride=2)

    Reference:
        ``torch.nn.ConvTranspose3d``.
    """

    _ndim = 3
