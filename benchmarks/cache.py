"""How long a restarted training script takes to its first step, and where the time goes.

    python benchmarks/cache.py --repeats 5

A network of ResNet-50's shape, SGD with momentum, two images of 64x64: the first training step in a process of its
own, measured from outside, from the start of the process to its end. The libraries on JAX find their compiled program
in JAX's persistent cache, which an earlier process has filled; that earlier process is shown as well. brickwork turns
the cache on by itself; for Flax it is turned on by the environment, with the same thresholds. PyTorch runs eagerly.

The stages: "start" is the interpreter's, "import" that of the library (and of JAX), "build" makes the network and the
optimiser. The first step divides into "trace" (all that happens before lowering; brickwork draws its initial values
here, when they are first read), "lower", "compile" (reading the program from the cache, or compiling it) and "run".
"end" is the process's own, after the step. For PyTorch the step is all "run".
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _resnet import LIBRARIES, PARAMETERS

LOWER = "/jax/core/compile/jaxpr_to_mlir_module_duration"
COMPILE = "/jax/core/compile/backend_compile_duration"
STAGES = ("start", "import", "build", "trace", "lower", "compile", "run", "end")
NAMES = {"brickwork": "brickwork", "flax": "Flax NNX", "torch": "PyTorch, eager"}


def child(library: str, spawned: float) -> None:
    """One measurement, in a process of its own; prints it as JSON."""
    stages = {"start": time.time() - spawned}
    clock = time.perf_counter
    before = clock()
    modules = {"brickwork": ("jax.numpy", "brickwork"), "flax": ("jax.numpy", "flax.nnx"), "torch": ("torch",)}
    for module in modules[library]:
        importlib.import_module(module)
    imported = clock()
    network = LIBRARIES[library]()
    net = network.build(True)
    step = network.trainer(net)
    built = clock()
    stages |= {"import": imported - before, "build": built - imported}
    stages |= {"run": timed(step)} if library == "torch" else staged(step)
    if network.count(net) != PARAMETERS:
        raise SystemExit(f"{library}: {network.count(net):,} parameters, not {PARAMETERS:,}")
    print(json.dumps(stages | {"finished": time.time()}))


def timed(step: Callable[[], Any]) -> float:
    """Seconds that something takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def staged(step: Callable[[], Any]) -> dict[str, float]:
    """The stages of a first step, by the events that JAX reports; the program is the last thing it compiles."""
    import jax

    events: dict[str, tuple[float, float]] = {}

    def listen(event: str, duration: float, **kwargs: Any) -> None:
        events[event] = (time.perf_counter(), duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    begin = time.perf_counter()
    step()
    end = time.perf_counter()
    lowered, lowering = events[LOWER]
    compiled, compiling = events[COMPILE]
    return {
        "trace": lowered - lowering - begin,
        "lower": compiled - compiling - (lowered - lowering),
        "compile": compiling,
        "run": end - compiled,
    }


def measure(library: str, cache: Path) -> dict[str, float]:
    """Run one child and add the time its process took as a whole."""
    environment = dict(os.environ)
    if library == "brickwork":
        environment["BRICKWORK_CACHE"] = str(cache)
    elif library == "flax":
        environment["JAX_COMPILATION_CACHE_DIR"] = str(cache)
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        environment["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    spawned = time.time()
    done = subprocess.run(
        [sys.executable, __file__, "--child", library, "--spawned", repr(spawned)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    ended = time.time()
    if done.returncode != 0:
        raise SystemExit(f"{library} failed:\n{done.stderr}")
    stages = json.loads(done.stdout.splitlines()[-1])
    return {**stages, "end": ended - stages.pop("finished"), "total": ended - spawned}


def main() -> None:
    """Alternate between the libraries, in an order drawn anew each time, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the results; printed without it")
    parser.add_argument("--child", choices=LIBRARIES, help=argparse.SUPPRESS)
    parser.add_argument("--spawned", type=float, default=0.0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.spawned)
        return

    from _common import console, missing, record, table

    absent = missing(list(LIBRARIES))
    libraries = [library for library in LIBRARIES if library not in absent]
    samples: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for library in libraries:
            with console.status(f"first process: {library}"):
                first = measure(library, Path(folder, library))
            if library != "torch":
                samples[f"{NAMES[library]}, first process"] = [first]
        order = list(libraries)
        shuffle = random.Random(0).shuffle
        for repeat in range(args.repeats):
            shuffle(order)
            for library in order:
                with console.status(f"round {repeat + 1} of {args.repeats}: {library}"):
                    samples.setdefault(NAMES[library], []).append(measure(library, Path(folder, library)))

    results, rows = [], []
    reference = samples.get(NAMES["torch"])
    for name, found in samples.items():
        medians = {key: statistics.median(s[key] for s in found) for key in found[0]}
        over = None
        if reference and len(found) == len(reference):
            over = statistics.median(a["total"] / b["total"] for a, b in zip(found, reference, strict=True))
        results.append({"variant": name, "over_torch": over, "samples": found, **medians})
        rows.append(
            (
                name,
                *(f"{medians[stage]:.2f}" if stage in medians else "" for stage in STAGES),
                f"{medians['total']:.2f}",
                "" if over is None else f"{over:.2f}",
            )
        )
    table(
        f"first training step of ResNet-50's shape, in seconds, medians of {args.repeats}",
        ("", *STAGES, "total", "x PyTorch"),
        rows,
    )
    record("cache", results, args.json)


if __name__ == "__main__":
    main()
