from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn

REPRS = [
    (lambda: nn.ReLU6(), "ReLU6()"),
    (lambda: nn.LeakyReLU(), "LeakyReLU(negative_slope=0.01)"),
    (lambda: nn.PReLU(), "PReLU(num_parameters=1)"),
    (lambda: nn.PReLU(3, init=0.5), "PReLU(num_parameters=3, init=0.5)"),
    (lambda: nn.RReLU(), "RReLU(lower=0.125, upper=0.3333)"),
    (lambda: nn.ELU(), "ELU()"),
    (lambda: nn.ELU(2), "ELU(alpha=2.0)"),
    (lambda: nn.Softplus(threshold=10), "Softplus(threshold=10.0)"),
    (lambda: nn.Hardtanh(max_val=2), "Hardtanh(min_val=-1.0, max_val=2.0)"),
    (lambda: nn.Threshold(0.1, 20), "Threshold(threshold=0.1, value=20.0)"),
    (lambda: nn.Softshrink(1), "Softshrink(lambd=1.0)"),
    (lambda: nn.GLU(1), "GLU(dim=1)"),
    (lambda: nn.LogSoftmax(), "LogSoftmax()"),
]


@pytest.mark.parametrize(("make", "text"), REPRS, ids=[text for _, text in REPRS])
def test_repr(make, text):
    assert repr(make()) == text


def test_prelu_begins_with_what_it_was_given():
    layer = nn.PReLU(3, init=0.5, dtype=jnp.bfloat16)
    assert layer.weight.dtype == jnp.bfloat16
    assert layer.weight.value.tolist() == [0.5] * 3
    assert layer.num_parameters == 3
    assert list(layer.state_dict()) == ["weight"]


def test_rrelu_draws_anew_in_training_mode_only():
    layer = nn.RReLU()
    x = jnp.full(8, -1.0)
    bw.seed(0)
    first, second = layer(x), layer(x)
    assert not np.array_equal(first, second)
    bw.seed(0)
    np.testing.assert_array_equal(layer(x), first)
    layer.eval()
    np.testing.assert_allclose(layer(x), -(1 / 8 + 1 / 3) / 2, rtol=1e-6)
