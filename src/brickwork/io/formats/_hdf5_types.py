"""Datatypes and shapes in HDF5 files."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from .._source import Source

__all__ = ["Strings", "Type", "parse_space", "parse_type"]

_CLASSES = (
    "integer",
    "floating-point",
    "time",
    "string",
    "bit field",
    "opaque",
    "compound",
    "reference",
    "enumeration",
    "variable-length",
    "array",
    "complex",
)
# Bit offset, precision, exponent's place and size, mantissa's place and size, exponent's bias.
_FLOATS: dict[tuple[int, ...], np.dtype] = {
    (0, 16, 10, 5, 0, 10, 15): np.dtype("f2"),
    (0, 16, 7, 8, 0, 7, 127): np.dtype(ml_dtypes.bfloat16),
    (0, 32, 23, 8, 0, 23, 127): np.dtype("f4"),
    (0, 64, 52, 11, 0, 52, 1023): np.dtype("f8"),
}


class Strings(enum.Enum):
    """How text is stored."""

    FIXED = "in place"
    VARIABLE = "elsewhere in the file"


@dataclass(frozen=True)
class Type:
    """A datatype.

    Attributes:
        name: what messages call it.
        size: bytes of an element.
        dtype: NumPy's, for numbers.
        swapped: whether the bytes are in the other order.
        text: for text, how it is stored.
    """

    name: str
    size: int
    dtype: np.dtype | None = None
    swapped: bool = False
    text: Strings | None = None


def parse_type(source: Source, at: int, size: int) -> Type:
    """The datatype that a message of ``size`` bytes describes; without ``dtype`` where NumPy has none for it."""
    if size < 8:
        source.fail(at, f"a datatype takes at least 8 bytes, not {size}")
    raw = source.bytes(at, size, "a datatype")
    code, bits, width = raw[0] & 15, int.from_bytes(raw[1:4], "little"), int.from_bytes(raw[4:8], "little")
    if code >= len(_CLASSES):
        source.fail(at, f"there is no class {code} of datatypes")
    name = f"{_CLASSES[code]} of {width:,} bytes"
    if width == 0:
        source.fail(at, "a datatype has elements of 0 bytes")
    if code == 0 and width in (1, 2, 4, 8) and raw[8:12] == bytes((0, 0, 8 * width, 0)):
        return Type(name, width, np.dtype(f"{'ui'[bits >> 3 & 1]}{width}"), bool(bits & 1))
    if code == 1 and size >= 20:
        found = _FLOATS.get(struct.unpack_from("<HH4BI", raw, 8))
        if found is not None and found.itemsize == width and not bits & 64:
            return Type(name, width, found, bool(bits & 1))
    if code == 3:
        return Type(name, width, text=Strings.FIXED)
    if code == 9 and width == 16 and bits & 15 == 1:
        return Type(name, width, text=Strings.VARIABLE)
    if code == 8 and width == 1 and bits & 0xFFFF == 2 and _is_bool(raw):
        return Type(name, width, np.dtype(np.bool_))
    return Type(name, width)


def _is_bool(raw: bytes) -> bool:
    """Whether an enumeration is h5py's for bool: FALSE = 0 and TRUE = 1."""
    members = raw[20:]  # after the head and the datatype that it is stored as
    return members.startswith((b"FALSE\0\0\0TRUE\0\0\0\0\0\1", b"FALSE\0TRUE\0\0\1"))


def parse_space(source: Source, at: int, size: int) -> tuple[int, ...]:
    """The shape that a message of ``size`` bytes describes."""
    raw = source.bytes(at, size, "a shape")
    version, rank = (raw[0], raw[1]) if size >= 4 else (0, 0)
    if version not in (1, 2):
        source.fail(at, f"a shape has the unknown version {version}")
    if version == 2 and raw[3] == 2:  # no elements at all
        return (0,)
    start = 8 if version == 1 else 4
    if start + 8 * rank > size or rank > 32:
        source.fail(at, f"a shape of {rank} axes is longer than its message")
    return tuple(int.from_bytes(raw[i : i + 8], "little") for i in range(start, start + 8 * rank, 8))
