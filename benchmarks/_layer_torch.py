"""The layers of layers.py in PyTorch, eager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from _layer_data import classes, data, output_gradient

_TARGETS = torch.from_numpy(classes().astype("int64"))


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(256, 8, batch_first=True)
        self.mask = nn.Transformer.generate_square_subsequent_mask(128)

    def forward(self, x: Any) -> Any:
        return self.attention(x, x, x, need_weights=False, attn_mask=self.mask, is_causal=True)[0]


class First(nn.Module):
    """A layer's first result."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        return self.layer(x)[0]


class Loss(nn.Module):
    """Cross-entropy with fixed targets."""

    def forward(self, x: Any) -> Any:
        return F.cross_entropy(x, _TARGETS)


class LinearLoss(nn.Module):
    """Cross-entropy of many classes, behind its dense layer; ``LinearCrossEntropyLoss`` takes longer on CPUs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(256, 32_000, bias=False)

    def forward(self, x: Any) -> Any:
        return F.cross_entropy(self.linear(x), _TARGETS)


LAYERS: dict[str, Callable[[], Any]] = {
    "linear": lambda: nn.Linear(256, 1024),
    "conv3x3": lambda: nn.Conv2d(64, 64, 3, padding=1),
    "conv1x1": lambda: nn.Conv2d(128, 128, 1),
    "conv5x5": lambda: nn.Conv2d(1, 6, 5, padding=2),
    "depthwise": lambda: nn.Conv2d(64, 64, 3, padding=1, groups=64),
    "transposed": lambda: nn.ConvTranspose2d(64, 32, 2, 2),
    "max-pool": lambda: nn.MaxPool2d(2),
    "max-pool-overlapping": lambda: nn.MaxPool2d(3, 2),
    "avg-pool": lambda: nn.AvgPool2d(2),
    "batch-norm": lambda: nn.BatchNorm2d(64),
    "group-norm": lambda: nn.GroupNorm(8, 64),
    "layer-norm": lambda: nn.LayerNorm(256),
    "rms-norm": lambda: nn.RMSNorm(256),
    "attention": Attention,
    "lstm": lambda: First(nn.LSTM(128, 256, batch_first=True)),
    "gru": lambda: First(nn.GRU(128, 256, batch_first=True)),
    "embedding": lambda: nn.Embedding(10_000, 256),
    "dropout": lambda: nn.Dropout(0.1),
    "gelu": nn.GELU,
    "cross-entropy": Loss,
    "linear-cross-entropy": LinearLoss,
}


def make(work: str) -> Callable[[], Any]:
    """One call of a layer, or a call and its gradients by input and parameters."""
    name, mode = work.split("/")
    torch.manual_seed(0)
    layer = LAYERS[name]()
    x = torch.from_numpy(data(name))
    if name == "embedding":
        x = x.long()
    if mode == "forward":

        def forward() -> None:
            with torch.no_grad():
                layer(x)

        return forward
    if x.is_floating_point():
        x.requires_grad_()

    dy = torch.from_numpy(output_gradient(tuple(layer(x).shape)))

    def backward() -> None:
        x.grad = None
        layer.zero_grad()
        layer(x).backward(dy)

    return backward
