"""Every layer, and what the contract tests need to know about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn


@dataclass(frozen=True)
class Row:
    """One layer.

    ``make`` leaves out the sizes that the input determines, ``explicit`` gives them. ``wrong_rank``
    and ``wrong_width`` are shapes of inputs that must be refused; ``integer`` says what happens to
    an input of integers: ``"refused"``, ``"needed"`` or ``"accepted"``.
    """

    name: str
    make: Callable[[], Any]
    explicit: Callable[[], Any]
    shape: tuple[int, ...]
    wrong_rank: tuple[int, ...] | None = None
    wrong_width: tuple[int, ...] | None = None
    integer: str = "refused"
    random: bool = False  # draws random numbers in training mode
    stateful: bool = False  # writes buffers in training mode
    parameters: tuple[str, ...] = ()
    leaf: bool = True  # has its parameters and its complaints itself, not in modules inside

    @property
    def takes_indices(self) -> bool:
        return self.integer == "needed"

    @property
    def has_parameters(self) -> bool:
        return bool(self.parameters)

    @property
    def is_deferred(self) -> bool:
        return self.make is not self.explicit

    def data(self, seed: int = 0, shape: tuple[int, ...] | None = None) -> jax.Array:
        """A fitting input."""
        rng = np.random.default_rng(seed)
        shape = self.shape if shape is None else shape
        if self.takes_indices:
            return jnp.asarray(rng.integers(0, 4, shape), jnp.int32)
        if not shape:
            return jnp.float32(0.25)
        # spread out and away from zero, so that no kink and no tie between maxima is close
        values = rng.permutation(int(np.prod(shape))).reshape(shape)
        return jnp.asarray((values - values.mean() + 0.25) / values.std(), jnp.float32)

    def spec(self) -> jax.ShapeDtypeStruct:
        """The input as an abstract array."""
        return bw.spec(*self.shape, dtype=jnp.int32 if self.takes_indices else jnp.float32)

    def built(self, seed: int = 3) -> Any:
        """The layer with all shapes known."""
        bw.seed(seed)
        return self.make().initialize(self.spec())

    def deterministic(self) -> Any:
        """The layer, built, in the mode in which its output depends on its input only."""
        layer = self.built()
        return layer.eval() if self.random else layer


def same(make: Callable[[], Any]) -> dict[str, Any]:
    return {"make": make, "explicit": make}


ROWS = [
    Row(
        "Linear",
        lambda: nn.Linear(3),
        lambda: nn.Linear(3, in_features=5),
        (4, 5),
        wrong_rank=(),
        wrong_width=(4, 7),
        parameters=("weight", "bias"),
    ),
    Row(
        "Linear without bias",
        lambda: nn.Linear(3, bias=False),
        lambda: nn.Linear(3, in_features=5, bias=False),
        (2, 2, 5),
        wrong_rank=(),
        wrong_width=(4, 7),
        parameters=("weight",),
    ),
    Row(
        "Conv2d",
        lambda: nn.Conv2d(3, 2, stride=2, padding=1),
        lambda: nn.Conv2d(3, 2, in_channels=2, stride=2, padding=1),
        (2, 2, 3, 3),
        wrong_rank=(4, 5),
        wrong_width=(2, 3, 3, 3),
        parameters=("weight", "bias"),
    ),
    Row(
        "Conv2d with a kernel of two sizes",
        lambda: nn.Conv2d(2, (2, 1), padding=(1, 0), dilation=(1, 2), bias=False),
        lambda: nn.Conv2d(2, (2, 1), in_channels=2, padding=(1, 0), dilation=(1, 2), bias=False),
        (2, 2, 3, 3),
        wrong_rank=(4, 5),
        wrong_width=(2, 3, 3, 3),
        parameters=("weight",),
    ),
    Row(
        "Conv2d with groups",
        lambda: nn.Conv2d(4, 3, groups=2, padding="same"),
        lambda: nn.Conv2d(4, 3, in_channels=2, groups=2, padding="same"),
        (2, 2, 3, 3),
        wrong_rank=(4, 5),
        wrong_width=(2, 4, 3, 3),
        parameters=("weight", "bias"),
    ),
    Row(
        "BatchNorm1d",
        lambda: nn.BatchNorm1d(),
        lambda: nn.BatchNorm1d(num_features=3),
        (6, 3),
        wrong_rank=(6,),
        wrong_width=(6, 2),
        stateful=True,
        parameters=("weight", "bias"),
    ),
    Row(
        "BatchNorm1d over sequences",
        lambda: nn.BatchNorm1d(momentum=None, affine=False),
        lambda: nn.BatchNorm1d(num_features=3, momentum=None, affine=False),
        (2, 3, 4),
        wrong_rank=(2, 3, 4, 1),
        wrong_width=(2, 4, 4),
        stateful=True,
    ),
    Row(
        "BatchNorm2d",
        lambda: nn.BatchNorm2d(),
        lambda: nn.BatchNorm2d(num_features=3),
        (3, 3, 2, 2),
        wrong_rank=(3, 3),
        wrong_width=(3, 2, 2, 2),
        stateful=True,
        parameters=("weight", "bias"),
    ),
    Row(
        "BatchNorm2d without statistics",
        lambda: nn.BatchNorm2d(track_running_stats=False),
        lambda: nn.BatchNorm2d(num_features=3, track_running_stats=False),
        (3, 3, 2, 2),
        wrong_rank=(3, 3),
        wrong_width=(3, 2, 2, 2),
        parameters=("weight", "bias"),
    ),
    Row(
        "LayerNorm",
        lambda: nn.LayerNorm(),
        lambda: nn.LayerNorm(normalized_shape=5),
        (3, 5),
        wrong_rank=(),
        wrong_width=(3, 4),
        parameters=("weight", "bias"),
    ),
    Row(
        "LayerNorm over two axes",
        **same(lambda: nn.LayerNorm(normalized_shape=(2, 4))),
        shape=(3, 2, 4),
        wrong_rank=(4,),
        wrong_width=(3, 4, 2),
        parameters=("weight", "bias"),
    ),
    Row(
        "Embedding",
        **same(lambda: nn.Embedding(4, 3)),
        shape=(2, 3),
        integer="needed",
        parameters=("weight",),
    ),
    Row(
        "Dropout",
        **same(lambda: nn.Dropout(0.5)),
        shape=(4, 5),
        random=True,
    ),
    Row(
        "MaxPool2d",
        **same(lambda: nn.MaxPool2d(2)),
        shape=(2, 2, 4, 4),
        wrong_rank=(4, 4),
        integer="accepted",
    ),
    Row(
        "MaxPool2d overlapping",
        **same(lambda: nn.MaxPool2d(3, stride=1, padding=1)),
        shape=(2, 2, 3, 3),
        wrong_rank=(3, 3),
        integer="accepted",
    ),
    Row(
        "AvgPool2d",
        **same(lambda: nn.AvgPool2d(2)),
        shape=(2, 2, 4, 4),
        wrong_rank=(4, 4),
    ),
    Row("Flatten", **same(lambda: nn.Flatten()), shape=(2, 2, 3), wrong_rank=(), integer="accepted"),
    Row("Identity", **same(lambda: nn.Identity()), shape=(2, 3), integer="accepted"),
    Row("ReLU", **same(lambda: nn.ReLU()), shape=(2, 3), integer="accepted"),
    Row("Sigmoid", **same(lambda: nn.Sigmoid()), shape=(2, 3), integer="accepted"),
    Row("Tanh", **same(lambda: nn.Tanh()), shape=(2, 3), integer="accepted"),
    Row("GELU", **same(lambda: nn.GELU()), shape=(2, 3), integer="accepted"),
    Row("Softmax", **same(lambda: nn.Softmax()), shape=(2, 3)),
    Row(
        "Repeat",
        lambda: nn.Repeat(lambda: nn.Linear(5), 3),
        lambda: nn.Repeat(lambda: nn.Linear(5, in_features=5), 3),
        (4, 5),
        integer="",
        parameters=("block.weight", "block.bias"),
        leaf=False,
    ),
    Row(
        "Repeat with state and random numbers",
        lambda: nn.Repeat(lambda: nn.Sequential(nn.BatchNorm1d(), nn.Dropout(0.5)), 2, remat=True),
        lambda: nn.Repeat(lambda: nn.Sequential(nn.BatchNorm1d(num_features=3), nn.Dropout(0.5)), 2, remat=True),
        (6, 3),
        integer="",
        random=True,
        stateful=True,
        parameters=("block.0.weight", "block.0.bias"),
        leaf=False,
    ),
]

every_row = pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])


def rows_where(condition: Callable[[Row], bool]) -> Any:
    """Parametrise a test over some rows."""
    chosen = [row for row in ROWS if condition(row)]
    return pytest.mark.parametrize("row", chosen, ids=[row.name for row in chosen])


def close(a: Any, b: Any, dtype: Any = jnp.float32) -> None:
    """Assert that two arrays are equal but for rounding."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    tolerance = 1e-5 if dtype == jnp.float32 else 0.05
    np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), rtol=tolerance, atol=tolerance)
