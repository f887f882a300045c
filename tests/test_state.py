"""Values by name: ties, repeated blocks, stacks, and loading all or nothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import brickwork as bw
from brickwork import init, nn
from brickwork._state import entries
from brickwork.core._parts import join, part
from brickwork.errors import LoadError, ShapeMismatchError

# -- parts of arrays -------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_part(data):
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    axes = data.draw(st.sets(st.integers(0, len(shape) - 1)).map(sorted).map(tuple))
    index = tuple(data.draw(st.integers(0, shape[axis] - 1)) for axis in axes)
    x = np.arange(np.prod(shape)).reshape(shape)
    where = dict(zip(axes, index, strict=True))
    expected = x[tuple(where.get(axis, slice(None)) for axis in range(x.ndim))]
    np.testing.assert_array_equal(part(jnp.asarray(x), index, axes), expected)
    first = tuple(data.draw(st.integers(0, n - 1)) for n in shape[: len(index)])
    np.testing.assert_array_equal(part(jnp.asarray(x), first), x[first])


@pytest.mark.parametrize("n", [1, 2, 32, 33, 70, 1100])
def test_join(n):
    parts = [jnp.full((2,), i, jnp.int32) for i in range(n)]
    np.testing.assert_array_equal(join(parts), np.stack(parts))


def test_parts_of_random_keys():
    keys = jax.random.split(jax.random.key(0), 3)
    assert (join([part(keys, (i,)) for i in range(3)]) == keys).all()


# -- entries ---------------------------------------------------------------------------------------


class Block(bw.Module):
    def __init__(self, shared=None):
        self.a = bw.Parameter(shape=(2, None))
        self.inner = nn.Repeat(lambda: nn.Linear(2, in_features=2, bias=False), 2)
        self.shared = shared
        self.scratch = bw.Buffer(jnp.zeros(3), persistent=False)


class Net(bw.Module):
    def __init__(self):
        self.first = nn.Linear(2, in_features=2)
        self.blocks = nn.Repeat(lambda: Block(self.first), 2)
        self.again = [self.blocks]
        self.last = bw.Parameter(jnp.zeros(1))


def names(net, **options):
    return [entry.name for entry in entries(net, **options)]


def test_names_and_order_are_those_of_single_blocks():
    net = Net()
    assert names(net) == [
        "first.weight",
        "first.bias",
        *(f"blocks.{i}.{n}" for i in range(2) for n in ("a", "inner.0.weight", "inner.1.weight", "scratch")),
        "last",
    ]

    class Single(Net):
        def __init__(self):
            super().__init__()
            self.blocks = [single(self.first) for _ in range(2)]
            self.again = [self.blocks]

    def single(shared):
        block = Block(shared)
        block.inner = [nn.Linear(2, in_features=2, bias=False) for _ in range(2)]
        return block

    assert names(Single()) == names(net)
    assert sorted(names(Single(), aliases=True)) == sorted(names(net, aliases=True))


def test_entries_say_where_their_part_is():
    found = {entry.name: entry for entry in entries(Net())}
    entry = found["blocks.1.inner.0.weight"]
    assert entry.variable.shape == (2, 2, 2, 2) and (entry.index, entry.axes) == ((1, 0), (0, 1))
    assert entry.part_of(entry.variable.shape) == (2, 2)
    assert found["blocks.1.a"].part_of(found["blocks.1.a"].variable.shape) == (2, None)
    assert found["last"].index == ()


def test_aliases_of_what_blocks_share():
    found = names(Net(), aliases=True)
    assert [n for n in found if n.endswith("shared.bias")] == [
        f"{front}.{i}.shared.bias" for front in ("blocks", "again.0") for i in range(2)
    ]
    assert len({entry.key for entry in entries(Net(), aliases=True)}) == len(names(Net()))


def test_the_state_is_that_of_single_blocks():
    net = nn.Sequential(nn.Repeat(lambda: nn.Repeat(lambda: nn.Linear(2, in_features=3), 2), 3))
    state = net.state_dict()
    assert list(state)[:3] == ["0.0.0.weight", "0.0.0.bias", "0.0.1.weight"] and len(state) == 12
    for i in range(3):
        for j in range(2):
            np.testing.assert_array_equal(state[f"0.{i}.{j}.weight"], net[0].block.block.weight[i, j])


# -- loading ---------------------------------------------------------------------------------------


def repeated(n=3):
    return nn.Repeat(lambda: nn.Linear(4), n)


STATE = {
    f"{i}.{n}": np.full(s, 10 * i + len(n), np.float32) for i in range(3) for n, s in (("weight", (4, 5)), ("bias", 4))
}


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray, lambda x: x.tolist(), lambda x: x.astype(np.float64)])
def test_load_from_anything(kind):
    net = repeated()
    assert not net.load_state_dict({name: kind(x) for name, x in STATE.items()})
    assert net.block.weight.dtype == jnp.float32
    for name, x in net.state_dict().items():
        np.testing.assert_array_equal(x, STATE[name])


def test_all_or_nothing():
    net = repeated()
    net.block.bias.value = jnp.ones((3, 4))
    for wrong in (
        STATE | {"2.bias": np.zeros(5, np.float32)},
        STATE | {"2.weight": np.zeros((4, 6), np.float32)},
        {name: x for name, x in STATE.items() if name != "1.bias"},
        STATE | {"3.bias": np.zeros(4, np.float32)},
        STATE | {"2.bias": np.full(4, "text")},
    ):
        with pytest.raises((LoadError, TypeError)):
            net.load_state_dict(wrong)
        assert net.block.weight.shape == (3, 4, None) and not net.block.weight.is_drawn
        np.testing.assert_array_equal(net.block.bias, 1)


def test_what_is_missing_is_drawn_as_it_would_have_been():
    bw.seed(3)
    net, other = repeated(), repeated()
    bw.seed(3)
    expected = nn.Sequential(*[nn.Linear(4, in_features=5) for _ in range(3)])
    part = {name: STATE[name] for name in ("0.weight", "2.bias")}
    report = net.load_state_dict(part, strict=False)
    assert report.missing == ["0.bias", "1.weight", "1.bias", "2.weight"]
    expected.load_state_dict(part, strict=False)
    for name, x in expected.state_dict().items():
        np.testing.assert_array_equal(net.state_dict()[name], x)
    assert not other.block.weight.is_drawn


def test_a_whole_stack():
    net = repeated()
    whole = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    report = net.load_state_dict({"block.weight": whole}, strict=False)
    assert report.missing == ["0.bias", "1.bias", "2.bias"] and not report.unexpected
    np.testing.assert_array_equal(net.state_dict()["1.weight"], whole[1])
    with pytest.raises(LoadError, match=r"all blocks in block\.weight, and this one on its own too"):
        net.load_state_dict({"block.weight": whole, "1.weight": whole[1]}, strict=False)


def test_rename_reaches_blocks():
    net = repeated()
    foreign = {f"layers_{name.replace('.', '/')}": x for name, x in STATE.items()}
    assert not net.load_state_dict(foreign, rename={r"layers_(\d+)/": r"\1."})


# -- former names ----------------------------------------------------------------------------------


class Renamed(bw.Module):
    former_names = {"fc": "head", "layers.0": "stem"}

    def __init__(self):
        self.head = nn.Linear(2, bias=False)
        self.stem = nn.Linear(2, in_features=3)


FORMER = {
    "fc.weight": np.ones((2, 4), np.float32),
    "layers.0.weight": np.zeros((2, 3), np.float32),
    "stem.bias": np.ones(2, np.float32),
}


def test_former_names():
    net = Renamed()
    assert not net.load_state_dict(FORMER)
    assert list(net.state_dict()) == ["head.weight", "stem.weight", "stem.bias"]
    np.testing.assert_array_equal(net.head.weight, FORMER["fc.weight"])
    outer = nn.Sequential(nn.ReLU(), net)  # below other modules too
    assert not outer.load_state_dict({f"1.{name}": x for name, x in FORMER.items()})


def test_former_names_in_blocks():
    net = nn.Repeat(Renamed, 2)
    assert not net.load_state_dict({f"{i}.{name}": x + i for i in range(2) for name, x in FORMER.items()})
    np.testing.assert_array_equal(net.state_dict()["1.head.weight"], FORMER["fc.weight"] + 1)


def test_former_and_present_names_at_once():
    with pytest.raises(LoadError, match=r"head\.weight: tied to fc\.weight in the network, but the values differ"):
        Renamed().load_state_dict(FORMER | {"head.weight": np.zeros((2, 4), np.float32)})


def test_an_attribute_with_a_former_name():
    class Swapped(bw.Module):
        former_names = {"a": "b"}

        def __init__(self):
            self.a = nn.Linear(2, bias=False)
            self.b = nn.Linear(2, bias=False)

    net = Swapped()
    assert not net.load_state_dict({"a.weight": np.ones((2, 3)), "b.weight": np.zeros((2, 3))})
    assert net.a.weight[0, 0] == 1 and net.b.weight[0, 0] == 0


# -- stacked variables -----------------------------------------------------------------------------


def test_stacked_variables():
    layers = [nn.Linear(3) for _ in range(4)]
    stack = bw.stack(layers)
    v = stack.weight
    assert v.stacked == 1 and v.shape == (4, 3, None) and layers[0].weight.stacked == 0
    assert bw.stack([stack, bw.stack(layers)]).weight.stacked == 2
    v.shape = (None, 3, 5)
    with pytest.raises(ShapeMismatchError):
        v.shape = (None, 3, 6)
    for layer in layers:
        layer.weight.shape = (3, 5)
    np.testing.assert_array_equal(v, np.stack([layer.weight for layer in layers]))  # drawn each for itself
    np.testing.assert_array_equal(stack.bias, np.stack([layer.bias for layer in layers]))


def test_initializers_see_one_part():
    stack = bw.stack([nn.Linear(3, in_features=3, bias=False) for _ in range(4)])
    stack.weight.initialize(init.orthogonal())
    w = stack.weight.value
    np.testing.assert_allclose(jnp.einsum("nij,nkj->nik", w, w), np.broadcast_to(np.eye(3), (4, 3, 3)), atol=1e-5)
    before = w
    stack.initialize(init=init.normal(1.0))
    assert not np.array_equal(stack.weight, before)
    assert len({float(x) for x in stack.weight[:, 0, 0]}) == 4


def test_stacks_and_placement(devices):
    layers = [nn.Linear(3, in_features=3).to(devices[2]) for _ in range(2)]
    stack = bw.stack(layers)
    assert stack.weight.value.devices() == {devices[2]}
    assert bw.unstack(stack)[0].weight.value.devices() == {devices[2]}
    with pytest.raises(bw.errors.DeviceMismatchError, match="stack: 'weight' is on different devices"):
        bw.stack([nn.Linear(3, in_features=3).to(d) for d in devices[:2]])
    for layer, device in zip(layers, devices, strict=False):
        layer.to(device).weight.value
    with pytest.raises(bw.errors.DeviceMismatchError, match=r"cpu:0|CPU_0"):
        bw.stack(layers)


def test_shapes_in_a_lane():
    stack = bw.stack([nn.Linear(3, in_features=2) for _ in range(4)])
    seen = []

    def f(net):
        seen.append((net.weight.shape, net.weight.ndim, net.weight.size))
        net.weight.shape = (3, None)  # as a build hook may say it
        return net.weight.sum()

    assert bw.vmap(f)(stack).shape == (4,)
    assert seen == [((3, 2), 2, 6)] and stack.weight.shape == (4, 3, 2)


def test_unstack_gives_the_modules_back():
    layers = [nn.Sequential(nn.Linear(3), nn.BatchNorm1d()).initialize(bw.spec(2, 2)) for _ in range(3)]
    for one, other in zip(layers, bw.unstack(bw.stack(layers)), strict=True):
        for name, x in one.state_dict().items():
            np.testing.assert_array_equal(other.state_dict()[name], x)
        assert [v.stacked for v in other.variables()] == [0] * 7
    early = [nn.Linear(3) for _ in range(3)]  # before anything is known
    for one, other in zip(early, bw.unstack(bw.stack(early)), strict=True):
        np.testing.assert_array_equal(one.initialize(bw.spec(1, 2)).weight, other.initialize(bw.spec(1, 2)).weight)
