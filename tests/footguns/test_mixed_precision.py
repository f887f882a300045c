"""A float32 array turns a bfloat16 computation into a float32 one"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brickwork import nn

SEVERITY = "medium"


def test_what_happens():
    """Two arrays of different dtypes are computed with in the wider one, as in NumPy: a bfloat16 network on float32
    data, or times a NumPy number, gives up what was gained. Python's own numbers take the dtype of the array.
    """
    net = nn.Linear(2, in_features=3).to(jnp.bfloat16)
    x = np.ones((1, 3), np.float32)
    with jax.numpy_dtype_promotion("standard"):  # JAX's default
        assert net(x).dtype == jnp.float32
        assert (net.weight * np.float32(0.5)).dtype == jnp.float32
        assert (net.weight * 0.5).dtype == jnp.bfloat16


def test_the_right_way():
    """Convert data where it enters. `jax.numpy_dtype_promotion("strict")`, as a context manager or by
    `jax.config.update`, makes an error of each mixture.
    """
    net = nn.Linear(2, in_features=3).to(jnp.bfloat16)
    x = np.ones((1, 3), np.float32)
    with jax.numpy_dtype_promotion("strict"):
        assert net(jnp.asarray(x, jnp.bfloat16)).dtype == jnp.bfloat16
        with pytest.raises(jax.dtypes.TypePromotionError):
            net(x)
