"""Variables as pytrees: each is one leaf, its value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import jax

from ._frame import expected_stamp
from ._jax import Tracer

if TYPE_CHECKING:
    from ._variable import Variable

Stack: TypeAlias = tuple[int, int] | None


def _flatten(variable: Variable) -> tuple[tuple[Any], tuple[type, bool, bool, Stack]]:
    return (leaf(variable),), (type(variable), variable._trainable, variable.persistent, stack_of(variable))


def leaf(variable: Variable) -> Any:
    """What a variable is in a pytree.

    JAX takes apart what a transform returns when its trace has ended already, where a copy that the transform made
    can't be read any more, but is still what was returned.
    """
    return variable._value if variable._copy and variable.is_drawn else variable.value


def stack_of(variable: Variable) -> Stack:
    """What a pytree notes of a stack: how many of its axes count separate values, and how many it has in all."""
    return (variable._stacked, len(variable._shape)) if variable._stacked else None


def _unflatten(settings: tuple[type, bool, bool, Stack], leaves: Any) -> Variable:
    kind, trainable, persistent, stack = settings
    new = revive(object.__new__(kind), leaves[0], trainable, stack)
    if not persistent:
        new.persistent = False
    return new


def revive(new: Any, value: Any, trainable: bool, stack: Stack = None) -> Any:
    """Fill a bare variable from a pytree leaf, which may be a tracer or a placeholder of JAX's."""
    new._setup()
    new._value, new._trainable = value, trainable
    new._shape = getattr(value, "shape", ())
    new._dtype = getattr(value, "dtype", None)
    new.lend()
    new._copy = new._trace is not None and new._trace != expected_stamp()
    if stack is not None:
        new._stacked, rank = stack
        missing = max(rank - getattr(value, "ndim", rank), 0)
        if isinstance(value, Tracer):  # in a lane or turn of JAX's, which has one of the values; it is a stack outside
            new._shape = (*(None,) * missing, *new._shape)
        else:  # one that was taken out
            new._stacked = max(new._stacked - missing, 0)
    return new


def register(cls: type) -> None:
    """Make a class of variables a pytree of one leaf."""
    # The class travels as auxiliary data, so one pair of functions serves all kinds.
    jax.tree_util.register_pytree_node(cls, _flatten, _unflatten)
