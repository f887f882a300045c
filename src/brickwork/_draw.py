"""Initial values, drawn on the host.

A draw is a pure function of ``(seed, stream, shape, dtype)``. NumPy's counter-based Philox
generator supplies the bits, so nothing compiles, and the value of an element never depends on
which slice was asked for, on the number of threads, on devices or on the order of draws.

An :class:`ElementwiseInitializer` is drawn in blocks of :data:`BLOCK` elements in C order; block
``i`` has the counter range that starts at ``i`` in the counter's highest word. That is what makes
any slice cheap on its own, and large arrays parallel (NumPy releases the GIL while it draws).
"""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import math
import operator
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from .errors import ShapeMismatchError

__all__ = [
    "BLOCK",
    "ElementwiseInitializer",
    "Initializer",
    "as_initializer",
    "constant",
    "current_parameter",
    "draw_array",
    "subject",
]

Array: TypeAlias = np.ndarray[Any, Any]
Shape: TypeAlias = tuple[int, ...]
Spans: TypeAlias = tuple[tuple[int, int], ...]

BLOCK = 2**16  # elements per counter block; part of the meaning of a seed, never to be changed
_GROUP = 4 * BLOCK  # elements one task draws: 1 MiB of float32 in 2 ms, long against a thread's switch
_PARALLEL_FROM = 4 * BLOCK  # elements below which threads cost more than they give
_ALIGNMENT = 64  # bytes; XLA's CPU backend takes over host memory aligned so, instead of copying

_current: contextvars.ContextVar[str | None] = contextvars.ContextVar("parameter", default=None)


def current_parameter() -> str | None:
    """The path of the parameter being drawn, or ``None`` outside a draw or where it has none.

    For initializers that report or decide by name.

    Example:
        >>> from brickwork import init
        >>> class Loud(init.Initializer):
        ...     def draw(self, rng, shape, dtype):
        ...         print("Init", init.current_name(), shape)
        ...         return rng.uniform(-10, 10, shape)
    """
    return _current.get()


def subject(initializer: object) -> str:
    """How a message names ``initializer``: its repr, and the parameter being drawn if known."""
    name = _current.get()
    return f"{initializer!r}" + (f" (for parameter {name!r})" if name else "")


class Initializer:
    """Base class of everything that makes initial values. Override :meth:`draw`, nothing else.

    Example:
        >>> import numpy as np
        >>> from brickwork import init
        >>> class Checkerboard(init.Initializer):
        ...     def draw(self, rng, shape, dtype):
        ...         return np.indices(shape).sum(0) % 2
        >>> Checkerboard().draw(np.random.default_rng(0), (2, 3), np.float32)
        array([[0, 1, 0],
               [1, 0, 1]])
    """

    def draw(self, rng: np.random.Generator, shape: Shape, dtype: Any) -> Any:
        """Return one array of ``shape``; brickwork converts it to ``dtype`` where it differs.

        Args:
            rng: the only source of randomness to use, so that ``bw.seed`` decides the values.
            shape: the complete shape of the parameter.
            dtype: its NumPy dtype (``bfloat16`` and the like come from ``ml_dtypes``).
        """
        raise TypeError(
            f"{type(self).__name__} does not define draw(self, rng, shape, dtype), which makes the initial values"
        )

    @property
    def ready(self) -> bool:
        """Whether values can be drawn now; not so while they depend on a size that isn't known yet."""
        return True

    def __repr__(self) -> str:
        settings = (f"{k}={v!r}" for k, v in vars(self).items() if not k.startswith("_"))
        return f"{type(self).__name__}({', '.join(settings)})"


class ElementwiseInitializer(Initializer):
    """An initializer whose elements are independent of one another, given the full shape.

    Override :meth:`draw_block` instead of ``draw``. Such an initializer fills large arrays with
    several threads, and a host of a cluster draws only its own slices.

    Example:
        >>> import numpy as np
        >>> from brickwork import init
        >>> class Laplace(init.ElementwiseInitializer):
        ...     def draw_block(self, rng, n, shape, dtype):
        ...         return rng.laplace(size=n)
        >>> Laplace().draw(np.random.default_rng(0), (2, 3), np.float32).shape
        (2, 3)
    """

    def draw_block(self, rng: np.random.Generator, n: int, shape: Shape, dtype: Any) -> Any:
        """Return ``n`` values in a one-dimensional array.

        Args:
            rng: the only source of randomness to use.
            n: how many values; at most 65536 when brickwork calls it.
            shape: the complete shape of the parameter they are for (fans depend on it).
            dtype: the dtype to compute in: ``float32`` also for parameters of fewer bits.
        """
        raise TypeError(
            f"{type(self).__name__} does not define draw_block(self, rng, n, shape, dtype), "
            "which makes the initial values"
        )

    def fill_value(self, dtype: Any) -> Any:
        """The one number that every element gets, or ``None`` if they differ."""
        return None

    def draw(self, rng: np.random.Generator, shape: Shape, dtype: Any) -> Array:
        """All values from the one generator, for use inside another initializer's ``draw``."""
        dtype = np.dtype(dtype)
        value = self.fill_value(dtype)
        if value is not None:
            return np.full(shape, value, dtype)
        values = self.draw_block(rng, math.prod(shape), shape, _working_dtype(dtype))
        return _checked(self, values, (math.prod(shape),), dtype).astype(dtype).reshape(shape)


class constant(ElementwiseInitializer):
    """Every element is ``value``.

    Args:
        value: a Python or NumPy number. It must be one that the parameter's dtype can hold: an
            integer parameter takes ``2.0`` and refuses ``0.5``.

    Example:
        >>> import numpy as np
        >>> from brickwork import init
        >>> init.constant(0.5).draw(np.random.default_rng(0), (2,), np.float32)
        array([0.5, 0.5], dtype=float32)
    """

    def __init__(self, value: complex | np.generic) -> None:
        if not isinstance(value, _NUMBERS):
            raise TypeError(
                f"constant(value) takes one number, got {_brief(value)}; to start from an array, "
                "construct the Parameter from it: Parameter(array)"
            )
        self.value = value.item() if isinstance(value, np.generic) else value

    def fill_value(self, dtype: Any) -> Any:
        """The number itself, where ``dtype`` can hold it."""
        value, dtype = self.value, np.dtype(dtype)
        rank = _rank(dtype)
        if rank < 2 and isinstance(value, float) and value.is_integer():
            value = int(value)
        if rank == 1:
            limits = jax.numpy.iinfo(dtype)
            fits = isinstance(value, int) and limits.min <= value <= limits.max
        else:
            fits = value in (0, 1) or rank == 3 or (rank == 2 and not isinstance(value, complex))
        if not fits:
            raise TypeError(f"{subject(self)}: a parameter of dtype {dtype} cannot hold {value!r}")
        return value


_NUMBERS = (bool, int, float, complex, np.number, np.bool_)


class _FunctionInitializer(Initializer):
    """A JAX-style function ``fn(key, shape, dtype)``, evaluated on the host's CPU device."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn

    def draw(self, rng: np.random.Generator, shape: Shape, dtype: Any) -> Any:
        with jax.ensure_compile_time_eval(), _on_cpu():
            words = jax.numpy.asarray(rng.integers(2**32, size=2, dtype=np.uint32))
            key = jax.random.wrap_key_data(words, impl="threefry2x32")
            return self._fn(key, shape, dtype)

    def __repr__(self) -> str:
        return getattr(self._fn, "__qualname__", None) or repr(self._fn)


def _on_cpu() -> contextlib.AbstractContextManager[Any]:
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
        return contextlib.nullcontext()


_ACCEPTED = (
    "an initializer such as init.normal(0.01), a number, or a function (key, shape, dtype) -> "
    "array such as those of jax.nn.initializers"
)


def as_initializer(obj: Any) -> Initializer:
    """Turn what users pass as ``init=`` into an :class:`Initializer`.

    Args:
        obj: an :class:`Initializer`, or its class if it needs no arguments (``init.zeros``); a
            number, which becomes a constant; or a function ``fn(key, shape, dtype)``.

    Raises:
        TypeError: anything else; the message says what is accepted.

    Example:
        >>> from brickwork._draw import as_initializer
        >>> as_initializer(0.5)
        constant(value=0.5)
    """
    if isinstance(obj, Initializer):
        return obj
    if isinstance(obj, type) and issubclass(obj, Initializer):
        signature = inspect.signature(obj)
        if _binds(signature, 0):
            return obj()
        name = obj.__name__
        raise TypeError(f"init={name} lacks its arguments: pass {name}{_parameters(signature)}")
    if isinstance(obj, _NUMBERS):
        return constant(obj)
    if not callable(obj):
        raise TypeError(f"init= takes {_ACCEPTED}; got {_brief(obj)}")
    try:
        signature = inspect.signature(obj)
    except ValueError:  # built in, does not say
        return _FunctionInitializer(obj)
    if not _binds(signature, 3):
        name = getattr(obj, "__qualname__", None) or repr(obj)
        raise TypeError(
            f"init= takes {_ACCEPTED}; got {name}{_parameters(signature)}, which cannot be called "
            "with (key, shape, dtype). If it makes an initializer, call it first"
        )
    return _FunctionInitializer(obj)


def _binds(signature: inspect.Signature, n: int) -> bool:
    try:
        signature.bind(*[None] * n)
    except TypeError:
        return False
    return True


def _parameters(signature: inspect.Signature) -> str:
    return f"({', '.join(signature.parameters)})"


def _brief(obj: Any) -> str:
    """The type and a short repr of ``obj``, for messages."""
    text = repr(obj)
    return f"{type(obj).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def draw_array(
    initializer: Initializer,
    *,
    seed: int,
    stream: int,
    shape: tuple[int, ...],
    dtype: Any,
    index: tuple[slice, ...] | None = None,
    name: str | None = None,
) -> Array:
    """Draw the initial value of a parameter, or the part ``index`` of it.

    Args:
        initializer: what makes the values.
        seed: any integer from 0 on; taken modulo 2**64.
        stream: the parameter's number; different numbers give independent values.
        shape: the complete shape, also when only a slice is drawn.
        dtype: any dtype that JAX knows.
        index: one slice with step 1 per axis, as shardings give them; ``None`` for everything.
        name: the parameter's path, for messages and :func:`current_parameter`.

    Returns:
        A NumPy array, equal bit for bit to the whole one at ``[index]``.

    Example:
        >>> from brickwork import init
        >>> from brickwork._draw import draw_array
        >>> draw_array(init.ones(), seed=0, stream=0, shape=(2, 3), dtype="float32")
        array([[1., 1., 1.],
               [1., 1., 1.]], dtype=float32)
    """
    key = np.array([_word("seed", seed), _word("stream", stream)], dtype=np.uint64)
    shape, dtype = tuple(operator.index(n) for n in shape), np.dtype(dtype)
    spans = _spans(shape, index)
    token = _current.set(name)
    try:
        if isinstance(initializer, ElementwiseInitializer):
            return _draw_blocks(initializer, key, shape, dtype, spans)
        # Word 2 of the counter sets these draws apart from those of every block.
        values = initializer.draw(_generator(key, (0, 0, 1, 0)), shape, dtype)
        kept = _checked(initializer, values, shape, dtype)[tuple(slice(*s) for s in spans)]
        out = _allocate(np.empty, kept.shape, dtype)
        out[...] = kept
        return out
    finally:
        _current.reset(token)


def _word(what: str, value: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{what} must be an integer, got {_brief(value)}") from None
    if number < 0:
        raise ValueError(f"{what} must not be negative, got {number}")
    return number % 2**64


def _spans(shape: Shape, index: tuple[slice, ...] | None) -> Spans:
    """The (start, stop) that ``index`` selects on each axis."""
    if index is None:
        return tuple((0, n) for n in shape)
    if len(index) != len(shape):
        raise ValueError(f"index needs one slice per axis of shape {shape}, got {index}")
    spans = []
    for axis, (part, n) in enumerate(zip(index, shape)):
        start, stop, step = part.indices(n)
        if step != 1:
            raise ValueError(f"index has step {step} on axis {axis}; only step 1 can be drawn")
        spans.append((start, max(start, stop)))
    return tuple(spans)


def _generator(key: Array, counter: tuple[int, int, int, int]) -> np.random.Generator:
    words = np.array(counter, dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=words))


def _allocate(make: Callable[..., Array], shape: Shape, dtype: np.dtype) -> Array:
    """An array that JAX's CPU backend takes over instead of copying it, by ``np.empty`` or so."""
    size = math.prod(shape) * dtype.itemsize
    raw = make(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def _rank(dtype: np.dtype) -> int:
    """0 bool, 1 integer, 2 real, 3 complex; -1 for what holds no numbers."""
    kinds = (np.bool_, np.integer, np.floating, np.complexfloating)
    return next((i for i, kind in enumerate(kinds) if jax.dtypes.issubdtype(dtype, kind)), -1)


def _working_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype that values for ``dtype`` are drawn in: float32 for narrower floats."""
    return np.dtype(np.float32) if _rank(dtype) == 2 and dtype.itemsize < 4 else dtype


def _checked(initializer: Initializer, values: Any, shape: Shape, dtype: np.dtype) -> Array:
    """``values`` as an array, if an initializer may return them for ``shape`` and ``dtype``."""
    if callable(values):
        raise TypeError(
            f"{subject(initializer)} returned a function, not an array; if it makes an "
            "initializer, call it first and pass the result"
        )
    array = np.asarray(values)
    if array.shape != shape:
        raise ShapeMismatchError(
            f"{subject(initializer)} returned values of shape {array.shape} where {shape} was asked for"
        )
    if not 0 <= _rank(array.dtype) <= _rank(dtype):
        raise TypeError(
            f"{subject(initializer)} returned values of dtype {array.dtype}, which a parameter of "
            f"dtype {dtype} cannot hold"
        )
    return array


def _draw_blocks(initializer: ElementwiseInitializer, key: Array, shape: Shape, dtype: np.dtype, spans: Spans) -> Array:
    """Draw the blocks that ``spans`` touches and keep the elements inside."""
    kept = tuple(stop - start for start, stop in spans)
    value = initializer.fill_value(dtype)
    if value is not None:
        out = _allocate(np.zeros, kept, dtype)  # zero pages cost nothing until written
        if any(np.asarray(value, dtype).tobytes()):
            out[...] = value
        return out
    out = _allocate(np.empty, kept, dtype)
    size, working = math.prod(shape), _working_dtype(dtype)

    def draw_range(start: int, stop: int, into: Array) -> None:
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            first, n = block * BLOCK, min(BLOCK, size - block * BLOCK)
            values = initializer.draw_block(_generator(key, (0, 0, 0, block)), n, shape, working)
            values = _checked(initializer, values, (n,), dtype)
            low, high = max(start, first), min(stop, first + n)
            into[low - start : high - start] = values[low - first : high - first]

    def run(task: _Task) -> None:
        if task.into.size == task.stop - task.start:  # everything in the range is wanted
            draw_range(task.start, task.stop, task.into.reshape(-1))
        else:
            scratch = np.empty(task.stop - task.start, dtype)
            draw_range(task.start, task.stop, scratch)
            task.into[...] = scratch.reshape(task.shape)[task.wanted]

    if out.size:
        _run_all(run, _tasks(shape, spans, out, 0), threads=_threads(out.size))
    return out


class _Task(NamedTuple):
    """A range of positions in C order, the shape it has, what is wanted of it and where it goes."""

    start: int
    stop: int
    shape: Shape
    wanted: tuple[slice, ...]
    into: Array


def _tasks(shape: Shape, spans: Spans, out: Array, offset: int) -> Iterator[_Task]:
    """Cut the selection into ranges of about ``_GROUP`` elements, so that few are drawn in vain."""
    if not shape:
        yield from _tasks((1,), ((0, 1),), out.reshape(1), offset)
        return
    while len(shape) > 1 and spans[-1] == (0, shape[-1]):  # wanted whole: one axis with the last
        (begin, end), last = spans[-2], shape[-1]
        shape = (*shape[:-2], shape[-2] * last)
        spans = (*spans[:-2], (begin * last, end * last))
        out = out.reshape((*out.shape[:-2], -1))
    (begin, end), width = spans[0], math.prod(shape[1:])
    if width >= BLOCK:
        for row in range(begin, end):
            yield from _tasks(shape[1:], spans[1:], out[row - begin], offset + row * width)
        return
    step, wanted = max(1, _GROUP // width), (slice(None), *(slice(*s) for s in spans[1:]))
    for piece in range(begin - begin % step, end, step):
        start, stop = max(piece, begin), min(piece + step, end)
        into = out[start - begin : stop - begin]
        rows = (stop - start, *shape[1:])
        yield _Task(offset + start * width, offset + stop * width, rows, wanted, into)


def _threads(size: int) -> int:
    """How many threads are worth starting for ``size`` elements."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return 1 if size < _PARALLEL_FROM else min(cores or 1, -(-size // _GROUP))


def _run_all(run: Callable[[_Task], None], tasks: Iterator[_Task], threads: int) -> None:
    if threads == 1:
        for task in tasks:
            run(task)
        return
    context = contextvars.copy_context()  # current_parameter() has its value in every thread
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda task: context.copy().run(run, task), tasks))
