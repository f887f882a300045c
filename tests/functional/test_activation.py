from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brickwork import functional as F
from brickwork.errors import ShapeMismatchError

ALL = [
    F.celu,
    F.elu,
    F.gelu,
    F.hardshrink,
    F.hardsigmoid,
    F.hardswish,
    F.hardtanh,
    F.leaky_relu,
    F.log_softmax,
    F.logsigmoid,
    F.mish,
    F.relu,
    F.relu6,
    F.rrelu,
    F.selu,
    F.sigmoid,
    F.silu,
    F.softmax,
    F.softmin,
    F.softplus,
    F.softshrink,
    F.softsign,
    F.tanh,
    F.tanhshrink,
]


@pytest.mark.parametrize("f", ALL, ids=lambda f: f.__name__)
def test_shapes_dtypes_and_extremes(f):
    for shape in ((), (3,), (2, 0), (2, 3, 4)):
        assert f(jnp.ones(shape)).shape == shape
    assert f(jnp.ones(3, jnp.bfloat16)).dtype == jnp.bfloat16
    x = jnp.array([-1e4, 0.0, 1e4])
    assert jnp.isfinite(f(x)).all()
    assert jnp.isfinite(jax.jacobian(f)(x)).all()


@pytest.mark.parametrize("f", ALL, ids=lambda f: f.__name__)
def test_half_precision_is_rounded_once(f):
    if f in (F.gelu, F.sigmoid, F.tanh, F.leaky_relu, F.rrelu, F.softshrink):
        pytest.skip("computed in the dtype of the input")
    x = jnp.linspace(-4, 4, 97).astype(jnp.float16)
    np.testing.assert_array_equal(f(x), f(x.astype(jnp.float32)).astype(jnp.float16))


@pytest.mark.parametrize("f", [F.silu, F.mish, F.softplus, F.logsigmoid, F.tanhshrink, F.elu, F.selu, F.celu])
def test_second_derivatives_are_finite(f):
    second = jax.vmap(jax.grad(jax.grad(f)))
    x = jnp.array([-1e4, -90.0, -1.0, 0.5, 20.5, 90.0, 1e4])
    assert jnp.isfinite(second(x)).all()
    h = 1e-3
    slope = jax.grad(f)
    np.testing.assert_allclose(second(x)[2], (slope(-1.0 + h) - slope(-1.0 - h)) / (2 * h), atol=1e-3)


def test_scalar_axis():
    assert F.softmin(jnp.float32(3.0)) == 1
    assert F.gumbel_softmax(jnp.float32(3.0), jax.random.key(0), hard=True) == 1


def test_relu():
    assert F.relu(jnp.array([-1, 2])).dtype == jnp.int32
    assert jax.grad(F.relu)(0.0) == 0


@pytest.mark.parametrize("f", [F.softmax, F.log_softmax])
def test_softmax_sums_in_float32(f):
    x = jnp.linspace(-1, 1, 1000).astype(jnp.bfloat16)
    np.testing.assert_array_equal(f(x), f(x.astype(jnp.float32)).astype(jnp.bfloat16))


def test_prelu():
    x = -jnp.arange(1.0, 7).reshape(1, 3, 2)
    w = jnp.array([1.0, 10, 100])
    np.testing.assert_array_equal(F.prelu(x, w), x * w[:, None])
    np.testing.assert_array_equal(F.prelu(x, jnp.float32(2.0)), x * 2)
    # many small terms, summed in float32
    big = -jnp.ones(3000, jnp.bfloat16)
    assert jax.grad(lambda w: F.prelu(big, w).sum(dtype=jnp.float32))(jnp.ones(1, jnp.bfloat16)) == -3008


def test_rrelu():
    x = jnp.array([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(F.rrelu(x, 0.2, 0.4), [-0.3, 0, 2], rtol=1e-6)
    a, b = (F.rrelu(jnp.full(100, -1.0), key=jax.random.key(i)) for i in range(2))
    assert not np.array_equal(a, b)
    assert ((a >= -1 / 3) & (a <= -1 / 8)).all()
    y, pull = jax.vjp(lambda x: F.rrelu(x, key=jax.random.key(0)), x)
    np.testing.assert_allclose(pull(jnp.ones(3))[0][0], -y[0])
    assert pull(jnp.ones(3))[0][2] == 1
    np.testing.assert_array_equal(F.rrelu(x, 0.5, 0.5, jax.random.key(0)), [-0.5, 0, 2])


def test_gumbel_softmax():
    logits = jnp.arange(6.0).reshape(2, 3)
    key = jax.random.key(0)
    soft = F.gumbel_softmax(logits, key, 0.7)
    np.testing.assert_allclose(soft.sum(-1), 1, rtol=1e-6)
    hard = F.gumbel_softmax(logits, key, 0.7, hard=True)
    np.testing.assert_array_equal(hard, jax.nn.one_hot(soft.argmax(-1), 3))
    weights = jnp.array([1.0, -2.0, 3.0])
    grads = [jax.grad(lambda x, h=h: (F.gumbel_softmax(x, key, 0.7, h) * weights).sum())(logits) for h in (False, True)]
    np.testing.assert_allclose(*grads, rtol=1e-6)
    np.testing.assert_array_equal(F.gumbel_softmax(logits, key, jnp.float32(0.7)), soft)
    np.testing.assert_allclose(F.gumbel_softmax(logits, key, dim=0).sum(0), 1, rtol=1e-6)
    half = F.gumbel_softmax(logits.astype(jnp.float16), key, 0.7)
    assert half.dtype == jnp.float16
    np.testing.assert_allclose(half, soft, atol=1e-3)


def test_errors():
    with pytest.raises(ValueError, match=r"gelu: approximate must be 'none' or 'tanh', got True"):
        F.gelu(jnp.ones(2), True)
    with pytest.raises(ShapeMismatchError, match=r"softmax: dim=1 is no axis of an array of 1 dim"):
        F.softmax(jnp.ones(2), 1)
    with pytest.raises(TypeError, match=r"log_softmax: x holds int32 values, but floating-point"):
        F.log_softmax(jnp.ones(2, int))
    with pytest.raises(TypeError, match=r"softmax: dim must be an int, got None"):
        F.softmax(jnp.ones(2), None)


def test_half_precision_where_the_formula_overflows_or_rounds():
    values = jnp.asarray([-3.5, -3, -2.8], jnp.bfloat16)
    exact = np.array([-0.000616, -0.003637, -0.006750])
    np.testing.assert_allclose(np.asarray(F.gelu(values, "tanh"), np.float64), exact, rtol=1e-2)
    slope = jax.grad(lambda x: F.gelu(x, "tanh"))
    assert [float(slope(jnp.float16(v))) for v in (300, -700, 3e4)] == [1, 0, 1]
    assert float(jax.grad(slope)(jnp.float16(100))) == 0
    np.testing.assert_allclose(float(F.sigmoid(jnp.float16(-12.25))), 4.77e-6, rtol=0.01)
