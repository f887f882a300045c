"""Trees of arrays taken to the host, written to files with a checksum, and read back.

The files are those of :func:`brickwork.save`, so ``bw.load``, ``net.load`` and other tools read them.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ._container import Tensor, write_container
from ._files import _FORMAT, _KEY, _aliases, _open_container, _to_jax
from ._manifest import FileRecord
from ._structure import Encoder, decode

__all__ = ["Snapshot", "read_host", "read_tree", "take", "verify"]

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Snapshot:
    """What a file is to contain, with all values in host memory."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def write(self, path: Path) -> FileRecord:
        """Write a new file and sync it to disk.

        Raises:
            OSError: as the operating system says.
        """
        with _SummingWriter(io.FileIO(path, "xb")) as file:
            write_container(file, self.tensors, self.metadata)
            file.flush()
            os.fsync(file.fileno())
        return FileRecord(file.total, file.checksum)


class _SummingWriter(io.BufferedWriter):
    """A file that counts and sums up what is written."""

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self.total = self.checksum = 0

    def write(self, data: Any, /) -> int:
        self.checksum = zlib.crc32(data, self.checksum)
        self.total += len(data)
        return super().write(data)


def take(tree: dict[str, Any], *, aliases: dict[str, str] | None = None, copy: bool = False) -> Snapshot:
    """The present values of a tree; nothing that happens to it later changes them.

    Values of JAX arrays that are in host memory already are not copied but kept: JAX arrays don't change, and a
    compiled function overwrites none that somebody holds.

    Args:
        tree: a dict; its keys name the values in messages.
        aliases: other names of entries.
        copy: whether to copy everything, for trees that may hold NumPy arrays, which do change.

    Raises:
        TypeError: something that can't be saved; the message says where it is.
    """
    encoder = Encoder()
    entries = {name: encoder.encode(value, name, (name,)) for name, value in tree.items()}
    structure: dict[str, Any] = {"format": _FORMAT, "tree": {"map": entries}}
    tied = _aliases(tree, aliases)
    if tied:
        structure["aliases"] = tied
    metadata = {_KEY: json.dumps(structure, separators=(",", ":"), allow_nan=False)}
    return Snapshot({name: _held(tensor, copy) for name, tensor in encoder.tensors.items()}, metadata)


def _held(tensor: Tensor, copy: bool) -> Tensor:
    values = tensor.fetch()
    if copy:
        values = np.array(values)
    return Tensor(tensor.shape, tensor.dtype, lambda: values)


def verify(path: Path, record: FileRecord) -> None:
    """Compare a file with what was written.

    Raises:
        CheckpointError: it is missing, or another.
    """
    size = checksum = 0
    try:
        with open(path, "rb", buffering=0) as file:
            chunk = memoryview(bytearray(_CHUNK))
            while count := file.readinto(chunk):
                checksum = zlib.crc32(chunk[:count], checksum)
                size += count
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    if size != record.size:
        what = "truncated" if size < record.size else "longer than it was"
        raise CheckpointError(f"{path}: {what}: it has {size:,} bytes, and {record.size:,} were written")
    if checksum != record.checksum:
        raise CheckpointError(
            f"{path}: damaged: the CRC-32 of its contents is {checksum:08x}, and that of what was written "
            f"{record.checksum:08x}"
        )


def read_tree(path: Path) -> dict[str, Any]:
    """What was taken, in memory of its own: JAX arrays as JAX arrays, on the default device."""
    return _read(path, lambda array: _to_jax(array.copy()))


def read_host(path: Path) -> dict[str, Any]:
    """What was taken, with JAX arrays as read-only NumPy views of the mapped file, to be copied to where they go."""
    return _read(path, lambda array: array)


def _read(path: Path, to_jax: Callable[[np.ndarray], Any]) -> dict[str, Any]:
    container = _open_container(os.fspath(path))
    try:
        structure = json.loads(container.metadata[_KEY])
        if structure["format"] != _FORMAT:
            raise ValueError(f"format {structure['format']!r} is not known; install a newer brickwork")
        return decode(structure["tree"], container.tensors, to_jax)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its structure is not that of a checkpoint: {error}") from error
