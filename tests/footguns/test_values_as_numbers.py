"""`float(x)` and `int(x)` in a compiled function make a program for each value"""

import numpy as np
import pytest

import brickwork as bw

SEVERITY = "medium"


def test_what_happens():
    """A decision on a value, `if x > 0`, compiles one program for each path. So does `float(x)`, and then each number
    is a path of its own. After 16 of them the function warns, with the line, and runs eagerly.
    """

    @bw.compile
    def normalised(x):
        return x / float(x.sum())

    with pytest.warns(UserWarning, match=r"\.py:\d+: more than 16 paths"):
        for i in range(1, 20):
            assert np.allclose(normalised(np.full(2, i, np.float32)), 0.5)


def test_the_right_way():
    """Compute with the array. Take a number out of it after the call."""

    @bw.compile
    def normalised(x):
        total = x.sum()
        return x / total, total

    for i in range(1, 20):
        y, total = normalised(np.full(2, i, np.float32))
        assert np.allclose(y, 0.5)
        assert float(total) == 2 * i
    assert normalised.stats().compilations == 1
