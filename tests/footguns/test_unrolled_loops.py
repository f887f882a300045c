"""A Python loop is written out, turn by turn"""

import jax.numpy as jnp
import numpy as np

import brickwork as bw
from brickwork import nn

SEVERITY = "medium"


def test_what_happens():
    """`for` over a thousand turns traces the body a thousand times, and the program has a thousand copies of it; the
    time to compile grows faster than that.
    """
    net = nn.Linear(3, in_features=3)
    traced = []

    @bw.compile
    def run(x):
        for _ in range(50):
            traced.append(1)
            x = jnp.tanh(net(x))
        return x

    run(np.ones((1, 3), np.float32))
    assert len(traced) == 50


def test_the_right_way():
    """`bw.scan` and `bw.fori_loop` compile one turn, with the same results; for equal layers in a row there is
    `nn.Repeat`.
    """
    net = nn.Linear(3, in_features=3)
    traced = []

    def turn(i, x):
        traced.append(1)
        return jnp.tanh(net(x))

    x = np.ones((1, 3), np.float32)
    y = bw.compile(lambda x: bw.fori_loop(0, 50, turn, x))(x)
    assert len(traced) < 5
    for _ in range(50):
        x = jnp.tanh(net(x))
    assert np.allclose(x, y, atol=1e-5)
