"""Padding."""

from __future__ import annotations

from tests.contract.row import Row, same

from brickwork import nn

_SHAPES = {1: (2, 2, 3), 2: (2, 2, 3, 4), 3: (2, 1, 2, 2, 3)}
_PADDINGS = {1: (1, 2), 2: (2, 0, 1, -1), 3: 1}


def _row(kind, ndim):
    value = (0.5,) if kind == "ConstantPad" else ()
    layer = getattr(nn, f"{kind}{ndim}d")
    return Row(
        layer.__name__,
        **same(lambda: layer(_PADDINGS[ndim], *value)),
        shape=_SHAPES[ndim],
        wrong_rank=(3, 4, 5)[:ndim],
        # 0.5 can't be added to integers
        integer="" if value else "accepted",
    )


KINDS = ("ConstantPad", "ZeroPad", "ReflectionPad", "ReplicationPad", "CircularPad")
ROWS = [_row(kind, ndim) for kind in KINDS for ndim in (1, 2, 3)]
