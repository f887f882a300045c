"""Shape inference without computing: run a function abstractly and let ``build`` hooks do the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from ._containers import Node
from ._frame import AbstractFrame, all_or_nothing
from ._jax import current_trace, passing
from ._manners import unbox
from ._variable import Variable


def is_box(x: Any) -> bool:
    """Whether a pytree traversal should treat ``x``, a module or a variable, as a whole."""
    return isinstance(x, Variable) or (isinstance(x, Node) and not isinstance(x, (list, dict)))


def dry_run(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Evaluate ``fn`` abstractly: shapes are inferred, nothing is computed, no variable changes.

    Arrays and :func:`brickwork.spec` among the arguments are taken as shapes; everything else is
    passed as it is. Returns the result with ``jax.ShapeDtypeStruct`` in place of arrays.

    Raises:
        ControlFlowError: ``fn`` asks for a value.
    """
    leaves, tree = jax.tree_util.tree_flatten((args, kwargs), is_leaf=is_box)
    abstract = [not is_box(x) and hasattr(x, "shape") and hasattr(x, "dtype") for x in leaves]

    def run(arrays: list[Any]) -> Any:
        given = iter(arrays)
        filled = [next(given) if a else x for a, x in zip(abstract, leaves, strict=True)]
        inner_args, inner_kwargs = jax.tree_util.tree_unflatten(tree, filled)
        with passing(outer), AbstractFrame():
            out = fn(*inner_args, **inner_kwargs)
        parts, shape = jax.tree_util.tree_flatten(out, is_leaf=is_box)
        traced = [isinstance(x, Variable) or hasattr(x, "dtype") for x in parts]
        plain.append((shape, [None if t else x for t, x in zip(traced, parts, strict=True)], traced))
        return [unbox(x) for t, x in zip(traced, parts, strict=True) if t]

    outer = current_trace()
    plain: list[Any] = []  # what isn't an array in the result goes past JAX
    with all_or_nothing():
        arrays = iter(jax.eval_shape(run, [x for a, x in zip(abstract, leaves, strict=True) if a]))
    shape, others, traced = plain[-1]
    return jax.tree_util.tree_unflatten(shape, [next(arrays) if t else x for t, x in zip(traced, others, strict=True)])
