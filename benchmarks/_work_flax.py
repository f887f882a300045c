"""The training steps of workloads.py in Flax NNX."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from _work_data import CLASSES, GPT, LSTM, RATE, batch


class Chain(nnx.Module):
    """Layers and functions in a row."""

    def __init__(self, *layers: Any) -> None:
        self.layers = nnx.List([x for x in layers if isinstance(x, nnx.Module)])
        numbers = iter(range(len(self.layers)))
        self.plan = tuple(next(numbers) if isinstance(x, nnx.Module) else x for x in layers)

    def __call__(self, x: Any) -> Any:
        for step in self.plan:
            x = self.layers[step](x) if isinstance(step, int) else step(x)
        return x


class Block(nnx.Module):
    """A residual block of ResNet-18."""

    def __init__(self, inputs: int, outputs: int, stride: int, rngs: nnx.Rngs) -> None:
        conv = {"use_bias": False, "rngs": rngs}
        self.conv1 = nnx.Conv(inputs, outputs, (3, 3), stride, padding=1, **conv)
        self.bn1 = nnx.BatchNorm(outputs, momentum=0.9, rngs=rngs)
        self.conv2 = nnx.Conv(outputs, outputs, (3, 3), padding=1, **conv)
        self.bn2 = nnx.BatchNorm(outputs, momentum=0.9, rngs=rngs)
        self.down = nnx.data(None)
        if stride > 1 or inputs != outputs:
            norm = nnx.BatchNorm(outputs, momentum=0.9, rngs=rngs)
            self.down = nnx.data(Chain(nnx.Conv(inputs, outputs, (1, 1), stride, padding=0, **conv), norm))

    def __call__(self, x: Any) -> Any:
        y = self.bn2(self.conv2(nnx.relu(self.bn1(self.conv1(x)))))
        return nnx.relu(y + (x if self.down is None else self.down(x)))


class Layer(nnx.Module):
    """A pre-norm transformer layer."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm1 = nnx.LayerNorm(GPT.width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(GPT.heads, GPT.width, decode=False, rngs=rngs)
        self.norm2 = nnx.LayerNorm(GPT.width, rngs=rngs)
        self.up = nnx.Linear(GPT.width, 4 * GPT.width, rngs=rngs)
        self.down = nnx.Linear(4 * GPT.width, GPT.width, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        mask = nnx.make_causal_mask(x[..., 0])
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.down(nnx.gelu(self.up(self.norm2(x)), approximate=False))


class Transformer(nnx.Module):
    """A small GPT."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.tokens = nnx.Embed(GPT.vocabulary, GPT.width, rngs=rngs)
        self.positions = nnx.Param(jnp.zeros((GPT.length, GPT.width)))
        self.layers = nnx.List([Layer(rngs) for _ in range(GPT.layers)])
        self.norm = nnx.LayerNorm(GPT.width, rngs=rngs)
        self.head = nnx.Linear(GPT.width, GPT.vocabulary, use_bias=False, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = self.tokens(x) + self.positions[...]
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)).reshape(-1, GPT.vocabulary)


class Recurrent(nnx.Module):
    """An LSTM and a classifier on its last output."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.lstm = nnx.RNN(nnx.OptimizedLSTMCell(LSTM.inputs, LSTM.width, rngs=rngs))
        self.out = nnx.Linear(LSTM.width, CLASSES, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.out(self.lstm(x)[:, -1])


def _pool(x: Any) -> Any:
    return nnx.max_pool(x, (2, 2), (2, 2))


def _flat(x: Any) -> Any:
    return x.reshape(x.shape[0], -1)


def _mlp(rngs: nnx.Rngs, *widths: int) -> Any:
    layers: list[Any] = []
    for a, b in itertools.pairwise(widths[:-1]):
        layers += [nnx.Linear(a, b, rngs=rngs), nnx.relu]
    return Chain(*layers, nnx.Linear(*widths[-2:], rngs=rngs))


def _lenet(rngs: nnx.Rngs) -> Any:
    return Chain(
        nnx.Conv(1, 6, (5, 5), padding=2, rngs=rngs),
        nnx.relu,
        _pool,
        nnx.Conv(6, 16, (5, 5), padding=0, rngs=rngs),
        nnx.relu,
        _pool,
        _flat,
        nnx.Linear(400, 120, rngs=rngs),
        nnx.relu,
        nnx.Linear(120, 84, rngs=rngs),
        nnx.relu,
        nnx.Linear(84, CLASSES, rngs=rngs),
    )


def _convolutions(rngs: nnx.Rngs) -> Any:
    layers: list[Any] = []
    inputs = 3
    for width, pool in ((64, 0), (64, 1), (128, 0), (128, 1), (256, 0), (256, 0), (256, 1)):
        layers += [nnx.Conv(inputs, width, (3, 3), padding=1, rngs=rngs), nnx.relu, *([_pool] if pool else [])]
        inputs = width
    return Chain(*layers, _flat, nnx.Linear(256 * 16, CLASSES, rngs=rngs))


def _resnet(rngs: nnx.Rngs) -> Any:
    blocks: list[Any] = []
    inputs = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        blocks += [Block(inputs, width, stride, rngs), Block(width, width, 1, rngs)]
        inputs = width
    conv = nnx.Conv(3, 64, (3, 3), padding=1, use_bias=False, rngs=rngs)
    stem = conv, nnx.BatchNorm(64, momentum=0.9, rngs=rngs), nnx.relu
    return Chain(*stem, *blocks, lambda x: x.mean((1, 2)), nnx.Linear(512, CLASSES, rngs=rngs))


NETWORKS: dict[str, Callable[[Any], Any]] = {
    "mlp-small": lambda rngs: _mlp(rngs, 784, 256, CLASSES),
    "mlp-wide": lambda rngs: _mlp(rngs, 1024, 1024, 1024, 1024, 1024),
    "lenet": _lenet,
    "convnet": _convolutions,
    "resnet18": _resnet,
    "gpt": Transformer,
    "lstm": Recurrent,
}


def make(work: str) -> Callable[[], Any]:
    """One training step, with images channels-last as Flax has them."""
    net = NETWORKS[work](nnx.Rngs(0))
    opt = nnx.Optimizer(net, optax.sgd(RATE), wrt=nnx.Param)
    x, y = map(jnp.asarray, batch(work))
    if x.ndim == 4:
        x = jnp.transpose(x, (0, 2, 3, 1))

    def step(net: Any, opt: Any, x: Any, y: Any) -> Any:
        def loss(net: Any) -> Any:
            return optax.softmax_cross_entropy_with_integer_labels(net(x), y).mean()

        value, grads = nnx.value_and_grad(loss)(net)
        opt.update(net, grads)
        return value

    compiled = nnx.cached_partial(nnx.jit(step), net, opt)
    return lambda: jax.block_until_ready(compiled(x, y))
