"""Sums of differences from a mean, on a CPU without an array of the differences.

There XLA multiplies while it sums, but what has to be subtracted along axes first it writes to memory, at the price of
another pass and of fresh memory. So products are summed as they are, and what the mean adds to the sum is taken away,
which cancels when the mean is large beside the deviations from it. Whether it does is asked of the data: the
differences are then computed after all, by the same program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

if TYPE_CHECKING:
    from jaxtyping import Array

    Along = Callable[[Array], Array]

_LARGEST_SQUARE = 16  # of a mean in standard deviations: four of 24 bits may cancel


def moments(x: Array, average: Along, spread: Along) -> tuple[Array, Array]:
    """Return the means of ``x``, and the averages of the squares of the differences from them.

    Args:
        x: the data, at least float32.
        average: takes the mean over some axes.
        spread: gives such means the axes of ``x``.
    """
    mean = average(x)

    def exactly() -> tuple[Array, Array]:
        rest = x - spread(mean)
        offset = average(rest)  # what was lost while numbers as large as the mean were added up
        refined = mean + jnp.where(jnp.isfinite(offset), offset, 0)  # an infinite mean has no differences
        return refined, jnp.maximum(average(rest * rest) - offset * offset, 0)

    if jax.default_backend() != "cpu":
        return exactly()
    square = mean * mean
    quick = jnp.maximum(average(x * x) - square, 0)
    return lax.cond(jnp.all(square <= _LARGEST_SQUARE * quick), lambda: (mean, quick), exactly)  # not where it is NaN


def covariance(dy: Array, sum_dy: Array, x: Array, mean: Array, rstd: Array, add_up: Along, spread: Along) -> Array:
    """Return ``add_up(dy * (x - spread(mean)))``.

    Args:
        dy: gradients, of the shape of ``x``.
        sum_dy: ``add_up(dy)``.
        x: the data.
        mean: what to subtract, of the shape of ``sum_dy``.
        rstd: one divided by the standard deviations around ``mean``.
        add_up: sums over some axes.
        spread: gives sums the axes of ``x``.
    """

    def exactly() -> Array:
        return add_up(dy * (x - spread(mean)))

    if jax.default_backend() != "cpu":
        return exactly()
    small = jnp.all(jnp.square(mean * rstd) <= _LARGEST_SQUARE)
    return lax.cond(small, lambda: add_up(dy * x) - mean * sum_dy, exactly)
