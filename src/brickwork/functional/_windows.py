"""Windows that slide over one to three spatial axes: their places, and reducing them.

Windows are reduced one axis at a time, small ones by combining shifted slices: that is several times
faster on a CPU than ``reduce_window`` and its gradient, overlapping windows included, and can be
differentiated any number of times in either mode.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from . import _checks as checks

if TYPE_CHECKING:
    from jaxtyping import Array

_LARGEST_SLICED = 6  # longer windows make a program of too many slices

Pair = tuple[Any, Any]  # values, and where they were found: indices, or None


class Regular(NamedTuple):
    """Windows of one size along one axis, at equal distances."""

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

    def pick(self, x: Any, axis: int, offset: int) -> Any:
        """Return the element at ``offset`` from the start of every window."""
        limit = offset + (self.out - 1) * self.stride + 1
        return lax.slice_in_dim(x, offset, limit, self.stride, axis)

    def pick_last(self, x: Any, axis: int, length: int) -> Any:
        """Return the element that is ``length`` before the end of every window."""
        return self.pick(x, axis, self.kernel - length)

    @property
    def shortest(self) -> int:
        return self.kernel

    @property
    def longest(self) -> int:
        return self.kernel


class Irregular(NamedTuple):
    """Windows of any places and sizes along one axis."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    size: int  # of the image

    @property
    def out(self) -> int:
        return len(self.starts)

    @property
    def shortest(self) -> int:
        return min(e - s for s, e in zip(self.starts, self.ends, strict=True))

    @property
    def longest(self) -> int:
        return max(e - s for s, e in zip(self.starts, self.ends, strict=True))

    def pick(self, x: Any, axis: int, offset: int) -> Any:
        """Return the element at ``offset`` from the start of every window, or its last one."""
        return _take(x, np.minimum(np.asarray(self.starts) + offset, np.asarray(self.ends) - 1), axis)

    def pick_last(self, x: Any, axis: int, length: int) -> Any:
        """Return the element that is ``length`` before the end of every window."""
        return _take(x, np.asarray(self.ends) - length, axis)


class Drawn(NamedTuple):
    """Windows of one size along one axis, at places of its own for each channel."""

    kernel: int
    starts: Array  # (N, C, out), or without N
    size: int  # of the image

    @property
    def shortest(self) -> int:
        return self.kernel

    @property
    def longest(self) -> int:
        return self.kernel

    def pick(self, x: Any, axis: int, offset: int) -> Any:
        """Return the element at ``offset`` from the start of every window."""
        lead = self.starts.shape[:-1]
        shape = lead + tuple(self.starts.shape[-1] if i == axis else 1 for i in range(len(lead), x.ndim))
        return jnp.take_along_axis(x, self.starts.reshape(shape) + offset, axis, mode="clip")

    def pick_last(self, x: Any, axis: int, length: int) -> Any:
        """Return the element that is ``length`` before the end of every window."""
        return self.pick(x, axis, self.kernel - length)


AnyWindows = Regular | Irregular | Drawn


def _take(x: Any, places: np.ndarray, axis: int) -> Any:
    if x.shape[axis] == 1 and places.max() == 0:  # all the same, and a gather would be slow
        return jnp.broadcast_to(x, (*x.shape[:axis], len(places), *x.shape[axis + 1 :]))
    return jnp.take(x, places, axis, mode="clip")


def regular(function: str, ndim: int, x: Array, kernel: Any, stride: Any, *options: Any) -> tuple[Regular, ...]:
    """Check the options of a pooling function, and return the windows along each spatial axis."""
    checks.require_spatial(x, ndim, function)
    windows = checks.cached(_geometry, function, x.shape[-ndim:], kernel, stride, *options)
    for w in windows:
        if w.out < 1:
            pads = [(a.padding, a.padding) for a in windows]
            checks.window_too_large(x, function, tuple(a.kernel for a in windows), [a.dilation for a in windows], pads)
    return windows


@functools.lru_cache(maxsize=1024, typed=True)
def _geometry(
    function: str,
    image: tuple[int, ...],
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
) -> tuple[Regular, ...]:
    ndim = len(image)
    checks.flag(ceil_mode, function, "ceil_mode")
    kernels = checks.sizes(kernel_size, ndim, function, "kernel_size")
    strides = kernels if stride is None else checks.sizes(stride, ndim, function, "stride")
    paddings = checks.sizes(padding, ndim, function, "padding", 0)
    dilations = checks.sizes(dilation, ndim, function, "dilation")
    require_padding(function, kernels, paddings, kernel_size, padding)
    windows = []
    for k, s, p, d, size in zip(kernels, strides, paddings, dilations, image, strict=True):
        room = size + 2 * p - d * (k - 1) - 1
        out = (room + s - 1 if ceil_mode else room) // s + 1
        if ceil_mode and (out - 1) * s >= size + p:  # a window must begin inside the image
            out -= 1
        # With ceil_mode one window may be larger than all there is.
        windows.append(Regular(k, s, p, d, size, max(out, 0) if room >= 0 or ceil_mode else 0))
    return tuple(windows)


def require_padding(
    function: str, kernels: Sequence[int], paddings: Sequence[int], kernel_size: Any, padding: Any
) -> None:
    """Raise ``ValueError`` where a window could lie in the padding altogether."""
    if any(2 * p > k for k, p in zip(kernels, paddings, strict=True)):
        raise ValueError(
            f"{function}: padding must be at most half of kernel_size, "
            f"got padding={padding}, kernel_size={kernel_size}."
        )


def adaptive(size: int, out: int) -> AnyWindows:
    """Return ``out`` windows that cover an axis of ``size`` elements as evenly as possible."""
    if size % out == 0:
        return Regular(size // out, size // out, 0, 1, size, out)
    starts = tuple(i * size // out for i in range(out))
    ends = tuple(-(-(i + 1) * size // out) for i in range(out))
    return Irregular(starts, ends, size)


def pad(x: Array, windows: Sequence[AnyWindows], value: Any) -> Array:
    """Add what the windows need before and after the image."""
    lead = [(0, 0, 0)] * (x.ndim - len(windows))
    config = lead + [(w.padding, w.missing, 0) if isinstance(w, Regular) else (0, 0, 0) for w in windows]
    return lax.pad(x, jnp.asarray(value, x.dtype), config) if any(map(any, config)) else x


# -- maxima ---------------------------------------------------------------------------------------


def lowest(dtype: Any) -> Any:
    """Return the value that is never larger than another."""
    return -np.inf if jnp.issubdtype(dtype, jnp.inexact) else jnp.iinfo(dtype).min


def index_dtype() -> Any:
    """Return the dtype of indices: int32, or int64 when it is on."""
    return jax.dtypes.canonicalize_dtype(np.int64)


def first_larger(a: Pair, b: Pair) -> Pair:
    """Return the maximum and where it is; ``a``, and the gradient goes to it, on a tie. NaN wins."""
    (x, place), (y, other) = a, b
    larger = y > x
    if checks.is_inexact(y):
        larger = larger | (y != y)
    return jnp.where(larger, y, x), None if place is None else jnp.where(larger, other, place)


def maxima(x: Array, windows: Sequence[AnyWindows], with_indices: bool) -> Pair:
    """Return the largest value of each window and, if wanted, its index into the flattened image."""
    found: Pair = pad(x, windows, lowest(x.dtype)), None
    below = 1  # elements of the image per step along the axis
    # The last axis first: on a tie, what is left is then the first in row-major order.
    for i, w in reversed(list(enumerate(windows))):
        axis = x.ndim - len(windows) + i
        if with_indices:
            found = found[0], add_places(found[1], _places(w, found[0].shape[axis]) * below, axis, x.ndim)
        found = _largest(found, axis, w)
        below *= w.size
    y, places = found
    return y, None if places is None else jnp.broadcast_to(places, y.shape)


def _places(windows: AnyWindows, padded: int) -> np.ndarray:
    """Return which element of the image each one of the padded axis is.

    One of the padding stands for the first one inside the image in its windows, in case all are as low.
    """
    places = np.arange(padded)
    if not isinstance(windows, Regular):
        return places
    places -= windows.padding
    return np.minimum(np.where(places < 0, places % windows.dilation, places), windows.size - 1)


def add_places(index: Any, places: Any, axis: int, ndim: int) -> Any:
    """Add an axis's part to flat indices."""
    shape = [1] * ndim
    shape[axis] = -1
    places = jnp.asarray(places, index_dtype()).reshape(shape)
    return places if index is None else index + places


def _largest(found: Pair, axis: int, windows: AnyWindows) -> Pair:
    dilation = windows.dilation if isinstance(windows, Regular) else 1
    if windows.longest <= _LARGEST_SLICED or dilation > 1:
        parts = (_both(found, windows.pick, axis, i * dilation) for i in range(windows.longest))
        return functools.reduce(first_larger, parts)
    # Maxima of 2, 4, 8, ... elements from everywhere; two of those, which may overlap, make a window.
    length = 1
    while 2 * length <= windows.shortest:
        end = found[0].shape[axis]
        start = _both(found, _slice, axis, 0, end - length)
        found, length = first_larger(start, _both(found, _slice, axis, length, end)), 2 * length
    return first_larger(_both(found, windows.pick, axis, 0), _both(found, windows.pick_last, axis, length))


def _both(found: Pair, pick: Callable[..., Any], *options: Any) -> Pair:
    """Take the same elements of the values and of their places."""
    return pick(found[0], *options), None if found[1] is None else pick(found[1], *options)


def _slice(x: Any, axis: int, start: int, end: int) -> Any:
    return lax.slice_in_dim(x, start, end, 1, axis)


# -- sums -----------------------------------------------------------------------------------------


def sums(x: Array, windows: Sequence[Regular]) -> Array:
    """Return the sum of each window."""
    x = pad(x, windows, 0)
    for i, w in reversed(list(enumerate(windows))):
        x = sum_along(x, x.ndim - len(windows) + i, w)
    return x


def sum_along(x: Array, axis: int, windows: Regular) -> Array:
    """Return the sums of windows of a padded image along one axis."""
    kernel, stride, out = windows.kernel, windows.stride, windows.out
    if kernel <= _LARGEST_SLICED:
        return functools.reduce(lax.add, (windows.pick(x, axis, i) for i in range(kernel)))
    if kernel == stride:
        used = lax.slice_in_dim(x, 0, out * kernel, 1, axis)
        return used.reshape(*x.shape[:axis], out, kernel, *x.shape[axis + 1 :]).sum(axis + 1)
    size, step = [1] * x.ndim, [1] * x.ndim
    size[axis], step[axis] = kernel, stride
    zero = np.zeros((), x.dtype)  # a concrete value: JAX then knows the gradient
    return lax.slice_in_dim(lax.reduce_window(x, zero, lax.add, size, step, "VALID"), 0, out, 1, axis)


def counts(windows: Regular, include_pad: bool) -> np.ndarray:
    """Return how many elements of each window count in its mean."""
    start = np.arange(windows.out) * windows.stride - windows.padding
    end = np.minimum(start + windows.kernel, windows.size + windows.padding)
    if not include_pad:
        start, end = np.maximum(start, 0), np.minimum(end, windows.size)
    return (end - start).astype(np.float64)
