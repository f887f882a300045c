"""Networks and files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..core import LoadReport, ModuleBase
from ..core._state import entries, load_state, renamed
from ..errors import CheckpointError
from ._files import load, save
from ._selection import placement
from ._source import Contents
from .architecture._record import ARCHITECTURE, record
from .layouts._adapt import adapt, is_foreign


def save_module(net: ModuleBase, path: str | os.PathLike[str], architecture: bool = False) -> None:
    """Write a network's parameters and persistent buffers; see ``Module.save``."""
    net.prepare_state()
    metadata = {ARCHITECTURE: record(net)} if architecture else None
    save(path, net.state_dict(), metadata=metadata, aliases=aliases_of(net))


def aliases_of(net: ModuleBase) -> dict[str, str]:
    """The further names of tied parameters and buffers, and the names that they are saved under."""
    canonical = {entry.key: entry.name for entry in entries(net)}
    found = (entry for entry in entries(net, aliases=True) if entry.variable.persistent)
    return {entry.name: canonical[entry.key] for entry in found if entry.name != canonical[entry.key]}


def load_module(
    net: ModuleBase,
    path: str | os.PathLike[str],
    *,
    strict: bool,
    rename: Mapping[str, str] | Callable[[str], str] | None,
) -> LoadReport:
    """Take over a network's parameters and buffers from a file; see ``Module.load``."""
    state, info = load(path, with_metadata=True, lazy=True)
    if not isinstance(state, dict) or not all(hasattr(v, "shape") for v in state.values()):
        kind = type(state).__name__
        inside = f" with the entries {list(state)[:8]}" if isinstance(state, dict) else ""
        raise CheckpointError(
            f"{os.fspath(path)}: holds a {kind}{inside}, not a plain dict from names to arrays; open it with "
            "bw.load and pass the part that belongs to the network to net.load_state_dict"
        )
    names = {entry.name for entry in entries(net, aliases=True)}
    for alias, name in info.aliases.items():  # tied in the file; perhaps not in this network
        if alias in names and name in state:
            state.setdefault(alias, state[name])
    what = os.fspath(path)
    if is_foreign(info.kind):
        new = renamed(state, rename)
        contents = Contents(new, info.kind, info.metadata)
        state, rename = adapt(net, contents, dict(zip(new, state)), what), None
    else:
        state = _placed(state)
    return load_state(net, state, strict=strict, rename=rename, what=what)


def _placed(state: Mapping[str, Any]) -> dict[str, Any]:
    """With JAX arrays in the place of NumPy's; what was one array, under several names, is one again."""
    place, made = placement(None, None), {}
    for name, array in state.items():
        if id(array) not in made:
            made[id(array)] = place(name, array) if isinstance(array, np.ndarray) else array
    return {name: made[id(array)] for name, array in state.items()}
