"""Lists and dicts of layers and parameters, and layers with names in a Sequential."""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn, optim

X = jnp.ones((2, 4))


def names(net):
    return [name for name, _ in net.named_variables()]


class ListNet(nn.Module):
    def __init__(self, n=3):
        self.layers = nn.ModuleList([nn.Linear(4, bias=False) for _ in range(n)])

    def forward(self, x):
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return x


def same(a, b):
    assert len(a) == len(b)
    assert all(x is y for x, y in zip(a, b, strict=True))


# --- lists ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [nn.ModuleList, nn.ParameterList])
def test_as_a_list(kind):
    """Every operation as on a plain list."""

    def make():
        return nn.Linear(3) if kind is nn.ModuleList else nn.Parameter(jnp.ones(2))

    first, second, third, fourth = (make() for _ in range(4))
    ours, plain = kind([first, second]), [first, second]
    assert ours.append(third) is ours
    plain.append(third)
    for items in (ours, plain):
        items.insert(-1, fourth)
        items[0] = third
        items.extend(item for item in (first, second))
        items[1:3] = [fourth, fourth, first]
        del items[2]
        del items[-1]
        items += [second]
    same(ours, plain)
    same(list(ours), plain)
    same(list(reversed(ours)), plain[::-1])
    same(ours + kind([first]), [*plain, first])
    for cut in (slice(1, 3), slice(None, None, 2), slice(-2, None), slice(5, 9)):
        assert type(ours[cut]) is kind
        same(ours[cut], plain[cut])
    assert ours[-1] is plain[-1] and ours[np.int64(1)] is plain[1]
    assert ours.pop() is plain.pop() and ours.pop(0) is plain.pop(0)
    same(ours, plain)
    assert first in ours and make() not in ours
    assert len(ours.variables()) == sum(len(x.variables()) if kind is nn.ModuleList else 1 for x in {*plain})
    ours.clear()
    assert len(ours) == 0 and not ours and not kind()


def test_changes_of_a_list_are_seen_by_compiled_functions():
    net = ListNet(2)
    compiled = bw.compile(net)
    for change in (
        lambda: None,
        lambda: net.layers.append(nn.Linear(4, bias=False)),
        lambda: net.layers.insert(0, nn.Linear(4, bias=False)),
        lambda: net.layers.pop(1),
        lambda: net.layers.__setitem__(0, nn.Linear(4, bias=False)),
        lambda: net.layers.__delitem__(slice(1, None)),
    ):
        change()
        np.testing.assert_allclose(compiled(X), net(X), rtol=1e-6)


def test_a_list_is_trained_saved_and_copied(tmp_path):
    net = ListNet()
    assert names(net) == ["layers.0.weight", "layers.1.weight", "layers.2.weight"]
    assert net.layers[1].weight.name == "layers.1.weight"
    net(X)
    net.save(tmp_path / "net")
    other = ListNet()
    other.load(tmp_path / "net")
    np.testing.assert_array_equal(other(X), net(X))
    for twin in (net.clone(), pickle.loads(pickle.dumps(net)), jax.tree.map(lambda v: v, net)):
        assert type(twin.layers) is nn.ModuleList
        assert twin.layers[0] is not net.layers[0]
        np.testing.assert_array_equal(twin(X), net(X))
    shallow = copy.copy(net.layers)
    shallow.append(nn.Linear(1))
    assert len(net.layers) == 3
    opt = optim.sgd(net, 0.1)
    before = [np.asarray(p) for p in net.parameters()]
    _, grads = bw.value_and_grad(lambda x: net(x).sum(), net)(X)
    opt.step(grads)
    assert all((a != np.asarray(b)).any() for a, b in zip(before, net.parameters(), strict=True))
    assert not any(m.training for m in net.eval().modules())


def test_names_follow_the_list_and_ties_hold():
    net = ListNet()
    net(X)
    last = net.layers[2]
    del net.layers[0]
    assert last.weight.name == "layers.1.weight"
    net.layers.append(last)
    assert len(net.parameters()) == 2
    assert list(net.state_dict()) == ["layers.0.weight", "layers.1.weight"]
    twin = net.clone()
    assert twin.layers[1] is twin.layers[2]


def test_printing():
    net = nn.ModuleList([nn.Linear(4), nn.Linear(4), jax.nn.relu, nn.Linear(4), nn.Linear(5)])
    assert repr(net) == (
        "ModuleList(\n  (0-1): 2 x Linear(? → 4)\n  (2): relu\n  (3): Linear(? → 4)\n  (4): Linear(? → 5)\n)"
    )
    block = nn.Sequential(nn.Linear(4))
    assert repr(nn.ModuleList([block, block])) == (
        "ModuleList(\n  (0): Sequential(\n    (0): Linear(? → 4)\n  )\n  (1): Sequential()  (shared)\n)"
    )
    pair = nn.ModuleList([nn.Sequential(nn.Linear(4)), nn.Sequential(nn.Linear(4))])
    assert repr(pair) == "ModuleList(\n  (0-1): 2 x Sequential(\n    (0): Linear(? → 4)\n  )\n)"
    assert repr(nn.ModuleList()) == "ModuleList()"
    assert repr(nn.ModuleDict({"a": nn.ReLU(), "f": jnp.tanh})) == "ModuleDict(\n  (a): ReLU()\n  (f): tanh\n)"
    params = nn.ParameterDict({"w": jnp.ones((2, 3)), "b": None})
    assert repr(params) == "ParameterDict(\n  (w): Parameter(2, 3)\n)"


# --- dicts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [nn.ModuleDict, nn.ParameterDict])
def test_as_a_dict(kind):
    def make():
        return nn.Linear(3) if kind is nn.ModuleDict else nn.Parameter(jnp.ones(2))

    a, b, c, d = (make() for _ in range(4))
    ours, plain = kind({"b": b, "a": a}), {"b": b, "a": a}
    for items in (ours, plain):
        items["c"] = c
        items["b"] = d
        items.update({"e": a})
        items.update([("f", b), ["a", c]])
        del items["c"]
        items.setdefault("g", a)
        items.setdefault("a", a)
    assert list(ours) == list(plain) == list(ours.keys()) == ["b", "a", "e", "f", "g"]
    same(list(ours.values()), list(plain.values()))
    assert [(k, id(v)) for k, v in ours.items()] == [(k, id(v)) for k, v in plain.items()]
    assert list(reversed(ours)) == list(reversed(plain))
    assert ours["f"] is b and ours.f is b and ours.get("f") is b and ours.get("q") is None
    assert "f" in ours and "q" not in ours and len(ours) == 5
    assert ours.pop("f") is b and ours.pop("q", 3) == 3
    assert ours.popitem() == ("g", a)
    ours.update(kind({"z": b}))
    assert ours.z is b
    ours.clear()
    assert len(ours) == 0 and not kind()


def test_items_of_a_dict_are_attributes():
    net = nn.ModuleDict({"conv": nn.Linear(3), "keys": nn.ReLU()})
    new = nn.Linear(4)
    net.conv = new
    assert net["conv"] is new and "conv" not in vars(net)
    assert callable(net.keys) and list(net.keys()) == ["conv", "keys"]
    del net.conv
    assert list(net) == ["keys"]
    with pytest.raises(AttributeError, match="'ModuleDict' object has no attribute 'conv'"):
        _ = net.conv
    assert not hasattr(net, "conv")
    net.note = "an attribute like any other"
    assert vars(net)["note"] and list(net) == ["keys"]


class DictNet(nn.Module):
    def __init__(self):
        self.choices = nn.ModuleDict({"wide": nn.Linear(8), "narrow": nn.Linear(2)})

    def forward(self, x, choice):
        return self.choices[choice](x)


def test_a_dict_in_a_network():
    net = DictNet()
    assert net(X, "wide").shape == (2, 8)
    assert bw.compile(net)(X, "narrow").shape == (2, 2)
    assert list(net.state_dict())[::2] == ["choices.wide.weight", "choices.narrow.weight"]
    for twin in (net.clone(), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(twin(X, "wide"), net(X, "wide"))
    compiled = bw.compile(net)
    compiled(X, "wide")
    net.choices["wide"] = nn.Linear(3)
    assert compiled(X, "wide").shape == (2, 3)


# --- parameters -----------------------------------------------------------------------------------


def test_arrays_and_numbers_become_parameters():
    buffer = nn.Buffer(jnp.ones(1))
    values = [jnp.ones(2), np.ones((1, 2), np.float32), 0.5, 3, np.float32(2), buffer, None]
    for params in (nn.ParameterList(values), nn.ParameterDict({str(i): v for i, v in enumerate(values)}).values()):
        kinds = [type(p) for p in params]
        assert kinds == [nn.Parameter] * 5 + [nn.Buffer, type(None)]
        assert [p.shape for p in params if p is not None] == [(2,), (1, 2), (), (), (), (1,)]
        assert all(p.dtype == jnp.float32 for p in params if p is not None)
    params = nn.ParameterList([jnp.ones(2)])
    params[0] = jnp.zeros(3)
    assert params[0].shape == (3,)
    params.append(jnp.ones(1))
    params += [jnp.ones(4)]
    assert names(params) == ["0", "1", "2"]


def test_parameters_with_unknown_sizes():
    class Layer(nn.Module):
        def __init__(self):
            self.params = nn.ParameterDict({"w": nn.Parameter(shape=(3, None))})

        def build(self, x):
            self.params.w.shape = (3, x.shape[-1])

        def forward(self, x):
            return x @ self.params["w"].T

    layer = Layer()
    assert repr(layer.params) == "ParameterDict(\n  (w): Parameter(3, ?)\n)"
    assert bw.compile(layer)(X).shape == (2, 3)
    assert list(layer.state_dict()) == ["params.w"]
    loss = bw.grad(lambda x: layer(x).sum(), layer)(X)
    assert list(loss) == ["params.w"]


def test_operations_of_parameter_dicts():
    a = nn.ParameterDict({"x": jnp.ones(1), "y": jnp.ones(2)})
    b = a.copy()
    assert type(b) is nn.ParameterDict and b.x is a.x
    b["x"] = jnp.zeros(3)
    assert a.x.shape == (1,)
    assert list(a | {"z": 1.0}) == ["x", "y", "z"]
    assert list({"z": nn.Parameter(jnp.ones(1))} | a) == ["z", "x", "y"]
    a |= {"w": 2.0}
    assert list(a) == ["x", "y", "w"]
    made = a.fromkeys(["p", "q"], nn.Parameter(jnp.ones(1)))
    assert made.p is made.q and list(a.fromkeys("k")) == ["k"]


# --- Sequential with names ------------------------------------------------------------------------


def test_names_in_a_sequential():
    net = nn.Sequential({"first": nn.Linear(3), "act": jnp.tanh, "last": nn.Linear(2)})
    assert net(X).shape == (2, 2)
    assert names(net) == ["first.weight", "first.bias", "last.weight", "last.bias"]
    assert net.first is net[0] and net.act is jnp.tanh and net.last.weight.name == "last.weight"
    assert repr(net).splitlines()[1:3] == ["  (first): Linear(4 → 3)", "  (act): tanh"]
    assert repr(net[1:]) == "Sequential(\n  (act): tanh\n  (last): Linear(3 → 2)\n)"
    assert net.get_submodule("last") is net[2]
    for twin in (net.clone(), pickle.loads(pickle.dumps(net)), jax.tree.map(lambda v: v, net)):
        assert names(twin) == names(net)
        np.testing.assert_array_equal(twin.last.weight, net.last.weight)


def test_names_go_with_their_layers():
    net = nn.Sequential({"a": nn.Linear(3), "b": nn.ReLU(), "c": nn.Tanh()})
    a, b, c = net
    net.insert(1, nn.Identity())
    assert [path for path, _ in net.named_children()] == ["a", "1", "b", "c"]
    del net[0]
    net.append(a)
    assert [path for path, _ in net.named_children()] == ["0", "b", "c", "3"]
    assert net.b is b and not hasattr(net, "a")
    net.b = c
    assert net[1] is c
    net[1] = b
    assert net.b is b
    assert net.pop(1) is b
    net[1:2] = [nn.ReLU(), nn.ReLU()]
    assert [path for path, _ in net.named_children()] == ["0", "1", "2", "3"]
    net.extend(nn.Sequential(nn.Tanh()))
    assert len(net + nn.Sequential(nn.ReLU())) == 6
    del net[::2]
    assert len(net) == 2


def test_numbers_as_names():
    """A part of a network with the names that it has there, as in torchvision."""
    net = nn.Sequential({"0": nn.Linear(3), "3": nn.Linear(2)})
    assert names(net)[::2] == ["0.weight", "3.weight"]
    assert net[1] is getattr(net, "3")
    net.append(nn.ReLU())
    with pytest.raises(ValueError, match="two items would have the name '3'"):
        net.append(nn.ReLU())
    assert len(net) == 3


def test_a_compiled_sequential_sees_new_names():
    net = nn.Sequential({"a": nn.Linear(4), "b": nn.Tanh()})
    compiled = bw.compile(net)
    compiled(X)
    net.a = nn.Linear(3)
    assert compiled(X).shape == (2, 3)


def test_a_module_dict_makes_a_sequential():
    assert names(nn.Sequential(nn.ModuleDict({"a": nn.Linear(3, bias=False)}))) == ["a.weight"]
