"""Plain attributes change while tracing, not at each call"""

import numpy as np

import brickwork as bw
from brickwork import nn

SEVERITY = "high"


def test_what_happens():
    """A compiled function runs as Python while it is traced; later calls run the program that came of it. A number
    kept in a plain attribute is read and set once, then, and its value is part of the program.
    """

    class Warmup(nn.Module):
        def __init__(self):
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return x * self.calls

    x = np.ones((), np.float32)
    eager, compiled = Warmup(), bw.compile(Warmup())
    assert [float(eager(x)) for _ in range(3)] == [1, 2, 3]
    assert [float(compiled(x)) for _ in range(3)] == [1, 1, 1]


def test_the_right_way():
    """State that changes from call to call is a `Buffer`: an input and an output of the program. Set modes and other
    attributes between calls, where the change is seen.
    """

    class Warmup(nn.Module):
        def __init__(self):
            self.calls = bw.Buffer(np.zeros((), np.float32))

        def forward(self, x):
            self.calls += 1
            return x * self.calls

    x = np.ones((), np.float32)
    compiled = bw.compile(Warmup())
    assert [float(compiled(x)) for _ in range(3)] == [1, 2, 3]
