"""A run that is killed again and again ends with the same bits as one that is left alone."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from brickwork.io import Checkpointer

_PROGRAM = Path(__file__).parent / "killed_run.py"
_KILLS = 30
_STEPS = 200


def _start(folder, result, cache):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "BRICKWORK_CACHE": str(cache),
    }
    command = [sys.executable, str(_PROGRAM), str(folder), str(_STEPS), str(result)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def _kill_at_random(process, chance):
    """SIGKILL a little after one of the next lines, which begin and end the calls of save; returns the last one."""
    line = ""
    for _ in range(chance.randint(1, 11)):
        line = process.stdout.readline()
    time.sleep(chance.expovariate(1 / 0.005))  # writing takes about so long
    process.kill()
    assert process.wait() == -9, "it had ended, or failed, before"
    rest = process.stdout.read().splitlines()
    return rest[-1] if rest else line.strip()


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_killed_thirty_times(tmp_path):
    cache = tmp_path / "cache"
    with _start(tmp_path / "whole", tmp_path / "whole.npz", cache) as process:
        process.stdout.read()
    assert process.returncode == 0

    folder, chance = tmp_path / "killed", random.Random(0)
    moments, half_written, kept = [], 0, []
    for _ in range(_KILLS):
        with _start(folder, tmp_path / "killed.npz", cache) as process:
            moments.append(_kill_at_random(process, chance).split()[0])
        names = os.listdir(folder) if folder.exists() else []
        half_written += any(name.endswith(".tmp") for name in names)
        kept.append(Checkpointer(folder).latest or 0)
    assert kept == sorted(kept)  # no checkpoint that was there is lost
    assert 10 < kept[-1] < _STEPS
    assert half_written >= 5, (half_written, moments)  # kills did come in the middle of writing
    assert {"save", "saved"} <= set(moments)

    with _start(folder, tmp_path / "killed.npz", cache) as process:
        assert process.stdout.readline() == f"start {kept[-1]}\n"
        process.stdout.read()
    assert process.returncode == 0
    whole, killed = np.load(tmp_path / "whole.npz"), np.load(tmp_path / "killed.npz")
    assert sorted(whole) == sorted(killed)
    for name in whole:
        assert whole[name].tobytes() == killed[name].tobytes(), name
    assert not [name for name in os.listdir(folder) if name.endswith(".tmp")]
