"""How arguments and results are described in messages."""

from __future__ import annotations

from collections import OrderedDict, namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec as P

import brickwork as bw
from brickwork import nn
from brickwork.core._calls import describe

X = jnp.ones((2, 3))
Point = namedtuple("Point", "x y")


class Net(bw.Module):
    def __init__(self):
        self.table = {"a": [1]}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (X, "float32[2, 3]"),
        ({}, "{}"),
        ({"a": X, 3: None}, "{'a': float32[2, 3], 3: None}"),
        ({"a": {"b": [X, (1.0, True)]}}, "{'a': {'b': [float32[2, 3], (1.0, True)]}}"),
        ([[[[[1]]]]], "[[[[list]]]]"),
        (dict.fromkeys("abcdefgh", 1), "{'a': 1, 'b': 1, 'c': 1, 'd': 1, 'e': 1, 'f': 1, ... 2 more}"),
        ([1] * 100, "[1, 1, 1, 1, 1, 1, ... 94 more]"),
        ({"a": [X] * 9, "b": [[X]]}, "{'a': list, 'b': [[float32[2, 3]]]}"),
        (Point(X, 2), "Point(x=float32[2, 3], y=2)"),
        (OrderedDict(a=1), "OrderedDict({'a': 1})"),
        (Net().table, "{'a': [1]}"),
        ({"k" * 100: 1}, "{'" + "k" * 39 + ": 1}"),
    ],
)
def test_describe(value, text):
    assert describe(value) == text


def test_a_container_that_holds_itself():
    value = {}
    value["a"] = value
    assert describe(value) == "{'a': {'a': {'a': {'a': dict}}}}"


def test_a_mesh_with_explicit_axes(devices):
    """JAX wants to be told how results are divided there, of what a user writes."""

    class Rows(nn.Module):
        def forward(self, x):
            return x.reshape(2, x.shape[0] // 2, 4)

    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    net = nn.Sequential(Rows())
    x = jax.device_put(jnp.ones((len(devices), 4)), NamedSharding(mesh, P("data")))
    for run in (net, bw.compile(net)):
        with pytest.raises(Exception, match="out_sharding") as info:
            run(x)
        notes = "".join(info.value.__notes__)
        assert "the array is on a mesh with explicit axes" in notes
        assert "jax.make_mesh(shape, names, axis_types=(jax.sharding.AxisType.Auto,) * len(names))" in notes
        assert "in net.0 (Rows())" in notes
    auto = jax.make_mesh((len(devices),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    assert net(jax.device_put(np.asarray(x), NamedSharding(auto, P("data")))).shape == (2, len(devices) // 2, 4)
