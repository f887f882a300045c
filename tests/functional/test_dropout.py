from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brickwork import functional as F

KEY = jax.random.key(0)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5, 7), (4, 8), (0, 3)])
def test_any_size(shape):
    y = F.dropout(jnp.ones(shape), 0.5, KEY)
    assert y.shape == shape
    assert set(np.asarray(y).ravel().tolist()) <= {0.0, 2.0}


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate_scale_and_independence(rate):
    n = 200_000
    y = np.asarray(F.dropout(jnp.ones((2, n // 2)), rate, KEY))
    dropped = y == 0
    sigma = (rate * (1 - rate) / n) ** 0.5
    assert abs(dropped.mean() - rate) < 5 * sigma
    drop_levels = round(rate * 65536)
    np.testing.assert_allclose(y[~dropped], 65536 / (65536 - drop_levels), rtol=1e-6)
    flat = dropped.ravel()  # neighbours share a random word
    both = (flat[::2] & flat[1::2]).mean()
    assert abs(both - rate**2) < 6 * (rate**2 / (n / 2)) ** 0.5


def test_ends():
    x = jnp.ones(5)
    assert F.dropout(x, 0.0, KEY) is x
    assert F.dropout(x, 0, KEY) is x
    assert not F.dropout(jnp.array([1.0, jnp.inf]), 1.0, KEY).any()


def test_deterministic_in_the_key():
    x = jnp.ones(100)
    a, b = F.dropout(x, 0.5, KEY), F.dropout(x, 0.5, KEY)
    np.testing.assert_array_equal(a, b)
    assert (a != F.dropout(x, 0.5, jax.random.key(1))).any()
    np.testing.assert_array_equal(a, F.dropout(x, 0.5, jax.random.PRNGKey(0)))
    np.testing.assert_array_equal(a, jax.jit(lambda x: F.dropout(x, 0.5, KEY))(x))


def test_the_gradient_is_the_mask():
    x = jnp.arange(1.0, 101.0)
    y = F.dropout(x, 0.25, KEY)
    g = jax.grad(lambda x: F.dropout(x, 0.25, KEY).sum())(x)
    np.testing.assert_allclose(g * x, y, rtol=1e-6)
    assert not jnp.isnan(F.dropout(jnp.full(64, jnp.inf), 0.5, KEY)).any()


def test_dtypes():
    for dtype in (jnp.bfloat16, jnp.float16):
        assert F.dropout(jnp.ones(9, dtype), 0.5, KEY).dtype == dtype
    with jax.enable_x64(True):
        y = F.dropout(jnp.ones(9, jnp.float64), 0.1, KEY)
        assert y.dtype == jnp.float64
        assert float(y.max()) == 65536 / (65536 - 6554)


def test_a_schedule_of_rates_compiles_once():
    from brickwork.functional._dropout import _dropout

    F.dropout(jnp.ones(11), 0.1, KEY)
    before = _dropout._cache_size()
    for rate in (0.2, 0.3, 0.4):
        F.dropout(jnp.ones(11), rate, KEY)
    assert _dropout._cache_size() == before


def test_errors():
    x = jnp.ones(3)
    for rate in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"dropout: rate must be in \[0, 1\], got"):
            F.dropout(x, rate, KEY)
    with pytest.raises(TypeError, match=r"dropout: rate must be a Python number, got '0\.5' \(str\)"):
        F.dropout(x, "0.5", KEY)
    with pytest.raises(TypeError, match=r"got True\. There is no argument `training`: call it in training mode only"):
        F.dropout(jnp.ones(3), 0.5, True)
    with pytest.raises(TypeError, match=r"dropout: key must be a random key such as jax\.random\.key"):
        F.dropout(x, 0.5, 0)
    with pytest.raises(TypeError, match=r"dropout: x holds int32 values"):
        F.dropout(x.astype(int), 0.5, KEY)


# -- whole channels, and alpha dropout -------------------------------------------------------------

CHANNELS = {"dropout1d": (60, 50, 3), "dropout2d": (60, 50, 1, 3), "dropout3d": (60, 50, 2, 1, 2)}


@pytest.mark.parametrize("name", CHANNELS)
def test_whole_channels(name):
    drop, shape = getattr(F, name), CHANNELS[name]
    y = np.asarray(drop(jnp.ones(shape), 0.25, KEY)).reshape(60 * 50, -1)
    assert (y == y[:, :1]).all()
    dropped = y[:, 0] == 0
    np.testing.assert_allclose(y[~dropped], 4 / 3, rtol=1e-6)
    assert abs(dropped.mean() - 0.25) < 5 * (0.25 * 0.75 / 3000) ** 0.5
    assert drop(jnp.ones(shape), 0.0, KEY).shape == shape
    assert not drop(jnp.ones(shape), 1.0, KEY).any()


def test_channels_without_a_batch():
    y = np.asarray(F.dropout1d(jnp.ones((100, 3)), 0.5, KEY))
    assert (y == y[:, :1]).all() and 20 < (y[:, 0] == 0).sum() < 80
    y = np.asarray(F.dropout3d(jnp.ones((100, 1, 2, 2)), 0.5, KEY)).reshape(100, -1)
    assert (y == y[:, :1]).all() and 20 < (y[:, 0] == 0).sum() < 80


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_alpha_dropout_keeps_mean_and_variance(rate):
    n = 200_000
    x = jax.random.normal(jax.random.key(1), (n,))
    y = np.asarray(F.alpha_dropout(x, rate, KEY))
    assert abs(y.mean()) < 0.02
    assert abs(y.var() - 1) < 0.02
    counts = np.unique(y, return_counts=True)[1]
    assert abs(counts.max() / n - rate) < 5 * (rate * (1 - rate) / n) ** 0.5  # those dropped are all equal


def test_alpha_dropout_s_numbers():
    """As the formula says, for the rate of a multiple of 1/65536 exactly."""
    p, alpha = 0.25, -1.7580993408473766
    a = ((1 - p) * (1 + p * alpha**2)) ** -0.5
    x = jnp.arange(1.0, 65.0)
    y = np.asarray(F.alpha_dropout(x, p, KEY))
    kept = ~np.isclose(y, a * (alpha - p * alpha), rtol=1e-5)
    assert 0 < kept.sum() < 64
    np.testing.assert_allclose(y[kept], a * (np.asarray(x)[kept] - p * alpha), rtol=1e-5)
    assert not F.alpha_dropout(x, 1.0, KEY).any()
    assert F.alpha_dropout(x, 0.0, KEY) is x
    assert F.alpha_dropout(x.astype(jnp.bfloat16), p, KEY).dtype == jnp.bfloat16


def test_feature_alpha_dropout_drops_whole_channels():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((20, 10, 4)), jnp.float32)
    y = np.asarray(F.feature_alpha_dropout(x, 0.5, KEY)).reshape(200, 4)
    same = (y == y[:, :1]).all(1)
    assert 60 < same.sum() < 140
    assert len(np.unique(y[same])) == 1
    assert F.feature_alpha_dropout(jnp.ones((3, 4)), 0.5, KEY).shape == (3, 4)
