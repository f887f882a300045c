"""Similarities, distances, and the losses made of them, as layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..functional import (
    cosine_embedding_loss,
    cosine_similarity,
    pairwise_distance,
    triplet_margin_loss,
    triplet_margin_with_distance_loss,
)
from ..module import Module
from . import _args as args
from ._loss_base import Loss

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Num

    from ..functional._loss_distance import Distance


class CosineSimilarity(Module):
    r"""Cosine of the angle between vectors.

    .. math:: y = \frac{x_1 \cdot x_2}{\max(\|x_1\|, \epsilon) \max(\|x_2\|, \epsilon)}

    Args:
        dim: the axis of the vectors.
        eps: the smallest norm, at least 0.

    Shape:
        Two arrays whose shapes broadcast, to that shape without axis ``dim``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> round(float(nn.CosineSimilarity(dim=0)(jnp.array([3.0, 0.0]), jnp.array([1.0, 1.0]))), 4)
        0.7071

    Reference:
        ``torch.nn.CosineSimilarity``.
    """

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        self.dim = args.integer(dim, "CosineSimilarity", "dim")
        self.eps = args.number(eps, "CosineSimilarity", "eps", 0)

    def forward(self, x1: Float[Array, "*shape1"], x2: Float[Array, "*shape2"]) -> Float[Array, "*reduced"]:
        """Return the similarity."""
        return cosine_similarity(x1, x2, self.dim, self.eps)

    def extra_repr(self) -> str:
        return args.options(self, dim=1, eps=1e-8)[2:]


class PairwiseDistance(Module):
    r"""Distance between vectors.

    .. math:: y = \left(\sum_i |x_{1,i} - x_{2,i} + \epsilon|^p\right)^{1/p}

    Args:
        p: the exponent, at least 0.
        eps: added to the differences.
        keepdim: whether to keep the last axis, with size 1.

    Shape:
        Two arrays whose shapes broadcast, to that shape without the last axis.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> round(float(nn.PairwiseDistance()(jnp.array([3.0, 4.0]), jnp.zeros(2))), 4)
        5.0

    Reference:
        ``torch.nn.PairwiseDistance``.
    """

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        self.p = args.number(p, "PairwiseDistance", "p", 0)
        self.eps = args.number(eps, "PairwiseDistance", "eps")
        self.keepdim = args.flag(keepdim, "PairwiseDistance", "keepdim")

    def forward(self, x1: Float[Array, "*shape1"], x2: Float[Array, "*shape2"]) -> Float[Array, "*reduced"]:
        """Return the distance."""
        return pairwise_distance(x1, x2, self.p, self.eps, self.keepdim)

    def extra_repr(self) -> str:
        return args.options(self, p=2.0, eps=1e-6, keepdim=False)[2:]


class CosineEmbeddingLoss(Loss):
    r"""What is alike must point in one direction, and what is not must not.

    .. math:: \ell_n = \begin{cases} 1 - \cos(x_{1,n}, x_{2,n}) & t_n = 1 \\
        \max(0, \cos(x_{1,n}, x_{2,n}) - \Delta) & t_n = -1 \end{cases}

    Args:
        margin: :math:`\Delta`, between -1 and 1.
        reduction: ``"mean"``, ``"sum"``, or ``"none"``.

    Shape:
        Vectors ``(N, D)`` or ``(D,)``, others of the same shape, and labels 1 or -1 ``(N,)`` or ``()``, to ``()``; with
        ``reduction="none"`` to the shape of the labels.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> float(nn.CosineEmbeddingLoss()(jnp.array([0.0, 1.0]), jnp.array([2.0, 0.0]), jnp.array(1)))
        1.0

    Reference:
        ``torch.nn.CosineEmbeddingLoss``.
    """

    _shown = {"margin": 0.0}

    def __init__(self, margin: float = 0.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.margin = args.number(margin, "CosineEmbeddingLoss", "margin", -1, 1)

    def forward(
        self, x1: Float[Array, "*n d"], x2: Float[Array, "*n d"], target: Num[Array, " *n"]
    ) -> Float[Array, "*reduced"]:
        """Return the loss."""
        return cosine_embedding_loss(x1, x2, target, margin=self.margin, reduction=self.reduction)


class TripletMarginLoss(Loss):
    r"""An anchor must be closer to what is like it than to what is not, by a margin.

    .. math:: \ell_n = \max\left(0, d(a_n, p_n) - d(a_n, n_n) + \Delta\right)

    Args:
        margin: :math:`\Delta`, greater than 0.
        p: the exponent of the distance :math:`d`, at least 0.
        eps: added to the differences.
        swap: whether to take the distance from positive to negative where it is the smaller one.
        reduction: ``"mean"``, ``"sum"``, or ``"none"``.

    Shape:
        Three arrays ``(*, D)`` to ``()``, or to ``(*)`` with ``reduction="none"``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> a, p, n = jnp.array([[0.0], [1.0], [3.0]])
        >>> round(float(nn.TripletMarginLoss(margin=5.0)(a, p, n)), 4)
        3.0

    Reference:
        Balntas et al., "Learning shallow convolutional feature descriptors with triplet losses", 2016;
        ``torch.nn.TripletMarginLoss``.
    """

    _shown = {"margin": 1.0, "p": 2.0, "eps": 1e-6, "swap": False}

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        *,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.margin = args.number(margin, "TripletMarginLoss", "margin", above=0)
        self.p = args.number(p, "TripletMarginLoss", "p", 0)
        self.eps = args.number(eps, "TripletMarginLoss", "eps")
        self.swap = args.flag(swap, "TripletMarginLoss", "swap")

    def forward(
        self, anchor: Float[Array, "*n d"], positive: Float[Array, "*n d"], negative: Float[Array, "*n d"]
    ) -> Float[Array, "*reduced"]:
        """Return the loss."""
        return triplet_margin_loss(
            anchor,
            positive,
            negative,
            margin=self.margin,
            p=self.p,
            eps=self.eps,
            swap=self.swap,
            reduction=self.reduction,
        )


class TripletMarginWithDistanceLoss(Loss):
    r"""An anchor must be closer to what is like it than to what is not, in a distance of one's own.

    .. math:: \ell_n = \max\left(0, d(a_n, p_n) - d(a_n, n_n) + \Delta\right)

    Args:
        distance_function: :math:`d`, a function of two arrays, or a module; ``PairwiseDistance()`` by default.
        margin: :math:`\Delta`, greater than 0.
        swap: whether to take the distance from positive to negative where it is the smaller one.
        reduction: ``"mean"``, ``"sum"``, or ``"none"``.

    Shape:
        Three arrays ``(*)`` that the distance takes, to ``()``, or to the shape of the distances with
        ``reduction="none"``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> a, p, n = jnp.array([[0.0], [1.0], [3.0]])
        >>> loss = nn.TripletMarginWithDistanceLoss(distance_function=nn.PairwiseDistance(p=1), margin=5.0)
        >>> round(float(loss(a, p, n)), 4)
        3.0

    Reference:
        ``torch.nn.TripletMarginWithDistanceLoss``.
    """

    _shown = {"margin": 1.0, "swap": False}

    def __init__(
        self,
        *,
        distance_function: Distance | None = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        if not (distance_function is None or callable(distance_function)):
            raise TypeError(
                f"TripletMarginWithDistanceLoss: distance_function must be a function, got {distance_function!r}."
            )
        self.distance_function = PairwiseDistance() if distance_function is None else distance_function
        self.margin = args.number(margin, "TripletMarginWithDistanceLoss", "margin", above=0)
        self.swap = args.flag(swap, "TripletMarginWithDistanceLoss", "swap")

    def forward(
        self, anchor: Float[Array, "*shape"], positive: Float[Array, "*shape"], negative: Float[Array, "*shape"]
    ) -> Float[Array, "*reduced"]:
        """Return the loss."""
        return triplet_margin_with_distance_loss(
            anchor,
            positive,
            negative,
            distance_function=self.distance_function,
            margin=self.margin,
            swap=self.swap,
            reduction=self.reduction,
        )
