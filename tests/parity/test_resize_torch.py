"""Resizing against torch's."""

from __future__ import annotations

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import jax.numpy as jnp  # noqa: E402
from tests.parity.harness import assert_close, compare_layers, normal  # noqa: E402

from brickwork import functional as F, nn  # noqa: E402

T = torch.nn.functional


def compare(x, tolerance=1e-5, gradient=True, **options):
    """Compare values, and the gradient of a weighted sum."""
    theirs = torch.tensor(x, dtype=torch.float32, requires_grad=True)
    expected = T.interpolate(theirs, **options)
    ours = jnp.asarray(x, jnp.float32)
    found, pull = jax.vjp(lambda a: F.interpolate(a, **options), ours)
    assert_close(found, expected, tolerance, f"output {options}")
    if gradient:
        weights = normal(9, *expected.shape)
        expected.backward(torch.tensor(weights).float())
        assert_close(pull(jnp.asarray(weights, jnp.float32))[0], theirs.grad, tolerance, f"gradient {options}")


SEQUENCE, IMAGE, VOLUME = (2, 2, 7), (2, 2, 6, 7), (1, 2, 4, 5, 3)
SIZES = {
    3: [{"size": 7}, {"size": 4}, {"size": 14}, {"size": 17}, {"size": 1}, {"scale_factor": 1.7}],
    4: [{"size": (12, 7)}, {"size": (3, 14)}, {"size": (9, 5)}, {"scale_factor": (2, 0.6)}, {"size": 1}],
    5: [{"size": (8, 3, 3)}, {"size": (3, 7, 9)}, {"scale_factor": (0.5, 1.3, 2.0)}],
}
MODES = {
    "nearest": (3, 4, 5),
    "nearest-exact": (3, 4, 5),
    "area": (3, 4, 5),
    "linear": (3,),
    "bilinear": (4,),
    "bicubic": (4,),
    "trilinear": (5,),
}


@pytest.mark.parametrize(("mode", "rank"), [(m, r) for m, ranks in MODES.items() for r in ranks])
def test_modes(mode, rank):
    shape = {3: SEQUENCE, 4: IMAGE, 5: VOLUME}[rank]
    for options in SIZES[rank]:
        compare(normal(0, *shape), mode=mode, **options)


@pytest.mark.parametrize(("mode", "shape"), [("linear", SEQUENCE), ("bilinear", IMAGE), ("bicubic", IMAGE)])
def test_corners_aligned(mode, shape):
    for options in SIZES[len(shape)]:
        compare(normal(0, *shape), mode=mode, align_corners=True, **options)


FACTORS = [1.0, 1.1, 1.2, 1.5, 1.9, 2.1, 2.5, 3.0, 0.9, 0.5, 0.34, 0.26]


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear"])
def test_places_from_the_factor_and_from_the_sizes(mode):
    """A factor enters the places as it was given; if not recomputed, not rounded to the sizes."""
    differ = 0
    for factor in FACTORS:
        x = normal(0, 1, 1, 11)
        for recompute in (False, True):
            compare(x, gradient=False, mode=mode, scale_factor=factor, recompute_scale_factor=recompute)
        given, new = (F.interpolate(jnp.asarray(x), None, factor, mode, None, r) for r in (False, True))
        differ += not np.allclose(given, new, atol=1e-4)
    assert differ >= 4


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_factors_of_images(mode):
    for factor in FACTORS[::2]:
        compare(normal(0, 1, 1, 11, 5), mode=mode, scale_factor=factor)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_every_pair_of_sizes(mode):
    """The nearest element depends on how the place is rounded."""
    x = np.arange(60, dtype=np.float32)[None, None]
    for size in range(1, 60, 3):
        for out in range(1, 60):
            given = x[..., :size]
            found = F.interpolate(jnp.asarray(given), out, mode=mode) if out % 19 == 0 else _nearest(given, out, mode)
            expected = T.interpolate(torch.tensor(given), out, mode=mode)
            np.testing.assert_array_equal(found, expected, err_msg=f"{size} to {out}")


def _nearest(x, out, mode):
    """The places that the function uses, without compiling it for each size."""
    from brickwork.functional import _resize

    taps = _resize._taps(_resize._Axis(x.shape[-1], out, None), mode, False, False)
    return x[..., taps.clipped[:, 0]]


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_antialias(mode, align_corners):
    common = {"mode": mode, "align_corners": align_corners, "antialias": True}
    for options in [{"size": (4, 15)}, {"size": (10, 3)}, {"scale_factor": (0.45, 1.2)}]:
        compare(normal(0, 1, 2, 10, 9), **common, **options)
    # An axis that keeps its size is kept as it is; torch's gradient has forgotten that.
    compare(normal(0, 1, 2, 10, 9), gradient=False, scale_factor=(1.05, 2), **common)


def test_antialias_of_many_elements():
    compare(normal(0, 1, 1, 70, 6), 2e-5, mode="bicubic", antialias=True, size=(3, 6))


LAYERS = [
    ("Upsample", {"scale_factor": 2, "mode": "bilinear"}),
    ("Upsample", {"size": (5, 9), "mode": "bicubic", "align_corners": True}),
    ("Upsample", {"scale_factor": (1.5, 2.0)}),
    ("UpsamplingNearest2d", {"scale_factor": 2}),
    ("UpsamplingBilinear2d", {"size": (9, 4)}),
    ("PixelShuffle", {"upscale_factor": 2}),
    ("PixelUnshuffle", {"downscale_factor": 2}),
    ("ChannelShuffle", {"groups": 4}),
]


@pytest.mark.parametrize(("name", "options"), LAYERS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_layers(name, options, dtype):
    ours, theirs = (getattr(of, name)(**options) for of in (nn, torch.nn))
    compare_layers(ours, theirs, normal(0, 2, 8, 6, 4), dtype=dtype)


@pytest.mark.parametrize(("name", "options"), LAYERS)
def test_batches(name, options):
    """An empty batch, and images that are not contiguous."""
    for x in (normal(0, 0, 8, 6, 4), normal(0, 4, 6, 8, 2).T):
        ours, theirs = (getattr(of, name)(**options) for of in (nn, torch.nn))
        if name.endswith("huffle") and not x.size:  # torch returns empty arrays as they are
            assert ours(jnp.asarray(x)).shape[1:] == ours(jnp.ones((1, *x.shape[1:]))).shape[1:]
            continue
        compare_layers(ours, theirs, x)


@pytest.mark.parametrize("name", ["pixel_shuffle", "pixel_unshuffle"])
@pytest.mark.parametrize("lead", [(), (2, 1)])
def test_shuffles_of_any_number_of_axes(name, lead):
    x = normal(0, *lead, 9, 6, 3)
    np.testing.assert_array_equal(getattr(F, name)(x, 3), jnp.asarray(getattr(T, name)(torch.tensor(x), 3)))


@pytest.mark.parametrize("size", [(9, 4), (3, 20), (7, 11)], ids=str)
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("options", [{}, {"antialias": True}, {"align_corners": True}], ids=str)
def test_bytes(mode, options, size):
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 7, 11), np.uint8)
    expected = T.interpolate(torch.tensor(x), size=size, mode=mode, **options).numpy().astype(int)
    found = np.asarray(F.interpolate(x, size=size, mode=mode, **options))
    assert found.dtype == np.uint8
    assert abs(found - expected).max() <= 1  # PyTorch computes with weights of 16 bits
    assert (found == expected).mean() > 0.9


def test_nearest_with_factors_that_keep_or_double_the_size():
    rng = np.random.default_rng(0)
    for shape, factor in [((3, 3), 1.3), ((7, 5), (2.1, 1.1)), ((15, 20), (2.05, 1.01)), ((4, 4), (0.9, 2.3))]:
        x = rng.standard_normal((2, 1, *shape)).astype(np.float32)
        expected = torch.nn.functional.interpolate(torch.tensor(x), scale_factor=factor, mode="nearest")
        np.testing.assert_array_equal(F.interpolate(x, scale_factor=factor), expected.numpy())
    for shape in ((9,), (5, 4, 3)):
        x = rng.standard_normal((2, 1, *shape)).astype(np.float32)
        expected = torch.nn.functional.interpolate(torch.tensor(x), scale_factor=1.09, mode="nearest")
        np.testing.assert_array_equal(F.interpolate(x, scale_factor=1.09), expected.numpy())
