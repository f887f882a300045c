"""A captured NumPy array is a constant: changing it in place is not seen"""

import numpy as np

import brickwork as bw

SEVERITY = "high"


def test_what_happens():
    """Compiled functions notice when a captured name stands for another object. An array changed in place is the same
    object, and comparing its contents at each call would cost too much: the program goes on with what was in it.
    """
    table = np.zeros(2, np.float32)

    @bw.compile
    def look_up(x):
        return x + table

    x = np.ones(2, np.float32)
    look_up(x)
    table[:] = 5
    assert look_up(x).tolist() == [1, 1]
    table = np.full(2, 5, np.float32)  # another object: this is seen
    assert look_up(x).tolist() == [6, 6]


def test_the_right_way():
    """An array that changes is an argument, or a `Buffer`, which can be changed in place."""
    table = bw.Buffer(np.zeros(2, np.float32))

    @bw.compile
    def look_up(x):
        return x + table

    x = np.ones(2, np.float32)
    look_up(x)
    table[:] = 5
    assert look_up(x).tolist() == [6, 6]
    assert look_up.stats().compilations == 1
