"""Padding against torch's."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import jax.numpy as jnp  # noqa: E402
from tests.parity.harness import compare_layers, normal  # noqa: E402

from brickwork import functional as F, nn  # noqa: E402

T = torch.nn.functional
SHAPES = {1: (2, 3, 4), 2: (2, 2, 4, 3), 3: (1, 2, 3, 4, 5)}
KINDS = ["Constant", "Zero", "Reflection", "Replication", "Circular"]


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_layers(kind, n):
    value = (0.7,) if kind == "Constant" else ()
    for padding in (2, tuple(range(2 * n))[::-1] if n == 1 else (1, 2, 0, 1, 1, 0)[: 2 * n]):
        ours, theirs = (getattr(of, f"{kind}Pad{n}d")(padding, *value) for of in (nn, torch.nn))
        compare_layers(ours, theirs, normal(0, *SHAPES[n]))
    compare_layers(ours, theirs, normal(0, *SHAPES[n][1:]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_dtypes(kind, dtype):
    value = (0.7,) if kind == "Constant" else ()
    ours, theirs = (getattr(of, f"{kind}Pad2d")((1, 2, 0, 1), *value) for of in (nn, torch.nn))
    compare_layers(ours, theirs, normal(0, 2, 2, 4, 3), dtype=dtype)


CROPS = [(-2, 3), (1, -3), (-1, -1), (4, 4), (0, -4), (-1, 3, 2, -1)]


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("pad", CROPS, ids=str)
def test_negative_paddings(mode, pad):
    x = normal(0, 2, 5, 5)
    for data in (x, x.transpose(0, 2, 1)):
        expected = T.pad(torch.tensor(data).float(), pad, mode)
        np.testing.assert_array_equal(F.pad(jnp.asarray(data, jnp.float32), pad, mode), expected)


@pytest.mark.parametrize("pad", [(), (1, 1), (1, 2, 3, 4), (0, 0, 0, 0, 1, 2), (-1, 2, 0, 0, 0, -1)], ids=str)
def test_a_constant_for_any_number_of_axes(pad):
    x = normal(0, 2, 3, 4)
    expected = T.pad(torch.tensor(x).float(), pad, value=2.5)
    np.testing.assert_array_equal(F.pad(jnp.asarray(x, jnp.float32), pad, value=2.5), expected)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_empty_batches(mode):
    x = np.zeros((0, 2, 5))
    assert F.pad(jnp.asarray(x), (2, 1), mode).shape == tuple(T.pad(torch.tensor(x), (2, 1), mode).shape)
