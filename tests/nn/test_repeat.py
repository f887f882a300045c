"""``nn.Repeat``: the same as a ``Sequential`` of the blocks, in every respect but the layout of its variables."""

from __future__ import annotations

import copy
import functools
import pickle
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

import brickwork as bw
from brickwork import init, nn, optim
from brickwork.core import random_stream
from brickwork.errors import (
    ControlFlowError,
    DeviceMismatchError,
    LoadError,
    ShapeMismatchError,
    StructureError,
    TraceLeakError,
)

N = 4
X = jnp.linspace(-1.0, 1.0, 24).reshape(6, 4)
BOTH = pytest.mark.parametrize("way", [lambda f: f, bw.compile], ids=["eager", "compiled"])


def dense():
    return nn.Sequential(nn.Linear(4, in_features=4), nn.Tanh())


def deferred():
    return nn.Sequential(nn.Linear(4), nn.Tanh())


def stateful():
    return nn.Sequential(nn.Linear(4), nn.BatchNorm1d(), nn.Dropout(0.3), nn.Tanh())


class Counting(bw.Module):
    def __init__(self):
        self.lin = nn.Linear(4, bias=False)
        self.n = bw.Buffer(jnp.zeros((), jnp.int32))
        self.last = bw.Buffer(jnp.zeros(2), persistent=False)

    def forward(self, x):
        self.n.value += 1
        self.last.value = self.last.value + x.mean()
        return jnp.tanh(self.lin(x))


class TiedInside(bw.Module):
    def __init__(self):
        self.a = nn.Linear(4, in_features=4, bias=False)
        self.b = nn.Linear(4, in_features=4)
        self.b.weight = self.a.weight

    def forward(self, x):
        return jnp.tanh(self.b(self.a(x)))


class Scale(bw.Module):
    """A layer of a user's, which sets its shape in ``build`` whether it is known or not."""

    def __init__(self):
        self.weight = bw.Parameter(shape=(None,), init=lambda key, shape, dtype: jax.random.normal(key, shape, dtype))

    def build(self, x):
        self.weight.shape = (x.shape[-1],)

    def forward(self, x):
        return x * self.weight


class Lazy(bw.Module):
    """A layer of a user's that makes its layers when it sees its input."""

    def build(self, x):
        self.inner = nn.Linear(x.shape[-1])
        self.width = x.shape[-1]

    def forward(self, x):
        return jnp.tanh(self.inner(x)) * self.width


class Experts(bw.Module):
    """A stack of its own inside of the block."""

    def __init__(self):
        self.gate = nn.Linear(3)
        self.experts = bw.stack([nn.Linear(4, in_features=4) for _ in range(3)])

    def forward(self, x):
        out = bw.vmap(lambda expert, x: expert(x), in_axes=(0, None))(self.experts, x)
        return x + jnp.einsum("ne,enf->nf", jax.nn.softmax(self.gate(x)), out)


def pair(make, n=N, **options):
    """Blocks in a row, and repeated ones."""
    bw.seed(0)
    row = nn.Sequential(*[make() for _ in range(n)], fold=False)
    bw.seed(0)
    return row, nn.Repeat(make, n, **options)


def assert_same_state(row, repeat, rtol=1e-6):
    a, b = row.state_dict(), repeat.state_dict()
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype
        np.testing.assert_allclose(a[name], b[name], rtol, 1e-6, err_msg=name)


def run(fn, *args):
    """The result of a call, and the random stream after it, from the same seed."""
    bw.seed(1)
    return fn(*args), np.asarray(random_stream().value)


def square(net, x):
    return (net(x) ** 2).sum()


# -- as blocks in a row ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (dense, {}),
        (deferred, {"unroll": 3}),
        (stateful, {}),
        (stateful, {"remat": True}),
        (Counting, {}),
        (TiedInside, {"remat": True}),
        (Scale, {}),
        (Lazy, {}),
        (lambda: nn.Sequential(nn.Linear(4), Lazy()), {}),
        (Experts, {}),
        (lambda: nn.Repeat(stateful, 2), {}),
        (lambda: nn.Repeat(Lazy, 2), {}),
        (lambda: nn.Dropout(0.5), {}),
    ],
)
@BOTH
def test_as_a_row(way, make, options):
    row, repeat = pair(make, **options)
    f = way(repeat)
    for _ in range(2):
        (expected, stream), (got, other) = run(row, X), run(f, X)
        np.testing.assert_allclose(got, expected, 1e-5, 1e-6)
        np.testing.assert_array_equal(stream, other)
        assert_same_state(row, repeat)
    if not row.parameters():
        return
    (loss, grads), stream = run(bw.value_and_grad(square), row, X)
    (got, mine), other = run(way(bw.value_and_grad(square)), repeat, X)
    np.testing.assert_allclose(got, loss, 1e-5)
    np.testing.assert_array_equal(stream, other)
    assert_same_state(row, repeat)
    for net, gradients in ((row, grads), (repeat, mine)):
        for path, p in net.named_parameters():
            p.value = gradients[path]
    for a, b in zip(row.state_dict().items(), repeat.state_dict().items(), strict=True):
        scale = max(float(np.abs(a[1]).max(initial=0)), 10)  # sums round by their largest terms
        np.testing.assert_allclose(b[1], a[1], 1e-4, 1e-6 * scale, err_msg=a[0])


@BOTH
def test_one_block(way):
    row, repeat = pair(stateful, n=1)
    np.testing.assert_allclose(run(row, X)[0], run(way(repeat), X)[0], 1e-6)
    assert_same_state(row, repeat)


@BOTH
def test_under_vmap(way):
    row, repeat = pair(stateful)
    xs = jnp.stack([X, X + 1])
    (expected, stream), (got, other) = run(bw.vmap(row), xs), run(way(bw.vmap(repeat)), xs)
    np.testing.assert_allclose(got, expected, 1e-5, 1e-6)
    np.testing.assert_array_equal(stream, other)
    assert_same_state(row, repeat, 1e-5)


def test_as_a_pure_function():
    row, repeat = pair(stateful)
    for net in (row, repeat):
        net.initialize(bw.spec(6, 4))
    states, outs = [], []
    for net in (row, repeat):
        bw.seed(1)
        pure, state = bw.functional(net)
        out, state = jax.jit(pure)(state, X)
        np.testing.assert_allclose(pure(bw.functional(net)[1], X)[0], out, 1e-5, 1e-6)
        states.append(state)
        outs.append(out)
    np.testing.assert_allclose(outs[1], outs[0], 1e-5, 1e-6)
    np.testing.assert_array_equal(states[0]["__random__"], states[1]["__random__"])
    for net, state in zip((row, repeat), states, strict=True):
        assert net.load_state_dict(state, strict=False).unexpected == ["__random__"]
    assert_same_state(row, repeat)


@BOTH
def test_further_arguments_and_nests(way):
    class Block(bw.Module):
        def __init__(self):
            self.lin = nn.Linear(4, in_features=4)
            self.norm = nn.BatchNorm1d()

        def forward(self, state, mask, scale=1.0):
            x, (count, rest) = state["x"], state["more"]
            x = self.norm(jnp.tanh(self.lin(x))) * mask * scale
            return {"x": x, "more": (count + 1, rest)}

    bw.seed(0)
    blocks = [Block() for _ in range(N)]
    bw.seed(0)
    repeat = nn.Repeat(Block, N)
    mask = (jnp.arange(24).reshape(6, 4) % 2).astype(jnp.float32)

    def row(state, mask):
        for block in blocks:
            state = block(state, mask, scale=2.0)
        return state

    for training in (True, False):
        repeat.train(training)
        for block in blocks:
            block.train(training)
        state = {"x": X, "more": (jnp.int32(0), None)}
        expected = row(state, mask)
        got = way(lambda state, mask: repeat(state, mask, scale=2.0))(state, mask)
        np.testing.assert_allclose(got["x"], expected["x"], 1e-5, 1e-6)
        assert int(got["more"][0]) == N and got["more"][1] is None
    means = jnp.stack([block.norm.running_mean.value for block in blocks])
    np.testing.assert_allclose(repeat.block.norm.running_mean, means, 1e-5, 1e-6)
    g = way(bw.grad(lambda m: repeat({"x": X, "more": (jnp.int32(0), None)}, m)["x"].sum(), 0))(mask)
    assert float(abs(g).sum()) > 0


def test_decisions_on_values_eagerly():
    class Block(bw.Module):
        def __init__(self):
            self.lin = nn.Linear(4)
            self.ups, self.downs = (bw.Buffer(jnp.zeros((), jnp.int32)) for _ in range(2))

        def forward(self, x):
            x = self.lin(x)
            if x.sum() > 0:
                self.ups.value += 1
            else:
                self.downs.value += 1
            return x

    row, repeat = pair(Block)
    np.testing.assert_allclose(row(X), repeat(X), 1e-6)
    assert_same_state(row, repeat)
    assert 0 < int(repeat.block.ups.value.sum()) < N  # not all the same way
    with pytest.raises(ControlFlowError, match=r"x.sum\(\) > 0"):
        bw.compile(repeat)(X)


def test_compiled_size_does_not_grow():
    def sizes(**options):
        for n in (3, 30):
            net = nn.Repeat(stateful, n, **options).initialize(bw.spec(6, 4))
            pure, state = bw.functional(net)
            loss = lambda state, pure=pure: pure(state, X)[0].sum()
            yield len(str(jax.make_jaxpr(jax.grad(loss, allow_int=True))(state)).splitlines())

    for options in ({}, {"remat": True}):
        few, many = sizes(**options)
        assert many == few


def test_remat():
    gradients, memory = [], []
    for remat in (False, True):
        bw.seed(0)
        net = nn.Repeat(
            lambda: nn.Sequential(nn.Linear(32, in_features=32), nn.Tanh(), nn.Dropout(0.5)), 16, remat=remat
        )

        @bw.compile
        def step(x, net=net):
            return bw.value_and_grad(square)(net, x)

        (loss, grads), stream = run(step, jnp.ones((64, 32)))
        gradients.append((loss, grads, stream))
        memory.append(step.stats().peak_memory)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-6, 1e-7), *gradients)
    assert memory[1] < 0.8 * memory[0]


# -- variables and names ---------------------------------------------------------------------------


def test_variables_are_stacked():
    repeat = nn.Repeat(stateful, 3)
    assert repeat.block[0].weight.shape == (3, 4, None) and repeat.block[0].weight.stacked == 1
    assert [path for path, _ in repeat.named_parameters()] == [
        "block.0.weight",
        "block.0.bias",
        "block.1.weight",
        "block.1.bias",
    ]
    assert repeat.block[0].weight.name == "block.0.weight"
    grads = bw.grad(lambda net: net(X).sum())(repeat)
    assert grads["block.0.weight"].shape == (3, 4, 4)
    assert len(repeat) == 3 and repeat
    assert [block[0].weight.shape for block in repeat] == [(4, 4)] * 3
    np.testing.assert_array_equal(repeat[-1][0].weight, repeat.block[0].weight[2])
    with pytest.raises(IndexError, match="Repeat has 3 blocks, no index 3"):
        repeat[3]


def test_description():
    repeat = nn.Repeat(lambda: nn.Sequential(nn.Linear(4), Scale(), Experts()), 3, remat=True)
    assert repr(repeat) == (
        "Repeat(3, remat=True\n"
        "  (block): Sequential(\n"
        "    (0): Linear(? → 4)\n"
        "    (1): Scale(\n"
        "      (weight): Parameter(?,)\n"
        "    )\n"
        "    (2): Experts(\n"
        "      (gate): Linear(? → 3)\n"
        "      (experts): Linear(4 → 4, stack of 3)\n"
        "    )\n"
        "  )\n"
        ")"
    )
    summary = nn.Repeat(dense, 3).summary(bw.spec(2, 4))
    assert [(row.path, row.layer, row.output, row.parameters) for row in summary.rows] == [
        ("", "Repeat(3)", "(2, 4)", 0),
        ("block", "Sequential", "(2, 4)", 0),
        ("block.0", "Linear(4 → 4)", "(2, 4)", 60),
        ("block.1", "Tanh", "(2, 4)", 0),
    ]
    assert summary.parameters == 60


def test_files_of_either_fit_the_other(tmp_path):
    row, _ = pair(stateful)
    run(row, X)
    for source, target in ((row, nn.Repeat(stateful, N)), (row, nn.Sequential(*[stateful() for _ in range(N)]))):
        source.save(tmp_path / "a.safetensors")
        assert not target.load(tmp_path / "a.safetensors")  # shapes come from the file
        assert_same_state(source, target)
        target.save(tmp_path / "b.safetensors")
        back = type(source)(*[stateful() for _ in range(N)])
        back.load(tmp_path / "b.safetensors")
        assert_same_state(source, back)
        np.testing.assert_allclose(back.eval()(X), target.eval()(X), 1e-6)
    inside = nn.Sequential(nn.Linear(4), nn.Repeat(stateful, N))
    report = inside.load(tmp_path / "a.safetensors", strict=False, rename={"^": "1."})
    assert report.missing == ["0.weight", "0.bias"] and not report.unexpected
    np.testing.assert_array_equal(inside[1].block[0].weight[2], row[2][0].weight)


@pytest.mark.parametrize("known", [True, False])
def test_part_of_a_state(known):
    row, repeat = pair(deferred)
    if known:
        row(X), repeat(X)
    state = nn.Sequential(*[dense() for _ in range(N)]).state_dict()
    del state["1.0.weight"], state["3.0.bias"]
    for net in (row, repeat):
        report = net.load_state_dict(state, strict=False)
        assert report.missing == ["1.0.weight", "3.0.bias"]
        net(X)
    assert_same_state(row, repeat)  # what was missing is as it was, or drawn as it would have been
    np.testing.assert_allclose(row(X), repeat(X), 1e-6)


def test_states_that_do_not_fit():
    repeat = nn.Repeat(deferred, 3)
    state = nn.Sequential(*[dense() for _ in range(3)]).state_dict()
    before = repeat.block[0].weight.shape
    wrong = dict(state)
    wrong["7.0.weight"] = wrong.pop("2.0.weight")
    with pytest.raises(LoadError, match=r"missing[^:]*:\n    2\.0\.weight .*\n  unexpected[^:]*:\n    7\.0\.weight"):
        repeat.load_state_dict(wrong)
    with pytest.raises(LoadError, match=r"1\.0\.weight: the network has \(4, 4\), the state \(4, 5\)"):
        repeat.load_state_dict(state | {"1.0.weight": np.ones((4, 5), np.float32)})
    assert repeat.block[0].weight.shape == before and not repeat.block[0].weight.is_drawn
    assert not repeat.load_state_dict(state)
    whole = {"block.0.weight": np.zeros((3, 4, 4), np.float32)}  # as bw.functional has it
    assert repeat.load_state_dict(whole, strict=False).missing == ["0.0.bias", "1.0.bias", "2.0.bias"]
    assert not np.any(repeat.block[0].weight)
    with pytest.raises(LoadError, match=r"1\.0\.weight: the state has all blocks in block\.0\.weight, and this one"):
        repeat.load_state_dict(whole | {"1.0.weight": np.ones((4, 4), np.float32)}, strict=False)
    with pytest.raises(LoadError, match=r"block\.0\.weight: the network has \(3, 4, 4\), the state \(2, 4, 4\)"):
        repeat.load_state_dict({"block.0.weight": np.zeros((2, 4, 4), np.float32)}, strict=False)


def test_an_attribute_called_repeats_or_block_means_nothing():
    class Looped(bw.Module):
        def __init__(self):
            self.repeats = 3
            self.block = nn.Linear(4, in_features=4)

        def forward(self, x):
            for _ in range(self.repeats):
                x = self.block(x)
            return x

    assert list(Looped().state_dict()) == ["block.weight", "block.bias"]
    assert list(nn.Repeat(Looped, 2).state_dict()) == [f"{i}.block.{n}" for i in range(2) for n in ("weight", "bias")]


# -- ties ------------------------------------------------------------------------------------------


class Sharing(bw.Module):
    def __init__(self, shared):
        self.own = nn.Linear(4, in_features=4)
        self.shared = shared

    def forward(self, x):
        return jnp.tanh(self.shared(self.own(x)))


def test_a_module_that_all_blocks_share(tmp_path):
    shared = nn.Linear(4, in_features=4)
    row, repeat = pair(lambda: Sharing(shared), n=3)
    assert repeat.block.shared is shared and shared.weight.stacked == 0
    assert len(repeat.parameters()) == 4
    assert list(repeat.state_dict()) == list(row.state_dict())
    assert list(repeat.state_dict())[3:6] == ["0.shared.bias", "1.own.weight", "1.own.bias"]
    np.testing.assert_allclose(bw.compile(repeat)(X), row(X), 1e-6)
    expected, got = (bw.compile(bw.grad(lambda net: square(net, X)))(net) for net in (row, repeat))
    np.testing.assert_allclose(got["block.shared.weight"], expected["0.shared.weight"], 1e-5)

    net = nn.Sequential(shared, repeat)  # and tied to something outside
    names = ["0.weight", "0.bias", *[f"1.{i}.own.{n}" for i in range(3) for n in ("weight", "bias")]]
    assert list(net.state_dict()) == names
    for other in (net.clone(), pickle.loads(pickle.dumps(net)), jax.tree.map(lambda x: x, net)):
        assert other[0].weight is other[1].block.shared.weight
        assert list(other.state_dict()) == names
    assert repeat[1].shared is shared
    net.save(tmp_path / "net.safetensors")
    again = nn.Sequential(nn.Linear(4), nn.Sequential(*[Sharing(nn.Linear(4)) for _ in range(3)]))
    assert not again.load(tmp_path / "net.safetensors")  # an untied network has each of the values
    np.testing.assert_array_equal(again[1][2].shared.weight, shared.weight)
    state = net.state_dict()
    with pytest.raises(LoadError, match=r"1\.2\.shared\.weight: tied to 0\.weight in the network"):
        net.load_state_dict(state | {"1.2.shared.weight": state["0.weight"] + 1})


@BOTH
def test_all_of_the_block_shared(way):
    shared = nn.Sequential(nn.Linear(4), nn.BatchNorm1d(), nn.Dropout(0.3))

    class Same(bw.Module):
        def __init__(self):
            self.inner = shared

        def forward(self, x):
            return jnp.tanh(self.inner(x))

    row, repeat = pair(Same, n=3)
    shared.initialize(bw.spec(6, 4))
    start = shared.state_dict()
    found = []
    for net in (row, repeat):
        shared.load_state_dict(start)
        (loss, grads), stream = run(way(bw.value_and_grad(square)), net, X)
        found.append((loss, list(grads.values()), stream, shared.state_dict()))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-5), *found)
    assert int(shared[1].num_batches_tracked) == 3
    assert list(repeat.state_dict()) == [f"0.inner.{name}" for name in start]


def test_shared_in_part():
    blocks = [nn.Linear(4) for _ in range(3)]
    blocks[1].bias = blocks[0].bias
    with pytest.raises(
        StructureError, match=r"Repeat: Parameter 'bias' is shared by some of the blocks, but not by all"
    ):
        nn.Repeat(iter(blocks).__next__, 3)


# -- stacks of networks with repeated blocks -------------------------------------------------------


class Net(bw.Module):
    def __init__(self):
        self.inp = nn.Linear(4)
        self.rep = nn.Repeat(stateful, 3)

    def forward(self, x):
        return self.rep(self.inp(x))


def test_ensemble():
    nets = [Net().initialize(bw.spec(6, 4)) for _ in range(2)]
    stacked = bw.stack(nets)
    assert stacked.rep.block[0].weight.shape == (2, 3, 4, 4)
    assert repr(stacked).startswith("Net(stack of 2\n  (inp): Linear(4 → 4)\n  (rep): Repeat(3\n")
    state = stacked.state_dict()
    assert list(state) == list(nets[0].state_dict())
    for i, net in enumerate(nets):
        for name, value in net.state_dict().items():
            np.testing.assert_array_equal(state[name][i], value)
    call = bw.vmap(lambda net, x: net(x), in_axes=(0, None))
    stacked.eval()
    for f in (call, bw.compile(call)):
        out = f(stacked, X)
        for i, net in enumerate(nets):
            np.testing.assert_allclose(out[i], net.eval()(X), 1e-5, 1e-6)
    some = {name: value + 1 for name, value in state.items() if ".1." in name}
    stacked.load_state_dict(some, strict=False)
    for name, value in stacked.state_dict().items():
        np.testing.assert_array_equal(value, some.get(name, state[name]))
    stacked.load_state_dict(state)
    for net, part in zip(nets, bw.unstack(stacked), strict=True):
        assert_same_state(net, part)
    stacked.train()
    run(bw.compile(call), stacked, X)
    assert stacked.rep.block[1].num_batches_tracked.value.tolist() == [[1] * 3] * 2


def test_stack_inside_of_a_block():
    repeat = nn.Repeat(Experts, 2)
    repeat(X)
    assert repeat.block.experts.weight.shape == (2, 3, 4, 4)
    assert repeat.state_dict()["1.experts.weight"].shape == (3, 4, 4)
    row = nn.Sequential(*[Experts() for _ in range(2)])
    row.load_state_dict(repeat.state_dict())
    np.testing.assert_allclose(row(X), repeat(X), 1e-6)


# -- shapes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [stateful, Scale, Lazy, lambda: nn.Repeat(Scale, 2), lambda: nn.Repeat(Lazy, 2)])
def test_shapes_are_inferred(make):
    for first in (
        lambda net: net(X),
        lambda net: bw.compile(net)(X),
        lambda net: net.initialize(bw.spec(6, 4)),
        lambda net: bw.vmap(net)(X[None]),
    ):
        row, repeat = pair(make)
        first(repeat)
        run(row.initialize(bw.spec(6, 4)).eval(), X)
        repeat.initialize(init=init.ones(), pattern=".*")
        row.initialize(init=init.ones(), pattern=".*")
        a, b = ({k: v for k, v in net.state_dict().items() if "running" not in k} for net in (row, repeat))
        assert a.keys() == b.keys() and all(a[k].shape == b[k].shape for k in a)


def test_nothing_is_drawn_while_shapes_are_inferred():
    repeat = nn.Repeat(deferred, 3).initialize(bw.spec(6, 4))
    assert repeat.block[0].weight.shape == (3, 4, 4) and not repeat.block[0].weight.is_drawn
    with pytest.raises(ShapeMismatchError):
        repeat(jnp.ones((2, 5)))


def test_a_failed_first_call_leaves_shapes_unknown():
    repeat = nn.Repeat(lambda: nn.Linear(8), 3)
    with pytest.raises(ShapeMismatchError, match=r"a block got float32\[6, 4\] and gave float32\[6, 8\]"):
        repeat(X)
    assert repeat.block.weight.shape == (3, 8, None)
    assert repeat(jnp.ones((2, 8))).shape == (2, 8)


# -- what can be done to a network -----------------------------------------------------------------


def test_freeze_and_initialize():
    repeat = nn.Repeat(dense, 3)
    repeat.freeze(r".*\.bias")
    assert list(bw.grad(square)(repeat, X)) == ["block.0.weight"]
    repeat.unfreeze()
    repeat.initialize(init=init.orthogonal())  # each block's matrix for itself
    w = repeat.block[0].weight.value
    np.testing.assert_allclose(jnp.einsum("nij,nkj->nik", w, w), np.broadcast_to(np.eye(4), (3, 4, 4)), atol=1e-5)
    assert np.any(repeat.block[0].bias)  # vectors, though they are stacked
    repeat.initialize(init=init.constant(2.0), pattern=r"block\.0\.bias")
    assert np.all(np.asarray(repeat.block[0].bias) == 2)
    row, repeat = pair(deferred)
    for net in (row, repeat):
        net.initialize(init=init.normal(0.1))  # used when the shapes are known
        net(X)
    assert_same_state(row, repeat)


@pytest.mark.parametrize(
    "initializer",
    [
        lambda: lambda key, shape, dtype: jax.random.normal(key, shape, dtype),
        lambda: functools.partial(lambda key, shape, dtype, by: jax.random.normal(key, shape, dtype) * by, by=2.0),
        jax.nn.initializers.he_normal,
        lambda: init.uniform(-1, 1),
    ],
)
def test_initializers_made_for_each_block(initializer):
    class Block(bw.Module):
        def __init__(self):
            self.weight = bw.Parameter(shape=(4, None), init=initializer())

        def build(self, x):
            self.weight.shape = (None, x.shape[-1])

        def forward(self, x):
            return x @ self.weight.value

    row, repeat = pair(Block)
    np.testing.assert_allclose(row(X), repeat(X), 1e-5)
    assert_same_state(row, repeat)


def test_to(devices):
    row, repeat = pair(stateful)
    run(row, X), run(repeat, X)
    for net in (row, repeat):
        net.to(jnp.bfloat16)
    assert repeat.block[0].weight.dtype == jnp.bfloat16
    assert_same_state(row, repeat)
    x = X.astype(jnp.bfloat16)
    np.testing.assert_array_equal(run(row, x)[0], run(repeat, x)[0])
    repeat.to(devices[3])
    there = jax.device_put(x, devices[3])
    assert repeat(there).devices() == bw.compile(repeat)(there).devices() == {devices[3]}
    with pytest.raises(DeviceMismatchError):
        repeat(x)
    later = nn.Repeat(deferred, 3).to(devices[2])  # before there is anything to move
    later(jax.device_put(X, devices[2]))
    assert later.device == devices[2]
    state = {name: np.asarray(v) for name, v in later.state_dict().items()}
    later.load_state_dict(state)
    later.load_state_dict({"1.0.bias": state["0.0.bias"]}, strict=False)
    assert later.device == devices[2]


def test_sharded(devices):
    mesh = Mesh(np.array(devices), ("model",))
    repeat = nn.Repeat(lambda: nn.Linear(8, in_features=8, bias=False), 3)
    repeat.to(NamedSharding(mesh, P(None, "model")))
    state = repeat.state_dict()
    assert state["0.weight"].sharding.spec == P("model")
    repeat.load_state_dict({name: np.asarray(v) for name, v in state.items()})
    assert repeat.block.weight.sharding.spec == P(None, "model")


@pytest.mark.parametrize("make", [stateful, deferred, Lazy])
@pytest.mark.parametrize("called", [True, False])
def test_copies(make, called):
    _, repeat = pair(make)
    if called:
        run(repeat, X)
    made = [repeat.clone(), copy.deepcopy(repeat)]
    made.append(pickle.loads(pickle.dumps(repeat)))
    if called:
        made.append(jax.tree.map(lambda x: x, repeat))
    expected, _ = run(repeat, X)
    for other in made:
        np.testing.assert_allclose(run(other, X)[0], expected, 1e-6)
        assert_same_state(repeat, other)
        assert all(a is not b for a, b in zip(repeat.variables(), other.variables(), strict=True))


@pytest.mark.parametrize("make_optimizer", [optim.sgd, optim.adam])
def test_training(make_optimizer, tmp_path):
    row, repeat = pair(dense)
    nets = [(net, make_optimizer(net, 1e-2)) for net in (row, repeat)]
    step = bw.compile(lambda net, opt: opt.step(bw.grad(square)(net, X)))
    for net, opt in nets:
        opt.step(bw.grad(square)(net, X))
        step(net, opt)
        bw.backward(square)(net, X)
        opt.step()
    assert_same_state(row, repeat, 1e-5)
    opt = nets[1][1]
    opt.save(tmp_path / "opt.safetensors")
    other = make_optimizer(repeat, 1e-2)
    other.load(tmp_path / "opt.safetensors")
    assert [v.shape for v in other.variables()] == [v.shape for v in opt.variables()]


def test_hooks_and_capture():
    row, repeat = pair(dense)
    seen = []
    with repeat.block[0].register_forward_hook(lambda module, args, output: seen.append(output)):
        repeat(X)
    assert len(seen) == N and all(isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer) for x in seen)
    with repeat.block.register_forward_hook(lambda module, args, output: output * 0 + 1):
        assert np.all(np.asarray(repeat(X)) == 1) and np.all(np.asarray(bw.compile(repeat)(X)) == 1)
    with row.capture(rf"{N - 1}\.0") as expected:
        row(X)
    for f in (repeat, bw.compile(repeat), lambda x: bw.compile(bw.value_and_grad(square))(repeat, x)):
        with repeat.capture(r"block\.0") as acts:
            f(X)
        np.testing.assert_allclose(acts["block.0"], expected[f"{N - 1}.0"], 1e-5)  # of the last block


@BOTH
def test_an_exception_half_way_changes_nothing(way):
    class Failing(bw.Module):
        def __init__(self):
            self.n = bw.Buffer(jnp.zeros(()))
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            self.n.value += 1
            x = self.drop(x)
            calls.append(1)
            if len(calls) == 1 + (way is not bw.compile):
                raise RuntimeError("half way")
            return x

    calls = []
    repeat = nn.Repeat(Failing, 3)
    before = np.asarray(random_stream().value)
    with pytest.raises(RuntimeError, match="half way") as caught:
        way(repeat)(X)
    assert "net.block (Failing())" in caught.value.__notes__[0]
    np.testing.assert_array_equal(random_stream().value, before)
    assert repeat.block.n.value.tolist() == [0] * 3
    way(repeat)(X)
    assert repeat.block.n.value.tolist() == [1] * 3


@pytest.mark.leaks
def test_no_tracer_stays():
    repeat = nn.Repeat(stateful, 2)
    bw.compile(bw.value_and_grad(square))(repeat, X)
    assert repeat.block[1].num_batches_tracked.value.tolist() == [1, 1]


def test_freed():
    repeat = nn.Repeat(deferred, 2)
    f = bw.compile(lambda net, x: net(x))
    f(repeat, X), bw.compile(repeat)(X)
    references = weakref.ref(repeat), weakref.ref(repeat.block), weakref.ref(repeat.block[0].weight)
    del repeat
    assert [r() for r in references] == [None] * 3


def test_inside_raw_jit():
    repeat = nn.Repeat(stateful, 2)
    repeat(X)
    with pytest.raises(TraceLeakError, match="belongs to a copy of a module that a raw JAX transform"):
        jax.jit(lambda net, x: net(x))(repeat, X)
    repeat.eval()
    np.testing.assert_allclose(jax.jit(lambda net, x: net(x))(repeat, X), repeat(X), 1e-5)


# -- errors ----------------------------------------------------------------------------------------


MODULE = nn.Linear(4)


class Two(bw.Module):
    def forward(self, x):
        return x, x


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Repeat(dense, 0), ValueError, "Repeat: n must be at least 1, got 0"),
        (lambda: nn.Repeat(dense, True), TypeError, "Repeat: n must be an integer, got True"),
        (lambda: nn.Repeat(dense, 2, unroll=0), ValueError, "Repeat: unroll must be at least 1, got 0"),
        (
            lambda: nn.Repeat(nn.Linear(4), 2),
            TypeError,
            r"make_block must be a function .*, got a Linear; write Repeat\(lam",
        ),
        (lambda: nn.Repeat("Linear", 2), TypeError, r"make_block must be a function .*, got a str"),
        (lambda: nn.Repeat(lambda: jax.nn.relu, 2), TypeError, "make_block must return a module, got"),
        (lambda: nn.Repeat(lambda m=MODULE: m, 2), StructureError, "returned the same module twice"),
        (
            lambda: nn.Repeat(iter([nn.Linear(4), nn.Linear(4, bias=False)]).__next__, 2),
            StructureError,
            "Repeat: blocks 0 and 1 differ in structure: bias: Parameter became None",
        ),
        (
            lambda: nn.Repeat(iter([nn.Linear(4), nn.Linear(5)]).__next__, 2),
            ShapeMismatchError,
            r"Repeat: 'weight' differs from block to block: Parameter float32\[4, \?\], Parameter float32\[5, \?\]",
        ),
        (
            lambda: nn.Repeat(iter([nn.Dropout(0.1), nn.Dropout(0.2)]).__next__, 2),
            StructureError,
            "blocks 0 and 1 differ in structure: p: 0.1 became 0.2",
        ),
        (lambda: nn.Repeat(Two, 2)(X), TypeError, r"a block got float32\[6, 4\] and gave \(float32\[6, 4\], float32"),
        (
            lambda: bw.compile(nn.Repeat(Two, 2))(X),
            TypeError,
            r"a block got float32\[6, 4\] and gave \(float32\[6, 4\]",
        ),
        (lambda: nn.Repeat(nn.Flatten, 2)(X[None]), ShapeMismatchError, "Put a layer that changes the shape before"),
        (
            lambda: nn.Repeat(lambda: nn.Sequential(lambda x: x.astype(jnp.bfloat16)), 2)(X),  # equal functions
            TypeError,
            r"a block got float32\[6, 4\] and gave bfloat16\[6, 4\]. Convert it with .astype",
        ),
        (lambda: nn.Repeat(dense, 2)(), TypeError, "missing 1 required positional argument: 'x'"),
        (lambda: nn.Repeat(dense, 2)["a"], TypeError, "Repeat: the index of a block must be an integer, got 'a'"),
        (
            lambda: nn.Repeat(dense, 4)[1:3],
            TypeError,
            r"Repeat: the index of a block must be an integer; blocks are kept stacked, so some of them can only be "
            r"had as copies: nn.Sequential\(\*\[repeat\[i\] for i in range\(1, 3\)\]\)$",
        ),
        (lambda: nn.Repeat(dense, 4)[::-2], TypeError, r"for i in range\(3, -1, -2\)\]"),
        (lambda: nn.Repeat(dense, 4)[:-1], TypeError, r"for i in range\(0, 3\)\]"),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_class_that_needs_arguments():
    with pytest.raises(TypeError, match="out_features") as caught:
        nn.Repeat(nn.Linear, 2)
    assert caught.value.__notes__ == ["  Repeat calls Linear() without arguments: write Repeat(lambda: Linear(...), n)"]


def test_numbers_of_numpy():
    assert len(nn.Repeat(dense, np.int64(3), unroll=np.int32(2))) == 3
