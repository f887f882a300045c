"""What pooling, padding and resizing say to what they can't do."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.errors.checks import refuse

from brickwork import functional as F, nn
from brickwork.errors import ShapeMismatchError


def x(*shape, dtype=jnp.float32):
    return jnp.ones(shape, dtype)


KEY = jax.random.key(0)

SHAPES = {
    "max_pool1d on images": (
        lambda: F.max_pool1d(x(1, 2, 4, 4), 2),
        "max_pool1d: x must have 3 axes (N, C, L), or 2 axes (C, L), not 4. Got x: float32[1, 2, 4, 4]. "
        "Add the missing axes, or reshape the data.",
    ),
    "avg_pool3d on a volume without channels": (
        lambda: F.avg_pool3d(x(4, 4, 4), 2),
        "avg_pool3d: x must have 5 axes (N, C, D, H, W), or 4 axes (C, D, H, W), not 3. Got x: float32[4, 4, 4]. "
        "Add a channel axis to the volume: x[None].",
    ),
    "a window that is too large": (
        lambda: F.lp_pool1d(x(1, 2, 4), 2, 5),
        "lp_pool1d: the window 5 is larger than the padded sequence 4. Got x: float32[1, 2, 4]. "
        "Use a larger sequence, more padding or a smaller kernel.",
    ),
    "a volume with the channels last": (
        lambda: F.max_pool3d(x(1, 4, 4, 4, 2), 3),
        "max_pool3d: the window 3 x 3 x 3 is larger than the padded volume 4 x 4 x 2. Got x: float32[1, 4, 4, 4, 2]. "
        "If the data is channels-last, make it channels-first: jnp.transpose(x, (0, 4, 1, 2, 3)).",
    ),
    "nothing to pool": (
        lambda: F.adaptive_avg_pool1d(x(1, 2, 0), 3),
        "adaptive_avg_pool1d: x has no elements to pool. Got x: float32[1, 2, 0]. Check the data.",
    ),
    "indices of another shape": (
        lambda: F.max_unpool1d(x(1, 4), x(1, 3, dtype=jnp.int32), 2),
        "max_unpool1d: indices must have the shape of x. Got x: float32[1, 4], indices: int32[1, 3]. "
        "Pass the values and indices of one call of max pooling.",
    ),
    "more windows than places": (
        lambda: F.fractional_max_pool2d(x(1, 5, 5), 3, 4, key=KEY),
        "fractional_max_pool2d: 4 windows of 3 do not fit into an axis of 5: there are only 3 places. "
        "Got x: float32[1, 5, 5]. Use a smaller window or fewer of them.",
    ),
    "random samples of another shape": (
        lambda: F.fractional_max_pool2d(x(1, 5, 5), 2, 2, _random_samples=x(2, 2)),
        "fractional_max_pool2d: _random_samples must have shape (1, 1, 2), a number for each channel and axis. "
        "Got _random_samples: float32[2, 2], x: float32[1, 5, 5]. Check the arguments.",
    ),
    "more paddings than axes": (
        lambda: F.pad(x(3), (1, 1, 2, 2)),
        "pad: pad holds 2 pairs, one for each axis from the last on, but x has 1 axes. Got x: float32[3]. "
        "Give fewer paddings, or add axes to x.",
    ),
    "a mirror that is too short": (
        lambda: F.pad(x(2, 3), (0, 3), "reflect"),
        "pad: mode 'reflect' can add at most 2 elements to an end of axis 1, not 3. Got x: float32[2, 3]. "
        "Pad less, or use mode 'constant'.",
    ),
    "a crop of more than there is": (
        lambda: F.pad(x(2, 3), (-2, -2)),
        "pad: the paddings (-2, -2) take away more than the 3 elements of axis 1. Got x: float32[2, 3]. "
        "Take away less.",
    ),
    "interpolate on a matrix": (
        lambda: F.interpolate(x(4, 4), 2),
        "interpolate: x must have 3 to 5 axes, sequences (N, C, L), images (N, C, H, W), volumes (N, C, D, H, W), "
        "not 2. Got x: float32[4, 4]. Add the missing axes (the batch too: x[None]), or reshape the data.",
    ),
    "a mode for other data": (
        lambda: F.interpolate(x(1, 2, 4), 2, mode="bilinear"),
        "interpolate: mode 'bilinear' is for images (N, C, H, W), not for 3 axes. Got x: float32[1, 2, 4]. "
        "Use mode 'linear', or reshape the data.",
    ),
    "a mode for other data, with two that fit": (
        lambda: F.interpolate(x(1, 2, 4, 4), 2, mode="linear"),
        "interpolate: mode 'linear' is for sequences (N, C, L), not for 4 axes. Got x: float32[1, 2, 4, 4]. "
        "Use mode 'bilinear' or 'bicubic', or reshape the data.",
    ),
    "nothing to resize": (
        lambda: F.interpolate(x(1, 2, 0), 2),
        "interpolate: x has no elements to resize. Got x: float32[1, 2, 0]. Check the data.",
    ),
    "pixel_shuffle": (
        lambda: F.pixel_shuffle(x(1, 6, 2, 2), 2),
        "pixel_shuffle: x has 6 channels in axis 1, which upscale_factor squared, 4, does not divide. "
        "Got x: float32[1, 6, 2, 2]. Check the factor, or the data (channels come before height and width).",
    ),
    "pixel_unshuffle": (
        lambda: F.pixel_unshuffle(x(1, 2, 3), 2),
        "pixel_unshuffle: downscale_factor=2 must divide the height 2 and the width 3 of x. "
        "Got x: float32[1, 2, 3]. Pad or crop the images, or use another factor.",
    ),
    "channel_shuffle": (
        lambda: F.channel_shuffle(x(1, 3, 3), 2),
        "channel_shuffle: groups=2 must divide the 3 channels of x (axis 1). Got x: float32[1, 3, 3]. "
        "Check the data (channels come second), or change groups.",
    ),
    "channel_shuffle on a matrix": (
        lambda: F.channel_shuffle(x(2, 4), 2),
        "channel_shuffle: x must have at least 3 axes (N, C, *), not 2. Got x: float32[2, 4]. Add the missing axes.",
    ),
}


@pytest.mark.parametrize("case", SHAPES)
def test_shapes(case):
    call, message = SHAPES[case]
    refuse(call, ShapeMismatchError, message)


VALUES = {
    "padding": (
        lambda: nn.MaxPool3d(2, padding=(0, 2, 0)),
        "MaxPool3d: padding must be at most half of kernel_size, got padding=(0, 2, 0), kernel_size=2.",
    ),
    "a window of two sizes": (
        lambda: nn.MaxPool1d((2, 2)),
        "MaxPool1d: kernel_size must be an int, got (2, 2).",
    ),
    "divisor_override": (
        lambda: nn.AvgPool2d(2, divisor_override=0),
        "AvgPool2d: divisor_override must be at least 1, got 0.",
    ),
    "norm_type": (lambda: nn.LPPool1d(0, 2), "LPPool1d: norm_type must be positive, got 0."),
    "norm_type, not a number": (
        lambda: F.lp_pool2d(x(1, 4, 4), float("nan"), 2),
        "lp_pool2d: norm_type must be positive, got nan.",
    ),
    "output_size": (
        lambda: nn.AdaptiveAvgPool2d((1, None, 2)),
        "AdaptiveAvgPool2d: output_size must be an int or a pair (height, width), got (1, None, 2).",
    ),
    "output_size of nothing": (
        lambda: F.adaptive_max_pool3d(x(1, 2, 2, 2), (1, 0, 1)),
        "adaptive_max_pool3d: output_size must be at least 1, got 0.",
    ),
    "output_size of unpooling": (
        lambda: F.max_unpool2d(x(1, 2, 3), x(1, 2, 3, dtype=jnp.int32), 2, output_size=(6, 6)),
        "max_unpool2d: output_size must be from (3, 5) to (5, 7), got (6, 6).",
    ),
    "output_size of unpooling, as one number": (
        lambda: F.max_unpool2d(x(1, 2, 3), x(1, 2, 3, dtype=jnp.int32), 2, output_size=6),
        "max_unpool2d: output_size must hold the 2 spatial sizes, or the whole shape, got 6.",
    ),
    "unpooling to nothing": (
        lambda: F.max_unpool1d(x(1, 1), x(1, 1, dtype=jnp.int32), 2, padding=1),
        "max_unpool1d: the result would have the size (0,). Use less padding.",
    ),
    "two sizes of fractional pooling": (
        lambda: nn.FractionalMaxPool2d(2, 3, 0.5),
        "FractionalMaxPool2d: give output_size or output_ratio, one of the two.",
    ),
    "no size of fractional pooling": (
        lambda: F.fractional_max_pool3d(x(1, 5, 5, 5), 2, key=KEY),
        "fractional_max_pool3d: give output_size or output_ratio, one of the two.",
    ),
    "output_ratio": (
        lambda: nn.FractionalMaxPool2d(2, output_ratio=1.5),
        "FractionalMaxPool2d: output_ratio must be between 0 and 1, got 1.5.",
    ),
    "output_ratio of three": (
        lambda: nn.FractionalMaxPool2d(2, output_ratio=(0.5, 0.5, 0.5)),
        "FractionalMaxPool2d: output_ratio must be a number, or 2 numbers, got (0.5, 0.5, 0.5).",
    ),
    "a ratio that leaves nothing": (
        lambda: F.fractional_max_pool2d(x(1, 3, 9), 1, output_ratio=0.3, key=KEY),
        "fractional_max_pool2d: output_ratio=0.3 of (3, 9) leaves no window. Use a larger one.",
    ),
    "padding of three": (
        lambda: nn.ZeroPad2d((1, 2, 3)),
        "ZeroPad2d: padding must be an int or (left, right, top, bottom), got (1, 2, 3).",
    ),
    "an odd number of paddings": (
        lambda: F.pad(x(3), (1, 2, 3)),
        "pad: pad must hold two numbers for each axis, got (1, 2, 3).",
    ),
    "mode of padding": (
        lambda: F.pad(x(3), (1, 1), "edge"),
        "pad: mode must be 'constant', 'reflect', 'replicate' or 'circular', got 'edge'.",
    ),
    "a value without a place": (
        lambda: F.pad(x(3), (1, 1), "reflect", 2.0),
        "pad: value=2.0 has no meaning in mode 'reflect'. Leave it out.",
    ),
    "a value that doesn't fit": (
        lambda: F.pad(x(3, dtype=jnp.uint8), (1, 1), value=256),
        "pad: value=256 does not fit into uint8.",
    ),
    "mode of resizing": (
        lambda: nn.Upsample(2, mode="cubic"),
        "Upsample: mode must be one of 'nearest', 'nearest-exact', 'linear', 'bilinear', 'bicubic', 'trilinear', "
        "'area', got 'cubic'.",
    ),
    "neither size nor factor": (lambda: nn.Upsample(), "Upsample: give size or scale_factor, one of the two."),
    "size and factor": (
        lambda: F.interpolate(x(1, 1, 2), 4, 2),
        "interpolate: give size or scale_factor, one of the two.",
    ),
    "a size of nothing": (lambda: nn.Upsample(0), "Upsample: size must be at least 1, got 0."),
    "a factor of nothing": (
        lambda: nn.UpsamplingNearest2d(scale_factor=(2, 0)),
        "UpsamplingNearest2d: scale_factor must be positive and finite, got 0.",
    ),
    "a factor that is no number": (
        lambda: nn.Upsample(scale_factor=float("nan")),
        "Upsample: scale_factor must be positive and finite, got nan.",
    ),
    "a factor that leaves nothing": (
        lambda: F.interpolate(x(1, 1, 4), scale_factor=0.2),
        "interpolate: scale_factor=0.2 of (4,) leaves nothing. Use a larger one.",
    ),
    "sizes of another number of axes": (
        lambda: F.interpolate(x(1, 1, 4), (2, 2)),
        "interpolate: size must be one number, or one for each of 1 axes, got (2, 2).",
    ),
    "align_corners": (
        lambda: F.interpolate(x(1, 1, 4), 2, align_corners=False),
        "interpolate: align_corners has no meaning in mode 'nearest'. Leave it out.",
    ),
    "recompute_scale_factor": (
        lambda: nn.Upsample(2, recompute_scale_factor=True),
        "Upsample: recompute_scale_factor has no meaning with size. Leave it out.",
    ),
    "antialias": (
        lambda: F.interpolate(x(1, 1, 4), 2, mode="linear", antialias=True),
        "interpolate: antialias is for modes 'bilinear' and 'bicubic', not for 'linear'.",
    ),
    "upscale_factor": (lambda: nn.PixelShuffle(0), "PixelShuffle: upscale_factor must be at least 1, got 0."),
    "groups": (lambda: nn.ChannelShuffle(-1), "ChannelShuffle: groups must be at least 1, got -1."),
}


@pytest.mark.parametrize("case", VALUES)
def test_values(case):
    call, message = VALUES[case]
    refuse(call, ValueError, message)


TYPES = {
    "max_pool3d of booleans": (
        lambda: F.max_pool3d(x(1, 2, 2, 2, dtype=bool), 2),
        "max_pool3d: x must hold real numbers, got bool[1, 2, 2, 2]. Cast it first.",
    ),
    "adaptive_avg_pool2d of integers": (
        lambda: F.adaptive_avg_pool2d(x(1, 2, 2, dtype=jnp.int32), 2),
        "adaptive_avg_pool2d: x holds int32 values, but floating-point values are needed. "
        "Cast it: x.astype(jnp.float32). Got int32[1, 2, 2].",
    ),
    "indices of floats": (
        lambda: F.max_unpool1d(x(1, 2), x(1, 2), 2),
        "max_unpool1d: indices must be integers, got float32[1, 2]. "
        "They are what max_pool1d(..., return_indices=True) returns second.",
    ),
    "norm_type": (lambda: nn.LPPool2d("2", 2), "LPPool2d: norm_type must be a Python number, got '2' (str)."),
    "norm_type, a bool": (
        lambda: nn.LPPool2d(True, 2),
        "LPPool2d: norm_type must be a Python number, got True (bool).",
    ),
    "output_size": (
        lambda: nn.AdaptiveMaxPool1d(2.0),
        "AdaptiveMaxPool1d: output_size must be an int, got 2.0 (float).",
    ),
    "output_size, a bool": (
        lambda: nn.AdaptiveMaxPool2d((None, True)),
        "AdaptiveMaxPool2d: output_size must be an int, got True (bool).",
    ),
    "no random numbers": (
        lambda: F.fractional_max_pool2d(x(1, 5, 5), 2, 3),
        "fractional_max_pool2d: give the random numbers either as key or as _random_samples.",
    ),
    "a key that is none": (
        lambda: F.fractional_max_pool2d(x(1, 5, 5), 2, 3, key=3),
        "fractional_max_pool2d: key must be a random key such as jax.random.key(0), got 3.",
    ),
    "output_ratio": (
        lambda: nn.FractionalMaxPool3d(2, output_ratio="half"),
        "FractionalMaxPool3d: output_ratio must be a Python number, got 'half' (str).",
    ),
    "pad": (lambda: F.pad(x(3), 1), "pad: pad must be a tuple of ints, got 1 (int)."),
    "pad of floats": (lambda: F.pad(x(3), (1, 0.5)), "pad: pad must be an int, got 0.5 (float)."),
    "padding": (lambda: nn.ReflectionPad1d(True), "ReflectionPad1d: padding must be an int, got True (bool)."),
    "a value of text": (
        lambda: nn.ConstantPad1d(1, "0"),
        "ConstantPad1d: value must be a Python number, got '0' (str).",
    ),
    "a value that integers can't hold": (
        lambda: F.pad(x(3, dtype=jnp.int32), (1, 1), value=0.5),
        "pad: value=0.5 is no number of dtype int32. Cast x first.",
    ),
    "NaN for integers": (
        lambda: F.pad(x(3, dtype=jnp.int32), (1, 1), value=np.nan),
        "pad: value=nan is no number of dtype int32. Cast x first.",
    ),
    "a complex value for floats": (
        lambda: F.pad(x(3), (1, 1), value=1j),
        "pad: value=1j is no number of dtype float32. Cast x first.",
    ),
    "size": (lambda: nn.Upsample((2, 2.5)), "Upsample: size must be an int, got 2.5 (float)."),
    "scale_factor": (
        lambda: nn.Upsample(scale_factor="2"),
        "Upsample: scale_factor must be a Python number, got '2' (str).",
    ),
    "bilinear of integers": (
        lambda: F.interpolate(x(1, 1, 2, 2, dtype=jnp.int32), 3, mode="bilinear"),
        "interpolate: x holds int32 values, but floating-point values are needed. "
        "Cast it: x.astype(jnp.float32). Got int32[1, 1, 2, 2].",
    ),
    "upscale_factor": (
        lambda: F.pixel_shuffle(x(4, 1, 1), 2.0),
        "pixel_shuffle: upscale_factor must be an int, got 2.0 (float).",
    ),
}


@pytest.mark.parametrize("case", TYPES)
def test_types(case):
    call, message = TYPES[case]
    refuse(call, TypeError, message)


PLACES = {
    "pooling": (
        lambda: nn.AdaptiveAvgPool2d((2, None)),
        "adaptive_avg_pool2d: x must have 4 axes (N, C, H, W), or 3 axes (C, H, W), not 2. Got x: float32[2, 3]. "
        "Add a channel axis to the image: x[None].",
        "AdaptiveAvgPool2d(output_size=(2, None))",
    ),
    "a circle that is too short": (
        lambda: nn.CircularPad1d(4),
        "CircularPad1d: mode 'circular' can add at most 3 elements to an end of axis 1, not 4. Got x: float32[2, 3]. "
        "Pad less, or use mode 'constant'.",
        "CircularPad1d(padding=4)",
    ),
    "padding a matrix": (
        lambda: nn.ReflectionPad2d(1),
        "ReflectionPad2d: x must have 4 axes (N, C, H, W), or 3 axes (C, H, W), not 2. Got x: float32[2, 3]. "
        "Add a channel axis to the image: x[None].",
        "ReflectionPad2d(padding=1)",
    ),
}


@pytest.mark.parametrize("case", PLACES)
def test_the_place_in_the_network(case):
    make, message, shown = PLACES[case]
    net = nn.Sequential(nn.Identity(), make())
    refuse(lambda: net(x(2, 3)), ShapeMismatchError, message, note=f"in net.1 ({shown}), called with float32[2, 3]")
