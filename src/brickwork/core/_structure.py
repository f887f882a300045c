"""What a network is apart from its values, in a form that can be compared, hashed and rebuilt.

:func:`encode` turns one or several modules into a nested tuple: classes, attributes, and numbers in
place of modules and variables, so that two networks of equal structure give equal tuples and ties
show as repeated numbers. Compiled functions use it to tell whether a program still fits; JAX uses it
as the static half of a module when one is passed through ``jax.jit`` or ``jax.tree.map``.
"""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import jax

from ._containers import Node, TrackedDict, TrackedList, hold
from ._leaves import leaf, revive, stack_of
from ._variable import Variable
from ._walk import walk


class Static:
    """A plain attribute value that compares by type and value, or by identity if it can't be hashed."""

    __slots__ = ("key", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        try:
            hash(value)
            # 0.0 == -0.0 and nan != nan, but programs differ by the first and not by the second.
            self.key: Any = (type(value), repr(value) if isinstance(value, (float, complex)) else value)
        except TypeError:
            self.key = (type(value), id(value))

    def __eq__(self, other: object) -> bool:
        if type(other) is not Static:
            return NotImplemented
        return self.value is other.value or (type(self.value) is type(other.value) and self.key == other.key)

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return repr(self.value)


class Ghost(Static):
    """An object that compares by identity and is not kept alive."""

    __slots__ = ("reference",)

    def __init__(self, value: Any, reference: Any) -> None:
        self.value = None
        self.reference = reference
        method = isinstance(value, types.MethodType)  # made anew whenever it is looked up
        self.key = (id(value.__self__), id(value.__func__)) if method else (type(value), id(value))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ghost):
            return NotImplemented
        return self.key == other.key and self.reference() is not None and other.reference() is not None

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return repr(self.reference())


def _ghost(value: Any) -> Static:
    """A plain attribute value for an encoding that must not keep alive what it describes."""
    by_identity = type(value).__hash__ is object.__hash__ or isinstance(value, types.FunctionType | types.MethodType)
    if not by_identity and type(value).__hash__ is not None:
        return Static(value)
    try:
        weak = weakref.WeakMethod if isinstance(value, types.MethodType) else weakref.ref
        return Ghost(value, weak(value))
    except TypeError:
        return Static(value)


class _Meaning(Static):
    """A function that compares by what it does, so that one made in the same place is equal."""

    __slots__ = ()

    def __init__(self, value: Any, key: Any) -> None:
        self.value, self.key = value, key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Meaning) and self.key == other.key

    __hash__ = Static.__hash__


def meaning(value: Any) -> Static:
    """A plain attribute value for telling whether two modules compute the same."""
    if isinstance(value, functools.partial):
        parts = (value.func, *value.args, *value.keywords.items())
        return _Meaning(value, (functools.partial, *map(meaning, parts)))
    if not isinstance(value, types.FunctionType):
        return Static(value)
    try:
        captured = [cell.cell_contents for cell in value.__closure__ or ()]
    except ValueError:  # not assigned yet
        return Static(value)
    parts = (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).items(), *captured)
    return _Meaning(value, (value.__code__, *map(Static, parts)))


class _Note(Static):
    """Something that plays no part in comparisons."""

    __slots__ = ()

    def __init__(self, value: Any) -> None:
        self.value = value
        self.key = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Note)

    __hash__ = Static.__hash__


class Encoding:
    """A nested tuple that hashes once."""

    __slots__ = ("_hash", "code")

    def __init__(self, code: tuple[Any, ...]) -> None:
        self.code = code
        self._hash: int | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Encoding) and (self.code is other.code or self.code == other.code)

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(self.code)
        return self._hash


class Structure:
    """The encoding of some modules or variables, and the objects that its numbers stand for."""

    __slots__ = ("encoding", "modules", "variables")

    def __init__(self, roots: Iterable[Any], *, rebuildable: bool = False, by_meaning: bool = False) -> None:
        self.modules: list[Any] = []
        self.variables: list[Variable] = []
        static = Static if rebuildable else meaning if by_meaning else _ghost
        self.encoding = Encoding(_Encoder(self, static).all(roots))


class _Encoder:
    def __init__(self, out: Structure, static: Callable[[Any], Static]) -> None:
        self.out = out
        self.static = static
        self.numbers: dict[int, int] = {}

    def all(self, roots: Iterable[Any]) -> tuple[Any, ...]:
        return tuple(self.encode(root) for root in roots)

    def encode(self, item: Any) -> Any:
        if isinstance(item, Variable):
            return self.variable(item)
        if isinstance(item, list) and isinstance(item, Node):
            return ("list", tuple(self.encode(x) for x in item))
        if isinstance(item, dict) and isinstance(item, Node):
            return ("dict", tuple((Static(k), self.encode(v)) for k, v in item.items()))
        if isinstance(item, Node):
            return self.module(item)
        if isinstance(item, tuple):
            return ("tuple", type(item), tuple(self.encode(x) for x in item))
        return self.static(item)

    def module(self, module: Any) -> Any:
        number = self.numbers.get(id(module))
        if number is not None:
            return ("seen module", number)
        self.numbers[id(module)] = len(self.out.modules)
        self.out.modules.append(module)
        record = module._bw
        hooks = tuple(self.static(h) for h in (*record.hooks.values(), None, *record.pre_hooks.values()))
        code = (
            type(module),
            tuple((name, self.encode(value)) for name, value in module.__dict__.items()),
            hooks if len(hooks) > 1 else (),
        )
        return (*code, _Note(record.arguments)) if self.static is Static else code

    def variable(self, variable: Variable) -> Any:
        number = self.numbers.get(id(variable))
        if number is not None:
            return ("seen variable", number)
        self.numbers[id(variable)] = len(self.out.variables)
        self.out.variables.append(variable)
        flags = (
            ("trainable", variable._trainable),
            ("persistent", variable.persistent),
            ("stack", stack_of(variable)),
        )
        return (type(variable), *flags)


def rebuild(encoding: Encoding, values: Iterable[Any]) -> Any:
    """A new module of an encoded structure, around the given values."""
    return _Decoder(iter(values)).decode(encoding.code[0])


class _Decoder:
    def __init__(self, values: Any) -> None:
        self.values = values
        self.modules: list[Any] = []
        self.variables: list[Any] = []

    def decode(self, code: Any) -> Any:
        if isinstance(code, Static):
            return code.value
        kind = code[0]
        if kind == "list":
            return TrackedList(self.decode(x) for x in code[1])
        if kind == "dict":
            return TrackedDict({k.value: self.decode(v) for k, v in code[1]})
        if kind == "tuple":
            items = [self.decode(x) for x in code[2]]
            return code[1](*items) if hasattr(code[1], "_fields") else code[1](items)
        if kind == "seen module":
            return self.modules[code[1]]
        if kind == "seen variable":
            return self.variables[code[1]]
        return self.variable(code) if issubclass(kind, Variable) else self.module(code)

    def module(self, code: Any) -> Any:
        kind, attributes, hooks, note = code
        module = object.__new__(kind)
        module._prepare()
        self.modules.append(module)
        module._bw.built = True
        module._bw.arguments = note.value
        for name, inner in attributes:
            value = self.decode(inner)
            module.__dict__[name] = value
            hold(module, value)
        split = next((i for i, h in enumerate(hooks) if h.value is None), 0)
        module._bw.hooks = dict(enumerate(h.value for h in hooks[:split]))
        module._bw.pre_hooks = dict(enumerate(h.value for h in hooks[split + 1 :]))
        return module

    def variable(self, code: Any) -> Any:
        kind, (_, trainable), (_, persistent), (_, stack) = code
        new = object.__new__(kind)
        self.variables.append(new)
        revive(new, next(self.values), trainable, stack)
        if not persistent:
            new.persistent = False
        return new


def _flatten(module: Any) -> tuple[list[Any], Encoding]:
    structure = Structure([module], rebuildable=True)
    return [leaf(v) for v in structure.variables], structure.encoding


def _flatten_with_keys(module: Any) -> tuple[list[Any], Encoding]:
    structure = Structure([module], rebuildable=True)
    paths = {id(v): p for p, v in walk(module)}
    keys = [jax.tree_util.GetAttrKey(paths[id(v)]) for v in structure.variables]
    return list(zip(keys, map(leaf, structure.variables), strict=True)), structure.encoding


def register_module(cls: type) -> None:
    """Make a class of modules a pytree whose leaves are the values of its variables, each once."""
    jax.tree_util.register_pytree_with_keys(cls, _flatten_with_keys, rebuild, _flatten)
