"""Compiled for oneDNN, layers that multiply do what they do without it."""

from __future__ import annotations

import warnings

import jax
import numpy as np
import pytest
from tests.contract.catalogue import Row, rows_where
from tests.contract.rows import attention, conv, linear, recurrent
from tests.contract.test_gradients import setup

import brickwork as bw
from brickwork import _onednn

MULTIPLY = {row.name for family in (attention, conv, linear, recurrent) for row in family.ROWS}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytestmark = pytest.mark.skipif(not _onednn.usable(), reason="oneDNN needs JAX 0.12 and an x86 processor")
LEFT_TO_XLA = {"Conv2d depthwise", "Conv3d", "Bilinear"}  # sums of shifted arrays, and products of other kinds


@rows_where(lambda row: row.name in MULTIPLY and row.has_parameters)
def test_values_and_gradients_are_the_same(row: Row, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_onednn, "_FEWEST", {"matmul": 0, "convolution": 0})
    layer, x, loss = setup(row)
    both = bw.value_and_grad(loss, (layer, 0))
    compiled = bw.compile(both, onednn=True)
    found, expected = (jax.tree_util.tree_leaves(f(x)) for f in (compiled, both))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * (1 + np.abs(b).max()))
    assert bool(compiled.explain(x).onednn) == (row.name not in LEFT_TO_XLA)
