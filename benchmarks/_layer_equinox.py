"""The layers of layers.py in Equinox, compiled; those that it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from equinox import nn

from _layer_data import classes, data, output_gradient

_TARGETS = classes()
_KEY = jax.random.key(0)


class Causal(eqx.Module):
    """Causal self-attention."""

    attention: Any

    def __call__(self, x: Any) -> Any:
        return self.attention(x, x, x, mask=jnp.tril(jnp.ones((len(x), len(x)), bool)))


class Unrolled(eqx.Module):
    """A recurrent cell over a sequence."""

    cell: Any
    start: Any

    def __call__(self, x: Any) -> Any:
        def step(state: Any, v: Any) -> Any:
            state = self.cell(v, state)
            return state, state[0] if isinstance(state, tuple) else state

        return jax.lax.scan(step, self.start, x)[1]


def _attention() -> Any:
    bias = dict.fromkeys(("use_query_bias", "use_key_bias", "use_value_bias", "use_output_bias"), True)
    return Causal(nn.MultiheadAttention(8, 256, **bias, key=_KEY))


ZEROS = jnp.zeros(256)
# The layer, and over how many leading axes it is mapped; the cross-entropy is not.
LAYERS: dict[str, tuple[Callable[[], Any], int]] = {
    "linear": (lambda: nn.Linear(256, 1024, key=_KEY), 2),
    "conv3x3": (lambda: nn.Conv2d(64, 64, 3, padding=1, key=_KEY), 1),
    "conv1x1": (lambda: nn.Conv2d(128, 128, 1, key=_KEY), 1),
    "conv5x5": (lambda: nn.Conv2d(1, 6, 5, padding=2, key=_KEY), 1),
    "depthwise": (lambda: nn.Conv2d(64, 64, 3, padding=1, groups=64, key=_KEY), 1),
    "transposed": (lambda: nn.ConvTranspose2d(64, 32, 2, 2, key=_KEY), 1),
    "max-pool": (lambda: nn.MaxPool2d(2, 2), 1),
    "max-pool-overlapping": (lambda: nn.MaxPool2d(3, 2), 1),
    "avg-pool": (lambda: nn.AvgPool2d(2, 2), 1),
    "group-norm": (lambda: nn.GroupNorm(8, 64), 1),
    "layer-norm": (lambda: nn.LayerNorm(256), 2),
    "rms-norm": (lambda: nn.RMSNorm(256), 2),
    "attention": (_attention, 1),
    "lstm": (lambda: Unrolled(nn.LSTMCell(128, 256, key=_KEY), (ZEROS, ZEROS)), 1),
    "gru": (lambda: Unrolled(nn.GRUCell(128, 256, key=_KEY), ZEROS), 1),
    "embedding": (lambda: nn.Embedding(10_000, 256, key=_KEY), 2),
    "gelu": (lambda: nn.Lambda(lambda x: jax.nn.gelu(x, approximate=False)), 0),
    "dropout": (lambda: nn.Lambda(lambda x: nn.Dropout(0.1)(x, key=_KEY)), 0),
    "cross-entropy": (
        lambda: nn.Lambda(lambda x: optax.softmax_cross_entropy_with_integer_labels(x, _TARGETS).mean()),
        0,
    ),
}


def make(work: str) -> Callable[[], Any] | None:
    """One call of a layer, or a call and its gradients by input and parameters."""
    name, mode = work.split("/")
    if name not in LAYERS:
        return None
    build, axes = LAYERS[name]
    layer, x = build(), jnp.asarray(data(name))

    def apply(layer: Any, x: Any) -> Any:
        call = layer
        for _ in range(axes):
            call = jax.vmap(call)
        return call(x)

    if mode == "forward":
        forward = eqx.filter_jit(apply)
        return lambda: jax.block_until_ready(forward(layer, x))
    dy = jnp.asarray(output_gradient(apply(layer, x).shape))

    def weighted(both: Any, dy: Any) -> Any:
        y = apply(*both)
        return (y * dy).sum(), y

    gradients = eqx.filter_jit(eqx.filter_grad(weighted, has_aux=True))
    return lambda: jax.block_until_ready(gradients((layer, x), dy))
