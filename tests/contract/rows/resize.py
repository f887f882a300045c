"""Resizing."""

from __future__ import annotations

from tests.contract.row import Row, same

from brickwork import nn


def _row(name, make, shape, integer="accepted", **more):
    return Row(name, **same(make), shape=shape, wrong_rank=(3, 4), integer=integer, **more)


ROWS = [
    _row("Upsample", lambda: nn.Upsample(scale_factor=2), (2, 2, 3)),
    _row("Upsample by gathering", lambda: nn.Upsample(size=(5, 4)), (2, 2, 3, 2)),
    _row("Upsample bilinear", lambda: nn.Upsample(scale_factor=2, mode="bilinear"), (2, 2, 3, 2), "refused"),
    _row("Upsample bicubic", lambda: nn.Upsample(scale_factor=1.7, mode="bicubic"), (2, 2, 3, 4), "refused"),
    _row(
        "Upsample trilinear",
        lambda: nn.Upsample(size=(2, 3, 4), mode="trilinear", align_corners=True),
        (2, 1, 2, 2, 3),
        "refused",
    ),
    _row("UpsamplingNearest2d", lambda: nn.UpsamplingNearest2d(scale_factor=(2, 1.5)), (2, 2, 2, 3)),
    _row("UpsamplingBilinear2d", lambda: nn.UpsamplingBilinear2d(size=(3, 4)), (2, 2, 2, 3), "refused"),
    _row("PixelShuffle", lambda: nn.PixelShuffle(2), (2, 4, 2, 3), wrong_width=(2, 3, 2, 3)),
    _row("PixelUnshuffle", lambda: nn.PixelUnshuffle(2), (2, 2, 2, 4), wrong_width=(2, 2, 2, 3)),
    _row("ChannelShuffle", lambda: nn.ChannelShuffle(2), (2, 4, 3), wrong_width=(2, 3, 3)),
]
