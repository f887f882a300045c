"""The persistent compilation cache, each case in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = """
import brickwork as bw, jax, jax.numpy as jnp
f = bw.compile(lambda v: (v * 2).sum())
f(jnp.ones(3))
info = bw.cache_info()
print(info.directory, info.hits, info.misses, info.size)
"""
_SRC = str(Path(__file__).parents[2] / "src")


def run(**env):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_COMPILATION", "BRICKWORK"))}
    out = subprocess.run(
        [sys.executable, "-c", _SCRIPT], env=clean | {"PYTHONPATH": _SRC} | env, capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
    directory, hits, misses, size = out.stdout.split()
    return directory, int(hits), int(misses), int(size)


@pytest.mark.timeout(60)
def test_second_process_hits(tmp_path):
    where = tmp_path / "made" / "here"
    directory, hits, misses, size = run(BRICKWORK_CACHE=str(where))
    assert directory == str(where) and hits == 0 and misses > 0 and size > 0
    directory, hits, misses, _ = run(BRICKWORK_CACHE=str(where))
    assert hits > 0 and misses == 0


@pytest.mark.timeout(60)
def test_off_and_default_and_the_users_own(tmp_path):
    assert run(BRICKWORK_CACHE="off")[0] == "None"
    assert run(XDG_CACHE_HOME=str(tmp_path))[0] == str(tmp_path / "brickwork" / "xla")
    own = str(tmp_path / "own")
    assert run(JAX_COMPILATION_CACHE_DIR=own, BRICKWORK_CACHE=str(tmp_path / "x"))[0] == own
    (tmp_path / "file").write_text("")
    assert run(XDG_CACHE_HOME=str(tmp_path / "file"))[0] == "None"
