"""The training steps of workloads.py in PyTorch, eager."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from _work_data import CLASSES, GPT, LSTM, RATE, batch


class Block(nn.Module):
    """A residual block of ResNet-18."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.down = None
        if stride > 1 or inputs != outputs:
            self.down = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Any) -> Any:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.down is None else self.down(x)))


class Transformer(nn.Module):
    """A small GPT."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(GPT.vocabulary, GPT.width)
        self.positions = nn.Parameter(torch.zeros(GPT.length, GPT.width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                GPT.width, GPT.heads, 4 * GPT.width, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(GPT.layers)
        )
        self.norm = nn.LayerNorm(GPT.width)
        self.head = nn.Linear(GPT.width, GPT.vocabulary, bias=False)
        self.mask = nn.Transformer.generate_square_subsequent_mask(GPT.length)

    def forward(self, x: Any) -> Any:
        x = self.tokens(x) + self.positions
        for layer in self.layers:
            x = layer(x, src_mask=self.mask, is_causal=True)
        return self.head(self.norm(x)).reshape(-1, GPT.vocabulary)


class Recurrent(nn.Module):
    """An LSTM and a classifier on its last output."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(LSTM.inputs, LSTM.width, batch_first=True)
        self.out = nn.Linear(LSTM.width, CLASSES)

    def forward(self, x: Any) -> Any:
        return self.out(self.lstm(x)[0][:, -1])


def _mlp(*widths: int) -> Any:
    layers: list[Any] = []
    for a, b in itertools.pairwise(widths[:-1]):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(*widths[-2:]))


def _lenet() -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, CLASSES)),
    )


def _convolutions() -> Any:
    layers: list[Any] = []
    inputs = 3
    for width, pool in ((64, 0), (64, 1), (128, 0), (128, 1), (256, 0), (256, 0), (256, 1)):
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pool else []
        inputs = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256 * 16, CLASSES))


def _resnet() -> Any:
    blocks: list[Any] = []
    inputs = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        blocks += [Block(inputs, width, stride), Block(width, width, 1)]
        inputs = width
    stem = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()
    return nn.Sequential(*stem, *blocks, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(512, CLASSES))


NETWORKS: dict[str, Callable[[], Any]] = {
    "mlp-small": lambda: _mlp(784, 256, CLASSES),
    "mlp-wide": lambda: _mlp(1024, 1024, 1024, 1024, 1024),
    "lenet": _lenet,
    "convnet": _convolutions,
    "resnet18": _resnet,
    "gpt": Transformer,
    "lstm": Recurrent,
}


def make(work: str) -> Callable[[], Any]:
    """One training step."""
    torch.manual_seed(0)
    net = NETWORKS[work]()
    optimiser = torch.optim.SGD(net.parameters(), RATE)
    x, y = (torch.from_numpy(a.astype("int64") if a.dtype.kind == "i" else a) for a in batch(work))

    def step() -> None:
        optimiser.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimiser.step()

    return step
