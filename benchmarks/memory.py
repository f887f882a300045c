"""What a compiled Adam step holds: during a call, by XLA's analysis, and after it, by live arrays.

    python benchmarks/memory.py --width 1024 --layers 8

Training has to hold the parameters and two moments of the same size: three times the parameters'
bytes. A step that does not overwrite its inputs needs twice that while it runs. The reference is a
hand-written ``jax.jit`` with everything donated.
"""

from __future__ import annotations

import argparse
import gc
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from _common import console, missing, record, table

BATCH = 64
RATE = 1e-3


def live_bytes() -> int:
    """Bytes of all arrays that exist now."""
    gc.collect()
    return sum(a.nbytes for a in jax.live_arrays() if not a.is_deleted())


def by_hand(width: int, layers: int, x: jax.Array) -> dict[str, Any]:
    """``jax.jit`` on lists of arrays."""
    before = live_bytes()
    rng = np.random.default_rng(0)
    params = []
    for _ in range(layers):
        params.append(jnp.asarray(rng.normal(0, width**-0.5, (width, width)), jnp.float32))
        params.append(jnp.zeros(width))
    adam = optax.adam(RATE)
    state = adam.init(params)

    def loss_fn(params: Any, x: jax.Array) -> jax.Array:
        for weight, bias in zip(params[::2], params[1::2], strict=True):
            x = jax.nn.relu(x @ weight.T + bias)
        return jnp.mean(x**2)

    def step(params: Any, state: Any, x: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(loss_fn)(params, x)
        updates, state = adam.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, x).compile()
    size = sum(p.nbytes for p in params)
    for _ in range(3):
        params, state, loss = compiled(params, state, x)
    loss.block_until_ready()
    del loss
    memory = compiled.memory_analysis()
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return {
        "variant": "jax.jit by hand",
        "parameters": size,
        "donated": memory.alias_size_in_bytes,
        "during": used - memory.alias_size_in_bytes,
        "after": live_bytes() - before,
    }


def brickwork(width: int, layers: int, x: jax.Array) -> dict[str, Any]:
    """A module and an optimiser."""
    import brickwork as bw
    from brickwork import nn, optim

    before = live_bytes()
    net = nn.Sequential()
    for _ in range(layers):
        net.append(nn.Linear(width))
        net.append(nn.ReLU())
    net.initialize(bw.spec(*x.shape))
    opt = optim.adam(net, RATE)

    @bw.compile
    def step(x: jax.Array) -> jax.Array:
        loss, grads = bw.value_and_grad(lambda x: jnp.mean(net(x) ** 2), net)(x)
        opt.step(grads)
        return loss

    for _ in range(3):
        loss = step(x)
    loss.block_until_ready()
    del loss
    stats = step.stats()
    return {
        "variant": "brickwork, bw.compile",
        "parameters": sum(p.size * p.dtype.itemsize for p in net.parameters()),
        "donated": stats.donated,
        "during": stats.peak_memory,
        "after": live_bytes() - before,
    }


def main() -> None:
    """Measure both and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--json", type=Path, help="file for the results; printed without it")
    args = parser.parse_args()

    x = jnp.ones((BATCH, args.width))
    makers = [by_hand] if missing(["brickwork"]) else [by_hand, brickwork]
    results = [maker(args.width, args.layers, x) for maker in makers]
    rows = []
    for row in results:
        ratios = (f"{row[key] / row['parameters']:.3f}" for key in ("donated", "during", "after"))
        rows.append((row["variant"], f"{row['parameters'] / 1e6:.1f}", *ratios))
    table(
        f"Adam step, {args.layers} layers of {args.width}, in multiples of the parameters' size",
        ("variant", "parameters MB", "donated", "during a step", "after a step"),
        rows,
    )
    console.print("3.000: one copy of the parameters and of two moments; activations add to it in a step")
    record("memory", results, args.json)


if __name__ == "__main__":
    main()
