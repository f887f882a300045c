"""Loops that XLA runs: ``scan``, ``fori_loop``, ``while_loop``, with bodies that use state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..core._calls import describe
from ..core._deferred import is_box
from ..core._jax import Tracer, varying_axes
from ..core._manners import unbox
from ..errors import ShapeMismatchError
from ._lift import Carried, Lanes, Split, is_array, split_result
from ._stack import infer_stacks
from ._wrt import infer_shapes


def scan(
    fn: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    *,
    reverse: bool = False,
    unroll: int | bool = 1,
) -> tuple[Any, Any]:
    """A loop over the leading axis of arrays, compiled once for all steps.

    As ``jax.lax.scan``, but ``fn`` may read and write variables and draw random numbers: what it writes
    is carried from step to step, with the result of the Python loop

    .. code-block:: python

        ys = []
        for x in xs:
            carry, y = fn(carry, x)
            ys.append(y)

    Args:
        fn: takes the carry and one step of ``xs``, and returns the new carry and an output.
        init: the carry before the first step, a nest of arrays or numbers. Its structure, shapes and dtypes
            stay the same.
        xs: a nest of arrays ``(length, *)``. A stacked module in it (see :func:`brickwork.stack`) is, in
            each step, the module of that step.
        length: the number of steps; needed when ``xs`` has no arrays.
        reverse: whether to start from the end.
        unroll: how many steps to write out in one turn of the loop; ``True`` for all.

    Returns:
        The last carry, and the outputs along a new leading axis.

    Raises:
        TypeError: ``fn`` returns no pair, or a carry or a variable changes its dtype.
        ShapeMismatchError: leading axes differ, or a carry or a variable changes its shape.

    Example:
        >>> import brickwork as bw
        >>> import jax.numpy as jnp
        >>> seen = bw.Buffer(jnp.zeros(()))
        >>> def step(carry, x):
        ...     seen.value += x
        ...     return carry * x, carry
        >>> carry, ys = bw.scan(step, 1.0, jnp.arange(1.0, 5.0))
        >>> float(carry), ys.tolist(), float(seen)
        (24.0, [1.0, 1.0, 2.0, 6.0], 10.0)
    """
    _require_callable("scan", fn)
    steps = Split(xs, unbox=True)
    length = _length(steps, length)
    infer_stacks(steps.boxes, lambda one: infer_shapes(fn, (init, _first(steps, one)), {}))
    lanes = Lanes("scan", steps.boxes, length, stacked=True)
    if length is None:
        length = lanes.size
    if length is None:
        raise ValueError("scan: give xs or length, from which the number of steps follows")
    return scan_lanes("scan", fn, init, steps, lanes, length, reverse=reverse, unroll=unroll)


def scan_lanes(
    what: str, fn: Callable[[Any, Any], Any], init: Any, steps: Split, lanes: Lanes, length: int, **options: Any
) -> tuple[Any, Any]:
    """:func:`scan` with variables that have a value for each step."""
    start = _start(what, init)
    carried = Carried(what, fn, fills=length > 0)
    outputs: list[Split] = []

    def attempt(values: list[Any]) -> tuple[Any, list[Any]]:
        def step(state: Any, x: Any) -> Any:
            carry, values = state
            result, new, in_lanes = carried.body(
                fn, values, start.fill(carry), steps.fill(x[0]), lanes=lanes, slices=x[1]
            )
            if not isinstance(result, tuple) or len(result) != 2:
                raise TypeError(
                    f"{what}: the function must return a pair (carry, output), got {describe(result)}; "
                    "return None as the output if there is none"
                )
            carry = _same_carry(what, start, carry, result[0])
            output = split_result(what, result[1])
            outputs.append(output.emptied())
            return (carry, new), (output.arrays, in_lanes)

        given = (steps.arrays, lanes.values)
        (carry, new), (arrays, in_lanes) = lax.scan(step, (start.arrays, values), given, length, **options)
        return (carry, arrays, in_lanes), new

    carry, arrays, in_lanes = carried.run(attempt)
    lanes.store(in_lanes)
    return start.fill(carry), outputs[-1].fill(arrays)


def fori_loop(lower: Any, upper: Any, body_fn: Callable[[Any, Any], Any], init: Any) -> Any:
    """``for i in range(lower, upper): carry = body_fn(i, carry)``, compiled once for all turns.

    As ``jax.lax.fori_loop``, but the body may read and write variables and draw random numbers. Bounds may
    be traced; with Python numbers for bounds the loop can be differentiated in reverse.

    Raises:
        TypeError, ShapeMismatchError: a carry or a variable would change its structure, dtype or shape.

    Example:
        >>> import brickwork as bw
        >>> int(bw.fori_loop(0, 5, lambda i, total: total + i, 0))
        10
    """
    _require_callable("fori_loop", body_fn)
    lower, upper = unbox(lower), unbox(upper)
    for name, bound in (("lower", lower), ("upper", upper)):
        if not is_number(bound) or jnp.shape(bound) or not jnp.issubdtype(jnp.result_type(bound), jnp.integer):
            raise TypeError(f"fori_loop: {name} must be an integer, got {describe(bound)}")
    start = _start("fori_loop", init)
    fixed = isinstance(lower, int) and isinstance(upper, int)
    carried = Carried("fori_loop", body_fn, fills=fixed and upper > lower)

    def attempt(values: list[Any]) -> tuple[Any, list[Any]]:
        def turn(i: Any, state: Any) -> Any:
            carry, values = state
            result, new, _ = carried.body(body_fn, values, i, start.fill(carry))
            return _same_carry("fori_loop", start, carry, result), new

        return lax.fori_loop(lower, upper, turn, (start.arrays, values))

    return start.fill(carried.run(attempt))


def while_loop(cond_fn: Callable[[Any], Any], body_fn: Callable[[Any], Any], init: Any) -> Any:
    """``while cond_fn(carry): carry = body_fn(carry)``, compiled once for all turns.

    As ``jax.lax.while_loop``, but both functions may read and write variables and draw random numbers. It
    can't be differentiated in reverse, because the number of turns isn't known; use :func:`brickwork.scan`
    with a fixed number for that.

    Raises:
        TypeError: ``cond_fn`` returns no scalar (a number but 0 is true), or the carry or a variable changes its dtype.
        ShapeMismatchError: the carry or a variable changes its shape.

    Example:
        >>> import brickwork as bw
        >>> float(bw.while_loop(lambda x: x > 1, lambda x: x / 2, 10.0))
        0.625
    """
    _require_callable("while_loop", cond_fn, body_fn)
    start = _start("while_loop", init)
    carried = Carried("while_loop", cond_fn, body_fn)

    def test(carry: Any, values: list[Any]) -> tuple[Any, list[Any]]:
        pred, new, _ = carried.body(cond_fn, values, start.fill(carry))
        return truth("while_loop: the condition", pred), new

    def attempt(values: list[Any]) -> tuple[Any, list[Any]]:
        # The condition is part of the body, so that it may write too: it is asked once more than there are turns.
        def turn(state: Any) -> Any:
            _, carry, values = state
            result, values, _ = carried.body(body_fn, values, start.fill(carry))
            carry = _same_carry("while_loop", start, carry, result)
            pred, values = test(carry, values)
            return pred, carry, values

        pred, values = test(start.arrays, values)
        carried.alone = varying_axes(pred)
        _, carry, values = lax.while_loop(lambda state: state[0], turn, (pred, start.arrays, values))
        return carry, values

    return start.fill(carried.run(attempt))


def truth(what: str, value: Any) -> Any:
    """A condition as a boolean scalar: traced if the value is, else NumPy's."""
    value = unbox(value)
    if not is_number(value):
        raise TypeError(f"{what} must be a boolean, got {describe(value)}")
    if jnp.shape(value) != ():
        raise TypeError(f"{what} must be a scalar, got {describe(value)}; use .any() or .all()")
    array = value if isinstance(value, Tracer) else np.asarray(value)
    return array if array.dtype == bool else array != 0


def is_number(x: Any) -> bool:
    """Whether ``x`` is an array of numbers or a Python number."""
    if isinstance(x, (bool, int, float, complex)):
        return True
    return is_array(x) and (x.dtype == bool or jnp.issubdtype(x.dtype, jnp.number))


def _require_callable(what: str, *fns: Any) -> None:
    for fn in fns:
        if not callable(fn):
            raise TypeError(f"{what}: expected a function, got {describe(fn)}")


def _start(what: str, init: Any) -> Split:
    start = Split(init, numbers=True, unbox=True)
    if start.boxes:
        raise TypeError(
            f"{what}: init holds a {type(start.boxes[0]).__name__}; modules keep their own state, so the body may "
            "use and change them without carrying them"
        )
    start.arrays = [jnp.asarray(x) for x in start.arrays]
    return start


def _length(steps: Split, length: int | None) -> int | None:
    if length is not None and (isinstance(length, bool) or not isinstance(length, (int, np.integer)) or length < 0):
        raise TypeError(f"scan: length must be a non-negative integer, got {length!r}")
    for array in steps.arrays:
        if not array.ndim:
            raise ShapeMismatchError("scan: xs holds a scalar, which has no leading axis; close over it instead")
        if length is not None and array.shape[0] != length:
            raise ShapeMismatchError(
                f"scan: an array in xs has shape {array.shape}, so {array.shape[0]} steps, but there are {length} "
                "by the others or by length="
            )
        length = array.shape[0]
    return length


def _first(steps: Split, one: Callable[[Any], Any]) -> Any:
    """What the first step gets, with shapes in the place of arrays and ``one(stack)`` in that of stacks."""
    shapes = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in steps.arrays]
    return jax.tree_util.tree_map(one, steps.fill(shapes), is_leaf=is_box)


def _same_carry(what: str, start: Split, before: list[Any], new: Any) -> list[Any]:
    """The arrays of a new carry, which must be like the one before."""
    after = Split(new, numbers=True, unbox=True)
    if after.tree != start.tree or after.static != start.static:
        raise TypeError(
            f"{what}: the carry was {describe(start.fill(before))} and became {describe(new)}; its structure must "
            "stay the same"
        )
    arrays = []
    for i, (old, x) in enumerate(zip(before, after.arrays, strict=True)):
        x = jnp.asarray(x)
        part = f" (part {i})" if len(before) > 1 else ""
        if old.shape != x.shape:
            raise ShapeMismatchError(f"{what}: the carry{part} was {describe(old)} and became {describe(x)}")
        if old.dtype != x.dtype and x.weak_type and _rank(x) <= _rank(old):
            x = x.astype(old.dtype)  # a Python number takes the dtype of what it meets
        if old.dtype != x.dtype and not (old.weak_type and _rank(old) <= _rank(x)):
            raise TypeError(
                f"{what}: the carry{part} was {describe(old)} and became {describe(x)}; convert it with .astype"
            )
        arrays.append(x)
    return arrays


def _rank(x: Any) -> int:
    """Where the dtype stands in the order boolean, integer, floating, complex."""
    kinds = (jnp.integer, jnp.floating, jnp.complexfloating)
    return next((i for i, kind in enumerate(kinds, 1) if jnp.issubdtype(x.dtype, kind)), 0)
