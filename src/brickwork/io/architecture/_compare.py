"""Comparing a network with one that was built anew, attribute by attribute."""

from __future__ import annotations

import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._draw import Initializer
from ...core import ModuleBase, TrackedDict, TrackedList, Variable
from ...core._arguments import named
from ...core._structure import meaning

__all__ = ["Matcher", "Place", "is_dtype"]

Place = tuple[Any, ...]  # the number of a module, then attributes, indices and keys


class Matcher:
    """Pairs what two networks hold, and reports where the second isn't like the first.

    Values of variables don't count, nor do sizes that the second doesn't know yet: both come from the file. Flags that
    are recorded for the network as a whole don't count either.
    """

    def __init__(self) -> None:
        self.twins: dict[int, Any] = {}
        self.taken: set[int] = set()
        self.alive: list[Any] = []  # ids stay unique while their objects live

    def changed(self, at: Place, value: Any, twin: Any) -> None:
        """Called for an attribute or item that differs; ``twin`` is what there is instead."""

    def removed(self, at: Place) -> None:
        """Called for an attribute that only the second network has."""

    def hooked(self, at: Place) -> None:
        """Called for a module with other hooks."""

    def pair(self, a: Any, f: Any, at: Place) -> None:
        """Note that ``f`` is to ``a`` what the second network is to the first."""
        self.twins[id(a)] = f
        self.taken.add(id(f))
        self.alive += (a, f)

    def match(self, a: Any, f: Any, at: Place) -> bool:
        """Whether ``f`` can stand for ``a``, but for what was reported inside them."""
        if isinstance(a, (ModuleBase, Variable)):
            if id(a) in self.twins:
                return self.twins[id(a)] is f
            if type(f) is not type(a) or id(f) in self.taken:
                return False
            if isinstance(a, Variable):
                if not _alike(a, f):
                    return False
                self.pair(a, f, at)
                return True
            if not self._same_arguments(a, f):
                return False
            self.pair(a, f, at)
            self.match_attributes(a, f, at)
            return True
        if isinstance(a, (TrackedList, TrackedDict)):
            return self._match_container(a, f, at)
        if isinstance(a, tuple) and type(f) is type(a) and len(f) == len(a):
            matched = [self.match(x, y, (*at, i)) for i, (x, y) in enumerate(zip(a, f, strict=True))]
            return all(matched)
        return self.same(a, f)

    def match_attributes(self, a: Any, f: Any, at: Place) -> None:
        """Compare what two modules hold."""
        for name, value in list(a.__dict__.items()):
            if name == "training":
                continue
            twin = f.__dict__.get(name, f)  # a module never holds itself
            if not self.match(value, twin, (*at, name)):
                self.changed((*at, name), value, None if twin is f else twin)
        for name in [n for n in f.__dict__ if n not in a.__dict__]:
            self.removed((*at, name))
        for mine, other in ((a._bw.hooks, f._bw.hooks), (a._bw.pre_hooks, f._bw.pre_hooks)):
            if not self.same(list(mine.values()), list(other.values())):
                self.hooked(at)

    def _match_container(self, a: Any, f: Any, at: Place) -> bool:
        if type(f) is not type(a):
            return False
        pairs = a.items() if isinstance(a, dict) else enumerate(a)
        keys = list(f) if isinstance(f, dict) else list(range(len(f)))
        complete = (list(a) if isinstance(a, dict) else list(range(len(a)))) == keys
        for key, value in list(pairs):
            if key in (f if isinstance(f, dict) else keys) and not self.match(value, f[key], (*at, key)) and complete:
                self.changed((*at, key), value, f[key])
        return complete

    def _same_arguments(self, a: Any, f: Any) -> bool:
        if a._bw.arguments == f._bw.arguments or a._bw.arguments is None or f._bw.arguments is None:
            return True
        mine, other = named(a) or {}, named(f) or {}
        return mine.keys() == other.keys() and all(self.same(value, other[name]) for name, value in mine.items())

    def same(self, a: Any, f: Any) -> bool:
        """Whether two plain values are equal, as far as a network that holds them can tell."""
        if a is f or (isinstance(a, (ModuleBase, Variable)) and self.twins.get(id(a)) is f):
            return True
        if is_dtype(a) and is_dtype(f):
            return _dtype(a) == _dtype(f)
        if type(a) is not type(f):
            return False
        if isinstance(a, (tuple, list)):
            return len(a) == len(f) and all(self.same(x, y) for x, y in zip(a, f, strict=True))
        if isinstance(a, dict):
            return list(a) == list(f) and all(self.same(x, f[key]) for key, x in a.items())
        if isinstance(a, (np.ndarray, jax.Array)):
            return a.shape == f.shape and a.dtype == f.dtype and np.asarray(a).tobytes() == np.asarray(f).tobytes()
        if isinstance(a, (float, complex)):
            return repr(a) == repr(f)
        if isinstance(a, types.MethodType):
            return a.__func__ is f.__func__ and self.same(a.__self__, f.__self__)
        if isinstance(a, Initializer):
            return self.same(vars(a), vars(f))
        return meaning(a) == meaning(f) or _equal(a, f)


def is_dtype(value: Any) -> bool:
    """Whether a value is a dtype, or one of the classes that stand for one."""
    return isinstance(value, np.dtype) or (
        isinstance(value, type)
        and (issubclass(value, np.generic) or isinstance(getattr(value, "dtype", None), np.dtype))
    )


def _dtype(value: Any) -> np.dtype:
    return np.dtype(value)


def _alike(a: Any, f: Any) -> bool:
    """Whether a variable can take the values of another; a dtype can be changed."""
    known = len(a.shape) == len(f.shape) and all(n in (None, m) for n, m in zip(f.shape, a.shape, strict=True))
    kinds = [jnp.issubdtype(v.dtype, jnp.inexact) for v in (a, f)]
    fits = all(kinds) or a.dtype == f.dtype
    return known and fits and a.persistent == f.persistent and a.stacked == f.stacked


def _equal(a: Any, f: Any) -> bool:
    try:
        return bool(a == f)
    except (TypeError, ValueError):
        return False
