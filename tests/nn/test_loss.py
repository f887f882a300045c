from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import losses, nn

WEIGHT = jnp.array([0.5, 2.0, 1.0])
REPRS = [
    (lambda: nn.L1Loss(), "L1Loss()"),
    (lambda: nn.MSELoss(reduction="sum"), "MSELoss(reduction='sum')"),
    (lambda: nn.HuberLoss(delta=2), "HuberLoss(delta=2.0)"),
    (lambda: nn.CrossEntropyLoss(WEIGHT, label_smoothing=0.1), "CrossEntropyLoss(label_smoothing=0.1)"),
    (lambda: nn.CTCLoss(zero_infinity=True), "CTCLoss(zero_infinity=True)"),
    (lambda: nn.FocalLoss(0.5), "FocalLoss(alpha=0.5)"),
    (lambda: nn.MultiMarginLoss(2, reduction="none"), "MultiMarginLoss(p=2, reduction='none')"),
    (lambda: nn.PairwiseDistance(1, keepdim=True), "PairwiseDistance(p=1.0, keepdim=True)"),
    (lambda: nn.CosineSimilarity(dim=-1), "CosineSimilarity(dim=-1)"),
]


@pytest.mark.parametrize(("make", "text"), REPRS, ids=[text for _, text in REPRS])
def test_repr(make, text):
    assert repr(make()) == text


def test_weights_are_buffers():
    loss = nn.BCEWithLogitsLoss(WEIGHT, pos_weight=2 * WEIGHT)
    assert list(loss.state_dict()) == ["weight", "pos_weight"]
    assert loss.parameters() == []
    assert list(nn.BCEWithLogitsLoss().state_dict()) == []
    for make in (nn.CrossEntropyLoss, nn.NLLLoss, nn.BCELoss, nn.MultiLabelSoftMarginLoss):
        assert list(make(WEIGHT).state_dict()) == ["weight"]
    loss.weight.value = jnp.zeros(3)  # what a compiled step must see
    assert bw.compile(loss)(jnp.ones((2, 3)), jnp.ones((2, 3))) == 0


def test_in_a_training_step():
    net, loss = nn.Linear(3), nn.CrossEntropyLoss(WEIGHT)
    x, y = jnp.ones((4, 5)), jnp.array([0, 1, 2, 0])
    net(x)
    step = bw.compile(bw.value_and_grad(lambda x, y: loss(net(x), y), net))
    value, gradients = step(x, y)
    np.testing.assert_allclose(value, losses.cross_entropy(net(x), y, weight=WEIGHT), rtol=1e-6)
    assert set(gradients) == {"weight", "bias"}


def test_ctc_in_a_compiled_function():
    loss = nn.CTCLoss()
    y = jnp.log(jnp.full((5, 2, 4), 0.25))
    args = y, jnp.array([[1, 2], [3, 0]]), jnp.array([5, 4]), jnp.array([2, 1])
    np.testing.assert_allclose(bw.compile(loss)(*args), loss(*args), rtol=1e-6)


def test_a_distance_may_be_a_module_that_learns():
    class Scaled(nn.Module):
        def __init__(self):
            self.scale = nn.Parameter(jnp.ones(()))

        def forward(self, a, b):
            return self.scale.value * ((a - b) ** 2).sum(-1)

    loss = nn.TripletMarginWithDistanceLoss(distance_function=Scaled(), margin=10.0)
    assert list(loss.state_dict()) == ["distance_function.scale"]
    a, p, n = (jnp.full((2, 3), v) for v in (0.0, 1.0, 2.0))
    gradients = bw.grad(lambda: loss(a, p, n), loss)()
    np.testing.assert_allclose(gradients["distance_function.scale"], 3 - 12)
