"""Weights of 8 bits."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from . import _checks as checks
from ._explicit import left_to_xla, products
from ._linear import _wrong_shape

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int8

    from ._types import ArrayLike

LARGEST = 127  # of the integers, so that they are symmetric
_FINE = 2 * LARGEST  # how much finer the second integer of a number is than the first
_LONGEST = 2**17  # a sum of so many products of integers fits into 32 bits


def quantize(weight: Float[ArrayLike, "*shape"], axes: int | tuple[int, ...]) -> tuple[Int8[Array, "*shape"], Array]:
    r"""Round to integers of 8 bits, with one scale for all elements along some axes.

    .. math:: s = \max |w| / 127, \quad q = \mathrm{round}(w / s)

    Args:
        weight: floating-point numbers.
        axes: the axes along which elements share a scale.

    Returns:
        The integers, from -127 to 127, and the scales, of the dtype of ``weight``, without the axes. ``q * s`` differs
        from ``w`` by half of ``s`` at most. Where all elements are zero, the scale is one.

    Raises:
        TypeError: ``weight`` does not hold floating-point numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> q, scale = F.quantize(jnp.array([[1.0, -2.0], [0.0, 0.5]]), 1)
        >>> q.tolist()
        [[64, -127], [0, 127]]
    """
    weight = checks.to_array(weight, "quantize", "weight")
    if not checks.is_inexact(weight) or weight.dtype.kind == "c":
        raise TypeError(f"quantize: weight must hold real floating-point values, got {checks.describe(weight)}.")
    axes = axes if isinstance(axes, tuple) else (axes,)
    return _quantize(weight, axes=tuple(checks.axis(axis, weight.ndim, "quantize", "axes") for axis in axes))


@functools.partial(jax.jit, static_argnames="axes")
def _quantize(weight: Array, *, axes: tuple[int, ...]) -> tuple[Array, Array]:
    wide = weight.astype(checks.statistics_dtype(weight.dtype))
    largest = jnp.max(jnp.abs(wide), axes, keepdims=True, initial=0)
    # Below the smallest normal number a scale would have too few bits, or be zero.
    smallest = float(jnp.finfo(weight.dtype).tiny)
    scale = jnp.where(largest == 0, 1, jnp.maximum(largest / LARGEST, smallest)).astype(weight.dtype)
    q = jnp.clip(jnp.round(wide / scale.astype(wide.dtype)), -LARGEST, LARGEST)
    return q.astype(jnp.int8), jnp.squeeze(scale, axes)


def dequantize(q: Int8[ArrayLike, "*shape"], scale: Float[ArrayLike, "*kept"], axes: Any) -> Float[Array, "*shape"]:
    """The numbers that :func:`quantize` rounded: ``q * scale``, of the dtype of ``scale``.

    Args:
        q: the integers.
        scale: the scales.
        axes: the axes of ``q`` that ``scale`` lacks.

    Returns:
        Array of the shape of ``q``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.dequantize(jnp.array([[64, -127]], jnp.int8), jnp.array([0.5]), 1).tolist()
        [[32.0, -63.5]]
    """
    q = checks.to_array(q, "dequantize", "q")
    scale = checks.to_array(scale, "dequantize", "scale")
    axes = axes if isinstance(axes, tuple) else (axes,)
    axes = tuple(checks.axis(axis, len(q.shape), "dequantize", "axes") for axis in axes)
    kept = tuple(n for i, n in enumerate(q.shape) if i not in axes)
    if scale.shape != kept:
        checks.shape_error(
            "dequantize",
            f"scale must have shape {kept}, that of q without axes {axes}.",
            "Check axes.",
            q=q,
            scale=scale,
        )
    return _dequantize(q, scale, axes=axes)


@functools.partial(jax.jit, static_argnames="axes")
def _dequantize(q: Array, scale: Array, *, axes: tuple[int, ...]) -> Array:
    return q.astype(scale.dtype) * jnp.expand_dims(scale, axes)


def quantized_linear(x: Any, q: Any, scale: Any, bias: Any) -> Array:
    """``linear`` with the weight ``q * scale[:, None]``."""
    x = checks.to_array(x, "linear", "x")
    q, scale = checks.to_array(q, "linear", "weight"), checks.to_array(scale, "linear", "scale")
    bias = checks.optional_array(bias, "linear", "bias")
    if not x.shape or x.shape[-1] != q.shape[1]:
        _wrong_shape(x, q)
    checks.require_castable(x, scale, "linear")
    return _quantized_linear(x, q, scale, bias)


@jax.jit
@functools.partial(left_to_xla, divided=products)
def _quantized_linear(x: Array, q: Array, scale: Array, bias: Array | None) -> Array:
    dtype = jnp.result_type(x, scale)
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    wide = checks.statistics_dtype(dtype)
    # XLA multiplies integers several times as fast as floats on a CPU: see benchmarks/quantize.py.
    in_integers = jax.default_backend() == "cpu" and wide == np.float32 and q.shape[1] <= _LONGEST
    product = integer_product if in_integers else float_product
    out = product(rows.astype(wide), q, scale.astype(wide)).astype(dtype)
    out = out.reshape(*x.shape[:-1], q.shape[0])
    return out if bias is None else out + bias


def float_product(x: Array, q: Array, scale: Array) -> Array:
    """``x (q * scale)^T``, as it is written."""
    return lax.dot_general(x, _dequantize(q, scale, axes=(1,)), (((1,), (1,)), ((), ())))


@jax.custom_jvp
def integer_product(x: Array, q: Array, scale: Array) -> Array:
    """``x (q * scale)^T`` in integers: each row of ``x`` as a multiple of a coarse and of a fine integer of 8 bits.

    Together they give 16 bits, so that the error is far below that of the weights.
    """
    largest = jnp.max(jnp.abs(x), 1, keepdims=True, initial=0)
    unit = jnp.where(largest == 0, 1, jnp.maximum(largest / LARGEST, jnp.finfo(x.dtype).tiny))
    multiple = x / unit
    coarse = jnp.round(multiple)
    fine = jnp.round((multiple - coarse) * _FINE)
    both = jnp.concatenate([coarse, fine]).astype(jnp.int8)
    sums = lax.dot_general(both, q, (((1,), (1,)), ((), ())), preferred_element_type=jnp.int32).astype(x.dtype)
    return (sums[: x.shape[0]] + sums[x.shape[0] :] / _FINE) * scale * unit


@functools.partial(integer_product.defjvp, symbolic_zeros=True)
def _integer_product_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, q, scale), (by_x, _, by_scale) = primals, tangents
    out = integer_product(x, q, scale)
    change = jnp.zeros_like(out)
    if not isinstance(by_x, jax.custom_derivatives.SymbolicZero):
        change += float_product(by_x, q, scale)
    if not isinstance(by_scale, jax.custom_derivatives.SymbolicZero):
        change += float_product(x, q, by_scale)
    return out, change


def quantized_rows(indices: Any, q: Any, scale: Any) -> Array:
    """The rows of a table of integers of 8 bits for some indices, times their scales; NaN where there is no row."""
    indices = checks.to_array(indices, "embedding", "indices")
    q, scale = checks.to_array(q, "embedding", "weight"), checks.to_array(scale, "embedding", "scale")
    if not checks.is_integer(indices):
        raise TypeError(
            f"embedding: indices must be integers, got {checks.describe(indices)}. "
            "Cast them: indices.astype(jnp.int32)."
        )
    return _quantized_rows(indices, q, scale)


@jax.jit
@left_to_xla
def _quantized_rows(indices: Array, q: Array, scale: Array) -> Array:
    # Only what is looked up is converted. The fill value of floats, that of the scales here, is NaN.
    rows = q.at[indices].get(mode="fill", wrap_negative_indices=False, fill_value=np.int8(1))
    return rows.astype(scale.dtype) * scale.at[indices].get(mode="fill", wrap_negative_indices=False)[..., None]
