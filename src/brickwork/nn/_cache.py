"""Keys and values of earlier positions, for decoding step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ..core import Buffer
from ..core._arrays import check_dtype
from ..core._jax import Tracer
from ..functional import _checks as checks
from ..functional._multihead import update_cache
from ..module import Module
from . import _args as args

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float


class KVCache(Module):
    r"""Keys and values of the positions so far, so that each new one attends to them without computing them again.

    .. math:: K_{t:t+T} \gets k, \quad V_{t:t+T} \gets v, \quad t \gets t + T

    The arrays have one size from the start, so a compiled step is compiled once for all positions. A cache
    belongs to one layer of attention and to one batch of sequences; two layers that used the same one would find each
    other's keys in it. It is not saved with the network.

    Prompts of several lengths are padded on the left, so that all sequences go on at the same place. The padding is
    hidden by a ``key_padding_mask`` of ``(N, max_length)``, the same at each step, ``True`` at what is padding.

    Args:
        max_length: how many positions there is room for.
        dtype: in which keys and values are kept; a floating-point dtype.

    Shape:
        keys and values ``(N, H, T, D)`` and ``(N, H, T, Dv)`` of T new positions to all keys
        ``(N, H, max_length, D)``, all values ``(N, H, max_length, Dv)``, and a mask ``(T, max_length)``:
        ``True`` where a new position may look, at the earlier ones and itself. They go into
        ``functional.scaled_dot_product_attention`` as they are. H may be fewer heads than those of the queries
        (``enable_gqa``).

    Parameters:
        key: buffer ``(N, H, max_length, D)``, zeros.
        value: buffer ``(N, H, max_length, Dv)``, zeros.
        length: buffer ``()``, int32, the number of positions so far.

    Raises:
        ShapeMismatchError: the arrays have other sizes than those before.
        TypeError: ``dtype`` is not a floating-point dtype.
        ValueError: the cache is full. Inside of a compiled function or of ``bw.scan``, which can't raise, what
            doesn't fit is NaN, and so is what is computed from it.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> cache = nn.KVCache(16)
        >>> keys, values, mask = cache.update(jnp.ones((2, 4, 3, 8)), jnp.ones((2, 4, 3, 8)))
        >>> keys.shape, mask.shape, int(cache.length)
        ((2, 4, 16, 8), (3, 16), 3)
        >>> cache.reset()
        >>> int(cache.length)
        0

        Two prompts, of 2 and of 3 tokens:

        >>> attend, cache = nn.MultiheadAttention(4, batch_first=True), nn.KVCache(16)
        >>> padding = jnp.arange(16) < jnp.array([[1], [0]])
        >>> for x in (jnp.ones((2, 3, 8)), jnp.ones((2, 1, 8))):
        ...     y, _ = attend(x, x, x, padding, cache=cache)
        >>> y.shape, int(cache.length)
        ((2, 1, 8), 4)
    """

    def __init__(self, max_length: int, *, dtype: Any = jnp.float32) -> None:
        size = args.size(max_length, "KVCache", "max_length")
        if not jnp.issubdtype(kept := check_dtype(dtype, "KVCache"), jnp.floating):
            raise TypeError(f"KVCache: dtype must be a floating-point dtype, such as jnp.bfloat16, got {kept.name}.")
        self.key = Buffer(shape=(None, None, size, None), dtype=dtype, persistent=False)
        self.value = Buffer(shape=(None, None, size, None), dtype=dtype, persistent=False)
        self.length = Buffer(jnp.zeros((), jnp.int32), persistent=False)

    @property
    def max_length(self) -> int:
        """How many positions there is room for."""
        return self.key.shape[-2]

    def build(self, key: Any, value: Any) -> None:
        """Take the sizes of batch, heads and features from the first keys and values."""
        for name, x, kept in (("key", key, self.key), ("value", value, self.value)):
            shape = checks.shape_of(x, "KVCache", name)
            self._require_axes(name, x)
            kept.shape = (*shape[:2], None, shape[3])

    def update(
        self, key: Float[Array, "n h t d"], value: Float[Array, "n h t dv"]
    ) -> tuple[Float[Array, "n h m d"], Float[Array, "n h m dv"], Bool[Array, "t m"]]:
        """Keep new keys and values; return all of them, and where each new position may look."""
        return self(key, value)

    def forward(self, key: Any, value: Any) -> tuple[Array, Array, Array]:
        """Do what ``update`` does."""
        key, value = checks.to_array(key, "KVCache", "key"), checks.to_array(value, "KVCache", "value")
        for name, x, kept in (("key", key, self.key), ("value", value, self.value)):
            checks.require_floats(x, "KVCache", name)
            self._require_axes(name, x)
            expected = (*kept.shape[:2], key.shape[2], kept.shape[3])
            if x.shape != expected:
                checks.shape_error(
                    "KVCache",
                    f"{name} must have shape {expected}, as the cache has seen before.",
                    "Make a new nn.KVCache for another batch.",
                    **{name: x},
                )
        length, count = self.length.value, key.shape[2]
        known = 0 if isinstance(length, Tracer) else int(length)
        if known + count > self.max_length:
            raise ValueError(
                f"KVCache: no room for {count} more positions after {known}: max_length is {self.max_length}. "
                "Make a larger cache, or begin anew with cache.reset()."
            )
        self.key.value, self.value.value, self.length.value, mask = update_cache(
            self.key.value, self.value.value, length, key, value
        )
        return self.key.value.astype(key.dtype), self.value.value.astype(value.dtype), mask

    def _require_axes(self, name: str, x: Any) -> None:
        rank = len(checks.shape_of(x, "KVCache", name))
        if rank != 4:
            problem = f"{name} must have 4 axes (N, H, T, D), not {rank}."
            checks.shape_error("KVCache", problem, "Split the heads, and add a batch axis.", **{name: x})

    def reset(self) -> None:
        """Forget all positions; the next ones are the first."""
        self.length.value = jnp.zeros_like(self.length.value)  # several of them in a stack
        for kept in (self.key, self.value):  # NaN, where there was no room, would go through the mask
            if None not in kept.shape:
                kept.value = jnp.zeros_like(kept.value)

    def extra_repr(self) -> str:
        n, heads, size, width = (args.show(i) for i in self.key.shape)
        return f"({n}, {heads}, {size}, {width})"
