"""Programs about depth: repeated blocks, rows of equal layers, stacks of them, meshes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

import brickwork as bw
from brickwork import nn, optim

from .harness import program

X = jnp.asarray([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75], [-0.5, 1.0, 1.25], [2.0, -2.0, 0.125]])


class Block(bw.Module):
    """A residual block with all kinds of state."""

    def __init__(self, width=3, shared=None):
        self.dense = nn.Linear(width, bias=False)
        self.norm = nn.BatchNorm1d()
        self.drop = nn.Dropout(0.25)
        self.calls = bw.Buffer(jnp.zeros((), jnp.int32))
        self.shared = shared

    def forward(self, x, scale=1.0):
        self.calls += 1
        h = x if self.shared is None else x * self.shared.value
        return x + scale * jnp.tanh(self.drop(self.norm(self.dense(h))))


@program(rtol=5e-6)
def repeated_blocks_with_all_kinds_of_state(t):
    net = t.nn.Repeat(Block, 3)
    return lambda x: net(x), [net], [(X,), (X * 2,)]


@program(rtol=5e-6)
def gradients_through_repeated_blocks(t):
    net = t.nn.Repeat(Block, 3, remat=True)
    first = bw.Parameter(jnp.ones(3))

    def step(x):
        loss, grads = t.value_and_grad(lambda x: (net(x * first.value) ** 2).mean(), first)(x)
        return loss, list(grads.values())

    return step, [net, first], [(X,), (X * 2,)]


@program(rtol=5e-6)
def repeated_blocks_in_loops_and_branches(t):
    net = t.nn.Repeat(Block, 2)

    def step(flags, x):
        return t.scan(lambda h, flag: (t.cond(flag, t.remat(net), lambda h: h * 0.5, h), h.sum()), x, flags)

    return step, [net], [(jnp.asarray(f), X) for f in ([True, False, True], [False, False, False])]


@program(rtol=5e-6)
def repeats_in_repeats(t):
    net = t.nn.Repeat(lambda: t.nn.Sequential(t.nn.Repeat(Block, 2), nn.Linear(3)), 2)
    return lambda x: net(x), [net], [(X,), (X - 1,)]


@program(rtol=5e-6)
def blocks_that_share_a_parameter_and_a_counter(t):
    shared, seen = bw.Parameter(jnp.asarray([1.0, 0.5, 2.0])), bw.Buffer(jnp.zeros(3))

    class Sharing(bw.Module):
        def __init__(self):
            self.block = Block(shared=shared)
            self.seen = seen

        def forward(self, x):
            self.seen.value = 0.5 * self.seen.value + x.mean(0)
            return self.block(x) * self.block.shared.value

    net = t.nn.Repeat(Sharing, 3)

    def step(x):
        loss, grads = t.value_and_grad(lambda x: net(x).sum(), shared)(x)
        return loss, list(grads.values())

    return step, [net, shared, seen], [(X,), (X + 1,)]


@program(plain=False, rtol=5e-6)
def a_training_step_on_repeated_blocks(t):
    net = nn.Sequential(nn.Linear(3), nn.Repeat(Block, 3, remat=True), nn.Linear(1))
    net.initialize(bw.spec(4, 3))
    opt = optim.adam(net, 1e-2)

    def step(x):
        loss, grads = t.value_and_grad(lambda x: ((net(x) - 1) ** 2).mean(), net)(x)
        opt.step(grads)
        return loss

    return step, [net], [(X,), (X * 2,)]


@program(plain=False, rtol=5e-6)
def an_ensemble_of_repeated_blocks(t):
    nets = bw.stack([nn.Repeat(lambda: nn.Sequential(nn.Linear(3, in_features=3), nn.Tanh()), 2) for _ in range(2)])

    def step(xs):
        return bw.vmap(lambda net, x: bw.value_and_grad(lambda n, x: n(x).sum())(net, x))(nets, xs)

    return step, [nets], [(jnp.stack([X, X + 1]),), (jnp.stack([X * 2, X]),)]


@program(rtol=5e-6)
def a_long_row_of_equal_layers(t):
    """Long enough for a compiled function to run it as a loop; random numbers and statistics in the order of layers."""

    class Cell(bw.Module):
        def __init__(self):
            self.scale, self.seen = bw.Parameter(jnp.full(3, 0.9)), bw.Buffer(jnp.zeros(3))
            self.drop = nn.Dropout(0.1)

        def forward(self, x):
            self.seen.value = x.mean(0)
            return self.drop(jnp.sin(x) * self.scale)

    net = t.nn.Sequential(nn.Linear(3), *[Cell() for _ in range(26)], nn.Linear(2))
    return lambda x: net(x), [net], [(X,), (X * 2,)]


@program(plain=False)
def a_mesh_of_devices(t):
    """The variables move to the mesh before the first call is compiled, so the second finds the same program."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    net, seen = nn.Linear(2, in_features=3), bw.Buffer(jnp.zeros(2))

    def part(x):
        y = net(x)
        seen.value = jax.lax.pmean(y.mean(0), "data")
        return y + jax.random.uniform(bw.random.key(), (1, 2))

    return lambda x: bw.shard_map(part, mesh, P("data"), P("data"))(x), [net, seen], [(X,), (X * 2,)]
