"""Abstract arrays: a shape and a dtype, no values."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def spec(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """The shape and dtype of an array that need not exist, for ``net.initialize`` and ``net.summary``.

    Args:
        *shape: the sizes; or one tuple of them.
        dtype: the dtype, float32 unless given.

    Raises:
        TypeError: a size that isn't an integer.
        ValueError: a negative size.

    Example:
        >>> import brickwork as bw
        >>> bw.spec(2, 20)
        ShapeDtypeStruct(shape=(2, 20), dtype=float32)
    """
    sizes: Any = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    for size in sizes:
        if size is None:
            raise TypeError("spec: sizes must be integers, got None; for a batch of any size give any size, such as 1")
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)):
            raise TypeError(f"spec: sizes must be integers, got {size!r}; the dtype goes by name: dtype=...")
        if size < 0:
            raise ValueError(f"spec: sizes must not be negative, got {tuple(sizes)}")
    return jax.ShapeDtypeStruct(tuple(int(s) for s in sizes), jnp.dtype(dtype))
