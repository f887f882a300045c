"""Activation functions that are smooth, elementwise, as layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..functional import celu, elu, gelu, logsigmoid, mish, selu, sigmoid, silu, softplus, softsign, tanh, tanhshrink
from ..module import Module
from . import _args as args

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Num


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


class SiLU(Module):
    r"""Weigh each value by its sigmoid; also known as swish.

    .. math:: y = \frac{x}{1 + e^{-x}}

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.SiLU()(jnp.array([0.0])).tolist()
        [0.0]

    Reference:
        Elfwing et al., "Sigmoid-Weighted Linear Units", 2017; ``torch.nn.SiLU``.
    """

    def forward(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Apply the function."""
        return silu(x)


class Mish(Module):
    r"""Weigh each value by the hyperbolic tangent of its softplus.

    .. math:: y = x \tanh(\log(1 + e^{x}))

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.Mish()(jnp.array([0.0])).tolist()
        [0.0]

    Reference:
        Misra, "Mish: A Self Regularized Non-Monotonic Activation Function", 2019; ``torch.nn.Mish``.
    """

    def forward(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Apply the function."""
        return mish(x)


class Softplus(Module):
    r"""A smooth form of ReLU.

    .. math:: y = \frac{1}{\beta} \log(1 + e^{\beta x})

    Args:
        beta: the sharpness :math:`\beta` of the bend; not 0.
        threshold: where :math:`\beta x` is above it, the result is :math:`x`.

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> round(float(nn.Softplus()(jnp.array(0.0))), 4)
        0.6931

    Reference:
        ``torch.nn.Softplus``.
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self.beta = args.nonzero(beta, "Softplus", "beta")
        self.threshold = args.number(threshold, "Softplus", "threshold")

    def forward(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Apply the function."""
        return softplus(x, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return args.options(self, beta=1.0, threshold=20.0)[2:]


class LogSigmoid(Module):
    r"""Return the logarithm of the sigmoid, without computing it first.

    .. math:: y = -\log(1 + e^{-x})

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> round(float(nn.LogSigmoid()(jnp.array(0.0))), 4)
        -0.6931

    Reference:
        ``torch.nn.LogSigmoid``.
    """

    def forward(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Apply the function."""
        return logsigmoid(x)


class Softsign(Module):
    r"""Squash to (-1, 1), elementwise, with tails that fall slowly.

    .. math:: y = \frac{x}{1 + |x|}

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.Softsign()(jnp.array([-1.0, 3.0])).tolist()
        [-0.5, 0.75]

    Reference:
        ``torch.nn.Softsign``.
    """

    def forward(self, x: Num[Array, "*shape"]) -> Num[Array, "*shape"]:
        """Apply the function."""
        return softsign(x)


class Tanhshrink(Module):
    r"""Subtract the hyperbolic tangent.

    .. math:: y = x - \tanh(x)

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.Tanhshrink()(jnp.array([0.0])).tolist()
        [0.0]

    Reference:
        ``torch.nn.Tanhshrink``.
    """

    def forward(self, x: Num[Array, "*shape"]) -> Num[Array, "*shape"]:
        """Apply the function."""
        return tanhshrink(x)


class ELU(Module):
    r"""Keep what is positive, and let the rest approach a negative limit.

    .. math:: y = \max(x, 0) + \alpha \min(e^{x} - 1, 0)

    Args:
        alpha: minus the limit, :math:`\alpha`.

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.ELU()(jnp.array([-1e4, 2.0])).tolist()
        [-1.0, 2.0]

    Reference:
        Clevert et al., "Fast and Accurate Deep Network Learning by Exponential Linear Units", 2015;
        ``torch.nn.ELU``.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = args.number(alpha, "ELU", "alpha")

    def forward(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Apply the function."""
        return elu(x, self.alpha)

    def extra_repr(self) -> str:
        return args.options(self, alpha=1.0)[2:]


class SELU(Module):
    r"""Scaled ELU, whose constants keep mean 0 and variance 1 from layer to layer.

    .. math:: y = \lambda \left(\max(x, 0) + \alpha \min(e^{x} - 1, 0)\right)

    The constants are :math:`\alpha \approx 1.6733` and :math:`\lambda \approx 1.0507`. The layers in
    between are meant to begin with ``init.lecun_normal``.

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.SELU()(jnp.array([0.0])).tolist()
        [0.0]

    Reference:
        Klambauer et al., "Self-Normalizing Neural Networks", 2017; ``torch.nn.SELU``.
    """

    def forward(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Apply the function."""
        return selu(x)


class CELU(Module):
    r"""ELU whose gradient is continuous for every ``alpha``.

    .. math:: y = \max(x, 0) + \alpha \min(e^{x / \alpha} - 1, 0)

    Args:
        alpha: minus the limit, :math:`\alpha`; not 0.

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.CELU(0.5)(jnp.array([-1e4, 2.0])).tolist()
        [-0.5, 2.0]

    Reference:
        Barron, "Continuously Differentiable Exponential Linear Units", 2017; ``torch.nn.CELU``.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = args.nonzero(alpha, "CELU", "alpha")

    def forward(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Apply the function."""
        return celu(x, self.alpha)

    def extra_repr(self) -> str:
        return args.options(self, alpha=1.0)[2:]
