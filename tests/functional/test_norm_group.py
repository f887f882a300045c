"""GroupNorm and InstanceNorm: their own backward pass against the plain formula."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brickwork import functional as F
from brickwork.errors import ShapeMismatchError

rng = np.random.default_rng(0)
X = jnp.asarray(rng.standard_normal((3, 4, 5)) * 2 + 1, jnp.float32)
W, B = jnp.asarray(rng.standard_normal((2, 4)), jnp.float32)
IMAGES = jnp.ones((2, 6, 3, 3))


def plain(x, w, b, groups, eps=1e-5):
    rows = x.reshape(x.shape[0], groups, -1)
    mean, var = rows.mean(2), rows.var(2)
    y = (rows - mean[..., None]) * jax.lax.rsqrt(var + eps)[..., None]
    return y.reshape(x.shape) * w[:, None] + b[:, None], mean, var


def scalar(f):
    """A function of everything returned."""

    def g(*args):
        y, *others = f(*args)
        return (jnp.sin(y) * X.astype(y.dtype)).sum() + sum((v**2).sum() + jnp.cos(v).sum() for v in others)

    return g


def instances(x, w, b):
    return F.instance_norm_train(x, weight=w, bias=b)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_gradients(groups):
    ours = jax.grad(scalar(lambda x, w, b: (F.group_norm(x, groups, w, b),)), (0, 1, 2))(X, W, B)
    theirs = jax.grad(scalar(lambda x, w, b: plain(x, w, b, groups)[:1]), (0, 1, 2))(X, W, B)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_first_and_second_gradients_through_the_statistics():
    def twice(f):
        inner = jax.grad(scalar(f))
        return jax.grad(lambda x, w, b: (inner(x, w, b) * x[::-1]).sum(), (0, 1, 2))

    with jax.enable_x64(True):
        args = [jnp.asarray(a, jnp.float64) for a in (X, W, B)]

        def reference(x, w, b):
            return plain(x, w, b, 4)

        for order in (lambda f: jax.grad(scalar(f), (0, 1, 2)), twice):
            for a, b in zip(order(instances)(*args), order(reference)(*args), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


def test_under_vmap():
    xs = jnp.stack([X, X * 3 - 1])
    many = jax.vmap(lambda x: F.group_norm(x, 2, W, B))(xs)
    np.testing.assert_allclose(many[1], F.group_norm(xs[1], 2, W, B), rtol=1e-5, atol=1e-5)
    grads = jax.vmap(jax.grad(lambda x: (F.group_norm(x, 2, W, B) ** 2).sum()))(xs)
    np.testing.assert_allclose(grads[0], jax.grad(lambda x: (F.group_norm(x, 2, W, B) ** 2).sum())(X), 1e-3, 1e-4)


@pytest.mark.parametrize("mean", [1e3, -1e4])
def test_a_large_mean_cancels_nothing(mean):
    x = (rng.standard_normal((2, 4, 64)) + mean).astype(np.float32)
    y = F.group_norm(x, 2)
    exact = plain(jnp.asarray(x) - mean, jnp.ones(4), jnp.zeros(4), 2)[0]
    np.testing.assert_allclose(y, exact, atol=2e-3 if mean > 0 else 2e-2)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision(dtype):
    x, w, b = (a.astype(dtype) for a in (X, W, B))
    y, mean, var = instances(x, w, b)
    assert (y.dtype, mean.dtype, var.dtype) == (dtype, jnp.float32, jnp.float32)
    wide = instances(*(a.astype(jnp.float32) for a in (x, w, b)))
    np.testing.assert_array_equal(y, wide[0].astype(dtype))
    grads = jax.grad(lambda *a: F.group_norm(a[0], 2, *a[1:]).sum().astype(jnp.float32), (0, 1, 2))
    assert [g.dtype for g in grads(x, w, b)] == [dtype] * 3
    assert F.group_norm(x, 2, W, B).dtype == dtype  # parameters kept in float32


def test_nothing():
    assert F.group_norm(IMAGES[:0], 2).shape == (0, 6, 3, 3)
    assert F.group_norm(IMAGES[..., :0], 2).shape == (2, 6, 3, 0)
    assert F.instance_norm(IMAGES[:, :0]).shape == (2, 0, 3, 3)
    assert F.instance_norm_train(IMAGES[:0])[1].shape == (0, 6)


def test_symbolic_sizes():
    n, c = jax.export.symbolic_shape("n, c")
    spec = jax.ShapeDtypeStruct((n, 4, c), jnp.float32)
    f = jax.export.export(jax.jit(lambda x: F.group_norm(x, 2, W, B)))(spec)
    np.testing.assert_allclose(f.call(X), F.group_norm(X, 2, W, B), rtol=1e-5, atol=1e-5)


ERRORS = {
    "groups": (
        lambda: F.group_norm(IMAGES, 4),
        ShapeMismatchError,
        r"group_norm: x has 6 channels in axis 1, which can't be split into 4 equal groups\. "
        r"Got x: float32\[2, 6, 3, 3\]\. Choose a num_groups that divides the number of channels\.",
    ),
    "no groups": (lambda: F.group_norm(IMAGES, 0), ValueError, r"group_norm: num_groups must be at least 1, got 0\."),
    "half a group": (lambda: F.group_norm(IMAGES, 2.0), TypeError, r"num_groups must be an int, got 2\.0 \(float\)"),
    "weight": (lambda: F.group_norm(IMAGES, 2, W), ShapeMismatchError, r"weight must have shape \(6,\), one value per"),
    "rank": (lambda: F.group_norm(jnp.ones(4), 2), ShapeMismatchError, r"at least 2 axes \(N, C, \.\.\.\), not 1"),
    "integers": (lambda: F.instance_norm(IMAGES.astype(int)), TypeError, r"instance_norm: x holds int32 values"),
    "eps": (lambda: F.group_norm(IMAGES, 2, eps=-1e-5), ValueError, r"eps must be at least 0, got -1e-05\."),
    "nan": (lambda: F.instance_norm(IMAGES, eps=float("nan")), ValueError, r"instance_norm: eps must be a number, got"),
    "text": (lambda: F.group_norm(IMAGES, 2, eps="1e-5"), TypeError, r"eps must be a number, got '1e-5' \(str\)\."),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    call, kind, message = ERRORS[case]
    with pytest.raises(kind, match=message):
        call()
