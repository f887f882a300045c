"""Positions in a sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ..functional import _checks as checks, apply_rotary, rotary_tables, sinusoidal_positions
from ..functional._positions import check_base, check_even
from ..module import Module
from . import _args as args

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


class SinusoidalPositions(Module):
    r"""Add sines and cosines of the position.

    .. math:: y_{t, 2i} = x_{t, 2i} + \sin(t \, b^{-2i/d}), \quad y_{t, 2i+1} = x_{t, 2i+1} + \cos(t \, b^{-2i/d})

    There is no longest sequence: the table is computed for the positions at hand, exact to float32 at
    each. For data ``(T, N, D)`` add ``functional.sinusoidal_positions(jnp.arange(T), D)[:, None]``.

    Args:
        base: :math:`b`; wavelengths reach from :math:`2 \pi` to :math:`2 \pi b`.

    Shape:
        ``(*, T, D)`` with an even D; the output has the shape of the input. ``positions`` is the position of
        the first element, 0 by default, or those of all, of a shape that broadcasts to ``(*, T)``.

    Raises:
        ShapeMismatchError: ``x`` has fewer than 2 axes or an odd number of features, or positions don't fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.SinusoidalPositions()
        >>> layer(jnp.zeros((1, 2, 2)))[0, 0].tolist()
        [0.0, 1.0]
        >>> layer(jnp.zeros((1, 2, 2)), positions=7).shape
        (1, 2, 2)

    Reference:
        Vaswani et al., "Attention Is All You Need", 2017.
    """

    def __init__(self, *, base: float = 10000.0) -> None:
        self.base = check_base(base, "SinusoidalPositions")

    def forward(self, x: Float[Array, "*batch t d"], positions: Int[Array, "*#batch t"] | int = 0) -> Any:
        """Add the sines."""
        x = _sequence(x, "SinusoidalPositions")
        if x.shape[-1] % 2:
            problem = f"x has {x.shape[-1]} features in its last axis, but they come in pairs."
            checks.shape_error("SinusoidalPositions", problem, "Use an even number of features.", x=x)
        table = sinusoidal_positions(_positions(positions, x, "SinusoidalPositions"), x.shape[-1], self.base)
        return x + table.astype(x.dtype)

    def extra_repr(self) -> str:
        return args.options(self, base=10000.0)[2:]


class RotaryEmbedding(Module):
    r"""Rotate pairs of features of queries or keys by angles that grow with the position.

    .. math:: \begin{pmatrix} y_i \\ y_j \end{pmatrix} = \begin{pmatrix} \cos t\theta_i & -\sin t\theta_i \\
        \sin t\theta_i & \cos t\theta_i \end{pmatrix} \begin{pmatrix} x_i \\ x_j \end{pmatrix},
        \quad \theta_i = b^{-2i/d}

    The product of a query and a key then depends on their distance only. There is no longest sequence:
    the angles are computed for the positions at hand, exact to float32 at each.

    Args:
        dim: :math:`d`, how many of the features are rotated, the first ones; all of them when not given.
        base: :math:`b`.
        interleaved: pair features ``(0, 1), (2, 3), ...`` as the paper and GPT-J do, instead of
            ``(0, d / 2), (1, d / 2 + 1), ...`` as GPT-NeoX and Llama do.

    Shape:
        ``(*, T, D)``, usually ``(N, H, T, D)``; the output has the shape of the input. ``positions`` is the
        position of the first element, 0 by default, or those of all, of a shape that broadcasts to ``(*, T)``:
        ``(T,)``, or ``(N, 1, T)`` for those of each sequence.

    Raises:
        ShapeMismatchError: ``x`` has fewer than 2 axes or too few features, or positions don't fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> rotary = nn.RotaryEmbedding()
        >>> q, k = jnp.ones((2, 4, 5, 8)), jnp.ones((2, 4, 5, 8))
        >>> rotary(q).shape, rotary(k, positions=3).shape
        ((2, 4, 5, 8), (2, 4, 5, 8))

    Reference:
        Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021.
    """

    def __init__(self, *, dim: int | None = None, base: float = 10000.0, interleaved: bool = False) -> None:
        self.dim = None if dim is None else check_even(dim, "RotaryEmbedding", "dim")
        self.base = check_base(base, "RotaryEmbedding")
        self.interleaved = args.flag(interleaved, "RotaryEmbedding", "interleaved")

    def forward(self, x: Float[Array, "*batch t d"], positions: Int[Array, "*#batch t"] | int = 0) -> Any:
        """Rotate."""
        x = _sequence(x, "RotaryEmbedding")
        width = x.shape[-1]
        dim = width if self.dim is None else self.dim
        if dim > width or dim % 2:
            need = f"at least dim={dim}" if dim > width else "an even number"
            problem = f"x has {width} features in its last axis, but needs {need}, since they come in pairs."
            checks.shape_error("RotaryEmbedding", problem, "Check the data: each head has its own last axis.", x=x)
        cos, sin = rotary_tables(_positions(positions, x, "RotaryEmbedding"), dim, self.base)
        return apply_rotary(x, cos, sin, self.interleaved)

    def extra_repr(self) -> str:
        return args.options(self, dim=None, base=10000.0, interleaved=False)[2:]


def _sequence(x: Any, layer: str) -> Array:
    x = checks.to_array(x, layer, "x")
    checks.require_floats(x, layer, "x")
    if x.ndim < 2:
        problem = f"x must have at least 2 axes (*, T, D), not {x.ndim}."
        checks.shape_error(layer, problem, "Add the axis of the positions.", x=x)
    return x


def _positions(positions: Any, x: Array, layer: str) -> Array:
    """The position of each element."""
    positions = checks.to_array(positions, layer, "positions")
    if not positions.ndim:
        if not checks.is_integer(positions):
            raise TypeError(f"{layer}: positions must be integers, got {positions!r:.60}.")
        start = positions.astype(jnp.int32) if positions.dtype.itemsize < 4 else positions  # or the last might not fit
        return start + jnp.arange(x.shape[-2], dtype=start.dtype)
    pairs = zip(positions.shape[::-1], x.shape[-2::-1], strict=False)
    if positions.ndim >= x.ndim or not all(a in (1, b) for a, b in pairs):
        checks.shape_error(
            layer,
            f"positions must broadcast to {x.shape[:-1]}, all axes of x but the last.",
            "Those of each sequence need axes for what comes between, as the heads: positions[:, None].",
            positions=positions,
            x=x,
        )
    return positions
