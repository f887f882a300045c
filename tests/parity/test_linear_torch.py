"""Dense layers against torch's."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.parity.harness import compare_layers, normal  # noqa: E402

from brickwork import nn  # noqa: E402


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lead", [(), (4,), (2, 3), (0,), (1,)], ids=str)
def test_linear(lead, bias, dtype):
    compare_layers(nn.Linear(7, bias=bias), torch.nn.Linear(5, 7, bias=bias), normal(0, *lead, 5), dtype=dtype)


@pytest.mark.parametrize("training", [True, False])
def test_the_harness_on_state(training):
    compare_layers(nn.BatchNorm1d(), torch.nn.BatchNorm1d(3), normal(0, 4, 3, 5), training=training)
    with pytest.raises(AssertionError, match="output 0"):
        compare_layers(nn.BatchNorm1d(eps=0.1), torch.nn.BatchNorm1d(3), normal(0, 4, 3, 5), training=training)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("lead", [(), (4,), (2, 3), (0,)], ids=str)
def test_bilinear(lead, dtype):
    theirs = torch.nn.Bilinear(5, 4, 7, bias=lead != (4,))
    ours = nn.Bilinear(7, bias=lead != (4,))
    compare_layers(ours, theirs, normal(0, *lead, 5), normal(1, *lead, 4), dtype=dtype)


def test_first_values_of_bilinear():
    """The number of the first inputs alone decides, of the weight and of the bias."""
    ours = nn.Bilinear(500, in1_features=25, in2_features=9)
    for p in (ours.weight, ours.bias):
        values = np.asarray(p)
        assert abs(values).max() <= 0.2
        assert abs(values.std() - 0.2 / 3**0.5) < 0.3 / values.size**0.5


@pytest.mark.parametrize(("dim", "sizes"), [(1, (2, 3)), (-2, (3, -1)), (0, (1, 4, 1)), (-1, [5]), (1, (-1, 1))])
def test_unflatten(dim, sizes):
    compare_layers(nn.Unflatten(dim, sizes), torch.nn.Unflatten(dim, sizes), normal(0, 4, 6, 5))
    compare_layers(nn.Unflatten(-1, (2, 2)), torch.nn.Unflatten(-1, (2, 2)), normal(0, 4))
