"""Losses between classes or probabilities and scores for them, as layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..functional import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    ctc_loss,
    kl_div,
    nll_loss,
    sigmoid_focal_loss,
)
from ..functional._loss_binary import check_kl_reduction, focal_options
from . import _args as args
from ._loss_base import Loss, class_weights, constant_buffer

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Num

    from ..functional._loss_ctc import Lengths
    from ..functional._types import ArrayLike


class CrossEntropyLoss(Loss):
    r"""Improbability of the right classes under the softmax of scores.

    .. math:: \ell_n = -w_{t_n} \log \frac{e^{z_{n,t_n}}}{\sum_c e^{z_{n,c}}}
        \quad\text{or}\quad
        \ell_n = -\sum_c w_c \, t_{n,c} \log \frac{e^{z_{n,c}}}{\sum_k e^{z_{n,k}}}

    Args:
        weight: one number for each class, ``(C,)``.
        ignore_index: the class index whose examples count for nothing.
        label_smoothing: the part of each target that is spread evenly over all classes, in ``[0, 1]``.
        reduction: ``"mean"``, ``"sum"``, or ``"none"``.

    Shape:
        Scores ``(N, C)``, ``(N, C, d1, ...)`` or ``(C,)``, and class indices ``(N,)``, ``(N, d1, ...)`` or
        ``()``, or class probabilities of the shape of the scores, to ``()``; with ``reduction="none"`` to the
        shape of class indices.

    Parameters:
        weight: buffer ``(C,)``, where given.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> logits = jnp.array([[2.0, 0.0], [0.0, 2.0]])
        >>> round(float(nn.CrossEntropyLoss()(logits, jnp.array([0, 1]))), 4)
        0.1269

    Reference:
        ``torch.nn.CrossEntropyLoss``; see ``brickwork.losses.cross_entropy``.
    """

    _shown = {"ignore_index": -100, "label_smoothing": 0.0}

    def __init__(
        self,
        weight: Float[ArrayLike, " c"] | None = None,
        *,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.weight = class_weights(weight, "CrossEntropyLoss")
        self.ignore_index = args.integer(ignore_index, "CrossEntropyLoss", "ignore_index")
        self.label_smoothing = args.number(label_smoothing, "CrossEntropyLoss", "label_smoothing", 0, 1)

    def forward(
        self, logits: Float[Array, "n c *d"], target: Int[Array, " n *d"] | Float[Array, "n c *d"]
    ) -> Float[Array, "*reduced"]:
        """Return the loss."""
        return cross_entropy(
            logits,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction=self.reduction,
        )


class NLLLoss(Loss):
    r"""Negative log-probabilities of the right classes.

    .. math:: \ell_n = -w_{t_n} y_{n,t_n}

    Args:
        weight: one number for each class, ``(C,)``.
        ignore_index: the class index whose examples count for nothing.
        reduction: ``"mean"``, ``"sum"``, or ``"none"``.

    Shape:
        Log-probabilities ``(N, C)``, ``(N, C, d1, ...)`` or ``(C,)``, and class indices ``(N,)``,
        ``(N, d1, ...)`` or ``()``, to ``()``; with ``reduction="none"`` to the shape of class indices.

    Parameters:
        weight: buffer ``(C,)``, where given.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> float(nn.NLLLoss()(jnp.array([[-1.0, -2.0], [-3.0, -4.0]]), jnp.array([0, 1])))
        2.5

    Reference:
        ``torch.nn.NLLLoss``.
    """

    _shown = {"ignore_index": -100}

    def __init__(
        self, weight: Float[ArrayLike, " c"] | None = None, *, ignore_index: int = -100, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction=reduction)
        self.weight = class_weights(weight, "NLLLoss")
        self.ignore_index = args.integer(ignore_index, "NLLLoss", "ignore_index")

    def forward(self, log_probs: Float[Array, "n c *d"], target: Int[Array, " n *d"]) -> Float[Array, "*reduced"]:
        """Return the loss."""
        return nll_loss(log_probs, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class KLDivLoss(Loss):
    r"""Kullback-Leibler divergence of a distribution from a target.

    .. math:: \ell_i = t_i (\log t_i - y_i) \quad\text{or}\quad \ell_i = e^{t_i} (t_i - y_i)

    Args:
        log_target: whether the targets are logarithms of probabilities.
        reduction: ``"batchmean"`` for the divergence itself, ``"mean"``, ``"sum"``, or ``"none"``.

    Shape:
        Log-probabilities ``(*)`` and probabilities ``(*)`` to ``()``, or to ``(*)`` with ``reduction="none"``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> half = jnp.full((1, 2), 0.5)
        >>> float(nn.KLDivLoss(reduction="batchmean")(jnp.log(half), half))
        0.0

    Reference:
        ``torch.nn.KLDivLoss``.
    """

    _shown = {"log_target": False}

    def __init__(self, *, log_target: bool = False, reduction: str = "mean") -> None:
        self.reduction = check_kl_reduction(reduction, "KLDivLoss")
        self.log_target = args.flag(log_target, "KLDivLoss", "log_target")

    def forward(self, log_probs: Float[Array, "*shape"], target: Float[Array, "*shape"]) -> Float[Array, "*reduced"]:
        """Return the loss."""
        return kl_div(log_probs, target, log_target=self.log_target, reduction=self.reduction)


class BCELoss(Loss):
    r"""Improbability of yes-or-no labels.

    .. math:: \ell_i = -w_i \left(t_i \log p_i + (1 - t_i) \log(1 - p_i)\right)

    Args:
        weight: factors that broadcast to the shape of the input.
        reduction: ``"mean"``, ``"sum"``, or ``"none"``.

    Shape:
        Probabilities ``(*)`` and labels ``(*)`` to ``()``, or to ``(*)`` with ``reduction="none"``.

    Parameters:
        weight: buffer of the shape given, where given.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> round(float(nn.BCELoss()(jnp.array([0.5, 0.5]), jnp.array([0, 1]))), 4)
        0.6931

    Reference:
        ``torch.nn.BCELoss``.
    """

    def __init__(self, weight: Float[ArrayLike, "*weights"] | None = None, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.weight = constant_buffer(weight, "BCELoss", "weight")

    def forward(self, probabilities: Float[Array, "*shape"], target: Num[Array, "*shape"]) -> Float[Array, "*reduced"]:
        """Return the loss."""
        return binary_cross_entropy(probabilities, target, weight=self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(Loss):
    r"""Improbability of yes-or-no labels under the sigmoid of scores.

    .. math:: \ell_i = -w_i \left(q_i t_i \log \sigma(x_i) + (1 - t_i) \log \sigma(-x_i)\right)

    Args:
        weight: factors :math:`w` that broadcast to the shape of the input.
        pos_weight: factors :math:`q` of positive labels, which broadcast to the shape of the input.
        reduction: ``"mean"``, ``"sum"``, or ``"none"``.

    Shape:
        Scores ``(*)`` and labels ``(*)`` to ``()``, or to ``(*)`` with ``reduction="none"``.

    Parameters:
        weight: buffer of the shape given, where given.
        pos_weight: buffer of the shape given, where given.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> round(float(nn.BCEWithLogitsLoss()(jnp.zeros(2), jnp.array([0, 1]))), 4)
        0.6931

    Reference:
        ``torch.nn.BCEWithLogitsLoss``.
    """

    def __init__(
        self,
        weight: Float[ArrayLike, "*weights"] | None = None,
        *,
        pos_weight: Float[ArrayLike, "*weights"] | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.weight = constant_buffer(weight, "BCEWithLogitsLoss", "weight")
        self.pos_weight = constant_buffer(pos_weight, "BCEWithLogitsLoss", "pos_weight")

    def forward(self, logits: Float[Array, "*shape"], target: Num[Array, "*shape"]) -> Float[Array, "*reduced"]:
        """Return the loss."""
        return binary_cross_entropy_with_logits(
            logits, target, weight=self.weight, pos_weight=self.pos_weight, reduction=self.reduction
        )


class FocalLoss(Loss):
    r"""Improbability of yes-or-no labels, with little weight on what is easy.

    .. math:: \ell_i = -\alpha_i (1 - p_i)^\gamma \log p_i, \quad
        p_i = t_i \sigma(x_i) + (1 - t_i) \sigma(-x_i), \quad \alpha_i = t_i \alpha + (1 - t_i) (1 - \alpha)

    Args:
        alpha: the weight of positive labels, in ``[0, 1]``; -1 for no weights.
        gamma: the exponent, at least 0.
        reduction: ``"mean"``, ``"sum"``, or ``"none"``.

    Shape:
        Scores ``(*)`` and labels ``(*)`` to ``()``, or to ``(*)`` with ``reduction="none"``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> round(float(nn.FocalLoss()(jnp.zeros(2), jnp.array([0, 1]))), 4)
        0.0866

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", 2017; ``torchvision.ops.sigmoid_focal_loss``.
    """

    _shown = {"alpha": 0.25, "gamma": 2.0}

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.alpha, self.gamma = focal_options(alpha, gamma, "FocalLoss")

    def forward(self, logits: Float[Array, "*shape"], target: Num[Array, "*shape"]) -> Float[Array, "*reduced"]:
        """Return the loss."""
        return sigmoid_focal_loss(logits, target, alpha=self.alpha, gamma=self.gamma, reduction=self.reduction)


class CTCLoss(Loss):
    r"""Improbability of sequences of labels, whatever their alignment with the frames.

    .. math:: \ell_n = -\log \sum_{\pi \in A(t_n)} \prod_{k=1}^{T_n} e^{y_{k,n,\pi_k}}

    Args:
        blank: the index of the class that stands for no label.
        reduction: ``"mean"`` of the losses divided by the lengths of their targets, ``"sum"``, or ``"none"``.
        zero_infinity: whether losses that are infinite, because there are too few frames, count as zero.

    Shape:
        Log-probabilities ``(T, N, C)``, targets ``(N, S)`` or one after the other ``(sum(target_lengths),)``,
        and the lengths of inputs and targets, ``(N,)`` each, to ``()``, or to ``(N,)`` with
        ``reduction="none"``. One example: ``(T, C)`` and ``(S,)``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> log_probs = jnp.log(jnp.full((2, 1, 2), 0.5))
        >>> round(float(nn.CTCLoss()(log_probs, jnp.array([[1]]), [2], [1])), 4)
        0.2877

    Reference:
        Graves et al., "Connectionist Temporal Classification", 2006; ``torch.nn.CTCLoss``.
    """

    _shown = {"blank": 0, "zero_infinity": False}

    def __init__(self, blank: int = 0, *, reduction: str = "mean", zero_infinity: bool = False) -> None:
        super().__init__(reduction=reduction)
        self.blank = args.integer(blank, "CTCLoss", "blank", 0)
        self.zero_infinity = args.flag(zero_infinity, "CTCLoss", "zero_infinity")

    def forward(
        self,
        log_probs: Float[Array, "t *n c"],
        targets: Int[Array, "*n s"],
        input_lengths: Lengths,
        target_lengths: Lengths,
    ) -> Float[Array, "*reduced"]:
        """Return the loss."""
        return ctc_loss(
            log_probs,
            targets,
            input_lengths,
            target_lengths,
            blank=self.blank,
            zero_infinity=self.zero_infinity,
            reduction=self.reduction,
        )
