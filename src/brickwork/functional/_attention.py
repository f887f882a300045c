"""Attention."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..core._jax import varying_alike
from . import _checks as checks
from ._dropout import check_rate, dropout
from ._explicit import left_to_xla

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float

    from ._types import ArrayLike

    _Saved = tuple[Array, Array, Array, Array | None, Array | None, Array]

_NAME = "scaled_dot_product_attention"
_LONG = 1 << 26  # from so many probabilities on, they are computed again in the backward pass
_CHUNK = 1 << 22  # how many probabilities are held at a time then
_FEWEST_ROWS = 64  # of queries, though, so that there is something to multiply
_BLOCK = 64  # queries that see the same keys in causal attention on a CPU
_MOST_BLOCKS = 4  # of them: each is compiled


class _Form(NamedTuple):
    """What is static about one call."""

    full: tuple[Any, ...]  # the shape (*batch, L, S) of the probabilities
    scale: float
    causal: bool
    first: int = 0  # number of the first query, for causality


def scaled_dot_product_attention(
    query: Float[ArrayLike, "*batch l e"],
    key: Float[ArrayLike, "*batch s e"],
    value: Float[ArrayLike, "*batch s ev"],
    attn_mask: Bool[ArrayLike, "*#batch l s"] | Float[ArrayLike, "*#batch l s"] | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    dropout_key: Array | None = None,
) -> Float[Array, "*batch l ev"]:
    r"""Mean of the values, weighted by how well each key fits the query.

    .. math:: Y = \mathrm{dropout}\left(\mathrm{softmax}\left(s \, Q K^T + M\right)\right) V

    The softmax is taken in float32 at least. A query that may see no key at all gets zeros.
    Up to 2**26 probabilities are kept for the backward pass; beyond, they are computed again there,
    some rows at a time, so that memory grows with L + S and not with L * S. On a CPU the gradient is
    available any number of times in reverse mode (forward mode alone is not).

    Args:
        query: :math:`Q`, ``(*, L, E)``; usually ``(N, H, L, E)`` for H heads.
        key: :math:`K`, ``(*, S, E)``.
        value: :math:`V`, ``(*, S, Ev)``.
        attn_mask: :math:`M`, of a shape that broadcasts to ``(*, L, S)``. Booleans: ``True`` takes part.
            Floats are added to the scores.
        dropout_p: the probability of dropping a weight; it applies whenever it isn't zero.
        is_causal: query ``i`` sees the keys ``0`` to ``i`` only. Together with ``attn_mask`` both apply.
        scale: :math:`s`; :math:`1 / \sqrt{E}` when not given.
        enable_gqa: allow fewer heads (axis -3) in ``key`` and ``value`` than in ``query``: neighbouring
            queries share one.
        dropout_key: the random key for dropout.

    Returns:
        Array of shape ``(*, L, Ev)`` and of the dtype of ``query``.

    Raises:
        ShapeMismatchError: the shapes don't fit together.
        TypeError: an argument is not an array of floats, or they have several dtypes; a mask of
            integers; dropout without a random key.
        ValueError: ``dropout_p`` is outside ``[0, 1]``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> x = jnp.ones((2, 8, 5, 16))
        >>> F.scaled_dot_product_attention(x, x, x, is_causal=True).shape
        (2, 8, 5, 16)

    Reference:
        Vaswani et al., "Attention Is All You Need", 2017;
        ``torch.nn.functional.scaled_dot_product_attention``.
    """
    q, k, v = _operands(query, key, value)
    batch, groups = _batch(q, k, v, enable_gqa)
    form = _Form((*batch, q.shape[-2], k.shape[-2]), _scale(scale, q), checks.flag(is_causal, _NAME, "is_causal"))
    mask = _mask(attn_mask, form.full)
    rate = check_rate(dropout_p, _NAME, "dropout_p")
    if rate and dropout_key is None:
        raise TypeError(
            f"{_NAME}: dropout_p={rate} needs a random key. Pass dropout_key=bw.random.key(), or dropout_p=0.0."
        )
    return _attention(q, k, v, mask, dropout_key if rate else None, form=form, groups=groups, rate=rate)


def attention_with_weights(
    query: Array, key: Array, value: Array, attn_mask: Array | None, rate: float, dropout_key: Array | None
) -> tuple[Array, Array]:
    """Return what ``scaled_dot_product_attention`` does, and the weights ``(*, L, S)`` after dropout."""
    q, k, v = _operands(query, key, value)
    batch, _ = _batch(q, k, v, False)
    form = _Form((*batch, q.shape[-2], k.shape[-2]), _scale(None, q), False)
    return _with_weights(q, k, v, _mask(attn_mask, form.full), dropout_key, form=form, rate=rate)


def _operands(query: Any, key: Any, value: Any) -> tuple[Array, Array, Array]:
    named = {"query": query, "key": key, "value": value}
    q, k, v = (checks.to_array(x, _NAME, name) for name, x in named.items())
    for name, x in (("query", q), ("key", k), ("value", v)):
        checks.require_floats(x, _NAME, name)
        if x.dtype != q.dtype:
            raise TypeError(
                f"{_NAME}: {name} is {x.dtype}, but query {q.dtype}. Cast it: {name}.astype(jnp.{q.dtype})."
            )
        if x.ndim < 2:
            checks.shape_error(
                _NAME,
                f"{name} must have at least 2 axes (*, length, features), not {x.ndim}.",
                "Add the missing axes.",
                **{name: x},
            )
    if q.shape[-1] != k.shape[-1]:
        checks.shape_error(
            _NAME,
            f"query and key must have the same number of features (last axis), not {q.shape[-1]} and {k.shape[-1]}.",
            "Project them to one width.",
            query=q,
            key=k,
        )
    if k.shape[-2] != v.shape[-2]:
        checks.shape_error(
            _NAME,
            f"key and value must have the same length (axis -2), not {k.shape[-2]} and {v.shape[-2]}.",
            "Each value belongs to one key; check the data.",
            key=k,
            value=v,
        )
    return q, k, v


def _batch(q: Array, k: Array, v: Array, enable_gqa: Any) -> tuple[tuple[Any, ...], int]:
    """The leading axes of the result, and how many query heads share each head of the keys."""
    shapes = [x.shape[:-2] for x in (q, k, v)]
    if checks.flag(enable_gqa, _NAME, "enable_gqa") and shapes[0] and shapes[1] and shapes[0][-1] != shapes[1][-1]:
        heads, shared = shapes[0][-1], shapes[1][-1]
        if v.ndim < 3 or v.shape[-3] != shared or not shared or heads % shared:
            checks.shape_error(
                _NAME,
                f"with enable_gqa the {heads} heads of query (axis -3) must be a multiple of those of key and value.",
                "Check the number of heads.",
                query=q,
                key=k,
                value=v,
            )
        front = _broadcast([shape[:-1] for shape in shapes], q, k, v)
        return (*front, heads), heads // shared
    return _broadcast(shapes, q, k, v), 1


def _broadcast(shapes: Any, q: Array, k: Array, v: Array) -> tuple[Any, ...]:
    if shapes[0] == shapes[1] == shapes[2]:
        return shapes[0]
    try:
        return jnp.broadcast_shapes(*shapes)
    except ValueError:
        fix = "Check the data; for grouped heads pass enable_gqa=True."
        problem = "the leading axes (all but the last two) of query, key and value must fit together."
    return checks.shape_error(_NAME, problem, fix, query=q, key=k, value=v)


def _scale(scale: Any, q: Array) -> float:
    if scale is None:
        return 1 / math.sqrt(q.shape[-1] or 1)
    if isinstance(scale, (bool, np.bool_)) or not isinstance(scale, (int, float, np.integer, np.floating)):
        raise TypeError(
            f"{_NAME}: scale must be a Python number, got {scale!r}. To scale by an array, scale the query."
        )
    if not math.isfinite(scale):
        raise ValueError(f"{_NAME}: scale must be finite, got {scale!r}.")
    return float(scale)


def _mask(mask: Any, full: tuple[Any, ...]) -> Array | None:
    mask = checks.optional_array(mask, _NAME, "attn_mask")
    if mask is None:
        return None
    if mask.dtype != bool and not jnp.issubdtype(mask.dtype, jnp.floating):
        raise TypeError(
            f"{_NAME}: attn_mask must hold booleans (True takes part) or floats (added to the scores), got "
            f"{checks.describe(mask)}. Cast it: attn_mask.astype(bool)."
        )
    try:
        fits = jnp.broadcast_shapes(mask.shape, full) == full
    except ValueError:
        fits = False
    if not fits:
        checks.shape_error(
            _NAME,
            f"attn_mask must broadcast to {full}, the leading axes, queries and keys.",
            "A mask for each example of a batch needs an axis for the heads: mask[:, None].",
            attn_mask=mask,
        )
    return mask


@functools.partial(jax.jit, static_argnames=("form", "groups", "rate"))
@left_to_xla
def _attention(
    q: Array, k: Array, v: Array, mask: Array | None, key: Array | None, *, form: _Form, groups: int, rate: float
) -> Array:
    q, k, v = _grouped(q, k, v, form.full[:-2], groups)
    count = math.prod(form.full)
    if isinstance(count, int) and count > _LONG:
        out = _in_chunks(form, q, k, v, mask, key, rate)
    elif jax.default_backend() != "cpu" and key is None and k.shape == v.shape:
        out = _stock(form, q, k, v, mask)  # XLA's own pattern, which compilers for other devices know
    else:
        kept = None if key is None else dropout(jnp.ones(form.full, _wide(q)), rate, key)
        q, k, v, mask, kept = varying_alike(q, k, v, mask, kept)
        parts = [_rows(form, q, k, v, mask, kept, *ends) for ends in _row_blocks(form)]
        out = parts[0] if len(parts) == 1 else jnp.concatenate(parts, 2)
    return out.reshape(*form.full[:-1], v.shape[-1])


def _grouped(q: Array, k: Array, v: Array, batch: tuple[Any, ...], groups: int) -> tuple[Array, Array, Array]:
    """Bring the queries to ``(B, groups, L, E)``, keys and values to ``(B, S, E)``."""
    shared = batch if groups == 1 else (*batch[:-1], batch[-1] // groups)
    size = math.prod(shared)
    q = jnp.broadcast_to(q, (*batch, *q.shape[-2:])).reshape(size, groups, *q.shape[-2:])
    k, v = (jnp.broadcast_to(x, (*shared, *x.shape[-2:])).reshape(size, *x.shape[-2:]) for x in (k, v))
    return q, k, v


def _row_blocks(form: _Form) -> list[tuple[int, int]]:
    """Where blocks of queries begin and end: several, if each may leave out keys that come later."""
    length = form.full[-2]
    if not (form.causal and all(isinstance(n, int) for n in form.full[-2:])):
        return [(0, length)]
    size = max(_BLOCK, -(-length // _MOST_BLOCKS))
    return [(start, min(start + size, length)) for start in range(0, length, size)] or [(0, length)]


def _rows(
    form: _Form, q: Array, k: Array, v: Array, mask: Array | None, kept: Array | None, start: Any, stop: Any
) -> Array:
    """Attention of some of the queries, to as many keys as they may see."""
    size, groups, _, width = q.shape
    if (start, stop) != (0, form.full[-2]):
        end = min(stop, form.full[-1])
        form = form._replace(full=(*form.full[:-2], stop - start, end), first=start)
        q, k, v = q[:, :, start:stop], k[:, :end], v[:, :end]
        mask, kept = (None if m is None else _cut(m, slice(start, stop), slice(0, end)) for m in (mask, kept))
    floats, bools = (None, mask) if mask is None or mask.dtype == bool else (mask, None)
    core = _attend if jax.default_backend() == "cpu" else _attend_plain
    out = core(form, q.reshape(size, groups * (stop - start), width), k, v, floats, bools, kept)
    return out.reshape(size, groups, stop - start, v.shape[-1])


def _cut(mask: Array, rows: slice, columns: slice) -> Array:
    """Some rows and columns of a mask, which may be broadcast along either."""
    if mask.ndim and mask.shape[-1] > 1:
        mask = mask[..., columns]
    return mask[..., rows, :] if mask.ndim > 1 and mask.shape[-2] > 1 else mask


def _wide(x: Array) -> Any:
    return checks.statistics_dtype(x.dtype)


def _product(a: Array, b: Array, contract: tuple[int, int]) -> Array:
    """Products of the matrices in two batches, over one axis of each."""
    return lax.dot_general(
        a, b, (((contract[0],), (contract[1],)), ((0,), (0,))), preferred_element_type=checks.statistics_dtype(a.dtype)
    )


def _probabilities(form: _Form, q: Array, k: Array, mask: Array | None, first: Any = None) -> Array:
    """Return the softmax of the scores, ``form.full``; rows begin at number ``first`` for causality."""
    s = _product(q, k, (2, 2)).reshape(form.full) * form.scale
    if mask is not None:
        s = jnp.where(mask, s, -jnp.inf) if mask.dtype == bool else s + mask.astype(s.dtype)
    if form.causal:
        rows, columns = (lax.broadcasted_iota(jnp.int32, form.full[-2:], axis) for axis in (0, 1))
        s = s + jnp.where(columns <= rows + (form.first if first is None else first), 0, -jnp.inf).astype(s.dtype)
    # Where everything is masked, all exponentials are zero. Elsewhere their sum is 1 at least, so the two limits
    # change nothing; a comparison with -inf would keep XLA from fusing the passes over the scores.
    top = lax.stop_gradient(s.max(-1, keepdims=True, initial=jnp.finfo(s.dtype).min))
    p = jnp.exp(s - top)
    return p / jnp.maximum(p.sum(-1, keepdims=True), 0.5)


def _attend_plain(
    form: _Form, q: Array, k: Array, v: Array, floats: Array | None, bools: Array | None, kept: Array | None
) -> Array:
    return _attend_forward(form, q, k, v, floats, bools, kept)[0]


def _attend_forward(
    form: _Form, q: Array, k: Array, v: Array, floats: Array | None, bools: Array | None, kept: Array | None
) -> tuple[Array, tuple[Any, ...]]:
    p = _probabilities(form, q, k, bools if floats is None else floats)
    weights = (p if kept is None else p * kept).reshape(*q.shape[:2], k.shape[1])
    out = _product(weights.astype(v.dtype), v, (2, 1)).astype(v.dtype)
    return out, (q, k, v, floats, kept, p)


def _attend_backward(form: _Form, saved: _Saved, dout: Array) -> tuple[Array | None, ...]:
    """Return the gradients from the probabilities; no operand of a product is transposed."""
    q, k, v, floats, kept, p = saved
    flat = (*q.shape[:2], k.shape[1])
    weights = (p if kept is None else p * kept).reshape(flat)
    dv = _product(weights.astype(v.dtype), dout, (1, 1))
    dp = _product(dout, v, (2, 2)).reshape(form.full)
    if kept is not None:
        dp = dp * kept
    ds = p * (dp - (dp * p).sum(-1, keepdims=True))
    dmask = None if floats is None else _sum_to(ds, floats.shape).astype(floats.dtype)
    scaled = (ds * form.scale).reshape(flat).astype(q.dtype)
    dq, dk = _product(scaled, k, (2, 1)), _product(scaled, q, (1, 1))
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), dmask, None, None


def _sum_to(x: Array, shape: tuple[Any, ...]) -> Array:
    """Add up over the axes along which ``shape`` was broadcast."""
    front = x.ndim - len(shape)
    repeated = [front + i for i, n in enumerate(shape) if n != x.shape[front + i]]
    return x.sum((*range(front), *repeated), keepdims=True).reshape(shape)


_attend = jax.custom_vjp(_attend_plain, nondiff_argnums=(0,))
_attend.defvjp(_attend_forward, _attend_backward)


@functools.partial(jax.jit, static_argnames=("form", "rate"))
@left_to_xla
def _with_weights(
    q: Array, k: Array, v: Array, mask: Array | None, key: Array | None, *, form: _Form, rate: float
) -> tuple[Array, Array]:
    q, k, v = _grouped(q, k, v, form.full[:-2], 1)
    p = _probabilities(form, q[:, 0], k, mask)
    if key is not None:
        p = dropout(p, rate, key)
    weights = p.astype(v.dtype)
    out = _product(weights.reshape(q.shape[0], q.shape[2], k.shape[1]), v, (2, 1)).astype(v.dtype)
    return out.reshape(*form.full[:-1], v.shape[-1]), weights


def _stock(form: _Form, q: Array, k: Array, v: Array, mask: Array | None) -> Array:
    """JAX's attention. It spreads the weight of a query that sees nothing evenly; here that query gets zeros."""
    shape = (q.shape[0], q.shape[1], *form.full[-2:])
    bias = None
    if mask is not None:
        mask = jnp.broadcast_to(mask, form.full).reshape(shape)
        if mask.dtype != bool:
            seen = mask != -jnp.inf
            bias, mask = jnp.where(seen, mask, 0).astype(q.dtype), seen
    heads_inside = q.transpose(0, 2, 1, 3), k[:, :, None], v[:, :, None]
    out = jax.nn.dot_product_attention(*heads_inside, bias, mask, scale=form.scale, is_causal=form.causal)
    out = out.transpose(0, 2, 1, 3)
    if mask is None:
        return out
    if form.causal:
        mask = mask & jnp.tri(shape[2], shape[3], dtype=bool)
    return jnp.where(mask.any(-1, keepdims=True), out, 0)


def _in_chunks(form: _Form, q: Array, k: Array, v: Array, mask: Array | None, key: Array | None, rate: float) -> Array:
    """Some rows of queries at a time; the backward pass computes the probabilities of each chunk again."""
    size, groups, length, width = q.shape
    per_row = math.prod(form.full) // length
    rows = min(length, max(_CHUNK // per_row, _FEWEST_ROWS))
    count = -(-length // rows)
    padding = count * rows - length
    q = jnp.pad(q, ((0, 0), (0, 0), (0, padding), (0, 0)))
    split_mask = mask is not None and mask.ndim > 1 and mask.shape[-2] > 1
    if mask is not None and split_mask:
        mask = jnp.pad(mask, (*[(0, 0)] * (mask.ndim - 2), (0, padding), (0, 0)), constant_values=0)
    part = form._replace(full=(*form.full[:-2], rows, form.full[-1]))

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def chunk(number: Array) -> Array:
        first = number * rows
        some = lax.dynamic_slice_in_dim(q, first, rows, 2).reshape(size, groups * rows, width)
        here = lax.dynamic_slice_in_dim(mask, first, rows, -2) if split_mask and mask is not None else mask
        p = _probabilities(part, some, k, here, first)
        if key is not None:
            p = dropout(p, rate, jax.random.fold_in(key, number))
        weights = p.reshape(size, groups * rows, k.shape[1]).astype(v.dtype)
        return _product(weights, v, (2, 1)).astype(v.dtype).reshape(size, groups, rows, v.shape[-1])

    out = jnp.moveaxis(lax.map(chunk, jnp.arange(count, dtype=jnp.int32)), 0, 2)
    return out.reshape(size, groups, count * rows, v.shape[-1])[:, :, :length]
