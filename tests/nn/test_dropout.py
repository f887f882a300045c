from __future__ import annotations

import jax.numpy as jnp
import numpy as np

import brickwork as bw
from brickwork import nn

X = jnp.ones((20, 20))


def test_each_call_drops_others_and_a_seed_repeats_them():
    layer = nn.Dropout(0.5)
    bw.seed(1)
    first, second = layer(X), layer(X)
    assert (first != second).any()
    bw.seed(1)
    np.testing.assert_array_equal(layer(X), first)


def test_compiled_calls_draw_the_same_stream():
    layer = nn.Dropout(0.5)
    step = bw.compile(lambda x: layer(x))
    bw.seed(1)
    eager = [layer(X), layer(X)]
    bw.seed(1)
    np.testing.assert_array_equal(step(X), eager[0])
    np.testing.assert_array_equal(step(X), eager[1])


def test_evaluation_mode_and_rate_zero_draw_nothing():
    bw.seed(1)
    before = bw.random.key()
    bw.seed(1)
    assert nn.Dropout(0.5).eval()(X) is X
    assert nn.Dropout(0)(X) is X
    assert bw.random.key() == before
