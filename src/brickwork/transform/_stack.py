"""Several modules of one structure as one module, and back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ..core import ModuleBase, Structure, Variable
from ..core._calls import describe
from ..core._frame import TrialFrame, outside
from ..core._jax import is_device_error
from ..core._parts import join, part
from ..core._structure import meaning
from ..core._variable import depth
from ..errors import DeviceMismatchError, ShapeMismatchError, StructureError
from ._cause import first_difference


def stack(modules: Iterable[Any]) -> Any:
    """One module out of several of the same structure, with their variables along a new first axis.

    For ensembles and the like: pass the result to a function under :func:`brickwork.vmap` (or among the ``xs``
    of :func:`brickwork.scan`), where it is one of the modules. Until then its variables may be trained,
    saved and moved as those of any module. A variable that all modules share stays one. Sizes that aren't known yet
    are inferred at the first such call.

    Args:
        modules: at least one module; equal but for their values.

    Returns:
        A module of the same class. The modules given are left as they are.

    Raises:
        StructureError: the modules differ in structure, or share a variable in part.
        ShapeMismatchError: shapes differ.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> nets = bw.stack([nn.Linear(2, in_features=3) for _ in range(5)])
        >>> nets.weight.shape
        (5, 2, 3)
    """
    if isinstance(modules, ModuleBase):
        name = type(modules).__name__
        raise TypeError(f"stack: expected a list of modules, got a {name}; write bw.stack([net1, net2, ...])")
    items = [getattr(m, "__brickwork_module__", m) for m in modules]
    for item in items:
        if not isinstance(item, ModuleBase):
            raise TypeError(f"stack: expected a list of modules, got {describe(item)} in it")
    if not items:
        raise ValueError("stack: there are no modules")
    return stack_all(items, "stack", "module")


def stack_all(items: list[Any], what: str, item: str) -> Any:
    """:func:`stack`, with what to call itself and the modules in messages."""
    if len({id(item) for item in items}) < len(items):
        raise StructureError(
            f"{what}: the same {type(items[0]).__name__} is there more than once, so its variables would be shared and "
            "not stacked; make several modules, or copies with net.clone()"
        )
    structures = [Structure([item], by_meaning=True) for item in items]
    for i, structure in enumerate(structures):
        if structure.encoding != structures[0].encoding:
            where = first_difference(structures[0].encoding.code[0], structure.encoding.code[0], "")
            raise StructureError(
                f"{what}: {item}s 0 and {i} differ in structure: {where}. Only {item}s equal but for their values can "
                "be stacked"
            )
    memo: dict[int, Any] = {}
    for column in columns([s.variables for s in structures], what, item):
        shared = len(column) == 1 and len(items) > 1
        memo[id(column[0])] = column[0] if shared else _stacked(column, what, item)
    _copy_initializers([new for new in memo.values() if new.stacked], memo)
    in_place = zip(*[s.modules for s in structures], strict=True)
    return _copied(items[0], [m[0] for m in in_place if len(m) > 1 and all(x is m[0] for x in m)], memo, 1)


def columns(rows: list[list[Variable]], what: str = "stack", item: str = "module") -> list[tuple[Variable, ...]]:
    """The variables in the same place of several modules; a single one where they all share it.

    Raises:
        StructureError: they share one in part.
    """
    found: list[tuple[Variable, ...]] = []
    owners: dict[int, int] = {}
    for number, column in enumerate(zip(*rows, strict=True)):
        shared = len(rows) > 1 and all(v is column[0] for v in column)
        if len({id(v) for v in column}) not in (len(column), 1) or (shared and column[0].stacked):
            raise _partly_shared(column[0], what, item)
        for variable in column:
            if owners.setdefault(id(variable), number) != number:
                raise _partly_shared(variable, what, item)
        found.append((column[0],) if shared else column)
    return found


def unstack(module: Any) -> list[Any]:
    """The modules that :func:`stack` put together, each with its own values.

    Raises:
        StructureError: the module is not a stack.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> a, b = bw.unstack(bw.stack([nn.Linear(2, in_features=3), nn.Linear(2, in_features=3)]))
        >>> a.weight.shape
        (2, 3)
    """
    module = getattr(module, "__brickwork_module__", module)
    if not isinstance(module, ModuleBase):
        raise TypeError(f"unstack: expected a module, got {describe(module)}")
    variables = module.variables()
    counts = {v.shape[0] for v in variables if v.stacked}
    if len(counts) != 1:
        why = "" if variables else "; it has no parameters or buffers, which are what a stack has several of"
        raise StructureError(f"unstack: {type(module).__name__} is not a stack made by bw.stack{why}")
    return [part_of(module, lane) for lane in range(counts.pop())]


def part_of(module: Any, lane: int) -> Any:
    """One of the modules that :func:`unstack` gives."""
    return _with_parts(module, {id(v): (lane,) for v in module.variables() if v.stacked})


def example_of(module: Any) -> Any:
    """One of the modules in a stack, whichever: made now, also where the stack is itself part of one, in a lane.

    Of a stacked variable, its part.
    """
    alone = isinstance(module, Variable)
    known = [(v, depth(v)) for v in ([module] if alone else module.variables())]
    indices = {id(v): (0,) * (v.stacked - d + 1) for v, d in known if d}
    with outside():
        if alone:
            return _part_of(module, indices[id(module)]) if indices else module
        return _with_parts(module, indices)


def infer_stacks(stacks: Iterable[Any], rehearse: Callable[[Callable[[Any], Any]], None]) -> None:
    """Infer the shapes of stacks from one of the modules of each.

    Args:
        stacks: modules and variables; those whose shapes are known stay as they are.
        rehearse: runs what uses the stacks, abstractly, with ``one(stack)`` in the place of each.
    """
    stacks = list(stacks)
    waiting = [m for m in stacks if isinstance(m, ModuleBase) and any(None in v.shape for v in m.variables())]
    if not waiting:
        return
    examples = {id(m): example_of(m) for m in stacks}
    with TrialFrame():
        rehearse(lambda x: examples.get(id(getattr(x, "__brickwork_module__", x)), x))
    for module in waiting:
        adopt_shapes(module, examples[id(module)])


def adopt_shapes(module: Any, example: Any) -> None:
    """Give the modules of a stack the shapes that were inferred for one of them."""
    mine, inferred = module.variables(), example.variables()
    if len(mine) != len(inferred):
        raise StructureError(
            f"the build of {type(module).__name__} makes variables, each module its own; call the modules on data, or "
            "net.initialize(bw.spec(...)), before bw.stack puts them together"
        )
    for variable, one in zip(mine, inferred, strict=True):
        if None in variable.shape:
            variable.shape = (*variable.shape[: variable.ndim - one.ndim], *one.shape)


def _with_parts(module: Any, indices: dict[int, tuple[int, ...]]) -> Any:
    """A copy of a module with parts of some of its variables; the others are the same objects."""
    variables = module.variables()
    memo: dict[int, Any] = {id(v): _part_of(v, indices[id(v)]) if id(v) in indices else v for v in variables}
    _copy_initializers([memo[i] for i in indices], memo)
    common = [m for m in module.modules() if (inside := m.variables()) and not any(id(v) in indices for v in inside)]
    return _copied(module, common, memo, -1)


def _copied(module: Any, common: list[Any], memo: dict[int, Any], deeper: int) -> Any:
    """A copy of a module with other variables, and so with the axes of repeated blocks inside further back by one.

    What is in ``common`` is the same object in the copy.
    """
    kept = {id(m): m for m in common}
    new = copy.deepcopy(module, memo | kept)
    for inner in new.modules():
        if inner._repeated is not None and id(inner) not in kept:
            count, axis = inner._repeated
            inner._repeated = count, axis + deeper
    return new


def _copy_initializers(variables: list[Variable], memo: dict[int, Any]) -> None:
    """Initializers may refer to other variables (that of a bias to the weight): let them refer to the new ones."""
    for variable in variables:
        variable._init = copy.deepcopy(variable._init, memo)


def _partly_shared(variable: Variable, what: str, item: str) -> StructureError:
    return StructureError(
        f"{what}: {type(variable).__name__} {variable.name!r} is shared by some of the {item}s, but not by all in the "
        f"same place, so it can't be stacked; copy it, or keep the {item}s in a list"
    )


def _stacked(column: tuple[Variable, ...], what: str, item: str) -> Variable:
    """One variable out of several."""
    first = column[0]
    if any(v.shape != first.shape or v.dtype != first.dtype for v in column):
        shown = ", ".join(f"{describe(v)}" for v in column[:4])
        raise ShapeMismatchError(f"{what}: {first.name or 'a variable'!r} differs from {item} to {item}: {shown}")
    new = object.__new__(type(first))
    settings = first._settings()
    settings |= {"_shape": (len(column), *first._shape), "_stacked": first.stacked + 1}
    value = numbers = None
    if any(v.is_drawn for v in column) or not _same_initializer(column):
        try:
            value = join([v.value for v in column])
        except ValueError as error:
            if is_device_error(error):
                raise _scattered(column, what, item) from error
            raise
    elif any(v._placement != first._placement for v in column):
        raise _scattered(column, what, item)
    else:
        numbers = [n for v in column for n in (v._number if v.stacked else [v._number])]
    new._restore(settings | {"_number": numbers}, value)
    new._placement = _placement(first, lambda spec: (None, *spec))
    return new


def _placement(variable: Variable, change: Callable[[Any], tuple[Any, ...]]) -> Any:
    """Where a variable with more or fewer axes than another is to be put when it is drawn or loaded."""
    place = variable._placement
    if isinstance(place, NamedSharding):
        return NamedSharding(place.mesh, PartitionSpec(*change(place.spec)), memory_kind=place.memory_kind)
    return place


def _scattered(column: tuple[Variable, ...], what: str, item: str) -> DeviceMismatchError:
    places = dict.fromkeys(str(v.device or v._placement or "the default device") for v in column)
    return DeviceMismatchError(
        f"{what}: {column[0].name or 'a variable'!r} is on different devices: {', '.join(places)}. Move the {item}s to "
        "one with .to(device)."
    )


def _same_initializer(column: tuple[Variable, ...]) -> bool:
    first = _describe_initializer(column[0])
    return all(_describe_initializer(v) == first for v in column)


def _describe_initializer(variable: Variable) -> Any:
    settings = vars(variable._init) if variable._init is not None else {}
    return type(variable._init), {k: Variable if isinstance(x, Variable) else meaning(x) for k, x in settings.items()}


def _part_of(variable: Variable, index: tuple[int, ...]) -> Variable:
    """One of the variables that a stacked one was made of."""
    number, rest = variable._number, variable.stacked - len(index)
    if number is not None:
        counts: Any = variable._shape[: variable.stacked]
        numbers = np.arange(len(number)).reshape(counts)[index].ravel()
        number = [number[i] for i in numbers] if rest else number[int(numbers[0])]
    settings = {"_shape": variable._shape[len(index) :], "_stacked": rest, "_number": number}
    new = object.__new__(type(variable))
    new._restore(variable._settings() | settings, part(variable.value, index) if variable.is_drawn else None)
    new._placement = _placement(variable, lambda spec: spec[len(index) :])
    return new
