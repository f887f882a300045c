"""Pooling by the maximum, and its inverse."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax

from . import _checks as checks, _windows as win

if TYPE_CHECKING:
    from jaxtyping import Array, Num

    from ._types import ArrayLike


def max_pool1d(
    x: Num[ArrayLike, "*n c l"],
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    r"""Take the largest value of each window of each channel.

    .. math:: y_{n,c,i} = \max_{u} \, x_{n,c,\, s i + d u - p}

    Args:
        x: sequences ``(N, C, L)``, or one sequence ``(C, L)``; floats or integers.
        kernel_size: size of the window; an int.
        stride: the step between windows; ``None``: the size of the window.
        padding: elements added on each side, which never are the maximum; at most half
            of the window.
        dilation: the step between the elements of a window.
        ceil_mode: also use windows that reach beyond the end of the sequence.
        return_indices: also return where the maxima are.

    Returns:
        Array of shape ``(N, C, LO)`` or ``(C, LO)``, with
        ``LO = (L + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1`` (rounded up under
        ``ceil_mode``). NaN in a window gives NaN. The gradient goes to the first of several equal
        maxima. With ``return_indices``: a pair of it and an integer array of the same shape, each
        maximum's index into its channel.

    Raises:
        ShapeMismatchError: wrong number of axes, or a window larger than the padded sequence.
        TypeError: ``x`` is not an array of real numbers.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.max_pool1d(jnp.arange(4.0).reshape(1, 4), 2).tolist()
        [[1.0, 3.0]]

    Reference:
        ``torch.nn.functional.max_pool1d``.
    """
    return _pool("max_pool1d", 1, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    x: Num[ArrayLike, "*n c h w"],
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
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
        return_indices: also return where the maxima are.

    Returns:
        Array of shape ``(N, C, HO, WO)`` or ``(C, HO, WO)``, with
        ``HO = (H + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1`` (rounded up under
        ``ceil_mode``). NaN in a window gives NaN. The gradient goes to the first of several equal
        maxima. With ``return_indices``: a pair of it and an integer array of the same shape, each
        maximum's index into its flattened channel.

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
    return _pool("max_pool2d", 2, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    x: Num[ArrayLike, "*n c d h w"],
    kernel_size: int | tuple[int, int, int],
    stride: int | tuple[int, int, int] | None = None,
    padding: int | tuple[int, int, int] = 0,
    dilation: int | tuple[int, int, int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    r"""Take the largest value of each window of each channel.

    .. math:: y_{n,c,i,j,k} = \max_{u,v,w} \, x_{n,c,\, s i + d u - p,\, s j + d v - p,\, s k + d w - p}

    Args:
        x: volumes ``(N, C, D, H, W)``, or one volume ``(C, D, H, W)``; floats or integers.
        kernel_size: size of the window; an int or a triple (depth, height, width), as below.
        stride: the step between windows; ``None``: the size of the window.
        padding: layers, rows and columns added on each side, which never are the maximum; at most half
            of the window.
        dilation: the step between the elements of a window.
        ceil_mode: also use windows that reach beyond the end of the volume.
        return_indices: also return where the maxima are.

    Returns:
        Array of shape ``(N, C, DO, HO, WO)`` or ``(C, DO, HO, WO)``, with
        ``DO = (D + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1`` (rounded up under
        ``ceil_mode``). NaN in a window gives NaN. The gradient goes to the first of several equal
        maxima. With ``return_indices``: a pair of it and an integer array of the same shape, each
        maximum's index into its flattened channel.

    Raises:
        ShapeMismatchError: wrong number of axes, or a window larger than the padded volume.
        TypeError: ``x`` is not an array of real numbers.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.max_pool3d(jnp.arange(8.0).reshape(1, 2, 2, 2), 2).tolist()
        [[[[7.0]]]]

    Reference:
        ``torch.nn.functional.max_pool3d``.
    """
    return _pool("max_pool3d", 3, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def _pool(
    function: str,
    ndim: int,
    x: Any,
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: Any,
    return_indices: Any,
) -> Any:
    x = real_array(x, function)
    windows = win.regular(function, ndim, x, kernel, stride, padding, dilation, ceil_mode)
    return maxima(x, windows=windows, indices=checks.flag(return_indices, function, "return_indices"))


def real_array(x: Any, function: str) -> Array:
    """Return an array of numbers that can be compared."""
    x = checks.to_array(x, function, "x")
    checks.require_real(x, function, "x")
    if x.dtype == bool:
        raise TypeError(f"{function}: x must hold real numbers, got {checks.describe(x)}. Cast it first.")
    return x


@functools.partial(jax.jit, static_argnames=("windows", "indices"))
def maxima(x: Array, *, windows: tuple[win.AnyWindows, ...], indices: bool) -> Any:
    """Return the maxima of windows, and where they are if wanted."""
    y, places = win.maxima(x, windows, indices)
    return (y, places) if indices else y
