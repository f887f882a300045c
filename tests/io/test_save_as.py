"""Networks in the files of other frameworks, compared with files that those wrote."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from tests.io.foreign import FIXTURES
from tests.io.layouts import networks

import brickwork as bw
from brickwork import nn
from brickwork.errors import CheckpointError

ENDINGS = {"mxnet": "params", "paddle": "pdparams", "torch": "safetensors"}


def loaded(make, kind, name):
    net = make(sizes=False)
    net.load(FIXTURES / kind / f"{name}.{ENDINGS[kind]}")
    return net


def same_arrays(found, wanted):
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize(
    ("kind", "name", "make"),
    [
        ("mxnet", "mlp", networks.MLP),
        ("mxnet", "embed_lstm", networks.EmbedLSTM),
        ("paddle", "mlp", networks.MLP),
        ("paddle", "lenet_bn", networks.lenet),
        ("paddle", "tied", networks.tied),
        ("paddle", "embed_lstm", networks.EmbedLSTM),
        ("torch", "mlp", networks.MLP),
        ("torch", "lenet_bn", networks.lenet),
        ("torch", "tied", networks.tied),
        ("torch", "embed_lstm", networks.EmbedLSTM),
    ],
)
def test_the_file_that_the_framework_wrote(tmp_path, kind, name, make):
    """The same names and values, in the same order but for what Paddle lists twice; also of tied layers."""
    net = loaded(make, kind, name)
    bw.save_as(kind, net, tmp_path / "x")
    found, info = bw.load(tmp_path / "x", with_metadata=True)
    wanted, theirs = bw.load(FIXTURES / kind / f"{name}.{ENDINGS[kind]}", with_metadata=True)
    if kind == "torch":  # safetensors has one of what is tied, and int64 counts
        wanted = {k: v.astype(np.int32) if v.dtype == np.int64 else v for k, v in wanted.items()}
        assert {k: v for k, v in info.metadata.items() if k != "format"} == {
            k: v for k, v in theirs.metadata.items() if k != "format"
        }
    same_arrays(found, wanted)
    if kind != "torch":
        assert [k for k in found if ".cell." not in k] == [k for k in wanted if ".cell." not in k]


@pytest.mark.parametrize("kind", ENDINGS)
@pytest.mark.parametrize("make", [networks.mlp, networks.lenet, networks.tied, networks.EmbedLSTM])
def test_and_back(tmp_path, kind, make):
    net = make()
    for p in net.parameters():
        p.value = p.value + 0.1
    bw.save_as(kind, net, tmp_path / "x")
    other = make(sizes=False)
    assert not other.load(tmp_path / "x")
    same_arrays(other.state_dict(), net.state_dict())


class Everything(nn.Module):
    def __init__(self):
        self.norm = nn.LayerNorm(normalized_shape=4)
        self.group = nn.GroupNorm(2, num_channels=4)
        self.act = nn.PReLU()
        self.both = nn.GRU(3, input_size=4, bidirectional=True)
        self.blocks = nn.Repeat(lambda: nn.Sequential(nn.Linear(4, in_features=4), nn.LayerNorm(normalized_shape=4)), 2)
        self.scale = bw.Parameter(jnp.ones(3, jnp.bfloat16))


@pytest.mark.parametrize("kind", ["mxnet", "paddle", "torch"])
def test_other_layers(tmp_path, kind):
    net = Everything()
    bw.save_as(kind, net, tmp_path / "x")
    names = {
        "mxnet": {"norm.gamma", "act.alpha", "both._unfused.0.r_cell.h2h_bias", "blocks.1.1.beta", "scale"},
        "paddle": {
            "norm.weight",
            "act._weight",
            "both.0.cell_bw.bias_hh",
            "both.bias_hh_l0_reverse",
            "blocks.1.0.bias",
        },
        "torch": {"norm.weight", "act.weight", "both.bias_hh_l0_reverse", "blocks.1.1.bias"},
    }
    found = bw.load(tmp_path / "x")
    assert names[kind] <= found.keys()
    assert found["scale"].dtype == jnp.bfloat16
    expected = np.asarray(net.blocks.block[0].weight)[1]
    np.testing.assert_array_equal(found["blocks.1.0.weight"], expected.T if kind == "paddle" else expected)


def test_torch_loads_ours(tmp_path):
    torch = pytest.importorskip("torch")
    import safetensors.torch

    net = networks.tied()
    bw.save_as("torch", net, tmp_path / "x.safetensors")
    shared = torch.nn.Linear(8, 8)
    ends = torch.nn.Linear(4, 8), torch.nn.Linear(8, 1)
    theirs = torch.nn.Sequential(ends[0], torch.nn.ReLU(), shared, torch.nn.ReLU(), shared, torch.nn.ReLU(), ends[1])
    safetensors.torch.load_model(theirs, tmp_path / "x.safetensors")
    x = np.ones((3, 4), np.float32)
    np.testing.assert_allclose(net(x), theirs(torch.tensor(x)).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_what_cannot_be_saved(tmp_path):
    net = nn.LSTM(4, input_size=3, proj_size=2)
    for kind, who in (("mxnet", "MXNet's parameters"), ("paddle", "Paddle's layers")):
        with pytest.raises(CheckpointError, match=rf"{who} can't hold 'weight_hr_l0', the projection of a recurrent"):
            bw.save_as(kind, net, tmp_path / "x")
    with pytest.raises(
        ValueError, match=r"kind must be one of 'torch', 'mxnet', 'paddle', got 'keras'; Keras files can"
    ):
        bw.save_as("keras", net, tmp_path / "x")
    with pytest.raises(TypeError, match="expected a module after the kind, got str"):
        bw.save_as("torch", "x", net)
    with pytest.raises(TypeError, match=r"save_as: the kind comes first: save_as\('torch', net, path\)"):
        bw.save_as(net, "torch", tmp_path / "x")
    with pytest.raises(bw.errors.DeferredShapeError):
        bw.save_as("torch", nn.Linear(3), tmp_path / "x")
    complicated = nn.Module()
    complicated.scale = bw.Parameter(jnp.ones(2, jnp.complex64))
    with pytest.raises(CheckpointError, match="'scale' has dtype complex64, which MXNet files cannot hold; convert it"):
        bw.save_as("mxnet", complicated, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
