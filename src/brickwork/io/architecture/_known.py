"""Classes and functions that files may name: those of brickwork and JAX listed here, and those that a caller passes."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ..._draw import Initializer
from ...core import ModuleBase
from ...core._functions import is_global

__all__ = ["Known", "Named", "name_of"]

Named = Iterable[Any] | Mapping[str, Any] | None

# Of jax.numpy only what works element by element; it has functions that read and write files, too.
_ELEMENTWISE = (
    "abs absolute arccos arccosh arcsin arcsinh arctan arctanh cbrt ceil cos cosh exp exp2 expm1 floor log log10 log1p "
    "log2 negative positive reciprocal round sign sin sinc sinh sqrt square tan tanh trunc"
)
_DTYPES = (
    "bfloat16 bool_ complex64 complex128 float16 float32 float64 int4 int8 int16 int32 int64 uint4 uint8 uint16 uint32 "
    "uint64 float8_e4m3fn float8_e5m2"
)


@functools.cache
def _table() -> dict[str, Any]:
    """All that is known without being passed, by name."""
    from ... import functional, init, losses, nn

    layers = {n: x for n, x in vars(nn).items() if isinstance(x, type) and issubclass(x, ModuleBase)}
    initializers = {n: x for n, x in vars(init).items() if isinstance(x, type) and issubclass(x, Initializer)}
    groups = {
        "brickwork.nn": layers,
        "brickwork.init": initializers,
        "brickwork.functional": _functions(functional),
        "brickwork.losses": _functions(losses),
        "jax.nn": _functions(jax.nn),
        "jax.nn.initializers": {n: getattr(jax.nn.initializers, n) for n in ("zeros", "ones")},
        "jax.numpy": {n: getattr(jnp, n) for n in f"{_ELEMENTWISE} {_DTYPES}".split()},
    }
    return {f"{module}:{name}": x for module, found in groups.items() for name, x in found.items()}


def _functions(module: Any) -> dict[str, Any]:
    return {
        n: x
        for n, x in vars(module).items()
        if not n.startswith("_") and callable(x) and not isinstance(x, type) and not inspect.ismodule(x)
    }


@functools.cache
def _names() -> dict[int, str]:
    """The names of what is in the table, by identity; the first where there are several."""
    return {id(x): name for name, x in reversed(_table().items())}


def name_of(thing: Any) -> str | None:
    """The name by which a file refers to a class or function; ``None`` where it has none that could be found again."""
    known = _names().get(id(thing))
    if known is not None:
        return known
    if not isinstance(thing, type) and not (callable(thing) and is_global(thing)):
        return None
    return f"{thing.__module__}:{thing.__qualname__}"


class Known:
    """What a file may refer to by name.

    Args:
        given: classes and functions that the caller trusts: a list of them, or a dict from the names in the file.

    Raises:
        TypeError: something else.
    """

    def __init__(self, given: Named = None) -> None:
        self.by_name: dict[str, Any] = {}
        self.by_end: dict[str, list[Any]] = {}
        if isinstance(given, Mapping):
            self.by_name |= {_checked_name(name): _checked(thing) for name, thing in given.items()}
            named = self.by_name.items()
        elif given is None or (isinstance(given, Iterable) and not isinstance(given, (str, type))):
            named = [(f"{_checked(x).__module__}:{x.__qualname__}", x) for x in given or ()]
            self.by_name |= dict(named)
        else:
            raise TypeError(f"load_module: classes must be a list of classes and functions, or a dict, got {given!r}")
        for name, thing in named:
            self.by_end.setdefault(name.rpartition(":")[2], []).append(thing)

    def find(self, name: Any) -> Any:
        """What a name stands for.

        A class that the file has from another module, such as ``__main__``, is found by its own name if only one of
        those that were passed has it.

        Raises:
            KeyError: it isn't known.
            ValueError: it isn't a name, or fits several.
        """
        if not isinstance(name, str):
            raise ValueError(f"{name!r:.60} is not the name of a class or function")
        if name in self.by_name:
            return self.by_name[name]
        if name in _table():
            return _table()[name]
        same = self.by_end.get(name.rpartition(":")[2], [])
        if len(same) > 1:
            raise ValueError(
                f"the file's {name} could be any of {', '.join(map(_shown, same))}; pass "
                f"classes={{{name!r}: ...}} to say which"
            )
        if not same:
            raise KeyError(name)
        return same[0]

    def lacks(self, name: Any) -> bool:
        """Whether a name stands for nothing."""
        try:
            self.find(name)
        except KeyError:
            return True
        return False

    def explain(self, missing: list[str]) -> str:
        """What to do about names that aren't known."""
        ends = ", ".join(name.rpartition(":")[2].rpartition(".")[2] for name in missing)
        near = [f"{m} is similar to {n[0]}" for m in missing if (n := difflib.get_close_matches(m, _table(), 1, 0.85))]
        hint = f" ({'; '.join(near)})" if near else ""
        return (
            f"the network is made of {', '.join(missing)}, which brickwork doesn't know{hint}. Nothing is imported on "
            f"the file's word: pass what you trust, load_module(path, classes=[{ends}])"
        )


def _checked(thing: Any) -> Any:
    if not isinstance(thing, type) and not callable(thing):
        raise TypeError(f"load_module: classes must hold classes and functions, got {thing!r:.60}")
    return thing


def _checked_name(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"load_module: the keys of classes are names such as 'models:MLP', got {name!r:.60}")
    return name


def _shown(thing: Any) -> str:
    return f"{thing.__module__}:{thing.__qualname__}"
