"""Functions that JAX has wrapped, ``jax.nn.relu`` for example, among attributes.

They are objects, which ``copy`` would duplicate, with a cache of programs of its own, and ``pickle`` would take apart.
Here they are treated as plain functions are: a copy is the function itself, and a pickle has its name.
"""

from __future__ import annotations

import copy
import functools
import sys
from typing import Any

import jax

_KINDS = (type(jax.jit(lambda: None)), jax.custom_jvp, jax.custom_vjp)


def duplicate(value: Any, memo: dict[int, Any]) -> Any:
    """``copy.deepcopy(value, memo)``; an array or function itself."""
    return value if isinstance(value, (jax.Array, *_KINDS)) else copy.deepcopy(value, memo)


def portable(value: Any) -> Any:
    """A value in a form that can be pickled: a function that can be found by its name as that name."""
    if isinstance(value, _KINDS) and is_global(value):
        found: Any = value
        return _Name(found.__module__, found.__qualname__)
    return value


def is_global(value: Any) -> bool:
    """Whether a class or function can be found by its name, and so lives as long as its module does."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return False
    try:
        return _find(module, name) is value
    except (KeyError, AttributeError):
        return False


class _Name:
    """Stands for a function in a pickle."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __reduce__(self) -> Any:
        return _load, (self.module, self.name)


def _load(module: str, name: str) -> Any:
    import importlib

    importlib.import_module(module)
    return _find(module, name)


def _find(module: str, name: str) -> Any:
    return functools.reduce(getattr, name.split("."), sys.modules[module])
