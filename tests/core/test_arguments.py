"""What modules remember of their construction."""

from __future__ import annotations

import enum
import gc
import pickle
import threading
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import init, nn
from brickwork.core._arguments import Left, named
from brickwork.core._seed import TooMany, aside, next_number


class Mode(enum.Enum):
    FAST = 1


class Net(bw.Module):
    def __init__(self, *args, **kwargs):
        self.args = ()


def noted(*args, **kwargs):
    return named(Net(*args, **kwargs))


def test_plain_data_is_kept():
    plain = (1, 2.5, True, None, "x", 1j, (1, [2, {"a": 3}]), Mode.FAST, jnp.float32, np.dtype("int8"), jax.nn.relu)
    assert noted(*plain, width=[1]) == {"args": plain, "kwargs": {"width": [1]}}
    normal = init.normal(0.5)
    assert noted(normal)["args"][0] is normal
    assert noted() == {}


def test_containers_are_copied():
    sizes = [1, [2]]
    net = Net(sizes)
    sizes[1].append(3)
    sizes.append(4)
    assert named(net) == {"args": ([1, [2]],)}


def test_the_rest_is_left_where_it_is():
    def local():
        return net

    net = nn.Linear(2)
    left = noted(net, np.ones(2), jnp.ones(2), local, lambda: 1, [1, net], net.weight, list(range(1001)), object())
    assert all(isinstance(x, Left) for x in left["args"])
    assert [repr(x) for x in left["args"][:3]] == ["<Linear>", "<ndarray>", "<ArrayImpl>"]
    assert repr(left["args"][3]).endswith("<locals>.local>")


def test_nothing_is_kept_alive():
    gc.collect()
    gc.disable()
    try:
        layer, table = nn.Linear(2), np.ones(2)
        refs = [weakref.ref(layer), weakref.ref(table)]
        net = Net(layer, [table], fn=lambda: (layer, net))
        del layer, table
        refs[1]()
        assert refs[1]() is None
        del net
        assert refs[0]() is None
    finally:
        gc.enable()


def test_arguments_of_layers():
    assert nn.Linear(3, bias=False).constructor_arguments() == {"out_features": 3, "bias": False}
    assert nn.ReLU().constructor_arguments() == {}
    layers = [nn.Linear(2), jnp.tanh]
    assert nn.Sequential(*layers).constructor_arguments() == {"layers": tuple(layers)}
    net = nn.Sequential({"a": layers[0]}, fold=False)
    assert net.constructor_arguments() == {"layers": ({"a": layers[0]},), "fold": False}


def test_arguments_that_are_attributes():
    class Holds(bw.Module):
        def __init__(self, body, table, *rest):
            self.body = body
            self._table = table

    body = nn.Linear(2)
    net = Holds(body, np.ones(2), 1)
    found = net.constructor_arguments()
    assert found["body"] is body
    assert found["rest"] == (1,)
    net.body = nn.Tanh()
    assert net.constructor_arguments()["body"] is net.body
    with pytest.raises(
        TypeError, match=r"its argument rest was \(<Tanh>,\), which is not plain data; keep it as an attribute"
    ):
        Holds(body, 1, nn.Tanh()).constructor_arguments()
    bare = object.__new__(Holds)
    bare._prepare()
    with pytest.raises(TypeError, match="it was not made by calling Holds, so its arguments are not known"):
        bare.constructor_arguments()


def test_pickles():
    class Local(enum.Enum):
        A = 1

    net = nn.TransformerEncoderLayer(2, activation=jax.nn.relu, dtype=jnp.bfloat16)
    assert pickle.loads(pickle.dumps(net)).constructor_arguments() == net.constructor_arguments()
    assert isinstance(named(pickle.loads(pickle.dumps(Net(Local.A))))["args"][0], Left)


def test_constructing_aside():
    bw.seed(5)
    with aside():
        a = nn.Linear(2, in_features=2)
        other = threading.Thread(target=next_number)
        other.start()
        other.join()
    assert a.weight.value.shape == (2, 2)
    assert next_number() == (5, 1)
    with aside(), aside(most=3), pytest.raises(TooMany, match="it makes more than 3 modules and parameters"):
        nn.Sequential(nn.Linear(2), nn.Linear(3))
    with aside(most_bytes=100):
        _ = nn.Linear(2, in_features=2).weight.value
        with pytest.raises(TooMany, match="it draws a value of 4,000,000 bytes"):
            _ = nn.Linear(1000, in_features=1000).weight.value
    assert next_number() == (5, 2)
