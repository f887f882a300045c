from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brickwork import functional as F
from brickwork.errors import ShapeMismatchError

rng = np.random.default_rng(0)
X = jnp.asarray(rng.standard_normal((5, 3, 4)) * 2 + 1, jnp.float32)
W, B = jnp.asarray(rng.standard_normal((2, 3)), jnp.float32)


def plain(x, w, b, eps=1e-5):
    mean, var = x.mean((0, 2)), x.var((0, 2))
    c = [None, slice(None), None]
    y = (x - mean[*c]) * jax.lax.rsqrt(var + eps)[*c] * w[*c] + b[*c]
    return y, mean, var


def scalar(f):
    """A function of all three outputs."""

    def g(*args):
        y, mean, var = f(*args)
        return (jnp.sin(y) * X.astype(y.dtype)).sum() + (mean**3).sum() + jnp.cos(var).sum()

    return g


def test_gradients_through_all_outputs():
    ours = jax.grad(scalar(F.batch_norm_train), (0, 1, 2))(X, W, B)
    theirs = jax.grad(scalar(plain), (0, 1, 2))(X, W, B)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_second_gradients():
    def twice(f):
        inner = jax.grad(scalar(f))
        return jax.grad(lambda x, w, b: (inner(x, w, b) * x[::-1]).sum(), (0, 1, 2))

    with jax.enable_x64(True):
        args = [jnp.asarray(a, jnp.float64) for a in (X, W, B)]
        pairs = zip(twice(F.batch_norm_train)(*args), twice(plain)(*args), strict=True)
        for a, b in pairs:
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


def test_hessian():
    x = X[:2, :1, :2]

    def f(x):
        return (F.batch_norm_train(x)[0] ** 3).sum()

    def g(x):
        return (plain(x, jnp.ones(1), jnp.zeros(1))[0] ** 3).sum()

    np.testing.assert_allclose(jax.hessian(f)(x), jax.hessian(g)(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mean", [1e3, -1e4])
def test_a_large_mean_cancels_nothing(mean):
    x = rng.standard_normal((64, 2, 8)) + mean
    exact = x.astype(np.float32).astype(np.float64)
    y, m, v = F.batch_norm_train(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(m, exact.mean((0, 2)), rtol=1e-6)
    np.testing.assert_allclose(v, exact.var((0, 2)), rtol=1e-4)
    assert abs(float(y.std()) - 1) < 1e-3


def test_the_shift_does_not_matter():
    a = F.batch_norm_train(X, W, B)
    b = F.batch_norm_train(X, W, B, shift=jnp.array([0.0, 1.0, 5.0]))
    for u, v in zip(a, b, strict=True):
        np.testing.assert_allclose(u, v, rtol=1e-4, atol=1e-5)
    slope = jax.grad(lambda s: F.batch_norm_train(X, W, B, shift=s)[0].sum())(jnp.ones(3))
    assert not slope.any()


def test_constant_and_single_inputs():
    y, _, var = F.batch_norm_train(jnp.full((4, 2), 7.0))
    assert not y.any()
    assert not var.any()
    assert not F.batch_norm_train(jnp.ones((1, 2)))[0].any()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision(dtype):
    x, w, b = (a.astype(dtype) for a in (X, W, B))
    y, mean, var = F.batch_norm_train(x, w, b)
    assert (y.dtype, mean.dtype, var.dtype) == (dtype, jnp.float32, jnp.float32)
    wide = F.batch_norm_train(*(a.astype(jnp.float32) for a in (x, w, b)))
    np.testing.assert_array_equal(y, wide[0].astype(dtype))
    np.testing.assert_array_equal(var, wide[2])
    grads = jax.grad(lambda *a: F.batch_norm_train(*a)[0].sum().astype(jnp.float32), (0, 1, 2))
    assert [g.dtype for g in grads(x, w, b)] == [dtype] * 3
    assert F.batch_norm_eval(x, mean, var, w, b).dtype == dtype
    assert F.batch_norm_eval(x, mean, var, W, B).dtype == dtype  # parameters kept in float32
    y = F.layer_norm(x, 4, jnp.ones(4, dtype))
    np.testing.assert_array_equal(y, F.layer_norm(x.astype(jnp.float32), 4).astype(dtype))


def test_under_vmap():
    xs = jnp.stack([X, X + 1])
    np.testing.assert_allclose(
        jax.vmap(lambda x: F.batch_norm_train(x, W, B)[0])(xs)[1],
        F.batch_norm_train(X + 1, W, B)[0],
        rtol=1e-4,
        atol=1e-5,
    )


def test_running_statistics():
    zero, one = jnp.zeros(2), jnp.ones(2)
    n = jnp.zeros((), jnp.int32)
    m, v, n = F.update_running_statistics(zero, one, n, one, one, count=5, momentum=0.1)
    np.testing.assert_allclose(m, 0.1 * one, rtol=1e-6)
    np.testing.assert_allclose(v, (0.9 + 0.1 * 1.25) * one, rtol=1e-6)
    assert (int(n), n.dtype) == (1, jnp.int32)
    m, _, n = F.update_running_statistics(m, v, n, one, one, count=5, momentum=None)
    np.testing.assert_allclose(m, 0.55 * one, rtol=1e-6)
    assert int(n) == 2


def test_layer_norm_of_several_axes():
    w, b = jnp.ones((3, 4)) * 2, jnp.ones((3, 4))
    y = F.layer_norm(X, (3, 4), w, b)
    np.testing.assert_allclose(y.mean((1, 2)), 1, atol=1e-5)
    assert F.layer_norm(X, [3, 4]).shape == X.shape
    assert F.layer_norm(X[:0], 4).shape == (0, 3, 4)


ERRORS = [
    (lambda: F.batch_norm_train(X, jnp.ones(2)), r"batch_norm_train: weight must have shape \(3,\),"),
    (lambda: F.batch_norm_train(X, W, jnp.ones(2)), r"bias must have shape \(3,\), one value per ch"),
    (lambda: F.batch_norm_train(X, shift=jnp.ones(2)), r"shift must have shape \(3,\)"),
    (lambda: F.batch_norm_train(jnp.ones(3)), r"at least 2 axes \(N, C, \.\.\.\), not 1.*x\[None\]"),
    (lambda: F.batch_norm_eval(X, jnp.ones(2), W), r"batch_norm_eval: mean must have shape \(3,\)"),
    (lambda: F.batch_norm_eval(X, W, jnp.ones(2)), r"batch_norm_eval: var must have shape \(3,\)"),
    (
        lambda: F.layer_norm(X, 5),
        r"layer_norm: x has 4 features in its last axis, but normalized_shape \(5,\) expects 5\. "
        r"Got x: float32\[5, 3, 4\]",
    ),
    (lambda: F.layer_norm(X, (2, 4)), r"trailing axes of x must have the sizes \(2, 4\) \(normal"),
    (lambda: F.layer_norm(X, ()), r"normalized_shape must name at least one axis"),
    (lambda: F.layer_norm(X, 4, jnp.ones(3)), r"weight must have shape \(4,\), the normalized_shape"),
]


@pytest.mark.parametrize(("call", "message"), ERRORS)
def test_wrong_shapes(call, message):
    with pytest.raises(ShapeMismatchError, match=message):
        call()


def test_integers():
    for f in (F.batch_norm_train, lambda x: F.batch_norm_eval(x, W, B), lambda x: F.layer_norm(x, 4)):
        with pytest.raises(TypeError, match=r"x holds int32 values, but floating-point values are"):
            f(X.astype(int))
