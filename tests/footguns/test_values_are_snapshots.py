"""`.value` is the array of this moment, not the variable"""

import numpy as np

import brickwork as bw
from brickwork import nn

SEVERITY = "medium"


def test_what_happens():
    """Arrays are immutable: writing a variable puts another array into it. Who took `.value` before, for speed or by
    habit, computes with the old one, and in a compiled function as a constant at that.
    """
    net = nn.Linear(1, in_features=3)
    weight = net.weight.value

    @bw.compile
    def norm():
        return (weight**2).sum()

    before = norm()
    net.weight[:] *= 2
    assert float(norm()) == float(before)


def test_the_right_way():
    """Keep the variable, which works wherever an array does, and read `.value` where it is needed."""
    net = nn.Linear(1, in_features=3)
    weight = net.weight

    @bw.compile
    def norm():
        return (weight**2).sum()

    before = norm()
    net.weight[:] *= 2
    assert np.allclose(norm(), 4 * before)
    assert norm.stats().compilations == 1
