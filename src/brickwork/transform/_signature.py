"""How a call looks to a compiled function: which arguments are traced, and a key for the rest."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from ..core import ModuleBase, Variable
from ..core._deferred import is_box
from ..core._jax import Tracer
from ..core._structure import Static


class Signature:
    """The arguments of one call, taken apart.

    ``arrays`` are traced. ``boxes`` are modules and variables, whose contents are inputs and whose
    structure is part of the program's key. Everything else is static, hashed into ``key``.
    """

    __slots__ = ("arrays", "boxes", "key", "kinds", "leaves", "traced", "tree")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.leaves, self.tree = jax.tree_util.tree_flatten((args, kwargs), is_leaf=is_whole)
        self.arrays: list[Any] = []
        self.boxes: list[Any] = []
        self.kinds: list[str] = []
        self.traced = False
        parts: list[Any] = []
        for leaf in self.leaves:
            leaf = getattr(leaf, "__brickwork_module__", leaf)
            if isinstance(leaf, (ModuleBase, Variable)):
                self.kinds.append("box")
                self.boxes.append(leaf)
                parts.append("box")
            elif _is_array(leaf):
                self.kinds.append("array")
                self.arrays.append(leaf)
                self.traced = self.traced or isinstance(leaf, Tracer)
                parts.append(array_key(leaf))
            else:
                self.kinds.append("static")
                parts.append(Static(leaf))
        self.key = (self.tree, tuple(parts))

    def rebuild(self, arrays: list[Any]) -> tuple[Any, Any]:
        """The arguments again, with other values in place of the arrays."""
        given = iter(arrays)
        leaves = [next(given) if k == "array" else x for k, x in zip(self.kinds, self.leaves, strict=True)]
        return jax.tree_util.tree_unflatten(self.tree, leaves)

    def watched(self) -> list[Any]:
        """The static arguments whose insides matter as well: functions, for what they capture, and objects that are
        hashed by identity, for their attributes.
        """
        static = [x for k, x in zip(self.kinds, self.leaves, strict=True) if k == "static"]
        return [x for x in static if callable(x) or type(x).__hash__ is object.__hash__]

    def footprint(self) -> Signature:
        """What is worth keeping of a call to compare later ones with; holds no arrays or modules."""
        kept = object.__new__(Signature)
        kept.tree, kept.key = self.tree, self.key
        return kept

    def check_static(self, fn: Callable[..., Any]) -> None:
        """Refuse static arguments that can't be hashed, and so would be traced anew at every call."""
        for kind, leaf, path in zip(self.kinds, self.leaves, self.paths(fn), strict=True):
            if kind != "static":
                continue
            if isinstance(leaf, Iterator):
                raise TypeError(
                    f"argument {path} is a {type(leaf).__name__}, which can be read only once, while a function "
                    "may be traced several times; pass a list, or loop outside"
                )
            if isinstance(leaf, np.ndarray):
                raise TypeError(
                    f"argument {path} is a NumPy array of dtype {leaf.dtype}; convert it to numbers first, "
                    "for example with .astype(np.float32)"
                )
            try:
                hash(leaf)
            except TypeError:
                raise TypeError(_not_hashable(path, leaf)) from None

    def paths(self, fn: Callable[..., Any]) -> list[str]:
        """A readable name for every leaf, such as ``x`` or ``batch['image']``."""
        return argument_names(fn, self.tree)


def _not_hashable(path: str, leaf: Any) -> str:
    """What is wrong with a static argument, and how an object with arrays in it is passed."""
    kind = type(leaf).__name__
    known = dataclasses.is_dataclass(leaf)
    names = [field.name for field in dataclasses.fields(leaf)] if known else getattr(leaf, "__dict__", ())
    arrays = [name for name in names if _is_array(getattr(leaf, name, None))]
    if known or arrays:
        first = "" if known else "make it a dataclass and "
        fix = f"{first}let JAX see its fields: jax.tree_util.register_dataclass({kind}), once, after the class"
        fix += "" if arrays else "; or make it hashable (frozen, with fields that are hashable)"
    else:
        fix = "pass it as an array, make it hashable (a frozen dataclass, a tuple), or capture it in a closure"
    holds = f" and holds an array, {arrays[0]!r}" if arrays else ""
    return f"argument {path} is a {kind}, which is neither an array nor hashable{holds}; {fix}"


ARRAY_TYPE: list[Any] = [None]
"""The concrete type of arrays; filled in once a backend exists, which importing must not start."""


def learn_array_type() -> None:
    """Fill in :data:`ARRAY_TYPE`."""
    if ARRAY_TYPE[0] is None:
        ARRAY_TYPE[0] = type(jax.device_put(np.zeros((), np.float32)))


def quick_key(args: tuple[Any, ...]) -> tuple[tuple[Any, ...], list[Any]] | None:
    """The key of a call with arrays and modules alone, and the arrays; ``None`` for any other.

    It says what a :class:`Signature` would, but takes nothing apart: this runs at every call.
    """
    key: list[Any] = []
    arrays: list[Any] = []
    for a in args:
        kind = type(a)
        if kind is ARRAY_TYPE[0]:
            key.append((a.shape, a.dtype, a.weak_type))
        elif kind is np.ndarray and a.dtype.kind not in "OUS":
            key.append((a.shape, a.dtype if a.itemsize < 8 else jax.dtypes.canonicalize_dtype(a.dtype), False))
        elif isinstance(a, ModuleBase):
            key.append(id(a))
            continue
        else:
            return None
        arrays.append(a)
    return tuple(key), arrays


def _is_array(x: Any) -> bool:
    # An array of typed random keys has a dtype of JAX's own, without a kind.
    return isinstance(x, jax.Array) or (isinstance(x, (np.ndarray, np.generic)) and x.dtype.kind not in "OUS")


def is_whole(x: Any) -> bool:
    """What isn't taken apart; JAX warns of iterators, which are refused with messages of their own."""
    return is_box(x) or isinstance(x, Iterator)


def array_key(array: Any) -> tuple[Any, ...]:
    """What a program depends on in an array; of NumPy's, JAX takes float64 for float32 unless told otherwise."""
    if isinstance(array, jax.Array):
        return (array.shape, array.dtype, getattr(array, "weak_type", False))  # random keys have none
    return (array.shape, jax.dtypes.canonicalize_dtype(array.dtype), False)


def argument_names(fn: Callable[..., Any], tree: Any) -> list[str]:
    """A readable name for every leaf of ``(args, kwargs)``, such as ``x`` or ``batch['image']``."""
    skeleton = jax.tree_util.tree_unflatten(tree, list(range(tree.num_leaves)))
    names = parameter_names(fn)
    result = []
    for path, _ in jax.tree_util.tree_flatten_with_path(skeleton)[0]:
        which, first, *rest = path
        if which.idx == 0:
            name = names[first.idx] if first.idx < len(names) else f"#{first.idx}"
        else:
            name = str(first.key)
        result.append(name + jax.tree_util.keystr(tuple(rest)))
    return result


def parameter_names(fn: Callable[..., Any]) -> list[str]:
    """The names of the arguments that may be given by position."""
    fn = getattr(fn, "forward", fn) if isinstance(fn, ModuleBase) else fn
    try:
        parameters = inspect.signature(fn).parameters
    except (TypeError, ValueError):
        return []
    names = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    given = not inspect.ismethod(fn) and hasattr(fn, "__wrapped__") and getattr(fn, "__self__", None) is not None
    return names[1:] if given else names  # of a method that refers to its object weakly


def difference(fn: Callable[..., Any], old: Signature, new: Signature) -> str | None:
    """In words, how a call differs from an earlier one."""
    if old.tree != new.tree:
        return "the number or nesting of the arguments"
    for name, a, b in zip(new.paths(fn), old.key[1], new.key[1], strict=True):
        if a != b:
            return f"argument {name!r}: {show(a)} became {show(b)}"
    return None


def show(part: Any) -> str:
    if isinstance(part, tuple):
        shape, dtype, weak = part
        return f"{dtype}[{', '.join(map(str, shape))}]{' (weakly typed)' if weak else ''}"
    return f"{part!r:.60}"
