"""Guide, part 3: access to parameters."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn


@pytest.fixture
def net():
    net = nn.Sequential(nn.Linear(8), nn.ReLU(), nn.Linear(1))
    net(X)
    return net


X = np.asarray(jax.random.uniform(jax.random.key(0), (2, 4)))


def block1():
    return nn.Sequential(nn.Linear(8), nn.ReLU(), nn.Linear(4), nn.ReLU())


def block2():
    return nn.Sequential(*[block1() for _ in range(4)])


def test_state_dict_of_a_layer(net):
    state = net[2].state_dict()
    print(state)
    assert list(state) == ["weight", "bias"]
    assert {name: value.shape for name, value in state.items()} == {"weight": (1, 8), "bias": (1,)}
    assert all(isinstance(value, jax.Array) for value in state.values())
    np.testing.assert_array_equal(state["weight"], net[2].weight.value)


def test_a_parameter_has_type_value_and_grad(net):
    bias = net[2].bias
    assert type(bias) is bw.Parameter
    assert isinstance(bias.value, jax.Array)
    assert bias.value.shape == (1,)
    assert bias.dtype == jnp.float32
    assert bias.ndim == 1
    assert bias.size == 1
    assert bias.trainable
    assert bias.name == "2.bias"
    assert net[2].weight.grad is None


def test_grad_after_backward(net):
    loss = bw.backward(lambda x: net(x).sum(), net)(X)
    np.testing.assert_allclose(loss, np.asarray(net(X)).sum(), rtol=1e-5)
    np.testing.assert_array_equal(net[2].bias.grad, [2.0])
    assert net[2].weight.grad.shape == (1, 8)
    # a second one adds up
    bw.backward(lambda x: net(x).sum(), net)(X)
    np.testing.assert_array_equal(net[2].bias.grad, [4.0])
    net[2].bias.grad = None
    assert net[2].bias.grad is None


def test_names_and_shapes(net):
    print(*[(name, p.shape) for name, p in net[0].named_parameters()])
    print(*[(name, p.shape) for name, p in net.named_parameters()])
    assert [(name, p.shape) for name, p in net[0].named_parameters()] == [
        ("weight", (8, 4)),
        ("bias", (8,)),
    ]
    assert [(name, p.shape) for name, p in net.named_parameters()] == [
        ("0.weight", (8, 4)),
        ("0.bias", (8,)),
        ("2.weight", (1, 8)),
        ("2.bias", (1,)),
    ]


def test_by_name(net):
    np.testing.assert_array_equal(net.state_dict()["2.bias"], net[2].bias.value)
    assert net.get_parameter("2.bias") is net[2].bias
    assert net.get_submodule("0") is net[0]


def test_by_pattern(net):
    assert [name for name, _ in net.named_parameters(".*weight")] == ["0.weight", "2.weight"]
    assert [id(p) for p in net.parameters(".*weight")] == [id(net[0].weight), id(net[2].weight)]
    assert net.parameters("weight") == []  # a full match on the path
    assert [name for name, _ in net.named_parameters("0.*")] == ["0.weight", "0.bias"]
    assert [name for name, _ in net.named_parameters(r".*(weight|bias)")] == [
        "0.weight",
        "0.bias",
        "2.weight",
        "2.bias",
    ]


def test_nested_networks():
    rgnet = nn.Sequential(block2(), nn.Linear(1))
    rgnet(X)
    assert len(rgnet.parameters()) == 18
    assert [name for name, _ in rgnet.named_parameters(".*weight")] == [
        f"0.{i}.{j}.weight" for i in range(4) for j in (0, 2)
    ] + ["1.weight"]
    assert rgnet[0][1][0].bias.value.shape == (8,)
    assert list(rgnet[0][1].state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_printing_before_and_after():
    net = nn.Sequential(block1(), nn.Linear(1))
    assert str(net) == (
        "Sequential(\n"
        "  (0): Sequential(\n"
        "    (0): Linear(? → 8)\n"
        "    (1): ReLU()\n"
        "    (2): Linear(? → 4)\n"
        "    (3): ReLU()\n"
        "  )\n"
        "  (1): Linear(? → 1)\n"
        ")"
    )
    net(X)
    assert str(net) == (
        "Sequential(\n"
        "  (0): Sequential(\n"
        "    (0): Linear(4 → 8)\n"
        "    (1): ReLU()\n"
        "    (2): Linear(8 → 4)\n"
        "    (3): ReLU()\n"
        "  )\n"
        "  (1): Linear(4 → 1)\n"
        ")"
    )


def test_printing_a_parameter(net):
    text = repr(net[2].bias)
    assert text.startswith("Parameter(")
    assert "shape=(1,)" in text
    assert "dtype=float32" in text
    assert repr(nn.Linear(3).weight) == "Parameter(shape=(3, ?), dtype=float32, not drawn yet)"


def test_a_parameter_works_as_an_array(net):
    w = net[0].weight
    values = np.asarray(w)
    np.testing.assert_allclose(w + 1, values + 1)
    np.testing.assert_allclose(X @ w.T, X @ values.T, rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(w), values.sum(), rtol=1e-4)
    np.testing.assert_allclose(w[0, 1:3], values[0, 1:3])
    np.testing.assert_array_equal(jax.nn.relu(w), np.maximum(values, 0))
    assert len(w) == 8


def test_editing_the_state_dict_changes_nothing(net):
    state = net.state_dict()
    before = np.asarray(net[0].weight)
    state["0.weight"] = jnp.zeros((8, 4))
    np.testing.assert_array_equal(net[0].weight, before)
