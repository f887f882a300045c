"""Programs that come from the compilation cache while their function is traced, each case in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from jax._src.lib import xla_client

from brickwork.core._jax import FetchedAhead

SCRIPT = """
import json, sys, threading
import numpy as np
import brickwork as bw
from brickwork import nn, optim
from brickwork.core._jax import FetchedAhead
FetchedAhead._LONG = {True: 0.0, False: 0.0}  # this program is small
from jax._src import compilation_cache
original, fetched = compilation_cache.get_executable_and_time, []
def noted(name, *more):
    found = original(name, *more)
    fetched.append([name.split("-")[0], found[0] is not None, threading.current_thread() is threading.main_thread()])
    return found
compilation_cache.get_executable_and_time = noted
factor = float(sys.argv[1])
bw.seed(0)
net = nn.Linear(1)
opt = optim.adam(net, 0.1)
@bw.compile
def step(x):
    loss, grads = bw.value_and_grad(lambda: (net(x) * factor).sum(), net)()
    opt.step(grads)
    return loss
losses = [float(step(np.ones((2, 3), np.float32))) for _ in range(3)]
threads = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
step_fetches = [found for found in fetched if found[0] == "jit_step"]
print(json.dumps({"losses": losses, "fetches": step_fetches, "hits": bw.cache_info().hits,
                  "misses": bw.cache_info().misses, "threads": threads}))
"""
SRC = str(Path(__file__).parents[2] / "src")
AHEAD, MISSED = ["jit_step", True, False], ["jit_step", False, True]  # by the thread; by the program itself


def run(folder: Path, factor: float = 1.0, **env: str) -> dict[str, Any]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_COMPILATION", "BRICKWORK"))}
    clean |= {"PYTHONPATH": SRC, "BRICKWORK_CACHE": str(folder)} | env
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(factor)]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def notes(folder: Path) -> list[Path]:
    return sorted(folder.glob("*-ahead"))


@pytest.mark.timeout(120)
def test_from_the_second_process_on(tmp_path: Path) -> None:
    first = run(tmp_path)
    assert first["fetches"] == [MISSED] and first["threads"] == []
    (note,) = notes(tmp_path)
    before = note.read_bytes()
    second = run(tmp_path)
    assert second["fetches"] == [AHEAD] and second["misses"] == 0 and second["hits"] > 0 and second["threads"] == []
    assert second["losses"] == first["losses"]
    assert notes(tmp_path) == [note] and note.read_bytes() == before


def test_a_guess_that_nobody_asks_for_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = threading.Event(), threading.Event()

    def fetch(*request: Any) -> Any:
        asked.set()
        answer.wait(10)
        return object(), 1

    monkeypatch.setattr(FetchedAhead, "directory", str(tmp_path))
    monkeypatch.setattr(FetchedAhead, "fetch", fetch)
    FetchedAhead("f")._note("name", xla_client.CompileOptions().SerializeAsString())
    ahead = FetchedAhead("f")
    assert asked.wait(10)
    with ahead():
        pass  # JAX found the program in memory
    answer.set()
    assert ahead._thread is not None
    ahead._thread.join()
    assert ahead._found is None


@pytest.mark.timeout(120)
def test_a_wrong_guess(tmp_path: Path) -> None:
    run(tmp_path)
    (note,) = notes(tmp_path)
    before = note.read_bytes()
    other = run(tmp_path, factor=2.0)  # what is known of the function before it is traced is the same
    assert sorted(other["fetches"]) == sorted([AHEAD, MISSED])
    assert notes(tmp_path) == [note] and note.read_bytes() != before
    fresh = run(tmp_path / "other", factor=2.0)
    assert other["losses"] == fresh["losses"]
    again = run(tmp_path, factor=2.0)
    assert again["fetches"] == [AHEAD] and again["losses"] == fresh["losses"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("damage", ["entry gone", "entry cut", "note of nonsense", "note cut", "note empty"])
def test_what_is_damaged_is_made_anew(tmp_path: Path, damage: str) -> None:
    losses = run(tmp_path)["losses"]
    (note,) = notes(tmp_path)
    (entry,) = tmp_path.glob("jit_step-*-cache")
    whole = note.read_bytes()
    if damage == "entry gone":
        entry.unlink()
    elif damage == "entry cut":
        entry.write_bytes(entry.read_bytes()[:100])
    else:
        note.write_bytes({"nonsense": os.urandom(50), "cut": whole[:20], "empty": b""}[damage.split()[-1]])
    if damage == "entry cut":  # JAX itself warns of that, and compiles
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_COMPILATION", "BRICKWORK"))}
        clean |= {"PYTHONPATH": SRC, "BRICKWORK_CACHE": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, "1"], env=clean, capture_output=True, text=True, check=True
        )
        assert done.stderr.count("Error reading persistent compilation cache entry") == 1
        found = json.loads(done.stdout)
    else:
        found = run(tmp_path)
    assert found["losses"] == losses
    assert note.read_bytes() == whole
    assert run(tmp_path)["fetches"] == [AHEAD]


@pytest.mark.timeout(60)
def test_nothing_where_the_cache_is_off_or_not_ours(tmp_path: Path) -> None:
    pytest.importorskip("filelock")  # which JAX needs for a size limit
    own = tmp_path / "own"
    elsewhere = {"JAX_COMPILATION_CACHE_DIR": str(own)}
    for env in ({"BRICKWORK_CACHE": "off"}, elsewhere, {"JAX_COMPILATION_CACHE_MAX_SIZE": "100000000"}):
        for _ in range(2):
            assert AHEAD not in run(tmp_path, **env)["fetches"]
    assert not notes(tmp_path) and not notes(own)
