"""Losses that ask for a margin, and their smooth relatives, as layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..functional import (
    hinge_embedding_loss,
    margin_ranking_loss,
    multi_margin_loss,
    multilabel_margin_loss,
    multilabel_soft_margin_loss,
    soft_margin_loss,
)
from ..functional._loss_margin import one_or_two
from . import _args as args
from ._loss_base import Loss, class_weights, constant_buffer

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Num

    from ..functional._types import ArrayLike


class SoftMarginLoss(Loss):
    r"""Improbability of the labels 1 and -1 under the sigmoid of scores.

    .. math:: \ell_i = \log\left(1 + e^{-t_i x_i}\right)

    Args:
        reduction: ``"mean"``, ``"sum"``, or ``"none"``.

    Shape:
        Scores ``(*)`` and labels ``(*)`` to ``()``, or to ``(*)`` with ``reduction="none"``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> round(float(nn.SoftMarginLoss()(jnp.zeros(2), jnp.array([1, -1]))), 4)
        0.6931

    Reference:
        ``torch.nn.SoftMarginLoss``.
    """

    def forward(self, scores: Float[Array, "*shape"], target: Num[Array, "*shape"]) -> Float[Array, "*reduced"]:
        """Return the loss."""
        return soft_margin_loss(scores, target, reduction=self.reduction)


class HingeEmbeddingLoss(Loss):
    r"""What is alike must be close, and what is not apart by a margin.

    .. math:: \ell_i = \begin{cases} x_i & t_i = 1 \\ \max(0, \Delta - x_i) & t_i = -1 \end{cases}

    Args:
        margin: :math:`\Delta`.
        reduction: ``"mean"``, ``"sum"``, or ``"none"``.

    Shape:
        Distances ``(*)`` and labels 1 or -1 ``(*)`` to ``()``, or to ``(*)`` with ``reduction="none"``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> float(nn.HingeEmbeddingLoss()(jnp.array([0.25]), jnp.array([-1])))
        0.75

    Reference:
        ``torch.nn.HingeEmbeddingLoss``.
    """

    _shown = {"margin": 1.0}

    def __init__(self, margin: float = 1.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.margin = args.number(margin, "HingeEmbeddingLoss", "margin")

    def forward(self, distances: Float[Array, "*shape"], target: Num[Array, "*shape"]) -> Float[Array, "*reduced"]:
        """Return the loss."""
        return hinge_embedding_loss(distances, target, margin=self.margin, reduction=self.reduction)


class MarginRankingLoss(Loss):
    r"""One score must be greater than the other, by a margin.

    .. math:: \ell_i = \max(0, -t_i (x_{1,i} - x_{2,i}) + \Delta)

    Args:
        margin: :math:`\Delta`.
        reduction: ``"mean"``, ``"sum"``, or ``"none"``.

    Shape:
        Scores ``(*)``, others ``(*)``, and labels 1 or -1 ``(*)`` to ``()``, or to ``(*)`` with ``reduction="none"``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> float(nn.MarginRankingLoss()(jnp.array([1.0]), jnp.array([3.0]), jnp.array([1])))
        2.0

    Reference:
        ``torch.nn.MarginRankingLoss``.
    """

    _shown = {"margin": 0.0}

    def __init__(self, margin: float = 0.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.margin = args.number(margin, "MarginRankingLoss", "margin")

    def forward(
        self, x1: Float[Array, "*shape"], x2: Float[Array, "*shape"], target: Num[Array, "*shape"]
    ) -> Float[Array, "*reduced"]:
        """Return the loss."""
        return margin_ranking_loss(x1, x2, target, margin=self.margin, reduction=self.reduction)


class MultiMarginLoss(Loss):
    r"""The score of the right class must be greater than all others, by a margin.

    .. math:: \ell_n = \frac{w_{t_n}}{C} \sum_{c \ne t_n} \max(0, \Delta - x_{n,t_n} + x_{n,c})^p

    Args:
        p: 1 or 2.
        margin: :math:`\Delta`.
        weight: one number for each class, ``(C,)``.
        reduction: ``"mean"``, ``"sum"``, or ``"none"``.

    Shape:
        Scores ``(N, C)`` or ``(C,)`` and class indices ``(N,)`` or ``()`` to ``()``; with ``reduction="none"``
        to the shape of class indices.

    Parameters:
        weight: buffer ``(C,)``, where given.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> float(nn.MultiMarginLoss()(jnp.array([[1.0, 2.0]]), jnp.array([0])))
        1.0

    Reference:
        ``torch.nn.MultiMarginLoss``.
    """

    _shown = {"p": 1, "margin": 1.0}

    def __init__(
        self,
        p: int = 1,
        margin: float = 1.0,
        weight: Float[ArrayLike, " c"] | None = None,
        *,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.p = one_or_two(p, "MultiMarginLoss")
        self.margin = args.number(margin, "MultiMarginLoss", "margin")
        self.weight = class_weights(weight, "MultiMarginLoss")

    def forward(self, scores: Float[Array, "*n c"], target: Int[Array, " *n"]) -> Float[Array, "*reduced"]:
        """Return the loss."""
        return multi_margin_loss(
            scores, target, p=self.p, margin=self.margin, weight=self.weight, reduction=self.reduction
        )


class MultiLabelMarginLoss(Loss):
    r"""The scores of several right classes must be greater than those of all others, by 1.

    .. math:: \ell_n = \frac{1}{C} \sum_{j \in T_n} \sum_{c \notin T_n} \max(0, 1 - x_{n,j} + x_{n,c})

    Args:
        reduction: ``"mean"``, ``"sum"``, or ``"none"``.

    Shape:
        Scores ``(N, C)`` or ``(C,)`` and integers of the same shape, the indices of the right classes and -1 after the
        last, to ``()``, or to ``(N,)`` or ``()`` with ``reduction="none"``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> scores = jnp.array([1.0, 2.0, 3.0, 4.0])
        >>> float(nn.MultiLabelMarginLoss()(scores, jnp.array([3, 0, -1, 1])))
        1.25

    Reference:
        ``torch.nn.MultiLabelMarginLoss``.
    """

    def forward(self, scores: Float[Array, "*n c"], target: Int[Array, "*n c"]) -> Float[Array, "*reduced"]:
        """Return the loss."""
        return multilabel_margin_loss(scores, target, reduction=self.reduction)


class MultiLabelSoftMarginLoss(Loss):
    r"""Improbability of the yes-or-no labels of several classes: the mean over the classes.

    .. math:: \ell_n = -\frac{1}{C} \sum_c w_c \left(t_{n,c} \log \sigma(x_{n,c})
        + (1 - t_{n,c}) \log \sigma(-x_{n,c})\right)

    Args:
        weight: factors that broadcast to the shape of the input; one for each class, usually.
        reduction: ``"mean"``, ``"sum"``, or ``"none"``.

    Shape:
        Scores ``(*, C)`` and labels ``(*, C)`` to ``()``, or to ``(*)`` with ``reduction="none"``.

    Parameters:
        weight: buffer of the shape given, where given.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> loss = nn.MultiLabelSoftMarginLoss()
        >>> round(float(loss(jnp.zeros((1, 2)), jnp.array([[0, 1]]))), 4)
        0.6931

    Reference:
        ``torch.nn.MultiLabelSoftMarginLoss``.
    """

    def __init__(self, weight: Float[ArrayLike, " c"] | None = None, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.weight = constant_buffer(weight, "MultiLabelSoftMarginLoss", "weight")

    def forward(self, logits: Float[Array, "*n c"], target: Num[Array, "*n c"]) -> Float[Array, "*reduced"]:
        """Return the loss."""
        return multilabel_soft_margin_loss(logits, target, weight=self.weight, reduction=self.reduction)
