"""Multi-head attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ..core import Parameter, next_key
from ..errors import ShapeMismatchError
from ..functional import _checks as checks, linear, scaled_dot_product_attention
from ..functional._attention import attention_with_weights
from ..functional._dropout import check_rate
from ..functional._multihead import check_mask, extend, merge_heads, merge_masks, split_heads
from ..init import xavier_normal, xavier_uniform, zeros
from ..module import Module
from . import _args as args
from ._cache import KVCache
from ._init import fan_in_uniform
from ._linear import Linear

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float

_NAME = "MultiheadAttention"


class MultiheadAttention(Module):
    r"""Attention of several heads, each with its own projections of queries, keys and values.

    .. math:: Y = \mathrm{concat}(h_1, \dots, h_H) W_O^T + b_O, \quad
        h_i = \mathrm{softmax}\left(\frac{Q_i K_i^T}{\sqrt{E / H}} + M\right) V_i

    Here Q, K and V are affine maps of ``query``, ``key`` and ``value``, cut into H pieces.

    Args:
        num_heads: H, the number of heads; it divides E.
        embed_dim: E, the number of features of the query; taken from the first query when not given.
        dropout: the probability of dropping an attention weight in training mode.
        bias: whether the projections have biases.
        add_bias_kv: whether one more key and value, which are parameters, are added to each sequence.
        add_zero_attn: whether one more key and value of zeros are added to each sequence.
        kdim: number of features of the key; E when not given.
        vdim: number of features of the value; E when not given. With ``kdim`` or ``vdim`` there are three weights
            instead of the stacked one, unless both are known to equal E. Other widths are never inferred,
            since the names of the parameters depend on them.
        batch_first: whether the batch is the first axis instead of the second.
        dtype: of the parameters.

    Shape:
        ``query`` ``(L, N, E)``, ``key`` ``(S, N, kdim)`` and ``value`` ``(S, N, vdim)``, with the batch first if
        ``batch_first``, or all without N, to a pair: the output, of the shape of the query, and the weights
        ``(N, L, S)``, or ``None``. See ``forward`` for the masks.

    Parameters:
        in_proj_weight: ``(3 * E, E)``, the weights for Q, K and V on top of each other, ``xavier_uniform``.
        q_proj_weight, k_proj_weight, v_proj_weight: ``(E, E)``, ``(E, kdim)``, ``(E, vdim)``, in place of
            ``in_proj_weight``, ``xavier_uniform``.
        in_proj_bias: ``(3 * E,)``, zeros.
        bias_k, bias_v: ``(1, 1, E)``, ``xavier_normal``.
        out_proj.weight: ``(E, E)``, drawn from :math:`U(-1 / \sqrt{E}, 1 / \sqrt{E})`.
        out_proj.bias: ``(E,)``, zeros.

    Raises:
        ShapeMismatchError: widths, lengths, batch or masks don't fit.
        TypeError: an argument is not an array of floats, a mask holds integers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.MultiheadAttention(4, batch_first=True)
        >>> x = jnp.ones((2, 5, 16))
        >>> y, weights = layer(x, x, x)
        >>> y.shape, weights.shape
        ((2, 5, 16), (2, 5, 5))

    Reference:
        Vaswani et al., "Attention Is All You Need", 2017; ``torch.nn.MultiheadAttention``.
    """

    @args.torch_order(
        "embed_dim", "num_heads", "dropout", "bias", "add_bias_kv", "add_zero_attn", "kdim", "vdim", "batch_first"
    )
    def __init__(
        self,
        num_heads: int,
        *,
        embed_dim: int | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        dtype: Any = jnp.float32,
    ) -> None:
        self.num_heads = args.size(num_heads, _NAME, "num_heads")
        e = args.optional_size(embed_dim, _NAME, "embed_dim")
        if e is not None and e % self.num_heads:
            raise ValueError(f"{_NAME}: num_heads={num_heads} must divide embed_dim={embed_dim}.")
        self.dropout = check_rate(dropout, _NAME, "dropout")
        self.add_zero_attn = args.flag(add_zero_attn, _NAME, "add_zero_attn")
        self.batch_first = args.flag(batch_first, _NAME, "batch_first")
        bias, bias_kv = args.flag(bias, _NAME, "bias"), args.flag(add_bias_kv, _NAME, "add_bias_kv")
        k, v = args.optional_size(kdim, _NAME, "kdim"), args.optional_size(vdim, _NAME, "vdim")
        stacked = all(size is None or size == e for size in (k, v))
        rows = None if e is None else 3 * e

        def weight(outputs: int | None, inputs: int | None) -> Parameter:
            return Parameter(shape=(outputs, inputs), dtype=dtype, init=xavier_uniform())

        self.q_proj_weight = None if stacked else weight(e, e)
        self.k_proj_weight = None if stacked else weight(e, k or e)
        self.v_proj_weight = None if stacked else weight(e, v or e)
        self.in_proj_weight = weight(rows, e) if stacked else None
        self.in_proj_bias = Parameter(shape=(rows,), dtype=dtype, init=zeros()) if bias else None
        one = (1, 1, e)
        self.bias_k = Parameter(shape=one, dtype=dtype, init=xavier_normal()) if bias_kv else None
        self.bias_v = Parameter(shape=one, dtype=dtype, init=xavier_normal()) if bias_kv else None
        self.out_proj = open_linear(e, e, bias=bias, dtype=dtype, bias_init=zeros())

    @property
    def embed_dim(self) -> int | None:
        """Number of features of the query; ``None`` while it is not known."""
        return self.out_proj.weight.shape[0]

    @property
    def uses_random(self) -> bool:
        """Whether random numbers are drawn in training mode."""
        return self.dropout > 0

    def build(self, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> None:
        """Take E from the last axis of the query."""
        named = {"query": query, "key": key, "value": value}
        for name, x in named.items():
            checks.shape_of(x, _NAME, name)
        self._require_shapes(named)
        e = query.shape[-1]
        if self.in_proj_weight is not None:
            self.in_proj_weight.shape = (3 * e, e)
        separate = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
        for x, weight in zip(named.values(), separate, strict=True):
            if weight is not None:
                weight.shape = (e, x.shape[-1])
        fill_outputs(self.out_proj, e)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                bias.shape = (1, 1, e)
        if self.in_proj_bias is not None:
            self.in_proj_bias.shape = (3 * e,)

    def forward(
        self,
        query: Float[Array, "*l n e"],
        key: Float[Array, "*s n k"],
        value: Float[Array, "*s n v"],
        key_padding_mask: Bool[Array, "*n s"] | Float[Array, "*n s"] | None = None,
        need_weights: bool = True,
        attn_mask: Bool[Array, "*nh l s"] | Float[Array, "*nh l s"] | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        cache: KVCache | None = None,
    ) -> tuple[Float[Array, "*l n e"], Float[Array, "*n l s"] | None]:
        """Attend.

        Args:
            query, key, value: the sequences.
            key_padding_mask: ``(N, S)``, or ``(S,)`` without a batch: keys to ignore. ``True`` is ignored; floats
                are added to the scores.
            need_weights: whether to return the weights. Without, it is faster.
            attn_mask: ``(L, S)`` or ``(N * num_heads, L, S)``, in the same way.
            average_attn_weights: whether the weights are averaged over the heads; else ``(N, H, L, S)``.
            is_causal: query i sees the keys 0 to i only, with or without an ``attn_mask``.
            cache: keys and values of the positions before, to which those of ``key`` and ``value`` are added. Each
                query sees the positions before its own and itself; S is the ``max_length`` of the cache.
        """
        same = (query is key and key is value, key is value)
        named = {"query": query, "key": key, "value": value}
        named = {name: checks.to_array(x, _NAME, name) for name, x in named.items()}
        for name, x in named.items():
            checks.require_floats(x, _NAME, name)
        self._require_shapes(named)
        unbatched = named["query"].ndim == 2
        arrays = [x[None] if unbatched else x for x in named.values()]
        first = self.batch_first or unbatched
        q, k, v = self._project(*arrays, same=same, batch_first=first)
        visible, causal, weighted = None, _flag(is_causal, "is_causal"), _flag(need_weights, "need_weights")
        extra = (self.bias_k is not None) + self.add_zero_attn
        if cache is not None:
            self._require_cache(cache, q, k)
        padding, attn = self._masks(key_padding_mask, attn_mask, q, k, unbatched, cache)
        if cache is not None:
            (k, v, visible), causal = cache.update(k, v), False
        elif causal and (weighted or extra):
            visible, causal = jnp.tri(q.shape[2], k.shape[2], dtype=bool), False
        mask = merge_masks(padding, attn, visible, heads=self.num_heads, extra=extra)
        if extra:
            biases = [None if b is None else b.reshape(self.num_heads, 1, -1) for b in (self.bias_k, self.bias_v)]
            k, v = extend(k, v, *biases, zeros=self.add_zero_attn)
        rate = self.dropout if self.training else 0.0
        random = next_key() if rate else None
        if weighted:
            y, weights = attention_with_weights(q, k, v, mask, rate, random)
            weights = weights.mean(1) if _flag(average_attn_weights, "average_attn_weights") else weights
        else:
            y, weights = scaled_dot_product_attention(q, k, v, mask, rate, causal, dropout_key=random), None
        y = self.out_proj(merge_heads(y, batch_first=first))
        return (y[0], None if weights is None else weights[0]) if unbatched else (y, weights)

    def _require_shapes(self, named: dict[str, Any]) -> None:
        """Check the shapes of query, key and value."""
        q, k, v = named.values()
        ranks = [len(checks.shape_of(x, _NAME, name)) for name, x in named.items()]
        for (name, x), rank in zip(named.items(), ranks, strict=True):
            if rank not in (2, 3) or rank != ranks[0]:
                axes = "(N, L, E)" if self.batch_first else "(L, N, E)"
                problem = f"{name} must have 3 axes {axes}, or all of them 2 axes (L, E), not {rank}."
                checks.shape_error(_NAME, problem, "Add the missing axes, or reshape the data.", **{name: x})
        e = self.embed_dim or q.shape[-1]
        if e % self.num_heads:
            problem = f"num_heads={self.num_heads} must divide the {e} features of query (last axis)."
            checks.shape_error(_NAME, problem, "Change num_heads, or project the query.", query=q)
        separate = self.k_proj_weight, self.v_proj_weight
        widths = (e, *(e if weight is None else weight.shape[1] or e for weight in separate))
        for (name, x), width in zip(named.items(), widths, strict=True):
            if x.shape[-1] != width:
                option = {"query": "embed_dim", "key": "kdim", "value": "vdim"}[name]
                problem = f"{name} has {x.shape[-1]} features in its last axis, but {width} are expected."
                fix = f"Check the data, or make the layer with {option}={x.shape[-1]}."
                checks.shape_error(_NAME, problem, fix, **{name: x})
        batch = 0 if self.batch_first else 1
        if k.shape[:-1] != v.shape[:-1] or (q.ndim == 3 and q.shape[batch] != k.shape[batch]):
            problem = f"key and value must have one length, and all three one batch size (axis {batch})."
            fix = "Check the data, and batch_first."
            checks.shape_error(_NAME, problem, fix, **named)

    def _project(
        self, query: Array, key: Array, value: Array, *, same: tuple[bool, bool], batch_first: bool
    ) -> tuple[Array, ...]:
        """Queries, keys and values of the heads, ``(N, H, T, E / H)``; one product for inputs that are the same."""
        e, weight, bias = self.embed_dim, self.in_proj_weight, self.in_proj_bias

        def heads(x: Array, start: int, stop: int) -> tuple[Array, ...]:
            whole = (start, stop) == (0, 3)
            rows = slice(start * e, stop * e)  # type: ignore[operator]
            if weight is None:
                w: Any = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)[start]
            else:
                w = weight if whole else weight[rows]
            b = bias if bias is None or whole else bias[rows]
            return split_heads(linear(x, w, b), heads=self.num_heads, parts=stop - start, batch_first=batch_first)

        if weight is not None and same[0]:
            return heads(query, 0, 3)
        if weight is not None and same[1]:
            return heads(query, 0, 1) + heads(key, 1, 3)
        return heads(query, 0, 1) + heads(key, 1, 2) + heads(value, 2, 3)

    def _require_cache(self, cache: Any, q: Array, k: Array) -> None:
        if not isinstance(cache, KVCache):
            raise TypeError(f"{_NAME}: cache must be an nn.KVCache, got {type(cache).__name__}.")
        if self.bias_k is not None or self.add_zero_attn:
            raise ValueError(f"{_NAME}: a cache doesn't go with add_bias_kv or add_zero_attn.")
        if q.shape[2] != k.shape[2]:
            raise ShapeMismatchError(
                f"{_NAME}: with a cache, query and key must have one length, got {q.shape[2]} and {k.shape[2]}. Pass "
                "the new positions only, in all three; the cache has the keys and values of those before."
            )

    def _masks(self, padding: Any, attn: Any, q: Array, k: Array, unbatched: bool, cache: Any) -> tuple[Any, Any]:
        n, heads, length, other = *q.shape[:3], k.shape[2] if cache is None else cache.max_length
        fix = "Check the mask."
        if cache is not None:
            fix = f"With a cache masks are as wide as that is long: max_length={other}."
        attn = check_mask(attn, ((length, other), (n * heads, length, other)), _NAME, "attn_mask", fix)
        shape = (other,) if unbatched else (n, other)
        padding = check_mask(padding, (shape,), _NAME, "key_padding_mask", fix)
        return padding[None] if unbatched and padding is not None else padding, attn

    def extra_repr(self) -> str:
        wide = "".join(
            f", {name}={args.show(weight.shape[1])}"
            for name, weight in (("kdim", self.k_proj_weight), ("vdim", self.v_proj_weight))
            if weight is not None
        )
        flags = "" if self.in_proj_bias is not None else ", bias=False"
        flags += "" if self.bias_k is None else ", add_bias_kv=True"
        rest = args.options(self, dropout=0.0, add_zero_attn=False, batch_first=False)
        return f"{args.show(self.embed_dim)}, num_heads={self.num_heads}{wide}{flags}{rest}"


def _flag(value: Any, argument: str) -> bool:
    return args.flag(value, _NAME, argument)


def open_linear(outputs: int | None, inputs: int | None, *, bias: bool, dtype: Any, bias_init: Any = None) -> Linear:
    """A dense layer whose number of outputs may not be known; the layer that holds it calls ``fill_outputs``."""
    layer = Linear(1, bias=False, dtype=dtype)
    layer.weight = Parameter(shape=(outputs, inputs), dtype=dtype, init=fan_in_uniform())
    if bias:
        init = fan_in_uniform(layer.weight) if bias_init is None else bias_init
        layer.bias = Parameter(shape=(outputs,), dtype=dtype, init=init)
    return layer


def fill_outputs(layer: Linear, outputs: int) -> None:
    """Say how many outputs a dense layer has."""
    layer.weight.shape = (outputs, None)
    if layer.bias is not None:
        layer.bias.shape = (outputs,)
