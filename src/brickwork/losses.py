"""Loss functions, under short names.

They are those of ``brickwork.functional``, whose names are PyTorch's: ``losses.mse`` is ``functional.mse_loss``. Their
messages use the short names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._elsewhere import unknown_in as _unknown_in
from .functional._loss_binary import (
    binary_cross_entropy as bce,
    binary_cross_entropy_with_logits as bce_with_logits,
    kl_div as kl_div,
    sigmoid_focal_loss as focal,
)
from .functional._loss_classification import cross_entropy as cross_entropy, nll_loss as nll
from .functional._loss_ctc import ctc_loss as ctc
from .functional._loss_distance import (
    cosine_embedding_loss as cosine_embedding,
    cosine_similarity as cosine_similarity,
    pairwise_distance as pairwise_distance,
    triplet_margin_loss as triplet_margin,
    triplet_margin_with_distance_loss as triplet_margin_with_distance,
)
from .functional._loss_linear import linear_cross_entropy as linear_cross_entropy
from .functional._loss_margin import (
    hinge_embedding_loss as hinge_embedding,
    margin_ranking_loss as margin_ranking,
    multi_margin_loss as multi_margin,
    multilabel_margin_loss as multilabel_margin,
    multilabel_soft_margin_loss as multilabel_soft_margin,
    soft_margin_loss as soft_margin,
)
from .functional._loss_regression import (
    gaussian_nll_loss as gaussian_nll,
    huber_loss as huber,
    l1_loss as l1,
    mse_loss as mse,
    poisson_nll_loss as poisson_nll,
    smooth_l1_loss as smooth_l1,
)

__all__ = [
    "bce",
    "bce_with_logits",
    "cosine_embedding",
    "cosine_similarity",
    "cross_entropy",
    "ctc",
    "focal",
    "gaussian_nll",
    "hinge_embedding",
    "huber",
    "kl_div",
    "l1",
    "linear_cross_entropy",
    "margin_ranking",
    "mse",
    "multi_margin",
    "multilabel_margin",
    "multilabel_soft_margin",
    "nll",
    "pairwise_distance",
    "poisson_nll",
    "smooth_l1",
    "soft_margin",
    "triplet_margin",
    "triplet_margin_with_distance",
]

if not TYPE_CHECKING:  # a type checker would take it that every name exists
    __getattr__ = _unknown_in(__name__)
