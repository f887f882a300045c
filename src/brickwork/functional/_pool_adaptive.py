"""Pooling to a given size."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _checks as checks, _windows as win
from ._pool_max import maxima, real_array
from ._resample import Taps, resample

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Num

    from ._types import ArrayLike


def adaptive_avg_pool1d(
    x: Float[ArrayLike, "*n c l"],
    output_size: int | tuple[int | None] | None,
) -> Float[Array, "*n c lo"]:
    r"""Take the mean of windows that cover a sequence as evenly as possible.

    Window ``i`` of ``O`` along an axis of ``S`` elements reaches from ``floor(i S / O)`` to
    ``ceil((i + 1) S / O)``, without the latter.

    Args:
        x: sequences ``(N, C, L)``, or one sequence ``(C, L)``.
        output_size: number of windows; an int; ``None`` for an axis keeps
            its size.

    Returns:
        Array of shape ``(N, C, LO)`` or ``(C, LO)``. Half-precision input is summed in
        float32.

    Raises:
        ShapeMismatchError: wrong number of axes, or a sequence without elements.
        TypeError: ``x`` is not an array of floating-point numbers.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.adaptive_avg_pool1d(jnp.arange(5.0)[None], 3).tolist()
        [[0.5, 2.0, 3.5]]

    Reference:
        ``torch.nn.functional.adaptive_avg_pool1d``.
    """
    return _mean("adaptive_avg_pool1d", 1, x, output_size)


def adaptive_avg_pool2d(
    x: Float[ArrayLike, "*n c h w"],
    output_size: int | tuple[int | None, int | None] | None,
) -> Float[Array, "*n c ho wo"]:
    r"""Take the mean of windows that cover an image as evenly as possible.

    Window ``i`` of ``O`` along an axis of ``S`` elements reaches from ``floor(i S / O)`` to
    ``ceil((i + 1) S / O)``, without the latter.

    Args:
        x: images ``(N, C, H, W)``, or one image ``(C, H, W)``.
        output_size: number of windows; an int or a pair (height, width); ``None`` for an axis keeps
            its size.

    Returns:
        Array of shape ``(N, C, HO, WO)`` or ``(C, HO, WO)``. Half-precision input is summed in
        float32.

    Raises:
        ShapeMismatchError: wrong number of axes, or an image without elements.
        TypeError: ``x`` is not an array of floating-point numbers.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.adaptive_avg_pool2d(jnp.arange(16.0).reshape(1, 4, 4), (2, 1)).tolist()
        [[[3.5], [11.5]]]

    Reference:
        ``torch.nn.functional.adaptive_avg_pool2d``.
    """
    return _mean("adaptive_avg_pool2d", 2, x, output_size)


def adaptive_avg_pool3d(
    x: Float[ArrayLike, "*n c d h w"],
    output_size: int | tuple[int | None, int | None, int | None] | None,
) -> Float[Array, "*n c do ho wo"]:
    r"""Take the mean of windows that cover a volume as evenly as possible.

    Window ``i`` of ``O`` along an axis of ``S`` elements reaches from ``floor(i S / O)`` to
    ``ceil((i + 1) S / O)``, without the latter.

    Args:
        x: volumes ``(N, C, D, H, W)``, or one volume ``(C, D, H, W)``.
        output_size: number of windows; an int or a triple (depth, height, width); ``None`` for an axis keeps
            its size.

    Returns:
        Array of shape ``(N, C, DO, HO, WO)`` or ``(C, DO, HO, WO)``. Half-precision input is summed in
        float32.

    Raises:
        ShapeMismatchError: wrong number of axes, or a volume without elements.
        TypeError: ``x`` is not an array of floating-point numbers.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.adaptive_avg_pool3d(jnp.arange(8.0).reshape(1, 2, 2, 2), 1).tolist()
        [[[[3.5]]]]

    Reference:
        ``torch.nn.functional.adaptive_avg_pool3d``.
    """
    return _mean("adaptive_avg_pool3d", 3, x, output_size)


def adaptive_max_pool1d(
    x: Num[ArrayLike, "*n c l"],
    output_size: int | tuple[int | None] | None,
    return_indices: bool = False,
) -> Any:
    r"""Take the largest value of windows that cover a sequence as evenly as possible.

    Window ``i`` of ``O`` along an axis of ``S`` elements reaches from ``floor(i S / O)`` to
    ``ceil((i + 1) S / O)``, without the latter.

    Args:
        x: sequences ``(N, C, L)``, or one sequence ``(C, L)``; floats or integers.
        output_size: number of windows; an int; ``None`` for an axis keeps
            its size.
        return_indices: also return where the maxima are.

    Returns:
        Array of shape ``(N, C, LO)`` or ``(C, LO)``. The gradient goes to the first of several equal maxima. With
        ``return_indices``: a pair of it and an integer array of the same shape, each maximum's index
        into its channel.

    Raises:
        ShapeMismatchError: wrong number of axes, or a sequence without elements.
        TypeError: ``x`` is not an array of real numbers.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.adaptive_max_pool1d(jnp.arange(5.0)[None], 3).tolist()
        [[1.0, 3.0, 4.0]]

    Reference:
        ``torch.nn.functional.adaptive_max_pool1d``.
    """
    x = real_array(x, "adaptive_max_pool1d")
    windows = _windows("adaptive_max_pool1d", 1, x, output_size)
    return maxima(x, windows=windows, indices=checks.flag(return_indices, "adaptive_max_pool1d", "return_indices"))


def adaptive_max_pool2d(
    x: Num[ArrayLike, "*n c h w"],
    output_size: int | tuple[int | None, int | None] | None,
    return_indices: bool = False,
) -> Any:
    r"""Take the largest value of windows that cover an image as evenly as possible.

    Window ``i`` of ``O`` along an axis of ``S`` elements reaches from ``floor(i S / O)`` to
    ``ceil((i + 1) S / O)``, without the latter.

    Args:
        x: images ``(N, C, H, W)``, or one image ``(C, H, W)``; floats or integers.
        output_size: number of windows; an int or a pair (height, width); ``None`` for an axis keeps
            its size.
        return_indices: also return where the maxima are.

    Returns:
        Array of shape ``(N, C, HO, WO)`` or ``(C, HO, WO)``. The gradient goes to the first
        of several equal maxima. With ``return_indices``: a pair of it and an integer array of the same
        shape, each maximum's index into its flattened channel.

    Raises:
        ShapeMismatchError: wrong number of axes, or an image without elements.
        TypeError: ``x`` is not an array of real numbers.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.adaptive_max_pool2d(jnp.arange(16.0).reshape(1, 4, 4), (2, 1)).tolist()
        [[[7.0], [15.0]]]

    Reference:
        ``torch.nn.functional.adaptive_max_pool2d``.
    """
    x = real_array(x, "adaptive_max_pool2d")
    windows = _windows("adaptive_max_pool2d", 2, x, output_size)
    return maxima(x, windows=windows, indices=checks.flag(return_indices, "adaptive_max_pool2d", "return_indices"))


def adaptive_max_pool3d(
    x: Num[ArrayLike, "*n c d h w"],
    output_size: int | tuple[int | None, int | None, int | None] | None,
    return_indices: bool = False,
) -> Any:
    r"""Take the largest value of windows that cover a volume as evenly as possible.

    Window ``i`` of ``O`` along an axis of ``S`` elements reaches from ``floor(i S / O)`` to
    ``ceil((i + 1) S / O)``, without the latter.

    Args:
        x: volumes ``(N, C, D, H, W)``, or one volume ``(C, D, H, W)``; floats or integers.
        output_size: number of windows; an int or a triple (depth, height, width); ``None`` for an axis keeps
            its size.
        return_indices: also return where the maxima are.

    Returns:
        Array of shape ``(N, C, DO, HO, WO)`` or ``(C, DO, HO, WO)``. The gradient goes to the first
        of several equal maxima. With ``return_indices``: a pair of it and an integer array of the same
        shape, each maximum's index into its flattened channel.

    Raises:
        ShapeMismatchError: wrong number of axes, or a volume without elements.
        TypeError: ``x`` is not an array of real numbers.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.adaptive_max_pool3d(jnp.arange(8.0).reshape(1, 2, 2, 2), 1).tolist()
        [[[[7.0]]]]

    Reference:
        ``torch.nn.functional.adaptive_max_pool3d``.
    """
    x = real_array(x, "adaptive_max_pool3d")
    windows = _windows("adaptive_max_pool3d", 3, x, output_size)
    return maxima(x, windows=windows, indices=checks.flag(return_indices, "adaptive_max_pool3d", "return_indices"))


def _mean(function: str, ndim: int, x: Any, output_size: Any) -> Array:
    x = checks.to_array(x, function, "x")
    checks.require_inexact(x, function, "x")
    return adaptive_means(x, windows=_windows(function, ndim, x, output_size))


def _windows(function: str, ndim: int, x: Array, output_size: Any) -> tuple[win.AnyWindows, ...]:
    checks.require_spatial(x, ndim, function)
    windows = checks.cached(_geometry, function, x.shape[-ndim:], output_size)
    if any(w.size == 0 for w in windows):
        checks.shape_error(function, "x has no elements to pool.", "Check the data.", x=x)
    return windows


@functools.lru_cache(maxsize=1024, typed=True)
def _geometry(function: str, image: tuple[int, ...], output_size: Any) -> tuple[win.AnyWindows, ...]:
    wanted = output_sizes(output_size, len(image), function)
    return tuple(
        win.adaptive(size, max(size, 1) if out is None else out) for size, out in zip(image, wanted, strict=True)
    )


def output_sizes(value: Any, ndim: int, function: str) -> tuple[int | None, ...]:
    """Return a size, or one for each spatial axis, as a tuple; ``None`` stands for that of the input."""
    values = value if isinstance(value, (tuple, list)) else (value,) * ndim
    if len(values) != ndim:
        checks.sizes(value, ndim, function, "output_size")  # raises
    return tuple(None if v is None else checks.integer(v, function, "output_size", 1) for v in values)


@functools.partial(jax.jit, static_argnames="windows")
def adaptive_means(x: Array, *, windows: tuple[win.AnyWindows, ...]) -> Array:
    """Return the means of windows that need no padding."""
    y = x.astype(checks.statistics_dtype(x.dtype))
    for i, w in reversed(list(enumerate(windows))):
        axis = x.ndim - len(windows) + i
        if isinstance(w, win.Irregular):
            y = resample(y, axis, _means(w))
        elif isinstance(w, win.Regular) and w.kernel > 1:
            y = win.sum_along(y, axis, w) * jnp.asarray(1 / w.kernel, y.dtype)
    return y.astype(x.dtype)


def _means(windows: win.Irregular) -> Taps:
    """Return the means of windows of several sizes as weighted sums."""
    starts, ends = np.asarray(windows.starts)[:, None], np.asarray(windows.ends)[:, None]
    places = starts + np.arange(windows.longest)
    return Taps(np.minimum(places, ends - 1), (places < ends) / (ends - starts), windows.size)
