"""How to build a network, as JSON: classes and the arguments of their constructors, and what was changed afterwards.

An architecture is an object with ``steps``, carried out in order:

- ``{"class": name, "arguments": {...}}`` makes a module, which later steps refer to by its number;
- ``{"set": place, "to": value}`` and ``{"delete": place}`` change an attribute or item that a constructor has made
  otherwise than it is in the network. A place is the number of a module, then attributes, indices and keys.

``root`` is the number of the network. ``eval`` and ``built`` are those of its modules, in the order of ``modules()``,
that are in evaluation mode or were built by a method of the users'; ``frozen`` and ``dtypes`` are about variables by
name. A file has an architecture only after a network built by it has been compared with the
one that was saved; see ``docs/decisions/architecture-in-files.md``.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import json
from typing import Any, NoReturn

import jax
import numpy as np

from ..._draw import Initializer
from ...core import Buffer, ModuleBase, Parameter, TrackedDict, TrackedList, Variable, random_stream
from ...core._arguments import Like
from ...core._containers import is_structure
from ...core._seed import TooMany, aside
from ...nn._parametrize import is_parametrized, recipes
from ._compare import Matcher, Place, is_dtype
from ._known import Known, Named, name_of
from ._rebuild import FORMAT, MAX_DEPTH, Builder, accepts_fields, names_in, number, parse

__all__ = ["ARCHITECTURE", "build", "record"]

ARCHITECTURE = "brickwork.architecture"  # its entry in the metadata of a file


def record(net: ModuleBase) -> str:
    """The JSON of a network's architecture.

    Raises:
        TypeError: something in it can't be recorded; the message says what, where and what to do.
    """
    stream = random_stream()
    before = stream.value
    try:
        with aside():
            recorder = _Recorder(net)
            architecture = {"format": FORMAT} | recorder.all()
            text = json.dumps(architecture, separators=(",", ":"), allow_nan=False)
            _verify(net, json.loads(text), recorder.things)
    finally:
        stream.value = before
    return text


def build(text: str, classes: Named, most: int, most_bytes: int) -> Any:
    """The network of an architecture, without its values.

    Args:
        text: what :func:`record` gave.
        classes: classes and functions that it may use besides those of brickwork.
        most: how many modules and parameters it may have.
        most_bytes: how many bytes of initial values it may need while it is built.

    Raises:
        ValueError: it can't be built; the message says why.
    """
    known = Known(classes)
    architecture = parse(text)
    missing = [name for name in names_in(architecture) if known.lacks(name)]
    if missing:
        raise ValueError(known.explain(missing))
    try:
        with aside(most, most_bytes):
            return Builder(known).network(architecture)
    except (TooMany, RecursionError) as error:
        raise ValueError(f"it can't be built: {error}") from error


class _Trusting(Known):
    """All that a network in memory is made of."""

    def __init__(self, things: dict[str, Any]) -> None:
        super().__init__(None)
        self.by_name = things


class _Recorder(Matcher):
    """Writes the steps for one network, and carries them out as it does."""

    def __init__(self, net: Any, what: str = "net") -> None:
        super().__init__()
        self.net, self.what = net, what  # and how messages call it
        self.paths = {id(m): f"{what}.{path}" if path else what for path, m in net.named_modules()}
        self.things: dict[str, Any] = {}  # classes and functions by name
        self.builder = Builder(_Trusting(self.things))
        self.steps: list[Any] = []
        self.where: list[str] = []  # the paths of modules by number
        self.places: dict[int, Place] = {}
        self.late: list[Any] = []  # modules that got more after their construction, by build perhaps

    def all(self) -> dict[str, Any]:
        """The architecture."""
        root = self.describe(self.net, self.what)
        late = {id(module) for module in self.late}
        built = [i for i, m in enumerate(self.net.modules()) if m._bw.built and id(self.twins[id(m)]) in late]
        settings = _settings(self.net, self.builder.made[root])
        return {"steps": self.steps, "root": root} | ({"built": built} if built else {}) | settings

    # -- modules -----------------------------------------------------------------------------------

    def describe(self, module: Any, where: str) -> int:
        """Make steps for a module; returns its number."""
        cls = type(module).__mro__[1] if is_parametrized(module) else type(module)
        path = self.paths.get(id(module), where)
        where = f"{path} ({cls.__name__})"
        try:
            arguments = module.constructor_arguments()
        except TypeError as error:
            _refuse(f"{where}: {error}", error)
        step: dict[str, Any] = {"class": self.name(cls, where)}
        if version := getattr(cls, "_version", 0):
            step["version"] = version
        step["arguments"] = {name: self.encode(x, f"argument {name} of {where}") for name, x in arguments.items()}
        self.take(step, f"{where}, made again")
        at = (len(self.builder.made) - 1,)
        self.where.append(path)
        for name, function, given, shape in recipes(module):
            encoded = {n: self.encode(x, f"argument {n} of {function} of {path}.{name}") for n, x in given.items()}
            step = {"parametrize": list(at), "name": name, "by": function, "arguments": encoded}
            self.take(step | {"shape": list(shape)}, f"{path}.{name}, parametrised again")
        twin = self.builder.at(list(at))
        self.pair(module, twin, at)
        self.match_attributes(module, twin, at)
        return at[0]

    def take(self, step: Any, what: str) -> None:
        """Add a step, and carry it out."""
        try:
            self.builder.step(step)
        except ValueError as error:
            _refuse(f"{what}: {error}", error)
        self.steps.append(step)

    def name(self, thing: Any, where: str) -> str:
        """The name of a class or function."""
        name = name_of(thing)
        if name is None or (not isinstance(thing, type) and "<" in name):
            shown = getattr(thing, "__qualname__", None) or f"{thing!r:.80}"
            _refuse(
                f"{where} is {shown}, a function without a name to find it "
                "by again. Define it with def at the top of a module and pass it to load_module as one of classes=[...]"
                ", or use a layer or one of the functions of jax.nn and brickwork.functional"
            )
        if self.things.setdefault(name, thing) is not thing:
            _refuse(f"two classes have the name {name}; rename one")
        return name

    # -- what a matcher reports ------------------------------------------------------------------------

    def pair(self, a: Any, f: Any, at: Place) -> None:
        super().pair(a, f, at)
        self.places[id(a)] = at

    def changed(self, at: Place, value: Any, twin: Any) -> None:
        """Something is not as the constructor has made it."""
        if twin is None and is_structure(value):
            self.late.append(self.builder.at(list(at[:-1])))
        self.take({"set": list(at), "to": self.encode(value, self.shown(at))}, f"setting {self.shown(at)}")
        self.match(value, self.builder.at(list(at)), at)

    def removed(self, at: Place) -> None:
        self.take({"delete": list(at)}, f"deleting {self.shown(at)}")

    def hooked(self, at: Place) -> None:
        _refuse(
            f"{self.shown(at)} has hooks, which are functions. Remove them "
            "(handle.remove()), or save with architecture=False; register them again after loading"
        )

    def shown(self, at: Place) -> str:
        """A place in words."""
        names = [str(x) for x in at[1:] if x != "_items"]
        return ".".join([self.where[at[0]], *names])

    # -- values ------------------------------------------------------------------------------------

    def encode(self, value: Any, where: str, depth: int = 0) -> Any:
        """The JSON of a value."""
        if depth > MAX_DEPTH:
            _refuse(f"{where} is nested too deeply")
        if id(value) in self.places:
            return {"ref": list(self.places[id(value)])}
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return number(value)
        if type(value) is complex:
            return {"complex": [number(value.real), number(value.imag)]}
        if type(value) in (tuple, list, dict, TrackedList, TrackedDict):
            return self._container(value, where, depth + 1)
        if isinstance(value, ModuleBase):
            return {"ref": [self.describe(value, where)]}
        if isinstance(value, Variable):
            return self._variable(value, where)
        if (is_dtype(value) and name_of(value) is None) or isinstance(value, np.dtype):
            return {"dtype": np.dtype(value).name}
        if isinstance(value, Like):
            inner = _Recorder(value.module, f"the {where}")
            inner.things, inner.builder = self.things, Builder(self.builder.known)
            return {"maker": inner.all()}
        if isinstance(value, functools.partial):
            keywords = {n: self.encode(x, where, depth + 1) for n, x in value.keywords.items()}
            args = [self.encode(x, where, depth + 1) for x in value.args]
            return {"partial": self.encode(value.func, where, depth + 1), "args": args, "keywords": keywords}
        if isinstance(value, enum.Enum):
            return {"enum": self.name(type(value), where), "member": value.name}
        if isinstance(value, Initializer) or (accepts_fields(type(value)) and not isinstance(value, type)):
            return self._fields(value, where, depth + 1)
        if isinstance(value, type) or callable(value):
            return {"named": self.name(value, where)}
        _refuse(f"{where} is {_article(value)}{_advice(value)}")

    def _container(self, value: Any, where: str, depth: int) -> Any:
        if isinstance(value, dict):
            for key in value:
                if type(key) not in (str, int, float, bool):
                    _refuse(f"{where} has the key {key!r:.60}")
            return {"dict": [[key, self.encode(x, f"item {key!r} of {where}", depth)] for key, x in value.items()]}
        items = [self.encode(x, f"item {i} of {where}", depth) for i, x in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items

    def _variable(self, value: Variable, where: str) -> Any:
        kind = type(value).__name__
        if type(value) not in (Parameter, Buffer) or not value.persistent:
            _refuse(f"{where} is a {kind} whose value no file holds, and which the constructor doesn't make")
        return {"variable": kind, "shape": list(value.shape), "dtype": np.dtype(value.dtype).name}

    def _fields(self, value: Any, where: str, depth: int) -> Any:
        """An initialiser, a dataclass or a named tuple."""
        if dataclasses.is_dataclass(value):
            names = [f.name for f in dataclasses.fields(value) if f.init]
        elif isinstance(value, tuple):
            names = list(value._fields)  # type: ignore[attr-defined]
        else:
            names = [n for n in inspect.signature(type(value)).parameters if hasattr(value, n)]
            if len(vars(value)) != len(names):
                _refuse(
                    f"{where} is {value!r:.80}, an initialiser that holds "
                    "more than the arguments of its class; use one of brickwork.init, or leave it out: the values are "
                    "in the file"
                )
        fields = {n: self.encode(getattr(value, n), f"{n} of {where}", depth) for n in names}
        return {"make": self.name(type(value), where), "arguments": fields}


class _Check(Matcher):
    """Refuses any difference."""

    def changed(self, at: Place, value: Any, twin: Any) -> None:
        self.fail(at, f"is {value!r:.100}, and {twin!r:.100} in the network built again")

    def removed(self, at: Place) -> None:
        self.fail(at, "is missing, but not in the network built again")

    def hooked(self, at: Place) -> None:
        self.fail(at, "has other hooks than in the network built again")

    def fail(self, at: Place, problem: str) -> None:
        where = ".".join(["net", *(str(x) for x in at[1:] if x != "_items")])
        _refuse(f"{where} {problem}. Make it in the constructor, or save with architecture=False")


def _verify(net: Any, architecture: Any, things: dict[str, Any]) -> None:
    """Build a network and compare it with the one that is saved."""
    twin = Builder(_Trusting(things)).network(architecture)
    check = _Check()
    check.pair(net, twin, (0,))
    check.match_attributes(net, twin, (0,))
    for what, facts in (
        ("modules", lambda x: [(path, type(m), m.training) for path, m in x.named_modules()]),
        ("variables", lambda x: [(name, type(v), v.dtype, v.trainable) for name, v in x.named_variables()]),
    ):
        mine, other = facts(net), facts(twin)
        odd = [fact for fact in mine if fact not in other] + [fact for fact in other if fact not in mine]
        if odd:
            check.fail((0,), f"and the network built again differ in their {what}: {odd[0]} is in one of them only")


def _settings(net: Any, twin: Any) -> dict[str, Any]:
    """What is recorded for the network as a whole: modes, and what is frozen or was converted."""
    modules, variables, others = net.modules(), dict(net.named_variables()), dict(twin.named_variables())
    resting = [i for i, m in enumerate(modules) if not m.training]
    frozen = [name for name, v in variables.items() if isinstance(v, Parameter) and not v.trainable]
    parameters = sum(isinstance(v, Parameter) for v in variables.values())
    found: dict[str, Any] = {
        "eval": True if len(resting) == len(modules) else resting,
        "frozen": True if frozen and len(frozen) == parameters else frozen,
        "dtypes": {
            name: np.dtype(v.dtype).name
            for name, v in variables.items()
            if name in others and others[name].dtype != v.dtype
        },
    }
    return {name: value for name, value in found.items() if value}


def _refuse(problem: str, cause: Exception | None = None) -> NoReturn:
    raise TypeError(f"save: the architecture can't be recorded: {problem}") from cause


def _article(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}, {value!r:.80}"


def _advice(value: Any) -> str:
    if isinstance(value, (jax.Array, np.ndarray)):
        return "; arrays belong in variables: self.x = bw.Buffer(array)"
    return (
        "; what can be recorded are numbers, strings, None, dtypes, initialisers of brickwork.init, modules, functions "
        "with a name, dataclasses, enums, and tuples, lists and dicts of these"
    )
