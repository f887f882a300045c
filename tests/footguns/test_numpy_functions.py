"""NumPy's functions, and writing into an array, work in eager calls only"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw

SEVERITY = "low"


def test_what_happens():
    """Eagerly, an array given as NumPy is NumPy's: it may be sorted with `np.sort` and written into. In a transform it
    is traced, and both raise.
    """

    def largest_first(x):
        return np.sort(x)[::-1]

    def clear_first(x):
        x[0] = 0
        return x

    x = np.array([1.0, 2.0], np.float32)
    assert largest_first(x).tolist() == [2, 1]
    with pytest.raises(jax.errors.TracerArrayConversionError):
        bw.compile(largest_first)(x)
    assert clear_first(x.copy()).tolist() == [0, 2]
    with pytest.raises(TypeError, match=r"x\.at\[idx\]\.set"):
        bw.compile(clear_first)(x)


def test_the_right_way():
    """`jnp` has the same functions, and `x.at[i].set(v)` gives a changed copy, which compiled is no copy. Variables can
    be written in place anywhere.
    """

    @bw.compile
    def both(x):
        return jnp.sort(x)[::-1], x.at[0].set(0.0)

    first, second = both(np.array([1.0, 2.0], np.float32))
    assert first.tolist() == [2, 1]
    assert second.tolist() == [0, 2]
