"""Control flow on values, and state: what a call leaves behind is what the eager one would."""

from __future__ import annotations

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import losses, nn, optim
from brickwork.core import random_stream

pytestmark = pytest.mark.filterwarnings("error")


def snapshot(*things):
    """Everything that variables hold: of modules and optimisers, gradients, and the random stream."""
    found = {"random": np.asarray(random_stream().value)}
    for i, thing in enumerate(things):
        named = thing.named_variables() if hasattr(thing, "named_variables") else enumerate(thing.variables())
        for name, v in named:
            found[f"{i}.{name}"] = np.asarray(v.value)
            if isinstance(v, bw.Parameter):
                found[f"{i}.{name}.grad"] = None if v.grad is None else np.asarray(v.grad)
    return found


def same(a, b):
    assert a.keys() == b.keys()
    for name, x in a.items():
        y = b[name]
        assert (x is None) == (y is None), name
        if x is not None:
            assert (x.shape, x.dtype) == (y.shape, y.dtype), name
            exact = x.dtype.kind != "f"
            np.testing.assert_allclose(x, y, rtol=0 if exact else 1e-4, atol=0 if exact else 1e-5, err_msg=name)


def eager_and_compiled(build, calls):
    """Run a step both ways from the same start; compare results, exceptions and all state after every call."""
    records = []
    for compiled in (False, True):
        bw.seed(3)
        step, *things = build()
        if compiled:
            step = bw.compile(step)
        bw.seed(5)
        record = []
        for args in calls:
            before = snapshot(*things)
            try:
                result = step(*args)
            except Exception as error:
                result = (type(error), str(error).split("\n")[0])  # pytest adds the operands of assertions
                if compiled:  # nothing of it stays
                    same(snapshot(*things), before)
                    record.append((result, None))
                    continue
            record.append((result, snapshot(*things)))
        records.append(record)
    for (want, state), (got, compiled_state) in zip(*records, strict=True):
        if isinstance(want, tuple) and want and isinstance(want[0], type):
            assert got == want
        else:
            jax.tree_util.tree_map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-4, atol=1e-5), got, want)
            same(state, compiled_state)
    return step.stats()


class Gated(nn.Module):
    """Decides in every layer, draws random numbers on one way, keeps statistics on the other, and counts."""

    def __init__(self):
        self.blocks = [nn.Linear(6)]
        self.norm = nn.BatchNorm1d(num_features=6)
        self.drop = nn.Dropout(0.3)
        self.seen = bw.Buffer(jnp.zeros((), jnp.int32))

    def forward(self, x):
        self.seen += 1
        for block in self.blocks:
            x = block(x)
            if x.mean() > 0:
                x = self.drop(jnp.tanh(x))
                self.seen += 10
            else:
                x = self.norm(x)
            while jnp.abs(x).max() > 2:
                x = x / 2
                self.seen += 100
        return x


def batches(n):
    rng = np.random.default_rng(0)
    scales = [0.1, 1, 3, -2]
    return [
        tuple(jnp.asarray(a, jnp.float32) for a in (rng.normal(size=(4, 5)) * scales[i % 4], rng.normal(size=(4, 6))))
        for i in range(n)
    ]


@pytest.mark.filterwarnings("ignore::UserWarning")  # of more paths than are kept
def test_training_with_decisions_everywhere():
    """In the network, on its loss, on its gradients; random numbers, statistics, an optimiser with momentum."""

    def build():
        net = Gated()
        net(jnp.ones((4, 5)))
        opt = optim.sgd(net, 0.05, momentum=0.9)

        def step(x, y):
            loss, grads = bw.value_and_grad(lambda x, y: losses.mse(net(x), y), net)(x, y)
            if loss > 0.9:
                opt.step(grads)
            elif loss > 0.5:
                opt.step({k: v * 0.5 for k, v in grads.items()})
            return loss

        return step, net, opt

    stats = eager_and_compiled(build, batches(6))
    assert 3 <= stats.compilations <= 6


def test_gradients_that_are_added_and_cleared():
    def build():
        net = nn.Linear(3, in_features=3)
        opt = optim.sgd(net, 0.1)

        def step(x):
            loss = bw.backward(lambda x: (net(x) ** 2).sum(), net)(x)
            if loss > 1:
                opt.step()
            return loss

        return step, net, opt

    x = jnp.ones((1, 3))
    assert eager_and_compiled(build, [(x * s,) for s in (0.01, 0.02, 5.0, 0.01, 5.0, 5.0, 0.01)]).compilations <= 5


def test_random_numbers_drawn_on_one_path_only():
    def build():
        noise = bw.Buffer(jnp.zeros(3))

        def step(x):
            first = jax.random.normal(bw.random.key(), ())
            if x > 0:
                noise.value = jax.random.normal(bw.random.key(), (3,))
                if noise.value[0] > 0:  # decided by a random number
                    noise.value = noise.value + jax.random.normal(bw.random.key(), (3,))
            return first, noise.value

        return step, Holder(noise)

    stats = eager_and_compiled(build, [(np.float32(v),) for v in (1, -1, 1, 1, -1, -1, 1, 1, 1)])
    assert stats.compilations == 3


class Holder(nn.Module):
    def __init__(self, *variables):
        self.items = list(variables)


def test_assertions_and_other_exceptions():
    """The same exception as eagerly, from the same place, and nothing is kept of the call."""

    def build():
        count, total = bw.Buffer(jnp.zeros((), jnp.int32)), bw.Buffer(jnp.zeros(()))

        def step(x):
            assert x < 100, "too large"
            if x != x:
                raise ValueError("not a number")
            y = [1.0, 2.0, 3.0][int(x)]
            if x < 0:
                del y
                return y
            count.value += 1
            total.value += x * 1.0
            return total.value

        return step, Holder(count, total)

    values = (1, 200, 2, float("nan"), 7, -1, 0, 200, 1, float("inf"))
    stats = eager_and_compiled(build, [(np.float32(v),) for v in values])
    assert stats.compilations == 3  # one for each that returns


def test_the_traceback_shows_the_program_only():
    @bw.compile
    def f(x):
        if x > 0:
            return x
        raise KeyError("negative")

    f(np.float32(1))
    with pytest.raises(KeyError) as caught:
        f(np.float32(-1))
    assert caught.value.__context__ is None and caught.value.__cause__ is None


def test_a_failing_path_leaves_no_program():
    count = bw.Buffer(jnp.zeros((), jnp.int32))

    @bw.compile
    def f(x):
        count.value += 1
        assert x > 0
        return x

    f(np.float32(1))
    for _ in range(3):
        with pytest.raises(AssertionError):
            f(np.float32(-1))
    f(np.float32(1))
    assert int(count) == 2
    assert f.stats().compilations == f.stats().programs == 1


def test_an_array_that_somebody_holds_survives():
    w = bw.Buffer(jnp.ones(4))
    held = []

    @bw.compile
    def f(x):
        w.value = w.value * x
        return w.value if w.value.sum() > 2 else w.value * 0

    for v in (1.0, 0.5, 0.1, 100.0):
        held.append((w.value, np.asarray(w.value)))
        f(np.float32(v))
        for array, before in held:
            np.testing.assert_array_equal(array, before)


def test_train_and_eval():
    net = nn.Sequential(nn.Linear(3, in_features=3), nn.Dropout(0.5), nn.BatchNorm1d())
    run = bw.compile(nn.Sequential(net, lambda x: x * 2 if x.sum() > 1e-3 else x * 3))
    twin = nn.Sequential(net.clone(), lambda x: x * 2 if x.sum() > 1e-3 else x * 3)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    for train in (True, False, True, False):
        for v in (x, x * -3 + 1):
            (net.train() if train else net.eval(), twin.train() if train else twin.eval())
            bw.seed(1)
            want = twin(v)
            bw.seed(1)
            np.testing.assert_allclose(run(v), want, rtol=1e-5, atol=1e-5)
    same(snapshot(net), snapshot(twin[0]))
    assert run.stats().compilations <= 4


class Deep(nn.Module):
    def __init__(self):
        self.first, self.other = nn.Linear(4), nn.Linear(4)

    def forward(self, x):
        y = self.first(x)
        return y if y.sum() > 0 else self.other(y)


def test_shapes_that_are_not_known_yet():
    """Each way builds the layers that it uses, as eagerly."""
    net, twin = Deep(), Deep()
    assert net.first.weight.shape == (4, None)
    run = bw.compile(net)
    bw.seed(0)
    x = jnp.ones((2, 3))
    bw.seed(0)
    for v in (x, -x, x, -x):
        run(v), twin(v)
    known = [p.shape for p in net.parameters()]
    assert known == [p.shape for p in twin.parameters()] == [(4, 3), (4,), (4, 4), (4,)]
    assert run.stats().compilations == 2

    fresh = Deep()
    loss = bw.compile(lambda x: bw.value_and_grad(lambda x: fresh(x).sum(), fresh)(x))
    _, grads = loss(x)
    assert "first.weight" in grads


def test_equal_modules_share_the_programs_of_all_paths():
    @bw.compile
    def run(net, x):
        return net(x)

    x = jnp.ones((2, 3))
    for _ in range(3):
        net = Deep()  # with unknown shapes, and freed at the end of the turn
        for v in (x, -x):
            np.testing.assert_allclose(run(net, v), net(v), rtol=1e-5, atol=1e-6)
    assert run.stats().compilations <= 4


def test_surgery_between_paths():
    net = nn.Sequential(nn.Linear(2, in_features=2), nn.Tanh())
    run = bw.compile(lambda x: net(x) if x.sum() > 0 else -net(x))
    x = jnp.ones((1, 2))
    run(x), run(-x)
    net[1] = nn.ReLU()
    for v in (-x, x):
        np.testing.assert_allclose(run(v), net(v) if v.sum() > 0 else -net(v), rtol=1e-6)
    assert run.stats().compilations == 4
    net[0].weight.value = net[0].weight.value.astype(jnp.float16)
    net[0].bias.value = net[0].bias.value.astype(jnp.float16)
    assert run(x.astype(jnp.float16)).dtype == jnp.float16


def test_paths_that_alternate_compile_nothing():
    @bw.compile
    def f(x):
        return x if x > 0 else -x

    for v in (1, -1):
        f(np.float32(v))
    with bw.no_recompile():
        for v in (1, -1, -1, 1, 2, -3):
            assert float(f(np.float32(v))) == abs(v)
    stats = f.stats()
    assert (stats.calls, stats.compilations, stats.cache_hits, stats.programs) == (8, 2, 6, 2)
    assert "another path through its control flow at" in stats.cause


def test_two_threads_on_different_paths():
    """Each gets its own results, and every write counts."""
    count = bw.Buffer(jnp.zeros((), jnp.int32))

    @bw.compile
    def f(x):
        if x > 0:
            count.value += 1
            return x * 2
        count.value += 100
        return x * 3

    @bw.compile
    def read(x):
        return x + 1 if x > 0 else x - 1

    errors = []

    def work(sign):
        try:
            for i in range(1, 40):
                assert float(f(np.float32(sign * i))) == sign * i * (2 if sign > 0 else 3)
                assert float(read(np.float32(sign * i))) == sign * (i + 1)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(s,)) for s in (1, -1)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    assert int(count) == 39 * 101
    for each in (f.stats(), read.stats()):
        assert each.programs == each.compilations == 2  # one for each path, whoever came first


def test_tracing_while_another_thread_overwrites_what_is_asked():
    """The values that decide are computed while a training step of another thread donates their arrays."""
    net = nn.Sequential(nn.Linear(16, in_features=16), nn.Tanh(), nn.Linear(16, in_features=16))
    opt = optim.sgd(net, 1e-3)

    @bw.compile
    def step(x):
        loss, grads = bw.value_and_grad(lambda x: (net(x) ** 2).mean(), net)(x)
        opt.step(grads)
        return loss

    def predict(x):
        for layer in net:
            x = layer(x)
            x = x * 2 if x.sum() > 0 else x
        return x

    x = jnp.ones((4, 16))
    step(x)
    done, errors = threading.Event(), []

    def train():
        try:
            while not done.is_set():
                step(x)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    try:
        for n in range(1, 6):
            assert bw.compile(predict)(jnp.ones((n, 16))).shape == (n, 16)
    finally:
        done.set()
        thread.join()
    assert not errors
