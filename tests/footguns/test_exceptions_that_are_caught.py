"""A call that raises changes nothing, unlike the same call eagerly"""

import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw

SEVERITY = "medium"


def count_then_check(count, x):
    count.value += 1
    if x.sum() > 2:
        raise ValueError("too large")
    return x


def test_what_happens():
    """In plain Python, what was written before an exception stays. A compiled function, `bw.grad`, `bw.vmap` and the
    others write when they are done: if the exception is caught and work goes on, counters, running statistics and the
    random stream are where they were before the call, and so later dropout masks differ from the eager ones.
    (`bw.remat` and `bw.cond` outside of any other transform just run the function, as Python does.)
    """
    x = np.ones(3, np.float32)
    eager, compiled = bw.Buffer(jnp.zeros(())), bw.Buffer(jnp.zeros(()))
    with pytest.raises(ValueError):
        count_then_check(eager, x)
    with pytest.raises(ValueError):
        bw.compile(lambda x: count_then_check(compiled, x))(x)
    assert float(eager) == 1 and float(compiled) == 0


def test_the_right_way():
    """Check before anything is written, or return what decides and raise outside of the function."""
    count = bw.Buffer(jnp.zeros(()))

    @bw.compile
    def step(x):
        count.value += 1
        return x, x.sum() > 2

    _, too_large = step(np.ones(3, np.float32))
    assert too_large and float(count) == 1
