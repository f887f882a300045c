"""Wrong ranks and widths, sizes read too early, contradictions, negative sizes."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from tests.errors.checks import refuse, unchanged

import brickwork as bw
from brickwork import nn, optim
from brickwork.errors import BrickworkError, DeferredShapeError, ShapeMismatchError

EARLY = (
    "Parameter '{}' has shape {}: a size is not known yet. Call the network on data once, give it "
    "the shape of its input with net.initialize(bw.spec(...)), load a file, or give the size when "
    "constructing the layer."
)


def x(*shape):
    return jnp.ones(shape)


def mlp():
    return nn.Sequential(nn.Linear(256), nn.ReLU(), nn.Linear(10))


def built():
    net = mlp()
    net(x(2, 20))
    return net


FIRST_CALL = {
    "Linear on a scalar": (
        lambda: nn.Linear(3),
        (),
        "Linear: x is a scalar, but its last axis must hold the features. Got x: float32[]. "
        "Pass an array of shape (*, features).",
        "in net.0 (Linear(? → 3)), called with float32[]",
    ),
    "Conv2d on a matrix": (
        lambda: nn.Conv2d(4, 3),
        (2, 20),
        "Conv2d: x must have 4 axes (N, C, H, W), or 3 axes (C, H, W), not 2. Got x: float32[2, 20]. "
        "Add a channel axis to the image: x[None].",
        "in net.0 (Conv2d(? → 4, kernel_size=3)), called with float32[2, 20]",
    ),
    "Conv2d on five axes": (
        lambda: nn.Conv2d(4, 3),
        (1, 1, 1, 5, 5),
        "Conv2d: x must have 4 axes (N, C, H, W), or 3 axes (C, H, W), not 5. "
        "Got x: float32[1, 1, 1, 5, 5]. Add the missing axes, or reshape the data.",
        "in net.0 (Conv2d(? → 4, kernel_size=3)), called with float32[1, 1, 1, 5, 5]",
    ),
    "BatchNorm2d on a matrix": (
        lambda: nn.BatchNorm2d(),
        (2, 20),
        "BatchNorm2d: x must have the axes (N, C, H, W), not 2 axes. Got x: float32[2, 20]. Use nn.BatchNorm1d.",
        "in net.0 (BatchNorm2d(?)), called with float32[2, 20]",
    ),
    "BatchNorm1d on images": (
        lambda: nn.BatchNorm1d(),
        (2, 3, 4, 4),
        "BatchNorm1d: x must have the axes (N, C) or (N, C, L), not 4 axes. "
        "Got x: float32[2, 3, 4, 4]. Use nn.BatchNorm2d.",
        "in net.0 (BatchNorm1d(?)), called with float32[2, 3, 4, 4]",
    ),
    "LayerNorm on a scalar": (
        lambda: nn.LayerNorm(),
        (),
        "LayerNorm: x is a scalar, but ...Got x: float32[]....",
        "in net.0 (LayerNorm(?)), called with float32[]",
    ),
    "Conv2d with groups that don't divide": (
        lambda: nn.Conv2d(4, 3, groups=2),
        (1, 3, 5, 5),
        "Conv2d: groups=2 must divide the 3 channels of x (axis 1). Got x: float32[1, 3, 5, 5]. "
        "Check the data (channels come before height and width), or change groups.",
        "in net.0 (Conv2d(? → 4, kernel_size=3, groups=2)), called with float32[1, 3, 5, 5]",
    ),
}


@pytest.mark.parametrize("case", FIRST_CALL)
def test_wrong_rank_in_the_first_call(case):
    make, shape, message, note = FIRST_CALL[case]
    net = nn.Sequential(make())
    with unchanged(net):
        error = refuse(lambda: net(x(*shape)), ShapeMismatchError, message, note=note)
    assert isinstance(error, ValueError)
    assert isinstance(error, BrickworkError)


def test_a_later_layer_fails_and_the_first_stay_deferred():
    net = nn.Sequential(nn.Linear(3), nn.BatchNorm2d(), nn.Linear(2))
    with unchanged(net):
        refuse(
            lambda: net(x(4, 5)),
            ShapeMismatchError,
            "BatchNorm2d: x must have the axes (N, C, H, W), not 2 axes. Got x: float32[4, 3]. Use nn.BatchNorm1d.",
            note="in net.1 (BatchNorm2d(?)), called with float32[4, 3]",
        )
    assert net[0].weight.shape == (3, None)
    net[1] = nn.BatchNorm1d()
    assert net(x(4, 7)).shape == (4, 2)  # of another width than the failed call
    assert net[0].weight.shape == (3, 7)


@pytest.mark.parametrize(
    "run",
    [
        lambda net, v: bw.compile(net)(v),
        lambda net, v: bw.grad(lambda u: net(u).sum(), net)(v),
        lambda net, v: net.initialize(bw.spec(*v.shape)),
        lambda net, v: net.summary(bw.spec(*v.shape)),
    ],
    ids=["compile", "grad", "initialize", "summary"],
)
def test_the_same_in_a_transform(run):
    net = nn.Sequential(nn.Linear(3), nn.BatchNorm2d())
    with unchanged(net):
        refuse(
            lambda: run(net, x(4, 5)),
            ShapeMismatchError,
            "BatchNorm2d: x must have the axes (N, C, H, W), not 2 axes. Got x: float32[4, 3]. Use nn.BatchNorm1d.",
            note="in net.1 (BatchNorm2d(?)), called with float32[4, 3]",
        )


WIDTHS = {
    "Linear": (
        lambda: nn.Linear(256, in_features=20),
        (2, 21),
        "linear: x has 21 features in its last axis, but weight of shape (256, 20) expects 20. "
        "Got x: float32[2, 21]. Check the data, or make the layer for 21 input features.",
        "in net.0 (Linear(20 → 256)), called with float32[2, 21]",
    ),
    "Linear on images": (
        lambda: nn.Linear(256, in_features=20),
        (2, 4, 5),
        "linear: x has 5 features in its last axis, but weight of shape (256, 20) expects 20. "
        "Got x: float32[2, 4, 5]. Flatten the data first, e.g. with nn.Flatten().",
        "in net.0 (Linear(20 → 256)), called with float32[2, 4, 5]",
    ),
    "Conv2d on channels-last": (
        lambda: nn.Conv2d(3, 3, in_channels=1),
        (1, 8, 8, 1),
        "conv2d: x has 8 channels in axis 1, but weight of shape (3, 1, 3, 3) expects 1. "
        "Got x: float32[1, 8, 8, 1]. The data looks channels-last; make it channels-first with "
        "jnp.transpose(x, (0, 3, 1, 2)).",
        "in net.0 (Conv2d(1 → 3, kernel_size=3)), called with float32[1, 8, 8, 1]",
    ),
    "LayerNorm": (
        lambda: nn.LayerNorm(normalized_shape=3),
        (2, 20),
        "layer_norm: x has 20 features in its last axis, but normalized_shape (3,) expects 3. "
        "Got x: float32[2, 20]. Check the data, or the layer's sizes.",
        "in net.0 (LayerNorm(3)), called with float32[2, 20]",
    ),
    "BatchNorm1d": (
        lambda: nn.BatchNorm1d(num_features=3),
        (6, 2),
        "...2...Got ...x: float32[6, 2]....",
        "in net.0 (BatchNorm1d(3)), called with float32[6, 2]",
    ),
    "BatchNorm1d without parameters": (
        lambda: nn.BatchNorm1d(num_features=3, affine=False),
        (6, 2),
        "...2...Got ...x: float32[6, 2]....",
        "in net.0 (BatchNorm1d(3, affine=False)), called with float32[6, 2]",
    ),
}


@pytest.mark.parametrize("case", WIDTHS)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_wrong_width(case, compiled):
    make, shape, message, note = WIDTHS[case]
    net = nn.Sequential(make())
    run = bw.compile(net) if compiled else net
    with unchanged(net):
        refuse(lambda: run(x(*shape)), ShapeMismatchError, message, note=note)


def test_the_optimiser_s_step_is_not_done():
    net = built()
    opt = optim.adam(net, 0.1)

    @bw.compile
    def step(v):
        loss, grads = bw.value_and_grad(lambda: net(v).sum(), net)()
        opt.step(grads)
        return loss

    step(x(2, 20))
    with unchanged(net), unchanged(opt):
        refuse(
            lambda: step(x(2, 21)),
            ShapeMismatchError,
            WIDTHS["Linear"][2],
            note="in net.0 (Linear(20 → 256)), called with float32[2, 21]",
        )
    step(x(2, 20))


# -- sizes read too early ------------------------------------------------------------------------


def test_read_too_early():
    net = mlp()
    with unchanged(net):
        error = refuse(lambda: net[2].weight.value, DeferredShapeError, EARLY.format("2.weight", "(10, ?)"))
        assert isinstance(error, RuntimeError)
        for call in (net.state_dict, lambda: net[0].weight + 1, lambda: bw.functional(net)):
            refuse(call, DeferredShapeError, EARLY.format("0.weight", "(256, ?)"))


def test_a_free_parameter_read_too_early():
    p = bw.Parameter(shape=(3, None))
    refuse(lambda: p.value, DeferredShapeError, EARLY.replace(" '{}'", "").format("(3, ?)"))


def test_a_layer_that_forgot_build():
    class Forgetful(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter(shape=(3, None))

        def forward(self, v):
            return v @ self.weight.T

    net = nn.Sequential(Forgetful())
    with unchanged(net):
        refuse(
            lambda: net(x(2, 5)),
            DeferredShapeError,
            EARLY.format("0.weight", "(3, ?)"),
            note="in net.0 (Forgetful()), called with float32[2, 5]",
        )


# -- contradictions ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 5), (4, None), (3, 5, 1), (3,)])
def test_contradictory_shapes(shape):
    p = bw.Parameter(shape=(3, None))
    shown = str(shape).replace("None", "?")
    refuse(
        lambda: setattr(p, "shape", shape),
        ShapeMismatchError,
        f"Parameter has shape (3, ?), which contradicts {shown}: the input's sizes don't match "
        "those the layer was given or has seen before",
    )
    assert p.shape == (3, None)


def test_a_value_of_another_shape():
    net = built()
    with unchanged(net):
        refuse(
            lambda: setattr(net[0].weight, "value", x(20, 256)),
            ShapeMismatchError,
            "Parameter '0.weight' has shape (256, 20), got a value of shape (20, 256). Transpose or "
            "reshape the value, or assign a new Parameter to the attribute.",
        )


def test_a_value_that_contradicts_what_is_known():
    net = mlp()
    with unchanged(net):
        refuse(
            lambda: setattr(net[0].weight, "value", x(255, 20)),
            ShapeMismatchError,
            "Parameter '0.weight' has shape (256, ?), got a value of shape (255, 20)....",
        )


def test_mismatched_sizes_of_two_layers():
    net = nn.Sequential(nn.Linear(256, in_features=20), nn.Linear(10, in_features=99))
    refuse(
        lambda: net(x(2, 20)),
        ShapeMismatchError,
        "linear: x has 256 features in its last axis, but weight of shape (10, 99) expects 99. "
        "Got x: float32[2, 256]. Check the data, or make the layer for 256 input features.",
        note="in net.1 (Linear(99 → 10)), called with float32[2, 256]",
    )


# -- sizes that are no sizes ---------------------------------------------------------------------

SIZES = {
    "negative": (lambda: nn.Linear(-1), ValueError, "Linear: out_features must be at least 1, got -1."),
    "zero": (lambda: nn.Linear(0), ValueError, "Linear: out_features must be at least 1, got 0."),
    "a float": (lambda: nn.Linear(2.0), TypeError, "Linear: out_features must be an int, got 2.0 (float)."),
    "a bool": (lambda: nn.Linear(True), TypeError, "Linear: out_features must be an int, got True (bool)."),
    "text": (lambda: nn.Linear("8"), TypeError, "Linear: out_features must be an int, got '8' (str)."),
    "in_features": (
        lambda: nn.Linear(3, in_features=-2),
        ValueError,
        "Linear: in_features must be at least 1, got -2.",
    ),
    "out_channels": (lambda: nn.Conv2d(-3, 1), ValueError, "Conv2d: out_channels must be at least 1, got -3."),
    "kernel_size": (lambda: nn.Conv2d(3, -1), ValueError, "Conv2d: kernel_size must be at least 1, got -1."),
    "kernel_size of three": (
        lambda: nn.Conv2d(3, (1, 2, 3)),
        ValueError,
        "Conv2d: kernel_size must be an int or a pair (height, width), got (1, 2, 3).",
    ),
    "stride": (lambda: nn.Conv2d(3, 1, stride=0), ValueError, "Conv2d: stride must be at least 1, got 0."),
    "padding": (lambda: nn.Conv2d(3, 1, padding=-1), ValueError, "Conv2d: padding must be at least 0, got -1."),
    "num_features": (
        lambda: nn.BatchNorm2d(num_features=-1),
        ValueError,
        "BatchNorm2d: num_features must be at least 1, got -1.",
    ),
    "normalized_shape": (
        lambda: nn.LayerNorm(normalized_shape=(3, -1)),
        ValueError,
        "LayerNorm: normalized_shape must be at least 1, got -1.",
    ),
    "num_embeddings": (
        lambda: nn.Embedding(-1, 2),
        ValueError,
        "Embedding: num_embeddings must be at least 1, got -1.",
    ),
    "a window": (lambda: nn.MaxPool2d(0), ValueError, "MaxPool2d: kernel_size must be at least 1, got 0."),
    "a probability": (lambda: nn.Dropout(1.5), ValueError, "Dropout: p must be in [0, 1], got 1.5."),
    "a parameter's": (
        lambda: bw.Parameter(shape=(3, -1)),
        ValueError,
        "Parameter: shape (3, -1) has a negative size...",
    ),
    "a parameter's, as a float": (
        lambda: bw.Parameter(shape=(3, 2.5)),
        TypeError,
        "Parameter: shape (3, 2.5) has an entry 2.5; sizes are integers, or None when not known yet",
    ),
    "a spec's": (lambda: bw.spec(2, -1), ValueError, "spec: sizes must not be negative, got (2, -1)"),
    "a spec's, as a dtype": (
        lambda: bw.spec(2, "float32"),
        TypeError,
        "spec: sizes must be integers, got 'float32'; the dtype goes by name: dtype=...",
    ),
    "the order of another library": (
        lambda: nn.Linear(20, 256),
        TypeError,
        "Linear(out_features, *, in_features=None): got 2 positional sizes (20, 256); write "
        "nn.Linear(256) and let the input decide, or nn.Linear(256, in_features=20)",
    ),
    "the order of another library, Conv2d": (
        lambda: nn.Conv2d(1, 6, 5),
        TypeError,
        "Conv2d(out_channels, kernel_size, *, in_channels=None): got 3 positional arguments "
        "(1, 6, 5); write nn.Conv2d(6, 5) and let the input decide, or nn.Conv2d(6, 5, in_channels=1)",
    ),
    "the order of another library, BatchNorm2d": (
        lambda: nn.BatchNorm2d(6),
        TypeError,
        "BatchNorm2d(*, num_features=None): got 1 positional size (6); write nn.BatchNorm2d() and "
        "let the input decide, or nn.BatchNorm2d(num_features=6)",
    ),
}


@pytest.mark.parametrize("case", SIZES)
def test_no_size(case):
    call, kind, message = SIZES[case]
    refuse(call, kind, message)


def test_a_refused_layer_takes_no_number_from_the_seed():
    """What fails leaves no trace: later layers get the values that they would have got."""
    bw.seed(1)
    expected = nn.Linear(3, in_features=2).weight.value
    bw.seed(1)
    for call, *_ in SIZES.values():
        with pytest.raises((TypeError, ValueError)):
            call()
    np.testing.assert_array_equal(nn.Linear(3, in_features=2).weight, expected)
