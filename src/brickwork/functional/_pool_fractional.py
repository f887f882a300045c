"""Pooling windows at random distances."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _checks as checks, _windows as win
from ._pool_max import real_array

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Num

    from ._types import ArrayLike


def fractional_max_pool2d(
    x: Num[ArrayLike, "*n c h w"],
    kernel_size: int | tuple[int, int],
    output_size: int | tuple[int, int] | None = None,
    output_ratio: float | tuple[float, float] | None = None,
    return_indices: bool = False,
    _random_samples: Float[ArrayLike, "n c 2"] | None = None,
    *,
    key: Array | None = None,
) -> Any:
    r"""Take the largest value of windows whose distances are random, one sequence for each channel and axis.

    Along an axis of ``S`` elements, with ``O`` windows of ``K`` elements and a random number ``u``
    from ``[0, 1)``, window ``i`` starts at

    .. math:: \lfloor \alpha (i + u) \rfloor - \lfloor \alpha u \rfloor, \quad
        \alpha = \frac{S - K}{O - 1},

    and the last one at :math:`S - K`.

    Args:
        x: images ``(N, C, H, W)``, or one image ``(C, H, W)``; floats or integers.
        kernel_size: size of the window; an int or a pair (height, width), as below.
        output_size: number of windows along each axis.
        output_ratio: the same as a fraction of the image, between 0 and 1; give one of the two.
        return_indices: also return where the maxima are.
        _random_samples: the random numbers, ``(N, C, 2)``, with ``N = 1`` for one image; for the
            width first, then for the height.
        key: the random key to draw them with; give one of the two.

    Returns:
        Array of shape ``(N, C, HO, WO)`` or ``(C, HO, WO)``. With ``return_indices``: a pair of it and
        an integer array of the same shape, each maximum's index into its flattened channel.

    Raises:
        ShapeMismatchError: wrong number of axes, or more windows than fit into the image.
        TypeError: ``x`` is not an array of real numbers, or there are no random numbers.
        ValueError: an option is out of range.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.fractional_max_pool2d(jnp.ones((1, 8, 9, 9)), 2, output_ratio=0.7, key=jax.random.key(0)).shape
        (1, 8, 6, 6)

    Reference:
        Graham, "Fractional Max-Pooling", 2014; ``torch.nn.functional.fractional_max_pool2d``.
    """
    options = (kernel_size, output_size, output_ratio)
    return _fractional("fractional_max_pool2d", 2, x, options, return_indices, _random_samples, key)


def fractional_max_pool3d(
    x: Num[ArrayLike, "*n c d h w"],
    kernel_size: int | tuple[int, int, int],
    output_size: int | tuple[int, int, int] | None = None,
    output_ratio: float | tuple[float, float, float] | None = None,
    return_indices: bool = False,
    _random_samples: Float[ArrayLike, "n c 3"] | None = None,
    *,
    key: Array | None = None,
) -> Any:
    r"""Take the largest value of windows whose distances are random, one sequence for each channel and axis.

    Along an axis of ``S`` elements, with ``O`` windows of ``K`` elements and a random number ``u``
    from ``[0, 1)``, window ``i`` starts at

    .. math:: \lfloor \alpha (i + u) \rfloor - \lfloor \alpha u \rfloor, \quad
        \alpha = \frac{S - K}{O - 1},

    and the last one at :math:`S - K`.

    Args:
        x: volumes ``(N, C, D, H, W)``, or one volume ``(C, D, H, W)``; floats or integers.
        kernel_size: size of the window; an int or a triple (depth, height, width), as below.
        output_size: number of windows along each axis.
        output_ratio: the same as a fraction of the volume, between 0 and 1; give one of the two.
        return_indices: also return where the maxima are.
        _random_samples: the random numbers, ``(N, C, 3)``, with ``N = 1`` for one volume; for the
            depth, the height and the width.
        key: the random key to draw them with; give one of the two.

    Returns:
        Array of shape ``(N, C, DO, HO, WO)`` or ``(C, DO, HO, WO)``. With ``return_indices``: a pair of
        it and an integer array of the same shape, each maximum's index into its flattened channel.

    Raises:
        ShapeMismatchError: wrong number of axes, or more windows than fit into the volume.
        TypeError: ``x`` is not an array of real numbers, or there are no random numbers.
        ValueError: an option is out of range.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.fractional_max_pool3d(jnp.ones((2, 5, 5, 5)), 2, 3, key=jax.random.key(0)).shape
        (2, 3, 3, 3)

    Reference:
        Graham, "Fractional Max-Pooling", 2014; ``torch.nn.functional.fractional_max_pool3d``.
    """
    options = (kernel_size, output_size, output_ratio)
    return _fractional("fractional_max_pool3d", 3, x, options, return_indices, _random_samples, key)


def _fractional(
    function: str, ndim: int, x: Any, options: tuple[Any, ...], indices: Any, samples: Any, key: Any
) -> Any:
    x = real_array(x, function)
    checks.require_spatial(x, ndim, function)
    kernel, out = checks.cached(_geometry, function, x.shape[-ndim:], *options)
    for k, o, size in zip(kernel, out, x.shape[-ndim:], strict=True):
        if o + k - 1 > size:
            checks.shape_error(
                function,
                f"{o} windows of {k} do not fit into an axis of {size}: there are only {max(size - k + 1, 0)} places.",
                "Use a smaller window or fewer of them.",
                x=x,
            )
    if (samples is None) == (key is None):
        raise TypeError(f"{function}: give the random numbers either as key or as _random_samples.")
    shape = (*x.shape[: x.ndim - ndim], ndim)
    shape = shape if len(shape) == 3 else (1, *shape)
    if samples is None:
        checks.require_key(key, function)
        return _draw(x, key, kernel=kernel, out=out, shape=shape, indices=bool(indices))
    samples = checks.to_array(samples, function, "_random_samples")
    checks.require_inexact(samples, function, "_random_samples")
    if samples.shape != shape:
        checks.shape_error(
            function,
            f"_random_samples must have shape {shape}, a number for each channel and axis.",
            "Check the arguments.",
            _random_samples=samples,
            x=x,
        )
    return _fractional_max_pool(x, samples, kernel=kernel, out=out, indices=bool(indices))


@functools.lru_cache(maxsize=1024, typed=True)
def _geometry(
    function: str, image: tuple[int, ...], kernel_size: Any, output_size: Any, output_ratio: Any
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    ndim = len(image)
    kernels = checks.sizes(kernel_size, ndim, function, "kernel_size")
    sizes, ratios = check_output(output_size, output_ratio, ndim, function)
    if sizes is None:
        sizes = tuple(int(n * r) for n, r in zip(image, ratios or (), strict=True))
        if min(sizes) < 1:
            raise ValueError(f"{function}: output_ratio={output_ratio} of {image} leaves no window. Use a larger one.")
    return kernels, sizes


def check_output(
    size: Any, ratio: Any, ndim: int, function: str
) -> tuple[tuple[int, ...] | None, tuple[float, ...] | None]:
    """Check that one of the two is given, and return it for each axis."""
    if (size is None) == (ratio is None):
        raise ValueError(f"{function}: give output_size or output_ratio, one of the two.")
    if size is not None:
        return checks.sizes(size, ndim, function, "output_size"), None
    ratios = tuple(ratio) if isinstance(ratio, (tuple, list)) else (ratio,) * ndim
    if len(ratios) != ndim:
        raise ValueError(f"{function}: output_ratio must be a number, or {ndim} numbers, got {ratio!r}.")
    for r in ratios:
        if isinstance(r, bool) or not isinstance(r, (int, float, np.floating)):
            raise TypeError(f"{function}: output_ratio must be a Python number, got {r!r} ({type(r).__name__}).")
        if not 0 < r < 1:
            raise ValueError(f"{function}: output_ratio must be between 0 and 1, got {r!r}.")
    return None, tuple(float(r) for r in ratios)


@functools.partial(jax.jit, static_argnames=("kernel", "out", "shape", "indices"))
def _draw(
    x: Array, key: Array, *, kernel: tuple[int, ...], out: tuple[int, ...], shape: tuple[int, ...], indices: bool
) -> Any:
    samples = jax.random.uniform(key, shape, jnp.float32)
    return _fractional_max_pool(x, samples, kernel=kernel, out=out, indices=indices)


@functools.partial(jax.jit, static_argnames=("kernel", "out", "indices"))
def _fractional_max_pool(
    x: Array, samples: Array, *, kernel: tuple[int, ...], out: tuple[int, ...], indices: bool
) -> Any:
    samples = samples.astype(checks.statistics_dtype(samples.dtype))
    lead = x.shape[: x.ndim - len(kernel)]
    samples = samples.reshape(*lead, len(kernel))
    if len(kernel) == 2:
        samples = samples[..., ::-1]  # that of the width comes first
    sizes = x.shape[x.ndim - len(kernel) :]
    windows = [
        win.Drawn(k, _starts(samples[..., i : i + 1], size, k, o), size)
        for i, (size, k, o) in enumerate(zip(sizes, kernel, out, strict=True))
    ]
    y, places = win.maxima(x, windows, indices)
    return (y, places) if indices else y


def _starts(sample: Array, size: int, kernel: int, out: int) -> Array:
    """Return where the windows along an axis start, ``(*, out)``."""
    last = jnp.full((*sample.shape[:-1], 1), size - kernel, jnp.int32)
    if out == 1:
        return last
    alpha = jnp.asarray((size - kernel) / (out - 1), sample.dtype)
    before = jnp.arange(out - 1, dtype=sample.dtype)
    starts = ((before + sample) * alpha).astype(jnp.int32) - (sample * alpha).astype(jnp.int32)
    return jnp.concatenate([starts, last], -1)
