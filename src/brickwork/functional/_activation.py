"""Activation functions that are smooth, elementwise."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

from . import _checks as checks

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Num

    from ._types import ArrayLike


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
    checks.require_real(x, "gelu", "x")
    if approximate == "none":
        return _gelu(x, approximate=False)
    if approximate == "tanh":
        return _gelu(x, approximate=True)
    raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}.")


def silu(x: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    r"""Weigh each value by its sigmoid; also known as swish.

    .. math:: y = \frac{x}{1 + e^{-x}}

    Args:
        x: array of any shape.

    Returns:
        Array of the same shape and dtype.

    Raises:
        TypeError: ``x`` is not an array of floating-point numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.silu(jnp.array([0.0])).tolist()
        [0.0]

    Reference:
        Elfwing et al., "Sigmoid-Weighted Linear Units", 2017; ``torch.nn.functional.silu``.
    """
    x = checks.to_array(x, "silu", "x")
    checks.require_inexact(x, "silu", "x")
    return _silu(x)


def mish(x: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    r"""Weigh each value by the hyperbolic tangent of its softplus.

    .. math:: y = x \tanh(\log(1 + e^{x}))

    Args:
        x: array of any shape.

    Returns:
        Array of the same shape and dtype.

    Raises:
        TypeError: ``x`` is not an array of floating-point numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.mish(jnp.array([0.0])).tolist()
        [0.0]

    Reference:
        Misra, "Mish: A Self Regularized Non-Monotonic Activation Function", 2019; ``torch.nn.functional.mish``.
    """
    x = checks.to_array(x, "mish", "x")
    checks.require_floats(x, "mish", "x")
    return _mish(x)


def softplus(x: Float[ArrayLike, "*shape"], beta: float = 1.0, threshold: float = 20.0) -> Float[Array, "*shape"]:
    r"""A smooth form of ReLU.

    .. math:: y = \frac{1}{\beta} \log(1 + e^{\beta x})

    Args:
        x: array of any shape.
        beta: the sharpness :math:`\beta` of the bend; not 0.
        threshold: where :math:`\beta x` is above it, the result is :math:`x`.

    Returns:
        Array of the same shape and dtype.

    Raises:
        TypeError: ``x`` is not an array of floating-point numbers, or an option is not a number.
        ValueError: ``beta`` is 0.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> round(float(F.softplus(jnp.array(0.0))), 4)
        0.6931

    Reference:
        ``torch.nn.functional.softplus``.
    """
    x = checks.to_array(x, "softplus", "x")
    checks.require_floats(x, "softplus", "x")
    sharpness = checks.nonzero(beta, "softplus", "beta")
    return _softplus(x, beta=sharpness, threshold=checks.number(threshold, "softplus", "threshold"))


def logsigmoid(x: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    r"""Return the logarithm of the sigmoid, without computing it first.

    .. math:: y = -\log(1 + e^{-x})

    Args:
        x: array of any shape.

    Returns:
        Array of the same shape and dtype.

    Raises:
        TypeError: ``x`` is not an array of floating-point numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> round(float(F.logsigmoid(jnp.array(0.0))), 4)
        -0.6931

    Reference:
        ``torch.nn.functional.logsigmoid``.
    """
    x = checks.to_array(x, "logsigmoid", "x")
    checks.require_floats(x, "logsigmoid", "x")
    return _logsigmoid(x)


def softsign(x: Num[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    r"""Squash to (-1, 1), elementwise, with tails that fall slowly.

    .. math:: y = \frac{x}{1 + |x|}

    Args:
        x: array of any shape.

    Returns:
        Array of the same shape and dtype; integers give floating-point numbers.

    Raises:
        TypeError: ``x`` is not an array of numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.softsign(jnp.array([-1.0, 3.0])).tolist()
        [-0.5, 0.75]

    Reference:
        ``torch.nn.functional.softsign``.
    """
    return _softsign(checks.as_inexact(checks.to_array(x, "softsign", "x")))


def tanhshrink(x: Num[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    r"""Subtract the hyperbolic tangent.

    .. math:: y = x - \tanh(x)

    Args:
        x: array of any shape.

    Returns:
        Array of the same shape and dtype; integers give floating-point numbers.

    Raises:
        TypeError: ``x`` is not an array of numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.tanhshrink(jnp.array([0.0])).tolist()
        [0.0]

    Reference:
        ``torch.nn.functional.tanhshrink``.
    """
    return _tanhshrink(checks.as_inexact(checks.to_array(x, "tanhshrink", "x")))


def elu(x: Float[ArrayLike, "*shape"], alpha: float = 1.0) -> Float[Array, "*shape"]:
    r"""Keep what is positive, and let the rest approach a negative limit.

    .. math:: y = \max(x, 0) + \alpha \min(e^{x} - 1, 0)

    Args:
        x: array of any shape.
        alpha: minus the limit, :math:`\alpha`.

    Returns:
        Array of the same shape and dtype. The gradient at zero is ``alpha``.

    Raises:
        TypeError: ``x`` is not an array of floating-point numbers, or ``alpha`` is not a number.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.elu(jnp.array([-1e4, 2.0])).tolist()
        [-1.0, 2.0]

    Reference:
        Clevert et al., "Fast and Accurate Deep Network Learning by Exponential Linear Units", 2015;
        ``torch.nn.functional.elu``.
    """
    x = checks.to_array(x, "elu", "x")
    checks.require_floats(x, "elu", "x")
    return _elu(x, alpha=checks.number(alpha, "elu", "alpha"))


def selu(x: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    r"""Scaled ELU, whose constants keep mean 0 and variance 1 from layer to layer.

    .. math:: y = \lambda \left(\max(x, 0) + \alpha \min(e^{x} - 1, 0)\right)

    The constants are :math:`\alpha \approx 1.6733` and :math:`\lambda \approx 1.0507`.

    Args:
        x: array of any shape.

    Returns:
        Array of the same shape and dtype. The gradient at zero is :math:`\lambda\alpha`.

    Raises:
        TypeError: ``x`` is not an array of floating-point numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.selu(jnp.array([0.0])).tolist()
        [0.0]

    Reference:
        Klambauer et al., "Self-Normalizing Neural Networks", 2017; ``torch.nn.functional.selu``.
    """
    x = checks.to_array(x, "selu", "x")
    checks.require_floats(x, "selu", "x")
    return _selu(x)


def celu(x: Float[ArrayLike, "*shape"], alpha: float = 1.0) -> Float[Array, "*shape"]:
    r"""ELU whose gradient is continuous for every ``alpha``.

    .. math:: y = \max(x, 0) + \alpha \min(e^{x / \alpha} - 1, 0)

    Args:
        x: array of any shape.
        alpha: minus the limit, :math:`\alpha`; not 0.

    Returns:
        Array of the same shape and dtype.

    Raises:
        TypeError: ``x`` is not an array of floating-point numbers, or ``alpha`` is not a number.
        ValueError: ``alpha`` is 0.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.celu(jnp.array([-1e4, 2.0]), 0.5).tolist()
        [-0.5, 2.0]

    Reference:
        Barron, "Continuously Differentiable Exponential Linear Units", 2017; ``torch.nn.functional.celu``.
    """
    x = checks.to_array(x, "celu", "x")
    checks.require_floats(x, "celu", "x")
    return _celu(x, alpha=checks.nonzero(alpha, "celu", "alpha"))


@jax.jit
def _sigmoid(x: Array) -> Array:
    return _logistic(checks.as_inexact(x))


@checks.in_float32
def _logistic(x: Array) -> Array:
    return jax.nn.sigmoid(x)


@jax.jit
def _tanh(x: Array) -> Array:
    return jnp.tanh(x)


@functools.partial(jax.jit, static_argnames="approximate")
def _gelu(x: Array, *, approximate: bool) -> Array:
    x = checks.as_inexact(x)
    return _gelu_by_tanh(x) if approximate else x * _normal_cdf(x)


@checks.in_float32
def _gelu_by_tanh(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=True)


@jax.custom_jvp
def _normal_cdf(x: Array) -> Array:
    return lax.erfc(x * -math.sqrt(0.5)) * 0.5


@_normal_cdf.defjvp
def _normal_cdf_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """The density; JAX 0.12 can't differentiate ``erfc`` in a ``shard_map`` that checks what varies."""
    (x,), (dx,) = primals, tangents
    return _normal_cdf(x), dx * jnp.exp(x * x * -0.5) * math.sqrt(0.5 / math.pi)


@jax.jit
@checks.in_float32
def _silu(x: Array) -> Array:
    return jax.nn.silu(x)


@jax.jit
@checks.in_float32
def _mish(x: Array) -> Array:
    return jax.nn.mish(x)


@functools.partial(jax.jit, static_argnames=("beta", "threshold"))
@checks.in_float32
def _softplus(x: Array, *, beta: float, threshold: float) -> Array:
    scaled = x * beta
    straight = scaled > threshold
    # The other branch gets a harmless value where it is not taken, or its gradient could be NaN.
    return jnp.where(straight, x, jax.nn.softplus(jnp.where(straight, 0, scaled)) / beta)


@jax.jit
@checks.in_float32
def _logsigmoid(x: Array) -> Array:
    return jax.nn.log_sigmoid(x)


@jax.jit
@checks.in_float32
def _softsign(x: Array) -> Array:
    return jax.nn.soft_sign(x)


@jax.jit
@checks.in_float32
def _tanhshrink(x: Array) -> Array:
    return x - jnp.tanh(x)


@functools.partial(jax.jit, static_argnames="alpha")
@checks.in_float32
def _elu(x: Array, *, alpha: float) -> Array:
    return jax.nn.elu(x, alpha)


@jax.jit
@checks.in_float32
def _selu(x: Array) -> Array:
    return jax.nn.selu(x)


@functools.partial(jax.jit, static_argnames="alpha")
@checks.in_float32
def _celu(x: Array, *, alpha: float) -> Array:
    return jax.nn.celu(x, alpha)
