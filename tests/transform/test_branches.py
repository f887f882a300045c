"""``bw.cond`` and ``bw.switch``: values, state of the branch taken, random numbers, and every way to get it wrong."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from tests.exactness.harness import assert_same

import brickwork as bw
from brickwork import nn
from brickwork.core import random_stream
from brickwork.core._jax import Tracer
from brickwork.errors import TraceLeakError

X = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)
YES, NO = jnp.asarray(True), jnp.asarray(False)
BOTH = pytest.mark.parametrize("way", [lambda f: f, bw.compile], ids=["eager", "compiled"])
EITHER = pytest.mark.parametrize("flag", [True, False])


def scalar(value=0.0):
    return bw.Buffer(jnp.asarray(value))


def stream():
    return np.asarray(random_stream().value)


def values(*nets):
    return [np.asarray(v.value) for net in nets for v in net.variables()]


# -- as jax.lax ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("yes", "no", "operands"),
    [
        (jnp.sin, jnp.cos, (X,)),
        (lambda: X, lambda: X + 1, ()),
        (lambda: None, lambda: None, ()),
        (lambda: 1.0, lambda: 2.0, ()),
        (lambda: (1, True), lambda: (2, False), ()),
        (lambda: 1.0, lambda: jnp.float32(2), ()),
        (lambda x, y: {"a": [x, y]}, lambda x, y: {"a": [y, x]}, (X, X * 2)),
        (lambda d: d["a"] + d["b"][0], lambda d: d["a"] - d["b"][0], ({"a": X, "b": (X * 3,)},)),
        (lambda k: jax.random.uniform(k), lambda k: jax.random.normal(k), (jax.random.key(0),)),
        (lambda x: x, lambda x: x[::-1], (np.asarray(X),)),
    ],
)
@EITHER
def test_cond_as_jax(yes, no, operands, flag):
    expected = lax.cond(flag, yes, no, *operands)
    eager = bw.cond(flag, yes, no, *operands)
    compiled = bw.compile(lambda flag, *ops: bw.cond(flag, yes, no, *ops))(jnp.asarray(flag), *operands)
    assert_same(jax.tree.map(jnp.asarray, eager), expected)
    assert_same(compiled, expected)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.int32])
@pytest.mark.parametrize("index", [-100, -1, 0, 1, 2, 3, 100])
def test_switch_as_jax(index, dtype):
    branches = [jnp.sin, jnp.cos, jnp.negative]
    if index < 0 and dtype == jnp.uint8:
        index += 256
    expected = lax.switch(index, branches, X)
    assert_same(bw.switch(index, branches, X), expected)
    assert_same(bw.switch(jnp.asarray(index, dtype), branches, X), expected)
    compiled = bw.compile(lambda i: bw.switch(i, iter(branches), X))
    assert_same(compiled(jnp.asarray(index, dtype)), expected)


def test_values_go_around():
    f = bw.compile(lambda p: bw.cond(p, lambda n, x: ("kind", x * n), lambda n, x: ("kind", x + n), 3, X))
    kind, y = f(YES)
    assert kind == "kind"
    np.testing.assert_allclose(y, X * 3)


@pytest.mark.parametrize("pred", [1, 0, 0.5, np.bool_(True), np.float32(0), scalar(2.0), bw.Buffer(jnp.asarray(False))])
def test_truth_is_that_of_python(pred):
    value = getattr(pred, "value", pred)
    expected = 1 if value else 2
    assert bw.cond(pred, lambda: 1, lambda: 2) == expected
    traced = bw.compile(lambda p: bw.cond(p, lambda: 1, lambda: 2))
    assert int(traced(jnp.asarray(value))) == expected


def test_only_the_branch_taken_runs_where_that_is_known():
    def never():
        raise AssertionError("ran")

    assert bw.cond(True, lambda: 1, never) == 1
    assert bw.cond(NO, never, lambda: 2) == 2
    assert bw.switch(5, [never, never, lambda: 3]) == 3
    assert bw.compile(lambda x: bw.cond(len(x) == 4, lambda: x, never))(X).shape == (4, 3)
    net = nn.Dropout(0.5)
    f = bw.compile(lambda x: bw.cond(net.training, lambda: net(x), never))
    assert f(X).shape == (4, 3)
    assert bw.compile(lambda x: bw.switch(x.ndim, [never, never, lambda: x * 0]))(X).shape == (4, 3)


def test_functions_of_every_kind():
    net = nn.Linear(2, in_features=3)
    seen = scalar()

    class Other(bw.Module):
        def forward(self, x):
            seen.value += 1
            return net(x) * 2

        def method(self, x):
            return self.forward(x) / 2

    other = Other()
    branches = [net, other, other.method, functools.partial(Other.forward, other), bw.compile(net), bw.remat(other)]
    f = bw.compile(lambda i: bw.switch(i, branches, X))
    for i, scale in enumerate([1, 2, 1, 2, 1, 2]):
        np.testing.assert_allclose(f(jnp.int32(i)), net(X) * scale, rtol=1e-6)
    assert float(seen) == 4
    assert f.stats().compilations == 1


# -- state -----------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(("a", "b", "flag"), list(itertools.product([True, False], repeat=3)))
def test_what_the_branch_taken_writes_is_written(way, a, b, flag):
    """Each branch may write the first buffer or not; the second is written by one of them only."""
    first, second = scalar(1.0), scalar(2.0)

    def yes(x):
        second.value = second.value * 10 + x
        if a:
            first.value = first.value * 2
        return x + first.value

    def no(x):
        if b:
            first.value = first.value - 3
        return x * second.value

    f = way(lambda p, x: bw.cond(p, yes, no, x) + first.value)
    got = f(jnp.asarray(flag), jnp.float32(5))
    one = (2.0 if a else 1.0) if flag else (-2.0 if b else 1.0)
    assert (float(first), float(second)) == (one, 25.0 if flag else 2.0)
    assert float(got) == (5 + one if flag else 10.0) + one


@BOTH
@EITHER
def test_random_numbers_of_the_branch_taken(way, flag):
    def draws(n):
        return lambda: sum(jax.random.uniform(bw.random.key(), ()) for _ in range(n))

    f = way(lambda p: (bw.cond(p, draws(3), draws(1)), jax.random.uniform(bw.random.key(), ())))
    got = f(jnp.asarray(flag))
    bw.seed(0)
    expected = draws(3)() if flag else draws(1)()
    assert_same(got, (expected, jax.random.uniform(bw.random.key(), ())))
    assert stream()[-1] == (4 if flag else 2)


@BOTH
def test_running_statistics_and_dropout(way):
    net, twin = nn.Sequential(nn.Linear(3), nn.BatchNorm1d(), nn.Dropout(0.5)), None
    twin = net.clone()
    f = way(lambda p, x: bw.cond(p, net, lambda x: x, x))
    got = [f(jnp.asarray(p), X + i) for i, p in enumerate([True, False, True, False])]
    random = stream()
    bw.seed(0)
    expected = [twin(X + i) if p else X + i for i, p in enumerate([True, False, True, False])]
    assert_same(got, expected, 2e-6)
    assert_same(values(net), values(twin), 2e-6)
    np.testing.assert_array_equal(random, stream())
    assert not any(isinstance(v._value, Tracer) for v in net.variables())


@BOTH
@EITHER
def test_a_variable_in_the_result_is_its_value_then(way, flag):
    b = scalar(1.0)

    def write():
        b.value = b.value * 5
        return [b]

    def step(p):
        (y,) = bw.cond(p, write, lambda: [b])
        b.value = b.value + 1
        return y + 0

    assert float(way(step)(jnp.asarray(flag))) == (5 if flag else 1)


def test_nested_branches_and_variables_as_operands():
    total = scalar()

    def add(n, v):
        total.value += n
        return v * n

    f = bw.compile(
        lambda a, b: bw.cond(
            a,
            lambda v: bw.cond(b, lambda v: add(1, v), lambda v: add(10, v), v),
            lambda v: bw.switch(b.astype(jnp.int32), [lambda v: v + 0, lambda v: add(100, v)], v),
            scalar(2.0),
        )
    )
    for a, b, n in [(1, 1, 1), (1, 0, 10), (0, 1, 100), (0, 0, None)]:
        before = float(total)
        assert float(f(jnp.asarray(bool(a)), jnp.asarray(bool(b)))) == 2 * (1 if n is None else n)
        assert float(total) - before == (n or 0)


@EITHER
def test_gradients(flag):
    shared = nn.Linear(3, in_features=3)
    a, b = nn.Sequential(shared, nn.Tanh()), nn.Sequential(nn.Linear(3, in_features=3), shared)
    both = [a, b]

    def loss(p, x):
        return (bw.cond(p, a, b, x) ** 2).sum() + shared.weight.value.sum()

    got = bw.compile(lambda p: bw.value_and_grad(loss, both)(p, X))(jnp.asarray(flag))
    expected = bw.value_and_grad(lambda: ((a if flag else b)(X) ** 2).sum() + shared.weight.value.sum(), both)()
    assert_same(got, expected, 2e-6)


def test_a_condition_on_what_is_differentiated():
    p = bw.Parameter(jnp.asarray(3.0))

    def loss(x):
        return bw.cond(p.value > x, lambda: p.value**2, lambda: -p.value)

    assert bw.value_and_grad(loss, p)(jnp.float32(1))[1][p.any_name] == 6
    assert bw.value_and_grad(loss, p)(jnp.float32(5))[1][p.any_name] == -1


def test_lanes_that_take_different_branches():
    f = bw.vmap(lambda x: bw.cond(x > 0, lambda x: x * 2, lambda x: -x, x))
    assert f(jnp.asarray([1.0, -1.0, 3.0])).tolist() == [2.0, 1.0, 6.0]
    stacked = bw.stack([nn.BatchNorm1d(num_features=3) for _ in range(2)])

    def lane(net, p, x):
        return bw.cond(p, net, lambda x: x, x)

    got = bw.compile(bw.vmap(lane))(stacked, jnp.asarray([True, False]), jnp.stack([X, X]))
    alone = nn.BatchNorm1d(num_features=3)
    assert_same(got, jnp.stack([alone(X), X]))
    assert stacked.num_batches_tracked.value.tolist() == [1, 0]


@BOTH
def test_shapes_are_found_in_either_branch(way):
    net, other = nn.Linear(3), nn.Linear(3)
    got = way(lambda p: bw.cond(p, net, other, X))(YES)
    np.testing.assert_allclose(got, net(X), rtol=1e-6)
    if way is bw.compile:
        assert other.weight.shape == (3, 3)


@BOTH
def test_a_gradient_that_is_there_may_be_added_to(way):
    net = nn.Linear(1, in_features=3)
    for p in net.parameters():
        p.grad = jnp.zeros(p.shape)
    add = lambda: bw.backward(lambda: net(X).sum(), net)()
    f = way(lambda p: bw.cond(p, add, lambda: jnp.float32(0)))
    f(NO)
    assert not net.bias.grad.any()
    f(YES)
    f(YES)
    assert float(net.bias.grad[0]) == 8


@pytest.mark.parametrize(
    ("yes", "no", "text"),
    [
        (
            {"a": 1.0, "b": 2},
            {"a": 1.0, "b": 2.0},
            "false_fn gives {'a': 1.0, 'b': 2.0} and true_fn {'a': 1.0, 'b': 2}; ",
        ),
        ({"a": 1.0, "b": 2}, {"a": 1.0, "b": 2.0}, "; they differ at result['b']: 2.0 and 2"),
        ({"a": 1.0}, {"b": 1.0}, "{'b': 1.0} and true_fn {'a': 1.0}; they differ at result['b']: 1.0 and nothing"),
        (
            {"a": [{"b": X}]},
            {"a": [{"b": X[0]}]},
            "gives {'a': [{'b': float32[3]}]} and true_fn {'a': [{'b': float32[4, 3]}",
        ),
        ([X] * 20, [X] * 19 + [X[0]], "; they differ at result[19]: float32[3] and float32[4, 3]"),
        ([X] * 20, [X] * 19, "float32[4, 3], ... 13 more] and true_fn [float32[4, 3], "),
        ({"a": None}, {"a": X}, "; they differ at result['a']: float32[4, 3] and None"),
    ],
)
def test_results_that_differ(yes, no, text):
    with pytest.raises(TypeError) as caught:
        bw.compile(lambda p: bw.cond(p, lambda: yes, lambda: no))(YES)
    assert text in str(caught.value)


def test_a_failure_while_tracing_changes_nothing():
    net, b = nn.Sequential(nn.BatchNorm1d(), nn.Dropout(0.5)), scalar(2.0)
    net(X)
    before, random = values(net), stream()

    def fails():
        b.value = jnp.float32(3)
        net(X)
        raise KeyError("half way")

    with pytest.raises(KeyError, match="half way"):
        bw.compile(lambda p: bw.cond(p, fails, lambda: None))(NO)
    assert_same(values(net), before)
    assert float(b) == 2
    np.testing.assert_array_equal(stream(), random)
    assert bw.compile(lambda p: bw.cond(p, lambda: net(X), lambda: X))(NO).shape == (4, 3)


def test_raw_jax_around():
    b = scalar(2.0)

    def write(x):
        b.value = jnp.float32(3)
        return x

    assert_same(jax.jit(lambda p, x: bw.cond(p, lambda x: x * b, lambda x: x, x))(True, X), X * 2)
    with pytest.raises(TraceLeakError, match="written inside a raw JAX transform"):
        jax.jit(lambda p, x: bw.cond(p, write, lambda x: x, x))(True, X)
    assert float(b) == 2


def test_a_branch_is_traced_once_when_it_is_known():
    b, traces = scalar(), []

    def write(x):
        traces.append(1)
        b.value += x
        return x

    def run():
        traces.clear()
        bw.compile(lambda p, x: bw.cond(p, write, lambda x: x, x))(YES, jnp.float32(1))
        return len(traces)

    first = run()
    assert run() < first
