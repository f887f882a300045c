"""Dropout."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from . import _checks as checks

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from ._types import ArrayLike

_LEVELS = 1 << 16  # one random 16-bit number decides about one element
_ALPHA = -1.7580993408473766  # what SELU tends to, the product of its two constants


def dropout(x: Float[ArrayLike, "*shape"], rate: float, key: Array) -> Float[Array, "*shape"]:
    r"""Set elements to zero at random, and scale the others so that the mean is kept.

    .. math:: y_i = \frac{x_i m_i}{1 - p}, \quad m_i \sim \mathrm{Bernoulli}(1 - p)

    The decision for each element takes 16 random bits, so the rate is rounded to a multiple of
    1/65536. The scale is computed from that true rate: the expected value of ``y`` is ``x``
    exactly.

    Args:
        x: array of any shape.
        rate: the probability ``p`` of dropping an element, a number in ``[0, 1]``. Zero returns
            ``x``, one returns zeros.
        key: the random key; the same key drops the same elements.

    Returns:
        Array of the same shape and dtype.

    Raises:
        ValueError: ``rate`` is outside ``[0, 1]``.
        TypeError: ``x`` does not hold floats, or ``key`` is not a random key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> y = F.dropout(jnp.ones(1000), 0.5, jax.random.key(0))
        >>> sorted(set(y.tolist()))
        [0.0, 2.0]

    Reference:
        Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
        2014.
    """
    return _drop("dropout", x, rate, key, 0)


def dropout1d(x: Float[ArrayLike, "*batch c l"], rate: float, key: Array) -> Float[Array, "*batch c l"]:
    r"""Set whole channels of sequences to zero at random, and scale the others so that the mean is kept.

    .. math:: y_{n,c} = \frac{x_{n,c} m_{n,c}}{1 - p}, \quad m_{n,c} \sim \mathrm{Bernoulli}(1 - p)

    Args:
        x: ``(N, C, L)`` or ``(C, L)``.
        rate: the probability ``p`` of dropping a channel, as for :func:`dropout`.
        key: the random key; the same key drops the same channels.

    Returns:
        Array of the same shape and dtype.

    Raises:
        ShapeMismatchError: ``x`` does not have two or three axes.
        ValueError: ``rate`` is outside ``[0, 1]``.
        TypeError: ``x`` does not hold floats, or ``key`` is not a random key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> y = F.dropout1d(jnp.ones((100, 3, 5)), 0.5, jax.random.key(0))
        >>> sorted(set(y.mean(-1).ravel().tolist()))
        [0.0, 2.0]

    Reference:
        Tompson et al., "Efficient Object Localization Using Convolutional Networks", 2015;
        ``torch.nn.functional.dropout1d``.
    """
    return _drop_channels("dropout1d", x, rate, key, 1)


def dropout2d(x: Float[ArrayLike, "n c h w"], rate: float, key: Array) -> Float[Array, "n c h w"]:
    r"""Set whole channels of images to zero at random, and scale the others so that the mean is kept.

    .. math:: y_{n,c} = \frac{x_{n,c} m_{n,c}}{1 - p}, \quad m_{n,c} \sim \mathrm{Bernoulli}(1 - p)

    Args:
        x: ``(N, C, H, W)``.
        rate: the probability ``p`` of dropping a channel, as for :func:`dropout`.
        key: the random key; the same key drops the same channels.

    Returns:
        Array of the same shape and dtype.

    Raises:
        ShapeMismatchError: ``x`` does not have four axes. (With three it could be one image as well as the sequences
            that ``torch`` takes it for.)
        ValueError: ``rate`` is outside ``[0, 1]``.
        TypeError: ``x`` does not hold floats, or ``key`` is not a random key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> y = F.dropout2d(jnp.ones((100, 3, 2, 2)), 0.5, jax.random.key(0))
        >>> sorted(set(y.mean((-2, -1)).ravel().tolist()))
        [0.0, 2.0]

    Reference:
        Tompson et al., "Efficient Object Localization Using Convolutional Networks", 2015;
        ``torch.nn.functional.dropout2d``.
    """
    return _drop_channels("dropout2d", x, rate, key, 2)


def dropout3d(x: Float[ArrayLike, "*batch c d h w"], rate: float, key: Array) -> Float[Array, "*batch c d h w"]:
    r"""Set whole channels of volumes to zero at random, and scale the others so that the mean is kept.

    .. math:: y_{n,c} = \frac{x_{n,c} m_{n,c}}{1 - p}, \quad m_{n,c} \sim \mathrm{Bernoulli}(1 - p)

    Args:
        x: ``(N, C, D, H, W)`` or ``(C, D, H, W)``.
        rate: the probability ``p`` of dropping a channel, as for :func:`dropout`.
        key: the random key; the same key drops the same channels.

    Returns:
        Array of the same shape and dtype.

    Raises:
        ShapeMismatchError: ``x`` does not have four or five axes.
        ValueError: ``rate`` is outside ``[0, 1]``.
        TypeError: ``x`` does not hold floats, or ``key`` is not a random key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.dropout3d(jnp.ones((2, 3, 2, 2, 2)), 0.5, jax.random.key(0)).shape
        (2, 3, 2, 2, 2)

    Reference:
        Tompson et al., "Efficient Object Localization Using Convolutional Networks", 2015;
        ``torch.nn.functional.dropout3d``.
    """
    return _drop_channels("dropout3d", x, rate, key, 3)


def alpha_dropout(x: Float[ArrayLike, "*shape"], rate: float, key: Array) -> Float[Array, "*shape"]:
    r"""Drop elements at random so that mean 0 and variance 1 are kept, for networks of SELUs.

    .. math:: y_i = a (x_i m_i + \alpha' (1 - m_i)) + b, \quad m_i \sim \mathrm{Bernoulli}(1 - p)

    with :math:`\alpha' \approx -1.7581`, what SELU tends to for small numbers,
    :math:`a = ((1 - p) (1 + p \alpha'^2))^{-1/2}` and :math:`b = -a p \alpha'`.

    Args:
        x: array of any shape.
        rate: the probability ``p`` of dropping an element, as for :func:`dropout`; one returns zeros.
        key: the random key; the same key drops the same elements.

    Returns:
        Array of the same shape and dtype.

    Raises:
        ValueError: ``rate`` is outside ``[0, 1]``.
        TypeError: ``x`` does not hold floats, or ``key`` is not a random key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> y = F.alpha_dropout(jnp.zeros(1000), 0.5, jax.random.key(0))
        >>> sorted({round(v, 3) for v in y.tolist()})
        [-0.779, 0.779]

    Reference:
        Klambauer et al., "Self-Normalizing Neural Networks", 2017; ``torch.nn.functional.alpha_dropout``.
    """
    return _drop("alpha_dropout", x, rate, key, 0, alpha=True)


def feature_alpha_dropout(x: Float[ArrayLike, "n c *space"], rate: float, key: Array) -> Float[Array, "n c *space"]:
    r"""Drop whole channels at random so that mean 0 and variance 1 are kept, for networks of SELUs.

    .. math:: y_{n,c} = a (x_{n,c} m_{n,c} + \alpha' (1 - m_{n,c})) + b,
        \quad m_{n,c} \sim \mathrm{Bernoulli}(1 - p)

    with the numbers of :func:`alpha_dropout`.

    Args:
        x: ``(N, C, *)``.
        rate: the probability ``p`` of dropping a channel, as for :func:`dropout`; one returns zeros.
        key: the random key; the same key drops the same channels.

    Returns:
        Array of the same shape and dtype.

    Raises:
        ShapeMismatchError: ``x`` has fewer than two axes.
        ValueError: ``rate`` is outside ``[0, 1]``.
        TypeError: ``x`` does not hold floats, or ``key`` is not a random key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.feature_alpha_dropout(jnp.ones((2, 3, 4)), 0.5, jax.random.key(0)).shape
        (2, 3, 4)

    Reference:
        Klambauer et al., "Self-Normalizing Neural Networks", 2017; ``torch.nn.functional.feature_alpha_dropout``.
    """
    shape = checks.shape_of(x, "feature_alpha_dropout")
    if len(shape) < 2:
        checks.shape_error(
            "feature_alpha_dropout",
            f"x must have at least 2 axes (N, C, ...), not {len(shape)}.",
            "Add the missing axes, or drop single elements with alpha_dropout.",
            x=x,
        )
    return _drop("feature_alpha_dropout", x, rate, key, len(shape) - 2, alpha=True)


def check_rate(rate: Any, function: str, argument: str) -> float:
    """Return a probability as a ``float``."""
    if type(rate) is not float:
        if isinstance(rate, bool) or not isinstance(rate, (float, int, np.floating, np.integer)):
            raise TypeError(f"{function}: {argument} must be a Python number, got {rate!r} ({type(rate).__name__}).")
        rate = float(rate)
    if not 0 <= rate <= 1:
        raise ValueError(f"{function}: {argument} must be in [0, 1], got {rate!r}.")
    return rate


def _drop_channels(function: str, x: Any, rate: float, key: Array, ndim: int) -> Array:
    shape = checks.shape_of(x, function)
    if ndim == 2 and len(shape) == 3:
        checks.shape_error(
            function,
            "x must have 4 axes (N, C, H, W), not 3.",
            "Add the batch axis to one image: x[None]; or use dropout1d for sequences (N, C, L).",
            x=x,
        )
    if len(shape) not in (ndim + 1, ndim + 2):  # a scalar has no axis to be told of
        checks.require_spatial(x, ndim, function)
    return _drop(function, x, rate, key, ndim)


def _drop(function: str, x: Any, rate: Any, key: Any, inner: int, alpha: bool = False) -> Array:
    """Check, and drop; one decision for all elements along the ``inner`` last axes."""
    x = checks.to_array(x, function, "x")
    checks.require_inexact(x, function, "x")
    # How many of the equally likely 16-bit numbers drop an element.
    threshold = round(check_rate(rate, function, "rate") * _LEVELS)
    if threshold == 0:
        return x
    if threshold == _LEVELS:
        return jnp.zeros_like(x)
    checks.require_key(key, function)
    p = threshold / _LEVELS
    if not alpha:
        return _dropout(x, key, threshold, 1 / (1 - p), inner=inner)
    a = ((1 - p) * (1 + p * _ALPHA * _ALPHA)) ** -0.5
    return _dropout(x, key, threshold, a, -a * p * _ALPHA, a * (1 - p) * _ALPHA, inner=inner)


@functools.partial(jax.jit, static_argnames="inner")
def _dropout(
    x: Array,
    key: Array,
    threshold: Array,
    scale: Array,
    offset: Array | None = None,
    dropped: Array | None = None,
    *,
    inner: int,
) -> Array:
    # The rate is an argument and not a constant, so that a schedule of rates compiles once.
    shape = x.shape[: x.ndim - inner]
    size = math.prod(shape)
    words = jax.random.bits(key, ((size + 1) // 2,), jnp.uint32)
    if isinstance(size, int):
        bits = lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)
    else:  # a size known only when an exported program is loaded, which a bitcast can't have
        bits = jnp.stack([words.astype(jnp.uint16), (words >> 16).astype(jnp.uint16)], -1).reshape(-1)
    keep = bits[:size].reshape(*shape, *(1,) * inner) >= jnp.asarray(threshold).astype(jnp.uint16)
    kept = x * jnp.asarray(scale).astype(x.dtype)
    if offset is not None:
        kept = kept + jnp.asarray(offset).astype(x.dtype)
    return jnp.where(keep, kept, jnp.asarray(0 if dropped is None else dropped).astype(x.dtype))
