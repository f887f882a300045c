"""Activation functions made of straight lines."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from . import _checks as checks

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Num

    from ._types import ArrayLike


def relu(x: Num[ArrayLike, "*shape"]) -> Num[Array, "*shape"]:
    r"""Keep what is positive, elementwise.

    .. math:: y = \max(x, 0)

    Args:
        x: array of any shape; integers stay integers.

    Returns:
        Array of the same shape and dtype. The gradient at zero is zero.

    Raises:
        TypeError: ``x`` is not an array of real numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.relu(jnp.array([-1.0, 2.0])).tolist()
        [0.0, 2.0]

    Reference:
        ``torch.nn.functional.relu``.
    """
    x = checks.to_array(x, "relu", "x")
    checks.require_real(x, "relu", "x")
    return _relu(x)


def relu6(x: Num[ArrayLike, "*shape"]) -> Num[Array, "*shape"]:
    r"""Keep what is positive, up to 6, elementwise.

    .. math:: y = \min(\max(x, 0), 6)

    Args:
        x: array of any shape; integers stay integers.

    Returns:
        Array of the same shape and dtype. The gradient at 0 and at 6 is zero.

    Raises:
        TypeError: ``x`` is not an array of real numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.relu6(jnp.array([-1.0, 2.0, 8.0])).tolist()
        [0.0, 2.0, 6.0]

    Reference:
        ``torch.nn.functional.relu6``.
    """
    x = checks.to_array(x, "relu6", "x")
    checks.require_real(x, "relu6", "x")
    return _clip(x, low=0, high=6)


def hardtanh(x: Num[ArrayLike, "*shape"], min_val: float = -1.0, max_val: float = 1.0) -> Num[Array, "*shape"]:
    r"""Limit each value to a range.

    .. math:: y = \min(\max(x, a), b)

    Args:
        x: array of any shape.
        min_val: the lower limit :math:`a`.
        max_val: the upper limit :math:`b`.

    Returns:
        Array of the same shape and dtype. The gradient at the limits is zero.

    Raises:
        TypeError: ``x`` is not an array of numbers, or a limit is not a number, or not a whole one for integers.
        ValueError: ``max_val`` is not greater than ``min_val``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.hardtanh(jnp.array([-2.0, 0.5, 2.0])).tolist()
        [-1.0, 0.5, 1.0]

    Reference:
        ``torch.nn.functional.hardtanh``.
    """
    x = checks.to_array(x, "hardtanh", "x")
    low, high = _in_kind(x, limits(min_val, max_val, "hardtanh"), "hardtanh")
    return _clip(x, low=low, high=high)


def _in_kind(x: Array, options: tuple[float, float], function: str) -> tuple[float, float]:
    """Numbers to compare an array with and to put into it; for one of integers they must be whole."""
    if checks.is_integer(x) and all(float(option).is_integer() for option in options):
        return int(options[0]), int(options[1])
    checks.require_floats(x, function, "x")
    return options


def limits(min_val: Any, max_val: Any, function: str) -> tuple[float, float]:
    """Check the limits of ``hardtanh``."""
    low, high = checks.number(min_val, function, "min_val"), checks.number(max_val, function, "max_val")
    if high <= low:
        raise ValueError(f"{function}: max_val must be greater than min_val, got min_val={low}, max_val={high}.")
    return low, high


def hardsigmoid(x: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    r"""Squash to [0, 1] by a line between two limits, elementwise.

    .. math:: y = \frac{\min(\max(x + 3, 0), 6)}{6}

    Args:
        x: array of any shape.

    Returns:
        Array of the same shape and dtype. The gradient at -3 and at 3 is zero.

    Raises:
        TypeError: ``x`` is not an array of floating-point numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.hardsigmoid(jnp.array([-4.0, 0.0, 4.0])).tolist()
        [0.0, 0.5, 1.0]

    Reference:
        Courbariaux et al., "BinaryConnect", 2015; ``torch.nn.functional.hardsigmoid``.
    """
    x = checks.to_array(x, "hardsigmoid", "x")
    checks.require_floats(x, "hardsigmoid", "x")
    return _hardsigmoid(x)


def hardswish(x: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    r"""Weigh each value by its hard sigmoid.

    .. math:: y = x \, \frac{\min(\max(x + 3, 0), 6)}{6}

    Args:
        x: array of any shape.

    Returns:
        Array of the same shape and dtype. The gradient is 0 at -3 and 1 at 3.

    Raises:
        TypeError: ``x`` is not an array of floating-point numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.hardswish(jnp.array([-4.0, 0.0, 4.0])).tolist()
        [-0.0, 0.0, 4.0]

    Reference:
        Howard et al., "Searching for MobileNetV3", 2019; ``torch.nn.functional.hardswish``.
    """
    x = checks.to_array(x, "hardswish", "x")
    checks.require_floats(x, "hardswish", "x")
    return _hardswish(x)


def leaky_relu(x: Float[ArrayLike, "*shape"], negative_slope: float = 0.01) -> Float[Array, "*shape"]:
    r"""Keep what is positive, and scale down what is not.

    .. math:: y = \max(x, 0) + s \min(x, 0)

    Args:
        x: array of any shape.
        negative_slope: the slope :math:`s` for values that are not positive.

    Returns:
        Array of the same shape and dtype. The gradient at zero is ``negative_slope``.

    Raises:
        TypeError: ``x`` is not an array of floating-point numbers, or the slope is not a number.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.leaky_relu(jnp.array([-2.0, 2.0]), 0.5).tolist()
        [-1.0, 2.0]

    Reference:
        ``torch.nn.functional.leaky_relu``.
    """
    x = checks.to_array(x, "leaky_relu", "x")
    checks.require_floats(x, "leaky_relu", "x")
    return _leaky_relu(x, slope=checks.number(negative_slope, "leaky_relu", "negative_slope"))


def prelu(x: Float[ArrayLike, "*shape"], weight: Float[ArrayLike, " channels"]) -> Float[Array, "*shape"]:
    r"""Keep what is positive, and scale what is not by a learned slope.

    .. math:: y = \max(x, 0) + w_c \min(x, 0)

    Args:
        x: array of any shape; several slopes need an axis 1 of that many channels.
        weight: the slope of each channel, ``(channels,)``, or one for all, ``(1,)`` or ``()``.

    Returns:
        Array of the same shape. The gradient at zero is the slope.

    Raises:
        ShapeMismatchError: ``weight`` does not fit axis 1.
        TypeError: an argument is not an array of floating-point numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.prelu(jnp.array([-2.0, 2.0]), jnp.array([0.5])).tolist()
        [-1.0, 2.0]

    Reference:
        He et al., "Delving Deep into Rectifiers", 2015; ``torch.nn.functional.prelu``.
    """
    x = checks.to_array(x, "prelu", "x")
    weight = checks.to_array(weight, "prelu", "weight")
    checks.require_floats(x, "prelu", "x")
    checks.require_floats(weight, "prelu", "weight")
    if len(weight.shape) > 1:
        problem = f"weight must have one axis, not {weight.ndim}."
        checks.shape_error("prelu", problem, "Pass weight.reshape(-1).", weight=weight)
    slopes = weight.shape[0] if len(weight.shape) == 1 else 1
    if slopes != 1 and (len(x.shape) < 2 or x.shape[1] != slopes):
        have = f"{x.shape[1]} channels in axis 1" if len(x.shape) > 1 else "no axis 1"
        problem = f"weight holds {slopes} slopes, one per channel, but x has {have}."
        checks.shape_error("prelu", problem, "Use one slope, or one per channel.", x=x, weight=weight)
    return _prelu(x, weight)


def rrelu(
    x: Float[ArrayLike, "*shape"], lower: float = 1 / 8, upper: float = 1 / 3, key: Array | None = None
) -> Float[Array, "*shape"]:
    r"""Keep what is positive, and scale what is not by a random slope.

    .. math:: y = \max(x, 0) + s \min(x, 0), \quad s \sim U(a, b)

    Args:
        x: array of any shape.
        lower: the smallest slope :math:`a`.
        upper: the largest slope :math:`b`.
        key: the random key that decides on the slope of each element; ``None``, as in evaluation:
            the mean slope :math:`(a + b) / 2` everywhere.

    Returns:
        Array of the same shape and dtype.

    Raises:
        ValueError: ``lower`` is greater than ``upper``.
        TypeError: ``x`` is not an array of floating-point numbers, a slope not a number, or ``key`` not
            a random key.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.rrelu(jnp.array([-2.0, 2.0]), 0.25, 0.75).tolist()
        [-1.0, 2.0]

    Reference:
        Xu et al., "Empirical Evaluation of Rectified Activations", 2015; ``torch.nn.functional.rrelu``.
    """
    x = checks.to_array(x, "rrelu", "x")
    checks.require_floats(x, "rrelu", "x")
    low, high = slopes(lower, upper, "rrelu")
    if key is None:
        return _leaky_relu(x, slope=(low + high) / 2)
    checks.require_key(key, "rrelu")
    return _rrelu(x, key, low=low, high=high)


def slopes(lower: Any, upper: Any, function: str) -> tuple[float, float]:
    """Check the range of slopes of ``rrelu``."""
    low, high = checks.number(lower, function, "lower"), checks.number(upper, function, "upper")
    if low > high:
        raise ValueError(f"{function}: lower must not be greater than upper, got lower={low}, upper={high}.")
    return low, high


def threshold(x: Num[ArrayLike, "*shape"], threshold: float, value: float) -> Num[Array, "*shape"]:
    r"""Replace what is not above a threshold.

    .. math:: y = \begin{cases} x & x > t \\ v & \text{otherwise} \end{cases}

    Args:
        x: array of any shape.
        threshold: the threshold :math:`t`.
        value: what replaces the others, :math:`v`.

    Returns:
        Array of the same shape and dtype. The gradient at the threshold is zero.

    Raises:
        TypeError: ``x`` is not an array of numbers, or an option is not a number, or not a whole one for integers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.threshold(jnp.array([0.5, 2.0]), 1.0, -1.0).tolist()
        [-1.0, 2.0]

    Reference:
        ``torch.nn.functional.threshold``.
    """
    x = checks.to_array(x, "threshold", "x")
    limit = checks.number(threshold, "threshold", "threshold")
    limit, value = _in_kind(x, (limit, checks.number(value, "threshold", "value")), "threshold")
    return _threshold(x, limit=limit, value=value)


def hardshrink(x: Float[ArrayLike, "*shape"], lambd: float = 0.5) -> Float[Array, "*shape"]:
    r"""Set what is close to zero to zero.

    .. math:: y = \begin{cases} x & |x| > \lambda \\ 0 & \text{otherwise} \end{cases}

    Args:
        x: array of any shape.
        lambd: the distance :math:`\lambda` from zero.

    Returns:
        Array of the same shape and dtype. The gradient at :math:`\pm\lambda` is zero.

    Raises:
        TypeError: ``x`` is not an array of floating-point numbers, or ``lambd`` is not a number.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.hardshrink(jnp.array([-2.0, 0.25, 2.0])).tolist()
        [-2.0, 0.0, 2.0]

    Reference:
        ``torch.nn.functional.hardshrink``.
    """
    x = checks.to_array(x, "hardshrink", "x")
    checks.require_floats(x, "hardshrink", "x")
    return _shrink(x, lambd=checks.number(lambd, "hardshrink", "lambd"), hard=True)


def softshrink(x: Float[ArrayLike, "*shape"], lambd: float = 0.5) -> Float[Array, "*shape"]:
    r"""Move each value towards zero by a fixed amount, and no further than zero.

    .. math:: y = \operatorname{sign}(x) \max(|x| - \lambda, 0)

    Args:
        x: array of any shape.
        lambd: the amount :math:`\lambda`, at least 0.

    Returns:
        Array of the same shape and dtype. The gradient at :math:`\pm\lambda` is zero.

    Raises:
        TypeError: ``x`` is not an array of floating-point numbers, or ``lambd`` is not a number.
        ValueError: ``lambd`` is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.softshrink(jnp.array([-2.0, 0.25, 2.0])).tolist()
        [-1.5, 0.0, 1.5]

    Reference:
        ``torch.nn.functional.softshrink``.
    """
    x = checks.to_array(x, "softshrink", "x")
    checks.require_floats(x, "softshrink", "x")
    return _shrink(x, lambd=checks.number(lambd, "softshrink", "lambd", 0), hard=False)


# The comparisons below are written so that NaN fails them and passes through, and that the gradient at a limit is
# PyTorch's. jnp.clip and jnp.maximum would give half of it there.


@jax.jit
def _relu(x: Array) -> Array:
    return jax.nn.relu(x)


@functools.partial(jax.jit, static_argnames=("low", "high"))
def _clip(x: Array, *, low: float, high: float) -> Array:
    return jnp.where(x <= low, low, jnp.where(x >= high, high, x))


@jax.jit
@checks.in_float32
def _hardsigmoid(x: Array) -> Array:
    return _clip(x + 3, low=0, high=6) / 6


@jax.jit
@checks.in_float32
def _hardswish(x: Array) -> Array:
    return x * _hardsigmoid(x)


@functools.partial(jax.jit, static_argnames="slope")
def _leaky_relu(x: Array, *, slope: float) -> Array:
    return jnp.where(x > 0, x, x * slope)


@jax.jit
def _prelu(x: Array, weight: Array) -> Array:
    dtype = jnp.result_type(x, weight)
    wide = checks.statistics_dtype(dtype)  # for the gradient of the weight, a sum
    x, weight = x.astype(wide), weight.astype(wide)
    if weight.size > 1:
        weight = weight.reshape(-1, *[1] * (x.ndim - 2))
    else:
        weight = weight.reshape(())
    return jnp.where(x > 0, x, x * weight).astype(dtype)


@functools.partial(jax.jit, static_argnames=("low", "high"))
def _rrelu(x: Array, key: Array, *, low: float, high: float) -> Array:
    slope = jax.random.uniform(key, x.shape, checks.statistics_dtype(x.dtype), low, high)
    return jnp.where(x > 0, x, x * slope.astype(x.dtype))


@functools.partial(jax.jit, static_argnames=("limit", "value"))
def _threshold(x: Array, *, limit: float, value: float) -> Array:
    return jnp.where(x <= limit, value, x)


@functools.partial(jax.jit, static_argnames=("lambd", "hard"))
def _shrink(x: Array, *, lambd: float, hard: bool) -> Array:
    rest = x if hard else x - jnp.sign(x) * lambd
    return jnp.where((x >= -lambd) & (x <= lambd), 0, rest)
