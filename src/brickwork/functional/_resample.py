"""Linear maps along one axis whose outputs are weighted sums of a few neighbouring inputs."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

if TYPE_CHECKING:
    from jaxtyping import Array

_MOST_PHASES = 8  # more make a program of too many slices
_MOST_GATHERED = 32


@dataclass(frozen=True, eq=False)
class Taps:
    """Output ``i`` is the sum over ``t`` of ``weights[i, t] * x[places[i, t]]``.

    Places outside of the axis stand for its first or last element.
    """

    places: np.ndarray  # (out, taps)
    weights: np.ndarray  # (out, taps), float64
    size: int  # of the input

    @property
    def out(self) -> int:
        return len(self.places)

    @functools.cached_property
    def clipped(self) -> np.ndarray:
        """The places, inside the axis."""
        return np.clip(self.places, 0, self.size - 1)

    @functools.cached_property
    def matrix(self) -> np.ndarray:
        """The same as a matrix ``(size, out)``."""
        matrix = np.zeros((self.size, self.out))
        np.add.at(matrix, (self.clipped, np.arange(self.out)[:, None]), self.weights)
        return matrix

    @functools.cached_property
    def is_identity(self) -> bool:
        """Whether the output is the input."""
        return self.size == self.out and bool((self.matrix == np.eye(self.size)).all())

    @functools.cached_property
    def phases(self) -> int:
        """After how many outputs the pattern repeats, the inputs moved on; 0: it does not."""
        if not (self.size and self.out):
            return 0
        common = math.gcd(self.size, self.out)
        phases, step = self.out // common, self.size // common
        if phases > _MOST_PHASES or common == 1:
            return 0
        later, earlier = slice(phases, None), slice(None, -phases)
        same = (self.places[later] == self.places[earlier] + step).all() and np.allclose(
            self.weights[later], self.weights[earlier], rtol=1e-9, atol=1e-12
        )
        return phases if same else 0


def resample(x: Array, axis: int, taps: Taps) -> Array:
    """Apply the map along an axis. ``x`` is of at least float32, or anything if all weights are one.

    Where the pattern repeats after a few outputs, each of them is a sum of slices. Elsewhere values are gathered, and
    the gradient is a product with a small matrix, because that of a gather is a scatter, ten times as slow on a CPU.
    """
    if taps.is_identity:
        return x
    if taps.phases:
        return _by_phases(x, axis, taps)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return _gather(x, axis, taps)
    if taps.places.shape[1] > _MOST_GATHERED:
        return _multiply(x, axis, taps)

    @jax.custom_jvp
    def gather(x: Array) -> Array:
        return _gather(x, axis, taps)

    @gather.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        return gather(*primals), _multiply(tangents[0], axis, taps)

    return gather(x)


def _by_phases(x: Array, axis: int, taps: Taps) -> Array:
    count = taps.out // taps.phases
    step = taps.size // count
    parts = [
        _sum(
            [(_stepping(x, axis, int(place), step, count), w) for place, w in zip(places, weights, strict=True) if w],
            x.dtype,
        )
        for places, weights in zip(taps.places[: taps.phases], taps.weights[: taps.phases], strict=True)
    ]
    if taps.phases == 1:
        return parts[0]
    return jnp.stack(parts, axis + 1).reshape(*x.shape[:axis], taps.out, *x.shape[axis + 1 :])


def _stepping(x: Array, axis: int, start: int, step: int, count: int) -> Array:
    """Return every ``step``-th element from ``start``, with the ends repeated outside."""
    places = start + step * np.arange(count)
    size = x.shape[axis]
    inside = np.flatnonzero((places >= 0) & (places < size))
    before, after = int((places < 0).sum()), int((places >= size).sum())
    parts = []
    if before:
        parts += [lax.slice_in_dim(x, 0, 1, 1, axis)] * before
    if len(inside):
        first, last = int(places[inside[0]]), int(places[inside[-1]])
        parts.append(lax.slice_in_dim(x, first, last + 1, step, axis))
    if after:
        parts += [lax.slice_in_dim(x, size - 1, size, 1, axis)] * after
    return parts[0] if len(parts) == 1 else lax.concatenate(parts, axis)


def _gather(x: Array, axis: int, taps: Taps) -> Array:
    shape = [1] * x.ndim
    shape[axis] = taps.out
    terms = []
    for places, weights in zip(taps.clipped.T, taps.weights.T, strict=True):
        picked = jnp.take(x, places, axis, mode="clip")
        terms.append((picked, weights[0] if (weights == weights[0]).all() else weights.reshape(shape)))
    return _sum(terms, x.dtype)


def _sum(terms: list[tuple[Array, Any]], dtype: Any) -> Array:
    """Return the weighted sum. Weights of one leave the values as they are, integers too."""
    return functools.reduce(lax.add, (_weighted(v, w, dtype) for v, w in terms))


def _weighted(value: Array, weights: Any, dtype: Any) -> Array:
    if np.ndim(weights) == 0 and weights == 1:
        return value
    product = value * jnp.asarray(weights, dtype)
    return product if np.all(weights) else jnp.where(weights == 0, 0, product)  # 0 times infinity isn't 0


def _multiply(x: Array, axis: int, taps: Taps) -> Array:
    matrix = jnp.asarray(taps.matrix, x.dtype)
    y = lax.dot_general(x, matrix, (((axis,), (0,)), ((), ())), precision=lax.Precision.HIGHEST)
    return jnp.moveaxis(y, -1, axis)
