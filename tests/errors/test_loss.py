"""What losses say to what they can't take."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from tests.errors.checks import refuse

from brickwork import losses, nn
from brickwork.errors import ShapeMismatchError

x = jnp.ones((2, 3))
ints = jnp.ones((2, 3), jnp.int32)

TWO_ALIKE = {
    "l1": ("prediction", "target"),
    "mse": ("prediction", "target"),
    "smooth_l1": ("prediction", "target"),
    "huber": ("prediction", "target"),
    "poisson_nll": ("prediction", "target"),
    "kl_div": ("log_probs", "target"),
    "bce": ("probabilities", "target"),
    "bce_with_logits": ("logits", "target"),
    "focal": ("logits", "target"),
    "soft_margin": ("scores", "target"),
    "hinge_embedding": ("distances", "target"),
    "multilabel_soft_margin": ("logits", "target"),
}


@pytest.mark.parametrize("name", TWO_ALIKE)
def test_nothing_is_broadcast(name):
    loss, (first, second) = getattr(losses, name), TWO_ALIKE[name]
    refuse(
        lambda: loss(x[..., None], x),
        ShapeMismatchError,
        f"{name}: {first} and {second} must have the same shape. Got {first}: float32[2, 3, 1], "
        f"{second}: float32[2, 3]. Reshape one of them, e.g. {second}.reshape({first}.shape).",
    )
    refuse(lambda: loss(x, x[:1]), ShapeMismatchError, f"{name}: ... float32[1, 3]. Reshape one of them.")
    refuse(lambda: loss(ints, x), TypeError, f"{name}: {first} holds int32 values, but floating-point values are ...")
    refuse(lambda: loss([1.0], x), TypeError, f"{name}: {first} must be an array, got a list. ...")
    refuse(lambda: loss(x, x, reduction="avg"), ValueError, f"{name}: reduction must be ..., got 'avg'.")


@pytest.mark.parametrize("name", ["soft_margin", "hinge_embedding"])
def test_signs(name):
    refuse(
        lambda: getattr(losses, name)(x, x > 0),
        TypeError,
        f"{name}: target holds bool values, but labels are 1 and -1 here. Convert them: "
        "jnp.where(target, 1, -1). Got bool[2, 3].",
    )


def test_several_arrays():
    refuse(
        lambda: losses.margin_ranking(x, x, jnp.ones(2)),
        ShapeMismatchError,
        "margin_ranking: x1, x2 and target must have the same shape. Got x1: float32[2, 3], x2: float32[2, 3], "
        "target: float32[2]. Reshape one of them.",
    )
    refuse(
        lambda: losses.triplet_margin(x, x, x[0]),
        ShapeMismatchError,
        "triplet_margin: anchor, positive and negative must have the same shape. Got ...",
    )
    refuse(
        lambda: losses.cosine_embedding(x, x, ints),
        ShapeMismatchError,
        "cosine_embedding: target must have shape (2,), one label for each pair. Got x1: float32[2, 3], target: "
        "int32[2, 3]. Reshape target.",
    )
    refuse(
        lambda: losses.gaussian_nll(x, x, jnp.ones(3)),
        ShapeMismatchError,
        "gaussian_nll: var must have the shape of prediction, or that without the last axis, or size 1 in one axis. "
        "Got prediction: float32[2, 3], var: float32[3]. Reshape var.",
    )
    refuse(lambda: losses.gaussian_nll(x, x, -1.0), ValueError, "gaussian_nll: var must be at least 0, got -1.0.")
    refuse(
        lambda: losses.cosine_similarity(x, jnp.ones(2)),
        ShapeMismatchError,
        "cosine_similarity: x1 and x2 do not broadcast to one shape. Got x1: float32[2, 3], x2: float32[2]...",
    )
    refuse(
        lambda: losses.pairwise_distance(jnp.ones(()), jnp.ones(())),
        ShapeMismatchError,
        "pairwise_distance: x1 is a scalar, but its last axis must hold the features. Got float32[].",
    )


def test_classes():
    refuse(
        lambda: losses.nll(x, ints[:, 0], weight=jnp.ones(2)),
        ShapeMismatchError,
        "nll: weight must have shape (3,), one value per class. Got weight: float32[2], log_probs: float32[2, 3]. "
        "Check weight, or the data.",
    )
    refuse(
        lambda: losses.nll(x, ints),
        ShapeMismatchError,
        "nll: a target of integers holds class indices, one for each example. Got log_probs: float32[2, 3], target: "
        "int32[2, 3]. Pass class indices (target.argmax(1)).",
    )
    refuse(
        lambda: losses.nll(x, x[:, 0]),
        TypeError,
        "nll: target must be integers, got float32[2]. Cast it: target.astype(jnp.int32).",
    )
    refuse(
        lambda: losses.multi_margin(x, ints),
        ShapeMismatchError,
        "multi_margin: target holds class indices, one for each example. Got scores: float32[2, 3], target: "
        "int32[2, 3]. Expected the shape (2,).",
    )
    refuse(
        lambda: losses.multi_margin(x[None], ints[None]),
        ShapeMismatchError,
        "multi_margin: scores must have the axes (N, C), or (C) for one example, not 3 axes. Got ...",
    )
    refuse(lambda: losses.multi_margin(x, ints[:, 0], p=3), ValueError, "multi_margin: p must be 1 or 2, got 3.")
    refuse(
        lambda: losses.bce(x, x, weight=jnp.ones(2)),
        ShapeMismatchError,
        "bce: weight must broadcast to the shape of probabilities. Got weight: float32[2], probabilities: "
        "float32[2, 3]. Check weight, or the data.",
    )
    refuse(lambda: losses.bce_with_logits(x, x, pos_weight=x[None]), ShapeMismatchError, "...: pos_weight must ...")
    refuse(
        lambda: losses.kl_div(x, x, reduction="batch"),
        ValueError,
        "kl_div: reduction must be 'batchmean', 'mean', 'sum' or 'none', got 'batch'.",
    )


def test_ctc():
    y, t = jnp.zeros((5, 2, 4)), jnp.ones((2, 3), jnp.int32)
    refuse(
        lambda: losses.ctc(y[0, 0], t, [5, 5], [3, 3]),
        ShapeMismatchError,
        "ctc: log_probs must have the axes (T, N, C), or (T, C) for one example, not 1 axes. Got ...",
    )
    refuse(
        lambda: losses.ctc(y, t, [5], [3, 3]),
        ShapeMismatchError,
        "ctc: input_lengths must have shape (2,), one length for each example. Got input_lengths: int64[1], "
        "log_probs: float32[5, 2, 4]. Check the two.",
    )
    refuse(
        lambda: losses.ctc(y, t, [5, 6], [3, 3]),
        ValueError,
        "ctc: input_lengths must be at least 0 and at most 5, got 6: log_probs have 5 frames.",
    )
    refuse(
        lambda: losses.ctc(y, t, [5, 5], [3, 4]),
        ValueError,
        "ctc: target_lengths must be at least 0 and at most 3, got 4: targets have room for 3 labels.",
    )
    refuse(
        lambda: losses.ctc(y, t[0], [5, 5], [1, 1]),
        ShapeMismatchError,
        "ctc: targets of one axis must have as many elements as target_lengths add up to, 2. Got targets: ...",
    )
    refuse(lambda: losses.ctc(y, t[:1], [5, 5], [1, 1]), ShapeMismatchError, "...the axes (N, S) with N=2. Got ...")
    refuse(lambda: losses.ctc(y, t, [5.0, 5.0], [1, 1]), TypeError, "ctc: input_lengths must be integers, ...")
    refuse(lambda: losses.ctc(y, t.astype(float), [5, 5], [1, 1]), TypeError, "ctc: targets must be integers, ...")
    message = "ctc: blank=4 is no class; log_probs have 4 classes in axis -1."
    refuse(lambda: losses.ctc(y, t, [5, 5], [1, 1], blank=4), ValueError, message)


NUMBERS = [
    ("SmoothL1Loss", "smooth_l1", "beta", -1.0, "must be at least 0, got -1.0."),
    ("HuberLoss", "huber", "delta", 0, "must be greater than 0, got 0.0."),
    ("PoissonNLLLoss", "poisson_nll", "eps", -1.0, "must be at least 0, got -1.0."),
    ("GaussianNLLLoss", None, "eps", 0, "must be greater than 0, got 0.0."),
    ("CrossEntropyLoss", None, "label_smoothing", 1.5, "must be in [0, 1], got 1.5."),
    ("FocalLoss", "focal", "alpha", -0.5, "must be in [0, 1], got -0.5."),
    ("FocalLoss", "focal", "gamma", -1.0, "must be at least 0, got -1.0."),
    ("HingeEmbeddingLoss", "hinge_embedding", "margin", float("nan"), "must be a number, got nan."),
    ("CosineEmbeddingLoss", None, "margin", 2.0, "must be in [-1, 1], got 2.0."),
    ("TripletMarginLoss", None, "margin", 0, "must be greater than 0, got 0.0."),
    ("TripletMarginWithDistanceLoss", None, "margin", float("nan"), "must be greater than 0, got nan."),
    ("PairwiseDistance", "pairwise_distance", "p", -1.0, "must be at least 0, got -1.0."),
    ("CosineSimilarity", "cosine_similarity", "eps", -1.0, "must be at least 0, got -1.0."),
]


@pytest.mark.parametrize(("layer", "function", "option", "bad", "message"), NUMBERS, ids=str)
def test_options(layer, function, option, bad, message):
    refuse(lambda: getattr(nn, layer)(**{option: bad}), ValueError, f"{layer}: {option} {message}")
    text = f"{layer}: {option} must be a number, got 'a' (str)."
    refuse(lambda: getattr(nn, layer)(**{option: "a"}), TypeError, text)
    text = f"{layer}: {option} must be a number, got True (bool)."
    refuse(lambda: getattr(nn, layer)(**{option: True}), TypeError, text)
    if function:
        refuse(lambda: getattr(losses, function)(x, x, **{option: bad}), ValueError, f"{function}: {option} {message}")


def test_layers():
    refuse(lambda: nn.L1Loss(reduction="batchmean"), ValueError, "L1Loss: reduction must be 'mean', 'sum' or 'none'...")
    refuse(lambda: nn.KLDivLoss(reduction=None), ValueError, "KLDivLoss: reduction must be 'batchmean', ... got None.")
    refuse(lambda: nn.CTCLoss(blank=-1), ValueError, "CTCLoss: blank must be at least 0, got -1.")
    refuse(lambda: nn.NLLLoss(ignore_index=1.0), TypeError, "NLLLoss: ignore_index must be an int, got 1.0 (float).")
    refuse(lambda: nn.MultiMarginLoss(p=3), ValueError, "MultiMarginLoss: p must be 1 or 2, got 3.")
    refuse(lambda: nn.NLLLoss(x), ShapeMismatchError, "NLLLoss: weight must have one axis, (C,). Got weight: ...")
    refuse(lambda: nn.NLLLoss([1, 2]), TypeError, "NLLLoss: weight must be an array, got a list. ...")
    refuse(lambda: nn.BCELoss(ints), TypeError, "BCELoss: weight holds int32 values, ...")
    refuse(
        lambda: nn.TripletMarginWithDistanceLoss(distance_function="l2"),
        TypeError,
        "TripletMarginWithDistanceLoss: distance_function must be a function, got 'l2'.",
    )
    refuse(
        lambda: nn.MSELoss()(x, x[0]),
        ShapeMismatchError,
        "mse: prediction and target must have the same shape. ...",
        note="in net (MSELoss()), called with float32[2, 3], float32[3]",
    )


def test_what_is_deprecated_in_torch_does_not_exist():
    with pytest.raises(TypeError, match="size_average"):
        nn.MSELoss(size_average=True)
    with pytest.raises(TypeError, match="positional"):
        nn.L1Loss("sum")
