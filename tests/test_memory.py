"""Memory that computations on the CPU keep."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

import brickwork as bw
from brickwork import memory

_SRC = str(Path(__file__).parents[1] / "src")
_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")

_PROGRAM = """
import json, resource, sys
import jax
import jax.numpy as jnp
import brickwork as bw

kept = bw.keep_memory() if sys.argv[1] == "kept" else None
f = bw.compile(lambda a, b, c: jnp.tanh(a @ b) @ c)
a, b, c = jnp.ones((2048, 16)), jnp.ones((16, 10240)), jnp.ones((10240, 16))

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    f(a, b, c).block_until_ready()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

found = [faults() for _ in range(8)]
again = bw.keep_memory() if kept is not None else None
print(json.dumps(dict(kept=kept, again=again, faults=min(found[3:]), explained=str(f.explain(a, b, c)))))
"""


def _run(how: str) -> dict:
    environment = os.environ | {"PYTHONPATH": _SRC, "BRICKWORK_CACHE": "off", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    done = subprocess.run([sys.executable, "-c", _PROGRAM, how], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@_glibc
def test_temporary_memory_is_not_cleared_anew_at_each_call() -> None:
    kept = _run("kept")
    assert kept["kept"] is True
    assert kept["again"] is True, "a second call is one too many, but no error"
    assert kept["faults"] < 1000, "80 MB are 20,000 pages"
    assert "keep_memory" not in kept["explained"]


@_glibc
def test_explain_says_where_it_would_help() -> None:
    assert "bw.keep_memory() at the start of the script keeps the temporaries" in _run("given back")["explained"]


def test_explain_does_not_mention_it_for_small_programs() -> None:
    explained = bw.compile(lambda a: a @ a).explain(jnp.ones((8, 8)))
    assert explained.temp_bytes is not None
    assert "keep_memory" not in str(explained)


@_glibc
def test_too_late_is_an_error() -> None:
    jnp.ones(3).block_until_ready()
    with pytest.raises(RuntimeError, match=r"keep_memory\(\) has to come before JAX's first array.*after the imports"):
        bw.keep_memory()


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_is_glibc", lambda: False)
    assert bw.keep_memory() is False
    assert memory.would_be_kept(2**40) is False
