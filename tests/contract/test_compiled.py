"""Compiled, every layer does what it does eagerly, and only once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.contract.catalogue import ROWS, Row, close, every_row, rows_where

import brickwork as bw
from brickwork import nn
from brickwork.errors import BrickworkError


def values(layer):
    return {name: np.asarray(v) for name, v in layer.named_variables()}


def assert_no_tracers(layer):
    for name, v in layer.named_variables():
        assert not isinstance(v._value, jax.core.Tracer), name
        if v.is_drawn:
            assert isinstance(v.value, jax.Array), name
            np.asarray(v.value)


@every_row
def test_eager_equals_compiled(row: Row):
    eager = row.built()
    compiled_layer = eager.clone()
    compiled = bw.compile(compiled_layer)
    for seed in range(2):
        x = row.data(seed)
        bw.seed(5)
        expected = eager(x)
        bw.seed(5)
        close(compiled(x), expected)
        # the same key is next in both
        key = jax.random.key_data(bw.random.key())
        bw.seed(5)
        eager.clone()(x)
        np.testing.assert_array_equal(jax.random.key_data(bw.random.key()), key)
    a, b = values(eager), values(compiled_layer)
    assert list(a) == list(b)
    for name in a:
        close(a[name], b[name])
    assert compiled.stats().compilations == 1
    assert_no_tracers(compiled_layer)


@every_row
def test_a_deferred_layer_may_be_compiled_first(row: Row):
    bw.seed(3)
    layer = row.make()
    if row.random:
        layer.eval()
    x = row.data()
    compiled = bw.compile(layer)
    y = compiled(x)
    reference = row.deterministic()
    close(y, reference(x))
    compiled(x)
    assert compiled.stats().compilations == 1
    for name, v in layer.named_variables():
        if not row.stateful:
            np.testing.assert_array_equal(v, dict(reference.named_variables())[name])
    assert_no_tracers(layer)


@rows_where(lambda row: not row.transient)
def test_train_and_eval_are_two_programs(row: Row):
    layer = row.built()
    x = row.data()
    compiled = bw.compile(layer)
    compiled(x)
    layer.eval()
    twin = layer.clone()
    close(compiled(x), twin(x))
    layer.train()
    compiled(x)
    layer.eval()
    close(compiled(x), layer.clone()(x))
    assert compiled.stats().compilations == 2


@rows_where(lambda row: row.wrong_rank is not None or row.wrong_width is not None)
def test_a_failing_trace_leaves_everything_as_it_was(row: Row):
    layer = row.built()
    for p in layer.variables():
        p.value
    before = values(layer)
    compiled = bw.compile(layer)
    wrong = row.wrong_rank if row.wrong_width is None else row.wrong_width
    for _ in range(2):
        with pytest.raises((BrickworkError, TypeError)):
            compiled(row.data(shape=wrong))
    assert_no_tracers(layer)
    after = values(layer)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])
    twin = layer.clone()
    bw.seed(1)
    y = compiled(row.data())
    bw.seed(1)
    close(y, twin(row.data()))


@rows_where(lambda row: row.is_deferred and row.wrong_rank is not None)
def test_a_failing_first_trace_leaves_a_deferred_layer_deferred(row: Row):
    layer = row.make()
    net = nn.Sequential(layer)
    with pytest.raises((BrickworkError, TypeError)):
        bw.compile(net)(row.data(shape=row.wrong_rank))
    assert {n: v.shape for n, v in layer.named_variables()} == {n: v.shape for n, v in row.make().named_variables()}
    net(row.data())


def test_a_network_of_many_layers():
    def make():
        bw.seed(2)
        return nn.Sequential(
            nn.Conv2d(2, 3, padding=1),
            nn.BatchNorm2d(),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.25),
            nn.Flatten(),
            nn.Linear(4),
            nn.LayerNorm(),
            nn.Tanh(),
            nn.Linear(2),
        )

    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 1, 4, 4)), jnp.float32)
    eager, other = make(), make()
    compiled = bw.compile(other)
    for seed in range(3):
        bw.seed(seed)
        a = eager(x)
        bw.seed(seed)
        np.testing.assert_allclose(compiled(x), a, rtol=1e-4, atol=1e-5)
    assert compiled.stats().compilations == 1
    np.testing.assert_allclose(other[1].running_var, eager[1].running_var, rtol=1e-4)


@every_row
def test_the_catalogue_is_right(row: Row):
    assert tuple(name for name, _ in row.make().named_parameters()) == row.parameters
    assert any(None in v.shape for v in row.make().variables()) == row.is_deferred
    assert not any(None in v.shape for v in row.explicit().variables())


NOT_CALLED = (nn.ModuleDict, nn.ModuleList, nn.ParameterDict, nn.ParameterList)


def test_the_catalogue_is_complete():
    layers = {v for v in vars(nn).values() if isinstance(v, type) and issubclass(v, nn.Module) and v is not nn.Module}
    covered = {kind for row in ROWS for kind in type(row.make()).__mro__}
    assert not layers - covered - set(NOT_CALLED)


@pytest.mark.parametrize("kind", NOT_CALLED)
def test_what_is_not_called_has_no_row(kind):
    with pytest.raises(TypeError, match=f"{kind.__name__} holds .* and can't be called"):
        kind()(jnp.ones(3))
