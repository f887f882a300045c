"""Guide, part 9: devices. Virtual CPU devices stand in for the second GPU."""

from __future__ import annotations

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn, optim

HAS_GPU = bw.num_gpus() > 0
needs_gpu = pytest.mark.skipif(not HAS_GPU, reason="needs a GPU")
no_gpu = pytest.mark.skipif(HAS_GPU, reason="there is a GPU")


@pytest.fixture
def here(devices):
    return devices[0]


@pytest.fixture
def there(devices):
    return devices[1]


def mlp():
    return nn.Sequential(nn.Linear(8), nn.ReLU(), nn.Linear(1))


def on(*shape, device):
    return jax.device_put(np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 10, device)


def test_the_cpu():
    device = bw.cpu()
    print(device)
    assert isinstance(device, jax.Device)
    assert device.platform == "cpu"


def test_the_number_of_gpus():
    assert bw.num_gpus() == sum(d.platform == "gpu" for d in jax.devices())


@no_gpu
def test_without_a_gpu():
    assert bw.num_gpus() == 0
    assert bw.try_gpu() == bw.cpu()
    assert bw.try_gpu(10) == bw.cpu()
    assert bw.try_all_gpus() == [bw.cpu()]
    with pytest.raises(RuntimeError, match=r"gpu\(0\): JAX sees no GPU\..*try_gpu\(\)|JAX_PLATFORMS"):
        bw.gpu()


@needs_gpu
def test_with_a_gpu():
    assert bw.gpu().platform == "gpu"
    assert bw.try_gpu() == bw.gpu(0)
    assert bw.try_gpu(1000) == bw.cpu()
    assert bw.try_all_gpus() == [bw.gpu(i) for i in range(bw.num_gpus())]
    with pytest.raises(RuntimeError, match=r"gpu\(1000\): no such GPU"):
        bw.gpu(1000)


def test_with_gpus_pretended(devices, monkeypatch):
    real = jax.local_devices

    def local_devices(*args, backend=None, **kwargs):
        return list(devices[:2]) if backend == "gpu" else real(*args, backend=backend, **kwargs)

    monkeypatch.setattr(jax, "local_devices", local_devices)
    assert bw.num_gpus() == 2
    assert bw.gpu() == devices[0]
    assert bw.gpu(1) == devices[1]
    assert bw.try_gpu(1) == devices[1]
    assert bw.try_gpu(2).platform == "cpu"
    assert bw.try_all_gpus() == list(devices[:2])
    with pytest.raises(RuntimeError, match=r"gpu\(2\): no such GPU, there is gpu\(0\) to gpu\(1\)"):
        bw.gpu(2)


def test_the_device_of_a_tensor(there):
    x = jnp.array([1, 2, 3])
    assert x.device == jax.devices()[0]
    assert on(3, device=there).device == there


def test_moving_a_tensor(here, there):
    x = on(2, 3, device=here)
    z = bw.to(x, there)
    assert z.device == there
    assert x.device == here
    np.testing.assert_array_equal(z, x)
    y = on(2, 3, device=there)
    assert (y + z).device == there


def test_already_there_is_the_same_object(there):
    z = on(2, 3, device=there)
    assert bw.to(z, there) is z
    nest = {"a": z, "b": [z, 1]}
    assert bw.to(nest, there) is nest


def test_a_network_that_is_there_already_keeps_its_arrays(there):
    net = mlp().to(there)
    net(on(2, 3, device=there))
    values = [p.value for p in net.parameters()]
    assert net.to(there) is net
    assert all(p.value is v for p, v in zip(net.parameters(), values, strict=True))


def test_mixing_tensors(here, there):
    """Plain arrays are JAX's business, and JAX refuses."""
    with pytest.raises(ValueError, match="incompatible devices"):
        on(3, device=here) + on(3, device=there)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_mixing_a_network_and_its_input(here, there, compiled):
    net = mlp().to(there)
    net.initialize(bw.spec(2, 3))
    net[0].weight.value, net[2].weight.value
    run = bw.compile(net) if compiled else net
    with pytest.raises(bw.errors.DeviceMismatchError) as info:
        run(on(2, 3, device=here))
    message = str(info.value)
    assert str(here) in message and str(there) in message
    assert "weight" in message
    assert "net.to(device)" in message and "bw.to(x, device)" in message
    assert isinstance(info.value, ValueError)
    if not compiled:
        assert info.value.__notes__ == ["  in net.0 (Linear(3 → 8)), called with float32[2, 3]"]
    assert run(on(2, 3, device=there)).device == there


def test_mixing_layers(here, there):
    net = mlp()
    net(on(2, 3, device=here))
    net[2].to(there)
    with pytest.raises(bw.errors.DeviceMismatchError) as info:
        net(on(2, 3, device=here))
    assert str(here) in str(info.value) and str(there) in str(info.value)
    assert info.value.__notes__[-1].startswith("  in net.2 (Linear(8 → 1))")
    with pytest.raises(bw.errors.DeviceMismatchError, match="spread over several devices"):
        net.device


def test_a_network_moved(here, there):
    net = mlp()
    expected = net(on(2, 3, device=here))
    assert net.to(there) is net
    assert net.device == there
    assert net[0].weight.device == there
    y = net(on(2, 3, device=there))
    assert y.device == there
    np.testing.assert_array_equal(y, expected)


def test_a_network_moved_before_its_shapes_are_known(here, there):
    bw.seed(0)
    net = mlp().to(there)
    y = net(on(2, 3, device=there))
    assert y.device == there
    assert net[0].weight.device == there
    bw.seed(0)
    np.testing.assert_array_equal(y, mlp()(on(2, 3, device=here)))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy])
def test_a_copy_of_a_network_moved_before_its_shapes_are_known(there, duplicate):
    """``net.to(device)`` before the first forward is a promise; a copy keeps it."""
    net = duplicate(mlp().to(there))
    assert net(on(2, 3, device=there)).device == there
    assert net[0].weight.device == there


def test_the_optimiser_follows(there):
    net = mlp().to(there)
    opt = optim.adam(net, 0.1)
    x = on(2, 3, device=there)

    @bw.compile
    def step(x):
        loss, grads = bw.value_and_grad(lambda: (net(x) ** 2).mean(), net)()
        opt.step(grads)
        return loss

    losses = [float(step(x)) for _ in range(3)]
    assert losses[2] < losses[0]
    assert step(x).device == there
    assert all(p.device == there for p in net.parameters())


def test_loading_keeps_the_network_where_it_is(there, tmp_path):
    net = mlp()
    net(np.ones((2, 3), np.float32))
    net.save(tmp_path / "net")
    other = mlp().to(there)
    other.load(tmp_path / "net")
    assert other.device == there
    np.testing.assert_array_equal(other[0].weight, net[0].weight)


def test_loading_keeps_a_drawn_network_where_it_is(there, tmp_path):
    net = mlp()
    net(np.ones((2, 3), np.float32))
    net.save(tmp_path / "net")
    net.to(there)
    net.load(tmp_path / "net")
    assert net.device == there


def test_a_numpy_input_goes_where_the_network_is(there):
    net = mlp().to(there)
    x = np.ones((2, 3), np.float32)
    assert net(x).device == there
    assert bw.compile(net)(x).device == there


def test_assigning_a_value_from_elsewhere(here, there):
    """Not a silent copy: the parameter is on the other device then, and the next call says so."""
    net = mlp().to(there)
    x = on(2, 3, device=there)
    net(x)
    net[2].bias.value = jax.device_put(jnp.zeros(1), here)
    with pytest.raises(bw.errors.DeviceMismatchError):
        net(x)


def test_the_gradient_is_on_the_device(there):
    net = mlp().to(there)
    bw.backward(lambda x: net(x).sum(), net)(on(2, 3, device=there))
    assert net[0].weight.grad.device == there


@needs_gpu
def test_on_the_gpu():
    net = mlp().to(bw.gpu())
    y = net(bw.to(jnp.ones((2, 3)), bw.gpu()))
    assert y.device == bw.gpu()
    with pytest.raises(bw.errors.DeviceMismatchError):
        net(bw.to(jnp.ones((2, 3)), bw.cpu()))
