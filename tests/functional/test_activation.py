from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brickwork import functional as F
from brickwork.errors import ShapeMismatchError

ALL = [F.relu, F.sigmoid, F.tanh, F.gelu, F.softmax, F.log_softmax]


@pytest.mark.parametrize("f", ALL, ids=lambda f: f.__name__)
def test_shapes_dtypes_and_extremes(f):
    for shape in ((), (3,), (2, 0), (2, 3, 4)):
        assert f(jnp.ones(shape)).shape == shape
    assert f(jnp.ones(3, jnp.bfloat16)).dtype == jnp.bfloat16
    x = jnp.array([-1e4, 0.0, 1e4])
    assert jnp.isfinite(f(x)).all()
    assert jnp.isfinite(jax.jacobian(f)(x)).all()


def test_relu():
    assert F.relu(jnp.array([-1, 2])).dtype == jnp.int32
    assert jax.grad(F.relu)(0.0) == 0


@pytest.mark.parametrize("f", [F.softmax, F.log_softmax])
def test_softmax_sums_in_float32(f):
    x = jnp.linspace(-1, 1, 1000).astype(jnp.bfloat16)
    np.testing.assert_array_equal(f(x), f(x.astype(jnp.float32)).astype(jnp.bfloat16))


def test_errors():
    with pytest.raises(ValueError, match=r"gelu: approximate must be 'none' or 'tanh', got True"):
        F.gelu(jnp.ones(2), True)
    with pytest.raises(ShapeMismatchError, match=r"softmax: dim=1 is no axis of an array of 1 dim"):
        F.softmax(jnp.ones(2), 1)
    with pytest.raises(TypeError, match=r"log_softmax: x holds int32 values, but floating-point"):
        F.log_softmax(jnp.ones(2, int))
    with pytest.raises(TypeError, match=r"softmax: dim must be an int, got None"):
        F.softmax(jnp.ones(2), None)
