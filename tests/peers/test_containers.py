"""Threads on modules in plain Python lists and dicts."""

from __future__ import annotations

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn, optim
from brickwork.errors import StructureError

X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


class ListNet(nn.Module):
    def __init__(self, depth=2):
        self.layers = [nn.Linear(4) for _ in range(depth)]

    def forward(self, x):
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return x


def names(net):
    return [name for name, _ in net.named_parameters()]


def test_pytorch_59925_a_list_of_layers_is_trained():
    """Layers in a plain list were not registered, silently: no parameters, nothing for the optimiser, ``train()``
    and ``eval()`` passed them by. Here they are found like any attribute, and trained.
    """
    net = ListNet()
    assert names(net) == ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]
    net.eval()
    assert not any(layer.training for layer in net.layers)
    net.train()
    opt = optim.sgd(net, 0.1)
    net(X)
    before = [np.array(p) for p in net.parameters()]

    @bw.compile
    def step(x):
        loss, grads = bw.value_and_grad(lambda x: (net(x) ** 2).mean(), net)(x)
        opt.step(grads)
        return loss

    step(X)
    assert all(np.any(old != np.asarray(p)) for old, p in zip(before, net.parameters(), strict=True))


def test_pytorch_715_lists_in_lists_with_functions_among_them():
    """The layers of ``self.hids.append([Linear, activation])`` were not among the parameters. Here a list appended
    to later, and lists inside it, are followed; functions stay functions.
    """

    class SNLINet(nn.Module):
        def __init__(self):
            self.hids = []
            for _ in range(2):
                self.hids.append([nn.Linear(4), jnp.tanh])
            self.classifier = nn.Linear(3)

        def forward(self, x):
            for linear, activation in self.hids:
                x = activation(linear(x))
            return self.classifier(x)

    net = SNLINet()
    assert bw.compile(net)(X).shape == (3, 3)
    assert names(net)[:4] == ["hids.0.0.weight", "hids.0.0.bias", "hids.1.0.weight", "hids.1.0.bias"]


def test_pytorch_632_dicts_of_dicts_of_parameters():
    """Parameters in a dict of dicts with integer keys were not registered. Here their keys are part of their names."""

    class Relations(nn.Module):
        def __init__(self):
            self.weights = {}
            for relation in range(2):
                self.weights[relation] = {"w": bw.Parameter(jnp.ones((1, 2))), "b": bw.Parameter(jnp.zeros((1, 4)))}

    assert names(Relations()) == ["weights.0.w", "weights.0.b", "weights.1.w", "weights.1.b"]


def test_pytorch_1053_conversions_reach_lists():
    """``a.cuda()`` left the layers of a list on the CPU. Here moving and casting reach them, and so do devices."""
    net = ListNet()
    net(X)
    device = jax.devices()[1]
    net.to(device)
    assert net.device == device
    net.to(jnp.bfloat16)
    assert all(p.dtype == jnp.bfloat16 for p in net.parameters())


def test_pytorch_666_printing_shows_what_is_in_a_list():
    """Printing a network left out its lists, so that people took them for missing. Here they are shown."""
    assert repr(ListNet()) == ("ListNet(\n  (layers): list(\n    (0): Linear(? → 4)\n    (1): Linear(? → 4)\n  )\n)")


def test_pytorch_72580_a_list_assigned_after_the_constructor():
    """Assigning a list does not do what assigning its items does, without a warning; a thesis was hit by it.
    Here it does, at any time, also when a list replaces a module.
    """
    net = ListNet(1)
    net.extra = nn.Linear(2)
    net.extra = [nn.Linear(2), nn.Linear(2)]
    assert names(net)[2:] == ["extra.0.weight", "extra.0.bias", "extra.1.weight", "extra.1.bias"]


def test_pytorch_53179_a_list_of_parameters_and_train():
    """``train()`` on a network with a ``ParameterList`` warned of an attribute that cannot be set. Here a list of
    parameters needs no class of its own, and ``train()`` says nothing.
    """

    class Model(nn.Module):
        def __init__(self):
            self.list = [bw.Parameter(1.0) for _ in range(2)]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = Model().eval().train()
    assert names(net) == ["list.0", "list.1"]


def test_pytorch_110357_parameters_can_be_gone_through_twice():
    """``parameters()`` is a generator: kept in a dict, it was empty the second time. Here it is a list; and what
    can be read only once is refused as an attribute.
    """
    net = ListNet()
    groups = {"param": net.parameters()}
    assert len(list(groups["param"])) == len(list(groups["param"])) == 4
    with pytest.raises(StructureError, match=r"ListNet\.layers is a generator.*make it a list"):
        net.layers = (nn.Linear(4) for _ in range(2))
    with pytest.raises(StructureError, match=r"ListNet\.layers is a map"):
        net.layers = map(nn.Linear, (4, 4))


def test_jasmine_228_a_plain_list_in_a_compiled_gradient():
    """From one release on, a plain list of blocks was an error ("unexpected Arrays in static attribute"), with five
    ways out to choose from. Here it goes through every transform as it is.
    """
    net = ListNet()
    grads = bw.compile(lambda x: bw.grad(lambda x: net(x).sum(), net)(x))(X)
    assert sorted(grads) == sorted(names(net))
    leaves, tree = jax.tree.flatten(net)
    assert len(leaves) == 4
    assert type(jax.tree.unflatten(tree, leaves).layers[1]) is nn.Linear


def test_bonsai_47_a_list_held_by_a_list_of_modules():
    """The same error, from lists in modules in lists of modules. Here nesting has no limit."""
    net = nn.Sequential(ListNet(1), nn.Sequential(ListNet(1)))
    net.blocks = [[ListNet(1)], {"a": ListNet(1)}]
    assert names(net)[::2] == [
        "0.layers.0.weight",
        "1.0.layers.0.weight",
        "blocks.0.0.layers.0.weight",
        "blocks.1.a.layers.0.weight",
    ]


def test_flax_5223_a_list_with_more_than_ten_items_stays_in_order():
    """``nnx.List`` is a dict with its indices as strings. Here it is a list: the eleventh layer comes after the
    tenth, in names, in state and in files, and indices are integers.
    """
    net = ListNet(12)
    net(X)
    order = [f"layers.{i}.weight" for i in range(12)]
    assert names(net)[::2] == order
    assert list(net.state_dict())[::2] == order
    assert isinstance(net.layers, list)
    assert net.layers.index(net.layers[10]) == 10
    fresh = ListNet(12)
    fresh.load_state_dict(net.state_dict())
    np.testing.assert_array_equal(fresh(X), net(X))


@pytest.mark.parametrize(
    "change",
    [
        lambda layers: layers.append(nn.Linear(2)),
        lambda layers: layers.pop(),
        lambda layers: layers.__setitem__(0, nn.Linear(4)),
        lambda layers: layers.__delitem__(slice(0, 1)),
        lambda layers: layers.reverse(),
        lambda layers: layers.insert(1, nn.Linear(4)),
        lambda layers: layers.__imul__(2),
    ],
    ids=["append", "pop", "replace", "slice", "reverse", "insert", "repeat"],
)
def test_pytorch_135640_changes_after_compiling_are_seen(change):
    """A missing ``ModuleList`` costs hours because nothing tells. Here there is nothing to miss: a list that was
    changed after compiling gives what the eager network gives.
    """
    net = ListNet()
    compiled = bw.compile(net)
    first = compiled(X)
    change(net.layers)
    np.testing.assert_allclose(compiled(X), net(X), rtol=1e-6, atol=1e-6)
    assert compiled(X).shape != first.shape or not np.allclose(compiled(X), first)


def test_torchfix_31_a_container_that_cannot_be_followed_is_refused():
    """A linter was asked to warn of layers in containers that are not registered. Here a container whose order or
    changes could not be followed is an error at the assignment.
    """
    net = ListNet()
    with pytest.raises(StructureError, match=r"set that holds modules or parameters.*Use a plain list or dict"):
        net.pool = {nn.Linear(1), nn.Linear(2)}


def test_pytorch_59925_layers_reached_through_a_closure_only():
    """The same silence, further away: a layer that only a function knows. Such a layer is no part of the network
    here either; a compiled function finds it all the same, and it can be named for gradients.
    """
    hidden = nn.Linear(4)

    class Net(nn.Module):
        def __init__(self, fn):
            self.fn = fn

        def forward(self, x):
            return self.fn(x)

    def check(net):
        assert names(net) == []
        with pytest.raises(TypeError, match="Net has no parameters to differentiate by"):
            bw.grad(lambda x: net(x).sum(), net)(X)
        f = bw.compile(net)
        before = f(X)
        hidden.bias[:] += 1
        np.testing.assert_allclose(f(X), before + 2, rtol=1e-5)
        assert sorted(bw.grad(lambda x: net(x).sum(), hidden)(X)) == ["bias", "weight"]

    check(Net(lambda x: hidden(x) * 2))
    check(Net(functools.partial(lambda layer, x: layer(x) * 2, hidden)))
