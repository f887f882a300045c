"""Where variables are: those that come later go where the others were put, and what is refused changes nothing."""

from __future__ import annotations

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import brickwork as bw
from brickwork import nn, optim
from brickwork.errors import DeviceMismatchError, ShapeMismatchError

X = np.ones((4, 3), np.float32)


@pytest.fixture
def mesh(devices):
    return jax.make_mesh((2,), ("m",), axis_types=(AxisType.Auto,), devices=devices[:2])


def is_at(value, place):
    return value.sharding.is_equivalent_to(place, value.ndim)


# -- values ----------------------------------------------------------------------------------------


def test_a_value_from_the_host_goes_where_the_one_before_was(devices, mesh):
    for place in (jax.sharding.SingleDeviceSharding(devices[1]), NamedSharding(mesh, P("m"))):
        layer = nn.Linear(4, in_features=3).to(place)
        layer.weight.value = np.ones((4, 3), np.float32)  # not drawn before
        assert is_at(layer.weight.value, place)
        layer.weight.value = np.zeros((4, 3), np.float32)
        assert is_at(layer.weight.value, place)
        layer.weight.value = jnp.ones((4, 3))  # an array is taken as it is
        assert layer.weight.value.devices() == {devices[0]}
        buffer = bw.Buffer(jax.device_put(jnp.ones(2), place))
        buffer.load(np.zeros(2, np.float32))
        assert is_at(buffer.value, place)


def test_within_a_trace_it_is_a_constant(devices):
    layer = nn.Linear(4, in_features=3).to(devices[1])

    @bw.compile
    def clear(x):
        layer.weight.value = np.zeros((4, 3), np.float32)
        return layer(x)

    clear(jax.device_put(X, devices[1]))
    assert layer.weight.value.devices() == {devices[1]}
    assert not layer.weight.value.any()


def test_a_sharding_that_does_not_fit_moves_nothing(devices, mesh):
    net = nn.Sequential(nn.Linear(8), nn.Linear(7))
    net(X)
    message = (
        "to: Parameter '1.weight' of shape (7, 8) can't be placed as P('m',) on a mesh of {'m': 2}: axis 0 can't be "
        "divided into 2 parts of one size. Give a sharding that fits, or place this one by itself: "
        "bw.to(net.get_parameter(path), sharding)."
    )
    with pytest.raises(ShapeMismatchError, match=re.escape(message).replace(r"\('m',\)", r"\(.*\)")):
        net.to(NamedSharding(mesh, P("m")))
    assert net.device == devices[0]
    net(X)


def test_before_sizes_are_known(mesh):
    with pytest.raises(ShapeMismatchError, match=r"Parameter '0.bias' of shape \(8,\) .*: there is no axis 1"):
        nn.Sequential(nn.Linear(8)).to(NamedSharding(mesh, P(None, "m")))
    layer = nn.Linear(8, bias=False).to(NamedSharding(mesh, P(None, "m")))
    with pytest.raises(
        ShapeMismatchError, match=r"'weight' of shape \(8, 3\) .*: axis 1 can't be divided into 2"
    ) as info:
        layer(X)
    assert "in net (Linear(? → 8, bias=False))" in "".join(info.value.__notes__)


# -- what comes later ------------------------------------------------------------------------------


def test_spectral_norm_and_adapters_of_a_network_that_was_moved(devices, mesh):
    for place in (devices[1], NamedSharding(mesh, P())):
        x = bw.to(X, place)
        layer = nn.Linear(4, in_features=3).to(place)
        expected = layer(x).devices()
        assert nn.spectral_norm(layer)(x).devices() == expected
        net = nn.lora(nn.Sequential(nn.Linear(4, in_features=3)).to(place), "0", rank=2)
        assert all(p.value.devices() == expected for p in net.parameters())
        assert net(x).devices() == expected


def test_the_adapters_of_a_sharded_weight_are_whole(mesh):
    net = nn.lora(nn.Sequential(nn.Linear(4, in_features=3)).to(NamedSharding(mesh, P("m"))), "0", rank=3)
    assert is_at(net[0].lora_A.value, NamedSharding(mesh, P()))


def optimised(place):
    net = nn.Linear(4, in_features=3).to(place)
    opt = optim.adam(net, 1e-2)

    @bw.compile
    def step(x):
        opt.step(bw.grad(lambda x: (net(x) ** 2).sum(), net)(x))

    return net, opt, step


def test_an_optimisers_state_is_where_its_parameters_are(mesh, tmp_path):
    place = NamedSharding(mesh, P("m"))
    net, opt, step = optimised(place)

    def check():
        state = opt.state_dict()
        assert is_at(state["inner.mu.weight"], place) and is_at(state["inner.nu.bias"], place)
        assert is_at(state["inner.count"], NamedSharding(mesh, P()))

    check()
    x = bw.to(X, NamedSharding(mesh, P()))
    step(x)
    check()
    with bw.Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, net, opt, force=True)
    bw.Checkpointer(tmp_path).restore(net, opt)
    check()
    with bw.no_recompile():
        step(x)
    net, opt, _ = optimised(place)  # as in a new process
    bw.Checkpointer(tmp_path).restore(net, opt)
    check()
    assert is_at(net.weight.value, place)


def test_a_frozen_parameters_state_too(mesh):
    place = NamedSharding(mesh, P("m"))
    net, opt, _ = optimised(place)
    state = opt.state_dict()
    net.freeze("bias")
    opt.load_state_dict(state)
    net.unfreeze("bias")
    assert is_at(opt.state_dict()["inner.mu.bias"], place)


def test_a_step_inside_of_shard_map(mesh):
    """Each device has its part of a parameter that is sharded, and of the optimiser's state for it."""
    net, opt, _ = optimised(NamedSharding(mesh, P("m")))
    alone, other, step = optimised(bw.cpu())
    alone.load_state_dict({k: np.asarray(v) for k, v in net.state_dict().items()})

    def inner(x):
        opt.step(bw.grad(lambda x: jax.lax.psum((net(x) ** 2).sum(), "m"), net)(x))

    run = bw.compile(bw.shard_map(inner, mesh, P(), P()))
    for _ in range(2):
        run(X)
        step(X)
    np.testing.assert_allclose(net.weight, np.asarray(alone.weight), rtol=1e-5)
    assert run.stats().compilations == 1
    assert is_at(opt.state_dict()["inner.mu.weight"], NamedSharding(mesh, P("m")))
    assert other is not opt


PLACES = list(itertools.product([False, True], repeat=3))


@pytest.mark.parametrize(("moved", "given", "deferred"), PLACES)
@pytest.mark.parametrize("number", [0, 1])
def test_training_compiles_once(devices, moved, given, deferred, number):
    """What was where it is by default only, before the first step, is where the rest is from then on."""
    if number and not (moved and given):
        return
    device, x = devices[number], X
    net = nn.Sequential(nn.Linear(4), nn.Dropout(0.1), nn.BatchNorm1d(), nn.Linear(2))
    if not deferred:
        net(X)
    if moved:
        net.to(device)
    if given:
        x = bw.to(X, device)
    opt = optim.adam(net, 1e-2)

    @bw.compile
    def step(x):
        loss, grads = bw.value_and_grad(lambda x: (net(x) ** 2).mean(), net)(x)
        opt.step(grads)
        return loss

    step(x)
    with bw.no_recompile():
        step(x)
        step(x)


def test_what_is_only_read_goes_anywhere(devices):
    """A table that two networks on two devices use."""
    table = bw.Buffer(jnp.ones(3))
    for device in devices[:2]:
        net = nn.Linear(2, in_features=3).to(device)
        step = bw.compile(lambda x, net=net: net(x * table.value))
        assert step(bw.to(X, device)).devices() == {device}
    assert not table.value.committed


def test_data_elsewhere_moves_nothing(devices):
    net, _, step = optimised(devices[0])
    free = nn.Linear(4, in_features=3)
    with pytest.raises(DeviceMismatchError):
        step(bw.to(X, devices[1]))

    @bw.compile
    def train(x):
        free.weight.value = free.weight - bw.grad(lambda x: free(x).sum(), free)(x)["weight"]

    with pytest.raises(DeviceMismatchError):
        train(bw.to(X, devices[1]))
    assert free.device == net.device == devices[0] and not free.weight.value.committed
    train(X)
