from __future__ import annotations

import jax.numpy as jnp
import numpy as np

import brickwork as bw
from brickwork import nn


def test_values_and_shapes():
    layer = nn.Embedding(500, 40)
    assert abs(float(layer.weight.std()) - 1) < 0.02
    assert layer(jnp.zeros((2, 3), int)).shape == (2, 3, 40)
    assert (layer.num_embeddings, layer.embedding_dim) == (500, 40)


def test_padding_row_begins_as_zeros_and_stays():
    layer = nn.Embedding(5, 2, padding_idx=-2)
    assert layer.padding_idx == 3
    assert not np.asarray(layer.weight)[3].any()
    indices = jnp.array([3, 1, 3])
    _, grads = bw.value_and_grad(lambda i: layer(i).sum(), layer)(indices)
    assert grads["weight"][:, 0].tolist() == [0, 1, 0, 0, 0]
    assert not np.asarray(nn.Embedding(5, 2, padding_idx=0, dtype=jnp.bfloat16).weight)[0].any()
