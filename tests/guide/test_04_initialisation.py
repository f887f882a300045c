"""Guide, part 4: initial values."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import init, nn

X = np.asarray(jax.random.uniform(jax.random.key(0), (2, 4)))


class MyInit(init.Initializer):
    """U(5, 10) with probability 1/4, 0 with 1/2, U(-10, -5) with 1/4; reports what it does."""

    def draw(self, rng, shape, dtype):
        print(f"Init {init.current_name()} {shape}")
        values = rng.uniform(-10, 10, shape)
        return values * (np.abs(values) >= 5)


@pytest.fixture
def net():
    net = nn.Sequential(nn.Linear(8), nn.ReLU(), nn.Linear(1))
    net(X)
    return net


def test_normal_weights_and_zero_biases():
    net = nn.Sequential(nn.Linear(400), nn.ReLU(), nn.Linear(300))
    net(X)
    net.initialize(init=init.normal(0.01), pattern=".*weight")
    net.initialize(init=init.zeros, pattern=".*bias")
    w = np.asarray(net[2].weight)
    np.testing.assert_allclose(w.std(), 0.01, rtol=0.02)
    assert abs(w.mean()) < 1e-4
    for layer in (net[0], net[2]):
        np.testing.assert_array_equal(layer.bias, np.zeros(layer.bias.shape))


def test_the_same_with_apply(net):
    def init_normal(m):
        if isinstance(m, nn.Linear):
            m.weight.initialize(init.normal(0.01))
            m.bias.initialize(init.zeros)

    assert net.apply(init_normal) is net
    assert 0 < np.abs(net[0].weight).max() < 0.05
    np.testing.assert_array_equal(net[0].bias, np.zeros(8))


def test_without_a_pattern_biases_keep_their_own(net):
    bias = net[0].bias
    net.initialize(init=init.normal(0.01))
    assert np.abs(net[0].weight).max() < 0.06
    assert np.abs(bias).max() > 0.1  # U(-1/2, 1/2), not N(0, 0.01**2)


def test_constant(net):
    net.initialize(init=init.constant(1))
    np.testing.assert_array_equal(net[0].weight, np.ones((8, 4)))
    np.testing.assert_array_equal(net[2].weight, np.ones((1, 8)))
    net.initialize(init=1, pattern=".*bias")
    np.testing.assert_array_equal(net[0].bias, np.ones(8))


def test_xavier_on_one_layer_and_42_on_another(net):
    net[0].initialize(init=init.xavier_uniform())
    net[2].initialize(init=init.constant(42))
    bound = np.sqrt(6 / (4 + 8))
    w = np.asarray(net[0].weight)
    assert 0.7 * bound < np.abs(w).max() <= bound
    print(net[0].weight[0])
    print(net[2].weight.value)
    np.testing.assert_array_equal(net[2].weight, np.full((1, 8), 42.0))


def test_one_parameter(net):
    net[0].weight.initialize(init.xavier_normal())
    net[2].bias.initialize(init.constant(-1))
    np.testing.assert_array_equal(net[2].bias, [-1.0])


def test_functions_of_jax(net):
    net[0].initialize(init=jax.nn.initializers.orthogonal())
    w = np.asarray(net[0].weight)
    np.testing.assert_allclose(w.T @ w, np.eye(4), atol=1e-5)


def test_custom(net, capsys):
    net.initialize(init=MyInit(), pattern=".*weight")
    assert capsys.readouterr().out == "Init 0.weight (8, 4)\nInit 2.weight (1, 8)\n"
    for layer in (net[0], net[2]):
        w = np.abs(layer.weight)
        assert ((w == 0) | ((w >= 5) & (w <= 10))).all()
    print(net[0].weight[:2])


def test_custom_has_the_right_distribution():
    layer = nn.Linear(500, in_features=400)
    layer.initialize(init=MyInit())
    w = np.asarray(layer.weight)
    assert np.mean(w == 0) == pytest.approx(1 / 2, abs=0.01)
    assert np.mean((w >= 5) & (w < 10)) == pytest.approx(1 / 4, abs=0.01)
    assert np.mean((w <= -5) & (w >= -10)) == pytest.approx(1 / 4, abs=0.01)
    assert np.mean(w[w > 0]) == pytest.approx(7.5, abs=0.05)


def test_custom_reports_nested_names(capsys):
    class Net(nn.Module):
        def __init__(self):
            self.blocks = [nn.Sequential(nn.Linear(3), nn.ReLU()) for _ in range(2)]
            self.out = nn.Linear(1)

        def forward(self, x):
            for b in self.blocks:
                x = b(x)
            return self.out(x)

    net = Net()
    net.initialize(init=MyInit())
    assert capsys.readouterr().out == ""
    net(X)
    assert capsys.readouterr().out == (
        "Init blocks.0.0.weight (3, 4)\nInit blocks.1.0.weight (3, 3)\nInit out.weight (1, 3)\n"
    )


def test_custom_follows_the_seed():
    def values(seed):
        bw.seed(seed)
        layer = nn.Linear(8, in_features=4)
        layer.initialize(init=MyInit())
        return np.asarray(layer.weight)

    np.testing.assert_array_equal(values(1), values(1))
    assert not np.array_equal(values(1), values(2))


def test_current_name_is_none_elsewhere():
    assert init.current_name() is None


def test_editing_in_place(net):
    before = np.asarray(net[0].weight)
    net[0].weight[:] += 1
    net[0].weight[0, 0] = 42
    print(net[0].weight[0])
    expected = before + 1
    expected[0, 0] = 42
    np.testing.assert_array_equal(net[0].weight, expected)
    assert type(net[0].weight) is bw.Parameter
    # the network uses the new values
    h = np.maximum(X @ expected.T + np.asarray(net[0].bias), 0)
    y = h @ np.asarray(net[2].weight).T + np.asarray(net[2].bias)
    np.testing.assert_allclose(net(X), y, rtol=1e-5)


def test_editing_in_place_without_index(net):
    w = net[0].weight
    before = np.asarray(w)
    net[0].weight += 1
    assert net[0].weight is w
    np.testing.assert_array_equal(w, before + 1)
    w *= 2
    np.testing.assert_array_equal(net[0].weight, (before + 1) * 2)


def test_editing_what_is_compiled(net):
    compiled = bw.compile(net)
    compiled(X)
    net[2].weight[0, 0] = 42
    np.testing.assert_allclose(compiled(X), net(X), rtol=1e-5)
    net[2].weight.value = jnp.zeros((1, 8))
    np.testing.assert_allclose(compiled(X), np.broadcast_to(net[2].bias, (2, 1)), rtol=1e-6)
    assert compiled.stats().compilations == 1


def test_an_array_seen_earlier_stays_as_it_was(net):
    old = net[0].weight.value
    copy = np.array(old)
    net[0].weight[0, 0] = 42
    np.testing.assert_array_equal(old, copy)
