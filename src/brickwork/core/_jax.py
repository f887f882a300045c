"""The one place that touches what JAX does not document as stable.

Everything here works on jax 0.10 to 0.12 and is covered by ``tests/core/test_jax.py`` (the compilation cache by
``tests/transform``), so a release of JAX that changes one of these names fails there first. It is long because it is to
stay the only one.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import operator
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, ClassVar, NamedTuple

import jax.core

try:  # the public spelling drags in all of jax.extend, a tenth of what importing brickwork costs
    from jax._src import core as _core

    trace_state, in_trace = _core.get_opaque_trace_state, _core.set_current_trace
    _context = _core.trace_ctx

    def current_trace() -> Any:
        """What computations on this thread go through now."""
        return _context.trace

except (ImportError, AttributeError):
    from jax.extend import core as _core

    trace_state, in_trace = _core.get_opaque_trace_state, _core.set_current_trace

    def current_trace() -> Any:
        """What computations on this thread go through now."""
        with _core.take_current_trace() as trace:
            return trace


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


def whole_mesh() -> Any:
    """Leave a ``shard_map``, which makes its mesh the surroundings of all that is traced in it."""
    mesh = jax.sharding.get_abstract_mesh()
    if jax.sharding.AxisType.Manual not in mesh.axis_types:
        return nullcontext()
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ()))


def is_staged() -> bool:
    """Whether what is computed now becomes part of a program, rather than being done at once."""
    from jax._src.interpreters.partial_eval import DynamicJaxprTrace

    trace = current_trace()
    while trace is not None and not isinstance(trace, DynamicJaxprTrace):
        trace = getattr(trace, "parent_trace", None)
    return trace is not None


@contextmanager
def passing(outer: Any) -> Iterator[None]:
    """Inside a function that JAX traces within the trace ``outer``: if it fails, leave nothing of its trace behind.

    JAX keeps a list of the tracers that a trace closes over, with the trace, and clears it only when tracing has come
    to its end. Otherwise both would stay, and with them all that the outer one holds.
    """
    from jax._src.interpreters.partial_eval import DynamicJaxprTrace

    trace = current_trace()
    try:
        yield
    except BaseException:
        while trace is not None and trace is not outer:
            if isinstance(trace, DynamicJaxprTrace):
                trace.invalidate()
            trace = getattr(trace, "parent_trace", None)
        raise


def trace_of(tracer: Tracer) -> Any:
    """The trace that a tracer belongs to; :func:`current_trace` inside it."""
    return tracer._trace


def is_batched(value: Any, trace: Any) -> bool:
    """Whether a value differs from lane to lane of the ``vmap`` that ``trace`` belongs to."""
    return getattr(value, "_trace", None) is trace and isinstance(getattr(value, "batch_dim", None), int)


def whole(value: Any, trace: Any) -> Any:
    """A value that is the same in every lane of the ``vmap`` that ``trace`` belongs to, as it is outside of it."""
    return value.val if getattr(value, "_trace", None) is trace and not is_batched(value, trace) else value


def is_differentiated(value: Any) -> bool:
    """Whether a gradient is being taken that a value may contribute to."""
    return hasattr(value, "primal")


def varying_axes(value: Any) -> frozenset[Any]:
    """The mesh axes along which a value in a ``shard_map`` may differ from device to device."""
    kind = jax.typeof(value)
    found = getattr(getattr(kind, "manual_axis_type", None), "varying", None)
    return frozenset(getattr(kind, "vma", ()) if found is None else found)


def named_axes() -> tuple[Any, ...]:
    """The names of the axes that are mapped around here, by ``jax.vmap`` with a name and ``jax.shard_map``."""
    from jax._src.core import get_axis_env

    return tuple(get_axis_env().axis_names())


def varying_alike(*values: Any) -> list[Any]:
    """Values in a ``shard_map``, each said to vary along all axes along which any does; others as they are.

    A function with a backward pass of its own needs it: the gradient by what was the same on all devices is then
    added up over them.
    """
    union = frozenset[Any]().union(*(varying_axes(x) for x in values if x is not None))
    if not union:
        return list(values)
    missing = [() if x is None else tuple(union - varying_axes(x)) for x in values]
    return [jax.lax.pcast(x, axes, to="varying") if axes else x for x, axes in zip(values, missing, strict=True)]


def evaluate_jaxpr(jaxpr: Any, consts: Any, args: Any) -> list[Any]:
    """Run a jaxpr on flat arguments in the current trace."""
    return jax.core.eval_jaxpr(jaxpr, consts, *args)


_LATE = _core.Primitive("late_input")
_LATE.def_abstract_eval(lambda *, aval: aval)


def late_input(trace: Any, value: Any) -> Any:
    """A tracer for a further input of a trace that is under way; see :func:`with_late_inputs`."""
    with in_trace(trace):
        return _LATE.bind(aval=jax.typeof(value))


def with_late_inputs(closed: Any, late: Iterable[Any], position: int) -> Any:
    """A closed jaxpr with what the late inputs, by their tracers' ``val``, stand for among its inputs."""
    jaxpr = closed.jaxpr
    return closed.replace(
        jaxpr=jaxpr.replace(
            invars=[*jaxpr.invars[:position], *late, *jaxpr.invars[position:]],
            eqns=[e for e in jaxpr.eqns if e.primitive is not _LATE],
            debug_info=jaxpr.debug_info.with_unknown_names(),
        )
    )


def used_inputs(closed: Any) -> list[bool]:
    """For each input of a closed jaxpr, whether an equation or an output mentions it."""
    jaxpr = closed.jaxpr if hasattr(closed, "jaxpr") else closed
    used: set[int] = set()
    for equation in jaxpr.eqns:
        used.update(id(v) for v in equation.invars)
    used.update(id(v) for v in jaxpr.outvars)
    return [id(v) in used for v in jaxpr.invars]


def calls_python(jaxpr: Any) -> bool:
    """Whether a jaxpr, closed or not, calls back into Python while it runs, where anything may go wrong."""
    return any(_is_callback(e.primitive.name) or any(map(calls_python, _inner(e))) for e in jaxpr.eqns)


def _is_callback(primitive: str) -> bool:
    return "callback" in primitive or primitive == "debug_print"


def _inner(equation: Any) -> list[Any]:
    found = []
    for value in equation.params.values():
        found += [x for x in (value if isinstance(value, (list, tuple)) else (value,)) if hasattr(x, "eqns")]
    return found


def is_device_error(error: BaseException) -> bool:
    """Whether JAX complains of operands on different devices; it has no exception class for that."""
    return isinstance(error, ValueError) and str(error).startswith("Received incompatible devices")


def is_collective_error(error: BaseException) -> bool:
    """Whether JAX stumbles over a collective along an axis of ``vmap`` in a ``shard_map`` that checks what varies."""
    if isinstance(error, ValueError) and "lanes " in str(error):
        return str(error).startswith("jax.lax.psum can only accept axis_name")
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    return isinstance(error, AssertionError) and where is not None and where.tb_frame.f_code.co_name == "pvary"


def is_forward_mode_error(error: BaseException) -> bool:
    """Whether JAX complains that a function with a backward pass of its own has no forward-mode derivative."""
    return isinstance(error, TypeError) and str(error).startswith("can't apply forward-mode")


def use_compilation_cache(directory: str) -> None:
    """Keep compiled programs in ``directory``, in files that another process sees whole or not at all.

    JAX writes an entry in place and never again: a process that starts at the same time reads half of it,
    and one that is killed leaves half of it for good, with a warning and a compilation at every start.
    """
    from jax._src import compilation_cache
    from jax._src.lru_cache import LRUCache

    class WholeFiles(LRUCache):
        def put(self, key: str, value: bytes) -> None:
            if self.eviction_enabled:  # by the user's JAX_COMPILATION_CACHE_MAX_SIZE; JAX locks the directory then
                return super().put(key, value)
            entry = os.path.join(directory, f"{key}-cache")
            written = f"{entry}.{os.urandom(8).hex()}"
            try:
                with open(written, "xb") as file:
                    file.write(value)
                os.replace(written, entry)  # over one that can't be read, too: JAX compiles and comes here then
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(written)
                raise

    jax.config.update("jax_compilation_cache_dir", directory)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compilation_cache.reset_cache()
    cache = WholeFiles(directory, max_size=setting("jax_compilation_cache_max_size"))
    compilation_cache._cache, compilation_cache._cache_initialized = cache, True
    if not cache.eviction_enabled:  # it knows of no other files
        FetchedAhead.directory = directory
        if FetchedAhead.fetch is None:
            FetchedAhead.fetch = compilation_cache.get_executable_and_time
            compilation_cache.get_executable_and_time = _fetch


class FetchedAhead:
    """A program from the compilation cache, on the guess that a function needs the same one as in the last process.

    To make machine code of a cache's entry takes XLA about as long as JAX takes to trace and lower the function, which
    is how the entry's name is found. So names are noted in the cache's directory, under what is known of a function
    before, and the program is fetched in a thread of its own meanwhile. Its name is compared when it is known.
    """

    directory: ClassVar[str | None] = None  # of the cache; None: nothing is noted or fetched
    fetch: ClassVar[Any] = None  # JAX's own function
    _LONG = {True: 0.05, False: 1.0}  # seconds, of fetching and of compiling: others aren't noted

    def __init__(self, *known: Any) -> None:
        self._file = os.path.join(self.directory or "", hashlib.sha256(repr(known).encode()).hexdigest() + "-ahead")
        self._guess: tuple[str, bytes] | None = None  # the name, and the options of the compilation
        self._found: Any = None
        self._thread: threading.Thread | None = None
        self._needed: tuple[str, bytes] | None = None
        self._fetched = self._over = False
        if self.directory is not None:
            self._begin()

    def _begin(self) -> None:
        try:
            with open(self._file, "rb") as file:
                name, _, options = file.read().partition(b"\n")
        except OSError:
            return  # nothing has been noted
        self._guess = name.decode("ascii", "replace"), options
        self._thread = threading.Thread(target=self._run, name="brickwork: a program from the cache")
        self._thread.start()

    def _run(self) -> None:
        from jax._src import xla_bridge
        from jax._src.lib import xla_client

        name, options = self._guess or ("", b"")
        with suppress(Exception):  # whatever is wrong will be said when the program is needed
            backend = xla_bridge.get_backend()
            devices = xla_client.DeviceList((backend.local_devices()[0],))
            given = xla_client.CompileOptions.ParseFromString(options)
            self._found = FetchedAhead.fetch(name, given, backend, devices)
        if self._over:  # nobody will ask any more
            self._found = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """While the program is compiled: use what was fetched, and note what should be the next time."""
        started = time.perf_counter()
        _compiling.ahead = self if self.directory is not None else None
        try:
            yield
        finally:
            _compiling.ahead = None
            self._over, self._found = True, None
        long = time.perf_counter() - started > self._LONG[self._fetched]
        if self._needed is not None and self._needed != self._guess and long:
            self._note(*self._needed)

    def _note(self, name: str, options: bytes) -> None:
        written = f"{self._file}.{os.urandom(8).hex()}"
        with suppress(OSError):  # a directory that can't be written to
            with open(written, "xb") as file:
                file.write(name.encode() + b"\n" + options)
            os.replace(written, self._file)

    def take(self, name: str, options: Any, backend: Any, devices: Any, *more: Any) -> Any:
        """What the cache has under a name: from the thread, if that has it."""
        here = backend.local_devices()[0]
        alone = list(devices) == [here] and not any(more)
        if alone and self._guess is not None and self._guess[0] == name and self._thread is not None:
            self._thread.join()
            found, self._found = self._found, None
            if found is not None and found[0] is not None:
                self._needed = self._guess
                return found
        found = FetchedAhead.fetch(name, options, backend, devices, *more)
        if alone:
            self._needed, self._fetched = (name, options.SerializeAsString()), found[0] is not None
        return found


_compiling = threading.local()


def _fetch(*request: Any) -> Any:
    ahead = getattr(_compiling, "ahead", None)
    return FetchedAhead.fetch(*request) if ahead is None else ahead.take(*request)


@contextmanager
def out_of_cache() -> Iterator[None]:
    """Programs compiled meanwhile aren't written to the compilation cache."""
    from jax._src import config

    with config.persistent_cache_min_compile_time_secs(math.inf):
        yield


def lower_by(primitive: Any, platform: str, choose: Callable[..., Callable[..., Any] | None]) -> None:
    """Lower an operation by the function of its operands that ``choose(*avals, **params)`` returns, if it returns one.

    It is asked only for programs that run here on one device: not when they are exported, or divided among several.
    The abstract values are those of the operands and of the result.
    """
    from jax._src.interpreters import mlir
    from jax._src.sharding_impls import ShardingContext

    table = mlir._platform_specific_lowerings[platform]
    entry = table.get(primitive) or mlir._lowerings[primitive]

    def lower(ctx: Any, *operands: Any, **params: Any) -> Any:
        module = ctx.module_context
        axes = module.axis_context
        alone = tuple(module.platforms) == (platform,) and not module.lowering_parameters.for_export
        alone = alone and isinstance(axes, ShardingContext) and axes.num_devices == 1
        chosen = choose(*ctx.avals_in, *ctx.avals_out, **params) if alone else None
        if chosen is None:
            return entry.rule(ctx, *operands, **params)
        return mlir.lower_fun(chosen, multiple_results=False)(ctx, *operands)

    mlir.register_lowering(primitive, lower, platform, inline=entry.inline)


def has_devices() -> bool:
    """Whether JAX has started its backends, as it does at the first array."""
    from jax._src import xla_bridge

    return xla_bridge.backends_are_initialized()


def setting(name: str) -> Any:
    """One of JAX's settings; they are attributes that type checkers can't see."""
    return getattr(jax.config, name)


def trace_config() -> Any:
    """The settings of JAX that change what a trace produces (precision, 64-bit mode, promotion ...)."""
    from jax._src import config

    return config.trace_context()


# -- values behind tracers, for control flow in Python ----------------------------------------------

_CONVERSIONS = {"_bool": bool, "_int": int, "_float": float, "_complex": complex, "_index": operator.index}
_hooked: list[Callable[[Any, Any], Any]] = []


def answer_conversions(ask: Callable[[Any, Any], Any]) -> bool:
    """From now on let ``ask(tracer, convert)`` say what ``bool(tracer)`` and the like are.

    ``ask`` may return ``NotImplemented``, and JAX raises its error then. Returns whether this version of JAX has
    the hooks; without them every such question is JAX's error.
    """
    if _hooked:
        _hooked[:] = [ask]
        return True
    kind = jax.core.ShapedArray
    if not all(callable(getattr(kind, name, None)) for name in _CONVERSIONS) or not hasattr(kind, "item"):
        return False
    _hooked[:] = [ask]
    for name, convert in _CONVERSIONS.items():
        setattr(kind, name, _asking(getattr(kind, name), convert))
    method = getattr(kind, "item")  # noqa: B009 (type checkers don't see it)
    setattr(kind, "item", type(method)(_asking_item(method.fun)))  # noqa: B010
    return True


def _asking(refuse: Callable[[Any, Any], Any], convert: Any) -> Callable[[Any, Any], Any]:
    def answer(aval: Any, tracer: Any) -> Any:
        found = _hooked[0](tracer, convert)
        return refuse(aval, tracer) if found is NotImplemented else found

    return answer


def _asking_item(refuse: Callable[..., Any]) -> Callable[..., Any]:
    def item(self: Any, *args: int) -> Any:
        found = NotImplemented if args or not isinstance(self, Tracer) else _hooked[0](self, item_of)
        return refuse(self, *args) if found is NotImplemented else found

    return item


def item_of(value: Any) -> Any:
    """``value.item()``."""
    return value.item()


class Shadow:
    """What the tracers of a program being traced are worth for particular inputs.

    Nothing is computed before it is asked for, and then only what the answer depends on.

    Args:
        tracers: the inputs of the trace that is running now.
        fetch: gives what they are worth; called when that is first needed.
    """

    def __init__(self, tracers: Iterable[Any], fetch: Callable[[], Iterable[Any]]) -> None:
        self._trace = current_trace()
        self._waiting: list[tuple[list[Any], Callable[[], Iterable[Any]]]] = []
        self._values: dict[Any, Any] = {}
        self.learn(tracers, fetch)

    def learn(self, tracers: Iterable[Any], fetch: Callable[[], Iterable[Any]]) -> None:
        """Take in further inputs."""
        self._waiting.append(([tracer.val for tracer in tracers], fetch))

    def root(self, tracer: Any) -> Any:
        """The value of this trace that is differentiated in ``tracer``, or itself; ``None`` in other transforms.

        It may be a concrete array.
        """
        while hasattr(tracer, "primal"):
            tracer = tracer.primal
        return tracer if not isinstance(tracer, Tracer) or tracer._trace is self._trace else None

    def value(self, tracer: Any) -> Any:
        """The concrete value of a tracer of this trace; ``None`` if it can't be known."""
        with untraced():
            for inputs, fetch in self._waiting:
                self._values.update(zip(inputs, fetch(), strict=True))
            self._waiting = []
            return self._evaluate(tracer)

    def _evaluate(self, wanted: Any) -> Any:
        pending = [wanted]  # no recursion: a long loop makes a long chain
        while pending:
            tracer = pending.pop()
            if self._knows(tracer):
                continue
            if tracer.parent.effects:  # what Python does, or a mutable array: not to be had twice
                return None
            if missing := [t for t in tracer.parent.in_tracers if not self._knows(t)]:
                pending += [tracer, *missing]
            elif not self._run(tracer.parent):
                return None
        value = self._read(wanted)
        return None if isinstance(value, Tracer) else value

    def _knows(self, tracer: Any) -> bool:
        return tracer.parent is None or tracer.val in self._values

    def _read(self, tracer: Any) -> Any:
        if hasattr(tracer.val, "val"):  # a literal
            return tracer.val.val
        if tracer.val in self._values:
            return self._values[tracer.val]
        return self._trace.frame.constvar_to_val[tracer.val]

    def _run(self, equation: Any) -> bool:
        """Evaluate an equation; whether that could be done."""
        primitive = equation.primitive
        inputs = [self._read(t) for t in equation.in_tracers]
        if any(isinstance(x, Tracer) for x in inputs):  # of a transform around everything
            return False
        parameters = primitive.get_bind_params(equation.params)
        if isinstance(parameters, tuple):  # jax 0.10 may give functions apart
            functions, parameters = parameters
            inputs = [*functions, *inputs]
        with equation.ctx.manager:
            outputs = primitive.bind(*inputs, **parameters)
        outputs = outputs if primitive.multiple_results else [outputs]
        self._values.update(zip(equation.outvars, outputs, strict=True))
        return True


# -- a program in parts -------------------------------------------------------------------------------


class Part(NamedTuple):
    """Some equations in a row of a jaxpr.

    ``jaxpr`` is made of these alone; ``reads`` and ``gives`` are its inputs, and those of its outputs that are
    used after it, as variables of the whole. ``loops`` says whether it may run for ever.
    """

    jaxpr: Any
    reads: list[Any]
    gives: list[Any]
    loops: bool


def parts(jaxpr: Any, ends: Iterable[int]) -> list[Part]:
    """A jaxpr taken apart after the given numbers of equations."""
    needed = {v for v in jaxpr.outvars if not hasattr(v, "val")}  # by what comes after
    names = jaxpr.debug_info.with_unknown_names()
    found = []
    edges = sorted({0, *ends, len(jaxpr.eqns)})
    for start, end in reversed(list(itertools.pairwise(edges))):
        equations = jaxpr.eqns[start:end]
        made = dict.fromkeys(v for e in equations for v in e.outvars)
        reads = list(dict.fromkeys(v for e in equations for v in e.invars if not hasattr(v, "val") and v not in made))
        gives = [v for v in made if v in needed]
        needed.difference_update(gives)
        needed.update(reads)
        part = jaxpr.replace(eqns=equations, constvars=[], invars=reads, outvars=gives, debug_info=names)
        found.append(Part(part, reads, gives, has_loops(part)))
    return found[::-1]


def known_after(jaxpr: Any, atoms: Iterable[Any]) -> list[int]:
    """After how many equations each of some variables of a jaxpr has its value."""
    made = {v: i for i, e in enumerate(jaxpr.eqns, 1) for v in e.outvars}
    return [0 if hasattr(v, "val") else made.get(v, 0) for v in atoms]


def has_loops(jaxpr: Any) -> bool:
    """Whether a jaxpr has a loop whose number of turns is not fixed."""
    return any(e.primitive.name == "while" or any(map(has_loops, _inner(e))) for e in jaxpr.eqns)


@contextmanager
def without_locations() -> Iterator[None]:
    """Programs lowered inside don't say which lines of which files they come from."""
    name = "jax_traceback_in_locations_limit"
    before = setting(name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def custom_calls(program: bytes) -> set[str]:
    """The targets of custom calls in a portable StableHLO program: code that isn't part of the program.

    Raises:
        ValueError: it is no such program.
    """
    from jax.extend.mlir import ir
    from jax.extend.mlir.dialects import stablehlo
    from jax.interpreters import mlir

    found: set[str] = set()
    said: list[str] = []

    def hear(diagnostic: Any) -> bool:  # else MLIR prints it
        try:
            said.append(diagnostic.message)
        except RuntimeError:  # it quotes bytes that are no text
            said.append("it is malformed")
        return True

    def visit(op: Any) -> Any:
        if op.name == "stablehlo.custom_call":
            found.add(ir.StringAttr(op.attributes["call_target_name"]).value)
        return ir.WalkResult.ADVANCE

    try:
        with mlir.make_ir_context() as context:
            context.attach_diagnostic_handler(hear)
            stablehlo.deserialize_portable_artifact(context, program).operation.walk(visit)
    except (ir.MLIRError, ValueError) as error:
        raise ValueError(f"it is not a portable StableHLO program: {'; '.join(said) or error}") from error
    return found
