"""Control flow on values in compiled functions: where it ends, and what is said then."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn
from brickwork.errors import ControlFlowError, RecompileError
from brickwork.transform import _speculate
from brickwork.transform._speculate import MOST_PATHS, ControlFlowWarning

pytestmark = pytest.mark.filterwarnings("error")


def place(fn, line):
    """A pattern for the place ``line`` lines below the first one of a function."""
    fn = getattr(fn, "__wrapped__", fn)
    return re.escape(f"{fn.__code__.co_filename}:{fn.__code__.co_firstlineno + line}")


# -- too many paths -------------------------------------------------------------------------------


def test_paths_are_bounded():
    count = bw.Buffer(jnp.zeros((), jnp.int32))

    @bw.compile
    def f(x):
        count.value += 1
        return x * int(x)

    for i in range(MOST_PATHS):
        assert int(f(np.int32(i))) == i * i
    with pytest.warns(ControlFlowWarning) as caught:
        assert int(f(np.int32(99))) == 99 * 99
    (warning,) = caught
    assert warning.filename == __file__
    assert re.match(
        rf"f runs without being compiled, because of the control flow at {place(f, 3)}: more than 16 paths were taken. "
        r"Use bw.cond, bw.while_loop or jnp.where there",
        str(warning.message),
    )
    for i in (100, 3, 99, -5):  # said once, and right from then on
        assert int(f(np.int32(i))) == i * i
    assert int(count) == MOST_PATHS + 5
    stats = f.stats()
    assert (stats.calls, stats.compilations, stats.programs) == (MOST_PATHS + 5, MOST_PATHS, 1)
    e = f.explain(np.int32(1))
    assert e.eager and not e.compiles
    assert int(f(np.int64(7).astype(np.uint32))) == 49  # other arguments start anew
    assert f.stats().compilations == MOST_PATHS + 1


def test_without_a_program_arguments_and_results_are_the_same_kind():
    """Arrays are JAX's, nobody's data is changed, and variables come out as arrays."""
    w = bw.Buffer(jnp.ones(2))

    @bw.compile
    def f(x, n):
        x += 1  # would change an array of NumPy's
        return x.at[0].set(int(n)), {"w": w}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ControlFlowWarning)
        for i in range(MOST_PATHS + 3):
            x = np.zeros(2)
            y, rest = f(x, np.int32(i))
            assert y.tolist() == [i, 1] and y.dtype == jnp.float32
            assert isinstance(rest["w"], jax.Array)
            assert x.tolist() == [0, 0]


def test_paths_do_not_count_as_compilations_that_surprise():
    """The warning of functions that keep being compiled is about arguments, not about paths."""

    @bw.compile
    def f(x):
        return x * int(x[0])

    for i in range(12):
        f(np.full(2, i))
    f(np.ones(3))
    assert f.stats().compilations == 13


def test_paths_that_are_too_long(monkeypatch):
    """Such a trace is given up, once, and an `except` of the function's own does not stop that."""
    monkeypatch.setattr(_speculate, "MOST_DECISIONS", 20)
    calls = itertools.count()

    @bw.compile
    def f(x):
        next(calls)
        while x > 1:
            try:
                x = x / 2 if x > 0 else x
            except Exception:
                raise AssertionError from None
        return x

    assert float(f(np.float32(2.0**5))) == 1
    with pytest.warns(ControlFlowWarning, match=rf"{place(f, 3)}: more than \d+ decisions were taken in one call"):
        assert float(f(np.float32(2.0**30))) == 1
    before = next(calls)
    for n in (30, 5, 40):
        assert float(f(np.float32(2.0**n))) == 1
    assert next(calls) == before + 4
    assert f.explain(np.float32(1)).eager

    @bw.compile
    def g(x):
        while x > 1:
            try:
                x = x / 2 if x > 0 else x
            except:  # noqa: E722
                break
        return x

    with pytest.warns(ControlFlowWarning):
        assert float(g(np.float32(2.0**30))) == 1


# -- control_flow="error" and the places where values can't be asked ---------------------------------------------


def test_the_option():
    @bw.compile(control_flow="error")
    def f(x):
        if x > 0:
            return x
        return -x

    with pytest.raises(ControlFlowError, match=rf"{place(f, 2)}: `if x > 0:` needs the value of an array") as caught:
        f(np.float32(1))
    for hint in ("bw.cond", "bw.while_loop", "jnp.where", 'control_flow="speculate"'):
        assert hint in str(caught.value)
    with pytest.raises(ControlFlowError, match=r"\[1, 2\]\[i\]"):
        bw.compile(lambda i: [1, 2][i], control_flow="error")(np.int32(1))
    with pytest.raises(ValueError, match='control_flow must be "speculate" or "error", got \'guess\''):
        bw.compile(lambda x: x, control_flow="guess")
    net = bw.compile(nn.Sequential(lambda x: x if x.sum() > 0 else -x), control_flow="error")
    with pytest.raises(ControlFlowError, match=r"x if x\.sum\(\) > 0"):
        net(jnp.ones(2))


def halve(c):
    return c / 2 if c > 0 else c


PLACES = {
    "vmap": lambda x: bw.vmap(halve)(x[None]),
    "scan": lambda x: bw.scan(lambda c, _: (halve(c), None), x, length=2),
    "fori_loop": lambda x: bw.fori_loop(0, 5, lambda _, c: halve(c), x),
    "while_loop": lambda x: bw.while_loop(lambda c: c > 3, halve, x),
    "condition": lambda x: bw.while_loop(lambda c: halve(c) > 3, lambda c: c, x),
    "vmap of grad": lambda x: bw.vmap(bw.grad(halve))(x[None]),
    "grad of vmap": lambda x: bw.grad(lambda x: bw.vmap(halve)(x).sum())(x[None]),
    "grad of scan": lambda x: bw.grad(lambda x: bw.scan(lambda c, _: (halve(c), None), x, length=2)[0])(x),
    "module": lambda x: bw.vmap(nn.Sequential(halve))(x[None]),
}
COMPILED_ONLY = {
    "cond": lambda x: bw.cond(x > 0, halve, lambda c: c, x),
    "switch": lambda x: bw.switch((x > 0).astype(int), [halve, halve], x),
    "remat": lambda x: bw.remat(halve)(x),
    "jit": lambda x: jax.jit(halve)(x),
    "checkpoint": lambda x: jax.checkpoint(halve)(x),
    "raw vmap": lambda x: jax.vmap(halve)(x[None]),
    "raw scan": lambda x: jax.lax.scan(lambda c, _: (halve(c), None), x, None, length=2),
}


@pytest.mark.parametrize("name", [*PLACES, *COMPILED_ONLY])
def test_values_that_stand_for_several_or_may_not_be_computed(name):
    """Refused with the line of the body, compiled or not, and again when asked again."""
    run = (PLACES | COMPILED_ONLY)[name]
    count = bw.Buffer(jnp.zeros(()))

    def counted(x):
        count.value += 1
        return run(x)

    for f in [bw.compile(counted), bw.compile(counted)] + [run] * (name in PLACES):
        for _ in range(2):
            with pytest.raises(ControlFlowError, match=rf"{place(halve, 1)}: `return c / 2 if c > 0 else c`"):
                f(jnp.asarray(1.0))
    assert float(count) == 0


def test_what_is_the_same_in_all_lanes_and_turns_may_be_asked():
    """As eagerly, where it is an ordinary value."""
    flag = bw.Buffer(jnp.asarray(1.0))

    def f(x, y):
        up = y > 0
        lanes = bw.vmap(lambda v: v * 2 if flag > 0 else v * y.item())(x)
        last, _ = bw.scan(lambda c, v: (c + v if up else c - v, None), jnp.zeros(()), x)
        return lanes, last, bw.remat(lambda v: v if up else -v)(x)

    compiled = bw.compile(f)
    x = jnp.arange(3.0)
    for value in (1.0, -1.0, 1.0):
        flag.value = jnp.asarray(value)
        for y in (np.float32(2), np.float32(-2)):
            jax.tree_util.tree_map(np.testing.assert_array_equal, compiled(x, y), f(x, jnp.asarray(y)))
    assert compiled.stats().compilations == 4


def test_shape_inference():
    class Net(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(2)

        def forward(self, x):
            x = self.layer(x)
            if x.sum() > 0:
                x = -x
            return x

    for ask in (lambda net: net.initialize(bw.spec(1, 3)), lambda net: net.summary(bw.spec(1, 3))):
        with pytest.raises(
            ControlFlowError,
            match=rf"{place(Net.forward, 2)}: `if x\.sum\(\) > 0:` .* during shape inference.*call the network on data",
        ):
            ask(Net())


def test_inside_a_raw_transform():
    f = bw.compile(halve)
    for raw in (jax.jit(f), lambda x: jax.vmap(f)(x[None])):
        with pytest.raises(
            ControlFlowError, match=rf"{place(halve, 1)}.*not inside a raw JAX transform such as jax\.jit"
        ):
            raw(jnp.asarray(1.0))
    assert float(jax.grad(f)(jnp.asarray(3.0))) == 0.5

    def outer(y):
        return bw.compile(lambda: y if y > 0 else -y)()

    with pytest.raises(ControlFlowError, match="y if y > 0"):
        jax.jit(outer)(jnp.asarray(1.0))


def test_no_recompile():
    count = bw.Buffer(jnp.zeros(()))

    @bw.compile
    def f(x):
        count.value += 1
        if x > 0:
            return x
        return -x

    f(np.float32(1))
    with bw.no_recompile():
        f(np.float32(2))
        for _ in range(2):
            with pytest.raises(
                RecompileError,
                match=rf"f would be compiled again .* another path through its control flow at {place(f, 3)}. Call it",
            ):
                f(np.float32(-1))
        f(np.float32(3))
    assert float(count) == 3
    assert float(f(np.float32(-1))) == 1


def test_explanations():
    @bw.compile
    def f(x):
        n = int(x[0])
        with contextlib.suppress(ValueError):
            n += int(x[1])
        return x if x[2] > 0 else x * n

    x = np.asarray([2.0, math.nan, -1.0], np.float32)
    first = f.__wrapped__.__code__.co_firstlineno
    e = f.explain(x)  # what is not known yet follows from the values
    assert [(line - first, repr(answer)) for _, line, answer in e.predicates] == [
        (2, "2"),
        (4, "ValueError('cannot convert float NaN to integer')"),
        (5, "False"),
    ]
    assert all(file == __file__ for file, _, _ in e.predicates)
    assert f"{__file__}:{first + 2} is 2" in str(e)
    f(x)
    assert f.stats().compilations == 1
