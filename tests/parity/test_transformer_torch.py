"""Transformers against PyTorch."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from tests.parity.harness import assert_close, compare_layers, normal

import brickwork as bw
from brickwork import nn

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor")  # PyTorch's, about its own fast path

S, T, N, E, H, WIDE = 5, 3, 2, 4, 2, 6
CAUSAL = np.triu(np.full((T, T), -np.inf), 1)
SOURCE_CAUSAL = np.triu(np.ones((S, S), bool), 1)
PADDING = np.array([[False] * 4 + [True], [False] * 3 + [True] * 2])
TARGET_PADDING = np.array([[False] * 3, [False, False, True]])


def both(kind, **options):
    """Our layer with sizes from the data, and PyTorch's."""
    options = {"dim_feedforward": WIDE, "dropout": 0.0, **options}
    theirs = getattr(torch.nn, kind)
    ours = getattr(nn, kind)
    if kind == "Transformer":
        options |= {"num_encoder_layers": 1, "num_decoder_layers": 2}
        return ours(nhead=H, **options), theirs(E, H, **options)
    return ours(H, **options), theirs(E, H, **options)


ENCODERS = {
    "relu": ({}, {}, "float32"),
    "gelu, normalising first": (
        {"activation": "gelu", "norm_first": True, "batch_first": True},
        {"src_mask": SOURCE_CAUSAL, "is_causal": True},
        "float32",
    ),
    "a function, no biases": (
        {"activation": torch.tanh, "bias": False, "layer_norm_eps": 1e-2},
        {"src_key_padding_mask": PADDING},
        "float32",
    ),
    "float64": ({"batch_first": True}, {"src_mask": normal(1, N * H, S, S)}, "float64"),
    "bfloat16": ({}, {"src_mask": SOURCE_CAUSAL}, "bfloat16"),
}


@pytest.mark.parametrize("case", ENCODERS)
def test_encoder_layer(case):
    options, call, dtype = ENCODERS[case]
    ours, theirs = both("TransformerEncoderLayer", **options)
    if not isinstance(options.get("activation", ""), str):
        ours.activation = jnp.tanh
    x = normal(0, S, N, E)
    compare_layers(ours, theirs, x.swapaxes(0, 1) if options.get("batch_first") else x, dtype=dtype, **call)


DECODERS = {
    "relu": ({}, {}, "float32"),
    "gelu, normalising first": (
        {"activation": "gelu", "norm_first": True, "batch_first": True},
        {"tgt_mask": CAUSAL, "tgt_is_causal": True, "memory_key_padding_mask": PADDING},
        "float32",
    ),
    "masks of both": (
        {"bias": False},
        {"tgt_key_padding_mask": TARGET_PADDING, "memory_mask": np.arange(S) > np.arange(T)[:, None] + 2},
        "float64",
    ),
}


@pytest.mark.parametrize("case", DECODERS)
def test_decoder_layer(case):
    options, call, dtype = DECODERS[case]
    ours, theirs = both("TransformerDecoderLayer", **options)
    inputs = normal(0, T, N, E), normal(1, S, N, E)
    if options.get("batch_first"):
        inputs = tuple(x.swapaxes(0, 1) for x in inputs)
    compare_layers(ours, theirs, *inputs, dtype=dtype, **call)


@pytest.mark.parametrize("final", [True, False], ids=["norm", "no norm"])
def test_encoder(final):
    layer, their_layer = both("TransformerEncoderLayer", batch_first=True)
    ours = nn.TransformerEncoder(layer, 2, nn.LayerNorm() if final else None)
    theirs = torch.nn.TransformerEncoder(their_layer, 2, torch.nn.LayerNorm(E) if final else None)
    compare_layers(ours, theirs, normal(0, N, S, E), mask=SOURCE_CAUSAL, src_key_padding_mask=PADDING, training=final)


def test_transformer():
    ours, theirs = both("Transformer")
    masks = {
        "tgt_mask": CAUSAL,
        "src_key_padding_mask": PADDING,
        "memory_key_padding_mask": PADDING,
        "tgt_is_causal": True,
    }
    compare_layers(ours, theirs, normal(0, S, N, E), normal(1, T, N, E), **masks)


def test_transformer_without_a_batch():
    ours, theirs = both("Transformer", batch_first=True)
    compare_layers(ours, theirs, normal(0, S, E), normal(1, T, E), gradients=False, training=False)


def test_the_mask():
    theirs = torch.nn.Transformer.generate_square_subsequent_mask(4)
    assert_close(nn.Transformer.generate_square_subsequent_mask(4), theirs, 0, "mask")


@pytest.mark.parametrize("kind", ["TransformerEncoderLayer", "TransformerDecoderLayer", "Transformer"])
def test_initial_values_are_pytorchs(kind):
    """The same ranges and variances; ``Transformer`` draws all matrices from ``xavier_uniform``."""
    options = {"dim_feedforward": 80}
    sizes = {"num_encoder_layers": 2, "num_decoder_layers": 1} if kind == "Transformer" else {}
    theirs = getattr(torch.nn, kind)(64, 4, **options, **sizes)
    ours = getattr(nn, kind)(nhead=4, d_model=64, **options, **sizes)
    state = ours.state_dict()
    assert list(state) == list(theirs.state_dict())
    for name, expected in theirs.state_dict().items():
        found, expected = np.asarray(state[name]), expected.numpy()
        assert found.shape == expected.shape
        np.testing.assert_allclose(abs(found).max(), abs(expected).max(), rtol=0.15, err_msg=name)
        np.testing.assert_allclose(found.std(), expected.std(), rtol=0.25, atol=1e-9, err_msg=name)
        if expected.ndim == 2:
            np.testing.assert_allclose(abs(found).max(), abs(expected).max(), rtol=0.01, err_msg=name)


def test_copies_of_a_stack_begin_alike_and_those_of_a_transformer_do_not():
    stack = nn.TransformerEncoder(nn.TransformerEncoderLayer(H, dim_feedforward=WIDE), 2)
    stack(jnp.ones((S, N, E)))
    a, b = (layer.state_dict() for layer in stack.layers)
    assert all(bool((a[name] == b[name]).all()) for name in a)
    net = nn.Transformer(nhead=H, num_encoder_layers=2, num_decoder_layers=2, dim_feedforward=WIDE)
    net.initialize(bw.spec(S, N, E), bw.spec(T, N, E))
    for part in (net.encoder, net.decoder):
        a, b = (layer.state_dict() for layer in part.layers)
        assert not any(bool((a[name] == b[name]).all()) for name in a if a[name].ndim > 1)
