"""`print`, `append` and other effects run while tracing"""

import jax
import numpy as np

import brickwork as bw
from brickwork import nn

SEVERITY = "medium"


def test_what_happens():
    """They run when a function is traced: once, or several times where shapes are inferred first, and again for
    arguments of another shape; not in other calls. What they see are tracers, which have a shape and no value.
    """
    net = nn.Linear(1)
    seen = []

    @bw.compile
    def step(x):
        seen.append(str(x))
        return bw.grad(lambda x: net(x).sum(), net)(x)

    for _ in range(5):
        step(np.ones((2, 3), np.float32))
    assert 1 <= len(seen) < 5
    assert all("float32[2,3]" in text for text in seen)


def test_the_right_way():
    """`jax.debug.print` and `jax.debug.callback` run at each call, with values. Better still, return what you want to
    keep.
    """
    seen = []

    @bw.compile
    def double(x):
        jax.debug.callback(lambda value: seen.append(float(value)), x)
        return 2 * x, x - 1

    results = [float(double(np.float32(i))[1]) for i in range(3)]
    jax.effects_barrier()
    assert seen == [0, 1, 2]
    assert results == [-1, 0, 1]
