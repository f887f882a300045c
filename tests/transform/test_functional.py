"""``bw.functional``: modules under raw JAX transforms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork.errors import DeferredShapeError, TraceLeakError


class Net(bw.Module):
    def __init__(self):
        self.w = bw.Parameter(jnp.arange(3.0))
        self.alias = self.w
        self.n = bw.Buffer(jnp.zeros(()))

    def forward(self, v):
        self.n.value = self.n.value + 1
        return v * self.w


class Drop(bw.Module):
    uses_random = True

    def forward(self, v):
        return v + jax.random.normal(bw.random.key(), v.shape)


V = np.ones(3, np.float32)


def test_pure_changes_nothing():
    net = Net()
    pure, state = bw.functional(net)
    assert list(state) == ["w", "n"]
    out, new = pure(state, V)
    np.testing.assert_array_equal(out, net.w)
    assert float(new["n"]) == 1 and float(net.n) == 0 and float(state["n"]) == 0
    net.load_state_dict(new)
    assert float(net.n) == 1


def test_under_transforms():
    net = Net()
    pure, state = bw.functional(net)
    assert float(jax.jit(pure)(state, V)[1]["n"]) == 1
    g = jax.grad(lambda w: pure(state | {"w": w}, V)[0].sum())(state["w"])
    np.testing.assert_array_equal(g, V)
    out, new = jax.vmap(pure, in_axes=(None, 0))(state, np.ones((4, 3), np.float32))
    assert out.shape == (4, 3) and new["n"].shape == (4,)

    def body(s, v):
        out, s = pure(s, v)
        return s, out

    last, outs = jax.lax.scan(body, state, np.ones((5, 3), np.float32))
    assert float(last["n"]) == 5 and outs.shape == (5, 3)
    g = jax.grad(lambda w: jax.checkpoint(pure)(state | {"w": w}, V)[0].sum())(state["w"])
    np.testing.assert_array_equal(g, V)
    assert float(net.n) == 0


def test_inside_compile():
    net = Net()
    pure, state = bw.functional(net)
    f = bw.compile(lambda v: pure(state, v)[1]["n"])
    assert float(f(V)) == 1 and float(f(V)) == 1


def test_random_networks_carry_the_stream():
    net = Drop()
    pure, state = bw.functional(net)
    assert "__random__" in state
    a, state2 = pure(state, V)
    b, _ = pure(state2, V)
    again, _ = jax.jit(pure)(state, V)
    np.testing.assert_allclose(a, again, rtol=1e-6)
    assert not np.allclose(a, b)
    pure, state = bw.functional(net, random=False)
    with pytest.raises(TraceLeakError, match="random=True"):
        pure(state, V)


def test_stacked_states():
    pure, state = bw.functional(Net())
    many = jax.tree.map(lambda a: jnp.stack([a, a + 1]), state)
    out, _ = jax.vmap(pure, in_axes=(0, None))(many, V)
    np.testing.assert_array_equal(out, [[0, 1, 2], [1, 2, 3]])


def test_errors():
    class Outside(bw.Module):
        def forward(self, v):
            other.n.value = other.n.value + 1
            return v

    other = Net()
    with pytest.raises(TypeError, match="expected a module"):
        bw.functional(3)
    pure, state = bw.functional(Net())
    with pytest.raises(ValueError, match=r"lacks \['n'\].*unknown entries \['q'\]"):
        pure({"w": state["w"], "q": V}, V)
    pure, state = bw.functional(Outside())
    with pytest.raises(TraceLeakError, match=r"'n' was written but isn't part"):
        pure(state, V)
    assert float(other.n) == 0

    class Deferred(bw.Module):
        def __init__(self):
            self.w = bw.Parameter(shape=(2, None))

    with pytest.raises(DeferredShapeError, match="w"):
        bw.functional(Deferred())
    assert bw.functional(bw.compile(Net()))[1].keys() == {"w", "n"}
