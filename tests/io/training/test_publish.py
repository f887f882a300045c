"""When checkpoints are written, which stay, and what is there after dying at any instant."""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import sys

import jax.numpy as jnp
import pytest
from tests.io.training.checkpoints import directories, saved, small

import brickwork as bw

# --- when, and which stay --------------------------------------------------------------------------


def test_every_so_many_steps(tmp_path):
    with bw.Checkpointer(tmp_path, every=4, keep=None) as checkpoints:
        assert saved(checkpoints, range(1, 14)) == [4, 8, 12]
        assert saved(checkpoints, (15, 18, 21)) == [18, 21]  # called too rarely to meet the multiples
        assert checkpoints.save(22, extra=0, force=True)
        assert saved(checkpoints, (22, 23, 24)) == [24]
        assert checkpoints.due(28)
        assert not checkpoints.due(27)
        checkpoints.restore(step=8)
        assert saved(checkpoints, range(9, 17)) == [12, 16]


def test_every_so_much_time(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with bw.Checkpointer(tmp_path, every=datetime.timedelta(minutes=10)) as checkpoints:
        due = []
        for step in range(40):
            due += [step] if checkpoints.save(step, extra=0) else []
            now[0] += 60
    assert due == [10, 20, 30]


def test_the_latest_stay(tmp_path):
    with bw.Checkpointer(tmp_path, keep=2) as checkpoints:
        saved(checkpoints, range(5))
        assert checkpoints.steps() == [3, 4]
    with bw.Checkpointer(tmp_path, keep=1) as checkpoints:
        saved(checkpoints, [9])
        assert checkpoints.steps() == [9]
        assert directories(tmp_path) == ["step_00000009"]


def test_the_best_and_round_ones_stay(tmp_path):
    rules = {"loss": "min", "accuracy": "max"}
    with bw.Checkpointer(tmp_path, keep=1, keep_best=rules, keep_every=5) as checkpoints:
        losses = [float("nan"), 3, 1, 2, 2, 2, 2, 2, 2]
        for step, loss in enumerate(losses, 1):
            checkpoints.save(step, extra=0, metrics={"loss": jnp.float32(loss), "accuracy": step == 4})
        assert checkpoints.steps() == [3, 4, 5, 9]
        assert checkpoints.best("loss") == 3
        assert checkpoints.best("accuracy") == 4
        assert checkpoints.best("loss", "max") == 9  # the later of equals
        assert checkpoints.best("accuracy", "min") == 9
        checkpoints.save(10, extra=0)  # without metrics
        assert checkpoints.steps() == [3, 4, 5, 10]
        assert checkpoints.restore(step=3).metrics == {"loss": 1.0, "accuracy": 0.0}


def test_metrics_that_are_no_numbers(tmp_path):
    with bw.Checkpointer(tmp_path, keep=None) as checkpoints:
        assert checkpoints.best("loss") is None
        for step, loss in enumerate(["nan", "inf", "-inf", "2"]):
            checkpoints.save(step, extra=0, metrics={"loss": float(loss)})
        assert checkpoints.best("loss") == 2
        assert checkpoints.best("loss", "max") == 1
        message = r"has a value of the metric 'los' that is a number; the metrics are \['loss'\]"
        with pytest.raises(ValueError, match=message):
            checkpoints.best("los")


def test_going_back_and_training_on(tmp_path):
    """What was written last is the latest, whatever its step."""
    with bw.Checkpointer(tmp_path, keep=3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, extra="first")
        assert checkpoints.restore(step=1).extra == "first"
        checkpoints.save(2, extra="second")
        assert checkpoints.latest == 2
        assert checkpoints.restore().extra == "second"
        assert checkpoints.steps() == [1, 3, 2]
        assert directories(tmp_path) == ["step_00000001", "step_00000002-2", "step_00000003"]
        checkpoints.save(3, extra="second")
        checkpoints.save(4, extra="second")
        assert checkpoints.steps() == [2, 3, 4]
    assert all(bw.Checkpointer(tmp_path).restore(step=step).extra == "second" for step in (2, 3, 4))


# --- dying at any instant --------------------------------------------------------------------------


class Died(BaseException):
    pass


class Fate:
    """Lets a program die before one of its operations on the files below a directory."""

    def __init__(self):
        self.folder, self.left = None, -1
        sys.addaudithook(self._hook)

    def _hook(self, event, arguments):
        if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree") and self.folder:
            path = str(arguments[0])
            if path.startswith(self.folder) or not os.path.isabs(path):
                self.count()

    def count(self):
        if self.folder is None:
            return
        if self.left == 0:
            raise Died  # and so again, whatever is tried: it is dead
        self.left -= 1

    @contextlib.contextmanager
    def after(self, folder, operations, monkeypatch):
        fsync = os.fsync
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda fd: (self.count(), fsync(fd)))
            self.folder, self.left = str(folder), operations
            try:
                yield
            finally:
                self.folder = None


_fate = Fate()


@pytest.mark.parametrize("keep", [1, 2])
def test_dying_before_any_operation(tmp_path, monkeypatch, keep):
    died = 0
    for operations in range(1000):
        folder = tmp_path / str(operations)
        with bw.Checkpointer(folder, keep=keep) as checkpoints:
            for step in (1, 2):
                checkpoints.save(step, small(step), extra=step)
        checkpoints = bw.Checkpointer(folder, keep=keep)
        with _fate.after(folder, operations, monkeypatch):
            try:
                checkpoints.save(3, small(3), extra=3)
                checkpoints.wait()
            except Died:
                died += 1
                finished = False
            else:
                finished = True
        checkpoints._publisher._lock.release()  # as the kernel does
        checkpoints._background._failures.clear()

        after = bw.Checkpointer(folder, keep=keep)
        net = small()
        restored = after.restore(net)
        assert restored.extra == restored.step == net.weight.value[0, 0]
        assert restored.step in (2, 3)
        assert set(after.steps()) <= {1, 2, 3}
        after.save(4, small(4), extra=4)  # and everything half-written goes
        after.close()
        assert after.steps()[-1] == 4
        assert len(directories(folder)) == keep
        if finished:
            assert restored.step == 3
            break
    assert died > 15


def test_half_written_directories(tmp_path):
    with bw.Checkpointer(tmp_path) as checkpoints:
        saved(checkpoints, [1])
    half = tmp_path / ".step_00000002.123-abc.tmp"
    shutil.copytree(tmp_path / "step_00000001", half)
    (tmp_path / "step_00000003").mkdir()  # a copy under way: there is no manifest yet
    (tmp_path / "step_00000003" / "net.safetensors").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("mine")
    reader = bw.Checkpointer(tmp_path)
    assert reader.steps() == [1]
    assert reader.restore().step == 1
    assert half.exists()  # perhaps another process is writing it: who only reads deletes nothing
    with bw.Checkpointer(tmp_path) as checkpoints:
        saved(checkpoints, [3])
        assert checkpoints.steps() == [1, 3]
    assert directories(tmp_path) == ["step_00000001", "step_00000003", "step_00000003-2"]
    assert (tmp_path / "notes.txt").exists()
