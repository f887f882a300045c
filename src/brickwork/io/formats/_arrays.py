"""Arrays from the bytes of a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from .._source import Source, brief

__all__ = ["array_at", "check_shape", "named_dtype", "typed"]

_MAX_NDIM = 64  # NumPy's


def named_dtype(name: str) -> np.dtype:
    """The dtype of that name, NumPy's or one of ml_dtypes."""
    return np.dtype(getattr(ml_dtypes, name, name))


def typed(source: Source, raw: np.ndarray, dtype: np.dtype, swapped: bool = False) -> np.ndarray:
    """Bytes as a flat read-only array: a view of them, or a copy where the processor needs one.

    Args:
        source: the file, to account for the copy.
        raw: the bytes, uint8.
        dtype: in native byte order.
        swapped: whether the file has the other byte order.

    Raises:
        ValueError: the bytes are not values of ``dtype``.
    """
    if len(raw) % dtype.itemsize:
        raise ValueError(f"{len(raw):,} bytes are not a whole number of values of {dtype}")
    if dtype == np.bool_ and raw.size and raw.max() > 1:
        raise ValueError("some of its bytes are no truth values")
    width = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
    if swapped and width > 1:
        source.spend(len(raw), "an array of the other byte order")
        raw = np.ascontiguousarray(raw.reshape(-1, width)[:, ::-1]).reshape(-1)
    array = raw.view(dtype)
    if not array.flags.aligned:
        source.spend(len(raw), "an array that is not aligned")
        array = raw.copy().view(dtype)  # of bytes: NumPy copies unaligned values one by one
    array.flags.writeable = False
    return array


def array_at(
    source: Source, offset: int, dtype: np.dtype, shape: Sequence[int], what: str, swapped: bool = False
) -> np.ndarray:
    """The array that begins at ``offset``, in C order; ``what`` names it in messages. See :func:`typed`."""
    try:
        size = math.prod(check_shape(tuple(shape), dtype.itemsize)) * dtype.itemsize
        return typed(source, source.view(offset, size, what), dtype, swapped).reshape(shape)
    except ValueError as error:
        source.fail(offset, f"{what}: {error}")


def check_shape(shape: Any, itemsize: int) -> Sequence[int]:
    """``shape`` if an array may have it.

    Raises:
        ValueError: it is not a list of sizes, or one of too many bytes for any memory.
    """
    fits = type(shape) in (tuple, list) and len(shape) <= _MAX_NDIM and all(type(n) is int and n >= 0 for n in shape)
    # NumPy counts the bytes of an empty array without its empty axes.
    if not fits or math.prod(n for n in shape if n) * itemsize >= 2**63:
        raise ValueError(f"the impossible shape {brief(shape)}")
    return shape
