"""Dropout layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core import next_key
from ..functional import _checks as checks, dropout
from ..functional._dropout import check_rate
from ..module import Module

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class Dropout(Module):
    r"""Set elements to zero at random in training mode; return the input in evaluation mode.

    .. math:: y_i = \frac{x_i m_i}{1 - p}, \quad m_i \sim \mathrm{Bernoulli}(1 - p)

    Random numbers come from the stream that ``bw.seed`` sets.

    Args:
        p: the probability of dropping an element, in ``[0, 1]``.

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.Dropout(0.5)
        >>> sorted(set(layer(jnp.ones(1000)).tolist()))
        [0.0, 2.0]
        >>> layer.eval()(jnp.ones(2)).tolist()
        [1.0, 1.0]

    Reference:
        Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
        2014; ``torch.nn.Dropout``.
    """

    uses_random = True

    def __init__(self, p: float = 0.5) -> None:
        self.p = check_rate(p, "Dropout", "p")

    def forward(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Drop elements in training mode."""
        x = checks.to_array(x, "Dropout", "x")
        if not self.training or self.p == 0:
            return x
        return dropout(x, self.p, next_key())

    def extra_repr(self) -> str:
        return f"p={self.p}"
