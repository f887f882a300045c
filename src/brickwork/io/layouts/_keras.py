"""The layers in files of Keras and TensorFlow."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._source import Contents
from ._keras_config import MODELS, ConfigLayer, layers_of, snake
from ._keras_values import CELLS, KINDS, RECURRENT, ROLES, families_of, values_for
from ._match import Slot, Unit, Values

__all__ = ["single", "units"]


def units(contents: Contents, own: Mapping[str, str], what: str) -> tuple[list[Unit], dict[str, np.ndarray]]:
    """The layers in a file, and the arrays that belong to none of them.

    Args:
        contents: of the file; its arrays may have new names.
        own: new names -> those that the file uses.
        what: how messages call the file.
    """
    file = _File(contents, own, what)
    return [layer.unit(file) for layer in file.layers()], file.rest


def single(slots: list[Slot]) -> list[Slot]:
    """With recurrent layers taken apart: Keras has one for each level and direction."""
    found = []
    for slot in slots:
        if slot.family not in RECURRENT:
            found.append(slot)
            continue
        levels: dict[str, Slot] = {}
        for role, entry in slot.entries.items():
            short, level = re.fullmatch(r"(.*?)((?:_l\d+)?(?:_reverse)?)", role).groups()  # type: ignore[union-attr]
            if level not in levels:
                family = slot.family + ("_reverse" if level.endswith("_reverse") else "")
                levels[level] = Slot(slot.name, slot.module, family, (slot.key, level), alias=slot.alias)
            levels[level].entries[short] = entry
            levels[level].shapes[short] = slot.shapes[role]
        if len(levels) > 1:
            for level, part in levels.items():
                part.name = f"{slot.name}{level}"
        found.extend(levels.values())
    return found


# --- layers ---------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Layer:
    """Variables that belong together."""

    path: str  # in the file
    names: list[str]  # under which the network may have it
    arrays: dict[str, np.ndarray]  # by the names that they have now
    roles: list[str] | None  # of the arrays, if the file says them
    kind: str | None  # Keras' class
    config: ConfigLayer | None = None
    settings: Mapping[str, Any] | None = None  # the configuration of the layer itself, not of one around it
    order: Any = None
    row: Any = None
    reverse: bool = False

    def unit(self, file: _File) -> Unit:
        if self.kind is None:
            families = families_of(dict(zip(self.roles or (), self.arrays.values())))
        else:  # none for a class that has no counterpart
            families = frozenset({KINDS[self.kind][0]} if self.kind in KINDS else ())
        if self.reverse and families is not None:
            families = frozenset(f"{family}_reverse" for family in families)
        return Unit(
            self.path or "the model itself",
            self.arrays,
            tuple(dict.fromkeys(self.names)),
            families,
            functools.partial(_values, self),
            self.order,
            self.row,
            channels=self.config.channels if self.config is not None else 0,
        )


_WRAPPERS = frozenset({"bidirectional", "time_distributed"})
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_VARS = re.compile(r"(?:(.*)/)?vars/(\d+)")
_NO_LAYERS = re.compile(r"(optimizer|optimizer_weights|_optimizer)(/|$)|(^|.*/)(seed_generator|_random_generator)(/|$)")
_NO_VARIABLES = re.compile(r"_CHECKPOINTABLE_OBJECT_GRAPH|save_counter/.*|.*/\.OPTIMIZER_SLOT/.*")


class _File:
    """What a file says about its layers."""

    def __init__(self, contents: Contents, own: Mapping[str, str], what: str) -> None:
        self.what = what
        self.now = {own.get(name, name): name for name in contents.tree}  # the file's names -> those of now
        self.arrays = {name: contents.tree[now] for name, now in self.now.items()}
        self.rest: dict[str, np.ndarray] = {}
        self.titles: dict[str, str] = json.loads(contents.metadata.get("layer names", "{}"))
        self.listed: list[tuple[str, list[str]]] = json.loads(contents.metadata.get("layers", "[]"))
        self.config = layers_of(contents.metadata.get("model_config"), what)
        self.by_name = {layer.names: layer for layer in self.config}
        self.is_tensorflow = contents.kind == "tensorflow"

    def layers(self) -> list[_Layer]:
        if self.is_tensorflow:
            return list(self._tensorflow())
        return list(self._listed() if self.listed else self._numbered())

    def _variables(self, names: list[str]) -> dict[str, np.ndarray]:
        return {self.now[name]: self.arrays[name] for name in names}

    def _renamed(self, names: list[str]) -> list[str] | None:
        """The name of a layer that a user has given it, if so."""
        new = self.now[names[0]]
        if new == names[0]:
            return None
        found = _VARS.fullmatch(new)
        return [(found[1] or "" if found else new.rpartition("/")[0]).replace("/", ".")]

    # Keras 3: layers/dense/vars/0

    def _numbered(self) -> Iterator[_Layer]:
        groups: dict[str, dict[int, str]] = {}
        for name in self.arrays:
            found = _VARS.fullmatch(name)
            if _NO_LAYERS.match(name):
                continue
            if found is None:
                self.rest[self.now[name]] = self.arrays[name]
            else:
                groups.setdefault(found[1] or "", {})[int(found[2])] = name
        by_path = {layer.path: layer for layer in self.config}
        for path, numbered in groups.items():
            names = [numbered[i] for i in sorted(numbered)]
            outer = path.removesuffix("/cell")
            config = next((by_path[above] for above in _above(outer) if above in by_path), None)
            kind, settings = self._kind(path, outer, config)
            layer = _Layer(path, [], self._variables(names), None, kind, config, settings)
            titles = [self.titles[above] for above in reversed(_above(outer)) if above in self.titles]
            own = [outer.replace("/", ".")]
            for known in (titles, list(config.names) if config and config.path == outer else []):
                if known and not _is_automatic(known[-1], kind):
                    own.append(".".join(known))
            layer.names = self._renamed(names) or own
            layer.reverse = re.search(r"(^|/)backward_layer(/|$)", outer) is not None
            if config is not None:
                layer.order = config.order
            else:
                parts = [re.fullmatch(r"(.*?)(?:_(\d+))?", part).groups() for part in outer.split("/")]  # type: ignore
                layer.row = tuple(stem for stem, _ in parts)
                layer.order = tuple(int(count or 0) for _, count in parts)
            yield layer

    def _kind(self, path: str, outer: str, config: ConfigLayer | None) -> tuple[str | None, Mapping[str, Any] | None]:
        """The class of the layer at ``path``, whose variables may be those of a cell, and its configuration."""
        title = self.titles.get(path, "")
        if path != outer and title in CELLS:
            return CELLS[title], None if config is None or config.path != outer else config.config
        if config is not None and config.path == outer:
            return _class_of(config)
        if config is not None and config.kind in _WRAPPERS:
            return _class_of(config)
        above, _, last = outer.rpartition("/")
        if above.rpartition("/")[2] == "layers":
            return _stem(last), None
        stem = _stem(self.titles.get(outer, ""))
        return (stem if stem in KINDS else None), None

    # Keras 2, and whole models: model_weights/dense_1/mlp/dense_1/kernel:0

    def _listed(self) -> Iterator[_Layer]:
        used = {path for _, paths in self.listed for path in paths}
        for name, array in self.arrays.items():
            if name not in used and not _NO_LAYERS.match(name):
                self.rest[self.now[name]] = array
        order = 0
        for name, paths in self.listed:
            groups: dict[tuple[str, ...], dict[str, str]] = {}
            for path in paths:
                *above, role = path.removeprefix("model_weights/").removeprefix(f"{name}/").split("/")
                groups.setdefault(tuple(above), {})[role.removesuffix(":0")] = path
            for above, members in groups.items():
                layer = self._listed_layer(name, list(above), members, alone=len(groups) == 1)
                layer.order, order = order, order + 1
                yield layer

    def _listed_layer(self, name: str, above: list[str], members: dict[str, str], alone: bool) -> _Layer:
        """A layer that is, or is inside of, the one called ``name``; ``above`` is what stands before its variables."""
        names = list(members.values())
        config = self._config_of(name, above)
        parts = [part for part in above if _stem(part) not in CELLS]
        kind, settings = (None, None) if config is None else _class_of(config)
        if config is None and _stem(parts[-1] if parts else name) in KINDS:
            kind = _stem(parts[-1] if parts else name)
        for part in above:
            kind = CELLS.get(_stem(part), kind)
        roles = list(members) if members.keys() <= ROLES else None
        layer = _Layer(names[0].rpartition("/")[0], [], self._variables(names), roles, kind, config, settings)
        own = [[name]] if alone else []
        own += [parts, [name, *parts], parts[1:]]
        fitting = [".".join(x) for x in own if x and not _is_automatic(x[-1], kind)]
        layer.names = self._renamed(names) or fitting
        layer.reverse = any(part.startswith("backward_") for part in above)
        return layer

    def _config_of(self, name: str, above: list[str]) -> ConfigLayer | None:
        """The configuration of a layer, or of one inside the model ``name``."""
        outer = self.by_name.get((name,))
        inner = [self.by_name[names] for names in _inside(name, above) if names in self.by_name]
        if inner or outer is None:
            return inner[-1] if inner else None
        return None if outer.kind in MODELS else outer

    # TensorFlow: hidden/kernel/.ATTRIBUTES/VARIABLE_VALUE

    def _tensorflow(self) -> Iterator[_Layer]:
        groups: dict[str, dict[str, str]] = {}
        for name, array in self.arrays.items():
            path, _, role = name.removesuffix(_SUFFIX).rpartition("/")
            if _NO_VARIABLES.fullmatch(name) or _NO_LAYERS.match(name):
                continue
            if not name.endswith(_SUFFIX) or role.lstrip("_") not in ROLES:
                self.rest[self.now[name]] = array
            else:
                groups.setdefault(path, {})[role.lstrip("_")] = name
        for path, members in groups.items():
            outer = path.removesuffix("/cell")
            parts = outer.split("/")
            names = list(members.values())
            layer = _Layer(path, [], self._variables(names), list(members), None)
            layer.names = self._renamed(names) or [".".join(parts)]
            layer.row = tuple("#" if part.isdecimal() else part for part in parts)
            layer.order = tuple(int(part) for part in parts if part.isdecimal())
            yield layer


def _inside(name: str, above: list[str]) -> Iterator[tuple[str, ...]]:
    """The names that a layer inside of the model ``name`` may have, from what stands before its variables."""
    start = above.index(name) + 1 if name in above else 0
    for end in range(start + 1, len(above) + 1):
        yield (name, *above[start:end])


def _class_of(config: ConfigLayer) -> tuple[str | None, Mapping[str, Any] | None]:
    """The class of a layer, or of the one in a wrapper, and its configuration; ``None`` for RNN, which can be all."""
    if config.kind not in _WRAPPERS:
        return (config.kind, config.config) if config.kind != "rnn" else (None, None)
    inner = config.config.get("layer")
    if not isinstance(inner, dict):
        return None, None
    settings = inner.get("config")
    return snake(str(inner.get("class_name"))), settings if isinstance(settings, dict) else None


def _stem(name: str) -> str:
    """A name without the number that Keras adds to it, and without the direction."""
    return re.sub(r"_\d+$", "", re.sub(r"^(forward|backward)_", "", name))


def _above(path: str) -> list[str]:
    """A path and the paths above it, without the root."""
    parts = path.split("/") if path else []
    return ["/".join(parts[:n]) for n in range(len(parts), 0, -1)]


def _is_automatic(name: str, kind: str | None) -> bool:
    """Whether Keras gave a layer its name, which says nothing but its class."""
    stem = _stem(name)
    return stem == kind or (kind not in KINDS and stem in KINDS)


def _values(layer: _Layer, slot: Slot) -> Values | None:
    return values_for(slot, layer.roles, list(layer.arrays.values()), layer.settings, layer.path)
