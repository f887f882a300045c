"""Traced values in objects that JAX can't look into, found before they leave their trace."""

from __future__ import annotations

import dataclasses
import gc
import sys
import types
from collections import deque
from typing import Any

import jax
import numpy as np

from ..core import ModuleBase, Variable
from ..core._calls import describe
from ..core._jax import Tracer, current_trace, trace_of
from ..errors import TraceLeakError

_MOST = 1000  # objects that are looked into for one result
_CLOSED = (str, bytes, bool, int, float, complex, type(None), type, types.ModuleType, types.CodeType, types.FrameType)
_OWN = (ModuleBase, Variable, jax.Array, np.ndarray)  # modules and variables look after themselves


def refuse_held(what: str, result: Any) -> None:
    """Raise for a part of a function's result that isn't made of arrays, but holds a value of the present trace.

    Raises:
        TraceLeakError: it would outlive the trace, and no gradient would reach it.
    """
    if isinstance(result, (*_CLOSED, *_OWN)):
        return
    found = _search(result, current_trace())
    if found is None:
        return
    kind, fix = type(result), ""
    if kind.__module__.partition(".")[0] not in sys.stdlib_module_names:
        register = "register_dataclass" if dataclasses.is_dataclass(kind) else "register_pytree_node_class"
        fix = f", or make the class known to JAX: jax.tree_util.{register}({kind.__name__})"
    raise TraceLeakError(
        f"{what} returned a {kind.__name__} that holds a traced value ({describe(found)}). JAX can't look into it, so "
        "the value would outlive the trace, and no gradient would reach it. Return arrays, or tuples, named tuples, "
        f"lists or dicts of arrays{fix}."
    )


def _search(result: Any, trace: Any) -> Any:
    """A tracer of this trace that an object refers to, nearest first."""
    waiting, seen = deque([result]), set[int]()
    while waiting and len(seen) < _MOST:
        value = waiting.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tracer):
            if trace_of(value) is trace:
                return value
        elif isinstance(value, types.FunctionType):  # and not its globals
            waiting += [value.__closure__, value.__defaults__, value.__kwdefaults__, value.__dict__]
        elif not isinstance(value, (*_CLOSED, *_OWN)):
            waiting += gc.get_referents(value)
    return None
