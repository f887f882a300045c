"""Convolutions."""

from __future__ import annotations

from tests.contract.row import Row

from brickwork import nn

ROWS = [
    Row(
        "Conv2d",
        lambda: nn.Conv2d(3, 2, stride=2, padding=1),
        lambda: nn.Conv2d(3, 2, in_channels=2, stride=2, padding=1),
        (2, 2, 3, 3),
        wrong_rank=(4, 5),
        wrong_width=(2, 3, 3, 3),
        parameters=("weight", "bias"),
    ),
    Row(
        "Conv2d with a kernel of two sizes",
        lambda: nn.Conv2d(2, (2, 1), padding=(1, 0), dilation=(1, 2), bias=False),
        lambda: nn.Conv2d(2, (2, 1), in_channels=2, padding=(1, 0), dilation=(1, 2), bias=False),
        (2, 2, 3, 3),
        wrong_rank=(4, 5),
        wrong_width=(2, 3, 3, 3),
        parameters=("weight",),
    ),
    Row(
        "Conv2d with groups",
        lambda: nn.Conv2d(4, 3, groups=2, padding="same"),
        lambda: nn.Conv2d(4, 3, in_channels=2, groups=2, padding="same"),
        (2, 2, 3, 3),
        wrong_rank=(4, 5),
        wrong_width=(2, 4, 3, 3),
        parameters=("weight", "bias"),
    ),
]
