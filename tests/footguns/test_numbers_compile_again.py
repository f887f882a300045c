"""Each value of a Python number, or of a shape, is a program"""

import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw

SEVERITY = "medium"


def test_what_happens():
    """Arrays are inputs of a program; everything else that it reads, arguments, attributes and globals, is part of it.
    A learning rate or a step number that changes at each call compiles at each call. The tenth time there is a
    warning that names what changes.
    """

    @bw.compile
    def decay(x, rate):
        return x * rate

    x = np.ones(3, np.float32)
    with pytest.warns(bw.RecompileWarning, match="argument 'rate'"):
        for step in range(12):
            decay(x, 0.9**step)
    assert decay.stats().compilations == 12


def test_the_right_way():
    """Pass such a number as an array, or keep it in a `Buffer`. Give batches one size: drop the last, smaller one, or
    pad it. `bw.no_recompile()` around a loop makes sure.
    """

    @bw.compile
    def decay(x, rate):
        return x * rate

    x = np.ones(3, np.float32)
    decay(x, jnp.float32(1.0))
    with bw.no_recompile():
        for step in range(1, 12):
            decay(x, jnp.float32(0.9**step))
    assert decay.stats().compilations == 1
