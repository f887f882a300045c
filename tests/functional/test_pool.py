from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brickwork import functional as F
from brickwork.errors import ShapeMismatchError

X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 9, 10)), jnp.float32)
FORMS = [(2, 2, 0), (3, 2, 1), (3, 1, 0), (8, 8, 0), (7, 2, 3)]


def reference(x, kernel, stride, padding, value, reducer):
    pads = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    window, strides = (1, 1, kernel, kernel), (1, 1, stride, stride)
    return jax.lax.reduce_window(x, np.float32(value), reducer, window, strides, pads)


@pytest.mark.parametrize("form", FORMS)
def test_same_as_reduce_window(form):
    def theirs(x):
        return reference(x, *form, -np.inf, jax.lax.max)

    def ours(x):
        return F.max_pool2d(x, *form)

    np.testing.assert_array_equal(ours(X), theirs(X))
    grads = [jax.grad(lambda x, f=f: jnp.sin(f(x)).sum())(X) for f in (ours, theirs)]
    np.testing.assert_allclose(*grads, rtol=1e-5, atol=1e-6)
    total = reference(X, *form, 0, jax.lax.add) / form[0] ** 2
    np.testing.assert_allclose(F.avg_pool2d(X, *form), total, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kernel", [2, 8])
def test_first_maximum_gets_the_gradient(kernel):
    g = jax.grad(lambda x: F.max_pool2d(x, kernel).sum())(jnp.zeros((1, kernel, kernel)))
    assert g[0, 0, 0] == 1
    assert g.sum() == 1
    # Equal maxima at (0, 1) and (1, 0): the first in row-major order is the former.
    x = jnp.zeros((1, kernel, kernel)).at[0, 0, 1].set(1.0).at[0, 1, 0].set(1.0)
    assert jax.grad(lambda x: F.max_pool2d(x, kernel).sum())(x)[0, 0, 1] == 1


@pytest.mark.parametrize("kernel", [2, 7])
def test_special_values(kernel):
    x = jnp.zeros((1, 14, 14)).at[0, 0, 0].set(jnp.nan).at[0, 13, 13].set(jnp.inf)
    y = F.max_pool2d(x, kernel)
    assert jnp.isnan(y[0, 0, 0])
    assert y[0, -1, -1] == jnp.inf
    low = jnp.full((1, 14, 14), -jnp.inf)
    assert (F.max_pool2d(low, kernel, padding=1) == -jnp.inf).all()


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("kernel", [2, 7])
def test_dtypes(dtype, kernel):
    x = jnp.arange(97, -1, -1).reshape(1, 7, 14).astype(dtype)
    y = F.max_pool2d(x, kernel, padding=1)
    assert y.dtype == dtype
    assert y.max() == x.max()


def test_half_precision_means_are_summed_in_float32():
    x = jnp.ones((1, 32, 32), jnp.bfloat16).at[0, 0, 0].set(257)
    y = F.avg_pool2d(x, 32)
    assert y.dtype == jnp.bfloat16
    assert float(y[0, 0, 0]) == 1.25


def test_gradient_of_the_gradient_and_forward_mode():
    def f(x):
        return (F.max_pool2d(x, 3, 2, 1) ** 2).sum() + (F.avg_pool2d(x, 2) ** 2).sum()

    tangent = jax.jvp(f, (X,), (X,))[1]
    np.testing.assert_allclose(tangent, (jax.grad(f)(X) * X).sum(), rtol=1e-4)
    hessian_product = jax.grad(lambda x: (jax.grad(f)(x) * X).sum())(X)
    np.testing.assert_allclose(hessian_product, jax.grad(f)(X), rtol=1e-4)  # f is quadratic


def test_empty_batch_and_one_image():
    assert F.max_pool2d(X[:0], 2).shape == (0, 3, 4, 5)
    assert F.avg_pool2d(X[0], [2, 3], stride=[1, 2]).shape == (3, 8, 4)


@pytest.mark.parametrize("pool", [F.max_pool2d, F.avg_pool2d])
def test_errors(pool):
    name = pool.__name__
    with pytest.raises(ShapeMismatchError, match=rf"{name}: x must have 4 axes .* not 2"):
        pool(X[0, 0], 2)
    with pytest.raises(ShapeMismatchError, match=rf"{name}: the window 11 x 2 is larger than the"):
        pool(X, (11, 2))
    with pytest.raises(ValueError, match=rf"{name}: padding must be at most half of kernel_size, g"):
        pool(X, 2, padding=2)
    with pytest.raises(ValueError, match=rf"{name}: kernel_size must be at least 1, got 0"):
        pool(X, 0)
    with pytest.raises(ValueError, match=rf"{name}: stride must be at least 1, got 0"):
        pool(X, 2, 0)
    with pytest.raises(TypeError, match=rf"{name}: kernel_size must be an int, got 2\.5"):
        pool(X, 2.5)


def test_dtype_errors():
    with pytest.raises(TypeError, match=r"max_pool2d: x must hold real numbers, got bool\[1, 2, 2\]"):
        F.max_pool2d(jnp.ones((1, 2, 2), bool), 2)
    with pytest.raises(TypeError, match=r"avg_pool2d: x holds int32 values, .* x\.astype\(jnp\.f"):
        F.avg_pool2d(jnp.ones((1, 2, 2), int), 2)
