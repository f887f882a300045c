"""Convolutional layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ..core import Parameter
from ..functional import _checks as checks
from ..functional._conv import conv_nd, require_padding_name, same_needs_stride_1
from ..module import Module
from . import _args as args
from ._init import fan_in_uniform, follow_weight

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    IntOrSizes = int | tuple[int, ...]  # one for each spatial axis

_ORDER = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "bias")
_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
_BEFORE = {1: "positions", 2: "height and width", 3: "depth, height and width"}


class KernelLayer(Module):
    """What convolutions and transposed ones share: parameters, sizes and options.

    The channels of the input are along ``_input_axis`` of the weight, those of the output along the other; the one
    that is not the first counts the channels of one group.
    """

    _ndim = 0
    _input_axis = 1

    def _declare(
        self, out_channels: Any, kernel_size: Any, in_channels: Any, groups: Any, bias: Any, dtype: Any
    ) -> None:
        name = type(self).__name__
        outputs = args.size(out_channels, name, "out_channels")
        inputs = args.optional_size(in_channels, name, "in_channels")
        self.groups = args.size(groups, name, "groups")
        for channels, argument in ((outputs, "out_channels"), (inputs, "in_channels")):
            if channels is not None and channels % self.groups:
                raise ValueError(f"{name}: groups={self.groups} must divide {argument}={channels}.")
        self.kernel_size = args.sizes_or_int(kernel_size, self._ndim, name, "kernel_size")
        window = args.sizes(self.kernel_size, self._ndim, name, "kernel_size")
        if self._input_axis == 1:
            channels = (outputs, None if inputs is None else inputs // self.groups)
        else:
            channels = (inputs, outputs // self.groups)
        self.weight = Parameter(shape=(*channels, *window), dtype=dtype, init=fan_in_uniform())
        has_bias = args.flag(bias, name, "bias")
        self.bias = Parameter(shape=(outputs,), dtype=dtype, init=fan_in_uniform(self.weight)) if has_bias else None

    @property
    def in_channels(self) -> int | None:
        """Number of channels of the input; ``None`` while it is not known."""
        channels = self.weight.shape[self._input_axis]
        return None if channels is None else channels * (self.groups if self._input_axis else 1)

    @property
    def out_channels(self) -> int:
        """Number of channels of the output."""
        return self.weight.shape[1 - self._input_axis] * (1 if self._input_axis else self.groups)

    def _take_channels(self, x: Any) -> None:
        """Take the number of channels from the input."""
        name, ndim = type(self).__name__, self._ndim
        checks.shape_of(x, name)
        checks.require_spatial(x, ndim, name)
        if self.weight.shape[self._input_axis] is None:
            channels = x.shape[-ndim - 1]
            if channels % self.groups:
                checks.shape_error(
                    name,
                    f"groups={self.groups} must divide the {channels} channels of x (axis {len(x.shape) - ndim - 1}).",
                    f"Check the data (channels come before {_BEFORE[ndim]}), or change groups.",
                    x=x,
                )
            known = (None, channels // self.groups) if self._input_axis else (channels, None)
            self.weight.shape = (*known, *(None,) * ndim)
        follow_weight(self.bias, self.weight)

    def _repr(self, **defaults: Any) -> str:
        sizes = f"{args.show(self.in_channels)} → {self.out_channels}"
        bias = "" if self.bias is not None else ", bias=False"
        return f"{sizes}, kernel_size={self.kernel_size}{args.options(self, **defaults)}{bias}"


class _ConvNd(KernelLayer):
    @args.torch_order(*_ORDER, "padding_mode")
    def __init__(
        self,
        out_channels: int,
        kernel_size: IntOrSizes,
        *,
        in_channels: int | None = None,
        stride: IntOrSizes = 1,
        padding: IntOrSizes | str = 0,
        dilation: IntOrSizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        dtype: Any = jnp.float32,
    ) -> None:
        name, ndim = type(self).__name__, self._ndim
        checked_stride = args.sizes_or_int(stride, ndim, name, "stride")
        checked_dilation = args.sizes_or_int(dilation, ndim, name, "dilation")
        if isinstance(padding, str):
            require_padding_name(ndim, padding, name)
            if padding == "same" and any(s != 1 for s in args.sizes(stride, ndim, name, "stride")):
                same_needs_stride_1(ndim, stride, name)
        else:
            padding = args.sizes_or_int(padding, ndim, name, "padding", 0)
        if padding_mode not in _PADDING_MODES:
            known = ", ".join(map(repr, _PADDING_MODES))
            raise ValueError(f"{name}: padding_mode must be one of {known}, got {padding_mode!r}.")
        self._declare(out_channels, kernel_size, in_channels, groups, bias, dtype)  # which takes numbers from the seed
        self.stride, self.dilation, self.padding = checked_stride, checked_dilation, padding
        self.padding_mode = padding_mode

    def build(self, x: Any) -> None:
        """Take the number of channels from the input."""
        self._take_channels(x)

    def forward(self, x: Float[Array, "*n c *size"]) -> Float[Array, "*n out *size_out"]:
        """Convolve."""
        options = (self.stride, self.padding, self.dilation, self.groups, self.padding_mode)
        return conv_nd(self._ndim, x, self.weight, self.bias, *options)

    def extra_repr(self) -> str:
        return self._repr(stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros")


class Conv1d(_ConvNd):
    r"""Convolution along sequences.

    .. math:: y_{n,o} = b_o + \sum_c W_{o,c} \star x_{n,c}

    Args:
        out_channels: number of channels of the output.
        kernel_size: size of the window.
        in_channels: number of channels of the input; taken from the first input when not given.
        stride: the step between windows.
        padding: how many elements are added on each side; or ``"valid"`` (none), or ``"same"`` (as many as
            keep the size; only for stride 1).
        dilation: the step between the elements of a window.
        groups: number of parts into which the channels are split, each seen only by its own
            ``out_channels / groups`` kernels.
        bias: whether to add :math:`b`.
        padding_mode: what is added: ``"zeros"``, ``"reflect"`` (the sequence mirrored at its first and last
            element), ``"replicate"`` (that element again) or ``"circular"`` (the sequence from its other end).
        dtype: of the parameters.

    Shape:
        ``(N, C, L)`` to ``(N, out_channels, LO)``, or the same without ``N``, with
        ``LO = (L + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1``.

    Parameters:
        weight: ``(out_channels, in_channels / groups, K)``, drawn from :math:`U(-k, k)` with
            :math:`k = 1 / \sqrt{K \, \text{in\_channels} / \text{groups}}`.
        bias: ``(out_channels,)``, drawn from the same distribution.

    Raises:
        ShapeMismatchError: the input has other axes or channels, or is smaller than a window.
        TypeError: an argument has the wrong type; or the input holds integers.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.Conv1d(32, 3, padding="same")
        >>> layer(jnp.ones((2, 16, 100))).shape
        (2, 32, 100)
        >>> layer
        Conv1d(16 → 32, kernel_size=3, padding='same')

    Reference:
        ``torch.nn.Conv1d``.
    """

    _ndim = 1


class Conv2d(_ConvNd):
    r"""Convolution over images.

    .. math:: y_{n,o} = b_o + \sum_c W_{o,c} \star x_{n,c}

    Args:
        out_channels: number of channels of the output.
        kernel_size: size of the window; an int or a pair (height, width), as below.
        in_channels: number of channels of the input; taken from the first input when not given.
        stride: the step between windows.
        padding: how many rows and columns are added on each side; or ``"valid"`` (none), or ``"same"`` (as many as
            keep the size; only for stride 1).
        dilation: the step between the elements of a window.
        groups: number of parts into which the channels are split, each seen only by its own
            ``out_channels / groups`` kernels.
        bias: whether to add :math:`b`.
        padding_mode: what is added: ``"zeros"``, ``"reflect"`` (the image mirrored at its first and last
            element), ``"replicate"`` (that element again) or ``"circular"`` (the image from its other end).
        dtype: of the parameters.

    Shape:
        ``(N, C, H, W)`` to ``(N, out_channels, HO, WO)``, or the same without ``N``, with
        ``HO = (H + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1``.

    Parameters:
        weight: ``(out_channels, in_channels / groups, KH, KW)``, drawn from :math:`U(-k, k)` with
            :math:`k = 1 / \sqrt{K_H K_W \, \text{in\_channels} / \text{groups}}`.
        bias: ``(out_channels,)``, drawn from the same distribution.

    Raises:
        ShapeMismatchError: the input has other axes or channels, or is smaller than a window.
        TypeError: an argument has the wrong type; or the input holds integers.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.Conv2d(6, kernel_size=5, padding=2)
        >>> layer(jnp.ones((2, 1, 28, 28))).shape
        (2, 6, 28, 28)
        >>> layer
        Conv2d(1 → 6, kernel_size=5, padding=2)

    Reference:
        ``torch.nn.Conv2d``.
    """

    _ndim = 2


class Conv3d(_ConvNd):
    r"""Convolution through volumes.

    .. math:: y_{n,o} = b_o + \sum_c W_{o,c} \star x_{n,c}

    Args:
        out_channels: number of channels of the output.
        kernel_size: size of the window; an int or a triple (depth, height, width), as below.
        in_channels: number of channels of the input; taken from the first input when not given.
        stride: the step between windows.
        padding: how many elements are added on each side; or ``"valid"`` (none), or ``"same"`` (as many as
            keep the size; only for stride 1).
        dilation: the step between the elements of a window.
        groups: number of parts into which the channels are split, each seen only by its own
            ``out_channels / groups`` kernels.
        bias: whether to add :math:`b`.
        padding_mode: what is added: ``"zeros"``, ``"reflect"`` (the volume mirrored at its first and last
            element), ``"replicate"`` (that element again) or ``"circular"`` (the volume from its other end).
        dtype: of the parameters.

    Shape:
        ``(N, C, D, H, W)`` to ``(N, out_channels, DO, HO, WO)``, or the same without ``N``, with
        ``DO = (D + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1``.

    Parameters:
        weight: ``(out_channels, in_channels / groups, KD, KH, KW)``, drawn from :math:`U(-k, k)` with
            :math:`k = 1 / \sqrt{K_D K_H K_W \, \text{in\_channels} / \text{groups}}`.
        bias: ``(out_channels,)``, drawn from the same distribution.

    Raises:
        ShapeMismatchError: the input has other axes or channels, or is smaller than a window.
        TypeError: an argument has the wrong type; or the input holds integers.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.Conv3d(8, kernel_size=3, padding=1)
        >>> layer(jnp.ones((2, 1, 6, 16, 16))).shape
        (2, 8, 6, 16, 16)
        >>> layer
        Conv3d(1 → 8, kernel_size=3, padding=1)

    Reference:
        ``torch.nn.Conv3d``.
    """

    _ndim = 3
