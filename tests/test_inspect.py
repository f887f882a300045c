"""Summaries."""

from __future__ import annotations

import gc

import jax
import jax.numpy as jnp

import brickwork as bw
from brickwork import nn


def test_rows_and_totals():
    net = nn.Sequential(nn.Linear(4), nn.ReLU(), nn.BatchNorm1d(), nn.Linear(2, bias=False))
    gc.collect()  # of what earlier tests left behind
    before = sum(a.nbytes for a in jax.live_arrays())
    summary = net.summary(bw.spec(5, 3))
    assert sum(a.nbytes for a in jax.live_arrays()) == before
    assert [(r.path, r.output, r.parameters) for r in summary.rows] == [
        ("", "(5, 2)", 0),
        ("0", "(5, 4)", 16),
        ("1", "(5, 4)", 0),
        ("2", "(5, 4)", 8),
        ("3", "(5, 2)", 8),
    ]
    assert (summary.parameters, summary.trainable, summary.size) == (32, 32, 128)
    net[0].freeze()
    assert net.summary().trainable == 16
    text = str(summary)
    assert "Linear(3 → 4)" in text
    assert text.endswith("32 parameters, 32 trainable, 128 bytes")


def test_before_shapes_are_known():
    summary = nn.Sequential(nn.Linear(4)).summary()
    assert summary.parameters is None
    assert "some shapes are not known yet: pass bw.spec(...)" in str(summary)


def test_tied_parameters_count_once():
    layer = nn.Linear(3, in_features=3)
    net = nn.Sequential(layer, nn.ReLU(), layer)
    assert net.summary(bw.spec(1, 3)).parameters == 12
    other = nn.Sequential(nn.Linear(3, in_features=3), nn.Linear(3, in_features=3))
    other[1].weight = other[0].weight
    assert [r.parameters for r in other.summary().rows] == [0, 12, 3]


def test_the_mode_and_the_statistics_stay():
    net = nn.Sequential(nn.Linear(2), nn.BatchNorm1d()).eval()
    net.initialize(bw.spec(4, 3))
    mean = net[1].running_mean.value
    net.train().summary(bw.spec(4, 3))
    assert net.training
    assert net[1].running_mean.value is mean
    assert jnp.all(mean == 0)
