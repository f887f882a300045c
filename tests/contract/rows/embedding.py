"""Embeddings."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from tests.contract.row import Row, same, with_inputs

from brickwork import nn

EmbeddingBag = with_inputs(nn.EmbeddingBag, lambda x: (x,))


class Ragged(nn.EmbeddingBag):
    def forward(self, x):
        """The same bags, one behind the other, and weighted."""
        indices, offsets = flat_bags(x)
        return super().forward(indices, offsets, indices.astype(self.weight.dtype) + 1 if indices is not x else None)


def flat_bags(x):
    if not isinstance(x, (jax.Array, np.ndarray)) or x.ndim != 2:
        return x, None  # to be refused
    return jnp.ravel(x), x.shape[1] * jnp.arange(x.shape[0])


BAG = {"shape": (2, 3), "wrong_rank": (2, 3, 4), "integer": "needed", "parameters": ("weight",)}

ROWS = [
    Row(
        "Embedding",
        **same(lambda: nn.Embedding(4, 3)),
        shape=(2, 3),
        integer="needed",
        parameters=("weight",),
    ),
    Row(
        "Embedding with padding",
        **same(lambda: nn.Embedding(5, 3, padding_idx=-1)),
        shape=(2, 3),
        integer="needed",
        parameters=("weight",),
    ),
    Row("EmbeddingBag", **same(lambda: EmbeddingBag(4, 3)), **BAG),
    Row("EmbeddingBag of largest values", **same(lambda: EmbeddingBag(4, 3, mode="max", padding_idx=2)), **BAG),
    Row("EmbeddingBag with offsets", **same(lambda: Ragged(4, 3, mode="sum")), **BAG),
]
