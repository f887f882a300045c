"""Recurrent layers and cells against torch's."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.parity.harness import compare_layers, normal  # noqa: E402

import brickwork as bw  # noqa: E402
from brickwork import nn  # noqa: E402

# torch says that it takes another of its own implementations
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")

KINDS = ["RNN", "LSTM", "GRU"]
TIME, BATCH, INPUTS, HIDDEN = 5, 3, 4, 6

# Every option with every kind, few combinations: what runs in both directions runs in layers as well.
OPTIONS = {
    "plain": {},
    "without bias": {"bias": False},
    "batch first, two layers": {"batch_first": True, "num_layers": 2},
    "both directions, two layers": {"bidirectional": True, "num_layers": 2},
}
CASES = [(kind, options) for kind in KINDS for options in OPTIONS.values()] + [
    ("RNN", {"nonlinearity": "relu", "bidirectional": True}),
    ("LSTM", {"proj_size": 2}),
    ("LSTM", {"proj_size": 3, "bidirectional": True, "num_layers": 2, "bias": False, "batch_first": True}),
]
named = [f"{kind} {' '.join(f'{k}={v}' for k, v in options.items())}" for kind, options in CASES]


def pair(kind, options, inputs=INPUTS):
    torch.manual_seed(0)
    return getattr(nn, kind)(HIDDEN, **options), getattr(torch.nn, kind)(inputs, HIDDEN, **options)


def data(options, *, batch=BATCH, time=TIME, seed=0):
    lead = (batch, time) if options.get("batch_first") else (time, batch)
    return normal(seed, *lead, INPUTS)


def states(kind, options, batch=(BATCH,)):
    """Initial states, as separate arrays."""
    rows = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    sizes = (options.get("proj_size", HIDDEN), HIDDEN) if kind == "LSTM" else (HIDDEN,)
    return [normal(7 + i, rows, *batch, size) for i, size in enumerate(sizes)]


def with_states(layer, x, *hx):
    return layer(x, tuple(hx) if len(hx) == 2 else hx[0])


@pytest.mark.parametrize(("kind", "options"), CASES, ids=named)
def test_options(kind, options):
    x = data(options)
    compare_layers(*pair(kind, options), x, *states(kind, options), dtype="float64", call=with_states)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_states_of_zeros(kind, training):
    compare_layers(*pair(kind, {}), data({}), training=training)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16(kind):
    compare_layers(*pair(kind, {"bias": False}), data({}), dtype="bfloat16")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", [False, True], ids=["no states", "states"])
def test_one_sequence(kind, given):
    options = {"bidirectional": True, "batch_first": True}
    hx = states(kind, options, ()) if given else []
    call = with_states if given else None
    compare_layers(*pair(kind, options), normal(0, TIME, INPUTS), *hx, call=call)


def test_one_sequence_projected():
    compare_layers(*pair("LSTM", {"proj_size": 2}), normal(0, TIME, INPUTS))


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_of_one_and_none(kind):
    options = {"bidirectional": True}
    compare_layers(*pair(kind, options), data(options, batch=1, time=1))
    compare_layers(*pair(kind, options), data(options, batch=0), gradients=False)


def test_non_contiguous_input():
    x = normal(0, INPUTS, BATCH, 2 * TIME).transpose(2, 1, 0)[::2]
    assert not x.flags.c_contiguous
    compare_layers(*pair("LSTM", {}), x)


# -- sequences of different lengths ----------------------------------------------------------------


def packed(layer, x, *hx, lengths):
    hx = None if not hx else tuple(hx) if len(hx) == 2 else hx[0]
    if not isinstance(x, torch.Tensor):
        return layer(x, hx, lengths)
    rnn = torch.nn.utils.rnn
    batch_first = layer.batch_first
    sequences = rnn.pack_padded_sequence(x, lengths, batch_first=batch_first, enforce_sorted=False)
    output, last = layer(sequences, hx)
    time = x.shape[1 if batch_first else 0]
    return rnn.pad_packed_sequence(output, batch_first=batch_first, total_length=time)[0], last


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [(2, 5, 1), (3, 1, 4), (5, 5, 5)], ids=str)
def test_lengths(kind, lengths):
    options = {"bidirectional": True, "num_layers": 2, "batch_first": kind == "GRU"}
    hx = states(kind, options)
    lengths = np.array(lengths)
    compare_layers(*pair(kind, options), data(options), *hx, lengths=lengths, call=packed, dtype="float64")


def test_lengths_in_one_direction():
    for kind, options in (("LSTM", {"proj_size": 2}), ("RNN", {"nonlinearity": "relu"}), ("GRU", {})):
        compare_layers(*pair(kind, options), data(options), lengths=np.array([4, 2, 3]), call=packed)


# -- cells -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_cells(kind, bias, dtype):
    hx = [normal(1 + i, BATCH, HIDDEN) for i in range(1 + (kind == "LSTM"))]
    for given in ([], hx):
        ours, theirs = pair(f"{kind}Cell", {"bias": bias})
        call = with_states if given else None
        compare_layers(ours, theirs, normal(0, BATCH, INPUTS), *given, dtype=dtype, call=call)


@pytest.mark.parametrize("kind", KINDS)
def test_cells_without_batch(kind):
    hx = [normal(1 + i, HIDDEN) for i in range(1 + (kind == "LSTM"))]
    compare_layers(*pair(f"{kind}Cell", {}), normal(0, INPUTS), *hx, call=with_states)
    compare_layers(*pair(f"{kind}Cell", {}), normal(0, 0, INPUTS), gradients=False)


def test_cell_with_relu():
    compare_layers(*pair("RNNCell", {"nonlinearity": "relu"}), normal(0, BATCH, INPUTS))


# -- first values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*KINDS, "RNNCell", "LSTMCell", "GRUCell"])
def test_first_values_have_torch_s_distribution(name):
    bw.seed(0)
    torch.manual_seed(0)
    ours = getattr(nn, name)(100, input_size=70)
    theirs = getattr(torch.nn, name)(70, 100)
    for key, p in theirs.named_parameters():
        a, b = np.asarray(ours.state_dict()[key]), p.detach().numpy()
        assert a.shape == b.shape
        assert abs(a).max() <= 0.1 and abs(b).max() <= 0.1
        assert abs(a.std() - 0.1 / 3**0.5) < 0.15 / a.size**0.5
        assert abs(a.mean()) < 0.3 / a.size**0.5
