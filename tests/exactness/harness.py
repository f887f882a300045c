"""Running one program in several ways, and comparing everything it leaves behind."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

import brickwork as bw
from brickwork.core import ModuleBase, Variable, random_stream
from brickwork.core._jax import Tracer

from . import plain

SEED = 11


def _same(fn: Callable[..., Any]) -> Callable[..., Any]:
    return fn


EAGER = types.SimpleNamespace(
    **{name: getattr(bw, name) for name in dir(plain) if hasattr(bw, name)} | {"compile": _same}
)
"""The transforms of brickwork, without ``compile``."""


@dataclass(frozen=True)
class Program:
    """A small program and what is expected of it.

    Args:
        build: called with a namespace of transforms (that of brickwork, or plain Python); makes fresh state, and
            returns the function, the state to look at, and the arguments of the calls, one tuple for each.
        plain: whether the program also runs with loops and branches in plain Python.
        compilations: how often the function compiles in all those calls; ``None`` where that isn't the point.
        rtol: for floating-point numbers; everything else is compared bit by bit.
    """

    build: Callable[[Any], tuple[Callable[..., Any], Any, list[tuple[Any, ...]]]]
    plain: bool = True
    compilations: int | None = 1
    rtol: float = 1e-6

    @property
    def name(self) -> str:
        return self.build.__name__


PROGRAMS: list[Program] = []


def program(build: Any = None, **options: Any) -> Any:
    """Add a program to the catalogue."""

    def add(build: Any) -> Any:
        PROGRAMS.append(Program(build, **options))
        return build

    return add if build is None else add(build)


def run(program: Program, transforms: Any, compiled: bool) -> tuple[list[dict[str, Any]], Any]:
    """The records of all calls, from a fresh start; and the function that was called."""
    bw.seed(SEED)
    fn, state, calls = program.build(transforms)
    if compiled:
        fn = bw.compile(fn)
    records = []
    for args in calls:
        result = fn(*args)
        leaked = [path for path, v in variables(state) if isinstance(v._value, Tracer)]
        assert not leaked, f"tracers in {leaked}"
        records.append({"result": result, "state": values(state), "random": np.asarray(random_stream().value)})
    return records, fn


def variables(state: Any) -> Iterator[tuple[str, Variable]]:
    """Every variable in a nest of modules and variables, gradients included, with a name for each."""
    items = (
        state.items() if isinstance(state, dict) else enumerate(state if isinstance(state, (list, tuple)) else [state])
    )
    for name, item in items:
        if isinstance(item, (dict, list, tuple)):
            named = variables(item)
        elif isinstance(item, ModuleBase):
            named = item.named_variables()
        elif hasattr(item, "variables"):
            named = enumerate(item.variables())
        else:
            named = [("", item)]
        for path, variable in named:
            yield f"{name}.{path}", variable
            slot = getattr(variable, "_grad", None)
            if slot is not None:
                yield f"{name}.{path}.grad", slot


def values(state: Any) -> dict[str, Any]:
    """What the variables hold, those of modules with ``nn.Repeat`` inside as if the blocks were separate."""
    found = {name: v.value for name, v in variables(state) if v.is_drawn or v.is_drawable}
    for i, item in enumerate(state if isinstance(state, list) else ()):
        if isinstance(item, ModuleBase) and any(m._repeated is not None for m in item.modules()):
            mine = [name for name in found if name.startswith(f"{i}.")]
            found = {name: v for name, v in found.items() if name not in mine}
            if len(mine) == len(item.variables()):  # else a shape is not known yet
                found |= {f"{i}.{name}": v for name, v in item.state_dict().items()}
    return found


def assert_same(one: Any, other: Any, rtol: float = 1e-6, where: str = "") -> None:
    """Compare two nests: structure, shapes, dtypes; floating-point numbers up to rounding, the rest exactly."""
    left, tree = jax.tree_util.tree_flatten_with_path(one)
    right, other_tree = jax.tree_util.tree_flatten(other)
    assert tree == other_tree, f"{where}: {tree} against {other_tree}"
    for (path, a), b in zip(left, right, strict=True):
        name = where + jax.tree_util.keystr(path)
        a, b = np.asarray(a), np.asarray(b)
        assert (a.shape, a.dtype) == (b.shape, b.dtype), f"{name}: {a.dtype}{a.shape} against {b.dtype}{b.shape}"
        if a.dtype.kind == "f":
            scale = max(1.0, float(np.max(np.abs(a), initial=0.0)))
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale, err_msg=name)
        else:
            np.testing.assert_array_equal(a, b, err_msg=name)
