"""Pooling.

Windows are reduced one axis at a time, small ones by combining shifted slices: that is several times
faster on a CPU than ``reduce_window`` and its gradient, overlapping windows included, and can be
differentiated any number of times in either mode.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from . import _checks as checks

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Num

    from ._types import ArrayLike

_LARGEST_SLICED = 6  # longer windows make a program of too many slices


class _Axis(NamedTuple):
    """The windows along one axis."""

    kernel: int
    stride: int
    padding: int
    dilation: int
    size: int  # of the image
    out: int  # number of windows

    @property
    def missing(self) -> int:
        """How many elements the last window needs beyond the end of the image."""
        last = (self.out - 1) * self.stride + self.dilation * (self.kernel - 1) + 1
        return max(last - self.padding - self.size, 0)


def max_pool2d(
    x: Num[ArrayLike, "*n c h w"],
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    ceil_mode: bool = False,
) -> Num[Array, "*n c ho wo"]:
    r"""Take the largest value of each window of each channel.

    .. math:: y_{n,c,i,j} = \max_{u,v} \, x_{n,c,\, s i + d u - p,\, s j + d v - p}

    Args:
        x: images ``(N, C, H, W)``, or one image ``(C, H, W)``; floats or integers.
        kernel_size: size of the window; an int or a pair (height, width), as below.
        stride: the step between windows; ``None``: the size of the window.
        padding: rows and columns added on each side, which never are the maximum; at most half
            of the window.
        dilation: the step between the elements of a window.
        ceil_mode: also use windows that reach beyond the end of the image.

    Returns:
        Array of shape ``(N, C, HO, WO)`` or ``(C, HO, WO)``, with
        ``HO = (H + 2 * padding - dilation * (KH - 1) - 1) // stride + 1`` (rounded up under
        ``ceil_mode``). NaN in a window gives NaN. The gradient goes to the first of several
        equal maxima.

    Raises:
        ShapeMismatchError: wrong number of axes, or a window larger than the padded image.
        TypeError: ``x`` is not an array of real numbers.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.max_pool2d(jnp.arange(16.0).reshape(1, 4, 4), 2).tolist()
        [[[5.0, 7.0], [13.0, 15.0]]]

    Reference:
        ``torch.nn.functional.max_pool2d``.
    """
    x = checks.to_array(x, "max_pool2d", "x")
    if x.dtype.kind in "bc":
        raise TypeError(f"max_pool2d: x must hold real numbers, got {checks.describe(x)}. Cast it first.")
    axes = _windows("max_pool2d", x, kernel_size, stride, padding, dilation, ceil_mode)
    return _max_pool2d(x, rows=axes[0], columns=axes[1])


def avg_pool2d(
    x: Float[ArrayLike, "*n c h w"],
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Float[Array, "*n c ho wo"]:
    r"""Take the mean of each window of each channel.

    .. math:: y_{n,c,i,j} = \frac{1}{K_H K_W} \sum_{u,v} x_{n,c,\, s i + u - p,\, s j + v - p}

    Args:
        x: images ``(N, C, H, W)``, or one image ``(C, H, W)``.
        kernel_size: size of the window; an int or a pair (height, width), as below.
        stride: the step between windows; ``None``: the size of the window.
        padding: zeros added on each side; at most half of the window.
        ceil_mode: also use windows that reach beyond the end of the image.
        count_include_pad: whether the zeros of the padding count in the mean.

    Returns:
        Array of shape ``(N, C, HO, WO)`` or ``(C, HO, WO)``, with
        ``HO = (H + 2 * padding - KH) // stride + 1`` (rounded up under ``ceil_mode``).
        Half-precision input is summed in float32.

    Raises:
        ShapeMismatchError: wrong number of axes, or a window larger than the padded image.
        TypeError: ``x`` is not an array of floating-point numbers.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.avg_pool2d(jnp.arange(16.0).reshape(1, 4, 4), 2).tolist()
        [[[2.5, 4.5], [10.5, 12.5]]]

    Reference:
        ``torch.nn.functional.avg_pool2d``.
    """
    x = checks.to_array(x, "avg_pool2d", "x")
    checks.require_inexact(x, "avg_pool2d", "x")
    axes = _windows("avg_pool2d", x, kernel_size, stride, padding, 1, ceil_mode)
    return _avg_pool2d(x, rows=axes[0], columns=axes[1], include_pad=bool(count_include_pad))


def _windows(function: str, x: Array, kernel: Any, stride: Any, *options: Any) -> Any:
    checks.require_spatial(x, 2, function)
    axes = checks.cached(_geometry, function, x.shape[-2:], kernel, stride, *options)
    for axis in axes:
        if axis.out < 1:
            pads = [(a.padding, a.padding) for a in axes]
            checks.window_too_large(x, function, tuple(a.kernel for a in axes), [a.dilation for a in axes], pads)
    return axes


@functools.lru_cache(maxsize=1024, typed=True)
def _geometry(
    function: str,
    image: tuple[int, int],
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
) -> tuple[_Axis, _Axis]:
    kernels = checks.sizes(kernel_size, 2, function, "kernel_size")
    strides = kernels if stride is None else checks.sizes(stride, 2, function, "stride")
    paddings = checks.sizes(padding, 2, function, "padding", 0)
    dilations = checks.sizes(dilation, 2, function, "dilation")
    axes = []
    for k, s, p, d, size in zip(kernels, strides, paddings, dilations, image, strict=True):
        if p > k // 2:
            raise ValueError(
                f"{function}: padding must be at most half of kernel_size, "
                f"got padding={padding}, kernel_size={kernel_size}."
            )
        room = size + 2 * p - d * (k - 1) - 1
        out = (room + s - 1 if ceil_mode else room) // s + 1
        if ceil_mode and (out - 1) * s >= size + p:  # a window must begin inside the image
            out -= 1
        axes.append(_Axis(k, s, p, d, size, out if room >= 0 else 0))
    return axes[0], axes[1]


def _reduce(
    x: Array,
    axis: int,
    windows: _Axis,
    combine: Callable[[Array, Array], Array],
    reducer: Callable[[Any, Any], Any],
    value: Any,
) -> Array:
    """Reduce the windows along one axis."""

    def part(i: int) -> Array:  # element i of every window
        start = i * windows.dilation
        limit = start + (windows.out - 1) * windows.stride + 1
        return lax.slice_in_dim(x, start, limit, windows.stride, axis)

    if windows.kernel <= _LARGEST_SLICED or windows.dilation > 1:
        return functools.reduce(combine, map(part, range(windows.kernel)))
    ones = [1] * x.ndim
    size, step = ones.copy(), ones.copy()
    size[axis], step[axis] = windows.kernel, windows.stride
    value = np.asarray(value, x.dtype)  # a concrete value: JAX then knows the gradient
    y = lax.reduce_window(x, value, reducer, size, step, "VALID")
    return lax.slice_in_dim(y, 0, windows.out, 1, axis)


def _pad(x: Array, rows: _Axis, columns: _Axis, value: Any) -> Array:
    config = [(0, 0, 0)] * (x.ndim - 2) + [(a.padding, a.missing, 0) for a in (rows, columns)]
    return lax.pad(x, jnp.asarray(value, x.dtype), config) if any(map(any, config)) else x


def _first_larger(a: Array, b: Array) -> Array:
    """Return the maximum; its gradient goes to ``a`` on a tie. NaN wins."""
    larger = b > a
    if checks.is_inexact(b):
        larger = larger | (b != b)
    return jnp.where(larger, b, a)


@functools.partial(jax.jit, static_argnames=("rows", "columns"))
def _max_pool2d(x: Array, *, rows: _Axis, columns: _Axis) -> Array:
    lowest = -np.inf if checks.is_inexact(x) else jnp.iinfo(x.dtype).min
    x = _pad(x, rows, columns, lowest)
    # Columns first: on a tie, what is left is then the first in row-major order.
    y = _reduce(x, x.ndim - 1, columns, _first_larger, lax.max, lowest)
    return _reduce(y, x.ndim - 2, rows, _first_larger, lax.max, lowest)


@functools.partial(jax.jit, static_argnames=("rows", "columns", "include_pad"))
def _avg_pool2d(x: Array, *, rows: _Axis, columns: _Axis, include_pad: bool) -> Array:
    dtype = checks.statistics_dtype(x.dtype)
    total = _pad(x.astype(dtype), rows, columns, 0)
    for axis, windows in ((x.ndim - 1, columns), (x.ndim - 2, rows)):
        if windows.kernel == windows.stride > _LARGEST_SLICED:
            total = _sum_disjoint(total, axis, windows)
        else:
            total = _reduce(total, axis, windows, lax.add, lax.add, 0)
    counts = np.outer(_counts(rows, include_pad), _counts(columns, include_pad))
    if (counts == counts[0, 0]).all():
        counts = counts[0, 0]
    return (total * jnp.asarray(1 / counts, dtype)).astype(x.dtype)


def _sum_disjoint(x: Array, axis: int, windows: _Axis) -> Array:
    used = lax.slice_in_dim(x, 0, windows.out * windows.kernel, 1, axis)
    parts = used.reshape(*x.shape[:axis], windows.out, windows.kernel, *x.shape[axis + 1 :])
    return parts.sum(axis + 1)


def _counts(windows: _Axis, include_pad: bool) -> np.ndarray:
    """Return how many elements of each window count in its mean."""
    start = np.arange(windows.out) * windows.stride - windows.padding
    end = np.minimum(start + windows.kernel, windows.size + windows.padding)
    if not include_pad:
        start, end = np.maximum(start, 0), np.minimum(end, windows.size)
    return (end - start).astype(np.float64)
