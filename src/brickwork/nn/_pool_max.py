"""Layers that pool by the maximum, and their inverse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ..functional import (
    max_pool1d,
    max_pool2d,
    max_pool3d,
    max_unpool1d,
    max_unpool2d,
    max_unpool3d,
)
from ..functional._windows import require_padding
from ..module import Module
from . import _args as args

if TYPE_CHECKING:
    from jaxtyping import Array, Int, Num

    Sizes = int | tuple[int, ...]


class Windows(Module):
    """The base of layers with windows over ``_ndim`` spatial axes."""

    _ndim: ClassVar[int]

    def __init__(self, kernel_size: Sizes, stride: Sizes | None, padding: Sizes) -> None:
        name = type(self).__name__
        self.kernel_size = args.sizes_or_int(kernel_size, self._ndim, name, "kernel_size")
        self.stride = None if stride is None else args.sizes_or_int(stride, self._ndim, name, "stride")
        self.padding = args.sizes_or_int(padding, self._ndim, name, "padding", 0)


class Pool(Windows):
    """The base of layers that pool."""

    _pool: ClassVar[Callable[..., Any]]

    def __init__(self, kernel_size: Sizes, stride: Sizes | None, padding: Sizes, ceil_mode: bool) -> None:
        super().__init__(kernel_size, stride, padding)
        name = type(self).__name__
        self.ceil_mode = args.flag(ceil_mode, name, "ceil_mode")
        kernels = args.sizes(self.kernel_size, self._ndim, name, "kernel_size")
        paddings = args.sizes(self.padding, self._ndim, name, "padding", 0)
        require_padding(name, kernels, paddings, kernel_size, padding)


class _MaxPool(Pool):
    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.dilation = args.sizes_or_int(dilation, self._ndim, type(self).__name__, "dilation")
        self.return_indices = args.flag(return_indices, type(self).__name__, "return_indices")

    def forward(self, x: Num[Array, "*n_c_spatial"]) -> Any:
        """Take the maxima."""
        options = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices)
        return self._pool(x, *options)

    def extra_repr(self) -> str:
        rest = args.options(self, stride=None, padding=0, dilation=1, return_indices=False, ceil_mode=False)
        return f"kernel_size={self.kernel_size}{rest}"


class MaxPool1d(_MaxPool):
    r"""Largest value of each window of each channel of sequences.

    .. math:: y_{n,c,i} = \max_{u} \, x_{n,c,\, s i + d u - p}

    Args:
        kernel_size: size of the window; an int.
        stride: the step between windows; ``None``: the size of the window.
        padding: elements added on each side, which never are the maximum.
        dilation: the step between the elements of a window.
        return_indices: also return the index of each maximum into its channel, for ``nn.MaxUnpool1d``.
        ceil_mode: also use windows that reach beyond the end of the sequence.

    Shape:
        ``(N, C, L)`` to ``(N, C, LO)``, or the same without ``N``, with
        ``LO = (L + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1``.

    Raises:
        ShapeMismatchError: wrong number of axes, or a window larger than the padded sequence.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.MaxPool1d(3, stride=2, padding=1)(jnp.ones((1, 8, 56))).shape
        (1, 8, 28)

    Reference:
        ``torch.nn.MaxPool1d``.
    """

    _ndim = 1
    _pool = staticmethod(max_pool1d)


class MaxPool2d(_MaxPool):
    r"""Largest value of each window of each channel.

    .. math:: y_{n,c,i,j} = \max_{u,v} \, x_{n,c,\, s i + d u - p,\, s j + d v - p}

    Args:
        kernel_size: size of the window; an int or a pair (height, width), as below.
        stride: the step between windows; ``None``: the size of the window.
        padding: rows and columns added on each side, which never are the maximum.
        dilation: the step between the elements of a window.
        return_indices: also return the index of each maximum into its flattened channel, for ``nn.MaxUnpool2d``.
        ceil_mode: also use windows that reach beyond the end of the image.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, HO, WO)``, or the same without ``N``, with
        ``HO = (H + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1``.

    Raises:
        ShapeMismatchError: wrong number of axes, or a window larger than the padded image.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.MaxPool2d(3, stride=2, padding=1)(jnp.ones((1, 8, 56, 56))).shape
        (1, 8, 28, 28)

    Reference:
        ``torch.nn.MaxPool2d``.
    """

    _ndim = 2
    _pool = staticmethod(max_pool2d)


class MaxPool3d(_MaxPool):
    r"""Largest value of each window of each channel of volumes.

    .. math:: y_{n,c,i,j,k} = \max_{u,v,w} \, x_{n,c,\, s i + d u - p,\, s j + d v - p,\, s k + d w - p}

    Args:
        kernel_size: size of the window; an int or a triple (depth, height, width), as below.
        stride: the step between windows; ``None``: the size of the window.
        padding: layers, rows and columns added on each side, which never are the maximum.
        dilation: the step between the elements of a window.
        return_indices: also return the index of each maximum into its flattened channel, for ``nn.MaxUnpool3d``.
        ceil_mode: also use windows that reach beyond the end of the volume.

    Shape:
        ``(N, C, D, H, W)`` to ``(N, C, DO, HO, WO)``, or the same without ``N``, with
        ``DO = (D + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1``.

    Raises:
        ShapeMismatchError: wrong number of axes, or a window larger than the padded volume.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.MaxPool3d(2)(jnp.ones((1, 8, 4, 6, 6))).shape
        (1, 8, 2, 3, 3)

    Reference:
        ``torch.nn.MaxPool3d``.
    """

    _ndim = 3
    _pool = staticmethod(max_pool3d)


class _MaxUnpool(Windows):
    _unpool: ClassVar[Callable[..., Any]]

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0) -> None:
        super().__init__(kernel_size, stride, padding)

    def forward(
        self,
        x: Num[Array, "*n_c_spatial"],
        indices: Int[Array, "*n_c_spatial"],
        output_size: Sequence[int] | None = None,
    ) -> Num[Array, "*n_c_larger"]:
        """Put the values to their places."""
        return self._unpool(x, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}{args.options(self, stride=None, padding=0)}"


class MaxUnpool1d(_MaxUnpool):
    r"""Put maxima back to where ``MaxPool1d`` found them; everything else is zero.

    Called with the values, their indices, and perhaps ``output_size``: the size of the result, which
    several sizes of input may have led to (the spatial axes, or the whole shape).

    Args:
        kernel_size: size of the window; an int.
        stride: the step between windows; ``None``: the size of the window.
        padding: what was added on each side.

    Shape:
        ``(N, C, L)`` to ``(N, C, LO)``, or the same without ``N``, with
        ``LO = (L - 1) * stride - 2 * padding + kernel_size``.

    Raises:
        ShapeMismatchError: wrong number of axes, or indices of another shape than the values.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> y, indices = nn.MaxPool1d(2, return_indices=True)(jnp.ones((1, 8, 10)))
        >>> nn.MaxUnpool1d(2)(y, indices).shape
        (1, 8, 10)

    Reference:
        ``torch.nn.MaxUnpool1d``.
    """

    _ndim = 1
    _unpool = staticmethod(max_unpool1d)


class MaxUnpool2d(_MaxUnpool):
    r"""Put maxima back to where ``MaxPool2d`` found them; everything else is zero.

    Called with the values, their indices, and perhaps ``output_size``: the size of the result, which
    several sizes of input may have led to (the spatial axes, or the whole shape).

    Args:
        kernel_size: size of the window; an int or a pair (height, width), as below.
        stride: the step between windows; ``None``: the size of the window.
        padding: what was added on each side.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, HO, WO)``, or the same without ``N``, with
        ``HO = (H - 1) * stride - 2 * padding + kernel_size``.

    Raises:
        ShapeMismatchError: wrong number of axes, or indices of another shape than the values.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> y, indices = nn.MaxPool2d(2, return_indices=True)(jnp.ones((1, 8, 6, 6)))
        >>> nn.MaxUnpool2d(2)(y, indices).shape
        (1, 8, 6, 6)

    Reference:
        ``torch.nn.MaxUnpool2d``.
    """

    _ndim = 2
    _unpool = staticmethod(max_unpool2d)


class MaxUnpool3d(_MaxUnpool):
    r"""Put maxima back to where ``MaxPool3d`` found them; everything else is zero.

    Called with the values, their indices, and perhaps ``output_size``: the size of the result, which
    several sizes of input may have led to (the spatial axes, or the whole shape).

    Args:
        kernel_size: size of the window; an int or a triple (depth, height, width), as below.
        stride: the step between windows; ``None``: the size of the window.
        padding: what was added on each side.

    Shape:
        ``(N, C, D, H, W)`` to ``(N, C, DO, HO, WO)``, or the same without ``N``, with
        ``DO = (D - 1) * stride - 2 * padding + kernel_size``.

    Raises:
        ShapeMismatchError: wrong number of axes, or indices of another shape than the values.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> y, indices = nn.MaxPool3d(2, return_indices=True)(jnp.ones((1, 8, 2, 4, 4)))
        >>> nn.MaxUnpool3d(2)(y, indices).shape
        (1, 8, 2, 4, 4)

    Reference:
        ``torch.nn.MaxUnpool3d``.
    """

    _ndim = 3
    _unpool = staticmethod(max_unpool3d)
