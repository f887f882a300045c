"""Sums around means: what is quick where nothing cancels, and exact where it does."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from brickwork.functional._moments import covariance, moments

rng = np.random.default_rng(0)
NOISE = rng.standard_normal((40, 3)).astype(np.float32)
GRADIENTS = jnp.asarray(rng.standard_normal((40, 3)), jnp.float32)
quick_forms = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the forms of CPUs")


def average(x):
    return x.mean(0)


def spread(v):
    return v[None]


def both(x, dy=GRADIENTS):
    mean, var = moments(x, average, spread)
    rstd = 1 / jnp.sqrt(var + 1e-5)
    return mean, var, covariance(dy, dy.sum(0), x, mean, rstd, lambda v: v.sum(0), spread)


def check(found, x):
    x, dy = np.asarray(x, np.float64), np.asarray(GRADIENTS, np.float64)
    mean = np.asarray(found[0], np.float64)
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found[1], x.var(0), rtol=1e-5)
    np.testing.assert_allclose(found[2], (dy * (x - mean)).sum(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mean", [0.0, 1.0, 3.0, 5.0, 100.0, -1e4])
def test_any_mean(mean):
    x = jnp.asarray(NOISE + np.float32(mean))
    check(jax.jit(both)(x), x)


def test_one_channel_with_a_large_mean():
    x = jnp.asarray(NOISE + np.array([0, 1e4, 1], np.float32))
    check(both(x), x)


@quick_forms
def test_differences_are_computed_only_where_they_are_needed():
    ran = []

    def noted(v):
        jax.debug.callback(lambda: ran.append(1))
        return v[None]

    def run(x):
        mean, var = moments(x, average, noted)
        rstd = 1 / jnp.sqrt(var)
        return covariance(GRADIENTS, GRADIENTS.sum(0), x, mean, rstd, lambda v: v.sum(0), noted)

    run = jax.jit(run)
    for x, times in ((NOISE, 0), (NOISE + 2, 0), (NOISE + 8, 2), (NOISE * np.nan, 2)):
        ran.clear()
        jax.block_until_ready(run(x))
        jax.effects_barrier()
        assert len(ran) == times


def test_lanes_of_both_kinds():
    xs = jnp.stack([jnp.asarray(NOISE), jnp.asarray(NOISE + 1e3)])
    found = jax.jit(jax.vmap(both))(xs)
    for lane, x in enumerate(xs):
        check([v[lane] for v in found], x)


def test_over_devices(devices):
    sharding = NamedSharding(Mesh(np.array(devices), ("data",)), P("data"))
    dy = jax.device_put(GRADIENTS, sharding)
    for x in (NOISE, NOISE + np.float32(1e3)):
        check(jax.jit(both)(jax.device_put(x, sharding), dy), x)


def test_constants_overflow_and_nothing_finite():
    mean, var = moments(jnp.full((40, 1), 0.1), average, spread)
    np.testing.assert_allclose(mean, 0.1, rtol=1e-7)
    assert float(var[0]) < 1e-14
    mean, var = moments(jnp.asarray(NOISE + 1e20, jnp.float32), average, spread)  # its square is infinite
    np.testing.assert_allclose(mean, 1e20, rtol=1e-6)
    assert np.isfinite(var).all()
    mean, var = moments(jnp.asarray(NOISE).at[0, 1].set(jnp.inf), average, spread)
    assert np.isposinf(mean[1])
    assert np.isnan(var[1])
    np.testing.assert_allclose(var[0], NOISE[:, 0].var(), rtol=1e-5)
    assert all(np.isnan(v).all() for v in moments(jnp.zeros((0, 2)), average, spread))


def test_gradients_in_both_cases():
    def plain(x):
        mean = x.mean(0)
        return mean, ((x - mean) ** 2).mean(0), (GRADIENTS.astype(x.dtype) * (x - mean)).sum(0)

    def total(f):
        return jax.grad(lambda x: sum(jnp.sin(v).sum() for v in f(x)))

    with jax.enable_x64(True):
        for mean in (0.5, 50.0):
            x = jnp.asarray(NOISE, jnp.float64) + mean
            found = total(lambda x: both(x, GRADIENTS.astype(x.dtype)))(x)
            np.testing.assert_allclose(found, total(plain)(x), rtol=1e-7, atol=1e-9)
