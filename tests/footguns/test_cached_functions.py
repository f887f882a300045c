"""`functools.cache` keeps tracers"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw

SEVERITY = "medium"


def test_what_happens():
    """An array made while tracing belongs to the trace. A cached function that is first called there keeps it, and the
    next caller fails, far from the cause.
    """

    @functools.cache
    def positions(n):
        return jnp.arange(n) / n

    x = np.ones(3, np.float32)
    bw.compile(lambda x: x + positions(3))(x)
    with pytest.raises(jax.errors.UnexpectedTracerError):
        bw.compile(lambda x: x * positions(3))(x)


def test_the_right_way():
    """Cache NumPy arrays, which no trace owns, or nothing: while tracing it costs little, and in the program it is a
    constant anyway. In a module, compute it in `__init__`.
    """

    @functools.cache
    def positions(n):
        return np.arange(n, dtype=np.float32) / n

    x = np.ones(3, np.float32)
    assert np.allclose(bw.compile(lambda x: x + positions(3))(x), 1 + positions(3))
    assert np.allclose(bw.compile(lambda x: x * positions(3))(x), positions(3))
