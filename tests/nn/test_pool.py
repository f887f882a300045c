"""Pooling, padding and resizing layers: what is particular about them."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import functional as F, nn

X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 8, 9)), jnp.float32)

REPRS = [
    (lambda: nn.MaxPool1d(2), "MaxPool1d(kernel_size=2)"),
    (
        lambda: nn.MaxPool3d(3, 2, 1, 2, True, True),
        "MaxPool3d(kernel_size=3, stride=2, padding=1, dilation=2, return_indices=True, ceil_mode=True)",
    ),
    (lambda: nn.MaxUnpool2d((2, 3), 2), "MaxUnpool2d(kernel_size=(2, 3), stride=2)"),
    (lambda: nn.AvgPool3d([2, 1, 1], divisor_override=3), "AvgPool3d(kernel_size=(2, 1, 1), divisor_override=3)"),
    (lambda: nn.LPPool2d(2, 3, stride=1), "LPPool2d(norm_type=2, kernel_size=3, stride=1)"),
    (lambda: nn.AdaptiveAvgPool2d((None, 3)), "AdaptiveAvgPool2d(output_size=(None, 3))"),
    (lambda: nn.AdaptiveMaxPool1d(5, True), "AdaptiveMaxPool1d(output_size=5, return_indices=True)"),
    (lambda: nn.FractionalMaxPool2d(2, 3), "FractionalMaxPool2d(kernel_size=2, output_size=3)"),
    (
        lambda: nn.FractionalMaxPool3d(2, output_ratio=(0.5, 0.6, 0.7)),
        "FractionalMaxPool3d(kernel_size=2, output_ratio=(0.5, 0.6, 0.7))",
    ),
    (lambda: nn.ConstantPad2d((1, 2, 0, -1), 3.5), "ConstantPad2d(padding=(1, 2, 0, -1), value=3.5)"),
    (lambda: nn.ReflectionPad1d(2), "ReflectionPad1d(padding=2)"),
    (lambda: nn.Upsample(scale_factor=(2, 1.5)), "Upsample(scale_factor=(2.0, 1.5), mode='nearest')"),
    (
        lambda: nn.Upsample([4, 5], mode="bicubic", align_corners=True),
        "Upsample(size=(4, 5), mode='bicubic', align_corners=True)",
    ),
    (lambda: nn.UpsamplingBilinear2d(scale_factor=2), "UpsamplingBilinear2d(scale_factor=2.0)"),
    (lambda: nn.PixelShuffle(3), "PixelShuffle(upscale_factor=3)"),
    (lambda: nn.ChannelShuffle(2), "ChannelShuffle(groups=2)"),
]


@pytest.mark.parametrize(("make", "text"), REPRS, ids=[text for _, text in REPRS])
def test_repr(make, text):
    assert repr(make()) == text


def test_an_autoencoder_of_pooling_and_unpooling():
    class Net(nn.Module):
        def __init__(self):
            self.pool = nn.MaxPool2d(2, return_indices=True)
            self.unpool = nn.MaxUnpool2d(2)

        def forward(self, x):
            y, indices = self.pool(x)
            return self.unpool(y, indices, output_size=x.shape)

    net = Net()
    y = bw.compile(net)(X)
    assert y.shape == X.shape
    np.testing.assert_array_equal(y, net(X))
    assert ((y == X) | (y == 0)).all()


def test_fractional_pooling_draws_from_the_stream_in_training_mode_only():
    layer = nn.FractionalMaxPool2d(2, output_ratio=0.6)
    bw.seed(1)
    first, second = layer(X), layer(X)
    assert not np.array_equal(first, second)
    bw.seed(1)
    np.testing.assert_array_equal(layer(X), first)
    layer.eval()
    np.testing.assert_array_equal(layer(X), layer(X))
    halves = jnp.full((2, 3, 2), 0.5)
    np.testing.assert_array_equal(layer(X), F.fractional_max_pool2d(X, 2, output_ratio=0.6, _random_samples=halves))
    np.testing.assert_array_equal(layer(X[0]), layer(X)[0])


def test_given_samples_are_kept_and_saved():
    samples = np.random.default_rng(0).random((2, 3, 2)).astype(np.float32)
    layer = nn.FractionalMaxPool2d(2, 4, _random_samples=samples)
    np.testing.assert_array_equal(layer.state_dict()["_random_samples"], samples)
    np.testing.assert_array_equal(layer(X), layer.eval()(X))
    np.testing.assert_array_equal(layer(X), F.fractional_max_pool2d(X, 2, 4, _random_samples=samples))
    assert not nn.FractionalMaxPool2d(2, 4).state_dict()


def test_sizes_follow_the_data():
    """One layer for images of several sizes."""
    for layer in (nn.AdaptiveAvgPool2d(2), nn.AdaptiveMaxPool2d((2, 2)), nn.Upsample(size=(2, 2))):
        for size in (4, 5, 9):
            assert layer(jnp.ones((1, 1, size, size + 1))).shape == (1, 1, 2, 2)
