"""Whole training steps (forward, backward, SGD), beside PyTorch eager, Flax NNX and Equinox.

    python benchmarks/workloads.py --work gpt lstm --python brickwork=/other/venv/bin/python

Every network is written with each library's own layers, as its users would. Each library runs in a process of its own
and they take turns. A figure is the least time per step within a turn, and the median of those over the rounds; a ratio
is the median of the ratios within a round. "cpu" counts the processor time of all threads, which other programs on
the machine disturb less.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

from _common import console, missing, record, table
from _work_data import WORK
from _workers import LIBRARIES, Worker, turns


def interpreters(given: list[str]) -> dict[str, str]:
    """Which Python runs which library: ``name=path``; a name may be ``brickwork`` or ``brickwork:label``."""
    return dict(item.split("=", 1) for item in given)


def start(module: str, args: Any) -> dict[str, Worker]:
    """A worker for each library that is there and each further interpreter, with each of the settings asked for."""
    pythons = interpreters(args.python)
    absent = missing([name for name in LIBRARIES if name not in pythons])
    names = [name for name in LIBRARIES if name not in absent]
    names += [name for name in pythons if name not in LIBRARIES]
    wanted = [name for name in names if not args.only or name.split(":")[0] in args.only]
    for name in sorted({name.split(":")[0] for name in pythons} - set(LIBRARIES)):
        raise SystemExit(f"--python {name}=...: there is no library {name!r}; there are {', '.join(LIBRARIES)}")
    for option, given in (("--keep-memory", args.keep_memory), ("--onednn", args.onednn)):
        for name in sorted(set(given) - set(wanted)):
            raise SystemExit(f"{option} {name}: not among what is run, which is {', '.join(wanted)}")
    workers = {}
    for name in wanted:
        for onednn, keep in itertools.product((False, True), repeat=2):
            if (name in args.onednn or not onednn) and (name in args.keep_memory or not keep):
                settings = {"single": args.single, "keep": keep, "onednn": onednn}
                worker = Worker(name.split(":")[0], module, pythons.get(name), **settings)
                workers[name + " oneDNN" * onednn + " kept" * keep] = worker
    return workers


def show(title: str, rows: dict[str, dict[str, Any]], versions: dict[str, Any]) -> None:
    """Print one table."""

    def ratio(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    table(
        title,
        ("library", "ms a step", "x torch", "cpu ms", "x torch, cpu", "set-up s"),
        [
            (
                versions[name],
                f"{row['wall'] * 1e3:.2f}",
                ratio(row["over_torch"]),
                f"{row['cpu'] * 1e3:.2f}",
                ratio(row["cpu_over_torch"]),
                f"{row['set_up']:.1f}",
            )
            for name, row in rows.items()
        ],
    )


def options(parser: argparse.ArgumentParser) -> None:
    """The options that workloads.py and layers.py share."""
    parser.add_argument("--only", nargs="+", choices=LIBRARIES, default=(), help="libraries")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn")
    parser.add_argument("--python", nargs="+", default=[], metavar="NAME=PATH", help="interpreters for libraries")
    parser.add_argument(
        "--keep-memory", nargs="+", default=(), metavar="NAME", help="libraries to run with brickwork.keep_memory() too"
    )
    parser.add_argument(
        "--onednn", nargs="+", default=(), metavar="NAME", help="brickwork, or one of it, to run with onednn=True too"
    )
    parser.add_argument("--single", action="store_true", help="one thread on one processor")
    parser.add_argument("--json", type=Path, help="file for the results; printed without it")


def measure(name: str, module: str, titles: dict[str, str], work: list[str], args: Any) -> None:
    """Run, print and record."""
    workers = start(module, args)
    versions = {worker: process.version for worker, process in workers.items()}
    results: dict[str, Any] = {}
    try:
        for what in work:
            with console.status(titles[what]):
                found = turns(workers, [what], rounds=args.rounds, seconds=args.seconds)
            show(titles[what], found[what], versions)
            results |= found
    finally:
        for worker in workers.values():
            worker.close()
    record(name, {"versions": versions, "work": results}, args.json)


def main() -> None:
    """Measure every workload."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", nargs="+", choices=list(WORK), default=list(WORK))
    options(parser)
    args = parser.parse_args()
    measure("workloads", "_work", WORK, args.work, args)


if __name__ == "__main__":
    main()
