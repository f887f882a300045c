"""Loading a part of a file, and a file into a part of a network."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from tests.io.foreign import FIXTURES
from tests.io.layouts import networks

import brickwork as bw
from brickwork import nn
from brickwork.errors import CheckpointError, LoadError


def encoder():
    return nn.Sequential(nn.Linear(3, in_features=2), nn.Linear(1, in_features=3))


@pytest.fixture
def checkpoint(tmp_path):
    tree = {"epoch": 3, "model": encoder().state_dict(), "optimizer": {"state": [jnp.ones(2)], "rate": 0.1}}
    bw.save(tmp_path / "x", tree)
    return tmp_path / "x", tree


def same(net, state):
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, state[name])


def test_a_network_from_a_training_checkpoint(checkpoint):
    path, tree = checkpoint
    net = nn.Sequential(nn.Linear(3), nn.Linear(1))
    assert not net.load(path, prefix="model.")
    same(net, tree["model"])


def test_a_part_of_a_file_into_a_part_of_a_network(checkpoint):
    path, tree = checkpoint
    net = encoder()
    before = net[0].weight.numpy() if hasattr(net[0].weight, "numpy") else np.asarray(net[0].weight)
    assert not net[1].load(path, prefix="model.1.")
    np.testing.assert_array_equal(net[0].weight, before)
    same(net[1], {"weight": tree["model"]["1.weight"], "bias": tree["model"]["1.bias"]})


def test_then_rename(checkpoint):
    path, _ = checkpoint
    report = nn.Linear(3).load(path, strict=False, prefix="model.", rename={r"0\.": ""})
    assert report.unexpected == ["1.weight", "1.bias"]


def test_other_frameworks():
    net = nn.Sequential(nn.Linear(256), nn.ReLU(), nn.Linear(10))
    net.load(FIXTURES / "torch" / "mlp_ckpt.pt", prefix="model.", rename={"hidden": "0", "output": "2"})
    expected = bw.load(FIXTURES / "torch" / "mlp_ckpt.pt")["model"]
    np.testing.assert_array_equal(net[0].weight, expected["hidden.weight"])
    other = networks.MLP(sizes=False)
    other.load(FIXTURES / "paddle" / "mlp_ckpt.pdparams", prefix="model.")
    assert other.hidden.weight.shape == (256, 20)


def test_ties_of_the_part(tmp_path):
    both = nn.Module()
    both.tied = networks.tied()
    both.save(tmp_path / "x")
    apart = nn.Sequential(*(nn.Linear(n) if n else nn.ReLU() for n in (8, 0, 8, 0, 8, 0, 1)))
    assert not apart.load(tmp_path / "x", prefix="tied.")
    np.testing.assert_array_equal(apart[2].weight, apart[4].weight)


def test_a_prefix_that_nothing_has(checkpoint):
    path, _ = checkpoint
    with pytest.raises(LoadError) as info:
        encoder().load(path, prefix="net.")
    assert str(info.value) == f"{path}: no array's name begins with 'net.'; they begin with 'model.'"


def test_a_nest_without_a_prefix(checkpoint):
    path, _ = checkpoint
    with pytest.raises(CheckpointError) as info:
        encoder().load(path)
    assert str(info.value) == (
        f"{path}: holds a dict with the entries ['epoch', 'model', 'optimizer'], not a plain dict from names to "
        "arrays; load(path, prefix='model.') takes what is in 'model'"
    )


def test_many_names_are_summed_up(tmp_path):
    def one():
        return nn.Linear(1, in_features=1)

    net = nn.Module()
    net.encoder, net.head = nn.Sequential(*(nn.Sequential(one(), one()) for _ in range(12))), one()
    bw.save(tmp_path / "x", {"head.weight": jnp.ones((1, 1)), "old.bias": jnp.ones(1)})
    with pytest.raises(LoadError) as info:
        net.load(tmp_path / "x")
    lines = str(info.value).splitlines()
    assert lines[1] == "  missing (the network has it, the state does not):"
    assert lines[2] == "    encoder.0.*: 4, such as encoder.0.0.weight"
    assert lines[14] == "    head.bias"
    assert lines[15] == "  unexpected (the state has it, the network does not):"
    assert lines[16] == "    old.bias  (similar: head.bias)"
    with pytest.raises(LoadError) as info:
        nn.Sequential(*(one() for _ in range(30))).load(tmp_path / "x")
    assert "    0.*: 2, such as 0.weight" in str(info.value)
    assert "    ... and 10 more such groups" in str(info.value)
