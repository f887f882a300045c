"""``bw.compile``: a function and the variables it reaches as one XLA program."""

from __future__ import annotations

import copy
import functools
import inspect
import sys
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, overload

import jax
import jax.numpy as jnp

from ..core import ModuleBase, Structure, Variable, dry_run
from ..core._control import UNDECIDED, explain_concretization
from ..core._deferred import is_box
from ..core._epoch import EPOCH
from ..core._frame import local
from ..core._functions import is_global
from ..core._jax import is_device_error, trace_config
from ..core._manners import unbox
from ..errors import ControlFlowError
from ._bound import BoundMethod, WeakMethod
from ._cache import enable_cache, fetch_ahead
from ._cause import Cause, cause
from ._explain import Explanation, explain
from ._guards import Guards
from ._options import Options, checked
from ._program import Program, Stale, alive, rehearse
from ._ready import Ready
from ._recompile import RecompileWarning, forbid, tentative, watch
from ._record import Record, Remains
from ._signature import Signature, learn_array_type, quick_key
from ._speculate import MOST_PATHS, ControlFlowWarning, Mispredicted, Uncompiled, listen
from ._stats import Stats, gather

_WARN_AT = 10
_RAW = " A compiled function follows control flow on values, but not inside a raw JAX transform such as jax.jit."
_OTHER_PATH = "Call it before with arguments that lead this way, or use bw.cond or jnp.where there."
_MOST = 1024  # sets of arguments remembered for one function
_MOST_PROGRAMS = 256  # kept for one function; the oldest goes first


@overload
def compile(
    fn: Callable[..., Any], *, donate: bool = True, control_flow: str = "speculate", onednn: bool = False
) -> Compiled: ...
@overload
def compile(
    *, donate: bool = True, control_flow: str = "speculate", onednn: bool = False
) -> Callable[[Callable[..., Any]], Compiled]: ...
def compile(fn: Any = None, *, donate: bool = True, control_flow: str = "speculate", onednn: bool = False) -> Any:
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
        control_flow: what to do when Python asks for a traced value (``if``, ``while``, ``and``, ``assert``,
            ``int(x)``, ``x.item()``, ``range(int(n))``, ``items[i]``). ``"speculate"``: compile the path that this
            call takes and check at each call that it is the right one; each path is a program of its own, found
            again when it is taken again, and overwrites no array in place. The function runs without being
            compiled, and a warning says so, from the seventeenth path on, after a thousand decisions in one call,
            and where it calls back into Python, which can't be undone. ``"error"``: raise, with the place and
            what to use instead.
        onednn: whether products and convolutions of float32 are computed by oneDNN, on an x86 CPU with JAX 0.12 or
            later: a training step of convolutions takes a fifth less time (``docs/benchmarks.md``). Experimental, as
            XLA's way to call oneDNN is. Such a program is not kept on disk: each process compiles it anew. On other
            devices, and for programs divided among several, nothing changes; where a CPU has none, a warning says so.

    Raises:
        ControlFlowError: Python control flow depends on a traced value and can't be followed: inside ``vmap`` or a
            loop, or with ``control_flow="error"``.
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
    options = checked(donate, control_flow, onednn)
    if fn is None:
        return functools.partial(compile, donate=donate, control_flow=control_flow, onednn=onednn)
    if isinstance(fn, Compiled):
        fn._options.require(options, fn.__name__)
        return fn
    if isinstance(fn, ModuleBase):
        return CompiledModule(fn, options)
    if isinstance(fn, type) and issubclass(fn, ModuleBase):
        raise TypeError(f"compile: {fn.__name__} is a class; compile an instance of it, {fn.__name__}(...)")
    if inspect.isgeneratorfunction(fn) or inspect.iscoroutinefunction(fn):
        raise TypeError(
            f"compile: {fn.__name__} is a {'generator' if inspect.isgeneratorfunction(fn) else 'coroutine'} "
            "function, which does its work after the call; compile the function that does the computation"
        )
    if not callable(fn):
        raise TypeError(f"compile: expected a function or a module, got {type(fn).__name__}")
    return Compiled(fn, options)


class Compiled:
    """A compiled function; made by :func:`brickwork.compile`."""

    def __init__(self, fn: Callable[..., Any], options: Options) -> None:
        self._record = Record(fn, getattr(fn, "__name__", type(fn).__name__))
        functools.update_wrapper(self, fn, updated=())
        self._fn = fn
        self._options = options
        self._ready: dict[Any, Ready] = {}
        self._programs: dict[Any, list[Program]] = {}
        self._bound: dict[int, tuple[weakref.ref[Any], Compiled]] = {}  # by identity: equal isn't the same
        self._lock = threading.RLock()
        self._warned = False
        self._warned_of_paths = False

    @property
    def __name__(self) -> str:
        """What it is called in messages: the name of the function, unless it is given another one."""
        return self._record.name

    @__name__.setter
    def __name__(self, name: str) -> None:
        self._record.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if local.context.frame is not None:
            return self._fn(*args, **kwargs)  # part of the program being traced
        quick = None if kwargs else quick_key(args)
        if quick is None:
            return self._general_call(args, kwargs)
        key, arrays = quick
        ready = self._ready.get(key)
        if ready is None or ready.epoch is not EPOCH[0] or not ready.program.guards.hold():
            return self._slow_call(key, Signature(args, {}))
        return self._run(ready, key, arrays, args)

    def _general_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        signature = Signature(args, kwargs)
        if signature.traced:  # inside a raw JAX transform: part of what that one traces
            try:
                return self._fn(*args, **kwargs)
            except UNDECIDED as error:
                raise explain_concretization(error, "tracing", _RAW) from error
        try:
            key = (signature.key, tuple([id(b) for b in signature.boxes]))
            ready = self._ready.get(key)
        except TypeError:
            signature.check_static(self._fn)
            raise
        if ready is None or ready.epoch is not EPOCH[0] or not ready.program.guards.hold():
            return self._slow_call(key, signature)
        return self._run(ready, key, signature.arrays, signature)

    def _run(self, ready: Ready, key: Any, arrays: list[Any], call: Signature | tuple[Any, ...]) -> Any:
        self._record.calls += 1
        stale = wrong = None
        try:
            return ready.run(arrays)
        except Stale:
            stale = ready.program
        except Mispredicted as other:
            wrong = other.with_traceback(None)  # whose stack would keep everything there alive
        except Uncompiled:
            pass
        except ValueError as error:
            if is_device_error(error):
                raise ready.mismatch(arrays) from error
            raise
        # Out of the handlers, so that an error in the function is not reported as one that came of theirs.
        signature = call if isinstance(call, Signature) else Signature(call, {})
        if stale is None and wrong is None:
            return self._run_uncompiled(signature)
        self._record.calls -= 1
        return self._slow_call(key, signature, stale, wrong)

    def _slow_call(
        self, key: Any, signature: Signature, stale: Program | None = None, wrong: Mispredicted | None = None
    ) -> Any:
        tried = [] if wrong is None else [wrong.assumed]
        while True:
            try:
                return self._prepare_and_run(key, signature, stale, wrong)
            except Mispredicted as other:
                wrong = other.with_traceback(None)
            except Uncompiled:
                break
            if wrong.assumed in tried:  # programs round differently, and each denies that this is its path
                break
            tried.append(wrong.assumed)
        self._record.calls += 1
        return self._run_uncompiled(signature)

    def _run_uncompiled(self, signature: Signature) -> Any:
        args, kwargs = signature.rebuild([jnp.asarray(x) for x in signature.arrays])
        out = self._fn(*args, **kwargs)
        return jax.tree_util.tree_map(unbox, out, is_leaf=is_box)

    def _prepare_and_run(
        self, key: Any, signature: Signature, stale: Program | None, wrong: Mispredicted | None = None
    ) -> Any:
        with self._lock:
            before = self._record.compilations
            with tentative():
                ready = self._prepare(key, signature, wrong)
            self._record.misses += self._record.compilations > before
            if stale is not None and ready.program is stale:
                stale.frozen = False  # JAX dropped its caches; the assumptions hold, so compile again
            self._record.last = ready.program
            self._record.calls += 1
            try:
                return ready.run(signature.arrays)
            except Stale:
                ready.program.frozen = False
                return ready.run(signature.arrays)
            except (Mispredicted, Uncompiled):
                self._record.calls -= 1
                raise
            finally:
                ready.program.frozen = True

    def _prepare(self, key: Any, signature: Signature, wrong: Mispredicted | None = None) -> Ready:
        """Find the program that fits the present state of everything, or trace and compile one."""
        learn_array_type()
        boxes = self._structure(signature)
        ready = self._ready.get(key)
        epoch = EPOCH[0]
        # The configuration and the arguments' structure are part of the key; the rest is assumptions.
        full_key = (signature.key, boxes.encoding, trace_config())
        programs = self._programs.get(full_key, [])
        for i, program in enumerate(programs):
            if program.fits(boxes) and (wrong is None or program.path.begins_with(wrong.decisions)):
                programs.insert(0, programs.pop(i))
                break
        else:
            paths = [] if wrong is None else [p for p in programs if p.path and p.fits(boxes)]
            if len(paths) >= MOST_PATHS:
                self._give_up(full_key, paths, f"more than {MOST_PATHS} paths were taken")
                self._warn_uncompiled(paths[0], wrong)
                raise Uncompiled
            program = self._compile(signature, boxes, wrong)
            self._programs[full_key] = [program, *programs]
            self._keep(full_key, program)
            epoch = EPOCH[0]
            if program.eager:
                self._warn_uncompiled(program, program.path.busiest)
        if ready is None or ready.program is not program or signature.boxes:
            ready = Ready(program, boxes, self._disposer(key, full_key, program))
        ready.look_at_devices(signature.arrays)
        if program.executable is None and not program.eager:
            forbid(self._record, program.cause)
            ready.compile(signature.arrays)
            self._record.compile_seconds += program.compile_seconds
            self._record.trace_seconds += program.trace_seconds
        if not program.guards.settled or not program.guards.hold():
            program.guards = self._guards(signature, *(alive(program.roots) or ()))
            program.guards.release()
            program.guards.settled = True
        ready.epoch = epoch
        # Only now may other threads see it: one that called it before would have JAX compile it once more.
        if not any(isinstance(box, Variable) for box in signature.boxes):  # it would never be freed
            while key not in self._ready and len(self._ready) >= _MOST:
                self._ready.pop(next(iter(self._ready)))
            self._ready[key] = ready
        return ready

    def _give_up(self, full_key: Any, paths: list[Program], why: str) -> None:
        """Run the function as it is from now on, for arguments such as these."""
        paths[0].obstacle = why
        for program in paths[1:]:
            self._drop(full_key, program)

    def _warn_uncompiled(self, program: Program, place: Any) -> None:
        """Say once that the function runs as it is."""
        if self._warned_of_paths:
            return
        self._warned_of_paths = True
        warnings.warn(
            f"{self.__name__} runs without being compiled, because of the control flow at {place}: {program.obstacle}. "
            "Use bw.cond, bw.while_loop or jnp.where there, or take that part out of the compiled function.",
            ControlFlowWarning,
            stacklevel=_levels_to_user(),
        )

    def _keep(self, full_key: Any, program: Program) -> None:
        """Remember in which order programs were made, and drop the oldest when there are too many."""
        self._record.made.append((full_key, program))
        if len(self._record.made) > _MOST_PROGRAMS:
            self._drop(*self._record.made.popleft())

    def _drop(self, full_key: Any, program: Program) -> None:
        remaining = [p for p in self._programs.get(full_key, ()) if p is not program]
        if remaining:
            self._programs[full_key] = remaining
        else:
            self._programs.pop(full_key, None)
        self._ready = {key: ready for key, ready in self._ready.items() if ready.program is not program}
        self._record.made = deque(pair for pair in self._record.made if pair[1] is not program)
        if self._record.last is program:
            self._record.last, self._record.past = None, Remains(program)

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
                if not self._options.speculate or not listen():
                    return boxes  # the compilation to come will explain
                rehearse(self._fn, signature, self._guards(signature), boxes)
            boxes = Structure(signature.boxes)
        return boxes

    def _guards(self, signature: Signature, *used: ModuleBase) -> Guards:
        """What the function captures, and what the functions and modules do that it is called with or uses."""
        return Guards(self._fn, *signature.watched(), *signature.boxes, *used)

    def _compile(self, signature: Signature, boxes: Structure, wrong: Mispredicted | None = None) -> Program:
        signature.check_static(self._fn)
        if wrong is None:
            why = cause(self._record, signature, boxes)
        else:
            why = Cause(f"another path through its control flow at {wrong}", _OTHER_PATH)
        forbid(self._record, why)
        watch()
        enable_cache()  # before tracing, in which initial values are computed
        ahead = None if self._options.onednn else fetch_ahead(self._fn, signature.arrays, self._record.compilations)
        given = None if not self._options.speculate or not listen() else () if wrong is None else wrong.decisions
        program = Program(self._fn, signature, self._guards(signature), boxes, self._options, given)
        program.cause, program.ahead = why, ahead
        self._record.compilations += 1
        self._record.other_paths += wrong is not None
        many = self._record.compilations - self._record.other_paths >= _WARN_AT
        if wrong is None and many and not self._warned and self._record.last is not None:
            self._warned = True
            warnings.warn(
                f"{self.__name__} was compiled {self._record.compilations} times; last because of {why}. {why.advice}",
                RecompileWarning,
                stacklevel=_levels_to_user(),
            )
        return program

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
            return BoundMethod(self, instance, given=True)
        return self._bind(instance)

    def _bind(self, instance: Any) -> Any:
        number = id(instance)
        known = self._bound.get(number)
        if known is not None and known[0]() is instance:
            return BoundMethod(known[1], instance, given=False)
        forget = weakref.WeakMethod(self._forget)
        try:
            reference = weakref.ref(instance, lambda _: (m := forget()) and m(number))
        except TypeError:  # has __slots__ without __weakref__
            return BoundMethod(self, instance, given=True)
        bound = Compiled(WeakMethod(self._fn, reference), self._options)
        self._bound[number] = (reference, bound)
        return BoundMethod(bound, instance, given=False)

    def _forget(self, number: int) -> None:
        self._bound.pop(number, None)

    def stats(self) -> Stats:
        """Calls, compilations, time spent, and XLA's figures; see :class:`Stats`."""
        return gather(self._record)

    def explain(self, *args: Any, hlo: bool | None = None, **kwargs: Any) -> Explanation:
        """What a call with these arguments reads, writes and costs, and whether it would compile; see
        :class:`Explanation`.

        Nothing is run and no variable changes. The program is compiled if it isn't yet, which counts as a
        compilation; the next such call finds it.

        Args:
            args, kwargs: as for a call.
            hlo: whether to add the text of the optimised program. A parameter of that name which the function has
                itself is given by position.

        Raises:
            What a call raises, and ``RuntimeError`` inside another transform, where no program of its own is run.

        Example:
            >>> import brickwork as bw
            >>> import jax.numpy as jnp
            >>> total = bw.Buffer(jnp.zeros(3))
            >>> @bw.compile
            ... def add(x):
            ...     total.value += x
            >>> add.explain(jnp.ones(3)).donated
            ("global 'total'",)
        """
        return explain(self._record, self._lock, self._prepare, args, kwargs, hlo)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A function isn't copied, nor is one that is compiled; a module is, and its programs are left behind."""
        fn = copy.deepcopy(self._fn, memo)
        return self if fn is self._fn else type(self)(fn, self._options)

    def __reduce__(self) -> Any:
        """Pickled as functions are, by name, or with what is compiled; programs are left behind."""
        if is_global(self):
            return self.__dict__["__qualname__"]
        return type(self), (self._fn, self._options)

    def __repr__(self) -> str:
        return f"<compiled {self.__name__}>"


class CompiledModule(Compiled):
    """A compiled module: calling it runs one program; everything else is the module's own."""

    def __init__(self, net: ModuleBase, options: Options) -> None:
        super().__init__(net, options)
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
