"""Argument checks shared by the functions of this package.

They run on every eager call, so the common case must cost next to nothing: an array is
recognised by its concrete type, and text is only put together once something is wrong.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ShapeMismatchError

if TYPE_CHECKING:
    from jaxtyping import Array

Geometry = TypeVar("Geometry")

# Concrete classes of jax.Array that have been seen (the array itself and the tracers), and classes
# of boxes around one. Learned instead of listed, because those of JAX have no public name; there
# are only a handful.
_array_types: set[type] = set()
_box_types: set[type] = set()


def to_array(x: Any, function: str, argument: str) -> Array:
    """Return ``x`` as something JAX computes with, or raise a ``TypeError`` that says how.

    JAX arrays and tracers are returned as they are; Variables give their value; NumPy arrays of
    numbers and Python numbers are accepted.
    """
    if type(x) in _array_types:
        return x
    return _to_array_slowly(x, function, argument)


def optional_array(x: Any, function: str, argument: str) -> Array | None:
    """Return ``to_array(x)``, and ``None`` for ``None``."""
    if x is None or type(x) in _array_types:
        return x
    return _to_array_slowly(x, function, argument)


def _to_array_slowly(x: Any, function: str, argument: str) -> Array:
    if type(x) in _box_types:
        return x.__jax_array__()
    if isinstance(x, jax.Array):
        _array_types.add(type(x))
        return x
    if hasattr(type(x), "__jax_array__"):
        _box_types.add(type(x))
        return x.__jax_array__()
    if isinstance(x, (np.ndarray, np.generic)):
        if not _is_numeric(x.dtype):
            raise TypeError(
                f"{function}: {argument} is a NumPy array of dtype {x.dtype}, which JAX cannot "
                f"compute with. Convert it to numbers first, e.g. {argument}.astype('float32')."
            )
        return cast("Array", x)  # jit converts it
    if isinstance(x, (bool, int, float, complex)):
        return jnp.asarray(x)
    raise TypeError(f"{function}: {argument} must be an array, got {_name(x)}. {_advice(x)}")


def shape_of(x: Any, function: str, argument: str = "x") -> tuple[int, ...]:
    """Return the shape of an array, abstract or concrete; complain as ``to_array`` does."""
    shape = getattr(x, "shape", None)
    return to_array(x, function, argument).shape if shape is None else tuple(shape)


def _is_numeric(dtype: np.dtype) -> bool:
    return dtype.kind in "fiubc" or jnp.issubdtype(dtype, np.number)


def _name(x: Any) -> str:
    if x is None:
        return "None"
    kind = type(x)
    if kind.__module__ in ("builtins", "__main__"):
        return f"a {kind.__qualname__}"
    return f"a {kind.__module__.partition('.')[0]} {kind.__qualname__}"


def _advice(x: Any) -> str:
    if x is None:
        return "Pass the array; a function without a return statement returns None."
    if hasattr(x, "batch_sizes"):  # PyTorch's PackedSequence
        return "Pass the padded array, with lengths= for sequences of different lengths."
    if isinstance(x, (list, tuple)):
        return "Convert it with jnp.asarray(...), or jnp.stack(...) for a list of arrays."
    if isinstance(x, dict):
        return "Pass one of its values."
    if isinstance(x, jax.ShapeDtypeStruct):
        return "An abstract array holds no values; use net.initialize(spec) or jax.eval_shape."
    if hasattr(x, "forward"):
        return "Call the module on an array and pass its output."
    if hasattr(x, "__array__") or hasattr(x, "__dlpack__"):
        return "Convert it with jnp.asarray(...)."
    return "Convert it with jnp.asarray(...) if it holds numbers."


def describe(x: Any) -> str:
    """Return the dtype and shape of an array as ``float32[2, 21]``."""
    x = x if hasattr(x, "shape") else jnp.asarray(x)  # a number of Python
    return f"{x.dtype}[{', '.join(map(str, x.shape))}]"


def shape_error(function: str, problem: str, fix: str, **arrays: Any) -> NoReturn:
    """Raise ``ShapeMismatchError``: what is wrong, what was got, what would be right."""
    got = ", ".join(f"{name}: {describe(x)}" for name, x in arrays.items() if x is not None)
    raise ShapeMismatchError(f"{function}: {problem} Got {got}. {fix}")


def is_integer(x: Any) -> bool:
    """Tell whether the array holds integers (booleans do not count)."""
    kind = x.dtype.kind
    return kind in "iu" or (kind == "V" and jnp.issubdtype(x.dtype, jnp.integer))


def is_inexact(x: Any) -> bool:
    """Tell whether the array holds floating-point or complex numbers."""
    kind = x.dtype.kind
    return kind in "fc" or (kind == "V" and jnp.issubdtype(x.dtype, jnp.inexact))


def require_inexact(x: Any, function: str, argument: str) -> None:
    """Raise ``TypeError`` when ``x`` holds integers or booleans where floats are needed."""
    if not is_inexact(x):
        raise TypeError(
            f"{function}: {argument} holds {x.dtype} values, but floating-point values are "
            f"needed. Cast it: {argument}.astype(jnp.float32). Got {describe(x)}."
        )


def require_real(x: Any, function: str, argument: str) -> None:
    """Raise ``TypeError`` when ``x`` holds complex numbers, which have no order."""
    if x.dtype.kind == "c":
        raise TypeError(
            f"{function}: {argument} must hold real numbers, got {describe(x)}. Take {argument}.real or "
            f"jnp.abs({argument}), or both parts: jnp.stack([{argument}.real, {argument}.imag], 1)."
        )


def require_floats(x: Any, function: str, argument: str) -> None:
    """Raise ``TypeError`` when ``x`` holds anything but real floating-point numbers."""
    require_real(x, function, argument)
    require_inexact(x, function, argument)


def as_inexact(x: Array) -> Array:
    """Return integers and booleans as floating-point numbers, and others as they are."""
    return x if is_inexact(x) else x.astype(jnp.result_type(float))


def require_integer(x: Any, function: str, argument: str) -> None:
    """Raise ``TypeError`` when ``x`` holds anything but integers."""
    if not is_integer(x):
        raise TypeError(
            f"{function}: {argument} must be integers, got {describe(x)}. Cast them: {argument}.astype(jnp.int32)."
        )


def as_index(x: Array) -> Array:
    """Return integers of any dtype as int32, so that what they index can be counted in their dtype.

    One that doesn't fit becomes the nearest that does, which is out of range as well.
    """
    if x.dtype.itemsize < 4 or x.dtype == jnp.int32:
        return x.astype(jnp.int32)
    ends = jnp.iinfo(jnp.int32)
    x = jnp.minimum(x, ends.max)
    return (jnp.maximum(x, ends.min) if jnp.issubdtype(x.dtype, jnp.signedinteger) else x).astype(jnp.int32)


def equals(x: Array, number: int) -> Array:
    """Return ``x == number`` for integers, whose dtype need not have that number."""
    ends = jnp.iinfo(x.dtype)
    return x == jnp.asarray(number, x.dtype) if ends.min <= number <= ends.max else jnp.zeros_like(x, bool)


def host_array(x: Any) -> np.ndarray | None:
    """Return an array whose values can be looked at for nothing, one of NumPy; ``None`` for others."""
    return x if isinstance(x, np.ndarray) else None


def require_index(
    x: Any, count: int, function: str, argument: str, of: str, *, least: int = 0, but: Any = None
) -> None:
    """Raise ``IndexError`` for a known index outside of ``[least, count)`` other than ``but``.

    Args:
        x: integers; those that are known are in NumPy arrays.
        count: the number of what they index.
        function: what the message names.
        argument: the name of ``x``.
        of: what they index, such as ``"rows of weight"``.
        least: the smallest index.
        but: one that is allowed nevertheless.
    """
    host = host_array(x)
    if host is None or not host.size or (host.min() >= least and host.max() < count):
        return
    bad = (host < least) | (host >= count)
    if but is not None:
        bad &= host != but
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        at = f" at {list(place)}" if place else ""
        allowed = f"{least} to {count - 1}" if count > least else "none"
        rest = "" if but is None else f", or {but}"
        raise IndexError(
            f"{function}: {argument} holds {int(host[place])}{at}, which is out of range: expected {allowed}{rest}, "
            f"the {of}."
        )


def require_castable(x: Any, weight: Any, function: str, argument: str = "x") -> None:
    """Raise ``TypeError`` for integer data that meets floating-point weights."""
    if x.dtype.kind in "iub" and is_inexact(weight):
        raise TypeError(
            f"{function}: {argument} holds {x.dtype} values, but weight is {weight.dtype}. "
            f"Cast it: {argument}.astype(jnp.{weight.dtype}). Got {describe(x)}."
        )


def require_length(v: Any, length: int, function: str, argument: str, what: str, **context: Any) -> None:
    """Raise ``ShapeMismatchError`` unless ``v`` is ``None`` or a vector of ``length``."""
    if v is not None and v.shape != (length,):
        shape_error(
            function,
            f"{argument} must have shape ({length},), one value per {what}.",
            f"Check {argument}, or the data.",
            **{argument: v, **context},
        )


_AXES = {1: "L", 2: "H, W", 3: "D, H, W"}  # PyTorch's letters
_KINDS = {1: "sequence", 2: "image", 3: "volume"}


def require_spatial(x: Any, ndim: int, function: str) -> None:
    """Raise ``ShapeMismatchError`` unless ``x`` has ``ndim`` axes besides channels, and perhaps a batch."""
    rank = len(shape_of(x, function))
    if rank not in (ndim + 1, ndim + 2):
        fix = "Add the missing axes, or reshape the data."
        if rank == ndim:
            fix = f"Add a channel axis to the {_KINDS[ndim]}: x[None]."
        axes = _AXES[ndim]
        expected = f"{ndim + 2} axes (N, C, {axes}), or {ndim + 1} axes (C, {axes})"
        shape_error(function, f"x must have {expected}, not {rank}.", fix, x=x)


def channels_first(x: Any, ndim: int) -> str:
    """Return the code that brings data of ``ndim`` spatial axes from channels-last to channels-first."""
    batch = len(x.shape) - ndim - 1
    order = (*range(batch), batch + ndim, *range(batch, batch + ndim))
    return f"jnp.transpose(x, {order})"


def window_too_large(x: Array, function: str, kernel: tuple[int, ...], dilations: Any, pads: Any) -> NoReturn:
    """Raise for a window that does not fit into the padded input."""
    ndim = len(kernel)
    kind = _KINDS[ndim]
    fix = f"Use a larger {kind}, more padding or a smaller kernel."
    if x.shape[-1] < min(x.shape[-ndim - 1 : -1]):
        fix = f"If the data is channels-last, make it channels-first: {channels_first(x, ndim)}."
    padded = " x ".join(str(n + sum(p)) for n, p in zip(x.shape[-ndim:], pads, strict=True))
    window = " x ".join(str(d * (k - 1) + 1) for d, k in zip(dilations, kernel, strict=True))
    shape_error(function, f"the window {window} is larger than the padded {kind} {padded}.", fix, x=x)


def axis(dim: Any, ndim: int, function: str, argument: str = "dim") -> int:
    """Return ``dim`` as a non-negative axis of an array of ``ndim`` dimensions."""
    if type(dim) is not int:
        dim = integer(dim, function, argument)
    axes = max(ndim, 1)  # a scalar counts as a vector of one element
    if not -axes <= dim < axes:
        allowed = f"-{ndim} to {ndim - 1}" if ndim else "0 or -1"
        raise ShapeMismatchError(
            f"{function}: {argument}={dim} is no axis of an array of {ndim} dimensions; expected {allowed}."
        )
    return dim % axes


def integer(value: Any, function: str, argument: str, minimum: int | None = None) -> int:
    """Return ``value`` as an ``int`` (NumPy integers are fine, booleans and floats are not)."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{function}: {argument} must be an int, got {value!r} ({type(value).__name__}).") from None
    if minimum is not None and number < minimum:
        raise ValueError(f"{function}: {argument} must be at least {minimum}, got {number}.")
    return number


def number(
    value: Any,
    function: str,
    argument: str,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    *,
    above: float | None = None,
) -> float:
    """Return a Python or NumPy number as a ``float``; NaN, booleans, strings and arrays are refused."""
    if type(value) is not float:
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (float, int, np.floating, np.integer)):
            raise TypeError(f"{function}: {argument} must be a number, got {value!r} ({type(value).__name__}).")
        value = float(value)
    if above is not None and not value > above:
        raise ValueError(f"{function}: {argument} must be greater than {above:g}, got {value!r}.")
    if minimum <= value <= maximum:
        return value
    if math.isnan(value):
        raise ValueError(f"{function}: {argument} must be a number, got nan.")
    if maximum == math.inf:
        raise ValueError(f"{function}: {argument} must be at least {minimum:g}, got {value!r}.")
    raise ValueError(f"{function}: {argument} must be in [{minimum:g}, {maximum:g}], got {value!r}.")


def nonzero(value: Any, function: str, argument: str) -> float:
    """Return a number as a ``float``; zero is refused."""
    found = number(value, function, argument)
    if found == 0:
        raise ValueError(f"{function}: {argument} must not be 0.")
    return found


def flag(value: Any, function: str, argument: str) -> bool:
    """Return a switch as a ``bool``; it chooses the program, so it can't be an array. Numbers are no switches."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{function}: {argument} must be True or False, got {value!r:.60} ({type(value).__name__}).")
    return bool(value)


def require_key(key: Any, function: str) -> None:
    """Raise ``TypeError`` unless ``key`` is a random key."""
    if not hasattr(key, "dtype") or not (key.dtype == np.uint32 or jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        advice = " There is no argument `training`: call it in training mode only." if isinstance(key, bool) else ""
        raise TypeError(f"{function}: key must be a random key such as jax.random.key(0), got {key!r}.{advice}")


_TUPLES = {1: "an int", 2: "an int or a pair (height, width)", 3: "an int or a triple (depth, height, width)"}


def sizes(value: Any, ndim: int, function: str, argument: str, minimum: int = 1) -> tuple[int, ...]:
    """Return an int, or one int for each of ``ndim`` spatial axes, as a tuple of ``ndim``."""
    if isinstance(value, (tuple, list)):
        if len(value) != ndim:
            raise ValueError(f"{function}: {argument} must be {_TUPLES[ndim]}, got {value!r}.")
        return tuple(integer(v, function, argument, minimum) for v in value)
    return (integer(value, function, argument, minimum),) * ndim


def cached(geometry: Callable[..., Geometry], *options: Any) -> Geometry:
    """Call a function with an ``lru_cache``, with tuples in place of lists."""
    try:
        return geometry(*options)
    except TypeError:
        if list not in map(type, options):
            raise
    return geometry(*(tuple(v) if isinstance(v, list) else v for v in options))


def reduction(value: str, function: str) -> str:
    """Check the name of a reduction."""
    if value not in ("mean", "sum", "none"):
        raise ValueError(f"{function}: reduction must be 'mean', 'sum' or 'none', got {value!r}.")
    return value


def statistics_dtype(dtype: Any) -> Any:
    """Return the dtype in which sums over an array of ``dtype`` are taken: at least float32."""
    return dtype if dtype.itemsize >= 4 else np.dtype(np.float32)


def in_float32(function: Callable[..., Array]) -> Callable[..., Array]:
    """Let a function of one array compute in at least float32, and return the dtype of its input.

    XLA fuses the casts, so they cost nothing.
    """

    @functools.wraps(function)
    def wide(x: Array, **options: Any) -> Array:
        return function(x.astype(statistics_dtype(x.dtype)), **options).astype(x.dtype)

    return wide


def epsilon(value: Any, function: str, argument: str = "eps") -> float:
    """Return a number of at least zero, to be added to a variance, as a ``float``."""
    return value if type(value) is float and value >= 0 else number(value, function, argument, 0)
