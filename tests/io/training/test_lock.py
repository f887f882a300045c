"""Two programs, or two parts of one, that write in the same directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from tests.io.training.checkpoints import directories, python

import brickwork as bw
from brickwork.errors import CheckpointError

_HOLDER = """
import sys, time
import brickwork as bw
checkpoints = bw.Checkpointer(sys.argv[1])
checkpoints.save(1, extra=1)
checkpoints.wait()
print("holding", flush=True)
time.sleep(600)
"""


def test_two_processes(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _HOLDER, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "holding\n"
        half = tmp_path / ".step_00000002.123-abc.tmp"
        half.mkdir()
        mine = bw.Checkpointer(tmp_path, every=100)
        message = (
            rf"cannot write checkpoints in '{tmp_path}': process {other.pid} on host '.*' is writing there. Give each "
            r"run a directory of its own; reading \(restore, latest, best\) is possible meanwhile"
        )
        with pytest.raises(CheckpointError, match=message):
            mine.save(1, extra=1)  # at once, although it isn't due
        assert half.exists()
        assert mine.restore().extra == 1
        other.kill()
        other.wait()
    assert mine.save(100, extra=2)
    mine.close()
    assert not half.exists()
    assert mine.steps() == [1, 100]


def test_two_in_one_process(tmp_path):
    with bw.Checkpointer(tmp_path) as first:
        first.save(1, extra=1)
        second = bw.Checkpointer(tmp_path)
        with pytest.raises(
            CheckpointError, match="another Checkpointer of this process, which has not been closed, is"
        ):
            second.save(2, extra=2)
    second.save(2, extra=2)
    second.close()
    assert second.steps() == [1, 2]


def test_a_child_does_not_keep_the_lock(tmp_path):
    """A worker that a training process has forked may outlive it."""
    source = """
import os, sys, time, signal
import brickwork as bw
checkpoints = bw.Checkpointer(sys.argv[1])
checkpoints.save(1, extra=1)
checkpoints.wait()
child = os.fork()
if not child:
    os.close(1), os.close(2)
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = python(source, tmp_path)
    child = int(done.stdout)
    try:
        with bw.Checkpointer(tmp_path) as checkpoints:
            assert checkpoints.save(2, extra=2)
    finally:
        os.kill(child, 9)


def test_deleted_while_in_use(tmp_path, gate):
    gate.set()
    folder = tmp_path / "run"
    checkpoints = bw.Checkpointer(folder)
    checkpoints.save(1, extra=1)
    checkpoints.wait()
    shutil.rmtree(folder)
    assert checkpoints.latest is None
    checkpoints.save(2, extra=2)  # locks the new directory
    assert checkpoints.latest == 2
    gate.clear()
    gate.entered.clear()
    checkpoints.save(3, extra=3)
    gate.entered.wait(60)
    (folder / ".lock").unlink()
    gate.set()
    with pytest.raises(CheckpointError, match="was deleted while checkpoints were written"):
        checkpoints.close()
    assert directories(folder) == ["step_00000002"]
