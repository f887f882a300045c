"""Threads on state under gradients, Jacobians and compilation, and on tracers that stay behind."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn
from brickwork.errors import TraceLeakError

from .checks import close, drawn, either_way, same_state, state, stream, untraced

RNG = np.random.default_rng(0)
BOTH = pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])


def data(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def network():
    net = nn.Sequential(nn.Linear(3, in_features=4), nn.BatchNorm1d(num_features=3), nn.Linear(1, in_features=3))
    return net, net.clone()


@BOTH
def test_pytorch_85533_the_jacobian_of_batchnorm(compiled):
    """``jacrev`` of batch normalisation in training failed: an in-place operation on a captured tensor. Here it gives
    the Jacobian, and the statistics move once.
    """
    net, twin = nn.BatchNorm1d(num_features=2), nn.BatchNorm1d(num_features=2)
    x = data(4, 2)
    jacobian = either_way(bw.jacobian(net, wrt=0), compiled)(x)
    pure, held = bw.functional(twin)
    close(jacobian, jax.jacrev(lambda x: pure(held, x)[0])(x), rtol=1e-4, atol=1e-5)
    twin(x)
    same_state(net, twin)
    assert int(net.num_batches_tracked) == 1
    untraced(net)


def test_functorch_986_hessian_vector_products_with_batchnorm():
    """The trace of the Hessian of a ResNet could not be estimated, because batch normalisation writes in place. Here
    a gradient of a gradient goes through it, and the statistics move once.
    """
    net, twin = network()
    x = data(6, 4)
    direction = {n: jnp.asarray(RNG.normal(size=p.shape), jnp.float32) for n, p in net.named_parameters()}

    def loss(x):
        return (net(x) ** 4).mean()

    def slope(x):
        grads = bw.grad(loss, net)(x)
        return sum((grads[n] * direction[n]).sum() for n in grads)

    products = bw.compile(bw.grad(slope, net))(x)
    pure, held = bw.functional(twin)

    def by_hand(params):
        return (pure(held | params, x)[0] ** 4).mean()

    params = {n: held[n] for n in direction}
    expected = jax.jit(lambda p, v: jax.jvp(jax.grad(by_hand), (p,), (v,))[1])(params, direction)
    close(dict(products), expected, rtol=1e-3, atol=1e-4)
    twin(x)
    same_state(net, twin)
    untraced(net)


@BOTH
def test_flax_3997_a_counter_in_a_compiled_module(compiled):
    """``nnx.jit(counter)()`` could not mutate "from a different trace level", while the function of the module could
    be compiled. Here a module is compiled as it is called.
    """

    class Counter(nn.Module):
        def __init__(self):
            self.count = bw.Buffer(jnp.array(0))

        def forward(self):
            self.count += 1

    counter = Counter()
    f = either_way(counter, compiled)
    for _ in range(3):
        f()
    assert int(counter.count) == 3


def test_equinox_1071_there_is_no_stale_state_to_use():
    """A state passed through a compiled function was not marked as used up, and could be used again by accident. Here
    state lives in one place: eager and compiled calls go on from one another.
    """

    class Counter(nn.Module):
        def __init__(self):
            self.count = bw.Buffer(jnp.array(0.0))

        def forward(self, x):
            self.count += 1
            return x + self.count.value

    counter = Counter()
    compiled = bw.compile(counter)
    assert [float(f(jnp.asarray(0.0))) for f in (compiled, counter, compiled, compiled, counter)] == [1, 2, 3, 4, 5]


def test_flax_5050_the_pure_form_under_a_raw_gradient():
    """A network taken apart for the sake of raw JAX failed in ``jax.grad`` when it drew random numbers, though not in
    ``jax.jit``. Here the pure form works under both; its random state goes in and comes out.
    """
    net = nn.Sequential(nn.Linear(3, in_features=4), nn.Dropout(0.5))
    pure, held = bw.functional(net)
    x = data(5, 4)

    def loss(held, x):
        out, new = pure(held, x)
        return (out**2).sum(), new

    def differentiable(params, rest, x):
        return loss(params | rest, x)

    params = {n: held[n] for n, _ in net.named_parameters()}
    rest = {n: v for n, v in held.items() if n not in params}
    gradient, new = jax.grad(differentiable, has_aux=True)(params, rest, x)
    jitted, _ = jax.jit(jax.grad(differentiable, has_aux=True))(params, rest, x)
    close(gradient, jitted)
    close(gradient, dict(bw.grad(lambda x: (net(x) ** 2).sum(), net)(x)))
    again, _ = jax.grad(differentiable, has_aux=True)(params, {n: new[n] for n in rest}, x)
    assert any(np.any(again[n] != gradient[n]) for n in gradient)
    untraced(net)


def test_flax_4734_shapes_of_a_network_with_batchnorm():
    """``eval_shape`` of any network with batch normalisation failed, so that sizes could not be inferred without
    running it. Here a spec, a summary and ``jax.eval_shape`` of the pure form work and change nothing.
    """
    net = nn.Sequential(nn.Linear(3), nn.BatchNorm1d(), nn.Dropout(0.5))
    net.initialize(bw.spec(8, 4))
    assert "8, 3" in str(net.summary(bw.spec(8, 4))).replace("×", ", ")
    pure, held = bw.functional(net)
    before = state(net)
    out, new = jax.eval_shape(pure, held, bw.spec(8, 4))
    assert out.shape == (8, 3)
    assert {n: v.shape for n, v in new.items()} == {n: v.shape for n, v in held.items()}
    assert all(np.array_equal(value, before[path]) for path, value in state(net).items())
    assert drawn() == 0
    untraced(net)


def test_flax_4520_shape_evaluation_does_not_touch_the_network():
    """``jax.eval_shape`` of a network with mapped and scanned layers put tracers in the place of its parameters. Here
    the dry run of such a network leaves its parameters alone, and raw shape evaluation as well.
    """

    class Net(nn.Module):
        def __init__(self):
            self.stem, self.head = nn.Linear(4), nn.Linear(2)
            self.backbone = nn.Repeat(lambda: nn.Linear(4), 3)

        def forward(self, x):
            return self.head(self.backbone(self.stem(x)))

    net = Net()
    net.initialize(bw.spec(1, 5))
    before = state(net)
    untraced(net)
    assert jax.eval_shape(lambda x: net(x), bw.spec(7, 5)).shape == (7, 2)
    untraced(net)
    assert all(np.array_equal(value, before[path]) for path, value in state(net).items())
    assert bw.compile(net)(data(2, 5)).shape == (2, 2)


@pytest.mark.parametrize("transform", ["jit", "vmap", "grad", "eval_shape", "checkpoint", "scan"])
def test_numpyro_2067_a_raw_transform_is_refused_at_the_write(transform):
    """A raw transform around a network with dropout or batch normalisation raised somewhere inside, or lost the new
    state. Here the write itself is refused, naming what is written and what to use; nothing is lost or left behind.
    """
    net, twin = network()
    x = data(3, 6, 4)

    def loss(x):
        return net(x).sum()

    run = {
        "jit": lambda: jax.jit(loss)(x[0]),
        "vmap": lambda: jax.vmap(net)(x),
        "grad": lambda: jax.grad(loss)(x[0]),
        "eval_shape": lambda: jax.eval_shape(loss, x[0]),
        "checkpoint": lambda: jax.checkpoint(loss)(x[0]),
        "scan": lambda: jax.lax.scan(lambda c, x: (c, loss(x)), None, x),
    }[transform]
    with pytest.raises(TraceLeakError, match=r"Buffer '1\.\w+' was written inside a raw JAX transform.*bw\.compile"):
        run()
    same_state(net, twin, rtol=0, atol=0)
    untraced(net)


@pytest.mark.parametrize("transform", ["jit", "vmap", "grad", "eval_shape", "checkpoint", "scan"])
def test_flax_3997_reading_in_a_raw_transform_is_fine(transform):
    """The other side: networks that write nothing were refused as well, for being from another trace level. Here a
    network in evaluation mode may be called from any transform.
    """
    net, _ = network()
    net.eval()
    x = data(3, 6, 4)
    run = {
        "jit": lambda: jax.jit(lambda x: net(x))(x[0]),
        "vmap": lambda: jax.vmap(net)(x)[0],
        "grad": lambda: jax.grad(lambda x: net(x).sum())(x[0]),
        "eval_shape": lambda: jax.eval_shape(lambda x: net(x), x[0]),
        "checkpoint": lambda: jax.checkpoint(net)(x[0]),
        "scan": lambda: jax.lax.scan(lambda c, x: (c, net(x)), None, x)[1][0],
    }[transform]
    out = run()
    if transform not in ("grad", "eval_shape"):
        close(out, net(x[0]))
    untraced(net)


def test_flax_3997_the_network_as_an_argument_of_a_raw_transform():
    """Updates of statistics were lost, silently, when the network was an argument of a raw transform: there it is a
    copy. Here the write is refused and says so.
    """
    net, twin = network()
    with pytest.raises(TraceLeakError, match=r"belongs to a copy of a module.*would vanish"):
        jax.jit(lambda net, x: net(x))(net, data(6, 4))
    same_state(net, twin, rtol=0, atol=0)
    net.eval()
    x = data(6, 4)
    close(jax.jit(lambda net, x: net(x))(net, x), net(x))


def test_keras_20724_a_value_kept_in_an_attribute_under_trace():
    """ "JAX had a side effect" is what one reads, long after an attribute was given a traced value. Here that
    assignment is refused, in compiled functions and in every transform.
    """

    class Keeper(nn.Module):
        def __init__(self):
            self.linear = nn.Linear(2, in_features=4)
            self.last = None
            self.history = []

        def forward(self, x, how):
            y = self.linear(x)
            if how == "attribute":
                self.last = y
            else:
                self.history.append(y)
            return y.sum()

    x = data(3, 4)
    for how, place in (("attribute", r"Keeper\.last"), ("list", r"Keeper\.history")):
        for run in (
            lambda net, how=how: bw.compile(lambda x: net(x, how))(x),
            lambda net, how=how: bw.grad(lambda x: net(x, how), net)(x),
            lambda net, how=how: bw.vmap(lambda x: net(x, how))(x[:, None]),
            lambda net, how=how: bw.scan(lambda c, x: (c, net(x, how)), None, x),
            lambda net, how=how: bw.grad(bw.remat(lambda x: net(x, how)), net)(x),
        ):
            net = Keeper()
            with pytest.raises(TraceLeakError, match=rf"would be kept in {place}.*bw\.Buffer"):
                run(net)
            assert net.last is None
            assert net.history == []
            net(x, how)  # eager, it may be kept
            untraced(net)


@BOTH
def test_keras_core_322_two_transforms_share_what_they_write(compiled):
    """State written in one nested scope was read as it was before by the next one. Here what a transform wrote is
    there for whatever comes after it in the same function.
    """
    net, twin = network()
    x = data(6, 4)

    def step(x):
        first = bw.value_and_grad(lambda x: (net(x) ** 2).mean(), net)(x)[0]
        bw.scan(lambda c, _: (c, net(x).sum()), None, length=2)
        bw.cond(first > 1e9, lambda: None, lambda: net(x) is None or None)
        bw.vmap(net)(x[None])
        return net[1].running_mean.value, net[1].num_batches_tracked.value

    mean, count = either_way(step, compiled)(x)
    for _ in range(5):
        twin(x)
    same_state(net, twin)
    close(mean, twin[1].running_mean.value)
    assert int(count) == 5
    assert stream()[-1] == 0
    untraced(net)
