"""Parallel, Residual, Lambda."""

from __future__ import annotations

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn
from brickwork.errors import ShapeMismatchError

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)), jnp.float32)


def double(x):
    return 2 * x


def shift(x, by=1.0):
    return x + by


@pytest.mark.parametrize(
    ("mode", "dim", "expected"),
    [
        ("concatenate", 1, lambda a, b: np.concatenate([a, b], 1)),
        ("concatenate", -1, lambda a, b: np.concatenate([a, b], -1)),
        ("stack", 0, lambda a, b: np.stack([a, b])),
        ("stack", -1, lambda a, b: np.stack([a, b], -1)),
        ("stack", 3, lambda a, b: np.stack([a, b], 3)),
        ("sum", 1, lambda a, b: a + b),
        ("mean", 1, lambda a, b: (a + b) / 2),
    ],
)
def test_modes(mode, dim, expected):
    net = nn.Parallel(double, jnp.tanh, mode=mode, dim=dim)
    a, b = np.asarray(2 * X), np.asarray(jnp.tanh(X))
    np.testing.assert_allclose(net(X), expected(a, b), rtol=1e-6)
    np.testing.assert_allclose(bw.compile(net)(X), expected(a, b), rtol=1e-6)


def test_a_tuple_of_anything():
    net = nn.Parallel(double, lambda x: {"shape": x.shape}, mode="tuple")
    first, second = net(X)
    assert first.shape == X.shape and second == {"shape": (2, 3, 4)}


def test_several_arguments_and_branches_by_name():
    net = nn.Parallel({"sum": lambda x, y, k=1: x + k * y, "product": lambda x, y, k=1: x * y}, dim=0)
    np.testing.assert_allclose(net(X, X, k=3), np.concatenate([4 * X, X * X]))
    assert repr(net) == "Parallel(concatenate, dim=0\n  (sum): <lambda>\n  (product): <lambda>\n)"
    assert repr(nn.Parallel(mode="sum")) == "Parallel(sum)"
    assert net.sum is net[0]


def test_a_slice_combines_alike():
    net = nn.Parallel(double, jnp.tanh, shift, mode="stack", dim=0)
    part = net[1:]
    assert type(part) is nn.Parallel and part(X).shape == (2, 2, 3, 4)
    assert len(net + nn.Parallel(double)) == 4 and bool(nn.Parallel())


def test_outputs_that_differ_along_the_axis_only():
    assert nn.Parallel(nn.Linear(2), nn.Linear(5), dim=-1)(X).shape == (2, 3, 7)


def test_residual_adds_the_input():
    np.testing.assert_allclose(nn.Residual(double)(X), 3 * X, rtol=1e-6)
    np.testing.assert_allclose(nn.Residual()(X), 2 * X)
    net = nn.Residual(double, shift, shortcut=jnp.tanh, activation=jax.nn.relu)
    np.testing.assert_allclose(net(X), jax.nn.relu(jnp.tanh(X) + 2 * X + 1), rtol=1e-6)
    np.testing.assert_allclose(net(np.asarray(X)), net(X))
    np.testing.assert_allclose(nn.Residual(shift)(X, 3.0), 2 * X + 3, rtol=1e-6)


def test_a_residual_block_as_in_resnet():
    def conv(n, stride=1):
        return nn.Conv2d(n, 3, stride=stride, padding=1, bias=False)

    block = nn.Residual(
        {"conv1": conv(4, 2), "bn1": nn.BatchNorm2d(), "relu": nn.ReLU(), "conv2": conv(4), "bn2": nn.BatchNorm2d()},
        shortcut=nn.Sequential(nn.Conv2d(4, 1, stride=2, bias=False), nn.BatchNorm2d()),
        activation=nn.ReLU(),
    )
    assert bw.compile(block)(jnp.ones((2, 3, 4, 4))).shape == (2, 4, 2, 2)
    assert [name for name, _ in block.named_parameters(r".*conv.*|shortcut\.0.*")] == [
        "conv1.weight",
        "conv2.weight",
        "shortcut.0.weight",
    ]
    assert type(block[:2]) is nn.Sequential


def test_nothing_is_broadcast():
    with pytest.raises(ShapeMismatchError):
        nn.Residual(lambda x: x[:, :1])(X)
    with pytest.raises(ShapeMismatchError):
        nn.Parallel(double, lambda x: x[:, :1], mode="sum")(X)


@pytest.mark.parametrize("fn", [double, jnp.tanh, jax.nn.relu, functools.partial(shift, by=2.0)])
def test_lambda_can_be_copied(fn):
    layer = nn.Lambda(fn)
    for twin in (layer.clone(), pickle.loads(pickle.dumps(layer))):
        assert repr(twin) == repr(layer)
        np.testing.assert_array_equal(twin(X), fn(X))
    if not isinstance(fn, functools.partial):
        assert layer.clone().fn is fn and pickle.loads(pickle.dumps(layer)).fn is fn


def test_lambda_prints_what_it_calls():
    assert repr(nn.Lambda(double)) == "Lambda(double)"
    assert repr(nn.Lambda(lambda x: x)) == "Lambda(<lambda>)"
    assert repr(nn.Lambda(functools.partial(shift, by=2.0))) == "Lambda(shift(..., by=2.0))"
    assert repr(nn.Lambda(functools.partial(shift, 1))) == "Lambda(shift(..., 1))"
    assert repr(nn.Lambda(jax.nn.relu)) == "Lambda(relu)"


def test_lambda_takes_all_arguments_and_hooks():
    layer = nn.Lambda(lambda x, y, *, k: x + k * y)
    net = nn.Parallel(layer, mode="sum")
    with net.capture("0") as acts:
        net(X, X, k=2)
    np.testing.assert_allclose(acts["0"], 3 * X, rtol=1e-6)


def test_clones_of_a_function_share_a_program():
    """JAX's wrapped functions are not duplicated, so that nothing is compiled again."""
    net = nn.Sequential(nn.Linear(3), jax.nn.relu)
    net(X)
    assert net.clone()[1] is jax.nn.relu
    assert pickle.loads(pickle.dumps({"net": net}))["net"][1] is jax.nn.relu
    assert pickle.loads(pickle.dumps(nn.ModuleDict({"a": jnp.tanh})))["a"] is jnp.tanh
