"""Embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ..core import Parameter
from ..functional import _checks as checks, embedding, embedding_bag, embedding_renorm
from ..functional._embedding import row_of
from ..functional._embedding_bag import check_mode
from ..init import normal
from ..module import Module
from . import _args as args
from ._init import normal_but_row

if TYPE_CHECKING:
    from typing import Self

    from jaxtyping import Array, Float, Int


class _Table(Module):
    """What the embeddings share: the table and its options."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None,
        max_norm: float | None,
        norm_type: float,
        scale_grad_by_freq: bool,
        dtype: Any,
    ) -> None:
        name = type(self).__name__
        rows = args.size(num_embeddings, name, "num_embeddings")
        width = args.size(embedding_dim, name, "embedding_dim")
        self.padding_idx = None if padding_idx is None else row_of(padding_idx, rows, name)
        self.max_norm = None if max_norm is None else args.number(max_norm, name, "max_norm", 0)
        self.norm_type = args.number(norm_type, name, "norm_type", 0)
        self.scale_grad_by_freq = args.flag(scale_grad_by_freq, name, "scale_grad_by_freq")
        init = normal() if self.padding_idx is None else normal_but_row(self.padding_idx)
        self.weight = Parameter(shape=(rows, width), dtype=dtype, init=init)

    @property
    def num_embeddings(self) -> int:
        """Number of rows of the table."""
        return self.weight.shape[0]

    @property
    def embedding_dim(self) -> int:
        """Size of each row."""
        return self.weight.shape[1]

    @classmethod
    def from_pretrained(cls, embeddings: Float[Array, "num dim"], freeze: bool = True, **options: Any) -> Self:
        """Make a layer of a table that there is already.

        Args:
            embeddings: the table, ``(num_embeddings, embedding_dim)``. All of it is kept, the row of
                ``padding_idx`` too.
            freeze: whether it is left out of training.
            **options: the keyword arguments of the class, but for the sizes.

        Example:
            >>> import jax.numpy as jnp
            >>> from brickwork import nn
            >>> layer = nn.Embedding.from_pretrained(jnp.eye(3), padding_idx=0)
            >>> layer(jnp.array([2])).tolist(), layer.weight.trainable
            ([[0.0, 0.0, 1.0]], False)
        """
        where = f"{cls.__name__}.from_pretrained"
        table = checks.to_array(embeddings, where, "embeddings")
        checks.require_inexact(table, where, "embeddings")
        if len(table.shape) != 2:
            checks.shape_error(
                where,
                f"embeddings must have 2 axes (num_embeddings, embedding_dim), not {len(table.shape)}.",
                "Reshape the table.",
                embeddings=table,
            )
        freeze = args.flag(freeze, where, "freeze")
        layer = cls(*table.shape, **options)
        layer.weight = Parameter(table, trainable=not freeze)
        return layer

    def _table(self, indices: Any) -> Any:
        """The table, with the rows that are looked up scaled down where they have to be."""
        if self.max_norm is None:
            return self.weight
        return embedding_renorm(indices, self.weight, self.max_norm, self.norm_type)

    def _keep(self, table: Any) -> None:
        # A weight that is computed from another (a parametrisation) is scaled for this call only, as in PyTorch.
        if self.max_norm is not None and isinstance(self.weight, Parameter):
            self.weight.value = table

    def extra_repr(self) -> str:
        rest = args.options(self, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False)
        return f"{self.num_embeddings} → {self.embedding_dim}{rest}"


class Embedding(_Table):
    r"""Table of vectors, looked up by index.

    .. math:: y_{i, :} = W_{x_i, :}

    With ``max_norm``, each call first scales down those of the looked-up rows whose norm is larger, in the table
    itself, in training and in evaluation mode. Gradients pass through as if the table had had the new values before.

    Args:
        num_embeddings: number of rows of the table.
        embedding_dim: size of each row.
        padding_idx: the row that begins as zeros and gets no gradient; may be negative.
        max_norm: the largest norm of a row that is looked up.
        norm_type: the ``p`` of that norm.
        scale_grad_by_freq: whether the gradient by a row is divided by the number of times it was looked up.
        dtype: of the table.

    Shape:
        ``(*)`` integers to ``(*, embedding_dim)``. An index out of range gives NaN.

    Parameters:
        weight: ``(num_embeddings, embedding_dim)``, drawn from :math:`N(0, 1)`.

    Raises:
        TypeError: an argument has the wrong type, or in a call indices are not integers.
        ValueError: a size is not positive, or there is no row ``padding_idx``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.Embedding(10, 3)(jnp.array([[1, 2], [4, 5]])).shape
        (2, 2, 3)

    Reference:
        ``torch.nn.Embedding``, without ``sparse``: gradients in JAX are dense.
    """

    @args.torch_order(
        "num_embeddings", "embedding_dim", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse"
    )
    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        dtype: Any = jnp.float32,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, dtype)

    def forward(self, indices: Int[Array, "*shape"]) -> Float[Array, "*shape dim"]:
        """Look the rows up."""
        table = self._table(indices)
        rows = embedding(indices, table, self.padding_idx, scale_grad_by_freq=self.scale_grad_by_freq)
        self._keep(table)
        return rows


class EmbeddingBag(_Table):
    r"""Sums, means or maxima of bags of rows of a table, looked up by index.

    .. math:: y_{b, :} = \operatorname{mode}_{i \in \text{bag } b} s_i W_{x_i, :}

    With ``max_norm``, each call first scales down those of the looked-up rows whose norm is larger, in the table
    itself, in training and in evaluation mode. Gradients pass through as if the table had had the new values before.

    Args:
        num_embeddings: number of rows of the table.
        embedding_dim: size of each row.
        max_norm: the largest norm of a row that is looked up.
        norm_type: the ``p`` of that norm.
        scale_grad_by_freq: whether the gradient by a row is divided by the number of times it was looked up; not
            for ``mode="max"``.
        mode: ``"sum"``, ``"mean"`` or ``"max"``.
        include_last_offset: whether ``offsets`` has one more element, the end of the last bag.
        padding_idx: the row that begins as zeros, gets no gradient, and is left out of the reduction; may be negative.
        dtype: of the table.

    Shape:
        ``layer(indices, offsets=None, per_sample_weights=None)`` gives ``(B, embedding_dim)``, zeros for an empty bag:

        - ``indices``: integers ``(B, N)``, a bag in each row; or ``(N,)``, all bags one behind the other. An index
          out of range gives NaN.
        - ``offsets``: ``(B,)`` integers, where each bag begins in ``(N,)`` indices, ascending from 0.
        - ``per_sample_weights``: the weights :math:`s_i`, of the shape of ``indices``; for ``mode="sum"`` only.

    Parameters:
        weight: ``(num_embeddings, embedding_dim)``, drawn from :math:`N(0, 1)`.

    Raises:
        ShapeMismatchError: in a call, when shapes do not fit.
        TypeError: an argument has the wrong type, or in a call ``offsets`` are missing or not needed.
        ValueError: a size is not positive, there is no such mode or row, or options exclude each other.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.EmbeddingBag(10, 3)
        >>> layer(jnp.array([[1, 2], [4, 5]])).shape
        (2, 3)
        >>> layer(jnp.array([1, 2, 4, 5]), offsets=jnp.array([0, 1, 1])).shape
        (3, 3)
        >>> layer
        EmbeddingBag(10 → 3)

    Reference:
        ``torch.nn.EmbeddingBag``, without ``sparse``: gradients in JAX are dense.
    """

    @args.torch_order(
        "num_embeddings",
        "embedding_dim",
        "max_norm",
        "norm_type",
        "scale_grad_by_freq",
        "mode",
        "sparse",
        "_weight",
        "include_last_offset",
        "padding_idx",
    )
    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        dtype: Any = jnp.float32,
    ) -> None:
        self.mode = check_mode(mode, scale_grad_by_freq, "EmbeddingBag")
        self.include_last_offset = args.flag(include_last_offset, "EmbeddingBag", "include_last_offset")
        super().__init__(num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, dtype)

    def forward(
        self,
        indices: Int[Array, "*shape"],
        offsets: Int[Array, " offsets"] | None = None,
        per_sample_weights: Float[Array, "*shape"] | None = None,
    ) -> Float[Array, "bags dim"]:
        """Look the rows up and reduce them."""
        table = self._table(indices)
        result = embedding_bag(
            indices,
            table,
            offsets,
            scale_grad_by_freq=self.scale_grad_by_freq,
            mode=self.mode,
            per_sample_weights=per_sample_weights,
            include_last_offset=self.include_last_offset,
            padding_idx=self.padding_idx,
        )
        self._keep(table)
        return result

    def extra_repr(self) -> str:
        return super().extra_repr() + args.options(self, mode="mean", include_last_offset=False)
