"""Variables: named, mutable boxes around arrays."""

from __future__ import annotations

import math
import threading
import weakref
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from .._draw import ElementwiseInitializer, Initializer, as_initializer, draw_array
from ..errors import DeferredShapeError, ShapeMismatchError, TraceLeakError
from ._arrays import Shape, as_array, check_dtype, check_shape, show_shape
from ._epoch import bump
from ._frame import UPDATE_LOCK, expected_stamp, leak, local, outside
from ._jax import Tracer, base_state, trace_state
from ._leaves import register
from ._manners import ArrayMethods, unbox
from ._places import check_fits, undivided
from ._seed import TALLIES, count, next_number

if TYPE_CHECKING:
    from typing import Self


class _DefaultInitializer(ElementwiseInitializer):
    """What a parameter gets that was given no initializer: as ``torch.nn.Linear`` does.

    Uniform in ``±1/sqrt(fan_in)`` from two dimensions on, zeros below.
    """

    def draw_block(self, rng: np.random.Generator, n: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        if len(shape) < 2:
            return np.zeros(n, dtype)
        bound = 1 / max(1, np.prod(shape[1:])) ** 0.5
        return (rng.random(n, dtype) * 2 - 1) * np.asarray(bound, dtype)


_default_initializer = _DefaultInitializer()


class Variable(ArrayMethods):
    """A mutable box around one array.

    :class:`Parameter` and :class:`Buffer` are the two kinds that networks are made of. A variable
    works wherever an array does: in arithmetic, indexing, ``jnp`` and ``jax.nn`` functions and
    ``np.asarray``. Functions of ``jax.lax`` need ``.value``.

    Args:
        value: the array, or anything ``jnp.asarray`` takes. Or give ``shape`` instead.
        shape: sizes, with ``None`` for those not known yet.
        dtype: the dtype; float32 for a shape, that of the value otherwise.
        init: how to draw the value once the shape is known: an initializer, a number, or a function
            ``(key, shape, dtype) -> array`` such as those of ``jax.nn.initializers``.

    Raises:
        TypeError: neither or both of ``value`` and ``shape``; a value that is not numeric.
        ValueError: a negative size.

    Example:
        >>> import brickwork as bw
        >>> v = bw.Variable([1.0, 2.0])
        >>> v[0] = 5.0
        >>> v.value
        Array([5., 2.], dtype=float32)
    """

    __slots__ = (
        "__weakref__",
        "_bw_holders",
        "_copy",
        "_dtype",
        "_init",
        "_lent",
        "_number",
        "_placement",
        "_shape",
        "_stacked",
        "_trace",
        "_trainable",
        "_value",
    )
    persistent = True

    def __init__(self, value: Any = None, *, shape: Any = None, dtype: Any = None, init: Any = None) -> None:
        what = type(self).__name__
        self._setup()
        if (value is None) == (shape is None):
            raise TypeError(f"{what}: give either a value or shape=..., not {'neither' if shape is None else 'both'}")
        if value is not None:
            if init is not None:
                raise TypeError(f"{what}: init= goes with shape=..., not with a value")
            wanted = None if dtype is None else check_dtype(dtype, what)
            self._value = as_array(value, what, wanted)
            self._shape, self._dtype = self._value.shape, self._value.dtype
            self._lent = True
            return
        self._shape = check_shape(shape, what)
        self._dtype = check_dtype(jnp.float32 if dtype is None else dtype, what)
        self._init = _default_initializer if init is None else as_initializer(init)
        self._number = next_number()

    def _setup(self) -> None:
        self._value: Any = None
        self._shape: Shape = ()
        self._dtype: Any = None
        self._init: Initializer | None = None
        self._number: Any = None  # seed and number of the draw; for a stack, a list of such pairs
        self._stacked = 0
        self._placement: Any = None
        self._trainable = False
        self._bw_holders: tuple[weakref.ref[Any], ...] = ()
        self._lent = False  # someone outside may hold the array, so it must not be donated
        self._copy = False  # made by a raw JAX transform from its argument
        now = trace_state()
        self._trace: object = None if now == base_state() else now

    # -- the value -----------------------------------------------------------------------------

    @property
    def value(self) -> jax.Array:
        """The array. Assigning replaces it; the shape of a :class:`Parameter` must stay the same."""
        context = local.context
        if context.frame is not None:
            return context.frame.read(self)
        with UPDATE_LOCK:
            value = self._value
            if value is None or self._trace is not None:
                value = self.concrete()
            # A layer of the library computes with what it reads and hands out none of it; but what another
            # thread reads may be in use while a compiled step of this one overwrites it.
            calls = context.calls
            if not calls or not calls[-1].keeps_nothing or UPDATER[0] != threading.get_ident():
                self._lent = True
            LENDS[0] = object()
        return value

    @value.setter
    def value(self, new: Any) -> None:
        accepted = self._accept(as_array(new, self))
        self._store(accepted if isinstance(unbox(new), jax.Array) else self._at_home(accepted))
        self.lend()

    @property
    def _home(self) -> Any:
        """The sharding of the value, if it was put there; ``None`` for one that lies where it does by default."""
        value = self._value
        put = isinstance(value, jax.Array) and not isinstance(value, Tracer) and value.committed
        return value.sharding if put else None

    def _at_home(self, value: Any) -> Any:
        """A value that comes from the host, where the one before was put."""
        if isinstance(value, Tracer) or local.context.frame is not None:
            return value
        if (home := self._home) is not None:
            if value.shape == self._value.shape or len(home.device_set) == 1:
                return jax.device_put(value, home)
        elif self._placement is not None:
            check_fits(value.shape, self._placement, self.described())
            return jax.device_put(value, self._placement)
        return value

    def lend(self) -> None:
        """Note that someone else may hold the array, so that it is copied before it is overwritten."""
        self._lent = True
        LENDS[0] = object()

    def described(self) -> str:
        return f"{type(self).__name__} {self.name!r}" if self.name else type(self).__name__

    def _accept(self, new: Any) -> Any:
        return new

    def _store(self, new: Any) -> None:
        """Write a checked value where the current trace level keeps it."""
        now = trace_state()
        if self._copy:
            raise TraceLeakError(
                f"{self.described()} belongs to a copy of a module that a raw JAX transform "
                "made of its argument; the write would vanish when the trace ends. Use bw.compile instead "
                "of jax.jit, or `pure, state = bw.functional(net)` and pass the state."
            )
        if self._trace is not None and self._trace == now:
            self._value = new
        elif now != expected_stamp():
            raise leak(self, "a raw JAX transform (jax.jit, jax.grad, jax.vmap, jax.lax.scan, ...)")
        elif (frame := local.context.frame) is not None:
            frame.write(self, new)
        else:
            if self._shape != new.shape or self._dtype != new.dtype:
                bump()
            self._value = new
            self._shape, self._dtype = new.shape, new.dtype

    def concrete(self) -> Any:
        """The value in the box itself, outside every frame; drawn now if need be."""
        if self._trace is not None:
            self._check_escape()
        if self._value is None:
            self._draw()
        return self._value

    def _check_escape(self) -> None:
        """A variable that a trace made may be used in that trace only, unless its value is concrete."""
        if self._trace == trace_state() or self._trace == expected_stamp():
            return
        if isinstance(self._value, Tracer):
            if local.context.frame is None and trace_state() == base_state():
                raise TraceLeakError(
                    f"{self.described()} was created inside a JAX transform and kept after it "
                    "ended; its value is a tracer. Create variables before, and write them inside."
                )
            return
        if local.context.frame is None:
            self._trace = None

    def _draw(self) -> None:
        if None in self._shape:
            raise self._deferred_error()
        if TALLIES:
            count(math.prod(self.known_shape) * self._dtype.itemsize)
        with outside():
            host = self._draw_host()
            value = jax.device_put(host)  # takes over the memory, which nobody else holds
            if self._placement is not None:
                check_fits(self.known_shape, self._placement, self.described())
                value = jax.device_put(value, self._placement)
            self._value = value
        self._trace = None

    def _draw_host(self) -> np.ndarray:
        """The initial value on the host; the parts of a stack are drawn as if each were alone."""
        init, n, name = self._init or _default_initializer, self._stacked, self.name
        if self._number is None:
            self._number = self._fresh_number()
        shape = self.known_shape[n:]

        def part(number: tuple[int, int]) -> np.ndarray:
            return draw_array(init, seed=number[0], stream=number[1], shape=shape, dtype=self._dtype, name=name)

        if not n:
            return part(self._number)
        return np.stack([part(number) for number in self._number]).reshape(self.known_shape)

    def _fresh_number(self) -> Any:
        if not self._stacked:
            return next_number()
        return [next_number() for _ in range(math.prod(n or 1 for n in self._shape[: self._stacked]))]

    def _deferred_error(self) -> DeferredShapeError:
        return DeferredShapeError(
            f"{self.described()} has shape {show_shape(self._shape)}: a size is not known yet. "
            "Call the network on data once, give it the shape of its input with "
            "net.initialize(bw.spec(...)), load a file, or give the size when constructing the layer."
        )

    def initialize(self, init: Any = None) -> None:
        """Draw the value again, now or, while a size is not known, as soon as it is.

        Args:
            init: the initializer to use from now on; the one it has if not given.
        """
        before = self._init, self._number, self._value
        if init is not None:
            self._init = as_initializer(init)
        if self.is_drawn:
            self._number = self._fresh_number()
        if not self.is_drawable:
            return
        self._value = None
        try:
            self._draw()
        except BaseException:
            self._init, self._number, self._value = before
            raise
        if local.context.frame is not None:
            drawn, self._value = self._value, before[2]
            self._store(drawn)

    def initialize_later(self) -> None:
        """Drop the value, if there is one; the next read draws anew."""
        if self.is_drawn:
            self._number = self._fresh_number()
            self._value = None

    def load(self, value: Any) -> None:
        """Take over a stored value; sizes that were not known are filled from it."""
        value = self._accept(as_array(value, self, self._dtype))
        value = self._at_home(value)
        self._shape = value.shape
        self._store(value)
        self.lend()

    @property
    def init(self) -> Initializer | None:
        """The initializer; ``None`` for a variable that was given its value."""
        return self._init

    def move(self, target: Any) -> None:
        """Put the value on a device or sharding, now or when it is drawn."""
        check_fits(self.shape, target, self.described())
        self._placement = target
        if self.is_drawn and self.value.sharding.device_set != {target}:
            self._store(jax.device_put(self.value, target))

    def follow(self, other: Variable) -> None:
        """Be where another variable is, now or when drawn; on a mesh whole on each device."""
        place = other._placement if other._home is None else other._home
        if place is not None:
            self.move(undivided(place))

    def cast(self, dtype: Any) -> None:
        """Convert a floating-point variable to another dtype; others are left alone."""
        if not jnp.issubdtype(self._dtype, jnp.inexact):
            return
        if self.is_drawn:
            self._store(self.value.astype(dtype))
        if local.context.frame is None:
            self._dtype = jnp.dtype(dtype)

    @property
    def is_drawn(self) -> bool:
        """Whether the variable has a value already."""
        return self._value is not None

    @property
    def is_drawable(self) -> bool:
        """Whether everything is known that the initial value depends on."""
        return None not in self._shape and (self._init is None or self._init.ready)

    # -- description ---------------------------------------------------------------------------

    @property
    def shape(self) -> Any:
        """The shape, with ``None`` for sizes that are not known yet. Assigning fills in unknown sizes."""
        frame = local.context.frame
        if self._value is None:
            here = None if frame is None or not self._stacked else frame.known(self)
            return self._shape if here is None else here.shape  # in a lane, the shape of one part
        if frame is None:
            return getattr(self._value, "shape", ())  # jax.tree.map may have put anything here
        return self.value.shape

    @shape.setter
    def shape(self, new: Any) -> None:
        what = self.described()
        given = check_shape(new, what)
        context = local.context
        here = None if context.frame is None else context.frame.known(self)  # in a lane, one part of a stack
        if here is not None:
            known: Shape = here.shape
        else:
            known = self._shape if self._value is None else self._value.shape
        fits = len(given) == len(known) and all(
            a is None or b is None or a == b for a, b in zip(known, given, strict=True)
        )
        if not fits:
            raise ShapeMismatchError(
                f"{what} has shape {show_shape(known)}, which contradicts {show_shape(given)}: "
                "the input's sizes don't match those the layer was given or has seen before"
            )
        if None not in known:
            return
        if context.undo is not None:
            context.undo.append(lambda old=self._shape: self._restore_shape(old))
        self._shape = tuple(b if a is None else a for a, b in zip(known, given, strict=True))

    def _restore_shape(self, old: Shape) -> None:
        self._shape, self._value = old, None

    @property
    def known_shape(self) -> tuple[int, ...]:
        """The shape, when every size is known.

        Raises:
            DeferredShapeError: a size is not known.
        """
        shape = self.shape
        if None in shape:
            raise self._deferred_error()
        return shape

    @property
    def dtype(self) -> Any:
        """The dtype of the value."""
        if self._value is None:
            return self._dtype
        return self._value.dtype if local.context.frame is None else self.value.dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.known_shape, dtype=np.int64))

    @property
    def name(self) -> str:
        """The path from the outermost module that holds the variable; empty for a free one."""
        return _path_to(self)

    @property
    def device(self) -> Any:
        """The device, or the sharding when there are several; ``None`` while there is no value."""
        return None if self._value is None else self.value.device

    @property
    def sharding(self) -> Any:
        """The sharding of the array; ``None`` while there is no value."""
        return None if self._value is None else self.value.sharding

    @property
    def trainable(self) -> bool:
        """Whether gradients and optimisers take this variable into account."""
        return self._trainable

    @property
    def stacked(self) -> int:
        """How many leading axes count separate values, put together by :func:`brickwork.stack`."""
        return self._stacked

    def __repr__(self) -> str:
        kind, dtype = type(self).__name__, str(self._dtype)
        if self._value is None:
            return f"{kind}(shape={show_shape(self._shape)}, dtype={dtype}, not drawn yet)"
        value = self.value
        if isinstance(value, Tracer) or jnp.issubdtype(value.dtype, jax.dtypes.extended):
            note = ", traced" if isinstance(value, Tracer) else ""
            return f"{kind}(shape={show_shape(value.shape)}, dtype={dtype}{note})"
        body = np.array2string(np.asarray(value), separator=", ", prefix=f"{kind}(", threshold=100)
        return f"{kind}({body}, shape={show_shape(value.shape)}, dtype={dtype})"

    # -- copies --------------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        """What a copy needs besides the value."""
        names = ("_shape", "_dtype", "_init", "_number", "_trainable", "_stacked")  # the placement isn't for pickles
        return {n: getattr(self, n) for n in names} | dict(getattr(self, "__dict__", {}))

    def _restore(self, settings: dict[str, Any], value: Any) -> None:
        self._setup()
        for name, setting in settings.items():
            setattr(self, name, setting)
        self._value = value
        self.lend()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        import copy

        new = object.__new__(type(self))
        memo[id(self)] = new
        value = None if self._value is None else self.value
        new._restore(copy.deepcopy(self._settings(), memo), value)
        new._placement = self._placement
        return new

    def __copy__(self) -> Self:
        new = object.__new__(type(self))
        new._restore(self._settings(), None if self._value is None else self.value)
        new._placement = self._placement
        return new

    def __getstate__(self) -> tuple[dict[str, Any], Any]:
        return self._settings(), None if self._value is None else np.asarray(self.value)

    def __setstate__(self, state: tuple[dict[str, Any], Any]) -> None:
        settings, value = state
        self._restore(settings, None if value is None else jnp.asarray(value))

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        register(cls)


UPDATER: list[int] = [0]
"""The thread that ran a compiled function with writes last."""

LENDS: list[object] = [object()]
"""Replaced whenever an array is handed out, so that a compiled function knows when to look."""


def _path_to(item: Any) -> str:
    names: list[str] = []
    visited: set[int] = set()
    inner: Any = None
    while id(item) not in visited:
        visited.add(id(item))
        for reference in item._bw_holders:  # the first that still holds it decides
            holder = reference()
            name = None if holder is None or id(holder) in visited else holder.name_of(item)
            if holder is None or name is None:
                continue
            if name:
                names.append(name)
            elif inner is not None and (own := holder.name_of(inner)):
                names[-1] = own  # a container that adds nothing: its holder knows what the item is called
            inner, item = item, holder
            break
    return ".".join(reversed(names))


register(Variable)


def depth(variable: Variable) -> int:
    """How many leading axes of a variable count separate values, here: a lane has one less than there is outside."""
    if not variable.stacked:
        return 0
    return variable.stacked - (len(variable._shape) - len(variable.shape))
