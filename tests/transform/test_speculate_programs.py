"""Programs for paths through a function: effects, wrong arguments, many decisions, and what is kept of them."""

from __future__ import annotations

import gc
import itertools
import math
import re
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn
from brickwork.core import random_stream
from brickwork.core._jax import Shadow
from brickwork.errors import ControlFlowError
from brickwork.transform import _speculate
from brickwork.transform._speculate import ControlFlowWarning, Path

pytestmark = pytest.mark.filterwarnings("error")


def place(fn, line):
    """A pattern for the place ``line`` lines below the first one of a function."""
    fn = getattr(fn, "__wrapped__", fn)
    return re.escape(f"{fn.__code__.co_filename}:{fn.__code__.co_firstlineno + line}")


# -- effects, and programs that meet what they were not made for ----------------------------------------------------


def test_callbacks_run_once(capsys):
    """A run that is dropped could not take them back, so such a function is not compiled; but others of its paths."""
    seen = []

    @bw.compile
    def f(x):
        if x > 0:
            return x
        jax.debug.print("x = {}", x)
        jax.experimental.io_callback(lambda v: seen.append(float(v)), None, x)
        return -x

    assert float(f(np.float32(1))) == 1
    with pytest.warns(ControlFlowWarning, match=rf"{place(f, 2)}: a callback to Python.*can't be taken back"):
        assert float(f(np.float32(-1))) == 1
    for v in (-2, 3, -4):
        assert float(f(np.float32(v))) == abs(v)
    jax.effects_barrier()
    assert seen == [-1, -2, -4]
    assert capsys.readouterr().out.split() == ["x", "=", "-1.0", "x", "=", "-2.0", "x", "=", "-4.0"]


def test_what_a_callback_returns_is_not_asked_twice():
    calls = []

    @bw.compile
    def f(x):
        y = jax.experimental.io_callback(lambda v: calls.append(1) or v, x, x)
        return x if y > 0 else -x

    with pytest.raises(ControlFlowError, match=r"x if y > 0.*nor on what a callback returned"):
        f(jnp.asarray(1.0))
    assert not calls

    @bw.compile
    def g(x):
        y = jax.pure_callback(lambda v: v, x, x)
        return x if y > 0 else -x

    with pytest.warns(ControlFlowWarning):
        assert float(g(jnp.asarray(-1.0))) == 1


def test_a_mutable_array_is_written_once():
    ref = jax.new_ref(jnp.zeros(()))

    @bw.compile
    def f(x):
        ref[...] = ref[...] + 1
        return x if x > 0 else -x

    with pytest.warns(ControlFlowWarning, match=r"written to a jax\.Ref"):
        f(jnp.asarray(1.0))
    f(jnp.asarray(-1.0))
    f(jnp.asarray(1.0))
    assert float(ref[...]) == 3


def test_a_loop_on_the_wrong_path_ends():
    """The program for one path meets arguments for which its loop would not end."""
    turns = bw.Buffer(jnp.zeros((), jnp.int32))

    @bw.compile
    def f(x):
        if x >= 0:
            turns.value = bw.fori_loop(0, jnp.where(x < 0, 2**31 - 1, 3), lambda i, n: n + 1, turns.value)
            x = bw.while_loop(lambda c: c != 0, lambda c: c - 1, x)
            return jax.lax.while_loop(lambda c: c < 1, lambda c: c + jnp.abs(x) + 1, x) + 4
        return x

    assert float(f(jnp.asarray(3.0))) == 5
    for v, y in ((-0.5, -0.5), (-2.0, -2.0), (2.0, 5.0), (-0.5, -0.5), (1.0, 5.0)):
        assert float(f(jnp.asarray(v))) == y
    assert int(turns) == 9
    assert f.stats().compilations == 2


@pytest.mark.parametrize(
    ("ask", "inputs"),
    [
        (int, (2.0, 2.5, -2.5, 3.0)),
        (float, (2.0, -2.0, math.nan, 0.0, -0.0)),
        (lambda x: x.item(), (2.0, 3.0, 2.0)),
        (lambda x: complex(x).real, (2.0, 3.0)),
        (lambda x: 3 if x else 4, (2.0, 0.0, 1e-40, 5.0)),
        (lambda x: [5, 6, 7][x.astype(int)], (0.0, 1.0, 2.0, 1.0)),
    ],
)
def test_a_loop_after_any_question(ask, inputs):
    def f(x):
        n = ask(x)
        return jax.lax.while_loop(lambda c: c < 10, lambda c: c + 1, x) + (0 if n != n else n)

    compiled = bw.compile(f)
    for v in inputs * 2:
        x = jnp.asarray(v, jnp.float32)
        np.testing.assert_array_equal(compiled(x), f(x))


def test_a_search_for_nan():
    """What jax_debug_nans finds on the wrong path is none of the user's."""

    @bw.compile
    def f(x):
        return x if x < 0 else jnp.sqrt(x) if x < 100 else x / 0 * 0

    with jax.debug_nans(True):
        for v, y in ((4, 2), (-4, -4), (9, 3), (-9, -9)):
            assert float(f(np.float32(v))) == y
        with pytest.raises(FloatingPointError):
            f(np.float32(400))


# -- long paths -----------------------------------------------------------------------------------


class Walk(nn.Module):
    def __init__(self):
        self.rate = bw.Parameter(jnp.asarray(0.5))
        self.steps = bw.Buffer(jnp.zeros((), jnp.int32))

    def forward(self, x):
        key = bw.random.key()  # of a dtype of its own, in use from the first part to the last
        while jnp.abs(x).sum() > 1:
            x = x - 0.2 * jnp.tanh(self.rate) * x
            self.steps += 1
        return x.sum() + jax.random.uniform(key)


def test_a_path_of_many_decisions():
    """From some number on XLA gets the path in parts; results, gradients, state and random numbers are the same."""
    net, twin = Walk(), Walk()

    @bw.compile
    def step(x):
        return bw.value_and_grad(net, net)(x)

    for v in (2.0, 1.5, 2.0):
        x = jnp.full(4, v)
        bw.seed(1)
        want = bw.value_and_grad(twin, twin)(x)
        state = np.asarray(random_stream().value)
        bw.seed(1)
        jax.tree_util.tree_map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), step(x), want)
        np.testing.assert_array_equal(random_stream().value, state)
    assert int(net.steps) == int(twin.steps)
    assert len(step.explain(jnp.full(4, 2.0)).predicates) > _speculate._MANY


def test_the_work_of_tracing_is_proportional(monkeypatch):
    """What decides is computed once for each turn, however many there are."""
    runs = []
    one = Shadow._run
    monkeypatch.setattr(Shadow, "_run", lambda self, equation: runs.append(1) or one(self, equation))

    def work(n):
        runs.clear()

        def f(x):
            while x.sum() > 1:
                x = x - 1
            return x

        bw.compile(f).explain(jnp.full(1, n + 1.0))
        return len(runs)

    few, many = work(5), work(20)
    assert (many - few) / 15 == (few - work(4)) / 1


def test_hits_fetch_one_array_for_each_dtype():
    path = Path([_speculate.Decision.on(bool, np.asarray(True), "f", i) for i in range(40)])
    assert [len(x) for x in (path.decisions, path._groups, path._expected)] == [40, 1, 1]
    path.verify([jnp.ones(40, bool)])
    with pytest.raises(_speculate.Mispredicted) as caught:
        path.verify([jnp.ones(40, bool).at[7].set(False)])
    assert [d.answer for d in caught.value.decisions] == [True] * 7 + [False]


# -- functions that don't ask the same each time ----------------------------------------------------------------------


def test_questions_that_change_from_trace_to_trace():
    """What is known of earlier questions is not taken for answers to others."""
    traces = itertools.count()

    @bw.compile
    def f(x, y):
        if next(traces) == 0 and y > 0:
            pass
        x = x if x > 0 else -x
        assert y > -100
        return x

    for a, b in ((1, 1), (-1, 1), (1, -1), (-1, -1)):
        assert float(f(np.float32(a), np.float32(b))) == 1


def test_programs_that_deny_each_other(monkeypatch):
    """Rounding may differ between programs, so that each says that the other path is the right one. Then none is."""
    count = bw.Buffer(jnp.zeros(()))

    @bw.compile
    def f(x):
        count.value += 1
        return x if x > 0 else -x

    def deny(path, seen):
        value = np.asarray(-1.0 if path.decisions[0].answer else 1.0)
        raise _speculate.Mispredicted(
            path, [_speculate.Decision.on(bool, value > 0, path.decisions[0].file, path.decisions[0].line)]
        )

    f(np.float32(1))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "verify", deny)
        for v in (2.0, -2.0):
            assert float(f(np.float32(v))) == 2
    assert float(f(np.float32(-3))) == 3
    assert float(count) == 4
    assert f.stats().compilations == 2


def test_an_exception_that_the_function_catches():
    """Inside of what is differentiated, where the question was asked."""

    @bw.compile
    def f(x):
        def loss(x):
            if x > 0:
                raise ValueError
            return x * x

        try:
            return bw.grad(loss)(x)
        except ValueError:
            return x * 100

    for v, y in ((3, 300), (-3, -6), (2, 200)):
        assert float(f(np.float32(v))) == y
    assert f.stats().compilations == 2


# -- what is kept ---------------------------------------------------------------------------------


def test_nothing_is_kept_alive():
    """Not the arguments of a call that went another way, nor networks, nor programs of a function that is gone."""

    class Net(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(2, in_features=2)

        def forward(self, x):
            return self.layer(x) if x.sum() > 0 else x

    client = jax.devices()[0].client

    def round_trip():
        run = bw.compile(lambda net, x: net(x))
        net = Net()
        own = bw.compile(net)
        refs = [weakref.ref(net), weakref.ref(own)]
        for v in (1.0, -1.0, 1.0, -1.0):
            x = jnp.full((1, 2), v)
            refs.append(weakref.ref(x))
            run(net, x), own(x)
        return refs, run

    round_trip()
    gc.collect()
    gc.disable()
    try:
        before = len(client.live_executables())
        refs, run = round_trip()
        assert all(r() is None for r in refs)
        del run
        assert len(client.live_executables()) == before
    finally:
        gc.enable()


@pytest.mark.leaks
def test_no_tracer_is_left():
    @bw.compile
    def f(x):
        def loss(x):
            while x.sum() > 1:
                x = x / 2
            return x.sum()

        return bw.value_and_grad(loss)(x)

    assert float(f(jnp.ones(2))[0]) == 1
    assert float(f(jnp.ones(2) * 8)[0]) == 1
