"""Shapes, dtypes and values as users give them, checked and converted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._manners import unbox

Shape = tuple[int | None, ...]


def show_shape(shape: Sequence[int | None]) -> str:
    """A shape in words, with ``?`` for what is not known: ``(256, ?)``."""
    inner = ", ".join("?" if d is None else str(d) for d in shape)
    return f"({inner},)" if len(shape) == 1 else f"({inner})"


def check_shape(shape: Any, what: str) -> Shape:
    """A shape as a tuple of sizes, ``None`` for one that is not known."""
    if isinstance(shape, (int, np.integer)):
        shape = (shape,)
    try:
        given = tuple(shape)
    except TypeError:
        raise TypeError(f"{what}: shape must be a tuple of sizes, got {shape!r}") from None
    for size in given:
        if size is None:
            continue
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)):
            raise TypeError(
                f"{what}: shape {given} has an entry {size!r}; sizes are integers, or None when not known yet"
            )
        if size < 0:
            raise ValueError(f"{what}: shape {given} has a negative size; use None for a size not known yet")
    return tuple(None if d is None else int(d) for d in given)


def check_dtype(dtype: Any, what: str) -> np.dtype:
    """A dtype that this process can hold, or an error that says how to enable it."""
    try:
        wanted = jnp.dtype(dtype)
    except TypeError as error:
        raise TypeError(
            f"{what}: dtype must be a dtype such as jnp.float32 or 'float32', got {dtype!r:.60} ({error})"
        ) from None
    if jax.dtypes.canonicalize_dtype(wanted) != wanted:
        raise ValueError(
            f"{what}: dtype {wanted} needs 64-bit mode; call jax.config.update('jax_enable_x64', True) "
            "at the start of the program"
        )
    return wanted


def readable(value: Any) -> Any:
    """What NumPy can read: of PyTorch's tensors that with a gradient without it, and one of bfloat16 as an array."""
    if not hasattr(value, "detach") or not hasattr(value, "__dlpack__"):
        return value
    tensor = value.detach().cpu()
    if str(tensor.dtype) != "torch.bfloat16":
        return tensor
    return np.array(jnp.from_dlpack(tensor.contiguous()))  # NumPy has no such dtype to read it by


def as_array(value: Any, what: Any, dtype: Any = None) -> jax.Array:
    """Turn what a user gave into a JAX array of strong type; ``what`` is named in errors."""
    value = unbox(value)
    if not isinstance(value, jax.Array):
        value = readable(value)
        host = np.asarray(value)
        if host.dtype.kind in "OUSMm":
            place = what if isinstance(what, str) else what.described()
            raise TypeError(
                f"{place}: a variable holds numbers, got {type(value).__name__} with dtype {host.dtype}; "
                "convert it to a numeric array first"
            )
        # On the host JAX would share the memory, and see what the caller writes into it later.
        value = jnp.array(value, dtype=dtype) if _may_change(host) else jnp.asarray(value, dtype=dtype)
    elif dtype is not None and value.dtype != dtype:
        value = value.astype(dtype)
    if getattr(value, "weak_type", False):  # random keys have none
        value = jax.lax.convert_element_type(value, value.dtype)
    return value


def _may_change(array: Any) -> bool:
    """Whether somebody may write into an array's memory; a file that is mapped to be read can't be."""
    while isinstance(array, np.ndarray):
        if array.flags.writeable:
            return True
        array = array.base
    return False
