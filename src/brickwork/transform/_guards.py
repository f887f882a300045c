"""What a function captures: the names that its compiled program relies on.

A program is traced once and run many times, so whatever the function read from outside must still be
what it was. Modules and variables report themselves to the frame when used. This file adds the names
through which a function reaches things: globals, closure cells, defaults, attributes of captured
objects and of Python modules, items of captured lists and dicts; also for the functions it calls, the
``forward`` methods of the modules it uses, their hooks, and the objects that they hold. Rebinding one
of them (``net = other``, ``rate = 0.1``, ``config.rate = 0.1``) is noticed at the next call.

Of objects only the attributes count whose names occur in the code, so that a counter that the
function doesn't read may change freely.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import operator
import os
import sys
import types
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..core import ModuleBase, Variable
from ..core._containers import Node
from ..core._structure import Static
from ._names import attribute_names, names_in

_LIMIT = 10_000
_MANY = 256  # items of captured containers that are looked at, in all
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_LIBRARIES = (_PACKAGE + os.sep, f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_MISSING = object()
_GONE = object()  # what is asked of an object that nobody has any more
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_CLOSED = (np.ndarray, np.generic, types.BuiltinFunctionType)
_UNINTERESTING = (types.ModuleType, types.BuiltinFunctionType)
_OPAQUE = frozenset({"jax", "jaxlib", "numpy", "optax", "brickwork"})  # are not looked into
_BASES = type.__dict__["__mro__"].__get__
_NAMESPACE = type.__dict__["__dict__"].__get__
_DEFAULTS = ("__defaults__", "__kwdefaults__")
_MAKING = frozenset({"__init__", "__new__", "__post_init__"})
# Special methods whose result is not computed with; what shows or copies an object reads all of its attributes.
_ASIDE = frozenset({"__repr__", "__str__", "__format__", "__hash__", "__dir__", "__del__", "__copy__", "__deepcopy__"})
_ASIDE |= {"__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__init_subclass__", "__class_getitem__"}


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
        if value is _GONE:  # what took the place of its owner was found equal, and is looked at next
            return None
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
        mentioned = _Mentioned()
        while True:  # which attributes matter shows only when all code has been seen
            search = _Search(mentioned)
            for fn in functions:
                search.value(fn, None)
            if search.mentioned == mentioned:
                break
            mentioned = search.mentioned
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


def _captured(reference: weakref.ref[types.FunctionType], index: int) -> Any:
    fn = reference()
    return _GONE if fn is None else _contents((fn.__closure__ or ())[index])


def _attribute(reference: Callable[[], Any], name: str) -> Any:
    owner = reference()
    return _GONE if owner is None else _item(owner, name)


def _argument(reference: Callable[[], Any], key: Any) -> Any:
    made = reference()
    if made is None:
        return _GONE
    return made.keywords.get(key, _MISSING) if isinstance(key, str) else made.args[key]


def _referent(reference: Callable[[], Any]) -> Any:
    value = reference()
    return _GONE if value is None else value


def _item(owner: Any, key: Any) -> Any:
    """What a container or an object itself holds under a key, an index or a name."""
    kind = type(owner)
    if issubclass(kind, dict):
        return dict.get(owner, key, _MISSING)
    if issubclass(kind, (list, tuple)) and isinstance(key, int):
        return owner[key] if key < len(owner) else _MISSING
    if issubclass(kind, types.FunctionType) and key in _DEFAULTS:
        return getattr(owner, key)
    try:
        found = object.__getattribute__(owner, "__dict__").get(key, _MISSING)
    except AttributeError:
        found = _MISSING
    if found is _MISSING:
        slot = _on_class(kind, key)
        if isinstance(slot, types.MemberDescriptorType):
            try:
                return slot.__get__(owner)
            except AttributeError:
                return _MISSING
    return found


def _on_class(kind: type, name: str) -> Any:
    """What a class or one it inherits from holds; ``inspect.getattr_static`` takes too long for each call."""
    for owner in _BASES(kind):
        namespace = _NAMESPACE(owner)
        if name in namespace:
            return namespace[name]
    return _MISSING


def _is_library(path: str | None) -> bool:
    return path is None or path.startswith((_STDLIB, "<frozen")) or any(part in path for part in _LIBRARIES)


@dataclasses.dataclass
class _Mentioned:
    """The attribute names in the code."""

    names: set[str] = dataclasses.field(default_factory=set)
    loads: set[str] = dataclasses.field(default_factory=set)  # those that are more than calls of methods
    tried: set[str] = dataclasses.field(default_factory=set)  # those that may be missing, and be added later


class _Search:
    """One pass over everything reachable.

    ``known`` are the names that an earlier pass found. Calls of methods are kept apart because a counter called
    ``step`` beside calls of ``opt.step(...)`` doesn't matter.
    """

    def __init__(self, known: _Mentioned) -> None:
        self.known = known
        self.mentioned = _Mentioned(set(known.names), set(known.loads), set(known.tried))
        self.guarded: set[tuple[int, Any]] = set()  # namespaces and names
        self.seen_types: set[type] = set()
        self.items_left = _MANY
        self.weakly = False  # whether the functions found must not be kept alive
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
            self.function(value, memory)
        elif issubclass(kind, types.MethodType):
            self.value(value.__self__, None)
            self.value(value.__func__, None)
        elif issubclass(kind, functools.partial):
            self.partial(value)
        elif kind is operator.attrgetter:
            self.ask(attribute_names(value.__reduce__()[1]))
        elif issubclass(kind, (list, tuple, dict)):
            self.container(value, memory)
        elif issubclass(kind, types.ModuleType):
            if not _is_library(getattr(value, "__file__", None)):
                self.attributes(value.__name__, value, None)
        elif issubclass(kind, type):
            self.of_class(value, _MAKING)
        elif not issubclass(kind, _CLOSED):
            self.object(value, memory)

    def module(self, module: ModuleBase) -> None:
        self.roots.append(module)
        for inner in module.modules():
            self.mentioned.names.add("forward")
            self.of_class(type(inner))
            record = inner._bw
            outer, self.weakly = self.weakly, True
            self.held([value for _, value in inner.edges()])
            self.held([*record.hooks.values(), *record.pre_hooks.values()])
            self.weakly = outer

    def held(self, values: Iterable[Any]) -> None:
        """Look into what a module holds. Its attributes, and the items of its lists, dicts and tuples, are its own
        to watch, and so are modules and variables; what other objects hold is not.
        """
        for value in values:
            kind = type(value)
            if _is_watched(kind):
                continue
            closed = _package(kind) in _OPAQUE
            if not issubclass(kind, (list, dict, tuple)):
                self.value(value, None)
            elif issubclass(kind, Node) or (issubclass(kind, tuple) and not closed):
                items = dict.values(value) if issubclass(kind, dict) else value
                inner = [item for item in items if not _is_watched(type(item))]
                if len(inner) <= self.items_left:
                    self.items_left -= len(inner)
                    self.held(inner)
            elif not closed:  # a container of another kind, which tells nobody of changes
                self.guard(_referent, _reference(value), kind.__name__, value)

    def matters(self, name: str, value: Any) -> bool:
        """Whether code that mentions a name can depend on this value of it."""
        if issubclass(type(value), _UNINTERESTING):
            return False
        return name in self.known.loads or (name in self.known.names and callable(value))

    def partial(self, value: functools.partial[Any]) -> None:
        """The function, and the arguments, of which lists and dicts may change."""
        self.value(value.func, None)
        for key, part in (*enumerate(value.args), *value.keywords.items()):
            if issubclass(type(part), (list, tuple, dict)):
                look = functools.partial(_argument, _reference(value))
                self.guard(look, key, f"argument {key!r} of a functools.partial", part)
            else:
                self.value(part, None)

    def of_class(self, kind: type, more: frozenset[str] = frozenset()) -> None:
        """Guard what the code may find on a class: methods, properties, constants. Once for each class.

        Special methods are called by operators, ``with``, ``len`` and much else, so all count; those in ``more`` also
        that are called only when an object is made.
        """
        if kind in self.seen_types and not more:
            return
        self.seen_types.add(kind)
        for owner in type.mro(kind) if kind is not type else ():
            if _is_library_class(owner):
                continue
            namespace = vars(owner)
            special = {name for name, found in namespace.items() if _is_called_unseen(name, found, more)}
            for name in sorted((self.known.names & namespace.keys()) | self.known.tried | special):
                found = namespace.get(name)  # None when missing, as the guard will find it
                inner = found.fget if isinstance(found, property) else getattr(found, "__func__", None)
                if (id(owner), name) in self.guarded:  # by a class that inherits from it too
                    continue
                if inner is not None or name in special or self.matters(name, found):
                    self.guarded.add((id(owner), name))
                    self.guard(namespace.get, name, f"{owner.__name__}.{name}", found)
                    self.value(inner, None)  # of a property, a static or a class method

    def function(self, fn: types.FunctionType, memory: _Memory | None) -> None:
        cells = fn.__closure__ or ()
        captured = [_contents(cell) for cell in cells]
        for i, (name, cell) in enumerate(zip(fn.__code__.co_freevars, cells, strict=True)):
            look, key = (functools.partial(_captured, weakref.ref(fn)), i) if self.weakly else (_contents, cell)
            self.guard(look, key, f"captured variable {name!r}", captured[i])
        for name in _DEFAULTS:
            if getattr(fn, name):
                look = functools.partial(_attribute, weakref.ref(fn))
                self.guard(look, name, f"the defaults of {fn.__name__}", getattr(fn, name))
        if _is_library(fn.__code__.co_filename):
            return
        names = names_in(fn.__code__)
        captured += [fn.__globals__.get(name, _MISSING) for name in names.globals]
        self.mentioned.names |= names.attributes
        self.mentioned.loads |= names.loads
        self.mentioned.tried |= names.tried
        if names.by_string:
            self.ask(names.strings | attribute_names((*captured, fn.__defaults__)))
        elif any(_asks_by_string(helper) for helper in captured):
            self.ask(names.strings)
        self.attributes(fn.__name__, fn, memory)
        for name in names.globals:
            value = fn.__globals__.get(name, _MISSING)
            kind = type(value)
            if issubclass(kind, types.ModuleType) or (issubclass(kind, type) and _is_library_class(value)):
                self.value(value, None)
            elif value is not _MISSING and not issubclass(kind, types.BuiltinFunctionType):
                self.guard(fn.__globals__.get, name, f"global {name!r}", value)

    def ask(self, names: Iterable[str]) -> None:
        """Take strings as attributes that are read, and perhaps only asked for."""
        self.mentioned.names.update(names)
        self.mentioned.loads.update(names)
        self.mentioned.tried.update(names)

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
        if kind.__module__ == "builtins" or _package(kind) in _OPAQUE:
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
        kind = type(owner)
        alone = issubclass(kind, (types.ModuleType, types.FunctionType))
        for name in sorted(self.known.names):
            found = _item(owner, name)
            lacking = found is _MISSING and (alone or _on_class(kind, name) is _MISSING)
            if lacking and name not in self.known.tried:
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


def _is_watched(kind: type) -> bool:
    """Whether values of a type can't change, or report it themselves."""
    return kind in _PLAIN or issubclass(kind, (ModuleBase, Variable, *_CLOSED))


def _is_called_unseen(name: str, value: Any, more: frozenset[str]) -> bool:
    """Whether something on a class is a special method, written by somebody, that code calls without its name."""
    if not (name.startswith("__") and name.endswith("__")) or type(value) is not types.FunctionType:
        return False
    if name in _ASIDE or (name in _MAKING and name not in more):
        return False
    code = value.__code__  # those of dataclasses and attrs compare or show all attributes
    return "__create_fn__" not in code.co_qualname and not code.co_filename.startswith("<attrs")


def _asks_by_string(value: Any) -> bool:
    """Whether a value is a function that reads attributes whose names it may have been given."""
    if not issubclass(type(value), types.FunctionType) or _is_library(value.__code__.co_filename):
        return False
    return names_in(value.__code__).by_string


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


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
