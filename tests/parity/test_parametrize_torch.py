"""Parametrised layers against torch's."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.parity.harness import compare_layers, normal  # noqa: E402
from torch.nn.utils import parametrizations as P, parametrize  # noqa: E402

from brickwork import nn  # noqa: E402

T = torch.nn
LAYERS = {
    "Linear": (lambda: nn.Linear(4), lambda: T.Linear(3, 4), (5, 3)),
    "Conv2d": (lambda: nn.Conv2d(4, 2, bias=False), lambda: T.Conv2d(3, 4, 2, bias=False), (2, 3, 4, 3)),
}


def stretched(module):
    """Lengths and vectors that are not the initial ones."""
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(1.5).add_(0.1)
    return module


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("dim", [0, 1, None, -1])  # -1 is the whole weight there too
@pytest.mark.parametrize("layer", LAYERS)
def test_weight_norm(layer, dim, dtype):
    ours, theirs, shape = LAYERS[layer]
    # One length for the whole weight: its gradient is one number, a sum of all entries that nearly cancel.
    tolerance = 1e-4 if dim in (None, -1) and dtype == "float32" else None
    compare_layers(
        nn.weight_norm(ours(), dim=dim),
        stretched(P.weight_norm(theirs(), dim=dim)),
        normal(0, *shape),
        dtype=dtype,
        tolerance=tolerance,
    )


def test_weight_norm_starts_where_the_weight_was():
    for dim in (0, 1, None):
        theirs = P.weight_norm(T.Linear(3, 4), dim=dim)
        ours = nn.Linear(4, in_features=3)
        ours.weight.value = theirs.weight.detach().numpy()
        nn.weight_norm(ours, dim=dim)
        for i in (0, 1):
            name = f"parametrizations.weight.original{i}"
            np.testing.assert_allclose(ours.state_dict()[name], theirs.state_dict()[name], rtol=1e-6)


@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
def test_states_of_earlier_releases():
    lengths = T.utils.weight_norm(T.Conv2d(3, 4, 2))
    spectrum = T.utils.spectral_norm(T.Linear(3, 4))
    theirs = T.ModuleDict({"lengths": lengths, "spectrum": spectrum})
    spectrum(torch.ones(2, 3))  # moves the vectors
    theirs.eval()
    ours = nn.ModuleDict({"lengths": nn.weight_norm(nn.Conv2d(4, 2)), "spectrum": nn.spectral_norm(nn.Linear(4))})
    ours.load_state_dict({name: x.numpy() for name, x in theirs.state_dict().items()})
    ours.eval()
    for name, shape in (("lengths", (2, 3, 5, 5)), ("spectrum", (2, 3))):
        x = normal(0, *shape).astype(np.float32)
        np.testing.assert_allclose(ours[name](x), theirs[name](torch.tensor(x)).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("options", [{}, {"dim": 1, "n_power_iterations": 3, "eps": 1e-3}], ids=str)
@pytest.mark.parametrize("layer", LAYERS)
def test_spectral_norm(layer, options, training, dtype):
    ours, theirs, shape = LAYERS[layer]
    compare_layers(
        nn.spectral_norm(ours(), **options),
        stretched(P.spectral_norm(theirs(), **options)),
        normal(0, *shape),
        dtype=dtype,
        training=training,
    )


def test_spectral_norm_of_a_vector():
    theirs = stretched(P.spectral_norm(T.Linear(3, 4), "bias"))
    compare_layers(nn.spectral_norm(nn.Linear(4), "bias"), theirs, normal(0, 2, 3))


def test_spectral_norm_over_several_steps():
    ours, theirs, shape = LAYERS["Linear"]
    ours, theirs = nn.spectral_norm(ours()), stretched(P.spectral_norm(theirs()))
    for i in range(3):
        compare_layers(ours, theirs, normal(i, *shape), gradients=False)


class Squared(T.Module):
    def forward(self, x):
        return x * x


class OurSquared(nn.Module):
    def forward(self, x):
        return x * x


class Halves(T.Module):
    def forward(self, a, b):
        return a + b

    def right_inverse(self, w):
        return 0.5 * w, 0.5 * w


class OurHalves(nn.Module):
    def forward(self, a, b):
        return a + b

    def right_inverse(self, w):
        return 0.5 * w, 0.5 * w


def test_a_chain():
    """Two parametrisations of one weight, and one of the bias; names and order of the state too."""
    theirs = T.Linear(3, 4)
    ours = nn.Linear(4, in_features=3)
    for layer, library, halves, squared in (
        (theirs, parametrize.register_parametrization, Halves(), Squared()),
        (ours, nn.parametrize, OurHalves(), OurSquared()),
    ):
        library(layer, "weight", halves)
        library(layer, "weight", squared)
        library(layer, "bias", squared)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    compare_layers(ours, theirs, normal(0, 2, 3))


@pytest.mark.parametrize("leave", [True, False])
def test_removing(leave):
    ours, theirs = nn.parametrize(nn.Linear(4), "weight", OurSquared()), T.Linear(3, 4)
    parametrize.register_parametrization(theirs, "weight", Squared())
    compare_layers(ours, theirs, normal(0, 2, 3))
    nn.remove_parametrizations(ours, "weight", leave_parametrized=leave)
    parametrize.remove_parametrizations(theirs, "weight", leave_parametrized=leave)
    for name, tensor in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name], tensor, rtol=1e-6)
