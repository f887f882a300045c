"""Building a network by what a file says of it; see ``_record.py`` for what that is."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import json
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..._draw import Initializer
from ...core import Buffer, ModuleBase, Parameter, TrackedDict, TrackedList, Variable
from ...core._seed import TooMany
from .._container import is_storable
from ._known import Known

__all__ = ["FORMAT", "MAX_DEPTH", "Builder", "accepts_fields", "names_in", "number", "parse"]

FORMAT = 1
MAX_DEPTH = 64  # of values
MAX_NESTING = 8  # of architectures, as those of the blocks of a Repeat
_FAILURES = (ValueError, TypeError, LookupError, AttributeError, OverflowError)
_KINDS: dict[str, type[Variable]] = {"Parameter": Parameter, "Buffer": Buffer}


class Builder:
    """Carries out the steps of one architecture.

    Attributes:
        made: the modules by their numbers.

    Args:
        known: the classes and functions that may be used.
    """

    def __init__(self, known: Known, depth: int = 0) -> None:
        self.known, self.depth = known, depth
        self.made: list[Any] = []

    def network(self, architecture: Any) -> Any:
        """The network that an architecture describes.

        Raises:
            ValueError: it isn't one, or can't be carried out.
        """
        if self.depth > MAX_NESTING:
            raise ValueError("architectures are nested too deeply")
        steps = _field(architecture, "steps", list)
        for i, step in enumerate(steps):
            try:
                self.step(step)
            except _FAILURES as error:
                raise ValueError(f"step {i}: {error}") from error
        root = architecture.get("root")
        if type(root) is not int or not 0 <= root < len(self.made):
            raise ValueError(f"the root is {root!r:.60}, which is no module")
        net = self.made[root]
        try:
            self._finish(net, architecture)
        except _FAILURES as error:
            raise ValueError(str(error)) from error
        return net

    def step(self, step: Any) -> None:
        """Carry out one step."""
        if not isinstance(step, dict):
            raise ValueError("it is not an object")
        if "class" in step:
            self.made.append(self._module(step))
        elif "set" in step:
            self._set(step["set"], self.value(step.get("to")))
        elif "parametrize" in step:
            self._parametrize(step)
        elif "delete" in step:
            owner, name = self._owner(step["delete"])
            if not isinstance(owner, ModuleBase) or name not in owner.__dict__:
                raise ValueError(f"there is no attribute {name!r:.60} to delete")
            ModuleBase.__delattr__(owner, name)
        else:
            raise ValueError(f"{next(iter(step), '')!r:.60} is no kind of step")

    def _module(self, step: dict[str, Any]) -> Any:
        cls = self.known.find(step["class"])
        if not isinstance(cls, type) or not issubclass(cls, ModuleBase):
            raise ValueError(f"{step['class']} is not a class of modules")
        _check_version(cls, step)
        return self._call(getattr(cls, "_without_values", cls), step["class"], self._arguments(step))

    def _arguments(self, step: dict[str, Any]) -> dict[str, Any]:
        return {name: self.value(x) for name, x in _field(step, "arguments", dict).items()}

    def _call(self, cls: Any, name: str, arguments: dict[str, Any]) -> Any:
        """Make an instance of a class."""
        try:
            signature = inspect.signature(cls)
        except ValueError:
            raise ValueError(f"{name} can't be called with arguments") from None
        unknown = [n for n in arguments if n not in signature.parameters]
        if unknown:
            raise ValueError(
                f"{name} has no argument {unknown[0]!r}, it has {list(signature.parameters)}; the class has changed "
                "since the file was saved"
            )
        in_order = {n: arguments[n] for n in signature.parameters if n in arguments}
        call = inspect.BoundArguments(signature, OrderedDict(in_order))
        try:
            return cls(*call.args, **call.kwargs)
        except (TooMany, MemoryError, RecursionError):
            raise
        except Exception as error:
            shown = ", ".join(f"{n}={x!r:.40}" for n, x in in_order.items())
            raise ValueError(f"{name}({shown}) failed with {type(error).__name__}: {error}") from error

    def _parametrize(self, step: dict[str, Any]) -> None:
        from ... import nn

        functions = {"weight_norm": nn.weight_norm, "spectral_norm": nn.spectral_norm, "parametrize": nn.parametrize}
        layer, name, function = self.at(step["parametrize"]), step.get("name"), functions.get(step.get("by", ""))
        variable = layer.__dict__.get(name) if isinstance(layer, ModuleBase) and isinstance(name, str) else None
        if function is None or not (isinstance(variable, Variable) or nn.is_parametrized(layer, name)):
            raise ValueError(f"{name!r:.60} can't be parametrised by {step.get('by')!r:.60}")
        arguments = self._arguments(step)
        if isinstance(variable, Variable) and None in variable.shape and "shape" in step:
            variable.shape = tuple(_sizes(step["shape"]))
        self._call(functools.partial(function, layer, name), step["by"], arguments)

    # -- places ----------------------------------------------------------------------------------

    def _number(self, address: Any) -> Any:
        if not isinstance(address, list) or not address or type(address[0]) is not int:
            raise ValueError(f"{address!r:.60} is no place")
        if not 0 <= address[0] < len(self.made):
            raise ValueError(f"there is no module {address[0]} yet")
        return self.made[address[0]]

    def at(self, address: Any) -> Any:
        """What is at a place: the number of a module, then attributes, indices and keys."""
        found = self._number(address)
        for step in address[1:]:
            found = _inside(found, step)
        return found

    def _owner(self, address: Any) -> tuple[Any, Any]:
        self._number(address)
        if len(address) < 2:
            raise ValueError(f"{address!r:.60} is a module, not a place in one")
        return self.at(address[:-1]), address[-1]

    def _set(self, address: Any, value: Any) -> None:
        owner, name = self._owner(address)
        if isinstance(owner, ModuleBase):
            if not isinstance(name, str) or not name.isidentifier() or _is_slot(type(owner), name):
                raise ValueError(f"{name!r:.60} is not an attribute that can be set")
            if isinstance(owner.__dict__.get(name), Variable) and not isinstance(value, Variable):
                ModuleBase.__delattr__(owner, name)
            ModuleBase.__setattr__(owner, name, value)
            return
        _inside(owner, name)
        owner[name] = value

    # -- values ----------------------------------------------------------------------------------

    def value(self, node: Any, depth: int = 0) -> Any:
        """The value that JSON stands for."""
        if depth > MAX_DEPTH:
            raise ValueError("a value is nested too deeply")
        if isinstance(node, list):
            return [self.value(x, depth + 1) for x in node]
        if not isinstance(node, dict):
            return node
        kind = next(iter(node), "")
        make = _VALUES.get(kind)
        if make is None:
            raise ValueError(f"{kind!r:.60} is no kind of value")
        return make(self, node, depth + 1)

    def _tuple(self, node: Any, depth: int) -> Any:
        return tuple(self.value(x, depth) for x in _field(node, "tuple", list))

    def _dict(self, node: Any, depth: int) -> Any:
        pairs = [self.value(pair, depth) for pair in _field(node, "dict", list)]
        if not all(isinstance(p, list) and len(p) == 2 and isinstance(p[0], (str, int, float)) for p in pairs):
            raise ValueError("'dict' does not contain pairs")
        return dict(pairs)

    def _float(self, node: Any, depth: int) -> float:
        if node["float"] not in ("nan", "inf", "-inf"):
            raise ValueError("'float' is malformed")
        return float(node["float"])

    def _complex(self, node: Any, depth: int) -> complex:
        parts = self.value(node["complex"], depth)
        if not isinstance(parts, list) or len(parts) != 2 or not all(type(x) is float for x in parts):
            raise ValueError("'complex' is malformed")
        return complex(*parts)

    def _ref(self, node: Any, depth: int) -> Any:
        return self.at(node["ref"])

    def _named(self, node: Any, depth: int) -> Any:
        return self.known.find(node["named"])

    def _dtype(self, node: Any, depth: int) -> np.dtype:
        try:
            dtype = jnp.dtype(_field(node, "dtype", str))
        except TypeError:
            dtype = None
        if dtype is None or not is_storable(dtype):
            raise ValueError(f"{node['dtype']!r:.60} is no dtype")
        return dtype

    def _partial(self, node: Any, depth: int) -> Any:
        fn, keywords = self.value(node["partial"], depth), _field(node, "keywords", dict)
        if not callable(fn) or isinstance(fn, (type, ModuleBase)):
            raise ValueError("'partial' is not of a function")
        args = [self.value(x, depth) for x in _field(node, "args", list)]
        return functools.partial(fn, *args, **{n: self.value(x, depth) for n, x in keywords.items()})

    def _make(self, node: Any, depth: int) -> Any:
        """An initialiser, or a record of data."""
        cls = self.known.find(node["make"])
        if not isinstance(cls, type) or not (issubclass(cls, Initializer) or accepts_fields(cls)):
            raise ValueError(f"{node['make']} is no class of initialisers, dataclass or named tuple")
        fields = {n: self.value(x, depth) for n, x in _field(node, "arguments", dict).items()}
        return self._call(cls, node["make"], fields)

    def _enum(self, node: Any, depth: int) -> Any:
        cls, member = self.known.find(node["enum"]), node.get("member")
        if not isinstance(cls, type) or not issubclass(cls, enum.Enum) or member not in cls.__members__:
            raise ValueError(f"{node['enum']} is no enum with a member {member!r:.60}")
        return cls[member]

    def _variable(self, node: Any, depth: int) -> Any:
        cls, sizes, dtype = _KINDS.get(node["variable"]), _sizes(node.get("shape")), self._dtype(node, depth)
        if cls is None:
            raise ValueError(f"{node['variable']!r:.60} is no kind of variable")
        floats = cls is Parameter and jnp.issubdtype(dtype, jnp.inexact)
        more = {} if cls is not Parameter or floats else {"trainable": False}
        return cls(shape=tuple(sizes), dtype=dtype, init=0, **more)

    def _maker(self, node: Any, depth: int) -> Callable[[], Any]:
        inner = node["maker"]
        return lambda: Builder(self.known, self.depth + 1).network(inner)

    # -- what holds for the whole network ----------------------------------------------------------

    def _finish(self, net: Any, architecture: dict[str, Any]) -> None:
        modules = net.modules()
        resting = architecture.get("eval", [])
        for module in modules if resting is True else _chosen(resting, modules, "eval"):
            module.training = False
        for module in _chosen(architecture.get("built", []), modules, "built"):
            module._bw.built = True
        variables = dict(net.named_variables())
        frozen = architecture.get("frozen", [])
        frozen = set(variables if frozen is True else _names(frozen, variables, "frozen"))
        dtypes = _field(architecture, "dtypes", dict) if "dtypes" in architecture else {}
        for name in _names(list(dtypes), variables, "dtypes"):
            dtype = self._dtype({"dtype": dtypes[name]}, 0)
            if not jnp.issubdtype(dtype, jnp.inexact):
                raise ValueError(f"{name!r} can't be converted to {dtype}")
            variables[name].cast(dtype)
        for name, variable in variables.items():
            if isinstance(variable, Parameter) and variable.trainable == (name in frozen):
                variable.trainable = name not in frozen


_VALUES: dict[str, Callable[[Builder, dict[str, Any], int], Any]] = {
    "tuple": Builder._tuple,
    "dict": Builder._dict,
    "float": Builder._float,
    "complex": Builder._complex,
    "ref": Builder._ref,
    "named": Builder._named,
    "dtype": Builder._dtype,
    "partial": Builder._partial,
    "make": Builder._make,
    "enum": Builder._enum,
    "variable": Builder._variable,
    "maker": Builder._maker,
}


def _field(node: Any, name: str, kind: type) -> Any:
    found = node.get(name) if isinstance(node, dict) else None
    if not isinstance(found, kind):
        raise ValueError(f"{name!r} is not {'an object' if kind is dict else f'a {kind.__name__}'}")
    return found


def _sizes(shape: Any) -> list[int | None]:
    if not isinstance(shape, list) or not all(n is None or (type(n) is int and n >= 0) for n in shape):
        raise ValueError(f"{shape!r:.60} is no shape")
    return shape


def _names(names: Any, known: dict[str, Any], what: str) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(n, str) and n in known for n in names):
        raise ValueError(f"{what!r} is not a list of names in the network")
    return names


def _chosen(numbers: Any, modules: list[Any], what: str) -> list[Any]:
    if not isinstance(numbers, list) or not all(type(i) is int and 0 <= i < len(modules) for i in numbers):
        raise ValueError(f"{what!r} is not a list of numbers of modules")
    return [modules[i] for i in numbers]


def _inside(owner: Any, step: Any) -> Any:
    """An attribute of a module, or an item of a container."""
    if isinstance(owner, ModuleBase) and isinstance(step, str) and step in owner.__dict__:
        return owner.__dict__[step]
    if isinstance(owner, TrackedDict) and isinstance(step, (str, int)) and step in owner:
        return owner[step]
    if isinstance(owner, (TrackedList, tuple)) and type(step) is int and 0 <= step < len(owner):
        return owner[step]
    raise ValueError(f"there is no {step!r:.60} in a {type(owner).__name__}")


def _check_version(cls: Any, step: dict[str, Any]) -> None:
    version, known = step.get("version", 0), getattr(cls, "_version", 0)
    if type(version) is not int:
        raise ValueError(f"the version of {step['class']} is {version!r:.60}, which is no number")
    if version > known:
        raise ValueError(
            f"the file has version {version} of {step['class']}, and here is version {known}; install the newer code"
        )


def _is_slot(cls: type, name: str) -> bool:
    """Whether an attribute is kept elsewhere than among those of a module."""
    return hasattr(getattr(cls, name, None), "__set__") or name.startswith("__")


def accepts_fields(cls: type) -> bool:
    """Whether a class holds just the values that it is called with: a dataclass, or a named tuple."""
    return dataclasses.is_dataclass(cls) or (issubclass(cls, tuple) and hasattr(cls, "_fields"))


def names_in(architecture: Any) -> list[str]:
    """The names of all classes and functions that an architecture refers to, each once."""
    found: set[str] = set()
    waiting = [architecture]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            for key in ("class", "named", "make", "enum"):
                if isinstance(node.get(key), str):
                    found.add(node[key])
            for key, inner in node.items():  # the keys of these are names that someone chose
                waiting += inner.values() if key in ("arguments", "keywords") and isinstance(inner, dict) else [inner]
        elif isinstance(node, list):
            waiting += node
    return sorted(found)


def parse(text: str) -> Any:
    """The JSON of an architecture.

    Raises:
        ValueError: it isn't one.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict) or type(found.get("format")) is not int:
        raise ValueError("it does not say its format")
    if found["format"] > FORMAT:
        raise ValueError(
            f"it has format {found['format']}, this version of brickwork reads format {FORMAT}; install a newer one"
        )
    return found


def number(value: float) -> Any:
    """The JSON of a float."""
    return value if math.isfinite(value) else {"float": repr(value)}
