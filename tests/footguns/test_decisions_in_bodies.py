"""Inside `vmap`, `scan` and the other loops, Python can't decide on values"""

import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw

SEVERITY = "low"


def test_what_happens():
    """Elsewhere in a compiled function `if` on a value works. The body of a loop stands for all of its turns, and that
    of `bw.vmap` for all lanes, which need not decide alike.
    """

    def halve_if_large(x):
        return x / 2 if x > 1 else x

    x = np.array([0.5, 4.0], np.float32)
    with pytest.raises(bw.errors.ControlFlowError, match=r"\.py:\d+: .*x / 2 if x > 1"):
        bw.vmap(halve_if_large)(x)


def test_the_right_way():
    """`jnp.where`, `bw.cond` and `bw.while_loop` decide in each lane, and in each turn, for itself."""

    def halve_if_large(x):
        return bw.cond(x > 1, lambda: x / 2, lambda: x)

    def halve_while_large(x):
        return bw.while_loop(lambda x: x > 1, lambda x: x / 2, x)

    x = np.array([0.5, 4.0], np.float32)
    assert bw.vmap(halve_if_large)(x).tolist() == [0.5, 2]
    assert bw.vmap(halve_while_large)(x).tolist() == [0.5, 1]
    assert jnp.where(x > 1, x / 2, x).tolist() == [0.5, 2]
