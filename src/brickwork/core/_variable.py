"""Variables: named, mutable boxes around arrays."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import DeferredShapeError, ShapeMismatchError, TraceLeakError
from ._draw import ElementwiseInitializer, Initializer, as_initializer, draw_array
from ._epoch import bump
from ._frame import expected_stamp, leak, local, outside
from ._jax import Tracer, base_state, trace_state
from ._seed import next_number

if TYPE_CHECKING:
    from typing import Self

Shape = tuple[int | None, ...]


def show_shape(shape: Sequence[int | None]) -> str:
    """A shape in words, with ``?`` for what is not known: ``(256, ?)``."""
    inner = ", ".join("?" if d is None else str(d) for d in shape)
    return f"({inner},)" if len(shape) == 1 else f"({inner})"


class _DefaultInitializer(ElementwiseInitializer):
    """What a parameter gets that was given no initializer: as ``torch.nn.Linear`` does.

    Uniform in ``±1/sqrt(fan_in)`` from two dimensions on, zeros below.
    """

    def draw_block(
        self, rng: np.random.Generator, n: int, shape: tuple[int, ...], dtype: Any
    ) -> np.ndarray:
        if len(shape) < 2:
            return np.zeros(n, dtype)
        bound = 1 / max(1, np.prod(shape[1:])) ** 0.5
        return (rng.random(n, dtype) * 2 - 1) * np.asarray(bound, dtype)


_default_initializer = _DefaultInitializer()


def _check_shape(shape: Any, what: str) -> Shape:
    if isinstance(shape, (int, np.integer)):
        shape = (shape,)
    try:
        given = tuple(shape)
    except TypeError:
        raise TypeError(f"{what}: shape must be a tuple of sizes, got {shape!r}") from None
    for size in given:
        if size is None:
            continue
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)):
            raise TypeError(
                f"{what}: shape {given} has an entry {size!r}; sizes are integers, or None when not known yet"
            )
        if size < 0:
            raise ValueError(f"{what}: shape {given} has a negative size")
    return tuple(None if d is None else int(d) for d in given)


def check_dtype(dtype: Any, what: str) -> np.dtype:
    """A dtype that this process can hold, or an error that says how to enable it."""
    wanted = jnp.dtype(dtype)
    if jax.dtypes.canonicalize_dtype(wanted) != wanted:
        raise ValueError(
            f"{what}: dtype {wanted} needs 64-bit mode; call jax.config.update('jax_enable_x64', True) "
            "at the start of the program"
        )
    return wanted


def as_array(value: Any, what: str | Variable, dtype: Any = None) -> jax.Array:
    """Turn what a user gave into a JAX array of strong type; ``what`` is named in errors."""
    if isinstance(value, Variable):
        value = value.value
    if not isinstance(value, jax.Array):
        host = np.asarray(value)
        if host.dtype.kind in "OUSMm":
            place = what if isinstance(what, str) else what._described()
            raise TypeError(
                f"{place}: a variable holds numbers, got {type(value).__name__} with dtype {host.dtype}; "
                "convert it to a numeric array first"
            )
        value = jnp.asarray(value, dtype=dtype)
    elif dtype is not None and value.dtype != dtype:
        value = value.astype(dtype)
    if value.weak_type:
        value = jax.lax.convert_element_type(value, value.dtype)
    return value


def unbox(x: Any) -> Any:
    """The value of a variable; anything else as it is."""
    return x.value if isinstance(x, Variable) else x


class Variable:
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
        "_copy",
        "_dtype",
        "_init",
        "_lent",
        "_number",
        "_parent",
        "_placement",
        "_shape",
        "_trace",
        "_trainable",
        "_value",
    )
    # NumPy must leave `array + variable` to us.
    __array_priority__ = 1000
    persistent = True

    def __init__(
        self, value: Any = None, *, shape: Any = None, dtype: Any = None, init: Any = None
    ) -> None:
        what = type(self).__name__
        self._setup()
        if (value is None) == (shape is None):
            raise TypeError(f"{what}: give either a value or shape=..., not {'both' if shape else 'neither'}")
        if value is not None:
            if init is not None:
                raise TypeError(f"{what}: init= goes with shape=..., not with a value")
            wanted = None if dtype is None else check_dtype(dtype, what)
            self._value = as_array(value, what, wanted)
            self._shape, self._dtype = self._value.shape, self._value.dtype
            self._lent = True
            return
        self._shape = _check_shape(shape, what)
        self._dtype = check_dtype(jnp.float32 if dtype is None else dtype, what)
        self._init = _default_initializer if init is None else as_initializer(init)
        self._number = next_number()

    def _setup(self) -> None:
        self._value: Any = None
        self._shape: Shape = ()
        self._dtype: Any = None
        self._init: Initializer | None = None
        self._number: tuple[int, int] | None = None
        self._placement: Any = None
        self._trainable = False
        self._parent: weakref.ref[Any] | None = None
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
        value = self._value
        if value is None or self._trace is not None:
            value = self.concrete()
        if not context.calls:
            self._lent = True
        LENDS[0] = object()
        return value

    @value.setter
    def value(self, new: Any) -> None:
        new = self._accept(as_array(new, self))
        self._store(new)
        self._lent = True

    def _described(self) -> str:
        return f"{type(self).__name__} {self.name!r}" if self.name else type(self).__name__

    def _accept(self, new: Any) -> Any:
        return new

    def _store(self, new: Any) -> None:
        """Write a checked value where the current trace level keeps it."""
        now = trace_state()
        if self._copy:
            raise TraceLeakError(
                f"{self._described()} belongs to a copy of a module that a raw JAX transform "
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
                    f"{self._described()} was created inside a JAX transform and kept after it "
                    "ended; its value is a tracer. Create variables before, and write them inside."
                )
            return
        if local.context.frame is None:
            self._trace = None

    def _draw(self) -> None:
        if None in self._shape:
            raise self._deferred_error()
        seed, number = self._number or next_number()
        with outside():
            host = draw_array(
                self._init or _default_initializer,
                seed=seed,
                stream=number,
                shape=self.known_shape,
                dtype=self._dtype,
                name=self.name,
            )
            value = jnp.asarray(host)
            self._value = value if self._placement is None else jax.device_put(value, self._placement)
        self._trace = None

    def _deferred_error(self) -> DeferredShapeError:
        return DeferredShapeError(
            f"{self._described()} has shape {show_shape(self._shape)}: a size is not known yet. "
            "Call the network on data once, give it the shape of its input with "
            "net.initialize(bw.spec(...)), load a file, or give the size when constructing the layer."
        )

    def initialize(self, init: Any = None) -> None:
        """Draw the value again, now or, while a size is not known, as soon as it is.

        Args:
            init: the initializer to use from now on; the one it has if not given.
        """
        if init is not None:
            self._init = as_initializer(init)
        if self.is_drawn:
            self._number = next_number()
        if None in self._shape:
            return
        saved, self._value = self._value, None
        if local.context.frame is None:
            self._draw()
            return
        try:
            self._draw()
            drawn = self._value
        finally:
            self._value = saved
        self._store(drawn)

    def initialize_later(self) -> None:
        """Drop the value, if there is one; the next read draws anew."""
        if self.is_drawn:
            self._number = next_number()
            self._value = None

    def load(self, value: Any) -> None:
        """Take over a stored value; sizes that were not known are filled from it."""
        value = self._accept(as_array(value, self, self._dtype))
        if self._placement is not None:
            value = jax.device_put(value, self._placement)
        self._shape = value.shape
        self._store(value)
        self._lent = True

    @property
    def has_init(self) -> bool:
        """Whether there is an initializer; not so for a variable that was given its value."""
        return self._init is not None

    def move(self, target: Any) -> None:
        """Put the value on a device or sharding, now or when it is drawn."""
        self._placement = target
        if self.is_drawn:
            self._store(jax.device_put(self.value, target))

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
        """Whether every size is known."""
        return None not in self._shape

    # -- description ---------------------------------------------------------------------------

    @property
    def shape(self) -> Any:
        """The shape, with ``None`` for sizes that are not known yet. Assigning fills in unknown sizes."""
        if self._value is None:
            return self._shape
        if local.context.frame is None:
            return self._value.shape
        return self.value.shape

    @shape.setter
    def shape(self, new: Any) -> None:
        what = self._described()
        given = _check_shape(new, what)
        known: Shape = self._shape if self._value is None else self._value.shape
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
        context = local.context
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

    # -- arrays' manners -----------------------------------------------------------------------

    def __jax_array__(self) -> jax.Array:
        return self.value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        host = np.asarray(self.value)
        return host if dtype is None else host.astype(dtype)

    def __getitem__(self, index: Any) -> jax.Array:
        return self.value[unbox(index)]

    def __setitem__(self, index: Any, new: Any) -> None:
        old = self.value
        new = unbox(new)
        if not isinstance(new, jax.Array):
            new = jnp.asarray(new, old.dtype)
        self.value = old.at[unbox(index)].set(new.astype(old.dtype))

    def __len__(self) -> int:
        shape = self.shape
        if not shape:
            raise TypeError(f"len() of a {type(self).__name__} without dimensions")
        return len(self.value)

    def __iter__(self) -> Iterator[jax.Array]:
        return iter(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __float__(self) -> float:
        return float(self.value)

    def __complex__(self) -> complex:
        return complex(self.value)

    def __index__(self) -> int:
        return operator.index(self.value)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec) if spec else str(self)

    def __getattr__(self, name: str) -> Any:
        # Methods of arrays (`sum`, `T`, `at`, `reshape`, ...); dunders are looked up on the class.
        if name.startswith("_") or not hasattr(jax.Array, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.value, name)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        kind, dtype = type(self).__name__, jnp.dtype(self._dtype).name
        if self._value is None:
            return f"{kind}(shape={show_shape(self._shape)}, dtype={dtype}, not drawn yet)"
        value = self._value if local.context.frame is None else self.value
        if isinstance(value, Tracer):
            return f"{kind}(shape={show_shape(value.shape)}, dtype={dtype}, traced)"
        body = np.array2string(np.asarray(value), separator=", ", prefix=f"{kind}(", threshold=100)
        return f"{kind}({body}, shape={show_shape(value.shape)}, dtype={dtype})"

    # -- copies --------------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        """What a copy needs besides the value."""
        names = ("_shape", "_dtype", "_init", "_number", "_trainable")
        return {n: getattr(self, n) for n in names} | dict(getattr(self, "__dict__", {}))

    def _restore(self, settings: dict[str, Any], value: Any) -> None:
        self._setup()
        for name, setting in settings.items():
            setattr(self, name, setting)
        self._value = value
        self._lent = True

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        import copy

        new = object.__new__(type(self))
        memo[id(self)] = new
        value = None if self._value is None else self.value
        new._restore(copy.deepcopy(self._settings(), memo), value)
        return new

    def __copy__(self) -> Self:
        new = object.__new__(type(self))
        new._restore(self._settings(), None if self._value is None else self.value)
        return new

    def __getstate__(self) -> tuple[dict[str, Any], Any]:
        return self._settings(), None if self._value is None else np.asarray(self.value)

    def __setstate__(self, state: tuple[dict[str, Any], Any]) -> None:
        settings, value = state
        self._restore(settings, None if value is None else jnp.asarray(value))

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _register(cls)


LENDS: list[object] = [object()]
"""Replaced whenever an array is handed out, so that a compiled function knows when to look."""


def _path_to(variable: Variable) -> str:
    names: list[str] = []
    item: Any = variable
    while item._parent is not None:
        parent = item._parent()
        name = None if parent is None else parent.name_of(item)
        if name is None:
            break
        if name:
            names.append(name)
        item = parent
    return ".".join(reversed(names))


_BINARY = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split()


def _install_operators() -> None:
    def binary(name: str) -> None:
        function = getattr(operator, {"and": "and_", "or": "or_"}.get(name, name))

        def forward(self: Variable, other: Any) -> Any:
            return function(self.value, unbox(other))

        def backward(self: Variable, other: Any) -> Any:
            return function(other, self.value)

        def inplace(self: Variable, other: Any) -> Variable:
            self.value = function(self.value, unbox(other))
            return self

        setattr(Variable, f"__{name}__", forward)
        setattr(Variable, f"__r{name}__", backward)
        setattr(Variable, f"__i{name}__", inplace)

    def compare(name: str) -> None:
        function = getattr(operator, name)
        setattr(Variable, f"__{name}__", lambda self, other: function(self.value, unbox(other)))

    def unary(name: str) -> None:
        function = abs if name == "abs" else getattr(operator, name)
        setattr(Variable, f"__{name}__", lambda self: function(self.value))

    for name in _BINARY:
        binary(name)
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        compare(name)
    for name in ("neg", "pos", "abs", "invert"):
        unary(name)
    Variable.__divmod__ = lambda self, other: divmod(self.value, unbox(other))  # type: ignore[attr-defined]
    Variable.__rdivmod__ = lambda self, other: divmod(other, self.value)  # type: ignore[attr-defined]


_install_operators()


def _flatten(variable: Variable) -> tuple[tuple[Any], tuple[type, bool]]:
    return (variable.value,), (type(variable), variable._trainable)


def _unflatten(settings: tuple[type, bool], leaves: Any) -> Variable:
    kind, trainable = settings
    new = object.__new__(kind)
    return revive(new, leaves[0], trainable)


def revive(new: Any, value: Any, trainable: bool) -> Any:
    """Fill a bare variable from a pytree leaf, which may be a tracer or a placeholder of JAX's."""
    new._setup()
    new._value, new._trainable = value, trainable
    new._shape = getattr(value, "shape", ())
    new._dtype = getattr(value, "dtype", None)
    new._lent = True
    new._copy = new._trace is not None and new._trace != expected_stamp()
    return new


def _register(cls: type) -> None:
    # The class travels as auxiliary data, so one pair of functions serves all kinds.
    jax.tree_util.register_pytree_node(cls, _flatten, _unflatten)


_register(Variable)


class Parameter(Variable):
    """A variable that is trained.

    Args:
        value, shape, dtype, init: as for :class:`Variable`. Without ``init``, a parameter of two or
            more dimensions is drawn from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), others are zeros.
        trainable: ``False`` keeps it out of gradients and optimisers.

    Raises:
        TypeError: a trainable parameter of integers.

    Example:
        >>> import brickwork as bw
        >>> p = bw.Parameter(shape=(3, None), init=bw.init.ones)
        >>> p.shape
        (3, None)
        >>> p.shape = (None, 2)
        >>> p.value.shape
        (3, 2)
    """

    __slots__ = ("_grad",)

    def __init__(
        self,
        value: Any = None,
        *,
        shape: Any = None,
        dtype: Any = None,
        init: Any = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(value, shape=shape, dtype=dtype, init=init)
        if trainable and not jnp.issubdtype(self._dtype, jnp.inexact):
            raise TypeError(
                f"Parameter: dtype {self._dtype} can't be trained; use bw.Buffer, or pass trainable=False"
            )
        self._trainable = bool(trainable)

    def _setup(self) -> None:
        super()._setup()
        self._grad: Slot | None = None

    def _accept(self, new: Any) -> Any:
        known: Shape = self._shape if self._value is None else self.shape
        if len(known) != new.ndim or any(
            a is not None and a != b for a, b in zip(known, new.shape, strict=True)
        ):
            raise ShapeMismatchError(
                f"{self._described()} has shape {show_shape(known)}, got a value of shape {new.shape}. "
                "Transpose or reshape the value, or assign a new Parameter to the attribute."
            )
        return new

    @property
    def trainable(self) -> bool:
        """Whether gradients and optimisers take this parameter into account."""
        return self._trainable

    @trainable.setter
    def trainable(self, flag: bool) -> None:
        if flag != self._trainable:
            self._trainable = bool(flag)
            bump()

    @property
    def grad(self) -> Any:
        """The gradient that :func:`brickwork.backward` has added up; ``None`` before."""
        if self._grad is None:
            if local.context.frame is None:
                return None
            self._grad = Slot.outlasting()
        return self._grad.value

    @grad.setter
    def grad(self, new: Any) -> None:
        if new is not None:
            new = self._accept(as_array(new, self))
        if self._grad is None:
            if new is None:
                return
            self._grad = Slot.outlasting()
        self._grad.value = new


class Buffer(Variable):
    """State that isn't trained: running statistics, caches, constants, the state of an optimiser.

    Args:
        value, shape, dtype, init: as for :class:`Variable`; a shape without ``init`` gives zeros.
        persistent: whether it belongs to the ``state_dict`` and to saved files.

    Example:
        >>> import brickwork as bw
        >>> import jax.numpy as jnp
        >>> b = bw.Buffer(jnp.zeros(3))
        >>> b += 1
        >>> b.value
        Array([1., 1., 1.], dtype=float32)
    """

    __slots__ = ("persistent",)

    def __init__(
        self,
        value: Any = None,
        *,
        shape: Any = None,
        dtype: Any = None,
        init: Any = None,
        persistent: bool = True,
    ) -> None:
        if shape is not None and init is None:
            init = 0
        super().__init__(value, shape=shape, dtype=dtype, init=init)
        self.persistent = persistent

    def _setup(self) -> None:
        super()._setup()
        self.persistent = True

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {"persistent": self.persistent}


class Slot(Buffer):
    """A buffer that may be empty, and may hold a nest of arrays: a gradient, a captured output."""

    __slots__ = ()

    @classmethod
    def outlasting(cls) -> Self:
        """An empty slot that outlives the trace it is made in."""
        new = object.__new__(cls)
        new._setup()
        new.persistent = False
        new._trace = None
        return new

    @property
    def value(self) -> Any:
        """The contents, or ``None``."""
        context = local.context
        if context.frame is not None:
            return context.frame.read(self)
        self._lent = True
        LENDS[0] = object()
        return self._value

    @value.setter
    def value(self, new: Any) -> None:
        self._store(new)
        self._lent = True

    def _store(self, new: Any) -> None:
        if local.context.frame is None:
            if any(isinstance(x, Tracer) for x in jax.tree_util.tree_leaves(new)):
                raise leak(self, "a raw JAX transform")
            self._value = new
        else:
            super()._store(new)

    def concrete(self) -> Any:
        return self._value

    @property
    def is_drawable(self) -> bool:
        return False
