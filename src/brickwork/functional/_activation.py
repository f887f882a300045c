"""Activation functions."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import jax

from . import _checks as checks

if TYPE_CHECKING:
    from jaxtyping import Array, Num

    from ._types import ArrayLike


def relu(x: Num[ArrayLike, "*shape"]) -> Num[Array, "*shape"]:
    r"""Keep what is positive, elementwise.

    .. math:: y = \max(x, 0)

    Args:
        x: array of any shape; integers stay integers.

    Returns:
        Array of the same shape and dtype. The gradient at zero is zero.

    Raises:
        TypeError: ``x`` is not an array.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.relu(jnp.array([-1.0, 2.0])).tolist()
        [0.0, 2.0]

    Reference:
        ``torch.nn.functional.relu``.
    """
    return _relu(checks.to_array(x, "relu", "x"))


def sigmoid(x: Num[ArrayLike, "*shape"]) -> Num[Array, "*shape"]:
    r"""Squash to (0, 1), elementwise.

    .. math:: y = \frac{1}{1 + e^{-x}}

    Args:
        x: array of any shape; integers become floats.

    Returns:
        Array of the same shape.

    Raises:
        TypeError: ``x`` is not an array.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.sigmoid(jnp.array([0.0])).tolist()
        [0.5]

    Reference:
        ``torch.nn.functional.sigmoid``.
    """
    return _sigmoid(checks.to_array(x, "sigmoid", "x"))


def tanh(x: Num[ArrayLike, "*shape"]) -> Num[Array, "*shape"]:
    r"""Squash to (-1, 1), elementwise.

    .. math:: y = \frac{e^{x} - e^{-x}}{e^{x} + e^{-x}}

    Args:
        x: array of any shape; integers become floats.

    Returns:
        Array of the same shape.

    Raises:
        TypeError: ``x`` is not an array.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.tanh(jnp.array([0.0])).tolist()
        [0.0]

    Reference:
        ``torch.nn.functional.tanh``.
    """
    return _tanh(checks.to_array(x, "tanh", "x"))


def gelu(x: Num[ArrayLike, "*shape"], approximate: str = "none") -> Num[Array, "*shape"]:
    r"""Weigh each value by the probability that a standard normal variable is below it.

    .. math:: y = x \, \Phi(x) = \frac{x}{2} \left(1 + \operatorname{erf} \frac{x}{\sqrt 2}\right)

    With ``approximate="tanh"``:

    .. math:: y = \frac{x}{2} \left(1 + \tanh\left(\sqrt{2/\pi} (x + 0.044715 x^3)\right)\right)

    Args:
        x: array of any shape.
        approximate: ``"none"`` or ``"tanh"``.

    Returns:
        Array of the same shape.

    Raises:
        ValueError: ``approximate`` is neither of the two.
        TypeError: ``x`` is not an array.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.gelu(jnp.array([0.0]), approximate="tanh").tolist()
        [0.0]

    Reference:
        Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016; ``torch.nn.functional.gelu``.
    """
    x = checks.to_array(x, "gelu", "x")
    if approximate == "none":
        return _gelu(x, approximate=False)
    if approximate == "tanh":
        return _gelu(x, approximate=True)
    raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}.")


def softmax(x: Num[ArrayLike, "*shape"], dim: int = -1) -> Num[Array, "*shape"]:
    r"""Turn scores into probabilities along one axis.

    .. math:: y_i = \frac{e^{x_i}}{\sum_j e^{x_j}}

    Args:
        x: array of any shape.
        dim: the axis along which the result sums to one.

    Returns:
        Array of the same shape and dtype; half-precision input is summed in float32.

    Raises:
        ShapeMismatchError: ``x`` has no axis ``dim``.
        TypeError: ``x`` is not an array of floating-point numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.softmax(jnp.zeros((1, 4))).tolist()
        [[0.25, 0.25, 0.25, 0.25]]

    Reference:
        ``torch.nn.functional.softmax``.
    """
    x = checks.to_array(x, "softmax", "x")
    checks.require_inexact(x, "softmax", "x")
    return _softmax(x, dim=checks.axis(dim, x.ndim, "softmax"))


def log_softmax(x: Num[ArrayLike, "*shape"], dim: int = -1) -> Num[Array, "*shape"]:
    r"""Return the logarithm of the softmax, without computing it first.

    .. math:: y_i = x_i - \log \sum_j e^{x_j}

    Args:
        x: array of any shape.
        dim: the axis along which the exponentials of the result sum to one.

    Returns:
        Array of the same shape and dtype; half-precision input is summed in float32.

    Raises:
        ShapeMismatchError: ``x`` has no axis ``dim``.
        TypeError: ``x`` is not an array of floating-point numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.log_softmax(jnp.array([0.0])).tolist()
        [0.0]

    Reference:
        ``torch.nn.functional.log_softmax``.
    """
    x = checks.to_array(x, "log_softmax", "x")
    checks.require_inexact(x, "log_softmax", "x")
    return _log_softmax(x, dim=checks.axis(dim, x.ndim, "log_softmax"))


@jax.jit
def _relu(x: Array) -> Array:
    return jax.nn.relu(x)


@jax.jit
def _sigmoid(x: Array) -> Array:
    return jax.nn.sigmoid(x if checks.is_inexact(x) else x.astype(jax.numpy.result_type(float)))


@jax.jit
def _tanh(x: Array) -> Array:
    return jax.numpy.tanh(x)


@functools.partial(jax.jit, static_argnames="approximate")
def _gelu(x: Array, *, approximate: bool) -> Array:
    return jax.nn.gelu(x, approximate=approximate)


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
