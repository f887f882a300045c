"""Abstract arrays."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn


def test_shapes():
    assert bw.spec(2, 3) == jax.ShapeDtypeStruct((2, 3), jnp.float32)
    assert bw.spec((2, np.int64(3)), dtype="bfloat16") == jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)
    assert bw.spec().shape == ()


def test_names_of_sizes():
    x, y = bw.spec("batch", 3), bw.spec("batch", "time", dtype=jnp.int32)
    assert str(x.shape) == "(batch, 3)"
    assert x.shape[0] == y.shape[0] != y.shape[1]
    out = jax.eval_shape(lambda x, y: x[:, 0] + y[:, 0].astype(x.dtype), x, y)
    assert out.shape == (x.shape[0],)
    assert jax.eval_shape(nn.Linear(4, in_features=3), x).shape == (x.shape[0], 4)


def test_sizes_of_jax():
    (n,) = jax.export.symbolic_shape("n")
    assert bw.spec(n, 2).shape == (n, 2)


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        (
            (2, None),
            TypeError,
            "spec: sizes must be integers, got None; for a batch of any size give any size, such as 1",
        ),
        ((2, 3.0), TypeError, "spec: sizes must be integers, got 3.0; the dtype goes by name: dtype=..."),
        ((2, "float32"), TypeError, "spec: sizes must be integers, got 'float32'; the dtype goes by name: dtype=..."),
        ((2, jnp.float32), TypeError, "the dtype goes by name"),
        ((2, -1), ValueError, r"spec: sizes must not be negative, got \(2, -1\)"),
        (("my batch", 3), ValueError, "spec: 'my batch' can't be the name of a size; use a word such as 'batch'"),
        (("", 3), ValueError, "spec: '' can't be the name of a size"),
        (("a, b", 3), ValueError, "spec: 'a, b' can't be the name of a size"),
    ],
)
def test_what_is_no_size(sizes, error, message):
    with pytest.raises(error, match=message):
        bw.spec(*sizes)
