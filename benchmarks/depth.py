"""What deep networks of equal blocks cost to compile and to run.

    python benchmarks/depth.py --depths 10 100 1000

The first table compiles a training step of a network of residual blocks, as ``nn.Repeat`` and as a ``Sequential``
that writes every block out: the former should not grow with depth. The second compiles the gradient of 48 pre-norm
transformer blocks (width 64, 32 tokens, batch 2) and times a step, beside a ``jax.lax.scan`` written by hand.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import brickwork as bw
from _common import console, interleaved, record, table
from brickwork import nn, optim

WIDTH, HEADS, TOKENS, BATCH = 64, 4, 32, 2
REPEAT, UNROLLED = "nn.Repeat", "Sequential, fold=False"
SCAN = "jax.lax.scan by hand"


class Residual(bw.Module):
    """Two layers and a shortcut."""

    def __init__(self, width: int = WIDTH) -> None:
        self.norm = nn.LayerNorm()
        self.inner = nn.Linear(2 * width)
        self.outer = nn.Linear(width)

    def forward(self, x: jax.Array) -> jax.Array:
        return x + self.outer(jax.nn.relu(self.inner(self.norm(x))))


class Transformer(bw.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int = WIDTH) -> None:
        self.width = width
        self.norm1, self.norm2 = nn.LayerNorm(), nn.LayerNorm()
        self.qkv, self.out = nn.Linear(3 * width), nn.Linear(width)
        self.inner, self.outer = nn.Linear(4 * width), nn.Linear(width)

    def forward(self, x: jax.Array) -> jax.Array:
        b, t, _ = x.shape
        q, k, v = jnp.split(self.qkv(self.norm1(x)).reshape(b, t, 3 * HEADS, -1), 3, axis=2)
        scores = jnp.einsum("bthd,bshd->bhts", q, k) / np.float32((self.width / HEADS) ** 0.5)
        mixed = jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores, axis=-1), v)
        x = x + self.out(mixed.reshape(b, t, self.width))
        return x + self.outer(jax.nn.gelu(self.inner(self.norm2(x))))


def network(kind: str, block: Callable[[], Any], depth: int) -> Any:
    """``depth`` blocks in a row."""
    if kind == REPEAT:
        return nn.Repeat(block, depth)
    return nn.Sequential(*(block() for _ in range(depth)), fold=False)


def gradient(net: Any, x: jax.Array, training: bool) -> Any:
    """A compiled function: the gradient of a loss by all parameters, or a training step with it."""
    net.initialize(bw.spec(*x.shape))
    opt = optim.sgd(net, 1e-3) if training else None
    if opt is not None:
        opt.state_dict()

    @bw.compile
    def step(x: jax.Array) -> Any:
        loss, grads = bw.value_and_grad(lambda x: jnp.mean(net(x) ** 2), net)(x)
        if opt is None:
            return loss, grads
        opt.step(grads)
        return loss

    return step


def first_call(step: Any, x: jax.Array) -> dict[str, float]:
    """What the first call costs, by stage."""
    gc.collect()
    start = time.perf_counter()
    jax.block_until_ready(step(x))
    taken = time.perf_counter() - start
    stats = step.stats()
    return {"trace_s": stats.trace_seconds, "compile_s": stats.compile_seconds, "first_call_s": taken}


def deeper(depths: list[int], rounds: int) -> list[dict[str, Any]]:
    """The first call of a training step at several depths."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(BATCH * TOKENS, WIDTH)), jnp.float32)
    cases = [(REPEAT, depth) for depth in depths]
    cases += [(UNROLLED, depth) for depth in depths if depth <= 100]
    found: dict[tuple[str, int], list[dict[str, float]]] = {case: [] for case in cases}
    for _ in range(rounds):
        for kind, depth in cases:
            with console.status(f"compiling {depth} residual blocks: {kind}"):
                found[kind, depth].append(first_call(gradient(network(kind, Residual, depth), x, True), x))
    results = []
    for (kind, depth), samples in found.items():
        best = {key: min(s[key] for s in samples) for key in samples[0]}
        results.append({"table": "depth", "variant": kind, "depth": depth, **best})
    shallow = results[0]["trace_s"] + results[0]["compile_s"]
    rows = [
        (
            row["variant"],
            str(row["depth"]),
            f"{row['trace_s']:.2f}",
            f"{row['compile_s']:.2f}",
            f"{row['first_call_s']:.2f}",
            f"{(row['trace_s'] + row['compile_s']) / shallow:.2f}",
        )
        for row in results
    ]
    table(
        f"training step of residual blocks, width {WIDTH}, least of {rounds}",
        ("network", "blocks", "trace s", "compile s", "first call s", f"x {REPEAT} of {depths[0]}"),
        rows,
    )
    return results


def scan_by_hand(depth: int, x: jax.Array) -> tuple[Callable[[], Any], dict[str, float]]:
    """The gradient with stacked parameters and ``jax.lax.scan``; the block is the same."""
    block = Transformer()
    block.initialize(bw.spec(*x.shape))
    pure, state = bw.functional(block)
    stacked = jax.tree.map(lambda v: jnp.stack([v] * depth), state)

    def loss_fn(stacked: Any, x: jax.Array) -> jax.Array:
        return jnp.mean(jax.lax.scan(lambda x, state: (pure(state, x)[0], None), x, stacked)[0] ** 2)

    start = time.perf_counter()
    lowered = jax.jit(jax.value_and_grad(loss_fn)).lower(stacked, x)
    middle = time.perf_counter()
    compiled = lowered.compile()
    end = time.perf_counter()
    jax.block_until_ready(compiled(stacked, x))
    return (
        lambda: jax.block_until_ready(compiled(stacked, x)),
        {"trace_s": middle - start, "compile_s": end - middle, "first_call_s": time.perf_counter() - start},
    )


def transformers(depth: int, rounds: int) -> list[dict[str, Any]]:
    """Compile the gradient of transformer blocks, and time it."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(BATCH, TOKENS, WIDTH)), jnp.float32)
    calls: dict[str, Callable[[], Any]] = {}
    stages = {}
    for kind in (SCAN, REPEAT, UNROLLED):
        with console.status(f"compiling {depth} transformer blocks: {kind}"):
            if kind == SCAN:
                calls[kind], stages[kind] = scan_by_hand(depth, x)
                continue
            step = gradient(network(kind, Transformer, depth), x, False)
            stages[kind] = first_call(step, x)
            calls[kind] = lambda step=step: jax.block_until_ready(step(x))
    with console.status(f"measuring {depth} transformer blocks"):
        timings = interleaved(calls, rounds=rounds, calls=10, turn=1.0)
    results, rows = [], []
    for kind, timing in timings.items():
        step_ms, over = timing.median * 1e3, timing.over(timings[UNROLLED])
        row = {"table": "transformer", "variant": kind, "depth": depth, "step_ms": step_ms, "over_unrolled": over}
        results.append(row | stages[kind])
        rows.append((kind, *(f"{value:.2f}" for value in (*stages[kind].values(), step_ms, over))))
    table(
        f"gradient of {depth} transformer blocks, width {WIDTH}, {TOKENS} tokens, batch {BATCH}",
        ("network", "trace s", "compile s", "first call s", "step ms", "x unrolled"),
        rows,
    )
    return results


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depths", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--transformers", type=int, default=48, help="transformer blocks")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path, help="file for the results; printed without it")
    args = parser.parse_args()

    os.environ["BRICKWORK_CACHE"] = "off"  # compile times are what this is about
    results = deeper(args.depths, rounds=2)
    results += transformers(args.transformers, args.rounds)
    record("depth", results, args.json)


if __name__ == "__main__":
    main()
