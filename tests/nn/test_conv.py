from __future__ import annotations

import jax.numpy as jnp
import pytest

from brickwork import nn
from brickwork.errors import ShapeMismatchError


def test_channels():
    layer = nn.Conv2d(6, 3, groups=2)
    assert layer.in_channels is None
    layer(jnp.ones((1, 4, 5, 5)))
    assert (layer.in_channels, layer.out_channels, layer.weight.shape) == (4, 6, (6, 2, 3, 3))
    with pytest.raises(ShapeMismatchError, match=r"x has 6 channels in axis 1"):
        layer(jnp.ones((1, 6, 5, 5)))


def test_groups_that_do_not_divide():
    layer = nn.Conv2d(6, 3, groups=2)
    message = r"Conv2d: groups=2 must divide the 5 channels of x \(axis 1\)\. Got x: float32\[1, 5, 5"
    with pytest.raises(ShapeMismatchError, match=message):
        layer(jnp.ones((1, 5, 5, 5)))
    assert layer.in_channels is None


def test_a_failed_first_call_leaves_the_shape_open():
    layer = nn.Conv2d(6, 3)
    with pytest.raises(ShapeMismatchError, match=r"If the data is channels-last"):
        layer(jnp.ones((2, 28, 28, 1)))
    assert layer(jnp.ones((2, 1, 28, 28))).shape == (2, 6, 26, 26)


def test_wrong_rank():
    with pytest.raises(ShapeMismatchError, match=r"Conv2d: x must have 4 axes .* not 2"):
        nn.Conv2d(6, 3)(jnp.ones((28, 28)))
