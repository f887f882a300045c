"""``bw.stack`` and ``bw.unstack``: several modules as one, and back."""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.exactness.harness import assert_same

import brickwork as bw
from brickwork import init, nn, optim
from brickwork.errors import StructureError, TraceLeakError

X = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)


def net():
    return nn.Sequential(nn.Linear(3, in_features=3), nn.BatchNorm1d(num_features=3), nn.Linear(2, in_features=3))


def each(stacked, *args, in_axes=(0, None)):
    return bw.vmap(lambda net, *args: net(*args), in_axes=in_axes)(stacked, *args)


class Tied(bw.Module):
    """One variable of its own under two names, and one that others may share."""

    def __init__(self, shared):
        self.a = bw.Parameter(shape=(3, 3))
        self.b = self.a
        self.shared = shared

    def forward(self, x):
        return x @ self.a.value @ self.b.T + self.shared


# -- there and back --------------------------------------------------------------------------------


@pytest.mark.parametrize("called", [False, True])
def test_there_and_back(called):
    nets = [net() for _ in range(3)]
    if called:
        for i, one in enumerate(nets):
            one(X * i)
    stacked = bw.stack(iter(nets))
    assert type(stacked) is nn.Sequential
    assert list(stacked.state_dict()) == list(nets[0].state_dict())
    assert {k: v.shape for k, v in stacked.state_dict().items()} == {
        k: (3, *v.shape) for k, v in nets[0].state_dict().items()
    }
    back = bw.unstack(stacked)
    for one, again in zip(nets, back, strict=True):
        assert_same(dict(again.state_dict()), dict(one.state_dict()))
        assert [p.trainable for p in again.parameters()] == [p.trainable for p in one.parameters()]
        assert not {id(v) for v in again.variables()} & {id(v) for v in one.variables()}
        assert_same(again.eval()(X), one.eval()(X))


def test_values_not_drawn_yet_are_those_of_the_modules_alone():
    bw.seed(4)
    alone = [net() for _ in range(3)]
    expected = [dict(one.state_dict()) for one in alone]
    bw.seed(4)
    stacked = bw.stack([net() for _ in range(3)])
    assert not stacked[0].weight.is_drawn
    (first, second, third) = bw.unstack(stacked)
    assert not first[0].weight.is_drawn
    assert_same([dict(one.state_dict()) for one in (first, second, third)], expected)
    assert_same(dict(stacked.state_dict()), jax.tree.map(lambda *xs: jnp.stack(xs), *expected))


def test_the_modules_given_are_left_alone():
    nets = [net() for _ in range(2)]
    stacked = bw.stack(nets)
    before = [dict(one.state_dict()) for one in nets]
    each(stacked, X)
    stacked[0].weight.value = stacked[0].weight.value * 0
    assert_same([dict(one.state_dict()) for one in nets], before)
    one, _ = bw.unstack(stacked)
    one[0].weight[:] = 1.0
    assert not stacked[0].weight.value.any()


def test_one_module():
    one = net()
    stacked = bw.stack([one])
    assert stacked[0].weight.shape == (1, 3, 3)
    (again,) = bw.unstack(stacked)
    assert_same(again.eval()(X), one.eval()(X))


def test_stacks_of_stacks():
    nets = [[net() for _ in range(2)] for _ in range(3)]
    grid = bw.stack([bw.stack(row) for row in nets])
    assert (grid[0].weight.shape, grid[0].weight.stacked) == ((3, 2, 3, 3), 2)
    back = [bw.unstack(row) for row in bw.unstack(grid)]
    for row, expected in zip(back, nets, strict=True):
        for one, other in zip(row, expected, strict=True):
            assert_same(dict(one.state_dict()), dict(other.state_dict()))


# -- ties ------------------------------------------------------------------------------------------


def test_ties_within_each_module_stay():
    nets = [Tied(bw.Buffer(jnp.float32(i))) for i in range(2)]
    stacked = bw.stack(nets)
    assert stacked.a is stacked.b
    assert len(stacked.parameters()) == 1
    assert_same(each(stacked, X), jnp.stack([one(X) for one in nets]))
    for one in bw.unstack(stacked):
        assert one.a is one.b


def test_a_variable_that_all_share_stays_one():
    shared = bw.Parameter(jnp.ones(3))
    nets = [Tied(shared) for _ in range(3)]
    stacked = bw.stack(nets)
    assert stacked.shared is shared
    assert (shared.shape, len(stacked.parameters())) == ((3,), 2)
    assert all(one.shared is shared for one in bw.unstack(stacked))
    grads = bw.grad(lambda net: each(net, X).sum())(stacked)
    assert {k: g.shape for k, g in grads.items()} == {"a": (3, 3, 3), "shared": (3,)}
    np.testing.assert_allclose(grads["shared"], 12.0)
    one = bw.stack([stacked, bw.stack([Tied(shared) for _ in range(3)])])
    assert one.shared is shared


@pytest.mark.parametrize(
    "nets",
    [
        lambda p, q: [Tied(p), Tied(p), Tied(q)],
        lambda p, q: [Tied(p), Tied(q), Tied(q)],
    ],
)
def test_a_variable_that_some_share_is_refused(nets):
    with pytest.raises(
        StructureError, match="stack: Parameter 'shared' is shared by some of the modules, but not by all"
    ):
        bw.stack(nets(bw.Parameter(jnp.ones(3)), bw.Parameter(jnp.ones(3))))


def test_a_tie_across_places_is_refused():
    a, b = Tied(bw.Parameter(jnp.ones((3, 3)))), Tied(bw.Parameter(jnp.ones((3, 3))))
    b.shared = a.a
    with pytest.raises(StructureError, match="is shared by some of the modules"):
        bw.stack([a, b])


# -- a module like any other -----------------------------------------------------------------------


@pytest.mark.parametrize("copied", [lambda n: n.clone(), copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])
def test_copies(copied):
    stacked = bw.stack([net() for _ in range(2)])
    again = copied(stacked)
    assert_same(each(again, X), each(stacked, X))
    assert again[0].weight is not stacked[0].weight
    assert len(bw.unstack(again)) == 2


def test_as_a_pytree():
    stacked = bw.stack([nn.Linear(2, in_features=3) for _ in range(2)])
    doubled = jax.tree.map(lambda x: 2 * x, stacked)
    assert_same(each(doubled, X), 2 * each(stacked, X))
    raw = jax.vmap(lambda n, x: n.weight @ x[0], in_axes=(0, None))(stacked, X)
    assert_same(raw, stacked.weight.value @ X[0])


def test_files(tmp_path):
    stacked, other = bw.stack([net() for _ in range(2)]), bw.stack([net() for _ in range(2)])
    each(stacked, X)
    stacked.save(tmp_path / "s.safetensors")
    other.load(tmp_path / "s.safetensors")
    assert_same(dict(other.state_dict()), dict(stacked.state_dict()))
    with pytest.raises(ValueError, match=r"0\.weight: the network has"):
        net().load(tmp_path / "s.safetensors")


def test_modes_freezing_dtypes_and_drawing_again():
    stacked = bw.stack([net() for _ in range(2)])
    before = dict(stacked.state_dict())
    stacked.eval()
    each(stacked, X)
    assert_same(dict(stacked.state_dict()), before)
    stacked.freeze("0.*")
    assert all(not one[0].weight.trainable for one in bw.unstack(stacked))
    stacked.initialize(init=init.normal(1.0), pattern="2.weight")
    first, second = stacked[2].weight.value
    assert not np.allclose(first, second)
    assert bw.unstack(stacked.to(jnp.bfloat16))[1][0].weight.dtype == jnp.bfloat16


def test_an_optimiser_treats_each_as_if_alone():
    nets = [net() for _ in range(2)]
    stacked = bw.stack(nets)
    data = jnp.stack([X, X + 1])

    def train(net, x, call):
        opt = optim.adam(net, 1e-2)

        @bw.compile
        def step(x):
            loss, grads = bw.value_and_grad(lambda x: ((call(net, x) - 1) ** 2).sum(), net)(x)
            opt.step(grads)
            return loss

        for _ in range(3):
            step(x)
        assert step.stats().compilations == 1

    train(stacked, data, lambda net, x: each(net, x, in_axes=(0, 0)))
    for one, x, mine in zip(nets, data, bw.unstack(stacked), strict=True):
        train(one, x, lambda net, x: net(x))
        assert_same(dict(mine.state_dict()), dict(one.state_dict()), 5e-6)


def test_inside_a_compiled_function():
    nets = [net() for _ in range(2)]

    @bw.compile
    def step(x):
        stacked = bw.stack(nets)
        y = each(stacked, x)
        for one, again in zip(nets, bw.unstack(stacked), strict=True):
            for mine, new in zip(one.buffers(), again.buffers(), strict=True):
                mine.value = new.value
        return y

    twins = [one.clone() for one in nets]
    assert_same(step(X), jnp.stack([one(X) for one in twins]), 2e-6)
    assert_same([dict(n.state_dict()) for n in nets], [dict(n.state_dict()) for n in twins], 2e-6)


def test_modules_without_variables():
    stacked = bw.stack([nn.ReLU(), nn.ReLU()])
    assert_same(each(stacked, X, in_axes=(None, 0)), jax.nn.relu(X))


def test_containers_and_plain_attributes():
    class Net(bw.Module):
        def __init__(self):
            self.layers = {"a": [nn.Linear(3, in_features=3)], "b": (nn.Tanh(), nn.Dropout(0.0))}
            self.size, self.name = 3, "net"

        def forward(self, x):
            return self.layers["b"][1](self.layers["b"][0](self.layers["a"][0](x)))

    nets = [Net() for _ in range(2)]
    stacked = bw.stack(nets)
    assert (stacked.size, stacked.name, len(stacked.layers["b"])) == (3, "net", 2)
    assert_same(each(stacked, X), jnp.stack([one(X) for one in nets]))


def test_compiled_modules_count_as_what_they_compile():
    nets = [nn.Linear(2, in_features=3) for _ in range(2)]
    stacked = bw.stack([bw.compile(one) for one in nets])
    assert_same(each(bw.compile(stacked), X), jnp.stack([one(X) for one in nets]))
    assert len(bw.unstack(bw.compile(stacked))) == 2


def test_printed():
    assert "stack of 2" in repr(bw.stack([nn.Linear(2, in_features=3), nn.Linear(2, in_features=3)]))


def waiting():
    return nn.Sequential(nn.Linear(3), nn.BatchNorm1d(), nn.Linear(2))


@pytest.mark.parametrize("compiled", [False, True])
def test_shapes_are_inferred_in_the_lanes(compiled):
    """The values are those that the modules would have got by themselves."""
    bw.seed(1)
    nets = bw.stack([waiting() for _ in range(3)])
    run = bw.compile(each) if compiled else each
    got = run(nets, X)
    bw.seed(1)
    alone = [waiting() for _ in range(3)]
    assert_same(got, jnp.stack([net(X) for net in alone]), rtol=1e-5)
    for one, net in zip(bw.unstack(nets), alone, strict=True):
        assert_same(one.state_dict(), net.state_dict(), rtol=1e-5)
    nets = bw.stack([waiting() for _ in range(3)])
    bw.vmap(lambda net: jax.lax.pmean(net(X), "net"), axis_name="net", out_axes=None)(nets)
    assert nets[0].weight.shape == (3, 3, 3)


class Sums(bw.Module):
    """State that is written as it is, whatever lanes there are."""

    def __init__(self):
        self.total = bw.Buffer(shape=(None,), init=init.zeros())

    def build(self, x):
        self.total.shape = x.shape[1:]

    def forward(self, x):
        self.total.value += x.sum(0)
        return x + self.total.value


@pytest.mark.parametrize("compiled", [False, True])
def test_shapes_of_state_that_differs_are_inferred_in_the_lanes(compiled):
    nets = bw.stack([Sums() for _ in range(3)])
    run = bw.vmap(lambda net, x: net(x))
    run = bw.compile(run) if compiled else run
    inputs = jnp.stack([X, 2 * X, 3 * X])
    for n in (1, 2):
        got = run(nets, inputs)
        assert_same(nets.total.value, n * inputs.sum(1))
        assert_same(got, inputs + n * inputs.sum(1, keepdims=True))
    shared = Sums()
    with pytest.raises(TraceLeakError, match="one variable that they share"):
        bw.vmap(lambda net, x: shared(net(x)))(bw.stack([Sums() for _ in range(3)]), inputs)


@pytest.mark.parametrize("compiled", [False, True])
def test_shapes_are_inferred_beside_stacks_whose_shapes_are_known(compiled):
    known = bw.stack([nn.Linear(3, in_features=3) for _ in range(3)])
    inputs = jnp.stack([X, 2 * X, 3 * X])

    def lanes(known, waiting, bias, x):
        return bw.vmap(lambda known, waiting, bias, x: waiting(known(x)) + bias.value)(known, waiting, bias, x)

    def steps(known, waiting, bias, x):
        return bw.scan(lambda x, step: (step[1](step[0](x)) + step[2], None), x[0], (known, waiting, bias))[0]

    for run in (lanes, steps):
        waiting = bw.stack([nn.Linear(3) for _ in range(3)])
        got = (bw.compile(run) if compiled else run)(known, waiting, known.bias, inputs)
        want, x = [], X
        for a, b, own in zip(bw.unstack(known), bw.unstack(waiting), inputs, strict=True):
            x = b(a(own if run is lanes else x)) + a.bias.value
            want.append(x)
        assert_same(got, jnp.stack(want) if run is lanes else x, rtol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
def test_shapes_are_inferred_in_the_steps(compiled):
    def run(blocks, x, shifts):
        return bw.scan(lambda x, step: (step[0](x) + step[1], None), x, (blocks, shifts))[0]

    blocks = bw.stack([nn.Linear(3) for _ in range(4)])
    got = (bw.compile(run) if compiled else run)(blocks, X, jnp.arange(4.0))
    want = X
    for i, block in enumerate(bw.unstack(blocks)):
        want = block(want) + i
    assert_same(got, want, rtol=1e-5)


def test_a_failed_inference_leaves_shapes_open():
    nets = bw.stack([nn.Linear(2) for _ in range(3)])
    with pytest.raises(ValueError, match="of my own"):
        bw.vmap(lambda net: (net(X), error("of my own")))(nets)
    assert nets.weight.shape == (3, 2, None)


def error(text):
    raise ValueError(text)


# -- inside JAX's own transforms -------------------------------------------------------------------


def test_lanes_and_steps_of_jax_have_one_of_the_modules():
    nets = [nn.Linear(3, in_features=3) for _ in range(3)]
    stacked = bw.stack(nets)
    expected = np.stack([n(X) for n in nets])
    mapped = jax.vmap(lambda n, x: n(x), in_axes=(0, None))
    np.testing.assert_allclose(mapped(stacked, X), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(mapped)(stacked, X), expected, rtol=1e-6)
    carried, _ = jax.lax.scan(lambda x, n: (n(x), None), X, stacked)
    np.testing.assert_allclose(carried, nets[2](nets[1](nets[0](X))), rtol=1e-5)
    doubled = jax.vmap(lambda n: jax.tree.map(lambda a: 2 * a, n))(stacked)
    assert len(bw.unstack(doubled)) == 3  # a stack again
    np.testing.assert_allclose(each(doubled, X), 2 * expected, rtol=1e-6)
    slope = jax.grad(lambda n: mapped(n, X).sum())(stacked)
    assert slope.weight.stacked == 1 and slope.weight.shape == (3, 3, 3)


def test_one_that_is_taken_out_is_no_stack():
    nets = [nn.Linear(3, in_features=3) for _ in range(3)]
    one = jax.tree.map(lambda a: a[1], bw.stack(nets))
    np.testing.assert_array_equal(one(X), nets[1](X))
    one.weight.value = 2 * one.weight.value
    assert one.clone()(X).shape == X.shape and repr(one) == "Linear(3 → 3)"
    inside = jax.jit(lambda n: jax.tree.map(lambda a: a[1], n)(X))(bw.stack(nets))
    np.testing.assert_allclose(inside, nets[1](X), rtol=1e-6)


def test_of_stacks_of_blocks():
    stacked = bw.stack([nn.Repeat(lambda: nn.Linear(3, in_features=3), 2) for _ in range(2)])
    raw = jax.vmap(lambda n, x: n(x), in_axes=(0, None))(stacked, X)
    np.testing.assert_allclose(raw, each(stacked, X), rtol=1e-6)
    np.testing.assert_allclose(jax.tree.map(lambda a: a[0], stacked)(X), raw[0], rtol=1e-6)
