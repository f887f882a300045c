"""Activation functions."""

from __future__ import annotations

from tests.contract.row import Row, same

from brickwork import nn

ROWS = [
    Row("ReLU", **same(lambda: nn.ReLU()), shape=(2, 3), integer="accepted"),
    Row("Sigmoid", **same(lambda: nn.Sigmoid()), shape=(2, 3), integer="accepted"),
    Row("Tanh", **same(lambda: nn.Tanh()), shape=(2, 3), integer="accepted"),
    Row("GELU", **same(lambda: nn.GELU()), shape=(2, 3), integer="accepted"),
    Row("Softmax", **same(lambda: nn.Softmax()), shape=(2, 3)),
]
