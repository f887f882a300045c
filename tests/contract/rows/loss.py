"""Losses and distances, with their targets filled in. All with ``reduction="none"``: rows in, rows out."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tests.contract.row import Row, same, with_inputs

from brickwork import functional as F, nn


def shape(x: Any) -> tuple[int, ...]:
    return getattr(x, "shape", (1,))


def real(x: Any, phase: float = 0.0) -> Any:
    """Numbers of the shape of ``x``."""
    return jnp.asarray(np.cos(np.arange(math.prod(shape(x))) * 1.7 + phase).reshape(shape(x)), jnp.float32)


def share(x: Any) -> Any:
    """Numbers between 0 and 1."""
    return real(x) / 2 + 0.5


def signs(shape: tuple[int, ...]) -> Any:
    return jnp.asarray(np.where(np.arange(math.prod(shape)) % 2, -1, 1).reshape(shape))


def classes(x: Any) -> Any:
    """One class index for each row, and 0 for the first."""
    return jnp.arange(shape(x)[0] if shape(x) else 1) % 3


def with_target(layer: type[Any], target: Any) -> Any:
    return with_inputs(layer, lambda x: (x, target(x)))


def recognised(x: Any) -> tuple[Any, ...]:
    """Arguments of the CTC loss for ``x`` of ``(N, T, C)``."""
    n = shape(x)[0] if shape(x) else 1
    frames = jnp.swapaxes(x, 0, 1) if isinstance(x, (jax.Array, np.ndarray)) and x.ndim == 3 else x
    return frames, np.tile([1, 2], (n, 1)), np.full(n, 4), np.arange(n) % 3


def squared(a: Any, b: Any) -> Any:
    return ((a - b.astype(a.dtype)) ** 2).sum(-1)


CosineSimilarity = with_target(nn.CosineSimilarity, real)
PairwiseDistance = with_target(nn.PairwiseDistance, real)
L1Loss = with_target(nn.L1Loss, real)
MSELoss = with_target(nn.MSELoss, real)
SmoothL1Loss = with_target(nn.SmoothL1Loss, real)
HuberLoss = with_target(nn.HuberLoss, real)
PoissonNLLLoss = with_target(nn.PoissonNLLLoss, lambda x: 3 * share(x))
GaussianNLLLoss = with_inputs(nn.GaussianNLLLoss, lambda x: (x, real(x), share(x)))
CrossEntropyLoss = with_target(nn.CrossEntropyLoss, classes)
NLLLoss = with_target(nn.NLLLoss, classes)
LinearCrossEntropyLoss = with_target(nn.LinearCrossEntropyLoss, classes)
AdaptiveLogSoftmaxWithLoss = with_target(nn.AdaptiveLogSoftmaxWithLoss, lambda x: 3 * classes(x))
KLDivLoss = with_target(nn.KLDivLoss, share)
BCELoss = with_inputs(nn.BCELoss, lambda x: (F.sigmoid(x), share(x)))
BCEWithLogitsLoss = with_target(nn.BCEWithLogitsLoss, share)
FocalLoss = with_target(nn.FocalLoss, share)
CTCLoss = with_inputs(nn.CTCLoss, recognised)
SoftMarginLoss = with_target(nn.SoftMarginLoss, lambda x: signs(shape(x)))
HingeEmbeddingLoss = with_target(nn.HingeEmbeddingLoss, lambda x: signs(shape(x)))
MarginRankingLoss = with_inputs(nn.MarginRankingLoss, lambda x: (x, real(x), signs(shape(x))))
MultiMarginLoss = with_target(nn.MultiMarginLoss, classes)
MultiLabelMarginLoss = with_target(nn.MultiLabelMarginLoss, lambda x: jnp.full(shape(x), -1).at[..., 0].set(1))
MultiLabelSoftMarginLoss = with_target(nn.MultiLabelSoftMarginLoss, share)
CosineEmbeddingLoss = with_inputs(nn.CosineEmbeddingLoss, lambda x: (x, real(x), signs(shape(x)[:-1])))
TripletMarginLoss = with_inputs(nn.TripletMarginLoss, lambda x: (x, real(x), real(x, 1.0)))
TripletMarginWithDistanceLoss = with_inputs(nn.TripletMarginWithDistanceLoss, lambda x: (x, real(x), real(x, 1.0)))


def row(layer: type[Any], name: str | None = None, shape: tuple[int, ...] = (2, 3), **options: Any) -> Row:
    given = {k: options.pop(k) for k in ("wrong_rank", "wrong_width", "integer") if k in options}
    return Row(name or layer.__name__, **same(lambda: layer(reduction="none", **options)), shape=shape, **given)


WEIGHT = (0.5, 2.0, 1.0)


def weight() -> Any:
    return jnp.array(WEIGHT)


ROWS = [
    Row("CosineSimilarity", **same(lambda: CosineSimilarity()), shape=(2, 3), wrong_rank=(2,)),
    Row("PairwiseDistance", **same(lambda: PairwiseDistance(3.0)), shape=(2, 3), wrong_rank=()),
    row(L1Loss),
    row(MSELoss),
    row(SmoothL1Loss, beta=0.7),
    row(HuberLoss, delta=0.7),
    row(PoissonNLLLoss, full=True),
    row(GaussianNLLLoss, full=True),
    row(CrossEntropyLoss, label_smoothing=0.1, wrong_rank=()),
    Row(
        "CrossEntropyLoss with weights",
        **same(lambda: CrossEntropyLoss(weight(), reduction="none")),
        shape=(2, 3),
        wrong_width=(2, 4),
    ),
    Row("NLLLoss", **same(lambda: NLLLoss(weight(), reduction="none")), shape=(2, 3), wrong_width=(2, 4)),
    Row(
        "LinearCrossEntropyLoss in parts",
        lambda: LinearCrossEntropyLoss(4, bias=True, label_smoothing=0.1, chunk=2, reduction="none"),
        lambda: LinearCrossEntropyLoss(4, in_features=3, bias=True, label_smoothing=0.1, chunk=2, reduction="none"),
        shape=(5, 3),
        wrong_rank=(5, 2, 3),
        wrong_width=(5, 2),
        parameters=("linear.weight", "linear.bias"),
        leaf=False,
    ),
    Row(
        "AdaptiveLogSoftmaxWithLoss",
        lambda: AdaptiveLogSoftmaxWithLoss(9, [2, 5], div_value=2.0, head_bias=True),
        lambda: AdaptiveLogSoftmaxWithLoss(9, [2, 5], div_value=2.0, head_bias=True, in_features=4),
        shape=(5, 4),
        wrong_rank=(5, 2, 4),
        wrong_width=(5, 3),
        parameters=("head.weight", "head.bias", *(f"tail.{i}.{j}.weight" for i in (0, 1) for j in (0, 1))),
        leaf=False,
    ),
    row(KLDivLoss),
    row(BCELoss, integer="accepted"),
    Row(
        "BCEWithLogitsLoss",
        **same(lambda: BCEWithLogitsLoss(weight(), pos_weight=weight(), reduction="none")),
        shape=(2, 3),
        wrong_width=(2, 4),
    ),
    row(FocalLoss),
    row(CTCLoss, shape=(3, 4, 3), wrong_rank=(3,)),
    row(SoftMarginLoss),
    row(HingeEmbeddingLoss, margin=1.25),
    row(MarginRankingLoss, margin=0.25),
    row(MultiMarginLoss, p=2, margin=0.8, wrong_rank=(2, 3, 1)),
    row(MultiLabelMarginLoss, wrong_rank=(2, 3, 1)),
    row(MultiLabelSoftMarginLoss, wrong_rank=()),
    row(CosineEmbeddingLoss, margin=-0.5, wrong_rank=(2, 3, 1)),
    row(TripletMarginLoss, margin=2.5, wrong_rank=()),
    row(TripletMarginWithDistanceLoss, margin=2.5, distance_function=squared),
]
