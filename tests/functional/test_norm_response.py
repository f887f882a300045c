"""Response norms and normalize: edges; the numbers are compared with PyTorch's in tests/parity."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brickwork import functional as F
from brickwork.errors import ShapeMismatchError

X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 30, 2, 3)), jnp.float32)


@pytest.mark.parametrize("size", [3, 16, 17, 18, 40, 100])
def test_windows_written_out_and_left_to_xla(size):
    squares = np.pad(np.asarray(X) ** 2, [(0, 0), (size // 2, (size - 1) // 2), (0, 0), (0, 0)])
    sums = np.stack([squares[:, c : c + size].sum(1) for c in range(30)], 1)
    y = F.local_response_norm(X, size, alpha=2.0, beta=0.5, k=1.0)
    np.testing.assert_allclose(y, X / np.sqrt(1 + sums * 2 / size), rtol=1e-5)


def test_the_first_channel_stays_in_the_sum():
    x = jnp.zeros((1, 6, 1, 1)).at[0, 0].set(3.0).at[0, 1:].set(1.0)
    y = F.cross_map_lrn2d(x, 3, alpha=3.0, beta=1.0, k=0.0).ravel()
    sums = [9 + 1, 9 + 2, 9 + 3, 9 + 3, 9 + 3, 9 + 2]
    np.testing.assert_allclose(y, np.asarray(x).ravel() / np.array(sums), rtol=1e-6)


def test_half_precision_and_second_derivatives():
    half = X.astype(jnp.bfloat16)
    assert F.local_response_norm(half, 5).dtype == F.normalize(half).dtype == jnp.bfloat16
    large = jnp.full((1, 2, 1), 1e3, jnp.float16)  # whose square is none
    assert np.isfinite(np.asarray(F.local_response_norm(large, 2))).all()
    assert np.isfinite(np.asarray(F.normalize(large))).all()

    def f(x):
        return jnp.sin(F.normalize(x)).sum() + F.local_response_norm(x[..., None], 2, alpha=1.0).sum()

    x = X[0, :2, 0]
    hessian = jax.jacfwd(jax.grad(f))(x[None])
    assert np.isfinite(np.asarray(hessian)).all()


def test_vectors_of_zeros():
    slope = jax.grad(lambda x: F.normalize(x, eps=0.5).sum())(jnp.zeros((1, 3)))
    np.testing.assert_allclose(slope, 2.0)
    assert F.normalize(jnp.float32(-3.0), dim=0) == -1.0
    assert F.normalize(X[:0]).shape == (0, 30, 2, 3)


ERRORS = {
    "size": (lambda: F.local_response_norm(X, 0), ValueError, r"local_response_norm: size must be at least 1, got 0\."),
    "alpha": (lambda: F.local_response_norm(X, 2, alpha=True), TypeError, r"alpha must be a number, got True \(bool\)"),
    "nan": (lambda: F.cross_map_lrn2d(X, 2, beta=float("nan")), ValueError, r"beta must be a number, got nan"),
    "rank": (
        lambda: F.local_response_norm(X[0, 0], 2),
        ShapeMismatchError,
        r"at least 3 axes \(N, C, \.\.\.\), not 2\. Got x: float32\[2, 3\]\. Add the batch axis: x\[None\]\.",
    ),
    "no image": (lambda: F.cross_map_lrn2d(X[..., None], 2), ShapeMismatchError, r"4 axes \(N, C, H, W\), not 5"),
    "integers": (lambda: F.normalize(X.astype(int)), TypeError, r"normalize: x holds int32 values"),
    "axis": (lambda: F.normalize(X, dim=4), ShapeMismatchError, r"normalize: dim=4 is no axis of an array of 4"),
    "same axis": (
        lambda: F.normalize(X, dim=(1, -3)),
        ValueError,
        r"one axis or several different ones, got \(1, -3\)",
    ),
    "p": (lambda: F.normalize(X, p="fro"), TypeError, r"normalize: p must be a number, got 'fro' \(str\)"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    call, kind, message = ERRORS[case]
    with pytest.raises(kind, match=message):
        call()
