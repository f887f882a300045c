"""The persistent compilation cache, each case in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

_SCRIPT = """
import brickwork as bw, numpy as np, sys
from brickwork import nn, optim
programs = []
from jax._src import compiler
compile = compiler.backend_compile_and_load
def noted(backend, module, *args, **kwargs):
    programs.append(module.operation.attributes["sym_name"].value)
    return compile(backend, module, *args, **kwargs)
compiler.backend_compile_and_load = noted
net = nn.Linear(1)
opt = optim.adam(net, 0.1)
@bw.compile
def step(x):
    loss, grads = bw.value_and_grad(lambda: net(x).sum(), net)()
    opt.step(grads)
    return loss
step(np.ones((2, 3), np.float32))
info = bw.cache_info()
print("compiled:", *programs, file=sys.stderr)
print(info.directory, info.hits, info.misses, info.size)
"""
_SRC = str(Path(__file__).parents[2] / "src")


def run(compiles=None, **env):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_COMPILATION", "BRICKWORK"))}
    out = subprocess.run(
        [sys.executable, "-c", _SCRIPT], env=clean | {"PYTHONPATH": _SRC} | env, capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
    if compiles is not None:
        assert ("jit_step" in out.stderr and "jit__init" in out.stderr) is compiles, out.stderr
        assert ("jit_" in out.stderr) is compiles, out.stderr
    directory, hits, misses, size = out.stdout.split()
    return directory, int(hits), int(misses), int(size)


@pytest.mark.timeout(60)
def test_second_process_hits(tmp_path):
    where = tmp_path / "made" / "here"
    directory, hits, misses, size = run(compiles=True, BRICKWORK_CACHE=str(where))
    assert directory == str(where) and hits == 0 and misses > 0 and size > 0
    directory, hits, misses, _ = run(compiles=False, BRICKWORK_CACHE=str(where))  # nor the optimiser's first state
    assert hits > 0 and misses == 0


@pytest.mark.timeout(60)
def test_half_an_entry_is_replaced(tmp_path):
    """What a process that was killed while it wrote leaves, where JAX wrote; a warning is an error here."""
    run(BRICKWORK_CACHE=str(tmp_path))
    whole = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert all(file.name.endswith("-cache") for file in whole)
    for file, data in whole.items():
        file.write_bytes(data[: len(data) // 2])
    run(BRICKWORK_CACHE=str(tmp_path))
    _, hits, misses, _ = run(BRICKWORK_CACHE=str(tmp_path), PYTHONWARNINGS="error::UserWarning")
    assert hits > 0 and misses == 0


_SIZE = 1 << 24
_WRITER = f"""
import sys
from jax._src import compilation_cache
from brickwork.core._jax import use_compilation_cache
use_compilation_cache(sys.argv[1])
print("ready", flush=True)
while True:
    compilation_cache._cache.put("key", b"x" * {_SIZE})
"""


@pytest.mark.timeout(60)
def test_entries_appear_whole_or_not_at_all(tmp_path):
    """One process reads what another one writes, again and again, and kills it then."""
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path)], env=os.environ | {"PYTHONPATH": _SRC}, stdout=subprocess.PIPE
    )
    entry = tmp_path / "key-cache"
    try:
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        while not entry.exists():
            time.sleep(0.001)
        sizes = {len(entry.read_bytes()) for _ in range(50)}
    finally:
        writer.kill()
        writer.communicate()
    assert sizes == {_SIZE} and entry.stat().st_size == _SIZE


def test_what_could_not_be_written_leaves_nothing(tmp_path):
    """JAX makes a warning of the error."""
    script = f"""
import os
from jax._src import compilation_cache
from brickwork.core._jax import use_compilation_cache
use_compilation_cache({str(tmp_path)!r})
def full(*_): raise OSError("disk full")
os.replace = full
try:
    compilation_cache._cache.put("key", b"x")
except OSError as error:
    print(error, os.listdir({str(tmp_path)!r}))
"""
    out = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": _SRC}, capture_output=True, text=True
    )
    assert out.stdout == "disk full []\n", out.stderr


@pytest.mark.timeout(60)
def test_a_size_limit_stays_jaxs_own_affair(tmp_path):
    pytest.importorskip("filelock")
    for hits in (False, True):
        found = run(BRICKWORK_CACHE=str(tmp_path), JAX_COMPILATION_CACHE_MAX_SIZE=str(1 << 24))[1]
        assert (found > 0) is hits
    assert sum(file.name.endswith("-atime") for file in tmp_path.iterdir()) > 0


@pytest.mark.timeout(60)
def test_off_and_default_and_the_users_own(tmp_path):
    assert run(BRICKWORK_CACHE="off")[0] == "None"
    assert run(XDG_CACHE_HOME=str(tmp_path))[0] == str(tmp_path / "brickwork" / "xla")
    own = str(tmp_path / "own")
    assert run(JAX_COMPILATION_CACHE_DIR=own, BRICKWORK_CACHE=str(tmp_path / "x"))[0] == own
    (tmp_path / "file").write_text("")
    assert run(XDG_CACHE_HOME=str(tmp_path / "file"))[0] == "None"
