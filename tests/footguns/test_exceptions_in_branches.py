"""Compiled, `bw.cond` looks at both branches: an exception in one of them always raises"""

import numpy as np
import pytest

import brickwork as bw

SEVERITY = "medium"


def test_what_happens():
    """Where the predicate is known, eagerly, only the chosen branch runs. Compiled, both are traced, to become parts of
    the program: what they raise, print or append happens whichever is taken later.
    """

    def refuse(x):
        raise ValueError("negative")

    def root(x):
        return bw.cond(x >= 0, lambda x: x**0.5, refuse, x)

    four = np.float32(4)
    assert float(root(four)) == 2
    with pytest.raises(ValueError, match="negative"):
        bw.compile(root)(four)


def test_the_right_way():
    """A Python `if` may raise: in a compiled function it is decided by the value, and a program is compiled for the
    path taken. Inside `scan` and the like, compute a flag, return it, and raise outside.
    """

    @bw.compile
    def root(x):
        if x < 0:
            raise ValueError("negative")
        return x**0.5

    assert float(root(np.float32(4))) == 2
    with pytest.raises(ValueError, match="negative"):
        root(np.float32(-4))
