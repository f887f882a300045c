"""``bw.compile``: a function and the variables it reaches as one XLA program."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from ..core import ModuleBase, Structure, Variable, dry_run
from ..core._epoch import EPOCH
from ..core._frame import local
from ..core._jax import is_device_error, trace_config
from ..errors import ControlFlowError
from ._cache import enable_cache
from ._guards import Guards
from ._program import ARRAY_TYPE, Program, Stale, learn_array_type
from ._ready import Ready
from ._signature import Signature, difference

_WARN_AT = 10
_ADVICE = (
    "Keep it fixed: pad or drop a last, smaller batch; pass numbers that change as arrays (jnp.asarray) or keep "
    "them in a Buffer."
)
_MOST = 1024  # sets of arguments remembered for one function
_MOST_PROGRAMS = 256  # kept for one function; the oldest goes first


class RecompileWarning(UserWarning):
    """A function keeps being compiled anew."""


@dataclass(frozen=True)
class Stats:
    """What a compiled function has cost so far. Times in seconds, sizes in bytes.

    ``flops``, ``bytes_accessed``, ``peak_memory`` (arguments, results and temporaries, less what is
    overwritten in place) and ``donated`` are XLA's figures for the program that was used last.
    """

    calls: int
    compilations: int
    cache_hits: int
    trace_seconds: float
    compile_seconds: float
    flops: float | None
    bytes_accessed: float | None
    peak_memory: int | None
    donated: int | None


@overload
def compile(fn: Callable[..., Any], *, donate: bool = True) -> Compiled: ...
@overload
def compile(*, donate: bool = True) -> Callable[[Callable[..., Any]], Compiled]: ...
def compile(fn: Any = None, *, donate: bool = True) -> Any:
    """Compile a function, and every variable it reads or writes, into one XLA program.

    The function may use any module, variable or optimiser that it can reach: through arguments,
    closures, globals. Values it reads become inputs of the program, values it writes outputs. The
    first call with arguments of new shapes traces and compiles; later ones cost what ``jax.jit`` does.
    What the trace depended on is checked at each call: a layer replaced, ``train()`` or ``eval()``,
    a frozen parameter, a changed attribute or global lead to a new trace, and going back finds the
    earlier program.

    Arrays among the arguments, also in nested lists, tuples and dicts, are traced. Modules pass their
    contents; equal modules share a program. Everything else is static and must be hashable.

    Several threads may call compiled functions at the same time, and read the network meanwhile. Calls that
    update variables take turns, except those of functions that call back into Python (``jax.debug.callback``
    and the like): let one thread at a time run these.

    Args:
        fn: a function, a method or a module. A module gives an object that behaves as the module does.
        donate: whether a variable's old array may be overwritten by its new value, so that memory is
            not doubled. Arrays that someone else may hold are never overwritten.

    Raises:
        ControlFlowError: Python control flow depends on a traced value.
        TraceLeakError: a traced value would be kept.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax.numpy as jnp
        >>> net, count = nn.Linear(3), bw.Buffer(jnp.zeros((), jnp.int32))
        >>> @bw.compile
        ... def step(x):
        ...     count.value += 1
        ...     return net(x).sum()
        >>> y = step(jnp.ones((2, 4)))
        >>> int(count)
        1
    """
    if fn is None:
        return functools.partial(compile, donate=donate)
    if isinstance(fn, Compiled):
        return fn
    if isinstance(fn, ModuleBase):
        return CompiledModule(fn, donate)
    if inspect.isgeneratorfunction(fn) or inspect.iscoroutinefunction(fn):
        raise TypeError(
            f"compile: {fn.__name__} is a {'generator' if inspect.isgeneratorfunction(fn) else 'coroutine'} "
            "function, which does its work after the call; compile the function that does the computation"
        )
    if not callable(fn):
        raise TypeError(f"compile: expected a function or a module, got {type(fn).__name__}")
    return Compiled(fn, donate)


class Compiled:
    """A compiled function; made by :func:`brickwork.compile`."""

    def __init__(self, fn: Callable[..., Any], donate: bool = True) -> None:
        self.__name__: str = getattr(fn, "__name__", type(fn).__name__)
        functools.update_wrapper(self, fn, updated=())
        self._fn = fn
        self._donate = donate
        self._ready: dict[Any, Ready] = {}
        self._programs: dict[Any, list[Program]] = {}
        self._made: deque[tuple[Any, Program]] = deque()
        self._bound: dict[int, tuple[weakref.ref[Any], Compiled]] = {}  # by identity: equal isn't the same
        self._lock = threading.RLock()
        self._calls = 0
        self._trace_seconds = 0.0
        self._compile_seconds = 0.0
        self._compilations = 0
        self._last: Program | None = None
        self._warned = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if local.context.frame is not None:
            return self._fn(*args, **kwargs)  # part of the program being traced
        if kwargs:
            return self._general_call(args, kwargs)
        key: list[Any] = []
        for a in args:
            kind = type(a)
            if kind is ARRAY_TYPE[0]:
                key.append((a.shape, a.dtype, a.weak_type))
            elif kind is np.ndarray and a.dtype.kind not in "OUS":
                key.append((a.shape, a.dtype, False))
            else:
                return self._general_call(args, kwargs)
        fast = tuple(key)
        ready = self._ready.get(fast)
        if ready is None or ready.epoch is not EPOCH[0] or not ready.program.guards.hold():
            signature = Signature(args, kwargs)
            return self._slow_call(fast, signature)
        return self._run(ready, fast, list(args), None)

    def _general_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        signature = Signature(args, kwargs)
        if signature.traced:  # inside a raw JAX transform: part of what that one traces
            return self._fn(*args, **kwargs)
        try:
            key = (signature.key, tuple([id(b) for b in signature.boxes]))
            ready = self._ready.get(key)
        except TypeError:
            signature.check_static(self._fn)
            raise
        if ready is None or ready.epoch is not EPOCH[0] or not ready.program.guards.hold():
            return self._slow_call(key, signature)
        return self._run(ready, key, signature.arrays, signature)

    def _run(self, ready: Ready, key: Any, arrays: Any, signature: Signature | None) -> Any:
        self._calls += 1
        try:
            return ready.run(arrays)
        except Stale:
            self._calls -= 1
            return self._slow_call(key, signature or Signature(tuple(arrays), {}), stale=ready.program)
        except ValueError as error:
            if is_device_error(error):
                raise ready.mismatch(arrays) from error
            raise

    def _slow_call(self, key: Any, signature: Signature, stale: Program | None = None) -> Any:
        with self._lock:
            ready = self._prepare(key, signature)
            if stale is not None and ready.program is stale:
                stale.frozen = False  # JAX dropped its caches; the assumptions hold, so compile again
            self._last = ready.program
            self._calls += 1
            try:
                return ready.run(signature.arrays)
            except Stale:
                ready.program.frozen = False
                return ready.run(signature.arrays)
            finally:
                ready.program.frozen = True

    def _prepare(self, key: Any, signature: Signature) -> Ready:
        """Find the program that fits the present state of everything, or trace and compile one."""
        learn_array_type()
        boxes = self._structure(signature)
        ready = self._ready.get(key)
        epoch = EPOCH[0]
        # The configuration and the arguments' structure are part of the key; the rest is assumptions.
        full_key = (signature.key, boxes.encoding, trace_config())
        programs = self._programs.setdefault(full_key, [])
        for i, program in enumerate(programs):
            if program.fits(boxes):
                programs.insert(0, programs.pop(i))
                break
        else:
            program = self._compile(signature, boxes)
            programs.insert(0, program)
            self._keep(full_key, program)
            epoch = EPOCH[0]
        if ready is None or ready.program is not program or signature.boxes:
            ready = Ready(program, boxes, self._disposer(key, full_key, program))
            while len(self._ready) >= _MOST:
                self._ready.pop(next(iter(self._ready)))
            if not any(isinstance(box, Variable) for box in signature.boxes):  # it would never be freed
                self._ready[key] = ready
        ready.look_at_devices(signature.arrays)
        if program.executable is None:
            enable_cache()
            ready.compile(signature.arrays)
            self._compile_seconds += program.compile_seconds
            self._trace_seconds += program.trace_seconds
        if not program.guards.settled or not program.guards.hold():
            program.guards = self._guards(signature, *(program.roots_alive() or ()))
            program.guards.release()
            program.guards.settled = True
        ready.epoch = epoch
        return ready

    def _keep(self, full_key: Any, program: Program) -> None:
        """Remember in which order programs were made, and drop the oldest when there are too many."""
        self._made.append((full_key, program))
        if len(self._made) > _MOST_PROGRAMS:
            self._drop(*self._made.popleft())

    def _drop(self, full_key: Any, program: Program) -> None:
        remaining = [p for p in self._programs.get(full_key, ()) if p is not program]
        if remaining:
            self._programs[full_key] = remaining
        else:
            self._programs.pop(full_key, None)
        self._ready = {key: ready for key, ready in self._ready.items() if ready.program is not program}
        self._made = deque(pair for pair in self._made if pair[1] is not program)
        if self._last is program:
            self._last = None

    def _structure(self, signature: Signature) -> Structure:
        """The structure of the modules among the arguments, with their shapes inferred, so that programs are found."""
        for box in signature.boxes:
            if isinstance(box, ModuleBase):
                box.settle()
        boxes = Structure(signature.boxes)
        if self._programs and any(not v.is_drawn and not v.is_drawable for v in boxes.variables):
            args, kwargs = signature.rebuild(signature.arrays)
            try:
                dry_run(self._fn, *args, **kwargs)
            except ControlFlowError:
                return boxes  # the compilation to come will explain
            boxes = Structure(signature.boxes)
        return boxes

    def _guards(self, signature: Signature, *used: ModuleBase) -> Guards:
        """What the function captures, and what the functions and modules do that it is called with or uses."""
        return Guards(self._fn, *signature.callables(), *signature.boxes, *used)

    def _compile(self, signature: Signature, boxes: Structure) -> Program:
        signature.check_static(self._fn)
        guards = self._guards(signature)
        old = self._last
        program = Program(self._fn, signature, guards, boxes, self._donate)
        self._compilations += 1
        if self._compilations >= _WARN_AT and not self._warned and old is not None:
            self._warned = True
            warnings.warn(
                f"{self.__name__} was compiled {self._compilations} times; last because of "
                f"{self._cause(old, program)}. {_ADVICE}",
                RecompileWarning,
                stacklevel=_levels_to_user(),
            )
        return program

    def _cause(self, old: Program, new: Program) -> str:
        return (
            difference(self._fn, old.footprint, new.footprint)
            or old.guards.changed()
            or old.difference(new)
            or "a changed setting of JAX"
        )

    def _disposer(self, key: Any, full_key: Any, program: Program) -> Callable[[Any], None]:
        """What to do when a module dies that a program relies on: forget the program, and what it holds."""
        owner = weakref.ref(self)
        doomed = weakref.ref(program)

        def dispose(_: Any) -> None:
            compiled = owner()
            if compiled is None:
                return
            compiled._ready.pop(key, None)
            dead = doomed()
            if dead is None or all(module() is not None for module in dead.modules):
                return
            compiled._drop(full_key, dead)

        return dispose

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        if isinstance(instance, ModuleBase):
            return _BoundMethod(self, instance, given=True)
        return self._bind(instance)

    def _bind(self, instance: Any) -> Any:
        number = id(instance)
        known = self._bound.get(number)
        if known is not None and known[0]() is instance:
            return _BoundMethod(known[1], instance, given=False)
        forget = weakref.WeakMethod(self._forget)
        try:
            reference = weakref.ref(instance, lambda _: (m := forget()) and m(number))
        except TypeError:  # has __slots__ without __weakref__
            return _BoundMethod(self, instance, given=True)
        bound = Compiled(_WeakMethod(self._fn, reference), self._donate)
        self._bound[number] = (reference, bound)
        return _BoundMethod(bound, instance, given=False)

    def _forget(self, number: int) -> None:
        self._bound.pop(number, None)

    def stats(self) -> Stats:
        """Compilations, time spent, and XLA's figures for the program used last."""
        program = self._last
        executable = None if program is None else program.executable
        flops = bytes_accessed = peak = donated = None
        if executable is not None:
            cost = executable.cost_analysis() or {}
            flops, bytes_accessed = cost.get("flops"), cost.get("bytes accessed")
            memory = executable.memory_analysis()
            if memory is not None:
                donated = memory.alias_size_in_bytes
                results = memory.output_size_in_bytes - donated
                peak = memory.argument_size_in_bytes + results + memory.temp_size_in_bytes
        return Stats(
            calls=self._calls,
            compilations=self._compilations,
            cache_hits=self._calls - self._compilations,
            trace_seconds=self._trace_seconds,
            compile_seconds=self._compile_seconds,
            flops=flops,
            bytes_accessed=bytes_accessed,
            peak_memory=peak,
            donated=donated,
        )

    def __repr__(self) -> str:
        return f"<compiled {self.__name__}>"


class _WeakMethod:
    """A function with its first argument given, which it does not keep alive."""

    def __init__(self, fn: Callable[..., Any], instance: weakref.ref[Any]) -> None:
        functools.update_wrapper(self, fn)
        self._instance = instance
        self._fn = fn

    @property
    def __self__(self) -> Any:
        return self._instance()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._fn(self._instance(), *args, **kwargs)


class _BoundMethod:
    """A compiled method of an object.

    A module is passed as the first argument (``given``), so that equal modules share programs; other
    objects have programs of their own.
    """

    def __init__(self, compiled: Compiled, instance: Any, given: bool) -> None:
        self.__wrapped__ = compiled
        self.__self__ = instance
        self._given = given

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(self.__self__, *args, **kwargs) if self._given else self.__wrapped__(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)


class CompiledModule(Compiled):
    """A compiled module: calling it runs one program; everything else is the module's own."""

    def __init__(self, net: ModuleBase, donate: bool) -> None:
        super().__init__(net, donate)
        self.__name__ = type(net).__name__

    @property
    def __brickwork_module__(self) -> ModuleBase:
        return self._fn  # type: ignore[return-value]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_fn" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._fn, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            setattr(self._fn, name, value)

    def __len__(self) -> int:
        return len(self._fn)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: Any) -> Any:
        return self._fn[index]  # type: ignore[index]

    def __repr__(self) -> str:
        return f"<compiled {self._fn!r}>"


def _levels_to_user() -> int:
    """The ``stacklevel`` at which a warning issued by the caller points to the user's own line."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        level, frame = level + 1, frame.f_back
    return level
