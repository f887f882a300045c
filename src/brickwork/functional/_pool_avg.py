"""Pooling by the mean, and by the power mean."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from . import _checks as checks, _windows as win
from ._pool_max import maxima

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from ._types import ArrayLike


def avg_pool1d(
    x: Float[ArrayLike, "*n c l"],
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Float[Array, "*n c lo"]:
    r"""Take the mean of each window of each channel.

    .. math:: y_{n,c,i} = \frac{1}{K} \sum_{u} x_{n,c,\, s i + u - p}

    Args:
        x: sequences ``(N, C, L)``, or one sequence ``(C, L)``.
        kernel_size: size of the window; an int.
        stride: the step between windows; ``None``: the size of the window.
        padding: zeros added on each side; at most half of the window.
        ceil_mode: also use windows that reach beyond the end of the sequence.
        count_include_pad: whether the zeros of the padding count in the mean.

    Returns:
        Array of shape ``(N, C, LO)`` or ``(C, LO)``, with
        ``LO = (L + 2 * padding - kernel_size) // stride + 1`` (rounded up under ``ceil_mode``).
        Half-precision input is summed in float32.

    Raises:
        ShapeMismatchError: wrong number of axes, or a window larger than the padded sequence.
        TypeError: ``x`` is not an array of floating-point numbers.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.avg_pool1d(jnp.arange(4.0).reshape(1, 4), 2).tolist()
        [[0.5, 2.5]]

    Reference:
        ``torch.nn.functional.avg_pool1d``.
    """
    options = (kernel_size, stride, padding, ceil_mode, count_include_pad)
    return _mean("avg_pool1d", 1, x, *options)


def avg_pool2d(
    x: Float[ArrayLike, "*n c h w"],
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
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
        divisor_override: divide the sums by this number instead of the number of elements.

    Returns:
        Array of shape ``(N, C, HO, WO)`` or ``(C, HO, WO)``, with
        ``HO = (H + 2 * padding - kernel_size) // stride + 1`` (rounded up under ``ceil_mode``).
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
    options = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return _mean("avg_pool2d", 2, x, *options)


def avg_pool3d(
    x: Float[ArrayLike, "*n c d h w"],
    kernel_size: int | tuple[int, int, int],
    stride: int | tuple[int, int, int] | None = None,
    padding: int | tuple[int, int, int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Float[Array, "*n c do ho wo"]:
    r"""Take the mean of each window of each channel.

    .. math:: y_{n,c,i,j,k} = \frac{1}{K_D K_H K_W} \sum_{u,v,w} x_{n,c,\, s i + u - p,\, s j + v - p,\, s k + w - p}

    Args:
        x: volumes ``(N, C, D, H, W)``, or one volume ``(C, D, H, W)``.
        kernel_size: size of the window; an int or a triple (depth, height, width), as below.
        stride: the step between windows; ``None``: the size of the window.
        padding: zeros added on each side; at most half of the window.
        ceil_mode: also use windows that reach beyond the end of the volume.
        count_include_pad: whether the zeros of the padding count in the mean.
        divisor_override: divide the sums by this number instead of the number of elements.

    Returns:
        Array of shape ``(N, C, DO, HO, WO)`` or ``(C, DO, HO, WO)``, with
        ``DO = (D + 2 * padding - kernel_size) // stride + 1`` (rounded up under ``ceil_mode``).
        Half-precision input is summed in float32.

    Raises:
        ShapeMismatchError: wrong number of axes, or a window larger than the padded volume.
        TypeError: ``x`` is not an array of floating-point numbers.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.avg_pool3d(jnp.arange(8.0).reshape(1, 2, 2, 2), 2).tolist()
        [[[[3.5]]]]

    Reference:
        ``torch.nn.functional.avg_pool3d``.
    """
    options = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return _mean("avg_pool3d", 3, x, *options)


def lp_pool1d(
    x: Float[ArrayLike, "*n c l"],
    norm_type: float,
    kernel_size: int,
    stride: int | None = None,
    ceil_mode: bool = False,
) -> Float[Array, "*n c lo"]:
    r"""Take the power mean of each window of each channel, without dividing: the p-norm of positive numbers.

    .. math:: y_{n,c,i} = \Big( \sum_{u} x_{n,c,\, s i + u}^p \Big)^{1/p}

    Args:
        x: sequences ``(N, C, L)``, or one sequence ``(C, L)``.
        norm_type: the power ``p``, a positive number; infinity: the largest absolute value.
        kernel_size: size of the window; an int.
        stride: the step between windows; ``None``: the size of the window.
        ceil_mode: also use windows that reach beyond the end of the sequence; their sums are scaled
            up to the full window.

    Returns:
        Array of shape ``(N, C, LO)`` or ``(C, LO)``, with
        ``LO = (L - kernel_size) // stride + 1`` (rounded up under ``ceil_mode``). NaN where a root
        of a negative number is taken: there are no absolute values for odd or broken ``p``.
        The gradient is zero where the sum is.

    Raises:
        ShapeMismatchError: wrong number of axes, or a window larger than the sequence.
        TypeError: ``x`` is not an array of floating-point numbers.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.lp_pool1d(jnp.array([[3.0, 4.0]]), 2, 2).tolist()
        [[5.0]]

    Reference:
        ``torch.nn.functional.lp_pool1d``.
    """
    return _power_mean("lp_pool1d", 1, x, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    x: Float[ArrayLike, "*n c h w"],
    norm_type: float,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    ceil_mode: bool = False,
) -> Float[Array, "*n c ho wo"]:
    r"""Take the power mean of each window of each channel, without dividing: the p-norm of positive numbers.

    .. math:: y_{n,c,i,j} = \Big( \sum_{u,v} x_{n,c,\, s i + u,\, s j + v}^p \Big)^{1/p}

    Args:
        x: images ``(N, C, H, W)``, or one image ``(C, H, W)``.
        norm_type: the power ``p``, a positive number; infinity: the largest absolute value.
        kernel_size: size of the window; an int or a pair (height, width), as below.
        stride: the step between windows; ``None``: the size of the window.
        ceil_mode: also use windows that reach beyond the end of the image; their sums are scaled
            up to the full window.

    Returns:
        Array of shape ``(N, C, HO, WO)`` or ``(C, HO, WO)``, with
        ``HO = (H - kernel_size) // stride + 1`` (rounded up under ``ceil_mode``). NaN where a root
        of a negative number is taken: there are no absolute values for odd or broken ``p``.
        The gradient is zero where the sum is.

    Raises:
        ShapeMismatchError: wrong number of axes, or a window larger than the image.
        TypeError: ``x`` is not an array of floating-point numbers.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.lp_pool2d(jnp.ones((1, 4, 4)), 2, 2).tolist()
        [[[2.0, 2.0], [2.0, 2.0]]]

    Reference:
        ``torch.nn.functional.lp_pool2d``.
    """
    return _power_mean("lp_pool2d", 2, x, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    x: Float[ArrayLike, "*n c d h w"],
    norm_type: float,
    kernel_size: int | tuple[int, int, int],
    stride: int | tuple[int, int, int] | None = None,
    ceil_mode: bool = False,
) -> Float[Array, "*n c do ho wo"]:
    r"""Take the power mean of each window of each channel, without dividing: the p-norm of positive numbers.

    .. math:: y_{n,c,i,j,k} = \Big( \sum_{u,v,w} x_{n,c,\, s i + u,\, s j + v,\, s k + w}^p \Big)^{1/p}

    Args:
        x: volumes ``(N, C, D, H, W)``, or one volume ``(C, D, H, W)``.
        norm_type: the power ``p``, a positive number; infinity: the largest absolute value.
        kernel_size: size of the window; an int or a triple (depth, height, width), as below.
        stride: the step between windows; ``None``: the size of the window.
        ceil_mode: also use windows that reach beyond the end of the volume; their sums are scaled
            up to the full window.

    Returns:
        Array of shape ``(N, C, DO, HO, WO)`` or ``(C, DO, HO, WO)``, with
        ``DO = (D - kernel_size) // stride + 1`` (rounded up under ``ceil_mode``). NaN where a root
        of a negative number is taken: there are no absolute values for odd or broken ``p``.
        The gradient is zero where the sum is.

    Raises:
        ShapeMismatchError: wrong number of axes, or a window larger than the volume.
        TypeError: ``x`` is not an array of floating-point numbers.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.lp_pool3d(jnp.full((1, 2, 2, 2), 0.5), 1, 2).tolist()
        [[[[4.0]]]]

    Reference:
        ``torch.nn.functional.lp_pool3d``.
    """
    return _power_mean("lp_pool3d", 3, x, norm_type, kernel_size, stride, ceil_mode)


def _mean(
    function: str,
    ndim: int,
    x: Any,
    kernel: Any,
    stride: Any,
    padding: Any,
    ceil_mode: Any,
    include_pad: Any,
    divisor: Any = None,
) -> Array:
    x = checks.to_array(x, function, "x")
    checks.require_inexact(x, function, "x")
    windows = win.regular(function, ndim, x, kernel, stride, padding, 1, ceil_mode)
    if divisor is not None:
        divisor = checks.integer(divisor, function, "divisor_override", 1)
    include_pad = checks.flag(include_pad, function, "count_include_pad")
    return _avg_pool(x, windows=windows, include_pad=include_pad, divisor=divisor)


@functools.partial(jax.jit, static_argnames=("windows", "include_pad", "divisor"))
def _avg_pool(x: Array, *, windows: tuple[win.Regular, ...], include_pad: bool, divisor: int | None) -> Array:
    total = win.sums(x.astype(checks.statistics_dtype(x.dtype)), windows)
    return (total * _reciprocals(windows, include_pad, divisor, total.dtype)).astype(x.dtype)


def _reciprocals(windows: tuple[win.Regular, ...], include_pad: bool, divisor: int | None, dtype: Any) -> Array:
    """Return what the sums of windows are multiplied by to be means."""
    if divisor is not None:
        return jnp.asarray(1 / divisor, dtype)
    counts = functools.reduce(np.multiply.outer, (win.counts(w, include_pad) for w in windows))
    first = counts[(0,) * counts.ndim]
    return jnp.asarray(1 / (first if (counts == first).all() else counts), dtype)


def _power_mean(function: str, ndim: int, x: Any, norm_type: Any, kernel: Any, stride: Any, ceil_mode: Any) -> Array:
    x = checks.to_array(x, function, "x")
    checks.require_floats(x, function, "x")
    power = check_norm(norm_type, function)
    windows = win.regular(function, ndim, x, kernel, stride, 0, 1, ceil_mode)
    if math.isinf(power):
        return maxima(abs(x), windows=windows, indices=False)
    return _lp_pool(x, windows=windows, power=power)


def check_norm(value: Any, function: str) -> float:
    """Return the power of a power mean as a ``float``."""
    if isinstance(value, bool) or not isinstance(value, (float, int, np.floating, np.integer)):
        raise TypeError(f"{function}: norm_type must be a Python number, got {value!r} ({type(value).__name__}).")
    if not value > 0:
        raise ValueError(f"{function}: norm_type must be positive, got {value!r}.")
    return float(value)


@functools.partial(jax.jit, static_argnames=("windows", "power"))
def _lp_pool(x: Array, *, windows: tuple[win.Regular, ...], power: float) -> Array:
    wide = x.astype(checks.statistics_dtype(x.dtype))
    whole = power == int(power)
    powers = lax.integer_pow(wide, int(power)) if whole else wide ** jnp.asarray(power, wide.dtype)
    scale = math.prod(w.kernel for w in windows) * _reciprocals(windows, True, None, wide.dtype)
    total = win.sums(powers, windows) * scale
    # At zero the slope of the root is infinite, and the gradient would be NaN.
    is_zero = total == 0
    root = jnp.where(is_zero, 1, total) ** jnp.asarray(1 / power, wide.dtype)
    return jnp.where(is_zero, 0, root).astype(x.dtype)
