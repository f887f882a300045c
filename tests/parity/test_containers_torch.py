"""Containers have PyTorch's names, order and interface; quantised layers its numbers but for rounding."""

from __future__ import annotations

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.parity.harness import compare_layers, normal, to_numpy  # noqa: E402

from brickwork import nn  # noqa: E402


class Ours(nn.Module):
    def __init__(self):
        self.layers = nn.ModuleList([nn.Linear(4), nn.Linear(4)])
        self.layers.insert(1, nn.Tanh())
        self.layers += [nn.Linear(4, bias=False)]
        self.choices = nn.ModuleDict({"wide": nn.Linear(6), "act": nn.ReLU()})
        self.choices.update([("last", nn.Linear(4))])
        self.scales = nn.ParameterList([jnp.ones(4)])
        self.scales.append(jnp.full(4, 2.0))
        self.shifts = nn.ParameterDict(OrderedDict(z=jnp.zeros(4), a=jnp.ones(4)))
        self.body = nn.Sequential(OrderedDict(conv=nn.Linear(4), act=nn.ReLU(), out=nn.Linear(4)))

    def forward(self, x):
        return run(self, x)


class Theirs(torch.nn.Module):
    def __init__(self):
        super().__init__()
        t = torch.nn
        self.layers = t.ModuleList([t.Linear(4, 4), t.Linear(4, 4)])
        self.layers.insert(1, t.Tanh())
        self.layers += [t.Linear(4, 4, bias=False)]
        self.choices = t.ModuleDict({"wide": t.Linear(4, 6), "act": t.ReLU()})
        self.choices.update([("last", t.Linear(6, 4))])
        self.scales = t.ParameterList([torch.ones(4)])
        self.scales.append(torch.full((4,), 2.0))
        self.shifts = t.ParameterDict(OrderedDict(z=torch.zeros(4), a=torch.ones(4)))
        self.body = t.Sequential(OrderedDict(conv=t.Linear(4, 4), act=t.ReLU(), out=t.Linear(4, 4)))

    def forward(self, x):
        return run(self, x)


def run(net, x):
    for layer in net.layers:
        x = layer(x)
    x = net.choices["last"](net.choices.act(net.choices["wide"](x)))
    for scale, (_, shift) in zip(net.scales, net.shifts.items(), strict=True):
        x = x * scale + shift
    return net.body[1:](net.body.conv(x)) + net.body.out(x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_network_with_every_container(dtype):
    """Names and order of the state, outputs and gradients."""
    compare_layers(Ours(), Theirs(), normal(0, 3, 4), dtype=dtype)


def test_the_same_after_the_same_surgery():
    ours, theirs = Ours(), Theirs()
    for net in (ours, theirs):
        del net.layers[0]
        net.layers.extend(list(net.layers)[:1])
        net.layers.pop(-1)
        del net.choices["act"]
        net.shifts.pop("z")
        net.choices["act"] = net.layers[0]
    state = {name: jnp.asarray(to_numpy(v)) for name, v in theirs.state_dict().items()}
    ours.load_state_dict(state)
    # PyTorch writes a tied parameter once for each of its names
    tied = {name for name in state if name.startswith("choices.act")}
    assert list(ours.state_dict()) == [name for name in state if name not in tied]


KINDS = {"ModuleList": nn.ModuleList, "ModuleDict": nn.ModuleDict, "Sequential": nn.Sequential}
KINDS |= {"ParameterList": nn.ParameterList, "ParameterDict": nn.ParameterDict}


@pytest.mark.parametrize("name", KINDS)
def test_no_method_is_missing(name):
    """Everything public that PyTorch's class defines itself."""
    wanted = {n for n in vars(getattr(torch.nn, name)) if not n.startswith("_")}
    wanted |= {"__len__", "__iter__", "__getitem__", "__setitem__"}
    assert not wanted - {"extra_repr"} - set(dir(KINDS[name]))


@pytest.mark.parametrize(
    ("ours", "theirs", "x"),
    [
        (nn.Linear(5), torch.nn.Linear(64, 5), normal(1, 7, 64)),
        (nn.Conv2d(5, 3, stride=2, padding=1), torch.nn.Conv2d(4, 5, 3, stride=2, padding=1), normal(2, 2, 4, 7, 7)),
    ],
    ids=["Linear", "Conv2d"],
)
def test_quantised_layers(ours, theirs, x):
    """The rounding of ``quantize_per_channel`` with the same scales, and outputs of its weights."""
    net = nn.Sequential(ours)
    net.load_state_dict({f"0.{name}": to_numpy(v) for name, v in theirs.state_dict().items()})
    nn.quantize(net)
    weight = theirs.weight.detach()
    scale = torch.tensor(np.asarray(net[0].scale))
    zeros = torch.zeros(len(scale), dtype=torch.int32)
    expected = torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, -127, 127)
    rounded = torch.round(expected / scale.reshape(-1, *[1] * (weight.ndim - 1)))
    np.testing.assert_array_equal(net[0].weight, to_numpy(rounded))
    with torch.no_grad():
        theirs.weight.copy_(expected)
        wanted = to_numpy(theirs(torch.tensor(x, dtype=torch.float32)))
    found = net(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, wanted, atol=2e-4 * abs(wanted).max())
    exact = jax.default_backend() != "cpu" or weight.ndim == 4  # the product in integers keeps 16 bits of the input
    if exact:
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
