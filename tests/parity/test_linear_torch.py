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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_that_have_gradients_and_any_dtype(dtype):
    """What ``named_parameters()`` gives; NumPy reads none that has a gradient, and no bfloat16."""
    theirs = torch.nn.Linear(3, 2).to(dtype)
    state = dict(theirs.named_parameters())
    ours = nn.Linear(2)
    ours.load_state_dict(state)
    for name, p in ours.named_parameters():
        np.testing.assert_array_equal(p.value, state[name].detach().float().numpy())
    before = np.array(ours.weight)
    with torch.no_grad():
        theirs.weight.zero_()
    np.testing.assert_array_equal(ours.weight, before)  # the memory isn't shared
    ours.weight.value = theirs.weight
    assert not np.asarray(ours.weight).any()
