from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brickwork import functional as F
from brickwork.errors import ShapeMismatchError

TABLE = jnp.arange(12.0).reshape(4, 3)


def test_shapes_and_dtypes():
    assert F.embedding(jnp.array(2), TABLE).tolist() == [6.0, 7.0, 8.0]
    for dtype in (np.int8, np.uint8, np.uint32, np.int64):
        assert F.embedding(np.ones((2, 5), dtype), TABLE).shape == (2, 5, 3)
    assert F.embedding(jnp.zeros((0,), int), TABLE).shape == (0, 3)
    assert F.embedding(jnp.array([1]), TABLE.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("bad", [4, -1, -4, -100, 2**31 - 1])
def test_out_of_range_is_nan_and_has_no_gradient(bad):
    indices = jnp.array([1, bad])
    y = F.embedding(indices, TABLE)
    assert y[0].tolist() == [3.0, 4.0, 5.0]
    assert jnp.isnan(y[1]).all()
    g = jax.grad(lambda t: F.embedding(indices, t).sum())(TABLE)
    assert g.tolist() == [[0] * 3, [1] * 3, [0] * 3, [0] * 3]


def test_padding_row_gets_no_gradient():
    indices = jnp.array([0, 1, 1, 3])
    g = jax.grad(lambda t: F.embedding(indices, t, padding_idx=1).sum())(TABLE)
    assert g[:, 0].tolist() == [1, 0, 0, 1]
    assert F.embedding(indices, TABLE, padding_idx=1)[1].tolist() == [3.0, 4.0, 5.0]
    g = jax.grad(lambda t: F.embedding(indices, t, padding_idx=-1).sum())(TABLE)
    assert g[:, 0].tolist() == [1, 2, 0, 0]


def test_errors():
    with pytest.raises(TypeError, match=r"embedding: indices must be integers, got float32\[2\]\. Ca"):
        F.embedding(jnp.ones(2), TABLE)
    with pytest.raises(TypeError, match=r"indices must be integers, got bool\[2\]"):
        F.embedding(jnp.ones(2, bool), TABLE)
    with pytest.raises(ShapeMismatchError, match=r"weight must have 2 axes \(num, dim\), not 1"):
        F.embedding(jnp.array([1]), jnp.ones(3))
    with pytest.raises(ValueError, match=r"padding_idx=4 is no row of a table of 4 rows; .*-4 to 3"):
        F.embedding(jnp.array([1]), TABLE, padding_idx=4)


# -- max_norm, frequencies, bags -------------------------------------------------------------------


def test_max_norm_leaves_the_table_of_the_function_alone_and_gradients_pass():
    indices = jnp.array([3, 3, 1])
    y = F.embedding(indices, TABLE, max_norm=1.0)
    np.testing.assert_allclose(jnp.linalg.norm(y, axis=-1), 1, rtol=1e-5)
    g = jax.grad(lambda t: F.embedding(indices, t, max_norm=1.0).sum())(TABLE)
    assert g[:, 0].tolist() == [0, 1, 0, 2]
    tangent = jax.jvp(lambda t: F.embedding(indices, t, max_norm=1.0), (TABLE,), (TABLE,))[1]
    np.testing.assert_array_equal(tangent, TABLE[indices])


def test_renorm_looks_only_at_what_is_looked_up():
    new = F.embedding_renorm(jnp.array([[2, 2], [7, -1]]), TABLE, 0.5, float("inf"))
    np.testing.assert_array_equal(new[:2], TABLE[:2])
    np.testing.assert_array_equal(new[3], TABLE[3])
    np.testing.assert_allclose(abs(new[2]).max(), 0.5, rtol=1e-5)
    zero = F.embedding_renorm(jnp.array([1]), TABLE, 1.5, 0.0)  # the number of elements that are not 0
    np.testing.assert_allclose(zero[1], TABLE[1] / 2, rtol=1e-6)


def test_gradients_by_frequency():
    def f(t):
        return F.embedding(jnp.array([[1, 1], [1, 2]]), t, padding_idx=2, scale_grad_by_freq=True).sum()

    assert jax.grad(f)(TABLE)[:, 0].tolist() == [0, 1, 0, 0]
    indices = jnp.array([9, 0])
    g = jax.grad(lambda t: F.embedding(indices, t, scale_grad_by_freq=True).sum())(TABLE)
    assert g[:, 0].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_bags_by_frequency(mode):
    """Each row's gradient divided by how often it occurs; PyTorch 2.13 on a CPU divides all by the count of one."""
    indices, offsets = jnp.array([0, 0, 1, 2, 0, 1]), jnp.array([0, 2, 2])

    def f(t, by_frequency):
        return F.embedding_bag(indices, t, offsets, mode=mode, scale_grad_by_freq=by_frequency).sum()

    plain, scaled = jax.grad(f)(TABLE, False), jax.grad(f)(TABLE, True)
    np.testing.assert_allclose(scaled[:3], plain[:3] / jnp.array([[3.0], [2], [1]]), rtol=1e-6)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_with_an_index_out_of_range(mode):
    y = F.embedding_bag(jnp.array([[0, 9], [1, -1], [2, 3]]), TABLE, mode=mode)
    assert jnp.isnan(y[:2]).all()
    assert jnp.isfinite(y[2]).all()


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_both_forms_of_bags_are_the_same(mode):
    indices = jnp.array([[0, 3, 3], [2, 1, 0]])
    options = {"mode": mode, "padding_idx": 3}
    both = F.embedding_bag(indices, TABLE, **options)
    ragged = F.embedding_bag(indices.ravel(), TABLE, jnp.array([0, 3]), **options)
    np.testing.assert_allclose(both, ragged, rtol=1e-6)
    many = jax.vmap(lambda i: F.embedding_bag(i, TABLE, **options))(jnp.stack([indices, indices[::-1]]))
    np.testing.assert_allclose(many, jnp.stack([both, both[::-1]]), rtol=1e-6)


def test_what_comes_behind_the_last_offset_is_left_out():
    y = F.embedding_bag(jnp.array([0, 1, 2, 3]), TABLE, [0, 1, 3], mode="sum", include_last_offset=True)
    np.testing.assert_array_equal(y, jnp.stack([TABLE[0], TABLE[1] + TABLE[2]]))


SMALL = [jnp.int8, jnp.uint8, jnp.int16, jnp.uint32]
LARGE = jax.random.normal(jax.random.key(0), (300, 3))


@pytest.mark.parametrize("dtype", SMALL)
def test_tables_with_more_rows_than_the_dtype_of_indices_holds(dtype):
    indices = jnp.array([[43, 3, 127]])  # 43 is the last row, 299, in a byte
    small = indices.astype(dtype)
    np.testing.assert_array_equal(F.embedding(small, LARGE), LARGE[indices])
    np.testing.assert_array_equal(F.embedding_bag(small, LARGE, padding_idx=299), F.embedding_bag(indices, LARGE))
    slope = jax.grad(lambda w: F.embedding(small, w, padding_idx=299).sum())(LARGE)
    np.testing.assert_array_equal(slope[indices[0]], jnp.ones((3, 3)))
    np.testing.assert_array_equal(F.one_hot(small, 300), F.one_hot(indices, 300))
    np.testing.assert_array_equal(F.embedding_renorm(small, LARGE, 0.1), F.embedding_renorm(indices, LARGE, 0.1))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("dtype", SMALL)
def test_offsets_of_any_dtype(mode, dtype):
    indices, offsets = jnp.arange(300), jnp.array([0, 5, 100])
    for last in (False, True):
        options = {"mode": mode, "include_last_offset": last}
        found = F.embedding_bag(indices, LARGE, offsets.astype(dtype), **options)
        np.testing.assert_array_equal(found, F.embedding_bag(indices, LARGE, offsets, **options))


def test_unsigned_offsets_must_ascend_too():
    with pytest.raises(ValueError, match="offsets must ascend"):
        F.embedding_bag(jnp.arange(4), TABLE, np.array([0, 3, 1], np.uint8))


def test_one_hot_of_what_is_out_of_range_of_int32():
    with jax.enable_x64(True):
        y = jax.jit(lambda x: F.one_hot(x, 2))(jnp.array([2**32 + 1, -(2**32), 1]))
    np.testing.assert_array_equal(y, [[0, 0], [0, 0], [0, 1]])
