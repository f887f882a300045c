"""What a call of a compiled training step costs, over hand-written ``jax.jit``.

    python benchmarks/dispatch.py --layers 10 50 500

The step is plain SGD on a chain of ``Linear(8)`` layers with two samples: next to no arithmetic,
so that what is left is the handling of 2 x layers parameters. All variants run in one process,
interleaved, and each call ends when its loss is ready (one XLA program computes the loss and the
new parameters, so then they are all ready).

The reference is ``jax.jit`` on a flat list of arrays, in two forms: "donated" gives the old
parameters' memory to the new ones, as brickwork does by itself; "not donated" is what one gets
without asking.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from _common import console, interleaved, missing, record, table

WIDTH = 8
RATE = 1e-3
DONATED, PLAIN = "jax.jit, flat list, donated", "jax.jit, flat list, not donated"

Call = Callable[[], Any]


def inputs() -> tuple[jax.Array, jax.Array]:
    """Two samples and their targets."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 2, WIDTH)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(y)


def flat_list(layers: int, *, donate: bool) -> Call:
    """The floor: a list of arrays, updated by hand."""
    rng = np.random.default_rng(0)
    params: list[jax.Array] = []
    for _ in range(layers):
        params.append(jnp.asarray(rng.normal(0, 0.3, (WIDTH, WIDTH)), jnp.float32))
        params.append(jnp.zeros(WIDTH))
    x, y = inputs()

    def loss_fn(params: list[jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
        for weight, bias in zip(params[::2], params[1::2], strict=True):
            x = x @ weight.T + bias
        return jnp.mean((x - y) ** 2)

    def step(params: list[jax.Array], x: jax.Array, y: jax.Array) -> tuple[list[jax.Array], jax.Array]:
        loss, grads = jax.value_and_grad(loss_fn)(params, x, y)
        return [p - RATE * g for p, g in zip(params, grads, strict=True)], loss

    compiled = jax.jit(step, donate_argnums=0 if donate else ())

    def call() -> None:
        nonlocal params
        params, loss = compiled(params, x, y)
        loss.block_until_ready()

    return call


def brickwork(layers: int) -> Call:
    """A module, an optimiser, and a step that closes over both."""
    import brickwork as bw
    from brickwork import losses, nn, optim

    net = nn.Sequential(*(nn.Linear(WIDTH) for _ in range(layers)))
    x, y = inputs()
    net.initialize(x)
    opt = optim.sgd(net, RATE)

    @bw.compile
    def step(x: jax.Array, y: jax.Array) -> jax.Array:
        loss, grads = bw.value_and_grad(lambda x, y: losses.mse(net(x), y), net)(x, y)
        opt.step(grads)
        return loss

    return lambda: step(x, y).block_until_ready()


def flax_nnx(layers: int, *, cached: bool) -> Call:
    """Flax NNX: ``nnx.jit``, or ``nnx.cached_partial``, which fixes the graph beforehand."""
    import optax
    from flax import nnx

    class Chain(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.layers = nnx.List([nnx.Linear(WIDTH, WIDTH, rngs=rngs) for _ in range(layers)])

        def __call__(self, x: jax.Array) -> jax.Array:
            for layer in self.layers:
                x = layer(x)
            return x

    net = Chain(nnx.Rngs(0))
    opt = nnx.Optimizer(net, optax.sgd(RATE), wrt=nnx.Param)
    x, y = inputs()

    @nnx.jit
    def step(net: Chain, opt: nnx.Optimizer, x: jax.Array, y: jax.Array) -> jax.Array:
        loss, grads = nnx.value_and_grad(lambda net: jnp.mean((net(x) - y) ** 2))(net)
        opt.update(net, grads)
        return loss

    if cached:
        fixed = nnx.cached_partial(step, net, opt)
        return lambda: fixed(x, y).block_until_ready()
    return lambda: step(net, opt, x, y).block_until_ready()


def equinox(layers: int) -> Call:
    """Equinox: modules are pytrees, the step returns new ones."""
    import equinox as eqx
    import optax

    keys = jax.random.split(jax.random.key(0), layers)
    net = eqx.nn.Sequential([eqx.nn.Linear(WIDTH, WIDTH, key=key) for key in keys])
    optimiser = optax.sgd(RATE)
    state = optimiser.init(eqx.filter(net, eqx.is_array))
    x, y = inputs()

    @eqx.filter_jit
    def step(net: Any, state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any, jax.Array]:
        def loss_fn(net: Any) -> jax.Array:
            return jnp.mean((jax.vmap(net)(x) - y) ** 2)

        loss, grads = eqx.filter_value_and_grad(loss_fn)(net)
        updates, state = optimiser.update(grads, state)
        return eqx.apply_updates(net, updates), state, loss

    def call() -> None:
        nonlocal net, state
        net, state, loss = step(net, state, x, y)
        loss.block_until_ready()

    return call


def main() -> None:
    """Measure every variant at every depth."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[10, 50, 500])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--calls", type=int, default=20, help="timed calls per round and variant")
    parser.add_argument("--only", nargs="+", default=(), help="names (or parts) of variants")
    parser.add_argument("--json", type=Path, help="file for the results; printed without it")
    args = parser.parse_args()

    makers: dict[str, Callable[[int], Call]] = {
        DONATED: lambda n: flat_list(n, donate=True),
        PLAIN: lambda n: flat_list(n, donate=False),
        "brickwork, bw.compile": brickwork,
        "Flax, nnx.jit": lambda n: flax_nnx(n, cached=False),
        "Flax, nnx.cached_partial": lambda n: flax_nnx(n, cached=True),
        "Equinox, eqx.filter_jit": equinox,
    }
    absent = missing(["brickwork", "flax", "equinox"])
    makers = {
        name: maker
        for name, maker in makers.items()
        if name.split(",")[0].lower() not in absent
        and (name in (DONATED, PLAIN) or not args.only or any(part in name for part in args.only))
    }

    os.environ["BRICKWORK_CACHE"] = "off"  # it would serve every variant in this process, from the second run on
    results = []
    for layers in args.layers:
        variants, compile_time = {}, {}
        for name, maker in makers.items():
            with console.status(f"{layers} layers: compiling {name}"):
                start = time.perf_counter()
                call = maker(layers)
                for _ in range(3):
                    call()
                compile_time[name] = time.perf_counter() - start
                variants[name] = call
        with console.status(f"{layers} layers: measuring"):
            timings = interleaved(variants, rounds=args.rounds, calls=args.calls)
        rows = []
        for name, timing in timings.items():
            row = {
                "layers": layers,
                "variant": name,
                "median_us": timing.median * 1e6,
                "best_us": timing.best * 1e6,
                "over_donated": timing.over(timings[DONATED]),
                "over_not_donated": timing.over(timings[PLAIN]),
                "compile_s": compile_time[name],
            }
            results.append(row)
            rows.append(
                (
                    name,
                    f"{row['median_us']:.0f}",
                    f"{row['best_us']:.0f}",
                    f"{row['over_donated']:.2f}",
                    f"{row['over_not_donated']:.2f}",
                    f"{row['compile_s']:.1f}",
                )
            )
        table(
            f"SGD step, {layers} Linear({WIDTH}) layers, {2 * layers} parameters, batch 2",
            ("variant", "median µs", "least µs", "x donated", "x not donated", "set-up s"),
            rows,
        )
    record("dispatch", results, args.json)


if __name__ == "__main__":
    main()
