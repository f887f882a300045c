"""Threads on modules with state under ``vmap``: batch normalisation, caches, ensembles."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn
from brickwork.errors import TraceLeakError

from .checks import close, drawn, either_way, same_state, state, stream, untraced

RNG = np.random.default_rng(0)
BOTH = pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])


def data(*shape):
    return RNG.normal(size=shape).astype(np.float32)


class Model(nn.Module):
    """A layer and batch normalisation, as in most of these threads."""

    def __init__(self):
        self.linear = nn.Linear(5, in_features=4)
        self.norm = nn.BatchNorm1d(num_features=5)

    def forward(self, x):
        return self.norm(self.linear(x))


def twins(make=Model):
    """Two networks with the same values."""
    net = make()
    return net, net.clone()


def call(model, x):
    return model(x)


@BOTH
def test_flax_4760_batchnorm_in_a_mapped_network(compiled):
    """A vmapped network with batch normalisation worked once and failed the second time, its statistics replaced by
    a tracer. Here the statistics move as by the flattened batch, call after call, and each lane is normalised by
    its own.
    """
    net, flat = twins()
    x = data(8, 3, 4)
    f = either_way(bw.vmap(net, in_axes=1), compiled)
    for _ in range(3):
        y = f(x)
        flat(x.reshape(24, 4))
    same_state(net, flat)
    untraced(net)
    close(y, jnp.stack([flat.clone()(x[:, lane]) for lane in range(3)]), rtol=1e-4)


@BOTH
@pytest.mark.parametrize("in_axes", [(None, 1), 1])
def test_flax_4760_the_network_as_an_argument(in_axes, compiled):
    """Neither did it help to pass the network to a vmapped function. Here a network among the arguments is shared by
    the lanes, whether that is said or not.
    """
    net, flat = twins()
    x = data(8, 3, 4)
    f = either_way(bw.vmap(call, in_axes=in_axes), compiled)
    for _ in range(2):
        assert f(net, x).shape == (3, 8, 5)
        flat(x.reshape(24, 4))
    same_state(net, flat)
    untraced(net)


@BOTH
def test_flax_3319_nested_vmap_with_batchnorm(compiled):
    """Two ``vmap`` around each other failed as soon as the network had batch normalisation. Here the statistics are
    those of all lanes of both.
    """
    net, flat = twins()
    x = data(2, 3, 8, 4)
    f = either_way(bw.vmap(bw.vmap(net)), compiled)
    for _ in range(2):
        assert f(x).shape == (2, 3, 8, 5)
        flat(x.reshape(48, 4))
    same_state(net, flat)
    untraced(net)


@BOTH
def test_flax_4061_one_example_at_a_time_whatever_the_batch(compiled):
    """A network for one example, mapped over a batch, worked on the first pass and crashed on the second: a shape
    had been kept in it. Here nothing of the mapped axis stays behind, so that batches may differ in size.
    """

    class Single(nn.Module):
        def __init__(self):
            self.dense = nn.Linear(3)
            self.drop = nn.Dropout(0.5)
            self.calls = bw.Buffer(jnp.zeros((), jnp.int32))

        def forward(self, x):
            self.calls += 1
            return self.drop(self.dense(x[None])[0])

    net = Single()
    f = either_way(bw.vmap(net), compiled)
    for n in (6, 6, 2):
        assert f(data(n, 4)).shape == (n, 3)
    assert net.dense.weight.shape == (3, 4)
    assert int(net.calls) == 3
    untraced(net)


@BOTH
def test_flax_4355_an_ensemble_of_networks(compiled):
    """The documentation's own example of a vmapped constructor failed with an index error in a transform's inside.
    Here networks are made as usual and stacked; the stack is one network for each lane.
    """
    nets = [Model() for _ in range(3)]
    ensemble = bw.stack(nets)
    x = data(8, 4)
    f = either_way(bw.vmap(call, in_axes=(0, None)), compiled)
    for _ in range(2):
        y = f(ensemble, x)
        expected = jnp.stack([net(x) for net in nets])
    close(y, expected, rtol=1e-4)
    for mine, alone in zip(bw.unstack(ensemble), nets, strict=True):
        same_state(mine, alone)
    untraced(ensemble)


@BOTH
def test_equinox_450_stacking_networks_with_state(compiled):
    """Making an ensemble by mapping ``__init__`` gave all of its members one state. Here each member of a stack has
    statistics of its own, and draws numbers of its own.
    """
    members = [nn.Sequential(Model(), nn.Dropout(0.5)) for _ in range(2)]
    ensemble = bw.stack(members)
    x = data(2, 8, 4)
    y = either_way(bw.vmap(call), compiled)(ensemble, x)
    for lane, (mine, alone) in enumerate(zip(bw.unstack(ensemble), members, strict=True)):
        alone(x[lane])
        same_state(mine, alone)
    assert not np.array_equal(np.asarray(y[0]) == 0, np.asarray(y[1]) == 0)


class Cache(nn.Module):
    """A cache as of attention's keys: one row is written at each call."""

    def __init__(self, length, width):
        self.keys = bw.Buffer(jnp.zeros((length, width)))
        self.index = bw.Buffer(jnp.zeros((), jnp.int32))

    def forward(self, x):
        self.keys.value = jax.lax.dynamic_update_slice_in_dim(self.keys.value, x[None], self.index.value, axis=0)
        self.index += 1
        return self.keys.value.sum(0)


@BOTH
def test_equinox_586_a_cache_for_each_lane(compiled):
    """A key-value cache written under ``vmap`` leaked a tracer. Here a cache that lanes share and write differently
    is an error that names it and says what to do; a stack of caches works.
    """
    shared = Cache(3, 2)
    x = data(4, 2)
    with pytest.raises(TraceLeakError, match=r"Buffer 'keys' was written differently.*4 lanes.*bw\.stack"):
        either_way(bw.vmap(shared), compiled)(x)
    untraced(shared)
    assert not state(shared)["keys"].any()
    assert int(shared.index) == 0

    alone = [Cache(3, 2) for _ in range(4)]
    caches = bw.stack(alone)
    f = either_way(bw.vmap(call), compiled)
    for _ in range(2):
        close(f(caches, x), jnp.stack([cache(row) for cache, row in zip(alone, x, strict=True)]))
    for mine, other in zip(bw.unstack(caches), alone, strict=True):
        same_state(mine, other, rtol=0, atol=0)
    untraced(caches)


class SpectralNorm(nn.Module):
    """A weight divided by its largest singular value, estimated by power iteration in training."""

    def __init__(self, width):
        self.weight = bw.Parameter(jnp.asarray(np.random.default_rng(1).normal(size=(width, width)), jnp.float32))
        self.u = bw.Buffer(jnp.ones(width) / np.sqrt(width).astype(np.float32))

    def forward(self, x):
        w, u = self.weight.value, self.u.value
        v = w.T @ u
        v = v / jnp.linalg.norm(v)
        u = w @ v
        sigma = jnp.linalg.norm(u)
        if self.training:
            self.u.value = u / sigma
        return x @ w.T / sigma


@BOTH
def test_equinox_705_spectral_norm_in_a_branch_in_each_lane(compiled):
    """``vmap`` of a function with a ``cond`` around spectral normalisation raised ``UnexpectedTracerError``. Here it
    works where the lanes take the same branch and where nothing is written; where each lane decides whether a
    shared buffer is written, the error names it.
    """
    net, twin = SpectralNorm(2), SpectralNorm(2)
    x, sigma = data(3, 2), jnp.array([0.2, 0.6, 0.9])

    def lane(x, sigma):
        return bw.cond(sigma > 0.5, lambda: net(x), lambda: -net(x))

    f = either_way(bw.vmap(lane, in_axes=(0, None)), compiled)
    for level in (0.9, 0.2):
        close(f(x, jnp.asarray(level)), jnp.stack([twin.clone()(row) for row in x]) * (1 if level > 0.5 else -1))
        twin(x[0])
        same_state(net, twin)

    net.eval()
    signs = jnp.where(sigma > 0.5, 1.0, -1.0)[:, None]
    close(either_way(bw.vmap(lane), compiled)(x, sigma), signs * net(x))

    net.train()
    with pytest.raises(TraceLeakError, match=r"Buffer 'u' was written differently in each of 3 lanes"):
        either_way(bw.vmap(lane), compiled)(x, sigma)
    same_state(net, twin)
    untraced(net)


def test_equinox_237_batchnorm_in_a_loop_in_a_vmap_in_a_gradient():
    """Batch normalisation in a loop, mapped and differentiated, called twice: "cannot get state before it has been
    set". Here the statistics are those of the same loop over flattened batches, each time.
    """
    net, flat = twins()
    xss = data(3, 2, 8, 4)  # lanes, steps, batch, features
    weights = data(3, 2, 8, 5)

    def loss(xss):
        loop = bw.vmap(lambda xs: bw.scan(lambda carry, x: (carry, net(x)), None, xs)[1])
        return (loop(xss) * weights).mean()

    f = bw.compile(bw.value_and_grad(loss, net))
    for _ in range(2):
        value, grads = f(xss)
        for step in range(2):
            flat(xss[:, step].reshape(24, 4))
    same_state(net, flat)
    untraced(net)

    def by_hand(params):
        pure, _ = bw.functional(flat)
        held = {path: v.value for path, v in flat.named_variables()} | params
        out = jnp.stack([jnp.stack([pure(held, x)[0] for x in xs]) for xs in xss])
        return (out * weights).mean()

    expected, by_hand_grads = jax.jit(jax.value_and_grad(by_hand))({n: p.value for n, p in flat.named_parameters()})
    close(value, expected, rtol=1e-4)
    close(dict(grads), by_hand_grads, rtol=1e-3, atol=1e-5)


@BOTH
def test_functorch_867_jacobians_of_each_example_with_batchnorm(compiled):
    """``vmap(jacrev(net))`` failed in batch normalisation, even in evaluation, where examples do not mix. Here it
    gives the Jacobian of each example, and the statistics stay.
    """
    net, twin = twins()
    for module in (net, twin):
        module(x := jnp.ones((8, 4)) * jnp.arange(8.0)[:, None])
        module.eval()
    x = data(6, 4)
    jacobian = bw.vmap(bw.jacobian(lambda row: net(row[None])[0], wrt=0))
    slope = twin.norm.weight.value / jnp.sqrt(twin.norm.running_var.value + 1e-5)
    expected = slope[:, None] * twin.linear.weight.value
    close(either_way(jacobian, compiled)(x), jnp.stack([expected] * 6), rtol=1e-4)
    same_state(net, twin, rtol=0, atol=0)


def test_functorch_384_maml_with_batchnorm():
    """The inner loop of MAML with batch normalisation failed: "got a batched tensor as input while the running
    statistics, which will be updated in place, were not batched". Here each task adapts a copy of its own, and
    the outer gradient goes through the adaptation.
    """
    net, twin = twins()
    support, query = data(3, 8, 4), data(3, 8, 4)

    def task(support, query):
        fast = net.clone()
        grads = bw.grad(lambda x: (fast(x) ** 2).mean() + fast.norm.bias.value.sum(), fast)(support)
        for path, p in fast.named_parameters():
            p.value = p.value - 0.1 * grads[path]
        return (fast(query) ** 3).mean()

    outer = bw.value_and_grad(lambda s, q: bw.vmap(task)(s, q).mean(), net)
    value, grads = bw.compile(outer)(support, query)

    pure, held = bw.functional(twin)

    def by_hand(params):
        def adapted(s, q):
            def inner(params):
                return (pure(held | params, s)[0] ** 2).mean() + params["norm.bias"].sum()

            step = jax.grad(inner)(params)
            return (pure(held | {n: params[n] - 0.1 * step[n] for n in params}, q)[0] ** 3).mean()

        return jnp.stack([adapted(s, q) for s, q in zip(support, query, strict=True)]).mean()

    expected, gradients = jax.jit(jax.value_and_grad(by_hand))({n: held[n] for n, _ in twin.named_parameters()})
    close(value, expected, rtol=1e-4)
    close(dict(grads), gradients, rtol=1e-3, atol=1e-5)
    same_state(net, twin, rtol=0, atol=0)
    untraced(net)


@BOTH
def test_flax_5025_a_mapped_network_with_a_loop_inside(compiled):
    """``jax.lax.map`` over a batch failed as soon as the network had a loop inside and drew random numbers. Here the
    loop may be inside a ``vmap``, and the pure form of the network inside ``jax.lax.map``.
    """

    class Looping(nn.Module):
        def __init__(self):
            self.cell, self.drop = nn.Linear(4, in_features=4), nn.Dropout(0.5)
            self.steps = bw.Buffer(jnp.zeros((), jnp.int32))

        def forward(self, x):
            def body(h, _):
                self.steps += 1
                return self.drop(jnp.tanh(self.cell(h))), None

            return bw.scan(body, x, length=3)[0]

    net = Looping()
    x = data(5, 2, 4)
    f = either_way(bw.vmap(net), compiled)
    first, second = f(x), f(x)
    assert np.any(first != second)
    assert int(net.steps) == 6
    assert drawn() == 2
    untraced(net)

    pure, held = bw.functional(net)
    before = stream()
    out = jax.jit(lambda x: jax.lax.map(lambda row: pure(held, row)[0], x))(x)
    assert out.shape == (5, 2, 4)
    assert np.array_equal(stream(), before)
    untraced(net)


@BOTH
def test_maxtext_3821_one_network_in_two_nested_transforms(compiled):
    """A network reached from an outer and an inner transform, by closure and as an argument, failed with
    "conflicting outer_index". Here it is the same network on every level.
    """
    net, flat = twins()
    x = data(3, 2, 8, 4)

    def outer(model, xs):
        y = net(xs[0])  # by closure, in the lane
        _, inner = bw.scan(lambda c, x: (c, model(x)), None, xs)  # as an argument, in the loop
        return y.sum() + inner.sum() + net.norm.running_mean.value.sum()

    either_way(bw.vmap(outer, in_axes=(None, 0)), compiled)(net, x)
    for batch in (x[:, 0], x[:, 0], x[:, 1]):
        flat(batch.reshape(24, 4))
    same_state(net, flat)
    untraced(net)


@BOTH
@pytest.mark.parametrize("transform", ["vmap", "scan", "grad"])
def test_flax_4760_an_exception_half_way_leaves_everything_as_it_was(transform, compiled):
    """What a failed call had left in the network made the next one fail. Here an error in the middle of a transform,
    after the statistics were written, leaves the values of before and no tracer.
    """
    net, twin = twins()

    def failing(x):
        y = net(x)
        raise ZeroDivisionError(y.shape)

    f = {
        "vmap": bw.vmap(failing),
        "scan": lambda x: bw.scan(lambda c, x: (c, failing(x)), None, x),
        "grad": lambda x: bw.grad(failing, net)(x[0]),
    }[transform]
    with pytest.raises(ZeroDivisionError):
        either_way(f, compiled)(data(3, 8, 4))
    same_state(net, twin, rtol=0, atol=0)
    untraced(net)
    net(data(8, 4))
