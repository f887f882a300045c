"""The dense layer's computation, and reshaping."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

from ..errors import ShapeMismatchError
from . import _checks as checks

if TYPE_CHECKING:
    from jaxtyping import Array, Num

    from ._types import ArrayLike


def linear(
    x: Num[ArrayLike, "*batch in"],
    weight: Num[ArrayLike, "out in"],
    bias: Num[ArrayLike, " out"] | None = None,
) -> Num[Array, "*batch out"]:
    r"""Apply an affine map to the last axis.

    .. math:: y = x W^T + b

    Args:
        x: data of shape ``(*, in)``; any number of leading axes, also none.
        weight: ``(out, in)``.
        bias: ``(out,)``, or ``None``.

    Returns:
        Array of shape ``(*, out)``.

    Raises:
        ShapeMismatchError: the widths of ``x``, ``weight`` and ``bias`` do not fit.
        TypeError: an argument is not an array, or ``x`` holds integers and ``weight`` floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.linear(jnp.ones((2, 3)), jnp.ones((4, 3)), jnp.zeros(4)).shape
        (2, 4)

    Reference:
        ``torch.nn.functional.linear``. Leading axes are folded into one before the product:
        XLA then hands both the product and its gradient to the matrix library without copies.
    """
    x = checks.to_array(x, "linear", "x")
    weight = checks.to_array(weight, "linear", "weight")
    bias = checks.optional_array(bias, "linear", "bias")
    shape, width = x.shape, weight.shape
    if len(width) != 2 or not shape or shape[-1] != width[1]:
        _wrong_shape(x, weight)
    if bias is not None and bias.shape != width[:1]:
        checks.require_length(bias, width[0], "linear", "bias", "output feature", weight=weight)
    if x.dtype != weight.dtype:
        checks.require_castable(x, weight, "linear")
    return _linear(x, weight, bias)


def _wrong_shape(x: Array, weight: Array) -> None:
    if weight.ndim != 2:
        checks.shape_error(
            "linear",
            f"weight must have 2 axes (out, in), not {weight.ndim}.",
            "Reshape the weight.",
            weight=weight,
        )
    if x.ndim == 0:
        checks.shape_error(
            "linear",
            f"x is a scalar, but its last axis must hold {weight.shape[1]} features.",
            "Pass an array of shape (*, features).",
            x=x,
            weight=weight,
        )
    expected = weight.shape[1]
    fix = f"Check the data, or make the layer for {x.shape[-1]} input features."
    if math.prod(x.shape[-3:]) == expected or math.prod(x.shape[1:]) == expected:
        fix = "Flatten the data first, e.g. with nn.Flatten()."
    elif expected in x.shape:
        fix = f"The features seem to be axis {x.shape.index(expected)}; move them to the end."
    checks.shape_error(
        "linear",
        f"x has {x.shape[-1]} features in its last axis, but weight of shape {weight.shape} expects {expected}.",
        fix,
        x=x,
    )


@jax.jit
def _linear(x: Array, weight: Array, bias: Array | None) -> Array:
    dtype = jnp.result_type(x, weight)
    x, weight = x.astype(dtype), weight.astype(dtype)
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    out = lax.dot_general(rows, weight, (((1,), (1,)), ((), ())))
    out = out.reshape(*x.shape[:-1], weight.shape[0])
    return out if bias is None else out + bias


def flatten(x: ArrayLike, start_dim: int = 0, end_dim: int = -1) -> Array:
    r"""Merge the axes from ``start_dim`` to ``end_dim`` (both included) into one.

    .. math:: (d_0, \dots, d_s, \dots, d_e, \dots) \to (d_0, \dots, \prod_{i=s}^{e} d_i, \dots)

    Args:
        x: any array; a scalar becomes a vector of one element.
        start_dim: first axis to merge; may be negative.
        end_dim: last axis to merge; may be negative.

    Returns:
        The same elements in row-major order.

    Raises:
        ShapeMismatchError: an axis does not exist, or ``end_dim`` comes before ``start_dim``.
        TypeError: ``x`` is not an array, or an axis is not an int.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.flatten(jnp.ones((2, 3, 4, 5)), 1).shape
        (2, 60)

    Reference:
        ``torch.flatten``.
    """
    x = checks.to_array(x, "flatten", "x")
    start = checks.axis(start_dim, x.ndim, "flatten", "start_dim")
    end = checks.axis(end_dim, x.ndim, "flatten", "end_dim")
    if end < start:
        raise ShapeMismatchError(
            f"flatten: end_dim={end_dim} comes before start_dim={start_dim}. Got x: {checks.describe(x)}."
        )
    return _flatten(x, start=start, end=end)


@functools.partial(jax.jit, static_argnames=("start", "end"))
def _flatten(x: Array, *, start: int, end: int) -> Array:
    merged = math.prod(x.shape[start : end + 1])
    return jnp.reshape(x, (*x.shape[:start], merged, *x.shape[end + 1 :]))
