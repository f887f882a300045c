"""Pooling."""

from __future__ import annotations

from tests.contract.row import Row, same

from brickwork import nn

ROWS = [
    Row(
        "MaxPool2d",
        **same(lambda: nn.MaxPool2d(2)),
        shape=(2, 2, 4, 4),
        wrong_rank=(4, 4),
        integer="accepted",
    ),
    Row(
        "MaxPool2d overlapping",
        **same(lambda: nn.MaxPool2d(3, stride=1, padding=1)),
        shape=(2, 2, 3, 3),
        wrong_rank=(3, 3),
        integer="accepted",
    ),
    Row(
        "AvgPool2d",
        **same(lambda: nn.AvgPool2d(2)),
        shape=(2, 2, 4, 4),
        wrong_rank=(4, 4),
    ),
]
