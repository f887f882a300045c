"""Normalisation."""

from __future__ import annotations

from tests.contract.row import Row, same

from brickwork import nn

ROWS = [
    Row(
        "BatchNorm1d",
        lambda: nn.BatchNorm1d(),
        lambda: nn.BatchNorm1d(num_features=3),
        (6, 3),
        wrong_rank=(6,),
        wrong_width=(6, 2),
        stateful=True,
        parameters=("weight", "bias"),
    ),
    Row(
        "BatchNorm1d over sequences",
        lambda: nn.BatchNorm1d(momentum=None, affine=False),
        lambda: nn.BatchNorm1d(num_features=3, momentum=None, affine=False),
        (2, 3, 4),
        wrong_rank=(2, 3, 4, 1),
        wrong_width=(2, 4, 4),
        stateful=True,
    ),
    Row(
        "BatchNorm2d",
        lambda: nn.BatchNorm2d(),
        lambda: nn.BatchNorm2d(num_features=3),
        (3, 3, 2, 2),
        wrong_rank=(3, 3),
        wrong_width=(3, 2, 2, 2),
        stateful=True,
        parameters=("weight", "bias"),
    ),
    Row(
        "BatchNorm2d without statistics",
        lambda: nn.BatchNorm2d(track_running_stats=False),
        lambda: nn.BatchNorm2d(num_features=3, track_running_stats=False),
        (3, 3, 2, 2),
        wrong_rank=(3, 3),
        wrong_width=(3, 2, 2, 2),
        parameters=("weight", "bias"),
    ),
    Row(
        "LayerNorm",
        lambda: nn.LayerNorm(),
        lambda: nn.LayerNorm(normalized_shape=5),
        (3, 5),
        wrong_rank=(),
        wrong_width=(3, 4),
        parameters=("weight", "bias"),
    ),
    Row(
        "LayerNorm over two axes",
        **same(lambda: nn.LayerNorm(normalized_shape=(2, 4))),
        shape=(3, 2, 4),
        wrong_rank=(4,),
        wrong_width=(3, 4, 2),
        parameters=("weight", "bias"),
    ),
]
