"""Table lookup."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

from . import _checks as checks

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

    from ._types import ArrayLike


def embedding(
    indices: Int[ArrayLike, "*shape"],
    weight: Float[ArrayLike, "num dim"],
    padding_idx: int | None = None,
) -> Float[Array, "*shape dim"]:
    r"""Look up one row of a table for each index.

    .. math:: y_{i, :} = W_{x_i, :}

    Args:
        indices: integers of any shape, each in ``[0, num)``.
        weight: the table, ``(num, dim)``.
        padding_idx: the row that receives no gradient; may be negative, counted from the end.

    Returns:
        Array of shape ``(*shape, dim)``. An index outside ``[0, num)``, a negative one included,
        gives a row of NaN and no gradient: values are not known while a program is compiled, so
        the mistake cannot raise, and NaN is the result that cannot go unnoticed.

    Raises:
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
    indices = checks.to_array(indices, "embedding", "indices")
    weight = checks.to_array(weight, "embedding", "weight")
    if not checks.is_integer(indices):
        raise TypeError(
            f"embedding: indices must be integers, got {checks.describe(indices)}. "
            "Cast them: indices.astype(jnp.int32)."
        )
    if len(weight.shape) != 2:
        checks.shape_error(
            "embedding",
            f"weight must have 2 axes (num, dim), not {weight.ndim}.",
            "The indices come first, the table second.",
            weight=weight,
        )
    if padding_idx is not None:
        rows = weight.shape[0]
        if not -rows <= padding_idx < rows:
            raise ValueError(
                f"embedding: padding_idx={padding_idx} is no row of a table of {rows} rows; "
                f"expected -{rows} to {rows - 1}."
            )
        padding_idx = int(padding_idx) % rows
    return _embedding(indices, weight, padding_idx=padding_idx)


@functools.partial(jax.jit, static_argnames="padding_idx")
def _embedding(indices: Array, weight: Array, *, padding_idx: int | None) -> Array:
    # The default fill value of floats is NaN; negative indices must not wrap around.
    rows = weight.at[indices].get(mode="fill", wrap_negative_indices=False)
    if padding_idx is None:
        return rows
    return jnp.where((indices == padding_idx)[..., None], lax.stop_gradient(rows), rows)
