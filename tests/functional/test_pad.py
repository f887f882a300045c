"""Padding: dtypes, values, derivatives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import brickwork as bw
from brickwork import functional as F

X = jnp.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_as_numpy(mode):
    name = {"edge": "replicate", "wrap": "circular"}.get(mode, mode)
    for dtype in (jnp.float32, jnp.int8, jnp.bool_, jnp.bfloat16, jnp.complex64):
        x = X.astype(dtype)
        y = F.pad(x, (1, 3, 2, 0), name)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, np.pad(np.asarray(x), ((2, 0), (1, 3)), mode))


def test_values():
    assert F.pad(jnp.array([1, 2], jnp.uint8), (1, 0), value=255).tolist() == [255, 1, 2]
    assert F.pad(jnp.array([True]), (1, 0), value=0).tolist() == [False, True]
    assert F.pad(jnp.array([1, 2]), (1, 0), value=7.0).tolist() == [7, 1, 2]
    assert F.pad(X, (1, 0), value=-np.inf)[0, 0] == -jnp.inf
    assert jnp.isnan(F.pad(X.astype(jnp.bfloat16), (1, 0), value=np.nan)[0, 0])
    assert F.pad(X, (0, 1), value=0.1)[0, -1] == np.float32(0.1)


def test_a_value_that_changes_compiles_once(monkeypatch):
    from brickwork.functional import _pad

    before = _pad._pad_with_value._cache_size()
    for value in (0.25, 0.5, 0.75):
        F.pad(jnp.ones((2, 9)), (1, 0), value=value)
    assert _pad._pad_with_value._cache_size() == before + 1


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_derivatives_and_maps(mode):
    def f(x):
        return F.pad(x, (2, -1, 1, 0), mode)

    weights = jnp.cos(jnp.arange(20.0)).reshape(4, 5)
    gradient = jax.grad(lambda x: (f(x) * weights).sum())(X)
    for place in ((0, 0), (1, 1), (2, 3)):  # padding is linear
        unit = jnp.zeros((3, 4)).at[place].set(1.0)
        np.testing.assert_allclose(gradient[place], (f(unit) * weights).sum(), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(jax.vmap(f)(jnp.stack([X, 2 * X]))[1], f(2 * X))
    np.testing.assert_array_equal(jax.jit(f)(X), f(X))


def test_cropping_to_nothing_and_padding_nothing():
    assert F.pad(X, (-2, -2)).shape == (3, 0)
    np.testing.assert_array_equal(F.pad(X, (-4, 2), "reflect"), X[:, [2, 1]])
    np.testing.assert_array_equal(F.pad(X, ()), X)
    np.testing.assert_array_equal(F.pad(bw.Parameter(X), [0, 0], "circular"), X)


def test_batches_of_symbolic_size():
    (n,) = export.symbolic_shape("n")
    for mode in ("constant", "reflect", "replicate", "circular"):
        f = jax.jit(lambda x, mode=mode: F.pad(x, (1, 2), mode))
        exported = export.export(f)(jax.ShapeDtypeStruct((n, 4), jnp.float32))
        np.testing.assert_array_equal(exported.call(X), f(X))
