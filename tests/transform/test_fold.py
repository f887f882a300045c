"""Equal layers in a row, run as a loop by compiled functions: the same as one by one, or not done.

When a loop pays is decided by measurement; here it always does, so that small networks show what it is like.
"""

from __future__ import annotations

import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn, optim
from brickwork.core import random_stream
from brickwork.errors import TraceLeakError
from brickwork.transform import _fold
from brickwork.transform._recompile import RecompileWarning

N = 6
X = jnp.linspace(-1.0, 1.0, 24).reshape(6, 4)


@pytest.fixture(autouse=True)
def _always(monkeypatch):
    monkeypatch.setattr(_fold, "pays", lambda table: True)


def dense():
    return nn.Sequential(nn.Linear(4, in_features=4), nn.Tanh())


def deferred():
    return nn.Sequential(nn.Linear(4), nn.Tanh())


def stateful():
    return nn.Sequential(nn.Linear(4), nn.BatchNorm1d(), nn.Dropout(0.3), nn.Tanh())


class Counting(bw.Module):
    def __init__(self):
        self.lin = nn.Linear(4)
        self.n = bw.Buffer(jnp.zeros((), jnp.int32))

    def forward(self, x):
        self.n.value += 1
        return jnp.tanh(self.lin(x))


class Listing(bw.Module):
    def __init__(self):
        self.layers = [nn.Linear(4) for _ in range(2)]
        self.act = {"tanh": nn.Tanh()}

    def forward(self, x):
        for layer in self.layers:
            x = self.act["tanh"](layer(x))
        return x


def pair(make, n=N):
    """A network that is never folded, and an equal one that may be."""
    bw.seed(0)
    plain = nn.Sequential(*[make() for _ in range(n)], fold=False)
    bw.seed(0)
    return plain, nn.Sequential(*[make() for _ in range(n)])


def loops(net, x=X):
    """The lengths of the loops in the program of a network, nested ones included."""
    found = []

    def visit(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "scan":
                found.append(equation.params["length"])
            for value in equation.params.values():
                for inner in value if isinstance(value, (list, tuple)) else (value,):
                    inner = getattr(inner, "jaxpr", inner)
                    if hasattr(inner, "eqns"):
                        visit(inner)

    pure, state = bw.functional(net)
    visit(jax.make_jaxpr(pure)(state, x).jaxpr)
    return found


def run(fn, *args):
    """The result of a call, and the random stream after it, from the same seed."""
    bw.seed(1)
    return fn(*args), np.asarray(random_stream().value)


def assert_same_state(a, b, rtol=1e-5):
    for (name, v), (other, w) in zip(a.named_variables(), b.named_variables(), strict=True):
        assert name == other
        np.testing.assert_allclose(v, w, rtol, 1e-6, err_msg=name)


def square(net, x):
    return (net(x) ** 2).sum()


# -- as one by one ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (dense, [N]),
        (deferred, [N]),
        (stateful, [N]),
        (Counting, [N]),
        (Listing, [N]),
        (lambda: nn.Linear(4), [N]),
        (lambda: bw.remat(nn.Linear(4)), [N]),
        (lambda: nn.Sequential(*[nn.Linear(4) for _ in range(4)]), [N, 4]),
        (lambda: nn.Repeat(dense, 2), [2] * N),  # has its loops already
        (lambda: nn.Sequential(nn.Linear(4), lambda x: jnp.tanh(x)), [N]),  # functions made for each layer, but equal
    ],
)
def test_as_one_by_one(make, found):
    plain, net = pair(make)
    f = bw.compile(net)
    for _ in range(2):
        (expected, stream), (got, other) = run(plain, X), run(f, X)
        np.testing.assert_allclose(got, expected, 1e-5, 1e-6)
        np.testing.assert_array_equal(stream, other)
        assert_same_state(plain, net)
    assert f.stats().compilations == 1
    (loss, grads), stream = run(bw.value_and_grad(square), plain, X)
    (got, mine), other = run(bw.compile(bw.value_and_grad(square)), net, X)
    np.testing.assert_allclose(got, loss, 1e-5)
    np.testing.assert_array_equal(stream, other)
    assert mine.keys() == grads.keys()
    for name in grads:
        np.testing.assert_allclose(mine[name], grads[name], 1e-4, 1e-5, err_msg=name)
    assert_same_state(plain, net)
    assert loops(net) == found and not loops(nn.Sequential(*[dense() for _ in range(N)], fold=False))


def test_under_vmap_and_raw_jit():
    plain, net = pair(stateful, 4)
    xs = jnp.stack([X, X + 1])
    (expected, stream), (got, other) = run(bw.vmap(plain), xs), run(bw.compile(bw.vmap(net)), xs)
    np.testing.assert_allclose(got, expected, 1e-5, 1e-6)
    np.testing.assert_array_equal(stream, other)
    assert_same_state(plain, net)
    net.eval()
    pure, state = bw.functional(net)
    for f in (lambda: jax.jit(pure)(state, X)[0], lambda: jax.jit(lambda net, x: net(x))(net, X)):
        np.testing.assert_allclose(f(), net(X), 1e-5, 1e-6)
    stacked = bw.stack([net, net.clone()])
    out = bw.compile(bw.vmap(lambda net, x: net(x), in_axes=(0, None)))(stacked, X)
    np.testing.assert_allclose(out[1], net(X), 1e-4, 1e-6)


def test_training():
    plain, net = pair(dense, 4)
    step = bw.compile(lambda net, opt: opt.step(bw.grad(square)(net, X)))
    for each in (plain, net):
        opt = optim.adam(each, 1e-2)
        for _ in range(3):
            step(each, opt)
    assert_same_state(plain, net, 1e-4)


def test_eagerly_one_by_one():
    calls = []
    net = nn.Sequential(*[nn.Sequential(nn.Linear(4), lambda x: calls.append(1) or x) for _ in range(N)])
    net(X)
    bw.grad(square)(net, X)
    assert len(calls) >= 2 * N


def test_inner_rows():
    net = nn.Sequential(
        nn.Linear(4),
        *[dense() for _ in range(4)],
        nn.ReLU(),
        *[stateful() for _ in range(5)],
        *[dense() for _ in range(3)],
    )
    run(net, X)
    assert loops(net) == [4, 5]
    assert _fold.FEWEST == 4  # a row of three isn't looked at
    expected = run(net.clone(), X)
    got = run(bw.compile(net), X)
    np.testing.assert_allclose(got[0], expected[0], 1e-5, 1e-6)


# -- un-folding ------------------------------------------------------------------------------------


def surgery(net):
    old, net[5] = net[5], nn.Sequential(nn.Linear(4, in_features=4), nn.ReLU())
    return lambda: net.__setitem__(5, old)


def other_values(net):
    old, net[5] = net[5], dense()
    return lambda: net.__setitem__(5, old)


def deletion(net):
    old = net.pop(2)
    return lambda: net.insert(2, old)


def insertion(net):
    net.insert(4, jax.nn.relu)
    return lambda: net.pop(4)


def hook(net):
    return net[1][0].register_forward_hook(lambda module, args, output: output + 1).remove


def pre_hook(net):
    return net[6].register_forward_pre_hook(lambda module, args: (args[0] * 2,)).remove


def mode(net):
    net[5].eval()
    return net[5].train


def freezing(net):
    net[3].freeze()
    return net[3].unfreeze


def tie(net):
    old, net[2][0].weight = net[2][0].weight, net[7][0].weight
    return lambda: setattr(net[2][0], "weight", old)


def same_layer(net):
    old, net[2] = net[2], net[1]
    return lambda: net.__setitem__(2, old)


def attribute(net):
    net[4].note = 3
    return lambda: delattr(net[4], "note")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (surgery, [5]),
        (other_values, [8]),
        (deletion, [7]),
        (insertion, [4, 4]),
        (hook, [6]),
        (pre_hook, [6]),
        (mode, [5]),
        (freezing, [4]),
        (tie, []),
        (same_layer, []),
        (attribute, [4]),
    ],
)
def test_changes_unfold_their_row_and_going_back_folds_again(change, found):
    net = nn.Sequential(*[dense() for _ in range(8)])
    f = bw.compile(lambda x: net(x))
    expected = f(X)
    np.testing.assert_allclose(expected, net(X), 1e-5)
    assert loops(net) == [8]
    undo = change(net)
    np.testing.assert_allclose(f(X), net(X), 1e-5)
    assert loops(net) == found
    undo()
    np.testing.assert_array_equal(f(X), expected)
    assert loops(net) == [8] and f.stats().compilations == 2  # the program of before


def test_dtype_of_one():
    net = nn.Sequential(*[nn.BatchNorm1d(num_features=4).eval() for _ in range(8)])
    net[4].to(jnp.bfloat16)  # computes in float32 all the same
    np.testing.assert_allclose(bw.compile(net)(X), net(X), 1e-5)
    assert loops(net) == [4]
    net[4].to(jnp.float32)
    assert loops(net) == [8]


def test_switched_off_and_on():
    net = nn.Sequential(*[dense() for _ in range(5)], fold=False)
    f = bw.compile(net)
    expected = f(X)
    assert not loops(net)
    net.fold = True
    np.testing.assert_allclose(f(X), expected, 1e-5)
    assert loops(net) == [5] and f.stats().compilations == 2
    assert not loops(nn.Sequential(*net, fold=False)) and loops(net.clone()) == [5]


def test_one_tie_for_all():
    net = nn.Sequential(*[dense() for _ in range(5)])
    for layer in net:
        layer[0].weight = net[0][0].weight  # the same in the same place: not stacked
    np.testing.assert_allclose(bw.compile(net)(X), net(X), 1e-5)
    expected, got = bw.grad(square)(net, X), bw.compile(bw.grad(square))(net, X)
    assert len(got) == 6
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], 1e-4, 1e-5)
    assert loops(net) == [5]
    shared = nn.Sequential(*[net[0]] * 5)
    np.testing.assert_allclose(bw.compile(shared)(X), shared(X), 1e-5)


def test_capture():
    plain, net = pair(stateful, 5)
    for each in (plain, net):
        each.initialize(bw.spec(6, 4))
    f = bw.compile(net)
    found = []
    for call, each in ((plain, plain), (f, net)):
        with each.capture(r"3\.0|4") as acts:
            run(call, X)
        found.append(dict(acts))
    assert set(found[1]) == {"3.0", "4"}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), *found)
    assert loops(net) == [5]


# -- layers that are not for a loop ----------------------------------------------------------------


class Scaled(bw.Module):
    def __init__(self):
        self.w = bw.Parameter(jnp.full(4, 0.5))


class CountsCalls(Scaled):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.w + self.calls


class KeepsLog(Scaled):
    def __init__(self):
        super().__init__()
        self.log = [0]

    def forward(self, x):
        self.log.append(1)
        return x * self.w + len(self.log)


class GivesPair(Scaled):
    def forward(self, x):
        a, b = x if isinstance(x, tuple) else (x, x)
        return a * self.w, b + 1


class GivesGenerator(Scaled):
    def forward(self, xs):
        return (x * self.w for x in xs)


class Decides(Scaled):
    def forward(self, x):
        return x * self.w if x.sum() > 0 else x - self.w


class Locked(Scaled):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()

    def forward(self, x):
        with self.lock:
            return x * self.w


class AddsNumber(Scaled):
    def forward(self, x):
        return x[0] * self.w, x[1] + 1


class Grows(bw.Module):
    def __init__(self):
        self.seen = bw.Buffer(jnp.zeros(1))

    def forward(self, x):
        self.seen.value = jnp.concatenate([self.seen.value, x[:1, 0]])
        return x + self.seen.value.sum()


TOTAL = bw.Buffer(jnp.zeros(()))


class Outside(Scaled):
    def forward(self, x):
        TOTAL.value += x.sum()
        return x * self.w


class OwnForward(nn.Sequential):
    def forward(self, x):
        for i, layer in enumerate(self):
            x = layer(x) + i
        return x


@pytest.mark.parametrize(
    ("make", "x", "found"),
    [
        (CountsCalls, X, []),
        (KeepsLog, X, []),
        (GivesPair, X, []),
        (GivesPair, (X, X), [5]),
        (Decides, X, None),
        (Decides, -X - 1, None),
        (Locked, X, []),
        (AddsNumber, (X, 3), [5]),
        (Grows, X, [5]),
        (Outside, X, None),
    ],
)
def test_odd_layers(make, x, found):
    results = []
    for net in pair(make, 5):
        TOTAL.value = jnp.zeros(())
        f = bw.compile(net)
        results.append(([f(x), f(x)], net.state_dict(), TOTAL.value))
        if found is not None:
            assert loops(net, x) == (found if net.fold else [])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5), *results)


def test_generators():
    plain, net = (nn.Sequential(*row, lambda xs: sum(xs)) for row in pair(GivesGenerator, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # JAX has one for generators in nests
        np.testing.assert_allclose(bw.compile(net)([X, X]), plain([X, X]), 1e-6)


def test_a_subclass_with_a_forward_of_its_own():
    net = OwnForward(*[dense() for _ in range(5)])
    np.testing.assert_allclose(bw.compile(net)(X), net(X), 1e-5)
    assert not loops(net)


def test_failing_layers_say_where():
    class Failing(Scaled):
        def forward(self, x):
            raise ValueError("no")

    net = nn.Sequential(*[Failing() for _ in range(5)])
    with pytest.raises(ValueError, match="no") as caught:
        bw.compile(net)(X)
    assert [n for n in caught.value.__notes__ if "in net" in n] == ["  in net.0 (Failing()), called with float32[6, 4]"]


def test_leaks_are_found():
    class Keeps(Scaled):
        def forward(self, x):
            self.last = x
            return x

    with pytest.raises(TraceLeakError, match=r"would be kept in Keeps\.last"):
        bw.compile(nn.Sequential(*[Keeps() for _ in range(5)]))(X)


@pytest.mark.leaks
def test_no_tracer_stays():
    net = nn.Sequential(*[stateful() for _ in range(4)])
    run(bw.compile(bw.value_and_grad(square)), net, X)
    assert int(net[3][1].num_batches_tracked) == 1


def test_trying_a_layer_out_costs_no_program():
    net = nn.Sequential(*[stateful() for _ in range(5)])
    f = bw.compile(net)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RecompileWarning)
        for _ in range(12):
            run(f, X)
    assert f.stats().compilations == 1
