"""Convolutional layers against torch's."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.parity.harness import compare_layers, normal  # noqa: E402

from brickwork import nn  # noqa: E402

SIZES = {1: (9,), 2: (7, 6), 3: (4, 5, 3)}


def compare(name, channels, *args, shape=None, call=None, **options):
    """Compare ``nn.<name>(*args)``, its input of ``channels``, with torch's."""
    harness = {k: options.pop(k) for k in ("dtype", "training", "tolerance") if k in options}
    ndim = int(name[-2])
    x = normal(0, 2, channels, *SIZES[ndim]) if shape is None else normal(0, *shape)
    ours = getattr(nn, name)(*args, **options)
    theirs = getattr(torch.nn, name)(channels, *args, **options)
    compare_layers(ours, theirs, x, call=call, **harness)


CONVOLUTIONS = {  # dimensions, channels in and out, kernel, options
    "1d": (1, 3, 4, 3, {"stride": 2, "padding": 1}),
    "1d same, dilated": (1, 3, 4, 4, {"padding": "same", "dilation": 2, "bias": False}),
    "1d depthwise": (1, 4, 4, 3, {"groups": 4, "stride": 2, "padding": 2}),
    "1d larger output": (1, 2, 3, 3, {"padding": 4}),
    "1d reflect": (1, 2, 3, 3, {"padding": 3, "padding_mode": "reflect"}),
    "2d few channels": (2, 1, 4, 3, {"padding": 1}),
    "2d depthwise": (2, 3, 3, 3, {"groups": 3, "padding": (2, 1), "dilation": (2, 1)}),
    "2d groups": (2, 4, 6, (3, 2), {"groups": 2, "stride": (1, 2)}),
    "2d circular": (2, 2, 3, 3, {"padding": (6, 4), "padding_mode": "circular", "stride": 3}),
    "2d replicate": (2, 2, 3, (2, 3), {"padding": "same", "padding_mode": "replicate"}),
    "3d": (3, 2, 3, 2, {"padding": 1, "stride": (1, 2, 1)}),
    "3d dilated": (3, 2, 2, (3, 1, 2), {"padding": (2, 0, 1), "dilation": (2, 1, 2)}),
    "3d groups": (3, 4, 2, 2, {"groups": 2, "padding": "valid"}),
    "3d depthwise, reflect": (3, 2, 2, 2, {"groups": 2, "padding": (1, 2, 1), "padding_mode": "reflect"}),
    "3d of one element": (3, 2, 3, 1, {}),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution(case):
    ndim, inputs, outputs, kernel, options = CONVOLUTIONS[case]
    compare(f"Conv{ndim}d", inputs, outputs, kernel, **options)


TRANSPOSED = {
    "1d": (1, 3, 4, 4, {"stride": 2, "padding": 1}),
    "1d dilated, strided": (1, 2, 3, 3, {"stride": 2, "dilation": 3, "output_padding": 2, "padding": 2}),
    "1d groups": (1, 4, 6, 3, {"stride": 3, "groups": 2, "output_padding": 1}),
    "2d": (2, 3, 2, 3, {"stride": 2, "padding": 1, "output_padding": 1}),
    "2d without overlap": (2, 3, 2, 2, {"stride": 2, "bias": False}),
    "2d with gaps": (2, 2, 3, (1, 2), {"stride": (2, 3), "output_padding": (1, 2)}),
    "2d stride 1": (2, 2, 3, 3, {"padding": (3, 0), "dilation": (2, 1)}),
    "2d depthwise": (2, 3, 3, 3, {"groups": 3, "stride": (2, 1)}),
    "3d": (3, 2, 2, (2, 3, 2), {"stride": (1, 2, 2), "padding": (1, 1, 0)}),
}


@pytest.mark.parametrize("case", TRANSPOSED)
def test_transposed(case):
    ndim, inputs, outputs, kernel, options = TRANSPOSED[case]
    compare(f"ConvTranspose{ndim}d", inputs, outputs, kernel, **options)


@pytest.mark.parametrize("name", ["Conv2d", "ConvTranspose2d"])
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_dtypes(name, dtype):
    compare(name, 4, 4, 3, stride=2, padding=1, groups=2, dtype=dtype, training=False)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_dtypes_depthwise(dtype):
    compare("Conv2d", 3, 3, 3, padding=1, groups=3, dtype=dtype)


@pytest.mark.parametrize("name", ["Conv1d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d"])
def test_without_batch_and_with_an_empty_one(name):
    sizes = SIZES[int(name[-2])]
    compare(name, 2, 3, 2, shape=(2, *sizes))
    compare(name, 2, 3, 2, shape=(0, 2, *sizes))


def test_a_transposed_convolution_of_one_element():
    compare("ConvTranspose2d", 5, 3, (4, 3), shape=(1, 5, 1, 1), padding=(1, 0))


@pytest.mark.parametrize("size", [(14, 12), (13, 11), (2, 4, 14, 11)], ids=str)
def test_output_size(size):
    def call(layer, x):
        return layer(x, output_size=size)

    compare("ConvTranspose2d", 3, 4, 3, stride=2, padding=1, call=call)


def test_input_that_is_not_contiguous():
    x = normal(0, 7, 6, 3, 2).T
    assert not x.flags["C_CONTIGUOUS"]
    compare_layers(nn.Conv2d(4, 3), torch.nn.Conv2d(3, 4, 3), x)


WINDOWS = [
    {"kernel_size": 2},
    {"kernel_size": (2, 3), "stride": (2, 3)},
    {"kernel_size": (3, 2), "dilation": (2, 1), "padding": (1, 2), "stride": (1, 2)},
]


@pytest.mark.parametrize("options", WINDOWS, ids=str)
def test_unfold_and_fold(options):
    theirs = torch.nn.Unfold(**options)
    compare_layers(nn.Unfold(**options), theirs, normal(0, 2, 3, 7, 6))
    compare_layers(nn.Unfold(**options), theirs, normal(0, 3, 7, 6), dtype="float64")
    columns = theirs(torch.zeros(2, 3, 7, 6)).shape
    compare_layers(nn.Fold((7, 6), **options), torch.nn.Fold((7, 6), **options), normal(0, *columns))
    compare_layers(nn.Fold((7, 6), **options), torch.nn.Fold((7, 6), **options), normal(0, *columns[1:]))
    assert nn.Fold((7, 6), **options)(np.zeros((0, *columns[1:]), np.float32)).shape == (0, 3, 7, 6)


@pytest.mark.parametrize("name", ["Conv2d", "ConvTranspose2d"])
def test_initial_values_have_the_same_bounds(name):
    ours = getattr(nn, name)(40, 3, in_channels=80, groups=4)
    theirs = getattr(torch.nn, name)(80, 40, 3, groups=4)
    for key in ("weight", "bias"):
        a, b = np.asarray(getattr(ours, key)), getattr(theirs, key).detach().numpy()
        assert a.shape == b.shape
        assert np.abs(a).max() <= 1 / np.sqrt(np.prod(ours.weight.shape[1:]))
        np.testing.assert_allclose(np.abs(a).max(), np.abs(b).max(), rtol=0.15)
        np.testing.assert_allclose(a.std(), b.std(), rtol=0.25)
