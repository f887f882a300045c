"""The training steps of workloads.py in Equinox."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from equinox import nn

from _work_data import CLASSES, GPT, LSTM, RATE, batch


class Block(eqx.Module):
    """A residual block of ResNet-18."""

    conv1: Any
    bn1: Any
    conv2: Any
    bn2: Any
    down: Any
    bn3: Any

    def __init__(self, inputs: int, outputs: int, stride: int, key: Any) -> None:
        a, b, c = jax.random.split(key, 3)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, use_bias=False, key=a)
        self.bn1 = _norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, use_bias=False, key=b)
        self.bn2 = _norm(outputs)
        change = stride > 1 or inputs != outputs
        self.down = nn.Conv2d(inputs, outputs, 1, stride, use_bias=False, key=c) if change else None
        self.bn3 = _norm(outputs) if change else None

    def __call__(self, x: Any, state: Any) -> Any:
        y, state = self.bn1(self.conv1(x), state)
        y, state = self.bn2(self.conv2(jax.nn.relu(y)), state)
        if self.down is not None:
            x, state = self.bn3(self.down(x), state)
        return jax.nn.relu(y + x), state


class ResNet(eqx.Module):
    """ResNet-18 for small images."""

    stem: Any
    norm: Any
    blocks: list[Any]
    out: Any

    def __init__(self, key: Any) -> None:
        keys = iter(jax.random.split(key, 10))
        self.stem = nn.Conv2d(3, 64, 3, padding=1, use_bias=False, key=next(keys))
        self.norm = _norm(64)
        self.blocks = []
        inputs = 64
        for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            self.blocks += [Block(inputs, width, stride, next(keys)), Block(width, width, 1, next(keys))]
            inputs = width
        self.out = nn.Linear(512, CLASSES, key=next(keys))

    def __call__(self, x: Any, state: Any) -> Any:
        x, state = self.norm(self.stem(x), state)
        x = jax.nn.relu(x)
        for block in self.blocks:
            x, state = block(x, state)
        return self.out(x.mean((1, 2))), state


class Layer(eqx.Module):
    """A pre-norm transformer layer, of one sequence."""

    norm1: Any
    attention: Any
    norm2: Any
    up: Any
    down: Any

    def __init__(self, key: Any) -> None:
        a, b, c = jax.random.split(key, 3)
        self.norm1 = nn.LayerNorm(GPT.width)
        bias = dict.fromkeys(("use_query_bias", "use_key_bias", "use_value_bias", "use_output_bias"), True)
        self.attention = nn.MultiheadAttention(GPT.heads, GPT.width, **bias, key=a)
        self.norm2 = nn.LayerNorm(GPT.width)
        self.up = nn.Linear(GPT.width, 4 * GPT.width, key=b)
        self.down = nn.Linear(4 * GPT.width, GPT.width, key=c)

    def __call__(self, x: Any) -> Any:
        y = jax.vmap(self.norm1)(x)
        x = x + self.attention(y, y, y, mask=jnp.tril(jnp.ones((len(x), len(x)), bool)))
        return x + jax.vmap(lambda v: self.down(jax.nn.gelu(self.up(self.norm2(v)), approximate=False)))(x)


class Transformer(eqx.Module):
    """A small GPT."""

    tokens: Any
    positions: Any
    layers: list[Any]
    norm: Any
    head: Any

    def __init__(self, key: Any) -> None:
        a, b, *keys = jax.random.split(key, 2 + GPT.layers)
        self.tokens = nn.Embedding(GPT.vocabulary, GPT.width, key=a)
        self.positions = jnp.zeros((GPT.length, GPT.width))
        self.layers = [Layer(k) for k in keys]
        self.norm = nn.LayerNorm(GPT.width)
        self.head = nn.Linear(GPT.width, GPT.vocabulary, use_bias=False, key=b)

    def __call__(self, x: Any) -> Any:
        x = jax.vmap(self.tokens)(x) + self.positions
        for layer in self.layers:
            x = layer(x)
        return jax.vmap(lambda v: self.head(self.norm(v)))(x)


class Recurrent(eqx.Module):
    """An LSTM and a classifier on its last output."""

    cell: Any
    out: Any

    def __init__(self, key: Any) -> None:
        a, b = jax.random.split(key)
        self.cell = nn.LSTMCell(LSTM.inputs, LSTM.width, key=a)
        self.out = nn.Linear(LSTM.width, CLASSES, key=b)

    def __call__(self, x: Any) -> Any:
        start = jnp.zeros(LSTM.width), jnp.zeros(LSTM.width)
        (h, _), _ = jax.lax.scan(lambda state, v: (self.cell(v, state), None), start, x)
        return self.out(h)


def _norm(width: int) -> Any:
    return nn.BatchNorm(width, axis_name="batch", mode="batch")


def _keys() -> Any:
    return iter(jax.random.split(jax.random.key(0), 20))


def _mlp(*widths: int) -> Any:
    keys, layers = _keys(), []
    for a, b in itertools.pairwise(widths[:-1]):
        layers += [nn.Linear(a, b, key=next(keys)), nn.Lambda(jax.nn.relu)]
    return nn.Sequential([*layers, nn.Linear(*widths[-2:], key=next(keys))])


def _lenet() -> Any:
    keys, relu = _keys(), nn.Lambda(jax.nn.relu)
    convolutions = [
        nn.Conv2d(1, 6, 5, padding=2, key=next(keys)),
        relu,
        nn.MaxPool2d(2, 2),
        nn.Conv2d(6, 16, 5, key=next(keys)),
        relu,
        nn.MaxPool2d(2, 2),
    ]
    dense = [nn.Linear(a, b, key=next(keys)) for a, b in ((400, 120), (120, 84), (84, CLASSES))]
    return nn.Sequential([*convolutions, nn.Lambda(jnp.ravel), dense[0], relu, dense[1], relu, dense[2]])


def _convolutions() -> Any:
    keys, layers, inputs = _keys(), [], 3
    for width, pool in ((64, 0), (64, 1), (128, 0), (128, 1), (256, 0), (256, 0), (256, 1)):
        layers += [nn.Conv2d(inputs, width, 3, padding=1, key=next(keys)), nn.Lambda(jax.nn.relu)]
        layers += [nn.MaxPool2d(2, 2)] if pool else []
        inputs = width
    return nn.Sequential([*layers, nn.Lambda(jnp.ravel), nn.Linear(256 * 16, CLASSES, key=next(keys))])


NETWORKS: dict[str, Callable[[], Any]] = {
    "mlp-small": lambda: _mlp(784, 256, CLASSES),
    "mlp-wide": lambda: _mlp(1024, 1024, 1024, 1024, 1024),
    "lenet": _lenet,
    "convnet": _convolutions,
    "resnet18": lambda: ResNet(jax.random.key(0)),
    "gpt": lambda: Transformer(jax.random.key(0)),
    "lstm": lambda: Recurrent(jax.random.key(0)),
}


def make(work: str) -> Callable[[], Any]:
    """One training step; the network is of one sample, and mapped over the batch."""
    stateful = work == "resnet18"
    net, state = eqx.nn.make_with_state(NETWORKS[work])()
    optimiser = optax.sgd(RATE)
    moments = optimiser.init(eqx.filter(net, eqx.is_inexact_array))
    x, y = map(jnp.asarray, batch(work))

    def loss(net: Any, state: Any, x: Any, y: Any) -> Any:
        if stateful:
            scores, state = jax.vmap(net, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)
        else:
            scores = jax.vmap(net)(x).reshape(len(y), -1)
        return optax.softmax_cross_entropy_with_integer_labels(scores, y).mean(), state

    @eqx.filter_jit(donate="all-except-first")
    def step(data: Any, net: Any, state: Any, moments: Any) -> Any:
        (value, state), grads = eqx.filter_value_and_grad(loss, has_aux=True)(net, state, *data)
        updates, moments = optimiser.update(grads, moments)
        return value, eqx.apply_updates(net, updates), state, moments

    def call() -> None:
        nonlocal net, state, moments
        value, net, state, moments = step((x, y), net, state, moments)
        jax.block_until_ready(value)

    return call
