"""Layers that pool by the mean, and by the power mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..functional import (
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    lp_pool1d,
    lp_pool2d,
    lp_pool3d,
)
from ..functional._pool_avg import check_norm
from . import _args as args
from ._pool_max import Pool

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    Sizes = int | tuple[int, ...]


class _AvgPool(Pool):
    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.count_include_pad = args.flag(count_include_pad, type(self).__name__, "count_include_pad")

    def forward(self, x: Float[Array, "*n_c_spatial"]) -> Float[Array, "*n_c_smaller"]:
        """Take the means."""
        return self._pool(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        rest = args.options(self, stride=None, padding=0, ceil_mode=False, count_include_pad=True)
        return f"kernel_size={self.kernel_size}{rest}"


class _AvgPoolWithDivisor(_AvgPool):
    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        self.divisor_override = args.optional_size(divisor_override, type(self).__name__, "divisor_override")

    def forward(self, x: Float[Array, "*n_c_spatial"]) -> Float[Array, "*n_c_smaller"]:
        """Take the means."""
        options = (self.padding, self.ceil_mode, self.count_include_pad, self.divisor_override)
        return self._pool(x, self.kernel_size, self.stride, *options)

    def extra_repr(self) -> str:
        return super().extra_repr() + args.options(self, divisor_override=None)


class AvgPool1d(_AvgPool):
    r"""Mean of each window of each channel of sequences.

    .. math:: y_{n,c,i} = \frac{1}{K} \sum_{u} x_{n,c,\, s i + u - p}

    Args:
        kernel_size: size of the window; an int.
        stride: the step between windows; ``None``: the size of the window.
        padding: zeros added on each side.
        ceil_mode: also use windows that reach beyond the end of the sequence.
        count_include_pad: whether the zeros of the padding count in the mean.

    Shape:
        ``(N, C, L)`` to ``(N, C, LO)``, or the same without ``N``, with
        ``LO = (L + 2 * padding - kernel_size) // stride + 1``.

    Raises:
        ShapeMismatchError: wrong number of axes, or a window larger than the padded sequence.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.AvgPool1d(2)(jnp.ones((1, 8, 28))).shape
        (1, 8, 14)

    Reference:
        ``torch.nn.AvgPool1d``.
    """

    _ndim = 1
    _pool = staticmethod(avg_pool1d)


class AvgPool2d(_AvgPoolWithDivisor):
    r"""Mean of each window of each channel.

    .. math:: y_{n,c,i,j} = \frac{1}{K_H K_W} \sum_{u,v} x_{n,c,\, s i + u - p,\, s j + v - p}

    Args:
        kernel_size: size of the window; an int or a pair (height, width), as below.
        stride: the step between windows; ``None``: the size of the window.
        padding: zeros added on each side.
        ceil_mode: also use windows that reach beyond the end of the image.
        count_include_pad: whether the zeros of the padding count in the mean.
        divisor_override: divide the sums by this number instead of the number of elements.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, HO, WO)``, or the same without ``N``, with
        ``HO = (H + 2 * padding - kernel_size) // stride + 1``.

    Raises:
        ShapeMismatchError: wrong number of axes, or a window larger than the padded image.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.AvgPool2d(2)(jnp.ones((1, 8, 28, 28))).shape
        (1, 8, 14, 14)

    Reference:
        ``torch.nn.AvgPool2d``.
    """

    _ndim = 2
    _pool = staticmethod(avg_pool2d)


class AvgPool3d(_AvgPoolWithDivisor):
    r"""Mean of each window of each channel of volumes.

    .. math:: y_{n,c,i,j,k} = \frac{1}{K_D K_H K_W} \sum_{u,v,w} x_{n,c,\, s i + u - p,\, s j + v - p,\, s k + w - p}

    Args:
        kernel_size: size of the window; an int or a triple (depth, height, width), as below.
        stride: the step between windows; ``None``: the size of the window.
        padding: zeros added on each side.
        ceil_mode: also use windows that reach beyond the end of the volume.
        count_include_pad: whether the zeros of the padding count in the mean.
        divisor_override: divide the sums by this number instead of the number of elements.

    Shape:
        ``(N, C, D, H, W)`` to ``(N, C, DO, HO, WO)``, or the same without ``N``, with
        ``DO = (D + 2 * padding - kernel_size) // stride + 1``.

    Raises:
        ShapeMismatchError: wrong number of axes, or a window larger than the padded volume.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.AvgPool3d(2)(jnp.ones((1, 8, 4, 6, 6))).shape
        (1, 8, 2, 3, 3)

    Reference:
        ``torch.nn.AvgPool3d``.
    """

    _ndim = 3
    _pool = staticmethod(avg_pool3d)


class _LPPool(Pool):
    def __init__(
        self, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
    ) -> None:
        check_norm(norm_type, type(self).__name__)
        super().__init__(kernel_size, stride, 0, ceil_mode)
        self.norm_type = norm_type

    def forward(self, x: Float[Array, "*n_c_spatial"]) -> Float[Array, "*n_c_smaller"]:
        """Take the power means."""
        return self._pool(x, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        rest = args.options(self, stride=None, ceil_mode=False)
        return f"norm_type={self.norm_type}, kernel_size={self.kernel_size}{rest}"


class LPPool1d(_LPPool):
    r"""Power sum of each window of each channel of sequences.

    .. math:: y_{n,c,i} = \Big( \sum_{u} x_{n,c,\, s i + u}^p \Big)^{1/p}

    There are no absolute values: for odd or broken ``p``, negative sums give NaN.

    Args:
        norm_type: the power ``p``, a positive number; infinity: the largest absolute value.
        kernel_size: size of the window; an int.
        stride: the step between windows; ``None``: the size of the window.
        ceil_mode: also use windows that reach beyond the end of the sequence.

    Shape:
        ``(N, C, L)`` to ``(N, C, LO)``, or the same without ``N``, with
        ``LO = (L - kernel_size) // stride + 1``.

    Raises:
        ShapeMismatchError: wrong number of axes, or a window larger than the sequence.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.LPPool1d(2, 3, stride=2)(jnp.ones((1, 8, 27))).shape
        (1, 8, 13)

    Reference:
        ``torch.nn.LPPool1d``.
    """

    _ndim = 1
    _pool = staticmethod(lp_pool1d)


class LPPool2d(_LPPool):
    r"""Power sum of each window of each channel.

    .. math:: y_{n,c,i,j} = \Big( \sum_{u,v} x_{n,c,\, s i + u,\, s j + v}^p \Big)^{1/p}

    There are no absolute values: for odd or broken ``p``, negative sums give NaN.

    Args:
        norm_type: the power ``p``, a positive number; infinity: the largest absolute value.
        kernel_size: size of the window; an int or a pair (height, width), as below.
        stride: the step between windows; ``None``: the size of the window.
        ceil_mode: also use windows that reach beyond the end of the image.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, HO, WO)``, or the same without ``N``, with
        ``HO = (H - kernel_size) // stride + 1``.

    Raises:
        ShapeMismatchError: wrong number of axes, or a window larger than the image.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.LPPool2d(2, 2)(jnp.ones((1, 8, 28, 28))).shape
        (1, 8, 14, 14)

    Reference:
        ``torch.nn.LPPool2d``.
    """

    _ndim = 2
    _pool = staticmethod(lp_pool2d)


class LPPool3d(_LPPool):
    r"""Power sum of each window of each channel of volumes.

    .. math:: y_{n,c,i,j,k} = \Big( \sum_{u,v,w} x_{n,c,\, s i + u,\, s j + v,\, s k + w}^p \Big)^{1/p}

    There are no absolute values: for odd or broken ``p``, negative sums give NaN.

    Args:
        norm_type: the power ``p``, a positive number; infinity: the largest absolute value.
        kernel_size: size of the window; an int or a triple (depth, height, width), as below.
        stride: the step between windows; ``None``: the size of the window.
        ceil_mode: also use windows that reach beyond the end of the volume.

    Shape:
        ``(N, C, D, H, W)`` to ``(N, C, DO, HO, WO)``, or the same without ``N``, with
        ``DO = (D - kernel_size) // stride + 1``.

    Raises:
        ShapeMismatchError: wrong number of axes, or a window larger than the volume.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.LPPool3d(2, 2)(jnp.ones((1, 8, 4, 6, 6))).shape
        (1, 8, 2, 3, 3)

    Reference:
        ``torch.nn.LPPool3d``.
    """

    _ndim = 3
    _pool = staticmethod(lp_pool3d)
