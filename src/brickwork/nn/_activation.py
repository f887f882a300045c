"""Activation functions as layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..functional import gelu, relu, sigmoid, softmax, tanh
from ..module import Module
from . import _args as args

if TYPE_CHECKING:
    from jaxtyping import Array, Num


class ReLU(Module):
    r"""Keep what is positive, elementwise.

    .. math:: y = \max(x, 0)

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.ReLU()(jnp.array([-1.0, 2.0])).tolist()
        [0.0, 2.0]

    Reference:
        ``torch.nn.ReLU``.
    """

    def forward(self, x: Num[Array, "*shape"]) -> Num[Array, "*shape"]:
        """Apply the function."""
        return relu(x)


class Sigmoid(Module):
    r"""Squash to (0, 1), elementwise.

    .. math:: y = \frac{1}{1 + e^{-x}}

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.Sigmoid()(jnp.array([0.0])).tolist()
        [0.5]

    Reference:
        ``torch.nn.Sigmoid``.
    """

    def forward(self, x: Num[Array, "*shape"]) -> Num[Array, "*shape"]:
        """Apply the function."""
        return sigmoid(x)


class Tanh(Module):
    r"""Squash to (-1, 1), elementwise.

    .. math:: y = \frac{e^{x} - e^{-x}}{e^{x} + e^{-x}}

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.Tanh()(jnp.array([0.0])).tolist()
        [0.0]

    Reference:
        ``torch.nn.Tanh``.
    """

    def forward(self, x: Num[Array, "*shape"]) -> Num[Array, "*shape"]:
        """Apply the function."""
        return tanh(x)


class GELU(Module):
    r"""Weigh each value by the probability that a standard normal variable is below it.

    .. math:: y = x \, \Phi(x)

    Args:
        approximate: ``"none"``, or ``"tanh"`` for the approximation by a hyperbolic tangent.

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.GELU()(jnp.array([0.0])).tolist()
        [0.0]

    Reference:
        Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016; ``torch.nn.GELU``.
    """

    def __init__(self, approximate: str = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ValueError(f"GELU: approximate must be 'none' or 'tanh', got {approximate!r}.")
        self.approximate = approximate

    def forward(self, x: Num[Array, "*shape"]) -> Num[Array, "*shape"]:
        """Apply the function."""
        return gelu(x, self.approximate)

    def extra_repr(self) -> str:
        return args.options(self, approximate="none")[2:]


class Softmax(Module):
    r"""Turn scores into probabilities along one axis.

    .. math:: y_i = \frac{e^{x_i}}{\sum_j e^{x_j}}

    Args:
        dim: the axis along which the result sums to one.

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.Softmax()(jnp.zeros((1, 4))).tolist()
        [[0.25, 0.25, 0.25, 0.25]]

    Reference:
        ``torch.nn.Softmax``.
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = args.integer(dim, "Softmax", "dim")

    def forward(self, x: Num[Array, "*shape"]) -> Num[Array, "*shape"]:
        """Apply the function."""
        return softmax(x, self.dim)

    def extra_repr(self) -> str:
        return args.options(self, dim=-1)[2:]
