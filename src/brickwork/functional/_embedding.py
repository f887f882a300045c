"""Table lookup."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..core._arrays import check_dtype
from ..core._jax import Tracer
from . import _checks as checks
from ._explicit import left_to_xla

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Num

    from ._types import ArrayLike


def embedding(
    indices: Int[ArrayLike, "*shape"],
    weight: Float[ArrayLike, "num dim"],
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
) -> Float[Array, "*shape dim"]:
    r"""Look up one row of a table for each index.

    .. math:: y_{i, :} = W_{x_i, :}

    Args:
        indices: integers of any shape, each in ``[0, num)``.
        weight: the table, ``(num, dim)``.
        padding_idx: the row that receives no gradient; may be negative, counted from the end.
        max_norm: rows of a larger norm are scaled down to this one, as :func:`embedding_renorm` does. The table
            itself is an argument and stays as it is: that function returns the one that ``torch`` would leave.
        norm_type: the ``p`` of that norm.
        scale_grad_by_freq: whether the gradient by a row is divided by the number of times it was looked up.

    Returns:
        Array of shape ``(*shape, dim)``. An index outside ``[0, num)``, a negative one included,
        gives a row of NaN and no gradient: values are not known while a program is compiled, so
        the mistake cannot raise, and NaN is the result that cannot go unnoticed.

    Raises:
        IndexError: an index outside of ``[0, num)`` in a NumPy array.
        ShapeMismatchError: ``weight`` does not have two axes.
        TypeError: ``indices`` are not integers.
        ValueError: there is no row ``padding_idx``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.embedding(jnp.array([2, 0]), jnp.eye(3)).tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]

    Reference:
        ``torch.nn.functional.embedding``, which raises for an index out of range.
    """
    indices, weight = check_table(indices, weight, "embedding")
    if max_norm is not None:
        weight = embedding_renorm(indices, weight, max_norm, norm_type)
    row = None if padding_idx is None else row_of(padding_idx, weight.shape[0], "embedding")
    return _embedding(
        indices,
        weight,
        padding_idx=row,
        by_frequency=checks.flag(scale_grad_by_freq, "embedding", "scale_grad_by_freq"),
    )


def embedding_renorm(
    indices: Int[ArrayLike, "*shape"],
    weight: Float[ArrayLike, "num dim"],
    max_norm: float,
    norm_type: float = 2.0,
) -> Float[Array, "num dim"]:
    r"""Scale down those rows of a table that are looked up and have too large a norm.

    .. math:: W_{i, :} \gets W_{i, :} \frac{m}{\lVert W_{i, :} \rVert_p + 10^{-7}} \quad
        \text{where } \lVert W_{i, :} \rVert_p > m

    For gradients it is as if the table had had these values before: they pass through unchanged.

    Args:
        indices: integers of any shape, the rows to look at.
        weight: the table, ``(num, dim)``.
        max_norm: the largest norm :math:`m`.
        norm_type: the ``p`` of the norm; ``math.inf`` for the largest absolute value.

    Returns:
        The new table.

    Raises:
        IndexError: an index outside of ``[0, num)`` in a NumPy array.
        ShapeMismatchError: ``weight`` does not have two axes.
        TypeError: ``indices`` are not integers, or ``max_norm`` or ``norm_type`` no numbers.
        ValueError: ``max_norm`` or ``norm_type`` is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.embedding_renorm(jnp.array([0]), jnp.full((2, 2), 3.0), 1.0, norm_type=1).tolist()
        [[0.5, 0.5], [3.0, 3.0]]

    Reference:
        ``torch.embedding_renorm_``.
    """
    indices, weight = check_table(indices, weight, "embedding_renorm")
    max_norm = checks.number(max_norm, "embedding_renorm", "max_norm", 0)
    norm_type = checks.number(norm_type, "embedding_renorm", "norm_type", 0)
    return _renorm(indices, weight, max_norm, norm_type=norm_type)


def one_hot(x: Int[ArrayLike, "*shape"], num_classes: int = -1, dtype: Any = None) -> Num[Array, "*shape classes"]:
    r"""Turn class indices into vectors of zeros with a one.

    .. math:: y_{i,c} = \begin{cases} 1 & c = x_i \\ 0 & \text{otherwise} \end{cases}

    Args:
        x: integers of any shape, each in ``[0, num_classes)``.
        num_classes: the number of classes; -1: one more than the largest index, whose value must be known.
        dtype: of the result; the default integer dtype if not given.

    Returns:
        Array of shape ``(*shape, num_classes)``. An index out of range, where it isn't known, gives zeros.

    Raises:
        IndexError: an index out of range in a NumPy array.
        TypeError: ``x`` is not an array of integers.
        ValueError: ``num_classes`` is 0, or it is -1 and there are no indices, or they are negative or not known.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.one_hot(jnp.array([2, 0]), 3).tolist()
        [[0, 0, 1], [1, 0, 0]]

    Reference:
        ``torch.nn.functional.one_hot``.
    """
    x = checks.to_array(x, "one_hot", "x")
    checks.require_integer(x, "one_hot", "x")
    classes = checks.integer(num_classes, "one_hot", "num_classes", -1)
    if classes == -1:
        if isinstance(x, Tracer):
            raise ValueError(
                "one_hot: the number of classes can't depend on values that are not known while a program is compiled. "
                "Pass it: one_hot(x, num_classes)."
            )
        host = np.asarray(x)
        classes = int(host.max(initial=-1)) + 1
        x = host
    if classes < 1:
        raise ValueError(f"one_hot: num_classes must be at least 1, or -1 with indices to count, got {num_classes}.")
    checks.require_index(x, classes, "one_hot", "x", "classes")
    wanted = jnp.result_type(int) if dtype is None else check_dtype(dtype, "one_hot")
    return _one_hot(x, classes=classes, dtype=wanted)


def check_table(indices: Any, weight: Any, function: str) -> tuple[Array, Array]:
    """Check what every lookup needs."""
    indices = checks.to_array(indices, function, "indices")
    weight = checks.to_array(weight, function, "weight")
    checks.require_integer(indices, function, "indices")
    if len(weight.shape) != 2:
        checks.shape_error(
            function,
            f"weight must have 2 axes (num, dim), not {weight.ndim}.",
            "The indices come first, the table second.",
            weight=weight,
        )
    checks.require_index(indices, weight.shape[0], function, "indices", "rows of weight")
    return indices, weight


def row_of(padding_idx: Any, rows: int, function: str) -> int:
    """Return the index of the padding, counted from the front."""
    padding_idx = checks.integer(padding_idx, function, "padding_idx")
    if not -rows <= padding_idx < rows:
        raise ValueError(
            f"{function}: padding_idx={padding_idx} is no row of a table of {rows} rows; "
            f"expected -{rows} to {rows - 1}."
        )
    return padding_idx % rows


@functools.partial(jax.jit, static_argnames=("classes", "dtype"))
def _one_hot(x: Array, *, classes: int, dtype: Any) -> Array:
    return (checks.as_index(x)[..., None] == jnp.arange(classes, dtype=jnp.int32)).astype(dtype)


@functools.partial(jax.jit, static_argnames=("padding_idx", "by_frequency"))
@left_to_xla
def _embedding(indices: Array, weight: Array, *, padding_idx: int | None, by_frequency: bool) -> Array:
    rows = look_up(indices, weight, by_frequency)
    if padding_idx is None:
        return rows
    return jnp.where(checks.equals(indices, padding_idx)[..., None], lax.stop_gradient(rows), rows)


def look_up(indices: Array, weight: Array, by_frequency: bool) -> Array:
    """Return the rows; perhaps with gradients divided by how often each was looked up."""
    # The default fill value of floats is NaN; negative indices must not wrap around.
    rows = weight.at[indices].get(mode="fill", wrap_negative_indices=False)
    if not by_frequency:
        return rows
    counts = jnp.zeros(weight.shape[0], jnp.int32).at[indices].add(1, mode="drop", wrap_negative_indices=False)
    count = counts.at[indices].get(mode="fill", fill_value=1, wrap_negative_indices=False)
    return _divided_gradient(rows, count[..., None].astype(rows.dtype))


@jax.custom_jvp
def _divided_gradient(x: Array, divisor: Array) -> Array:
    return x


@_divided_gradient.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    return primals[0], tangents[0] / primals[1]


@functools.partial(jax.jit, static_argnames="norm_type")
def _renorm(indices: Array, weight: Array, max_norm: Array, *, norm_type: float) -> Array:
    indices = indices.reshape(-1)
    rows = weight.at[indices].get(mode="fill", wrap_negative_indices=False)
    wide = rows.astype(checks.statistics_dtype(rows.dtype))
    size = jnp.abs(wide)
    if norm_type == 2:
        norm = jnp.sqrt((size * size).sum(-1, keepdims=True))
    elif norm_type == math.inf:
        norm = size.max(-1, keepdims=True)
    elif norm_type == 0:
        norm = (size != 0).sum(-1, keepdims=True).astype(wide.dtype)
    else:
        norm = (size**norm_type).sum(-1, keepdims=True) ** (1 / norm_type)
    limit = jnp.asarray(max_norm).astype(wide.dtype)
    scale = jnp.where(norm > limit, limit / (norm + 1e-7), jnp.ones((), wide.dtype))
    new = (wide * scale).astype(rows.dtype)
    return _as_if_before(weight, weight.at[indices].set(new, mode="drop", wrap_negative_indices=False))


@jax.custom_jvp
def _as_if_before(old: Array, new: Array) -> Array:
    return new


@_as_if_before.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    return primals[1], tangents[0]
