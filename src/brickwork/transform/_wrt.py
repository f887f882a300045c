"""What a call is differentiated by: parameters, arguments, or both.

A :class:`Selection` holds the arrays, each once, and says where each belongs in a result. That is
described by *places*: a number stands for an array, a dict from path to number for the parameters of a
module, a :class:`Nest` for a pytree of such, a tuple for several, ``None`` for what can't be differentiated.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core import Frame, ModuleBase, Parameter, Variable, dry_run, walk
from ..core._calls import describe
from ..core._containers import Node, made_here
from ..core._frame import note_module
from ..core._patterns import compiled, no_match
from ..errors import ControlFlowError
from ._lift import is_array

Pairs = list[tuple[str, Parameter]]


def check_function(what: str, fn: Any) -> None:
    """Refuse what can't be called."""
    if not callable(fn):
        raise TypeError(f"{what}: fn must be a function or a module, got {type(fn).__name__}")


def check_wrt(what: str, wrt: Any) -> Any:
    """``wrt`` as the user gave it, in one of the forms that :func:`select` takes.

    These are ``None``; the position of an argument; a list of modules, parameters and patterns that make
    up one dict; a tuple of positions and lists, one for each entry of the result.
    """
    if wrt is None or _is_position(wrt):
        return wrt
    wrt = _unwrap(wrt)
    alone = isinstance(wrt, (ModuleBase, Variable, str, jax.Array))
    items = [wrt] if alone else list(wrt) if isinstance(wrt, Iterable) and not isinstance(wrt, dict) else []
    items = [_unwrap(item) for item in items]
    wrong = [x for x in items if not (_is_position(x) or isinstance(x, (ModuleBase, Parameter, str)))]
    if wrong or not items:
        shown = wrong[0] if wrong else wrt
        raise TypeError(
            f"{what}: wrt must be a module, a parameter, a regular expression on paths, the position of an "
            f"argument, or a non-empty list of these; got {type(shown).__name__}: {shown!r:.80}"
        )
    for pattern in items:
        if isinstance(pattern, str):
            compiled(pattern)  # complain now rather than at the first call
    if any(_is_position(x) for x in items):
        return tuple(x if _is_position(x) else [x] for x in items)
    return items


def _is_position(x: Any) -> bool:
    return isinstance(x, (int, np.integer)) and not isinstance(x, bool)


def _unwrap(x: Any) -> Any:
    """A compiled module as the module; anything else as it is."""
    return getattr(x, "__brickwork_module__", x)


@dataclass(frozen=True, slots=True)
class Nest:
    """Places in the form of a pytree. Holds no arrays and no modules."""

    tree: Any
    places: list[Any]


class Argument:
    """One argument: a nest of arrays, and of modules, whose trainable parameters count."""

    def __init__(self, selection: Selection, position: int) -> None:
        self.selection, self.position = selection, position
        self.leaves, self.tree = jax.tree_util.tree_flatten(selection.args[position], is_leaf=_is_whole)
        self.places = [self._place(_unwrap(leaf)) for leaf in self.leaves]
        self.nest = Nest(self.tree, self.places)

    def _place(self, leaf: Any) -> Any:
        if isinstance(leaf, Node):
            return self.selection.add_parameters(_parameters_of(leaf))
        if isinstance(leaf, Variable):
            return self.selection.add(leaf) if isinstance(leaf, Parameter) and leaf.trainable else None
        if isinstance(leaf, (float, complex)) or is_array(leaf):
            array = jnp.asarray(leaf)
            return self.selection.add(array) if jnp.issubdtype(array.dtype, jnp.inexact) else None
        return None

    def rebuild(self, flat: list[Any]) -> Any:
        """The argument with other arrays in it. Modules stay as they are: their parameters are bound."""
        both = zip(self.places, self.leaves, strict=True)
        return self.tree.unflatten(
            [flat[place] if isinstance(place, int) and not isinstance(x, Variable) else x for place, x in both]
        )

    def names(self) -> list[str]:
        """What each leaf is called in messages: ``0 (batch['image'])``."""
        selection = self.selection
        flat, _ = jax.tree_util.tree_flatten_with_path(selection.args[self.position], is_leaf=_is_whole)
        return [selection.name_of(self.position, jax.tree_util.keystr(path)) for path, _ in flat]

    def require_all(self, hint: str = "") -> None:
        """Complain of anything in here that can't be differentiated."""
        what = self.selection.what
        if not self.leaves:
            name = self.selection.name_of(self.position)
            raise TypeError(f"{what}: argument {name} holds nothing to differentiate by{hint}")
        for place, leaf, name in zip(self.places, self.leaves, self.names(), strict=True):
            if place == {} or (place is None and isinstance(leaf, Parameter)):
                raise TypeError(f"{what}: argument {name} {_why_none(_unwrap(leaf))}{hint}")
            if place is None:
                raise TypeError(
                    f"{what}: argument {name} is {show(leaf)}, which can't be differentiated; convert it to "
                    f"floating point, or choose other arguments{hint}"
                )


class Selection:
    """The arrays that a call is differentiated by: parameters, each once, and those in arguments."""

    def __init__(self, what: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.what, self.fn, self.args, self.kwargs = what, fn, args, kwargs
        self.sources: list[Any] = []  # parameters and arrays
        self.arguments: dict[int, Argument] = {}
        self.place: Any = None
        self.guarded = False  # whether trained parameters that aren't among the sources may not be read
        self.read: set[int] | None = None  # where it counts, the identities of the variables that the function reads
        self._numbers: dict[int, int] = {}

    # -- collecting ----------------------------------------------------------------------------

    def add(self, source: Any) -> int:
        """The number of an array, or of a parameter, which has one number however often it is added."""
        if isinstance(source, Parameter):
            if id(source) in self._numbers:
                return self._numbers[id(source)]
            self._numbers[id(source)] = len(self.sources)
        self.sources.append(source)
        return len(self.sources) - 1

    def add_parameters(self, pairs: Pairs) -> dict[str, int]:
        """Those of some named parameters that are trained, a tied one under its first name."""
        trained: dict[int, tuple[str, Parameter]] = {}
        for path, parameter in pairs:
            if parameter.trainable:
                trained.setdefault(id(parameter), (path, parameter))
        found = list(trained.values())
        if len({path for path, _ in found}) < len(found):
            found = [(f"{i}.{path}", p) for i, (path, p) in enumerate(found)]
        return {path: self.add(p) for path, p in found}

    def argument(self, position: int) -> Argument:
        """The argument at a position, which may be negative."""
        count = len(self.args)
        if not -count <= position < count:
            raise ValueError(
                f"{self.what}: wrt={position}, but fn was called with {count} positional argument{'s' * (count != 1)}; "
                "arguments are counted from 0, and those given by keyword can't be chosen"
            )
        position = int(position) % count
        if position not in self.arguments:
            self.arguments[position] = Argument(self, position)
        return self.arguments[position]

    def name_of(self, position: int, path: str = "") -> str:
        """What an argument, or a part of it, is called in messages."""
        names = _positional_names(self.fn)
        return f"{position} ({names[position]}{path})" if position < len(names) else f"{position}{path}"

    # -- using ---------------------------------------------------------------------------------

    @property
    def parameters(self) -> list[Parameter]:
        """The parameters among the sources."""
        return [s for s in self.sources if isinstance(s, Parameter)]

    def values(self) -> list[Any]:
        """The arrays as they are now."""
        return [s.value if isinstance(s, Parameter) else s for s in self.sources]

    def frame(self) -> Frame:
        """A frame to call the function in."""
        if self.guarded:
            return _Guarded(self)
        return Frame() if self.read is None else _Noting(self.read)

    def call(self, frame: Frame, flat: list[Any]) -> Any:
        """Call the function with other arrays in place of the sources."""
        for source, value in zip(self.sources, flat, strict=True):
            if isinstance(source, Parameter):
                frame.bind(source, value)
        args = [self.arguments[i].rebuild(flat) if i in self.arguments else a for i, a in enumerate(self.args)]
        return self.fn(*args, **self.kwargs)

    def arrange(self, flat: list[Any]) -> Any:
        """Results, one for each source, in the form in which the user gets them."""
        return arrange(self.place, flat)


def arrange(place: Any, flat: list[Any]) -> Any:
    """Put results where they belong."""
    if place is None:
        return None
    if isinstance(place, int):
        return flat[place]
    if isinstance(place, dict):  # JAX would sort the paths; they keep the order of the network
        return {path: flat[number] for path, number in place.items()}
    if isinstance(place, tuple):
        return tuple(arrange(p, flat) for p in place)
    return place.tree.unflatten([arrange(p, flat) for p in place.places])


class _Rehearsal(Frame):
    """A frame in which a function is called to infer shapes; nothing of it is kept."""

    rehearsal = True


class _Noting(Frame):
    """A frame that notes what is read in it, also further inside."""

    def __init__(self, found: set[int]) -> None:
        super().__init__()
        self.found = found

    def read(self, variable: Any) -> Any:
        self.found.add(id(variable))
        return super().read(variable)


class _Guarded(Frame):
    """The frame of a function that is differentiated by its first argument since no module was given.

    Reading a trained parameter in it shows that this can't be what was meant.
    """

    def __init__(self, selection: Selection) -> None:
        super().__init__()
        self.selection = selection

    def resolve(self, variable: Any) -> Any:
        mine = variable._trace == self.stamp or made_here(variable._trace)
        if isinstance(variable, Parameter) and variable.trainable and not mine:
            raise _nothing_chosen(self.selection, f", while fn reads Parameter {variable.any_name!r}")
        return super().resolve(variable)


# -- selecting ---------------------------------------------------------------------------------


def select(what: str, fn: Callable[..., Any], wrt: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Selection:
    """What a call is differentiated by, for a checked ``wrt``; unknown shapes are inferred first."""

    def choose() -> Selection:
        selection = Selection(what, fn, args, kwargs)
        selection.place = _default(selection) if wrt is None else _chosen(selection, wrt)
        return selection

    return _with_shapes(choose)


def select_arguments(what: str, fn: Callable[..., Any], args: tuple[Any, ...]) -> Selection:
    """Everything in the arguments that can be differentiated; unknown shapes are inferred first."""

    def choose() -> Selection:
        selection = Selection(what, fn, args, {})
        selection.place = tuple(selection.argument(i).nest for i in range(len(args)))
        return selection

    return _with_shapes(choose)


def _with_shapes(choose: Callable[[], Selection]) -> Selection:
    selection = choose()
    if any(not p.is_drawable for p in selection.parameters):
        infer_shapes(selection.fn, selection.args, selection.kwargs)
        selection = choose()  # building may have replaced parameters
    return selection


def infer_shapes(fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
    """Infer the shapes that a function needs, abstractly if that can be; nothing else comes of it."""
    try:
        dry_run(fn, *args, **kwargs)
    except ControlFlowError:
        with _Rehearsal():  # the function looks at values: rehearse it with these, forgetting what it writes
            fn(*args, **kwargs)


def _default(selection: Selection) -> Any:
    """The places without ``wrt``: all modules among the arguments, or the first argument."""
    pairs, modules = _module_arguments(selection)
    if modules:
        return _some(selection, pairs, modules)
    if selection.what == "backward" or not selection.args:
        raise _nothing_chosen(selection)
    selection.guarded = True
    argument = selection.argument(0)
    argument.require_all(". There is no module among the arguments; pass wrt=net for the parameters of a network")
    return argument


def _chosen(selection: Selection, wrt: Any) -> Any:
    if isinstance(wrt, tuple):
        return tuple(_chosen(selection, item) for item in wrt)
    if isinstance(wrt, list):
        return _some(selection, _targets(selection, wrt), wrt)
    argument = selection.argument(wrt)
    argument.require_all()
    return argument.nest


def _some(selection: Selection, pairs: Pairs, nodes: Iterable[Any]) -> dict[str, int]:
    """Those of some named parameters that are trained; ``nodes`` are what they were found in."""
    numbers = selection.add_parameters(pairs)
    if not pairs:
        raise TypeError(f"{selection.what}: " + "; ".join(f"{type(x).__name__} {_why_none(x)}" for x in nodes))
    if not numbers:
        raise TypeError("there is no trainable parameter to differentiate by: all are frozen")
    return numbers


def _why_none(node: Any) -> str:
    """Why there is nothing to differentiate by in a module or a parameter."""
    if _parameters_of(node):
        return "has no trainable parameter: all are frozen"
    waiting = (m for _, m in walk(node) if isinstance(m, ModuleBase) and not m._bw.built)
    if any(type(m).build is not ModuleBase.build for m in waiting):
        return "has no parameters to differentiate by yet; call it once on data before, so that its build can make them"
    return "has no parameters to differentiate by; choose another module, or an argument by its position, as in wrt=0"


def _targets(selection: Selection, targets: list[Any]) -> Pairs:
    """The named parameters of modules, of parameters, and of patterns on the modules among the arguments."""
    pairs: Pairs = []
    for i, target in enumerate(targets):
        if isinstance(target, str):
            pairs += _matching(selection, target)
        elif isinstance(target, Parameter):
            pairs.append((target.any_name, target))
        else:
            front = f"{i}." if len(targets) > 1 else ""
            pairs += [(front + path, p) for path, p in _parameters_of(target)]
    return pairs


def _matching(selection: Selection, pattern: str) -> Pairs:
    pairs, found = _module_arguments(selection)
    if not found:
        raise TypeError(
            f"{selection.what}: wrt={pattern!r} is a regular expression on the paths of the modules among the "
            f"arguments, but there is none; pass the network as an argument, or wrt=net.parameters({pattern!r})"
        )
    matches = compiled(pattern).fullmatch
    chosen = [(path, p) for path, p in pairs if matches(path)]
    if not chosen:
        paths = [path for path, _ in pairs]
        near = difflib.get_close_matches(pattern, paths, n=4, cutoff=0.3)
        raise no_match(f"{selection.what}: wrt", pattern, [*near, *(p for p in paths if p not in near)])
    return chosen


def _module_arguments(selection: Selection) -> tuple[Pairs, list[Any]]:
    """The named parameters of the modules among the arguments, or of ``fn`` itself; and these modules.

    Of several modules, paths begin with the name of the argument.
    """
    names = _positional_names(selection.fn)
    keyed = [(names[i] if i < len(names) else str(i), x) for i, x in enumerate(selection.args)]
    modules = [(k, _unwrap(x)) for k, x in (*keyed, *selection.kwargs.items()) if isinstance(_unwrap(x), ModuleBase)]
    own = _unwrap(selection.fn)
    if not modules and isinstance(own, ModuleBase):
        modules = [("", own)]
    pairs: Pairs = []
    for name, module in modules:
        front = f"{name}." if len(modules) > 1 else ""
        pairs += [(front + path, p) for path, p in _parameters_of(module)]
    return pairs, [module for _, module in modules]


def _parameters_of(node: Any) -> Pairs:
    """The parameters in a module, or in a list or dict of modules, by path."""
    found = list(walk(node))
    for _, item in found:
        if isinstance(item, ModuleBase):
            note_module(item)
    return [(path, item) for path, item in found if isinstance(item, Parameter)]


def _positional_names(fn: Callable[..., Any]) -> list[str]:
    fn = _unwrap(fn)
    try:
        parameters = inspect.signature(fn.forward if isinstance(fn, ModuleBase) else fn).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _is_whole(x: Any) -> bool:
    return isinstance(x, (Variable, Node))


def show(leaf: Any) -> str:
    """A leaf of an argument in a few words."""
    return f"the {type(leaf).__name__} {leaf!r}" if isinstance(leaf, (int, str)) else describe(leaf)


def _nothing_chosen(selection: Selection, why: str = "") -> TypeError:
    what = selection.what
    other = "" if what == "backward" else ", or wrt=0 for the first argument"
    return TypeError(
        f"{what}: there is no module among the arguments to differentiate by{why}; "
        f"pass wrt=net for the parameters of a network, as in bw.{what}(fn, net)(x, y){other}"
    )
