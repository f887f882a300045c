"""How long Python works on a training step before XLA's compiler starts.

    python benchmarks/trace.py --layers 200

Tracing runs the user's Python once and writes down the operations; lowering translates them for the compiler. Both
grow with the depth of a network and are paid at each start of a program, also when the compiled program is
found in a cache. What is measured, for a step that has not been called before:

- raw JAX, NNX, Equinox: ``jitted.trace(...).lower()`` or ``jitted.lower(...)``;
- brickwork: ``stats().trace_seconds`` of the first call, which is all that ``bw.compile`` does before it starts the
  compiler: finding out what the function depends on, tracing, lowering.

Optimiser states exist beforehand. The first step of each library is not counted: it imports modules and fills
JAX's caches of small functions, which later layers use. "fold=False" has brickwork trace every layer, as the
others do; by default it traces one of the equal layers in a row, and makes the rest a loop.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import statistics
from collections.abc import Callable
from pathlib import Path

from _common import console, missing, record, table
from _steps import Step, brickwork, by_hand, equinox, flax

RAW = "raw JAX"
LAYERS_PER_BLOCK = {"sgd": 1, "adam": 1, "state": 3}
TITLES = {
    "sgd": "Linear layers, SGD",
    "adam": "Linear layers, Adam",
    "state": "layers (Linear, BatchNorm, Dropout in turn), SGD",
}
MAKERS: dict[str, Callable[[str, int], Step]] = {
    RAW: lambda work, n: by_hand(work, n, donate=True),
    "brickwork, fold=False": lambda work, n: brickwork(work, n, fold=False),
    "brickwork": lambda work, n: brickwork(work, n),
    "Flax, nnx.jit": lambda work, n: flax(work, n),
    "Equinox, eqx.filter_jit": lambda work, n: equinox(work, n),
}


def main() -> None:
    """Trace new steps of every library in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=200)
    parser.add_argument("--work", nargs="+", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the results; printed without it")
    args = parser.parse_args()

    os.environ["BRICKWORK_CACHE"] = "off"  # what is compiled here is of no use to anyone
    absent = missing(["brickwork", "flax", "equinox"])
    makers = {name: maker for name, maker in MAKERS.items() if name.split(",")[0].lower() not in absent}
    results = []
    for work in args.work:
        length = max(1, round(args.layers / LAYERS_PER_BLOCK[work]))
        layers = length * LAYERS_PER_BLOCK[work]
        seconds: dict[str, list[float]] = {name: [] for name in makers}
        order = list(makers)
        shuffle = random.Random(0).shuffle
        for turn in range(args.rounds + 1):
            shuffle(order)
            for name in order:
                with console.status(f"{layers} {TITLES[work]}, round {turn} of {args.rounds}: {name}"):
                    step = makers[name](work, length)
                    gc.collect()
                    taken = step.trace()
                if turn:
                    seconds[name].append(taken)
        rows = []
        for name, taken in seconds.items():
            over = statistics.median(a / b for a, b in zip(taken, seconds[RAW], strict=True))
            row = {
                "work": work,
                "layers": layers,
                "variant": name,
                "median_s": statistics.median(taken),
                "least_s": min(taken),
                "ms_per_layer": statistics.median(taken) / layers * 1e3,
                "over_raw": over,
            }
            results.append(row)
            figures = (row["median_s"], row["least_s"], row["ms_per_layer"], over)
            rows.append((name, *(f"{x:.3f}" for x in figures[:2]), *(f"{x:.2f}" for x in figures[2:])))
        table(
            f"tracing and lowering a training step of {layers} {TITLES[work]}",
            ("variant", "median s", "least s", "ms a layer", "x raw JAX"),
            rows,
        )
    record("trace", results, args.json)


if __name__ == "__main__":
    main()
