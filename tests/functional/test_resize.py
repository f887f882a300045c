"""Resizing: the forms of the sums, exactness, dtypes, derivatives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from brickwork import functional as F
from brickwork.functional import _resample, _resize

X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 12, 9)), jnp.float32)


def taps(size, out, mode="linear", **options):
    axis = _resize._Axis(size, out, options.pop("factor", None))
    return _resize._taps(axis, mode, options.get("align_corners", False), options.get("antialias", False))


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear", "bicubic"])
@pytest.mark.parametrize("sizes", [(12, 24), (12, 36), (12, 6), (12, 4), (12, 18), (9, 6), (12, 1), (12, 17), (2, 8)])
def test_all_forms_of_the_sum_are_equal(mode, sizes):
    form = taps(*sizes, mode)
    x = X[..., :1].repeat(sizes[0], -1) + jnp.cos(jnp.arange(sizes[0], dtype=jnp.float32))
    expected = np.asarray(x, np.float64) @ form.matrix
    np.testing.assert_allclose(form.matrix.sum(0), 1, rtol=1e-12)
    np.testing.assert_allclose(_resample._gather(x, 3, form), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(_resample._multiply(x, 3, form), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(_resample.resample(x, 3, form), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        _resample.resample(x.swapaxes(1, 3), 1, form), expected.swapaxes(1, 3), rtol=1e-5, atol=1e-5
    )


def test_which_form():
    for sizes, phases in {(12, 24): 2, (12, 36): 3, (12, 6): 1, (12, 18): 3, (12, 17): 0, (1, 2): 0}.items():
        assert taps(*sizes).phases == phases, sizes
    assert taps(12, 23, align_corners=True).phases == 0
    assert taps(12, 12).is_identity
    assert not taps(12, 12, "bicubic", factor=1.05).is_identity


@pytest.mark.parametrize("out", [4, 23, 24])
def test_exact_on_what_is_straight(out):
    ramp = 2 * jnp.arange(12.0)[None, None] - 3
    y = F.interpolate(ramp, out, mode="linear", align_corners=True)[0, 0]
    np.testing.assert_allclose(y, np.linspace(-3, 19, out), rtol=1e-5)
    inner = slice(out // 6, -out // 6)
    places = (np.arange(out) + 0.5) * 12 / out - 0.5
    y = F.interpolate(ramp, out, mode="linear")[0, 0]
    np.testing.assert_allclose(y[inner], (2 * places - 3)[inner], rtol=1e-5)


def test_area_is_adaptive_pooling():
    np.testing.assert_array_equal(F.interpolate(X, (5, 3), mode="area"), F.adaptive_avg_pool2d(X, (5, 3)))


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.bool_, jnp.bfloat16])
def test_the_nearest_of_any_dtype(mode, dtype):
    x = (X > 0).astype(dtype)
    for size in (24, 7, 6):
        y = F.interpolate(x, size, mode=mode)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, F.interpolate(x.astype(jnp.float32), size, mode=mode).astype(dtype))


@pytest.mark.parametrize("size", [(24, 18), (7, 5)])
def test_half_precision_is_computed_in_float32(size):
    x = X.astype(jnp.bfloat16)
    y = F.interpolate(x, size, mode="bicubic")
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, F.interpolate(x.astype(jnp.float32), size, mode="bicubic").astype(jnp.bfloat16))


@pytest.mark.parametrize("out", [24, 17])
def test_what_is_not_finite_stays_where_it_is(out):
    x = jnp.zeros((1, 1, 12)).at[0, 0, 4].set(jnp.inf).at[0, 0, 9].set(jnp.nan)
    y = F.interpolate(x, out, mode="linear")
    finite = np.isfinite(y[0, 0])
    assert finite[: out // 4].all()
    assert finite.sum() >= out - 10
    assert np.isnan(y).any()


@pytest.mark.parametrize(
    "options",
    [
        {"scale_factor": 2, "mode": "bilinear"},
        {"size": (7, 5), "mode": "bicubic"},
        {"size": (5, 4), "mode": "bilinear", "antialias": True},
        {"size": (7, 18), "mode": "nearest"},
        {"size": (7, 18), "mode": "area"},
    ],
    ids=str,
)
def test_derivatives(options):
    """The gradient is the transposed map, in both modes, twice, and mapped over an axis."""

    def f(x):
        return F.interpolate(x, **options)

    v = jnp.sin(7 * X)
    y, pull = jax.vjp(f, X)
    tangent = jax.jvp(f, (X,), (v,))[1]
    np.testing.assert_allclose(tangent, f(v), rtol=1e-4, atol=1e-5)
    w = jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)
    np.testing.assert_allclose((pull(w)[0] * v).sum(), (w * f(v)).sum(), rtol=1e-3)

    def half_square(x):
        return (f(x) ** 2).sum() / 2

    twice = jax.grad(lambda x: (jax.grad(half_square)(x) * v).sum())(X)
    np.testing.assert_allclose(twice, jax.grad(half_square)(v), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(jax.vmap(f)(jnp.stack([X, v]))[1], f(v), rtol=1e-5, atol=1e-6)


def test_shuffles_are_inverse():
    x = X.reshape(2, 3, 12, 9)
    np.testing.assert_array_equal(F.pixel_shuffle(F.pixel_unshuffle(x, 3), 3), x)
    np.testing.assert_array_equal(F.channel_shuffle(F.channel_shuffle(x.swapaxes(1, 2), 4), 3), x.swapaxes(1, 2))
    assert F.pixel_shuffle(jnp.ones((4, 2, 2), bool), 2).dtype == bool


def test_batches_of_symbolic_size():
    (n,) = export.symbolic_shape("n")
    for f in (
        lambda v: F.interpolate(v, scale_factor=2),
        lambda v: F.interpolate(v, (7, 18), mode="bilinear"),
        lambda v: F.pixel_unshuffle(v, 3),
        lambda v: F.channel_shuffle(v, 3),
    ):
        exported = export.export(jax.jit(f))(jax.ShapeDtypeStruct((n, *X.shape[1:]), jnp.float32))
        np.testing.assert_allclose(exported.call(X), f(X), rtol=1e-6)


def test_sizes_in_numpy_arrays():
    x = jnp.ones((1, 2, 4, 6))
    assert F.interpolate(x, np.array([2, 3])).shape == (1, 2, 2, 3)
    assert F.interpolate(x, np.array(3)).shape == (1, 2, 3, 3)
    assert F.interpolate(x, scale_factor=np.array([0.5, 2.0])).shape == (1, 2, 2, 12)
