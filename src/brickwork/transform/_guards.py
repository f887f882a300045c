"""What a function captures: the names that its compiled program relies on.

A program is traced once and run many times, so whatever the function read from outside must still be
what it was. Modules and variables report themselves to the frame when used. This file adds the names
through which a function reaches things: globals, closure cells, defaults, attributes of captured
objects and of Python modules, items of captured lists and dicts; also for the functions it calls and
the ``forward`` methods of the modules it uses. Rebinding one of them (``net = other``, ``rate = 0.1``,
``config.rate = 0.1``) is noticed at the next call.

Of objects only the attributes count whose names occur in the code, so that a counter that the
function doesn't read may change freely.
"""

from __future__ import annotations

import dis
import functools
import inspect
import os
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..core import ModuleBase, Variable
from ..core._structure import Static

_LIMIT = 10_000
_MANY = 256  # items of captured containers that are looked at, in all
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_LIBRARIES = (_PACKAGE + os.sep, f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_MISSING = object()
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_CLOSED = (np.ndarray, np.generic, types.BuiltinFunctionType)
_UNINTERESTING = (types.ModuleType, types.BuiltinFunctionType)


class _Memory:
    """What a name stood for, and for a captured list or dict what was in it."""

    __slots__ = ("identity", "inside", "known", "label", "length")

    def __init__(self, label: str, value: Any) -> None:
        self.label = label
        self.identity = id(value)
        self.known = _remember(value)
        self.length = len(value) if issubclass(type(value), (list, dict)) else -1
        self.inside: list[tuple[Any, _Memory]] = []

    def holds(self, value: Any) -> bool:
        """Whether this is the same object still, with the same contents."""
        if isinstance(self.known, weakref.ref):
            if self.known() is not value:  # an identity may have been given away again
                return False
        elif id(value) != self.identity:
            return False
        if self.length >= 0 and len(value) != self.length:
            return False
        return all(memory.holds(_item(value, key)) for key, memory in self.inside)

    def quick(self) -> tuple[Any, int, _Memory | None]:
        """What suffices to see that nothing has changed: a weak reference or an identity, and this memory
        only when there is something inside to be compared.
        """
        reference = self.known if isinstance(self.known, weakref.ref) else None
        return reference, self.identity, self if self.inside or self.length >= 0 else None

    def changed(self, value: Any) -> str | None:
        """The name, if it stands for something else now; an equal number or string is the same."""
        if isinstance(self.known, Static):
            return None if Static(value) == self.known else self.label
        same = self.known() is value if isinstance(self.known, weakref.ref) else id(value) == self.identity
        if not same or (self.length >= 0 and len(value) != self.length):
            return self.label
        inner = (memory.changed(_item(value, key)) for key, memory in self.inside)
        return next((found for found in inner if found), None)


def _remember(value: Any) -> Any:
    """How to recognise a value later without keeping modules, or what holds them, alive."""
    if type(value) in _PLAIN or (type(value) is tuple and all(type(x) in _PLAIN for x in value)):
        return Static(value)
    try:
        return weakref.ref(value)
    except TypeError:
        return None  # lists, dicts: their contents are compared


class Guards:
    """The names that a function reads, with what they stood for."""

    __slots__ = ("_quick", "guards", "roots", "settled", "variables")

    def __init__(self, *functions: Any) -> None:
        self.settled = False  # whether they were taken after tracing, which may itself have changed things
        names: set[str] = set()
        loads: set[str] = set()
        while True:  # which attributes matter shows only when all code has been seen
            search = _Search(names, loads)
            for fn in functions:
                search.value(fn, None)
            if search.names == names and search.loads == loads:
                break
            names, loads = search.names, search.loads
        self.guards, self.roots, self.variables = search.guards, search.roots, search.variables
        self._quick = [(look, key, *memory.quick()) for look, key, memory in self.guards]

    def hold(self) -> bool:
        """Whether every name still stands for the same object. Runs at every call, so it is spelled out."""
        for look, key, reference, identity, memory in self._quick:
            value = look(key)
            if reference is not None:
                if reference() is not value:
                    return False
            elif id(value) != identity:
                return False
            if memory is not None and not memory.holds(value):
                return False
        return True

    def changed(self) -> str | None:
        """The first name that stands for something else now."""
        now = (memory.changed(look(key)) for look, key, memory in self.guards)
        return next((found for found in now if found), None)

    def release(self) -> None:
        """Forget the modules found, which the program must not keep alive."""
        self.roots, self.variables = [], []


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return _MISSING


def _attribute(reference: weakref.ref[Any], name: str) -> Any:
    owner = reference()
    return _MISSING if owner is None else _item(owner, name)


def _item(owner: Any, key: Any) -> Any:
    """What a container or an object itself holds under a key, an index or a name."""
    kind = type(owner)
    if issubclass(kind, dict):
        return dict.get(owner, key, _MISSING)
    if issubclass(kind, (list, tuple)) and isinstance(key, int):
        return owner[key] if key < len(owner) else _MISSING
    if issubclass(kind, types.FunctionType):
        return getattr(owner, key)
    try:
        found = object.__getattribute__(owner, "__dict__").get(key, _MISSING)
    except AttributeError:
        found = _MISSING
    if found is _MISSING:
        slot = inspect.getattr_static(kind, key, None)
        if isinstance(slot, types.MemberDescriptorType):
            try:
                return slot.__get__(owner)
            except AttributeError:
                return _MISSING
    return found


def _instructions(code: types.CodeType) -> Iterator[tuple[str, Any, str]]:
    for instruction in dis.get_instructions(code):
        yield instruction.opname, instruction.argval, instruction.argrepr
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _instructions(constant)


@functools.lru_cache(maxsize=4096)
def _names_in(code: types.CodeType) -> tuple[tuple[str, ...], frozenset[str], frozenset[str]]:
    """The globals that some code uses, its attribute names, and those of them that are more than method calls."""
    used = list(_instructions(code))
    loads = (arg for op, arg, _ in used if op in ("LOAD_GLOBAL", "LOAD_NAME"))
    attributes = [(op, arg, show) for op, arg, show in used if op in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR")]
    # A method call is LOAD_METHOD up to Python 3.11, then a LOAD_ATTR that also pushes the object.
    plain = frozenset(arg for op, arg, show in attributes if op != "LOAD_METHOD" and "NULL" not in show)
    return tuple(dict.fromkeys(loads)), frozenset(arg for _, arg, _ in attributes), plain


def _is_library(path: str | None) -> bool:
    return path is None or path.startswith((_STDLIB, "<frozen")) or any(part in path for part in _LIBRARIES)


class _Search:
    """One pass over everything reachable.

    ``names`` and ``loads`` are the attribute names that an earlier pass found in the code: all, and those
    that are more than calls of methods. A counter called ``step`` beside calls of ``opt.step(...)``
    doesn't matter.
    """

    def __init__(self, names: set[str], loads: set[str]) -> None:
        self.known_names, self.known_loads = frozenset(names), frozenset(loads)
        self.names, self.loads = set(names), set(loads)
        self.guarded: set[tuple[int, Any]] = set()  # namespaces and names
        self.seen_types: set[type] = set()
        self.items_left = _MANY
        self.guards: list[tuple[Callable[[Any], Any], Any, _Memory]] = []
        self.roots: list[ModuleBase] = []
        self.variables: list[Variable] = []
        self.seen: set[int] = set()

    def guard(self, look: Callable[[Any], Any], key: Any, label: str, value: Any) -> None:
        name = (id(look.__self__), key) if isinstance(look, types.BuiltinMethodType) else None
        if name in self.guarded:
            return
        if name is not None:
            self.guarded.add(name)
        memory = _Memory(label, value)
        self.guards.append((look, key, memory))
        self.value(value, memory)

    def value(self, value: Any, memory: _Memory | None) -> None:
        """Look into a value that the function can reach; ``memory`` is that of the name it was found by.

        Goes by ``type(value)``: asking a stranger's object what it is may run its code.
        """
        kind = type(value)
        if kind in _PLAIN or value is _MISSING or id(value) in self.seen or len(self.seen) > _LIMIT:
            return
        self.seen.add(id(value))
        if issubclass(kind, ModuleBase):
            self.module(value)
        elif issubclass(kind, Variable):
            self.variables.append(value)
        elif issubclass(kind, types.FunctionType):
            self.function(value)
        elif issubclass(kind, types.MethodType):
            self.value(value.__self__, None)
            self.value(value.__func__, None)
        elif issubclass(kind, functools.partial):
            for part in (value.func, *value.args, *value.keywords.values()):
                self.value(part, None)
        elif issubclass(kind, (list, tuple, dict)):
            self.container(value, memory)
        elif issubclass(kind, types.ModuleType):
            if not _is_library(getattr(value, "__file__", None)):
                self.attributes(value.__name__, value, None)
        elif issubclass(kind, type):
            self.of_class(value)
        elif not issubclass(kind, _CLOSED):
            self.object(value, memory)

    def module(self, module: ModuleBase) -> None:
        self.roots.append(module)
        for inner in module.modules():
            self.names.add("forward")
            self.of_class(type(inner))
            for _, value in inner.edges():
                if callable(value) and not issubclass(type(value), (ModuleBase, Variable, type)):
                    self.value(value, None)

    def matters(self, name: str, value: Any) -> bool:
        """Whether code that mentions a name can depend on this value of it."""
        if issubclass(type(value), _UNINTERESTING):
            return False
        return name in self.known_loads or (name in self.known_names and callable(value))

    def of_class(self, kind: type) -> None:
        """Guard what the code may find on a class: methods, properties, constants. Once for each class."""
        if kind in self.seen_types:
            return
        self.seen_types.add(kind)
        for owner in type.mro(kind) if kind is not type else ():
            if _is_library_class(owner):
                continue
            namespace = vars(owner)
            for name in sorted(self.known_names & namespace.keys()):
                found = namespace[name]
                inner = found.fget if isinstance(found, property) else getattr(found, "__func__", None)
                if inner is not None or self.matters(name, found):
                    self.guard(namespace.get, name, f"{owner.__name__}.{name}", found)
                    self.value(inner, None)  # of a property, a static or a class method

    def function(self, fn: types.FunctionType) -> None:
        for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
            self.guard(_contents, cell, f"captured variable {name!r}", _contents(cell))
        for name in ("__defaults__", "__kwdefaults__"):
            if getattr(fn, name):
                look = functools.partial(_attribute, weakref.ref(fn))
                self.guard(look, name, f"the defaults of {fn.__name__}", getattr(fn, name))
        if _is_library(fn.__code__.co_filename):
            return
        loads, attributes, plain = _names_in(fn.__code__)
        self.names |= attributes
        self.loads |= plain
        for name in loads:
            value = fn.__globals__.get(name, _MISSING)
            kind = type(value)
            if issubclass(kind, types.ModuleType) or (issubclass(kind, type) and _is_library_class(value)):
                self.value(value, None)
            elif value is not _MISSING and not issubclass(kind, types.BuiltinFunctionType):
                self.guard(fn.__globals__.get, name, f"global {name!r}", value)

    def container(self, value: Any, memory: _Memory | None) -> None:
        """The items of a list, tuple or dict, as long as there are not too many in all to compare at each call."""
        if len(value) > self.items_left:
            return
        self.items_left -= len(value)
        for key, item in list(dict.items(value) if issubclass(type(value), dict) else enumerate(value)):
            inner = None if memory is None else _Memory(f"{memory.label}[{key!r}]", item)
            if memory is not None and inner is not None:
                memory.inside.append((key, inner))
            self.value(item, inner)

    def object(self, value: Any, memory: _Memory | None) -> None:
        kind = type(value)
        if kind.__module__.startswith("brickwork.transform"):
            self.value(getattr(value, "__wrapped__", None), None)
            self.value(getattr(value, "__self__", None), None)
            return
        wrapped = inspect.getattr_static(value, "__wrapped__", None)  # functools.wraps, jax.jit
        if isinstance(wrapped, types.FunctionType):
            self.value(wrapped, None)
        if kind.__module__.partition(".")[0] in ("jax", "jaxlib", "numpy", "optax", "builtins", "brickwork"):
            return
        call = inspect.getattr_static(kind, "__call__", None)
        if isinstance(call, types.FunctionType):
            self.value(call, None)
        self.of_class(kind)
        self.attributes(kind.__name__, value, memory)

    def attributes(self, label: str, owner: Any, memory: _Memory | None) -> None:
        """Guard the attributes of an object that the code mentions: below the name that it was found by,
        or by themselves when it has none.
        """
        for name in sorted(self.known_names):
            found = _item(owner, name)
            if found is _MISSING and (
                issubclass(type(owner), types.ModuleType) or inspect.getattr_static(type(owner), name, None) is None
            ):
                continue  # neither here nor, as a default that an attribute might hide one day, on the class
            if not self.matters(name, found) and found is not _MISSING:
                continue
            label_here = f"{label}.{name}"
            if memory is not None:
                inner = _Memory(label_here, found)
                memory.inside.append((name, inner))
                self.value(found, inner)
            else:
                self.guard(functools.partial(_attribute, _reference(owner)), name, label_here, found)


def _reference(owner: Any) -> Any:
    try:
        return weakref.ref(owner)
    except TypeError:
        return lambda: owner


@functools.lru_cache(maxsize=4096)
def _is_library_class(kind: type) -> bool:
    module = sys.modules.get(kind.__module__)
    if module is None or kind.__module__ == "builtins":
        return True
    path = getattr(module, "__file__", None)
    return path is not None and _is_library(path)
