"""Embeddings against torch's."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.parity.harness import assert_close, compare_layers, normal  # noqa: E402

import brickwork as bw  # noqa: E402
from brickwork import nn  # noqa: E402

ROWS, WIDTH = 6, 3
INDICES = np.array([[1, 4, 4, 0], [2, 1, 4, 5]])
TABLE = {
    "plain": {},
    "padding": {"padding_idx": 4},
    "padding from the end": {"padding_idx": -1},
    "max_norm": {"max_norm": 1.0},
    "norm 1": {"max_norm": 0.7, "norm_type": 1},
    "norm 3": {"max_norm": 0.7, "norm_type": 3.0, "padding_idx": 1},
    "largest": {"max_norm": 0.5, "norm_type": float("inf")},
    "zero": {"max_norm": 0.0},
    "by frequency": {"scale_grad_by_freq": True, "padding_idx": 1},
}


def pair(name, **options):
    torch.manual_seed(0)
    return getattr(nn, name)(ROWS, WIDTH, **options), getattr(torch.nn, name)(ROWS, WIDTH, **options)


def compare(ours, theirs, *inputs, tolerance=1e-6, **options):
    """As ``compare_layers``, and the table afterwards."""
    compare_layers(ours, theirs, *inputs, tolerance=tolerance, **options)
    assert_close(ours.weight.value, theirs.weight, tolerance, "table")


@pytest.mark.parametrize("options", TABLE.values(), ids=TABLE)
def test_embedding(options):
    compare(*pair("Embedding", **options), INDICES)
    compare(*pair("Embedding", **options), np.array(4), training=False)


def test_dtypes_and_sizes():
    for dtype in ("float64", "bfloat16"):
        compare_layers(*pair("Embedding", scale_grad_by_freq=True), INDICES, dtype=dtype)
    compare_layers(*pair("Embedding"), np.zeros((0, 2), np.int64))
    compare_layers(*pair("Embedding", max_norm=1.0), np.zeros((0,), np.int64))
    compare_layers(*pair("Embedding"), np.asfortranarray(INDICES))


def test_norms_below_the_limit_stay_to_the_bit():
    ours, theirs = pair("Embedding", max_norm=100.0)
    compare_layers(ours, theirs, INDICES)
    np.testing.assert_array_equal(ours.weight, theirs.weight.detach().numpy())


BAGS = {
    "sum": {"mode": "sum"},
    "mean": {},
    "max": {"mode": "max"},
    "sum with padding": {"mode": "sum", "padding_idx": 4},
    "mean with padding": {"padding_idx": -2},
    "max with padding": {"mode": "max", "padding_idx": 1},
    "mean with max_norm": {"max_norm": 0.8, "padding_idx": 1},
    "sum with norm 1": {"mode": "sum", "max_norm": 0.8, "norm_type": 1.0},
}
RAGGED = (INDICES.ravel(), np.array([0, 3, 3, 7]))


@pytest.mark.parametrize("options", BAGS.values(), ids=BAGS)
def test_bags(options):
    compare(*pair("EmbeddingBag", **options), INDICES)
    compare(*pair("EmbeddingBag", **options), *RAGGED)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_with_the_last_offset(mode):
    offsets = np.array([0, 0, 3, 8])
    compare(*pair("EmbeddingBag", mode=mode, include_last_offset=True), INDICES.ravel(), offsets)


@pytest.mark.parametrize("padding_idx", [None, 4])
def test_weighted_bags(padding_idx):
    options = {"mode": "sum", "padding_idx": padding_idx}

    def call(layer, indices, weights):
        return layer(indices, per_sample_weights=weights)

    def ragged(layer, indices, offsets, weights):
        return layer(indices, offsets, weights)

    compare(*pair("EmbeddingBag", **options), INDICES, normal(0, *INDICES.shape), call=call)
    compare(*pair("EmbeddingBag", **options), *RAGGED, normal(0, INDICES.size), call=ragged)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_padding_only_and_no_bags(mode):
    options = {"mode": mode, "padding_idx": 2}
    compare(*pair("EmbeddingBag", **options), np.array([[2, 2], [2, 1]]))
    compare(*pair("EmbeddingBag", **options), np.zeros((0,), np.int64), np.array([0, 0]))
    compare(*pair("EmbeddingBag", **options), np.zeros((0, 3), np.int64))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_dtypes_of_bags(mode):
    compare_layers(*pair("EmbeddingBag", mode=mode), INDICES, dtype="float64")
    compare_layers(*pair("EmbeddingBag", mode=mode), INDICES, dtype="bfloat16")


def test_equal_largest_values():
    """The first of them has the gradient."""
    ours, theirs = pair("EmbeddingBag", mode="max")
    with torch.no_grad():
        theirs.weight[:] = theirs.weight.round()
    compare(ours, theirs, np.array([[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]]))


@pytest.mark.parametrize("name", ["Embedding", "EmbeddingBag"])
def test_from_pretrained(name):
    table = normal(0, ROWS, WIDTH).astype(np.float32)
    options = {"padding_idx": 1, "max_norm": 0.9, "norm_type": 1.0}
    ours = getattr(nn, name).from_pretrained(table, **options)
    theirs = getattr(torch.nn, name).from_pretrained(torch.tensor(table), **options)
    np.testing.assert_array_equal(ours.weight, table)
    assert ours.weight.trainable == theirs.weight.requires_grad
    assert_close(ours(INDICES), theirs(torch.tensor(INDICES)), 1e-6, "output")
    assert_close(ours.weight.value, theirs.weight, 1e-6, "table")
    assert getattr(nn, name).from_pretrained(table, freeze=False).weight.trainable


def test_first_values():
    bw.seed(0)
    for name in ("Embedding", "EmbeddingBag"):
        weight = np.asarray(getattr(nn, name)(300, 40, padding_idx=7).weight)
        assert not weight[7].any()
        rest = np.delete(weight, 7, 0)
        assert abs(rest.std() - 1) < 0.02 and abs(rest.mean()) < 0.03
