"""What activation functions say to what they can't take."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from tests.errors.checks import refuse

from brickwork import functional as F, nn
from brickwork.errors import ShapeMismatchError

x = jnp.ones((2, 3))


def test_prelu():
    refuse(
        lambda: F.prelu(x, jnp.ones(2)),
        ShapeMismatchError,
        "prelu: weight holds 2 slopes, one per channel, but x has 3 channels in axis 1. "
        "Got x: float32[2, 3], weight: float32[2]. Use one slope, or one per channel.",
    )
    refuse(lambda: F.prelu(x[0], jnp.ones(3)), ShapeMismatchError, "...but x has no axis 1. Got x: float32[3], ...")
    refuse(lambda: F.prelu(x, x), ShapeMismatchError, "prelu: weight must have one axis, not 2...reshape(-1).")
    refuse(lambda: F.prelu(x, jnp.ones(1, int)), TypeError, "prelu: weight holds int32 values, ...")
    refuse(lambda: nn.PReLU(0), ValueError, "PReLU: num_parameters must be at least 1, got 0.")
    refuse(lambda: nn.PReLU(1.0), TypeError, "PReLU: num_parameters must be an int, got 1.0 (float).")
    refuse(lambda: nn.PReLU(init="x"), TypeError, "PReLU: init must be a number, got 'x' (str).")


def test_glu():
    refuse(
        lambda: F.glu(x),
        ShapeMismatchError,
        "glu: axis 1 of x must have an even size to be halved, not 3. Got x: float32[2, 3]. "
        "Check dim, or give the layer before an even number of outputs.",
    )
    refuse(lambda: F.glu(jnp.ones(())), ShapeMismatchError, "glu: x is a scalar, but one of its axes is halved...")
    message = "glu: dim=2 is no axis of an array of 2 dimensions; expected -2 to 1."
    refuse(lambda: F.glu(x, 2), ShapeMismatchError, message)
    refuse(lambda: nn.GLU(2)(x), ShapeMismatchError, message, note="in net (GLU(dim=2)), called with float32[2, 3]")


def test_softmax2d():
    refuse(
        lambda: nn.Softmax2d()(x),
        ShapeMismatchError,
        "Softmax2d: x must have 4 axes (N, C, H, W), or 3 axes (C, H, W), not 2. Got x: float32[2, 3]. "
        "Add a channel axis to the image: x[None].",
        note="in net (Softmax2d()), called with float32[2, 3]",
    )


NUMBERS = [
    ("LeakyReLU", F.leaky_relu, "negative_slope"),
    ("ELU", F.elu, "alpha"),
    ("CELU", F.celu, "alpha"),
    ("Softplus", F.softplus, "beta"),
    ("Softplus", F.softplus, "threshold"),
    ("Softshrink", F.softshrink, "lambd"),
    ("Hardshrink", F.hardshrink, "lambd"),
    ("Hardtanh", F.hardtanh, "max_val"),
    ("RReLU", F.rrelu, "lower"),
]


@pytest.mark.parametrize(("layer", "function", "option"), NUMBERS, ids=[f"{row[0]}-{row[2]}" for row in NUMBERS])
def test_options_are_numbers(layer, function, option):
    for bad, kind, message in (
        (float("nan"), ValueError, "must be a number, got nan."),
        (True, TypeError, "must be a number, got True (bool)."),
        ("1", TypeError, "must be a number, got '1' (str)."),
        (None, TypeError, "must be a number, got None (NoneType)."),
    ):
        refuse(lambda v=bad: getattr(nn, layer)(**{option: v}), kind, f"{layer}: {option} {message}")
        refuse(lambda v=bad: function(x, **{option: v}), kind, f"{function.__name__}: {option} {message}")


def test_ranges():
    refuse(lambda: nn.Softplus(0), ValueError, "Softplus: beta must not be 0.")
    refuse(lambda: F.celu(x, 0), ValueError, "celu: alpha must not be 0.")
    refuse(lambda: nn.Softshrink(-1), ValueError, "Softshrink: lambd must be at least 0, got -1.0.")
    message = ": max_val must be greater than min_val, got min_val=1.0, max_val=1.0."
    refuse(lambda: nn.Hardtanh(1), ValueError, "Hardtanh" + message)
    refuse(lambda: F.hardtanh(x, 1), ValueError, "hardtanh" + message)
    refuse(
        lambda: nn.RReLU(0.5), ValueError, "RReLU: lower must not be greater than upper, got lower=0.5, upper=0.33..."
    )
    refuse(lambda: nn.LogSoftmax(0.5), TypeError, "LogSoftmax: dim must be an int, got 0.5 (float).")
    refuse(lambda: nn.Threshold(0, "a"), TypeError, "Threshold: value must be a number, got 'a' (str).")


def test_random_keys():
    refuse(lambda: F.rrelu(x, key=0), TypeError, "rrelu: key must be a random key such as jax.random.key(0), got 0.")
    refuse(lambda: F.gumbel_softmax(x, None), TypeError, "gumbel_softmax: key must be a random key ..., got None.")
    key = jax.random.key(0)
    refuse(lambda: F.gumbel_softmax(x, key, 0), ValueError, "gumbel_softmax: tau must be greater than 0, got 0.0.")
    refuse(lambda: F.gumbel_softmax(x, key, "1"), TypeError, "gumbel_softmax: tau must be a number, got '1' (str).")


def test_there_is_no_inplace():
    with pytest.raises(TypeError, match="inplace"):
        nn.LeakyReLU(0.1, inplace=True)  # ty: ignore
