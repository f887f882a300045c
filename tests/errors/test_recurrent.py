"""What recurrent layers, embeddings, dropout, bilinear layers and reshaping refuse."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.errors.checks import refuse, unchanged

from brickwork import functional as F, nn
from brickwork.errors import ShapeMismatchError

NAN = float("nan")

CONSTRUCTION = {
    "the order of another library": (
        lambda: nn.LSTM(128, 256),
        TypeError,
        "LSTM(hidden_size, *, input_size=None): got 2 positional sizes (128, 256); write nn.LSTM(256) and let the "
        "input decide, or nn.LSTM(256, input_size=128)",
    ),
    "the order of another library, with more": (
        lambda: nn.RNN(8, 16, 2, "relu"),
        TypeError,
        "RNN(hidden_size, *, input_size=None): got 4 positional arguments (8, 16, 2, 'relu'); write "
        "nn.RNN(16, num_layers=2, nonlinearity='relu') and let the input decide, or "
        "nn.RNN(16, input_size=8, num_layers=2, nonlinearity='relu')",
    ),
    "the order of another library, cell": (
        lambda: nn.GRUCell(3, 4),
        TypeError,
        "GRUCell(hidden_size, *, input_size=None): got 2 positional sizes (3, 4); ...",
    ),
    "the order of another library, Bilinear": (
        lambda: nn.Bilinear(3, 4, 5),
        TypeError,
        "Bilinear(out_features, *, in1_features=None): got 3 positional arguments (3, 4, 5); ...",
    ),
    "hidden_size": (lambda: nn.GRU(0), ValueError, "GRU: hidden_size must be at least 1, got 0."),
    "num_layers": (lambda: nn.GRU(2, num_layers=0), ValueError, "GRU: num_layers must be at least 1, got 0."),
    "num_layers of a bool": (
        lambda: nn.GRU(2, num_layers=True),
        TypeError,
        "GRU: num_layers must be an int, got True (bool).",
    ),
    "nonlinearity": (
        lambda: nn.RNN(2, nonlinearity="selu"),
        ValueError,
        "RNN: nonlinearity must be 'tanh' or 'relu', got 'selu'.",
    ),
    "nonlinearity of a cell": (
        lambda: nn.RNNCell(2, nonlinearity=None),
        ValueError,
        "RNNCell: nonlinearity must be 'tanh' or 'relu', got None.",
    ),
    "proj_size": (
        lambda: nn.LSTM(2, proj_size=2),
        ValueError,
        "LSTM: proj_size=2 must be smaller than hidden_size=2, or 0 for no projection.",
    ),
    "dropout": (lambda: nn.LSTM(2, dropout=NAN), ValueError, "LSTM: dropout must be in [0, 1], got nan."),
    "bidirectional": (
        lambda: nn.LSTM(2, bidirectional=2),
        TypeError,
        "LSTM: bidirectional must be True or False, got 2 (int).",
    ),
    "bias": (
        lambda: nn.LSTMCell(2, bias=None),
        TypeError,
        "LSTMCell: bias must be True or False, got None (NoneType).",
    ),
    "p": (lambda: nn.Dropout2d("0.5"), TypeError, "Dropout2d: p must be a Python number, got '0.5' (str)."),
    "p of alpha": (lambda: nn.AlphaDropout(-0.1), ValueError, "AlphaDropout: p must be in [0, 1], got -0.1."),
    "padding_idx": (
        lambda: nn.EmbeddingBag(3, 2, padding_idx=3),
        ValueError,
        "EmbeddingBag: padding_idx=3 is no row of a table of 3 rows; expected -3 to 2.",
    ),
    "max_norm": (
        lambda: nn.Embedding(3, 2, max_norm=-1),
        ValueError,
        "Embedding: max_norm must be at least 0, got -1.0.",
    ),
    "max_norm of NaN": (
        lambda: nn.Embedding(3, 2, max_norm=NAN),
        ValueError,
        "Embedding: max_norm must be a number, got nan.",
    ),
    "norm_type": (
        lambda: nn.Embedding(3, 2, norm_type="2"),
        TypeError,
        "Embedding: norm_type must be a number, got '2' (str).",
    ),
    "mode": (
        lambda: nn.EmbeddingBag(3, 2, mode="min"),
        ValueError,
        "EmbeddingBag: mode must be 'sum', 'mean' or 'max', got 'min'.",
    ),
    "mode and frequency": (
        lambda: nn.EmbeddingBag(3, 2, mode="max", scale_grad_by_freq=True),
        ValueError,
        "EmbeddingBag: scale_grad_by_freq=True is not for mode='max'; use 'sum' or 'mean'.",
    ),
    "a pretrained vector": (
        lambda: nn.Embedding.from_pretrained(jnp.ones(3)),
        ShapeMismatchError,
        "Embedding.from_pretrained: embeddings must have 2 axes (num_embeddings, embedding_dim), not 1. "
        "Got embeddings: float32[3]. Reshape the table.",
    ),
    "a pretrained table of integers": (
        lambda: nn.Embedding.from_pretrained(jnp.ones((3, 2), jnp.int32)),
        TypeError,
        "Embedding.from_pretrained: embeddings holds int32 values, but ...",
    ),
    "unflattened_size": (
        lambda: nn.Unflatten(1, 4),
        TypeError,
        "Unflatten: unflattened_size must be a tuple of ints, got 4 (int).",
    ),
    "unflattened_size, twice unknown": (
        lambda: nn.Unflatten(1, (-1, -1)),
        ValueError,
        "Unflatten: unflattened_size must hold at least one size, and at most one -1; got (-1, -1).",
    ),
    "unflattened_size of floats": (
        lambda: nn.Unflatten(1, (2.0, 3)),
        TypeError,
        "Unflatten: unflattened_size must be an int, got 2.0 (float).",
    ),
}


@pytest.mark.parametrize("case", CONSTRUCTION)
def test_construction(case):
    refuse(*CONSTRUCTION[case])


def test_dropout_that_has_no_effect_is_warned_of():
    with pytest.warns(UserWarning, match=r"LSTM: dropout=0\.5 has no effect with num_layers=1") as found:
        nn.LSTM(2, dropout=0.5)
    assert found[0].filename == __file__


X = jnp.ones((4, 3, 2))
CALLS = {
    "a vector": (
        lambda: nn.GRU(4),
        (jnp.ones(2),),
        ShapeMismatchError,
        "GRU: x must have 3 axes (T, N, features), or 2 axes (T, features), not 1. Got x: float32[2]. "
        "Reshape the data.",
        "GRU(? → 4)), called with float32[2]",
    ),
    "no time": (
        lambda: nn.GRU(4, batch_first=True),
        (jnp.ones((3, 0, 2)),),
        ShapeMismatchError,
        "GRU: x has no element in time. Got x: float32[3, 0, 2]. Check the data, or batch_first.",
        "GRU(? → 4, batch_first=True)), called with float32[3, 0, 2]",
    ),
    "width": (
        lambda: nn.LSTM(4, input_size=3),
        (X,),
        ShapeMismatchError,
        "lstm: x has 2 features in its last axis, but the input size is 3. Got x: float32[4, 3, 2]. "
        "The features seem to be axis 1; move them to the end.",
        "LSTM(3 → 4)), called with float32[4, 3, 2]",
    ),
    "initial state": (
        lambda: nn.GRU(4, input_size=2),
        (X, jnp.ones((1, 4))),
        ShapeMismatchError,
        "gru: hx must have the shape (1, 3, 4), as x has a batch or not. Got hx: float32[1, 4]. Check hx.",
        "GRU(2 → 4)), called with float32[4, 3, 2], float32[1, 4]",
    ),
    "one state for two": (
        lambda: nn.LSTM(4, input_size=2),
        (X, jnp.ones((1, 3, 4))),
        TypeError,
        "lstm: hx must be a pair (h, c) of arrays, got a ...",
        "LSTM(2 → 4)), called with float32[4, 3, 2], float32[1, 3, 4]",
    ),
    "lengths of floats": (
        lambda: nn.LSTM(4, input_size=2),
        (X, None, jnp.ones(3)),
        TypeError,
        "lstm: lengths must be integers, got float32[3]. Cast them: lengths.astype(jnp.int32).",
        "LSTM(2 → 4)), called with float32[4, 3, 2], None, float32[3]",
    ),
    "too few lengths": (
        lambda: nn.LSTM(4, input_size=2),
        (X, None, jnp.ones(4, int)),
        ShapeMismatchError,
        "lstm: lengths must have the shape (3,), one for each sequence of the batch. "
        "Got lengths: int32[4], x: float32[4, 3, 2]. Check lengths, or batch_first.",
        "LSTM(2 → 4)), called with float32[4, 3, 2], None, int32[4]",
    ),
    "a sequence for a cell": (
        lambda: nn.LSTMCell(4),
        (X,),
        ShapeMismatchError,
        "LSTMCell: x must have 2 axes (N, features), or 1 axis (features,), not 3. Got x: float32[4, 3, 2]. "
        "A cell takes one step; for a sequence, take the layer without Cell in its name.",
        "LSTMCell(? → 4)), called with float32[4, 3, 2]",
    ),
    "an image for Dropout2d": (
        lambda: nn.Dropout2d(),
        (X,),
        ShapeMismatchError,
        "dropout2d: x must have 4 axes (N, C, H, W), not 3. Got x: float32[4, 3, 2]. "
        "Add the batch axis to one image: x[None]; or use dropout1d for sequences (N, C, L).",
        "Dropout2d(p=0.5)), called with float32[4, 3, 2]",
    ),
    "no offsets": (
        lambda: nn.EmbeddingBag(3, 2),
        (jnp.ones(4, int),),
        TypeError,
        "embedding_bag: offsets are needed for indices of 1 axis, to say where each bag begins. "
        "Pass offsets, or indices[None] for one bag.",
        "EmbeddingBag(3 → 2)), called with int32[4]",
    ),
    "offsets too many": (
        lambda: nn.EmbeddingBag(3, 2),
        (jnp.ones((4, 2), int), jnp.zeros(1, int)),
        TypeError,
        "embedding_bag: offsets must be None for indices of 2 axes, whose rows are the bags; got int32[4, 2]. "
        "Leave offsets out, or pass indices of 1 axis.",
        "EmbeddingBag(3 → 2)), called with int32[4, 2], int32[1]",
    ),
    "weights of means": (
        lambda: nn.EmbeddingBag(3, 2, max_norm=0.1),
        (jnp.ones((4, 2), int), None, jnp.ones((4, 2))),
        ValueError,
        "embedding_bag: per_sample_weights are for mode='sum' only, got mode='mean'.",
        "EmbeddingBag(3 → 2, max_norm=0.1)), called with int32[4, 2], None, float32[4, 2]",
    ),
    "Bilinear, batches that differ": (
        lambda: nn.Bilinear(4, in1_features=2, in2_features=2),
        (jnp.ones((4, 2)), jnp.ones((3, 2))),
        ShapeMismatchError,
        "bilinear: x1 and x2 must have the same leading axes. Got x1: float32[4, 2], x2: float32[3, 2]. "
        "Check the data.",
        "Bilinear(2, 2 → 4)), called with float32[4, 2], float32[3, 2]",
    ),
    "Bilinear, width": (
        lambda: nn.Bilinear(4, in1_features=2, in2_features=3),
        (jnp.ones((4, 2)), jnp.ones((4, 2))),
        ShapeMismatchError,
        "bilinear: x2 has 2 features in its last axis, but weight of shape (4, 2, 3) expects 3. "
        "Got x2: float32[4, 2]. Check the data, or the sizes of the layer.",
        "Bilinear(2, 3 → 4)), called with float32[4, 2], float32[4, 2]",
    ),
    "Unflatten": (
        lambda: nn.Unflatten(1, (2, -1)),
        (jnp.ones((4, 5)),),
        ShapeMismatchError,
        "unflatten: axis 1 of size 5 can't be split into (2, -1). Got x: float32[4, 5]. "
        "The sizes must multiply to the size of the axis.",
        "Unflatten(dim=1, unflattened_size=(2, -1))), called with float32[4, 5]",
    ),
}


@pytest.mark.parametrize("case", CALLS)
def test_calls(case):
    make, inputs, kind, message, note = CALLS[case]
    net = make()
    with unchanged(net):
        error = None
        try:
            net(*inputs)
        except kind as e:
            error = e
    assert error is not None
    refuse(lambda: (_ for _ in ()).throw(error), kind, message, note=f"in net ({note}")


def test_functions():
    key = jax.random.key(0)
    weights = [(jnp.ones((8, 2)), jnp.ones((8, 2)))]
    refuse(
        lambda: F.lstm(X, weights, lengths=np.array([1, 2, 5])),
        ValueError,
        "lstm: lengths must be in [0, 4], the size of x in time, got [1, 2, 5].",
    )
    refuse(
        lambda: F.lstm(X[0], weights, lengths=[1]),
        ShapeMismatchError,
        "lstm: lengths are for a batch of sequences, and x is one sequence. ...",
    )
    refuse(
        lambda: F.lstm(X, weights * 2, dropout=0.5),
        TypeError,
        "lstm: key must be a random key such as jax.random.key(0), got None.",
    )
    refuse(
        lambda: F.lstm(X, weights, (jnp.ones((1, 3, 2)), None)),
        TypeError,
        "lstm: hx[1] must be an array, got None. Pass both states, or hx=None for zeros.",
    )
    refuse(
        lambda: F.feature_alpha_dropout(jnp.ones(3), 0.5, key),
        ShapeMismatchError,
        "feature_alpha_dropout: x must have at least 2 axes (N, C, ...), not 1. Got x: float32[3]. "
        "Add the missing axes, or drop single elements with alpha_dropout.",
    )
    refuse(
        lambda: F.embedding_bag(np.ones(3, int), jnp.ones((3, 2)), np.array([1, 2])),
        ValueError,
        "embedding_bag: offsets must begin with 0, where the first bag does; got 1.",
    )
    refuse(
        lambda: F.embedding_renorm(jnp.ones(3, int), jnp.ones((3, 2)), "1"),
        TypeError,
        "embedding_renorm: max_norm must be a number, got '1' (str).",
    )
    refuse(
        lambda: F.unflatten(jnp.float32(1), 0, (1,)),
        ShapeMismatchError,
        "unflatten: x is a scalar, which has no axis to split. Got x: float32[]. Pass an array.",
    )
