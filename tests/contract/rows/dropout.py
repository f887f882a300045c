"""Dropout."""

from __future__ import annotations

from tests.contract.row import Row, same

from brickwork import nn

ROWS = [
    Row(
        "Dropout",
        **same(lambda: nn.Dropout(0.5)),
        shape=(4, 5),
        random=True,
    ),
    Row("Dropout1d", **same(lambda: nn.Dropout1d(0.5)), shape=(4, 5, 2), random=True, wrong_rank=(5,)),
    Row("Dropout2d", **same(lambda: nn.Dropout2d(0.5)), shape=(4, 5, 1, 2), random=True, wrong_rank=(5, 1, 2)),
    Row("Dropout3d", **same(lambda: nn.Dropout3d(0.5)), shape=(4, 5, 1, 2, 1), random=True, wrong_rank=(5, 1)),
    Row("AlphaDropout", **same(lambda: nn.AlphaDropout(0.5)), shape=(4, 5), random=True),
    Row(
        "FeatureAlphaDropout",
        **same(lambda: nn.FeatureAlphaDropout(0.5)),
        shape=(4, 5, 2),
        random=True,
        wrong_rank=(5,),
    ),
]
