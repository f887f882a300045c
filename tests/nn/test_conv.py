from __future__ import annotations

import jax.numpy as jnp
import pytest

import brickwork as bw
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


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes(mode):
    layer = nn.Conv1d(1, 3, bias=False, padding=2, padding_mode=mode)
    x = jnp.arange(4.0)[None]
    layer(x)
    layer.weight.value = jnp.asarray([[[1.0, 0.0, 0.0]]])  # the element on the left
    expected = {"reflect": [2, 1, 0, 1, 2, 3], "replicate": [0, 0, 0, 1, 2, 3], "circular": [2, 3, 0, 1, 2, 3]}[mode]
    assert layer(x)[0].tolist() == expected


def test_repr():
    assert repr(nn.Conv1d(4, 3)) == "Conv1d(? → 4, kernel_size=3)"
    layer = nn.Conv3d(4, (1, 2, 2), in_channels=2, groups=2, padding="same", padding_mode="circular", bias=False)
    shown = "2 → 4, kernel_size=(1, 2, 2), padding='same', groups=2, padding_mode='circular', bias=False"
    assert repr(layer) == f"Conv3d({shown})"
    layer = nn.ConvTranspose1d(4, 3, stride=2, output_padding=1, dilation=2)
    assert repr(layer) == "ConvTranspose1d(? → 4, kernel_size=3, stride=2, output_padding=1, dilation=2)"
    assert repr(nn.Fold(4, 2, stride=2)) == "Fold(output_size=4, kernel_size=2, stride=2)"
    assert repr(nn.Unfold((2, 1), 2, 1)) == "Unfold(kernel_size=(2, 1), dilation=2, padding=1)"


def test_channels_of_a_transposed_convolution():
    layer = nn.ConvTranspose2d(6, 3, groups=2)
    assert (layer.in_channels, layer.out_channels, layer.weight.shape) == (None, 6, (None, 3, 3, 3))
    layer(jnp.ones((1, 4, 5, 5)))
    assert (layer.in_channels, layer.out_channels, layer.weight.shape) == (4, 6, (4, 3, 3, 3))


def test_output_size():
    layer = nn.ConvTranspose1d(2, 3, stride=2, padding=1)
    x = jnp.ones((1, 2, 5))
    assert layer(x).shape == (1, 2, 9)
    for size in ((10,), [10], (1, 2, 10)):
        assert layer(x, size).shape == layer(x, output_size=size).shape == (1, 2, 10)
    assert bw.compile(lambda v: layer(v, (10,)))(x).shape == (1, 2, 10)
    assert nn.ConvTranspose1d(2, 3, stride=2)(x[0], (12,)).shape == (2, 12)


def test_a_transposed_convolution_undoes_the_shape():
    x = jnp.ones((1, 3, 11, 8))
    down, up = nn.Conv2d(4, 3, stride=3, padding=1), nn.ConvTranspose2d(3, 3, stride=3, padding=1)
    assert up(down(x), x.shape).shape == x.shape
