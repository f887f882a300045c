"""Encodings: equal for equal structure, different for what matters, and enough to rebuild from."""

from __future__ import annotations

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brickwork import nn
from brickwork.core import Structure
from brickwork.core._structure import Static


def code(*modules):
    return Structure(modules).encoding


def test_equal_networks_have_equal_encodings():
    a, b = (nn.Sequential(nn.Linear(3), nn.ReLU()) for _ in range(2))
    assert code(a) == code(b)
    assert hash(code(a)) == hash(code(b))
    b.eval()
    assert code(a) != code(b)
    b.train()
    b[0].weight.trainable = False
    assert code(a) != code(b)


def test_ties_show():
    layer = nn.Linear(3)
    assert code(nn.Sequential(layer, layer)) != code(nn.Sequential(nn.Linear(3), nn.Linear(3)))
    a, b = nn.Linear(3), nn.Linear(3)
    assert code(a, a) != code(a, b)


@pytest.mark.parametrize(
    ("a", "b"), [(1, 1.0), (True, 1), (0.0, -0.0), ("a", b"a"), (jnp.float32, jnp.float16), ((1,), [1])]
)
def test_values_that_python_may_call_equal_but_programs_do_not(a, b):
    one, other = nn.Identity(), nn.Identity()
    one.setting, other.setting = a, b
    assert code(one) != code(other)


def test_nan_is_itself():
    assert Static(float("nan")) == Static(float("nan"))
    assert hash(Static(float("nan"))) == hash(Static(float("nan")))


def test_hooks_count():
    net = nn.Linear(2)
    before = code(net)
    with net.register_forward_hook(lambda m, a, out: out):
        during = code(net)
        assert during != before
        with net.register_forward_pre_hook(lambda m, a: None):
            assert code(net) not in (before, during)
        assert code(net) == during
    assert code(net) == before


def test_an_encoding_keeps_no_attribute_alive():
    class Thing:
        def go(self):
            return self

    net = nn.Identity()
    net.thing = Thing()
    net.method = net.thing.go
    reference = weakref.ref(net.thing)
    encoding = code(net)
    gc.collect()
    del net.thing, net.method
    assert reference() is None
    assert encoding == encoding


def test_a_pytree_is_rebuilt_with_everything():
    net = nn.Sequential(nn.Linear(2, in_features=3), jax.nn.relu, nn.BatchNorm1d(num_features=2))
    net.extra = {"list": [1, nn.Identity()], "pair": (net[0], 2.5)}
    net.register_forward_hook(lambda m, a, out: out * 2)
    net.eval()
    leaves, tree = jax.tree.flatten(net)
    again = jax.tree.unflatten(tree, leaves)
    assert code(again) == code(net)
    assert again.extra["pair"][0] is again[0]
    x = jnp.ones((4, 3))
    np.testing.assert_array_equal(again(x), net(x))
    assert [str(k[0]) for k, _ in jax.tree_util.tree_flatten_with_path(net)[0]][:2] == [".0.weight", ".0.bias"]
