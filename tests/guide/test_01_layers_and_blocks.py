"""Guide, part 1: layers and blocks."""

from __future__ import annotations

import io

import jax
import jax.numpy as jnp
import numpy as np

import brickwork as bw
from brickwork import nn, optim


class MLP(nn.Module):
    def __init__(self):
        self.hidden = nn.Linear(256)
        self.out = nn.Linear(10)

    def forward(self, x):
        return self.out(jax.nn.relu(self.hidden(x)))


class MySequential(nn.Module):
    def __init__(self, *layers):
        self.layers = list(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class LayersInAList(nn.Module):
    """Layers in a plain Python list, called by hand."""

    def __init__(self):
        self.steps = [nn.Linear(8), nn.Linear(8)]
        self.steps.append(nn.Linear(2))

    def forward(self, x):
        for step in self.steps[:-1]:
            x = jnp.tanh(step(x))
        return self.steps[-1](x)


def data(rows=2, width=20):
    return jax.random.uniform(jax.random.key(0), (rows, width))


def by_hand(x, hidden, out):
    """The MLP in NumPy, from two pairs of weight and bias."""
    (w1, b1), (w2, b2) = hidden, out
    h = np.maximum(np.asarray(x) @ np.asarray(w1).T + np.asarray(b1), 0)
    return h @ np.asarray(w2).T + np.asarray(b2)


def test_sequential():
    net = nn.Sequential(nn.Linear(256), nn.ReLU(), nn.Linear(10))
    X = data()
    Y = net(X)
    print(Y)
    assert isinstance(Y, jax.Array)
    assert Y.shape == (2, 10)
    assert Y.dtype == jnp.float32
    expected = by_hand(X, (net[0].weight, net[0].bias), (net[2].weight, net[2].bias))
    np.testing.assert_allclose(Y, expected, rtol=1e-4, atol=1e-6)


def test_default_initial_values_are_those_of_pytorch():
    """Uniform in +-1/sqrt(fan_in), weights and biases alike."""
    net = nn.Sequential(nn.Linear(256), nn.ReLU(), nn.Linear(10))
    net(data())
    for layer, fan_in in ((net[0], 20), (net[2], 256)):
        bound = 1 / np.sqrt(fan_in)
        for p in (layer.weight, layer.bias):
            values = np.asarray(p)
            assert np.abs(values).max() <= bound
            assert np.abs(values).max() > 0.6 * bound
        np.testing.assert_allclose(np.std(layer.weight), bound / np.sqrt(3), rtol=0.05)


def test_layers_of_a_sequential():
    net = nn.Sequential(nn.Linear(256), nn.ReLU(), nn.Linear(10))
    assert len(net) == 3
    assert isinstance(net[1], nn.ReLU)
    assert [type(layer).__name__ for layer in net] == ["Linear", "ReLU", "Linear"]
    X = data()
    Y = net(X)
    np.testing.assert_array_equal(net[1:](net[0](X)), Y)
    assert net[:1][0] is net[0]


def test_a_function_is_a_layer():
    bw.seed(7)
    a = nn.Sequential(nn.Linear(16), nn.ReLU(), nn.Linear(4))
    bw.seed(7)
    b = nn.Sequential(nn.Linear(16), jax.nn.relu, nn.Linear(4))
    np.testing.assert_array_equal(a(data()), b(data()))


def test_the_same_as_a_class():
    X = data()
    bw.seed(3)
    net = nn.Sequential(nn.Linear(256), nn.ReLU(), nn.Linear(10))
    bw.seed(3)
    mlp = MLP()
    Y = mlp(X)
    assert Y.shape == (2, 10)
    np.testing.assert_array_equal(Y, net(X))
    assert [name for name, _ in mlp.named_parameters()] == [
        "hidden.weight",
        "hidden.bias",
        "out.weight",
        "out.bias",
    ]


def test_nn_module_is_bw_module():
    assert nn.Module is bw.Module
    assert isinstance(MLP(), bw.Module)


def test_a_class_may_call_super_init():
    class Polite(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3)

        def forward(self, x):
            return self.layer(x)

    assert Polite()(data()).shape == (2, 3)


def test_my_sequential():
    X = data()
    bw.seed(5)
    mine = MySequential(nn.Linear(256), nn.ReLU(), nn.Linear(10))
    bw.seed(5)
    theirs = nn.Sequential(nn.Linear(256), nn.ReLU(), nn.Linear(10))
    Y = mine(X)
    assert Y.shape == (2, 10)
    np.testing.assert_array_equal(Y, theirs(X))


def test_my_sequential_from_a_dict():
    """The textbook's version: numbered entries of a dict."""

    class Numbered(nn.Module):
        def __init__(self, *args):
            self.blocks = {}
            for i, block in enumerate(args):
                self.blocks[str(i)] = block

        def forward(self, X):
            for block in self.blocks.values():
                X = block(X)
            return X

    net = Numbered(nn.Linear(256), nn.ReLU(), nn.Linear(10))
    assert net(data()).shape == (2, 10)
    assert [name for name, _ in net.named_parameters()] == [
        "blocks.0.weight",
        "blocks.0.bias",
        "blocks.2.weight",
        "blocks.2.bias",
    ]


def test_the_parameters_of_a_list_are_found():
    net = LayersInAList()
    net(data())
    assert isinstance(net.steps, list)
    assert len(net.steps) == 3
    assert {name: p.shape for name, p in net.named_parameters()} == {
        "steps.0.weight": (8, 20),
        "steps.0.bias": (8,),
        "steps.1.weight": (8, 8),
        "steps.1.bias": (8,),
        "steps.2.weight": (2, 8),
        "steps.2.bias": (2,),
    }
    assert net.get_parameter("steps.2.bias") is net.steps[2].bias


def test_the_parameters_of_a_list_are_trained():
    net = LayersInAList()
    X = data(16)
    Y = jnp.stack([X.sum(1), X[:, 0]], 1) / 10
    opt = optim.sgd(net, 0.1)

    @bw.compile
    def step(x, y):
        loss, grads = bw.value_and_grad(lambda: ((net(x) - y) ** 2).mean(), net)()
        opt.step(grads)
        return loss

    first = float(step(X, Y))
    before = {name: np.asarray(p) for name, p in net.named_parameters()}
    for _ in range(50):
        last = float(step(X, Y))
    assert last < first / 2
    for name, p in net.named_parameters():
        assert not np.array_equal(before[name], p), name


def test_the_parameters_of_a_list_are_saved(tmp_path):
    net = LayersInAList()
    X = data()
    Y = net(X)
    net.save(tmp_path / "list.safetensors")
    other = LayersInAList()
    other.load(tmp_path / "list.safetensors")
    np.testing.assert_array_equal(other(X), Y)


def test_a_layer_appended_later_takes_part():
    net = LayersInAList()
    compiled = bw.compile(net)
    X = data()
    assert compiled(X).shape == (2, 2)
    net.steps.append(nn.Linear(5))
    assert compiled(X).shape == (2, 5)
    assert "steps.3.weight" in dict(net.named_parameters())
    del net.steps[-1]
    assert compiled(X).shape == (2, 2)


def test_lists_inside_of_dicts_inside_of_tuples():
    class Deep(nn.Module):
        def __init__(self):
            self.parts = ({"a": [nn.Linear(3)]}, nn.Linear(2))

        def forward(self, x):
            return self.parts[1](self.parts[0]["a"][0](x))

    net = Deep()
    assert net(data()).shape == (2, 2)
    assert [name for name, _ in net.named_parameters(".*weight")] == [
        "parts.0.a.0.weight",
        "parts.1.weight",
    ]


def test_printing_while_working():
    """As a reader types it: no error, and the output says what it is."""
    net = MLP()
    text = io.StringIO()
    print(net, file=text)
    assert text.getvalue() == "MLP(\n  (hidden): Linear(? → 256)\n  (out): Linear(? → 10)\n)\n"
    net(data())
    assert str(net) == "MLP(\n  (hidden): Linear(20 → 256)\n  (out): Linear(256 → 10)\n)"
