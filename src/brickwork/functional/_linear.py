"""The dense layer's computation, and reshaping."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from ..errors import ShapeMismatchError
from . import _checks as checks
from ._explicit import left_to_xla, products

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
        weight: ``(out, in)``; or ``(in,)`` for a single output without an axis of its own.
        bias: ``(out,)``, a scalar for a weight ``(in,)``, or ``None``.

    Returns:
        Array of shape ``(*, out)``, or ``(*,)``.

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
    if len(width) == 1:
        if bias is not None and bias.ndim:
            problem = "bias must be a scalar, since weight has one axis (in,)."
            checks.shape_error("linear", problem, "Give weight the axis of its outputs: weight[None].", bias=bias)
        return linear(x, weight[None], None if bias is None else bias[None])[..., 0]
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
            f"weight must have 2 axes (out, in), or 1 axis (in,), not {weight.ndim}.",
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
@functools.partial(left_to_xla, divided=products)
def _linear(x: Array, weight: Array, bias: Array | None) -> Array:
    dtype = jnp.result_type(x, weight)
    x, weight = x.astype(dtype), weight.astype(dtype)
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    out = lax.dot_general(rows, weight, (((1,), (1,)), ((), ())))
    out = out.reshape(*x.shape[:-1], weight.shape[0])
    return out if bias is None else out + bias


def bilinear(
    x1: Num[ArrayLike, "*batch in1"],
    x2: Num[ArrayLike, "*batch in2"],
    weight: Num[ArrayLike, "out in1 in2"],
    bias: Num[ArrayLike, " out"] | None = None,
) -> Num[Array, "*batch out"]:
    r"""Apply a bilinear map to the last axes of two arrays.

    .. math:: y_o = x_1^T W_o x_2 + b_o

    Args:
        x1: ``(*, in1)``; any number of leading axes, also none.
        x2: ``(*, in2)``, with the same leading axes.
        weight: ``(out, in1, in2)``.
        bias: ``(out,)``, or ``None``.

    Returns:
        Array of shape ``(*, out)``.

    Raises:
        ShapeMismatchError: the shapes do not fit.
        TypeError: an argument is not an array, or ``x1`` or ``x2`` holds integers and ``weight`` floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.bilinear(jnp.ones((2, 3)), jnp.ones((2, 4)), jnp.ones((1, 3, 4))).tolist()
        [[12.0], [12.0]]

    Reference:
        ``torch.nn.functional.bilinear``.
    """
    x1 = checks.to_array(x1, "bilinear", "x1")
    x2 = checks.to_array(x2, "bilinear", "x2")
    weight = checks.to_array(weight, "bilinear", "weight")
    bias = checks.optional_array(bias, "bilinear", "bias")
    if len(weight.shape) != 3:
        checks.shape_error(
            "bilinear", f"weight must have 3 axes (out, in1, in2), not {weight.ndim}.", "Reshape it.", weight=weight
        )
    for name, x, features in (("x1", x1, weight.shape[1]), ("x2", x2, weight.shape[2])):
        if not x.shape or x.shape[-1] != features:
            got = f"has {x.shape[-1]} features in its last axis" if x.shape else "is a scalar"
            checks.shape_error(
                "bilinear",
                f"{name} {got}, but weight of shape {weight.shape} expects {features}.",
                "Check the data, or the sizes of the layer.",
                **{name: x},
            )
        checks.require_castable(x, weight, "bilinear", name)
    if x1.shape[:-1] != x2.shape[:-1]:
        checks.shape_error("bilinear", "x1 and x2 must have the same leading axes.", "Check the data.", x1=x1, x2=x2)
    checks.require_length(bias, weight.shape[0], "bilinear", "bias", "output feature", weight=weight)
    return _bilinear(x1, x2, weight, bias)


@jax.jit
@left_to_xla
def _bilinear(x1: Array, x2: Array, weight: Array, bias: Array | None) -> Array:
    dtype = jnp.result_type(x1, x2, weight)
    wide = checks.statistics_dtype(dtype)
    lead = x1.shape[:-1]
    rows1 = x1.astype(dtype).reshape(math.prod(lead), x1.shape[-1])
    rows2 = x2.astype(wide).reshape(math.prod(lead), x2.shape[-1])
    half = lax.dot_general(
        rows1, weight.astype(dtype), (((1,), (1,)), ((), ())), preferred_element_type=wide
    )  # (rows, out, in2)
    out = (half * rows2[:, None, :]).sum(-1).reshape(*lead, weight.shape[0])
    return (out if bias is None else out + bias.astype(wide)).astype(dtype)


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
@left_to_xla
def _flatten(x: Array, *, start: int, end: int) -> Array:
    merged = math.prod(x.shape[start : end + 1])
    return jnp.reshape(x, (*x.shape[:start], merged, *x.shape[end + 1 :]))


def unflatten(x: ArrayLike, dim: int, sizes: tuple[int, ...]) -> Array:
    r"""Split one axis into several.

    .. math:: (\dots, d_i, \dots) \to (\dots, u_1, \dots, u_n, \dots), \quad \prod_j u_j = d_i

    Args:
        x: array with at least one axis.
        dim: the axis; may be negative.
        sizes: the sizes to split it into; one of them may be -1, for what is left.

    Returns:
        The same elements in row-major order.

    Raises:
        ShapeMismatchError: there is no such axis, or the sizes do not multiply to its own.
        TypeError: ``x`` is not an array, ``dim`` is not an int or ``sizes`` not a tuple of ints.
        ValueError: a size is negative, or more than one is -1.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.unflatten(jnp.ones((2, 12)), 1, (3, -1)).shape
        (2, 3, 4)

    Reference:
        ``torch.unflatten``.
    """
    x = checks.to_array(x, "unflatten", "x")
    sizes = split_sizes(sizes, "unflatten", "sizes")
    if not x.ndim:
        checks.shape_error("unflatten", "x is a scalar, which has no axis to split.", "Pass an array.", x=x)
    axis = checks.axis(dim, x.ndim, "unflatten")
    size, known = x.shape[axis], math.prod(s for s in sizes if s != -1)
    if size != known if -1 not in sizes else (known == 0 or size % known):
        checks.shape_error(
            "unflatten",
            f"axis {axis} of size {size} can't be split into {sizes}.",
            "The sizes must multiply to the size of the axis.",
            x=x,
        )
    return _unflatten(x, axis=axis, sizes=tuple(size // known if s == -1 else s for s in sizes))


def split_sizes(sizes: Any, function: str, argument: str) -> tuple[int, ...]:
    """Check the sizes that an axis is split into."""
    if not isinstance(sizes, (tuple, list)):
        raise TypeError(f"{function}: {argument} must be a tuple of ints, got {sizes!r} ({type(sizes).__name__}).")
    found = tuple(checks.integer(s, function, argument, -1) for s in sizes)
    if not found or found.count(-1) > 1:
        raise ValueError(f"{function}: {argument} must hold at least one size, and at most one -1; got {found}.")
    return found


@functools.partial(jax.jit, static_argnames=("axis", "sizes"))
@left_to_xla
def _unflatten(x: Array, *, axis: int, sizes: tuple[int, ...]) -> Array:
    return jnp.reshape(x, (*x.shape[:axis], *sizes, *x.shape[axis + 1 :]))
