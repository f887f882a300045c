from __future__ import annotations

import copy

import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn
from brickwork.errors import DeferredShapeError, ShapeMismatchError


def values(layer):
    return [np.asarray(p.value) for p in layer.parameters()]


@pytest.mark.parametrize(
    ("deferred", "explicit", "shape"),
    [
        (lambda: nn.Linear(30), lambda: nn.Linear(30, in_features=20), (2, 20)),
        (lambda: nn.Conv2d(8, 3), lambda: nn.Conv2d(8, 3, in_channels=5), (1, 5, 4, 4)),
    ],
)
def test_deferred_and_explicit_sizes_draw_the_same_bits(deferred, explicit, shape):
    bw.seed(3)
    late = deferred()
    late(jnp.ones(shape))
    bw.seed(3)
    early = explicit()
    bw.seed(3)
    dry = deferred().initialize(bw.spec(*shape))
    for a, b, c in zip(values(late), values(early), values(dry), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_distribution():
    layer = nn.Linear(400, in_features=100)
    for p in layer.parameters():
        assert abs(np.asarray(p)).max() <= 0.1
        assert abs(np.asarray(p).std() - 0.1 / 3**0.5) < 0.01
    weight = nn.Conv2d(64, 5, in_channels=8, groups=2).weight  # fan-in 4 * 25
    assert 0.099 < abs(np.asarray(weight)).max() <= 0.1


def test_a_copy_has_its_own_weight_in_mind():
    layer = nn.Linear(3)
    twin = copy.deepcopy(layer)
    twin(jnp.ones((1, 100)))
    layer(jnp.ones((1, 4)))
    assert abs(np.asarray(twin.bias)).max() <= 0.1
    assert layer.weight.shape == (3, 4)


def test_a_tied_weight_decides_about_the_bias():
    table = nn.Embedding(7, 400)
    head = nn.Linear(7)
    head.weight = table.weight
    assert head(jnp.ones((2, 400))).shape == (2, 7)
    assert abs(np.asarray(head.bias)).max() <= 0.05


def test_reading_the_bias_before_the_weights_shape_is_known():
    layer = nn.Linear(3)
    with pytest.raises(DeferredShapeError):
        _ = layer.bias.value


def test_wrong_width_says_where():
    net = nn.Sequential(nn.Linear(256, in_features=20))
    with pytest.raises(ShapeMismatchError, match=r"x has 21 features in its last axis, but") as e:
        net(jnp.ones((2, 21)))
    assert any("in net.0 (Linear(20 → 256))" in n for n in e.value.__notes__)
    with pytest.raises(ShapeMismatchError, match=r"x is a scalar"):
        nn.Linear(3, in_features=2)(jnp.ones(()))
    with pytest.raises(ShapeMismatchError, match=r"x is a scalar"):
        nn.Linear(3)(jnp.ones(()))


def test_dtype():
    layer = nn.Linear(3, dtype=jnp.bfloat16)
    assert layer(jnp.ones((2, 4), jnp.bfloat16)).dtype == jnp.bfloat16
    assert layer.weight.dtype == jnp.bfloat16


def test_sizes():
    layer = nn.Linear(3)
    assert (layer.in_features, layer.out_features) == (None, 3)
    layer(jnp.ones((1, 2)))
    assert layer.in_features == 2


def test_identity_takes_the_arguments_of_any_layer():
    assert nn.Identity(20, bias=True)("anything") == "anything"
