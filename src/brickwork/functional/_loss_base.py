"""What the loss functions share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ..errors import ShapeMismatchError
from . import _checks as checks

if TYPE_CHECKING:
    from jaxtyping import Array


def floats(function: str, **given: Any) -> list[Array]:
    """Return the arguments as arrays, which must be of floating-point numbers."""
    arrays = []
    for name, value in given.items():
        array = checks.to_array(value, function, name)
        checks.require_floats(array, function, name)
        arrays.append(array)
    return arrays


def labels(target: Any, function: str, *, signs: bool = False) -> Array:
    """Return labels as an array; numbers of any kind will do, but booleans not in place of the signs 1 and -1."""
    array = checks.to_array(target, function, "target")
    if signs and array.dtype == bool:
        raise TypeError(
            f"{function}: target holds bool values, but labels are 1 and -1 here. Convert them: "
            f"jnp.where(target, 1, -1). Got {checks.describe(array)}."
        )
    return array


def require_same_shape(function: str, **arrays: Any) -> None:
    """Raise ``ShapeMismatchError`` unless all arrays have one shape: losses broadcast nothing."""
    (first, x), *others = arrays.items()
    for name, other in others:
        if other.shape != x.shape:
            fix = "Reshape one of them."
            if other.size == x.size:
                fix = f"Reshape one of them, e.g. {name}.reshape({first}.shape)."
            names = " and ".join([", ".join(list(arrays)[:-1]), list(arrays)[-1]])
            checks.shape_error(function, f"{names} must have the same shape.", fix, **arrays)


def pair(prediction: Any, target: Any, function: str) -> tuple[Array, Array]:
    """Return a prediction and its target, floats of one shape."""
    prediction, target = floats(function, prediction=prediction, target=target)
    require_same_shape(function, prediction=prediction, target=target)
    return prediction, target


def factor(weight: Any, function: str, argument: str, **like: Any) -> Array | None:
    """Return a weight as an array that broadcasts to the shape of the other."""
    array = checks.optional_array(weight, function, argument)
    if array is None:
        return None
    ((name, x),) = like.items()
    try:
        fits = jnp.broadcast_shapes(array.shape, x.shape) == x.shape
    except ValueError:
        fits = False
    if not fits:
        problem = f"{argument} must broadcast to the shape of {name}."
        checks.shape_error(function, problem, f"Check {argument}, or the data.", **{argument: array, **like})
    return array


def widen(*arrays: Any, like: Array | None = None) -> list[Any]:
    """Cast all to the dtype in which the loss of the first is computed: at least float32."""
    dtype = checks.statistics_dtype((arrays[0] if like is None else like).dtype)
    return [None if a is None else jnp.asarray(a).astype(dtype) for a in arrays]


def reduce(loss: Array, reduction: str, dtype: Any) -> Array:
    """Apply a reduction, and cast."""
    if reduction == "mean":
        loss = loss.mean()
    elif reduction == "sum":
        loss = loss.sum()
    return loss.astype(dtype)


def clamp(x: Array) -> Array:
    """Replace what is negative by zero; the gradient at zero is one, as in PyTorch's losses, and NaN stays."""
    return jnp.where(x < 0, 0, x)


def absolute(x: Array) -> Array:
    """Return the absolute value; the gradient at zero is zero, where that of ``jnp.abs`` is one."""
    return x * jnp.sign(x)


def require_examples(scores: Array, function: str) -> None:
    """Raise ``ShapeMismatchError`` unless the scores are ``(N, C)`` or ``(C,)``."""
    if scores.ndim not in (1, 2):
        problem = f"scores must have the axes (N, C), or (C) for one example, not {scores.ndim} axes."
        checks.shape_error(function, problem, "Reshape the data.", scores=scores)


def indices(target: Any, function: str, argument: str = "target") -> Array:
    """Return integers as an array."""
    array = checks.to_array(target, function, argument)
    if not checks.is_integer(array):
        raise TypeError(
            f"{function}: {argument} must be integers, got {checks.describe(array)}. "
            f"Cast it: {argument}.astype(jnp.int32)."
        )
    return array


def require_vector(x: Array, function: str, name: str) -> None:
    """Raise ``ShapeMismatchError`` for a scalar in place of vectors."""
    if x.ndim == 0:
        raise ShapeMismatchError(
            f"{function}: {name} is a scalar, but its last axis must hold the features. Got {checks.describe(x)}."
        )
