"""Dense layers and reshaping."""

from __future__ import annotations

from tests.contract.row import Row, same, with_inputs

from brickwork import nn

Bilinear = with_inputs(nn.Bilinear, lambda x: (x, x))

ROWS = [
    Row(
        "Linear",
        lambda: nn.Linear(3),
        lambda: nn.Linear(3, in_features=5),
        (4, 5),
        wrong_rank=(),
        wrong_width=(4, 7),
        parameters=("weight", "bias"),
    ),
    Row(
        "Linear without bias",
        lambda: nn.Linear(3, bias=False),
        lambda: nn.Linear(3, in_features=5, bias=False),
        (2, 2, 5),
        wrong_rank=(),
        wrong_width=(4, 7),
        parameters=("weight",),
    ),
    Row(
        "Bilinear",
        lambda: Bilinear(3),
        lambda: Bilinear(3, in1_features=5, in2_features=5),
        (2, 2, 5),
        wrong_rank=(),
        wrong_width=(4, 7),
        parameters=("weight", "bias"),
    ),
    Row(
        "Unflatten",
        **same(lambda: nn.Unflatten(-1, (2, -1))),
        shape=(2, 6),
        wrong_rank=(),
        wrong_width=(2, 5),
        integer="accepted",
    ),
    Row("Flatten", **same(lambda: nn.Flatten()), shape=(2, 2, 3), wrong_rank=(), integer="accepted"),
    Row("Identity", **same(lambda: nn.Identity()), shape=(2, 3), integer="accepted"),
]
