"""Frames: what variables are worth while JAX traces.

Every trace level that brickwork opens (one for ``compile``, one inside it for ``value_and_grad``,
and so on) has a :class:`Frame`. Inside it a variable's value is looked up in the frame first, then
in the frame around it, and at the bottom in the variable's own box. Writing stores the new value in
the innermost frame only. So the boxes never hold a tracer, leaving a frame forgets everything, and
whoever opened the frame decides what becomes of the writes.

The stack of frames belongs to the thread, so threads may trace at the same time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import jax.numpy as jnp
from jax.sharding import get_abstract_mesh

from ..errors import StructureError, TraceLeakError
from ._control import UNDECIDED, explain_concretization
from ._jax import base_state, current_trace, named_axes, trace_state, untraced, varying_axes, whole_mesh

if TYPE_CHECKING:
    from typing import Self


class Box(Protocol):
    """What a frame needs to know of a variable."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> Any: ...
    @property
    def known_shape(self) -> tuple[int, ...]: ...
    @property
    def is_drawn(self) -> bool: ...
    @property
    def is_drawable(self) -> bool: ...
    def concrete(self) -> Any: ...
    def lend(self) -> None: ...


class Context:
    """What a thread is doing: its innermost frame and the modules being called."""

    __slots__ = ("calls", "frame", "owned", "undo")

    def __init__(self) -> None:
        self.frame: Frame | None = None
        self.calls: list[Any] = []
        self.undo: list[Callable[[], None]] | None = None  # how to take back what was inferred and set just now
        self.owned = False  # whether the list above is somebody else's than the outermost call's

    def unwind(self) -> None:
        """Take back the shapes inferred, and the attributes set, since the list was begun."""
        for undo in reversed(self.undo or ()):
            undo()
        self.undo = None


class _ThreadLocal(threading.local):
    def __init__(self) -> None:
        self.context = Context()


local = _ThreadLocal()

UPDATE_LOCK = threading.RLock()
"""Held while a value is read, replaced and perhaps destroyed in one go, so that threads can't mix."""


class Frame:
    """The values of variables at one trace level.

    Use as a context manager, inside the function that JAX traces. ``values`` maps the identity of a
    variable to the pair of it and its value; ``written`` holds the variables whose value changed.
    """

    axes: tuple[Any, ...] = ()  # names of the axes that are mapped here
    bound: tuple[Any, ...] = ()  # names of the axes of JAX's that stand for these
    alone: frozenset[Any] = frozenset()  # the axes of a mesh along which perhaps not every device comes here
    mapped: frozenset[int] = frozenset()  # identities of the variables that have a value for each lane
    lends = True  # whether what is computed here may hand out arrays that it has read
    rehearsal = False  # whether all that happens here is forgotten
    doing = ""  # what goes on here, for messages
    hint = ""  # what to add to a message about control flow on values

    def __init__(self) -> None:
        self.values: dict[int, tuple[Box, Any]] = {}
        self.written: dict[int, Box] = {}
        self.parent: Frame | None = None
        self.stamp: object = None
        self.trace: Any = None

    def __enter__(self) -> Self:
        self.stamp, self.trace = trace_state(), current_trace()
        self.parent = local.context.frame
        local.context.frame = self
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        local.context.frame = self.parent
        if isinstance(error, UNDECIDED):
            around: list[Frame] = [self]
            while around[-1].parent is not None:
                around.append(around[-1].parent)
            doing = next((frame.doing for frame in around if frame.doing), "tracing")
            raise explain_concretization(error, doing, around[-1].hint) from error

    def bind(self, variable: Box, value: Any) -> None:
        """Give a variable a value for the length of this frame; not a write."""
        self.values[id(variable)] = (variable, value)

    def axes_of(self, variable: Box, value: Any) -> tuple[Any, ...]:
        """The names of the axes mapped here over which a variable is the same in all lanes, and a value is not."""
        return self.axes

    def read(self, variable: Box) -> Any:
        """The value of a variable here."""
        found = self.values.get(id(variable))
        return self.resolve(variable) if found is None else found[1]

    def known(self, variable: Box) -> Any:
        """The value that a variable has in this frame or one around it; ``None`` when none of them has one."""
        frame: Frame | None = self
        while frame is not None:
            found = frame.values.get(id(variable))
            if found is not None:
                return found[1]
            frame = frame.parent
        return None

    def resolve(self, variable: Box) -> Any:
        """The value of a variable that this frame holds nothing about."""
        if self.parent is not None:
            return self.parent.read(variable)
        value = variable.concrete()
        if self.lends:
            variable.lend()
        return value

    def write(self, variable: Box, value: Any) -> None:
        """Change a variable for the rest of this frame."""
        self.values[id(variable)] = (variable, value)
        self.written[id(variable)] = variable

    def writes(self) -> tuple[list[Any], list[Any]]:
        """The variables written in this frame, in the order of their first write, and their values."""
        variables = list(self.written.values())
        return variables, [self.values[id(v)][1] for v in variables]

    def note(self, module: object) -> None:
        """Record that what is traced depends on the structure of a module."""
        if self.parent is not None:
            self.parent.note(module)

    def assume(self, variable: Box, look: Callable[[Any], Any], found: Any) -> None:
        """Record that what is traced depends on something else about a variable, for which ``look(variable)`` asks."""
        if self.parent is not None:
            self.parent.assume(variable, look, found)


class AbstractFrame(Frame):
    """A frame for abstract evaluation: a parameter without a value has a shape and a dtype only."""

    lends = False
    rehearsal = True
    doing = "shape inference"

    def resolve(self, variable: Box) -> Any:
        if variable.is_drawn or not variable.is_drawable:
            return super().resolve(variable)
        # Broadcasting a constant inside the trace yields a tracer and allocates nothing.
        return jnp.zeros(variable.known_shape, variable.dtype)


class TrialFrame(Frame):
    """A frame for trying out a copy of a module, which what is traced around does not depend on."""

    def note(self, module: object) -> None:
        pass


def current_frame() -> Frame | None:
    """The innermost frame of this thread."""
    return local.context.frame


def lane_axes(variable: Box, value: Any) -> tuple[Any, ...]:
    """The names of the mapped axes around here over which a variable is the same in all lanes, and a value is not.

    What a layer writes to it has to be reduced over these axes, with ``jax.lax.pmean`` for example.

    Raises:
        StructureError: not every device may come to that, so that the others would wait for it for ever.
    """
    names: list[Any] = []
    alone: frozenset[Any] = frozenset()
    frame = local.context.frame
    while frame is not None and id(variable) not in frame.mapped:
        names += frame.axes_of(variable, value)
        alone |= frame.alone
        frame = frame.parent
    if not alone.isdisjoint(names):
        raise StructureError(
            f"what is written here has to be averaged along {', '.join(map(repr, names))} of the mesh, in a branch or "
            "loop that not every device takes: the others would wait for ever. Call the layer outside of it, or put it "
            "into evaluation mode, net.eval(), in which nothing is written"
        )
    return tuple(names)


def other_axes(value: Any) -> tuple[Any, ...]:
    """The names of the axes around here that JAX's own transforms map, and over which a value is not the same."""
    names, frame = named_axes(), local.context.frame
    while frame is not None:
        names = tuple(name for name in names if name not in frame.bound)
        frame = frame.parent
    varying = varying_axes(value)
    manual = get_abstract_mesh().manual_axes if varying else ()
    return tuple(name for name in names if name in varying or name not in manual)


def note_module(module: object) -> None:
    """Tell the frame, if there is one, that its trace depends on a module's structure."""
    frame = local.context.frame
    if frame is not None:
        frame.note(module)


@contextmanager
def outside() -> Iterator[None]:
    """Leave all frames and traces, for work that must happen now and last (drawing parameters)."""
    context = local.context
    frame, context.frame = context.frame, None
    try:
        with untraced(), whole_mesh():
            yield
    finally:
        context.frame = frame


@contextmanager
def all_or_nothing() -> Iterator[None]:
    """If the body fails, shapes that were inferred in it become unknown again, and attributes what they were."""
    context = local.context
    if context.undo is not None:  # somebody further out takes everything back
        yield
        return
    context.undo, context.owned = [], True
    try:
        yield
    except BaseException:
        context.unwind()
        raise
    finally:
        context.undo, context.owned = None, False


def expected_stamp() -> object:
    """The trace stamp under which variables may be written at this moment."""
    frame = local.context.frame
    return base_state() if frame is None else frame.stamp


def leak(variable: Box, what: str) -> TraceLeakError:
    """The error for a write that a trace would lose or leak."""
    name = f" {variable.name!r}" if variable.name else ""
    return TraceLeakError(
        f"{type(variable).__name__}{name} was written inside {what}, where the write would be "
        "lost or leave a tracer behind. Use brickwork's own transform instead of the raw JAX one "
        "(bw.compile for jax.jit, bw.value_and_grad for jax.value_and_grad, ...), or make the "
        "state explicit with `pure, state = bw.functional(net)`."
    )
