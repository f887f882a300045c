"""A function with `jax.debug.print` and decisions on values is not compiled"""

import jax
import numpy as np
import pytest

import brickwork as bw

SEVERITY = "low"


def test_what_happens():
    """A program that took the wrong path is dropped and another one run. What the first has printed can't be taken
    back, so such a function runs as it is, and a warning says so.
    """

    @bw.compile
    def halve(x):
        jax.debug.print("x = {}", x)
        return x / 2 if x > 1 else x

    with pytest.warns(UserWarning, match="runs without being compiled"):
        assert float(halve(np.float32(3))) == 1.5


def test_the_right_way():
    """Print in functions without such decisions, or decide with `bw.cond`."""

    @bw.compile
    def halve(x):
        jax.debug.print("x = {}", x)
        return bw.cond(x > 1, lambda: x / 2, lambda: x)

    assert float(halve(np.float32(3))) == 1.5
    assert halve.stats().compilations == 1
