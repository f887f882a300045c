"""What multi-head attention does around the attention itself: heads, masks, and a cache of keys and values."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from . import _checks as checks
from ._explicit import entries, left_to_xla, parts_of

if TYPE_CHECKING:
    from jaxtyping import Array


@functools.partial(jax.jit, static_argnames=("heads", "parts", "batch_first"))
def split_heads(x: Array, *, heads: int, parts: int, batch_first: bool) -> tuple[Array, ...]:
    """Cut projections ``(N, T, parts * E)``, or ``(T, N, parts * E)``, into arrays ``(N, heads, T, E / heads)``."""
    return _split(x if batch_first else x.swapaxes(0, 1), heads=heads, parts=parts)


def _as_heads(y: Any, args: tuple[Any, ...]) -> list[Any]:
    """How ``_split`` divides its results: heads as features."""
    batch, time, features = entries(args[0])
    return [batch, features if y.shape[1] % parts_of(features, args[0]) == 0 else None, time]


@functools.partial(left_to_xla, divided=_as_heads)
def _split(x: Array, *, heads: int, parts: int) -> tuple[Array, ...]:
    cut = x.reshape(*x.shape[:2], parts, heads, x.shape[2] // (parts * heads)).transpose(2, 0, 3, 1, 4)
    return tuple(cut[i] for i in range(parts))


@functools.partial(jax.jit, static_argnames="batch_first")
def merge_heads(x: Array, *, batch_first: bool) -> Array:
    """Bring ``(N, heads, T, D)`` to ``(N, T, heads * D)``, or to ``(T, N, heads * D)``."""
    merged = _merge(x)
    return merged if batch_first else merged.swapaxes(0, 1)


def _as_features(_: Any, args: tuple[Any, ...]) -> list[Any]:
    """How ``_merge`` divides its result: features as heads."""
    batch, heads, time, _ = entries(args[0])
    return [batch, time, heads]


@functools.partial(left_to_xla, divided=_as_features)
def _merge(x: Array) -> Array:
    n, heads, length, width = x.shape
    return x.transpose(0, 2, 1, 3).reshape(n, length, heads * width)


@functools.partial(jax.jit, static_argnames="zeros")
@left_to_xla
def extend(k: Array, v: Array, bias_k: Array | None, bias_v: Array | None, *, zeros: bool) -> tuple[Array, Array]:
    """Add one more key and value ``(heads, 1, D)`` to each sequence of ``(N, heads, S, D)``, and one of zeros."""

    def longer(x: Array, bias: Array | None) -> Array:
        one = (*x.shape[:2], 1, x.shape[3])
        more = [] if bias is None else [jnp.broadcast_to(bias.astype(x.dtype), one)]
        return jnp.concatenate([x, *more, *([jnp.zeros(one, x.dtype)] if zeros else [])], 2)

    return longer(k, bias_k), longer(v, bias_v)


def check_mask(
    mask: Any, shapes: tuple[tuple[Any, ...], ...], function: str, argument: str, fix: str = "Check the mask."
) -> Array | None:
    """Return a mask of booleans or floats that has one of some shapes."""
    mask = checks.optional_array(mask, function, argument)
    if mask is None:
        return None
    if mask.dtype != bool and not jnp.issubdtype(mask.dtype, jnp.floating):
        raise TypeError(
            f"{function}: {argument} must hold booleans (True is ignored) or floats (added to the scores), got "
            f"{checks.describe(mask)}. Cast it: {argument}.astype(bool)."
        )
    if mask.shape not in shapes:
        expected = " or ".join(map(str, shapes))
        checks.shape_error(function, f"{argument} must have shape {expected}.", fix, **{argument: mask})
    return mask


@functools.partial(jax.jit, static_argnames=("heads", "extra"))
def merge_masks(
    padding: Array | None, attn: Array | None, visible: Array | None, *, heads: int, extra: int
) -> Array | None:
    """Return one mask for ``scaled_dot_product_attention`` out of those of multi-head attention.

    ``padding`` is ``(N, S)`` and ``attn`` ``(L, S)`` or ``(N * heads, L, S)``; in these ``True`` is ignored. In
    ``visible``, ``(L, S)``, and in the result it takes part. ``extra`` keys after the others are always seen.
    """
    masks = [] if visible is None else [visible]
    if attn is not None:
        attn = ~attn if attn.dtype == bool else attn
        masks += [attn if attn.ndim == 2 else attn.reshape(attn.shape[0] // heads, heads, *attn.shape[1:])]
    if padding is not None:
        masks += [(~padding if padding.dtype == bool else padding)[:, None, None]]
    if not masks:
        return None
    merged = functools.reduce(_both, masks)
    if not extra:
        return merged
    always = jnp.full((*merged.shape[:-1], extra), True if merged.dtype == bool else 0, merged.dtype)
    return jnp.concatenate([merged, always], -1)


def _both(a: Array, b: Array) -> Array:
    """Two masks in which ``True`` takes part as one: of booleans if both are, else of floats."""
    if a.dtype == bool and b.dtype == bool:
        return a & b
    wide = [m.dtype for m in (a, b) if m.dtype != bool]
    dtype = max(wide, key=lambda d: d.itemsize)
    a, b = (jnp.where(m, 0, -jnp.inf).astype(dtype) if m.dtype == bool else m.astype(dtype) for m in (a, b))
    return a + b


@jax.jit
@left_to_xla
def update_cache(
    keys: Array, values: Array, length: Array, key: Array, value: Array
) -> tuple[Array, Array, Array, Array]:
    """Write new keys and values ``(N, H, T, D)`` after the first ``length`` of those kept, ``(N, H, M, D)``.

    Returns:
        The new ``(keys, values, length)``, and for each new position which of the ``M`` it may see, ``(T, M)``.
        Where there is no room, the new ones are NaN.
    """
    count, room = key.shape[2], keys.shape[2]
    end = length + jnp.int32(count)

    def write(kept: Array, new: Array) -> Array:
        new = jnp.where(end > room, jnp.nan, new.astype(kept.dtype))
        return lax.dynamic_update_slice_in_dim(kept, new, length, 2)

    position = lax.broadcasted_iota(jnp.int32, (count, room), 1)
    last = length + lax.broadcasted_iota(jnp.int32, (count, room), 0)
    return write(keys, key), write(values, value), end, position <= last
