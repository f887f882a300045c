from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brickwork import functional as F
from brickwork.errors import ShapeMismatchError

W, B = jnp.ones((256, 20)), jnp.ones(256)


def test_any_number_of_leading_axes():
    for lead in ((), (3,), (2, 3), (2, 0, 3)):
        assert F.linear(jnp.ones((*lead, 20)), W, B).shape == (*lead, 256)
    assert F.linear(jnp.ones((4, 0)), jnp.ones((3, 0))).tolist() == [[0.0] * 3] * 4


def test_same_as_the_plain_product():
    x = jnp.arange(24.0).reshape(2, 3, 4)
    w = jnp.arange(20.0).reshape(5, 4)
    np.testing.assert_allclose(F.linear(x, w), jnp.einsum("abi,oi->abo", x, w), rtol=1e-6)


def test_a_weight_for_a_single_output():
    x, w = jnp.arange(6.0).reshape(2, 3), jnp.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(F.linear(x, w, jnp.asarray(1.0)), x @ w + 1)
    assert F.linear(x[0], w).shape == ()
    with pytest.raises(ShapeMismatchError, match=r"bias must be a scalar, since weight has one axis \(in,\)"):
        F.linear(x, w, jnp.ones(1))


def test_under_vmap_and_jvp():
    x = jnp.ones((5, 2, 20))
    assert jax.vmap(F.linear, (0, None, None))(x, W, B).shape == (5, 2, 256)
    assert jax.jvp(lambda x: F.linear(x, W), (x,), (x,))[1].shape == (5, 2, 256)


def test_bfloat16_and_integers():
    half = jnp.bfloat16
    assert F.linear(jnp.ones((2, 20), half), W.astype(half), B.astype(half)).dtype == half
    assert F.linear(jnp.ones((2, 3), int), jnp.ones((4, 3), int)).dtype == jnp.int32


def test_dtypes_promote_where_jax_promotes():
    with jax.numpy_dtype_promotion("standard"):
        assert F.linear(jnp.ones((2, 20), jnp.bfloat16), W, B).dtype == jnp.float32
        assert F.linear(np.ones((2, 20)), W, B).dtype == jnp.float32  # 64-bit mode is off
    with pytest.raises(ValueError, match="dtype promotion"):
        F.linear(jnp.ones((2, 20), jnp.bfloat16), W, B)


ERRORS = [
    (
        (jnp.ones((2, 21)), W),
        r"linear: x has 21 features in its last axis, but weight of shape \(256, 20\) expects 20\. "
        r"Got x: float32\[2, 21\]\. Check the data, or make the layer for 21 input features\.",
    ),
    ((jnp.ones((20, 3)), W), r"The features seem to be axis 0; move them to the end\."),
    ((jnp.ones((2, 4, 5)), W), r"Flatten the data first, e\.g\. with nn\.Flatten\(\)\."),
    ((jnp.ones(()), W), r"x is a scalar, but its last axis must hold 20 features"),
    ((jnp.ones((2, 3)), jnp.ones((4, 3, 1))), r"weight must have 2 axes \(out, in\), or 1 axis \(in,\), not 3"),
    (
        (jnp.ones((2, 20)), W, jnp.ones(3)),
        r"bias must have shape \(256,\), one value per output feature\. Got bias: float32\[3\], "
        r"weight: float32\[256, 20\]",
    ),
]


@pytest.mark.parametrize(("args", "message"), ERRORS)
def test_wrong_shapes(args, message):
    with pytest.raises(ShapeMismatchError, match=message):
        F.linear(*args)


def test_integer_data_for_float_weights():
    message = r"linear: x holds int32 values, but weight is float32\. Cast it: x\.astype\(jnp\.flo"
    with pytest.raises(TypeError, match=message):
        F.linear(jnp.ones((2, 20), int), W)


def test_flatten():
    x = jnp.ones((2, 3, 4))
    assert F.flatten(x).shape == (24,)
    assert F.flatten(x, 1).shape == (2, 12)
    assert F.flatten(x, -3, -2).shape == (6, 4)
    assert F.flatten(jnp.ones(())).shape == (1,)
    assert F.flatten(jnp.ones((0, 3, 4)), 1).shape == (0, 12)
    with pytest.raises(ShapeMismatchError, match=r"flatten: start_dim=3 is no axis of an array of 3"):
        F.flatten(x, 3)
    with pytest.raises(ShapeMismatchError, match=r"end_dim=0 comes before start_dim=1\. Got x: flo"):
        F.flatten(x, 1, 0)
