"""Softmax and its relatives, and gates."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..core._arrays import check_dtype
from . import _checks as checks

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Num

    from ._types import ArrayLike


def softmax(x: Num[ArrayLike, "*shape"], dim: int = -1, dtype: Any = None) -> Num[Array, "*shape"]:
    r"""Turn scores into probabilities along one axis.

    .. math:: y_i = \frac{e^{x_i}}{\sum_j e^{x_j}}

    Args:
        x: array of any shape.
        dim: the axis along which the result sums to one.
        dtype: a floating-point dtype that ``x`` is converted to before; any numbers will do then.

    Returns:
        Array of the same shape and dtype, or ``dtype``; half-precision input is summed in float32.

    Raises:
        ShapeMismatchError: ``x`` has no axis ``dim``.
        TypeError: ``x`` is not an array of floating-point numbers, or ``dtype`` no such dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.softmax(jnp.zeros((1, 4))).tolist()
        [[0.25, 0.25, 0.25, 0.25]]

    Reference:
        ``torch.nn.functional.softmax``.
    """
    x = _as(dtype, checks.to_array(x, "softmax", "x"), "softmax")
    checks.require_floats(x, "softmax", "x")
    return _softmax(x, dim=checks.axis(dim, x.ndim, "softmax"))


def log_softmax(x: Num[ArrayLike, "*shape"], dim: int = -1, dtype: Any = None) -> Num[Array, "*shape"]:
    r"""Return the logarithm of the softmax, without computing it first.

    .. math:: y_i = x_i - \log \sum_j e^{x_j}

    Args:
        x: array of any shape.
        dim: the axis along which the exponentials of the result sum to one.
        dtype: a floating-point dtype that ``x`` is converted to before; any numbers will do then.

    Returns:
        Array of the same shape and dtype, or ``dtype``; half-precision input is summed in float32.

    Raises:
        ShapeMismatchError: ``x`` has no axis ``dim``.
        TypeError: ``x`` is not an array of floating-point numbers, or ``dtype`` no such dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.log_softmax(jnp.array([0.0])).tolist()
        [0.0]

    Reference:
        ``torch.nn.functional.log_softmax``.
    """
    x = _as(dtype, checks.to_array(x, "log_softmax", "x"), "log_softmax")
    checks.require_floats(x, "log_softmax", "x")
    return _log_softmax(x, dim=checks.axis(dim, x.ndim, "log_softmax"))


def softmin(x: Num[ArrayLike, "*shape"], dim: int = -1, dtype: Any = None) -> Num[Array, "*shape"]:
    r"""Turn scores into probabilities along one axis, the smallest score into the largest.

    .. math:: y_i = \frac{e^{-x_i}}{\sum_j e^{-x_j}}

    Args:
        x: array of any shape.
        dim: the axis along which the result sums to one.
        dtype: a floating-point dtype that ``x`` is converted to before; any numbers will do then.

    Returns:
        Array of the same shape and dtype, or ``dtype``; half-precision input is summed in float32.

    Raises:
        ShapeMismatchError: ``x`` has no axis ``dim``.
        TypeError: ``x`` is not an array of floating-point numbers, or ``dtype`` no such dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.softmin(jnp.zeros((1, 4))).tolist()
        [[0.25, 0.25, 0.25, 0.25]]

    Reference:
        ``torch.nn.functional.softmin``.
    """
    x = _as(dtype, checks.to_array(x, "softmin", "x"), "softmin")
    checks.require_floats(x, "softmin", "x")
    return _softmin(x, dim=checks.axis(dim, x.ndim, "softmin"))


def _as(dtype: Any, x: Array, function: str) -> Array:
    """Convert to a dtype, if one is given."""
    if dtype is None:
        return x
    wanted = check_dtype(dtype, function)
    if not jnp.issubdtype(wanted, jnp.inexact):
        raise TypeError(f"{function}: dtype must be one of floating-point numbers, got {wanted}.")
    return jnp.asarray(x).astype(wanted)


def glu(x: Float[ArrayLike, "*shape"], dim: int = -1) -> Float[Array, "*half"]:
    r"""Gate one half of an axis by the other half.

    .. math:: y = a \, \sigma(b), \quad [a, b] = x

    Args:
        x: array whose axis ``dim`` has an even size.
        dim: the axis.

    Returns:
        Array of the same dtype, with half of the size along ``dim``.

    Raises:
        ShapeMismatchError: ``x`` has no axis ``dim``, or one of odd size.
        TypeError: ``x`` is not an array of floating-point numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.glu(jnp.array([4.0, 0.0])).tolist()
        [2.0]

    Reference:
        Dauphin et al., "Language Modeling with Gated Convolutional Networks", 2016;
        ``torch.nn.functional.glu``.
    """
    x = checks.to_array(x, "glu", "x")
    checks.require_floats(x, "glu", "x")
    if not x.shape:
        checks.shape_error("glu", "x is a scalar, but one of its axes is halved.", "Pass an array with an axis.", x=x)
    axis = checks.axis(dim, x.ndim, "glu")
    if x.shape[axis] % 2:
        problem = f"axis {axis} of x must have an even size to be halved, not {x.shape[axis]}."
        checks.shape_error("glu", problem, "Check dim, or give the layer before an even number of outputs.", x=x)
    return _glu(x, dim=axis)


def gumbel_softmax(
    logits: Float[ArrayLike, "*shape"], key: Array, tau: float | ArrayLike = 1.0, hard: bool = False, dim: int = -1
) -> Float[Array, "*shape"]:
    r"""Draw from a categorical distribution in a way that has a gradient.

    .. math:: y = \operatorname{softmax}\left(\frac{x + g}{\tau}\right), \quad g_i \sim \mathrm{Gumbel}(0, 1)

    Args:
        logits: scores :math:`x`, unnormalised log-probabilities, along one axis.
        key: the random key.
        tau: the temperature :math:`\tau`, greater than 0; a small one makes the results almost one-hot. It may be
            an array, so that a schedule compiles once.
        hard: whether to return one-hot vectors, with the gradient of the soft ones.
        dim: the axis of the categories.

    Returns:
        Array of the same shape and dtype, which sums to one along ``dim``.

    Raises:
        ShapeMismatchError: ``logits`` have no axis ``dim``.
        TypeError: ``logits`` are not an array of floating-point numbers, or ``key`` is not a random key.
        ValueError: ``tau`` is not positive.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> sorted(F.gumbel_softmax(jnp.zeros(3), jax.random.key(0), hard=True).tolist())
        [0.0, 0.0, 1.0]

    Reference:
        Jang et al., "Categorical Reparameterization with Gumbel-Softmax", 2016;
        ``torch.nn.functional.gumbel_softmax``.
    """
    logits = checks.to_array(logits, "gumbel_softmax", "logits")
    checks.require_floats(logits, "gumbel_softmax", "logits")
    checks.require_key(key, "gumbel_softmax")
    if hasattr(tau, "shape") and not isinstance(tau, np.generic):
        tau = checks.to_array(tau, "gumbel_softmax", "tau")
    else:
        tau = checks.number(tau, "gumbel_softmax", "tau", above=0)
    axis = checks.axis(dim, logits.ndim, "gumbel_softmax")
    return _gumbel_softmax(logits, key, tau, hard=checks.flag(hard, "gumbel_softmax", "hard"), dim=axis)


@functools.partial(jax.jit, static_argnames="dim")
def _softmax(x: Array, *, dim: int) -> Array:
    if x.ndim == 0:
        return _softmax(x[None], dim=0)[0]
    wide = x.astype(checks.statistics_dtype(x.dtype))
    return jax.nn.softmax(wide, axis=dim).astype(x.dtype)


@functools.partial(jax.jit, static_argnames="dim")
def _log_softmax(x: Array, *, dim: int) -> Array:
    if x.ndim == 0:
        return _log_softmax(x[None], dim=0)[0]
    wide = x.astype(checks.statistics_dtype(x.dtype))
    return jax.nn.log_softmax(wide, axis=dim).astype(x.dtype)


@functools.partial(jax.jit, static_argnames="dim")
def _softmin(x: Array, *, dim: int) -> Array:
    return _softmax(-x, dim=dim)


@functools.partial(jax.jit, static_argnames="dim")
@checks.in_float32
def _glu(x: Array, *, dim: int) -> Array:
    return jax.nn.glu(x, dim)


@functools.partial(jax.jit, static_argnames=("hard", "dim"))
def _gumbel_softmax(logits: Array, key: Array, tau: Array, *, hard: bool, dim: int) -> Array:
    dtype = checks.statistics_dtype(logits.dtype)
    noise = jax.random.gumbel(key, logits.shape, dtype)
    soft = _softmax((logits.astype(dtype) + noise) / jnp.asarray(tau).astype(dtype), dim=dim)
    if hard and soft.ndim:
        chosen = jax.nn.one_hot(soft.argmax(dim), soft.shape[dim], axis=dim, dtype=dtype)
        soft = chosen + (soft - lax.stop_gradient(soft))  # the bracket is exactly zero
    return soft.astype(logits.dtype)
