"""Devices, and moving things to them."""

from __future__ import annotations

import collections
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec as P

from brickwork import device as device_module
from brickwork.device import cpu, gpu, num_gpus, to, try_all_gpus, try_gpu

Point = collections.namedtuple("Point", "x y")


class FakeGPU:
    """Stands for a GPU where the functions only hand it out."""

    platform = "gpu"


@pytest.fixture
def two_gpus(monkeypatch):
    found = [FakeGPU(), FakeGPU()]
    monkeypatch.setattr(device_module, "_gpus", lambda: list(found))
    return found


@pytest.fixture
def no_gpus(monkeypatch):
    monkeypatch.setattr(device_module, "_gpus", list)
    monkeypatch.setattr(device_module, "_present", lambda: "TFRT_CPU_0")
    monkeypatch.setattr(device_module, "_platforms", lambda: None)


# --- which devices there are ----------------------------------------------------------------------


def test_cpu():
    assert cpu() is jax.local_devices(backend="cpu")[0]


def test_without_gpus(no_gpus):
    assert num_gpus() == 0
    assert try_gpu() == try_gpu(3) == cpu()
    assert try_all_gpus() == [cpu()]


def test_with_gpus(two_gpus):
    assert num_gpus() == 2
    assert [gpu(), gpu(1), gpu(np.int64(0))] == [two_gpus[0], two_gpus[1], two_gpus[0]]
    assert [try_gpu(), try_gpu(1), try_gpu(2)] == [*two_gpus, cpu()]
    assert try_all_gpus() == two_gpus


def test_the_real_machine():
    try:
        found = jax.local_devices(backend="gpu")
    except RuntimeError:
        found = []
    assert num_gpus() == len(found)
    assert try_gpu() == (found[0] if found else cpu())


def message_of(error, call, *arguments):
    with pytest.raises(error) as caught:
        call(*arguments)
    return str(caught.value)


def test_no_gpu_at_all(no_gpus, monkeypatch):
    monkeypatch.setattr("os.path.exists", lambda path: False)
    assert message_of(RuntimeError, gpu) == (
        "gpu(0): JAX sees no GPU. With an NVIDIA GPU and its driver, pip install 'jax[cuda12]' (or "
        "cuda13); try_gpu() falls back on the CPU. Devices: TFRT_CPU_0"
    )
    monkeypatch.setattr("os.path.exists", lambda path: path.startswith("/proc/driver/nvidia"))
    assert message_of(RuntimeError, gpu, 1) == (
        "gpu(1): JAX sees no GPU. This machine has an NVIDIA driver, so JAX is probably installed "
        "without CUDA: pip install 'jax[cuda12]' (or cuda13). Devices: TFRT_CPU_0"
    )
    monkeypatch.setattr(device_module, "_platforms", lambda: "cpu")
    assert message_of(RuntimeError, gpu) == (
        "gpu(0): JAX sees no GPU. Its setting JAX_PLATFORMS is 'cpu'; remove it to use all devices. Devices: TFRT_CPU_0"
    )


def test_no_such_gpu(two_gpus, monkeypatch):
    monkeypatch.setattr(device_module, "_present", lambda: "cuda:0, cuda:1")
    assert message_of(RuntimeError, gpu, 2) == (
        "gpu(2): no such GPU, there is gpu(0) to gpu(1). Devices: cuda:0, cuda:1"
    )
    two_gpus.pop()
    assert message_of(RuntimeError, gpu, 2).startswith("gpu(2): no such GPU, there is gpu(0). ")


def test_no_cpu(monkeypatch):
    def fail(backend=None):
        if backend == "cpu":
            raise RuntimeError("Unknown backend cpu")
        return ["cuda:0"]

    monkeypatch.setattr(jax, "local_devices", fail)
    monkeypatch.setattr(device_module, "_platforms", lambda: "cuda")
    assert message_of(RuntimeError, cpu) == (
        "cpu(): JAX runs without its CPU backend, because its setting JAX_PLATFORMS is 'cuda'; add "
        "cpu to it, as in 'cuda,cpu'. Devices: cuda:0"
    )


@pytest.mark.parametrize("call", [gpu, try_gpu])
def test_numbers_of_gpus(call):
    start = "the number of a GPU is an integer from 0 on, got "
    assert message_of(ValueError, call, -1) == start + "-1"
    assert message_of(TypeError, call, "0") == start + "'0'"
    assert message_of(TypeError, call, 0.5) == start + "0.5"


# --- moving ---------------------------------------------------------------------------------------


def test_an_array(devices):
    x = jnp.arange(3)
    y = to(x, devices[1])
    assert y.devices() == {devices[1]}
    np.testing.assert_array_equal(y, x)
    assert to(y, devices[1]) is y
    assert to(x, devices[0]) is x


def test_numpy(devices):
    values = np.ones(1 << 16, np.float32)  # large enough to be aligned by chance
    moved = to(values, devices[0])
    assert isinstance(moved, jax.Array)
    values[:] = 5
    assert (moved == 1).all()
    assert to(np.float32(2), devices[2]).devices() == {devices[2]}


def test_a_nest(devices):
    here, there = jnp.ones(2), jax.device_put(jnp.zeros(2), devices[1])
    tree = {"b": [here, there, "text"], "a": Point((here, None), 3), 1: np.ones(2, np.float32)}
    moved = to(tree, devices[1])
    assert list(moved) == ["b", "a", 1]
    assert moved["b"][1] is there
    assert (moved["b"][2], moved["a"].x[1], moved["a"].y) == ("text", None, 3)
    assert isinstance(moved["a"], Point)
    for leaf in jax.tree.leaves([moved["b"], moved["a"], moved[1]]):
        assert not isinstance(leaf, jax.Array) or leaf.devices() == {devices[1]}
    assert to(moved, devices[1]) is moved
    assert tree["b"][0] is here


def test_parts_that_are_there_stay_the_same_objects(devices):
    there = [jax.device_put(jnp.zeros(2), devices[1])]
    moved = to({"a": there, "b": jnp.ones(2)}, devices[1])
    assert moved["a"] is there


def test_containers_of_other_classes(devices):
    class Items(list):
        pass

    items = Items([jnp.ones(2)])
    items.note = "kept"
    tree = [collections.OrderedDict(b=jnp.ones(2), a=1), collections.defaultdict(list, x=[items])]
    moved = to(tree, devices[1])
    assert [type(x) for x in moved] == [collections.OrderedDict, collections.defaultdict]
    assert list(moved[0]) == ["b", "a"]
    assert (type(moved[1]["x"][0]), moved[1]["x"][0].note) == (Items, "kept")
    assert moved[1]["x"][0][0].devices() == {devices[1]}
    assert items[0].devices() == {devices[0]}


def test_other_pytrees(devices):

    jax.tree_util.register_pytree_node(
        Point2 := type("Point2", (), {"x": None}),
        lambda p: ((p.x,), None),
        lambda _, children: _with_x(Point2, children[0]),
    )
    tree = _with_x(Point2, [jnp.ones(2)])
    moved = to(tree, devices[1])
    assert moved.x[0].devices() == {devices[1]}
    assert to(moved, devices[1]) is moved


def _with_x(cls, x):
    made = cls()
    made.x = x
    return made


@pytest.mark.parametrize("tree", [None, 3, "text", [], {}, (), {"a": (1, None)}, object()])
def test_without_arrays(tree):
    assert to(tree, cpu()) is tree


def test_modules_move_themselves(devices):
    class Module:
        def to(self, target):
            self.target = target
            return self

    net = Module()
    moved = to({"net": net, "x": jnp.ones(2)}, devices[1])
    assert moved["net"] is net
    assert net.target is devices[1]
    assert to(net, devices[2]) is net


def test_variables_move_in_place(devices):
    class Box:
        def __init__(self, value):
            self.value = value

        def __jax_array__(self):
            return self.value

    box = Box(jnp.ones(2))
    assert to([box], devices[1])[0] is box
    assert box.value.devices() == {devices[1]}
    kept = box.value
    to(box, devices[1])
    assert box.value is kept


def test_shardings(devices):
    mesh = jax.sharding.Mesh(np.array(devices[:4]), ("data",))
    rows = NamedSharding(mesh, P("data"))
    x = jnp.arange(8.0).reshape(4, 2)
    placed = to({"x": x, "y": np.ones((4,), np.float32)}, rows)
    assert placed["x"].sharding == rows
    assert placed["y"].sharding == rows
    assert to(placed, NamedSharding(mesh, P("data", None))) is placed
    np.testing.assert_array_equal(to(placed["x"], devices[0]), x)


def test_inside_of_a_compiled_function(devices):
    x = jnp.ones(3)
    np.testing.assert_array_equal(jax.jit(lambda x: to(x, devices[0]) + 1)(x), x + 1)


def test_torch_tensors_are_arrays(devices):
    torch = pytest.importorskip("torch")
    moved = to([torch.ones(3)], devices[1])
    assert moved[0].devices() == {devices[1]}


@pytest.mark.parametrize("target", ["cpu", None, 0, P("data")])
def test_what_is_no_device(target):
    message = (
        f"to(tree, device) takes a device, such as bw.cpu() or bw.gpu(0), or a jax.sharding.Sharding; got {target!r}"
    )
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        to([], target)
