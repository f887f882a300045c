"""Trees of arrays taken to the host, written to files with a checksum, and read back.

The files are those of :func:`brickwork.save`, so ``bw.load``, ``net.load`` and other tools read them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CheckpointError
from .._container import Tensor, read_container, write_container
from .._files import description
from .._formats import read
from .._selection import placed
from .._source import Source
from .._structure import Encoder
from ._manifest import FileRecord

__all__ = ["Snapshot", "read_host", "read_tree", "take", "verify"]


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
        with open(path, "xb") as file:
            checksum = write_container(file, self.tensors, self.metadata)
            file.flush()
            os.fsync(file.fileno())
            return FileRecord(file.tell(), checksum)


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
    metadata = description(tree, {"map": entries}, aliases)
    return Snapshot({name: _held(tensor, copy) for name, tensor in encoder.tensors.items()}, metadata)


def _held(tensor: Tensor, copy: bool) -> Tensor:
    values = tensor.fetch()
    if copy:
        values = np.array(values)
    return Tensor(tensor.shape, tensor.dtype, lambda: values, held=True)


def verify(path: Path, record: FileRecord) -> None:
    """Compare a file with what was written.

    Raises:
        CheckpointError: it is missing, or another.
    """
    try:
        with open(path, "rb") as file:
            source = Source.of(os.fspath(path), file, verify=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    if source.size != record.size:
        what = "truncated" if source.size < record.size else "longer than it was"
        raise CheckpointError(f"{path}: {what}: it has {source.size:,} bytes, and {record.size:,} were written")
    read_container(source, record.checksum)


def read_tree(path: Path) -> dict[str, Any]:
    """What was taken, in memory of its own: JAX arrays as JAX arrays, on the default device."""
    return _read(path, lambda array: placed(array.copy(), None))


def read_host(path: Path) -> dict[str, Any]:
    """What was taken, with JAX arrays as read-only NumPy views of the mapped file, to be copied to where they go."""
    return _read(path, lambda array: array)


def _read(path: Path, to_jax: Callable[[np.ndarray], Any]) -> dict[str, Any]:
    contents = read(os.fspath(path))
    tree = contents.build(lambda kind, name, array: to_jax(array) if kind == "array" else array.copy())
    if contents.kind != "brickwork" or not isinstance(tree, dict):
        raise CheckpointError(f"{path}: its structure is not that of a checkpoint")
    return tree
