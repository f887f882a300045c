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


def rows_of_norm_three():
    layer = nn.Embedding(5, 2, max_norm=1.0)
    layer.weight.value = jnp.full((5, 2), 3.0)
    return layer


def test_max_norm_changes_the_table():
    layer = rows_of_norm_three()
    y = layer.eval()(jnp.array([1, 1, 4]))
    np.testing.assert_allclose(jnp.linalg.norm(y, axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(layer.weight.value[jnp.array([1, 4])], y[1:])
    np.testing.assert_array_equal(layer.weight.value[jnp.array([0, 2, 3])], 3)


def test_max_norm_in_a_compiled_step():
    """Two lookups in one step: the second sees what the first wrote, and both add to the gradient."""
    layer = rows_of_norm_three()

    @bw.compile
    def step(i):
        return bw.value_and_grad(lambda i: layer(i).sum() + layer(i[:1]).sum(), layer)(i)

    for _ in range(2):
        loss, grads = step(jnp.array([1, 4]))
        np.testing.assert_allclose(loss, 6 / 2**0.5, rtol=1e-5)
        assert grads["weight"][:, 0].tolist() == [0, 2, 0, 0, 1]
    assert step.stats().compilations == 1
    np.testing.assert_allclose(jnp.linalg.norm(layer.weight.value, axis=1) < 1.01, [0, 1, 0, 0, 1])


def test_from_pretrained_makes_a_table_of_its_own():
    table = np.arange(6, dtype=np.float32).reshape(3, 2)
    layer = nn.EmbeddingBag.from_pretrained(table, mode="max", padding_idx=-1)
    assert repr(layer) == "EmbeddingBag(3 → 2, padding_idx=2, mode='max')"
    table[:] = 7
    assert layer(jnp.array([[0, 1, 2]])).tolist() == [[2.0, 3.0]]
    assert not layer.weight.trainable
    assert nn.Embedding.from_pretrained(jnp.eye(2, dtype=jnp.bfloat16), False).weight.dtype == jnp.bfloat16
