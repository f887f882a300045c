"""What the contract tests need to know about a layer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import brickwork as bw


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
    transient: bool = False  # keeps what it has seen of one batch, in either mode, and saves none of it
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


def first(result: Any) -> Any:
    """The result, or the first of several."""
    return result[0] if isinstance(result, tuple) else result


def same(make: Callable[[], Any]) -> dict[str, Any]:
    return {"make": make, "explicit": make}


def with_inputs(
    layer: type[Any], inputs: Callable[[Any], tuple[Any, ...]], output: Callable[[Any], Any] = first
) -> Any:
    """A layer of several inputs as one of one input, for the contract: the class with the others filled in.

    ``inputs`` makes the arguments out of the one input, ``output`` the one output out of the result. Assign it to
    the layer's name at the top of a module of rows, where pickle finds it.
    """

    class Filled(layer):
        def forward(self, x):
            return output(super().forward(*inputs(x)))

        if layer.build is not bw.Module.build:  # while compiling, build may look at shapes but not compute

            def build(self, x):
                super().build(*inputs(x))

    Filled.__name__ = Filled.__qualname__ = layer.__name__
    Filled.__module__ = sys._getframe(1).f_globals["__name__"]
    return Filled
