"""Losses between numbers and predictions of them, as layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..functional import gaussian_nll_loss, huber_loss, l1_loss, mse_loss, poisson_nll_loss, smooth_l1_loss
from . import _args as args
from ._loss_base import Loss

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Num


class L1Loss(Loss):
    r"""Absolute difference.

    .. math:: \ell_i = |y_i - t_i|

    Args:
        reduction: ``"mean"``, ``"sum"``, or ``"none"``.

    Shape:
        ``(*)`` and ``(*)`` of the same shape to ``()``, or to ``(*)`` with ``reduction="none"``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> float(nn.L1Loss()(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))
        1.0

    Reference:
        ``torch.nn.L1Loss``.
    """

    def forward(self, prediction: Float[Array, "*shape"], target: Float[Array, "*shape"]) -> Float[Array, "*reduced"]:
        """Return the loss."""
        return l1_loss(prediction, target, reduction=self.reduction)


class MSELoss(Loss):
    r"""Squared difference.

    .. math:: \ell_i = (y_i - t_i)^2

    Args:
        reduction: ``"mean"``, ``"sum"``, or ``"none"``.

    Shape:
        ``(*)`` and ``(*)`` of the same shape to ``()``, or to ``(*)`` with ``reduction="none"``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> float(nn.MSELoss()(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))
        2.0

    Reference:
        ``torch.nn.MSELoss``.
    """

    def forward(self, prediction: Float[Array, "*shape"], target: Float[Array, "*shape"]) -> Float[Array, "*reduced"]:
        """Return the loss."""
        return mse_loss(prediction, target, reduction=self.reduction)


class SmoothL1Loss(Loss):
    r"""Absolute difference, with a parabola in place of the corner at zero.

    .. math:: \ell_i = \begin{cases} d_i^2 / (2 \beta) & d_i < \beta \\ d_i - \beta / 2 & \text{otherwise} \end{cases},
        \quad d_i = |y_i - t_i|

    Args:
        beta: where the parabola ends, at least 0.
        reduction: ``"mean"``, ``"sum"``, or ``"none"``.

    Shape:
        ``(*)`` and ``(*)`` of the same shape to ``()``, or to ``(*)`` with ``reduction="none"``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> float(nn.SmoothL1Loss()(jnp.array([1.0]), jnp.zeros(1)))
        0.5

    Reference:
        Girshick, "Fast R-CNN", 2015; ``torch.nn.SmoothL1Loss``.
    """

    _shown = {"beta": 1.0}

    def __init__(self, *, beta: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.beta = args.number(beta, "SmoothL1Loss", "beta", 0)

    def forward(self, prediction: Float[Array, "*shape"], target: Float[Array, "*shape"]) -> Float[Array, "*reduced"]:
        """Return the loss."""
        return smooth_l1_loss(prediction, target, beta=self.beta, reduction=self.reduction)


class HuberLoss(Loss):
    r"""Squared difference, with straight lines in place of the far parts of the parabola.

    .. math:: \ell_i = \begin{cases} d_i^2 / 2 & d_i \le \delta \\ \delta (d_i - \delta / 2) & \text{otherwise}
        \end{cases}, \quad d_i = |y_i - t_i|

    Args:
        delta: where the lines begin, greater than 0.
        reduction: ``"mean"``, ``"sum"``, or ``"none"``.

    Shape:
        ``(*)`` and ``(*)`` of the same shape to ``()``, or to ``(*)`` with ``reduction="none"``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> float(nn.HuberLoss(delta=2.0)(jnp.array([3.0]), jnp.zeros(1)))
        4.0

    Reference:
        Huber, "Robust Estimation of a Location Parameter", 1964; ``torch.nn.HuberLoss``.
    """

    _shown = {"delta": 1.0}

    def __init__(self, *, delta: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.delta = args.number(delta, "HuberLoss", "delta", above=0)

    def forward(self, prediction: Float[Array, "*shape"], target: Float[Array, "*shape"]) -> Float[Array, "*reduced"]:
        """Return the loss."""
        return huber_loss(prediction, target, delta=self.delta, reduction=self.reduction)


class PoissonNLLLoss(Loss):
    r"""Improbability of counts under Poisson distributions.

    .. math:: \ell_i = e^{y_i} - t_i y_i \quad\text{or}\quad \ell_i = y_i - t_i \log(y_i + \epsilon)

    Args:
        log_input: whether the predictions are logarithms of the rates.
        full: whether to add Stirling's approximation of :math:`\log t_i!`.
        eps: keeps the logarithm of rates away from that of zero.
        reduction: ``"mean"``, ``"sum"``, or ``"none"``.

    Shape:
        ``(*)`` and ``(*)`` of the same shape to ``()``, or to ``(*)`` with ``reduction="none"``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> float(nn.PoissonNLLLoss()(jnp.zeros(2), jnp.array([1, 3])))
        1.0

    Reference:
        ``torch.nn.PoissonNLLLoss``.
    """

    _shown = {"log_input": True, "full": False, "eps": 1e-8}

    def __init__(
        self, log_input: bool = True, full: bool = False, *, eps: float = 1e-8, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction=reduction)
        self.log_input = args.flag(log_input, "PoissonNLLLoss", "log_input")
        self.full = args.flag(full, "PoissonNLLLoss", "full")
        self.eps = args.number(eps, "PoissonNLLLoss", "eps", 0)

    def forward(self, prediction: Float[Array, "*shape"], target: Num[Array, "*shape"]) -> Float[Array, "*reduced"]:
        """Return the loss."""
        return poisson_nll_loss(
            prediction, target, log_input=self.log_input, full=self.full, eps=self.eps, reduction=self.reduction
        )


class GaussianNLLLoss(Loss):
    r"""Improbability of numbers under normal distributions.

    .. math:: \ell_i = \frac{1}{2} \left(\log v_i + \frac{(y_i - t_i)^2}{v_i}\right), \quad
        v_i = \max(\sigma_i^2, \epsilon)

    Args:
        full: whether to add the constant :math:`\frac{1}{2} \log 2 \pi`.
        eps: the smallest variance, greater than 0.
        reduction: ``"mean"``, ``"sum"``, or ``"none"``.

    Shape:
        Means ``(*)``, targets ``(*)``, and variances of the same shape, or without the last axis, or with size 1 in one
        axis, to ``()``, or to ``(*)`` with ``reduction="none"``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> float(nn.GaussianNLLLoss()(jnp.zeros(2), jnp.array([1.0, 3.0]), jnp.ones(2)))
        2.5

    Reference:
        Nix and Weigend, "Estimating the Mean and Variance of the Target Probability Distribution", 1994;
        ``torch.nn.GaussianNLLLoss``.
    """

    _shown = {"full": False, "eps": 1e-6}

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.full = args.flag(full, "GaussianNLLLoss", "full")
        self.eps = args.number(eps, "GaussianNLLLoss", "eps", above=0)

    def forward(
        self,
        prediction: Float[Array, "*shape"],
        target: Float[Array, "*shape"],
        var: Float[Array, "*variances"] | float,
    ) -> Float[Array, "*reduced"]:
        """Return the loss."""
        return gaussian_nll_loss(prediction, target, var, full=self.full, eps=self.eps, reduction=self.reduction)
