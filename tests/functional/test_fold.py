from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from brickwork import functional as F


def test_fold_counts_the_windows():
    ones = F.fold(F.unfold(jnp.ones((1, 2, 4, 4)), 3, padding=1), 4, 3, padding=1)
    assert ones[0, 1].tolist()[0] == [4.0, 6.0, 6.0, 4.0]


def test_without_overlap_they_are_inverses():
    x = jnp.arange(48, dtype=jnp.int32).reshape(1, 2, 6, 4)
    y = F.fold(F.unfold(x, (3, 2), stride=(3, 2)), (6, 4), (3, 2), stride=(3, 2))
    assert y.dtype == jnp.int32
    np.testing.assert_array_equal(y, x)


def test_a_convolution_is_a_product_with_windows():
    x, w = jax.random.normal(jax.random.key(0), (2, 3, 5, 4)), jax.random.normal(jax.random.key(1), (4, 3, 2, 3))
    y = jnp.einsum("ok,nkl->nol", w.reshape(4, -1), F.unfold(x, (2, 3), 1, 1, 2)).reshape(2, 4, 3, 2)
    np.testing.assert_allclose(y, F.conv2d(x, w, stride=2, padding=1), rtol=1e-5, atol=1e-5)


def test_half_precision_is_summed_in_float32():
    y = F.fold(jnp.full((49, 49), 1 + 1 / 128, jnp.bfloat16), 13, 7)
    assert y.dtype == jnp.bfloat16
    assert float(y[0, 6, 6]) == float(jnp.bfloat16(49 * (1 + 1 / 128)))


def test_booleans():
    y = F.fold(jnp.array([[[True, False], [False, False], [True, False], [False, True]]]), (2, 3), 2)
    assert y.dtype == bool
    assert y.tolist() == [[[[True, False, False], [True, False, True]]]]
