"""The initializers: distributions, structure, arguments and what they say about wrong ones."""

from __future__ import annotations

import math
import re

import jax.numpy as jnp
import numpy as np
import pytest

from brickwork import init
from brickwork._draw import as_initializer, draw_array
from brickwork.errors import ShapeMismatchError


def draw(initializer, shape=(200, 300), dtype="float32", stream=0, name=None):
    made = as_initializer(initializer)
    return draw_array(made, seed=0, stream=stream, shape=shape, dtype=dtype, name=name)


def check_moments(values, mean, std, rounds=5.0):
    """The mean and the standard deviation are within ``rounds`` standard errors."""
    values = values.astype(np.float64)
    error = std / math.sqrt(values.size)
    assert abs(values.mean() - mean) < rounds * error
    assert abs(values.std() - std) < rounds * error


# --- moments and bounds ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal(dtype):
    check_moments(draw(init.normal(0.5, 2.0), dtype=dtype), 2.0, 0.5)
    check_moments(draw(init.normal, dtype=dtype), 0.0, 1.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniform(dtype):
    values = draw(init.uniform(-1, 3), dtype=dtype)
    check_moments(values, 1.0, 4 / math.sqrt(12))
    assert -1 <= values.min() < -0.99
    assert 2.99 < values.max() < 3


def test_uniform_never_reaches_its_upper_bound():
    # 1 + 1e-7 * u rounds to the upper bound for about half of all u.
    high = float(np.nextafter(np.float32(1), np.float32(2)))
    assert (draw(init.uniform(1.0, high)) == 1.0).all()
    assert (draw(init.uniform(2.0, 2.0)) == 2.0).all()


def test_truncated_normal():
    values = draw(init.truncated_normal())
    check_moments(values, 0.0, 0.8796256610342398)
    assert -2 <= values.min() < -1.99
    assert 1.99 < values.max() <= 2
    shifted = draw(init.truncated_normal(std=0.02, mean=1.0, low=1.0, high=1.05))
    assert 1.0 <= shifted.min() <= shifted.max() <= np.float32(1.05)


@pytest.mark.parametrize(("low", "high"), [(5.0, 6.0), (-6.0, -5.0), (8.0, 9.0), (30.0, 31.0)])
def test_truncated_normal_far_from_its_mean(low, high):
    values = draw(init.truncated_normal(low=low, high=high), (1000,), "float64")
    assert low <= values.min() <= values.max() <= high
    assert len(np.unique(values)) > 990
    near = min(abs(low), abs(high))
    assert abs(values).mean() == pytest.approx(near + 1 / near, rel=0.02)


def test_truncated_normal_of_one_point():
    assert (draw(init.truncated_normal(low=1.5, high=1.5)) == 1.5).all()
    assert (draw(init.truncated_normal(std=0.0, mean=0.5)) == 0.5).all()


SCALED = [
    (init.xavier_uniform(), math.sqrt(2 / (5 * 12 + 40 * 12))),
    (init.xavier_normal(2.0), 2 * math.sqrt(2 / (5 * 12 + 40 * 12))),
    (init.kaiming_uniform(), math.sqrt(2 / (5 * 12))),
    (init.kaiming_uniform(a=math.sqrt(5)), math.sqrt(1 / 3 / (5 * 12))),
    (init.kaiming_normal(mode="fan_out"), math.sqrt(2 / (40 * 12))),
    (init.kaiming_normal(nonlinearity="tanh"), 5 / 3 / math.sqrt(5 * 12)),
    (init.lecun_uniform(), math.sqrt(1 / (5 * 12))),
    (init.lecun_normal(), math.sqrt(1 / (5 * 12))),
]


@pytest.mark.parametrize(("initializer", "std"), SCALED, ids=lambda x: repr(x)[:40])
def test_scale_follows_from_the_fans(initializer, std):
    values = draw(initializer, (40, 5, 3, 4))
    check_moments(values, 0.0, std)
    if "uniform" in repr(initializer):
        assert abs(values).max() <= np.float32(std * math.sqrt(3))
    if "lecun_normal" in repr(initializer):
        assert abs(values).max() <= 2 * std / 0.8796


@pytest.mark.parametrize(
    "initializer",
    [init.normal(), init.xavier_uniform(), init.kaiming_normal(), init.lecun_uniform()],
)
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_values_have_the_variance_of_real_ones(initializer, dtype):
    real = draw(initializer, (100, 100), "float64")
    values = draw(initializer, (100, 100), dtype)
    assert values.dtype == dtype
    assert (abs(values) ** 2).mean() == pytest.approx((real**2).mean(), rel=0.05)
    assert values.real.std() == pytest.approx(values.imag.std(), rel=0.05)


def test_streams_are_independent():
    a, b = draw(init.normal, stream=0).ravel(), draw(init.normal, stream=1).ravel()
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(a.size)
    assert abs(np.corrcoef(a[:-1], a[1:])[0, 1]) < 5 / math.sqrt(a.size)


# --- the same distributions as torch.nn.init ------------------------------------------------------


TORCH = [
    ("normal_", {"std": 0.3, "mean": 1.0}, init.normal(0.3, 1.0)),
    ("uniform_", {"a": -2.0, "b": 1.0}, init.uniform(-2.0, 1.0)),
    ("trunc_normal_", {"std": 0.5, "a": -0.3, "b": 1.0}, init.truncated_normal(0.5, 0, -0.3, 1.0)),
    ("xavier_uniform_", {"gain": 2.0}, init.xavier_uniform(2.0)),
    ("xavier_normal_", {}, init.xavier_normal()),
    ("kaiming_uniform_", {"a": 2.0}, init.kaiming_uniform(2.0)),
    (
        "kaiming_normal_",
        {"mode": "fan_out", "nonlinearity": "relu"},
        init.kaiming_normal(mode="fan_out", nonlinearity="relu"),
    ),
    ("orthogonal_", {"gain": 1.5}, init.orthogonal(1.5)),
    ("sparse_", {"sparsity": 0.3, "std": 0.2}, init.sparse(0.3, 0.2)),
]


@pytest.mark.parametrize(("name", "arguments", "initializer"), TORCH, ids=lambda x: str(x)[:30])
def test_same_distribution_as_torch(name, arguments, initializer):
    torch = pytest.importorskip("torch")
    stats = pytest.importorskip("scipy.stats")
    shape = (120, 100) if name in ("sparse_", "orthogonal_") else (60, 50, 2, 2)
    generator = torch.Generator().manual_seed(0)
    theirs = getattr(torch.nn.init, name)(torch.empty(shape), **arguments, generator=generator)
    ours = draw(initializer, shape)
    # The two-sample statistic exceeds this with probability 1e-6.
    limit = math.sqrt(-math.log(1e-6 / 2) * 0.5) * math.sqrt(2 / ours.size)
    assert stats.ks_2samp(theirs.numpy().ravel(), ours.ravel(), method="asymp").statistic < limit


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("shape", [(4, 3, 3), (4, 6, 3, 4), (6, 2, 1, 2, 3)])
def test_dirac_as_torch(shape, groups):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.init.dirac_(torch.empty(shape), groups=groups).numpy()
    np.testing.assert_array_equal(draw(init.dirac(groups), shape), theirs)


def test_gains_as_torch():
    torch = pytest.importorskip("torch")
    names = [
        "linear",
        "conv1d",
        "conv_transpose3d",
        "sigmoid",
        "tanh",
        "relu",
        "selu",
        "leaky_relu",
    ]
    for name in names:
        assert init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))
    default = torch.nn.init.calculate_gain("leaky_relu")
    assert init.calculate_gain("leaky_relu") == pytest.approx(default)
    ours = init.calculate_gain("leaky_relu", 0.3)
    assert ours == pytest.approx(torch.nn.init.calculate_gain("leaky_relu", 0.3))


# --- structured -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(30, 30), (20, 50), (50, 20), (8, 3, 2, 2), (40, 2, 3)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_orthogonal(shape, dtype):
    values = draw(init.orthogonal(2.0), shape, dtype).reshape(shape[0], -1)
    if values.shape[0] > values.shape[1]:
        values = values.T
    product = values @ values.conj().T
    np.testing.assert_allclose(product, 4 * np.eye(len(values)), atol=2e-5)


def test_orthogonal_has_no_preferred_signs():
    diagonals = [np.diagonal(draw(init.orthogonal(), (2, 2), stream=s)) for s in range(400)]
    assert abs(np.mean(np.sign(diagonals))) < 5 / math.sqrt(800)


def test_orthogonal_of_empty_shapes():
    assert draw(init.orthogonal(), (0, 3)).shape == (0, 3)
    assert draw(init.orthogonal(), (3, 0), jnp.bfloat16).dtype == jnp.bfloat16


def test_eye():
    np.testing.assert_array_equal(draw(init.eye, (2, 3), jnp.bfloat16), np.eye(2, 3))
    np.testing.assert_array_equal(draw(init.eye(), (3, 2), "int32"), np.eye(3, 2))


def test_dirac_passes_its_input_on():
    kernel = draw(init.dirac(), (3, 3, 5))
    x = np.arange(30.0).reshape(3, 10)
    out = [sum(np.convolve(x[i], kernel[o, i][::-1], "same") for i in range(3)) for o in range(3)]
    np.testing.assert_array_equal(out, x)
    assert draw(init.dirac(), (0, 3, 5)).shape == (0, 3, 5)
    assert draw(init.dirac(), (3, 3, 0)).shape == (3, 3, 0)


@pytest.mark.parametrize(("sparsity", "zeros"), [(0, 0), (0.1, 1), (0.25, 3), (1, 10)])
def test_sparse(sparsity, zeros):
    values = draw(init.sparse(sparsity, std=2.0), (10, 50))
    assert ((values == 0).sum(0) == zeros).all()
    if 0 < zeros < 10:
        assert len({tuple(column) for column in (values == 0).T}) > 5
    if zeros < 10:
        check_moments(values[values != 0], 0.0, 2.0)


def test_fans():
    assert init.fans((3, 5)) == (5, 3)
    assert init.fans((64, 3, 7, 7)) == (147, 3136)
    assert init.fans((0, 5)) == (5, 0)


@pytest.mark.parametrize("shape", [(0, 0), (3, 0), (0, 3)])
@pytest.mark.parametrize("initializer", [x for x, _ in SCALED], ids=repr)
def test_empty_weights(initializer, shape):
    assert draw(initializer, shape).shape == shape


# --- messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: init.normal(-1), ValueError, "normal: std must not be negative, got -1.0"),
        (lambda: init.normal(math.nan), ValueError, "normal: std must be finite, got nan"),
        (lambda: init.normal(1, math.inf), ValueError, "normal: mean must be finite, got inf"),
        (lambda: init.normal("1"), TypeError, "normal: std must be a number, got '1'"),
        (lambda: init.normal(True), TypeError, "normal: std must be a number, got True"),
        (
            lambda: init.uniform(2, 1),
            ValueError,
            "uniform: low must not exceed high, got low=2.0, high=1.0",
        ),
        (
            lambda: init.uniform(-1e308, 1e308),
            ValueError,
            "uniform: high - low must be finite, got inf",
        ),
        (lambda: init.uniform(math.nan), ValueError, "uniform: low must be finite, got nan"),
        (
            lambda: init.truncated_normal(low=1, high=-1),
            ValueError,
            "truncated_normal: low must not exceed high, got low=1.0, high=-1.0",
        ),
        (
            lambda: init.truncated_normal(-2.0),
            ValueError,
            "truncated_normal: std must not be negative, got -2.0",
        ),
        (
            lambda: init.normal(0, 0.02),
            ValueError,
            "normal(std=0, mean=0.02): every element would be 0.02. The standard deviation comes first: write "
            "normal(0.02) for one of 0.02, or constant(0.02).",
        ),
        (
            lambda: init.truncated_normal(0.0, 5.0),
            ValueError,
            "truncated_normal(std=0.0, mean=5.0, low=-2.0, high=2.0): with std=0, mean must lie between low and high",
        ),
        (
            lambda: init.truncated_normal(0.01, low=1.0),
            ValueError,
            "truncated_normal(std=0.01, mean=0.0, low=1.0, high=2.0): the interval is so far from "
            "the mean, in standard deviations, that the distribution has no weight there; use "
            "uniform(low, high) or move the mean",
        ),
        (
            lambda: init.xavier_normal(math.inf),
            ValueError,
            "xavier_normal: gain must be finite, got inf",
        ),
        (
            lambda: init.kaiming_normal(mode="fan_avg"),
            ValueError,
            "kaiming_normal: mode must be 'fan_in' or 'fan_out', got 'fan_avg'",
        ),
        (
            lambda: init.kaiming_uniform(nonlinearity="gelu"),
            ValueError,
            "calculate_gain: unknown nonlinearity 'gelu'; known: conv1d, conv2d, conv3d, "
            "conv_transpose1d, conv_transpose2d, conv_transpose3d, leaky_relu, linear, relu, selu, "
            "sigmoid, tanh",
        ),
        (
            lambda: init.calculate_gain("leaky_relu", "x"),
            TypeError,
            "calculate_gain: param must be a number, got 'x'",
        ),
        (lambda: init.dirac(0), ValueError, "dirac: groups must be a positive integer, got 0"),
        (lambda: init.sparse(1.5), ValueError, "sparse: sparsity must be from 0 to 1, got 1.5"),
        (lambda: init.sparse(0.5, -1), ValueError, "sparse: std must not be negative, got -1.0"),
        (lambda: init.orthogonal(None), TypeError, "orthogonal: gain must be a number, got None"),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        make()


@pytest.mark.parametrize("initializer", [init.xavier_uniform(), init.kaiming_normal(), init.lecun_normal()], ids=repr)
def test_too_few_dimensions_for_fans(initializer):
    message = (
        f"{initializer!r} (for parameter 'out.bias'): shape (5,) has fewer than the 2 dimensions, "
        "(out, in, *kernel), that fan-in and fan-out are counted from. Choose the weights with "
        'initialize(init=..., pattern=r".*weight"), or give this parameter an initializer that '
        "works on any shape, such as init.normal(0.01) or init.zeros"
    )
    with pytest.raises(ShapeMismatchError, match=f"^{re.escape(message)}$"):
        draw(initializer, (5,), name="out.bias")


@pytest.mark.parametrize(
    ("initializer", "shape", "message"),
    [
        (init.eye(), (3,), "eye() needs a shape of 2 dimensions, got (3,)"),
        (init.sparse(0.5), (3, 3, 3), "needs a shape of 2 dimensions, got (3, 3, 3)"),
        (init.orthogonal(), (3,), "needs a shape of at least 2 dimensions, got (3,)"),
        (init.dirac(), (3, 3), "needs the shape of a convolution, (out, in, *kernel) with 3 to 5 "),
        (init.dirac(2), (3, 3, 3), "the 3 output channels of shape (3, 3, 3) cannot be divided "),
    ],
)
def test_shapes_that_do_not_fit(initializer, shape, message):
    with pytest.raises(ShapeMismatchError, match=re.escape(message)):
        draw(initializer, shape)


@pytest.mark.parametrize("initializer", [init.normal(), init.uniform(), init.orthogonal(), init.sparse(0.5)], ids=repr)
def test_random_values_do_not_fill_integers(initializer):
    message = re.escape(repr(initializer)) + " fills .*parameters only, not dtype int32"
    with pytest.raises(TypeError, match=message):
        draw(initializer, (3, 3), "int32")


@pytest.mark.parametrize("initializer", [init.uniform(), init.truncated_normal(), init.lecun_normal()])
def test_bounded_distributions_are_real(initializer):
    with pytest.raises(TypeError, match="fills floating-point parameters only, not dtype complex64"):
        draw(initializer, (3, 3), "complex64")
