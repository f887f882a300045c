"""A training run that may be killed at any time and started again: ``python killed_run.py DIRECTORY STEPS RESULT``.

It saves after every step, so that nearly always something is being written, and says on its output when.
"""

from __future__ import annotations

import sys

import numpy as np

import brickwork as bw
from brickwork import nn, optim

X = np.random.default_rng(0).standard_normal((100, 64)).astype(np.float32)
Y = (X[:, :1] * X[:, 1:2]).astype(np.float32)


class Batches:
    """Shuffled anew in each epoch; what is left of the epoch, and the generator, make up its state."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(1)
        self.left = np.zeros(0, np.int64)

    def take(self, n: int) -> np.ndarray:
        if len(self.left) < n:
            self.left = self.rng.permutation(len(X))
        taken, self.left = self.left[:n], self.left[n:]
        return taken

    def state(self) -> dict:
        return {"rng": self.rng.bit_generator.state, "left": self.left}

    def set_state(self, state: dict) -> None:
        self.rng.bit_generator.state = state["rng"]
        self.left = state["left"]


def main(directory: str, steps: int, result: str) -> None:
    bw.seed(0)
    np.random.seed(0)
    net = nn.Sequential(nn.Linear(256), nn.BatchNorm1d(), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256), nn.Linear(1))
    opt = optim.adam(net, 1e-3)
    batches = Batches()

    @bw.compile
    def train(x, y):
        loss, grads = bw.value_and_grad(lambda x, y: ((net(x) - y) ** 2).mean(), net)(x, y)
        opt.step(grads)
        return loss

    with bw.Checkpointer(directory, keep=2) as checkpoints:
        step = 0
        if checkpoints.latest is not None:
            restored = checkpoints.restore(net, opt)
            step = restored.step
            batches.set_state(restored.extra)
        print("start", step, flush=True)
        while step < steps:
            rows = batches.take(32)
            rows = rows[np.random.permutation(32)]  # and numbers from NumPy's global generator
            train(X[rows], Y[rows])
            step += 1
            print("save", step, flush=True)
            checkpoints.save(step, net, opt, extra=batches.state())
            print("saved", step, flush=True)
    state = {f"net.{k}": v for k, v in net.state_dict().items()} | {f"opt.{k}": v for k, v in opt.state_dict().items()}
    np.savez(result, **state, stream=bw.random.stream(), left=batches.left, numpy=np.random.rand(3))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
