"""GroupNorm, InstanceNorm, RMSNorm, SyncBatchNorm: state, modes, printing, and statistics over devices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

import brickwork as bw
from brickwork import nn

rng = np.random.default_rng(0)
X = jnp.asarray(rng.standard_normal((8, 3, 4)) * 2 + 1, jnp.float32)


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_printing():
    shown = {
        "BatchNorm3d(?)": nn.BatchNorm3d(),
        "BatchNorm1d(3, bias=False)": nn.BatchNorm1d(num_features=3, bias=False),
        "BatchNorm1d(affine=False, track_running_stats=False)": nn.BatchNorm1d(affine=False, track_running_stats=False),
        "SyncBatchNorm(?, axis_name='data')": nn.SyncBatchNorm(axis_name="data"),
        "InstanceNorm1d()": nn.InstanceNorm1d(),
        "InstanceNorm1d(eps=0.1)": nn.InstanceNorm1d(eps=0.1),
        "InstanceNorm2d(3)": nn.InstanceNorm2d(num_features=3),
        "InstanceNorm3d(?, affine=True, track_running_stats=True)": nn.InstanceNorm3d(
            affine=True, track_running_stats=True
        ),
        "GroupNorm(2, ?)": nn.GroupNorm(2),
        "GroupNorm(2, affine=False)": nn.GroupNorm(2, affine=False),
        "GroupNorm(2, 6, eps=0.1, bias=False)": nn.GroupNorm(2, num_channels=6, eps=0.1, bias=False),
        "RMSNorm((2, 3), eps=0.1)": nn.RMSNorm(normalized_shape=(2, 3), eps=0.1),
        "LocalResponseNorm(3, alpha=1.0)": nn.LocalResponseNorm(3, alpha=1),
        "CrossMapLRN2d(3)": nn.CrossMapLRN2d(3),
    }
    assert [repr(layer) for layer in shown.values()] == list(shown)


def test_instance_norm_moves_its_statistics():
    layer = nn.InstanceNorm1d(track_running_stats=True, momentum=0.5)
    layer(X)
    close(layer.running_mean, 0.5 * X.mean((0, 2)))
    close(layer.running_var, 0.5 + 0.5 * X.var(2, ddof=1).mean(0))
    assert int(layer.num_batches_tracked) == 0
    before = layer.running_var.value
    layer(X[:0])
    layer.eval()(X)
    close(layer.running_var, before)


def test_instance_norm_in_lanes():
    """Running statistics move as if all lanes were one batch."""
    mapped, whole = (nn.InstanceNorm1d(track_running_stats=True) for _ in range(2))
    close(bw.vmap(mapped)(X.reshape(2, 4, 3, 4)).reshape(X.shape), whole(X))
    close(mapped.running_mean, whole.running_mean)
    close(mapped.running_var, whole.running_var)


def test_half_precision():
    layer = nn.InstanceNorm1d(track_running_stats=True, affine=True, dtype=jnp.bfloat16)
    assert layer(X.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    assert (layer.weight.dtype, layer.running_var.dtype) == (jnp.bfloat16, jnp.float32)


# -- SyncBatchNorm ---------------------------------------------------------------------------------


def network(norm):
    bw.seed(0)
    return nn.Sequential(nn.Linear(3), norm)


def whole_batch(x, **options):
    """Output, gradient and statistics of a plain BatchNorm that sees everything."""
    net = network(nn.BatchNorm1d(**options))
    (_, y), grads = bw.value_and_grad(lambda x: (((y := net(x)) ** 3).sum(), y), net, has_aux=True)(x)
    return y, grads, net


ROWS = X[..., 0] + jnp.arange(8.0)[:, None]  # each part of the batch has another mean


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("axis_name", [None, "data", ("data",)])
def test_devices_share_their_statistics(devices, axis_name, compiled):
    mesh = Mesh(np.array(devices[:4]), ("data",))
    net = network(nn.SyncBatchNorm(axis_name=axis_name, momentum=0.3))

    def part(x):
        y = net(x)
        return jax.lax.psum((y**3).sum(), "data"), y

    sharded = bw.shard_map(part, mesh, (P("data"),), (P(), P("data")))
    run = bw.value_and_grad(sharded, net, has_aux=True)
    (_, y), grads = (bw.compile(run) if compiled else run)(ROWS)
    expected, wanted, plain = whole_batch(ROWS, momentum=0.3)
    close(y, expected)
    for name, grad in wanted.items():
        np.testing.assert_allclose(grads[name], grad, rtol=1e-3, atol=1e-4)
    for name, buffer in plain.named_buffers():
        close(net.state_dict()[name], buffer)


def test_without_checks_of_what_varies(devices):
    mesh = Mesh(np.array(devices[:4]), ("data",))
    net = network(nn.SyncBatchNorm())
    y = bw.shard_map(net, mesh, (P("data"),), P("data"), check_vma=False)(ROWS)
    expected, _, plain = whole_batch(ROWS)
    close(y, expected)
    close(net[1].running_var, plain[1].running_var)


def test_the_others_normalise_their_own_part(devices):
    mesh = Mesh(np.array(devices[:4]), ("data",))
    y = bw.shard_map(network(nn.BatchNorm1d()), mesh, (P("data"),), P("data"))(ROWS)
    assert float(jnp.abs(y - whole_batch(ROWS)[0]).max()) > 0.1


def test_a_sharded_batch_is_one_batch(devices):
    mesh = Mesh(np.array(devices[:4]), ("data",))
    x = jax.device_put(ROWS, NamedSharding(mesh, P("data")))
    net = network(nn.SyncBatchNorm())
    net.to(NamedSharding(mesh, P()))
    close(bw.compile(net)(x), whole_batch(ROWS)[0])


def test_lanes_share_their_statistics():
    net = network(nn.SyncBatchNorm())
    close(bw.vmap(net)(ROWS.reshape(4, 2, 3)).reshape(8, 3), whole_batch(ROWS)[0])
    one_row = network(nn.SyncBatchNorm())  # too little for one, enough for all
    close(bw.vmap(one_row)(ROWS[:, None])[:, 0], whole_batch(ROWS)[0])
    bare = nn.SyncBatchNorm(affine=False, track_running_stats=False)
    close(bw.vmap(bare)(ROWS[:, None])[:, 0], bare(ROWS))


def test_in_transforms_of_jax(devices):
    """Where an axis has a name, as for collectives."""
    expected, _, plain = whole_batch(ROWS)
    mesh = Mesh(np.array(devices[:4]), ("data",))
    for axis_name in (None, "data", ["data"]):
        net = network(nn.SyncBatchNorm(axis_name=axis_name))
        net(ROWS)
        net[1].running_mean[:], net[1].running_var[:], net[1].num_batches_tracked.value = 0, 1, 0
        pure, state = bw.functional(net)
        lanes = jax.vmap(pure, (None, 0), axis_name="data")
        close(lanes(state, ROWS.reshape(4, 2, 3))[0].reshape(8, 3), expected)
        for checked in (True, False):
            specs = {"in_specs": (P(), P("data")), "out_specs": (P("data"), P())}
            parts = jax.jit(jax.shard_map(pure, mesh=mesh, check_vma=checked, **specs))
            y, new = parts(state, ROWS)
            close(y, expected)
            close(new["1.running_var"], plain[1].running_var)


def test_outside_it_is_a_plain_one():
    for axis_name in (None, "data"):
        close(network(nn.SyncBatchNorm(axis_name=axis_name))(ROWS), whole_batch(ROWS)[0])
    layer = nn.SyncBatchNorm().eval()
    close(bw.vmap(layer)(ROWS.reshape(4, 2, 3)).reshape(8, 3), layer(ROWS))


def test_converting_in_place():
    net = nn.Sequential(nn.BatchNorm1d(num_features=3, momentum=0.5), nn.ReLU())
    step = bw.compile(lambda x: net(x))
    step(ROWS)
    weight, state = net[0].weight, net.state_dict()
    assert nn.SyncBatchNorm.convert_sync_batchnorm(net, "data") is net
    assert isinstance(net[0], nn.SyncBatchNorm)
    assert net[0].weight is weight
    assert (net[0].momentum, net[0].axis_name) == (0.5, "data")
    assert net.state_dict().keys() == state.keys()
    step(ROWS)
    assert int(net[0].num_batches_tracked) == 2
    close(net.clone().eval()(ROWS), net.eval()(ROWS))
