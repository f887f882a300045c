"""Abstract arrays: a shape and a dtype, no values."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def spec(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """The shape and dtype of an array that need not exist, for ``net.initialize`` and ``net.summary``.

    Args:
        *shape: the sizes; or one tuple of them. A size may be symbolic (``jax.export.symbolic_shape``), for programs
            that are exported for any size.
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
    plain: list[Any] = []
    for size in sizes:
        if size is None:
            raise TypeError("spec: sizes must be integers, got None; for a batch of any size give any size, such as 1")
        if isinstance(size, (int, np.integer)) and not isinstance(size, bool):
            if size < 0:
                raise ValueError(f"spec: sizes must not be negative, got {tuple(sizes)}")
            plain.append(int(size))
        elif _is_symbolic(size):
            plain.append(size)
        else:
            raise TypeError(f"spec: sizes must be integers, got {size!r}; the dtype goes by name: dtype=...")
    return jax.ShapeDtypeStruct(tuple(plain), jnp.dtype(dtype))


def _is_symbolic(size: Any) -> bool:
    from jax import export

    return export.is_symbolic_dim(size)
