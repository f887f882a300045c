"""Pooling along one to three axes, with indices, to a size, at random, and back."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from brickwork import functional as F

X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 24)), jnp.float32)
IMAGES = jnp.asarray(np.random.default_rng(1).standard_normal((2, 3, 7, 8)), jnp.float32)


def windows(x, kernel, stride, padding, dilation=1):
    """All windows of padded sequences, as a last axis."""
    padded = np.pad(np.asarray(x), [(0, 0), (0, 0), (padding, padding)], constant_values=-np.inf)
    out = (padded.shape[-1] - dilation * (kernel - 1) - 1) // stride + 1
    places = stride * np.arange(out)[:, None] + dilation * np.arange(kernel)
    return padded[..., places], places - padding


@pytest.mark.parametrize("form", [(2, 2, 0), (5, 3, 2), (7, 7, 0), (8, 1, 4), (13, 2, 5), (24, 1, 0), (9, 2, 3, 2)])
def test_max_and_where_it_is(form):
    found, places = windows(jnp.round(X), *form)
    args = (*form[:3], form[3] if len(form) > 3 else 1)
    y, indices = F.max_pool1d(jnp.round(X), *args, return_indices=True)
    np.testing.assert_array_equal(y, found.max(-1))
    np.testing.assert_array_equal(
        indices, np.take_along_axis(places[None, None], found.argmax(-1)[..., None], -1)[..., 0]
    )
    assert indices.dtype == jnp.int32
    np.testing.assert_array_equal(F.max_pool1d(jnp.round(X), *args), y)
    # each window sends its gradient to the first of its maxima
    expected = np.zeros(X.shape)
    for n, c, w in np.ndindex(*y.shape):
        expected[n, c, indices[n, c, w]] += np.cos(w)
    weights = jnp.cos(jnp.arange(y.shape[-1], dtype=jnp.float32))
    gradient = jax.grad(lambda x: (F.max_pool1d(x, *args) * weights).sum())(jnp.round(X))
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_indices_are_int64_where_that_is_on():
    with jax.enable_x64(True):
        assert F.max_pool2d(IMAGES, 2, return_indices=True)[1].dtype == jnp.int64
        y, indices = F.adaptive_max_pool2d(IMAGES, (3, 7), return_indices=True)
        np.testing.assert_array_equal(
            IMAGES.reshape(6, -1)[jnp.arange(6)[:, None], indices.reshape(6, -1)], y.reshape(6, -1)
        )


def test_windows_of_one_element_have_indices_of_the_full_shape():
    for y, indices in (
        F.max_pool2d(IMAGES, 1, return_indices=True),
        F.adaptive_max_pool2d(IMAGES, None, return_indices=True),
    ):
        np.testing.assert_array_equal(y, IMAGES)
        np.testing.assert_array_equal(indices[1, 2], np.arange(56).reshape(7, 8))


def test_pooling_along_more_axes_is_pooling_along_each():
    x = jnp.asarray(np.random.default_rng(2).standard_normal((1, 2, 4, 6, 6)), jnp.float32)
    flat = x.reshape(1, 8, 6, 6)
    planes = F.max_pool2d(flat, (3, 2), 1).reshape(1, 2, 4, 4, 5)
    np.testing.assert_array_equal(F.max_pool3d(x, (1, 3, 2), 1), planes)
    np.testing.assert_allclose(
        F.avg_pool3d(x, (1, 3, 2), 1).reshape(1, 8, 4, 5), F.avg_pool2d(flat, (3, 2), 1), rtol=1e-6
    )
    row = x.reshape(1, 48, 6)
    np.testing.assert_array_equal(
        F.max_pool3d(x, (1, 1, 3), 2).reshape(-1),
        F.max_pool1d(row, 3, 2).reshape(1, 2, 4, 6, 2)[:, :, ::2, ::2].reshape(-1),
    )


def test_unpooling():
    y, indices = F.max_pool2d(IMAGES, 2, return_indices=True)
    back = F.max_unpool2d(y, indices, 2, output_size=IMAGES.shape)
    assert back.shape == IMAGES.shape
    np.testing.assert_array_equal(back, jnp.where(back != 0, IMAGES, 0))
    np.testing.assert_array_equal(F.max_pool2d(jnp.where(back == 0, -9.0, back), 2), y)
    gradient = jax.grad(lambda v: (F.max_unpool2d(v, indices, 2) ** 2).sum())(y)
    np.testing.assert_allclose(gradient, 2 * y)
    assert F.max_unpool2d(y, indices, 2, output_size=[6, 9]).shape == (2, 3, 6, 9)
    assert F.max_unpool2d(y[:0], indices[:0], 2).shape == (0, 3, 6, 8)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.int16, jnp.uint32])
def test_unpooling_to_more_places_than_the_dtype_of_indices_holds(dtype):
    indices = jnp.array([[0, 127]])
    y = F.max_unpool1d(jnp.ones((1, 2)), indices.astype(dtype), 128)
    np.testing.assert_array_equal(jnp.flatnonzero(y[0]), indices[0])


@pytest.mark.parametrize("wrong", [-1, 6])
def test_a_place_outside_spoils_its_channel(wrong):
    indices = jnp.array([[0, 2], [1, wrong]])
    y = F.max_unpool1d(jnp.ones((2, 2)), indices, 2)
    np.testing.assert_array_equal(y[0], [1, 0, 1, 0])
    assert jnp.isnan(y[1]).all()
    assert (F.max_unpool1d(jnp.ones((2, 2), jnp.int32), indices, 2)[1] == jnp.iinfo(jnp.int32).min).all()


def test_power_mean_is_a_norm_and_has_a_finite_gradient():
    y = F.lp_pool1d(X, 2, 4)
    np.testing.assert_allclose(y, jnp.linalg.norm(X.reshape(2, 3, 6, 4), axis=-1), rtol=1e-5)
    np.testing.assert_allclose(F.lp_pool1d(X, jnp.inf, 4), F.max_pool1d(abs(X), 4))
    for power in (1, 2, 2.5):
        gradient = jax.grad(lambda x, p=power: F.lp_pool1d(x, p, 2).sum())(jnp.array([[0.0, 0.0, 3.0, 4.0]]))
        assert np.isfinite(gradient).all()
        assert not gradient[0, :2].any()
    half = F.lp_pool1d(jnp.full((1, 1024), 4.0, jnp.float16), 2, 1024)  # the sum of squares is not a float16
    assert (half.dtype, float(half[0, 0])) == (jnp.float16, 128.0)


@pytest.mark.parametrize("out", [1, 5, 7, 24, 31])
def test_adaptive(out):
    spans = [(i * 24 // out, -(-(i + 1) * 24 // out)) for i in range(out)]
    y, indices = F.adaptive_max_pool1d(X, out, return_indices=True)
    for i, (start, end) in enumerate(spans):
        np.testing.assert_array_equal(y[..., i], X[..., start:end].max(-1))
        np.testing.assert_array_equal(indices[..., i], start + X[..., start:end].argmax(-1))
        np.testing.assert_allclose(F.adaptive_avg_pool1d(X, out)[..., i], X[..., start:end].mean(-1), atol=1e-6)


def test_what_is_not_finite_stays_in_its_window():
    x = X.at[0, 0, 3].set(jnp.nan).at[0, 1, 9].set(jnp.inf)
    for out in (7, 8):
        y = F.adaptive_avg_pool1d(x, out)
        assert 1 <= jnp.isnan(y).sum() <= 2
        assert 1 <= jnp.isposinf(y).sum() <= 2


def test_the_gradient_goes_to_the_first_of_equal_maxima():
    zeros = jnp.zeros((1, 1, 7, 5))
    for pool in (
        lambda x: F.adaptive_max_pool2d(x, (3, 1)),
        lambda x: F.max_pool2d(x, (7, 5)),
        lambda x: F.fractional_max_pool2d(x, 3, 1, _random_samples=jnp.zeros((1, 1, 2))),
    ):
        y, places = pool(zeros), jax.grad(lambda x, f=pool: f(x).sum())(zeros)
        assert places.sum() == y.size
        assert set(np.unique(places)) <= {0.0, 1.0}
    assert jax.grad(lambda x: F.max_pool2d(x, (7, 5)).sum())(zeros)[0, 0, 0, 0] == 1


def test_fractional_windows():
    ramp = jnp.broadcast_to(jnp.arange(20.0), (1, 500, 4, 20))
    y = F.fractional_max_pool2d(ramp, (1, 2), (4, 12), key=jax.random.key(0))
    starts = np.asarray(y)[0, :, 0] - 1
    steps = np.diff(starts)
    assert (starts[:, 0] == 0).all()
    assert (starts[:, -1] == 18).all()
    assert set(np.unique(steps)) <= {1, 2}
    assert len(np.unique(starts, axis=0)) > 5  # each channel has its own
    same = F.fractional_max_pool2d(ramp, (1, 2), (4, 12), key=jax.random.key(0))
    np.testing.assert_array_equal(same, y)
    other = F.fractional_max_pool2d(ramp, (1, 2), (4, 12), key=jax.random.key(1))
    assert not np.array_equal(other, y)


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: F.max_pool2d(x, 7, 1, 3),
        lambda x: F.avg_pool2d(x, 3, 2, 1, True, False),
        lambda x: F.lp_pool2d(x, 2, 2),
        lambda x: F.adaptive_avg_pool2d(x, (3, 5)),
        lambda x: F.adaptive_max_pool2d(x, (3, 5)),
        lambda x: F.max_unpool2d(x, jnp.arange(x.size).reshape(x.shape) % 56, 1),
    ],
)
def test_derivatives(pool):
    """Twice, in both modes, and mapped over an axis."""

    def f(x):
        return (pool(x) ** 2).sum() / 2

    x, v = IMAGES[:1], jnp.cos(IMAGES[:1])
    gradient = jax.grad(f)(x)
    np.testing.assert_allclose(jax.jvp(f, (x,), (v,))[1], (gradient * v).sum(), rtol=1e-3)
    forward = jax.jvp(jax.grad(f), (x,), (v,))[1]
    backward = jax.grad(lambda x: (jax.grad(f)(x) * v).sum())(x)
    np.testing.assert_allclose(forward, backward, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        jax.vmap(pool)(IMAGES[:, None]), jnp.stack([pool(i) for i in IMAGES[:, None]]), rtol=1e-5
    )


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision(dtype):
    x = IMAGES.astype(dtype)
    wide = x.astype(jnp.float32)
    samples = jnp.full((2, 3, 2), 0.3, dtype)
    for f in (
        lambda v: F.max_pool2d(v, 3, 2, 1),
        lambda v: F.avg_pool2d(v, 3, 2, 1),
        lambda v: F.lp_pool2d(v, 2, 2),
        lambda v: F.adaptive_avg_pool2d(v, (3, 5)),
        lambda v: F.adaptive_max_pool2d(v, (3, 5)),
        lambda v: F.fractional_max_pool2d(v, 2, 3, _random_samples=samples),
    ):
        y = f(x)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, f(wide).astype(dtype))


def test_batches_of_symbolic_size():
    (n,) = export.symbolic_shape("n")
    for f in (
        lambda v: F.max_pool2d(v, 2, return_indices=True),
        lambda v: F.avg_pool2d(v, 3, 2, 1),
        lambda v: F.adaptive_avg_pool2d(v, (3, 4)),
        lambda v: F.adaptive_max_pool2d(v, (3, 5)),
    ):
        exported = export.export(jax.jit(f))(jax.ShapeDtypeStruct((n, 3, 7, 8), jnp.float32))
        for a, b in zip(jax.tree.leaves(exported.call(IMAGES)), jax.tree.leaves(f(IMAGES)), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_one_element_fills_all_windows(ndim):
    pool = getattr(F, f"adaptive_max_pool{ndim}d")
    x = jnp.arange(2.0).reshape(1, 2, *[1] * ndim)
    y, indices = pool(x, 3, return_indices=True)
    np.testing.assert_array_equal(y, np.broadcast_to(x, (1, 2, *[3] * ndim)))
    np.testing.assert_array_equal(indices, np.zeros((1, 2, *[3] * ndim)))
    slope = jax.grad(lambda x: pool(x, 3).sum())(x)
    np.testing.assert_array_equal(slope, np.full(x.shape, 3**ndim))


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_means_of_windows_of_several_sizes_may_be_infinite(value):
    np.testing.assert_array_equal(F.adaptive_avg_pool1d(jnp.full((1, 5), value), 3), np.full((1, 3), value))
