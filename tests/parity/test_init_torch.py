"""Initial values have the distributions of ``torch.nn.init``: exact ones, and draws of both."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
stats = pytest.importorskip("scipy.stats")

from brickwork import init  # noqa: E402
from brickwork._draw import draw_array  # noqa: E402

SHAPE = (250, 100, 2, 2)  # 1e5 elements; fan-in 400, fan-out 1000
FAN_IN, FAN_OUT = 400, 1000
LIMIT = 1e-4  # draws are the same in every run, so that this is no source of failures that come and go


def draw(initializer, shape=SHAPE, stream=0):
    return draw_array(initializer, seed=0, stream=stream, shape=shape, dtype="float32")


def fill(name, shape=SHAPE, **arguments):
    generator = torch.Generator().manual_seed(1)
    return getattr(torch.nn.init, name)(torch.empty(shape), **arguments, generator=generator).numpy()


def normal(std, mean=0.0):
    return stats.norm(mean, std)


def uniform(bound):
    return stats.uniform(-bound, 2 * bound)


def truncated(std, mean, low, high):
    return stats.truncnorm((low - mean) / std, (high - mean) / std, mean, std)


# ours, torch's function and its arguments (None: it has none), the exact distribution
CASES = {
    "normal": (init.normal(), "normal_", {}, normal(1)),
    "normal with a mean": (init.normal(0.3, 1.0), "normal_", {"std": 0.3, "mean": 1.0}, normal(0.3, 1.0)),
    "uniform": (init.uniform(), "uniform_", {}, stats.uniform(0, 1)),
    "uniform between bounds": (init.uniform(-2.0, 1.0), "uniform_", {"a": -2.0, "b": 1.0}, stats.uniform(-2, 3)),
    "truncated normal": (init.truncated_normal(), "trunc_normal_", {}, truncated(1, 0, -2, 2)),
    "truncated normal, not symmetric": (
        init.truncated_normal(0.5, 0.2, -0.3, 1.0),
        "trunc_normal_",
        {"std": 0.5, "mean": 0.2, "a": -0.3, "b": 1.0},
        truncated(0.5, 0.2, -0.3, 1.0),
    ),
    "truncated normal in a tail": (
        init.truncated_normal(1.0, 0.0, 1.5, 3.0),
        "trunc_normal_",
        {"a": 1.5, "b": 3.0},
        truncated(1, 0, 1.5, 3),
    ),
    "xavier uniform": (
        init.xavier_uniform(),
        "xavier_uniform_",
        {},
        uniform(math.sqrt(6 / (FAN_IN + FAN_OUT))),
    ),
    "xavier uniform with a gain": (
        init.xavier_uniform(2.0),
        "xavier_uniform_",
        {"gain": 2.0},
        uniform(2 * math.sqrt(6 / (FAN_IN + FAN_OUT))),
    ),
    "xavier normal": (
        init.xavier_normal(0.5),
        "xavier_normal_",
        {"gain": 0.5},
        normal(0.5 * math.sqrt(2 / (FAN_IN + FAN_OUT))),
    ),
    "kaiming uniform": (init.kaiming_uniform(), "kaiming_uniform_", {}, uniform(math.sqrt(6 / FAN_IN))),
    "kaiming uniform of torch's layers": (
        init.kaiming_uniform(a=math.sqrt(5)),
        "kaiming_uniform_",
        {"a": math.sqrt(5)},
        uniform(1 / math.sqrt(FAN_IN)),
    ),
    "kaiming uniform by fan-out for tanh": (
        init.kaiming_uniform(mode="fan_out", nonlinearity="tanh"),
        "kaiming_uniform_",
        {"mode": "fan_out", "nonlinearity": "tanh"},
        uniform(5 / 3 * math.sqrt(3 / FAN_OUT)),
    ),
    "kaiming normal": (init.kaiming_normal(), "kaiming_normal_", {}, normal(math.sqrt(2 / FAN_IN))),
    "kaiming normal by fan-out with a slope": (
        init.kaiming_normal(0.3, "fan_out"),
        "kaiming_normal_",
        {"a": 0.3, "mode": "fan_out"},
        normal(math.sqrt(2 / 1.09 / FAN_OUT)),
    ),
    "lecun uniform": (init.lecun_uniform(), None, {}, uniform(math.sqrt(3 / FAN_IN))),
    "lecun normal": (
        init.lecun_normal(),
        None,
        {},
        truncated(*(np.array([1, 0, -2, 2]) / 0.8796256610342398 / math.sqrt(FAN_IN))),
    ),
}


@pytest.mark.parametrize(("ours", "name", "arguments", "exact"), CASES.values(), ids=CASES)
def test_distribution(ours, name, arguments, exact):
    values = draw(ours).ravel().astype(np.float64)
    assert values.size == 100_000
    assert stats.kstest(values, exact.cdf).pvalue > LIMIT
    error = exact.std() / math.sqrt(values.size)
    assert abs(values.mean() - exact.mean()) < 4 * error
    kurtosis = float(exact.stats("k")) + 3
    assert abs(values.std() / exact.std() - 1) < 4 * math.sqrt((kurtosis - 1) / 4 / values.size)
    low, high = exact.support()
    assert low - abs(low) * 1e-7 <= values.min()
    assert values.max() <= high + abs(high) * 1e-7
    if name is not None:
        assert stats.ks_2samp(values, fill(name, **arguments).ravel(), method="asymp").pvalue > LIMIT


def test_a_wrong_distribution_would_be_noticed():
    """With a scale that is off by a few per cent."""
    values = draw(init.normal(1.02)).ravel()
    assert abs(values.std() - 1) > 4 * math.sqrt(2 / 4 / values.size)
    assert stats.kstest(draw(init.normal(1.05)).ravel(), normal(1).cdf).pvalue < LIMIT
    assert stats.kstest(draw(init.uniform(0, 1.02)).ravel(), stats.uniform(0, 1).cdf).pvalue < LIMIT


@pytest.mark.parametrize("shape", [(3, 3), (2, 2, 2)])
def test_orthogonal_elements(shape):
    """Squares of elements of a uniform orthogonal matrix have a beta distribution."""
    n = max(shape[0], math.prod(shape[1:]))
    exact = stats.beta(0.5, (n - 1) / 2)
    first = np.array([draw(init.orthogonal(2.0), shape, stream).ravel()[[0, -1]] for stream in range(1000)]) / 2
    torch.manual_seed(0)
    theirs = [torch.nn.init.orthogonal_(torch.empty(shape), gain=2.0).flatten()[0].item() / 2 for _ in range(1000)]
    for column in first.T:
        assert stats.kstest(column.astype(np.float64) ** 2, exact.cdf).pvalue > LIMIT
        assert stats.ks_2samp(column, theirs).pvalue > LIMIT
        assert abs((column > 0).mean() - 0.5) < 4 * 0.5 / math.sqrt(1000)


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (4, 3, 2, 2), (12, 2, 2)])
@pytest.mark.parametrize("gain", [1.0, 1.7])
def test_orthogonal_is_orthogonal(shape, gain):
    for values in (draw(init.orthogonal(gain), shape), fill("orthogonal_", shape, gain=gain)):
        matrix = values.reshape(shape[0], -1).astype(np.float64)
        matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
        np.testing.assert_allclose(matrix @ matrix.T, gain**2 * np.eye(len(matrix)), atol=3e-6)


@pytest.mark.parametrize("sparsity", [0.1, 0.35])
def test_sparse(sparsity):
    shape = (50, 2000)
    ours, theirs = draw(init.sparse(sparsity, 0.2), shape), fill("sparse_", shape, sparsity=sparsity, std=0.2)
    zeros = math.ceil(sparsity * shape[0])
    for values in (ours, theirs):
        assert ((values == 0).sum(0) == zeros).all()
    assert stats.kstest(ours[ours != 0].astype(np.float64), normal(0.2).cdf).pvalue > LIMIT
    assert stats.ks_2samp(ours[ours != 0], theirs[theirs != 0], method="asymp").pvalue > LIMIT
    # every row is as likely to be chosen, with less variance than independent choices would have
    share = zeros / shape[0]
    counts = (ours == 0).sum(1)
    assert abs(counts - shape[1] * share).max() < 4.5 * math.sqrt(shape[1] * share * (1 - share))


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (4, 1)])
def test_eye(shape):
    np.testing.assert_array_equal(draw(init.eye(), shape), torch.nn.init.eye_(torch.empty(shape)).numpy())


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("shape", [(6, 3, 3), (6, 2, 4), (6, 6, 3, 2), (6, 1, 1, 2, 3)])
def test_dirac(shape, groups):
    theirs = torch.nn.init.dirac_(torch.empty(shape), groups=groups).numpy()
    np.testing.assert_array_equal(draw(init.dirac(groups), shape), theirs)


def test_constants():
    shape = (3, 4)
    for ours, theirs in (
        (init.zeros(), torch.nn.init.zeros_),
        (init.ones(), torch.nn.init.ones_),
        (init.constant(0.3), lambda t: torch.nn.init.constant_(t, 0.3)),
    ):
        np.testing.assert_array_equal(draw(ours, shape), theirs(torch.empty(shape)).numpy())


def test_gains():
    convolutions = [f"conv{t}{d}d" for t in ("", "_transpose") for d in (1, 2, 3)]
    for name in ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu", *convolutions):
        assert init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name), rel=1e-15)
    for slope in (0, 0.2, 1, -0.5):
        ours = init.calculate_gain("leaky_relu", slope)
        assert ours == pytest.approx(torch.nn.init.calculate_gain("leaky_relu", slope), rel=1e-15)
    with pytest.raises(ValueError, match="gelu"):
        torch.nn.init.calculate_gain("gelu")
    with pytest.raises(ValueError, match="gelu"):
        init.calculate_gain("gelu")


@pytest.mark.parametrize("shape", [(3, 5), (64, 3, 7, 7), (4, 2, 3), (2, 3, 1, 2, 5)])
def test_fans(shape):
    assert init.fans(shape) == torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))
