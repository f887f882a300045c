"""A file in memory, and what a reader makes of it."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NoReturn

import numpy as np

from ..errors import CheckpointError

__all__ = ["Contents", "Make", "Reader", "Source", "UnverifiableError", "brief"]

# Memory that a reader may take for its arrays beside the mapped file: so much, and so many times the file.
# Compressed weights rarely shrink to less than that; what does is a bomb, or better stored as it is.
_FREE = 64 * 2**20
_RATIO = 8

Make = Callable[[str, str, np.ndarray], Any]  # ("array" or "numpy", name, values): what shall stand for it in the tree


class UnverifiableError(CheckpointError):
    """The file has no checksums to compare its bytes with."""


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
        tree: a nest of dicts, lists and tuples with read-only NumPy arrays and plain values. Arrays are views of the
            mapped file wherever its bytes allow it. The same object in two places is one array of the file.
        kind: which format it is, for users: ``"torch"``, ``"mxnet"`` ...
        metadata: what else the file says.
        aliases: name -> the name under which the same array is stored, for names that ``tree`` lacks.
    """

    tree: Any
    kind: str
    metadata: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def build(self, make: Make) -> Any:
        """The tree with ``make("array", name, values)`` in the place of each array, called once for each."""
        return _replaced(self.tree, "", make, {})


def _replaced(value: Any, path: str, make: Make, made: dict[int, Any]) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        if id(value) not in made:
            made[id(value)] = make("array", path[1:] or "value", np.asarray(value))
        return made[id(value)]
    if isinstance(value, dict):
        return {key: _replaced(x, f"{path}.{key}", make, made) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_replaced(x, f"{path}.{i}", make, made) for i, x in enumerate(value))
    return value


class Source:
    """A file mapped into memory: its bytes, with every access checked. A reader reads it once.

    Attributes:
        path: how messages call the file.
        data: all its bytes, uint8, read-only.
        what: what messages call its format, such as ``"MXNet parameter file"``; a reader sets it.
        verify: whether the reader shall compare all bytes with the checksums that the format has.
    """

    def __init__(self, path: str, data: np.ndarray, what: str = "file", verify: bool = False) -> None:
        self.path, self.data, self.what, self.verify = path, data, what, verify
        self._left = [_FREE + _RATIO * len(data)]  # shared with the parts
        self._mapped: mmap.mmap | None = None

    @classmethod
    def of(cls, path: str, file: BinaryIO, verify: bool = False) -> Source:
        """Map an open file, which may be closed afterwards."""
        size, mapped = os.fstat(file.fileno()).st_size, None
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            data = np.frombuffer(mapped, np.uint8)
        except (OSError, ValueError):  # file systems that cannot map, and empty files
            file.seek(0)
            data = np.frombuffer(file.read(), np.uint8)
        source = cls(path, data, verify=verify)
        source._mapped = mapped
        if len(data) != size:
            source.fail(0, "the file changed while it was opened")
        return source

    @contextlib.contextmanager
    def scattered(self) -> Iterator[None]:
        """Inside, a few bytes are read here and there, so that the system need not read ahead from the disk."""
        advise = getattr(self._mapped, "madvise", None)
        if advise is None:
            yield
            return
        advise(mmap.MADV_RANDOM)
        try:
            yield
        finally:
            advise(mmap.MADV_NORMAL)

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.data)

    def fail(self, offset: int, reason: str) -> NoReturn:
        """Raise a ``CheckpointError`` about the bytes at ``offset``."""
        raise CheckpointError(f"{self.path}: damaged {self.what}, at byte {offset:,}: {reason}")

    def refuse(self, reason: str) -> NoReturn:
        """Raise a ``CheckpointError`` about a file that is intact but can't be read."""
        raise CheckpointError(f"{self.path}: cannot load this {self.what}: {reason}")

    def cannot_verify(self, reason: str) -> NoReturn:
        """Raise the error for a file without checksums that is to be verified; ``reason`` says why it has none."""
        raise UnverifiableError(
            f"{self.path}: cannot verify this {self.what}: {reason}; load it without verify=True, and save it with "
            "bw.save to add checksums"
        )

    def view(self, offset: int, size: int, what: str) -> np.ndarray:
        """``size`` bytes from ``offset``, without a copy; ``what`` names them in the message if they aren't there."""
        if offset < 0 or size < 0 or offset + size > self.size:
            left = max(self.size - offset, 0)
            self.fail(offset, f"{what} should take {size:,} bytes, but {left:,} are left; the file is truncated")
        return self.data[offset : offset + size]

    def bytes(self, offset: int, size: int, what: str) -> bytes:
        """The same as a copy."""
        return self.view(offset, size, what).tobytes()

    def unsigned(self, offset: int, size: int, what: str) -> int:
        """A little-endian unsigned integer of ``size`` bytes."""
        return int.from_bytes(self.bytes(offset, size, what), "little")

    def part(self, name: str, data: np.ndarray) -> Source:
        """A source for the bytes of one member; messages name it, and count offsets from its start."""
        part = Source(f"{self.path}, member {name!r}", data, self.what, self.verify)
        part._left = self._left
        return part

    def spend(self, nbytes: int, what: str) -> None:
        """Account for ``nbytes`` that ``what`` takes besides the file; call it before they are allocated."""
        self._left[0] -= nbytes
        if self._left[0] < 0:
            self.refuse(
                f"{what} takes {nbytes:,} bytes, and in all the contents would need more than {_RATIO} times "
                f"the size of the file; it was made to exhaust memory, or should be saved uncompressed"
            )


def brief(value: Any, depth: int = 2) -> str:
    """A value of the file for a message: however large or deep it is, a few words."""
    if isinstance(value, (str, bytes)):
        return repr(value[:60])
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)[:60]
    if type(value) in (tuple, list) and depth:
        items = ", ".join([*(brief(item, depth - 1) for item in value[:8]), *(["..."] if len(value) > 8 else [])])
        return f"[{items}]" if type(value) is list else f"({items}{',' * (len(value) == 1)})"
    return f"a {type(value).__name__.lstrip('_')}"


Reader = Callable[[Source], Contents]
