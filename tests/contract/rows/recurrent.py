"""Recurrent layers and cells."""

from __future__ import annotations

import jax.numpy as jnp
from tests.contract.row import Row, with_inputs

from brickwork import nn


def all_of(result):
    """The output, and the final states of it too where there are any: as one array with the batch in front."""
    output, states = result
    states = states if isinstance(states, tuple) else (states,)
    rows = [flat(s.swapaxes(0, 1)) for s in states]
    return jnp.concatenate([flat(output), *rows], -1)


def flat(x):
    return x.reshape(x.shape[0], x.shape[1] * x.shape[2])


RNN = with_inputs(nn.RNN, lambda x: (x,), all_of)
LSTM = with_inputs(nn.LSTM, lambda x: (x,), all_of)
GRU = with_inputs(nn.GRU, lambda x: (x,), all_of)
RNNCell, LSTMCell, GRUCell = (with_inputs(cell, lambda x: (x,)) for cell in (nn.RNNCell, nn.LSTMCell, nn.GRUCell))


def some(x):
    """Lengths of the sequences, from 1 on."""
    return jnp.arange(x.shape[0], dtype=jnp.int32) % 3 + 1


def parameters(*layers, bias=True, hr=False):
    names = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if bias else []), *(["weight_hr"] if hr else [])]
    return tuple(f"{name}{layer}" for layer in layers for name in names)


CELL = {"shape": (4, 3), "wrong_rank": (2, 4, 3), "wrong_width": (4, 5), "parameters": parameters("")}
LAYER = {"shape": (3, 4, 2), "wrong_rank": (3,), "wrong_width": (3, 4, 5)}


class Lengths(LSTM):
    def forward(self, x):
        return all_of(nn.LSTM.forward(self, x, None, some(x) if x.ndim == 3 else None))


ROWS = [
    Row("RNNCell", lambda: RNNCell(2), lambda: RNNCell(2, input_size=3), **CELL),
    Row("GRUCell", lambda: GRUCell(2), lambda: GRUCell(2, input_size=3), **CELL),
    Row("LSTMCell", lambda: LSTMCell(2), lambda: LSTMCell(2, input_size=3), **CELL),
    Row(
        "RNN",
        lambda: RNN(2, batch_first=True),
        lambda: RNN(2, batch_first=True, input_size=2),
        **LAYER,
        parameters=parameters("_l0"),
    ),
    Row(
        "GRU of two layers with dropout",
        lambda: GRU(3, batch_first=True, num_layers=2, dropout=0.5),
        lambda: GRU(3, batch_first=True, num_layers=2, dropout=0.5, input_size=2),
        **LAYER,
        random=True,
        parameters=parameters("_l0", "_l1"),
    ),
    Row(
        "LSTM",
        lambda: LSTM(2, batch_first=True),
        lambda: LSTM(2, batch_first=True, input_size=2),
        **LAYER,
        parameters=parameters("_l0"),
    ),
    Row(
        "LSTM in both directions, projected",
        lambda: LSTM(3, batch_first=True, bidirectional=True, proj_size=2, bias=False),
        lambda: LSTM(3, batch_first=True, bidirectional=True, proj_size=2, bias=False, input_size=2),
        **LAYER,
        parameters=parameters("_l0", "_l0_reverse", bias=False, hr=True),
    ),
    Row(
        "LSTM over sequences of different lengths",
        lambda: Lengths(2, batch_first=True, bidirectional=True),
        lambda: Lengths(2, batch_first=True, bidirectional=True, input_size=2),
        **LAYER,
        parameters=parameters("_l0", "_l0_reverse"),
    ),
]
