"""Activation functions made of straight lines, as layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ..core import Parameter, next_key
from ..functional import (
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    prelu,
    relu,
    relu6,
    rrelu,
    softshrink,
    threshold,
)
from ..functional._activation_piecewise import limits, slopes
from ..init import constant
from ..module import Module
from . import _args as args

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Num


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


class ReLU6(Module):
    r"""Keep what is positive, up to 6, elementwise.

    .. math:: y = \min(\max(x, 0), 6)

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.ReLU6()(jnp.array([-1.0, 2.0, 8.0])).tolist()
        [0.0, 2.0, 6.0]

    Reference:
        ``torch.nn.ReLU6``.
    """

    def forward(self, x: Num[Array, "*shape"]) -> Num[Array, "*shape"]:
        """Apply the function."""
        return relu6(x)


class Hardtanh(Module):
    r"""Limit each value to a range.

    .. math:: y = \min(\max(x, a), b)

    Args:
        min_val: the lower limit :math:`a`.
        max_val: the upper limit :math:`b`, greater than ``min_val``.

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.Hardtanh()(jnp.array([-2.0, 0.5, 2.0])).tolist()
        [-1.0, 0.5, 1.0]

    Reference:
        ``torch.nn.Hardtanh``.
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        self.min_val, self.max_val = limits(min_val, max_val, "Hardtanh")

    def forward(self, x: Num[Array, "*shape"]) -> Num[Array, "*shape"]:
        """Apply the function."""
        return hardtanh(x, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        return f"min_val={self.min_val}, max_val={self.max_val}"


class Hardsigmoid(Module):
    r"""Squash to [0, 1] by a line between two limits, elementwise.

    .. math:: y = \frac{\min(\max(x + 3, 0), 6)}{6}

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.Hardsigmoid()(jnp.array([-4.0, 0.0, 4.0])).tolist()
        [0.0, 0.5, 1.0]

    Reference:
        Courbariaux et al., "BinaryConnect", 2015; ``torch.nn.Hardsigmoid``.
    """

    def forward(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Apply the function."""
        return hardsigmoid(x)


class Hardswish(Module):
    r"""Weigh each value by its hard sigmoid.

    .. math:: y = x \, \frac{\min(\max(x + 3, 0), 6)}{6}

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.Hardswish()(jnp.array([-4.0, 0.0, 4.0])).tolist()
        [-0.0, 0.0, 4.0]

    Reference:
        Howard et al., "Searching for MobileNetV3", 2019; ``torch.nn.Hardswish``.
    """

    def forward(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Apply the function."""
        return hardswish(x)


class LeakyReLU(Module):
    r"""Keep what is positive, and scale down what is not.

    .. math:: y = \max(x, 0) + s \min(x, 0)

    Args:
        negative_slope: the slope :math:`s` for values that are not positive.

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.LeakyReLU(0.5)(jnp.array([-2.0, 2.0])).tolist()
        [-1.0, 2.0]

    Reference:
        ``torch.nn.LeakyReLU``.
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = args.number(negative_slope, "LeakyReLU", "negative_slope")

    def forward(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Apply the function."""
        return leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class PReLU(Module):
    r"""Keep what is positive, and scale what is not by a learned slope.

    .. math:: y = \max(x, 0) + w_c \min(x, 0)

    Weight decay spoils the slopes: leave them out of it.

    Args:
        num_parameters: one slope for all channels, or as many as there are channels in axis 1.
        init: the first value of the slopes.
        dtype: of the slopes.

    Shape:
        Any with one slope, ``(N, C, *)`` with several; the output has the shape of the input.

    Parameters:
        weight: ``(num_parameters,)``, all ``init``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.PReLU()(jnp.array([-2.0, 2.0])).tolist()
        [-0.5, 2.0]

    Reference:
        He et al., "Delving Deep into Rectifiers", 2015; ``torch.nn.PReLU``.
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, *, dtype: Any = jnp.float32) -> None:
        slopes = args.size(num_parameters, "PReLU", "num_parameters")
        self.init = args.number(init, "PReLU", "init")
        self.weight = Parameter(shape=(slopes,), dtype=dtype, init=constant(self.init))

    @property
    def num_parameters(self) -> int:
        """Number of slopes."""
        return self.weight.shape[0]

    def forward(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Apply the function."""
        return prelu(x, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}" + args.options(self, init=0.25)


class RReLU(Module):
    r"""Keep what is positive, and scale what is not by a slope that is random in training mode.

    .. math:: y = \max(x, 0) + s \min(x, 0), \quad s \sim U(a, b)

    In evaluation mode the slope is the mean, :math:`(a + b) / 2`. Random numbers come from the stream that
    ``bw.seed`` sets.

    Args:
        lower: the smallest slope :math:`a`.
        upper: the largest slope :math:`b`.

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.RReLU(0.25, 0.75).eval()(jnp.array([-2.0, 2.0])).tolist()
        [-1.0, 2.0]

    Reference:
        Xu et al., "Empirical Evaluation of Rectified Activations", 2015; ``torch.nn.RReLU``.
    """

    uses_random = True

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3) -> None:
        self.lower, self.upper = slopes(lower, upper, "RReLU")

    def forward(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Apply the function."""
        return rrelu(x, self.lower, self.upper, next_key() if self.training else None)

    def extra_repr(self) -> str:
        return f"lower={self.lower:.4g}, upper={self.upper:.4g}"


class Threshold(Module):
    r"""Replace what is not above a threshold.

    .. math:: y = \begin{cases} x & x > t \\ v & \text{otherwise} \end{cases}

    Args:
        threshold: the threshold :math:`t`.
        value: what replaces the others, :math:`v`.

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.Threshold(1.0, -1.0)(jnp.array([0.5, 2.0])).tolist()
        [-1.0, 2.0]

    Reference:
        ``torch.nn.Threshold``.
    """

    def __init__(self, threshold: float, value: float) -> None:
        self.threshold = args.number(threshold, "Threshold", "threshold")
        self.value = args.number(value, "Threshold", "value")

    def forward(self, x: Num[Array, "*shape"]) -> Num[Array, "*shape"]:
        """Apply the function."""
        return threshold(x, self.threshold, self.value)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, value={self.value}"


class Hardshrink(Module):
    r"""Set what is close to zero to zero.

    .. math:: y = \begin{cases} x & |x| > \lambda \\ 0 & \text{otherwise} \end{cases}

    Args:
        lambd: the distance :math:`\lambda` from zero.

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.Hardshrink()(jnp.array([-2.0, 0.25, 2.0])).tolist()
        [-2.0, 0.0, 2.0]

    Reference:
        ``torch.nn.Hardshrink``.
    """

    def __init__(self, lambd: float = 0.5) -> None:
        self.lambd = args.number(lambd, "Hardshrink", "lambd")

    def forward(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Apply the function."""
        return hardshrink(x, self.lambd)

    def extra_repr(self) -> str:
        return args.options(self, lambd=0.5)[2:]


class Softshrink(Module):
    r"""Move each value towards zero by a fixed amount, and no further than zero.

    .. math:: y = \operatorname{sign}(x) \max(|x| - \lambda, 0)

    Args:
        lambd: the amount :math:`\lambda`, at least 0.

    Shape:
        Any; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.Softshrink()(jnp.array([-2.0, 0.25, 2.0])).tolist()
        [-1.5, 0.0, 1.5]

    Reference:
        ``torch.nn.Softshrink``.
    """

    def __init__(self, lambd: float = 0.5) -> None:
        self.lambd = args.number(lambd, "Softshrink", "lambd", 0)

    def forward(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Apply the function."""
        return softshrink(x, self.lambd)

    def extra_repr(self) -> str:
        return args.options(self, lambd=0.5)[2:]
