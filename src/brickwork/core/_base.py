"""Modules: attributes are the registry, calling runs ``forward``."""

from __future__ import annotations

import copy
import types
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ..errors import StructureError
from ._arguments import NOTHING, bound, carried, note
from ._calls import annotate, check_devices, refuse_stack
from ._constructor import Constructor
from ._containers import Node, hold, is_structure, made_here, tracked
from ._epoch import bump
from ._frame import local
from ._functions import duplicate, portable
from ._jax import base_state, trace_state, untraced
from ._parameter import Buffer, Parameter
from ._patterns import compiled
from ._repr import tree_repr
from ._seed import TALLIES, count
from ._structure import register_module
from ._variable import Variable
from ._walk import walk

if TYPE_CHECKING:
    from typing import Self


class _Record:
    """What a module knows besides its attributes."""

    __slots__ = ("arguments", "built", "hooks", "pre_hooks", "probe", "recorder", "trace", "version", "watched")

    def __init__(self) -> None:
        self.arguments: Any = None  # of the constructor; None: not known
        self.built = False
        self.hooks: dict[int, Callable[..., Any]] = {}
        self.pre_hooks: dict[int, Callable[..., Any]] = {}
        self.probe: Variable | bool | None = False  # a variable of the module's own; False: not looked for
        self.recorder: Any = None  # what Capture keeps outputs in
        self.version = 0
        self.watched = False  # whether a compiled function depends on this module
        if TALLIES:
            count()
        now = trace_state()
        self.trace: object = None if now == base_state() else now


class ModuleBase(Node):
    """The mechanism behind :class:`brickwork.Module`; see there."""

    __slots__ = ("__dict__", "__weakref__", "_bw", "_bw_holders")

    training: bool
    keeps_nothing = False  # of the arrays it reads; true of the library's own layers
    _constructor = Constructor(object.__init__)
    _foundation: type  # the class that has the methods of every module
    _notes_arguments = True  # false of a class with constructor_arguments of its own
    _repeated: tuple[int, int] | None = None  # how many blocks `block` stands for; the axis of its variables for them
    _bw: _Record
    _bw_holders: tuple[weakref.ref[Node], ...]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if args or kwargs:  # nothing is what copies and pickles give, and Python says what a constructor misses
            known = cls._constructor
            if known.init is not cls.__init__:
                known = cls._constructor = Constructor(cls.__init__)
            if not known.takes(args, kwargs) and cls.__new__ is ModuleBase.__new__:  # another may pass other arguments
                raise TypeError(known.refusal(cls, args, kwargs))
        self = object.__new__(cls)
        self._prepare()
        if cls._notes_arguments:
            self._bw.arguments = note(args, kwargs) if args or kwargs else NOTHING
        self.__dict__["training"] = True
        return self

    def _prepare(self) -> None:
        object.__setattr__(self, "_bw", _Record())
        object.__setattr__(self, "_bw_holders", ())

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if slots := vars(cls).get("__slots__"):
            raise StructureError(
                f"class {cls.__name__} has __slots__ = {slots!r}: what is kept there would be no part of the network, "
                "nor of its copies. Leave __slots__ out, and slots=True of a dataclass"
            )
        for name, value in vars(cls).items():
            if isinstance(value, (ModuleBase, Variable)) or (
                isinstance(value, (list, tuple, dict)) and is_structure(value)
            ):
                raise StructureError(
                    f"class {cls.__name__} has a class attribute {name!r} that holds a {type(value).__name__}: every "
                    f"instance would share it. Create it in __init__ instead: `self.{name} = ...`"
                )
        if ModuleBase in cls.__bases__:
            cls._foundation = cls
        if "keeps_nothing" not in vars(cls):
            cls.keeps_nothing = cls.__module__.startswith("brickwork.nn.")
        if "__init__" in vars(cls) and "constructor_arguments" not in vars(cls):  # one inherited is of another __init__
            cls.constructor_arguments = ModuleBase.constructor_arguments
        if "constructor_arguments" in vars(cls) and "_notes_arguments" not in vars(cls):
            cls._notes_arguments = cls.constructor_arguments is ModuleBase.constructor_arguments
        register_module(cls)

    # -- attributes ----------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        known = getattr(type(self), name, None)
        if name == "__class__":  # its descriptor is hidden by the metaclass's
            object.__setattr__(self, name, value)
            self.touched()
            return
        if hasattr(known, "__set__"):  # a property or slot of the class
            if isinstance(known, property) and known.fset is None:
                raise StructureError(f"{type(self).__name__}.{name} is a property of modules; choose another name")
            object.__setattr__(self, name, value)
            return
        attributes = self.__dict__
        if known is not None or isinstance(value, (types.GeneratorType, map)):
            self._check_attribute(name, known, value)
        old = attributes.get(name)
        if old is value and name in attributes:
            return
        if isinstance(old, Variable) and value is not None:
            if not isinstance(value, Variable):
                self._refuse_overwrite(name, old, value)
            elif value._bw_holders:
                _fill_sizes(value, old.shape)
        mine = self._bw.trace is not None and made_here(self._bw.trace)
        value = tracked(value, f"{type(self).__name__}.{name}", traced=mine)
        if "." in name and is_structure(value):
            raise StructureError(
                f"{type(self).__name__}: attribute {name!r} holds a {type(value).__name__}, so it becomes part of "
                "parameter names, in which dots separate: use a name without dots"
            )
        _put_back_later(self)
        attributes[name] = value
        hold(self, value)
        self.touched()

    def __delattr__(self, name: str) -> None:
        if name not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        _put_back_later(self)
        del self.__dict__[name]
        self.touched()

    def _check_attribute(self, name: str, known: Any, value: Any) -> None:
        what = f"{type(self).__name__}.{name}"
        if isinstance(value, (types.GeneratorType, map)):
            raise StructureError(f"{what} is a {type(value).__name__}, which can be read only once; make it a list")
        plain_function = callable(value) and not isinstance(value, (ModuleBase, Variable))
        hides = is_structure(value) or (hasattr(self._foundation, name) and not plain_function)
        if callable(known) and hides:
            raise StructureError(f"{what} is a method; a {type(value).__name__} under that name would hide it")

    def _refuse_overwrite(self, name: str, old: Variable, value: Any) -> None:
        given = f"a {type(value).__name__}"
        fix = f"delete the attribute first (`del net.{name}`) to turn it into something else"
        if isinstance(value, (jax.Array, np.ndarray, np.generic, float, int, complex, list)):
            given, fix = "an array", f"write `.{name}.value = ...` to change its value"
        raise TypeError(
            f"{type(self).__name__}.{name} is a {type(old).__name__}; assigning {given} over it would drop it "
            f"from the network: {fix}"
        )

    def edges(self) -> Iterator[tuple[str, Any]]:
        """The names and values of attributes, in the order in which they were first assigned."""
        yield from self.__dict__.items()

    def touched(self) -> None:
        record = self._bw
        record.version += 1
        record.probe = False
        if record.watched:
            bump()

    # -- calling -------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes. Override this."""
        raise TypeError(f"{type(self).__name__} defines no forward(self, ...): add the method that computes its output")

    def build(self, *args: Any, **kwargs: Any) -> None:
        """Complete the shapes of parameters from the inputs of the first call. Override if needed.

        Called once, before the first ``forward``, with the arguments of that call, which may be
        abstract: use their ``shape`` and ``dtype`` only.
        """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        context = local.context
        calls = context.calls
        record = self._bw
        calls.append(self)
        try:
            frame = context.frame
            if frame is None:
                if record.probe is not None:
                    check_devices(self, record, args)
            else:
                frame.note(self)
                refuse_stack(self)
            if not record.built:
                self._build(args, kwargs)
            if record.pre_hooks:
                args = self._run_pre_hooks(args)
            output = self.forward(*args, **kwargs)
            if record.hooks:
                output = self._run_hooks(args, output)
            return output
        except Exception as error:
            if len(calls) == 1 and not context.owned:
                context.unwind()
            better = annotate(error, calls, args, kwargs)
            if better is not None:
                raise better from error
            raise
        finally:
            calls.pop()
            if not calls and not context.owned:
                context.undo = None

    def _build(self, args: Any, kwargs: Any) -> None:
        context = local.context
        if context.undo is None:
            context.undo = []
        record = self._bw
        with untraced():  # shapes are known while tracing, and what build makes is to last
            self.build(*args, **kwargs)
        record.built = True
        context.undo.append(lambda: setattr(record, "built", False))

    def _run_pre_hooks(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        for hook in list(self._bw.pre_hooks.values()):
            changed = hook(self, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        return args

    def _run_hooks(self, args: tuple[Any, ...], output: Any) -> Any:
        for hook in list(self._bw.hooks.values()):
            changed = hook(self, args, output)
            if changed is not None:
                output = changed
        return output

    # -- what is inside ------------------------------------------------------------------------

    def named_variables(self, pattern: str | None = None) -> Iterator[tuple[str, Variable]]:
        """All variables with their paths; a tied one once, under its first path."""
        return self._named(Variable, pattern)

    def named_parameters(self, pattern: str | None = None) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their paths; a tied one once, under its first path.

        Args:
            pattern: a regular expression that must match the whole path.
        """
        return self._named(Parameter, pattern)

    def named_buffers(self, pattern: str | None = None) -> Iterator[tuple[str, Buffer]]:
        """All buffers with their paths."""
        return self._named(Buffer, pattern)

    def named_modules(self, pattern: str | None = None) -> Iterator[tuple[str, Any]]:
        """This module (path ``""``) and all inside it, each once."""
        yield from (pair for pair in self._named(ModuleBase, pattern))

    def named_children(self) -> Iterator[tuple[str, Any]]:
        """The modules held directly, each once."""
        for path, item in walk(self, into_modules=False):
            if isinstance(item, ModuleBase) and item is not self:
                yield path, item

    def _named(self, kind: type, pattern: str | None) -> Iterator[tuple[str, Any]]:
        matches = None if pattern is None else compiled(pattern).fullmatch
        for path, item in walk(self):
            if isinstance(item, kind) and (matches is None or matches(path)):
                yield path, item

    def variables(self, pattern: str | None = None) -> list[Variable]:
        """All variables, each once."""
        return [v for _, v in self.named_variables(pattern)]

    def parameters(self, pattern: str | None = None) -> list[Parameter]:
        """All parameters, each once."""
        return [p for _, p in self.named_parameters(pattern)]

    def buffers(self, pattern: str | None = None) -> list[Buffer]:
        """All buffers, each once."""
        return [b for _, b in self.named_buffers(pattern)]

    def modules(self) -> list[Any]:
        """This module and all inside it, each once."""
        return [m for _, m in self.named_modules()]

    def children(self) -> list[Any]:
        """The modules held directly, each once."""
        return [m for _, m in self.named_children()]

    def get_parameter(self, path: str) -> Parameter:
        """The parameter at a path such as ``"hidden.weight"``."""
        return self._find(path, Parameter)

    def get_submodule(self, path: str) -> Any:
        """The module at a path such as ``"layers.0"``; ``""`` is this one."""
        return self._find(path, ModuleBase) if path else self

    def _find(self, path: str, kind: type) -> Any:
        for candidate, item in walk(self, aliases=True):
            if candidate == path and isinstance(item, kind):
                return item
        import difflib

        names = [p for p, item in walk(self, aliases=True) if isinstance(item, kind) and p]
        near = difflib.get_close_matches(path, names, n=3)
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else f"; it has {names[:10]}"
        raise KeyError(f"{type(self).__name__} has no {kind.__name__.replace('Base', '')} at {path!r}{hint}")

    # -- copies -------------------------------------------------------------------------------

    def settle(self) -> None:
        """Called before the structure is compared with an earlier one, for modules that follow others."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        new = object.__new__(type(self))
        new._prepare()
        memo[id(self)] = new
        new._adopt({name: duplicate(value, memo) for name, value in self.__dict__.items()})
        new._copy_record(self._bw)
        new._bw.arguments = self._bw.arguments
        return new

    def __copy__(self) -> Self:
        new = object.__new__(type(self))
        new._prepare()
        new._adopt({k: copy.copy(v) if isinstance(v, (list, dict)) else v for k, v in self.__dict__.items()})
        new._copy_record(self._bw)
        new._bw.arguments = self._bw.arguments
        return new

    def _copy_record(self, old: _Record) -> None:
        self._bw.built = old.built
        self._bw.hooks, self._bw.pre_hooks = dict(old.hooks), dict(old.pre_hooks)

    def _adopt(self, attributes: dict[str, Any]) -> None:
        for name, value in attributes.items():
            self.__dict__[name] = value
            hold(self, value)

    def __getstate__(self) -> dict[str, Any]:
        record = self._bw
        hooks = {"hooks": record.hooks, "pre_hooks": record.pre_hooks}
        attributes = {name: portable(value) for name, value in self.__dict__.items()}
        return {"attributes": attributes, "built": record.built, "arguments": carried(record.arguments), **hooks}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._adopt(state["attributes"])
        self._bw.built = state["built"]
        self._bw.arguments = state.get("arguments")
        self._bw.hooks.update(state["hooks"])
        self._bw.pre_hooks.update(state["pre_hooks"])

    # -- description ---------------------------------------------------------------------------

    def constructor_arguments(self) -> dict[str, Any]:
        """Arguments by name that, given to the class, make such a module; for files that say how to build a network.

        They are those that the module was made with. Arguments that aren't plain data are taken from the attributes
        of the same name. A class that keeps them elsewhere, or not at all, overrides this beside its ``__init__``.

        Raises:
            TypeError: they are not known.

        Example:
            >>> from brickwork import nn
            >>> nn.Linear(3, bias=False).constructor_arguments()
            {'out_features': 3, 'bias': False}
        """
        return bound(self)

    def extra_repr(self) -> str:
        """What stands in the parentheses of the module's line when it is printed. Override freely."""
        return ""

    def __repr__(self) -> str:
        return tree_repr(self)


def _fill_sizes(tied: Variable, shape: tuple[Any, ...]) -> None:
    """A variable that gets a second place takes the sizes it doesn't know from what was there."""
    known = tied.shape
    if None not in known or len(known) != len(shape):
        return
    if all(a is None or b is None or a == b for a, b in zip(known, shape, strict=True)):
        tied.shape = shape


def _put_back_later(module: ModuleBase) -> None:
    """Have the attributes become again what they are now, in their order, should what is being traced fail."""
    context = local.context
    if not context.owned or context.undo is None or module._bw.trace is not None:
        return
    attributes, before = module.__dict__, dict(module.__dict__)

    def put_back() -> None:
        attributes.clear()
        attributes.update(before)
        module.touched()

    context.undo.append(put_back)


register_module(ModuleBase)
