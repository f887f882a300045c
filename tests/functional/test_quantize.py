"""Rounding to 8 bits, and products of integers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brickwork import functional as F
from brickwork.errors import ShapeMismatchError
from brickwork.functional._quantize import float_product, integer_product

RNG = np.random.default_rng(0)


def arrays(rows, inputs, outputs):
    x = jnp.asarray(RNG.normal(size=(rows, inputs)), jnp.float32)
    q, scale = F.quantize(jnp.asarray(RNG.normal(size=(outputs, inputs)), jnp.float32), 1)
    return x, q, scale


@pytest.mark.parametrize("axes", [1, -1, (1, 2), (0, 2), ()])
def test_there_and_back(axes):
    w = jnp.asarray(RNG.normal(size=(3, 4, 5)), jnp.float32)
    q, scale = F.quantize(w, axes)
    chosen = axes if isinstance(axes, tuple) else (axes % 3,)
    assert q.dtype == jnp.int8 and scale.shape == tuple(n for i, n in enumerate(w.shape) if i not in chosen)
    back = F.dequantize(q, scale, axes)
    bound = np.expand_dims(np.asarray(scale) / 2, chosen)
    assert (abs(np.asarray(back - w)) <= bound * (1 + 1e-5)).all()
    np.testing.assert_array_equal(F.quantize(back, axes)[0], q)


def test_extreme_values():
    w = jnp.array([[0.0, 0.0], [1e-37, -1e-37], [3e38, -3e38], [jnp.inf, 1.0], [jnp.nan, 1.0], [-1.0, 1.0]])
    q, scale = F.quantize(w, 1)
    assert q[0].tolist() == [0, 0] and scale[0] == 1
    assert np.isfinite(scale[:3]).all() and not np.isfinite(scale[3:5]).any()
    assert q[2].tolist() == [127, -127] and q[5].tolist() == [-127, 127]
    assert F.quantize(jnp.zeros((2, 0)), 1)[1].tolist() == [1, 1]
    assert F.quantize(jnp.zeros((0, 2)), 1)[0].shape == (0, 2)


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 1, 1), (5, 300, 7), (0, 3, 2), (64, 64, 33), (2, 0, 3)])
def test_integer_product_is_as_good_as_floats(rows, inputs, outputs):
    x, q, scale = arrays(rows, inputs, outputs)
    exact = np.asarray(x, np.float64) @ (np.asarray(q, np.float64) * np.asarray(scale, np.float64)[:, None]).T
    found = integer_product(x, q, scale)
    assert found.shape == exact.shape
    # A number is off by 1 / (4 * 127 * 127) of the largest of its row.
    largest = abs(np.asarray(x)).max(1, initial=0)[:, None]
    weights = (abs(np.asarray(q, np.float64)) * np.asarray(scale, np.float64)[:, None]).sum(1)
    assert (abs(found - exact) <= largest * weights / (4 * 127**2) * 1.01 + 1e-6).all()
    np.testing.assert_allclose(float_product(x, q, scale), exact, rtol=1e-4, atol=1e-4)


def test_integer_product_of_extreme_values():
    _, q, scale = arrays(1, 3, 4)
    x = jnp.array([[0.0, 0.0, 0.0], [1e-40, 0.0, 0.0], [1e37, 1.0, 0.0], [jnp.nan, 1.0, 0.0], [jnp.inf, 1.0, 0.0]])
    found = np.asarray(integer_product(x, q, scale))
    assert (found[0] == 0).all() and np.isfinite(found[:3]).all()
    assert np.isnan(found[3]).all() and not np.isfinite(found[4]).any()
    np.testing.assert_allclose(found[2], float_product(x[2:3], q, scale)[0], rtol=1e-3)


def test_derivatives_are_those_of_the_product():
    x, q, scale = arrays(4, 6, 5)
    weights = jnp.asarray(RNG.normal(size=(4, 5)), jnp.float32)

    def loss(product):
        return lambda x, scale: (weights * product(x, q, scale) ** 2).sum()

    ours = jax.grad(loss(integer_product), (0, 1))(x, scale)
    plain = jax.grad(loss(float_product), (0, 1))(x, scale)
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
    second = [jax.jit(jax.hessian(lambda v, p=p: loss(p)(v, scale)))(x) for p in (integer_product, float_product)]
    np.testing.assert_allclose(second[0], second[1], rtol=1e-3, atol=1e-3)
    tangents = [jax.jvp(lambda v, p=p: p(v, q, scale), (x,), (x,))[1] for p in (integer_product, float_product)]
    np.testing.assert_allclose(tangents[0], tangents[1], rtol=1e-5)


def test_integer_product_under_vmap():
    x, q, scale = arrays(4, 6, 5)
    many = jnp.stack([x, 2 * x])
    np.testing.assert_allclose(
        jax.vmap(integer_product, (0, None, None))(many, q, scale), [integer_product(v, q, scale) for v in many]
    )


def test_messages():
    with pytest.raises(TypeError, match=r"^quantize: weight must hold real floating-point values, got int32\[2\]\.$"):
        F.quantize(jnp.ones(2, jnp.int32), 0)
    with pytest.raises(ShapeMismatchError, match=r"^quantize: axes=2 is no axis of an array of 1 dimensions"):
        F.quantize(jnp.ones(2), 2)
    with pytest.raises(
        ShapeMismatchError, match=r"^dequantize: scale must have shape \(2,\), that of q without axes \(1,\)"
    ):
        F.dequantize(jnp.ones((2, 3), jnp.int8), jnp.ones(3), 1)
