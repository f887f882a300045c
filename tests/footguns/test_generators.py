"""Generators and coroutines can't be compiled"""

import numpy as np
import pytest

import brickwork as bw

SEVERITY = "low"


def test_what_happens():
    """A generator function returns at once and does its work later, outside of the call that could be traced."""

    def halves(x):
        while True:
            x = x / 2
            yield x

    with pytest.raises(TypeError, match="generator function, which does its work after the call"):
        bw.compile(halves)


def test_the_right_way():
    """Compile the computation, and let the generator call it."""

    @bw.compile
    def half(x):
        return x / 2

    def halves(x):
        while True:
            x = half(x)
            yield x

    found = halves(np.float32(8))
    assert [float(next(found)) for _ in range(3)] == [4, 2, 1]
