"""The same small networks and their compiled functions in each library, for dispatch.py and trace.py.

There are four kinds of work. ``forward``, ``sgd`` and ``adam`` are a chain of ``Linear`` layers, applied or
trained; ``state`` trains blocks of ``Linear``, ``BatchNorm`` and ``Dropout``, and so updates running statistics
and a random stream as well. Layers are narrow and batches small: next to no arithmetic, so that what is left
is the handling of parameters.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

WIDTH = 8
BATCH = 4
RATE = 1e-3
DROP = 0.1
EPS = 1e-5
WORK = ("forward", "sgd", "adam", "state")


@dataclass(frozen=True)
class Step:
    """A compiled function with what it works on.

    ``call`` runs it once and waits for the result. ``trace`` is for a step that has not been called: it returns
    the seconds that Python takes until XLA's compiler starts.
    """

    call: Callable[[], Any]
    trace: Callable[[], float]


def per_block(work: str) -> int:
    """How many parameters one link of the chain has."""
    return 4 if work == "state" else 2


def inputs() -> tuple[jax.Array, jax.Array]:
    """Samples and their targets."""
    x, y = np.random.default_rng(0).normal(size=(2, BATCH, WIDTH)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(y)


def timed(lower: Callable[[], Any]) -> float:
    """Seconds that something takes."""
    start = time.perf_counter()
    lower()
    return time.perf_counter() - start


# -- jax.jit on one flat list of arrays ------------------------------------------------------------


def by_hand(work: str, length: int, *, donate: bool) -> Step:
    """The floor: everything that changes is one list of arrays, updated by hand. Adam is optax's."""
    rng = np.random.default_rng(0)
    params: list[jax.Array] = []
    for _ in range(length):
        params.append(jnp.asarray(rng.normal(0, 0.3, (WIDTH, WIDTH)), jnp.float32))
        params.append(jnp.zeros(WIDTH))
        if work == "state":
            params += [jnp.ones(WIDTH), jnp.zeros(WIDTH)]
    x, y = inputs()
    if work == "forward":
        compiled = jax.jit(_chain)
        return Step(
            lambda: compiled(params, x).block_until_ready(),
            lambda: timed(lambda: compiled.trace(params, x).lower()),
        )
    step, values = {"sgd": _sgd, "adam": _adam, "state": _with_state}[work](params)
    trained = jax.jit(step, donate_argnums=0 if donate else ())

    def call() -> None:
        nonlocal values
        values, loss = trained(values, x, y)
        loss.block_until_ready()

    return Step(call, lambda: timed(lambda: trained.trace(values, x, y).lower()))


def _chain(params: list[jax.Array], x: jax.Array) -> jax.Array:
    for weight, bias in zip(params[::2], params[1::2], strict=True):
        x = x @ weight.T + bias
    return x


def _loss(params: list[jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((_chain(params, x) - y) ** 2)


def _sgd(params: list[jax.Array]) -> tuple[Any, Any]:
    def step(params: list[jax.Array], x: jax.Array, y: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(_loss)(params, x, y)
        return [p - RATE * g for p, g in zip(params, grads, strict=True)], loss

    return step, params


def _adam(params: list[jax.Array]) -> tuple[Any, Any]:
    import optax

    adam = optax.adam(RATE)
    moments, tree = jax.tree.flatten(adam.init(params))
    n = len(params)

    def step(values: list[jax.Array], x: jax.Array, y: jax.Array) -> Any:
        params, state = values[:n], jax.tree.unflatten(tree, values[n:])
        loss, grads = jax.value_and_grad(_loss)(params, x, y)
        updates, state = adam.update(grads, state, params)
        return [*optax.apply_updates(params, updates), *jax.tree.leaves(state)], loss

    return step, params + moments


def _with_state(params: list[jax.Array]) -> tuple[Any, Any]:
    n = len(params)
    statistics: list[jax.Array] = []
    for _ in range(n // 4):
        statistics += [jnp.zeros(WIDTH), jnp.ones(WIDTH), jnp.zeros((), jnp.int32)]
    key = jax.random.key_data(jax.random.key(0))

    def loss_fn(params: Any, statistics: Any, key: Any, x: Any, y: Any) -> Any:
        new = []
        for i in range(n // 4):
            weight, bias, scale, offset = params[4 * i : 4 * i + 4]
            mean, var, count = statistics[3 * i : 3 * i + 3]
            x = x @ weight.T + bias
            m, v = x.mean(0), x.var(0)
            x = (x - m) * jax.lax.rsqrt(v + EPS) * scale + offset
            new += [0.9 * mean + 0.1 * m, 0.9 * var + 0.1 * v * BATCH / (BATCH - 1), count + 1]
            key, own = jax.random.split(key)
            x = jnp.where(jax.random.bernoulli(own, 1 - DROP, x.shape), x / (1 - DROP), 0)
        return jnp.mean((x - y) ** 2), (new, key)

    def step(values: list[jax.Array], x: jax.Array, y: jax.Array) -> Any:
        params, statistics, key = values[:n], values[n:-1], jax.random.wrap_key_data(values[-1])
        both = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (statistics, key)), grads = both(params, statistics, key, x, y)
        new = [p - RATE * g for p, g in zip(params, grads, strict=True)]
        return [*new, *statistics, jax.random.key_data(key)], loss

    return step, [*params, *statistics, key]


# -- the libraries ---------------------------------------------------------------------------------


def brickwork(work: str, length: int, *, as_arguments: bool = False, fold: bool = True) -> Step:
    """A module, an optimiser, and a step that closes over both or takes both as arguments."""
    import brickwork as bw
    from brickwork import losses, nn, optim

    if work == "state":
        layers: list[Any] = [nn.Sequential(nn.Linear(WIDTH), nn.BatchNorm1d(), nn.Dropout(DROP)) for _ in range(length)]
    else:
        layers = [nn.Linear(WIDTH) for _ in range(length)]
    net = nn.Sequential(*layers, fold=fold)
    x, y = inputs()
    net.initialize(bw.spec(*x.shape))
    if work == "forward":
        compiled = bw.compile(lambda net, x: net(x)) if as_arguments else bw.compile(net)
        given = (net, x) if as_arguments else (x,)
    else:
        opt = optim.adam(net, RATE) if work == "adam" else optim.sgd(net, RATE)
        opt.state_dict()  # the other libraries make their optimiser's state beforehand as well

        def step(net: Any, opt: Any, x: jax.Array, y: jax.Array) -> jax.Array:
            loss, grads = bw.value_and_grad(lambda x, y: losses.mse(net(x), y), net)(x, y)
            opt.step(grads)
            return loss

        compiled = bw.compile(step) if as_arguments else bw.compile(lambda x, y: step(net, opt, x, y))
        given = (net, opt, x, y) if as_arguments else (x, y)

    def call() -> None:
        compiled(*given).block_until_ready()

    def trace() -> float:
        call()
        return compiled.stats().trace_seconds

    return Step(call, trace)


def flax(work: str, length: int, *, cached: bool = False) -> Step:
    """Flax NNX: ``nnx.jit``, or ``nnx.cached_partial``, which fixes the graph beforehand."""
    import optax
    from flax import nnx

    def block(rngs: nnx.Rngs) -> list[Any]:
        linear = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        return [linear, nnx.BatchNorm(WIDTH, rngs=rngs), nnx.Dropout(DROP, rngs=rngs)] if work == "state" else [linear]

    class Chain(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.layers = nnx.List([layer for _ in range(length) for layer in block(rngs)])

        def __call__(self, x: jax.Array) -> jax.Array:
            for layer in self.layers:
                x = layer(x)
            return x

    net = Chain(nnx.Rngs(0))
    x, y = inputs()
    if work == "forward":
        compiled = nnx.jit(lambda net, x: net(x))
        state: tuple[Any, ...] = (net,)
        given: tuple[Any, ...] = (x,)
    else:
        opt = nnx.Optimizer(net, optax.adam(RATE) if work == "adam" else optax.sgd(RATE), wrt=nnx.Param)

        @nnx.jit
        def compiled(net: Chain, opt: nnx.Optimizer, x: jax.Array, y: jax.Array) -> jax.Array:
            loss, grads = nnx.value_and_grad(lambda net: jnp.mean((net(x) - y) ** 2))(net)
            opt.update(net, grads)
            return loss

        state, given = (net, opt), (x, y)
    trace = lambda: timed(lambda: compiled.lower(*state, *given))  # noqa: E731
    if cached:
        fixed = nnx.cached_partial(compiled, *state)
        return Step(lambda: fixed(*given).block_until_ready(), trace)
    return Step(lambda: compiled(*state, *given).block_until_ready(), trace)


def equinox(work: str, length: int) -> Step:
    """Equinox: modules are pytrees, the step returns new ones."""
    import equinox as eqx
    import optax

    def build() -> Any:
        layers = []
        for key in jax.random.split(jax.random.key(0), length):
            layers.append(eqx.nn.Linear(WIDTH, WIDTH, key=key))
            if work == "state":
                layers += [eqx.nn.BatchNorm(WIDTH, axis_name="batch", mode="batch"), eqx.nn.Dropout(DROP)]
        return eqx.nn.Sequential(layers)

    net, buffers = eqx.nn.make_with_state(build)()
    x, y = inputs()
    if work == "forward":
        compiled = eqx.filter_jit(lambda net, x: jax.vmap(net)(x))
        return Step(
            lambda: compiled(net, x).block_until_ready(),
            lambda: timed(lambda: compiled.lower(net, x)),
        )
    optimiser = optax.adam(RATE) if work == "adam" else optax.sgd(RATE)
    moments = optimiser.init(eqx.filter(net, eqx.is_array))

    def loss_fn(net: Any, buffers: Any, key: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        if work == "state":
            one = lambda x, buffers, key: net(x, buffers, key=key)  # noqa: E731
            many = jax.vmap(one, in_axes=(0, None, 0), out_axes=(0, None), axis_name="batch")
            x, buffers = many(x, buffers, jax.random.split(key, len(x)))
        else:
            x = jax.vmap(net)(x)
        return jnp.mean((x - y) ** 2), buffers

    @eqx.filter_jit
    def step(state: Any, x: jax.Array, y: jax.Array) -> Any:
        net, buffers, moments, key = state
        key, own = jax.random.split(key)
        both = eqx.filter_value_and_grad(loss_fn, has_aux=True)
        (loss, buffers), grads = both(net, buffers, own, x, y)
        updates, moments = optimiser.update(grads, moments)
        return (eqx.apply_updates(net, updates), buffers, moments, key), loss

    state = (net, buffers, moments, jax.random.key(0))

    def call() -> None:
        nonlocal state
        state, loss = step(state, x, y)
        loss.block_until_ready()

    return Step(call, lambda: timed(lambda: step.lower(state, x, y)))
