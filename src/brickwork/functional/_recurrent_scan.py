"""The loop over time of one recurrent layer in one direction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jax import lax

from ._recurrent_cells import Weights, step

if TYPE_CHECKING:
    from jaxtyping import Array

    State = tuple[Array, ...]


def scan(
    kind: str, part: Array, state: State, weights: Weights, valid: Array | None, reverse: bool
) -> tuple[Array, State]:
    """Run over time.

    Args:
        kind: of the step.
        part: of the inputs in the steps, ``(T, N, gates * hidden)``.
        state: the initial states, each ``(N, *)``.
        weights: of the layer; those of the input are in ``part`` already.
        valid: ``(T, N, 1)``: where there is an element; or ``None``.
        reverse: whether to run backwards.

    Returns:
        The outputs ``(T, N, out)``, zeros where there is no element, and the last states.
    """

    def body(state: State, inputs: Any) -> tuple[State, Array]:
        part, valid = inputs
        new = step(kind, part, state, weights)
        if valid is None:
            return new, new[0]
        output = jnp.where(valid, new[0], jnp.zeros((), new[0].dtype))
        return tuple(jnp.where(valid, a, b) for a, b in zip(new, state, strict=True)), output

    state, output = lax.scan(body, state, (part, valid), reverse=reverse)
    return output, state
