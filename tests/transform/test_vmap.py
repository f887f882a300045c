"""``bw.vmap``: values, random numbers, statistics, writes, and every way to get it wrong."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.exactness.harness import assert_same

import brickwork as bw
from brickwork import nn
from brickwork.core import random_stream
from brickwork.core._jax import Tracer
from brickwork.core._random import advance, fork
from brickwork.errors import TraceLeakError

X = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)
BOTH = pytest.mark.parametrize("way", [lambda f: f, bw.compile], ids=["eager", "compiled"])


def scalar(value=0.0):
    return bw.Buffer(jnp.asarray(value))


def stream():
    return np.asarray(random_stream().value)


def values(*nets):
    return [np.asarray(v.value) for net in nets for v in net.variables()]


# -- as jax.vmap -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "options", "args"),
    [
        (jnp.sin, {}, (X,)),
        (lambda x, y: x @ y, {"in_axes": (1, None)}, (X, jnp.arange(4.0))),
        (lambda x, y: x - y, {"in_axes": (-1, 0)}, (X, jnp.arange(3.0))),
        (lambda x: (x, x.sum()), {"out_axes": (-1, 0)}, (X,)),
        (lambda x: {"a": [x, x * 2], "b": None}, {"out_axes": {"a": [1, 0], "b": None}}, (X,)),
        (lambda x: {"a": [x, x * 2]}, {"out_axes": 1}, (X,)),
        (lambda x: x["a"] + x["b"][0], {"in_axes": ({"a": 0, "b": [1]},)}, ({"a": X, "b": [X.T]},)),
        (lambda x: x["a"] + x["b"][0], {"in_axes": ({"a": 0, "b": None},)}, ({"a": X, "b": [X[0]]},)),
        (lambda x, y: x * y, {"in_axes": [0, None]}, (X, X[0])),
        (lambda x: x, {"in_axes": 1, "out_axes": 1}, (X,)),
        (lambda x: 1.0, {}, (X,)),
        (lambda x: (3, True, x), {}, (X,)),
        (lambda: jnp.float32(2), {"axis_size": 3}, ()),
        (lambda x: (x, 2 * x.sum()), {"axis_size": 4}, (X,)),
        (lambda x: x + 1, {}, (jnp.zeros((0, 3)),)),
        (lambda x: x.astype(jnp.int8) > 0, {}, (X,)),
        (lambda k: jax.random.normal(k, (2,)), {}, (jax.random.split(jax.random.key(0), 3),)),
        (lambda x: x + jax.lax.axis_index("i").astype(x.dtype) - jax.lax.pmean(x, "i"), {"axis_name": "i"}, (X,)),
        (lambda x: jax.vmap(lambda y: y.sum() + x.sum())(x[:, None]), {}, (X,)),
        (lambda x: jax.lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), {}, (X,)),
        (lambda x: x, {"out_axes": None, "in_axes": None, "axis_size": 2}, (X,)),
    ],
)
@BOTH
def test_as_jax(way, fn, options, args):
    expected = jax.vmap(fn, **{"in_axes": 0} | options)(*args)
    got = way(bw.vmap(fn, **options))(*args)
    assert_same(got, expected)
    weak = [x.weak_type for x in jax.tree.leaves(expected)]
    assert [x.weak_type for x in jax.tree.leaves(got)] == weak


@BOTH
def test_keywords_are_mapped(way):
    def fn(x, *, y, scale=1.0):
        return x * y * scale

    f = way(bw.vmap(fn, in_axes=(None,)))
    np.testing.assert_allclose(f(X[0], y=X, scale=2.0), X[0] * X * 2)
    np.testing.assert_allclose(f(X[0], y=X, scale=jnp.arange(4.0)), X[0] * X * jnp.arange(4.0)[:, None])


def test_numpy_arrays_and_values_among_the_arguments():
    seen = []

    def fn(x, name, n, nothing):
        seen.append((name, n, nothing))
        return {"kind": name, "x": x * n}

    out = bw.vmap(fn)(np.asarray(X), "name", 3, None)
    assert out["kind"] == "name"
    np.testing.assert_allclose(out["x"], X * 3)
    assert seen == [("name", 3, None)]


def test_functions_of_every_kind():
    class Scale:
        def __call__(self, x):
            return x * 2

        def method(self, x):
            return x * 3

    import functools

    for fn in (Scale(), Scale().method, functools.partial(jnp.multiply, 2.0), jnp.negative, bw.compile(jnp.sin)):
        np.testing.assert_allclose(bw.vmap(fn)(X), fn(X))
    assert bw.vmap(jnp.sin).__name__ == "sin"


def test_numbers_that_all_lanes_share():
    shared = bw.vmap(lambda x, s: (x, s * 2), out_axes=(0, None), in_axes=(0, None))(X, jnp.float32(4))
    assert shared[1].shape == ()


# -- modules ---------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("in_axes", [0, (None, 0)])
def test_a_plain_module_is_shared(way, in_axes):
    net = nn.Linear(2, in_features=3)
    got = way(bw.vmap(lambda net, x: net(x), in_axes=in_axes))(net, X)
    np.testing.assert_allclose(got, net(X), rtol=1e-6)


def test_one_axis_for_all_leaves_modules_shared():
    net = nn.Linear(2, in_features=4)
    np.testing.assert_allclose(bw.vmap(lambda net, x: net(x), in_axes=1)(net, X), net(X.T), rtol=1e-6)
    np.testing.assert_allclose(bw.vmap(lambda net, x: net(x), in_axes=-1)(net, X), net(X.T), rtol=1e-6)


@BOTH
def test_a_module_closed_over_and_called(way):
    net = nn.Sequential(nn.Linear(4), nn.Tanh(), nn.Linear(2))
    got = way(bw.vmap(net))(X)  # shapes are found in the lane
    assert net[0].weight.shape == (4, 3)
    np.testing.assert_allclose(got, net(X), rtol=1e-6)
    assert not any(isinstance(v._value, Tracer) for v in net.variables())


def test_a_module_mapped_by_hand():
    """0 maps the first axis of each variable, whether or not bw.stack made it."""
    net = nn.Linear(2, in_features=3, bias=False)
    shapes = []

    def row(net, x):
        shapes.append(net.weight.shape)
        return net.weight @ x

    got = bw.vmap(row, in_axes=(0, None))(net, X[0])
    assert shapes == [(3,)]
    np.testing.assert_allclose(got, net(X[0]), rtol=1e-6)


@pytest.mark.parametrize("in_axes", [0, ({"net": 0, "more": [None, 0]}, 0), ({"net": 0, "more": [None, 0]}, {"x": 0})])
def test_modules_in_nests(in_axes):
    nets, shared = [nn.Linear(2, in_features=3) for _ in range(4)], nn.Linear(2, in_features=3)

    def lane(d, x):
        return d["net"](x["x"]) + d["more"][0](x["x"]) * d["more"][1]

    got = bw.vmap(lane, in_axes=in_axes)({"net": bw.stack(nets), "more": [shared, jnp.arange(4.0)]}, {"x": X})
    expected = [net(x) + shared(x) * i for i, (net, x) in enumerate(zip(nets, X, strict=True))]
    np.testing.assert_allclose(got, jnp.stack(expected), rtol=1e-6)


@BOTH
def test_variables_among_the_arguments(way):
    b = bw.Buffer(jnp.arange(3.0))
    shared = way(bw.vmap(lambda v, x: v * x))
    mapped = way(bw.vmap(lambda v, x: v * x, in_axes=(0, 0)))
    np.testing.assert_allclose(shared(b, X), b.value * X)
    np.testing.assert_allclose(mapped(b, X[0]), b.value * X[0])


def test_a_mapped_variable_may_be_written():
    b = bw.Buffer(jnp.arange(4.0))

    def lane(v, x):
        v.value = v.value + x.sum()
        return v.value

    got = bw.vmap(lane, in_axes=(0, 0))(b, X)
    np.testing.assert_allclose(b.value, jnp.arange(4.0) + X.sum(1), rtol=1e-6)
    np.testing.assert_allclose(got, b.value)


@BOTH
def test_gradients_of_each_example(way):
    net = nn.Linear(1, in_features=3)
    value, grads = way(bw.vmap(bw.value_and_grad(lambda x: (net(x) ** 2).sum(), net)))(X)
    for i, x in enumerate(X):
        one, each = bw.value_and_grad(lambda x: (net(x) ** 2).sum(), net)(x)
        assert_same((value[i], jax.tree.map(lambda g, i=i: g[i], grads)), (one, each))


@BOTH
def test_gradient_through_the_map(way):
    net = nn.Sequential(nn.Linear(3), nn.Tanh(), nn.Linear(1))
    net(X)
    mapped = way(bw.value_and_grad(lambda x: bw.vmap(net)(x).mean(), net))(X)
    assert_same(mapped, bw.value_and_grad(lambda x: net(x).mean(), net)(X))


# -- random numbers --------------------------------------------------------------------------------


@BOTH
def test_streams_of_the_lanes(way):
    bw.seed(3)
    root, after = advance(random_stream().value)
    got = way(bw.vmap(lambda x: [jax.random.key_data(bw.random.key()) for _ in range(2)]))(X)
    for lane in range(4):
        state = fork(root, lane)
        for i in range(2):
            key, state = advance(state)
            np.testing.assert_array_equal(got[i][lane], jax.random.key_data(key))
    np.testing.assert_array_equal(stream(), after)  # one step of the outer stream, however many of the lanes


def test_lanes_draw_differently_and_reproducibly():
    f = bw.vmap(lambda x: jax.random.bits(bw.random.key(), ()))
    first, second = f(X), f(X)
    bw.seed(0)
    again = f(X)
    assert len({int(b) for b in (*first, *second)}) == 8
    np.testing.assert_array_equal(first, again)


@BOTH
def test_no_draw_no_step(way):
    before = stream()
    way(bw.vmap(lambda x: x * 2))(X)
    np.testing.assert_array_equal(stream(), before)


@BOTH
def test_looking_at_the_stream_is_not_drawing(way):
    before = stream()
    seen = way(bw.vmap(lambda x: random_stream().value + 0))(X)
    assert len(np.unique(np.asarray(seen), axis=0)) == 4
    np.testing.assert_array_equal(stream(), before)


@BOTH
@pytest.mark.parametrize("draws", [False, True])
def test_a_draw_that_depends_on_a_shared_value(way, draws):
    """The outer stream moves if some lane did draw, as in plain Python."""
    mapped = bw.vmap(lambda p, x: bw.cond(p, lambda: jax.random.uniform(bw.random.key()), lambda: x), in_axes=(None, 0))
    way(mapped)(jnp.asarray(draws), X[0])
    assert stream()[-1] == int(draws)


@BOTH
def test_a_draw_in_some_lanes(way):
    f = way(bw.vmap(lambda x: bw.cond(x > 0, lambda: jax.random.uniform(bw.random.key()), lambda: x)))
    f(-jnp.ones(3))
    assert stream()[-1] == 0
    f(jnp.asarray([-1.0, 1.0, -1.0]))
    assert stream()[-1] == 1


def test_evaluation_after_training_draws_nothing():
    """What a body was seen to write in training doesn't count once it no longer does."""
    net = nn.Sequential(nn.Linear(3), nn.Dropout(0.5))
    f = bw.vmap(lambda x: bw.scan(lambda c, _: (net(c), None), x, length=2)[0])
    f(X)
    assert stream()[-1] == 1
    net.eval()
    f(X)
    assert stream()[-1] == 1


def test_seeding_in_every_lane():
    bw.vmap(lambda x: bw.seed(9))(X)
    np.testing.assert_array_equal(stream(), [0, 9, 0])


def test_streams_of_nested_lanes_are_distinct():
    f = bw.vmap(bw.vmap(lambda x: jax.random.bits(bw.random.key(), ())))
    assert len({int(b) for b in f(X).ravel()}) == 12
    assert stream()[-1] == 1


def test_dropout_masks_differ_from_lane_to_lane():
    y = np.asarray(bw.vmap(nn.Dropout(0.5))(jnp.ones((4, 64))))
    assert len(np.unique(y, axis=0)) == 4
    assert set(np.unique(y)) == {0.0, 2.0}


# -- running statistics ----------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("depth", [1, 2])
def test_statistics_are_those_of_the_flat_batch(way, depth, momentum):
    norm, flat = nn.BatchNorm1d(momentum=momentum), nn.BatchNorm1d(momentum=momentum)
    x = jax.random.normal(jax.random.key(1), (2, 3, 5, 4)[2 - depth :])
    f = norm
    for _ in range(depth):
        f = bw.vmap(f)
    f = way(f)
    for i in range(3):
        y = f(x + i)
        flat(x.reshape(-1, 4) + i)
    for mine, expected in zip(norm.buffers(), flat.buffers(), strict=True):
        assert_same(mine.value, expected.value)
    assert y.shape == x.shape
    np.testing.assert_allclose(y.mean(-2), 0, atol=1e-5)  # each lane is normalised by itself


def test_statistics_in_a_loop_in_a_lane():
    norm, flat = nn.BatchNorm1d(), nn.BatchNorm1d()
    x = jax.random.normal(jax.random.key(1), (3, 5, 4))
    bw.vmap(lambda x: bw.scan(lambda c, i: (c * 2, norm(c + i)), x, jnp.arange(2.0))[0])(x)
    for i in range(2):
        flat((x * 2**i + i).reshape(-1, 4))
    assert_same(values(norm), values(flat))


def test_statistics_of_a_stack_are_each_lanes_own():
    nets = [nn.BatchNorm1d(num_features=3) for _ in range(2)]
    both = bw.stack(nets)
    x = jnp.stack([X, X * 2 + 1])
    y = bw.vmap(lambda net, x: net(x))(both, x)
    for i, (net, mine) in enumerate(zip(nets, bw.unstack(both), strict=True)):
        assert_same(y[i], net(x[i]))
        assert_same(values(mine), values(net))


def test_evaluation_mode_writes_nothing():
    norm = nn.BatchNorm1d()
    norm(X)
    norm.eval()
    before = values(norm)
    bw.vmap(norm)(jnp.stack([X, X]))
    assert_same(values(norm), before)


# -- writes ----------------------------------------------------------------------------------------


@BOTH
def test_one_value_from_all_lanes(way):
    b, mean = scalar(), scalar()

    def lane(x):
        b.value = b.value + 1
        mean.value = jax.lax.pmean(x.sum(), "lanes")
        return x * b

    got = way(bw.vmap(lane, axis_name="lanes"))(X)
    assert float(b) == 1
    np.testing.assert_allclose(mean.value, X.sum(1).mean(), atol=1e-6)
    np.testing.assert_allclose(got, X)


def own(b):
    def lane(x):
        b.value = b.value + x.sum()
        return x

    return lane


@BOTH
@pytest.mark.parametrize(
    "around",
    [
        lambda f: bw.vmap(f),
        lambda f: bw.vmap(bw.remat(f)),
        lambda f: bw.vmap(lambda x: bw.scan(lambda c, _: (f(c), None), x, length=2)),
        lambda f: bw.vmap(lambda x: bw.cond(x.sum() > 0, f, f, x)),
        lambda f: lambda x: bw.vmap(bw.vmap(f))(x[None]),
    ],
    ids=["plain", "remat", "scan", "cond", "nested"],
)
def test_different_writes_are_refused(way, around):
    class Net(bw.Module):
        def __init__(self):
            self.total = scalar(5.0)
            self.other = scalar(1.0)

    net = Net()

    def both(x):
        return after(own(net.total)(x))

    def after(x):
        net.other.value = jnp.float32(2)
        return x

    with pytest.raises(TraceLeakError) as caught:
        way(around(both))(X)
    text = str(caught.value)
    assert "Buffer 'total' was written differently in each of 4 lanes" in text
    assert "bw.stack([net1, net2, ...])" in text
    assert "jax.lax.pmean(value, 'lanes')" in text
    assert (float(net.total._value), float(net.other._value)) == (5.0, 1.0)


def test_a_write_in_a_branch_that_lanes_take_apart_is_refused():
    """Even the same value: it would be written in some lanes and not in others."""
    b = scalar()

    def write(x):
        b.value = jnp.float32(1)
        return x

    with pytest.raises(TraceLeakError, match="vmap: a Buffer was written differently in each of 3 lanes"):
        bw.vmap(lambda x: bw.cond(x > 0, write, lambda x: x, x))(jnp.asarray([-1.0, 0.0, 1.0]))
    assert float(b) == 0


@BOTH
def test_a_failure_half_way_changes_nothing(way):
    net, b = nn.Sequential(nn.BatchNorm1d(), nn.Dropout(0.5)), scalar(2.0)
    net(X)
    before, random = values(net), stream()

    def lane(x):
        b.value = jnp.float32(3)
        net(x)
        raise KeyError("half way")

    with pytest.raises(KeyError, match="half way"):
        way(bw.vmap(lane))(jnp.stack([X, X]))
    assert_same(values(net), before)
    assert float(b) == 2
    np.testing.assert_array_equal(stream(), random)
    bw.vmap(net)(jnp.stack([X, X]))  # and nothing stands in the way of another call


def test_raw_jax_around():
    """Reading is fine, and a write is refused at the write."""
    b = scalar(2.0)
    np.testing.assert_allclose(jax.jit(bw.vmap(lambda x: x * b))(X), X * 2)

    def lane(x):
        b.value = jnp.float32(3)
        return x

    with pytest.raises(TraceLeakError, match="written inside a raw JAX transform"):
        jax.jit(bw.vmap(lane))(X)
    assert float(b) == 2


# -- stacks ----------------------------------------------------------------------------------------


class Tally(bw.Module):
    def __init__(self, start=0.0):
        self.total = scalar(start)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        self.total.value = self.total.value + x.sum()
        return self.drop(x) * self.total.value


@BOTH
def test_lanes_write_their_own_part(way):
    nets = [Tally(float(i)) for i in range(4)]
    stacked = bw.stack(nets)
    f = way(bw.vmap(lambda net, x: net(x)))
    for _ in range(2):
        f(stacked, X)
    for net, x, total in zip(nets, X, stacked.total.value, strict=True):
        net(x)
        net(x)
        np.testing.assert_allclose(total, net.total.value, rtol=1e-6)


@BOTH
def test_a_stack_closed_over_is_not_mapped(way):
    stacked = bw.stack([Tally(float(i)) for i in range(4)])
    got = way(bw.vmap(lambda x: x + stacked.total.value))(jnp.zeros(2))
    assert got.shape == (2, 4)


@BOTH
def test_stacks_of_stacks(way):
    nets = [[nn.Linear(2, in_features=3) for _ in range(2)] for _ in range(3)]
    grid = bw.stack([bw.stack(row) for row in nets])
    f = way(bw.vmap(bw.vmap(lambda net, x: net(x), in_axes=(0, None)), in_axes=(0, None)))
    expected = jnp.stack([jnp.stack([net(X) for net in row]) for row in nets])
    np.testing.assert_allclose(f(grid, X), expected, rtol=1e-6, atol=1e-7)  # sums of numbers of about 1


def test_gradients_of_a_stack():
    nets = [nn.Linear(1, in_features=3) for _ in range(2)]
    stacked = bw.stack(nets)
    grads = bw.grad(lambda net: (bw.vmap(lambda n, x: n(x))(net, jnp.stack([X, X + 1])) ** 2).sum())(stacked)
    for i, net in enumerate(nets):
        alone = bw.grad(lambda net, i=i: (net(X + i) ** 2).sum())(net)
        assert_same(jax.tree.map(lambda g, i=i: g[i], grads), alone)
