"""How long a fresh process takes until a network answers: import, build, first forward.

    python benchmarks/cold_start.py --repeats 5

The network is shaped like ResNet-50 and written from each library's own layers (``_resnet.py``); the input is
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
from pathlib import Path

from _resnet import INPUT, LIBRARIES, PARAMETERS


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
    network = LIBRARIES[library]()
    gc.collect()
    begin = time.perf_counter()
    net = network.build(False)
    built = time.perf_counter()
    network.forward(net)
    answered = time.perf_counter()
    if network.count(net) != PARAMETERS:
        raise SystemExit(f"{library}: {network.count(net):,} parameters, not {PARAMETERS:,}")
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
