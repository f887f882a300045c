"""Threads on Python's control flow in compiled functions: branches that were baked in, and messages."""

from __future__ import annotations

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn
from brickwork.errors import ControlFlowError

from .checks import close, untraced

X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
ONES = np.ones(3, np.float32)


class Branching(nn.Module):
    """Depends on the mode, on an attribute of each kind, and on a global."""

    def __init__(self):
        self.linear = nn.Linear(3, in_features=3)
        self.scale, self.kind, self.flags, self.extra = 1.0, "relu", {"shift": False}, None

    def forward(self, x):
        y = self.linear(x)
        if self.training:
            y = y * 2
        if self.kind == "relu":
            y = jax.nn.relu(y)
        if self.flags["shift"]:
            y = y + OFFSET
        if self.extra is not None:
            y = self.extra(y)
        return y * self.scale


OFFSET = 1.0


@pytest.mark.parametrize(
    "flip",
    [
        lambda net: net.eval(),
        lambda net: setattr(net, "scale", 3.0),
        lambda net: setattr(net, "kind", "none"),
        lambda net: net.flags.update(shift=True),
        lambda net: setattr(net, "extra", jnp.tanh),
        lambda net: setattr(net, "extra", nn.Linear(2, in_features=3)),
        lambda net: net.linear.eval(),
        lambda net: setattr(net, "linear", nn.Linear(3, in_features=3)),
    ],
    ids=["eval", "number", "string", "dict", "function", "module", "inner", "layer"],
)
def test_mxnet_16932_a_branch_on_an_attribute_is_not_baked_in(flip):
    """Hybridising picked the branch of the first call, silently, for good. Here whatever ``forward`` reads may change
    between calls, and a compiled network follows; going back finds the earlier program.
    """
    net = Branching()
    f = bw.compile(net)
    close(f(X), net(X))
    flip(net)
    close(f(X), net(X))


def test_mxnet_16926_the_training_mode_is_not_baked_in():
    """``if autograd.is_training()`` kept the mode of the first call. Here the mode is part of what a program is for."""
    net = Branching()
    f = bw.compile(net)
    for mode in (True, False, True, False):
        net.train(mode)
        close(f(X), net(X))
    assert f.stats().compilations == 2


def test_mxnet_16932_a_global_is_not_baked_in(monkeypatch):
    """The same with what is not even an attribute: a global that ``forward`` reads."""
    net = Branching()
    net.flags["shift"] = True
    f = bw.compile(net)
    f(X)
    monkeypatch.setitem(globals(), "OFFSET", 5.0)
    close(f(X), net(X))


def where(fn, line):
    """``file:line`` of a line of a function, counted from its ``def``."""
    code = fn.__code__
    return re.escape(f"{code.co_filename}:{code.co_firstlineno + line}")


def f_if(x):
    if x.sum() > 0:
        return x
    return -x


def f_or(x):
    y = x.sum() or 1.0
    return x * y


def f_while(x):
    while jnp.abs(x).sum() > 1:
        x = x / 2
    return x


def f_assert(x):
    assert x.sum() < 100
    return x


def f_int(x):
    n = int(x.sum())
    return x * n


def f_min(x):
    a, b = x[0], x[1]
    return x * min(a, b)


def f_range(x):
    for _ in range(int(jnp.abs(x).sum())):
        x = x + 1
    return x


def f_item(x):
    return x * round(x.sum().item())


def f_index(x):
    return x * (1.0, 2.0, 5.0)[jnp.argmax(x)]


STATEMENTS = [f_if, f_or, f_while, f_assert, f_int, f_min, f_range, f_item, f_index]


@pytest.mark.parametrize("fn", STATEMENTS, ids=lambda fn: fn.__name__)
def test_jax_16430_the_message_says_where_and_what_to_do(fn):
    """``z = a or b`` and the like raise errors about booleans and tracers that do not show that a decision is being
    made. Here, where decisions are not wanted, the message has file, line and source, and names the replacement.
    """
    f = bw.compile(fn, control_flow="error")
    line = 2 if fn is f_min else 1
    with pytest.raises(ControlFlowError, match=where(fn, line)) as caught:
        f(ONES)
    source = {
        "f_or": "y = x.sum() or 1.0",
        "f_min": "min(a, b)",
        "f_int": "int(x.sum())",
        "f_item": "x.sum().item()",
        "f_index": "[jnp.argmax(x)]",
    }
    assert source.get(fn.__name__, fn.__name__[2:]) in str(caught.value)
    assert re.search(r"bw\.(cond|where|while_loop)", str(caught.value))


@pytest.mark.parametrize("fn", STATEMENTS, ids=lambda fn: fn.__name__)
@pytest.mark.filterwarnings("error")
def test_jax_24740_decisions_on_values_just_work(fn):
    """Programs that decide on values had to be rewritten with ``cond`` and ``while_loop``, or translated by other
    tools. Here they compile as they are and give what the eager ones give, for one input after the other.
    """
    f = bw.compile(fn)
    for factor in (1.0, -1.0, 2.5, 1.0, 0.0, -1.0):
        close(f(ONES * np.float32(factor)), fn(jnp.asarray(ONES * np.float32(factor))))


def test_jax_8947_an_assertion_on_a_value():
    """``assert result > 0`` in a jitted function ended in pages on where the value came from. Here it is an assertion:
    it passes, or it fails as in eager.
    """

    @bw.compile
    def f(x):
        result = x.sum()
        assert result > 0, "not positive"
        return result

    assert float(f(ONES)) == 3
    with pytest.raises(AssertionError, match="not positive"):
        f(-ONES)
    assert float(f(2 * ONES)) == 6


@pytest.mark.parametrize("loop", ["scan", "fori_loop", "while_loop", "cond", "vmap"])
def test_jax_23637_the_message_names_the_body_of_the_loop(loop):
    """A decision on a value inside ``fori_loop`` raised an error that pointed into JAX rather than to the body. Here
    it has the line of the body, whatever the transform.
    """

    def body(c):
        return jnp.sin(c) if bool(c > 0) else c

    run = {
        "scan": lambda x: bw.scan(lambda c, _: (body(c), None), x, length=2),
        "fori_loop": lambda x: bw.fori_loop(0, 5, lambda _, c: body(c), x),
        "while_loop": lambda x: bw.while_loop(lambda c: c > 3, body, x),
        "cond": lambda x: bw.cond(x > 0, body, body, x),
        "vmap": lambda x: bw.vmap(body)(x[None]),
    }[loop]
    for f in (run, bw.compile(run)):
        if loop == "cond" and f is run:
            continue  # known here, so that the branch is simply run
        with pytest.raises(ControlFlowError, match=where(body, 1) + r".*`return jnp\.sin"):
            f(jnp.asarray(1.0))


def test_pytorch_119186_falling_back_is_said():
    """A function with a decision in a loop was not compiled at all, and no log said so. Here a function that takes
    too many paths warns once, with the line that decides, runs eagerly from then on, and stays right.
    """

    @bw.compile
    def count_down(n):
        steps = 0
        while n > 0:
            n = n - 2
            steps += 1
        return n + 10 * steps

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for n in range(0, 40, 2):
            assert int(count_down(np.asarray(n))) == 5 * n
    messages = [str(w.message) for w in caught]
    assert len(messages) == 1
    assert re.search(where(count_down.__wrapped__, 3), messages[0])
    assert count_down.stats().compilations <= 17


def test_pytorch_98533_earlier_paths_are_kept():
    """A compiled graph was thrown away when another branch ran, and the function fell back without a word. Here the
    programs of all paths are kept: taking turns compiles nothing.
    """
    net = nn.Linear(3, in_features=3)

    @bw.compile
    def f(x):
        if x.sum() > 0:
            return net(x)
        return x

    for _ in range(3):
        close(f(ONES), net(ONES))
        close(f(-ONES), -ONES)
    assert f.stats().compilations == 2


def test_paddle_50365_and_stops_at_the_first_false():
    """``if x[0] and reset_first(y)`` called ``reset_first`` although ``x[0]`` was false: there was no short-circuit
    in the compiled function. Here there is, with its effects on state.
    """
    calls = bw.Buffer(jnp.zeros((), jnp.int32))

    def reset_first():
        calls.value = calls.value + 1
        return calls.value

    @bw.compile
    def f(x):
        if x[0] and reset_first() > 0:
            return x + 1
        return x

    assert f(np.array([False, True]).astype(np.int32)).tolist() == [0, 1]
    assert int(calls) == 0
    assert f(np.array([1, 1], np.int32)).tolist() == [2, 2]
    assert int(calls) == 1
    assert f(np.array([0, 1], np.int32)).tolist() == [0, 1]
    assert int(calls) == 1


def test_paddle_29165_early_returns_of_different_shapes():
    """A ``return`` within an ``if`` became a branch of the graph, whose results must have one shape. Here a path is a
    program of its own: the results of two paths may differ in shape and kind.
    """

    @bw.compile
    def f(x):
        if x.sum() < 0:
            return x[:1], "negative"
        return x

    assert f(ONES).shape == (3,)
    small, word = f(-ONES)
    assert small.shape == (1,)
    assert word == "negative"


def test_paddle_32153_a_name_that_only_some_paths_define():
    """A variable set in a branch, and used in the next turn of the loop, was undefined after translation. Here names
    are Python's.
    """

    @bw.compile
    def f(x, training):
        found = None
        for i in range(3):
            if i > 0:
                rois, number = x + i, i
                if training:
                    found = [rois]
        return (number, rois) if found is None else found[0]

    assert f(ONES, False)[0] == 2
    close(f(ONES, True), ONES + 2)


def test_pytorch_161562_a_class_defined_in_a_compiled_function():
    """A class defined inside made the whole function run eagerly. Here what is plain Python runs while tracing."""

    @bw.compile
    def f(x):
        class Box:
            def __init__(self, x):
                self.x = x

        return Box(x).x - (x + 10)

    assert f(ONES).tolist() == [-10] * 3
    assert f.stats().compilations == 1


def test_mxnet_8836_decisions_with_state_and_gradients():
    """Control flow and training together were out of reach of hybridised blocks. Here a network that decides on
    values trains in a compiled step, as in eager; nothing is written by a path that was not the right one.
    """

    class EarlyExit(nn.Module):
        def __init__(self):
            self.first, self.second = nn.Linear(3, in_features=3), nn.Linear(3, in_features=3)
            self.exits = bw.Buffer(jnp.zeros(2, jnp.int32))

        def forward(self, x):
            y = jnp.tanh(self.first(x))
            if jnp.abs(y).mean() > 0.5:
                self.exits[0] += 1
                return y.sum()
            self.exits[1] += 1
            return self.second(y).sum()

    runs = []
    for compiled in (False, True):
        bw.seed(0)
        net = EarlyExit()

        def step(x, net=net):
            loss, grads = bw.value_and_grad(net, net)(x)
            for name, p in net.named_parameters():
                p.value = p.value - 0.01 * grads[name]
            return loss

        f = bw.compile(step) if compiled else step
        losses = [float(f(np.float32(scale) * X)) for scale in (0.1, 5.0, 0.1, 0.1, 5.0)]
        runs.append((losses, net.exits.value.tolist(), {n: np.asarray(p) for n, p in net.named_parameters()}))
        untraced(net)
    assert runs[0][1] == runs[1][1] == [2, 3]
    np.testing.assert_allclose(runs[0][0], runs[1][0], rtol=1e-4)
    close(runs[0][2], runs[1][2], rtol=1e-4)
