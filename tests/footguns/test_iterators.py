"""An iterator that is read inside gives its first item for ever"""

import numpy as np

import brickwork as bw

SEVERITY = "high"


def test_what_happens():
    """`next(batches)` in a compiled function runs while it is traced. The first batch becomes a constant, and all
    steps train on it.
    """
    batches = iter([np.full(2, i, np.float32) for i in range(3)])

    @bw.compile
    def total():
        return next(batches).sum()

    assert [float(total()) for _ in range(3)] == [0, 0, 0]


def test_the_right_way():
    """Loop outside and pass each batch. (An iterator as an argument is refused, with this advice.)"""

    @bw.compile
    def total(batch):
        return batch.sum()

    batches = iter([np.full(2, i, np.float32) for i in range(3)])
    assert [float(total(batch)) for batch in batches] == [0, 2, 4]
    assert total.stats().compilations == 1
