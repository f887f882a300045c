"""Embeddings."""

from __future__ import annotations

from tests.contract.row import Row, same

from brickwork import nn

ROWS = [
    Row(
        "Embedding",
        **same(lambda: nn.Embedding(4, 3)),
        shape=(2, 3),
        integer="needed",
        parameters=("weight",),
    ),
]
