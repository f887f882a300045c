"""Checkpoints are written while training goes on, and no error is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import threading

import jax.numpy as jnp
import numpy as np
import pytest
from tests.io.training.checkpoints import Run, directories, python, same, small

import brickwork as bw
from brickwork.errors import CheckpointError


def test_values_are_those_at_the_call(tmp_path, gate):
    run, extra = Run(), {"order": np.arange(4), "list": [1]}
    run.train(3)
    before = run.state()
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(3, run.net, run.opt, extra)
        gate.entered.wait(60)
        run.train(5)  # overwrites arrays in place
        run.net.first.weight[0] = 9.0
        extra["order"][:] = -1
        extra["list"].append(2)
        gate.set()
        new = Run()
        restored = checkpoints.restore(new.net, new.opt)
    same(new.state(), before)
    assert restored.extra["order"].tolist() == [0, 1, 2, 3]
    assert restored.extra["list"] == [1]


def test_one_at_a_time(tmp_path, gate):
    net = small(1)
    checkpoints = bw.Checkpointer(tmp_path)
    assert checkpoints.save(1, net)
    gate.entered.wait(60)
    second = threading.Thread(target=checkpoints.save, args=(2, net))
    second.start()
    second.join(0.2)
    assert second.is_alive()  # waits: there are no two snapshots in memory
    net.weight.value = jnp.full((2, 3), 2.0)
    gate.set()
    second.join(60)
    checkpoints.close()
    assert checkpoints.steps() == [1, 2]
    checkpoints.restore(net)
    assert net.weight.value[0, 0] == 2  # the second took its values after the wait


def test_not_due_calls_do_not_wait(tmp_path, gate):
    checkpoints = bw.Checkpointer(tmp_path, every=10)
    assert checkpoints.save(10, small())
    assert not checkpoints.save(11, small())
    gate.set()
    checkpoints.close()


@contextlib.contextmanager
def full_disk(monkeypatch):
    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        yield


def test_errors_come_with_the_next_call(tmp_path, monkeypatch):
    checkpoints = bw.Checkpointer(tmp_path, every=10)
    checkpoints.save(10, small())
    checkpoints.wait()
    for call in (
        lambda: checkpoints.save(21, small()),  # even though it isn't due
        checkpoints.wait,
        lambda: checkpoints.restore(small()),
        checkpoints.close,
    ):
        with full_disk(monkeypatch):
            assert checkpoints.save(20, small(), force=True)
            checkpoints._background.wait()
        with pytest.raises(CheckpointError) as caught:
            call()
        assert re.fullmatch(
            rf"cannot write the checkpoint of step 20 \([\d,]+ bytes\) "
            rf"in '{tmp_path}': No space left on device; nothing of it was kept, and the latest is that of step 10",
            str(caught.value),
        )
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.__notes__ == ["This was raised in the background, for the checkpoint of step 20"]
        assert directories(tmp_path) == ["step_00000010"]
    with pytest.raises(ValueError, match="this Checkpointer has been closed"):
        checkpoints.save(30, small())
    assert checkpoints.latest == 10


def test_training_may_go_on_after_an_error(tmp_path, monkeypatch):
    checkpoints = bw.Checkpointer(tmp_path)
    with full_disk(monkeypatch):
        checkpoints.save(1, small())
        checkpoints._background.wait()
    with pytest.raises(CheckpointError, match="nothing of it was kept, and there is none yet"):
        checkpoints.save(2, small())
    assert checkpoints.save(3, small())
    checkpoints.close()
    assert checkpoints.steps() == [3]


def test_errors_at_the_end_of_a_block(tmp_path, monkeypatch):
    with full_disk(monkeypatch):
        with pytest.raises(CheckpointError, match="No space left"), bw.Checkpointer(tmp_path) as checkpoints:
            checkpoints.save(1, small())
        with pytest.raises(KeyError) as caught, bw.Checkpointer(tmp_path) as checkpoints:
            checkpoints.save(1, small())
            raise KeyError("of the body")
    assert "Besides, the last checkpoint could not be written" in caught.value.__notes__[0]


def test_an_error_is_not_lost_with_the_object(tmp_path, monkeypatch):
    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: lost.append(args.exc_value))
    with full_disk(monkeypatch):
        checkpoints = bw.Checkpointer(tmp_path)
        checkpoints.save(1, small())
        del checkpoints
    assert "No space left on device" in str(lost[0])


_AT_EXIT = """
import errno, os, sys
import brickwork as bw, jax.numpy as jnp
checkpoints = bw.Checkpointer(sys.argv[1])
checkpoints.save(1, bw.nn.Linear(300, in_features=300))
if sys.argv[2] == "fail":
    def fail(*args): raise OSError(errno.ENOSPC, "No space left on device")
    checkpoints.wait()
    os.fsync = fail
    checkpoints.save(2, bw.nn.Linear(300, in_features=300))
"""


def test_the_end_of_the_program(tmp_path):
    """It waits for the last checkpoint, and an error that nobody has asked for is shown."""
    done = python(_AT_EXIT, tmp_path / "write", "write")
    assert (done.returncode, done.stderr) == (0, "")
    assert bw.Checkpointer(tmp_path / "write").latest == 1
    done = python(_AT_EXIT, tmp_path / "fail", "fail")
    assert "CheckpointError: cannot write the checkpoint of step 2" in done.stderr
    assert directories(tmp_path / "fail") == ["step_00000001"]


def test_from_several_threads(tmp_path):
    net = small()
    with bw.Checkpointer(tmp_path, keep=None) as checkpoints:
        threads = [threading.Thread(target=checkpoints.save, args=(i, net)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(checkpoints.steps()) == list(range(8))


def test_a_step_on_another_thread_is_saved_whole(tmp_path):
    net, done = small(), threading.Event()
    net.count = bw.Buffer(jnp.zeros(()))
    net.again = bw.Buffer(jnp.zeros(()))

    @bw.compile
    def step():
        net.count += 1
        net.again += 1

    def train():
        while not done.is_set():
            step()

    step()
    thread = threading.Thread(target=train)
    thread.start()
    try:
        with bw.Checkpointer(tmp_path, keep=None) as checkpoints:
            for i in range(30):
                checkpoints.save(i, net)
    finally:
        done.set()
        thread.join()
    for i in range(30):
        state = bw.load(checkpoints.path(i) / "net.safetensors")
        assert state["count"] == state["again"]
