"""The training steps of workloads.py in brickwork."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import brickwork as bw
from _work_data import CLASSES, GPT, LSTM, RATE, batch
from _workers import ONEDNN
from brickwork import losses, nn, optim


class Block(nn.Module):
    """A residual block of ResNet-18."""

    def __init__(self, width: int, stride: int, change: bool) -> None:
        self.conv1 = nn.Conv2d(width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d()
        self.conv2 = nn.Conv2d(width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d()
        self.down = nn.Sequential(nn.Conv2d(width, 1, stride=stride, bias=False), nn.BatchNorm2d()) if change else None

    def forward(self, x: Any) -> Any:
        """Add to the input."""
        y = self.bn2(self.conv2(jax.nn.relu(self.bn1(self.conv1(x)))))
        return jax.nn.relu(y + (x if self.down is None else self.down(x)))


class Transformer(nn.Module):
    """A small GPT."""

    def __init__(self) -> None:
        self.tokens = nn.Embedding(GPT.vocabulary, GPT.width)
        self.positions = nn.Parameter(jnp.zeros((GPT.length, GPT.width)))
        self.layers = [
            nn.TransformerEncoderLayer(
                GPT.heads,
                dim_feedforward=4 * GPT.width,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(GPT.layers)
        ]
        self.norm = nn.LayerNorm()
        self.head = nn.Linear(GPT.vocabulary, bias=False)

    def forward(self, x: Any) -> Any:
        """Scores for the next token."""
        x = self.tokens(x) + self.positions
        for layer in self.layers:
            x = layer(x, is_causal=True)
        return self.head(self.norm(x)).reshape(-1, GPT.vocabulary)


class Recurrent(nn.Module):
    """An LSTM and a classifier on its last output."""

    def __init__(self) -> None:
        self.lstm = nn.LSTM(LSTM.width, batch_first=True)
        self.out = nn.Linear(CLASSES)

    def forward(self, x: Any) -> Any:
        """Scores for the classes."""
        return self.out(self.lstm(x)[0][:, -1])


def _mlp(*widths: int) -> Any:
    layers: list[Any] = []
    for width in widths[:-1]:
        layers += [nn.Linear(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1]))


def _lenet() -> Any:
    return nn.Sequential(
        nn.Conv2d(6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        *(nn.Linear(120), nn.ReLU(), nn.Linear(84), nn.ReLU(), nn.Linear(CLASSES)),
    )


def _convolutions() -> Any:
    layers: list[Any] = []
    for width, pool in ((64, 0), (64, 1), (128, 0), (128, 1), (256, 0), (256, 0), (256, 1)):
        layers += [nn.Conv2d(width, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(CLASSES))


def _resnet() -> Any:
    blocks: list[Any] = []
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        blocks += [Block(width, stride, stride > 1), Block(width, 1, False)]
    stem = nn.Conv2d(64, 3, padding=1, bias=False), nn.BatchNorm2d(), nn.ReLU()
    return nn.Sequential(*stem, *blocks, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(CLASSES))


NETWORKS: dict[str, Callable[[], Any]] = {
    "mlp-small": lambda: _mlp(256, CLASSES),
    "mlp-wide": lambda: _mlp(1024, 1024, 1024, 1024),
    "lenet": _lenet,
    "convnet": _convolutions,
    "resnet18": _resnet,
    "gpt": Transformer,
    "lstm": Recurrent,
}


def make(work: str) -> Callable[[], Any]:
    """One training step."""
    net = NETWORKS[work]()
    opt = optim.sgd(net, RATE)
    x, y = map(jnp.asarray, batch(work))

    @bw.compile(onednn=ONEDNN)
    def step(x: Any, y: Any) -> Any:
        loss, grads = bw.value_and_grad(lambda x, y: losses.cross_entropy(net(x), y), net)(x, y)
        opt.step(grads)
        return loss

    return lambda: step(x, y).block_until_ready()
