"""What the transforms share: arguments taken apart, and bodies that write variables made pure.

A JAX transform wants a pure function of arrays. Reading a variable inside one is easy: the frame finds
the value further out and JAX closes over it. Writing is not, where JAX must know the outputs before it
has seen the body (loops, branches): there a first trace finds out which variables are written, and a
second one carries them. What was found is remembered, so that later traces of the same body need one.
"""

from __future__ import annotations

import functools
import threading
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..core import Frame, ModuleBase, Variable
from ..core._calls import describe
from ..core._deferred import is_box
from ..core._jax import current_trace, passing
from ..core._manners import unbox
from ..core._parameter import Slot
from ..core._structure import Static
from ..core._variable import depth
from ..errors import ShapeMismatchError, StructureError
from ._held import refuse_held

_ARRAY = object()
_ROUNDS = 100


def is_array(x: Any) -> bool:
    """Whether JAX can trace ``x`` as it is: an array, also a NumPy one or a tracer, of numbers or keys."""
    if isinstance(x, (np.ndarray, np.generic)):
        return x.dtype.kind not in "OUS"
    return hasattr(x, "shape") and hasattr(x, "dtype") and not isinstance(x, Variable)


class Split:
    """A nest taken apart: arrays, which JAX transforms, and the rest, which goes around it.

    Args:
        tree: arguments or results of a function.
        numbers: whether Python numbers count as arrays.
        unbox: whether variables count as their values.
    """

    __slots__ = ("arrays", "leaves", "tree")

    def __init__(self, tree: Any, *, numbers: bool = False, unbox: bool = False) -> None:
        leaves, self.tree = jax.tree_util.tree_flatten(tree, is_leaf=is_box)
        self.arrays: list[Any] = []
        self.leaves: list[Any] = []
        for leaf in leaves:
            leaf = getattr(leaf, "__brickwork_module__", leaf)
            if unbox and isinstance(leaf, Variable):
                leaf = leaf.value
            if is_array(leaf) or (numbers and isinstance(leaf, (bool, int, float, complex))):
                self.arrays.append(leaf)
                leaf = _ARRAY
            self.leaves.append(leaf)

    def fill(self, arrays: Iterable[Any]) -> Any:
        """The nest again, with other arrays."""
        given = iter(arrays)
        return jax.tree_util.tree_unflatten(self.tree, [next(given) if x is _ARRAY else x for x in self.leaves])

    def emptied(self) -> Split:
        """The same without arrays, which may be tracers: to be kept when a trace has ended."""
        form = object.__new__(Split)
        form.tree, form.leaves, form.arrays = self.tree, self.leaves, []
        return form

    @property
    def static(self) -> list[Static]:
        """What is no array, in a form that can be compared."""
        return [Static(x) for x in self.leaves if x is not _ARRAY]

    def only_arrays(self, items: Iterable[Any]) -> list[Any]:
        """Of one item for each leaf, those that belong to arrays."""
        return [item for item, leaf in zip(items, self.leaves, strict=True) if leaf is _ARRAY]

    @property
    def boxes(self) -> list[Any]:
        """The modules and variables in the nest."""
        return [x for x in self.leaves if isinstance(x, (ModuleBase, Variable))]


def split_result(what: str, tree: Any, *, numbers: bool = True) -> Split:
    """The result of a body taken apart, in its trace; modules have no place in it, nor objects that hold tracers."""
    split = Split(tree, numbers=numbers, unbox=True)
    if split.boxes:
        raise TypeError(
            f"{what}: the function returned a {type(split.boxes[0]).__name__}; modules are changed in place, so "
            "there is no need to return them"
        )
    for leaf in split.leaves:
        if leaf is not _ARRAY:
            refuse_held(f"{what}: the function", leaf)
    return split


def unboxed(tree: Any) -> Any:
    """The result of a body in which a variable stands for its value at the end of the body, not for a later one."""
    return jax.tree_util.tree_map(unbox, tree, is_leaf=is_box)


class NewWrites(Exception):
    """Raised while JAX traces a body that writes variables nobody had reckoned with."""

    def __init__(self, found: list[tuple[Variable, Any]]) -> None:
        super().__init__("a body writes further variables")
        self.found = found


class Carried:
    """The variables that the bodies of a loop or branch write, which JAX must carry.

    Args:
        what: the name of the transform, for messages.
        bodies: the functions.
        fills: whether an empty slot (a gradient, say) may start as zeros, because a body surely runs.
    """

    def __init__(self, what: str, *bodies: Callable[..., Any], fills: bool = False) -> None:
        self.what, self.fills = what, fills
        self.keys = [key_of(body) for body in bodies]
        self.variables: list[Variable] = recall(self.keys)
        self.blanks: dict[int, Any] = {}
        self.written: set[int] = set()
        self.outer: Any = None  # the trace that the loop or branch is a part of
        self.alone: frozenset[Any] = frozenset()  # as of a frame

    def run(self, attempt: Callable[[list[Any]], tuple[Any, list[Any]]]) -> Any:
        """Call ``attempt(values)``, which returns a result and new values, until all writes are known; store them."""
        self.outer = current_trace()
        for _ in range(_ROUNDS):
            self.written = set()
            try:
                out, values = attempt([self._initial(v) for v in self.variables])
                break
            except NewWrites as new:
                self._add(new.found)
        else:
            raise StructureError(f"{self.what}: every trace of the body writes new variables; create them outside")
        remember(self.keys, [v for v in self.variables if id(v) in self.written])
        for variable, value in zip(self.variables, values, strict=True):
            if id(variable) in self.written:
                variable.value = value
        return out

    def body(
        self, fn: Callable[..., Any], values: list[Any], *args: Any, lanes: Lanes | None = None, slices: Any = ()
    ) -> tuple[Any, list[Any], list[Any]]:
        """Run a body with the carried variables set to ``values``.

        Returns its result, the variables' new values, and those of the lanes that it wrote.
        """
        known = {id(v) for v in self.variables}
        with passing(self.outer), Frame() as frame:
            frame.alone = self.alone
            for variable, value in zip(self.variables, values, strict=True):
                frame.bind(variable, value)
            if lanes is not None:
                lanes.bind(frame, slices)
            out = unboxed(fn(*args))
            in_lanes = [] if lanes is None else lanes.collect(frame)
            found = [(v, x) for v, x in zip(*frame.writes(), strict=True) if id(v) not in known]
            if found:
                raise NewWrites([(v, jax.tree_util.tree_map(_aval, x)) for v, x in found])
            self.written |= frame.written.keys()
            new = [self._fit(v, x, frame.read(v)) for v, x in zip(self.variables, values, strict=True)]
        return out, new, in_lanes

    def _add(self, found: list[tuple[Variable, Any]]) -> None:
        for variable, shapes in found:
            if isinstance(variable, Slot) and variable.value is None:
                if not self.fills:
                    raise StructureError(
                        f"{self.what}: {name_of(variable)} is empty before, and would be set inside or perhaps not; "
                        "give a gradient a value first: `p.grad = jnp.zeros(p.shape)`"
                    )
                self.blanks[id(variable)] = shapes
            self.variables.append(variable)

    def _initial(self, variable: Variable) -> Any:
        value = variable.value
        if value is None and id(variable) in self.blanks:
            return jax.tree_util.tree_map(lambda s: jnp.zeros(s.shape, s.dtype), self.blanks[id(variable)])
        return jax.tree_util.tree_map(strong, value)

    def _fit(self, variable: Variable, old: Any, new: Any) -> Any:
        """The new value of a variable in the form that the old one had."""
        new = jax.tree_util.tree_map(strong, new)
        before, after = jax.tree_util.tree_map(_aval, old), jax.tree_util.tree_map(_aval, new)
        if before == after:
            return new
        kind = TypeError if jax.tree_util.tree_map(jnp.shape, old) == jax.tree_util.tree_map(jnp.shape, new) else None
        raise (kind or ShapeMismatchError)(
            f"{self.what}: {name_of(variable)} was {_describe(before)} and would become {_describe(after)}; inside "
            f"{self.what} a variable keeps its shape and dtype. Convert what is written, for example with .astype."
        )


class Lanes:
    """Variables with one value for each lane of a ``vmap`` or each step of a ``scan``, along their first axis."""

    def __init__(self, what: str, modules: Iterable[Any], size: int | None = None, stacked: bool = False) -> None:
        found: dict[int, Variable] = {}
        for module in modules:
            mine = [module] if isinstance(module, Variable) else module.variables()
            flagged = [v for v in mine if depth(v)]
            if stacked and not flagged:
                raise StructureError(
                    f"{what}: {type(module).__name__} is not a stack of modules; make one with "
                    "bw.stack([net1, net2, ...]), or reach a module that all steps share from outside"
                )
            found |= {id(v): v for v in flagged or mine}
        self.variables = list(found.values())
        self.values = [v.value for v in self.variables]
        for variable, value in zip(self.variables, self.values, strict=True):
            if not value.ndim or (size is not None and value.shape[0] != size):
                of, share = ("lanes", "in_axes=None for it") if what == "vmap" else ("steps", "reach it from outside")
                raise ShapeMismatchError(
                    f"{what}: {name_of(variable)} has shape {value.shape}, which has no first axis of {size} for the "
                    f"{of}. Stack the modules with bw.stack([...]), or share one module: {share}."
                )
            size = value.shape[0]
        self.size = size
        self.mapped = frozenset(id(v) for v in self.variables)
        self.written: list[Variable] = []
        self.columns: dict[int, tuple[Variable, ...]] = {}

    @classmethod
    def across(cls, columns: list[tuple[Variable, ...]]) -> Lanes:
        """For modules side by side, which are stacked for the purpose; the first one's variables stand for all."""
        lanes = cls("", ())
        lanes.columns = {id(column[0]): column for column in columns}
        lanes.variables = [column[0] for column in columns]
        lanes.values = [jnp.stack([v.value for v in column]) for column in columns]
        return lanes

    def bind(self, frame: Frame, slices: list[Any]) -> None:
        """Give each variable its value for this lane."""
        for variable, value in zip(self.variables, slices, strict=True):
            frame.bind(variable, value)

    def collect(self, frame: Frame) -> list[Any]:
        """Take the variables that the lane wrote out of the frame's writes, and their values."""
        self.written = [v for v in self.variables if frame.written.pop(id(v), None) is not None]
        return [frame.read(v) for v in self.written]

    def store(self, values: list[Any]) -> None:
        """Write the values of all lanes back."""
        for variable, value in zip(self.written, values, strict=True):
            column = self.columns.get(id(variable))
            if column is None:
                variable.value = value
            else:
                for i, one in enumerate(column):
                    one.value = value[i]


def strong(x: Any) -> Any:
    """The array without the mark of a Python number (its "weak type"), which a loop could not keep."""
    if getattr(x, "weak_type", False) or isinstance(x, (bool, int, float, complex)):
        x = jnp.asarray(x)
        return lax.convert_element_type(x, x.dtype)
    return x


def _aval(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(x), x.dtype if hasattr(x, "dtype") else jnp.result_type(x))


def _describe(tree: Any) -> str:
    return "empty" if tree is None else describe(tree)


def name_of(variable: Variable) -> str:
    """How a variable is called in messages."""
    if isinstance(variable, Slot):
        return "a gradient or captured output"
    return f"{type(variable).__name__} {variable.name!r}" if variable.name else f"a {type(variable).__name__}"


# -- what bodies are known to write ------------------------------------------------------------

_MEMORY: OrderedDict[Any, tuple[weakref.ref[Variable], ...]] = OrderedDict()
_LOCK = threading.Lock()
_MOST = 4096


def key_of(fn: Any) -> Any:
    """What a body is recognised by: its code and the modules it captures. Only a hint: nothing relies on it."""
    fn = getattr(fn, "__brickwork_module__", fn)
    if isinstance(fn, functools.partial):
        return (key_of(fn.func), tuple(id(x) for x in (*fn.args, *fn.keywords.values()) if is_box(x)))
    if isinstance(fn, types.MethodType):
        return (id(fn.__func__.__code__), id(fn.__self__)) if hasattr(fn.__func__, "__code__") else id(fn.__self__)
    if isinstance(fn, types.FunctionType):
        captured = [cell.cell_contents for cell in fn.__closure__ or () if _is_filled(cell)]
        return (id(fn.__code__), tuple(id(getattr(x, "__code__", x)) for x in captured if is_box(x) or callable(x)))
    return id(fn)


def _is_filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def recall(keys: list[Any]) -> list[Variable]:
    found: dict[int, Variable] = {}
    with _LOCK:
        for key in keys:
            for reference in _MEMORY.get(key, ()):
                variable = reference()
                if variable is not None and variable._trace is None and variable.is_drawn:
                    found[id(variable)] = variable
    return list(found.values())


def remember(keys: list[Any], variables: list[Variable]) -> None:
    references: tuple[weakref.ref[Variable], ...] = tuple(weakref.ref(v) for v in variables if v._trace is None)
    with _LOCK:
        for key in keys:
            if references or key in _MEMORY:
                _MEMORY[key] = references
                _MEMORY.move_to_end(key)
        while len(_MEMORY) > _MOST:
            _MEMORY.popitem(last=False)
