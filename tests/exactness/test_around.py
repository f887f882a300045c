"""Networks that use transforms inside, seen from outside: shapes only, pure functions, raw JAX around them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn
from brickwork.core import random_stream

from .harness import assert_same

X = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)


class Deep(bw.Module):
    """Every transform, around layers with every kind of state."""

    def __init__(self):
        self.cell, self.norm, self.drop = nn.Linear(3), nn.BatchNorm1d(), nn.Dropout(0.5)
        self.blocks = nn.Repeat(lambda: nn.Sequential(nn.Linear(3), nn.Tanh()), 2)
        self.arms = [nn.Linear(3), nn.Linear(3, bias=False)]
        self.calls = bw.Buffer(jnp.zeros((), jnp.int32))

    def forward(self, x):
        x, _ = bw.scan(lambda h, _: (jnp.tanh(self.cell(h)), None), x, length=2)
        x = bw.remat(lambda x: bw.cond(x.sum() > -1e9, self.norm, lambda x: x, x))(x)
        x = bw.vmap(self.drop)(self.blocks(x))
        self.calls.value = bw.fori_loop(0, 3, lambda i, n: n + i, self.calls.value)
        return bw.switch(self.calls.value % 2, self.arms, x)


def made():
    """A network that has run once. Eagerly only one arm has; the specs go through both."""
    net = Deep()
    net.initialize(bw.spec(4, 3))
    net(X)
    return net


def named(net):
    return {path: v.value for path, v in net.named_variables()}


def test_shapes_without_computing():
    net = Deep()
    net.initialize(bw.spec(4, 3))
    assert net.cell.weight.shape == (3, 3)
    assert net.blocks.block[0].weight.shape == (2, 3, 3)
    assert not any(p.is_drawn for p in net.parameters())
    assert int(random_stream().value[-1]) == 0
    assert (int(net.calls), int(net.norm.num_batches_tracked)) == (0, 0)
    fresh = Deep()
    assert "Linear(3 → 3)" in str(fresh.summary(bw.spec(4, 3)))
    assert not any(p.is_drawn for p in fresh.parameters())


@pytest.mark.parametrize("way", [lambda f: f, jax.jit, bw.compile], ids=["eager", "jit", "compile"])
def test_as_a_pure_function(way):
    net = made()
    bw.seed(3)
    pure, state = bw.functional(net)
    y, after = way(pure)(state, X)
    bw.seed(3)
    assert_same(y, net(X), 2e-6)
    assert_same({k: v for k, v in after.items() if k != "__random__"}, named(net), 2e-6)
    np.testing.assert_array_equal(after["__random__"], random_stream().value)


def test_the_pure_function_under_raw_transforms():
    net = made()
    pure, state = bw.functional(net)
    xs = jnp.stack([X, X + 1])
    many = jax.jit(jax.vmap(lambda x: pure(state, x)))(xs)
    last, ys = jax.lax.scan(lambda s, x: pure(s, x)[::-1], state, xs)
    step, once = state, jax.jit(pure)
    for i, x in enumerate(xs):
        assert_same(jax.tree.map(lambda v, i=i: v[i], many), once(state, x), 2e-6)
        y, step = once(step, x)
        assert_same(ys[i], y, 2e-6)
    assert_same(last, step, 2e-6)
    weights = {k: v for k, v in state.items() if jnp.issubdtype(v.dtype, jnp.floating)}

    def loss(weights):
        return (pure(state | weights, X)[0] ** 2).sum()

    bw.seed(0)
    again = jax.jit(jax.grad(jax.checkpoint(loss)))(weights)
    assert_same(again, jax.jit(jax.grad(loss))(weights), 5e-6)


def test_a_network_as_a_pytree_in_raw_jit():
    """A copy that only reads: in evaluation mode nothing is written but the count of the calls."""
    net = made()
    net.eval()
    net.forward(X)
    with pytest.raises(bw.errors.TraceLeakError, match="belongs to a copy of a module that a raw JAX transform made"):
        jax.jit(lambda net, x: net(x))(net, X)
