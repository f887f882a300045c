"""Sampling on grids, one-hot vectors and distances of pairs: what parity doesn't see."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brickwork import functional as F

KEY = jax.random.key(0)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("align", [False, True])
def test_the_grid_of_the_identity_changes_nothing(axes, align):
    shape = (2, 3, 4, 5, 6)[: axes + 2]
    x = jax.random.normal(KEY, shape)
    theta = jnp.broadcast_to(jnp.eye(axes, axes + 1), (2, axes, axes + 1))
    np.testing.assert_allclose(F.grid_sample(x, F.affine_grid(theta, shape, align), align_corners=align), x, atol=1e-5)


def test_under_transforms():
    x, grid = jax.random.normal(KEY, (3, 2, 4, 4)), jax.random.uniform(KEY, (3, 2, 2, 2), minval=-1)
    one = jax.vmap(lambda a, g: F.grid_sample(a[None], g[None])[0])(x, grid)
    np.testing.assert_allclose(one, F.grid_sample(x, grid), rtol=1e-6)
    _, tangent = jax.jvp(lambda g: F.grid_sample(x, g).sum(), (grid,), (jnp.ones_like(grid),))
    np.testing.assert_allclose(tangent, jax.grad(lambda g: F.grid_sample(x, g).sum())(grid).sum(), rtol=1e-4)


def test_distances_under_transforms():
    x = jax.random.normal(KEY, (2, 4, 3))
    np.testing.assert_allclose(jax.vmap(F.pdist)(x), jnp.stack([F.pdist(x[0]), F.pdist(x[1])]), rtol=1e-6)

    def cost(x):
        return (F.pdist(x, 3.0) ** 2).sum()

    with jax.enable_x64(True):
        wide = jnp.asarray(np.asarray(x[0]), jnp.float64)
        direction = jnp.ones_like(wide).at[1].set(-2.0)
        _, tangent = jax.jvp(cost, (wide,), (direction,))
        np.testing.assert_allclose(tangent, (jax.grad(cost)(wide) * direction).sum(), rtol=1e-10)
        curved = jax.jvp(jax.grad(cost), (wide,), (direction,))[1]
        step = 1e-6
        differences = (jax.grad(cost)(wide + step * direction) - jax.grad(cost)(wide - step * direction)) / (2 * step)
        np.testing.assert_allclose(curved, differences, rtol=1e-5)


def test_on_other_platforms_all_rows_at_once(monkeypatch):
    x = jax.random.normal(KEY, (5, 4))
    expected = jax.grad(lambda x: (F.pdist(x) ** 3).sum())(x)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jax.clear_caches()
    np.testing.assert_allclose(jax.grad(lambda x: (F.pdist(x) ** 3).sum())(x), expected, rtol=1e-5)
    jax.clear_caches()


def test_one_hot():
    assert F.one_hot(jnp.array([1]), 3, jnp.float32).dtype == jnp.float32
    assert F.one_hot(jnp.array([1, 7, -1]), 3).tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]  # not known: zeros
    assert F.one_hot(np.array([200], np.uint8), 300).argmax() == 200
    assert jax.jit(lambda x: F.one_hot(x, 3))(jnp.array([1])).tolist() == [[0, 1, 0]]
