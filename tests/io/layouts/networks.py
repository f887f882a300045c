"""The networks of the fixtures, as anyone would write them with brickwork."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from tests.io.foreign import FIXTURES

from brickwork import nn


class MLP(nn.Module):
    def __init__(self, sizes=True, output="output"):
        self.hidden = nn.Linear(256, in_features=20 if sizes else None)
        self.output_name = output
        setattr(self, output, nn.Linear(10, in_features=256 if sizes else None))

    def forward(self, x):
        return getattr(self, self.output_name)(jax.nn.relu(self.hidden(x)))


class EmbedLSTM(nn.Module):
    def __init__(self, sizes=True):
        self.embedding = nn.Embedding(50, 16)
        self.rnn = nn.LSTM(32, input_size=16 if sizes else None, num_layers=2, batch_first=True)
        self.dense = nn.Linear(50, in_features=32 if sizes else None)

    def forward(self, x):
        return self.dense(self.rnn(self.embedding(x))[0])


def mlp(sizes=True):
    first, second = (20, 256) if sizes else (None, None)
    return nn.Sequential(nn.Linear(256, in_features=first), nn.ReLU(), nn.Linear(10, in_features=second))


def lenet(sizes=True, eps=1e-5):
    def known(n):
        return n if sizes else None

    return nn.Sequential(
        nn.Conv2d(6, 5, in_channels=known(1), padding=2),
        nn.BatchNorm2d(num_features=known(6), eps=eps),
        nn.Sigmoid(),
        nn.AvgPool2d(2),
        nn.Conv2d(16, 5, in_channels=known(6)),
        nn.BatchNorm2d(num_features=known(16), eps=eps),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(120, in_features=known(400)),
        nn.ReLU(),
        nn.Linear(84, in_features=known(120)),
        nn.ReLU(),
        nn.Linear(10, in_features=known(84)),
    )


def keras_lenet(sizes=True):
    return lenet(sizes, eps=1e-3)


def tied(sizes=True):
    first, second = (4, 8) if sizes else (None, None)
    shared = nn.Linear(8, in_features=second)
    ends = nn.Linear(8, in_features=first), nn.Linear(1, in_features=second)
    return nn.Sequential(ends[0], nn.ReLU(), shared, nn.ReLU(), shared, nn.ReLU(), ends[1])


def norm_mlp(sizes=True):
    first, second = (20, 256) if sizes else (None, None)
    return nn.Sequential(
        nn.Linear(256, in_features=first),
        nn.BatchNorm1d(num_features=second),
        nn.ReLU(),
        nn.Linear(10, in_features=second),
    )


def error_of(net, framework, name):
    """The largest difference between the outputs of a network and those that the framework computed."""
    with np.load(FIXTURES / framework / f"expected_{name}.npz") as file:
        x, wanted = file["x"], file["y"]
    if x.ndim == 4 and x.shape[-1] == 1:
        x = np.moveaxis(x, -1, 1)
    found = np.asarray(net.eval()(jnp.asarray(x)))
    assert found.shape == wanted.shape
    return np.abs(found - wanted).max()
