"""`vmap` draws other random numbers than a loop over the examples"""

import jax.numpy as jnp
import numpy as np

import brickwork as bw
from brickwork import nn

SEVERITY = "medium"


def test_what_happens():
    """The lanes of `bw.vmap` run at once, so they can't take numbers from one stream in turn: each has a stream of its
    own, split off the outer one. Masks are as random as in a loop, and not the same ones.
    """
    net = nn.Dropout(0.5)
    x = jnp.ones((4, 8))
    bw.seed(0)
    mapped = bw.vmap(net)(x)
    bw.seed(0)
    looped = jnp.stack([net(row) for row in x])
    assert not np.array_equal(mapped, looped)


def test_the_right_way():
    """Where the numbers must be those of a loop, use one: `bw.scan` draws exactly what Python's `for` does. A mapped
    function repeats itself after the same seed.
    """
    net = nn.Dropout(0.5)
    x = jnp.ones((4, 8))
    bw.seed(0)
    looped = jnp.stack([net(row) for row in x])
    bw.seed(0)
    assert np.array_equal(bw.scan(lambda carry, row: (carry, net(row)), None, x)[1], looped)
    bw.seed(0)
    mapped = bw.vmap(net)(x)
    bw.seed(0)
    assert np.array_equal(bw.vmap(net)(x), mapped)
