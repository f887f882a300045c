"""A network of ResNet-50's shape in each library, for cold_start.py and cache.py.

Written from each library's own layers; no input channels in brickwork's. Each is given as a :class:`Network` of
functions, and imports its library only when asked for, because the benchmarks measure that import.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

BLOCKS = (3, 4, 6, 3)
INPUT = (2, 3, 64, 64)
CLASSES = 1000
PARAMETERS = 25_557_032  # as published for ResNet-50 with 1,000 classes

RATE, MOMENTUM = 0.1, 0.9


@dataclass(frozen=True)
class Network:
    """What one does with the network in one library.

    ``build(training)`` makes it, for training or else with all initial values on the device; ``forward(net)`` runs
    it once, compiled where the library compiles; ``count(net)`` counts the parameters; ``trainer(net)`` makes an
    optimiser and returns a function that runs one training step and returns its loss.
    """

    build: Callable[[bool], Any]
    forward: Callable[[Any], Any]
    count: Callable[[Any], int]
    trainer: Callable[[Any], Callable[[], float]]


def brickwork() -> Network:
    """The network in brickwork."""
    import numpy as np

    import brickwork as bw
    from brickwork import nn

    def conv(channels: int, size: int, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, size, stride=stride, padding=size // 2, bias=False),
            nn.BatchNorm2d(),
        )

    class Bottleneck(bw.Module):
        def __init__(self, width: int, stride: int, project: bool) -> None:
            self.reduce = conv(width, 1)
            self.middle = conv(width, 3, stride)
            self.expand = conv(4 * width, 1)
            self.project = conv(4 * width, 1, stride) if project else nn.Identity()
            self.relu = nn.ReLU()

        def forward(self, x: Any) -> Any:
            y = self.relu(self.middle(self.relu(self.reduce(x))))
            return self.relu(self.expand(y) + self.project(x))

    class ResNet50(bw.Module):
        def __init__(self) -> None:
            self.stem = conv(64, 7, 2)
            self.relu = nn.ReLU()
            self.pool = nn.MaxPool2d(3, stride=2, padding=1)
            self.blocks = nn.Sequential()
            for stage, count in enumerate(BLOCKS):
                for i in range(count):
                    stride = 2 if stage > 0 and i == 0 else 1
                    self.blocks.append(Bottleneck(64 * 2**stage, stride, project=i == 0))
            self.head = nn.Linear(CLASSES)

        def forward(self, x: Any) -> Any:
            x = self.blocks(self.pool(self.relu(self.stem(x))))
            return self.head(x.mean((2, 3)))

    def build(training: bool) -> Any:
        import jax

        net = ResNet50().train(training)
        net.initialize(bw.spec(*INPUT))
        if not training:  # values are drawn when first read: here, or in the first training step
            jax.block_until_ready(list(net.state_dict().values()))
        return net

    @bw.compile
    def forward(net: Any, x: Any) -> Any:
        return net(x)

    def trainer(net: Any) -> Callable[[], float]:
        from brickwork import losses, optim

        opt = optim.sgd(net, RATE, momentum=MOMENTUM)
        x, y = np.ones(INPUT, np.float32), np.zeros(INPUT[0], np.int32)

        @bw.compile
        def step(x: Any, y: Any) -> Any:
            loss, grads = bw.value_and_grad(lambda x, y: losses.cross_entropy(net(x), y), net)(x, y)
            opt.step(grads)
            return loss

        return lambda: float(step(x, y))

    return Network(
        build,
        lambda net: forward(net, np.ones(INPUT, np.float32)).block_until_ready(),
        lambda net: sum(p.size for p in net.parameters()),
        trainer,
    )


def flax() -> Network:
    """The same in Flax NNX, channels last as its convolutions want them."""
    import jax
    import numpy as np
    from flax import nnx

    class ConvNorm(nnx.Module):
        def __init__(self, ins: int, outs: int, size: int, stride: int, rngs: nnx.Rngs) -> None:
            self.conv = nnx.Conv(
                ins,
                outs,
                (size, size),
                strides=stride,
                padding=[(size // 2, size // 2)] * 2,
                use_bias=False,
                rngs=rngs,
            )
            self.norm = nnx.BatchNorm(outs, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.norm(self.conv(x))

    class Bottleneck(nnx.Module):
        def __init__(self, ins: int, width: int, stride: int, project: bool, rngs: nnx.Rngs) -> None:
            self.reduce = ConvNorm(ins, width, 1, 1, rngs)
            self.middle = ConvNorm(width, width, 3, stride, rngs)
            self.expand = ConvNorm(width, 4 * width, 1, 1, rngs)
            self.project = ConvNorm(ins, 4 * width, 1, stride, rngs) if project else None

        def __call__(self, x: jax.Array) -> jax.Array:
            y = self.expand(nnx.relu(self.middle(nnx.relu(self.reduce(x)))))
            return nnx.relu(y + (x if self.project is None else self.project(x)))

    class ResNet50(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.stem = ConvNorm(3, 64, 7, 2, rngs)
            blocks, ins = [], 64
            for stage, count in enumerate(BLOCKS):
                for i in range(count):
                    stride = 2 if stage > 0 and i == 0 else 1
                    blocks.append(Bottleneck(ins, 64 * 2**stage, stride, i == 0, rngs))
                    ins = 4 * 64 * 2**stage
            self.blocks = nnx.List(blocks)
            self.head = nnx.Linear(ins, CLASSES, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            x = nnx.relu(self.stem(x))
            x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
            for block in self.blocks:
                x = block(x)
            return self.head(x.mean((1, 2)))

    def build(training: bool) -> Any:
        net = ResNet50(nnx.Rngs(0))
        net.train() if training else net.eval()
        jax.block_until_ready(jax.tree.leaves(nnx.state(net)))
        return net

    forward = nnx.jit(lambda net, x: net(x))
    n, c, h, w = INPUT

    def trainer(net: Any) -> Callable[[], float]:
        import optax

        opt = nnx.Optimizer(net, optax.sgd(RATE, momentum=MOMENTUM), wrt=nnx.Param)
        x, y = np.ones((n, h, w, c), np.float32), np.zeros(n, np.int32)

        @nnx.jit
        def step(net: Any, opt: Any, x: Any, y: Any) -> Any:
            def loss_fn(net: Any) -> Any:
                return optax.softmax_cross_entropy_with_integer_labels(net(x), y).mean()

            loss, grads = nnx.value_and_grad(loss_fn)(net)
            opt.update(net, grads)
            return loss

        return lambda: float(step(net, opt, x, y))

    return Network(
        build,
        lambda net: forward(net, np.ones((n, h, w, c), np.float32)).block_until_ready(),
        lambda net: sum(p.size for p in jax.tree.leaves(nnx.state(net, nnx.Param))),
        trainer,
    )


def torch() -> Network:
    """The same in PyTorch, eager."""
    import torch
    from torch import nn

    def conv(ins: int, outs: int, size: int, stride: int = 1) -> Any:
        return nn.Sequential(
            nn.Conv2d(ins, outs, size, stride=stride, padding=size // 2, bias=False),
            nn.BatchNorm2d(outs),
        )

    class Bottleneck(nn.Module):
        def __init__(self, ins: int, width: int, stride: int, project: bool) -> None:
            super().__init__()
            self.reduce = conv(ins, width, 1)
            self.middle = conv(width, width, 3, stride)
            self.expand = conv(width, 4 * width, 1)
            self.project = conv(ins, 4 * width, 1, stride) if project else nn.Identity()
            self.relu = nn.ReLU()

        def forward(self, x: Any) -> Any:
            y = self.relu(self.middle(self.relu(self.reduce(x))))
            return self.relu(self.expand(y) + self.project(x))

    class ResNet50(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = conv(3, 64, 7, 2)
            self.relu = nn.ReLU()
            self.pool = nn.MaxPool2d(3, stride=2, padding=1)
            blocks, ins = [], 64
            for stage, count in enumerate(BLOCKS):
                for i in range(count):
                    stride = 2 if stage > 0 and i == 0 else 1
                    blocks.append(Bottleneck(ins, 64 * 2**stage, stride, project=i == 0))
                    ins = 4 * 64 * 2**stage
            self.blocks = nn.Sequential(*blocks)
            self.head = nn.Linear(ins, CLASSES)

        def forward(self, x: Any) -> Any:
            x = self.blocks(self.pool(self.relu(self.stem(x))))
            return self.head(x.mean((2, 3)))

    @torch.no_grad()
    def forward(net: Any) -> Any:
        return net(torch.ones(INPUT))

    def trainer(net: Any) -> Callable[[], float]:
        opt = torch.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM)
        loss_fn = nn.CrossEntropyLoss()
        x, y = torch.ones(INPUT), torch.zeros(INPUT[0], dtype=torch.int64)

        def step() -> float:
            loss = loss_fn(net(x), y)
            loss.backward()
            opt.step()
            opt.zero_grad()
            return loss.item()

        return step

    return Network(
        lambda training: ResNet50().train(training),
        forward,
        lambda net: sum(p.numel() for p in net.parameters()),
        trainer,
    )


LIBRARIES: dict[str, Callable[[], Network]] = {"brickwork": brickwork, "flax": flax, "torch": torch}
