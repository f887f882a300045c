"""The loop over time of one recurrent layer in one direction."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from ..core._jax import varying_alike
from ._recurrent_cells import Weights, input_part, step, turned
from ._recurrent_lstm import lstm_scan

if TYPE_CHECKING:
    from jaxtyping import Array

    State = tuple[Array, ...]

_FEW_ROWS = 4  # in a step: too few for it to matter how the weights lie


def scan(
    kind: str, x: Array, state: State, weights: Weights, valid: Array | None, reverse: bool
) -> tuple[Array, State]:
    """Run over time.

    Args:
        kind: of the step.
        x: ``(T, N, in)``.
        state: the initial states, each ``(N, *)``, at least float32.
        weights: of the layer, in the dtype of ``x``.
        valid: ``(T, N, 1)``: where there is an element; or ``None``.
        reverse: whether to run backwards.

    Returns:
        The outputs ``(T, N, out)``, zeros where there is no element, and the last states; as wide as the initial.
    """
    on_cpu = jax.default_backend() == "cpu"
    if on_cpu and kind == "lstm" and weights.hr is None and isinstance(x.shape[0], int):
        return lstm_scan(x, state, weights, valid, reverse)
    # One product for all times is fastest, but for a CPU: there it is slower to get the memory for all the results,
    # page by page, than to multiply in small parts.
    return plain_scan(kind, x, state, weights, valid, reverse, at_once=not on_cpu)


def plain_scan(
    kind: str, x: Array, state: State, weights: Weights, valid: Array | None, reverse: bool, *, at_once: bool
) -> tuple[Array, State]:
    """As ``scan``, step by step, differentiated by JAX; ``at_once``: the input's part for all times beforehand."""

    def body(state: State, inputs: Any) -> tuple[State, Array]:
        x, valid = inputs
        new = step(kind, x if at_once else input_part(kind, x, weights), state, weights)
        if valid is None:
            return new, new[0]
        output = jnp.where(valid, new[0], jnp.zeros((), new[0].dtype))
        return tuple(jnp.where(valid, a, b) for a, b in zip(new, state, strict=True)), output

    n = len(weights)
    x, valid, *others = varying_alike(x, valid, *weights, *state)  # the states of a loop keep their type
    weights, state = Weights(*others[:n]), tuple(others[n:])
    if at_once:
        rows = x.reshape(math.prod(x.shape[:2]), x.shape[2])
        x = input_part(kind, rows, weights).reshape(*x.shape[:2], weights.ih.shape[0])
    elif isinstance(x.shape[1], int) and x.shape[1] >= _FEW_ROWS:
        weights = weights._replace(ih=turned(weights.ih), hh=turned(weights.hh))
    state, output = lax.scan(body, state, (x, valid), reverse=reverse)
    return output, state
