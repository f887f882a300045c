"""What tests of checkpoints share."""

from __future__ import annotations

import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np

import brickwork as bw
from brickwork import nn, optim

X = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)


class Net(bw.Module):
    def __init__(self, width=6):
        self.first = nn.Linear(width)
        self.norm = nn.BatchNorm1d()
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(1)

    def forward(self, x):
        return self.last(self.drop(self.norm(self.first(x))))


class Run:
    """A network, its optimiser, and a compiled step."""

    def __init__(self, seed=0, width=6, rule=optim.adam):
        bw.seed(seed)
        self.net = Net(width)
        self.opt = rule(self.net, 0.05)

        @bw.compile
        def step(x):
            loss, grads = bw.value_and_grad(lambda x: (self.net(x) ** 2).mean(), self.net)(x)
            self.opt.step(grads)
            return loss

        self.step = step

    def train(self, steps=3):
        return [float(self.step(X)) for _ in range(steps)]

    def state(self):
        both = {"net": self.net.state_dict(), "opt": self.opt.state_dict()}
        return {f"{k}.{name}": np.array(x) for k, state in both.items() for name, x in state.items()}


def same(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert value.dtype == b[name].dtype
        assert value.tobytes() == b[name].tobytes(), name


def small(n=0.0):
    net = bw.nn.Linear(2, in_features=3)
    net.weight.value = jnp.full((2, 3), n)
    return net


def directories(folder):
    return sorted(name for name in os.listdir(folder) if "step" in name)


def python(source, *arguments, **options):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-c", source, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def saved(checkpoints, steps, **options):
    return [step for step in steps if checkpoints.save(step, extra=step, **options)]


def flip(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
