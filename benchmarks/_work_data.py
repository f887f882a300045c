"""The data of workloads.py, the same for all libraries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RATE = 1e-3
CLASSES = 10
WORK = {
    "mlp-small": "MLP 784-256-10, batch 256",
    "mlp-wide": "MLP of four layers of 1024, batch 512",
    "lenet": "LeNet-5, 28x28, batch 256",
    "convnet": "seven convolutions, 32x32, batch 32",
    "resnet18": "ResNet-18, 32x32, batch 64",
    "gpt": "GPT of 4 layers, width 256, 8 heads, 128 tokens, batch 8, vocabulary 1000",
    "lstm": "LSTM 128 to 256, 64 steps, batch 32",
}


@dataclass(frozen=True)
class _GPT:
    layers: int = 4
    width: int = 256
    heads: int = 8
    length: int = 128
    batch: int = 8
    vocabulary: int = 1000


@dataclass(frozen=True)
class _LSTM:
    inputs: int = 128
    width: int = 256
    length: int = 64
    batch: int = 32


GPT, LSTM = _GPT(), _LSTM()


def batch(work: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and class indices."""
    rng = np.random.default_rng(0)
    if work == "gpt":
        tokens = rng.integers(0, GPT.vocabulary, (GPT.batch, GPT.length + 1)).astype(np.int32)
        return tokens[:, :-1].copy(), tokens[:, 1:].reshape(-1).copy()
    shape = {
        "mlp-small": (256, 784),
        "mlp-wide": (512, 1024),
        "lenet": (256, 1, 28, 28),
        "convnet": (32, 3, 32, 32),
        "resnet18": (64, 3, 32, 32),
        "lstm": (LSTM.batch, LSTM.length, LSTM.inputs),
    }[work]
    classes = 1024 if work == "mlp-wide" else CLASSES
    return rng.standard_normal(shape).astype(np.float32), rng.integers(0, classes, shape[0]).astype(np.int32)
