"""Low-rank changes of weights."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

from ._explicit import left_to_xla

if TYPE_CHECKING:
    from jaxtyping import Array


@functools.partial(jax.jit, static_argnames=("shape", "scale"))
@left_to_xla
def low_rank(a: Array, b: Array, *, shape: tuple[int, ...], scale: float) -> Array:
    """The product ``scale * B A``, for ``A`` of ``(*, rank, ...)`` and ``B`` of ``(*, out, rank)``, in a shape."""
    stack = b.shape[:-2]
    columns = a.reshape(*stack, b.shape[-1], math.prod(a.shape[len(stack) + 1 :]))
    return (jnp.matmul(b, columns) * scale).reshape(shape)


@functools.partial(jax.jit, static_argnames=("axis", "scale"))
@left_to_xla
def add_projected(y: Array, low: Array, b: Array, *, axis: int, scale: float) -> Array:
    """``y`` plus ``scale`` times ``B`` of ``(out, rank)`` applied to an axis of ``low``, counted from the end."""
    added = lax.dot_general(b, low, (((1,), (low.ndim + axis,)), ((), ())))
    return y + (jnp.moveaxis(added, 0, axis) * scale).astype(y.dtype)


@functools.partial(jax.jit, static_argnames="scale")
def add_scaled(y: Array, added: Array, *, scale: float) -> Array:
    """``y + scale * added``, of the dtype of ``y``."""
    return y + (added * scale).astype(y.dtype)
