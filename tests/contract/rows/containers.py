"""Containers."""

from __future__ import annotations

from tests.contract.row import Row

from brickwork import nn

ROWS = [
    Row(
        "Repeat",
        lambda: nn.Repeat(lambda: nn.Linear(5), 3),
        lambda: nn.Repeat(lambda: nn.Linear(5, in_features=5), 3),
        (4, 5),
        integer="",
        parameters=("block.weight", "block.bias"),
        leaf=False,
    ),
    Row(
        "Repeat with state and random numbers",
        lambda: nn.Repeat(lambda: nn.Sequential(nn.BatchNorm1d(), nn.Dropout(0.5)), 2, remat=True),
        lambda: nn.Repeat(lambda: nn.Sequential(nn.BatchNorm1d(num_features=3), nn.Dropout(0.5)), 2, remat=True),
        (6, 3),
        integer="",
        random=True,
        stateful=True,
        parameters=("block.0.weight", "block.0.bias"),
        leaf=False,
    ),
]
