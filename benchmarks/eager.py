"""What one eager call of a small network costs.

    python benchmarks/eager.py --layers 10 --width 64 --batch 8

Nothing is compiled as a whole: this is what one feels in a notebook and a debugger. The network is a row of
``Linear`` and ``ReLU``. The floor is a loop over one ``jax.jit``-ed function for each kind of layer, which is what
brickwork's layers are. Equinox's layers are written for one sample; it is shown with ``jax.vmap``, as one would
call it, and on one sample without.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from _common import console, interleaved, missing, record, table

FLOOR, TORCH = "functions jitted by hand", "PyTorch"

Call = Callable[[], Any]


def floor(layers: int, width: int, x: np.ndarray) -> dict[str, Call]:
    """One compiled function for each kind of layer."""
    linear = jax.jit(lambda x, weight, bias: x @ weight.T + bias)
    relu = jax.jit(jax.nn.relu)
    params = [(jnp.full((width, width), 1 / width), jnp.zeros(width)) for _ in range(layers)]
    given = jnp.asarray(x)

    def call() -> None:
        y = given
        for weight, bias in params:
            y = relu(linear(y, weight, bias))
        y.block_until_ready()

    return {FLOOR: call}


def brickwork(layers: int, width: int, x: np.ndarray) -> dict[str, Call]:
    """A network as users write it."""
    from brickwork import nn

    net = nn.Sequential(*(layer for _ in range(layers) for layer in (nn.Linear(width), nn.ReLU())))
    given = jnp.asarray(x)
    return {"brickwork": lambda: net(given).block_until_ready()}


def flax(layers: int, width: int, x: np.ndarray) -> dict[str, Call]:
    """The same in Flax NNX."""
    from flax import nnx

    rngs = nnx.Rngs(0)
    net = nnx.Sequential(*(layer for _ in range(layers) for layer in (nnx.Linear(width, width, rngs=rngs), nnx.relu)))
    given = jnp.asarray(x)
    return {"Flax NNX": lambda: net(given).block_until_ready()}


def equinox(layers: int, width: int, x: np.ndarray) -> dict[str, Call]:
    """The same in Equinox, on the batch and on one sample."""
    import equinox as eqx

    keys = jax.random.split(jax.random.key(0), layers)
    rows = ((eqx.nn.Linear(width, width, key=key), eqx.nn.Lambda(jax.nn.relu)) for key in keys)
    net = eqx.nn.Sequential([layer for row in rows for layer in row])
    given = jnp.asarray(x)
    return {
        "Equinox, vmap": lambda: jax.vmap(net)(given).block_until_ready(),
        "Equinox, one sample": lambda: net(given[0]).block_until_ready(),
    }


def torch(layers: int, width: int, x: np.ndarray) -> dict[str, Call]:
    """The same in PyTorch."""
    import torch

    net = torch.nn.Sequential(
        *(layer for _ in range(layers) for layer in (torch.nn.Linear(width, width), torch.nn.ReLU()))
    )
    given = torch.from_numpy(x)

    @torch.no_grad()
    def inference() -> Any:
        return net(given)

    return {TORCH: lambda: net(given), "PyTorch, no_grad": inference}


LIBRARIES = {"floor": floor, "brickwork": brickwork, "flax": flax, "equinox": equinox, "torch": torch}


def main() -> None:
    """Time one call of every network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--calls", type=int, default=50, help="timed calls per round and variant, at most")
    parser.add_argument("--json", type=Path, help="file for the results; printed without it")
    args = parser.parse_args()

    absent = missing(list(LIBRARIES)[1:])
    x = np.random.default_rng(0).normal(size=(args.batch, args.width)).astype(np.float32)
    variants: dict[str, Call] = {}
    for name, maker in LIBRARIES.items():
        if name not in absent:
            variants |= maker(args.layers, args.width, x)
    with console.status("measuring"):
        for call in variants.values():
            call()
        timings = interleaved(variants, rounds=args.rounds, calls=args.calls, turn=0.1)
    results, rows = [], []
    for name, timing in timings.items():
        over_floor = timing.over(timings[FLOOR])
        over_torch = timing.over(timings[TORCH]) if TORCH in timings else None
        results.append(
            {
                "variant": name,
                "median_us": timing.median * 1e6,
                "best_us": timing.best * 1e6,
                "over_jitted_functions": over_floor,
                "over_torch": over_torch,
            }
        )
        rows.append(
            (
                name,
                f"{timing.median * 1e6:.0f}",
                f"{timing.best * 1e6:.0f}",
                f"{over_floor:.2f}",
                "" if over_torch is None else f"{over_torch:.2f}",
            )
        )
    table(
        f"one eager call, {args.layers} x (Linear({args.width}), ReLU), batch {args.batch}",
        ("variant", "median µs", "least µs", "x jitted by hand", "x PyTorch"),
        rows,
    )
    record("eager", results, args.json)


if __name__ == "__main__":
    main()
