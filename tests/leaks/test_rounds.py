"""Making, compiling and dropping networks round after round needs no more memory than doing it once."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_SRC = str(Path(__file__).parents[2] / "src")
_ROUNDS = 6

_PROGRAM = """
import gc, json, sys
import jax, jax.numpy as jnp
import brickwork as bw
from brickwork import losses, nn, optim

client = jax.devices()[0].client
x = jnp.ones((2, 4))

def one(train):
    net = nn.Sequential(nn.Linear(3, in_features=4), nn.Tanh(), nn.Linear(1, in_features=3))
    if not train:
        return float(bw.compile(lambda v: net(v).sum())(x))
    opt = optim.sgd(net, 1e-3, momentum=0.9)
    @bw.compile
    def step(v):
        loss, grads = bw.value_and_grad(lambda v: losses.mse(net(v), v[:, :1]), net)(v)
        opt.step(grads)
        return loss
    step(x)
    return float(step(x))

def now():
    gc.collect()
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return dict(
        objects=len(gc.get_objects()), arrays=len(client.live_arrays()),
        executables=len(client.live_executables()), kilobytes=pages * 4,
    )

train, rounds = sys.argv[1] == "train", int(sys.argv[2])
found = []
for _ in range(6):
    for _ in range(rounds):
        one(train)
    found.append(now())
print(json.dumps(found))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("what", ["forward", "train"])
def test_memory_does_not_grow(what: str) -> None:
    environment = os.environ | {"PYTHONPATH": _SRC, "BRICKWORK_CACHE": "off", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, what, str(_ROUNDS)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    def growth(measure: str) -> int:
        """What each block of rounds added; the least, because caches fill up and allocators have their own ways."""
        return min(after[measure] - before[measure] for before, after in itertools.pairwise(found))

    assert (growth("executables"), growth("arrays")) == (0, 0), found
    # JAX itself keeps a weak reference to a trace where a function that it has jitted once for all is called on
    # concrete arrays during that trace; its caches, which are bounded, hold on to it.
    assert growth("objects") <= _ROUNDS, found
    assert growth("kilobytes") <= 100 * _ROUNDS, found  # one compiled step that stays costs more than 2,000
