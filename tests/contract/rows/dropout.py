"""Dropout."""

from __future__ import annotations

from tests.contract.row import Row, same

from brickwork import nn

ROWS = [
    Row(
        "Dropout",
        **same(lambda: nn.Dropout(0.5)),
        shape=(4, 5),
        random=True,
    ),
]
