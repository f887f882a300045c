"""What a call of a compiled function costs, over hand-written ``jax.jit``.

    python benchmarks/dispatch.py --parameters 10 100 1000 --work sgd state

Networks are chains of ``Linear(8)`` layers, or of ``Linear``, ``BatchNorm`` and ``Dropout``, with four samples: next
to no arithmetic, so that what is left is the handling of parameters. All variants run in one process,
interleaved, and each call ends when its result is ready (one XLA program computes the loss and the new
parameters, so then they are all ready).

The reference is ``jax.jit`` on a flat list of arrays, in two forms: "donated" gives the old
parameters' memory to the new ones, as brickwork does by itself; "not donated" is what one gets
without asking. The last table is measured while 1,000 other modules are alive, which another compiled
function depends on.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _common import console, interleaved, missing, record, table
from _steps import WIDTH, WORK, Step, brickwork, by_hand, equinox, flax, inputs, per_block

DONATED, PLAIN = "jax.jit, flat list, donated", "jax.jit, flat list, not donated"
TITLES = {
    "forward": "forward only",
    "sgd": "training step, SGD",
    "adam": "training step, Adam",
    "state": "training step, SGD, with BatchNorm and Dropout",
}
CROWD = 1000  # modules

Makers = dict[str, Callable[[str, int], Step]]

OURS: Makers = {
    "brickwork, bw.compile": lambda work, n: brickwork(work, n),
    "brickwork, modules as arguments": lambda work, n: brickwork(work, n, as_arguments=True),
}
REFERENCES: Makers = {
    DONATED: lambda work, n: by_hand(work, n, donate=True),
    PLAIN: lambda work, n: by_hand(work, n, donate=False),
}
PEERS: Makers = {
    "Flax, nnx.jit": lambda work, n: flax(work, n),
    "Flax, nnx.cached_partial": lambda work, n: flax(work, n, cached=True),
    "Equinox, eqx.filter_jit": equinox,
}


def crowd() -> list[Any]:
    """Modules that a compiled function depends on."""
    import brickwork as bw
    from brickwork import nn

    net = nn.Sequential(*(nn.Linear(WIDTH) for _ in range(CROWD)))
    predict = bw.compile(net)
    predict(inputs()[0]).block_until_ready()
    return [net, predict]


def measure(makers: Makers, work: str, parameters: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Time all variants of one kind of work at one size."""
    length = max(1, round(parameters / per_block(work)))
    if work == "forward":  # nothing is overwritten, so nothing is donated
        makers = {name: maker for name, maker in makers.items() if name != DONATED}
    calls, set_up = {}, {}
    for name, maker in makers.items():
        with console.status(f"{TITLES[work]}, {parameters} parameters: compiling {name}"):
            start = time.perf_counter()
            calls[name] = maker(work, length).call
            for _ in range(3):
                calls[name]()
            set_up[name] = time.perf_counter() - start
    with console.status(f"{TITLES[work]}, {parameters} parameters: measuring"):
        timings = interleaved(calls, rounds=args.rounds, calls=args.calls, turn=args.turn)
    return [
        {
            "work": work,
            "parameters": length * per_block(work),
            "variant": name,
            "median_us": timing.median * 1e6,
            "best_us": timing.best * 1e6,
            "over_donated": timing.over(timings[DONATED]) if DONATED in timings else None,
            "over_not_donated": timing.over(timings[PLAIN]),
            "set_up_s": set_up[name],
        }
        for name, timing in timings.items()
    ]


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print one table."""
    table(
        title,
        ("variant", "median µs", "least µs", "x donated", "x not donated", "set-up s"),
        [
            (
                row["variant"],
                f"{row['median_us']:.0f}",
                f"{row['best_us']:.0f}",
                "" if row["over_donated"] is None else f"{row['over_donated']:.2f}",
                f"{row['over_not_donated']:.2f}",
                f"{row['set_up_s']:.1f}",
            )
            for row in rows
        ],
    )


def main() -> None:
    """Measure every kind of work at every size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parameters", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--work", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=20, help="timed calls per round and variant, at most")
    parser.add_argument("--turn", type=float, default=0.05, help="seconds per round and variant, about")
    parser.add_argument("--only", nargs="+", default=(), help="names (or parts) of variants")
    parser.add_argument("--peers", type=int, default=100, help="parameters up to which peers run for all kinds of work")
    parser.add_argument("--json", type=Path, help="file for the results; printed without it")
    args = parser.parse_args()

    os.environ["BRICKWORK_CACHE"] = "off"  # it would serve every variant in this process, from the second run on
    absent = missing(["brickwork", "flax", "equinox"])
    wanted = {
        name: maker
        for name, maker in (OURS | PEERS).items()
        if name.split(",")[0].lower() not in absent and (not args.only or any(part in name for part in args.only))
    }
    results = []
    for work in args.work:
        for parameters in args.parameters:
            # Compiling the larger networks of every peer for every kind of work would take most of the time.
            few = parameters > args.peers and work != "sgd"
            makers = REFERENCES | {name: m for name, m in wanted.items() if name not in PEERS or not few}
            rows = measure(makers, work, parameters, args)
            show(f"{TITLES[work]}, {rows[0]['parameters']} parameters", rows)
            results += rows
    if "brickwork" not in absent:
        alive = crowd()
        ours = {name: maker for name, maker in wanted.items() if name in OURS}
        for parameters in args.parameters[:2]:
            rows = measure(REFERENCES | ours, "sgd", parameters, args)
            show(f"{TITLES['sgd']}, {rows[0]['parameters']} parameters, {CROWD} other modules alive", rows)
            results += [row | {"modules_alive": CROWD} for row in rows]
        del alive
    record("dispatch", results, args.json)


if __name__ == "__main__":
    main()
