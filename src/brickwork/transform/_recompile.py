"""Why functions are compiled anew, and how to forbid it."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self, TypeVar, overload

import jax

from .._onednn import lowering
from ..core._frame import all_or_nothing
from ..errors import RecompileError
from ._cause import NEVER, Cause, placement_cause
from ._program import Stale
from ._ready import Ready
from ._record import Record
from ._signature import Signature

_LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"
_COMPILED = "/jax/core/compile/backend_compile_duration"
_Fn = TypeVar("_Fn", bound=Callable[..., Any])


class RecompileWarning(UserWarning):
    """A function keeps being compiled anew."""


# -- forbidding it -------------------------------------------------------------------------------

_forbidden: ContextVar[int] = ContextVar("brickwork_no_recompile", default=0)


class _NoRecompile(contextlib.ContextDecorator):
    """What :func:`no_recompile` returns; holds nothing, so that it may be entered any number of times."""

    def __enter__(self) -> Self:
        watch()
        _forbidden.set(_forbidden.get() + 1)
        return self

    def __exit__(self, *exc: object) -> None:
        _forbidden.set(_forbidden.get() - 1)

    def __call__(self, func: _Fn) -> _Fn:
        for test, kind in ((inspect.isgeneratorfunction, "generator"), (inspect.iscoroutinefunction, "coroutine")):
            if test(func):
                raise TypeError(
                    f"no_recompile: {getattr(func, '__name__', func)} is a {kind} function, which does its work after "
                    "the call; write `with bw.no_recompile():` inside it"
                )
        return super().__call__(func)


@overload
def no_recompile(fn: None = None) -> _NoRecompile: ...
@overload
def no_recompile(fn: _Fn) -> _Fn: ...
def no_recompile(fn: Any = None) -> Any:
    """A context, or a decorator, in which no compiled function may be compiled.

    For the part of a program that must not stall: a training loop after its first steps, a server. A call
    that would compile raises instead, says why, and changes nothing. It is about this thread (or
    :mod:`asyncio` task) only, may be nested, and ends with the block, also when that raises.

    Raises:
        RecompileError: in the block, at a call of a compiled function that has no program for it: new
            shapes, another module, a changed attribute or global, an input on another device; or that was
            never compiled.

    Example:
        >>> import brickwork as bw
        >>> import jax.numpy as jnp
        >>> double = bw.compile(lambda x: 2 * x)
        >>> y = double(jnp.ones(3))
        >>> with bw.no_recompile():
        ...     y = double(jnp.zeros(3))
        ...     y = double(jnp.zeros(2))
        Traceback (most recent call last):
          ...
        brickwork.errors.RecompileError: ...argument 'x': float32[3] became float32[2]...
    """
    return _NoRecompile() if fn is None else _NoRecompile()(fn)


def forbid(record: Record, why: Cause) -> None:
    """Raise if the function must not be compiled now."""
    if not _forbidden.get():
        return
    if why == NEVER:
        text = (
            f"{record.name} was never compiled, and would be now, inside bw.no_recompile(). Call it, or its "
            "explain(), with such arguments before."
        )
    else:
        text = f"{record.name} would be compiled again inside bw.no_recompile(), because of {why}. {why.advice}"
        if why.avoidable:
            text += " Or call it before with all that it will meet."
    raise RecompileError(text)


def tentative() -> contextlib.AbstractContextManager[None]:
    """Where compiling is forbidden: take back the shapes that were inferred in looking for a program."""
    return all_or_nothing() if _forbidden.get() else contextlib.nullcontext()


# -- noticing what JAX compiles by itself --------------------------------------------------------

_watching: list[bool] = []


def watch() -> None:
    """Have JAX report what it compiles."""
    if not _watching:
        _watching.append(True)
        jax.monitoring.register_event_duration_secs_listener(_on_event)


def _on_event(event: str, duration_secs: float, **kwargs: str | int) -> None:
    """Count, or refuse, what JAX compiles during a call.

    A program is traced and compiled before its first call. When a later one brings inputs that are placed
    otherwise, or ``jax.clear_caches()`` has been called, JAX compiles on its own, in the middle of that call.
    """
    if event != _LOWERED and event != _COMPILED:
        return
    call = _explained.get() or _running_call()
    if call is None or kwargs.get("fun_name") != f"jit({call.ready.program.name})":
        return  # not ours, or a copy or a callback on the way
    record = call.record
    call.cause = placement_cause(record, call.ready, call.signature)
    forbid(record, call.cause)
    if event == _LOWERED:
        record.trace_seconds += duration_secs
    else:
        record.compile_seconds += duration_secs
        record.compilations += 1
        record.misses += call.runs


@dataclass
class _Call:
    record: Record
    ready: Ready
    signature: Signature
    runs: bool
    cause: str | None = None


def _running_call() -> _Call | None:
    """The call of a compiled function that is under way in this thread.

    Looking through the stack costs nothing where nothing is compiled, unlike noting it at every call.
    """
    frame: Any = sys._getframe(2)
    while frame is not None and frame.f_code is not Ready.run.__code__:
        frame = frame.f_back
    if frame is None:
        return None
    arrays, caller = frame.f_locals["arrays"], frame.f_back.f_locals
    signature = caller.get("signature") or Signature(tuple(arrays), {})
    return _Call(caller["self"]._record, frame.f_locals["self"], signature, runs=True)


_explained: ContextVar[_Call | None] = ContextVar("brickwork_explained", default=None)


def lower_as_called(record: Record, ready: Ready, signature: Signature) -> tuple[Any, str | None]:
    """The executable that a call would use, which JAX finds or makes, and then why it had to be made."""
    read_only, overwritten = ([v._value for v in group] for group in (ready.read_only, ready.overwritten))
    call = _Call(record, ready, signature, runs=False)
    token = _explained.set(call)
    try:
        with lowering(ready.onednn):
            try:
                return ready.jitted.lower(read_only, overwritten, signature.arrays).compile(), call.cause
            except Stale:  # JAX dropped its caches
                ready.program.frozen = False
                return ready.jitted.lower(read_only, overwritten, signature.arrays).compile(), call.cause
    finally:
        ready.program.frozen = True
        _explained.reset(token)
