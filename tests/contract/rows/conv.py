"""Convolutions."""

from __future__ import annotations

from tests.contract.row import Row, same

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
    Row(
        "Conv2d depthwise",
        lambda: nn.Conv2d(2, 2, groups=2, padding_mode="reflect", padding=1),
        lambda: nn.Conv2d(2, 2, in_channels=2, groups=2, padding_mode="reflect", padding=1),
        (2, 2, 3, 3),
        wrong_rank=(4, 5),
        wrong_width=(2, 4, 3, 3),
        parameters=("weight", "bias"),
    ),
    Row(
        "Conv1d",
        lambda: nn.Conv1d(3, 2, stride=2, padding=1, padding_mode="circular"),
        lambda: nn.Conv1d(3, 2, in_channels=2, stride=2, padding=1, padding_mode="circular"),
        (2, 2, 4),
        wrong_rank=(4,),
        wrong_width=(2, 3, 4),
        parameters=("weight", "bias"),
    ),
    Row(
        "Conv3d",
        lambda: nn.Conv3d(2, 2, padding=(1, 0, 0), groups=2),
        lambda: nn.Conv3d(2, 2, in_channels=4, padding=(1, 0, 0), groups=2),
        (2, 4, 1, 2, 3),
        wrong_rank=(4, 5),
        wrong_width=(2, 3, 1, 2, 3),
        parameters=("weight", "bias"),
    ),
    Row(
        "ConvTranspose1d",
        lambda: nn.ConvTranspose1d(4, 3, stride=2, padding=1, output_padding=1, groups=2),
        lambda: nn.ConvTranspose1d(4, 3, in_channels=2, stride=2, padding=1, output_padding=1, groups=2),
        (2, 2, 3),
        wrong_rank=(4,),
        wrong_width=(2, 4, 3),
        parameters=("weight", "bias"),
    ),
    Row(
        "ConvTranspose2d",
        lambda: nn.ConvTranspose2d(3, 2, stride=2),
        lambda: nn.ConvTranspose2d(3, 2, in_channels=2, stride=2),
        (2, 2, 2, 3),
        wrong_rank=(4, 5),
        wrong_width=(2, 3, 2, 3),
        parameters=("weight", "bias"),
    ),
    Row(
        "ConvTranspose3d",
        lambda: nn.ConvTranspose3d(2, (1, 2, 2), bias=False, dilation=2, padding=(0, 1, 0)),
        lambda: nn.ConvTranspose3d(2, (1, 2, 2), in_channels=2, bias=False, dilation=2, padding=(0, 1, 0)),
        (2, 2, 1, 2, 3),
        wrong_rank=(4, 5),
        wrong_width=(2, 3, 1, 2, 3),
        parameters=("weight",),
    ),
    Row(
        "Unfold",
        **same(lambda: nn.Unfold(2, padding=1, stride=2)),
        shape=(2, 2, 3, 3),
        wrong_rank=(4, 5),
        integer="accepted",
    ),
    Row(
        "Fold",
        **same(lambda: nn.Fold((3, 4), 2)),
        shape=(2, 8, 6),
        wrong_rank=(4,),
        wrong_width=(2, 6, 6),
        integer="accepted",
    ),
]
