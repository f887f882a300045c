from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from brickwork import functional as F
from brickwork.errors import ShapeMismatchError

W = jnp.ones((4, 3, 3, 3))


def images(*shape):
    return jnp.zeros(shape)


def test_shapes():
    assert F.conv2d(images(2, 3, 8, 9), W).shape == (2, 4, 6, 7)
    assert F.conv2d(images(3, 8, 9), W, padding="same").shape == (4, 8, 9)
    assert F.conv2d(images(0, 3, 8, 9), W, stride=[2, 1], padding=[1, 0]).shape == (0, 4, 4, 7)


def test_bfloat16():
    half = jnp.bfloat16
    y = F.conv2d(images(1, 3, 4, 4).astype(half), W.astype(half), jnp.ones(4, half))
    assert y.dtype == half
    assert y.tolist()[0][0][0][0] == 1.0


def test_twice_differentiable():
    x = jnp.ones((1, 3, 4, 4))

    def f(w):
        return (F.conv2d(x, w, padding=1) ** 3).sum()

    assert jnp.isfinite(jax.grad(lambda w: (jax.grad(f)(w) ** 2).sum())(W)).all()


ERRORS = [
    (
        (images(2, 5, 8, 8),),
        r"conv2d: x has 5 channels in axis 1, but weight of shape \(4, 3, 3, 3\) expects 3\. "
        r"Got x: float32\[2, 5, 8, 8\]\. Check the data, or make the layer for 5 input channels\.",
    ),
    ((images(2, 8, 8, 3),), r"looks channels-last; .* jnp\.transpose\(x, \(0, 3, 1, 2\)\)"),
    ((images(8, 8, 3),), r"jnp\.transpose\(x, \(2, 0, 1\)\)"),
    ((images(8, 8),), r"4 axes \(N, C, H, W\), or 3 axes \(C, H, W\), not 2\..*x\[None\]"),
    ((images(1, 3, 2, 8),), r"the window 3 x 3 is larger than the padded image 2 x 8\."),
    ((images(2, 3, 8, 8), jnp.ones(2)), r"bias must have shape \(4,\), one value per output chan"),
]


@pytest.mark.parametrize(("args", "message"), ERRORS)
def test_wrong_shapes(args, message):
    with pytest.raises(ShapeMismatchError, match=message):
        F.conv2d(args[0], W, *args[1:])


def test_other_wrong_shapes():
    with pytest.raises(ShapeMismatchError, match=r"weight must have 4 axes \(out, in, height, wid"):
        F.conv2d(images(1, 3, 8, 8), jnp.ones((4, 3)))
    with pytest.raises(ShapeMismatchError, match=r"groups=3 must divide the 4 output channels of"):
        F.conv2d(images(1, 9, 8, 8), W, groups=3)
    with pytest.raises(ShapeMismatchError, match=r"\(4, 3, 3, 3\) x 2 groups expects 6\."):
        F.conv2d(images(1, 9, 8, 8), W, groups=2)
    with pytest.raises(ShapeMismatchError, match=r"first axis is the batch, .* x\[:, None\]"):
        F.conv2d(images(5, 8, 8), jnp.ones((4, 1, 3, 3)))
    with pytest.raises(ShapeMismatchError, match=r"If the data is channels-last, make it"):
        F.conv2d(images(2, 8, 8, 1), jnp.ones((4, 8, 3, 3)))


OPTIONS = [
    ({"padding": "sme"}, r"conv2d: padding must be an int, .* 'same' or 'valid', got 'sme'"),
    ({"padding": "same", "stride": 2}, r"padding='same' .* needs stride 1, got stride=2"),
    ({"padding": -1}, r"conv2d: padding must be at least 0, got -1"),
    ({"stride": 0}, r"conv2d: stride must be at least 1, got 0"),
    ({"dilation": 0}, r"conv2d: dilation must be at least 1, got 0"),
    ({"groups": 0}, r"conv2d: groups must be at least 1, got 0"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        F.conv2d(images(1, 3, 8, 8), W, **options)


def test_integer_data():
    with pytest.raises(TypeError, match=r"conv2d: x holds uint8 values, but weight is float32"):
        F.conv2d(jnp.zeros((1, 3, 8, 8), jnp.uint8), W)


def reference(x, weight, stride, padding):
    pads = [(p, p) for p in padding]
    return jax.lax.conv_general_dilated(x, weight, stride, pads, dimension_numbers=("NCHW", "OIHW", "NCHW"))


PRODUCTS = [  # image, kernel, stride, padding
    ((2, 3, 5, 6), (4, 3, 1, 1), (1, 1), (0, 0)),  # nothing to unfold
    ((2, 3, 5, 6), (4, 3, 1, 1), (2, 3), (0, 0)),
    ((1, 3, 4, 4), (9, 3, 3, 3), (2, 1), (1, 0)),  # fewer windows than kernels
    ((5, 3, 2, 2), (4, 3, 3, 3), (1, 1), (1, 1)),  # windows larger than the output
    ((5, 3, 5, 8), (4, 3, 2, 5), (3, 2), (1, 2)),
    ((5, 2, 3, 3), (4, 2, 3, 3), (1, 1), (0, 0)),  # one window an image
]


@pytest.mark.parametrize(("image", "kernel", "stride", "padding"), PRODUCTS)
def test_as_a_matrix_product(image, kernel, stride, padding):
    keys = jax.random.split(jax.random.key(0), 3)
    x, w = jax.random.normal(keys[0], image), jax.random.normal(keys[1], kernel)
    jaxpr = str(jax.make_jaxpr(lambda x, w: F.conv2d(x, w, None, stride, padding))(x, w))
    assert "conv_general_dilated" not in jaxpr or jax.default_backend() != "cpu"
    y, pull = jax.vjp(lambda x, w: F.conv2d(x, w, None, stride, padding), x, w)
    expected, expected_pull = jax.vjp(lambda x, w: reference(x, w, stride, padding), x, w)
    assert jnp.allclose(y, expected, rtol=1e-5, atol=1e-5)
    dy = jax.random.normal(keys[2], y.shape)
    for gradient, wanted in zip(pull(dy), expected_pull(dy), strict=True):
        assert jnp.allclose(gradient, wanted, rtol=1e-5, atol=1e-5)


def test_large_images_are_left_to_the_convolution():
    jaxpr = str(jax.make_jaxpr(lambda x: F.conv2d(x, W, padding=1))(images(4, 3, 16, 16)))
    assert "conv_general_dilated" in jaxpr
    wide = jnp.ones((4, 3, 9, 9))  # unfolding would take much memory
    jaxpr = str(jax.make_jaxpr(lambda x: F.conv2d(x, wide, padding=4))(images(4, 3, 8, 8)))
    assert "conv_general_dilated" in jaxpr
