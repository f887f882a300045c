"""What the initializers share: checked arguments, fans and gains, standard draws.

The initializers themselves are in ``init.py``.
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import jax
import numpy as np

from ._draw import ElementwiseInitializer, Initializer, Shape, subject
from .errors import ShapeMismatchError

__all__ = [
    "Scaled",
    "calculate_gain",
    "fan_in_and_out",
    "fans",
    "finite",
    "has_weight",
    "interval",
    "not_negative",
    "require_float",
    "standard",
    "truncated",
    "working_dtype",
]

_GAINS = {
    **dict.fromkeys(("linear", "sigmoid"), 1.0),
    **dict.fromkeys([f"conv{t}{d}d" for t in ("", "_transpose") for d in (1, 2, 3)], 1.0),
    "tanh": 5.0 / 3,
    "relu": math.sqrt(2.0),
    "selu": 3.0 / 4,
}


def finite(owner: str, what: str, value: Any) -> float:
    """The argument ``what`` as a finite float."""
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, np.number)):
        raise TypeError(f"{owner}: {what} must be a number, got {value!r}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{owner}: {what} must be finite, got {number}")
    return number


def not_negative(owner: str, what: str, value: Any) -> float:
    """The argument ``what`` as a finite float from 0 on."""
    number = finite(owner, what, value)
    if number < 0:
        raise ValueError(f"{owner}: {what} must not be negative, got {number}")
    return number


def interval(owner: str, low: Any, high: Any) -> tuple[float, float]:
    """The arguments ``low`` and ``high`` as floats in order."""
    low, high = finite(owner, "low", low), finite(owner, "high", high)
    if low > high:
        raise ValueError(f"{owner}: low must not exceed high, got low={low}, high={high}")
    finite(owner, "high - low", high - low)
    return low, high


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    r"""The factor by which weights are scaled so that a nonlinearity keeps the variance.

    1 for ``linear``, ``sigmoid`` and the convolutions (``conv1d`` ... ``conv_transpose3d``), 5/3
    for ``tanh``, sqrt(2) for ``relu``, 3/4 for ``selu`` and sqrt(2 / (1 + slope**2)) for
    ``leaky_relu``.

    Args:
        nonlinearity: one of the names above.
        param: the negative slope of ``leaky_relu``; 0.01 if not given.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> from brickwork import init
        >>> init.calculate_gain("leaky_relu", 1.0)
        1.0
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else finite("calculate_gain", "param", param)
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity not in _GAINS:
        known = ", ".join(sorted([*_GAINS, "leaky_relu"]))
        raise ValueError(f"calculate_gain: unknown nonlinearity {nonlinearity!r}; known: {known}")
    return _GAINS[nonlinearity]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """How many inputs feed one output of a weight, and how many outputs one input feeds.

    For ``(out, in, *kernel)`` these are ``in * prod(kernel)`` and ``out * prod(kernel)``.

    Raises:
        ShapeMismatchError: fewer than two dimensions (a ``ValueError``).

    Example:
        >>> from brickwork import init
        >>> init.fans((64, 3, 7, 7))
        (147, 3136)
    """
    return fan_in_and_out(f"fans({shape})", shape)


def fan_in_and_out(owner: str, shape: Shape) -> tuple[int, int]:
    """:func:`fans`, with messages that begin with ``owner``."""
    if len(shape) < 2:
        raise ShapeMismatchError(
            f"{owner}: shape {tuple(shape)} has fewer than the 2 dimensions, (out, in, *kernel), "
            "that fan-in and fan-out are counted from. Choose the weights with "
            'initialize(init=..., pattern=r".*weight"), or give this parameter an initializer '
            "that works on any shape, such as init.normal(0.01) or init.zeros"
        )
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


def require_float(owner: Initializer, dtype: Any, *, allow_complex: bool = True) -> None:
    """Refuse dtypes that random real numbers cannot be drawn for."""
    wanted = np.inexact if allow_complex else np.floating
    if not jax.dtypes.issubdtype(dtype, wanted):
        kind = "floating-point" if not allow_complex else "floating-point or complex"
        raise TypeError(f"{subject(owner)} fills {kind} parameters only, not dtype {np.dtype(dtype)}")


def working_dtype(dtype: Any) -> np.dtype:
    """The dtype to compute in: NumPy draws and factorises in float32, float64 and their complex."""
    dtype = np.dtype(dtype)
    return dtype if dtype.kind in "fc" and dtype.itemsize >= 4 else np.dtype(np.float32)


def standard(rng: np.random.Generator, n: int, dtype: Any, *, uniform: bool) -> np.ndarray:
    """Draw ``n`` values of N(0, 1), or U(-1, 1); complex ones have E|z|^2 as the real ones have."""
    real = np.float64 if np.dtype(dtype) in (np.float64, np.complex128) else np.float32
    count = 2 * n if np.dtype(dtype).kind == "c" else n
    if uniform:
        values = rng.random(count, real)
        values *= 2
        values -= 1
    else:
        values = rng.standard_normal(count, real)
    if count == n:
        return values
    values *= math.sqrt(0.5)
    return values.view(dtype)


def _tails(std: float, mean: float, low: float, high: float) -> tuple[float, float, float]:
    """The cumulative probabilities of the bounds, in the tail where they are exact; its side."""
    from scipy.special import ndtr

    low, high = (low - mean) / std, (high - mean) / std
    if low > 0:  # close to 1 differences round away; use the symmetry
        return float(ndtr(-high)), float(ndtr(-low)), -1.0
    return float(ndtr(low)), float(ndtr(high)), 1.0


def has_weight(std: float, mean: float, low: float, high: float) -> bool:
    """Whether double precision sees any of N(mean, std**2) between the bounds."""
    lower, upper, _ = _tails(std, mean, low, high)
    return lower < upper


def truncated(
    rng: np.random.Generator, n: int, dtype: Any, std: float, mean: float, low: float, high: float
) -> np.ndarray:
    """Draw ``n`` values of N(mean, std**2) restricted to the bounds."""
    from scipy.special import ndtri

    if std == 0 or low == high:
        return np.full(n, mean if std == 0 else low, dtype)
    lower, upper, side = _tails(std, mean, low, high)
    values = rng.random(n)
    values *= upper - lower
    values += lower
    ndtri(values, out=values)
    values *= side * std
    values += mean
    np.clip(values, low, high, out=values)
    return values.astype(dtype, copy=False)


class Scaled(ElementwiseInitializer):
    """Zero mean, and a standard deviation that follows from the fans."""

    _uniform = False

    def scale(self, shape: Shape) -> float:
        """The standard deviation for a parameter of ``shape``."""
        raise TypeError(f"{type(self).__name__} does not define scale(self, shape)")

    def draw_block(self, rng: np.random.Generator, n: int, shape: Shape, dtype: Any) -> Any:
        """Draw ``n`` of them."""
        require_float(self, dtype)
        std = self.scale(shape)
        values = standard(rng, n, dtype, uniform=self._uniform)
        values *= std * math.sqrt(3.0) if self._uniform else std
        return values
