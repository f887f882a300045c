"""Sampling on grids, one-hot vectors and distances of pairs against torch's."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.parity.harness import assert_close, normal  # noqa: E402

from brickwork import functional as F  # noqa: E402

T = torch.nn.functional
TOLERANCES = {"float32": 1e-5, "float64": 1e-12, "bfloat16": 2e-2}


def compare(ours, theirs, *inputs, dtype="float32"):
    """Compare values, and the gradients of a weighted sum by all inputs."""
    tolerance = TOLERANCES[dtype]
    with jax.enable_x64(dtype == "float64"):
        arrays = [jnp.asarray(x, dtype) for x in inputs]
        tensors = [torch.tensor(x, dtype=getattr(torch, dtype), requires_grad=True) for x in inputs]
        expected = theirs(*tensors)
        found, pull = jax.vjp(ours, *arrays)
        assert found.dtype == dtype
        assert_close(found, expected, tolerance, "output")
        weights = normal(9, *expected.shape)
        expected.backward(torch.tensor(weights, dtype=expected.dtype))
        for gradient, tensor in zip(pull(jnp.asarray(weights, dtype)), tensors, strict=True):
            assert_close(gradient, tensor.grad, tolerance, "gradient")


SIZES = [((5, 7), (4, 3)), ((1, 6), (3, 5)), ((3, 1, 4), (3, 2, 2))]


@pytest.mark.parametrize(("size", "out"), SIZES, ids=str)
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_grid_sample(size, out, mode):
    if mode == "bicubic" and len(size) == 3:
        pytest.skip("for images")
    x = normal(0, 2, 3, *size)
    grid = np.random.default_rng(1).uniform(-2.6, 2.6, (2, *out, len(size)))  # also far outside
    grid.reshape(-1)[:3] = -1, 1, 0  # and at the ends
    for padding, align in itertools.product(("zeros", "border", "reflection"), (False, True)):
        options = {"mode": mode, "padding_mode": padding, "align_corners": align}
        compare(
            lambda a, b: F.grid_sample(a, b, **options),  # noqa: B023
            lambda a, b: T.grid_sample(a, b, **options),  # noqa: B023
            x,
            grid,
            dtype="float64",
        )


def test_grid_sample_in_float32():
    grid = np.random.default_rng(1).uniform(-1.2, 1.2, (2, 4, 3, 2))
    compare(F.grid_sample, lambda a, b: T.grid_sample(a, b, align_corners=False), normal(0, 2, 3, 6, 5), grid)


def test_grid_sample_in_bfloat16():
    x, grid = normal(0, 1, 2, 4, 4), np.random.default_rng(1).integers(-8, 8, (1, 3, 3, 2)) / 8
    found = F.grid_sample(jnp.asarray(x, jnp.bfloat16), jnp.asarray(grid, jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    expected = T.grid_sample(torch.tensor(x).bfloat16().float(), torch.tensor(grid).float(), align_corners=False)
    assert_close(found, expected, 1e-2, "output")


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_grid_sample_of_no_place(mode, padding):
    x = normal(0, 1, 2, 4, 4).astype(np.float32)
    grid = np.zeros((1, 4, 4, 2), np.float32)
    grid[0, 0, 0] = grid[0, 1, 2, 1] = np.nan
    grid[0, 2, 0] = np.inf
    found = F.grid_sample(jnp.asarray(x), jnp.asarray(grid), mode, padding)
    if padding == "zeros":  # there torch's are NaN where weights are NaN, and zero where there are none
        assert (found[:, :, grid[0].sum(-1) != 0] == 0).all()
        return
    expected = T.grid_sample(torch.tensor(x), torch.tensor(grid), mode, padding, align_corners=False)
    assert_close(found, expected, 1e-5, "output")


def test_grid_sample_of_infinite_elements():
    x = np.ones((1, 1, 3, 3), np.float32)
    x[..., 0, 0] = np.inf
    grid = np.array([[[[5.0, 5.0], [0.0, 0.0]]]], np.float32)
    assert F.grid_sample(x, grid).tolist() == [[[[0.0, 1.0]]]]  # what isn't read doesn't count


def test_grid_sample_of_nothing():
    assert F.grid_sample(jnp.ones((0, 2, 3, 3)), jnp.ones((0, 4, 4, 2))).shape == (0, 2, 4, 4)
    assert F.grid_sample(jnp.ones((1, 2, 3, 3)), jnp.ones((1, 0, 4, 2))).shape == (1, 2, 0, 4)
    assert F.grid_sample(jnp.ones((1, 0, 3, 3)), jnp.ones((1, 2, 4, 2))).shape == (1, 0, 2, 4)


@pytest.mark.filterwarnings("ignore:Since version 1.3.0")
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (1, 1, 1, 3), (2, 1, 3, 1, 4)], ids=str)
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_affine_grid(size, align, dtype):
    axes = len(size) - 2
    compare(
        lambda t: F.affine_grid(t, size, align),
        lambda t: T.affine_grid(t, size, align),
        normal(0, size[0], axes, axes + 1),
        dtype=dtype,
    )


@pytest.mark.parametrize("p", [0, 0.5, 1, 1.5, 2, 3, math.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pdist(p, dtype):
    x = normal(0, 7, 5)
    x[3], x[2, :2] = x[1], x[0, :2]  # equal rows, and equal elements
    if p == 0:  # torch gives no gradient of its own to a count
        compare(lambda a: F.pdist(a, p) + a.sum(), lambda a: T.pdist(a, p) + a.sum(), x, dtype=dtype)
    else:
        compare(lambda a: F.pdist(a, p), lambda a: T.pdist(a, p), x, dtype=dtype)


def test_pdist_of_few():
    for n in (0, 1, 2):
        x = normal(0, n, 3).astype(np.float32)
        assert_close(F.pdist(jnp.asarray(x)), T.pdist(torch.tensor(x)), 1e-6, str(n))


@pytest.mark.parametrize("x", [np.array([[0, 3], [1, 1]]), np.array(2), np.zeros((0, 2), int)], ids=str)
def test_one_hot(x):
    expected = T.one_hot(torch.tensor(x), 4)
    for given in (x, jnp.asarray(x)):
        found = F.one_hot(given, 4)
        assert found.dtype == jnp.int32
        np.testing.assert_array_equal(found, expected)
        if x.size:
            np.testing.assert_array_equal(F.one_hot(given), T.one_hot(torch.tensor(x)))


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin"])
def test_softmax_in_another_dtype(name):
    x = np.array([[1, 2, 5], [0, -3, 7]])
    found = getattr(F, name)(jnp.asarray(x), 1, dtype=jnp.float32)
    assert found.dtype == jnp.float32
    assert_close(found, getattr(T, name)(torch.tensor(x), 1, dtype=torch.float32), 1e-6, name)
    half = jnp.asarray(x, jnp.bfloat16)
    assert getattr(F, name)(half, dtype=jnp.float32).dtype == jnp.float32
