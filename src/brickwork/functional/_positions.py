"""Positions in a sequence: sines of Vaswani et al., and rotations."""

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
    from jaxtyping import Array, Float, Int

    from ._types import ArrayLike


def sinusoidal_positions(
    positions: Int[ArrayLike, "*shape"] | int, dim: int, base: float = 10000.0
) -> Float[Array, "*shape dim"]:
    r"""Sines and cosines of positions, at wavelengths from :math:`2 \pi` to :math:`2 \pi \cdot` ``base``.

    .. math:: y_{t, 2i} = \sin(t \, b^{-2i/d}), \quad y_{t, 2i+1} = \cos(t \, b^{-2i/d})

    The angles are exact to float32 at every position: whole turns are taken off in integers.

    Args:
        positions: :math:`t`, integers of any shape.
        dim: :math:`d`, the number of features; even.
        base: :math:`b`.

    Returns:
        float32 array of shape ``(*, dim)``.

    Raises:
        TypeError: ``positions`` are no integers.
        ValueError: ``dim`` is odd or less than 2, or ``base`` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.sinusoidal_positions(jnp.arange(3), 2).shape
        (3, 2)
        >>> F.sinusoidal_positions(0, 4).tolist()
        [0.0, 1.0, 0.0, 1.0]

    Reference:
        Vaswani et al., "Attention Is All You Need", 2017.
    """
    cos, sin = _tables(positions, dim, base, "sinusoidal_positions")
    return _interleave(sin, cos)


def rotary_tables(
    positions: Int[ArrayLike, "*shape"] | int, dim: int, base: float = 10000.0
) -> tuple[Float[Array, "*shape half"], Float[Array, "*shape half"]]:
    r"""Cosines and sines by which :func:`apply_rotary` rotates.

    .. math:: c_{t, i} = \cos(t \, b^{-2i/d}), \quad s_{t, i} = \sin(t \, b^{-2i/d})

    The angles are exact to float32 at every position: whole turns are taken off in integers.

    Args:
        positions: :math:`t`, integers of any shape.
        dim: :math:`d`, the number of features that are rotated; even.
        base: :math:`b`.

    Returns:
        ``(cos, sin)``, float32 arrays of shape ``(*, dim / 2)``.

    Raises:
        TypeError: ``positions`` are no integers.
        ValueError: ``dim`` is odd or less than 2, or ``base`` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> cos, sin = F.rotary_tables(jnp.arange(5), 8)
        >>> cos.shape
        (5, 4)

    Reference:
        Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021.
    """
    return _tables(positions, dim, base, "rotary_tables")


def apply_rotary(
    x: Float[ArrayLike, "*batch t d"],
    cos: Float[ArrayLike, "*#batch t half"],
    sin: Float[ArrayLike, "*#batch t half"],
    interleaved: bool = False,
) -> Float[Array, "*batch t d"]:
    r"""Rotate pairs of features.

    .. math:: y_i = x_i c_i - x_j s_i, \quad y_j = x_j c_i + x_i s_i

    where the partner ``j`` of feature ``i`` is ``i + half``, or the next one if ``interleaved``.

    Args:
        x: queries or keys, ``(*, T, D)``.
        cos: :math:`c`, of a shape that broadcasts to ``(*, T, half)``, from :func:`rotary_tables`.
        sin: :math:`s`, of the same shape. With ``2 * half < D`` the features from ``2 * half`` on stay
            as they are.
        interleaved: pair features ``(0, 1), (2, 3), ...`` instead of ``(0, half), (1, half + 1), ...``.

    Returns:
        Array of the shape and dtype of ``x``; the rotation itself is computed in float32 at least.

    Raises:
        ShapeMismatchError: the tables don't fit ``x``.
        TypeError: an argument is not an array of floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> cos, sin = F.rotary_tables(jnp.arange(5), 8)
        >>> F.apply_rotary(jnp.ones((2, 4, 5, 8)), cos, sin).shape
        (2, 4, 5, 8)

    Reference:
        Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021.
    """
    x = checks.to_array(x, "apply_rotary", "x")
    cos, sin = checks.to_array(cos, "apply_rotary", "cos"), checks.to_array(sin, "apply_rotary", "sin")
    for name, v in (("x", x), ("cos", cos), ("sin", sin)):
        checks.require_floats(v, "apply_rotary", name)
    if cos.shape != sin.shape:
        checks.shape_error("apply_rotary", "cos and sin must have one shape.", "Check the tables.", cos=cos, sin=sin)
    fits = x.ndim > 1 and 1 <= cos.ndim <= x.ndim and 2 * cos.shape[-1] <= x.shape[-1]
    if fits:
        pairs = zip(cos.shape[-2::-1], x.shape[-2::-1], strict=False)
        fits = all(a in (1, b) for a, b in pairs)
    if not fits:
        checks.shape_error(
            "apply_rotary",
            "cos and sin must broadcast to (*, T, half) for x of shape (*, T, D), with half at most D / 2.",
            "Make them by rotary_tables(positions, D).",
            x=x,
            cos=cos,
        )
    return _rotate(x, cos, sin, interleaved=checks.flag(interleaved, "apply_rotary", "interleaved"))


def check_base(base: Any, function: str) -> float:
    """Return the base of the wavelengths as a ``float``."""
    if isinstance(base, (bool, np.bool_)) or not isinstance(base, (int, float, np.integer, np.floating)):
        raise TypeError(f"{function}: base must be a number, got {base!r:.60} ({type(base).__name__}).")
    if not (base > 0 and math.isfinite(base)):
        raise ValueError(f"{function}: base must be positive and finite, got {base!r}.")
    return float(base)


def check_even(dim: Any, function: str, argument: str = "dim") -> int:
    """Return a number of features, which come in pairs."""
    dim = checks.integer(dim, function, argument, 2)
    if dim % 2:
        raise ValueError(f"{function}: {argument} must be even, since features come in pairs, got {dim}.")
    return dim


def _tables(positions: Any, dim: Any, base: Any, function: str) -> tuple[Array, Array]:
    dim, base = check_even(dim, function), check_base(base, function)
    positions = checks.to_array(positions, function, "positions")
    if not checks.is_integer(positions):
        raise TypeError(
            f"{function}: positions must be integers, got {checks.describe(positions)}. "
            "Cast them: positions.astype(jnp.int32)."
        )
    return _cos_sin(positions, dim=dim, base=base)


@functools.lru_cache
def _turns(dim: int, base: float) -> tuple[np.ndarray, np.ndarray]:
    """What part of a turn one position is worth, for each pair: its first 32 bits, and the 16 bits after them."""
    parts = [int(base ** (-2 * i / dim) / (2 * math.pi) * 2**48) for i in range(dim // 2)]
    return np.array([n >> 16 & 0xFFFFFFFF for n in parts], np.uint32), np.array([n & 0xFFFF for n in parts], np.uint32)


@functools.partial(jax.jit, static_argnames=("dim", "base"))
def _cos_sin(positions: Array, *, dim: int, base: float) -> tuple[Array, Array]:
    high, low = _turns(dim, base)
    wide = positions.astype(jnp.int32) if positions.dtype.itemsize < 4 else positions
    size = jnp.abs(wide)  # that of the least int32 is right again as uint32
    count = size[..., None].astype(jnp.uint32)
    # The product of the position and 48 bits of the fraction, modulo one turn. What overflows are whole turns.
    carried = (count >> 16) * low + (((count & 0xFFFF) * low) >> 16)
    turn = lax.bitcast_convert_type(count * high + carried, jnp.int32)  # from minus half a turn to half a turn
    angle = turn.astype(jnp.float32) * np.float32(2 * math.pi / 2**32)
    if size.dtype.itemsize > 4:
        angle = jnp.where(((size < 0) | (size >= 2**32))[..., None], jnp.nan, angle)
    sign = jnp.where(positions < 0, -1, 1)[..., None].astype(jnp.float32)
    return jnp.cos(angle), jnp.sin(angle) * sign


def _interleave(a: Array, b: Array) -> Array:
    return jnp.stack([a, b], -1).reshape(*a.shape[:-1], 2 * a.shape[-1])


@functools.partial(jax.jit, static_argnames="interleaved")
def _rotate(x: Array, cos: Array, sin: Array, *, interleaved: bool) -> Array:
    half, dtype = cos.shape[-1], checks.statistics_dtype(x.dtype)
    cos, sin = cos.astype(dtype), sin.astype(dtype)
    part = x[..., : 2 * half].astype(dtype)
    a, b = (part[..., ::2], part[..., 1::2]) if interleaved else (part[..., :half], part[..., half:])
    a, b = a * cos - b * sin, b * cos + a * sin
    out = (_interleave(a, b) if interleaved else jnp.concatenate([a, b], -1)).astype(x.dtype)
    return out if x.shape[-1] == 2 * half else jnp.concatenate([out, x[..., 2 * half :]], -1)
