"""Pooling layers against torch's."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import jax.numpy as jnp  # noqa: E402
from tests.parity.harness import compare_layers, normal  # noqa: E402

from brickwork import functional as F, nn  # noqa: E402

T = torch.nn.functional
SHAPES = {1: (2, 3, 11), 2: (2, 3, 7, 6), 3: (2, 2, 5, 6, 4)}
AXES = [1, 2, 3]
axes = pytest.mark.parametrize("n", AXES)


def compare(name, n, *args, x=None, dtype="float32", gradients=True, **options):
    """Our layer with torch's, made with the same arguments."""
    x = normal(n, *SHAPES[n]) if x is None else x
    ours, theirs = (getattr(of, f"{name}{n}d")(*args, **options) for of in (nn, torch.nn))
    compare_layers(ours, theirs, x, dtype=dtype, gradients=gradients)


WINDOWS = {
    "plain": {"kernel_size": 2},
    "overlapping, padded": {"kernel_size": 3, "stride": 2, "padding": 1},
    "rounded up": {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    "rounded up, padded": {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True},
}
windows = pytest.mark.parametrize("options", WINDOWS.values(), ids=WINDOWS)


@axes
@windows
def test_max(n, options):
    x = np.round(normal(0, *SHAPES[n]), 0)  # many equal maxima
    compare("MaxPool", n, x=x, return_indices=True, **options)


@axes
def test_max_dilated(n):
    compare("MaxPool", n, 2, 1, 1, 2, return_indices=True)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(7, 7, 0), (7, 2, 3), (9, 1, 4), (13, 3, 0)])
def test_max_of_long_windows(kernel, stride, padding):
    x = np.round(normal(0, 2, 3, 29))
    compare("MaxPool", 1, kernel, stride, padding, x=x, return_indices=True)
    compare("MaxPool", 1, kernel, stride, padding, x=x, ceil_mode=True)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 0), (5, 2, 1), (4, 3, 2)])
def test_rounded_up_a_window_may_be_larger_than_the_image(kernel, stride, padding):
    x = normal(0, 2, 3, 2)
    compare("MaxPool", 1, kernel, stride, padding, x=x, ceil_mode=True, return_indices=True)
    for counted in (True, False):
        compare("AvgPool", 1, kernel, stride, padding, x=x, ceil_mode=True, count_include_pad=counted)
    compare("MaxPool", 2, kernel, stride, padding, x=normal(0, 2, 3, 2, 2), ceil_mode=True)
    if not padding:
        compare("LPPool", 1, 2, kernel, stride, x=x, ceil_mode=True)


def test_max_of_different_sizes():
    compare("MaxPool", 2, (3, 2), (1, 2), (1, 0), (2, 1), return_indices=True)
    compare("MaxPool", 3, (3, 1, 2), (2, 1, 1), (1, 0, 1))


@pytest.mark.parametrize("fill", [-np.inf, np.nan, 0.0])
def test_indices_where_all_is_equal(fill):
    """Infinitely low values, too: no index points into the padding (where their gradient goes)."""
    common = {"return_indices": True, "gradients": fill != -np.inf}
    for options in WINDOWS.values():
        compare("MaxPool", 2, x=np.full((1, 1, 5, 5), fill), **common, **options)
    compare("MaxPool", 2, 3, 1, 1, 2, x=np.full((1, 1, 6, 7), fill), **common)


def test_integers():
    x = np.random.default_rng(0).integers(-9, 9, (2, 3, 7, 7))
    ours = F.max_pool2d(jnp.asarray(x), 3, 2, 1, return_indices=True)
    theirs = T.max_pool2d(torch.tensor(x).int(), 3, 2, 1, return_indices=True)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


@axes
@windows
def test_mean(n, options):
    compare("AvgPool", n, **options)
    compare("AvgPool", n, count_include_pad=False, **options)


@pytest.mark.parametrize("n", [2, 3])
def test_mean_with_a_divisor(n):
    compare("AvgPool", n, 3, 2, 1, divisor_override=5)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(7, 7, 0), (8, 3, 4)])
def test_mean_of_long_windows(kernel, stride, padding):
    compare("AvgPool", 1, kernel, stride, padding, True, False, x=normal(0, 2, 3, 30))


@axes
@pytest.mark.parametrize("power", [2, 3.0, 1.5, float("inf")])
def test_power_mean(n, power):
    compare("LPPool", n, power, 2, x=abs(normal(n, *SHAPES[n])) + 0.1)
    compare("LPPool", n, power, 3, 2, True, x=abs(normal(n, *SHAPES[n])) + 0.1)


def test_power_mean_of_other_numbers():
    x = np.array([[0.0, 0.0, 1.0, -1.0, -3.0, 1.0, 2.0, -1.0]])
    for power in (1, 2, 3):
        compare("LPPool", 1, power, 2, x=x)  # no slope where the sum is zero
    ours = F.lp_pool1d(jnp.asarray(x, jnp.float32), 1.5, 2)
    np.testing.assert_allclose(ours, T.lp_pool1d(torch.tensor(x).float(), 1.5, 2), rtol=1e-5)


ADAPTIVE = {1: [4, 11, 1], 2: [3, (5, None), (1, 1), (9, 4)], 3: [2, (3, None, 4)]}


@axes
def test_adaptive(n):
    for size in ADAPTIVE[n]:
        compare("AdaptiveAvgPool", n, size)
        compare("AdaptiveMaxPool", n, size, True, x=np.round(normal(0, *SHAPES[n])))


def test_adaptive_of_long_windows():
    x = np.round(normal(0, 1, 2, 83), 1)
    for size in (2, 8, 12):
        compare("AdaptiveAvgPool", 1, size, x=x)
        compare("AdaptiveMaxPool", 1, size, True, x=x)


FRACTIONAL = {
    2: [{"output_size": 3}, {"output_ratio": (0.6, 0.4)}, {"output_size": (1, 4)}],
    3: [{"output_size": 2}, {"output_ratio": 0.5}, {"output_size": (3, 2, 1)}],
}


@pytest.mark.parametrize("n", [2, 3])
def test_fractional(n):
    shape = SHAPES[n]
    samples = np.random.default_rng(0).random((*shape[:2], n))
    for options in FRACTIONAL[n]:
        name = f"FractionalMaxPool{n}d"
        ours = getattr(nn, name)(2, return_indices=True, _random_samples=jnp.asarray(samples, jnp.float32), **options)
        theirs = getattr(torch.nn, name)(
            2, return_indices=True, _random_samples=torch.tensor(samples).float(), **options
        )
        compare_layers(ours, theirs, np.round(normal(1, *shape)))


def test_fractional_places():
    """The formula with its rounding, for many numbers."""
    x = np.arange(31 * 29, dtype=np.float32).reshape(1, 31, 29).repeat(200, 0)
    samples = np.random.default_rng(0).random((1, 200, 2)).astype(np.float32)
    ours = F.fractional_max_pool2d(jnp.asarray(x), (3, 2), (13, 17), _random_samples=samples)
    theirs = T.fractional_max_pool2d(torch.tensor(x), (3, 2), (13, 17), _random_samples=torch.tensor(samples))
    np.testing.assert_array_equal(ours, theirs)


@axes
def test_unpool(n):
    name = f"MaxUnpool{n}d"
    for options, size in [((2,), None), ((3, 2, 1), None), ((2,), SHAPES[n][2:])]:
        x = torch.tensor(normal(0, *SHAPES[n]))
        y, indices = getattr(T, f"max_pool{n}d")(x, *options, return_indices=True)
        if len(options) == 3:  # overlapping windows find the same maximum
            size = SHAPES[n]
        compare_layers(
            getattr(nn, name)(*options),
            getattr(torch.nn, name)(*options),
            y.numpy(),
            indices.numpy(),
            output_size=size,
        )


LAYERS = [
    ("MaxPool", (3, 2, 1)),
    ("AvgPool", (3, 2, 1)),
    ("LPPool", (2, 2)),
    ("AdaptiveAvgPool", (4,)),
    ("AdaptiveMaxPool", (4,)),
]


@pytest.mark.parametrize(("name", "args"), LAYERS)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_dtypes(name, args, dtype):
    compare(name, 2, *args, x=normal(0, 2, 3, 7, 6), dtype=dtype)


@pytest.mark.parametrize(("name", "args"), LAYERS)
def test_batches(name, args):
    """An empty batch, one image, and one without its batch axis that is not contiguous."""
    for x in (normal(0, 0, 3, 7, 6), normal(0, 1, 3, 7, 6), normal(0, 6, 7, 3).T):
        compare(name, 2, *args, x=x, gradients=x.ndim == 3)
