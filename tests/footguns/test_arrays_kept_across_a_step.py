"""Keeping a parameter's array across a step costs a copy of it"""

import numpy as np

import brickwork as bw
from brickwork import nn

SEVERITY = "low"


def test_what_happens():
    """A compiled step overwrites parameters in place. An array that you have taken out stays valid, so it has to be
    copied before: one that is taken at each step, to log its norm say, costs that memory and time.
    """
    net = nn.Linear(256, in_features=256)

    @bw.compile
    def shrink():
        net.weight.value = net.weight.value * 0.5

    net.weight.value = np.ones((256, 256), np.float32)
    shrink()
    taken = net.weight.value
    shrink()
    assert float(taken[0, 0]) == 0.5  # not destroyed
    assert float(net.weight[0, 0]) == 0.25
    assert taken.unsafe_buffer_pointer() != net.weight.value.unsafe_buffer_pointer()


def test_the_right_way():
    """Compute what you want to know in the step, and return that."""
    net = nn.Linear(256, in_features=256)

    @bw.compile
    def shrink():
        net.weight.value = net.weight.value * 0.5
        return abs(net.weight.value).max()

    net.weight.value = np.ones((256, 256), np.float32)
    assert [float(shrink()) for _ in range(3)] == [0.5, 0.25, 0.125]
    assert shrink.stats().donated >= 256 * 256 * 4  # bytes overwritten in place
