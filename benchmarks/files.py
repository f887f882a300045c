"""Saving and loading a gigabyte: 300 arrays of float32, beside PyTorch, safetensors, Orbax and NumPy.

    python benchmarks/files.py --megabytes 1000

Every measurement is a process of its own, and the libraries take turns. "save" ends when the bytes are on the disk
(fsync); the reference is writing the same bytes to one file and syncing it. "load" goes from the call to the end of the
first use, which reads every array once; "cold" means that the system's cache does not hold the file. Memory is the peak
of what a process holds besides the arrays that it saves and the mapped file (Linux' RssAnon).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from _common import console, missing, record, table

COUNT = 300


def arrays(megabytes: int) -> dict[str, np.ndarray]:
    """The values by name: matrices, a few times larger and smaller than the mean."""
    rng = np.random.default_rng(0)
    total = megabytes * 10**6 // 4
    sizes = rng.lognormal(0, 1, COUNT)
    rows = np.maximum(sizes / sizes.sum() * total / 256, 1).astype(int)
    return {f"layers.{i}.weight": rng.standard_normal((n, 256), np.float32) for i, n in enumerate(rows)}


def first_use(tree: dict[str, Any]) -> float:
    """Read every array once."""
    return sum(float(np.asarray(value).max()) for value in tree.values())


# --- what each library does: save(values, path) and load(path) -------------------------------------


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def bytes_() -> tuple[Callable[..., None], Callable[[Path], Any]]:
    """Just the bytes: the reference."""

    def save(values: dict[str, np.ndarray], path: Path) -> None:
        with open(path, "wb") as file:
            for value in values.values():
                file.write(value.data)
        _sync(path)

    def load(path: Path) -> Any:
        return {"": np.fromfile(path, np.float32)}

    return save, load


def brickwork() -> tuple[Callable[..., None], Callable[[Path], Any]]:
    """Our own format; the arrays are JAX arrays."""
    import jax.numpy as jnp

    import brickwork as bw

    jnp.ones(1).block_until_ready()
    return lambda values, path: bw.save(path, values), bw.load


def safetensors() -> tuple[Callable[..., None], Callable[[Path], Any]]:
    """The ``safetensors`` package's, for NumPy."""
    from safetensors.numpy import load_file, save_file

    def save(values: dict[str, np.ndarray], path: Path) -> None:
        save_file(values, path)
        _sync(path)

    return save, load_file


def pytorch() -> tuple[Callable[..., None], Callable[[Path], Any]]:
    """Its zip archive, mapped."""
    import torch

    def save(values: dict[str, np.ndarray], path: Path) -> None:
        torch.save({name: torch.from_numpy(value) for name, value in values.items()}, path)
        _sync(path)

    def load(path: Path) -> Any:
        return {name: value.numpy() for name, value in torch.load(path, mmap=True).items()}

    return save, load


def pytorch_copied() -> tuple[Callable[..., None], Callable[[Path], Any]]:
    """The same, read into memory."""
    import torch

    save, _ = pytorch()
    return save, lambda path: {name: value.numpy() for name, value in torch.load(path).items()}


def brickwork_of_pytorch() -> tuple[Callable[..., None], Callable[[Path], Any]]:
    """PyTorch's archive, read by brickwork as NumPy arrays."""
    import brickwork as bw

    return pytorch()[0], lambda path: bw.load(path, lazy=True)


def orbax() -> tuple[Callable[..., None], Callable[[Path], Any]]:
    """A folder of its own; the arrays are JAX arrays."""
    import orbax.checkpoint as ocp

    def save(values: dict[str, np.ndarray], path: Path) -> None:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path.absolute(), values)

    def load(path: Path) -> Any:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(path.absolute())

    return save, load


def numpy() -> tuple[Callable[..., None], Callable[[Path], Any]]:
    """An ``.npz`` archive."""

    def save(values: dict[str, np.ndarray], path: Path) -> None:
        with open(path, "wb") as file:
            np.savez(file, **values)
        _sync(path)

    def load(path: Path) -> Any:
        with np.load(path) as file:
            return dict(file)

    return save, load


LIBRARIES: dict[str, tuple[Callable[[], Any], str]] = {
    "bytes": (bytes_, "numpy"),
    "brickwork": (brickwork, "brickwork"),
    "safetensors": (safetensors, "safetensors"),
    "torch, mmap": (pytorch, "torch"),
    "torch": (pytorch_copied, "torch"),
    "brickwork, of torch's file": (brickwork_of_pytorch, "torch"),
    "orbax": (orbax, "orbax"),
    "numpy": (numpy, "numpy"),
}


# --- one measurement ------------------------------------------------------------------------------


class PeakMemory:
    """The largest anonymous memory of this process inside of the block, above what it was before, in bytes."""

    def __enter__(self) -> PeakMemory:
        self.before = self.peak = self._now()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def extra(self) -> int:
        return self.peak - self.before

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self.peak = max(self.peak, self._now())

    @staticmethod
    def _now() -> int:
        with open("/proc/self/status", encoding="ascii") as file:
            line = next(line for line in file if line.startswith("RssAnon"))
        return int(line.split()[1]) * 1024


def measure(library: str, what: str, path: Path, megabytes: int) -> dict[str, float]:
    """Do it once in this process."""
    save, load = LIBRARIES[library][0]()
    values: dict[str, Any] = arrays(megabytes) if what == "save" else {}
    if library in ("brickwork", "orbax"):
        import jax

        values = jax.block_until_ready(jax.device_put(values))
    with PeakMemory() as memory:
        start = time.perf_counter()
        if what == "save":
            save(values, path)
        else:
            tree = load(path)
            opened = time.perf_counter() - start
            first_use(tree)
        taken = time.perf_counter() - start
    found = {"seconds": taken, "extra_bytes": memory.extra}
    return found if what == "save" else found | {"open_seconds": opened}


def in_a_process(library: str, what: str, path: Path, megabytes: int) -> dict[str, float]:
    """Do it once in a new process."""
    call = [sys.executable, __file__, "--one", library, what, str(path), "--megabytes", str(megabytes)]
    done = subprocess.run(call, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    if done.returncode:
        raise RuntimeError(f"{library} could not {what}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def forget(path: Path) -> None:
    """Take a file or a directory out of the system's cache."""
    for file in [path] if path.is_file() else [x for x in path.rglob("*") if x.is_file()]:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def remove(path: Path) -> None:
    """A file or a directory."""
    import shutil

    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def main() -> None:
    """All libraries in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to be used; a temporary one by default")
    parser.add_argument("--json", type=Path, help="file for the results; printed without it")
    parser.add_argument("--one", nargs=3, metavar=("LIBRARY", "WHAT", "PATH"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], args.one[1], Path(args.one[2]), args.megabytes)))
        return

    absent = missing(["torch", "orbax"])
    libraries = [name for name, (_, package) in LIBRARIES.items() if package not in absent]
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder, console.status("measuring"):
        for _ in range(args.rounds):
            for library in libraries:
                path = Path(folder) / "file"
                found.setdefault((library, "save"), []).append(in_a_process(library, "save", path, args.megabytes))
                found.setdefault((library, "load"), []).append(in_a_process(library, "load", path, args.megabytes))
                forget(path)
                found.setdefault((library, "cold"), []).append(in_a_process(library, "load", path, args.megabytes))
                remove(path)
    report(found, libraries, args)


def report(found: dict[tuple[str, str], list[dict[str, float]]], libraries: list[str], args: Any) -> None:
    """Tables and the record."""
    results = []
    for what, reference in (("save", "bytes"), ("load", "safetensors"), ("cold", "safetensors")):
        rows = []
        for library in libraries:
            here, there = found[library, what], found[reference, what]
            ratio = statistics.median(a["seconds"] / b["seconds"] for a, b in zip(here, there, strict=True))
            seconds = statistics.median(x["seconds"] for x in here)
            opened = statistics.median(x.get("open_seconds", 0.0) for x in here)
            extra = statistics.median(x["extra_bytes"] for x in here)
            results.append(
                {"what": what, "library": library, "seconds": seconds, "open_s": opened, "ratio": ratio, "extra": extra}
            )
            shown = f"{opened * 1000:.0f}" if opened else ""
            rows.append((library, f"{seconds:.3f}", shown, f"{ratio:.2f}", f"{extra / 1e6:.0f}"))
        title = {"save": "save", "load": "load and first use", "cold": "load and first use, file not in the cache"}[
            what
        ]
        columns = ("library", "median s", "opened after ms", f"over {reference}", "extra MB")
        table(f"{title}: {args.megabytes} MB in {COUNT} arrays", columns, rows)
    record("files", results, args.json)


if __name__ == "__main__":
    main()
