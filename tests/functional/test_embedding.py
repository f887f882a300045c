from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brickwork import functional as F
from brickwork.errors import ShapeMismatchError

TABLE = jnp.arange(12.0).reshape(4, 3)


def test_shapes_and_dtypes():
    assert F.embedding(jnp.array(2), TABLE).tolist() == [6.0, 7.0, 8.0]
    for dtype in (np.int8, np.uint8, np.uint32, np.int64):
        assert F.embedding(np.ones((2, 5), dtype), TABLE).shape == (2, 5, 3)
    assert F.embedding(jnp.zeros((0,), int), TABLE).shape == (0, 3)
    assert F.embedding(jnp.array([1]), TABLE.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("bad", [4, -1, -4, -100, 2**31 - 1])
def test_out_of_range_is_nan_and_has_no_gradient(bad):
    indices = jnp.array([1, bad])
    y = F.embedding(indices, TABLE)
    assert y[0].tolist() == [3.0, 4.0, 5.0]
    assert jnp.isnan(y[1]).all()
    g = jax.grad(lambda t: F.embedding(indices, t).sum())(TABLE)
    assert g.tolist() == [[0] * 3, [1] * 3, [0] * 3, [0] * 3]


def test_padding_row_gets_no_gradient():
    indices = jnp.array([0, 1, 1, 3])
    g = jax.grad(lambda t: F.embedding(indices, t, padding_idx=1).sum())(TABLE)
    assert g[:, 0].tolist() == [1, 0, 0, 1]
    assert F.embedding(indices, TABLE, padding_idx=1)[1].tolist() == [3.0, 4.0, 5.0]
    g = jax.grad(lambda t: F.embedding(indices, t, padding_idx=-1).sum())(TABLE)
    assert g[:, 0].tolist() == [1, 2, 0, 0]


def test_errors():
    with pytest.raises(TypeError, match=r"embedding: indices must be integers, got float32\[2\]\. Ca"):
        F.embedding(jnp.ones(2), TABLE)
    with pytest.raises(TypeError, match=r"indices must be integers, got bool\[2\]"):
        F.embedding(jnp.ones(2, bool), TABLE)
    with pytest.raises(ShapeMismatchError, match=r"weight must have 2 axes \(num, dim\), not 1"):
        F.embedding(jnp.array([1]), jnp.ones(3))
    with pytest.raises(ValueError, match=r"padding_idx=4 is no row of a table of 4 rows; .*-4 to 3"):
        F.embedding(jnp.array([1]), TABLE, padding_idx=4)
