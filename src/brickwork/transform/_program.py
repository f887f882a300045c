"""One traced and compiled variant of a function, and what it assumes about the world."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp

from .._onednn import choosing, lowering, usable
from ..core import Frame, ModuleBase, Structure, Variable
from ..core._containers import made_in_trace
from ..core._frame import UPDATE_LOCK, all_or_nothing
from ..core._jax import (
    FetchedAhead,
    calls_python,
    evaluate_jaxpr,
    late_input,
    trace_config,
    used_inputs,
    with_late_inputs,
)
from ..core._parameter import Slot
from ..errors import TraceLeakError
from ._guards import Guards
from ._held import refuse_held
from ._lift import name_of
from ._options import Options
from ._signature import Signature, is_whole
from ._speculate import MOST_DECISIONS, Decision, Oracle, Path, TooLong, listen

_ROUNDS = 20


class CompileFrame(Frame):
    """The frame at the root of a program: values read here become its inputs."""

    doing = "compilation"

    def __init__(self, hint: str = "") -> None:
        super().__init__()
        self.hint = hint
        self.oracle: Oracle | None = None
        self.unknown: dict[int, Variable] = {}  # what is read besides what is bound; becomes an input on the way
        self.late: list[Any] = []  # for each array in these, in order, what stands for it in the jaxpr
        self.again: list[str] = []  # what of it was made in the trace itself, so that a second one is to find it there
        self.touched: set[int] = set()
        self.noted: dict[int, ModuleBase] = {}
        self.assumed: list[tuple[Variable, Callable[[Any], Any], Any]] = []

    def read(self, variable: Any) -> Any:
        self.touched.add(id(variable))
        return super().read(variable)

    def resolve(self, variable: Any) -> Any:
        made = made_in_trace(variable)
        value = variable.concrete()
        if variable._trace is not None:
            return value
        self.unknown[id(variable)] = variable
        if made:
            self.again.append(_described(variable))
        leaves, tree = jax.tree_util.tree_flatten(value)
        tracers = [late_input(self.trace, x) for x in leaves]
        self.late += [tracer.val for tracer in tracers]
        if self.oracle is not None:
            self.oracle.learn(tracers, lambda: _worth([variable]))
        value = jax.tree_util.tree_unflatten(tree, tracers)
        self.bind(variable, value)
        return value

    def note(self, module: Any) -> None:
        self.noted[id(module)] = module

    def assume(self, variable: Any, look: Callable[[Any], Any], found: Any) -> None:
        if variable._trace is None:
            self.assumed.append((variable, look, found))


def _described(variable: Variable) -> str:
    """What a variable is called, and what holds it: ``Parameter 'extra.weight' of Sequential``."""
    top: Any = variable
    seen: set[int] = set()
    while id(top) not in seen:  # a cycle has no outermost one
        seen.add(id(top))
        holders = (reference() for reference in top._bw_holders)
        top = next((h for h in holders if h is not None and h.name_of(top) is not None), top)
    name = name_of(variable)
    return name if top is variable or not variable.name else f"{name} of {type(top).__name__}"


def _worth(variables: list[Variable]) -> list[Any]:
    """The arrays in variables now, which another thread may be about to overwrite."""
    with UPDATE_LOCK:
        for variable in variables:
            variable.lend()
        return jax.tree_util.tree_leaves([v.concrete() for v in variables])


class Stale(Exception):
    """JAX asked for a retrace: the inputs or its settings aren't those the program was traced with."""


def aval_of(variable: Variable) -> Any:
    """What a program depends on in the value of a variable."""
    if isinstance(variable, Slot):
        leaves, tree = jax.tree_util.tree_flatten(variable.concrete())
        return (tree, tuple((x.shape, x.dtype) for x in leaves))
    if not variable.is_drawn and not variable.is_drawable:
        return ("deferred", variable.shape)
    value = variable.concrete()
    return (value.shape, value.dtype)


class _Traced:
    """What comes out of tracing a function once every variable it reads is known."""

    def __init__(
        self,
        fn: Callable[..., Any],
        signature: Signature,
        known: dict[int, Variable],
        given: Sequence[Decision] | None,
    ) -> None:
        self.given = given
        self.decisions: list[Decision] = []
        self.too_long = False
        with all_or_nothing():
            self._trace(fn, signature, known)

    def _trace(self, fn: Callable[..., Any], signature: Signature, known: dict[int, Variable]) -> None:
        for _ in range(_ROUNDS):
            self.inputs = list(known.values())
            self.frame = CompileFrame(_why_not(self.given))
            values = [v.concrete() for v in self.inputs]
            try:
                self.jaxpr, shapes = jax.make_jaxpr(lambda v, a: self._pure(fn, signature, v, a), return_shape=True)(
                    values, signature.arrays
                )
            except TooLong:
                shapes = self._abandon(values, signature.arrays)
            else:
                if self.frame.again:
                    known.update(self.frame.unknown)
                    continue
                position = len(jax.tree_util.tree_leaves(values))
                self.jaxpr = with_late_inputs(self.jaxpr, self.frame.late, position)
                late = list(self.frame.unknown.values())
                self.inputs += late
                values += [v.concrete() for v in late]
            break
        else:
            made, name = self.frame.again, getattr(fn, "__name__", type(fn).__name__)
            more = f" and {len(made) - 1} more" if len(made) > 1 else ""
            raise TraceLeakError(
                f"every trace of {name!r} reads new variables: {made[0]}{more}, made inside the function, which would "
                f"start from new values at each call. Create what holds them before {name!r}, or in __init__ of a "
                "module, and use it inside."
            )
        self.write_tree = jax.tree_util.tree_structure(shapes[1])
        self.write_shapes = shapes[1]
        self.moved = self._moved(values, len(jax.tree_util.tree_leaves(shapes[0])))
        self.written = [v for v, moved in zip(self.written, self.moved, strict=True) if moved]
        self.write_shapes = [s for s, moved in zip(shapes[1], self.moved, strict=True) if moved]

    def _moved(self, values: list[Any], n_results: int) -> list[bool]:
        """For each written variable, whether its value is another one than before; else it is no output."""
        leaves = iter(self.jaxpr.jaxpr.invars)
        before = {id(v): [next(leaves) for _ in jax.tree_util.tree_leaves(x)] for v, x in zip(self.inputs, values)}
        outputs = iter(self.jaxpr.jaxpr.outvars[n_results:])
        flags = []
        for variable, count in zip(self.written, self.write_counts, strict=True):
            after = [next(outputs) for _ in range(count)]
            old = before.get(id(variable), [])
            flags.append(len(old) != count or any(a is not b for a, b in zip(after, old, strict=True)))
        return flags

    def _pure(self, fn: Any, signature: Signature, values: list[Any], arrays: list[Any]) -> Any:
        args, kwargs = signature.rebuild(arrays)
        with self.frame as frame:
            if self.given is not None:
                tracers = jax.tree_util.tree_leaves((values, arrays))
                frame.oracle = Oracle(self.given, tracers, lambda: self._worth(signature))
            for variable, value in zip(self.inputs, values, strict=True):
                frame.bind(variable, value)
            out = fn(*args, **kwargs)
            results = self._split(out, getattr(fn, "__name__", type(fn).__name__))
            seen = self._decided(frame)
            written, new = frame.writes()
            kept = [i for i, v in enumerate(written) if v._trace is None]
            self.cleared = [written[i] for i in kept if new[i] is None]
            self.written = [written[i] for i in kept if new[i] is not None]
            frame.values.clear()  # the tracers end here
            writes = [new[i] for i in kept if new[i] is not None]
            self.write_counts = [len(jax.tree_util.tree_leaves(w)) for w in writes]
            return results, writes, seen

    def _worth(self, signature: Signature) -> list[Any]:
        """What the inputs of the trace are worth now."""
        return [*_worth(self.inputs), *(x if isinstance(x, jax.Array) else jnp.asarray(x) for x in signature.arrays)]

    def _decided(self, frame: CompileFrame) -> list[Any]:
        """The values that the path depends on."""
        oracle, frame.oracle = frame.oracle, None
        if oracle is None:
            return []
        self.decisions = oracle.decisions
        if oracle.ended:
            raise TooLong
        return oracle.asked

    def _abandon(self, values: list[Any], arrays: list[Any]) -> Any:
        """Be the trace of a function that does nothing; what it depended on is kept."""
        if self.frame.oracle is not None:
            self.decisions = self.frame.oracle.decisions
        self.too_long = True
        self.written, self.cleared, self.write_counts, self.out_static = [], [], [], []
        self.out_tree = jax.tree_util.tree_structure([])
        self.jaxpr, shapes = jax.make_jaxpr(lambda v, a: ([], [], []), return_shape=True)(values, arrays)
        return shapes

    def _split(self, out: Any, name: str) -> list[Any]:
        """The arrays in a result; everything else in it is kept aside and returned as it is."""
        leaves, self.out_tree = jax.tree_util.tree_flatten(out, is_leaf=is_whole)
        self.out_static: list[Any] = []
        arrays = []
        for leaf in leaves:
            if isinstance(leaf, ModuleBase):
                raise TypeError(
                    f"a compiled function returned a {type(leaf).__name__}; modules are changed in place, "
                    "so there is no need to return them"
                )
            if isinstance(leaf, Variable):
                leaf = leaf.value
            if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
                arrays.append(jnp.asarray(leaf))
                self.out_static.append(ARRAY)
            else:
                refuse_held(f"compile: {name}", leaf)
                self.out_static.append(leaf)
        return arrays


ARRAY = object()
"""Marks the place of an array in the result of a function."""


def alive(roots: Iterable[weakref.ref[ModuleBase]]) -> list[ModuleBase] | None:
    """The modules that a program depends on, or ``None`` when one is gone."""
    found = []
    for root in roots:
        module = root()
        if module is None:
            return None
        found.append(module)
    return found


class Program:
    """A compiled variant of a function with its assumptions.

    Inputs and outputs are variables: either particular ones, or the i-th variable of the modules that
    were passed as arguments, so that equal modules share a program.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        signature: Signature,
        guards: Guards,
        boxes: Structure,
        options: Options,
        given: Sequence[Decision] | None = None,
    ) -> None:
        started = time.perf_counter()
        self.footprint = signature.footprint()
        self.arguments = boxes.encoding  # what modules were passed, apart from their values
        self.config = trace_config()
        self.cause: Any = None  # why it was made
        self.ahead: FetchedAhead | None = None
        self.guards = guards
        self.name = getattr(fn, "__name__", type(fn).__name__)
        self.onednn = options.onednn and usable()
        with choosing(self.onednn):
            traced = _Traced(fn, signature, _initial_inputs(guards, boxes), given)
        self.path = Path(traced.decisions)
        self.obstacle = ""  # why it has to run without being compiled, if so
        self.donate = options.donate
        self._latch = [False]
        self._arrange(traced, boxes)
        self._assume(traced, guards, boxes)
        guards.release()
        self.trace_seconds = time.perf_counter() - started
        self.compile_seconds = 0.0
        self.executable: Any = None

    def _arrange(self, traced: _Traced, boxes: Structure) -> None:
        """Decide which variables are inputs, which of those may be overwritten, and in what order."""
        number = {id(v): i for i, v in enumerate(boxes.variables)}
        used = iter(used_inputs(traced.jaxpr))
        # A callback may raise when it is too late to keep what was overwritten.
        self.cautious = calls_python(traced.jaxpr)
        if traced.too_long:
            self.obstacle = f"more than {MOST_DECISIONS} decisions were taken in one call"
        elif self.path and (self.cautious or traced.jaxpr.effects):  # a run that is dropped must have no effect
            self.obstacle = "a callback to Python, or what is written to a jax.Ref, can't be taken back"
        donate = self.donate and not self.cautious and not self.path
        write_shapes = {id(v): s for v, s in zip(traced.written, traced.write_shapes, strict=True)}
        placement: list[tuple[str, int]] = []  # of every traced input, in order
        read_only: list[Variable] = []
        overwritten: list[Variable] = []
        for variable in traced.inputs:
            flags = [next(used) for _ in jax.tree_util.tree_leaves(variable.concrete())]
            new = write_shapes.get(id(variable))
            if flags and not any(flags):
                placement.append(("unused", 0))
            elif donate and new is not None and _same_avals(variable, new):
                placement.append(("overwritten", len(overwritten)))
                overwritten.append(variable)
            else:
                placement.append(("read_only", len(read_only)))
                read_only.append(variable)

        def source(variable: Variable) -> Variable | int:
            return number.get(id(variable), variable)

        self.read_only = [source(v) for v in read_only]
        self.overwritten = [source(v) for v in overwritten]
        self.written = [source(v) for v in traced.written]
        self.cleared = [source(v) for v in traced.cleared]
        touched = [v for v in traced.inputs if id(v) in traced.frame.touched]
        self.touched = [source(v) for v in touched]
        self.avals = [aval_of(v) for v in touched]
        self.assumed = [(source(v), look, found) for v, look, found in traced.frame.assumed]
        # What a call does to the presence, shapes and dtypes of variables concerns other programs too.
        before = {id(v): aval_of(v) for v in (*traced.written, *traced.cleared)}
        after = [_aval_after(v, s) for v, s in zip(traced.written, traced.write_shapes, strict=True)]
        self.reshapes = after != [before[id(v)] for v in traced.written] or any(
            v.concrete() is not None for v in traced.cleared
        )
        self.jitted = self._jit(traced, placement)

    def _jit(self, traced: _Traced, placement: list[tuple[str, int]]) -> Any:
        jaxpr, consts = traced.jaxpr.jaxpr, traced.jaxpr.consts
        counts = [len(jax.tree_util.tree_leaves(v.concrete())) for v in traced.inputs]
        write_tree, out_tree, moved = traced.write_tree, traced.out_tree, traced.moved
        n_results = sum(s is ARRAY for s in traced.out_static)
        n_writes = n_results + sum(traced.write_counts)
        plain = n_results == len(traced.out_static)
        path = self.path
        latch = self._latch  # and not self, which holds the function in turn: without a cycle it is freed at once
        self.out_tree = None if plain else out_tree
        self.out_static = traced.out_static

        def program(read_only: list[Any], overwritten: list[Any], arrays: list[Any]) -> Any:
            if latch[0]:
                raise Stale
            groups = {"read_only": read_only, "overwritten": overwritten}
            flat: list[Any] = []
            for (group, i), count in zip(placement, counts, strict=True):
                flat += [None] * count if group == "unused" else jax.tree_util.tree_leaves(groups[group][i])
            run = path.run if path else evaluate_jaxpr
            outputs = run(jaxpr, consts, [*flat, *arrays])
            results, writes, seen = outputs[:n_results], outputs[n_results:n_writes], outputs[n_writes:]
            out = jax.tree_util.tree_unflatten(out_tree, results) if plain else results
            new = [value for value, m in zip(jax.tree_util.tree_unflatten(write_tree, writes), moved, strict=True) if m]
            return (out, new, seen) if path else (out, new)

        program.__name__ = program.__qualname__ = self.name
        return jax.jit(program, donate_argnums=(1,))

    def _assume(self, traced: _Traced, guards: Guards, boxes: Structure) -> None:
        """Record the modules that the trace depended on and what they look like now."""
        in_boxes = {id(m) for m in boxes.modules}
        noted = {id(m): m for m in (*guards.roots, *traced.frame.noted.values())}
        roots = [m for i, m in noted.items() if i not in in_boxes]
        covered: set[int] = set()
        tops = []
        for root in roots:  # a root inside an earlier one adds nothing
            if id(root) not in covered:
                tops.append(root)
                covered |= {id(m) for m in Structure([root]).modules}
        self.roots = [weakref.ref(m) for m in tops]
        structure = Structure(tops)
        self.encoding = structure.encoding
        self.identities = identities(structure)
        self.overlap = _overlap(structure, boxes)
        self.modules = [weakref.ref(m) for m in structure.modules]
        self.versions = [m._bw.version for m in structure.modules]
        self.flags = [(v, v._trainable) for v in structure.variables]
        for module in (*structure.modules, *boxes.modules):
            module._bw.watched = True

    @property
    def eager(self) -> bool:
        """Whether there is nothing to run, and the function is called as it is."""
        return bool(self.obstacle)

    @property
    def frozen(self) -> bool:
        """Whether being traced by JAX once more raises :class:`Stale`."""
        return self._latch[0]

    @frozen.setter
    def frozen(self, flag: bool) -> None:
        self._latch[0] = flag

    def fits(self, boxes: Structure) -> bool:
        """Whether the assumptions hold now, for these arguments."""
        roots = alive(self.roots)
        if roots is None or self.guards.changed() is not None:
            return False
        if boxes.variables or not self._untouched():
            for root in roots:
                root.settle()
            structure = Structure(roots)
            same = structure.encoding == self.encoding and identities(structure) == self.identities
            if not same or _overlap(structure, boxes) != self.overlap:
                return False
        for source, look, found in self.assumed:
            if look(boxes.variables[source] if isinstance(source, int) else source) != found:
                return False
        return [aval_of(v) for v in self.inputs(boxes)] == self.avals

    def _untouched(self) -> bool:
        """Whether no module that the program depends on has changed at all since it was traced."""
        now = (module() for module in self.modules)
        same = all(m is not None and m._bw.version == v for m, v in zip(now, self.versions, strict=True))
        return same and all(v._trainable == flag for v, flag in self.flags)

    def inputs(self, boxes: Structure) -> list[Variable]:
        """The variables that tracing looked at, for particular arguments."""
        return [boxes.variables[s] if isinstance(s, int) else s for s in self.touched]

    def compile(self, read_only: list[Any], overwritten: list[Any], arrays: list[Any]) -> None:
        """Lower and compile for these values; calls of ``jitted`` find the result in JAX's cache."""
        started = time.perf_counter()
        with lowering(self.onednn):
            lowered = self.jitted.lower(read_only, overwritten, arrays)
            middle = time.perf_counter()
            with self.ahead() if self.ahead is not None else nullcontext():
                self.executable = lowered.compile()
        self.trace_seconds += middle - started
        self.compile_seconds = time.perf_counter() - middle
        self.frozen = True


def rehearse(fn: Callable[..., Any], signature: Signature, guards: Guards, boxes: Structure) -> None:
    """Infer the shapes that a function needs along the path that its arguments take; nothing else comes of it."""
    _Traced(fn, signature, _initial_inputs(guards, boxes), ())


def _why_not(given: Sequence[Decision] | None) -> str:
    """Why control flow could not be followed where it usually is."""
    if given is None:
        return ' With control_flow="speculate", the default, bw.compile follows it where it can.'
    if not listen():
        return " This version of JAX has no hook to follow it."
    return (
        " Compiled functions follow control flow on values in their own body and in what they differentiate, but not "
        "inside vmap, scan, loops, cond, remat or jax.jit, where a value stands for several or may never be computed; "
        "nor on what a callback returned."
    )


def _initial_inputs(guards: Guards, boxes: Structure) -> dict[int, Variable]:
    """The variables that the function can be seen to reach, as a first guess at what it reads."""
    found = Structure([*guards.roots, *guards.variables]).variables
    candidates = (v for v in (*boxes.variables, *found) if v._trace is None)
    return {id(v): v for v in candidates if v.is_drawn or v.is_drawable}


def identities(structure: Structure) -> tuple[int, ...]:
    return tuple(id(x) for x in (*structure.modules, *structure.variables))


def _overlap(structure: Structure, boxes: Structure) -> tuple[tuple[int, int], ...]:
    """Which variables of the arguments are reached from outside too: (number there, identity)."""
    if not boxes.variables:
        return ()
    outside = {id(v) for v in structure.variables}
    return tuple((i, id(v)) for i, v in enumerate(boxes.variables) if id(v) in outside)


def _aval_after(variable: Variable, shapes: Any) -> Any:
    """The counterpart of :func:`aval_of` for a value that a program writes."""
    if isinstance(variable, Slot):
        leaves, tree = jax.tree_util.tree_flatten(shapes)
        return (tree, tuple((x.shape, x.dtype) for x in leaves))
    return (shapes.shape, shapes.dtype)


def _same_avals(variable: Variable, shapes: Any) -> bool:
    leaves, tree = jax.tree_util.tree_flatten(variable.concrete())
    new, new_tree = jax.tree_util.tree_flatten(shapes)
    return tree == new_tree and all(a.shape == b.shape and a.dtype == b.dtype for a, b in zip(leaves, new, strict=True))
