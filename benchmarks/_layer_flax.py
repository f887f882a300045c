"""The layers of layers.py in Flax NNX, compiled; those that it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from _layer_data import classes, data, output_gradient

_TARGETS = classes()


class Attention(nnx.Module):
    """Causal self-attention."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.attention = nnx.MultiHeadAttention(8, 256, decode=False, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.attention(x, mask=nnx.make_causal_mask(x[..., 0]))


class Plain(nnx.Module):
    """A function."""

    def __init__(self, fn: Callable[[Any], Any]) -> None:
        self.fn = fn

    def __call__(self, x: Any) -> Any:
        return self.fn(x)


class LinearLoss(nnx.Module):
    """Cross-entropy of many classes, behind its dense layer."""

    def __init__(self, rngs: Any) -> None:
        self.linear = nnx.Linear(256, 32_000, use_bias=False, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(self.linear(x), _TARGETS).mean()


LAYERS: dict[str, Callable[[Any], Any]] = {
    "linear": lambda r: nnx.Linear(256, 1024, rngs=r),
    "conv3x3": lambda r: nnx.Conv(64, 64, (3, 3), padding=1, rngs=r),
    "conv1x1": lambda r: nnx.Conv(128, 128, (1, 1), rngs=r),
    "conv5x5": lambda r: nnx.Conv(1, 6, (5, 5), padding=2, rngs=r),
    "depthwise": lambda r: nnx.Conv(64, 64, (3, 3), padding=1, feature_group_count=64, rngs=r),
    "transposed": lambda r: nnx.ConvTranspose(64, 32, (2, 2), 2, padding="VALID", rngs=r),
    "max-pool": lambda r: Plain(lambda x: nnx.max_pool(x, (2, 2), (2, 2))),
    "max-pool-overlapping": lambda r: Plain(lambda x: nnx.max_pool(x, (3, 3), (2, 2))),
    "avg-pool": lambda r: Plain(lambda x: nnx.avg_pool(x, (2, 2), (2, 2))),
    "batch-norm": lambda r: nnx.BatchNorm(64, momentum=0.9, rngs=r),
    "group-norm": lambda r: nnx.GroupNorm(64, 8, rngs=r),
    "layer-norm": lambda r: nnx.LayerNorm(256, rngs=r),
    "rms-norm": lambda r: nnx.RMSNorm(256, rngs=r),
    "attention": Attention,
    "lstm": lambda r: nnx.RNN(nnx.OptimizedLSTMCell(128, 256, rngs=r)),
    "gru": lambda r: nnx.RNN(nnx.GRUCell(128, 256, rngs=r)),
    "embedding": lambda r: nnx.Embed(10_000, 256, rngs=r),
    "dropout": lambda r: nnx.Dropout(0.1, rngs=r),
    "gelu": lambda r: Plain(lambda x: nnx.gelu(x, approximate=False)),
    "cross-entropy": lambda r: Plain(lambda x: optax.softmax_cross_entropy_with_integer_labels(x, _TARGETS).mean()),
    "linear-cross-entropy": LinearLoss,
}


def make(work: str) -> Callable[[], Any]:
    """One call of a layer, or a call and its gradients by input and parameters."""
    name, mode = work.split("/")
    layer = LAYERS[name](nnx.Rngs(0))
    x = jnp.asarray(data(name))
    if x.ndim == 4:
        x = jnp.transpose(x, (0, 2, 3, 1))
    if mode == "forward":
        call = nnx.cached_partial(nnx.jit(lambda layer, x: layer(x)), layer)
        return lambda: jax.block_until_ready(call(x))
    argnums = 0 if x.dtype != jnp.float32 else (0, 1)

    dy = jnp.asarray(output_gradient(layer(x).shape))

    def weighted(layer: Any, x: Any, dy: Any) -> Any:
        y = layer(x)
        return (y * dy).sum(), y

    def gradients(layer: Any, x: Any, dy: Any) -> Any:
        return nnx.grad(weighted, argnums=argnums, has_aux=True)(layer, x, dy)

    backward = nnx.cached_partial(nnx.jit(gradients), layer)
    return lambda: jax.block_until_ready(backward(x, dy))
