"""Values by name, and loading them: all problems found first, then everything or nothing."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .core._arrays import as_array, readable, show_shape
from .core._epoch import bump
from .core._frame import all_or_nothing
from .core._jax import Tracer
from .core._parameter import Parameter
from .core._parts import join, part
from .core._variable import Variable
from .core._walk import walk
from .errors import LoadError

Rename = Mapping[str, str] | Callable[[str], str] | None


@dataclass
class LoadReport:
    """What a load found: names the state lacks, names the network lacks, shapes that don't fit."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether anything is amiss."""
        return bool(self.missing or self.unexpected or self.mismatched)


def renamed(state: Mapping[str, Any], rename: Rename) -> dict[str, Any]:
    """The same values, in the same order, under the names that ``rename`` makes of theirs."""
    result: dict[str, Any] = {}
    for name, value in state.items():
        new = str(name)
        if callable(rename):
            new = rename(new)
        elif rename is not None:
            for pattern, replacement in rename.items():
                new = re.sub(pattern, replacement, new)
        if new in result:
            raise LoadError(f"load: two names become {new!r} after renaming; one of them is {name!r}")
        result[new] = readable(value)
    return result


@dataclass(frozen=True, slots=True)
class Entry:
    """One array of a ``state_dict``: a variable, or the part of a stacked one at ``index`` along ``axes``."""

    name: str
    variable: Variable
    index: tuple[int, ...]
    axes: tuple[int, ...]

    def part_of(self, shape: Any) -> tuple[int | None, ...]:
        """The shape of the part, for one of the variable."""
        return tuple(n for axis, n in enumerate(shape) if axis not in self.axes)

    @property
    def key(self) -> tuple[int, tuple[int, ...]]:
        """What is the same for tied entries."""
        return id(self.variable), self.index


def entries(root: Any, *, aliases: bool = False) -> Iterator[Entry]:
    """The variables in a network under the names of a ``state_dict``, each once or, with ``aliases``, under all names.

    A module with ``_repeated`` holds, as its attribute ``block``, several blocks with stacked variables. They go by
    the names that they would have if they stood side by side: ``0.weight``, ``1.weight``.
    """
    items = list(walk(root, aliases=aliases))
    yield from _Expansion(items, aliases).entries(0, len(items), _Block("", "", (), ()))


@dataclass(frozen=True, slots=True)
class _Block:
    """One of the blocks that repeated ones stand for."""

    path: str  # where it is
    name: str  # and where it would be
    index: tuple[int, ...]
    axes: tuple[int, ...]

    def name_of(self, path: str) -> str:
        """The name of what is at a path inside."""
        return f"{self.name}{path[len(self.path) :]}".removeprefix(".")


class _Expansion:
    """What a walk has found, with each of the blocks that repeated ones stand for."""

    def __init__(self, items: list[tuple[str, Any]], aliases: bool) -> None:
        self.items, self.aliases = items, aliases
        holders = ((path, getattr(item, "_repeated", None)) for path, item in items)
        self.blocks = {f"{path}.block".removeprefix("."): (path, *found) for path, found in holders if found}

    def entries(self, start: int, end: int, around: _Block) -> Iterator[Entry]:
        """The entries of some items, which are in a block."""
        i = start
        while i < end:
            path, item = self.items[i]
            i += 1
            if isinstance(item, Variable):
                yield from self._entry(path, item, around)
            elif path in self.blocks:
                holder, count, axis = self.blocks[path]
                after = next((k for k in range(i, end) if not self.items[k][0].startswith(f"{path}.")), end)
                for n in range(count):
                    name = f"{around.name_of(holder)}.{n}".removeprefix(".")
                    block = _Block(path, name, (*around.index, n), (*around.axes, axis))
                    yield from self.entries(i, after, block)
                i = after

    def _entry(self, path: str, variable: Variable, around: _Block) -> Iterator[Entry]:
        own = sum(axis < variable.stacked for axis in around.axes)
        if self.aliases or not any(around.index[own:]):  # what all blocks share has its name from the first of them
            yield Entry(around.name_of(path), variable, around.index[:own], around.axes[:own])


def state_of(root: Any) -> dict[str, Any]:
    """The values of all parameters and persistent buffers by name; see ``Module.state_dict``."""
    found = {}
    for entry in entries(root):
        if entry.variable.persistent:
            value = entry.variable.value
            found[entry.name] = part(value, entry.index, entry.axes) if entry.index else value
    return found


_SINGLY = 20  # names of one group in a message; more are summed up by what they begin with
_ADVICE = "Use strict=False to skip missing and unexpected names, or rename={pattern: replacement}."


def _listed(items: list[str], candidates: list[str]) -> Iterator[str]:
    for item in items:
        near = difflib.get_close_matches(item, candidates, n=1, cutoff=0.7)
        yield f"    {item}" + (f"  (similar: {near[0]})" if near else "")


def _grouped(items: list[str]) -> list[str]:
    """A line for all names that begin alike, as far as that leaves few enough lines."""
    paths = [item.partition(":")[0].split(".") for item in items]
    groups: dict[tuple[str, ...], list[str]] = {}
    for depth in range(1, max(map(len, paths)) + 1):
        finer: dict[tuple[str, ...], list[str]] = {}
        for path, item in zip(paths, items, strict=True):
            finer.setdefault(tuple(path[:depth]), []).append(item)
        if groups and len(finer) > _SINGLY:
            break
        groups = finer
    lines = [
        f"    {v[0]}" if len(v) == 1 else f"    {'.'.join(k)}.*: {len(v)}, such as {v[0]}" for k, v in groups.items()
    ]
    more = len(lines) - _SINGLY
    return lines[:_SINGLY] + ([f"    ... and {more} more such groups"] if more > 0 else [])


def _report_text(report: LoadReport, names: list[str], what: str, advice: str) -> str:
    lines = [f"{what} does not fit the network:"]
    groups = (
        ("missing (the network has it, the state does not)", report.missing, report.unexpected),
        ("unexpected (the state has it, the network does not)", report.unexpected, names),
        ("mismatched", report.mismatched, []),
    )
    for title, items, candidates in groups:
        if items:
            lines.append(f"  {title}:")
        lines += _listed(items, candidates) if len(items) <= _SINGLY else _grouped(items)
    if report.missing or report.unexpected:
        lines.append(f"  {advice}")
    else:
        lines.append("  Build the network with the sizes of the state, or leave the sizes out.")
    return "\n".join(lines)


def load_state(
    root: Any,
    state: Mapping[str, Any],
    *,
    strict: bool = True,
    rename: Rename = None,
    what: str = "the state",
    advice: str = _ADVICE,
) -> LoadReport:
    """Set variables by path from ``state``; see ``Module.load_state_dict``."""
    if not isinstance(state, Mapping):
        raise TypeError(f"load: expected a mapping from names to arrays, got {type(state).__name__}")
    given = renamed(state, rename)
    root.prepare_state(given)
    by_name = _accepted(root)
    canonical = [entry for entry in entries(root) if entry.variable.persistent]
    report = LoadReport()
    contents: dict[int, _Contents] = {}
    for name, value in given.items():
        entry = by_name.get(name)
        if entry is None:
            report.unexpected.append(name)
            continue
        content = contents.setdefault(id(entry.variable), _Contents(entry.variable))
        problem = content.take(name, entry, value)
        if problem is not None:
            report.mismatched.append(f"{name}: {problem}")
    report.missing += [
        e.name for e in canonical if id(e.variable) not in contents or not contents[id(e.variable)].has(e)
    ]
    if report.mismatched or (strict and report):
        raise LoadError(_report_text(report, [e.name for e in canonical], what, advice))
    with all_or_nothing():
        for (
            content
        ) in contents.values():  # first of all, since parts that are missing are drawn by the shapes of others
            if None in content.variable.shape:
                content.variable.shape = content.shape
        ready = [(content.variable, content.value()) for content in contents.values()]
    for variable, value in ready:
        variable.load(value)
    return report


@contextmanager
def unchanged_on_error(roots: Iterable[Any]) -> Iterator[None]:
    """If the body fails, modules are as they were before: attributes, values, shapes and gradients."""
    items = {id(item): item for root in roots for _, item in walk(root)}.values()
    variables = [item for item in items if isinstance(item, Variable)]
    attributes = [(item, dict(item.__dict__)) for item in items if not isinstance(item, Variable)]
    values = [(v, v._value, v._shape, v._dtype, getattr(v, "grad", None)) for v in variables]
    try:
        yield
    except BaseException:
        for module, before in attributes:
            module.__dict__.clear()
            module.__dict__.update(before)
            module.touched()
        for variable, value, shape, dtype, gradient in values:
            variable._value, variable._shape, variable._dtype = value, shape, dtype
            variable.lend()
            if isinstance(variable, Parameter):
                variable.grad = gradient
        bump()
        raise


def _accepted(root: Any) -> dict[str, Entry]:
    """The entries by all names that they may have in a state: of a stacked variable also the whole."""
    found = {path: Entry(path, v, (), ()) for path, v in walk(root, aliases=True) if isinstance(v, Variable)}
    found |= {entry.name: entry for entry in entries(root, aliases=True)}
    former = _former(root)
    for name, entry in list(found.items()) if former else ():
        for old, new in former.get(id(entry.variable), ()):
            if name == new or name.endswith(f".{new}"):
                found.setdefault(name[: len(name) - len(new)] + old, entry)
    return found


def _former(root: Any) -> dict[int, list[tuple[str, str]]]:
    """For the id of a variable: its former and its present path below each of the modules that knows one."""
    found: dict[int, list[tuple[str, str]]] = {}
    modules = [item for _, item in walk(root) if not isinstance(item, Variable) and item.former_names]
    for module in modules:
        for path, item in walk(module, aliases=True):
            for old, new in module.former_names.items():
                if isinstance(item, Variable) and f"{path}.".startswith(f"{new}."):
                    found.setdefault(id(item), []).append((old + path[len(new) :], path))
    return found


def _has_fractions(value: Any, dtype: Any) -> bool:
    """Whether a value would lose what makes it up when converted to integers, as float weights would."""
    if not jnp.issubdtype(dtype, jnp.integer):
        return False
    if isinstance(value, Tracer):
        return jnp.issubdtype(value.dtype, jnp.inexact)  # perhaps not, but that is not known yet
    host = np.asarray(value)
    return jnp.issubdtype(host.dtype, jnp.inexact) and bool((host != np.round(host.astype(np.float64))).any())


def _are_codes(value: Any, variable: Variable) -> bool:
    """Whether a value has integers of 8 bits for a parameter of floats: those of a quantised weight, without scales.

    Wider integers are taken for whole numbers, and so is whatever goes into a buffer.
    """
    if not isinstance(variable, Parameter) or not jnp.issubdtype(variable.dtype, jnp.inexact):
        return False
    dtype = value.dtype if isinstance(value, jax.Array) else np.asarray(readable(value)).dtype
    return jnp.issubdtype(dtype, jnp.integer) and dtype.itemsize == 1


class _Contents:
    """What a state has for one variable: all of it, or parts of a stacked one."""

    def __init__(self, variable: Variable) -> None:
        self.variable = variable
        self.shape: Any = variable.shape  # as far as it is known, also by now from the state
        self.axes: tuple[int, ...] = ()
        self.parts: dict[tuple[int, ...], tuple[str, Any]] = {}
        self.amiss: set[tuple[int, ...]] = set()

    def take(self, name: str, entry: Entry, value: Any) -> str | None:
        """Add the value that the state has under a name; returns what is wrong with it."""
        known = entry.part_of(self.shape)
        shape = tuple(np.shape(value))
        if len(known) != len(shape) or any(a is not None and a != b for a, b in zip(known, shape, strict=True)):
            self.amiss.add(entry.index)
            return f"the network has {show_shape(known)}, the state {shape}"
        if _has_fractions(value, self.variable.dtype):
            self.amiss.add(entry.index)
            return f"the network has {self.variable.dtype}, the state fractions"
        if _are_codes(value, self.variable):
            self.amiss.add(entry.index)
            return (
                f"the network has {self.variable.dtype}, the state integers of 8 bits, as a quantised network has "
                "them; quantise this one first, nn.quantize(net), or convert them if they are the values themselves"
            )
        sizes = iter(shape)
        self.shape = tuple(n if axis in entry.axes else next(sizes) for axis, n in enumerate(self.shape))
        first, other = self.parts.setdefault(entry.index, (name, value))
        if other is not value and not np.array_equal(np.asarray(other), np.asarray(value)):
            return f"tied to {first} in the network, but the values differ"
        if len(self.parts) > 1 and () in self.parts:
            return f"the state has all blocks in {self.parts[()][0]}, and this one on its own too"
        self.axes = entry.axes
        return None

    def has(self, entry: Entry) -> bool:
        """Whether there is a value for an entry, be it a wrong one."""
        known = self.parts.keys() | self.amiss
        return entry.index in known or () in known or (not entry.index and self.is_complete)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many parts there are along each of the axes."""
        return tuple(self.shape[axis] for axis in self.axes)

    @property
    def is_complete(self) -> bool:
        """Whether there is a value for every part."""
        return () in self.parts or len(self.parts) == math.prod(self.counts)

    def value(self) -> Any:
        """The value that the variable is to have."""
        variable = self.variable
        parts = {index: part for index, (_, part) in self.parts.items()}
        if () in parts:
            return as_array(parts[()], variable, variable.dtype)
        if not self.is_complete:
            value = variable.value
            for index, new in parts.items():
                where = dict(zip(self.axes, index, strict=True))
                place = tuple(where.get(axis, slice(None)) for axis in range(value.ndim))
                value = value.at[place].set(as_array(new, variable, variable.dtype))
            return value
        values = [parts[index] for index in np.ndindex(self.counts)]
        if all(isinstance(x, np.ndarray) for x in values):
            whole = as_array(np.stack(values), variable, variable.dtype)
        else:
            whole = join([as_array(x, variable, variable.dtype) for x in values])
        return jnp.moveaxis(whole.reshape(self.counts + whole.shape[1:]), range(len(self.axes)), self.axes)
