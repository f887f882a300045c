"""``bw.shard_map`` on eight virtual devices: parameters and state as they are placed, random numbers, gradients."""

from __future__ import annotations

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P

import brickwork as bw
from brickwork import nn, optim
from brickwork.core import random_stream
from brickwork.core._jax import Tracer
from brickwork.errors import ControlFlowError, DeviceMismatchError, ShapeMismatchError, StructureError, TraceLeakError

X = jnp.linspace(-1.0, 1.0, 64).reshape(16, 4)
BOTH = pytest.mark.parametrize("way", [lambda f: f, bw.compile], ids=["eager", "compiled"])


@pytest.fixture
def mesh(devices):
    return Mesh(np.array(devices), ("data",))


@pytest.fixture
def grid(devices):
    return Mesh(np.array(devices).reshape(4, 2), ("data", "model"))


@pytest.fixture(autouse=True)
def _no_tracer_in_the_stream():
    yield
    assert not isinstance(random_stream()._value, Tracer)


def close(a, b):
    np.testing.assert_allclose(a, b, 1e-5, 1e-6)


def stream():
    return np.asarray(random_stream().value)


def place(variable, mesh, *spec):
    variable.value = jax.device_put(variable.value, NamedSharding(mesh, P(*spec)))


def mlp():
    return nn.Sequential(nn.Linear(8, in_features=4), nn.ReLU(), nn.Linear(4, in_features=8, bias=False))


def sharded_mlp(grid):
    """The hidden features shared out over the axis ``model``."""
    net = mlp()
    place(net[0].weight, grid, "model")
    place(net[0].bias, grid, "model")
    place(net[2].weight, grid, None, "model")
    return net


# -- values ----------------------------------------------------------------------------------------


@BOTH
def test_replicated_parameters(way, mesh):
    net = mlp()
    f = way(bw.shard_map(net, mesh, P("data"), P("data")))
    for x in (X, np.asarray(X), jax.device_put(X, NamedSharding(mesh, P("data")))):
        if way is bw.compile and x is not X and not isinstance(x, np.ndarray):
            net.to(NamedSharding(mesh, P()))
        out = f(x)
        close(out, net(np.asarray(X)))
        assert out.sharding.spec == P("data")


@BOTH
def test_sharded_parameters(way, grid):
    net = sharded_mlp(grid)
    expected = mlp()
    expected.load_state_dict(net.state_dict())
    shapes = []

    def f(x):
        shapes.append((net[0].weight.shape, net[2].weight.shape))
        return jax.lax.psum(net(x), "model")

    close(way(bw.shard_map(f, grid, P("data"), P("data")))(X), expected(X))
    assert set(shapes) == {((4, 4), (4, 4))}  # of the parts


@BOTH
def test_shapes_and_values_that_are_not_there_yet(way, mesh):
    net = nn.Sequential(nn.Linear(4), nn.BatchNorm1d())
    out = way(bw.shard_map(net, mesh, P("data"), P("data")))(X)
    assert net[0].weight.shape == (4, 4) and out.shape == (16, 4)
    wide = nn.Linear(8).to(NamedSharding(mesh, P("data")))
    out = way(bw.shard_map(wide, mesh, P(), P(None, "data")))(X)
    assert wide.weight.sharding.spec == P("data")
    close(out, np.asarray(X) @ np.asarray(wide.weight).T + np.asarray(wide.bias))


@BOTH
def test_arguments(way, mesh):
    net = nn.Linear(4, in_features=4)
    given = {"net": net, "scale": 3, "name": "text"}

    def f(given, x):
        assert given["name"] == "text"
        return {"y": given["net"](x) * given["scale"], "n": given["scale"], "none": None}

    for spec in (P(), {"net": None, "scale": None, "name": None}):
        out = way(bw.shard_map(f, mesh, (spec, P("data")), {"y": P("data"), "n": P(), "none": P()}))(given, X)
        close(out["y"], net(np.asarray(X)) * 3)
        assert int(out["n"]) == 3 and out["none"] is None
    p = bw.Parameter(jnp.arange(4.0))
    close(way(bw.shard_map(lambda p, x: x * p, mesh, (P(), P("data")), P("data")))(p, X), X * p.value)


@BOTH
def test_collectives(way, mesh):
    net = nn.Linear(4, in_features=4)

    def f(x):
        y = net(x)
        everything = jax.lax.all_gather(y, "data", tiled=True)
        return (
            jax.lax.psum(y.sum(), "data"),
            everything.sum(0)[None],
            jax.lax.ppermute(y, "data", [(i, 7 - i) for i in range(8)]),
        )

    total, sums, turned = way(bw.shard_map(f, mesh, P("data"), (P(), P("data"), P("data"))))(X)
    y = np.asarray(net(np.asarray(X)))
    close(total, y.sum())
    close(sums, np.broadcast_to(y.sum(0), (8, 4)))
    close(turned, y.reshape(8, 2, 4)[::-1].reshape(16, 4))


# -- state -----------------------------------------------------------------------------------------


@BOTH
def test_statistics_as_of_the_whole_batch(way, grid):
    net = nn.Sequential(nn.Linear(4, in_features=4), nn.BatchNorm1d(), nn.Tanh()).initialize(bw.spec(16, 4))
    expected = net.clone()
    f = way(bw.shard_map(net, grid, P("data"), P("data")))
    start = net.clone()
    out = f(X)
    close(out, jnp.concatenate([start(x) for x in jnp.split(X, 4)]))  # each part normalised by its own statistics
    for _ in range(2):
        expected(X)
    f(X)
    for a, b in zip(net.buffers(), expected.buffers(), strict=True):
        close(a, b)
    assert int(net[1].num_batches_tracked) == 2


@BOTH
def test_statistics_that_are_sharded_themselves(way, grid):
    norm = nn.BatchNorm1d(num_features=4)
    expected = norm.clone()
    for v in norm.variables():
        if v.ndim:
            place(v, grid, "model")
    way(bw.shard_map(norm, grid, P("data", "model"), P("data", "model")))(X)
    expected(X)
    close(norm.running_mean, expected.running_mean)
    close(norm.running_var, expected.running_var)
    assert norm.running_var.sharding.spec == P("model")


@BOTH
def test_statistics_where_another_argument_is_sharded_otherwise(way, grid):
    norm = nn.BatchNorm1d(num_features=4)
    expected = norm.clone()
    way(bw.shard_map(lambda x, w: norm(x), grid, (P("data"), P("model")), P("data")))(X, jnp.ones(2))
    expected(X)
    close(norm.running_var, expected.running_var)  # the batch is the same along "model", and no larger for it


@BOTH
def test_random_numbers_differ_from_device_to_device(way, mesh):
    drop = nn.Dropout(0.5)
    ones = jnp.ones((8, 32))
    f = way(bw.shard_map(drop, mesh, P("data"), P("data")))
    first, second = f(ones), f(ones)
    assert len({tuple(row) for row in np.asarray(first).tolist()}) == 8
    assert not np.array_equal(first, second)
    assert stream()[-1] == 2  # one step of the outer stream for each call
    bw.seed(0)
    np.testing.assert_array_equal(bw.vmap(drop)(ones[:, None])[:, 0], first)  # a device is as a lane
    drop.eval()
    before = stream()
    f(ones)
    np.testing.assert_array_equal(stream(), before)


@BOTH
def test_random_numbers_are_the_same_along_other_axes(way, grid):
    drop = nn.Dropout(0.5)
    out = way(bw.shard_map(drop, grid, P("data"), P("data")))(jnp.ones((4, 32)))
    assert len({tuple(row) for row in np.asarray(out).tolist()}) == 4


@BOTH
@pytest.mark.parametrize("taken", [True, False])
def test_random_numbers_in_a_branch(way, mesh, taken):
    drop = nn.Dropout(0.5)
    sign = 1.0 if taken else -1.0

    def f(x):
        return bw.cond(jax.lax.psum(x.sum(), "data") > 0, drop, lambda x: x, x)

    way(bw.shard_map(f, mesh, P("data"), P("data")))(jnp.full((8, 4), sign))
    assert stream()[-1] == taken


@BOTH
def test_writes(way, mesh):
    class Net(bw.Module):
        def __init__(self):
            self.n = bw.Buffer(jnp.zeros(()))
            self.rows = bw.Buffer(jnp.zeros((8, 4)))

    net = Net()
    place(net.rows, mesh, "data")
    x = jnp.arange(32.0).reshape(8, 4)

    def differently(x):
        net.n.value += x.sum()
        return x

    def reduced(x):
        net.n.value += jax.lax.psum(x.sum(), "data")
        net.rows.value += x
        return jax.lax.psum(net.rows.value.sum(), "data")

    with pytest.raises(TraceLeakError) as caught:
        way(bw.shard_map(differently, mesh, P("data"), P("data")))(x)
    assert str(caught.value).startswith(
        "shard_map: Buffer 'n' is placed as P(), but was written differently along 'data' of the mesh. Reduce the "
        "value first, for example with jax.lax.pmean(value, 'data'), or shard the variable."
    )
    assert float(net.n) == 0
    assert float(way(bw.shard_map(reduced, mesh, P("data"), P()))(x)) == 496
    assert float(net.n) == 496
    np.testing.assert_array_equal(net.rows, x)
    assert net.rows.sharding.spec == P("data")


@BOTH
def test_an_exception_changes_nothing(way, mesh):
    n, drop = bw.Buffer(jnp.zeros(())), nn.Dropout(0.5)
    before = stream()

    def f(x):
        n.value += 1
        drop(x)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        way(bw.shard_map(f, mesh, P("data"), P("data")))(X)
    assert float(n) == 0
    np.testing.assert_array_equal(stream(), before)


# -- gradients -------------------------------------------------------------------------------------


@BOTH
def test_gradients_inside_and_outside(way, grid):
    net = sharded_mlp(grid)
    plain = mlp()
    plain.load_state_dict(net.state_dict())
    loss, grads = bw.value_and_grad(lambda net: (net(X) ** 2).sum())(plain)
    specs = {"0.weight": P("model"), "0.bias": P("model"), "2.weight": P(None, "model")}

    def f(x):
        return jax.lax.psum(net(x), "model")

    def outside():
        return (bw.shard_map(f, grid, P("data"), P("data"))(X) ** 2).sum()

    def inside(x):
        value, mine = bw.value_and_grad(lambda x: (f(x) ** 2).sum(), net)(x)
        return jax.lax.psum(value, "data"), mine  # those of a parameter that is whole are added up by themselves

    results = way(bw.value_and_grad(outside, net))(), way(bw.shard_map(inside, grid, P("data"), (P(), specs)))(X)
    for value, mine in results:
        close(value, loss)
        assert mine.keys() == grads.keys()
        for name, g in grads.items():
            np.testing.assert_allclose(mine[name], g, 1e-4, 1e-5)
            assert mine[name].sharding.spec in (specs[name], P(*specs[name], None))


@BOTH
def test_training_steps(way, mesh):
    """Data-parallel training, with normalisation: the gradient, the optimiser and the statistics."""
    # No bias before the normalisation: its gradient is rounding noise, which Adam would blow up.
    make = lambda: nn.Sequential(
        nn.Linear(4, in_features=4, bias=False), nn.BatchNorm1d(num_features=4), nn.Linear(2, in_features=4)
    )
    bw.seed(2)
    net = make()
    bw.seed(2)
    plain = make()
    lanes = bw.shard_map(net, mesh, P("data"), P("data"))

    def loss(x):
        return jax.lax.pmean((net(x) ** 2).mean(), "data")

    def inside(x):
        value, grads = bw.value_and_grad(loss, net)(x)
        opt.step(grads)
        return value

    def outside(x):
        value, grads = bw.value_and_grad(lambda x: (lanes(x) ** 2).mean(), net)(x)
        opt.step(grads)
        return value

    def reference(x):  # eight small batches at once
        value, grads = bw.value_and_grad(lambda x: (bw.vmap(plain)(x.reshape(8, 2, 4)) ** 2).mean(), plain)(x)
        other.step(grads)
        return value

    opt, other = optim.adam(net, 1e-2), optim.adam(plain, 1e-2)
    for step in (way(bw.shard_map(inside, mesh, P("data"), P())), way(outside)):
        for _ in range(2):
            np.testing.assert_allclose(step(X), reference(X), 1e-4)
    for a, b in zip(net.variables(), plain.variables(), strict=True):
        np.testing.assert_allclose(a, b, 1e-3, 1e-4)


@BOTH
def test_backward(way, grid):
    net = sharded_mlp(grid)
    plain = mlp()
    plain.load_state_dict(net.state_dict())

    def f(x):
        return bw.backward(lambda x: jax.lax.psum((jax.lax.psum(net(x), "model") ** 2).sum(), "data"), net)(x)

    f = way(bw.shard_map(f, grid, P("data"), P()))
    for _ in range(2):
        close(f(X), bw.backward(lambda x: (plain(x) ** 2).sum(), plain)(X))
        for p, q in zip(net.parameters(), plain.parameters(), strict=True):
            np.testing.assert_allclose(p.grad, q.grad, 1e-4, 1e-5)
    assert net[0].weight.grad.sharding.spec == P("model")


# -- other transforms ------------------------------------------------------------------------------


@BOTH
def test_in_and_around_other_transforms(way, mesh):
    net = nn.Sequential(nn.Linear(4, in_features=4), nn.BatchNorm1d(num_features=4), nn.Tanh(), nn.Dropout(0.5))
    spread = bw.shard_map(net, mesh, P("data"), P("data"))
    count = net[1].num_batches_tracked

    def three(x):
        return bw.scan(lambda x, _: (net(x), None), x, length=3)[0]

    way(bw.shard_map(three, mesh, P("data"), P("data")))(X)
    assert int(count) == 3 and stream()[-1] == 1
    way(lambda x: bw.scan(lambda x, _: (spread(x), None), x, length=3)[0])(X)
    assert int(count) == 6 and stream()[-1] == 4
    way(bw.grad(lambda x: bw.remat(spread)(x).sum(), net))(X)
    way(bw.shard_map(lambda x: bw.remat(net)(x), mesh, P("data"), P("data")))(X)
    assert int(count) == 8
    way(lambda x: bw.cond(x.sum() > 1e9, spread, lambda x: x, x))(X)
    assert int(count) == 8
    net.eval()
    xs = jnp.stack([X, X + 1])
    for f in (bw.vmap(spread), bw.shard_map(bw.vmap(net), mesh, P(None, "data"), P(None, "data"))):
        close(way(f)(xs), bw.vmap(net)(np.asarray(xs)))


@BOTH
def test_repeated_blocks(way, mesh):
    repeat = nn.Repeat(lambda: nn.Sequential(nn.Linear(4), nn.BatchNorm1d(), nn.Dropout(0.1)), 3)
    way(bw.shard_map(repeat, mesh, P("data"), P("data")))(X)
    assert repeat.block[1].num_batches_tracked.value.tolist() == [1, 1, 1]
    row = nn.Sequential(*repeat).eval()
    close(way(bw.shard_map(repeat.eval(), mesh, P("data"), P("data")))(X), row(np.asarray(X)))


@BOTH
def test_statistics_under_vmap_and_shard_map(way, mesh):
    xs = jnp.stack([X, X + 1])
    for f in (
        lambda net, **options: bw.vmap(bw.shard_map(net, mesh, P("data"), P("data"), **options)),
        lambda net, **options: bw.shard_map(bw.vmap(net), mesh, P(None, "data"), P(None, "data"), **options),
    ):
        net = nn.BatchNorm1d(num_features=4)
        expected = net.clone()
        with pytest.raises(StructureError, match=r"JAX can't reduce along an axis of vmap.*check_vma=False"):
            way(f(net))(xs)
        way(f(net, check_vma=False))(xs)
        expected(xs.reshape(32, 4))
        for a, b in zip(net.buffers(), expected.buffers(), strict=True):
            close(a, b)


# -- compiling -------------------------------------------------------------------------------------


def test_compiled_once(mesh):
    net = nn.Sequential(nn.Linear(4), nn.BatchNorm1d(), nn.Dropout(0.5))
    f = bw.compile(bw.shard_map(net, mesh, P("data"), P("data")))
    for _ in range(4):
        f(X)
    assert f.stats().compilations == 1
    net.eval()
    f(X)
    net.train()
    f(X)
    assert f.stats().compilations == 2


def test_another_placement_is_another_program(grid):
    net = mlp().to(NamedSharding(grid, P()))
    plain = net.clone()

    def f(x):
        y = net(x)
        return jax.lax.psum(y, "model") if net[0].weight.shape[0] < 8 else y

    f = bw.compile(bw.shard_map(f, grid, P("data"), P("data")))
    x = np.asarray(X)
    expected = plain(x)
    close(f(x), expected)
    for _ in range(2):
        net[0].to(NamedSharding(grid, P("model")))
        net[2].to(NamedSharding(grid, P(None, "model")))
        close(f(x), expected)
        net.to(NamedSharding(grid, P()))
        close(f(x), expected)
    place(net[0].weight, grid, "model")  # without .to
    place(net[0].bias, grid, "model")
    place(net[2].weight, grid, None, "model")
    close(f(x), expected)
    assert f.stats().programs == 2


def test_arrays_that_are_on_one_device_by_default(mesh, devices):
    """What JAX created without being told where goes with what is on a mesh; what was put elsewhere doesn't."""
    net = nn.Linear(4, in_features=4).to(NamedSharding(mesh, P()))
    free = nn.Linear(4, in_features=4)  # not placed at all
    f = bw.compile(lambda x: free(net(x)))
    for _ in range(2):
        close(f(X), f(np.asarray(X)))
        close(net(X), net(np.asarray(X)))
    with pytest.raises(DeviceMismatchError, match="array argument 0 is on"):
        f(jax.device_put(X, devices[3]))
    with pytest.raises(DeviceMismatchError):
        net(jax.device_put(X, devices[3]))


def test_nets_in_turn(mesh, devices):
    """What one call used is only a hint for the next one of the same function."""
    nets = [nn.Linear(4, in_features=4) for _ in range(2)]
    nets[0].to(NamedSharding(mesh, P()))
    for n in (0, 1, 0):
        if n == 1:
            nets[0].to(devices[5])
        else:
            nets[0].to(NamedSharding(mesh, P()))
        f = bw.shard_map(lambda x: nets[n](x), mesh, P("data"), P("data"))  # noqa: B023
        close(f(X), np.asarray(X) @ np.asarray(nets[n].weight).T + np.asarray(nets[n].bias))


# -- meshes whose axes are part of types -----------------------------------------------------------


@BOTH
@pytest.mark.parametrize("entered", [True, False])
def test_explicit_axes(way, entered, devices):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    net = nn.Sequential(nn.Linear(4, in_features=4), nn.BatchNorm1d(), nn.Dropout(0.5))
    with jax.set_mesh(mesh) if entered else contextlib.nullcontext():
        f = way(bw.shard_map(net, mesh, P("data"), P("data")))
        for x in (X, jax.device_put(X, NamedSharding(mesh, P("data")))):
            if isinstance(x.sharding, NamedSharding):
                net.to(NamedSharding(mesh, P()))
            out = f(x)
        assert out.sharding.spec[0] == "data" and int(net[1].num_batches_tracked) == 2
        wide = nn.Linear(8, in_features=4).to(NamedSharding(mesh, P("data")))
        out = way(bw.shard_map(wide, mesh, P(), P(None, "data")))(X)
        close(out, np.asarray(X) @ np.asarray(wide.weight).T + np.asarray(wide.bias))
        if not entered:
            return  # JAX wants it for gradients
        opt = optim.adam(net, 1e-2)

        def step(x):
            loss, grads = bw.value_and_grad(lambda x: jax.lax.pmean((net(x) ** 2).mean(), "data"), net)(x)
            opt.step(grads)
            return loss

        step = way(bw.shard_map(step, mesh, P("data"), P()))
        losses = [float(step(X)) for _ in range(3)]
        assert np.isfinite(losses).all()


# -- errors ----------------------------------------------------------------------------------------


NET = nn.Linear(4, in_features=4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda mesh: bw.shard_map(3, mesh, P(), P()),
            TypeError,
            "shard_map: fn must be a function or a module, got 3",
        ),
        (
            lambda mesh: bw.shard_map(NET, "mesh", P(), P()),
            TypeError,
            r"mesh must be a jax\.sharding\.Mesh, got 'mesh'",
        ),
        (
            lambda mesh: bw.shard_map(NET, mesh, (P(), P()), P())(X),
            ValueError,
            r"in_specs has 2 entries, \(P\(\), P\(\)\), but the function was called with 1 argument; give one for",
        ),
        (
            lambda mesh: bw.shard_map(NET, mesh, {"x": P()}, P())(X),
            TypeError,
            r"in_specs must be a PartitionSpec, or a tuple with one entry for each argument, got \{'x': P\(\)\}",
        ),
        (
            lambda mesh: bw.shard_map(lambda *, x: x, mesh, P("data"), P("data"))(x=X),
            TypeError,
            "shard_map: <lambda> gets its arguments by position only, in the order of in_specs, but 'x' came by "
            "keyword; pass it by position, or bind it first with functools.partial",
        ),
        (
            lambda mesh: bw.shard_map(NET, mesh, ("data",), P())(X),
            TypeError,
            r"of jax\.sharding\.PartitionSpec and None",
        ),
        (
            lambda mesh: bw.shard_map(NET, mesh, (P("other"),), P("data")),
            ValueError,
            r"shard_map: in_specs\[0\] is P\('other',\), but the mesh has no axis 'other'; it has 'data'",
        ),
        (
            lambda mesh: bw.shard_map(NET, mesh, P(), {"a": P("other")}),
            ValueError,
            r"shard_map: out_specs\['a'\] is P\('other',\), but the mesh has no axis 'other'",
        ),
        (
            lambda mesh: bw.shard_map(NET, mesh, P("data", "data"), P()),
            ValueError,
            r"in_specs is P\('data', 'data'\), which shares out two axes over 'data'; only one can be",
        ),
        (
            lambda mesh: bw.shard_map(NET, mesh, P("data"), "data"),
            TypeError,
            r"out_specs must consist of jax\.sharding\.PartitionSpec and None, got 'data'",
        ),
        (
            lambda mesh: bw.shard_map(NET, mesh, P("data"), P("data"))(X[:5]),
            ShapeMismatchError,
            r"shard_map: argument x has shape \(5, 4\), and in_specs has P\('data',\) for it; its axis 0, of size 5, "
            r"can't be shared out evenly over mesh axis 'data' of size 8\. Pad or drop a last, smaller batch, or leave",
        ),
        (
            lambda mesh: bw.compile(bw.shard_map(lambda n, d: d["a"], mesh, (None, P(None, "data")), P()))(3, {"a": X}),
            ShapeMismatchError,
            r"argument d\['a'\] has shape \(16, 4\), .* its axis 1, of size 4, can't be shared out evenly",
        ),
        (
            lambda mesh: bw.shard_map(NET, mesh, P("data", None, None), P("data"))(X),
            ShapeMismatchError,
            r"argument x has shape \(16, 4\), so 2 axes, but in_specs has P\('data', None, None\) for it, with 3 "
            "entries; give at most one for each axis$",
        ),
        (
            lambda mesh: bw.shard_map(lambda x: {"s": x.sum()}, mesh, P("data"), P("data"))(X),
            ShapeMismatchError,
            r"the result\['s'\] has shape \(\), so 0 axes, but out_specs has P\('data',\) for it, with 1 entry; give "
            r"PartitionSpec\(\) for a scalar, or make it an array, x\[None\]",
        ),
        (
            lambda mesh: bw.shard_map(NET, mesh, P("data"), P())(X),
            ValueError,
            r"the result \(float32\[2, 4\]\) differs along 'data' of the mesh, but out_specs has P\(\) for it, as if "
            r"it were the same there\. Reduce it first, .* jax\.lax\.pmean\(value, 'data'\), or put the parts together",
        ),
        (
            lambda mesh: bw.shard_map(lambda x: (x, x), mesh, P("data"), [P("data")])(X),
            ValueError,
            r"out_specs=\[P\('data',\)\] does not have the structure of the result, \(float32\[2, 4\], float32",
        ),
        (
            lambda mesh: bw.shard_map(lambda x: (x, "text"), mesh, P("data"), P("data"))(X),
            TypeError,
            r"the result\[1\] is 'text'; return arrays alone, or nests of them",
        ),
        (
            lambda mesh: bw.shard_map(lambda d: d["a"], mesh, ({"b": P()},), P())({"a": X}),
            ValueError,
            r"does not have the structure of the arguments, \(\{'a': float32\[16, 4\]\}\)",
        ),
        (
            lambda mesh: bw.shard_map(lambda x: NET, mesh, P("data"), P("data"))(X),
            TypeError,
            "shard_map: the function returned a Linear; modules are changed in place",
        ),
        (
            lambda mesh: bw.shard_map(lambda x: x if x.sum() > 0 else -x, mesh, P("data"), P("data"))(X),
            ControlFlowError,
            r"x\.sum\(\) > 0.*jnp\.where",
        ),
    ],
)
def test_errors(call, error, message, mesh):
    with pytest.raises(error, match=f"(?s){message}"):
        call(mesh)
    assert not isinstance(NET.weight._value, Tracer)


# -- branches that not all devices take ------------------------------------------------------------


@pytest.mark.parametrize("layer", [nn.BatchNorm1d, nn.SyncBatchNorm])
def test_statistics_of_all_devices_in_a_branch_of_some(mesh, layer):
    """Those that don't take it would be waited for, for ever."""
    norm = layer(num_features=4)
    bodies = {
        "cond": lambda x: bw.cond(jax.lax.axis_index("data") > 0, lambda: norm(x), lambda: x),
        "switch": lambda x: bw.switch(jax.lax.axis_index("data"), [lambda: norm(x), lambda: x]),
        "while_loop": lambda x: bw.while_loop(lambda x: x.sum() > 1, lambda x: norm(x) / 2, x),
    }
    for body in bodies.values():
        run = bw.compile(bw.shard_map(body, mesh, P("data"), P("data")))
        with pytest.raises(StructureError) as info:
            run(X)
        assert str(info.value) == (
            "what is written here has to be averaged along 'data' of the mesh, in a branch or loop that not every "
            "device takes: the others would wait for ever. Call the layer outside of it, or put it into evaluation "
            "mode, net.eval(), in which nothing is written"
        )
        assert f"in net ({layer.__name__}(4))" in "".join(info.value.__notes__)
    same = bw.shard_map(
        lambda x: bw.cond(jax.lax.psum(x.sum(), "data") > 0, lambda: norm(x), lambda: x), mesh, P("data"), P("data")
    )
    assert bw.compile(same)(X).shape == X.shape  # all of them take it
    norm.eval()
    assert bw.compile(bw.shard_map(bodies["cond"], mesh, P("data"), P("data")))(X).shape == X.shape
