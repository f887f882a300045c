"""Raw `jax.jit` makes constants of the parameters it reads"""

import jax
import numpy as np

import brickwork as bw
from brickwork import nn

SEVERITY = "high"


def test_what_happens():
    """Writing a variable inside a raw JAX transform is an error. Reading is allowed, and for `jax.vmap` or `jax.grad`,
    which run anew at each call, it is fine. `jax.jit` keeps what it read: training goes on, its results don't.
    """
    net = nn.Linear(1, in_features=3)
    predict = jax.jit(lambda x: net(x))
    x = np.ones((2, 3), np.float32)
    before = predict(x)
    net.bias[:] += 1
    assert np.array_equal(predict(x), before)
    assert np.allclose(net(x), before + 1)


def test_the_right_way():
    """`bw.compile` takes parameters as inputs. For raw JAX, pass the network as an argument, or use `bw.functional`."""
    net = nn.Linear(1, in_features=3)
    predict = bw.compile(net)
    pure, state = bw.functional(net)
    x = np.ones((2, 3), np.float32)
    before = predict(x)
    net.bias[:] += 1
    assert np.allclose(predict(x), before + 1)
    assert np.allclose(jax.jit(lambda net, x: net(x))(net, x), before + 1)
    assert np.allclose(jax.jit(pure)(state, x)[0], before)  # the state as it was taken
