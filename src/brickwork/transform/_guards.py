"""What a function captures: the globals and closure cells that its compiled program relies on.

A program is traced once and run many times, so whatever the function read from outside must still be
what it was. Modules and variables report themselves to the frame when used; this file adds the names
through which the function reaches things. Rebinding one of them (``net = other``, ``rate = 0.1``) is
noticed at the next call.
"""

from __future__ import annotations

import dis
import functools
import os
import types
from collections.abc import Iterator
from typing import Any

from ..core import ModuleBase, Variable
from ..core._structure import Static

_LIMIT = 256
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_LIBRARIES = (_PACKAGE + os.sep, f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_MISSING = object()


class Guards:
    """Snapshot of the names that a function reads, to be compared later."""

    __slots__ = ("cells", "globals", "roots", "variables")

    def __init__(self, fn: Any) -> None:
        self.globals: list[tuple[dict[str, Any], str, int, Static | None]] = []
        self.cells: list[tuple[types.CellType, str, int, Static | None]] = []
        self.roots: list[ModuleBase] = []
        self.variables: list[Variable] = []
        seen: set[int] = set()
        _visit(fn, self, seen)

    def hold(self) -> bool:
        """Whether every name still means the same object."""
        # Plain loops: this runs at every call.
        for namespace, name, identity, _ in self.globals:
            if id(namespace.get(name, _MISSING)) != identity:
                return False
        for cell, _, identity, _ in self.cells:  # noqa: SIM110
            if id(_contents(cell)) != identity:
                return False
        return True

    def changed(self) -> str | None:
        """The first name that means something else now, equal numbers and strings aside."""
        for namespace, name, identity, known in self.globals:
            now = namespace.get(name, _MISSING)
            if id(now) != identity and (known is None or Static(now) != known):
                return f"global {name!r}"
        for cell, name, identity, known in self.cells:
            now = _contents(cell)
            if id(now) != identity and (known is None or Static(now) != known):
                return f"captured variable {name!r}"
        return None

    def release(self) -> None:
        """Forget the modules found, which the program must not keep alive."""
        self.roots, self.variables = [], []


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return _MISSING


def _global_names(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def _visit(value: Any, out: Guards, seen: set[int]) -> None:
    """Look through a function, or whatever stands for one, for what it captures."""
    if id(value) in seen or len(seen) > _LIMIT:
        return
    seen.add(id(value))
    if isinstance(value, ModuleBase):
        out.roots.append(value)
    elif isinstance(value, Variable):
        out.variables.append(value)
    elif isinstance(value, types.FunctionType):
        _visit_function(value, out, seen)
    elif isinstance(value, types.MethodType):
        _visit(value.__self__, out, seen)
        _visit(value.__func__, out, seen)
    elif isinstance(value, functools.partial):
        for part in (value.func, *value.args, *value.keywords.values()):
            _visit(part, out, seen)
    elif isinstance(value, (list, tuple)) and len(value) <= _LIMIT:
        for part in value:
            _visit(part, out, seen)
    elif isinstance(value, dict) and len(value) <= _LIMIT:
        for part in value.values():
            _visit(part, out, seen)
    elif (wrapped := getattr(value, "__wrapped__", None)) is not None:
        _visit(wrapped, out, seen)


def _visit_function(fn: types.FunctionType, out: Guards, seen: set[int]) -> None:
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        value = _contents(cell)
        out.cells.append((cell, name, id(value), _remember(value)))
        _visit(value, out, seen)
    for default in (*(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).values()):
        _visit(default, out, seen)
    if any(part in fn.__code__.co_filename for part in _LIBRARIES):
        return
    for name in dict.fromkeys(_global_names(fn.__code__)):
        value = fn.__globals__.get(name, _MISSING)
        if value is _MISSING or isinstance(value, (types.ModuleType, type, types.BuiltinFunctionType)):
            continue
        out.globals.append((fn.__globals__, name, id(value), _remember(value)))
        _visit(value, out, seen)


def _remember(value: Any) -> Static | None:
    """A value to compare by equality later; ``None`` for modules, which must not be kept alive."""
    return None if isinstance(value, (ModuleBase, Variable)) else Static(value)
