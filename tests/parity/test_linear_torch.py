"""Dense layers against torch's."""

from __future__ import annotations

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
