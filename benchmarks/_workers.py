"""One process per library, driven in turns: times that compare libraries across processes, interpreters and versions.

Libraries in one process share thread pools and allocators; and PyTorch, JAX 0.10 and JAX 0.12 may each need their own
Python. So each library works in a process of its own, which is told what to set up and when to run; only one runs at
a time, in an order drawn anew each round.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
LIBRARIES = ("brickwork", "torch", "flax", "equinox")
ONEDNN = "BENCHMARK_ONEDNN" in os.environ  # of the worker that this process is


class Worker:
    """A process that runs the work of one library.

    Args:
        library: which of :data:`LIBRARIES`.
        module: the start of the name of the modules with the work: ``"_work"`` for ``_work_torch.py`` and so on.
        python: the interpreter; this one by default.
        single: whether it is tied to one processor, with one thread.
        keep: whether it keeps temporary memory between steps (``brickwork.keep_memory``).
        onednn: whether brickwork compiles with ``onednn=True``.
    """

    def __init__(
        self,
        library: str,
        module: str,
        python: str | None = None,
        *,
        single: bool = False,
        keep: bool = False,
        onednn: bool = False,
    ) -> None:
        environment = os.environ | {"BRICKWORK_CACHE": "off", "JAX_PLATFORMS": "cpu"}
        if single:
            environment |= {"OMP_NUM_THREADS": "1", "BENCHMARK_SINGLE": "1"}
        if keep:
            environment |= {"BENCHMARK_KEEP": "1"}
        if onednn:
            environment |= {"BENCHMARK_ONEDNN": "1"}
        self.library = library
        self.process = subprocess.Popen(
            [python or sys.executable, str(_HERE / "_workers.py"), library, module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=_HERE,
        )
        self.version = self._answer()

    def _answer(self) -> Any:
        stdout = self.process.stdout
        line = stdout.readline() if stdout is not None else ""
        if not line:
            raise RuntimeError(f"{self.library}: the process ended with {self.process.wait()}")
        return json.loads(line)

    def ask(self, **request: Any) -> Any:
        """Send a request and wait for the answer."""
        stdin = self.process.stdin
        if stdin is None:
            raise RuntimeError(f"{self.library}: the process has no input")
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()


def turns(
    workers: Mapping[str, Worker], work: Sequence[str], *, rounds: int, seconds: float, seed: int = 0
) -> dict[str, dict[str, dict[str, Any]]]:
    """Time each kind of work in every worker, round by round; ``{work: {name: figures}}``.

    The figures are ``wall`` and ``cpu``, the median over rounds of the least seconds per call in each round, the same
    relative to PyTorch's of the round (``over_torch``), and ``set_up``, the seconds until after the first call.
    """
    shuffle = random.Random(seed).shuffle
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for what in work:
        set_up = {name: worker.ask(set_up=what) for name, worker in workers.items()}
        names = [name for name, seconds_taken in set_up.items() if seconds_taken is not None]
        wall: dict[str, list[float]] = {name: [] for name in names}
        cpu: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(rounds):
            shuffle(names)
            for name in names:
                answer = workers[name].ask(run=seconds)
                wall[name].append(min(answer["wall"]))
                cpu[name].append(min(answer["cpu"]))
        found[what] = {
            name: {
                "wall": statistics.median(wall[name]),
                "cpu": statistics.median(cpu[name]),
                "set_up": set_up[name],
                "over_torch": _ratio(wall, name),
                "cpu_over_torch": _ratio(cpu, name),
            }
            for name in workers
            if name in names
        }
    return found


def _ratio(figures: dict[str, list[float]], name: str) -> float | None:
    if "torch" not in figures:
        return None
    return statistics.median(a / b for a, b in zip(figures[name], figures["torch"], strict=True))


def _timed(call: Callable[[], Any], seconds: float) -> dict[str, list[float]]:
    wall: list[float] = []
    cpu: list[float] = []
    gc.collect()
    gc.disable()
    for _ in range(2):
        call()
    while len(wall) < 3 or (sum(wall) < seconds and len(wall) < 1000):
        begin, used = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - used)
    gc.enable()
    return {"wall": wall, "cpu": cpu}


def _serve(library: str, module: str) -> None:
    """Answer requests until the input ends. What the work prints goes to the error stream."""
    out, sys.stdout = sys.stdout, sys.stderr
    if "BENCHMARK_SINGLE" in os.environ and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    def answer(value: Any) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    if "BENCHMARK_KEEP" in os.environ:
        importlib.import_module("brickwork").keep_memory()
    make = importlib.import_module(f"{module}_{library}").make
    answer(_version(library))
    call: Callable[[], Any] = gc.collect
    for line in sys.stdin:
        request = json.loads(line)
        if "run" in request:
            answer(_timed(call, request["run"]))
            continue
        call = gc.collect  # what was set up before is freed
        call()
        begin = time.perf_counter()
        made = make(request["set_up"])
        if made is None:
            answer(None)
            continue
        made()
        answer(time.perf_counter() - begin)
        call = made


def _version(library: str) -> str:
    from importlib.metadata import version

    own = f"{library} {version(library)}"
    kept = ", memory kept" if "BENCHMARK_KEEP" in os.environ else ""
    products = ", oneDNN" if ONEDNN else ""
    return own if library == "torch" else f"{own}, jax {version('jax')}{products}{kept}"


if __name__ == "__main__":
    sys.path.insert(0, str(_HERE))
    sys.path.insert(0, str(_HERE.parent / "src"))
    _serve(*sys.argv[1:])
