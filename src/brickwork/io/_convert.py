"""From one format of checkpoints to another."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ._files import save_foreign
from ._formats import read
from ._paths import replacing
from .formats._writers import WRITERS

__all__ = ["FORMATS", "convert"]

FORMATS = ("safetensors", *WRITERS)
_BY_ENDING = {
    ".safetensors": "safetensors",
    ".npz": "npz",
    ".params": "mxnet",
    ".pdparams": "paddle",
}
_ELSEWHERE = {
    (".pt", ".pth", ".bin"): "PyTorch reads safetensors: name the output *.safetensors, or pass --to torch",
    (".h5", ".keras"): "Keras files hold weights by the order of a model's layers, which a file alone doesn't tell",
}


def convert(source: str, target: str, to: str | None = None) -> tuple[str, str]:
    """Write the contents of one file in another format, one array in memory at a time.

    Names and layouts stay as they are.

    Args:
        source: a file of any known format.
        target: the file to write, replaced atomically.
        to: one of :data:`FORMATS`; by default found from the ending of ``target``.

    Returns:
        What ``source`` is and what ``target`` became.

    Raises:
        CheckpointError: a file can't be read or written, the format can't hold what is in ``source``, or the ending
            of ``target`` is not known; nothing is written.
    """
    kind = to or _kind_of(target)
    contents = read(source)
    if kind == "safetensors":
        save_foreign(target, contents.tree, contents.metadata, contents.aliases)
        return contents.kind, kind
    arrays = _flat(contents.tree, source, kind)
    arrays |= {alias: arrays[name] for alias, name in contents.aliases.items() if name in arrays}
    with replacing(target) as file:
        WRITERS[kind](file, arrays)
    return contents.kind, kind


def _kind_of(path: str) -> str:
    ending = os.path.splitext(path)[1]
    if ending in _BY_ENDING:
        return _BY_ENDING[ending]
    hint = next((f". {text}" for endings, text in _ELSEWHERE.items() if ending in endings), "")
    raise CheckpointError(
        f"{path}: no format is known by the ending {ending!r}; name one of {', '.join(FORMATS)}{hint}"
    )


def _flat(tree: Any, source: str, kind: str) -> dict[str, np.ndarray]:
    if not isinstance(tree, dict):
        raise CheckpointError(f"{source} holds a {type(tree).__name__}; {kind} files hold a dict of names and arrays")
    for name, value in tree.items():
        if not isinstance(name, str) or not isinstance(value, (np.ndarray, np.generic)):
            raise CheckpointError(
                f"{source}: the entry {name!r} is a {type(value).__name__}, no array; {kind} files hold a dict of "
                "names and arrays. Convert to safetensors, which keeps any nest"
            )
    return {name: np.asarray(value) for name, value in tree.items()}
