"""The layers of layers.py in brickwork, compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import brickwork as bw
from _layer_data import classes, data, output_gradient
from _workers import ONEDNN
from brickwork import losses, nn

_TARGETS = classes()


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self) -> None:
        self.attention = nn.MultiheadAttention(8, batch_first=True)
        self.mask = nn.Transformer.generate_square_subsequent_mask(128)

    def forward(self, x: Any) -> Any:
        """Attend."""
        return self.attention(x, x, x, need_weights=False, attn_mask=self.mask, is_causal=True)[0]


class First(nn.Module):
    """A layer's first result."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def forward(self, x: Any) -> Any:
        """Call it."""
        return self.layer(x)[0]


class Loss(nn.Module):
    """Cross-entropy with fixed targets."""

    def forward(self, x: Any) -> Any:
        """Compute it."""
        return losses.cross_entropy(x, _TARGETS)


class LinearLoss(nn.Module):
    """Cross-entropy of many classes, with its dense layer."""

    def __init__(self) -> None:
        self.loss = nn.LinearCrossEntropyLoss(32_000)

    def forward(self, x: Any) -> Any:
        """Compute it."""
        return self.loss(x, _TARGETS)


LAYERS: dict[str, Callable[[], Any]] = {
    "linear": lambda: nn.Linear(1024),
    "conv3x3": lambda: nn.Conv2d(64, 3, padding=1),
    "conv1x1": lambda: nn.Conv2d(128, 1),
    "conv5x5": lambda: nn.Conv2d(6, 5, padding=2),
    "depthwise": lambda: nn.Conv2d(64, 3, padding=1, groups=64),
    "transposed": lambda: nn.ConvTranspose2d(32, 2, stride=2),
    "max-pool": lambda: nn.MaxPool2d(2),
    "max-pool-overlapping": lambda: nn.MaxPool2d(3, 2),
    "avg-pool": lambda: nn.AvgPool2d(2),
    "batch-norm": nn.BatchNorm2d,
    "group-norm": lambda: nn.GroupNorm(8),
    "layer-norm": nn.LayerNorm,
    "rms-norm": lambda: nn.RMSNorm(),
    "attention": Attention,
    "lstm": lambda: First(nn.LSTM(256, batch_first=True)),
    "gru": lambda: First(nn.GRU(256, batch_first=True)),
    "embedding": lambda: nn.Embedding(10_000, 256),
    "dropout": lambda: nn.Dropout(0.1),
    "gelu": nn.GELU,
    "cross-entropy": Loss,
    "linear-cross-entropy": LinearLoss,
}


def make(work: str) -> Callable[[], Any]:
    """One call of a layer, or a call and its gradients by input and parameters."""
    name, mode = work.split("/")
    layer = LAYERS[name]()
    x = jnp.asarray(data(name))
    if mode == "forward":
        call = bw.compile(layer, onednn=ONEDNN)
        return lambda: call(x).block_until_ready()
    dy = jnp.asarray(output_gradient(layer(x).shape))
    wrt = [*([layer] if layer.parameters() else []), *([0] if x.dtype == jnp.float32 else [])]
    backward = bw.compile(bw.grad(lambda x, dy: (((y := layer(x)) * dy).sum(), y), wrt, has_aux=True), onednn=ONEDNN)
    return lambda: jax.block_until_ready(backward(x, dy))
