"""``bw.scan``, ``bw.fori_loop``, ``bw.while_loop``: values, state, random numbers, and every way to get it wrong."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from tests.exactness import plain
from tests.exactness.harness import assert_same

import brickwork as bw
from brickwork import nn
from brickwork.core import random_stream
from brickwork.core._jax import Tracer
from brickwork.errors import TraceLeakError

X = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)
BOTH = pytest.mark.parametrize("way", [lambda f: f, bw.compile], ids=["eager", "compiled"])


def scalar(value=0.0):
    return bw.Buffer(jnp.asarray(value))


def stream():
    return np.asarray(random_stream().value)


def values(*nets):
    return [np.asarray(v.value) for net in nets for v in net.variables()]


# -- as jax.lax ------------------------------------------------------------------------------------


def addition(c, x):
    return c + x, c * x


@pytest.mark.parametrize(
    ("fn", "init", "xs", "options"),
    [
        (addition, X[0], X, {}),
        (addition, X[0], X, {"reverse": True}),
        (addition, X[0], X, {"unroll": 2}),
        (addition, X[0], X, {"unroll": True, "reverse": True}),
        (addition, X[0], X, {"length": 4}),
        (addition, X[0], X[:0], {}),
        (addition, X[0], np.asarray(X), {}),
        (lambda c, _: (c * 2, c), jnp.int32(1), None, {"length": 5}),
        (lambda c, _: (c * 2, None), 1, None, {"length": 0}),
        (lambda c, x: (c + x, x), 0, X[0], {}),  # a Python number takes the dtype of what is added
        (lambda c, x: (c * 0.5, 1.0), 1.0, X, {}),
        (lambda c, x: ({"n": c["n"] + 1, "x": [x["a"]]}, x["b"]), {"n": 0, "x": [X[0]]}, {"a": X, "b": (X, None)}, {}),
        (lambda c, x: (jax.random.fold_in(c, 1), jax.random.uniform(c) + x), jax.random.key(0), X[0], {}),
        (lambda c, k: (c + jax.random.uniform(k), None), jnp.float32(0), jax.random.split(jax.random.key(0), 3), {}),
        (lambda c, x: (~c, x > 0), True, X, {}),
        (lambda c, x: (None, x.sum()), None, X, {}),
        (lambda c, x: ((), (c, x)), (), X, {}),
    ],
)
@BOTH
def test_scan_as_jax(way, fn, init, xs, options):
    expected = lax.scan(fn, init, xs, **options)
    got = way(lambda init, xs: bw.scan(fn, init, xs, **options))(init, xs)
    raw = [jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in jax.tree.leaves(got)]
    want = [
        jax.random.key_data(x) if jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key) else x
        for x in jax.tree.leaves(expected)
    ]
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    assert_same(raw, [jnp.asarray(x) for x in want])


@pytest.mark.parametrize(
    ("lower", "upper", "body", "init"),
    [
        (0, 5, lambda i, c: c + i, 0),
        (2, 5, lambda i, c: (c[1], c[0] + i), (jnp.int32(0), jnp.int32(1))),
        (3, 3, lambda i, c: c + 1, 1.5),
        (5, 2, lambda i, c: c + 1, 1.5),
        (jnp.int32(1), jnp.int32(4), lambda i, c: c * 2, 1.0),
        (np.int32(1), 4, lambda i, c: c + X[i], X[0]),
    ],
)
@BOTH
def test_fori_loop_as_jax(way, lower, upper, body, init):
    expected = lax.fori_loop(lower, upper, body, init)
    got = way(lambda init: bw.fori_loop(lower, upper, body, init))(init)
    assert_same(got, jax.tree.map(jnp.asarray, expected))
    traced = bw.compile(lambda lower, upper, init: bw.fori_loop(lower, upper, body, init))
    assert_same(traced(jnp.asarray(lower), jnp.asarray(upper), init), jax.tree.map(jnp.asarray, expected))


@pytest.mark.parametrize(
    ("test", "body", "init"),
    [
        (lambda x: x > 1, lambda x: x / 2, 10.0),
        (lambda x: False, lambda x: x + 1, 3),
        (lambda s: (s[0] < 3) & (s[1].sum() < 9), lambda s: (s[0] + 1, s[1] * 2), (0, X[3])),
    ],
)
@BOTH
def test_while_loop_as_jax(way, test, body, init):
    expected = lax.while_loop(test, body, init)
    got = way(lambda init: bw.while_loop(test, body, init))(init)
    assert_same(got, jax.tree.map(jnp.asarray, expected))


def test_conditions_as_in_python():
    assert int(bw.while_loop(lambda n: 5 - n, lambda n: n + 1, 0)) == 5  # a number is true unless it is zero
    left = bw.Buffer(jnp.int32(3))

    def body(n):
        left.value -= 1
        return n + 1

    assert int(bw.while_loop(lambda n: left, body, 0)) == 3  # a variable is its value, there and then


@BOTH
def test_python_numbers_in_the_carry_take_its_dtype(way):
    assert_same(
        way(lambda x: bw.scan(lambda c, x: (0, c), x, length=2))(jnp.float32(3)),
        (jnp.float32(0), jnp.asarray([3.0, 0.0])),
    )
    assert way(lambda x: bw.fori_loop(0, 2, lambda i, c: 7, x))(jnp.int16(1)).dtype == jnp.int16


def test_values_that_are_no_arrays():
    (n, name), (y, kind) = bw.scan(lambda c, x: ((c[0] + 1, c[1]), (x[0].sum(), x[1])), (0, "name"), (X, "kind"))
    assert (int(n), name, kind, y.shape) == (4, "name", "kind", (4,))


def test_the_first_step_of_a_plain_function_is_traced_once():
    seen = []
    bw.scan(lambda c, x: (seen.append(x) or c, None), 0.0, X)
    assert len(seen) == 1


# -- state -----------------------------------------------------------------------------------------


UNROLLED = {bw: {"unroll": 2}}
LOOPS = {
    "scan": lambda t, fn, x: t.scan(lambda c, i: (fn(c), i), x, jnp.arange(3))[0],
    "reverse": lambda t, fn, x: t.scan(lambda c, i: (fn(c), i), x, jnp.arange(3), reverse=True)[0],
    "unrolled": lambda t, fn, x: t.scan(lambda c, i: (fn(c), i), x, jnp.arange(3), **UNROLLED.get(t, {}))[0],
    "fori": lambda t, fn, x: t.fori_loop(0, 3, lambda i, c: fn(c), x),
    "while": lambda t, fn, x: t.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, fn(s[1])), (jnp.int32(0), x))[1],
}
EVERY = pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)


class Net(bw.Module):
    def __init__(self):
        self.block = nn.Sequential(nn.Linear(3), nn.BatchNorm1d(), nn.Dropout(0.5))
        self.calls = bw.Buffer(jnp.zeros((), jnp.int32))

    def forward(self, x):
        self.calls += 1
        return jnp.tanh(self.block(x)) * self.calls.value.astype(x.dtype)


@EVERY
@BOTH
def test_state_and_random_numbers_are_those_of_python(way, loop):
    """Twice: the second time what is written is known already. Shapes are found in the first step."""
    net, twin = Net(), None
    twin = net.clone()
    f = way(lambda x: loop(bw, net, x))
    got = [np.asarray(f(X)), np.asarray(f(X + 1)), stream()]
    bw.seed(0)
    expected = [np.asarray(loop(plain, twin, X)), np.asarray(loop(plain, twin, X + 1)), stream()]
    assert_same(got, expected, 2e-6)
    assert_same(values(net), values(twin), 2e-6)
    assert not any(isinstance(v._value, Tracer) for v in net.variables())


@EVERY
@BOTH
def test_read_after_written_in_every_step(way, loop):
    a, b = scalar(1.0), scalar(2.0)

    def step(x):
        a.value, b.value = b.value, a.value + x
        return x + b.value

    assert_same(float(way(lambda x: loop(bw, step, x))(jnp.float32(1))), 18.0)
    assert (float(a), float(b)) == (5.0, 10.0)


@EVERY
def test_a_variable_as_the_result_is_its_value_in_that_step(loop):
    b = scalar(1.0)

    def step(x):
        b.value = b.value * 2
        return b

    assert float(loop(bw, step, jnp.float32(0))) == 8
    ys = bw.scan(lambda c, x: (c, {"b": [step(c)]}), 0.0, length=2)[1]
    assert ys["b"][0].tolist() == [16.0, 32.0]


def test_a_condition_that_writes_is_asked_once_more():
    asked = bw.Buffer(jnp.int32(0))

    def test(n):
        asked.value += 1
        return n < 4

    bw.while_loop(test, lambda n: n + 1, 0)
    assert int(asked) == 5
    bw.while_loop(test, lambda n: n + 1, 9)
    assert int(asked) == 6


@BOTH
@pytest.mark.parametrize("n", [0, -3])
def test_no_step_changes_nothing(way, n):
    net = Net()
    net(X)
    before, random = values(net), stream()
    f = way(lambda n, x: bw.fori_loop(0, n, lambda i, x: net(x), x))
    np.testing.assert_array_equal(f(jnp.int32(n), X), X)
    y, ys = way(lambda x: bw.scan(lambda c, _: (net(c), c), x, length=0))(X)
    assert (y.shape, ys.shape) == ((4, 3), (0, 4, 3))
    assert_same(values(net), before)
    np.testing.assert_array_equal(stream(), random)


@BOTH
def test_gradients_added_up(way):
    """A loop that surely runs may fill a slot that is empty before."""
    net, twin = nn.Linear(1, in_features=3), None
    twin = net.clone()
    body = lambda net: lambda c, x: (c + bw.backward(lambda x: (net(x) ** 2).sum(), net)(x), None)
    total, _ = way(lambda: bw.scan(body(net), jnp.float32(0), X))()
    expected, _ = plain.scan(body(twin), jnp.float32(0), X)
    assert_same(total, expected)
    assert_same(net.weight.grad, twin.weight.grad)
    assert_same(net.bias.grad, twin.bias.grad)


def test_gradients_through_loops():
    net = Net()
    net(X)
    for loop in ("scan", "reverse", "fori"):
        got = bw.value_and_grad(lambda x, f=LOOPS[loop]: (f(bw, net.block[0], x) ** 2).sum(), net.block[0])(X)
        expected = bw.value_and_grad(lambda x, f=LOOPS[loop]: (f(plain, net.block[0], x) ** 2).sum(), net.block[0])(X)
        assert_same(got, expected, 5e-6)


def test_the_body_is_traced_once_when_it_is_known():
    net, traces = Net(), []
    net(X)

    def body(c, x):
        traces.append(1)
        return net(c), None

    def run():
        traces.clear()
        bw.scan(body, X, length=2)
        return len(traces)

    assert (run(), run()) == (2, 1)


def test_what_was_known_of_a_body_may_be_wrong():
    """The same code with other things in its dict: what it wrote last time is neither written nor in the way."""
    box = {"b": scalar(1.0), "p": bw.Parameter(jnp.ones(3))}

    def run(x):
        def body(c, _):
            box["b"].value = box["b"].value + 1
            return c * box["b"], None

        return bw.scan(body, x, length=2)[0]

    old = box["b"]
    assert float(run(jnp.float32(1))) == 6
    box["b"] = bw.Buffer(jnp.asarray([10.0, 20.0]))
    assert run(jnp.ones(2)).tolist() == [132.0, 462.0]
    assert float(old) == 3
    del old, box["b"]
    box["b"] = bw.Buffer(jnp.asarray(0.0, jnp.float16))
    assert float(run(jnp.ones((), jnp.float16))) == 2


def test_bodies_with_the_same_code_and_other_captures():
    buffers = [scalar(float(i)) for i in range(3)]

    def body_for(buffer):
        def body(c, x):
            buffer.value += x
            return c + buffer.value, None

        return body

    for _ in range(2):
        for buffer in buffers:
            bw.scan(body_for(buffer), 0.0, jnp.ones(2))
    assert [float(b) for b in buffers] == [4.0, 5.0, 6.0]


def test_bodies_of_every_kind():
    total = scalar()

    class Adder(bw.Module):
        def forward(self, c, x):
            total.value += x
            return c + x, None

        def method(self, c, x):
            return self.forward(c, x)

        @classmethod
        def of_class(cls, c, x):
            return cls.forward(None, c, x)

    class Callable:
        def __call__(self, c, x):
            return adder.forward(c, x)

    adder = Adder()
    bodies = [
        adder,
        adder.method,
        Adder.of_class,
        Callable(),
        functools.partial(Adder.forward, adder),
        bw.compile(adder),
        bw.compile(adder.method),
        bw.remat(adder),
        bw.remat(adder.method),
        lambda c, x: adder(c, x),
    ]
    for i, body in enumerate(bodies, 1):
        assert float(bw.scan(body, 0.0, jnp.ones(2))[0]) == 2
        assert float(total) == 2 * i


def test_loops_in_loops():
    count, total = bw.Buffer(jnp.int32(0)), scalar()

    def inner(i, x):
        count.value += 1
        return x + 1

    def outer(c, n):
        c = bw.fori_loop(0, n, inner, c)
        total.value += c
        return c, bw.while_loop(lambda x: x > 2, lambda x: inner(0, x) - 2, c)

    f = bw.compile(lambda ns: bw.scan(outer, 0.0, ns))
    got = f(jnp.asarray([2, 0, 3]))
    assert_same(float(got[0]), 5.0)
    assert got[1].tolist() == [2.0, 2.0, 2.0]
    assert (int(count), float(total)) == (8, 9.0)


@BOTH
def test_variables_made_inside(way):
    """They live for a step; one that is kept is of no use afterwards, and says so."""
    kept = []

    def body(c, x):
        local = bw.Buffer(jnp.zeros(3))
        local.value += x
        local[0] = 5.0
        kept.append(local)
        return c + local.value, None

    got, _ = way(lambda: bw.scan(body, X[0], X))()
    expected, _ = plain.scan(body, X[0], X)
    assert_same(got, expected)
    with pytest.raises(TraceLeakError, match="was created inside a JAX transform and kept after it ended"):
        kept[0].value


@BOTH
@EVERY
def test_a_failure_half_way_changes_nothing(way, loop):
    net, b = Net(), scalar(2.0)
    net(X)
    before, random = values(net), stream()

    def step(x):
        b.value = b.value + 1
        net(x)
        raise KeyError("half way")

    with pytest.raises(KeyError, match="half way"):
        way(lambda x: loop(bw, step, x))(X)
    assert_same(values(net), before)
    assert float(b) == 2
    np.testing.assert_array_equal(stream(), random)
    loop(bw, net, X)  # and nothing stands in the way of another loop


@EVERY
def test_raw_jax_around(loop):
    b = scalar(2.0)

    def write(x):
        b.value = b.value + 1
        return x

    np.testing.assert_allclose(jax.jit(lambda x: loop(bw, lambda x: x * b, x))(X), X * 8)
    with pytest.raises(TraceLeakError, match="written inside a raw JAX transform"):
        jax.jit(lambda x: loop(bw, write, x))(X)
    assert float(b) == 2


# -- stacks in xs ----------------------------------------------------------------------------------


@BOTH
def test_a_stack_is_the_module_of_each_step(way):
    layers = [nn.Sequential(nn.Linear(3, in_features=3), nn.BatchNorm1d(num_features=3)) for _ in range(3)]
    stacked = bw.stack(layers)
    noise = jnp.arange(3.0)

    def body(h, step):
        layer, more = step["layer"], step["more"]
        return jnp.tanh(layer(h) + more), h.mean()

    y, means = way(lambda x: bw.scan(body, x, {"layer": stacked, "more": noise}))(X)
    h, expected = X, []
    for layer, more in zip(layers, noise, strict=True):
        h, mean = body(h, {"layer": layer, "more": more})
        expected.append(mean)
    assert_same((y, means), (h, jnp.stack(expected)), 2e-6)
    for mine, layer in zip(bw.unstack(stacked), layers, strict=True):
        assert_same(values(mine), values(layer), 2e-6)


def test_the_length_follows_from_a_stack():
    stacked = bw.stack([nn.Linear(3, in_features=3) for _ in range(2)])
    assert bw.scan(lambda h, layer: (layer(h), h), X, stacked)[1].shape == (2, 4, 3)
    _, ys = bw.scan(lambda h, layer: (layer(h), h), X, stacked, reverse=True)
    first, second = bw.unstack(stacked)
    np.testing.assert_allclose(ys[0], second(X), rtol=1e-6)
    del first


def test_variables_stand_for_their_values():
    b = bw.Buffer(jnp.arange(3.0))
    carry, ys = bw.scan(lambda c, x: (c + x, x), scalar(1.0), b)
    assert (float(carry), ys.tolist()) == (4.0, [0.0, 1.0, 2.0])
    n = bw.Buffer(jnp.int32(3))
    assert int(bw.fori_loop(0, n, lambda i, c: c + i, 0)) == 3
    assert int(bw.compile(lambda: bw.fori_loop(0, n, lambda i, c: c + i, 0))()) == 3
    assert float(bw.while_loop(lambda x: x < 9, lambda x: x * 2, scalar(1.0))) == 16
