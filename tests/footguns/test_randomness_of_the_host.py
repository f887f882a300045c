"""The clock and the random numbers of Python and NumPy are read once"""

import random
import time

import jax
import numpy as np

import brickwork as bw

SEVERITY = "high"


def test_what_happens():
    """What `random`, `np.random` and `time` give while tracing is a constant of the program. Noise of this kind is the
    same in every step, and nothing says so.
    """
    rng = np.random.default_rng(0)

    @bw.compile
    def noisy(x):
        return x + random.random() + rng.normal() + time.perf_counter()

    x = np.zeros(3, np.float32)
    assert np.array_equal(noisy(x), noisy(x))


def test_the_right_way():
    """`bw.random.key()` gives the next key of a stream that is part of the state: other numbers at each call, and
    the same ones after `bw.seed`, eager and compiled. What comes from outside is an argument.
    """

    @bw.compile
    def noisy(x, seconds):
        return x + jax.random.normal(bw.random.key(), x.shape) + seconds

    x = np.zeros(3, np.float32)
    first, second = (noisy(x, np.float32(time.perf_counter())) for _ in range(2))
    assert not np.array_equal(first, second)
    assert noisy.stats().compilations == 1
