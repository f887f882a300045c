"""Checkpoints of several files: those that an index lists, and directories."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from typing import Any

from ..errors import CheckpointError
from ._paths import NotAFileError, fail, shown
from ._source import Contents, Source

__all__ = ["is_index", "read_folder", "read_index"]

_SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)(\..+)?")  # model-00001-of-00002.safetensors
_MAX_INDEX = 100_000_000  # bytes

Read = Callable[[str], Contents]


def is_index(head: bytes) -> bool:
    """Whether a file that begins with ``head`` may be an index of shards."""
    return head.lstrip()[:1] == b"{"


def read_index(source: Source, read: Read) -> Contents:
    """The contents of all files that an index lists, as Hugging Face and Keras write it.

    Args:
        source: the JSON file, ``{"metadata": {...}, "weight_map": {name: file}}``; Keras has a list of files.
        read: reads one of them.

    Raises:
        CheckpointError: it is no index, or it doesn't fit the files.
    """
    index = _parsed(source)
    where = index.get("weight_map")
    if not isinstance(where, dict) or not where:
        source.refuse('a JSON file with "weight_map" lists the files of a checkpoint, and this one has none')
    folder = os.path.dirname(source.path)
    files: dict[str, list[str]] = {}
    for name, given in where.items():
        for file in given if isinstance(given, list) else [given]:
            if not isinstance(file, str) or os.path.basename(file) != file or file in ("", ".", ".."):
                source.refuse(f"it places {name!r} in {file!r}, which is not the name of a file beside it")
            files.setdefault(file, [])
            if isinstance(given, str):
                files[file].append(name)
    parts = {file: read(os.path.join(folder, file)) for file in files}
    for file, names in files.items():
        missing = [name for name in names if name not in parts[file].tree]
        if missing:
            source.refuse(f"it places {missing[0]!r} in {file!r}, which does not contain it")
    return _merged(source.path, parts)


def _parsed(source: Source) -> dict[str, Any]:
    source.what = "JSON file"
    if source.size > _MAX_INDEX:
        source.refuse(f"it is {source.size:,} bytes long; an index of at most {_MAX_INDEX:,} is read")
    try:
        found = json.loads(source.data.tobytes())
    except (ValueError, RecursionError) as error:
        source.refuse(f"it is not valid JSON: {error}")
    if not isinstance(found, dict):
        source.refuse("it is not an object")
    return found


def _merged(path: str, parts: dict[str, Contents]) -> Contents:
    first = next(iter(parts.values()))
    tree: dict[Any, Any] = {}
    owner: dict[Any, str] = {}
    metadata: dict[str, str] = {}
    aliases: dict[str, str] = {}
    for file, part in parts.items():
        if not isinstance(part.tree, dict):
            raise CheckpointError(f"{path}: {file!r} holds a {type(part.tree).__name__}, not arrays by name")
        for name in part.tree:
            if name in owner:
                raise CheckpointError(f"{path}: {name!r} is in two of its files, {owner[name]!r} and {file!r}")
            owner[name] = file
        tree |= part.tree
        metadata |= part.metadata
        aliases |= part.aliases
    return Contents(tree, first.kind, metadata, aliases)


def read_folder(path: str, read: Read, recognised: Callable[[str], bool]) -> Contents:
    """The checkpoint in a directory: the files of its index, the only file, or all shards.

    Args:
        path: the directory.
        read: reads a file.
        recognised: whether a file is a checkpoint of a known format.

    Raises:
        CheckpointError: there is no checkpoint in it, or several.
    """
    names = sorted(name for name in os.listdir(path) if not name.startswith("."))
    indices = [name for name in names if name.endswith((".index.json", ".weights.json"))]
    preferred = [name for name in indices if "safetensors" in name] or indices
    if len(preferred) == 1:
        return read(os.path.join(path, preferred[0]))
    found = preferred or [name for name in names if recognised(os.path.join(path, name))]
    if len(found) == 1:
        return read(os.path.join(path, found[0]))
    shards = [_SHARD.fullmatch(name) for name in found]
    sets = {(shard[1], shard[3], shard[4]) for shard in shards if shard}
    if found and all(shards) and len(sets) == 1:
        count = int(next(iter(sets))[1])
        if len(found) != count:
            have = f"{len(found)} of the {count} files like {found[0]!r}"
            fail(CheckpointError, f"cannot load {shown(path)}: it holds {have}; get the others")
        return _merged(path, {name: read(os.path.join(path, name)) for name in found})
    if found:
        listed = ", ".join(map(repr, found[:5])) + (", ..." if len(found) > 5 else "")
        fail(NotAFileError, f"cannot load {shown(path)}: it is a directory of several checkpoints; name one: {listed}")
    fail(NotAFileError, f"cannot load {shown(path)}: it is a directory without a checkpoint in it")
