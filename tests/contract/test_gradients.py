"""Gradients of every layer against differences."""

from __future__ import annotations

import jax
import numpy as np
from tests.contract.catalogue import Row, rows_where

import brickwork as bw

STEP = 1e-2


def setup(row: Row):
    """A loss of the layer's output, weighted so that no direction is special."""
    layer = row.deterministic()
    for i, p in enumerate(layer.parameters()):
        p.value = jax.random.normal(jax.random.key(i), p.shape) + 0.5
    x = row.data()
    weights = jax.random.normal(jax.random.key(9), layer(x).shape)

    def loss(x):
        return (layer(x) * weights).sum() + (layer(x) ** 2).sum() / 2

    return layer, x, loss


def trained(layer):
    """The parameters that gradients take into account, by name."""
    return {name: p for name, p in layer.named_parameters() if p.trainable}


def directional(f, values, direction, step=STEP):
    """The derivative of ``f`` along a direction, by a central difference of fourth order."""

    def at(t):
        return float(f({k: v + t * direction[k] for k, v in values.items()}))

    return (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)


def check(f, values, gradients):
    keys = jax.random.split(jax.random.key(1), len(values))
    direction = {
        name: jax.random.normal(key, v.shape) / np.sqrt(v.size)
        for key, (name, v) in zip(keys, values.items(), strict=True)
    }
    expected = directional(f, values, direction)
    found = sum(float((gradients[name] * d).sum()) for name, d in direction.items())
    scale = max(1.0, float(np.sqrt(sum(float((g**2).sum()) for g in gradients.values()))))
    assert abs(found - expected) < 5e-3 * scale, (found, expected)


@rows_where(lambda row: row.has_parameters)
def test_by_the_parameters(row: Row):
    layer, x, loss = setup(row)
    parameters = trained(layer)
    value, gradients = bw.value_and_grad(loss, layer)(x)
    assert list(gradients) == list(parameters)
    for name, g in gradients.items():
        assert g.shape == parameters[name].shape
        assert g.dtype == parameters[name].dtype
    np.testing.assert_allclose(value, loss(x), rtol=1e-4)
    values = {name: p.value for name, p in parameters.items()}

    def f(new):
        for name, p in parameters.items():
            p.value = new[name]
        return compiled(x)

    compiled = bw.compile(loss)
    check(f, values, gradients)


@rows_where(lambda row: not row.takes_indices)
def test_by_the_input(row: Row):
    layer, x, _ = setup(row)
    pure, state = bw.functional(layer)
    weights = jax.random.normal(jax.random.key(9), pure(state, x)[0].shape)

    @jax.jit
    def f(values):
        y = pure(state, values["x"])[0]
        return (y * weights).sum() + (y**2).sum() / 2

    check(f, {"x": x}, jax.grad(f)({"x": x}))


@rows_where(lambda row: row.has_parameters)
def test_eager_and_compiled_gradients_are_equal(row: Row):
    layer, x, loss = setup(row)
    eager = bw.grad(loss, layer)(x)
    compiled = bw.compile(bw.grad(loss, layer))(x)
    for name in eager:
        np.testing.assert_allclose(compiled[name], eager[name], rtol=1e-3, atol=1e-4)


@rows_where(lambda row: row.has_parameters)
def test_a_frozen_layer_has_none(row: Row):
    layer, x, loss = setup(row)
    first, *others = trained(layer)
    layer.freeze(first)
    if not others:
        return
    assert list(bw.grad(loss, layer)(x)) == others


@rows_where(lambda row: row.has_parameters)
def test_backward_adds_up(row: Row):
    layer, x, loss = setup(row)
    gradients = bw.grad(loss, layer)(x)
    bw.backward(loss, layer)(x)
    bw.backward(loss, layer)(x)
    for name, p in trained(layer).items():
        np.testing.assert_allclose(p.grad, 2 * gradients[name], rtol=1e-3, atol=1e-4)
        assert not isinstance(p.grad, jax.core.Tracer)
