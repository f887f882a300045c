"""How long initial values take: 100 matrices of 1000x1000, a hundred million parameters.

    python benchmarks/init.py --matrices 100

"brickwork" constructs the parameters and draws them, until they are arrays on the device; "NumPy" draws
from the same generator, Philox, in one thread and in one stream; "PyTorch" fills tensors with ``torch.nn.init``.
Only brickwork's values are the same whatever the number of threads and for any slice alone.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from _common import console, interleaved, missing, record, table

SIDE = 1000
BOUND = 1 / math.sqrt(SIDE)
KINDS = ("normal", "uniform", "truncated normal")


def brickwork(kind: str, matrices: int) -> Callable[[], None]:
    """Parameters of brickwork's, drawn."""
    import brickwork as bw

    init = {
        "normal": bw.init.normal(0.02),
        "uniform": bw.init.uniform(-BOUND, BOUND),
        "truncated normal": bw.init.truncated_normal(0.02, low=-0.04, high=0.04),
    }[kind]

    def draw() -> None:
        for _ in range(matrices):
            bw.Parameter(shape=(SIDE, SIDE), init=init).value.block_until_ready()

    return draw


def numpy(kind: str, matrices: int) -> Callable[[], None]:
    """Arrays of NumPy's; a truncated normal distribution it has not."""
    rng = np.random.Generator(np.random.Philox(0))

    def draw() -> None:
        for _ in range(matrices):
            if kind == "normal":
                values = rng.standard_normal((SIDE, SIDE), np.float32)
                values *= 0.02
            else:
                values = rng.random((SIDE, SIDE), np.float32)
                values *= 2 * BOUND
                values -= BOUND

    return draw


def pytorch(kind: str, matrices: int) -> Callable[[], None]:
    """Tensors of PyTorch's."""
    import torch

    fill: dict[str, Callable[[Any], Any]] = {
        "normal": lambda t: torch.nn.init.normal_(t, 0.0, 0.02),
        "uniform": lambda t: torch.nn.init.uniform_(t, -BOUND, BOUND),
        "truncated normal": lambda t: torch.nn.init.trunc_normal_(t, 0.0, 0.02, -0.04, 0.04),
    }

    def draw() -> None:
        for _ in range(matrices):
            fill[kind](torch.empty(SIDE, SIDE))

    return draw


def main() -> None:
    """Draw with each of them in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--matrices", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--json", type=Path, help="file for the results; printed without it")
    args = parser.parse_args()

    absent = missing(["torch"])
    results, rows = [], []
    for kind in args.kinds:
        variants = {"brickwork": brickwork(kind, args.matrices)}
        if kind != "truncated normal":
            variants["NumPy"] = numpy(kind, args.matrices)
        if not absent:
            variants["PyTorch"] = pytorch(kind, args.matrices)
        with console.status(kind):
            timings = interleaved(variants, rounds=args.rounds, calls=1)
        for name, timing in timings.items():
            ratio = timing.over(timings["brickwork"])
            results.append(
                {"kind": kind, "library": name, "median_s": timing.median, "best_s": timing.best, "ratio": ratio}
            )
            rows.append((f"{kind}, {name}", f"{timing.median:.2f}", f"{timing.best:.2f}", f"{ratio:.2f}"))
    table(
        f"{args.matrices} matrices of {SIDE}x{SIDE}",
        ("values, library", "median s", "best s", "over brickwork"),
        rows,
    )
    record("init", results, args.json)


if __name__ == "__main__":
    main()
