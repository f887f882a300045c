"""What the benchmarks share: timing that survives a noisy machine, tables, and a JSON record."""

from __future__ import annotations

import gc
import importlib.metadata
import importlib.util
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

console = Console(width=max(100, Console().width))


@dataclass(frozen=True)
class Timing:
    """Seconds per call of one variant: all calls of all rounds, and the median of each round."""

    calls: list[float]
    rounds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.calls)

    @property
    def best(self) -> float:
        return min(self.calls)

    def over(self, reference: Timing) -> float:
        """How many times slower than the reference: the median of the ratios round by round.

        The two were measured within the same fraction of a second in each round, so that load
        which comes and goes with the minutes cancels out.
        """
        return statistics.median(a / b for a, b in zip(self.rounds, reference.rounds, strict=True))


def interleaved(
    variants: Mapping[str, Callable[[], Any]], *, rounds: int, calls: int, turn: float = 60.0, seed: int = 0
) -> dict[str, Timing]:
    """Time every variant in every round, in a new random order each time.

    A variant does one call and returns when its result is ready. Each one first runs three times
    untimed in its turn, which brings its code and data back into the processor's caches. Python's
    garbage collector runs between the turns and is off during them. A turn ends after ``calls`` calls,
    or with the call that takes it past ``turn`` seconds.
    """
    every: dict[str, list[float]] = {name: [] for name in variants}
    medians: dict[str, list[float]] = {name: [] for name in variants}
    order = list(variants)
    shuffle = random.Random(seed).shuffle
    collecting = gc.isenabled()
    try:
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                call = variants[name]
                gc.collect()
                gc.disable()
                for _ in range(3):
                    call()
                taken: list[float] = []
                while len(taken) < calls and sum(taken) <= turn:
                    start = time.perf_counter()
                    call()
                    taken.append(time.perf_counter() - start)
                if collecting:
                    gc.enable()
                every[name] += taken
                medians[name].append(statistics.median(taken))
    finally:
        if collecting:
            gc.enable()
    return {name: Timing(every[name], medians[name]) for name in variants}


def missing(packages: Sequence[str]) -> list[str]:
    """Which of the packages are not installed; says so once, so that a table isn't misread."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    if absent:
        console.print(f"not installed, left out: {', '.join(absent)}", style="yellow")
    return absent


def environment() -> dict[str, Any]:
    """What the numbers depend on: processor count, load, Python, and package versions."""
    versions = {}
    for name in ("brickwork", "jax", "jaxlib", "numpy", "optax", "flax", "equinox", "torch"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "load": [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "versions": versions,
    }


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column is text, the others are numbers."""
    drawn = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        drawn.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        drawn.add_row(*row)
    console.print(drawn)


def record(name: str, results: Any, path: Path | None) -> None:
    """Write the results as JSON to a file, or print them as one line."""
    text = json.dumps({"benchmark": name, "environment": environment(), "results": results})
    if path is None:
        sys.stdout.write(text + "\n")
    else:
        path.write_text(text + "\n", encoding="utf-8")
        console.print(f"written to {path}")
