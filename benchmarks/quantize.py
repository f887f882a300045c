"""How long a linear layer takes whose weights are integers of 8 bits.

    python benchmarks/quantize.py --width 1024

In one thread, compiled, in processor time, so that other load on the machine counts little. "floats" is the layer
before it was quantised. "in integers" is what ``nn.quantize`` computes on a CPU: each row of the input as a multiple
of a coarse and a fine integer, and products of integers, which keeps 16 bits of the input. "converted" makes floats
of the weights at each call, and is what it computes elsewhere; "rounded input" keeps 8 bits of the input, which is
no better in time and costs more precision than the weights do.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _common import record, table

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()

import jax
import jax.numpy as jnp
from jax import lax

from brickwork import functional as F
from brickwork.functional._quantize import float_product, integer_product

OVER = (((1,), (1,)), ((), ()))


def rounded_input(x: Any, q: Any, scale: Any) -> Any:
    """The product with 8 bits of the input."""
    unit = jnp.max(jnp.abs(x), 1, keepdims=True) / 127
    rounded = jnp.round(x / unit).astype(jnp.int8)
    return lax.dot_general(rounded, q, OVER, preferred_element_type=jnp.int32).astype(x.dtype) * unit * scale


def seconds(call: Callable[..., Any], *args: Any, rounds: int) -> float:
    """The least processor time of a call."""
    compiled = jax.jit(call)
    best = float("inf")
    for _ in range(rounds + 2):
        start = time.process_time()
        compiled(*args).block_until_ready()
        best = min(best, time.process_time() - start)
    return best


def main() -> None:
    """Time the ways for several batches."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, help="file for the results; printed without it")
    args = parser.parse_args()

    weight = jax.random.normal(jax.random.key(0), (args.width, args.width))
    q, scale = F.quantize(weight, 1)
    ways = {"in integers": integer_product, "converted": float_product, "rounded input": rounded_input}
    results, rows = [], []
    for batch in args.batches:
        x = jax.random.normal(jax.random.key(1), (batch, args.width))
        floats = seconds(lambda x, w: lax.dot_general(x, w, OVER), x, weight, rounds=args.rounds)
        exact = lax.dot_general(x, F.dequantize(q, scale, 1), OVER, precision="highest")
        row = [str(batch), f"{floats * 1e6:.0f}"]
        for name, way in ways.items():
            ratio = seconds(way, x, q, scale, rounds=args.rounds) / floats
            error = float(jnp.abs(way(x, q, scale) - exact).max() / jnp.abs(exact).max())
            results.append({"batch": batch, "way": name, "floats_s": floats, "ratio": ratio, "error": error})
            row.append(f"{ratio:.2f} ({error:.0e})")
        rows.append(row)
    table(
        f"Linear, {args.width} to {args.width}: times floats (error)",
        ("batch", "floats us", *ways),
        rows,
    )
    record("quantize", results, args.json)


if __name__ == "__main__":
    main()
