"""The layers of layers.py and the shapes of their inputs, the same for all libraries."""

from __future__ import annotations

import numpy as np

# name: (title, shape of the input); images are channels-first, and turned where a library has them otherwise
LAYERS: dict[str, tuple[str, tuple[int, ...]]] = {
    "linear": ("Linear 256 to 1024, 8x128 rows", (8, 128, 256)),
    "conv3x3": ("Conv2d 64 to 64, 3x3, 32x32, batch 16", (16, 64, 32, 32)),
    "conv1x1": ("Conv2d 128 to 128, 1x1, 16x16, batch 16", (16, 128, 16, 16)),
    "conv5x5": ("Conv2d 1 to 6, 5x5, 28x28, batch 128", (128, 1, 28, 28)),
    "depthwise": ("Conv2d 64, 3x3, depthwise, 32x32, batch 16", (16, 64, 32, 32)),
    "transposed": ("ConvTranspose2d 64 to 32, 2x2, stride 2, 16x16, batch 16", (16, 64, 16, 16)),
    "max-pool": ("MaxPool2d 2, 32x32, batch 16", (16, 64, 32, 32)),
    "max-pool-overlapping": ("MaxPool2d 3, stride 2, 32x32, batch 16", (16, 64, 32, 32)),
    "avg-pool": ("AvgPool2d 2, 32x32, batch 16", (16, 64, 32, 32)),
    "batch-norm": ("BatchNorm2d 64, training, 32x32, batch 16", (16, 64, 32, 32)),
    "group-norm": ("GroupNorm 8 of 64, 32x32, batch 16", (16, 64, 32, 32)),
    "layer-norm": ("LayerNorm 256, 8x128 rows", (8, 128, 256)),
    "rms-norm": ("RMSNorm 256, 8x128 rows", (8, 128, 256)),
    "attention": ("MultiheadAttention 256, 8 heads, causal, 128 tokens, batch 8", (8, 128, 256)),
    "lstm": ("LSTM 128 to 256, 64 steps, batch 32", (32, 64, 128)),
    "gru": ("GRU 128 to 256, 64 steps, batch 32", (32, 64, 128)),
    "embedding": ("Embedding 10000 by 256, 8x128 indices", (8, 128)),
    "dropout": ("Dropout 0.1, a million elements", (1024, 1024)),
    "gelu": ("GELU, a million elements", (1024, 1024)),
    "cross-entropy": ("cross-entropy of 1000 classes, 1024 rows", (1024, 1000)),
    "linear-cross-entropy": ("Linear 256 to 32000 and cross-entropy, 1024 rows", (1024, 256)),
}
MODES = ("forward", "backward")


def data(layer: str) -> np.ndarray:
    """The input."""
    rng = np.random.default_rng(0)
    shape = LAYERS[layer][1]
    if layer == "embedding":
        return rng.integers(0, 10_000, shape).astype(np.int32)
    return rng.standard_normal(shape).astype(np.float32)


def output_gradient(shape: tuple[int, ...]) -> np.ndarray:
    """The gradient by the output: not ones, which let XLA leave work out."""
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


def classes() -> np.ndarray:
    """The targets of the cross-entropies."""
    return np.random.default_rng(1).integers(0, 1000, 1024).astype(np.int32)
