from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

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


def test_a_computed_table_stays_as_it_is():
    """A call without max_norm writes nothing, and with it nothing into what the table is computed from."""

    class Twice(bw.Module):
        def forward(self, x):
            return 2 * x

        def right_inverse(self, y):
            return y

    i = np.array([1])
    for make in (nn.Embedding, nn.EmbeddingBag):
        for options in ({}, {"max_norm": 0.1}):
            layer = make(5, 3, **options)
            nn.parametrize(layer, "weight", Twice())
            before = np.asarray(layer.state_dict()["parametrizations.weight.original"])
            x = i if make is nn.Embedding else i[None]
            first, second = layer(x), layer(x)
            assert np.array_equal(first, second)
            assert np.array_equal(layer.state_dict()["parametrizations.weight.original"], before)
            assert np.linalg.norm(first) <= 0.1001 or not options


def test_bags_that_begin_behind_the_end():
    """NaN where the offsets are not known, an error where they are."""
    for mode in ("sum", "mean", "max"):
        layer = nn.EmbeddingBag(3, 2, mode=mode)
        indices, good = jnp.array([1, 2]), layer(np.array([1, 2]), np.array([0, 1]))
        for offsets in ([0, 7], [0, 2, 1]):
            found = bw.compile(layer)(indices, jnp.array(offsets))
            assert np.isnan(found).any() and not np.isnan(found[0] if offsets == [0, 7] else found[2]).any()
            with pytest.raises(ValueError, match=r"must ascend, to at most the number of indices, 2; got \[0, "):
                layer(np.array([1, 2]), np.array(offsets))
        assert np.array_equal(bw.compile(layer)(indices, jnp.array([0, 1])), good)
        ended = nn.EmbeddingBag(3, 2, mode=mode, include_last_offset=True)
        assert not np.isnan(ended(indices, jnp.array([0, 1, 1]))).any()
