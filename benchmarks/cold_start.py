"""How long a fresh process takes until a network answers: import, build, first forward.

    python benchmarks/cold_start.py --repeats 5

The network is shaped like ResNet-50 and written here from each library's own layers; the input is
2x3x64x64. Every measurement is a process of its own, the libraries take turns, and the table shows
medians. "build" ends when all initial values are on the device, "forward" when the compiled
network (in inference mode) has answered once, "process" is all of it as seen from outside, the
interpreter's start included.

Libraries on JAX are measured without JAX's persistent compile cache and with it: there, a first
process fills an empty folder, with the same thresholds for each library, and is not counted.
PyTorch runs eagerly and has no such cache.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BLOCKS = (3, 4, 6, 3)
INPUT = (2, 3, 64, 64)
CLASSES = 1000
PARAMETERS = 25_557_032  # as published for ResNet-50 with 1,000 classes

Parts = tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], int]]


def brickwork() -> Parts:
    """How to build, how to run, how to count; no input channels anywhere."""
    import numpy as np

    import brickwork as bw
    from brickwork import nn

    def conv(channels: int, size: int, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, size, stride=stride, padding=size // 2, bias=False),
            nn.BatchNorm2d(),
        )

    class Bottleneck(bw.Module):
        def __init__(self, width: int, stride: int, project: bool) -> None:
            self.reduce = conv(width, 1)
            self.middle = conv(width, 3, stride)
            self.expand = conv(4 * width, 1)
            self.project = conv(4 * width, 1, stride) if project else nn.Identity()
            self.relu = nn.ReLU()

        def forward(self, x: Any) -> Any:
            y = self.relu(self.middle(self.relu(self.reduce(x))))
            return self.relu(self.expand(y) + self.project(x))

    class ResNet50(bw.Module):
        def __init__(self) -> None:
            self.stem = conv(64, 7, 2)
            self.relu = nn.ReLU()
            self.pool = nn.MaxPool2d(3, stride=2, padding=1)
            self.blocks = nn.Sequential()
            for stage, count in enumerate(BLOCKS):
                for i in range(count):
                    stride = 2 if stage > 0 and i == 0 else 1
                    self.blocks.append(Bottleneck(64 * 2**stage, stride, project=i == 0))
            self.head = nn.Linear(CLASSES)

        def forward(self, x: Any) -> Any:
            x = self.blocks(self.pool(self.relu(self.stem(x))))
            return self.head(x.mean((2, 3)))

    def build() -> Any:
        import jax

        net = ResNet50().eval()
        net.initialize(bw.spec(*INPUT))
        jax.block_until_ready(list(net.state_dict().values()))
        return net

    @bw.compile
    def forward(net: Any, x: Any) -> Any:
        return net(x)

    return (
        build,
        lambda net: forward(net, np.ones(INPUT, np.float32)).block_until_ready(),
        lambda net: sum(p.size for p in net.parameters()),
    )


def flax() -> Parts:
    """The same in Flax NNX, channels last as its convolutions want them."""
    import jax
    import numpy as np
    from flax import nnx

    class ConvNorm(nnx.Module):
        def __init__(self, ins: int, outs: int, size: int, stride: int, rngs: nnx.Rngs) -> None:
            self.conv = nnx.Conv(
                ins,
                outs,
                (size, size),
                strides=stride,
                padding=[(size // 2, size // 2)] * 2,
                use_bias=False,
                rngs=rngs,
            )
            self.norm = nnx.BatchNorm(outs, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.norm(self.conv(x))

    class Bottleneck(nnx.Module):
        def __init__(self, ins: int, width: int, stride: int, project: bool, rngs: nnx.Rngs) -> None:
            self.reduce = ConvNorm(ins, width, 1, 1, rngs)
            self.middle = ConvNorm(width, width, 3, stride, rngs)
            self.expand = ConvNorm(width, 4 * width, 1, 1, rngs)
            self.project = ConvNorm(ins, 4 * width, 1, stride, rngs) if project else None

        def __call__(self, x: jax.Array) -> jax.Array:
            y = self.expand(nnx.relu(self.middle(nnx.relu(self.reduce(x)))))
            return nnx.relu(y + (x if self.project is None else self.project(x)))

    class ResNet50(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.stem = ConvNorm(3, 64, 7, 2, rngs)
            blocks, ins = [], 64
            for stage, count in enumerate(BLOCKS):
                for i in range(count):
                    stride = 2 if stage > 0 and i == 0 else 1
                    blocks.append(Bottleneck(ins, 64 * 2**stage, stride, i == 0, rngs))
                    ins = 4 * 64 * 2**stage
            self.blocks = nnx.List(blocks)
            self.head = nnx.Linear(ins, CLASSES, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            x = nnx.relu(self.stem(x))
            x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
            for block in self.blocks:
                x = block(x)
            return self.head(x.mean((1, 2)))

    def build() -> Any:
        net = ResNet50(nnx.Rngs(0))
        net.eval()
        jax.block_until_ready(jax.tree.leaves(nnx.state(net)))
        return net

    forward = nnx.jit(lambda net, x: net(x))
    n, c, h, w = INPUT
    return (
        build,
        lambda net: forward(net, np.ones((n, h, w, c), np.float32)).block_until_ready(),
        lambda net: sum(p.size for p in jax.tree.leaves(nnx.state(net, nnx.Param))),
    )


def torch() -> Parts:
    """The same in PyTorch, eager."""
    import torch
    from torch import nn

    def conv(ins: int, outs: int, size: int, stride: int = 1) -> Any:
        return nn.Sequential(
            nn.Conv2d(ins, outs, size, stride=stride, padding=size // 2, bias=False),
            nn.BatchNorm2d(outs),
        )

    class Bottleneck(nn.Module):
        def __init__(self, ins: int, width: int, stride: int, project: bool) -> None:
            super().__init__()
            self.reduce = conv(ins, width, 1)
            self.middle = conv(width, width, 3, stride)
            self.expand = conv(width, 4 * width, 1)
            self.project = conv(ins, 4 * width, 1, stride) if project else nn.Identity()
            self.relu = nn.ReLU()

        def forward(self, x: Any) -> Any:
            y = self.relu(self.middle(self.relu(self.reduce(x))))
            return self.relu(self.expand(y) + self.project(x))

    class ResNet50(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = conv(3, 64, 7, 2)
            self.relu = nn.ReLU()
            self.pool = nn.MaxPool2d(3, stride=2, padding=1)
            blocks, ins = [], 64
            for stage, count in enumerate(BLOCKS):
                for i in range(count):
                    stride = 2 if stage > 0 and i == 0 else 1
                    blocks.append(Bottleneck(ins, 64 * 2**stage, stride, project=i == 0))
                    ins = 4 * 64 * 2**stage
            self.blocks = nn.Sequential(*blocks)
            self.head = nn.Linear(ins, CLASSES)

        def forward(self, x: Any) -> Any:
            x = self.blocks(self.pool(self.relu(self.stem(x))))
            return self.head(x.mean((2, 3)))

    @torch.no_grad()
    def forward(net: Any) -> Any:
        return net(torch.ones(INPUT))

    return (
        lambda: ResNet50().eval(),
        forward,
        lambda net: sum(p.numel() for p in net.parameters()),
    )


LIBRARIES: dict[str, Callable[[], Parts]] = {"brickwork": brickwork, "flax": flax, "torch": torch}


def child(library: str) -> None:
    """One measurement, in a process of its own; prints it as JSON."""
    import gc

    start = time.perf_counter()
    if library == "torch":
        importlib.import_module("torch")
    else:
        importlib.import_module("jax.numpy")
        jax_imported = time.perf_counter()
        importlib.import_module("flax.nnx" if library == "flax" else "brickwork")
    imported = time.perf_counter()
    backend = 0.0
    if library != "torch":
        import jax

        jax.block_until_ready(jax.device_put(0.0))  # starting the backend is nobody's build time
        backend = time.perf_counter() - imported
    build, forward, count = LIBRARIES[library]()
    gc.collect()
    begin = time.perf_counter()
    net = build()
    built = time.perf_counter()
    forward(net)
    answered = time.perf_counter()
    if count(net) != PARAMETERS:
        raise SystemExit(f"{library}: {count(net):,} parameters, not {PARAMETERS:,}")
    result = {
        "import_s": imported - start,
        "backend_s": backend,
        "build_s": built - begin,
        "forward_s": answered - built,
    }
    if library != "torch":
        result["jax_import_s"] = jax_imported - start
    print(json.dumps(result))


def measure(library: str, cache: Path | None) -> dict[str, float]:
    """Run one child and add the time its process took."""
    environment = dict(os.environ)
    if cache is None:
        environment["BRICKWORK_CACHE"] = "off"
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    elif library == "brickwork":
        environment["BRICKWORK_CACHE"] = str(cache)
    else:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(cache)
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        environment["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, "--child", library],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - begin
    if done.returncode != 0:
        raise SystemExit(f"{library} failed:\n{done.stderr}")
    return {**json.loads(done.stdout.splitlines()[-1]), "process_s": seconds}


def main() -> None:
    """Alternate between the libraries and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the results; printed without it")
    parser.add_argument("--child", choices=LIBRARIES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child)
        return

    from _common import console, missing, record, table

    absent = missing(list(LIBRARIES))
    with tempfile.TemporaryDirectory() as folder:
        cases: list[tuple[str, Path | None]] = []
        for library in LIBRARIES:
            if library in absent:
                continue
            cases.append((library, None))
            if library != "torch":
                cases.append((library, Path(folder, library)))
        for library, cache in cases:
            if cache is not None:
                cache.mkdir()
                with console.status(f"filling the cache of {library}"):
                    measure(library, cache)
        samples: dict[tuple[str, bool], list[dict[str, float]]] = {}
        for repeat in range(args.repeats):
            for library, cache in cases:
                with console.status(f"round {repeat + 1} of {args.repeats}: {library}"):
                    found = measure(library, cache)
                samples.setdefault((library, cache is not None), []).append(found)

    results, rows = [], []
    for (library, cached), found in samples.items():
        medians = {key: statistics.median(s[key] for s in found) for key in found[0]}
        results.append({"library": library, "cache": cached, "samples": found, **medians})
        name = library if library == "torch" else f"{library}, cache {'on' if cached else 'off'}"
        shown = ("import_s", "build_s", "forward_s", "process_s")
        rows.append((name, *(f"{medians[key]:.2f}" for key in shown)))
    table(
        f"ResNet-50's shape, fresh process, {'x'.join(map(str, INPUT))}, medians of {args.repeats}",
        ("library", "import s", "build s", "forward s", "process s"),
        rows,
    )
    record("cold_start", results, args.json)


if __name__ == "__main__":
    main()
