"""Threads on the ceremony that custom layers need: here ``__init__``, ``forward`` and, for sizes, ``build``."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import brickwork as bw
from brickwork import init, nn, optim

from .checks import close, same_state, state

X = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)


class Scale(nn.Module):
    """One parameter of a deferred size."""

    def __init__(self):
        self.weight = bw.Parameter(shape=(None,), init=init.ones)

    def build(self, x):
        self.weight.shape = (x.shape[-1],)

    def forward(self, x):
        return x * self.weight


class Activated(nn.Module):
    """A function as an argument: tf-keras and CREsted had to register it."""

    def __init__(self, width, activation=lambda x: jnp.maximum(x, 0)):
        self.linear, self.activation = nn.Linear(width), activation

    def forward(self, x):
        return self.activation(self.linear(x))


class Tower(nn.Module):
    """A list of sizes as an argument."""

    def __init__(self, widths):
        self.widths = widths
        self.layers = [Activated(width, jnp.tanh) for width in widths]

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Residual(nn.Module):
    """A layer as an argument, that of another custom class included."""

    def __init__(self, inner, *, weight=0.5):
        self.inner, self.weight = inner, weight

    def forward(self, x):
        return x + self.weight * self.inner(x)


class Experts(nn.Module):
    """A dict of layers as an argument."""

    def __init__(self, experts):
        self.experts = experts
        self.gate = nn.Linear(len(experts))

    def forward(self, x):
        weights = jax.nn.softmax(self.gate(x), axis=-1)
        outs = jnp.stack([expert(x) for expert in self.experts.values()], axis=-1)
        return (outs * weights[:, None, :]).sum(-1)


class Centred(nn.Module):
    """A buffer that training moves."""

    def __init__(self):
        self.mean = bw.Buffer(shape=(None,), init=init.zeros)

    def build(self, x):
        self.mean.shape = (x.shape[-1],)

    def forward(self, x):
        if self.training:
            self.mean.value = 0.9 * self.mean.value + 0.1 * x.mean(0)
        return x - self.mean


class Configured(nn.Module):
    """Plain attributes of all kinds: strings, dicts, ``None``, a class, a tuple."""

    def __init__(self, config):
        self.config = config
        self.kind = nn.Linear
        self.bounds = (-1.0, 1.0)
        self.unused = None
        self.body = self.kind(config["width"])

    def forward(self, x):
        return jnp.clip(self.body(x), *self.bounds)


class Tied(nn.Module):
    """One layer used twice, one weight used transposed."""

    def __init__(self, width):
        self.encode = nn.Linear(width, bias=False)

    def forward(self, x):
        return self.encode(x) @ self.encode.weight


class Wrapped(nn.Module):
    """A subclass that adds to its parent."""

    def __init__(self, *args, **kwargs):
        self.args = args
        self.inner = Tower(*args, **kwargs)

    def forward(self, x):
        return self.inner(x).sum(-1, keepdims=True)


class Doubled(Activated):
    def __init__(self, width):
        super().__init__(width)
        self.second = nn.Linear(width)

    def forward(self, x):
        return self.second(super().forward(x))


CUSTOM = {
    "Scale": Scale,
    "Activated": lambda: Activated(3, lambda x: x * jax.nn.sigmoid(x)),
    "Tower": lambda: Tower([3, 2]),
    "Residual": lambda: Residual(Residual(Activated(6))),
    "Experts": lambda: Experts({"a": nn.Linear(2), "b": Activated(2)}),
    "Centred": Centred,
    "Configured": lambda: Configured({"width": 3, "name": "x"}),
    "Tied": lambda: Tied(3),
    "Wrapped": lambda: Wrapped([3, 4]),
    "Doubled": lambda: Doubled(3),
}


@pytest.mark.parametrize("make", CUSTOM.values(), ids=CUSTOM)
def test_keras_21046_custom_layers_without_ceremony(make, tmp_path):
    """A custom layer needed ``get_config``, ``from_config``, registering, and lists or functions as arguments broke
    it all the same. Here ten layers, nested, with lists, dicts, layers and lambdas as arguments, infer their
    sizes, compile, train, copy, save and load with no line for it.
    """
    net = make()
    net.initialize(bw.spec(4, 6))
    out = net(X)
    net.eval()
    close(bw.compile(net)(X), net(X))

    if net.parameters():
        opt = optim.sgd(net, 0.1)
        bw.compile(lambda x: opt.step(bw.grad(lambda x: (net(x) ** 2).sum(), net)(x)))(X)
    net.save(tmp_path / "net.safetensors")
    fresh = make().eval()
    fresh.load(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(fresh(X), net(X))
    same_state(net.clone(), net, rtol=0, atol=0)
    assert fresh(X).shape == out.shape


def test_keras_1033_a_lambda_is_a_layer():
    """A model with a ``Lambda`` layer could not be rebuilt from its description. Here a function is a layer as it
    is, and no description of the network is needed to load its weights.
    """
    net, fresh = (nn.Sequential(nn.Linear(3), lambda x: x[:, ::-1], nn.Linear(2)) for _ in range(2))
    net(X)
    fresh.load_state_dict(net.state_dict())
    np.testing.assert_array_equal(fresh(X), net(X))


def test_tensorflow_39793_custom_layers_in_custom_layers():
    """A custom layer with arguments, used in another one, had to override ``get_config`` in both. Here both are
    reached by name.
    """
    net = Residual(Tower([3, 6]))
    net(X)
    assert [name for name, _ in net.named_parameters()][-1] == "inner.layers.1.linear.bias"


def test_keras_20004_the_weights_of_layers_inside_a_custom_layer_count():
    """Weights of layers composed in a custom layer's constructor were hidden after an upgrade, so pretrained
    weights could not be loaded. Here what is an attribute is found.
    """

    class Composition(nn.Module):
        def __init__(self, width):
            self.fc1, self.fc2 = nn.Linear(4 * width), nn.Linear(width)

        def forward(self, x):
            return self.fc2(self.fc1(x))

    net = Composition(6)
    net(X)
    assert {name: p.shape for name, p in net.named_parameters()} == {
        "fc1.weight": (24, 6),
        "fc1.bias": (24,),
        "fc2.weight": (6, 24),
        "fc2.bias": (6,),
    }


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_mxnet_16465_one_dialect_for_eager_and_compiled(compiled):
    """A hybrid block took lists and numbers for its inputs until ``hybridize()`` was called; then the second call,
    with an array in place of the number, failed. Here compiling changes nothing about what ``forward`` may be given.
    """

    class Foo(nn.Module):
        def forward(self, a, b):
            a = sum(a) if isinstance(a, (list, tuple)) else a
            b = sum(b) if isinstance(b, (list, tuple)) else b
            return a + b

    foo = bw.compile(Foo()) if compiled else Foo()
    ones = jnp.ones(3)
    for _ in range(2):
        assert foo(ones, 1).tolist() == [2, 2, 2]
        assert foo(ones, ones).tolist() == [2, 2, 2]
        assert foo([ones, ones], (1, ones)).tolist() == [4, 4, 4]


def test_mxnet_10990_an_input_that_is_not_used():
    """``hybridize`` failed when one of the inputs was not used by any computation. Here it is an input like others."""

    class Model(nn.Module):
        def __init__(self):
            self.users = nn.Embedding(5, 3)

        def forward(self, users, items):
            return self.users(users)

    net = Model()
    users = np.array([1, 2])
    np.testing.assert_array_equal(bw.compile(net)(users, np.ones(7, np.float32)), net(users, None))


def test_flax_1617_one_way_to_define_a_layer():
    """``setup`` or ``compact``, never both: layers made where they are used cannot be reached from another method.
    Here layers are attributes, and every method can use every layer.
    """

    class AutoEncoder(nn.Module):
        def __init__(self):
            self.enc, self.dec = nn.Linear(2), nn.Linear(6)

        def encode(self, x):
            return self.enc(x)

        def decode(self, z):
            return self.dec(z)

        def forward(self, x):
            return self.decode(self.encode(x))

    net = AutoEncoder()
    out = net(X)
    np.testing.assert_array_equal(net.decode(net.encode(X)), out)
    close(bw.compile(net.encode)(X), net.encode(X))


def test_vision_transformer_118_a_layer_is_an_attribute():
    """With ``compact`` a layer is made and called in one line of the computation, which people took for a layer
    made at each call. Here a layer made in ``forward`` is made at each call, and what is an attribute is trained.
    """

    class Inline(nn.Module):
        def forward(self, x):
            return nn.Linear(2)(x)

    class Net(nn.Module):
        def __init__(self):
            self.dense = nn.Linear(2)

        def forward(self, x):
            return self.dense(x)

    inline, net = Inline(), Net()
    assert not np.allclose(inline(X), inline(X))
    assert inline.parameters() == []
    np.testing.assert_array_equal(net(X), net(X))
    assert len(net.parameters()) == 2


def test_equinox_faq_optax_takes_a_network_with_functions_in_it():
    """The first entry of the FAQ: optax raises a ``TypeError``, because an activation function is a leaf of the
    model. Here the leaves of a network are its arrays, whatever else it holds.
    """
    net = nn.Sequential(Configured({"width": 3, "name": "x"}), jnp.tanh, Activated(1, jax.nn.gelu))
    net(X)
    rule = optax.adam(1e-2)
    gradients = jax.grad(lambda net, x: (net(x) ** 2).mean())(net, X)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts with floats
        updates, _ = jax.jit(rule.update)(gradients, rule.init(net))
        moved = optax.apply_updates(net, updates)
    assert type(moved[0]) is Configured
    assert moved[0].config == {"width": 3, "name": "x"}
    assert all(np.any(a != b) for a, b in zip(state(moved).values(), state(net).values(), strict=True))
    assert (moved(X) ** 2).mean() < (net(X) ** 2).mean()
