"""Pooling."""

from __future__ import annotations

import numpy as np
from tests.contract.row import Row, same, with_inputs

from brickwork import nn


def _with_places(ndim):
    """The inputs of unpooling: values, and for each the first place of its window of two."""

    def inputs(x):
        shape = getattr(x, "shape", ())
        if len(shape) != ndim + 2:
            return x, np.zeros(shape, np.int32)
        spatial = shape[2:]
        places = np.ravel_multi_index(tuple(2 * np.indices(spatial)), [2 * n for n in spatial])
        return x, np.broadcast_to(places, shape).astype(np.int32)

    return inputs


MaxUnpool1d = with_inputs(nn.MaxUnpool1d, _with_places(1))
MaxUnpool2d = with_inputs(nn.MaxUnpool2d, _with_places(2))
MaxUnpool3d = with_inputs(nn.MaxUnpool3d, _with_places(3))
MaxPool2d = with_inputs(nn.MaxPool2d, lambda x: (x,))
AdaptiveMaxPool2d = with_inputs(nn.AdaptiveMaxPool2d, lambda x: (x,))

_SHAPES = {1: (2, 2, 6), 2: (2, 2, 4, 4), 3: (2, 1, 2, 4, 3)}


def _row(name, make, ndim, integer="accepted", shape=None, **more):
    wrong = tuple(range(3, 3 + ndim))  # neither a batch nor channels
    shape = _SHAPES[ndim] if shape is None else shape
    return Row(name, **same(make), shape=shape, wrong_rank=wrong, integer=integer, **more)


ROWS = [
    _row("MaxPool1d", lambda: nn.MaxPool1d(2), 1),
    _row("MaxPool1d of long windows", lambda: nn.MaxPool1d(8, stride=2, padding=4), 1),
    _row("MaxPool2d", lambda: nn.MaxPool2d(2), 2),
    _row("MaxPool2d overlapping", lambda: nn.MaxPool2d(3, stride=1, padding=1), 2, shape=(2, 2, 3, 3)),
    _row("MaxPool2d with indices", lambda: MaxPool2d(2, return_indices=True, ceil_mode=True), 2, shape=(2, 2, 3, 3)),
    _row("MaxPool3d", lambda: nn.MaxPool3d((1, 2, 2), dilation=(1, 2, 1)), 3),
    _row("MaxUnpool1d", lambda: MaxUnpool1d(2), 1, shape=(2, 2, 3)),
    _row("MaxUnpool2d", lambda: MaxUnpool2d(2), 2, shape=(2, 2, 2, 3)),
    _row("MaxUnpool3d", lambda: MaxUnpool3d(2), 3, shape=(2, 1, 1, 2, 3)),
    _row("AvgPool1d", lambda: nn.AvgPool1d(3, 2, 1), 1, "refused"),
    _row("AvgPool2d", lambda: nn.AvgPool2d(2), 2, "refused"),
    _row("AvgPool3d", lambda: nn.AvgPool3d(2, divisor_override=3), 3, "refused"),
    _row("LPPool1d", lambda: nn.LPPool1d(2, 3, stride=1), 1, "refused"),
    _row("LPPool2d", lambda: nn.LPPool2d(2, 2), 2, "refused"),
    _row("LPPool3d", lambda: nn.LPPool3d(float("inf"), 2), 3, "refused"),
    _row("AdaptiveAvgPool1d", lambda: nn.AdaptiveAvgPool1d(4), 1, "refused"),
    _row("AdaptiveAvgPool2d", lambda: nn.AdaptiveAvgPool2d((3, None)), 2, "refused"),
    _row("AdaptiveAvgPool3d", lambda: nn.AdaptiveAvgPool3d((1, 2, 2)), 3, "refused"),
    _row("AdaptiveMaxPool1d", lambda: nn.AdaptiveMaxPool1d(4), 1),
    _row("AdaptiveMaxPool2d", lambda: nn.AdaptiveMaxPool2d((3, None)), 2),
    _row("AdaptiveMaxPool2d with indices", lambda: AdaptiveMaxPool2d(1, return_indices=True), 2),
    _row("AdaptiveMaxPool3d", lambda: nn.AdaptiveMaxPool3d((1, 2, 2)), 3),
    _row(
        "FractionalMaxPool2d",
        lambda: nn.FractionalMaxPool2d(2, output_size=3),
        2,
        shape=(2, 3, 7, 7),
        random=True,
    ),
    _row(
        "FractionalMaxPool3d",
        lambda: nn.FractionalMaxPool3d(2, output_ratio=(0.7, 0.5, 0.5)),
        3,
        shape=(2, 3, 3, 7, 7),
        random=True,
    ),
]
