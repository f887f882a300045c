"""Guide, part 8: files."""

from __future__ import annotations

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn, optim

X = np.asarray(jax.random.uniform(jax.random.key(0), (2, 20)))


class MLP(nn.Module):
    def __init__(self):
        self.hidden = nn.Linear(256)
        self.output = nn.Linear(10)

    def forward(self, x):
        return self.output(jax.nn.relu(self.hidden(x)))


def check_same(new, old):
    assert type(new) is type(old)
    if isinstance(old, dict):
        assert list(new) == list(old)
        for key in old:
            check_same(new[key], old[key])
    elif isinstance(old, (list, tuple)):
        assert len(new) == len(old)
        for a, b in zip(new, old, strict=True):
            check_same(a, b)
    elif isinstance(old, (jax.Array, np.ndarray)):
        assert new.dtype == old.dtype
        assert new.shape == old.shape
        assert np.asarray(new).tobytes() == np.asarray(old).tobytes()
    else:
        assert new == old


def round_trip(tree, tmp_path):
    bw.save(tmp_path / "x-file", tree)
    new = bw.load(tmp_path / "x-file")
    check_same(new, tree)
    return new


def test_a_tensor(tmp_path):
    x = jnp.arange(4)
    x2 = round_trip(x, tmp_path)
    print(x2)
    assert isinstance(x2, jax.Array)
    np.testing.assert_array_equal(x2, [0, 1, 2, 3])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "uint32", "bool", "complex64"])
def test_a_tensor_of_any_dtype(dtype, tmp_path):
    round_trip(jnp.array([[0, 1, 3]]).astype(dtype), tmp_path)


def test_a_list(tmp_path):
    x, y = jnp.arange(4), jnp.zeros(4)
    x2, y2 = round_trip([x, y], tmp_path)
    np.testing.assert_array_equal(x2, x)
    np.testing.assert_array_equal(y2, y)


def test_a_dict(tmp_path):
    mydict = {"x": jnp.arange(4), "y": jnp.zeros(4)}
    mydict2 = round_trip(mydict, tmp_path)
    np.testing.assert_array_equal(mydict2["x"], np.arange(4))


def test_a_nest(tmp_path):
    round_trip(
        {
            "layers": [{"w": jnp.ones((2, 3)), "b": None}, (jnp.zeros(0), [])],
            "step": 7,
            "rate": 0.1,
            "name": "run 1",
            "host": np.arange(3.0),
            "flag": True,
            "empty": {},
        },
        tmp_path,
    )


def test_a_named_tuple(tmp_path):
    Point = collections.namedtuple("Point", "x y")
    bw.save(tmp_path / "p", Point(jnp.ones(2), 3))
    p = bw.load(tmp_path / "p")
    assert p._fields == ("x", "y")
    np.testing.assert_array_equal(p.x, np.ones(2))
    assert p.y == 3


def test_an_mlp_into_a_fresh_clone(tmp_path):
    net = MLP()
    Y = net(X)
    net.save(tmp_path / "mlp.params")
    clone = MLP()
    report = clone.load(tmp_path / "mlp.params")
    assert not report
    clone.eval()
    Y_clone = clone(X)
    assert (Y_clone == Y).all()
    np.testing.assert_array_equal(bw.compile(clone)(X), bw.compile(net)(X))


def test_state_dict_through_save_and_load(tmp_path):
    net = MLP()
    Y = net(X)
    bw.save(tmp_path / "mlp.params", net.state_dict())
    clone = MLP()
    clone.load_state_dict(bw.load(tmp_path / "mlp.params"))
    np.testing.assert_array_equal(clone(X), Y)


def test_the_file_is_an_ordinary_safetensors_file(tmp_path):
    from safetensors.numpy import load_file

    net = MLP()
    net(X)
    net.save(tmp_path / "mlp.safetensors")
    arrays = load_file(tmp_path / "mlp.safetensors")
    assert {k: v.shape for k, v in arrays.items()} == {
        "hidden.weight": (256, 20),
        "hidden.bias": (256,),
        "output.weight": (10, 256),
        "output.bias": (10,),
    }
    np.testing.assert_array_equal(arrays["hidden.weight"], net.hidden.weight)


def test_the_first_two_layers_into_another_network(tmp_path):
    def make(classes):
        return nn.Sequential(nn.Linear(16), nn.Linear(8), nn.ReLU(), nn.Linear(classes))

    old, new = make(10), make(3)
    old(X)
    old[:2].save(tmp_path / "first-two")
    assert list(bw.load(tmp_path / "first-two")) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    new[:2].load(tmp_path / "first-two")
    Y = new(X)
    assert Y.shape == (2, 3)
    np.testing.assert_array_equal(new[0].weight, old[0].weight)
    np.testing.assert_array_equal(new[:3](X), old[:3](X))
    # the rest has weights of its own
    assert new[3].weight.shape == (3, 8)


def test_the_same_without_a_slice(tmp_path):
    old = nn.Sequential(nn.Linear(16), nn.Linear(8))
    old(X)
    old.save(tmp_path / "old")
    new = nn.Sequential(nn.Linear(16), nn.Linear(8), nn.ReLU(), nn.Linear(3))
    report = new.load(tmp_path / "old", strict=False)
    assert report.missing == ["3.weight", "3.bias"]
    assert report.unexpected == []
    np.testing.assert_array_equal(new[1].weight, old[1].weight)


def test_under_other_names(tmp_path):
    net = MLP()
    Y = net(X)
    net.save(tmp_path / "mlp")
    other = nn.Sequential(nn.Linear(256), nn.ReLU(), nn.Linear(10))
    other.load(tmp_path / "mlp", rename={r"^hidden": "0", r"^output": "2"})
    np.testing.assert_array_equal(other(X), Y)


def test_buffers_and_the_optimiser(tmp_path):
    def make():
        bw.seed(0)
        net = nn.Sequential(nn.Linear(8), nn.BatchNorm1d(), nn.Linear(1))
        return net, optim.adam(net, 0.01)

    def step(net, opt):
        loss, grads = bw.value_and_grad(lambda x: (net(x) ** 2).mean(), net)(X)
        opt.step(grads)
        return loss

    net, opt = make()
    for _ in range(3):
        step(net, opt)
    net.save(tmp_path / "net")
    opt.save(tmp_path / "opt")
    again, opt2 = make()
    again.load(tmp_path / "net")
    opt2.load(tmp_path / "opt")
    np.testing.assert_array_equal(again[1].running_mean, net[1].running_mean)
    for _ in range(2):
        assert float(step(net, opt)) == float(step(again, opt2))
    for a, b in zip(net.variables(), again.variables(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_saving_over_an_old_file(tmp_path):
    net = MLP()
    net(X)
    path = tmp_path / "mlp"
    net.save(path)
    old = bw.load(path)
    before = np.array(old["hidden.bias"])
    net.hidden.bias += 1
    net.save(path)
    np.testing.assert_array_equal(old["hidden.bias"], before)
    np.testing.assert_array_equal(bw.load(path)["hidden.bias"], before + 1)
    assert [p.name for p in tmp_path.iterdir()] == ["mlp"]


def test_loading_from_the_file_a_network_came_from_and_training_on(tmp_path):
    """Loaded arrays are views of the file; a compiled step that donates them leaves it as it is."""
    net = MLP()
    net(X)
    path = tmp_path / "mlp"
    net.save(path)
    content = path.read_bytes()
    net.load(path)
    opt = optim.sgd(net, 0.1)

    @bw.compile
    def step(x):
        loss, grads = bw.value_and_grad(lambda: (net(x) ** 2).mean(), net)()
        opt.step(grads)
        return loss

    step(X)
    step(X)
    assert path.read_bytes() == content
