"""Arrays along some of whose axes several values lie: taking one out, putting them together.

In ways that compile once for all sizes and parts. Slicing with constants, iterating and stacking at once compile
programs that grow with the number of parts, which takes seconds from a hundred on.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

_TOGETHER = 32


@functools.partial(jax.jit, static_argnums=2)
def part(stacked: jax.Array, index: tuple[int, ...], axes: tuple[int, ...] = ()) -> jax.Array:
    """The part at an index, along ``axes`` (ascending) or the first axes: ``stacked[index]``."""
    for i, axis in reversed(list(zip(index, axes or range(len(index)), strict=True))):
        stacked = lax.dynamic_index_in_dim(stacked, i, axis, keepdims=False)
    return stacked


def join(parts: Sequence[jax.Array]) -> jax.Array:
    """``jnp.stack(parts)``."""
    rows = [jnp.stack(parts[i : i + _TOGETHER]) for i in range(0, len(parts), _TOGETHER)]
    while len(rows) > 1:
        rows = [jnp.concatenate(rows[i : i + _TOGETHER]) for i in range(0, len(rows), _TOGETHER)]
    return rows[0]
