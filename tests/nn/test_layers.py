"""What every layer has in common."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn

IMAGES = (4, 3, 8, 8)
LAYERS = {
    "Linear": (lambda: nn.Linear(5), (4, 3), (4, 5)),
    "Linear-no-bias": (lambda: nn.Linear(5, bias=False), (4, 2, 3), (4, 2, 5)),
    "Identity": (lambda: nn.Identity(), (4, 3), (4, 3)),
    "Flatten": (lambda: nn.Flatten(), IMAGES, (4, 192)),
    "Conv2d": (lambda: nn.Conv2d(6, 3, padding=1), IMAGES, (4, 6, 8, 8)),
    "Conv2d-groups": (lambda: nn.Conv2d(6, 3, groups=3, bias=False), IMAGES, (4, 6, 6, 6)),
    "MaxPool2d": (lambda: nn.MaxPool2d(2), IMAGES, (4, 3, 4, 4)),
    "AvgPool2d": (lambda: nn.AvgPool2d(3, 2, 1), IMAGES, (4, 3, 4, 4)),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(), (4, 3), (4, 3)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(), IMAGES, IMAGES),
    "BatchNorm2d-bare": (
        lambda: nn.BatchNorm2d(affine=False, track_running_stats=False),
        IMAGES,
        IMAGES,
    ),
    "LayerNorm": (lambda: nn.LayerNorm(), (4, 3), (4, 3)),
    "LayerNorm-bare": (lambda: nn.LayerNorm(elementwise_affine=False), (4, 3), (4, 3)),
    "Dropout": (lambda: nn.Dropout(0.5), (4, 3), (4, 3)),
    "ReLU": (lambda: nn.ReLU(), (4, 3), (4, 3)),
    "Sigmoid": (lambda: nn.Sigmoid(), (4, 3), (4, 3)),
    "Tanh": (lambda: nn.Tanh(), (4, 3), (4, 3)),
    "GELU": (lambda: nn.GELU("tanh"), (4, 3), (4, 3)),
    "Softmax": (lambda: nn.Softmax(), (4, 3), (4, 3)),
}
each = pytest.mark.parametrize("name", LAYERS)


def data(shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


@each
def test_shapes_are_inferred_without_computing(name):
    make, shape, out = LAYERS[name]
    layer = make()
    layer.initialize(bw.spec(*shape))
    assert all(p.is_drawable for p in layer.parameters())
    assert not any(p.is_drawn for p in layer.parameters())
    assert layer(data(shape)).shape == out


@each
def test_eager_compiled_and_copied_give_the_same(name):
    make, shape, _ = LAYERS[name]
    layer = make().eval()
    x = data(shape)
    y = layer(x)
    compiled = bw.compile(lambda x: layer(x))
    np.testing.assert_allclose(compiled(x), y, rtol=1e-5, atol=1e-6)
    for other in (layer.clone(), pickle.loads(pickle.dumps(layer)), copy.copy(layer)):
        np.testing.assert_array_equal(other(x), y)


@each
def test_numpy_bfloat16_and_no_examples(name):
    make, shape, out = LAYERS[name]
    layer = make().to(jnp.bfloat16)
    x = data(shape)
    assert layer(np.asarray(x.astype(jnp.bfloat16))).dtype == jnp.bfloat16
    assert layer.eval()(x[:0].astype(jnp.bfloat16)).shape == (0, *out[1:])


@each
def test_freed_without_the_garbage_collector(name):
    make, shape, _ = LAYERS[name]
    layer = make()
    layer(data(shape))
    alive = weakref.ref(layer)
    gc.disable()
    try:
        del layer
        assert alive() is None
    finally:
        gc.enable()


@each
def test_wrong_input_names_the_layer(name):
    if name == "Identity":
        return
    net = nn.Sequential(LAYERS[name][0]())
    with pytest.raises(TypeError, match=r"x must be an array, got a list\. Convert it with jnp") as e:
        net([1.0])
    assert any(n.strip().startswith("in net.0 (") for n in e.value.__notes__)


def test_gradients_reach_every_parameter():
    net = nn.Sequential(nn.Conv2d(4, 3), nn.BatchNorm2d(), nn.GELU(), nn.Flatten(), nn.Linear(5), nn.LayerNorm())
    x = data(IMAGES)
    net(x)
    _, grads = bw.value_and_grad(lambda x: (net(x) ** 3).sum(), net)(x)
    assert grads.keys() == {name for name, _ in net.named_parameters()}
    assert all(jnp.isfinite(g).all() for g in grads.values())
    assert jax.tree.all(jax.tree.map(lambda g: bool(jnp.any(g != 0)), grads))


CALLS = [
    (
        lambda: nn.Linear(20, 256),
        r"^Linear\(out_features, \*, in_features=None\): got 2 positional sizes \(20, 256\); write "
        r"nn\.Linear\(256\) and let the input decide, or nn\.Linear\(256, in_features=20\)$",
    ),
    (lambda: nn.Linear(20, out_features=256), r"got \(20, out_features=256\); write nn\.Linear\(256\)"),
    (lambda: nn.Linear(20, 256, False), r"or nn\.Linear\(256, in_features=20, bias=False\)$"),
    (lambda: nn.Linear(256, False), r"write nn\.Linear\(out_features, \.\.\.\) and give the others by"),
    (
        lambda: nn.Conv2d(3, 16, 3),
        r"^Conv2d\(out_channels, kernel_size, \*, in_channels=None\): got 3 positional arguments "
        r"\(3, 16, 3\); write nn\.Conv2d\(16, 3\) and let the input decide, or "
        r"nn\.Conv2d\(16, 3, in_channels=3\)$",
    ),
    (
        lambda: nn.Conv2d(3, 16, kernel_size=3, padding=1),
        r"got \(3, 16, kernel_size=3, padding=1\); write nn\.Conv2d\(16, 3, padding=1\) and let the "
        r"input decide, or nn\.Conv2d\(16, 3, in_channels=3, padding=1\)$",
    ),
    (lambda: nn.Conv2d(3, 16, 3, 2, 1), r"nn\.Conv2d\(16, 3, in_channels=3, stride=2, padding=1\)$"),
    (
        lambda: nn.BatchNorm2d(16),
        r"^BatchNorm2d\(\*, num_features=None\): got 1 positional size \(16\); write "
        r"nn\.BatchNorm2d\(\) and let the input decide, or nn\.BatchNorm2d\(num_features=16\)$",
    ),
    (lambda: nn.BatchNorm1d(16, 1e-3), r"or nn\.BatchNorm1d\(num_features=16, eps=0\.001\)$"),
    (lambda: nn.LayerNorm(16), r"write nn\.LayerNorm\(\) .* nn\.LayerNorm\(normalized_shape=16\)$"),
    (lambda: nn.LayerNorm((4, 5)), r"nn\.LayerNorm\(normalized_shape=\(4, 5\)\)$"),
    (lambda: nn.Embedding(10, 3, 0), r"write nn\.Embedding\(10, 3, padding_idx=0\)$"),
]


@pytest.mark.parametrize(("call", "message"), CALLS)
def test_the_positions_of_torch_are_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()


ARGUMENTS = [
    (lambda: nn.Linear(0), ValueError, r"Linear: out_features must be at least 1, got 0"),
    (lambda: nn.Linear(2.0), TypeError, r"Linear: out_features must be an int, got 2\.0 \(float\)"),
    (lambda: nn.Linear(2, in_features=-1), ValueError, r"Linear: in_features must be at least 1"),
    (lambda: nn.Conv2d(4, 0), ValueError, r"Conv2d: kernel_size must be at least 1, got 0"),
    (lambda: nn.Conv2d(4, (1, 2, 3)), ValueError, r"Conv2d: kernel_size must be an int or a pair"),
    (lambda: nn.Conv2d(4, 3, padding="big"), ValueError, r"'same' or 'valid', got 'big'"),
    (lambda: nn.Conv2d(4, 3, padding="same", stride=2), ValueError, r"needs stride 1, got stride=2"),
    (lambda: nn.Conv2d(4, 3, groups=3), ValueError, r"groups=3 must divide out_channels=4"),
    (
        lambda: nn.Conv2d(4, 3, groups=2, in_channels=3),
        ValueError,
        r"Conv2d: groups=2 must divide in_channels=3",
    ),
    (lambda: nn.MaxPool2d(0), ValueError, r"MaxPool2d: kernel_size must be at least 1, got 0"),
    (lambda: nn.AvgPool2d(2, padding=2), ValueError, r"AvgPool2d: padding must be at most half of"),
    (lambda: nn.BatchNorm1d(num_features=0), ValueError, r"BatchNorm1d: num_features must be at lea"),
    (lambda: nn.LayerNorm(normalized_shape=()), ValueError, r"must name at least one axis, got \(\)"),
    (lambda: nn.LayerNorm(normalized_shape=(3, 0)), ValueError, r"normalized_shape must be at least"),
    (lambda: nn.Embedding(3, 0), ValueError, r"Embedding: embedding_dim must be at least 1, got 0"),
    (lambda: nn.Embedding(3, 2, padding_idx=3), ValueError, r"padding_idx=3 is no row .* -3 to 2"),
    (lambda: nn.Dropout(1.5), ValueError, r"Dropout: p must be in \[0, 1\], got 1\.5"),
    (lambda: nn.Dropout("a"), TypeError, r"Dropout: p must be a Python number, got 'a' \(str\)"),
    (lambda: nn.GELU("erf"), ValueError, r"GELU: approximate must be 'none' or 'tanh', got 'erf'"),
    (lambda: nn.Softmax(None), TypeError, r"Softmax: dim must be an int, got None"),
    (lambda: nn.Flatten(1.0), TypeError, r"Flatten: start_dim must be an int, got 1\.0"),
]


@pytest.mark.parametrize(("call", "error", "message"), ARGUMENTS)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_numpy_integers_are_sizes():
    layer = nn.Linear(np.int64(3), in_features=np.int32(2))
    assert (layer.out_features, layer.in_features) == (3, 2)
    assert type(layer.out_features) is int
    assert repr(nn.Conv2d(np.int64(3), np.int64(2))) == "Conv2d(? → 3, kernel_size=2)"


REPRS = [
    (lambda: nn.Linear(256), "Linear(? → 256)"),
    (lambda: nn.Linear(256, in_features=20, bias=False), "Linear(20 → 256, bias=False)"),
    (lambda: nn.Identity(), "Identity()"),
    (lambda: nn.Flatten(), "Flatten()"),
    (lambda: nn.Flatten(0, -2), "Flatten(start_dim=0, end_dim=-2)"),
    (
        lambda: nn.Conv2d(6, [5, 3], in_channels=4, stride=[2, 1], padding=2, groups=2),
        "Conv2d(4 → 6, kernel_size=(5, 3), stride=(2, 1), padding=2, groups=2)",
    ),
    (lambda: nn.Conv2d(6, 5, padding="same"), "Conv2d(? → 6, kernel_size=5, padding='same')"),
    (lambda: nn.MaxPool2d(2), "MaxPool2d(kernel_size=2)"),
    (lambda: nn.MaxPool2d(3, 2, 1), "MaxPool2d(kernel_size=3, stride=2, padding=1)"),
    (
        lambda: nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
        "AvgPool2d(kernel_size=2, ceil_mode=True, count_include_pad=False)",
    ),
    (lambda: nn.BatchNorm2d(), "BatchNorm2d(?)"),
    (
        lambda: nn.BatchNorm1d(num_features=3, momentum=None, affine=False),
        "BatchNorm1d(3, momentum=None, affine=False)",
    ),
    (lambda: nn.LayerNorm(), "LayerNorm(?)"),
    (lambda: nn.LayerNorm(normalized_shape=(3, 4), bias=False), "LayerNorm((3, 4), bias=False)"),
    (lambda: nn.Embedding(10, 3), "Embedding(10 → 3)"),
    (lambda: nn.Embedding(10, 3, padding_idx=-1), "Embedding(10 → 3, padding_idx=9)"),
    (lambda: nn.Dropout(0.2), "Dropout(p=0.2)"),
    (lambda: nn.GELU(), "GELU()"),
    (lambda: nn.GELU("tanh"), "GELU(approximate='tanh')"),
    (lambda: nn.Softmax(1), "Softmax(dim=1)"),
]


@pytest.mark.parametrize(("make", "text"), REPRS)
def test_repr(make, text):
    assert repr(make()) == text
