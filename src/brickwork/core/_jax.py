"""The one place that touches what JAX does not document as stable.

Everything here works on jax 0.10 to 0.12 and is covered by ``tests/core/test_jax.py``, so a
release of JAX that changes one of these names fails there first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax.core

try:  # the public spelling drags in all of jax.extend, a tenth of what importing brickwork costs
    from jax._src.core import get_opaque_trace_state as trace_state
except ImportError:
    from jax.extend.core import get_opaque_trace_state as trace_state

Tracer = jax.core.Tracer

_BASE = trace_state()


def base_state() -> object:
    """The stamp of "no transform is tracing"; equal in every thread."""
    return _BASE


@contextmanager
def untraced() -> Iterator[None]:
    """Leave every trace: computations inside run now and give concrete arrays."""
    with jax.core.eval_context():
        yield


def evaluate_jaxpr(jaxpr: Any, consts: Any, args: Any) -> list[Any]:
    """Run a jaxpr on flat arguments in the current trace."""
    return jax.core.eval_jaxpr(jaxpr, consts, *args)


def used_inputs(closed: Any) -> list[bool]:
    """For each input of a closed jaxpr, whether an equation or an output mentions it."""
    jaxpr = closed.jaxpr if hasattr(closed, "jaxpr") else closed
    used: set[int] = set()
    for equation in jaxpr.eqns:
        used.update(id(v) for v in equation.invars)
    used.update(id(v) for v in jaxpr.outvars)
    return [id(v) in used for v in jaxpr.invars]


def calls_python(closed: Any) -> bool:
    """Whether a closed jaxpr calls back into Python while it runs, where anything may go wrong."""
    return any("callback" in e.primitive.name or any(map(calls_python, _inner(e))) for e in closed.jaxpr.eqns)


def _inner(equation: Any) -> list[Any]:
    found = []
    for value in equation.params.values():
        found += [x for x in (value if isinstance(value, (list, tuple)) else (value,)) if hasattr(x, "jaxpr")]
    return found


def is_device_error(error: BaseException) -> bool:
    """Whether JAX complains of operands on different devices; it has no exception class for that."""
    return isinstance(error, ValueError) and str(error).startswith("Received incompatible devices")


def restart_compilation_cache() -> None:
    """Make JAX look at its cache settings again; it reads them once, at the first compilation."""
    from jax.experimental.compilation_cache import compilation_cache

    compilation_cache.reset_cache()


def setting(name: str) -> Any:
    """One of JAX's settings; they are attributes that type checkers can't see."""
    return getattr(jax.config, name)


def trace_config() -> Any:
    """The settings of JAX that change what a trace produces (precision, 64-bit mode, promotion ...)."""
    from jax._src import config

    return config.trace_context()
