"""Opening a file of any known format."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ._container import CHECKSUMS, Container, read_container
from ._kinds import HEAD, is_safetensors, name_kind
from ._paths import MissingFileError, NotAFileError, fail, opened, shown
from ._shards import is_index, read_folder, read_index
from ._source import Contents, Make, Reader, Source
from ._structure import decode

__all__ = ["FORMAT", "KEY", "read", "read_source"]

KEY = "brickwork"  # our entry in the metadata of a safetensors file
FORMAT = 1
_KNOWN = "Known are safetensors and what PyTorch, MXNet, PaddlePaddle, Keras, TensorFlow (checkpoints) and NumPy write"


@dataclass(frozen=True)
class _OwnContents(Contents):
    """What :func:`brickwork.save` wrote, which also tells JAX's arrays from NumPy's."""

    structure: Any = None
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)
    path: str = ""

    def build(self, make: Make) -> Any:
        try:
            return decode(self.structure, dict(self.tensors), make)
        except (ValueError, RecursionError) as error:
            raise _invalid(self.path, error) from None


def read(path: str, verify: bool = False) -> Contents:
    """Open a file of any known format, found out from its bytes.

    Args:
        path: the file.
        verify: whether to compare all its bytes with its checksums.

    Raises:
        CheckpointError: it cannot be read; the message says why.
    """
    if os.path.isdir(path):
        return read_folder(path, lambda file: read(file, verify), _is_known)
    path = _index_of(path)
    with opened(path) as file:
        return read_source(Source.of(path, file, verify))


def _index_of(path: str) -> str:
    """The index of the checkpoint that TensorFlow calls ``path``, or ``path`` itself if that is a file or no such."""
    return f"{path}.index" if not os.path.exists(path) and os.path.isfile(f"{path}.index") else path


def read_source(source: Source) -> Contents:
    """The same for a file that is open; what it refers to lies beside it."""
    head, path = source.data[:HEAD].tobytes(), source.path
    if len(head) <= 8:
        reason = f"it has {len(head)} bytes, too few for any checkpoint" if head else "it is empty"
        fail(CheckpointError, f"cannot load {shown(path)}: {reason}")
    if is_safetensors(head):
        return _safetensors(source)
    if is_index(head):
        return read_index(source, lambda file: _read_shard(file, source.verify))
    reader = _find_reader(source)
    if reader is not None:
        return reader(source)
    kind = name_kind(head)
    if kind is not None:
        fail(CheckpointError, f"cannot load {shown(path)}: this looks like {kind[0]}; {kind[1]}")
    fail(
        CheckpointError, f"cannot load {shown(path)}: it is of no known format; it begins with {head[:16]!r}. {_KNOWN}"
    )


def _find_reader(source: Source) -> Reader | None:
    from .formats._readers import find_reader  # all readers, which most programs never need

    return find_reader(source)


def _read_shard(path: str, verify: bool) -> Contents:
    with opened(path) as file:
        if is_index(file.read(HEAD)):
            raise CheckpointError(f"{path}: an index of shards lists itself or another index")
    return read(path, verify)


def _is_known(path: str) -> bool:
    """Whether the file at ``path`` looks like a checkpoint, whole or damaged."""
    try:
        with opened(path) as file:
            source = Source.of(path, file)
        return is_safetensors(source.data[:HEAD].tobytes()) or _find_reader(source) is not None
    except (MissingFileError, NotAFileError):  # a directory inside, or a link to nowhere
        return False
    except CheckpointError:
        return True


def _safetensors(source: Source) -> Contents:
    container = read_container(source)
    metadata = dict(container.metadata)
    metadata.pop(CHECKSUMS, None)
    text = metadata.pop(KEY, None)
    if text is not None:
        return _own(container, metadata, text)
    tree = container.tensors
    aliases = {k: v for k, v in metadata.items() if v in tree and k not in tree}
    return Contents(tree, "safetensors", metadata, aliases)


def _own(container: Container, metadata: dict[str, str], text: str) -> Contents:
    try:
        structure = json.loads(text)
        if not isinstance(structure, dict) or type(structure.get("format")) is not int:
            raise ValueError("it does not say its format")
        if structure["format"] != FORMAT:
            raise ValueError(
                f"it has format {structure['format']}, this version of brickwork reads format "
                f"{FORMAT}; install a newer brickwork"
            )
        if "tree" not in structure:
            raise ValueError("it has no tree")
        aliases = structure.get("aliases", {})
        if not isinstance(aliases, dict) or not all(isinstance(v, str) for v in aliases.values()):
            raise ValueError("its aliases are not an object of strings")
        tree = decode(structure["tree"], container.tensors, lambda kind, name, array: array)
    except (ValueError, RecursionError) as error:
        raise _invalid(container.path, error) from None
    return _OwnContents(tree, "brickwork", metadata, aliases, structure["tree"], container.tensors, container.path)


def _invalid(path: str, error: Exception) -> CheckpointError:
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return CheckpointError(f"{path}: the structure in the metadata entry {KEY!r} is not valid: {reason}")
