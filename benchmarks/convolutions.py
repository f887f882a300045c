"""Convolutions on a CPU: the form that brickwork chooses beside XLA's convolution, forwards and with gradients.

    taskset -c 0 python benchmarks/convolutions.py --rounds 10

The rule in ``brickwork.functional._conv_forms`` is read off this table. On a busy machine pin it to one core.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from _common import console, interleaved, record, table
from brickwork.functional import _conv_forms as forms, _conv_phases as phases
from brickwork.functional._conv_forms import Geometry

os.environ["BRICKWORK_CACHE"] = "off"

# name: image, kernel, stride, padding, dilation, groups
CONVOLUTIONS = {
    "LeNet's first": ((256, 1, 28, 28), (6, 1, 5, 5), 1, 2, 1, 1),
    "LeNet's second": ((256, 6, 14, 14), (16, 6, 5, 5), 1, 0, 1, 1),
    "ordinary": ((16, 32, 32, 32), (32, 32, 3, 3), 1, 1, 1, 1),
    "64 channels": ((32, 64, 32, 32), (64, 64, 3, 3), 1, 1, 1, 1),
    "128 channels": ((32, 128, 16, 16), (128, 128, 3, 3), 1, 1, 1, 1),
    "64 to 128 channels, stride 2": ((32, 64, 32, 32), (128, 64, 3, 3), 2, 1, 1, 1),
    "128 to 64 channels": ((16, 128, 32, 32), (64, 128, 3, 3), 1, 1, 1, 1),
    "output larger than input": ((8, 32, 32, 32), (32, 32, 3, 3), 1, 2, 1, 1),
    "depthwise": ((32, 64, 32, 32), (64, 1, 3, 3), 1, 1, 1, 64),
    "depthwise, stride 2": ((32, 64, 32, 32), (64, 1, 3, 3), 2, 1, 1, 64),
    "depthwise 7 x 7": ((8, 64, 28, 28), (64, 1, 7, 7), 1, 3, 1, 64),
    "depthwise of sequences": ((8, 64, 256), (64, 1, 4), 1, 3, 1, 64),
    "2 groups": ((8, 256, 14, 14), (256, 128, 3, 3), 1, 1, 1, 2),
    "32 groups": ((8, 128, 16, 16), (128, 4, 3, 3), 1, 1, 1, 32),
    "deep, few positions": ((64, 512, 4, 4), (512, 512, 3, 3), 1, 1, 1, 1),
    "deep, one image": ((1, 128, 16, 16), (128, 128, 3, 3), 1, 1, 1, 1),
    "volumes": ((2, 16, 8, 16, 16), (16, 16, 3, 3, 3), 1, 1, 1, 1),
    "volumes, stride 2": ((2, 16, 8, 16, 16), (16, 16, 3, 3, 3), 2, 1, 1, 1),
    "volumes of 1 x 1 x 1": ((4, 32, 8, 16, 16), (64, 32, 1, 1, 1), 1, 0, 1, 1),
}
TRANSPOSED = {
    "transposed 2 x 2, stride 2": ((8, 64, 32, 32), (64, 32, 2, 2), 2, 0, 1, 1),
    "transposed 4 x 4, stride 2": ((16, 64, 16, 16), (64, 32, 4, 4), 2, 1, 1, 1),
    "transposed 3 x 3, stride 2": ((16, 32, 14, 14), (32, 16, 3, 3), 2, 1, 1, 1),
    "transposed, of one element": ((32, 100, 1, 1), (100, 256, 4, 4), 1, 0, 1, 1),
    "transposed, of sequences": ((8, 64, 128), (64, 32, 16), 8, 4, 1, 1),
    "transposed, of volumes": ((2, 32, 8, 8, 8), (32, 16, 4, 4, 4), 2, 1, 1, 1),
}


def call(f: Callable[..., Any], x: Any, weight: Any, gradients: bool) -> Callable[[], Any]:
    """A call of the compiled function, or of it and its gradients."""

    def both(x: Any, weight: Any) -> Any:
        y, pull = jax.vjp(f, x, weight)
        return y, pull(y)

    compiled = jax.jit(both if gradients else f)
    jax.block_until_ready(compiled(x, weight))
    return lambda: jax.block_until_ready(compiled(x, weight))


def pair(name: str) -> tuple[Callable[..., Any], Callable[..., Any], Any, Any]:
    """The form that is chosen, XLA's, and the arguments."""
    image, kernel, stride, padding, dilation, groups = {**CONVOLUTIONS, **TRANSPOSED}[name]
    ndim = len(image) - 2
    g = Geometry((stride,) * ndim, ((padding, padding),) * ndim, (dilation,) * ndim, groups)
    rng = np.random.default_rng(0)
    x, weight = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in (image, kernel))
    if name in CONVOLUTIONS:
        return lambda x, w: forms.convolve(x, w, g), lambda x, w: forms.plain(x, w, g), x, weight
    out = tuple((n - 1) * stride - 2 * padding + k for n, k in zip(image[2:], kernel[2:], strict=True))
    return (
        lambda x, w: phases.transpose(x, w, g, out),
        lambda x, w: phases.plain_transposed(x, w.swapaxes(0, 1), g, out),
        x,
        weight,
    )


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*CONVOLUTIONS, *TRANSPOSED], default=[*CONVOLUTIONS, *TRANSPOSED])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows, results = [], []
    for name in given.only:
        chosen, plain, x, weight = pair(name)
        row = [name]
        for gradients in (False, True):
            variants = {
                "chosen": call(chosen, x, weight, gradients),
                "plain": call(plain, x, weight, gradients),
            }
            times = interleaved(variants, rounds=given.rounds, calls=3, turn=5)
            best = {k: t.best * 1e3 for k, t in times.items()}
            row += [f"{best['plain']:.2f}", f"{best['chosen']:.2f}", f"{best['chosen'] / best['plain']:.2f}"]
            results.append({"name": name, "gradients": gradients, "best": best})
        rows.append(tuple(row))
        console.print(*row, sep="   ")
    columns = ("convolution", "XLA's [ms]", "chosen [ms]", "ratio", "with gradients", "chosen", "ratio")
    table("Convolutions, best of all calls", columns, rows)
    record("convolutions", results, given.json)


if __name__ == "__main__":
    main()
