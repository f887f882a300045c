"""What convolutions, transposed ones, Fold and Unfold say to wrong arguments."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from tests.errors.checks import refuse, unchanged

from brickwork import functional as F, nn
from brickwork.errors import ShapeMismatchError


def x(*shape):
    return jnp.ones(shape)


OPTIONS = {
    "padding": (
        lambda: nn.Conv1d(2, 3, padding="full"),
        "Conv1d: padding must be an int, 'same' or 'valid', got 'full'.",
    ),
    "same": (
        lambda: nn.Conv3d(2, 3, padding="same", stride=(1, 1, 2)),
        "Conv3d: padding='same' keeps the size of the volume, which needs stride 1, got stride=(1, 1, 2). "
        "Give the padding as a number instead.",
    ),
    "padding_mode": (
        lambda: nn.Conv2d(2, 3, padding_mode="mirror"),
        "Conv2d: padding_mode must be one of 'zeros', 'reflect', 'replicate', 'circular', got 'mirror'.",
    ),
    "padding_mode of a transposed one": (
        lambda: nn.ConvTranspose2d(2, 3, padding_mode="reflect"),
        "ConvTranspose2d: padding_mode must be 'zeros', got 'reflect'; padding is what is left out of the output, "
        "so there is nothing to fill in.",
    ),
    "kernel_size": (
        lambda: nn.Conv3d(2, (3, 3)),
        "Conv3d: kernel_size must be an int or a triple (depth, height, width), got (3, 3).",
    ),
    "output_padding": (
        lambda: nn.ConvTranspose1d(2, 3, stride=2, output_padding=2),
        "ConvTranspose1d: output_padding must be less than stride or dilation, "
        "got output_padding=2, stride=2, dilation=1.",
    ),
    "output_padding of the function": (
        lambda: F.conv_transpose2d(x(1, 2, 3, 3), x(2, 2, 3, 3), output_padding=1),
        "conv_transpose2d: output_padding must be less than stride or dilation, "
        "got output_padding=1, stride=1, dilation=1.",
    ),
    "groups": (
        lambda: nn.ConvTranspose2d(3, 3, groups=2),
        "ConvTranspose2d: groups=2 must divide out_channels=3.",
    ),
    "groups and inputs": (
        lambda: nn.ConvTranspose2d(4, 3, in_channels=3, groups=2),
        "ConvTranspose2d: groups=2 must divide in_channels=3.",
    ),
    "a kernel of Fold": (lambda: nn.Fold(4, 0), "Fold: kernel_size must be at least 1, got 0."),
    "a size of Fold": (lambda: F.fold(x(8, 4), 0, 2), "fold: output_size must be at least 1, got 0."),
    "padding of Unfold": (lambda: nn.Unfold(2, padding=-1), "Unfold: padding must be at least 0, got -1."),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options(case):
    call, message = OPTIONS[case]
    refuse(call, ValueError, message)


TYPES = {
    "padding of a transposed one": (
        lambda: nn.ConvTranspose1d(2, 3, padding="same"),
        "ConvTranspose1d: padding must be an int, got 'same' (str).",
    ),
    "a bool": (lambda: nn.Conv1d(2, True), "Conv1d: kernel_size must be an int, got True (bool)."),
    "NaN": (
        lambda: nn.Conv3d(2, 3, stride=float("nan")),
        "Conv3d: stride must be an int, got nan (float).",
    ),
    "torch's order": (
        lambda: nn.ConvTranspose2d(16, 33, 3, stride=2),
        "ConvTranspose2d(out_channels, kernel_size, *, in_channels=None): got (16, 33, 3, stride=2); "
        "write nn.ConvTranspose2d(33, 3, stride=2) and let the input decide, "
        "or nn.ConvTranspose2d(33, 3, in_channels=16, stride=2)",
    ),
    "integers": (
        lambda: F.conv_transpose1d(jnp.ones((2, 4), jnp.int32), x(2, 3, 2)),
        "conv_transpose1d: x holds int32 values, but weight is float32. Cast it: x.astype(jnp.float32). "
        "Got int32[2, 4].",
    ),
}


@pytest.mark.parametrize("case", TYPES)
def test_types(case):
    call, message = TYPES[case]
    refuse(call, TypeError, message)


SHAPES = {
    "rank": (
        lambda: F.conv1d(x(4), x(2, 1, 3)),
        "conv1d: x must have 3 axes (N, C, L), or 2 axes (C, L), not 1. Got x: float32[4]. "
        "Add a channel axis to the sequence: x[None].",
    ),
    "rank of the weight": (
        lambda: F.conv3d(x(1, 2, 4, 4, 4), x(2, 2, 3, 3)),
        "conv3d: weight must have 5 axes (out, in, depth, height, width), not 4. "
        "Got weight: float32[2, 2, 3, 3]. Reshape the weight.",
    ),
    "rank of the weight of a transposed one": (
        lambda: F.conv_transpose1d(x(1, 2, 4), x(2, 3)),
        "conv_transpose1d: weight must have 3 axes (in, out, length), not 2. "
        "Got weight: float32[2, 3]. Reshape the weight.",
    ),
    "channels": (
        lambda: F.conv1d(x(2, 9, 3), x(4, 3, 2)),
        "conv1d: x has 9 channels in axis 1, but weight of shape (4, 3, 2) expects 3. Got x: float32[2, 9, 3]. "
        "The data looks channels-last; make it channels-first with jnp.transpose(x, (0, 2, 1)).",
    ),
    "channels of a transposed one": (
        lambda: F.conv_transpose2d(x(1, 5, 3, 3), x(4, 3, 2, 2)),
        "conv_transpose2d: x has 5 channels in axis 1, but weight of shape (4, 3, 2, 2) expects 4. "
        "Got x: float32[1, 5, 3, 3]. Check the data, or make the layer for 5 input channels.",
    ),
    "groups of a transposed one": (
        lambda: F.conv_transpose1d(x(1, 3, 4), x(3, 2, 2), groups=2),
        "conv_transpose1d: groups=2 must divide the 3 input channels of weight. "
        "Got weight: float32[3, 2, 2]. Change groups or the number of input channels.",
    ),
    "bias": (
        lambda: F.conv_transpose1d(x(1, 4, 4), x(4, 2, 2), x(2), groups=2),
        "conv_transpose1d: bias must have shape (4,), one value per output channel. "
        "Got bias: float32[2], weight: float32[4, 2, 2]. Check bias, or the data.",
    ),
    "nothing left": (
        lambda: F.conv_transpose1d(x(1, 2, 2), x(2, 2, 2), padding=2),
        "conv_transpose1d: nothing is left of an output of size -1. Got x: float32[1, 2, 2]. "
        "Use less padding, a larger kernel or a larger input.",
    ),
    "a window": (
        lambda: F.conv3d(x(1, 2, 2, 4, 4), x(2, 2, 3, 3, 3)),
        "conv3d: the window 3 x 3 x 3 is larger than the padded volume 2 x 4 x 4. "
        "Got x: float32[1, 2, 2, 4, 4]. Use a larger volume, more padding or a smaller kernel.",
    ),
    "rank of columns": (
        lambda: F.fold(x(1, 2, 4, 4), 4, 2),
        "fold: x must have 3 axes (N, C * KH * KW, L), or 2 axes, not 4. Got x: float32[1, 2, 4, 4]. "
        "Reshape the data: channels and elements of a window in one axis, windows in the next.",
    ),
    "rows": (
        lambda: F.fold(x(2, 6, 9), 4, 2),
        "fold: x has 6 rows in axis 1, no multiple of the 4 elements of a window 2 x 2. "
        "Got x: float32[2, 6, 9]. Check kernel_size, or the data.",
    ),
    "windows": (
        lambda: F.fold(x(8, 8), 4, 2),
        "fold: x has 8 windows in axis 1, but an image of 4 x 4 has 3 x 3 = 9. Got x: float32[8, 8]. "
        "Check output_size, kernel_size, dilation, padding and stride, or the data.",
    ),
    "a window of Fold": (
        lambda: F.fold(x(9, 1), 2, 3),
        "fold: the window 3 x 3 is larger than the padded image 2 x 2. Got x: float32[9, 1]. "
        "Use a larger output_size, more padding or a smaller kernel.",
    ),
    "a window of Unfold": (
        lambda: F.unfold(x(1, 2, 2), 3),
        "unfold: the window 3 x 3 is larger than the padded image 2 x 2. Got x: float32[1, 2, 2]. "
        "Use a larger image, more padding or a smaller kernel.",
    ),
}


@pytest.mark.parametrize("case", SHAPES)
def test_shapes(case):
    call, message = SHAPES[case]
    refuse(call, ShapeMismatchError, message)


PADDINGS = {
    "reflect": (3, "at least 4, not 3"),
    "circular": (4, "at least 4, not 3"),
    "replicate": (1, "at least 1, not 0"),
}


@pytest.mark.parametrize("mode", PADDINGS)
def test_an_axis_too_short_to_be_padded_with_its_own_elements(mode):
    padding, expected = PADDINGS[mode]
    size = 0 if mode == "replicate" else 3
    net = nn.Sequential(nn.Conv2d(2, 1, in_channels=1, padding=(0, padding), padding_mode=mode))
    options = f"kernel_size=1, padding=(0, {padding}), padding_mode='{mode}'"
    with unchanged(net):
        refuse(
            lambda: net(x(1, 1, 5, size)),
            ShapeMismatchError,
            f"conv2d: padding {padding} with padding_mode='{mode}' takes elements of the image itself, so the size of "
            f"axis 3 must be {expected}. Got x: float32[1, 1, 5, {size}]. "
            "Use less padding, a larger image or padding_mode='zeros'.",
            note=f"in net.0 (Conv2d(1 → 2, {options})), called with float32[1, 1, 5, {size}]",
        )


def test_first_call():
    net = nn.Sequential(nn.ConvTranspose1d(4, 3, groups=2))
    with unchanged(net):
        refuse(
            lambda: net(x(1, 3, 5)),
            ShapeMismatchError,
            "ConvTranspose1d: groups=2 must divide the 3 channels of x (axis 1). Got x: float32[1, 3, 5]. "
            "Check the data (channels come before positions), or change groups.",
            note="in net.0 (ConvTranspose1d(? → 4, kernel_size=3, groups=2)), called with float32[1, 3, 5]",
        )


OUTPUT_SIZES = {
    "too large": (
        (9, 11),
        ValueError,
        "output_size (9, 11) is out of reach of an input of size (4, 4), which gives sizes from 9 to 10, 9 to 10.",
    ),
    "too small": ([8, 9], ValueError, "output_size (8, 9) is out of reach of ..."),
    "of another length": ((9, 9, 9), ValueError, "output_size must have 2 or 4 sizes, got (9, 9, 9)."),
    "of another kind": ((9.0, 9), TypeError, "output_size must be an int, got 9.0 (float)."),
    "a number": (9, TypeError, "output_size must be a tuple of sizes, got int."),
}


@pytest.mark.parametrize("case", OUTPUT_SIZES)
def test_output_size(case):
    size, kind, message = OUTPUT_SIZES[case]
    net = nn.ConvTranspose2d(3, 3, in_channels=2, stride=2)
    refuse(
        lambda: net(x(1, 2, 4, 4), size),
        kind,
        f"ConvTranspose2d: {message}",
        note=f"in net (ConvTranspose2d(2 → 3, kernel_size=3, stride=2)), called with float32[1, 2, 4, 4], {size!r}",
    )
