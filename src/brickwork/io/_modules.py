"""Networks and files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .._state import LoadReport, entries, load_state, renamed
from ..errors import CheckpointError, LoadError
from ..module import Module, implement
from ._files import load, save
from ._selection import placement
from ._source import Contents
from .architecture._record import ARCHITECTURE, record
from .layouts._adapt import adapt, is_foreign


def save_module(net: Module, path: str | os.PathLike[str], architecture: bool = False) -> None:
    """Write a network's parameters and persistent buffers; see ``Module.save``."""
    net.prepare_state()
    metadata = {ARCHITECTURE: record(net)} if architecture else None
    save(path, net.state_dict(), metadata=metadata, aliases=aliases_of(net))


def aliases_of(net: Module) -> dict[str, str]:
    """The further names of tied parameters and buffers, and the names that they are saved under."""
    canonical = {entry.key: entry.name for entry in entries(net)}
    found = (entry for entry in entries(net, aliases=True) if entry.variable.persistent)
    return {entry.name: canonical[entry.key] for entry in found if entry.name != canonical[entry.key]}


def load_module(
    net: Module,
    path: str | os.PathLike[str],
    *,
    strict: bool,
    rename: Mapping[str, str] | Callable[[str], str] | None,
    prefix: str = "",
) -> LoadReport:
    """Take over a network's parameters and buffers from a file; see ``Module.load``."""
    state, info = load(path, with_metadata=True, lazy=True)
    what = os.fspath(path)
    if prefix:
        state = _below(state, prefix, what)
    _check_flat(state, what)
    names = {entry.name for entry in entries(net, aliases=True)}
    for alias, name in info.aliases.items():  # tied in the file; perhaps not in this network
        alias, name = alias.removeprefix(prefix), name.removeprefix(prefix)
        if alias in names and name in state:
            state.setdefault(alias, state[name])
    if is_foreign(info.kind):
        new = renamed(state, rename)
        originals = {name: prefix + old for name, old in zip(new, state, strict=True)}
        state, rename = adapt(net, Contents(new, info.kind, info.metadata), originals, what), None
    else:
        state = _placed(state)
    return load_state(net, state, strict=strict, rename=rename, what=what)


def _check_flat(state: Any, what: str) -> None:
    if isinstance(state, dict) and all(hasattr(v, "shape") for v in state.values()):
        return
    inside, advice = "", "open it with bw.load and pass the part that belongs to the network to net.load_state_dict"
    if isinstance(state, dict):
        inside = f" with the entries {list(state)[:8]}"
        nests = [key for key, value in state.items() if isinstance(key, str) and isinstance(value, dict)]
        if nests:
            advice = f"load(path, prefix='{nests[0]}.') takes what is in {nests[0]!r}"
    kind = type(state).__name__
    raise CheckpointError(f"{what}: holds a {kind}{inside}, not a plain dict from names to arrays; {advice}")


def _below(state: Any, prefix: str, what: str) -> dict[str, Any]:
    """The arrays whose names, joined with dots in a nest, begin with a prefix, without it."""
    flat = dict(_flat(state, ""))
    found = {name.removeprefix(prefix): array for name, array in flat.items() if name.startswith(prefix)}
    if not found:
        begins = list(dict.fromkeys(name.partition(".")[0] + "." * ("." in name) for name in flat))
        shown = ", ".join(map(repr, begins[:8])) + (", ..." if len(begins) > 8 else "")
        raise LoadError(f"{what}: no array's name begins with {prefix!r}; they begin with {shown or 'nothing at all'}")
    return found


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}")
    elif hasattr(value, "shape"):
        yield path[1:], value


def _placed(state: Mapping[str, Any]) -> dict[str, Any]:
    """With JAX arrays in the place of NumPy's; what was one array, under several names, is one again."""
    place, made = placement(None, None), {}
    for name, array in state.items():
        if id(array) not in made:
            made[id(array)] = place(name, array) if isinstance(array, np.ndarray) else array
    return {name: made[id(array)] for name, array in state.items()}


implement(save=save_module, load=load_module)
