"""Layers that pool to a given size."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from ..functional import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
)
from ..functional._pool_adaptive import output_sizes
from ..module import Module
from . import _args as args

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Num

    Sizes = int | tuple[int | None, ...] | None


class _AdaptivePool(Module):
    _ndim: ClassVar[int]
    _pool: ClassVar[Callable[..., Any]]

    def __init__(self, output_size: Sizes) -> None:
        sizes = output_sizes(output_size, self._ndim, type(self).__name__)
        self.output_size = sizes if isinstance(output_size, (tuple, list)) else sizes[0]

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class _AdaptiveAvgPool(_AdaptivePool):
    def forward(self, x: Float[Array, "*n_c_spatial"]) -> Float[Array, "*n_c_smaller"]:
        """Take the means."""
        return self._pool(x, self.output_size)


class _AdaptiveMaxPool(_AdaptivePool):
    def __init__(self, output_size: Sizes, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = args.flag(return_indices, type(self).__name__, "return_indices")

    def forward(self, x: Num[Array, "*n_c_spatial"]) -> Any:
        """Take the maxima."""
        return self._pool(x, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        return super().extra_repr() + args.options(self, return_indices=False)


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    r"""Mean of each of a given number of windows, which cover a sequence as evenly as possible.

    Window ``i`` of ``O`` along an axis of ``S`` elements reaches from :math:`\lfloor i S / O \rfloor` to
    :math:`\lceil (i + 1) S / O \rceil`, without the latter.

    Args:
        output_size: number of windows; an int; ``None`` for an axis
            keeps its size.

    Shape:
        ``(N, C, L)`` to ``(N, C, LO)``, the given sizes, or the same without ``N``.

    Raises:
        ShapeMismatchError: wrong number of axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.AdaptiveAvgPool1d(5)(jnp.ones((1, 8, 12))).shape
        (1, 8, 5)

    Reference:
        ``torch.nn.AdaptiveAvgPool1d``.
    """

    _ndim = 1
    _pool = staticmethod(adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    r"""Mean of each of a given number of windows, which cover an image as evenly as possible.

    Window ``i`` of ``O`` along an axis of ``S`` elements reaches from :math:`\lfloor i S / O \rfloor` to
    :math:`\lceil (i + 1) S / O \rceil`, without the latter.

    Args:
        output_size: number of windows; an int or a pair (height, width); ``None`` for an axis
            keeps its size.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, HO, WO)``, the given sizes, or the same without ``N``.

    Raises:
        ShapeMismatchError: wrong number of axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.AdaptiveAvgPool2d((3, None))(jnp.ones((1, 8, 7, 9))).shape
        (1, 8, 3, 9)

    Reference:
        ``torch.nn.AdaptiveAvgPool2d``.
    """

    _ndim = 2
    _pool = staticmethod(adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    r"""Mean of each of a given number of windows, which cover a volume as evenly as possible.

    Window ``i`` of ``O`` along an axis of ``S`` elements reaches from :math:`\lfloor i S / O \rfloor` to
    :math:`\lceil (i + 1) S / O \rceil`, without the latter.

    Args:
        output_size: number of windows; an int or a triple (depth, height, width); ``None`` for an axis
            keeps its size.

    Shape:
        ``(N, C, D, H, W)`` to ``(N, C, DO, HO, WO)``, the given sizes, or the same without ``N``.

    Raises:
        ShapeMismatchError: wrong number of axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.AdaptiveAvgPool3d(2)(jnp.ones((1, 8, 3, 4, 5))).shape
        (1, 8, 2, 2, 2)

    Reference:
        ``torch.nn.AdaptiveAvgPool3d``.
    """

    _ndim = 3
    _pool = staticmethod(adaptive_avg_pool3d)


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    r"""Largest value of each of a given number of windows, which cover a sequence as evenly as possible.

    Window ``i`` of ``O`` along an axis of ``S`` elements reaches from :math:`\lfloor i S / O \rfloor` to
    :math:`\lceil (i + 1) S / O \rceil`, without the latter.

    Args:
        output_size: number of windows; an int; ``None`` for an axis
            keeps its size.
        return_indices: also return the index of each maximum into its channel.

    Shape:
        ``(N, C, L)`` to ``(N, C, LO)``, the given sizes, or the same without ``N``.

    Raises:
        ShapeMismatchError: wrong number of axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.AdaptiveMaxPool1d(5)(jnp.ones((1, 8, 12))).shape
        (1, 8, 5)

    Reference:
        ``torch.nn.AdaptiveMaxPool1d``.
    """

    _ndim = 1
    _pool = staticmethod(adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    r"""Largest value of each of a given number of windows, which cover an image as evenly as possible.

    Window ``i`` of ``O`` along an axis of ``S`` elements reaches from :math:`\lfloor i S / O \rfloor` to
    :math:`\lceil (i + 1) S / O \rceil`, without the latter.

    Args:
        output_size: number of windows; an int or a pair (height, width); ``None`` for an axis
            keeps its size.
        return_indices: also return the index of each maximum into its flattened channel.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, HO, WO)``, the given sizes, or the same without ``N``.

    Raises:
        ShapeMismatchError: wrong number of axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.AdaptiveMaxPool2d((3, None))(jnp.ones((1, 8, 7, 9))).shape
        (1, 8, 3, 9)

    Reference:
        ``torch.nn.AdaptiveMaxPool2d``.
    """

    _ndim = 2
    _pool = staticmethod(adaptive_max_pool2d)


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    r"""Largest value of each of a given number of windows, which cover a volume as evenly as possible.

    Window ``i`` of ``O`` along an axis of ``S`` elements reaches from :math:`\lfloor i S / O \rfloor` to
    :math:`\lceil (i + 1) S / O \rceil`, without the latter.

    Args:
        output_size: number of windows; an int or a triple (depth, height, width); ``None`` for an axis
            keeps its size.
        return_indices: also return the index of each maximum into its flattened channel.

    Shape:
        ``(N, C, D, H, W)`` to ``(N, C, DO, HO, WO)``, the given sizes, or the same without ``N``.

    Raises:
        ShapeMismatchError: wrong number of axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.AdaptiveMaxPool3d(2)(jnp.ones((1, 8, 3, 4, 5))).shape
        (1, 8, 2, 2, 2)

    Reference:
        ``torch.nn.AdaptiveMaxPool3d``.
    """

    _ndim = 3
    _pool = staticmethod(adaptive_max_pool3d)
