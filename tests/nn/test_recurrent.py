from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn

X = jnp.asarray(np.random.default_rng(0).standard_normal((6, 3, 2)), jnp.float32)


def test_names_and_shapes_of_parameters():
    layer = nn.LSTM(4, num_layers=2, bidirectional=True, proj_size=3)
    layer(X)
    found = {name: p.shape for name, p in layer.named_parameters()}
    one = {"weight_ih": (16, 2), "weight_hh": (16, 3), "bias_ih": (16,), "bias_hh": (16,), "weight_hr": (3, 4)}
    expected = {}
    for i in range(2):
        for suffix in (f"_l{i}", f"_l{i}_reverse"):
            expected |= {name + suffix: shape for name, shape in one.items()}
            expected[f"weight_ih{suffix}"] = (16, 6 if i else 2)
    assert found == expected
    assert list(found) == list(expected)


def test_sizes_and_printing():
    layer = nn.RNN(4, num_layers=2, nonlinearity="relu", bias=False, dropout=0.5)
    assert (layer.hidden_size, layer.input_size) == (4, None)
    assert repr(layer) == "RNN(? → 4, num_layers=2, bias=False, dropout=0.5, nonlinearity='relu')"
    layer(X)
    assert layer.input_size == 2
    cell = nn.LSTMCell(4, bias=False)
    assert repr(cell) == "LSTMCell(? → 4, bias=False)"
    cell(X[0])
    assert repr(cell) == "LSTMCell(2 → 4, bias=False)"


@pytest.mark.parametrize("make", [nn.RNN, nn.LSTM, nn.GRU])
def test_a_state_carries_a_sequence_on(make):
    layer = make(4, num_layers=2)
    whole, last = layer(X)
    first, state = layer(X[:2])
    second, end = layer(X[2:], state)
    np.testing.assert_allclose(jnp.concatenate([first, second]), whole, rtol=1e-5, atol=1e-6)
    for a, b in zip(jax.tree.leaves(end), jax.tree.leaves(last), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_dropout_only_in_training_and_only_between_layers():
    layer = nn.GRU(4, num_layers=2, dropout=0.5)
    bw.seed(0)
    a, b = layer(X)[0], layer(X)[0]
    assert (a != b).any()
    bw.seed(0)
    np.testing.assert_array_equal(bw.compile(layer)(X)[0], a)
    layer.eval()
    np.testing.assert_array_equal(layer(X)[0], layer(X)[0])
    # the last layer's output is not dropped
    assert (np.asarray(a) != 0).all()


def test_a_layer_without_dropout_draws_no_key():
    bw.seed(1)
    before = bw.random.key()
    bw.seed(1)
    nn.LSTM(4)(X)
    assert bw.random.key() == before
    assert not nn.LSTM(4).uses_random
    assert nn.LSTM(4, num_layers=2, dropout=0.1).uses_random


def test_lengths_may_change_without_another_compilation():
    layer = nn.LSTM(4, bidirectional=True)
    step = bw.compile(lambda x, n: layer(x, lengths=n)[0])
    for lengths in ([6, 1, 3], [2, 2, 5]):
        lengths = jnp.array(lengths)
        y = step(X, lengths)
        for i, n in enumerate(lengths):
            alone = layer(X[: int(n), i])[0]
            np.testing.assert_allclose(y[: int(n), i], alone, rtol=1e-5, atol=1e-6)
            assert not np.asarray(y[int(n) :, i]).any()
    assert step.stats().compilations == 1


def test_in_a_network_that_learns():
    """To tell the sign of the first element, four steps later."""
    bw.seed(0)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((5, 32, 1)), jnp.float32)
    target = jnp.sign(x[0, :, 0])

    class Net(nn.Module):
        def __init__(self):
            self.lstm = nn.LSTM(8)
            self.head = nn.Linear(1)

        def forward(self, x):
            return self.head(self.lstm(x)[0][-1])[:, 0]

    net = Net()
    opt = bw.optim.adam(net, 0.03)

    @bw.compile
    def step():
        loss, grads = bw.value_and_grad(lambda: ((net(x) - target) ** 2).mean(), net)()
        opt.step(grads)
        return loss

    first = step()
    for _ in range(120):
        last = step()
    assert last < 0.1 * first


@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU])
def test_symbolic_sizes(make):
    from jax import export

    layer = make(4, input_size=2, batch_first=True)
    pure, state = bw.functional(layer)
    t, n = export.symbolic_shape("t, n")
    exported = export.export(jax.jit(lambda s, x: pure(s, x)[0]))(
        jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype), state),
        jax.ShapeDtypeStruct((n, t, 2), jnp.float32),
    )
    x = X.swapaxes(0, 1)
    np.testing.assert_allclose(exported.call(state, x)[0], layer(x)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("wrong", [4, -1])
def test_a_length_out_of_range_is_nan(make, wrong):
    """And the other sequences are what they are without it."""
    layer, x = make(2, bidirectional=True), jnp.ones((3, 2, 2))
    output, state = layer(x, lengths=jnp.array([wrong, 2]))
    want, _ = layer(x, lengths=jnp.array([3, 2]))
    assert np.isnan(output[:, 0]).all() and np.array_equal(output[:, 1], want[:, 1])
    assert all(np.isnan(s[:, 0]).all() and not np.isnan(s[:, 1]).any() for s in jax.tree.leaves(state))
