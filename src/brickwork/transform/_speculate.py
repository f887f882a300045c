"""Python control flow on traced values: assumed while tracing, checked after running.

``if x.sum() > 0`` in a compiled function asks a tracer for its truth. The answer comes from the arguments at hand:
what it depends on is computed on the side, and the trace goes on along that path. The program then returns, with its
results, every value that was asked for. After a run the answers are compared: where one differs, the results are
dropped, before anything has been written, and the program for the other path is looked up or made.

A program may therefore meet arguments that it was not made for. What it computes from them does no harm, but must
end: loops whose number of turns is not fixed run only where all answers so far are as assumed.
"""

from __future__ import annotations

import functools
import operator
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..core._control import place_of_caller
from ..core._frame import current_frame
from ..core._jax import Shadow, Tracer, answer_conversions, evaluate_jaxpr, known_after, parts

MOST_PATHS = 16
"""Programs kept for the paths through one function before it runs without being compiled."""

MOST_DECISIONS = 1000
"""Decisions along one path; XLA takes a good while for as many steps."""

_MANY = 16  # above, XLA gets a path in parts, and can't fuse across them, for which it would take quadratic time
_AT_ONCE = 8  # decisions in each


@dataclass(frozen=True)
class Refusal:
    """An answer that is an exception: ``int(nan)`` raises, and the program may go on from there."""

    kind: type[Exception]
    arguments: tuple[Any, ...]

    def __repr__(self) -> str:
        return f"{self.kind.__name__}({', '.join(map(repr, self.arguments))})"


@dataclass(frozen=True)
class Decision:
    """A question that control flow asked of a value, and the answer that a program assumes."""

    convert: Callable[[Any], Any]
    value: np.ndarray
    answer: Any
    file: str
    line: int

    @classmethod
    def on(cls, convert: Callable[[Any], Any], value: Any, file: str, line: int) -> Decision:
        """The decision that eager Python would take."""
        value = np.asarray(value).reshape(())
        try:
            answer = convert(value)
        except (ValueError, OverflowError, TypeError) as error:
            answer = Refusal(type(error), error.args)
        return cls(convert, value, answer, file, line)

    @property
    def place(self) -> str:
        """File and line."""
        return f"{self.file}:{self.line}"

    def asks(self, convert: Callable[[Any], Any], file: str, line: int) -> bool:
        """Whether it is about this question."""
        return self.convert is convert and self.line == line and self.file == file

    def agrees(self, other: Decision) -> bool:
        """Whether another one is the same and leads along the same path."""
        # By what they look like: nan is nan here, and -0.0 is not 0.0.
        same = type(self.answer) is type(other.answer) and repr(self.answer) == repr(other.answer)
        return same and other.asks(self.convert, self.file, self.line)

    def settle(self) -> Any:
        """Return the answer, or raise it."""
        if isinstance(self.answer, Refusal):
            raise self.answer.kind(*self.answer.arguments)
        return self.answer

    def holds(self, value: Any) -> Any:
        """Whether another value gets the same answer, as far as a program can tell: tiny numbers may be zero to it."""
        value, known = jnp.reshape(value, ()), jnp.asarray(self.value)
        if isinstance(self.answer, Refusal):
            return jnp.asarray(True)
        if self.convert is bool:
            return value.astype(bool) == self.answer
        if self.convert is int and jnp.issubdtype(known.dtype, jnp.floating):
            return jnp.trunc(value) == jnp.trunc(known)
        return (value == known) | ((value != value) & (known != known))


class Mispredicted(Exception):
    """A program ran along a path that its arguments don't take.

    ``assumed`` is its path; ``decisions`` are right, up to and including the one where the paths part.
    """

    def __init__(self, assumed: Path, decisions: list[Decision]) -> None:
        super().__init__(decisions[-1].place)
        self.assumed, self.decisions = assumed, decisions


class Uncompiled(Exception):
    """The function has to run as it is."""


class TooLong(BaseException):
    """A trace came to more decisions than one path may have; the function's own handlers let it through."""


class ControlFlowWarning(UserWarning):
    """A compiled function runs without being compiled, because of its control flow."""


class Path:
    """The decisions that a program assumes, and how it returns the values that they are about.

    Those of one dtype are returned as one array, because each array costs the host some time.
    """

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self.decisions = tuple(decisions)
        groups: dict[Any, list[int]] = {}
        for i, decision in enumerate(decisions):
            groups.setdefault(decision.value.dtype, []).append(i)
        self._groups = list(groups.values())
        self._expected = [np.stack([decisions[i].value for i in group]).tobytes() for group in self._groups]
        self._guarded = False

    def __len__(self) -> int:
        return len(self.decisions)

    @property
    def busiest(self) -> str:
        """File and line of most of the decisions."""
        return Counter(d.place for d in self.decisions).most_common(1)[0][0]

    def begins_with(self, decisions: Sequence[Decision]) -> bool:
        """Whether the path takes these decisions first."""
        return len(self) >= len(decisions) and all(map(Decision.agrees, self.decisions, decisions))

    def run(self, jaxpr: Any, consts: Any, args: Any) -> list[Any]:
        """Run a jaxpr whose last outputs are the values asked for; these are packed."""
        before = len(jaxpr.outvars) - len(self)
        outputs, intact = _run_checked(jaxpr, consts, args, self.decisions)
        values = [jnp.reshape(x, ()) for x in outputs[before:]]
        packed = [jnp.stack([values[i] for i in group]) for group in self._groups]
        self._guarded = intact is not None
        return [*outputs[:before], *packed, *([intact] if self._guarded else [])]

    def verify(self, seen: list[Any]) -> None:
        """Compare what a run has found with what its program assumed.

        Raises:
            Mispredicted: they differ.
            Uncompiled: they don't, but the program took it that they do, and left something out.
        """
        found = [np.asarray(seen[0])] if len(seen) == 1 else jax.device_get(seen)
        intact = found.pop() if self._guarded else True
        if intact and all(map(operator.eq, map(np.ndarray.tobytes, found), self._expected)):
            return
        values = {i: x for group, xs in zip(self._groups, found, strict=True) for i, x in zip(group, xs, strict=True)}
        for i, assumed in enumerate(self.decisions):
            decision = Decision.on(assumed.convert, values[i], assumed.file, assumed.line)
            if not decision.agrees(assumed):
                raise Mispredicted(self, [*self.decisions[:i], decision])
        if not intact:
            raise Uncompiled


def _run_checked(jaxpr: Any, consts: Any, args: Any, decisions: Sequence[Decision]) -> tuple[list[Any], Any]:
    """Run a jaxpr whose last outputs are the values that decisions are about.

    Returns its outputs, and ``None`` or, where something was made to depend on earlier decisions, whether they hold.
    """
    asked = jaxpr.outvars[len(jaxpr.outvars) - len(decisions) :]
    ends = known_after(jaxpr, asked)
    many = len(ends) > _MANY
    pieces = parts(jaxpr, sorted(ends)[:: _AT_ONCE if many else 1])
    if not many and not any(piece.loops for piece in pieces):
        return evaluate_jaxpr(jaxpr, consts, args), None
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else values[atom]

    open_questions = deque(sorted(range(len(ends)), key=ends.__getitem__))
    done, intact, guarded = 0, jnp.asarray(True), False
    for piece in pieces:
        while open_questions and ends[open_questions[0]] <= done:
            i = open_questions.popleft()
            intact &= decisions[i].holds(read(asked[i]))
        run = functools.partial(evaluate_jaxpr, piece.jaxpr, ())
        inputs = [values[v] for v in piece.reads]
        if len(open_questions) < len(ends) and (many or piece.loops):
            outputs, guarded = lax.cond(intact, run, functools.partial(_blank, piece.jaxpr), inputs), True
        else:
            outputs = run(inputs)
        values.update(zip(piece.gives, outputs, strict=True))
        done += len(piece.jaxpr.eqns)
    return [read(v) for v in jaxpr.outvars], intact if guarded else None


def _blank(jaxpr: Any, _: Any) -> list[Any]:
    """Something of the kind that a jaxpr gives."""
    return [lax.full(v.aval.shape, 0, v.aval.dtype) for v in jaxpr.outvars]


class Oracle:
    """Answers the questions of one trace, and keeps them.

    Args:
        given: what is known of the first decisions; later ones follow from what the values are.
        tracers: the inputs of the trace.
        fetch: gives what these are worth at this call.
    """

    def __init__(self, given: Sequence[Decision], tracers: Iterable[Any], fetch: Callable[[], Iterable[Any]]) -> None:
        self._given = given
        self._shadow = Shadow(tracers, fetch)
        self.decisions: list[Decision] = []
        self.asked: list[Any] = []  # the values that they are about, in the trace
        self.ended = False  # whether there were too many

    def learn(self, tracers: Iterable[Any], fetch: Callable[[], Iterable[Any]]) -> None:
        """Take in further inputs of the trace."""
        self._shadow.learn(tracers, fetch)

    def ask(self, tracer: Any, convert: Callable[[Any], Any], rehearsal: bool) -> Any:
        """What a tracer is worth, or ``NotImplemented``; of a rehearsal nothing is kept."""
        root = self._shadow.root(tracer)
        if root is None or (root is not tracer and convert in (float, complex)):
            return NotImplemented  # eagerly JAX refuses the latter too: the gradient would be lost
        place = place_of_caller()
        decision = None if rehearsal else self._foretold(root, convert, place)
        if decision is None:
            value = self._shadow.value(root) if isinstance(root, Tracer) else root
            if value is None:
                return NotImplemented
            decision = Decision.on(convert, np.asarray(value, root.dtype), *place)
        if isinstance(root, Tracer) and not rehearsal:
            self._keep(decision, root)
        return decision.settle()

    def _foretold(self, root: Any, convert: Callable[[Any], Any], place: tuple[str, int]) -> Decision | None:
        number = len(self.decisions)
        if number < len(self._given):
            decision = self._given[number]
            if decision.asks(convert, *place) and decision.value.dtype == root.dtype:
                return decision
            self._given = ()  # the function doesn't ask the same questions each time
        return None

    def _keep(self, decision: Decision, root: Any) -> None:
        if len(self.decisions) == MOST_DECISIONS:
            self.ended = True
            raise TooLong
        self.decisions.append(decision)
        self.asked.append(root)


def _ask(tracer: Any, convert: Callable[[Any], Any]) -> Any:
    """The answer of the oracle of this thread's trace, if it has one and the value belongs to it."""
    frame, rehearsal = current_frame(), False
    while frame is not None:
        oracle = getattr(frame, "oracle", None)
        if oracle is not None:
            return oracle.ask(tracer, convert, rehearsal)
        rehearsal = rehearsal or frame.rehearsal
        frame = frame.parent
    return NotImplemented


def listen() -> bool:
    """Have JAX ask here what a tracer is worth; ``False`` if this version of it can't."""
    return answer_conversions(_ask)
