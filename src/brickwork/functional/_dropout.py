"""Dropout."""

from __future__ import annotations

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
    x = checks.to_array(x, "dropout", "x")
    checks.require_inexact(x, "dropout", "x")
    # How many of the equally likely 16-bit numbers drop an element.
    threshold = round(check_rate(rate, "dropout", "rate") * _LEVELS)
    if threshold == 0:
        return x
    if threshold == _LEVELS:
        return jnp.zeros_like(x)
    checks.require_key(key, "dropout")
    return _dropout(x, key, threshold, _LEVELS / (_LEVELS - threshold))


def check_rate(rate: Any, function: str, argument: str) -> float:
    """Return a probability as a ``float``."""
    if type(rate) is not float:
        if isinstance(rate, bool) or not isinstance(rate, (float, int, np.floating, np.integer)):
            raise TypeError(f"{function}: {argument} must be a Python number, got {rate!r} ({type(rate).__name__}).")
        rate = float(rate)
    if not 0 <= rate <= 1:
        raise ValueError(f"{function}: {argument} must be in [0, 1], got {rate!r}.")
    return rate


@jax.jit
def _dropout(x: Array, key: Array, threshold: Array, scale: Array) -> Array:
    # The rate is an argument and not a constant, so that a schedule of rates compiles once.
    words = jax.random.bits(key, ((x.size + 1) // 2,), jnp.uint32)
    if isinstance(x.size, int):
        bits = lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)
    else:  # a size known only when an exported program is loaded, which a bitcast can't have
        bits = jnp.stack([words.astype(jnp.uint16), (words >> 16).astype(jnp.uint16)], -1).reshape(-1)
    keep = bits[: x.size].reshape(x.shape) >= jnp.asarray(threshold).astype(jnp.uint16)
    kept = x * jnp.asarray(scale).astype(x.dtype)
    return jnp.where(keep, kept, jnp.zeros((), x.dtype))
