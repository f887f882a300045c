"""Results that are no arrays are the same object at every call"""

import numpy as np

import brickwork as bw

SEVERITY = "medium"


class Report:
    def __init__(self):
        self.lines = []


def test_what_happens():
    """Arrays in a result are new at each call, and so are the lists, tuples and dicts around them. Any other object was
    made while tracing, and each call returns that one: what a caller writes on it, the next one reads.
    """

    @bw.compile
    def step(x):
        return x * 2, Report()

    x = np.ones(2, np.float32)
    step(x)[1].lines.append("first")
    assert step(x)[1].lines == ["first"]


def test_the_right_way():
    """Return arrays, in lists, tuples and dicts, and make other objects of them outside."""

    @bw.compile
    def compute(x):
        return {"double": x * 2, "notes": []}

    def step(x):
        report = Report()
        report.lines.append(compute(x)["double"].tolist())
        return report

    x = np.ones(2, np.float32)
    compute(x)["notes"].append("first")
    assert compute(x)["notes"] == []
    assert step(x).lines == step(x).lines == [[2, 2]]
