"""Ties through everything: {compile, grad, vmap, ...} x {tied leaf, tied module, tied transpose, tied stack}.

Each kind of network comes with the same computation by hand: plain JAX on a dict with one array for each distinct
variable, used wherever the network uses the variable. A row does something to a network; every cell asserts that the
ties hold, that each variable counts once, and that the numbers are those of the computation by hand.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.exactness.harness import assert_same

import brickwork as bw
from brickwork import nn, optim

X = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)
XS = jnp.stack([X, 0.5 - X, X * X])


# -- the networks, and the same by hand --------------------------------------------------------------


class Leaf(bw.Module):
    """One parameter in two layers."""

    twice = ("a.weight", "b.weight")
    names = ("a.weight", "a.bias", "b.bias")

    def __init__(self) -> None:
        self.a = nn.Linear(3, in_features=3)
        self.b = nn.Linear(3, in_features=3)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(jnp.tanh(self.a(x)))

    @staticmethod
    def by_hand(p, x):
        return jnp.tanh(x @ p["a.weight"].T + p["a.bias"]) @ p["a.weight"].T + p["b.bias"]


class Shared(bw.Module):
    """One layer in two places."""

    twice = ("layers.0.weight", "layers.2.weight")
    names = ("layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias")

    def __init__(self) -> None:
        again = nn.Linear(3, in_features=3)
        self.layers = [again, nn.Linear(3, in_features=3), again]

    def forward(self, x):
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return x

    @staticmethod
    def by_hand(p, x):
        for i in (0, 1, 0):
            x = jnp.tanh(x @ p[f"layers.{i}.weight"].T + p[f"layers.{i}.bias"])
        return x


class Readout(bw.Module):
    """A layer whose weight is another's, transposed."""

    def __init__(self, weight) -> None:
        self.weight = weight
        self.bias = bw.Parameter(jnp.zeros(3))

    def forward(self, h):
        return h @ self.weight.value + self.bias


class Transposed(bw.Module):
    """An encoder and a decoder with one weight."""

    twice = ("encoder.weight", "decoder.weight")
    names = ("encoder.weight", "encoder.bias", "decoder.bias")

    def __init__(self) -> None:
        self.encoder = nn.Linear(5, in_features=3)
        self.decoder = Readout(self.encoder.weight)

    def forward(self, x):
        return self.decoder(jnp.tanh(self.encoder(x)))

    @staticmethod
    def by_hand(p, x):
        return jnp.tanh(x @ p["encoder.weight"].T + p["encoder.bias"]) @ p["encoder.weight"] + p["decoder.bias"]


class Expert(bw.Module):
    """A layer of its own between two uses of a weight that all experts share."""

    def __init__(self, shared) -> None:
        self.shared = shared
        self.own = nn.Linear(3, in_features=3)

    def forward(self, x):
        return jnp.tanh(self.own(x @ self.shared.value)) @ self.shared.T


class Stacked(bw.Module):
    """A weight outside of a stack, and in each of the modules in it."""

    twice = ("shared", "experts.shared")
    names = ("shared", "experts.own.weight", "experts.own.bias")

    def __init__(self) -> None:
        self.shared = bw.Parameter(shape=(3, 3))
        self.experts = bw.stack([Expert(self.shared) for _ in range(2)])

    def forward(self, x):
        return bw.vmap(lambda expert, x: expert(x), in_axes=(0, None))(self.experts, x).sum(0) @ self.shared.value

    @staticmethod
    def by_hand(p, x):
        w, own, bias = p["shared"], p["experts.own.weight"], p["experts.own.bias"]
        return sum(jnp.tanh(x @ w @ own[i].T + bias[i]) @ w.T for i in range(2)) @ w


KINDS = [Leaf, Shared, Transposed, Stacked]


# -- what every cell asserts -------------------------------------------------------------------------


def state(net) -> dict[str, jax.Array]:
    """The values by name, on this device whatever the network's."""
    return {k: jnp.asarray(np.asarray(v)) for k, v in net.state_dict().items()}


def loss(net, x):
    return (net(x) ** 2).mean()


def by_hand(kind) -> Callable[..., jax.Array]:
    return lambda p, x: (kind.by_hand(p, x) ** 2).mean()


def holds(net, kind, rtol: float = 1e-5) -> None:
    """The tie holds, each variable counts once, and the loss is that of hand-tied JAX."""
    first, second = (net.get_parameter(path) for path in kind.twice)
    assert first is second
    assert [path for path, _ in net.named_parameters()] == list(kind.names)
    assert list(net.state_dict()) == list(kind.names)
    assert len({id(p) for p in net.parameters()}) == len(net.parameters()) == len(kind.names)
    x = bw.to(X.astype(first.dtype), net.device)
    expected = by_hand(kind)(state(net), X.astype(first.dtype))
    np.testing.assert_allclose(np.asarray(loss(net, x), np.float32), np.asarray(expected, np.float32), rtol=rtol)


def written_through_both(net, kind) -> None:
    """What is written under one name is read under the other."""
    first, second = (net.get_parameter(path) for path in kind.twice)
    second.value = second.value * 0.5
    np.testing.assert_array_equal(first.value, second.value)
    holds(net, kind)


def sgd_by_hand(kind, p, xs):
    for x in xs:
        p = jax.tree.map(lambda v, g: v - 0.1 * g, p, jax.grad(by_hand(kind))(p, x))
    return p


def sgd(net, x) -> None:
    grads = bw.grad(lambda x: loss(net, x), net)(x)
    assert set(grads) == {path for path, _ in net.named_parameters()}
    for path, g in grads.items():
        p = net.get_parameter(path)
        p.value = p.value - 0.1 * g


# -- the rows ----------------------------------------------------------------------------------------


def compiled(net, kind, tmp_path) -> None:
    f = bw.compile(lambda x: loss(net, x))
    for x in XS:
        assert_same(f(x), by_hand(kind)(state(net), x), 1e-5)
    assert f.stats().compilations == 1
    written_through_both(net, kind)
    assert_same(f(X), by_hand(kind)(state(net), X), 1e-5)  # the new value is seen, by the program there is
    assert f.stats().compilations == 1
    as_argument = bw.compile(loss)
    assert_same(as_argument(net, X), by_hand(kind)(state(net), X), 1e-5)
    assert_same(as_argument(kind(), X).shape, ())
    assert as_argument.stats().compilations == 1  # another network with the same ties shares the program


def differentiated(net, kind, tmp_path) -> None:
    value, grads = bw.value_and_grad(lambda x: loss(net, x), net)(X)
    expected = jax.value_and_grad(by_hand(kind))(state(net), X)
    assert list(grads) == list(kind.names)
    assert_same((value, grads), expected, 1e-5)
    bw.backward(loss)(net, X)
    for path, p in net.named_parameters():
        assert_same(p.grad, expected[1][path], 1e-5)
    assert net.get_parameter(kind.twice[1]).grad is net.get_parameter(kind.twice[0]).grad
    hidden = bw.jvp(lambda net: loss(net, X), (net,), (dict(net.state_dict()),))[1]
    p = state(net)
    assert_same(hidden, jax.jvp(lambda p: by_hand(kind)(p, X), (p,), (p,))[1], 1e-5)


def mapped(net, kind, tmp_path) -> None:
    pure = by_hand(kind)
    assert_same(bw.vmap(lambda x: loss(net, x))(XS), jax.vmap(lambda x: pure(state(net), x))(XS), 1e-5)
    each = bw.vmap(bw.grad(lambda x: loss(net, x), net))(XS)
    assert_same(each, jax.vmap(lambda x: jax.grad(pure)(state(net), x))(XS), 1e-5)
    both = bw.stack([net, kind()])  # networks with ties inside, stacked
    assert both.get_parameter(kind.twice[0]) is both.get_parameter(kind.twice[1])
    assert len(both.parameters()) == len(kind.names)
    values = [state(n) for n in bw.unstack(both)]
    got = bw.vmap(loss, in_axes=(0, None))(both, X)
    assert_same(got, jnp.stack([pure(p, X) for p in values]), 1e-5)


def scanned(net, kind, tmp_path) -> None:
    """Read and written in every step of a loop."""
    p = state(net)
    for way in (lambda f: f, bw.compile):
        way(lambda xs: bw.scan(lambda _, x: (None, sgd(net, x)), None, xs))(XS)
        p = sgd_by_hand(kind, p, XS)
        assert_same(state(net), p, 1e-5)


def repeated(net, kind, tmp_path) -> None:
    """Ties within each block, and between all of them."""
    blocks = nn.Repeat(kind, 2)
    assert blocks.block.get_parameter(kind.twice[0]) is blocks.block.get_parameter(kind.twice[1])
    names = [f"{i}.{name}" for i in range(2) for name in kind.names]
    assert list(blocks.state_dict()) == names

    def pure(p, x):
        for i in range(2):
            x = kind.by_hand({name: p[f"{i}.{name}"] for name in kind.names}, x)
        return (x**2).mean()

    grads = bw.compile(lambda x: bw.grad(lambda x: loss(blocks, x), blocks)(x))(X)
    expected = jax.grad(pure)(state(blocks), X)
    for name in kind.names:
        stacked = jnp.stack([expected[f"{i}.{name}"] for i in range(2)])
        assert_same(grads[f"block.{name}"], stacked, 1e-5)
    assert_same(loss(blocks, X), pure(state(blocks), X), 1e-5)
    for sgd_step in (sgd, bw.compile(sgd)):
        sgd_step(blocks, X)
    assert_same(loss(blocks, X), pure(state(blocks), X), 1e-5)
    for i in range(2):
        holds(blocks[i], kind)


def rematerialised(net, kind, tmp_path) -> None:
    again = bw.remat(net)
    for way in (lambda f: f, bw.compile):
        got = way(bw.value_and_grad(lambda x: loss(again, x), again))(X)
        assert_same(got, jax.value_and_grad(by_hand(kind))(state(net), X), 1e-5)
    holds(again, kind)
    written_through_both(again, kind)


def independent(net, other, kind) -> None:
    assert not {id(v) for v in net.variables()} & {id(v) for v in other.variables()}
    assert_same(state(other), state(net))
    before = state(net)
    written_through_both(other, kind)
    assert_same(state(net), before)
    holds(net, kind)


def cloned(net, kind, tmp_path) -> None:
    independent(net, net.clone(), kind)


def deep_copied(net, kind, tmp_path) -> None:
    both = copy.deepcopy({"net": net, "again": net, "weight": net.get_parameter(kind.twice[0])})
    assert both["net"] is both["again"]
    assert both["weight"] is both["net"].get_parameter(kind.twice[1])
    independent(net, both["net"], kind)


def pickled(net, kind, tmp_path) -> None:
    net2, weight = pickle.loads(pickle.dumps((net, net.get_parameter(kind.twice[1]))))
    assert weight is net2.get_parameter(kind.twice[0])
    independent(net, net2, kind)


def converted(net, kind, tmp_path) -> None:
    before = state(net)
    assert net.to(jnp.float16) is net
    assert {v.dtype for v in net.parameters()} == {jnp.dtype(jnp.float16)}
    assert_same(state(net), {k: v.astype(jnp.float16) for k, v in before.items()})
    holds(net, kind, rtol=1e-2)
    written_through_both(net.to(jnp.float32), kind)


def moved(net, kind, tmp_path) -> None:
    other = jax.devices("cpu")[3]
    net.to(other)
    assert {v.device for v in net.parameters()} == {other}
    assert {next(iter(v.value.devices())) for v in net.parameters()} == {other}
    holds(net, kind)
    step = bw.compile(lambda x: sgd(net, x))
    p = sgd_by_hand(kind, state(net), XS)
    for x in XS:
        step(bw.to(x, other))
    assert_same(state(net), p, 1e-5)
    assert {next(iter(v.value.devices())) for v in net.parameters()} == {other}


def saved_and_loaded(net, kind, tmp_path) -> None:
    file = tmp_path / "net.safetensors"
    net.save(file)
    assert set(bw.load(file)) >= set(kind.names)
    assert file.stat().st_size < 4096 + sum(v.nbytes for v in net.state_dict().values())
    other = kind()
    assert not np.array_equal(state(other)[kind.names[0]], state(net)[kind.names[0]])
    report = other.load(file)
    assert (report.missing, report.unexpected) == ([], [])
    independent(net, other, kind)


def partly_loaded(net, kind, tmp_path) -> None:
    """Under its second name, and nothing else."""
    before, path = state(net), kind.twice[1]
    new = before[kind.names[0]] * 0.25
    report = net.load_state_dict({path: new}, strict=False)
    assert (report.missing, report.unexpected) == (list(kind.names[1:]), [])
    assert_same(state(net), before | {kind.names[0]: new})
    holds(net, kind)
    both = before | {path: before[kind.names[0]]}
    assert net.load_state_dict(both).unexpected == []  # under both names, with one value
    assert_same(state(net), before)
    with pytest.raises(ValueError, match=r"tied to .* in the network, but the values differ"):
        net.load_state_dict(before | {path: new})
    assert_same(state(net), before)


def optimised(net, kind, tmp_path) -> None:
    opt, p = optim.adam(net, 1e-2), state(net)
    raw = optax.adam(1e-2)
    slots = raw.init(p)

    @bw.compile
    def step(x):
        opt.step(bw.grad(lambda x: loss(net, x), net)(x))

    for x in XS:
        step(x)
        with jax.numpy_dtype_promotion("standard"):  # as optax expects
            updates, slots = raw.update(jax.grad(by_hand(kind))(p, x), slots)
        p = optax.apply_updates(p, updates)
    assert_same(state(net), p, 1e-5)
    moments = [v for v in opt.variables() if v.ndim]
    assert len(moments) == 2 * len(kind.names)  # one slot of each kind for each distinct parameter
    assert step.stats().compilations == 1
    holds(net, kind)


def donated(net, kind, tmp_path) -> None:
    """A tied array is overwritten once; who holds it keeps what it was."""
    step, p = bw.compile(lambda x: sgd(net, x)), state(net)
    kept = net.get_parameter(kind.twice[0]).value
    for x in (*XS, *XS):
        step(x)
    assert step.stats().donated == sum(v.nbytes for v in p.values())
    assert step.stats().compilations == 1
    np.testing.assert_array_equal(kept, p[kind.names[0]])
    assert_same(state(net), sgd_by_hand(kind, p, (*XS, *XS)), 1e-5)
    holds(net, kind)


def functional(net, kind, tmp_path) -> None:
    pure, values = bw.functional(net)
    assert list(values) == list(kind.names)
    fn = lambda p, x: (pure(p, x)[0] ** 2).mean()
    for way in (lambda f: f, jax.jit, jax.checkpoint):
        got = way(jax.value_and_grad(fn))(values, X)
        assert_same(got, jax.value_and_grad(by_hand(kind))(state(net), X), 1e-5)
    new = jax.tree.map(lambda v: v * 0.5, values)
    out, after = jax.jit(pure)(new, X)
    assert_same(out, kind.by_hand(new, X), 1e-5)
    assert_same(after, new)
    holds(net, kind)


def as_a_pytree(net, kind, tmp_path) -> None:
    leaves, tree = jax.tree.flatten(net)
    assert len(leaves) == len(kind.names)
    holds(jax.tree.unflatten(tree, leaves), kind)
    seen = []

    @jax.jit
    def f(net, x):
        seen.append(net.get_parameter(kind.twice[0]) is net.get_parameter(kind.twice[1]))
        return loss(net, x)

    assert_same(f(net, X), by_hand(kind)(state(net), X), 1e-5)
    assert seen == [True]
    grads = jax.grad(loss)(net, X)  # a network of gradients, tied as well
    assert_same(dict(grads.state_dict()), jax.grad(by_hand(kind))(state(net), X), 1e-5)
    independent(net, jax.jit(lambda net: jax.tree.map(lambda v: v * 1, net))(net), kind)


ROWS = {
    "compile": compiled,
    "grad": differentiated,
    "vmap": mapped,
    "scan": scanned,
    "Repeat": repeated,
    "remat": rematerialised,
    "clone": cloned,
    "deepcopy": deep_copied,
    "pickle": pickled,
    "to(dtype)": converted,
    "to(device)": moved,
    "save and load": saved_and_loaded,
    "partial load": partly_loaded,
    "optimiser": optimised,
    "donation": donated,
    "functional": functional,
    "jax.jit as a pytree": as_a_pytree,
}


@pytest.mark.parametrize("kind", KINDS, ids=["leaf", "module", "transpose", "stack"])
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_ties(row: Any, kind: Any, tmp_path: Any) -> None:
    net = kind()
    holds(net, kind)
    row(net, kind, tmp_path)
    first, second = (net.get_parameter(path) for path in kind.twice)
    assert first is second
