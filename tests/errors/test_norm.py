"""What normalisation layers say."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import pytest
from tests.errors.checks import refuse

import brickwork as bw
from brickwork import nn
from brickwork.errors import ShapeMismatchError


def x(*shape):
    return jnp.ones(shape)


def misnamed():
    return nn.SyncBatchNorm(num_features=3, axis_name="dta")


NOTES = {
    "one spatial element": "in net (InstanceNorm2d()), called with float32[2, 3, 1, 1]",
    "axes of InstanceNorm1d": "in net (InstanceNorm1d()), called with float32[3]",
    "channels of one image": "in net (InstanceNorm2d(3)), called with float32[2, 4, 4]",
    "axes of BatchNorm2d": "in net (BatchNorm2d(?)), called with float32[2, 3, 2, 2, 2]",
    "axes of SyncBatchNorm": "in net (SyncBatchNorm(?)), called with float32[3]",
    "another axis": "in net (SyncBatchNorm(?, axis_name='data')), called with float32[4, 3]",
    "another axis of JAX's own transform": "in net (SyncBatchNorm(3, axis_name='dta')), called with float32[4, 3]",
    "groups of channels seen": "in net (GroupNorm(4, ?)), called with float32[2, 6]",
}
MESSAGES = {
    "one spatial element": (
        lambda: nn.InstanceNorm2d()(x(2, 3, 1, 1)),
        ValueError,
        "InstanceNorm2d: expected more than 1 spatial element to normalise by its own mean and variance, got "
        "float32[2, 3, 1, 1]. Use larger inputs, or leave this layer out.",
    ),
    "axes of InstanceNorm1d": (
        lambda: nn.InstanceNorm1d()(x(3)),
        ShapeMismatchError,
        "InstanceNorm1d: x must have 3 axes (N, C, L), or 2 axes (C, L), not 1. Got x: float32[3]. Add a channel axis "
        "to the sequence: x[None].",
    ),
    "channels of one image": (
        lambda: nn.InstanceNorm2d(num_features=3)(x(2, 4, 4)),
        ShapeMismatchError,
        "InstanceNorm2d: x must have 3 channels in axis 0, as the layer was given or has seen before, not 2. Got x: "
        "float32[2, 4, 4]. Check the data, or make a new layer.",
    ),
    "axes of BatchNorm2d": (
        lambda: nn.BatchNorm2d()(x(2, 3, 2, 2, 2)),
        ShapeMismatchError,
        "BatchNorm2d: x must have the axes (N, C, H, W), not 5 axes. Got x: float32[2, 3, 2, 2, 2]. Use "
        "nn.BatchNorm3d.",
    ),
    "axes of SyncBatchNorm": (
        lambda: nn.SyncBatchNorm()(x(3)),
        ShapeMismatchError,
        "SyncBatchNorm: x must have at least 2 axes (N, C, ...), not 1. Got x: float32[3]. Add the batch "
        "axis: x[None].",
    ),
    "another axis": (
        lambda: bw.vmap(nn.SyncBatchNorm(axis_name="data"), axis_name="lanes")(x(2, 4, 3)),
        ValueError,
        "SyncBatchNorm: axis_name='data', but the axes mapped around this call are 'lanes'. Use one of these, or leave "
        "axis_name out to take all of them.",
    ),
    "another axis of JAX's own transform": (
        lambda: jax.vmap(functools.partial(*bw.functional(misnamed())), axis_name="i")(x(2, 4, 3)),
        ValueError,
        "SyncBatchNorm: axis_name='dta', but the axes mapped around this call are 'i'. Use one of these, or leave "
        "axis_name out to take all of them.",
    ),
    "groups of given channels": (
        lambda: nn.GroupNorm(4, num_channels=6),
        ValueError,
        "GroupNorm: num_channels=6 can't be split into num_groups=4 equal groups.",
    ),
    "groups of channels seen": (
        lambda: nn.GroupNorm(4)(x(2, 6)),
        ShapeMismatchError,
        "GroupNorm: x has 6 channels in axis 1, which can't be split into 4 equal groups. Got x: float32[2, 6]. Choose "
        "a num_groups that divides the number of channels.",
    ),
    "torch's order": (
        lambda: nn.GroupNorm(3, 6),
        TypeError,
        "GroupNorm(num_groups, *, ...): got 2 positional sizes (3, 6); write nn.GroupNorm(3, num_channels=6)",
    ),
    "torch's order, RMSNorm": (
        lambda: nn.RMSNorm(6),
        TypeError,
        "RMSNorm(*, normalized_shape=None): got 1 positional size (6); write nn.RMSNorm() and let the input decide, or "
        "nn.RMSNorm(normalized_shape=6)",
    ),
    "no eps": (
        lambda: nn.RMSNorm(eps="small"),
        TypeError,
        "RMSNorm: eps must be a number, got 'small' (str).",
    ),
    "negative eps": (lambda: nn.LayerNorm(eps=-1.0), ValueError, "LayerNorm: eps must be at least 0, got -1.0."),
    "momentum": (
        lambda: nn.BatchNorm1d(momentum=True),
        TypeError,
        "BatchNorm1d: momentum must be a number, got True (bool).",
    ),
    "size": (
        lambda: nn.LocalResponseNorm(2.0),
        TypeError,
        "LocalResponseNorm: size must be an int, got 2.0 (float).",
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_message(case):
    call, kind, message = MESSAGES[case]
    refuse(call, kind, message, note=NOTES.get(case))


def test_one_value_in_a_group():
    message = "GroupNorm: expected more than 1 value per group, got float32[1, 4] and num_groups=4. Use fewer groups."
    refuse(lambda: nn.GroupNorm(4)(jnp.ones((1, 4))), ValueError, message, note=...)
    assert nn.GroupNorm(4)(jnp.ones((2, 4))).shape == (2, 4)
