"""Normalisation over the features of each example."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from ..errors import ShapeMismatchError
from . import _checks as checks
from ._explicit import left_to_xla

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from ._types import ArrayLike


def layer_norm(
    x: Float[ArrayLike, "*batch features"],
    normalized_shape: int | tuple[int, ...],
    weight: Float[ArrayLike, " features"] | None = None,
    bias: Float[ArrayLike, " features"] | None = None,
    eps: float = 1e-5,
) -> Float[Array, "*batch features"]:
    r"""Normalise each example by the mean and variance of its own features.

    .. math:: y = \frac{x - \mathrm{E}[x]}{\sqrt{\mathrm{Var}[x] + \epsilon}} \gamma + \beta

    Args:
        x: ``(*, *normalized_shape)``; any number of leading axes.
        normalized_shape: the sizes of the trailing axes to normalise over; an int for one axis.
        weight: the scale :math:`\gamma`, of shape ``normalized_shape``, or ``None``.
        bias: the offset :math:`\beta`, of shape ``normalized_shape``, or ``None``.
        eps: added to the variance.

    Returns:
        Array of the shape and dtype of ``x``; half-precision input is computed in float32.

    Raises:
        ShapeMismatchError: the trailing axes of ``x`` are not ``normalized_shape``, or ``weight``
            or ``bias`` is of another shape.
        TypeError: ``x`` is not an array of floating-point numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.layer_norm(jnp.array([[1.0, 3.0]]), 2, eps=0.0).tolist()
        [[-1.0, 1.0]]

    Reference:
        Ba, Kiros and Hinton, "Layer Normalization", 2016; ``torch.nn.functional.layer_norm``.
    """
    eps = checks.epsilon(eps, "layer_norm")
    x, weight, bias, rank = _check(x, normalized_shape, weight, bias, "layer_norm")
    return _layer_norm(x, weight, bias, rank=rank, eps=eps)


def rms_norm(
    x: Float[ArrayLike, "*batch features"],
    normalized_shape: int | tuple[int, ...],
    weight: Float[ArrayLike, " features"] | None = None,
    eps: float | None = None,
) -> Float[Array, "*batch features"]:
    r"""Divide each example by the root mean square of its own features.

    .. math:: y = \frac{x}{\sqrt{\mathrm{E}[x^2] + \epsilon}} \gamma

    Args:
        x: ``(*, *normalized_shape)``; any number of leading axes.
        normalized_shape: the sizes of the trailing axes to normalise over; an int for one axis.
        weight: the scale :math:`\gamma`, of shape ``normalized_shape``, or ``None``.
        eps: added to the mean square; ``None``: the precision of the dtype in which it is computed,
            about 1.2e-7 for float32 and for half precision.

    Returns:
        Array of the shape and dtype of ``x``; half-precision input is computed in float32.

    Raises:
        ShapeMismatchError: the trailing axes of ``x`` are not ``normalized_shape``, or ``weight``
            is of another shape.
        TypeError: ``x`` is not an array of floating-point numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.rms_norm(jnp.array([[2.0, -2.0]]), 2, eps=0.0).tolist()
        [[1.0, -1.0]]

    Reference:
        Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019;
        ``torch.nn.functional.rms_norm``.
    """
    eps = None if eps is None else checks.epsilon(eps, "rms_norm")
    x, weight, _, rank = _check(x, normalized_shape, weight, None, "rms_norm")
    return _rms_norm(x, weight, rank=rank, eps=eps)


def _check(
    x: Any, normalized_shape: Any, weight: Any, bias: Any, function: str
) -> tuple[Array, Array | None, Array | None, int]:
    """The arrays, and the number of axes to normalise over."""
    x = checks.to_array(x, function, "x")
    weight = checks.optional_array(weight, function, "weight")
    bias = checks.optional_array(bias, function, "bias")
    checks.require_floats(x, function, "x")
    if type(normalized_shape) is not tuple:
        normalized_shape = _as_shape(normalized_shape, function)
    rank = len(normalized_shape)
    if not rank or x.shape[-rank:] != normalized_shape:
        _wrong_trailing(x, normalized_shape, function)
    for name, v in (("weight", weight), ("bias", bias)):
        if v is not None and v.shape != normalized_shape:
            checks.shape_error(
                function,
                f"{name} must have shape {normalized_shape}, the normalized_shape.",
                f"Check {name}.",
                **{name: v},
            )
    return x, weight, bias, rank


def _as_shape(normalized_shape: Any, function: str) -> tuple[int, ...]:
    if isinstance(normalized_shape, (tuple, list)):
        return tuple(normalized_shape)
    return (checks.integer(normalized_shape, function, "normalized_shape", 1),)


def _wrong_trailing(x: Array, expected: tuple[int, ...], function: str) -> None:
    if not expected:
        raise ShapeMismatchError(f"{function}: normalized_shape must name at least one axis, got ().")
    if len(expected) == 1 and x.ndim:
        problem = (
            f"x has {x.shape[-1]} features in its last axis, but normalized_shape {expected} expects {expected[0]}."
        )
    else:
        problem = f"the trailing axes of x must have the sizes {expected} (normalized_shape)."
    checks.shape_error(function, problem, "Check the data, or the layer's sizes.", x=x)


@functools.partial(jax.jit, static_argnames=("rank", "eps"))
@left_to_xla
def _layer_norm(x: Array, weight: Array | None, bias: Array | None, *, rank: int, eps: float) -> Array:
    dtype = checks.statistics_dtype(x.dtype)
    wide = x.astype(dtype)
    axes = tuple(range(-rank, 0))
    centred = wide - wide.mean(axes, keepdims=True)
    y = centred * lax.rsqrt((centred * centred).mean(axes, keepdims=True) + eps)
    if weight is not None:
        y = y * weight.astype(dtype)
    if bias is not None:
        y = y + bias.astype(dtype)
    return y.astype(x.dtype)


@functools.partial(jax.jit, static_argnames=("rank", "eps"))
@left_to_xla
def _rms_norm(x: Array, weight: Array | None, *, rank: int, eps: float | None) -> Array:
    dtype = checks.statistics_dtype(x.dtype)
    if eps is None:
        eps = float(jnp.finfo(dtype).eps)
    wide = x.astype(dtype)
    y = wide * lax.rsqrt((wide * wide).mean(tuple(range(-rank, 0)), keepdims=True) + eps)
    if weight is not None:
        y = y * weight.astype(dtype)
    return y.astype(x.dtype)
