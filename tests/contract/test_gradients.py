"""Gradients of every layer against differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
from tests.contract.catalogue import Row, every_row, rows_where

import brickwork as bw

STEP = 1e-2


def normal(seed, shape):
    """Drawn by NumPy, which compiles nothing."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@jax.jit
def score(y, weights):
    """A loss of a layer's output, weighted so that no direction is special."""
    return (y * weights).sum() + (y**2).sum() / 2


def setup(row: Row):
    layer = row.deterministic()
    for i, p in enumerate(layer.parameters()):
        p.value = normal(i, p.shape) + 0.5
    x = row.data()
    weights = normal(99, layer(x).shape)
    return layer, x, lambda x: score(layer(x), weights)


def trained(layer):
    """The parameters that gradients take into account, by name."""
    return {name: p for name, p in layer.named_parameters() if p.trainable}


def directional(f, values, direction, step=STEP):
    """The derivative of ``f`` along a direction, by a central difference of fourth order."""

    def at(t):
        return float(f({k: v + np.float32(t) * direction[k] for k, v in values.items()}))

    return (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)


def check(f, values, gradients):
    values = {name: np.asarray(v) for name, v in values.items()}
    direction = {
        name: normal(100 + i, v.shape) / np.float32(np.sqrt(v.size)) for i, (name, v) in enumerate(values.items())
    }
    expected = directional(f, values, direction)
    gradients = {name: np.asarray(g) for name, g in gradients.items()}
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
    weights = normal(99, jax.eval_shape(pure, state, x)[0].shape)
    both = jax.jit(jax.value_and_grad(lambda values: score(pure(state, values["x"])[0], weights)))
    check(lambda values: both(values)[0], {"x": x}, both({"x": x})[1])


def losses_of(row: Row):
    """The input, and a loss as a function of state and input, for what is only traced: shapes and types."""
    layer, x, _ = setup(row)
    pure, state = bw.functional(layer)

    def loss(state, x):
        y = pure(state, x)[0]
        return (y * y).sum()

    return state, x, loss


@rows_where(lambda row: not row.takes_indices)
def test_forward_over_reverse_mode(row: Row):
    """As for Hessians and their products with vectors; what has a backward pass of its own must not stop it."""
    state, x, loss = losses_of(row)
    slope = jax.grad(loss, 1)
    found = jax.eval_shape(lambda x: jax.jvp(lambda x: slope(state, x), (x,), (x,))[1], x)
    assert found.shape == x.shape


@rows_where(lambda row: not row.takes_indices)
def test_on_each_device_its_part(row: Row, devices):
    """Inside ``jax.shard_map``, where what differs among devices has a type of its own."""
    state, x, loss = losses_of(row)
    if not x.ndim:
        return
    mesh = Mesh(np.array(devices), ("data",))
    together = jax.shard_map(
        lambda state, x: jax.lax.psum(loss(state, x), "data"), mesh=mesh, in_specs=(P(), P("data")), out_specs=P()
    )
    x = np.concatenate([x] * len(devices))
    by_state, by_x = jax.eval_shape(jax.grad(together, (0, 1), allow_int=True), state, x)
    assert by_x.shape == x.shape
    assert jax.tree.structure(by_state) == jax.tree.structure(state)


@every_row
def test_on_a_mesh_with_explicit_axes(row: Row, devices):
    """Where the type of an array says how it is divided: a gradient is divided as what it belongs to."""
    state, x, loss = losses_of(row)
    if not x.ndim:
        return
    mesh = jax.make_mesh((2,), ("parts",), axis_types=(AxisType.Explicit,), devices=devices[:2])
    x = jax.device_put(x if row.transient else np.concatenate([x, x]), NamedSharding(mesh, P("parts")))
    state = jax.device_put(state, NamedSharding(mesh, P()))
    with jax.set_mesh(mesh):
        gradients = jax.jit(jax.grad(loss, (0, 1), allow_int=True)).trace(state, x).out_info
    for found, expected in zip(jax.tree.leaves(gradients), jax.tree.leaves((state, x)), strict=True):
        assert found.shape == expected.shape
        if jnp.issubdtype(expected.dtype, jnp.floating):
            assert found.sharding.spec == jax.typeof(expected).sharding.spec


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
