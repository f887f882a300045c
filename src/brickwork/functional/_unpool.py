"""The inverse of pooling by the maximum."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from . import _checks as checks
from ._explicit import left_to_xla
from ._pool_max import real_array

if TYPE_CHECKING:
    from jaxtyping import Array, Int, Num

    from ._types import ArrayLike


def max_unpool1d(
    x: Num[ArrayLike, "*n c l"],
    indices: Int[ArrayLike, "*n c l"],
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    output_size: Sequence[int] | None = None,
) -> Num[Array, "*n c lo"]:
    r"""Put maxima back to where ``max_pool1d`` found them; everything else is zero.

    Args:
        x: sequences ``(N, C, L)``, or one sequence ``(C, L)``; floats or integers.
        indices: integers of the same shape, the place of each value in its channel.
        kernel_size: size of the window; an int.
        stride: the step between windows; ``None``: the size of the window.
        padding: what was added on each side.
        output_size: the size of the result, which several sizes of input may have led to: the
            spatial axes, or the whole shape.

    Returns:
        Array of shape ``(N, C, LO)`` or ``(C, LO)``, with
        ``LO = (L - 1) * stride - 2 * padding + kernel_size``, or ``output_size``. Where an index
        occurs several times, one of its values is kept, and each of them gets the gradient. A
        channel with an index outside of the result is NaN (the lowest number for integers): values
        are not known while a program is compiled, so the mistake cannot raise.

    Raises:
        ShapeMismatchError: wrong number of axes, or ``indices`` of another shape than ``x``.
        TypeError: ``indices`` are not integers.
        ValueError: an option is out of range, or an ``output_size`` that cannot be.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> y, indices = F.max_pool1d(jnp.arange(4.0).reshape(1, 4), 2, return_indices=True)
        >>> F.max_unpool1d(y, indices, 2).tolist()
        [[0.0, 1.0, 0.0, 3.0]]

    Reference:
        ``torch.nn.functional.max_unpool1d``.
    """
    return _unpool("max_unpool1d", 1, x, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    x: Num[ArrayLike, "*n c h w"],
    indices: Int[ArrayLike, "*n c h w"],
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    output_size: Sequence[int] | None = None,
) -> Num[Array, "*n c ho wo"]:
    r"""Put maxima back to where ``max_pool2d`` found them; everything else is zero.

    Args:
        x: images ``(N, C, H, W)``, or one image ``(C, H, W)``; floats or integers.
        indices: integers of the same shape, the place of each value in its flattened channel.
        kernel_size: size of the window; an int or a pair (height, width), as below.
        stride: the step between windows; ``None``: the size of the window.
        padding: what was added on each side.
        output_size: the size of the result, which several sizes of input may have led to: the
            spatial axes, or the whole shape.

    Returns:
        Array of shape ``(N, C, HO, WO)`` or ``(C, HO, WO)``, with
        ``HO = (H - 1) * stride - 2 * padding + kernel_size``, or ``output_size``. Where an index
        occurs several times, one of its values is kept, and each of them gets the gradient. A
        channel with an index outside of the result is NaN (the lowest number for integers): values
        are not known while a program is compiled, so the mistake cannot raise.

    Raises:
        ShapeMismatchError: wrong number of axes, or ``indices`` of another shape than ``x``.
        TypeError: ``indices`` are not integers.
        ValueError: an option is out of range, or an ``output_size`` that cannot be.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> y, indices = F.max_pool2d(jnp.arange(16.0).reshape(1, 4, 4), 2, return_indices=True)
        >>> F.max_unpool2d(y, indices, 2)[0, 1].tolist()
        [0.0, 5.0, 0.0, 7.0]

    Reference:
        ``torch.nn.functional.max_unpool2d``.
    """
    return _unpool("max_unpool2d", 2, x, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    x: Num[ArrayLike, "*n c d h w"],
    indices: Int[ArrayLike, "*n c d h w"],
    kernel_size: int | tuple[int, int, int],
    stride: int | tuple[int, int, int] | None = None,
    padding: int | tuple[int, int, int] = 0,
    output_size: Sequence[int] | None = None,
) -> Num[Array, "*n c do ho wo"]:
    r"""Put maxima back to where ``max_pool3d`` found them; everything else is zero.

    Args:
        x: volumes ``(N, C, D, H, W)``, or one volume ``(C, D, H, W)``; floats or integers.
        indices: integers of the same shape, the place of each value in its flattened channel.
        kernel_size: size of the window; an int or a triple (depth, height, width), as below.
        stride: the step between windows; ``None``: the size of the window.
        padding: what was added on each side.
        output_size: the size of the result, which several sizes of input may have led to: the
            spatial axes, or the whole shape.

    Returns:
        Array of shape ``(N, C, DO, HO, WO)`` or ``(C, DO, HO, WO)``, with
        ``DO = (D - 1) * stride - 2 * padding + kernel_size``, or ``output_size``. Where an index
        occurs several times, one of its values is kept, and each of them gets the gradient. A
        channel with an index outside of the result is NaN (the lowest number for integers): values
        are not known while a program is compiled, so the mistake cannot raise.

    Raises:
        ShapeMismatchError: wrong number of axes, or ``indices`` of another shape than ``x``.
        TypeError: ``indices`` are not integers.
        ValueError: an option is out of range, or an ``output_size`` that cannot be.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> y, indices = F.max_pool3d(jnp.arange(8.0).reshape(1, 2, 2, 2), 2, return_indices=True)
        >>> F.max_unpool3d(y, indices, 2).tolist()
        [[[[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 7.0]]]]

    Reference:
        ``torch.nn.functional.max_unpool3d``.
    """
    return _unpool("max_unpool3d", 3, x, indices, kernel_size, stride, padding, output_size)


def _unpool(
    function: str, ndim: int, x: Any, indices: Any, kernel: Any, stride: Any, padding: Any, output_size: Any
) -> Array:
    x = real_array(x, function)
    indices = checks.to_array(indices, function, "indices")
    checks.require_spatial(x, ndim, function)
    if not checks.is_integer(indices):
        raise TypeError(
            f"{function}: indices must be integers, got {checks.describe(indices)}. "
            f"They are what max_pool{ndim}d(..., return_indices=True) returns second."
        )
    if indices.shape != x.shape:
        checks.shape_error(
            function,
            "indices must have the shape of x.",
            "Pass the values and indices of one call of max pooling.",
            x=x,
            indices=indices,
        )
    out = checks.cached(_unpooled_size, function, x.shape, ndim, kernel, stride, padding, output_size)
    return _put(x, indices, out=out)


@functools.lru_cache(maxsize=1024, typed=True)
def _unpooled_size(
    function: str, shape: tuple[int, ...], ndim: int, kernel_size: Any, stride: Any, padding: Any, output_size: Any
) -> tuple[int, ...]:
    kernels = checks.sizes(kernel_size, ndim, function, "kernel_size")
    strides = kernels if stride is None else checks.sizes(stride, ndim, function, "stride")
    paddings = checks.sizes(padding, ndim, function, "padding", 0)
    usual = tuple((n - 1) * s - 2 * p + k for n, s, p, k in zip(shape[-ndim:], strides, paddings, kernels, strict=True))
    if output_size is None:
        if min(usual) < 1:
            raise ValueError(f"{function}: the result would have the size {usual}. Use less padding.")
        return usual
    if not isinstance(output_size, tuple) or len(output_size) not in (ndim, len(shape)):
        raise ValueError(
            f"{function}: output_size must hold the {ndim} spatial sizes, or the whole shape, got {output_size!r}."
        )
    sizes = tuple(checks.integer(n, function, "output_size", 1) for n in output_size[-ndim:])
    for size, n, s in zip(sizes, usual, strides, strict=True):
        if not n - s < size < n + s:
            low, high = (tuple(n + sign * (s - 1) for n, s in zip(usual, strides, strict=True)) for sign in (-1, 1))
            raise ValueError(f"{function}: output_size must be from {low} to {high}, got {sizes}.")
    return sizes


@functools.partial(jax.jit, static_argnames="out")
@left_to_xla
def _put(x: Array, indices: Array, *, out: tuple[int, ...]) -> Array:
    lead, given = x.shape[: x.ndim - len(out)], x.shape[x.ndim - len(out) :]
    channels, size = math.prod(lead), math.prod(out)
    values, places = (v.reshape(channels, math.prod(given)) for v in (x, checks.as_index(indices)))
    inside = (places >= 0) & (places < size)
    flat = jnp.zeros((channels, size), x.dtype)
    rows = jnp.arange(channels)[:, None]
    flat = flat.at[rows, places].set(values, mode="drop", unique_indices=True, wrap_negative_indices=False)
    wrong = jnp.asarray(jnp.nan if checks.is_inexact(x) else jnp.iinfo(x.dtype).min, x.dtype)
    return jnp.where(inside.all(1, keepdims=True), flat, wrong).reshape(*lead, *out)
