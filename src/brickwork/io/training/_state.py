"""The state of a training run: networks, optimisers, random numbers and what the user adds."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..._state import load_state, unchanged_on_error
from ...core._frame import UPDATE_LOCK
from ...core._random import random_state, set_random_state
from ...errors import LoadError
from ...module import Module
from .._modules import aliases_of
from ._manifest import FileRecord
from ._snapshot import Snapshot, read_host, read_tree, take, verify

__all__ = ["Modules", "SavedState", "named", "snapshots"]

Modules = Module | Mapping[str, Module]

STATE = "state.safetensors"
_NAME = re.compile(r"\w[\w-]{0,60}")


def named(what: str, given: Modules | None) -> dict[str, Module]:
    """The modules that were given as ``net`` or ``opt``, by the names of their files without the ending.

    Raises:
        TypeError: something else than a module or a dict of modules.
        ValueError: a name that can't be part of a file's name.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        return {what: _module(what, given)}
    for name in given:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(
                f"{what}: the keys of a dict become names of files: letters, digits, '_' and '-' only, got {name!r}"
            )
    return {f"{what}.{name}": _module(f"{what}[{name!r}]", module) for name, module in given.items()}


def _module(what: str, given: Any) -> Module:
    module = getattr(given, "__brickwork_module__", given)
    if not isinstance(module, Module):
        kind = "an optimiser (brickwork.optim.Optimizer)" if what.startswith("opt") else "a module"
        raise TypeError(
            f"{what} must be {kind} or a dict of such, got {type(given).__name__}; arrays and other plain values "
            "go in extra="
        )
    return module


def snapshots(modules: dict[str, Module], extra: Any) -> dict[str, Snapshot]:
    """The present state, by the names of the files that it is to be in.

    Raises:
        TypeError: ``extra`` holds something that can't be saved; the message says where.
        DeferredShapeError: a shape is not known yet.
    """
    with UPDATE_LOCK:  # a compiled step on another thread comes before or after, not in between
        states = {name: module.state_dict() for name, module in modules.items()}
        gradients = {
            name: {path: p.grad for path, p in module.named_parameters() if p.grad is not None}
            for name, module in modules.items()
        }
        rest = {"extra": extra, "gradients": gradients, "random": all_random_state()}
    files = {f"{name}.safetensors": take(state, aliases=aliases_of(modules[name])) for name, state in states.items()}
    return files | {STATE: take(rest, copy=True)}


class SavedState:
    """What the files of a checkpoint hold, verified and read, to be put in place.

    Raises:
        CheckpointError: a file is damaged.
        LoadError: the checkpoint doesn't have all that is asked for.
    """

    def __init__(self, folder: Path, files: dict[str, FileRecord], modules: dict[str, Module]) -> None:
        self._folder = folder
        self._modules = modules
        for name in modules:
            if f"{name}.safetensors" not in files:
                raise LoadError(_lacks(folder, name, files))
        for file in (*(f"{name}.safetensors" for name in modules), STATE):
            verify(folder / file, files[file])
        self._states = {name: read_host(folder / f"{name}.safetensors") for name in modules}
        self._rest = read_tree(folder / STATE)
        self.extra: Any = self._rest["extra"]

    def put_in_place(self, *, random: bool) -> None:
        """Load everything or, when something doesn't fit, nothing.

        Raises:
            LoadError: something doesn't fit; the message lists what.
        """
        before = all_random_state()
        with unchanged_on_error(self._modules.values()):
            for name, module in self._modules.items():
                path = str(self._folder / f"{name}.safetensors")
                advice = f"Restore into modules like those saved, or take what fits: .load({path!r}, strict=False)."
                load_state(module, self._states[name], what=path, advice=advice)
                gradients = self._rest["gradients"].get(name, {})
                for path, parameter in module.named_parameters():
                    parameter.grad = gradients.get(path)
            if not random:
                return
            try:
                set_all_random_state(self._rest["random"])
            except (ValueError, TypeError, KeyError) as error:
                with suppress(Exception):  # what was there before fits for sure; the error is the news
                    set_all_random_state(before)
                raise LoadError(
                    f"{self._folder / STATE}: {error}; restore(random=False) leaves random numbers as they are"
                ) from error


def _lacks(folder: Path, name: str, files: Mapping[str, Any]) -> str:
    what, _, own = name.partition(".")
    found = sorted(file.removesuffix(".safetensors") for file in files if file.split(".")[0] == what)
    asked = f"{what}={{{own!r}: ...}}" if own else f"{what}=..."
    if not found:
        return f"{folder} has no {what}: it was saved without {what}=, so it can't be restored with {asked}"
    if found == [what]:
        saved = f"one {what}; pass {what}=..."
    else:
        keys = ", ".join(repr(x.partition(".")[2]) for x in found)
        saved = f"a dict with the keys {keys}; pass {what}={{name: ...}} with these names"
    return f"{folder} can't be restored with {asked}: it was saved with {saved}"


# --- random numbers -------------------------------------------------------------------------------


def all_random_state() -> dict[str, Any]:
    """The state of brickwork's random numbers, and of the global ones of NumPy and Python."""
    version, words, gauss = random.getstate()
    return {
        "brickwork": random_state(),
        "numpy": np.random.get_state(legacy=False),
        "python": {"version": version, "words": np.array(words, np.uint32), "gauss": gauss},
    }


def set_all_random_state(state: dict[str, Any]) -> None:
    """Continue from what :func:`all_random_state` returned."""
    setters: tuple[tuple[str, Callable[[Any], None]], ...] = (
        ("brickwork", set_random_state),
        ("numpy", np.random.set_state),
        ("python", _set_python_state),
    )
    for name, setter in setters:
        setter(state[name])


def _set_python_state(state: dict[str, Any]) -> None:
    random.setstate((state["version"], tuple(state["words"].tolist()), state["gauss"]))
