"""The encoding of protocol buffers: https://protobuf.dev/programming-guides/encoding/."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .._source import Source

__all__ = ["Field", "fields", "varint"]

_MAX_FIELDS = 1000
_FIXED = {1: 8, 5: 4}  # wire type -> bytes


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message.

    Attributes:
        number: which field it is.
        wire: how it is encoded: 0 as a varint, 2 with its length before it, 1 and 5 as 8 and 4 bytes.
        at: where its value begins in the file.
        size: how many bytes the value takes.
        value: of a number, the number.
    """

    number: int
    wire: int
    at: int
    size: int
    value: int = 0


def varint(source: Source, at: int, end: int) -> tuple[int, int]:
    """An unsigned number at ``at``, and where it ends, which is not behind ``end``."""
    raw = source.data[at : min(end, at + 10)].tobytes()
    value = 0
    for i, byte in enumerate(raw):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value & (2**64 - 1), at + i + 1
    source.fail(at, "a number has no end")


def fields(source: Source, at: int, end: int) -> Iterator[Field]:
    """The fields of the message between two places, which are few in the messages that are read here."""
    count = 0
    while at < end:
        count += 1
        if count > _MAX_FIELDS:
            source.fail(at, f"a message has more than {_MAX_FIELDS} fields")
        key, start = varint(source, at, end)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = varint(source, start, end)
            yield Field(number, wire, start, at - start, value)
            continue
        if wire == 2:
            size, start = varint(source, start, end)
        elif wire in _FIXED:
            size = _FIXED[wire]
        else:
            source.fail(at, f"a field has the unknown encoding {wire}")
        if start + size > end:
            source.fail(start, f"a field should take {size:,} bytes, but {end - start:,} are left; it is truncated")
        value = source.unsigned(start, size, "a field") if wire in _FIXED else 0
        yield Field(number, wire, start, size, value)
        at = start + size
