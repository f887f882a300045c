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
