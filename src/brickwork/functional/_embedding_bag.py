"""Table lookup with a reduction over bags of rows."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from . import _checks as checks
from ._embedding import check_table, embedding_renorm, look_up, row_of
from ._explicit import left_to_xla

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

    from ._types import ArrayLike

MODES = ("sum", "mean", "max")


def embedding_bag(
    indices: Int[ArrayLike, "*shape"],
    weight: Float[ArrayLike, "num dim"],
    offsets: Int[ArrayLike, " offsets"] | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    per_sample_weights: Float[ArrayLike, "*shape"] | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Float[Array, "bags dim"]:
    r"""Look up rows of a table and reduce them over bags.

    .. math:: y_{b, :} = \operatorname{mode}_{i \in \text{bag } b} s_i W_{x_i, :}

    Args:
        indices: integers ``(B, N)``, a bag in each row; or ``(N,)``, all bags one behind the other.
        weight: the table, ``(num, dim)``.
        offsets: where each bag begins in ``(N,)`` indices, ascending from 0; ``None`` for ``(B, N)``.
        max_norm: as for :func:`embedding`.
        norm_type: the ``p`` of that norm.
        scale_grad_by_freq: whether the gradient by a row is divided by the number of times it was looked up; not
            for ``mode="max"``.
        mode: ``"sum"``, ``"mean"`` or ``"max"``.
        per_sample_weights: the weight :math:`s_i` of each looked-up row, of the shape of ``indices``; for
            ``mode="sum"`` only.
        include_last_offset: whether ``offsets`` has one more element, the end of the last bag.
        padding_idx: the row that is left out of the reduction and receives no gradient; may be negative.

    Returns:
        Array ``(B, dim)``; zeros for an empty bag. An index out of range gives NaN.

    Raises:
        IndexError: an index outside of ``[0, num)`` in a NumPy array.
        ShapeMismatchError: the shapes do not fit.
        TypeError: ``indices`` or ``offsets`` are not integers, or ``offsets`` are missing or not needed.
        ValueError: there is no such mode or row, or options exclude each other.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.embedding_bag(jnp.array([0, 1, 2]), jnp.eye(3), jnp.array([0, 2]), mode="sum").tolist()
        [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]

    Reference:
        ``torch.nn.functional.embedding_bag``.
    """
    indices, weight = check_table(indices, weight, "embedding_bag")
    check_mode(mode, scale_grad_by_freq, "embedding_bag")
    offsets = _check_offsets(indices, offsets, include_last_offset)
    samples = checks.optional_array(per_sample_weights, "embedding_bag", "per_sample_weights")
    if samples is not None:
        _check_samples(samples, indices, mode)
    row = None if padding_idx is None else row_of(padding_idx, weight.shape[0], "embedding_bag")
    if max_norm is not None:
        weight = embedding_renorm(indices, weight, max_norm, norm_type)
    return _embedding_bag(
        indices,
        weight,
        offsets,
        samples,
        mode=mode,
        by_frequency=bool(scale_grad_by_freq),
        last=checks.flag(include_last_offset, "embedding_bag", "include_last_offset"),
        padding_idx=row,
    )


def check_mode(mode: Any, scale_grad_by_freq: Any, function: str) -> str:
    """Check the name of a reduction over bags."""
    if mode not in MODES:
        raise ValueError(f"{function}: mode must be 'sum', 'mean' or 'max', got {mode!r}.")
    if checks.flag(scale_grad_by_freq, function, "scale_grad_by_freq") and mode == "max":
        raise ValueError(f"{function}: scale_grad_by_freq=True is not for mode='max'; use 'sum' or 'mean'.")
    return mode


def _check_offsets(indices: Array, offsets: Any, last: bool) -> Array | None:
    rank = len(indices.shape)
    if rank not in (1, 2):
        checks.shape_error(
            "embedding_bag",
            f"indices must have 2 axes (B, N), or 1 axis (N,) with offsets, not {rank}.",
            "Reshape the indices.",
            indices=indices,
        )
    if rank == 2:
        if offsets is not None:
            raise TypeError(
                "embedding_bag: offsets must be None for indices of 2 axes, whose rows are the bags; got "
                f"{checks.describe(indices)}. Leave offsets out, or pass indices of 1 axis."
            )
        return None
    if offsets is None:
        raise TypeError(
            "embedding_bag: offsets are needed for indices of 1 axis, to say where each bag begins. "
            "Pass offsets, or indices[None] for one bag."
        )
    if isinstance(offsets, (tuple, list)):
        offsets = np.asarray(offsets)
    found = checks.to_array(offsets, "embedding_bag", "offsets")
    checks.require_integer(found, "embedding_bag", "offsets")
    if len(found.shape) != 1 or (last and not found.shape[0]):
        least = " of at least one element, the end of the last bag" if last else ""
        checks.shape_error("embedding_bag", f"offsets must have 1 axis{least}.", "Check the offsets.", offsets=found)
    values = checks.host_array(found)
    if values is not None and values.size and values[0] != 0:
        raise ValueError(f"embedding_bag: offsets must begin with 0, where the first bag does; got {values[0]}.")
    if values is not None and values.size and ((values[1:] < values[:-1]).any() or values[-1] > indices.shape[0]):
        raise ValueError(
            f"embedding_bag: offsets must ascend, to at most the number of indices, {indices.shape[0]}; got "
            f"{values.tolist()}."
        )
    return cast("Array", found)  # jit converts it


def _check_samples(samples: Array, indices: Array, mode: str) -> None:
    checks.require_inexact(samples, "embedding_bag", "per_sample_weights")
    if mode != "sum":
        raise ValueError(f"embedding_bag: per_sample_weights are for mode='sum' only, got mode={mode!r}.")
    if samples.shape != indices.shape:
        checks.shape_error(
            "embedding_bag",
            f"per_sample_weights must have the shape of indices, {indices.shape}.",
            "Pass one weight for each index.",
            per_sample_weights=samples,
        )


@functools.partial(jax.jit, static_argnames=("mode", "by_frequency", "last", "padding_idx"))
@left_to_xla
def _embedding_bag(
    indices: Array,
    weight: Array,
    offsets: Array | None,
    samples: Array | None,
    *,
    mode: str,
    by_frequency: bool,
    last: bool,
    padding_idx: int | None,
) -> Array:
    offsets = None if offsets is None else checks.as_index(offsets)
    bags, segments = _segments(indices, offsets, last)
    indices = indices.reshape(-1)
    rows = look_up(indices, weight, by_frequency)
    dtype = rows.dtype
    rows = rows.astype(checks.statistics_dtype(dtype))
    if samples is not None:
        rows = rows * samples.reshape(-1, 1).astype(rows.dtype)
    there = (
        jnp.ones((indices.shape[0], 1), bool) if padding_idx is None else ~checks.equals(indices, padding_idx)[:, None]
    )

    def add_up(values: Array) -> Array:
        if offsets is None:
            return values.reshape(bags, indices.shape[0] // max(bags, 1), values.shape[1]).sum(1)
        return jax.ops.segment_sum(values, segments, bags, indices_are_sorted=True)

    if mode == "max":
        result = _first_largest(rows, segments, there, bags)
    else:
        result = add_up(jnp.where(there, rows, jnp.zeros((), rows.dtype)))
    if mode == "mean":
        result = result / jnp.maximum(add_up(there.astype(rows.dtype)), jnp.ones((), rows.dtype))
    if offsets is not None:
        ends = jnp.append(offsets[1:], offsets[-1:] if last else indices.shape[0])[:bags]
        result = jnp.where((ends < offsets[:bags])[:, None], jnp.asarray(jnp.nan, result.dtype), result)
    return result.astype(dtype)


def _segments(indices: Array, offsets: Array | None, last: bool) -> tuple[int, Array]:
    """Return the number of bags, and for each index its bag."""
    if offsets is None:
        bags, size = indices.shape
        return bags, jnp.repeat(jnp.arange(bags), size, total_repeat_length=bags * size)
    place = jnp.arange(indices.shape[0], dtype=jnp.int32)
    # What comes behind the end of the last bag gets a number that is too large, and takes no part.
    return offsets.shape[0] - last, jnp.searchsorted(offsets, place, side="right") - 1


def _first_largest(rows: Array, segments: Array, there: Array, bags: int) -> Array:
    """Return the largest of each column; the first of equal ones has the gradient, as in torch."""
    count = rows.shape[0]
    if not count or not bags:
        return jnp.zeros((bags, rows.shape[1]), rows.dtype)
    values = jnp.where(there, jax.lax.stop_gradient(rows), -jnp.inf)
    largest = jax.ops.segment_max(values, segments, bags, indices_are_sorted=True)
    is_it = (values == largest.at[segments].get(mode="clip")) | jnp.isnan(values)
    place = jnp.where(is_it & there, jnp.arange(count)[:, None], count)
    first = jax.ops.segment_min(place, segments, bags, indices_are_sorted=True)
    found = jnp.take_along_axis(rows, jnp.minimum(first, count - 1), 0)
    return jnp.where(first < count, found, jnp.zeros((), rows.dtype))
