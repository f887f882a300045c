"""Activation functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.contract.row import Row, same

from brickwork import nn


def elementwise(make: Callable[[], Any], name: str | None = None, integer: str = "refused", **more: Any) -> Row:
    return Row(name or type(make()).__name__, **same(make), shape=(2, 3), integer=integer, **more)


# The options keep the kinks of the functions away from the values of the rows: 1.02, 0.44, -0.15 and others.
ROWS = [
    elementwise(lambda: nn.ReLU(), integer="accepted"),
    elementwise(lambda: nn.Sigmoid(), integer="accepted"),
    elementwise(lambda: nn.Tanh(), integer="accepted"),
    elementwise(lambda: nn.GELU(), integer="accepted"),
    elementwise(lambda: nn.GELU("tanh"), "GELU by tanh", integer="accepted"),
    elementwise(lambda: nn.SiLU()),
    elementwise(lambda: nn.Mish()),
    elementwise(lambda: nn.Softplus(2.0, 2.5)),
    elementwise(lambda: nn.LogSigmoid()),
    elementwise(lambda: nn.Softsign(), integer="accepted"),
    elementwise(lambda: nn.Tanhshrink(), integer="accepted"),
    elementwise(lambda: nn.ELU(0.5)),
    elementwise(lambda: nn.SELU()),
    elementwise(lambda: nn.CELU(0.5)),
    elementwise(lambda: nn.ReLU6(), integer="accepted"),
    elementwise(lambda: nn.Hardtanh(-0.5, 1.25)),
    elementwise(lambda: nn.Hardsigmoid()),
    elementwise(lambda: nn.Hardswish()),
    elementwise(lambda: nn.LeakyReLU(0.2)),
    elementwise(lambda: nn.PReLU(), parameters=("weight",)),
    elementwise(
        lambda: nn.PReLU(3, 0.5),
        "PReLU per channel",
        wrong_rank=(3,),
        wrong_width=(2, 4),
        parameters=("weight",),
    ),
    elementwise(lambda: nn.RReLU(), random=True),
    elementwise(lambda: nn.Threshold(0.25, -1.0)),
    elementwise(lambda: nn.Hardshrink(0.3)),
    elementwise(lambda: nn.Softshrink(0.3)),
    elementwise(lambda: nn.Softmax()),
    elementwise(lambda: nn.LogSoftmax()),
    elementwise(lambda: nn.Softmin()),
    Row("Softmax2d", **same(lambda: nn.Softmax2d()), shape=(2, 3, 1, 2), wrong_rank=(2, 3)),
    Row("GLU", **same(lambda: nn.GLU()), shape=(2, 4), wrong_rank=(), wrong_width=(2, 3)),
]
