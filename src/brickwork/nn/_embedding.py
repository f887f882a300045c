"""Embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ..core import Parameter
from ..functional import embedding
from ..init import normal
from ..module import Module
from . import _args as args
from ._init import normal_but_row

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


class Embedding(Module):
    r"""Table of vectors, looked up by index.

    .. math:: y_{i, :} = W_{x_i, :}

    Args:
        num_embeddings: number of rows of the table.
        embedding_dim: size of each row.
        padding_idx: the row that begins as zeros and gets no gradient; may be negative.
        dtype: of the table.

    Shape:
        ``(*)`` integers to ``(*, embedding_dim)``. An index out of range gives NaN.

    Parameters:
        weight: ``(num_embeddings, embedding_dim)``, drawn from :math:`N(0, 1)`.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.Embedding(10, 3)(jnp.array([[1, 2], [4, 5]])).shape
        (2, 2, 3)

    Reference:
        ``torch.nn.Embedding``.
    """

    @args.torch_order("num_embeddings", "embedding_dim", "padding_idx")
    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        padding_idx: int | None = None,
        dtype: Any = jnp.float32,
    ) -> None:
        rows = args.size(num_embeddings, "Embedding", "num_embeddings")
        width = args.size(embedding_dim, "Embedding", "embedding_dim")
        if padding_idx is not None:
            padding_idx = args.integer(padding_idx, "Embedding", "padding_idx")
            if not -rows <= padding_idx < rows:
                raise ValueError(
                    f"Embedding: padding_idx={padding_idx} is no row of a table of {rows} rows; "
                    f"expected -{rows} to {rows - 1}."
                )
            padding_idx %= rows
        self.padding_idx = padding_idx
        init = normal() if padding_idx is None else normal_but_row(padding_idx)
        self.weight = Parameter(shape=(rows, width), dtype=dtype, init=init)

    @property
    def num_embeddings(self) -> int:
        """Number of rows of the table."""
        return self.weight.shape[0]

    @property
    def embedding_dim(self) -> int:
        """Size of each row."""
        return self.weight.shape[1]

    def forward(self, indices: Int[Array, "*shape"]) -> Float[Array, "*shape dim"]:
        """Look the rows up."""
        return embedding(indices, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        sizes = f"{self.num_embeddings} → {self.embedding_dim}"
        return sizes + args.options(self, padding_idx=None)
