"""What losses with dense layers inside say to what they can't take."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from tests.errors.checks import refuse

from brickwork import functional as F, losses, nn
from brickwork.errors import ShapeMismatchError


def x(*shape, dtype=jnp.float32):
    return jnp.ones(shape, dtype)


LCE = "linear_cross_entropy"
CASES = {
    "width": (
        lambda: losses.linear_cross_entropy(x(2, 3), x(5, 4), np.array([0, 1])),
        ShapeMismatchError,
        f"{LCE}: x must be (N, features) or (features,), and linear_weight (C, ..., features). "
        "Got x: float32[2, 3], linear_weight: float32[5, 4]. Check the two.",
    ),
    "target": (
        lambda: losses.linear_cross_entropy(x(2, 3), x(5, 3), np.array([0, 1, 2])),
        ShapeMismatchError,
        f"{LCE}: a target of integers holds class indices and must have shape (2,). Got x: float32[2, 3], "
        "linear_weight: float32[5, 3], target: int64[3]. Check the data.",
    ),
    "indices as floats": (
        lambda: losses.linear_cross_entropy(x(2, 3), x(5, 3), x(2)),
        ShapeMismatchError,
        f"{LCE}: a target of floats holds class probabilities and must have shape (2, 5). Got x: float32[2, 3], "
        "linear_weight: float32[5, 3], target: float32[2]. If these are class indices, cast them: "
        "target.astype(jnp.int32).",
    ),
    "class": (
        lambda: losses.linear_cross_entropy(x(2, 3), x(5, 3), np.array([0, 5])),
        IndexError,
        f"{LCE}: target holds 5 at [1], which is out of range: expected 0 to 4, or -100, the classes of linear_weight.",
    ),
    "bias": (
        lambda: losses.linear_cross_entropy(x(2, 3), x(5, 3), np.array([0, 1]), linear_bias=x(4)),
        ShapeMismatchError,
        f"{LCE}: linear_bias must have shape (5,), that of linear_weight without its last axis. "
        "Got linear_bias: float32[4], linear_weight: float32[5, 3]. Check the two.",
    ),
    "chunk": (
        lambda: nn.LinearCrossEntropyLoss(5, chunk=0),
        ValueError,
        "LinearCrossEntropyLoss: chunk must be at least 1, got 0.",
    ),
    "out_features": (
        lambda: nn.LinearCrossEntropyLoss(5, out_features=3),
        TypeError,
        "LinearCrossEntropyLoss: out_features must be a tuple of ints, got 3.",
    ),
    "weight": (
        lambda: nn.LinearCrossEntropyLoss(5, weight=x(4)),
        ShapeMismatchError,
        "LinearCrossEntropyLoss: weight must have shape (5,), one number for each class. Got weight: float32[4]. "
        "Check weight.",
    ),
    "positions": (
        lambda: nn.LinearCrossEntropyLoss(64, 1000),
        TypeError,
        "LinearCrossEntropyLoss(num_classes, *, in_features=None): got 2 positional sizes (64, 1000); write "
        "nn.LinearCrossEntropyLoss(1000) and let the input decide, or nn.LinearCrossEntropyLoss(1000, in_features=64)",
    ),
    "cutoffs": (
        lambda: nn.AdaptiveLogSoftmaxWithLoss(100, [20, 20]),
        ValueError,
        "AdaptiveLogSoftmaxWithLoss: cutoffs must be increasing integers between 1 and n_classes - 1 = 99, got "
        "[20, 20].",
    ),
    "no cutoffs": (
        lambda: nn.AdaptiveLogSoftmaxWithLoss(100, []),
        ValueError,
        "AdaptiveLogSoftmaxWithLoss: cutoffs must be increasing integers between 1 and n_classes - 1 = 99, got [].",
    ),
    "too narrow": (
        lambda: nn.AdaptiveLogSoftmaxWithLoss(100, [20, 30], in_features=8),
        ValueError,
        "AdaptiveLogSoftmaxWithLoss: in_features=8 divided by div_value=4.0 ** 2 leaves nothing for cluster 1. Use "
        "fewer cutoffs, a smaller div_value or more features.",
    ),
    "class in clusters": (
        lambda: nn.AdaptiveLogSoftmaxWithLoss(100, [20])(x(2, 8), np.array([0, 100])),
        IndexError,
        "adaptive_log_softmax: target holds 100 at [1], which is out of range: expected 0 to 99, the classes of head "
        "and tail.",
    ),
    "targets of clusters": (
        lambda: F.adaptive_log_softmax(x(2, 3), [x(2, 4)], jnp.array([0])),
        ShapeMismatchError,
        "adaptive_log_softmax: target holds class indices, one for each example, and must have shape (2,). "
        "Got head: float32[2, 3], target: int32[1]. Check the data.",
    ),
    "clusters": (
        lambda: F.adaptive_log_softmax(x(2, 3), [x(3, 4)], jnp.array([0, 1])),
        ShapeMismatchError,
        "adaptive_log_softmax: head must hold a score for each cluster and more, and tail as many examples. "
        "Got head: float32[2, 3], tail[0]: float32[3, 4]. Check them.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case):
    call, kind, message = CASES[case]
    refuse(call, kind, message, note=...)


def test_unknown_classes_give_nan():
    assert jnp.isnan(nn.AdaptiveLogSoftmaxWithLoss(100, [20])(x(2, 8), jnp.array([0, 100])).output).tolist() == [
        False,
        True,
    ]
    assert jnp.isnan(losses.linear_cross_entropy(x(2, 3), x(5, 3), jnp.array([0, 5])))
