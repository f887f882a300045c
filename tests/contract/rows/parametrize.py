"""Layers with parametrised weights."""

from __future__ import annotations

import jax.numpy as jnp
from tests.contract.row import Row

from brickwork import nn


class Bounded(nn.Module):
    """A parametrisation with a parameter of its own."""

    def __init__(self):
        self.scale = nn.Parameter(jnp.ones(()))

    def forward(self, x):
        return jnp.tanh(x) * self.scale.value


def _stored(*names: str) -> tuple[str, ...]:
    return ("bias", *(f"parametrizations.weight.{name}" for name in names))


ROWS = [
    Row(
        "weight_norm of Linear",
        lambda: nn.weight_norm(nn.Linear(4)),
        lambda: nn.weight_norm(nn.Linear(4, in_features=3)),
        (2, 3),
        wrong_rank=(),
        wrong_width=(2, 5),
        parameters=_stored("original0", "original1"),
        leaf=False,
    ),
    Row(
        "weight_norm of Conv2d along the inputs",
        lambda: nn.weight_norm(nn.Conv2d(4, 2), dim=1),
        lambda: nn.weight_norm(nn.Conv2d(4, 2, in_channels=3), dim=1),
        (2, 3, 4, 4),
        wrong_rank=(4, 4),
        wrong_width=(2, 2, 4, 4),
        parameters=_stored("original0", "original1"),
        leaf=False,
    ),
    Row(
        "spectral_norm of Linear",
        lambda: nn.spectral_norm(nn.Linear(4)),
        lambda: nn.spectral_norm(nn.Linear(4, in_features=3)),
        (2, 3),
        wrong_rank=(),
        wrong_width=(2, 5),
        stateful=True,
        parameters=_stored("original"),
        leaf=False,
    ),
    Row(
        "parametrize of Linear",
        lambda: nn.parametrize(nn.Linear(4), "weight", Bounded()),
        lambda: nn.parametrize(nn.Linear(4, in_features=3), "weight", Bounded()),
        (2, 3),
        wrong_rank=(),
        wrong_width=(2, 5),
        parameters=_stored("original", "0.scale"),
        leaf=False,
    ),
]
