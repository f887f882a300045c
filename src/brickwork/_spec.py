"""Abstract arrays: a shape and a dtype, no values."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def spec(*shape: int | str, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """The shape and dtype of an array that need not exist, for ``net.initialize`` and ``net.summary``.

    Args:
        *shape: the sizes; or one tuple of them. A name such as ``"batch"`` stands for any size, in programs that are
            exported; equal names are equal sizes. So does a size of ``jax.export.symbolic_shape``.
        dtype: the dtype, float32 unless given.

    Raises:
        TypeError: a size that is neither an integer nor a name.
        ValueError: a negative size, or a name that can't be one.

    Example:
        >>> import brickwork as bw
        >>> bw.spec(2, 20)
        ShapeDtypeStruct(shape=(2, 20), dtype=float32)
        >>> bw.spec("batch", 20)
        ShapeDtypeStruct(shape=(batch, 20), dtype=float32)
    """
    sizes: Any = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    plain: list[Any] = []
    for size in sizes:
        if size is None:
            raise TypeError("spec: sizes must be integers, got None; for a batch of any size give any size, such as 1")
        if isinstance(size, str) and not _is_dtype(size):
            plain.append(_named(size))
            continue
        if isinstance(size, (int, np.integer)) and not isinstance(size, bool):
            if size < 0:
                raise ValueError(f"spec: sizes must not be negative, got {tuple(sizes)}")
            plain.append(int(size))
        elif _is_symbolic(size):
            plain.append(size)
        else:
            raise TypeError(f"spec: sizes must be integers, got {size!r}; the dtype goes by name: dtype=...")
    return jax.ShapeDtypeStruct(tuple(plain), jnp.dtype(dtype))


def _is_dtype(name: str) -> bool:
    """Whether it is the name of a dtype put among the sizes; NumPy's codes of one letter are none."""
    if len(name) < 3 or not name.isidentifier():
        return False
    try:
        return jnp.dtype(name) is not None
    except TypeError:
        return False


@functools.cache
def _scope() -> Any:
    from jax import export

    return export.SymbolicScope()


def _named(name: str) -> Any:
    """The symbolic size of that name, the same wherever the name is."""
    from jax import export

    try:
        (size,) = export.symbolic_shape(name, scope=_scope())
    except ValueError as error:
        raise ValueError(f"spec: {name!r} can't be the name of a size; use a word such as 'batch' ({error})") from None
    return size


def _is_symbolic(size: Any) -> bool:
    from jax import export

    return export.is_symbolic_dim(size)
