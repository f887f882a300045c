"""Branches that XLA chooses between: ``cond`` and ``switch``, with bodies that use state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..core._calls import describe
from ..core._jax import Tracer, varying_axes
from ..core._manners import unbox
from ._lift import Carried, NewWrites, Split, split_result, unboxed
from ._loops import is_number, truth


def cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], *operands: Any) -> Any:
    """``true_fn(*operands) if pred else false_fn(*operands)``, decided when the program runs.

    As ``jax.lax.cond``, but the branches may read and write variables and draw random numbers: a variable
    that the chosen branch doesn't write keeps its value. Where ``pred`` is known, only the chosen branch is
    run, as in Python.

    Args:
        pred: a boolean scalar.
        true_fn, false_fn: functions of the operands whose results have the same structure, shapes and dtypes.
        *operands: passed to the branch: arrays, and anything else.

    Raises:
        TypeError: ``pred`` is not a scalar; the results of the branches differ in structure or dtype.

    Example:
        >>> import brickwork as bw
        >>> import jax.numpy as jnp
        >>> @bw.compile
        ... def root(x):
        ...     return bw.cond(x >= 0, jnp.sqrt, jnp.zeros_like, x)
        >>> root(jnp.asarray(4.0)).tolist(), root(jnp.asarray(-1.0)).tolist()
        (2.0, 0.0)
    """
    for fn in (true_fn, false_fn):
        if not callable(fn):
            raise TypeError(f"cond: expected a function for each branch, got {describe(fn)}")
    pred = truth("cond: pred", pred)
    if not isinstance(pred, Tracer):
        return unboxed((true_fn if pred else false_fn)(*operands))
    return _choose("cond", pred.astype(jnp.int32), (false_fn, true_fn), operands)


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """``branches[index](*operands)``, decided when the program runs.

    As ``jax.lax.switch``: an index out of range is taken to the nearest branch. The branches may read and
    write variables and draw random numbers, as in :func:`cond`.

    Raises:
        TypeError: ``index`` is not an integer scalar; the results of the branches differ.
        ValueError: there are no branches.

    Example:
        >>> import brickwork as bw
        >>> import jax.numpy as jnp
        >>> @bw.compile
        ... def f(i, x):
        ...     return bw.switch(i, [jnp.sin, jnp.cos, jnp.negative], x)
        >>> f(jnp.asarray(2), jnp.asarray(3.0)).tolist()
        -3.0
    """
    branches = tuple(branches)
    if not branches:
        raise ValueError("switch: there are no branches")
    for fn in branches:
        if not callable(fn):
            raise TypeError(f"switch: expected a function for each branch, got {describe(fn)}")
    index = unbox(index)
    if not is_number(index) or jnp.shape(index) or not jnp.issubdtype(jnp.result_type(index), jnp.integer):
        raise TypeError(f"switch: index must be an integer scalar, got {describe(index)}")
    if not isinstance(index, Tracer):
        return unboxed(branches[min(max(int(index), 0), len(branches) - 1)](*operands))
    return _choose("switch", jnp.clip(index, 0, len(branches) - 1).astype(jnp.int32), branches, operands)


def _choose(what: str, index: Any, branches: tuple[Callable[..., Any], ...], operands: tuple[Any, ...]) -> Any:
    given = Split(operands)
    carried = Carried(what, *branches)
    carried.alone = varying_axes(index)
    results: dict[int, Split] = {}

    def pure(i: int) -> Callable[..., Any]:
        def branch(arrays: list[Any], values: list[Any]) -> Any:
            result, new, _ = carried.body(branches[i], values, *given.fill(arrays))
            parts = split_result(what, result)
            results[i] = parts.emptied()
            results[i].arrays = [_lasting(x) for x in parts.arrays]
            _require_alike(what, results, i)
            return parts.arrays, new

        return branch

    def attempt(values: list[Any]) -> Any:
        try:
            return lax.switch(index, [pure(i) for i in range(len(branches))], given.arrays, values)
        except NewWrites as first:  # look at the other branches as well before trying again
            raise NewWrites(_all_writes(first, [pure(i) for i in range(len(branches))], given.arrays, values)) from None

    arrays = carried.run(attempt)
    return results[0].fill(arrays)


def _all_writes(first: NewWrites, branches: list[Callable[..., Any]], arrays: Any, values: Any) -> list[Any]:
    found = {id(v): (v, shapes) for v, shapes in first.found}
    for branch in branches:
        try:
            jax.eval_shape(branch, arrays, values)
        except NewWrites as more:
            found.update({id(v): (v, shapes) for v, shapes in more.found})
    return list(found.values())


def _lasting(x: Any) -> Any:
    """What can be kept of a result when its trace has ended."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=x.weak_type) if isinstance(x, Tracer) else x


def _require_alike(what: str, results: dict[int, Split], i: int) -> None:
    """Compare the result of branch ``i`` with that of the first."""
    first, this = results.get(0), results[i]
    if first is None or i == 0:
        return
    names = ("false_fn", "true_fn") if what == "cond" else tuple(f"branch {n}" for n in range(i + 1))
    alike = first.tree == this.tree and first.static == this.static
    shapes = [(jnp.shape(x), jnp.result_type(x)) for x in first.arrays] == [
        (jnp.shape(x), jnp.result_type(x)) for x in this.arrays
    ]
    if not alike or not shapes:
        raise TypeError(
            f"{what}: the branches must give results of the same structure, shapes and dtypes, but {names[0]} gives "
            f"{describe(first.fill(first.arrays))} and {names[i]} {describe(this.fill(this.arrays))}"
            + _first_difference(first, this)
        )


def _first_difference(first: Split, this: Split) -> str:
    """Where in a nest two results differ, and how; they may be too large to be shown in full."""
    before, after = (dict(_leaves(split)) for split in (first, this))
    if list(before) == [""] or list(after) == [""]:
        return ""
    for path in (*before, *after):
        a, b = (describe(d[path]) if path in d else "nothing" for d in (before, after))
        if a != b:
            return f"; they differ at result{path}: {a} and {b}"
    return ""


def _leaves(split: Split) -> Iterator[tuple[str, Any]]:
    tree = split.fill(split.arrays)
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is None)[0]:
        yield jax.tree_util.keystr(path), leaf
