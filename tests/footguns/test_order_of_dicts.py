"""Compiled, a dict in the result comes back with sorted keys"""

import numpy as np

import brickwork as bw

SEVERITY = "low"


def test_what_happens():
    """JAX sorts the keys of dicts where it takes nests of arrays apart."""

    @bw.compile
    def losses(x):
        return {"total": x.sum(), "main": x.mean()}

    assert list(losses(np.ones(2, np.float32))) == ["main", "total"]


def test_the_right_way():
    """Go by the keys, or return tuples or pairs where the order matters."""

    @bw.compile
    def losses(x):
        return [("total", x.sum()), ("main", x.mean())]

    assert list(dict(losses(np.ones(2, np.float32)))) == ["total", "main"]
