"""``bw.functional``: modules under raw JAX transforms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import brickwork as bw
from brickwork import nn
from brickwork.core import random_stream
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


# -- a network with every kind of state ------------------------------------------------------------

IMAGES = jnp.linspace(-1.0, 1.0, 64).reshape(4, 1, 4, 4)


def convnet():
    layers = nn.Conv2d(4, 3, padding=1), nn.BatchNorm2d(), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(2)
    return nn.Sequential(*layers).initialize(bw.spec(4, 1, 4, 4))


def close(a, b):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-5), a, b)


def shapes(tree):
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)


def test_all_state_travels():
    net = convnet()
    bw.seed(1)
    pure, state = bw.functional(net)
    other = net.clone()
    expected = other(IMAGES)
    out, new = jax.jit(pure)(state, IMAGES)
    close(out, expected)
    assert list(state) == [*dict(net.named_variables()), "__random__"]
    close(new, {path: v.value for path, v in other.named_variables()} | {"__random__": random_stream().value})
    close(state, {path: v.value for path, v in net.named_variables()} | {"__random__": state["__random__"]})
    net.eval()
    close(jax.jit(lambda state, x: pure(state, x)[0])(new, IMAGES), other.eval()(IMAGES))  # it follows the mode


def test_loops_and_gradients_with_all_state():
    net = convnet()
    bw.seed(1)
    pure, state = bw.functional(net)

    def step(state, x):
        out, state = pure(state, x)
        return state, out

    last, outs = jax.lax.scan(step, state, jnp.stack([IMAGES] * 3))
    one = state
    for out in outs:
        one, expected = step(one, IMAGES)
        close(out, expected)
    close(last, one)

    params = {path: state[path] for path, _ in net.named_parameters()}

    def loss(params, pure):
        out, new = pure(state | params, IMAGES)
        return (out**2).sum(), new

    plain = jax.value_and_grad(lambda params: loss(params, pure), has_aux=True)(params)
    remat = jax.jit(jax.value_and_grad(lambda params: loss(params, jax.checkpoint(pure)), has_aux=True))(params)
    close(plain, remat)
    bw.seed(1)
    value, grads = bw.value_and_grad(lambda: (net(IMAGES) ** 2).sum(), net)()
    close(plain[0][0], value)
    close(plain[1], grads)


def test_states_side_by_side():
    pure, state = bw.functional(convnet())
    other = state | {"__random__": state["__random__"].at[-1].add(7)}
    both = jax.tree.map(lambda *a: jnp.stack(a), state, other)
    outs, new = jax.vmap(pure, in_axes=(0, None))(both, IMAGES)
    for i, one in enumerate((state, other)):
        expected = pure(one, IMAGES)
        close((outs[i], jax.tree.map(lambda a: a[i], new)), expected)  # noqa: B023
    assert not np.allclose(outs[0], outs[1])


# -- exported programs -----------------------------------------------------------------------------


def carried_over(exported):
    """Written out and read again, as another process would."""
    pytest.importorskip("flatbuffers")
    return export.deserialize(exported.serialize())


@pytest.mark.parametrize("training", [True, False])
def test_export(training):
    net = convnet().train(training)
    bw.seed(1)
    pure, state = bw.functional(net)
    program = carried_over(export.export(jax.jit(pure))(shapes(state), shapes(IMAGES)))
    close(program.call(state, IMAGES), pure(state, IMAGES))


ROW = (4,)
IMAGE = (1, 6, 6)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (convnet, (1, 4, 4)),
        (lambda: convnet().eval(), (1, 4, 4)),
        (lambda: nn.Sequential(nn.Linear(3), nn.GELU(), nn.LayerNorm(), nn.Softmax()), ROW),
        (lambda: nn.Sequential(nn.BatchNorm1d(), nn.Dropout(0.5)), ROW),
        (lambda: nn.Sequential(nn.Conv2d(2, 3, stride=2, padding=1), nn.MaxPool2d(2)), IMAGE),
        (lambda: nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), nn.AvgPool2d(2), nn.Flatten()), IMAGE),
        (lambda: nn.Repeat(lambda: nn.Sequential(nn.Linear(4), nn.BatchNorm1d(), nn.Dropout(0.1)), 3), ROW),
        (lambda: bw.remat(nn.Linear(4)), ROW),
    ],
)
def test_export_for_any_batch(make, shape):
    net = make()
    net.initialize(bw.spec(3, *shape))
    bw.seed(1)
    pure, state = bw.functional(net)
    (n,) = export.symbolic_shape("n")
    program = carried_over(export.export(jax.jit(pure))(shapes(state), bw.spec(n, *shape)))
    for rows in (2, 5):
        x = jnp.linspace(-1.0, 1.0, rows * int(np.prod(shape))).reshape(rows, *shape)
        close(program.call(state, x), pure(state, x))


def test_export_of_a_module_itself():
    net = convnet().eval()
    program = export.export(jax.jit(lambda x: net(x)))(shapes(IMAGES))
    close(program.call(IMAGES), net(IMAGES))
    net.train()
    with pytest.raises(TraceLeakError, match=r"bw\.functional"):
        export.export(jax.jit(lambda x: net(x)))(shapes(IMAGES))
