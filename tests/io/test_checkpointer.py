"""Checkpoints: what is in them, when they are written, which stay, and what damage and misuse lead to."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import brickwork as bw
from brickwork import nn, optim
from brickwork.errors import CheckpointError, DeferredShapeError, LoadError
from brickwork.io import _snapshot

X = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)


class Net(bw.Module):
    def __init__(self, width=6):
        self.first = nn.Linear(width)
        self.norm = nn.BatchNorm1d()
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(1)

    def forward(self, x):
        return self.last(self.drop(self.norm(self.first(x))))


class Run:
    """A network, its optimiser, and a compiled step."""

    def __init__(self, seed=0, width=6, rule=optim.adam):
        bw.seed(seed)
        self.net = Net(width)
        self.opt = rule(self.net, 0.05)

        @bw.compile
        def step(x):
            loss, grads = bw.value_and_grad(lambda x: (self.net(x) ** 2).mean(), self.net)(x)
            self.opt.step(grads)
            return loss

        self.step = step

    def train(self, steps=3):
        return [float(self.step(X)) for _ in range(steps)]

    def state(self):
        both = {"net": self.net.state_dict(), "opt": self.opt.state_dict()}
        return {f"{k}.{name}": np.array(x) for k, state in both.items() for name, x in state.items()}


def same(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert value.dtype == b[name].dtype
        assert value.tobytes() == b[name].tobytes(), name


def small(n=0.0):
    net = bw.nn.Linear(2, in_features=3)
    net.weight.value = jnp.full((2, 3), n)
    return net


def directories(folder):
    return sorted(name for name in os.listdir(folder) if "step" in name)


def python(source, *arguments, **options):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-c", source, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


# --- what is in a checkpoint ----------------------------------------------------------------------


def test_training_goes_on_bit_for_bit(tmp_path):
    run = Run()
    run.train(4)
    with bw.Checkpointer(tmp_path) as checkpoints:
        assert checkpoints.latest is None
        assert checkpoints.save(4, run.net, run.opt, {"epoch": 1, "order": np.arange(3)}, metrics={"loss": 0.5})
        assert checkpoints.latest == 4
    expected = run.train(5)

    new = Run(seed=7)  # with sizes that aren't known yet
    restored = bw.Checkpointer(tmp_path).restore(new.net, new.opt)
    assert (restored.step, restored.metrics, restored.skipped) == (4, {"loss": 0.5}, ())
    assert restored.extra["epoch"] == 1
    np.testing.assert_array_equal(restored.extra["order"], np.arange(3))
    assert new.train(5) == expected
    same(new.state(), run.state())


def test_going_back_in_the_same_process_compiles_nothing(tmp_path):
    run = Run()
    run.train(2)
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(2, run.net, run.opt)
        expected = run.train(3)
        checkpoints.restore(run.net, run.opt)
        with bw.no_recompile():
            assert run.train(3) == expected


def test_random_numbers_go_on(tmp_path):
    bw.seed(3)
    net, rng = small(), np.random.default_rng(5)
    random.seed(1)
    random.gauss(0, 1)
    np.random.seed(1)
    np.random.standard_normal()
    rng.random()

    def draw():
        values = [random.gauss(0, 1), random.random(), np.random.standard_normal(), np.random.rand(), rng.random()]
        later = nn.Linear(2, in_features=2).weight.value.tolist()  # drawn by seed and number of the parameter
        return [*values, later, jax.random.uniform(bw.random.key()).tolist()]

    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, net, extra={"rng": rng.bit_generator.state})
        expected = draw()
        other = draw()
        assert other != expected
        bw.seed(99)
        rng.bit_generator.state = checkpoints.restore(net).extra["rng"]
        assert draw() == expected
        rng.bit_generator.state = checkpoints.restore(net, random=False).extra["rng"]
        assert draw()[-1] != expected[-1]


def test_gradients_added_up_so_far(tmp_path):
    net, opt = small(1.0), None
    opt = optim.sgd(net, 0.1)
    x = jnp.ones((1, 3))
    bw.backward(lambda: net(x).sum(), net)()
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, net, opt)
        bw.backward(lambda: net(x).sum(), net)()
        opt.step()
        expected = net.state_dict()
        checkpoints.restore(net, opt)
        np.testing.assert_array_equal(net.weight.grad, np.ones((2, 3)))
        bw.backward(lambda: net(x).sum(), net)()
        opt.step()
        assert all((net.state_dict()[name] == value).all() for name, value in expected.items())
        checkpoints.save(2, net, opt)
        bw.backward(lambda: net(x).sum(), net)()
        checkpoints.restore(net, opt)
        assert net.weight.grad is None


def test_extra_of_every_kind(tmp_path):
    extra = {
        "plain": [1, 2.5, None, "x", b"y", (True, 2**100), float("inf")],
        "numpy": np.arange(3, dtype=np.int64),
        "jax": jnp.ones(2, jnp.bfloat16),
        "key": jax.random.key(3),
    }
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, extra=extra)
        found = checkpoints.restore().extra
    assert found["plain"] == extra["plain"]
    assert found["numpy"].dtype == np.int64
    assert isinstance(found["jax"], jax.Array)
    assert (jax.random.key_data(found["key"]) == jax.random.key_data(extra["key"])).all()


def test_several_networks_and_optimisers(tmp_path):
    nets = {"generator": small(1), "discriminator": small(2)}
    opts = {name: optim.adam(net, 0.1) for name, net in nets.items()}
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, nets, opts)
        fresh = {name: small() for name in nets}
        checkpoints.restore(fresh, {name: optim.adam(net, 0.1) for name, net in fresh.items()})
        assert fresh["generator"].weight.value[0, 0] == 1
        assert fresh["discriminator"].weight.value[0, 0] == 2
        one = small()
        checkpoints.restore({"discriminator": one})
        assert one.weight.value[0, 0] == 2


def test_files_are_those_of_save(tmp_path):
    net = nn.Sequential(nn.Linear(3, in_features=3), nn.Linear(3, in_features=3))
    net[1].weight = net[0].weight
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(12, net, optim.adam(net, 0.1), {"epoch": 2})
        folder = checkpoints.path()
    assert folder == tmp_path / "step_00000012"
    assert sorted(os.listdir(folder)) == [
        "manifest.json",
        "net.safetensors",
        "opt.safetensors",
        "state.safetensors",
    ]
    net.save(tmp_path / "saved")
    assert (folder / "net.safetensors").read_bytes() == (tmp_path / "saved").read_bytes()
    assert bw.load(folder / "state.safetensors")["extra"] == {"epoch": 2}
    fresh = nn.Sequential(nn.Linear(3), nn.Linear(3))
    fresh.load(folder / "net.safetensors")
    np.testing.assert_array_equal(fresh[1].weight, net[0].weight)


def test_compiled_network(tmp_path):
    net = small(4)
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, bw.compile(net))
        fresh = small()
        checkpoints.restore(bw.compile(fresh))
    assert fresh.weight.value[0, 0] == 4


def test_sharded_arrays(tmp_path, devices):
    mesh = Mesh(np.array(devices), ("x",))
    placed = NamedSharding(mesh, PartitionSpec("x"))
    net = nn.Linear(16, in_features=8, bias=False).to(placed)
    expected = np.array(net.weight)
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, net)
        fresh = nn.Linear(16, in_features=8, bias=False).to(placed)
        checkpoints.restore(fresh)
        assert fresh.weight.sharding == placed
        np.testing.assert_array_equal(fresh.weight, expected)
        single = nn.Linear(16, bias=False)
        checkpoints.restore(single)
        np.testing.assert_array_equal(single.weight, expected)


def test_a_run_on_a_mesh_goes_on_in_the_same_process(tmp_path, devices):
    run = Run()
    everywhere = NamedSharding(Mesh(np.array(devices), ("x",)), PartitionSpec())
    run.net.initialize(bw.spec(8, 5))
    run.net.to(everywhere)
    run.train(2)
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(2, run.net, run.opt)
        expected = run.train(3)
        checkpoints.restore(run.net, run.opt)
        assert run.train(3) == expected
    assert run.net.first.weight.sharding == everywhere


def test_the_learning_rate_and_frozen_parameters(tmp_path):
    run = Run()
    run.train(2)
    run.net.freeze(r"first\..*")
    run.opt.learning_rate = 0.001
    run.train(1)
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(3, run.net, run.opt)
    run.net.unfreeze()
    expected = run.train(3)
    new = Run()
    new.net.freeze(r"first\..*")
    bw.Checkpointer(tmp_path).restore(new.net, new.opt)
    assert float(new.opt.learning_rate) == np.float32(0.001)
    new.net.unfreeze()
    assert new.train(3) == expected


# --- in the background ----------------------------------------------------------------------------


@pytest.fixture
def gate(monkeypatch):
    """Writing waits until the event is set; ``gate.entered`` tells that it does."""
    opened, entered = threading.Event(), threading.Event()
    write = _snapshot.Snapshot.write

    def slow(self, path):
        entered.set()
        if not opened.wait(60):
            raise RuntimeError("nobody opened the gate")
        return write(self, path)

    monkeypatch.setattr(_snapshot.Snapshot, "write", slow)
    opened.entered = entered
    yield opened
    opened.set()


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


# --- when, and which stay -------------------------------------------------------------------------


def saved(checkpoints, steps, **options):
    return [step for step in steps if checkpoints.save(step, extra=step, **options)]


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


# --- dying at any instant -------------------------------------------------------------------------


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


# --- two at once ----------------------------------------------------------------------------------


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


# --- damage ---------------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path):
    """Checkpoints 1, 2 and 3; the network's first weight is the step."""
    with bw.Checkpointer(tmp_path) as checkpoints:
        for step in (1, 2, 3):
            net = small(step)
            checkpoints.save(step, net, optim.adam(net, 0.1), extra=step)
    return checkpoints


def flip(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


FILES = ["net.safetensors", "opt.safetensors", "state.safetensors", "manifest.json"]
DAMAGE = {
    "flipped": (flip, r"damaged: (the CRC-32|its contents|Expecting|Extra data)"),
    "truncated": (lambda path: os.truncate(path, 100), r"(truncated: it has 100 bytes|damaged: )"),
    "emptied": (lambda path: os.truncate(path, 0), r"(truncated: it has 0 bytes|damaged: )"),
    "extended": (lambda path: path.write_bytes(path.read_bytes() + b"x"), r"(longer than it was|damaged: )"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", FILES)
def test_damage(three, file, damage):
    path = three.path(3) / file
    harm, message = DAMAGE[damage]
    harm(path)
    assert three.latest == 3
    net = small()
    opt = optim.adam(net, 0.1)
    with pytest.raises(CheckpointError) as caught:
        three.restore(net, opt)
    assert re.match(f"{path}: {message}", str(caught.value))
    assert str(caught.value).endswith("; restore(fallback=True) takes the one before")
    assert (np.array(net.weight) == 0).all()
    restored = three.restore(net, opt, fallback=True)
    assert restored.step == restored.extra == net.weight.value[0, 0] == 2
    assert restored.skipped[0].startswith(str(path))


def test_a_missing_file(three):
    (three.path(3) / "net.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"step_00000003/net.safetensors: cannot be read: No such file"):
        three.restore(small())
    assert three.restore().extra == 3  # what isn't asked for need not be there


def test_all_damaged(three):
    for step in (1, 2, 3):
        flip(three.path(step) / "state.safetensors")
    with pytest.raises(CheckpointError) as caught:
        three.restore(fallback=True)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"all checkpoints in '{three.directory}' are damaged:"
    assert [re.search(r"step_0000000(\d)", line)[1] for line in lines[1:]] == ["3", "2", "1"]


def test_fallback_from_a_given_step(three):
    flip(three.path(2) / "net.safetensors")
    assert three.restore(small(), step=2, fallback=True).step == 1


def test_damaged_ones_do_not_count(three):
    """With keep=1, and a latest one that is known to be damaged, the one before stays until there is a new one."""
    flip(three.path(3) / "manifest.json")
    flip(three.path(2) / "net.safetensors")
    with bw.Checkpointer(three.directory, keep=2) as checkpoints:
        assert checkpoints.restore(small(), fallback=True).step == 1
        checkpoints.save(2, small(22), extra=22)
        assert checkpoints.steps() == [1, 3, 2]
        assert checkpoints.restore().extra == 22
        checkpoints.save(3, small(33), extra=33)
        assert checkpoints.steps() == [2, 3]
        assert checkpoints.restore().extra == 33


def test_foreign_manifests(three):
    path = three.path(3) / "manifest.json"
    os.rename(three.path(3), three.directory / "step_00000005")
    with pytest.raises(CheckpointError, match=r"manifest.json: is that of step 3; was the directory renamed\?"):
        three.restore(step=5)
    path = three.path(2) / "manifest.json"
    for text in ("[]", "{}", "3", "[" * 100_000, '{"crc32": 1}', "\xff", '{"a": NaN}'):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(CheckpointError, match=r"step_00000002/manifest.json: damaged: "):
            three.restore(step=2)


def test_a_newer_format(three):
    from brickwork.io._manifest import _checksum

    path = three.path(3) / "manifest.json"
    body = json.loads(path.read_text())
    del body["crc32"]
    body["format"] = 2
    path.write_text(json.dumps(body | {"crc32": _checksum(body)}))
    with pytest.raises(CheckpointError, match="it has format 2; install a newer brickwork"):
        three.restore()
    body["format"], body["files"]["../x"] = 1, body["files"]["net.safetensors"]
    path.write_text(json.dumps(body | {"crc32": _checksum(body)}))
    with pytest.raises(CheckpointError, match="it names a file in another directory"):
        three.restore()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bit(three, data):
    path = three.path(3) / data.draw(st.sampled_from(FILES))
    good = path.read_bytes()
    bad = bytearray(good)
    bad[data.draw(st.integers(0, len(good) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bad)
    net = small()
    opt = optim.adam(net, 0.1)
    try:
        restored = three.restore(net, opt)
    except CheckpointError as error:
        assert str(path) in str(error)
        assert net.weight.value[0, 0] == 0
    else:  # white space in the manifest, for one
        assert restored.step == restored.extra == net.weight.value[0, 0] == 3
    finally:
        path.write_bytes(good)


# --- all or nothing -------------------------------------------------------------------------------


def test_a_failed_restore_changes_nothing(tmp_path):
    run = Run(width=6)
    run.train(2)
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(2, run.net, run.opt)

    other = Run(seed=5, rule=lambda net, rate: optim.sgd(net, rate, momentum=0.9))  # deferred, with another optimiser
    np.random.seed(7)
    expected = np.random.rand(), jax.random.key_data(bw.random.key()).tolist()
    bw.seed(5)
    np.random.seed(7)
    with pytest.raises(LoadError, match=r"opt.safetensors does not fit the network:\n  missing"):
        checkpoints.restore(other.net, other.opt)
    assert other.net.first.weight.shape == (6, None)
    assert (np.random.rand(), jax.random.key_data(bw.random.key()).tolist()) == expected

    trained = Run(seed=5, rule=lambda net, rate: optim.sgd(net, rate, momentum=0.9))
    trained.train(2)
    twin = Run(seed=5, rule=lambda net, rate: optim.sgd(net, rate, momentum=0.9))
    twin.train(2)
    trained.net.first.weight.grad = jnp.ones((6, 5))
    with pytest.raises(LoadError):
        checkpoints.restore(trained.net, trained.opt)
    same(trained.state(), twin.state())
    np.testing.assert_array_equal(trained.net.first.weight.grad, np.ones((6, 5)))
    bw.seed(11)
    after = trained.train(3)
    bw.seed(11)
    assert after == twin.train(3)


def test_a_failed_restore_of_an_optimiser_that_starts_from_the_parameters(tmp_path):
    """Its state must not be made of the parameters that were loaded and taken back."""
    import optax

    net = small(1.0)
    opt = optim.Optimizer(net, optax.contrib.schedule_free_sgd(0.1))
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, {"a": net, "b": small()}, {"x": opt, "y": optim.sgd(net, 0.1)})
    fresh = small(5.0)
    new = optim.Optimizer(fresh, optax.contrib.schedule_free_sgd(0.1))
    with pytest.raises(LoadError):
        checkpoints.restore({"a": fresh}, {"x": new, "y": optim.adam(fresh, 0.1)})
    assert (np.array(fresh.weight) == 5).all()
    averages = [value for name, value in new.state_dict().items() if name.endswith("weight")]
    assert averages
    assert all((np.array(value) == 5).all() for value in averages)


def test_another_network(tmp_path):
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, small())
        with pytest.raises(LoadError, match=r"net.safetensors does not fit(.|\n)*weight: the network has \(5, 3\)"):
            checkpoints.restore(nn.Linear(5, in_features=3))


def test_random_keys_of_another_kind(tmp_path):
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, net := small(1.0))
        path = checkpoints.path() / "state.safetensors"
    state = bw.load(path)
    state["random"]["brickwork"]["stream"] = np.zeros(5, np.uint32)
    bw.save(path, state)
    manifest = json.loads((path.parent / "manifest.json").read_text())
    record = _snapshot.take(state, copy=True).write(tmp_path / "again")
    os.replace(tmp_path / "again", path)
    from brickwork.io._manifest import _checksum

    del manifest["crc32"]
    manifest["files"]["state.safetensors"] = {"bytes": record.size, "crc32": f"{record.checksum:08x}"}
    (path.parent / "manifest.json").write_text(json.dumps(manifest | {"crc32": _checksum(manifest)}))
    net.weight.value = jnp.zeros((2, 3))
    message = r"has 5 words, and here it has 3: .* jax_default_prng_impl; restore\(random=False\) leaves"
    with pytest.raises(LoadError, match=message):
        checkpoints.restore(net)
    assert net.weight.value[0, 0] == 0
    checkpoints.restore(net, random=False)
    assert net.weight.value[0, 0] == 1


# --- misuse ---------------------------------------------------------------------------------------


def message_of(error, call, *args, **kwargs):
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def test_what_a_checkpoint_lacks(tmp_path):
    net = small()
    with bw.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, net)
        checkpoints.save(2, {"a": net, "b": net})
        one, two = checkpoints.path(1), checkpoints.path(2)
        opt = optim.adam(net, 0.1)
        assert message_of(LoadError, checkpoints.restore, net, opt, step=1) == (
            f"{one} has no opt: it was saved without opt=, so it can't be restored with opt=..."
        )
        assert message_of(LoadError, checkpoints.restore, net, step=2) == (
            f"{two} can't be restored with net=...: it was saved with a dict with the keys 'a', 'b'; pass "
            "net={name: ...} with these names"
        )
        assert message_of(LoadError, checkpoints.restore, {"c": net}, step=1) == (
            f"{one} can't be restored with net={{'c': ...}}: it was saved with one net; pass net=..."
        )


def test_no_checkpoint(tmp_path):
    missing = bw.Checkpointer(tmp_path / "runs")
    assert missing.latest is None
    assert missing.steps() == []
    assert "the directory does not exist" in message_of(FileNotFoundError, missing.restore, small())
    assert not (tmp_path / "runs").exists()
    with bw.Checkpointer(tmp_path) as checkpoints:
        assert message_of(CheckpointError, checkpoints.restore, small()) == (
            f"no checkpoint in '{tmp_path}': there is none in it"
        )
        saved(checkpoints, [1, 2])
        assert message_of(CheckpointError, checkpoints.restore, step=5) == (
            f"no checkpoint of step 5 in '{tmp_path}'; there are those of [1, 2]"
        )
        message_of(CheckpointError, checkpoints.path, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0}, "keep must be a positive integer or None, got 0"),
        ({"keep": True}, "keep must be a positive integer or None, got True"),
        ({"keep_every": 0}, "keep_every must be a positive integer or None, got 0"),
        ({"every": 2.5}, "every must be a positive number of steps .* got 2.5; for seconds: timedelta"),
        ({"every": 0}, "every must be a positive number of steps"),
        ({"every": datetime.timedelta(0)}, "every must be a positive number of steps"),
        ({"keep_best": {"loss": "low"}}, "is 'min' or 'max', got 'low'"),
        ({"directory": 3}, "directory must be a string or a pathlib.Path, got int"),
    ],
)
def test_wrong_options(tmp_path, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        bw.Checkpointer(**({"directory": tmp_path} | options))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((small(),), "step must be an integer that is not negative, and comes first, got Linear"),
        ((-1, small()), "step must be an integer .* got -1"),
        ((1.5, small()), "step must be an integer .* got 1.5"),
        ((True, small()), "step must be an integer .* got True"),
        ((1,), "give at least one of net=..., opt=... and extra=..."),
        ((1, jnp.ones(3)), "net must be a module or a dict of such, got ArrayImpl; arrays .* go in extra="),
        ((1, small(), (1, 2)), "opt must be a optimiser, a brickwork.optim.Optimizer, or a dict of such, got tuple"),
        ((1, {"a/b": small()}), "the keys of a dict become names of files: .* got 'a/b'"),
        ((1, {"a": 3}), r"net\['a'\] must be a module"),
        ((1, small(), None, {"x": {1, 2}}), r"extra\['x'\] is a set; save sorted"),
    ],
)
def test_wrong_arguments(tmp_path, arguments, message):
    with bw.Checkpointer(tmp_path) as checkpoints:
        with pytest.raises((TypeError, ValueError), match=message):
            checkpoints.save(*arguments)
        assert checkpoints.latest is None


def test_wrong_metrics(tmp_path):
    with (
        bw.Checkpointer(tmp_path) as checkpoints,
        pytest.raises(TypeError, match=r"metrics\['loss'\] must be a number"),
    ):
        checkpoints.save(1, small(), metrics={"loss": "low"})


def test_a_network_without_shapes(tmp_path):
    with bw.Checkpointer(tmp_path) as checkpoints:
        with pytest.raises(DeferredShapeError):
            checkpoints.save(1, nn.Linear(3))
        assert checkpoints.latest is None


def test_inside_of_a_compiled_function(tmp_path):
    net = small()
    checkpoints = bw.Checkpointer(tmp_path)

    @bw.compile
    def step():
        net.weight.value = net.weight.value + 1
        checkpoints.save(1, net)

    with pytest.raises(TypeError, match=r"call save outside of compiled and transformed functions"):
        step()
    assert checkpoints.latest is None
    checkpoints.close()


def test_several_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    checkpoints = bw.Checkpointer(tmp_path)
    for call in (lambda: checkpoints.save(1, small()), lambda: checkpoints.restore(small())):
        with pytest.raises(RuntimeError, match=r"jax.process_count\(\) is 4: .* Use orbax.checkpoint"):
            call()


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


def test_repr(tmp_path):
    assert repr(bw.Checkpointer(tmp_path, every=5)) == f"Checkpointer('{tmp_path}', keep=3, every=5)"
    assert Path(bw.Checkpointer("a").directory).is_absolute()
