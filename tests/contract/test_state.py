"""Copies, files, pytrees, memory, and printing, for every layer."""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.contract.catalogue import Row, close, every_row, rows_where

import brickwork as bw
from brickwork import nn


def assert_same_state(a, b):
    left, right = dict(a.named_variables()), dict(b.named_variables())
    assert list(left) == list(right)
    for name in left:
        assert type(left[name]) is type(right[name])
        assert left[name].dtype == right[name].dtype
        assert left[name].trainable == right[name].trainable
        assert left[name].persistent == right[name].persistent
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def run(layer, x):
    bw.seed(8)
    return layer(x)


DUPLICATES = {
    "clone": lambda layer: layer.clone(),
    "deepcopy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
    "tree.map": lambda layer: jax.tree.map(lambda v: v, layer),
}
duplicates = pytest.mark.parametrize("duplicate", DUPLICATES.values(), ids=DUPLICATES)


@every_row
@duplicates
def test_copies(row: Row, duplicate):
    layer = row.built()
    layer(row.data())
    twin = duplicate(layer)
    assert type(twin) is type(layer)
    assert repr(twin) == repr(layer)
    assert twin.training == layer.training
    assert_same_state(layer, twin)
    np.testing.assert_array_equal(run(twin, row.data(1)), run(layer, row.data(1)))
    # nothing is shared
    before = {n: np.asarray(v) for n, v in layer.named_variables()}
    for p in twin.parameters():
        p += 1
    for name, v in layer.named_variables():
        np.testing.assert_array_equal(v, before[name])


@rows_where(lambda row: row.is_deferred)
@pytest.mark.parametrize("duplicate", list(DUPLICATES.values())[:3], ids=list(DUPLICATES)[:3])
def test_copies_before_shapes_are_known(row: Row, duplicate):
    layer = row.make()
    twin = duplicate(layer)
    assert repr(twin) == repr(layer)
    x = row.data()
    np.testing.assert_array_equal(run(twin, x), run(layer, x))
    assert_same_state(layer, twin)


@rows_where(lambda row: row.has_parameters and row.leaf)
@pytest.mark.parametrize("what", [*DUPLICATES, "save"])
def test_ties_survive(row: Row, what, tmp_path):
    name = row.parameters[0]

    def make():
        layer = row.explicit()
        other = row.explicit()
        setattr(other, name, getattr(layer, name))
        return nn.Sequential(layer, other, layer)

    net = make()
    if what == "save":
        net.save(tmp_path / "tied")
        twin = make()
        for p in twin.parameters():
            p.value = jnp.zeros(p.shape)
        twin.load(tmp_path / "tied")
        assert list(bw.load(tmp_path / "tied")) == list(net.state_dict())
    else:
        twin = DUPLICATES[what](net)
    assert twin[0] is twin[2]
    assert twin[1] is not twin[0]
    assert getattr(twin[1], name) is getattr(twin[0], name)
    assert getattr(twin[0], name) is not getattr(net[0], name)
    assert len(twin.parameters()) == len(net.parameters())
    assert_same_state(net, twin)


@rows_where(lambda row: not row.transient)
def test_save_and_load(row: Row, tmp_path):
    layer = row.built()
    layer(row.data())  # so that running statistics aren't those of the start
    for i, p in enumerate(layer.parameters()):
        p.value = jax.random.normal(jax.random.key(i), p.shape)
    layer.save(tmp_path / "layer")
    bw.seed(1)
    other = row.make()
    assert not other.load(tmp_path / "layer")
    assert_same_state(layer, other)
    np.testing.assert_array_equal(run(other, row.data(1)), run(layer, row.data(1)))
    assert_same_state(layer, other)


@rows_where(lambda row: not row.transient)
def test_state_dict_round_trip(row: Row):
    layer = row.built()
    other = row.make()
    other.load_state_dict(layer.state_dict())
    assert_same_state(layer, other)


@every_row
def test_deferred_equals_explicit(row: Row):
    bw.seed(6)
    a = row.make()
    bw.seed(6)
    b = row.explicit()
    x = row.data()
    np.testing.assert_array_equal(run(a, x), run(b, x))
    assert_same_state(a, b)
    assert repr(a) == repr(b)


@rows_where(lambda row: row.leaf)
def test_repr(row: Row):
    layer = row.make()
    before = repr(layer)
    name = type(layer).__name__
    assert before.startswith(f"{name}(") and before.endswith(")")
    assert "\n" not in before
    assert ("?" in before) == row.is_deferred
    layer(row.data())
    after = repr(layer)
    assert "?" not in after
    assert str(nn.Sequential(layer)) == f"Sequential(\n  (0): {after}\n)"
    if not row.is_deferred:
        assert before == after


@every_row
def test_pytree(row: Row):
    layer = row.built()
    leaves, tree = jax.tree.flatten(layer)
    assert [leaf.shape for leaf in leaves] == [v.shape for v in layer.variables()]
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    twin = jax.tree.unflatten(tree, leaves)
    assert_same_state(layer, twin)
    assert jax.tree.structure(twin) == tree
    assert hash(jax.tree.structure(twin)) == hash(tree)
    doubled = jax.tree.map(lambda v: v + v, layer)
    for v, w in zip(layer.variables(), doubled.variables(), strict=True):
        np.testing.assert_array_equal(np.asarray(v) * 2, w)


@rows_where(lambda row: not row.stateful and not row.random)
def test_as_an_argument_of_jax_jit(row: Row):
    layer = row.built()
    x = row.data()
    close(jax.jit(lambda net, v: net(v))(layer, x), layer(x))


@rows_where(lambda row: not row.stateful and not row.random)
def test_vmap_through_functional(row: Row):
    layer = row.built()
    pure, state = bw.functional(layer)
    xs = jnp.stack([row.data(0), row.data(1)])
    ys, states = jax.vmap(pure, in_axes=(None, 0), out_axes=(0, None))(state, xs)
    for x, y in zip(xs, ys, strict=True):
        close(y, layer(x))
    assert set(states) == set(state)


@rows_where(lambda row: row.has_parameters and not row.stateful)
def test_vmap_over_parameters(row: Row):
    layer = row.deterministic()
    pure, state = bw.functional(layer)
    parameters = dict(layer.named_parameters())
    many = {name: jnp.stack([v, v + 1 if name in parameters else v]) for name, v in state.items()}
    x = row.data()
    ys, _ = jax.vmap(pure, in_axes=(0, None))(many, x)
    close(ys[0], layer(x))
    for p in layer.parameters():
        p += 1
    close(ys[1], layer(x))


@rows_where(lambda row: row.stateful or row.random)
def test_functional_changes_nothing(row: Row):
    layer = row.built()
    pure, state = bw.functional(layer, random=row.random)
    before = {n: np.asarray(v) for n, v in state.items()}
    y, new = jax.jit(pure)(state, row.data())
    for name, value in bw.functional(layer, random=row.random)[1].items():
        np.testing.assert_array_equal(value, before[name])
    assert any(not np.array_equal(new[name], before[name]) for name in new)
    close(y, layer(row.data()))
    for name, value in bw.functional(layer, random=row.random)[1].items():
        close(new[name], value)


@rows_where(lambda row: row.random)
def test_functional_knows_by_itself_that_a_layer_is_random(row: Row):
    layer = row.built()
    pure, state = bw.functional(layer)
    y, new = jax.jit(pure)(state, row.data())
    assert set(state) == set(new)
    again, _ = jax.jit(pure)(new, row.data())
    assert not np.array_equal(y, again)


@every_row
def test_numpy_input_works_as_jax_input(row: Row):
    layer = row.built()
    twin = layer.clone()
    compiled = bw.compile(layer.clone())
    x = row.data()
    y = run(layer, np.asarray(x))
    assert isinstance(y, jax.Array) or row.name == "Identity"
    np.testing.assert_array_equal(y, run(twin, x))
    bw.seed(8)
    close(compiled(np.asarray(x)), y)


@rows_where(lambda row: not row.takes_indices)
def test_bfloat16(row: Row):
    layer = row.deterministic()
    wide = layer.clone()
    assert layer.to(jnp.bfloat16) is layer
    x = row.data()
    for name, p in layer.named_parameters():
        assert p.dtype == jnp.bfloat16, name
    y = layer(x.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    close(y.astype(jnp.float32), wide(x), jnp.bfloat16)
    z = bw.compile(layer)(x.astype(jnp.bfloat16))
    assert z.dtype == jnp.bfloat16
    for p in layer.parameters():
        assert p.dtype == jnp.bfloat16


@rows_where(lambda row: row.takes_indices)
def test_bfloat16_table(row: Row):
    layer = row.built().to(jnp.bfloat16)
    assert layer(row.data()).dtype == jnp.bfloat16


@rows_where(lambda row: row.is_deferred)
def test_bfloat16_before_shapes_are_known(row: Row):
    bw.seed(3)
    early = row.make().to(jnp.bfloat16)
    if row.random:
        early.eval()
    y = early(row.data().astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    late = row.deterministic().to(jnp.bfloat16)
    for a, b in zip(early.parameters(), late.parameters(), strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_array_equal(a, b)


@contextlib.contextmanager
def no_collector():
    """Only reference counts free things inside."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@every_row
def test_freed_when_dropped(row: Row):
    with no_collector():
        layer = row.built()
        layer(row.data())
        inside = [weakref.ref(v) for v in layer.variables()]
        dead = weakref.ref(layer)
        del layer
        assert dead() is None
        assert [r() for r in inside] == [None] * len(inside)


@every_row
def test_freed_when_dropped_after_being_compiled(row: Row):
    x = row.data()

    @bw.compile
    def call(net, v):
        return net(v)

    with no_collector():
        net = nn.Sequential(row.built())
        call(net, x)
        call(net, x)
        dead = [weakref.ref(net), weakref.ref(net[0]), *map(weakref.ref, net.variables())]
        del net
        assert [r() for r in dead] == [None] * len(dead)
    other = nn.Sequential(row.built())
    call(other, x)
    assert call.stats().compilations <= 2


@every_row
def test_freed_after_a_failed_call(row: Row):
    with no_collector():
        layer = row.built()
        with contextlib.suppress(Exception):
            layer(object())
        dead = weakref.ref(layer)
        del layer
        assert dead() is None
