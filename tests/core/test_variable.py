"""Variables: construction, reading, writing, the manners of arrays."""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn
from brickwork.errors import DeferredShapeError, ShapeMismatchError, TraceLeakError


def test_construction_errors():
    for bad in ({}, {"value": 1.0, "shape": (2,)}):
        with pytest.raises(TypeError, match="either a value or shape="):
            bw.Parameter(**bad)
    with pytest.raises(TypeError, match="not both"):
        bw.Parameter(1.0, shape=())
    with pytest.raises(TypeError, match="init= goes with shape"):
        bw.Parameter(1.0, init=bw.init.ones)
    with pytest.raises(TypeError, match="holds numbers, got str"):
        bw.Buffer("text")
    with pytest.raises(ValueError, match="negative"):
        bw.Parameter(shape=(2, -1))
    with pytest.raises(TypeError, match="sizes are integers"):
        bw.Parameter(shape=(2, 1.5))
    with pytest.raises(TypeError, match="can't be trained"):
        bw.Parameter(jnp.arange(3))
    with pytest.raises(ValueError, match="64-bit"):
        bw.Parameter(shape=(2,), dtype=jnp.float64)
    assert bw.Parameter(jnp.arange(3), trainable=False).dtype == jnp.int32
    with pytest.raises(TypeError, match="not both"):
        bw.Parameter(1.0, shape=())


def test_a_frozen_integer_cannot_be_unfrozen():
    p = bw.Parameter(jnp.arange(3), trainable=False)
    with pytest.raises(TypeError, match="can't be trained"):
        p.trainable = True


def test_deferred():
    net = bw.Module()
    net.layer = bw.Module()
    net.layer.weight = p = bw.Parameter(shape=(3, None))
    for read in (lambda: p.value, lambda: p + 1, lambda: p.size, lambda: np.asarray(p), lambda: jnp.sum(p)):
        with pytest.raises(DeferredShapeError, match=r"'layer.weight'.*\(3, \?\).*initialize"):
            read()
    assert p.shape == (3, None) and p.ndim == 2 and p.device is None
    with pytest.raises(ShapeMismatchError, match="contradicts"):
        p.shape = (4, 5)
    with pytest.raises(ShapeMismatchError):
        p.shape = (3, 5, 6)
    p.shape = (None, 5)
    p.shape = (3, 5)
    assert p.value.shape == (3, 5)
    with pytest.raises(ShapeMismatchError):
        p.shape = (3, 6)


def test_value_assignment():
    p = bw.Parameter(jnp.zeros((2, 3)))
    p.value = np.ones((2, 3), np.float32)
    assert isinstance(p.value, jax.Array)
    with pytest.raises(ShapeMismatchError, match=r"\(2, 3\), got a value of shape \(3, 2\)"):
        p.value = jnp.ones((3, 2))
    b = bw.Buffer(jnp.zeros(2))
    b.value = jnp.zeros(5)
    assert b.shape == (5,)


def test_arrays_manners():
    p = bw.Parameter(jnp.arange(6.0).reshape(2, 3))
    a = p.value
    np.testing.assert_array_equal(p @ jnp.ones(3), a @ jnp.ones(3))
    np.testing.assert_array_equal(jnp.ones(2) @ p, jnp.ones(2) @ a)
    np.testing.assert_array_equal(np.ones(2, np.float32) @ p, jnp.ones(2) @ a)
    np.testing.assert_array_equal(np.ones((2, 3), np.float32) + p, 1 + a)
    for f in (lambda v: v + 1, lambda v: 2 - v, lambda v: -v, lambda v: v**2, lambda v: v > 2, lambda v: v[0], lambda v: v.T,  # noqa: E501
              lambda v: v.sum(0), lambda v: abs(v), lambda v: 1 / (v + 1), lambda v: divmod(v, 2)[1], lambda v: v.at[0].set(1),  # noqa: E501
              jnp.sum, jax.nn.relu, jnp.transpose, lambda v: jnp.where(v > 1, v, 0), lambda v: jnp.stack([v, v]),
              lambda v: jnp.einsum("ij->j", v), jnp.asarray, np.asarray, lambda v: jax.jit(jnp.cos)(v)):  # fmt: skip
        np.testing.assert_array_equal(f(p), f(a))
    assert len(p) == 2 and len(list(p)) == 2
    assert float(bw.Buffer(2.0)) == 2 and int(bw.Buffer(2)) == 2 and bool(bw.Buffer(True)) and [1, 2][bw.Buffer(1)] == 2
    assert f"{bw.Buffer(2.5):.2f}" == "2.50"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        p.nonsense
    with pytest.raises(TypeError, match="len"):
        len(bw.Buffer(1.0))
    assert p in {p} and {p: 1}[p] == 1


def test_in_place():
    p = bw.Parameter(jnp.zeros((2, 3)))
    q = p
    p += 1
    p *= 2
    p -= bw.Buffer(1.0)
    assert p is q
    p[0, 0] = 42
    p[:, 1] = jnp.arange(2)
    p[1:] += 1
    np.testing.assert_array_equal(p, [[42, 0, 1], [2, 2, 2]])
    p[p.value > 40] = 0.0
    assert float(p[0, 0]) == 0
    i = bw.Buffer(jnp.zeros(2, jnp.int32))
    i[bw.Buffer(1)] = 5
    assert i.dtype == jnp.int32 and int(i[1]) == 5


def test_numpy_view_cannot_change_the_value():
    p = bw.Parameter(jnp.zeros(2))
    host = np.array(p)
    host[0] = 5
    assert float(p[0]) == 0
    with pytest.raises(ValueError):
        np.asarray(p)[0] = 1
    assert np.array(p, dtype=np.float64).dtype == np.float64


def test_initialize():
    p = bw.Parameter(shape=(4, None))
    p.initialize(bw.init.constant(3.0))
    p.shape = (4, 2)
    np.testing.assert_array_equal(p, np.full((4, 2), 3.0))
    p.initialize(bw.init.normal(1.0))
    first = np.array(p)
    p.initialize()
    assert not np.array_equal(first, p)


def test_initialize_while_compiling_and_failing():
    p = bw.Parameter(jnp.zeros((2, 2)))

    @bw.compile
    def f():
        p.initialize(bw.init.ones)
        raise KeyError("x")

    with pytest.raises(KeyError):
        f()
    np.testing.assert_array_equal(p, np.zeros((2, 2)))


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])
def test_copies(how):
    b = bw.Buffer(jnp.arange(3), persistent=False)
    c = how(b)
    assert type(c) is bw.Buffer and not c.persistent and c is not b
    c[0] = 9
    assert int(b[0]) == 0
    p = how(bw.Parameter(shape=(2, None), trainable=False))
    assert p.shape == (2, None) and not p.trainable


def test_as_a_pytree():
    p = bw.Parameter(jnp.ones(2), trainable=False)
    q = jax.tree.map(lambda v: v + 1, p)
    assert isinstance(q, bw.Parameter) and not q.trainable
    b = jax.tree.map(lambda v: v, bw.Buffer(jnp.ones(2), persistent=False))
    assert not b.persistent
    assert jax.jit(lambda v: v * 2)(p).shape == (2,)
    with pytest.raises(TraceLeakError, match="copy"):
        jax.jit(lambda v: setattr(v, "value", v.value + 1))(p)


def test_repr():
    assert repr(bw.Parameter(shape=(2, None))) == "Parameter(shape=(2, ?), dtype=float32, not drawn yet)"
    assert repr(bw.Buffer(jnp.ones(2))) == "Buffer([1., 1.], shape=(2,), dtype=float32)"
    seen = []
    p = bw.Parameter(jnp.ones(2))
    bw.compile(lambda: seen.append(repr(p)))()
    assert "traced" in seen[0]


def test_own_kinds():
    class Mask(bw.Buffer):
        pass

    m = Mask(jnp.ones(2))
    assert isinstance(jax.tree.map(lambda v: v, m), Mask)
    assert isinstance(copy.deepcopy(m), Mask) and isinstance(pickle.loads(pickle.dumps(bw.Buffer(1.0))), bw.Buffer)


def test_typed_keys():
    b = bw.Buffer(jax.random.key(1))
    assert jax.random.normal(b.value, (2,)).shape == (2,)
    assert "Buffer" in repr(b)


def test_grad_slot():
    p = bw.Parameter(jnp.ones(2))
    assert p.grad is None
    p.grad = None
    p.grad = np.ones(2, np.float32)
    assert isinstance(p.grad, jax.Array)
    with pytest.raises(ShapeMismatchError):
        p.grad = jnp.ones(3)
    with pytest.raises(TraceLeakError):
        jax.jit(lambda v: setattr(p, "grad", v))(jnp.ones(2))
    np.testing.assert_array_equal(p.grad, [1, 1])


def aligned(shape):
    """An array that JAX would share instead of copying it."""
    size = int(np.prod(shape)) * 4
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(np.float32).reshape(shape)


@pytest.mark.parametrize(
    "give",
    [
        bw.Parameter,
        bw.Buffer,
        lambda a: nn.Embedding.from_pretrained(a).weight,
        lambda a: nn.CrossEntropyLoss(weight=a[:, 0]).weight,
    ],
)
def test_the_callers_memory_is_not_shared(give):
    """NumPy's arrays can be written into later."""
    array = aligned((64, 64))
    array[:] = 1
    variable = give(array)
    array[:] = 2
    assert np.all(np.asarray(variable.value) == 1)


def test_assigned_and_loaded_memory_is_not_shared():
    array, layer = aligned((64, 64)), nn.Linear(64, in_features=64, bias=False)
    layer.weight.value = array
    array[:] = 1
    assert not np.any(np.asarray(layer.weight.value))
    layer.load_state_dict({"weight": array})
    view = array[:]
    view.flags.writeable = False
    other = bw.Buffer(view)
    array[:] = 2
    assert np.all(np.asarray(layer.weight.value) == 1) and np.all(np.asarray(other.value) == 1)


def test_methods_that_only_concrete_arrays_have():
    p = bw.Parameter([1.0, 2.0])
    assert p.tolist() == [1, 2] and p.devices() == {jax.devices()[0]}
    assert p.block_until_ready().shape == (2,) and len(p.tobytes()) == 8 and p.weak_type is False


@pytest.mark.parametrize(("name", "here"), [("requires_grad", "p.trainable"), ("data", "p.value")])
def test_assigning_to_names_of_another_framework(name, here):
    p = bw.Parameter([1.0, 2.0])
    for use in (lambda: getattr(p, name), lambda: setattr(p, name, False)):
        with pytest.raises(AttributeError, match=f"'Parameter' object has no attribute '{name}'. Here: {here}"):
            use()
    assert not hasattr(p, name)
