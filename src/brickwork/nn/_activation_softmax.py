"""Softmax and its relatives, and gates, as layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..functional import _checks as checks, glu, log_softmax, softmax, softmin
from ..module import Module
from . import _args as args

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Num


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


class LogSoftmax(Module):
    r"""Return the logarithm of the softmax, without computing it first.

    .. math:: y_i = x_i - \log \sum_j e^{x_j}

    Args:
        dim: the axis along which the exponentials of the result sum to one.

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.LogSoftmax()(jnp.array([0.0])).tolist()
        [0.0]

    Reference:
        ``torch.nn.LogSoftmax``.
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = args.integer(dim, "LogSoftmax", "dim")

    def forward(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Apply the function."""
        return log_softmax(x, self.dim)

    def extra_repr(self) -> str:
        return args.options(self, dim=-1)[2:]


class Softmin(Module):
    r"""Turn scores into probabilities along one axis, the smallest score into the largest.

    .. math:: y_i = \frac{e^{-x_i}}{\sum_j e^{-x_j}}

    Args:
        dim: the axis along which the result sums to one.

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.Softmin()(jnp.zeros((1, 4))).tolist()
        [[0.25, 0.25, 0.25, 0.25]]

    Reference:
        ``torch.nn.Softmin``.
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = args.integer(dim, "Softmin", "dim")

    def forward(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Apply the function."""
        return softmin(x, self.dim)

    def extra_repr(self) -> str:
        return args.options(self, dim=-1)[2:]


class Softmax2d(Module):
    r"""Turn the scores of the channels into probabilities, at each place of an image.

    .. math:: y_c = \frac{e^{x_c}}{\sum_k e^{x_k}}

    Shape:
        ``(N, C, H, W)`` or ``(C, H, W)``; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.Softmax2d()(jnp.zeros((4, 1, 1))).reshape(-1).tolist()
        [0.25, 0.25, 0.25, 0.25]

    Reference:
        ``torch.nn.Softmax2d``.
    """

    def forward(self, x: Float[Array, "*n c h w"]) -> Float[Array, "*n c h w"]:
        """Apply the function."""
        x = checks.to_array(x, "Softmax2d", "x")
        checks.require_spatial(x, 2, "Softmax2d")
        return softmax(x, -3)


class GLU(Module):
    r"""Gate one half of an axis by the other half.

    .. math:: y = a \, \sigma(b), \quad [a, b] = x

    Args:
        dim: the axis; its size must be even.

    Shape:
        Any with an axis ``dim``, whose size in the output is half of that in the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.GLU()(jnp.array([4.0, 0.0])).tolist()
        [2.0]

    Reference:
        Dauphin et al., "Language Modeling with Gated Convolutional Networks", 2016; ``torch.nn.GLU``.
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = args.integer(dim, "GLU", "dim")

    def forward(self, x: Float[Array, "*shape"]) -> Float[Array, "*half"]:
        """Apply the function."""
        return glu(x, self.dim)

    def extra_repr(self) -> str:
        return args.options(self, dim=-1)[2:]
