"""When running equal layers of a ``Sequential`` as one loop pays: compile time and step, folded and written out.

    python benchmarks/fold.py --blocks transformer mlp --depths 4 12 24 48

A row folds whatever ``brickwork.transform._fold.pays`` would say; the rule there is read off this table.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

import brickwork as bw
from _common import console, interleaved, record, table
from brickwork import nn, optim
from brickwork.transform import _fold
from depth import Residual, Transformer

os.environ["BRICKWORK_CACHE"] = "off"

BLOCKS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "linear 16": (lambda: nn.Sequential(nn.Linear(16), nn.ReLU()), (4, 16)),
    "linear 1024": (lambda: nn.Sequential(nn.Linear(1024), nn.ReLU()), (64, 1024)),
    "mlp 64": (lambda: Residual(64), (64, 64)),
    "mlp 512": (lambda: Residual(512), (256, 512)),
    "transformer 64": (lambda: Transformer(64), (2, 32, 64)),
    "transformer 256": (lambda: Transformer(256), (8, 128, 256)),
}


def make(name: str, depth: int, fold: bool, train: bool) -> tuple[Callable[[], Any], bw.Compiled]:
    """A call of a compiled step, which returns when it is done, and the step."""
    bw.seed(0)
    block, shape = BLOCKS[name]
    net = nn.Sequential(*[block() for _ in range(depth)], fold=fold)
    net.initialize(bw.spec(*shape))
    x = jax.random.normal(jax.random.key(0), shape)
    if train:
        opt = optim.sgd(net, 1e-4)

        def step(x: jax.Array) -> jax.Array:
            loss, grads = bw.value_and_grad(lambda x: (net(x) ** 2).mean(), net)(x)
            opt.step(grads)
            return loss
    else:

        def step(x: jax.Array) -> jax.Array:
            return net(x)

    compiled = bw.compile(step)
    compiled(x)
    parameters = net.parameters()
    return lambda: jax.block_until_ready((compiled(x), [p.value for p in parameters] if train else None)), compiled


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", nargs="+", choices=list(BLOCKS), default=list(BLOCKS))
    parser.add_argument("--depths", nargs="+", type=int, default=[4, 12, 24, 48])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rule = _fold.pays
    rows, results = [], []
    for name in given.blocks:
        for depth in given.depths:
            for train in (False, True):
                said: list[bool] = []
                _fold.pays = lambda columns, said=said: said.append(rule(columns)) or True
                try:
                    pairs = {"loop": make(name, depth, True, train), "written out": make(name, depth, False, train)}
                finally:
                    _fold.pays = rule
                times = interleaved({k: call for k, (call, _) in pairs.items()}, rounds=given.rounds, calls=10, turn=5)
                cost = {k: s.stats().trace_seconds + s.stats().compile_seconds for k, (_, s) in pairs.items()}
                ratio = times["loop"].over(times["written out"])
                what = "train" if train else "forward"
                choice = "loop" if said and said[-1] else "written out"
                shown = f"{cost['written out']:.2f}", f"{cost['loop']:.2f}", f"{ratio:.2f}", choice
                rows.append((f"{name}, {depth}, {what}", *shown))
                console.print(*rows[-1], sep="   ")
                results.append({"block": name, "depth": depth, "what": what, "compile": cost, "step": ratio})
    columns = ("blocks", "compile written out [s]", "loop [s]", "step, loop over written out", "the rule")
    table("Equal layers of a Sequential: a loop or written out", columns, rows)
    record("fold", results, given.json)


if __name__ == "__main__":
    main()
