"""Printing networks as trees."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

from ._arrays import show_shape
from ._containers import Node, is_structure
from ._frame import Frame
from ._variable import Variable


def _entries(node: Any) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in node.edges():
        if not name and describe_extra(node):  # what adds nothing to names is described by the module that holds it
            continue
        if isinstance(value, tuple) and is_structure(value):
            found += [(f"{name}.{i}", x) for i, x in enumerate(value)]
        elif isinstance(value, (list, dict)):
            if is_structure(value):
                found.append((name, value))
        elif (
            (isinstance(value, Variable) and isinstance(node, (list, dict)))
            or isinstance(value, Node)
            or (callable(value) and getattr(node, "shows_callables", False))
        ):
            found.append((name, value))
    return found


def _own_variables(module: Any) -> list[str]:
    """Variables of a module that doesn't describe itself: ``weight: Parameter(3, ?)``."""
    lines = []
    for name, value in module.edges():
        if isinstance(value, Variable):
            lines.append(f"({name}): {type(value).__name__}{show_shape(value.shape[value.stacked :])}")
    return lines


def describe_extra(module: Any) -> str:
    """``module.extra_repr()``, or ``?`` for a module whose variables hold no arrays.

    ``jax.tree.map`` can make such modules, of shapes or dtypes for example, and they must print too.
    """
    stacked = [v for v in module.variables() if v.stacked]
    try:
        if not stacked:
            return module.extra_repr()
        with Frame() as frame:  # in which the module is one of those that were stacked
            for v in stacked:
                frame.bind(
                    v, SimpleNamespace(shape=v._shape[v.stacked :], dtype=v.dtype, ndim=len(v._shape) - v.stacked)
                )
            return module.extra_repr()
    except (AttributeError, IndexError, TypeError):
        if all(hasattr(v._value, "dtype") or v._value is None for v in module.variables()):
            raise
        return "?"


def _stack_size(module: Any, depth: int) -> int:
    """How many modules a stack holds that is itself inside of ``depth`` others; 0 for any other module."""
    axes: dict[int, Any] = {}  # where the blocks of a Repeat are counted, which make no stack
    for inner in module.modules():
        if inner._repeated is not None:
            axes |= {id(v): inner._repeated[1] for v in inner.variables() if id(v) not in axes}
    variables = module.variables()
    if any(axes.get(id(v), v.stacked) <= depth or v.stacked <= depth for v in variables):
        return 0
    sizes = {v._shape[depth] for v in variables}
    return sizes.pop() if len(sizes) == 1 else 0


def tree_repr(module: Any, seen: set[int] | None = None, depth: int = 0) -> str:
    """A module and what it holds, one line each, indented; a shared one is printed once in full."""
    seen = set() if seen is None else seen
    is_module = not isinstance(module, (list, dict))
    extra = describe_extra(module) if is_module else ""
    if is_module and (count := _stack_size(module, depth)):
        extra += f"{', ' if extra else ''}stack of {count}"
        depth += 1
    kind = type(module).__name__ if is_module else {True: "list", False: "dict"}[isinstance(module, list)]
    if is_module:
        if id(module) in seen:
            return f"{kind}({extra})  (shared)"
        seen.add(id(module))
        depth += module._repeated is not None
    lines = [] if extra or not is_module else _own_variables(module)
    shown = [(name, _one(value, seen, depth)) for name, value in _entries(module)]
    if getattr(module, "groups_equal", False):
        shown = _grouped(shown)
    lines += [f"({name}): {text}" for name, text in shown]
    if not lines:
        return f"{kind}({extra})"
    body = "\n".join(lines).replace("\n", "\n  ")
    return f"{kind}({extra}\n  {body}\n)"


def _one(value: Any, seen: set[int], depth: int) -> str:
    """Something that a module holds."""
    if isinstance(value, Variable):
        return f"{type(value).__name__}{show_shape(value.shape)}"
    if isinstance(value, (Node, list, dict)):
        return tree_repr(value, seen, depth)
    return getattr(value, "__name__", repr(value))


def _grouped(shown: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Entries in a row that look the same as one: ``0-2``, ``3 x Linear(? → 4)``."""
    groups = [(text, [name for name, _ in group]) for text, group in itertools.groupby(shown, lambda pair: pair[1])]
    return [
        (names[0], text) if len(names) == 1 else (f"{names[0]}-{names[-1]}", f"{len(names)} x {text}")
        for text, names in groups
    ]
