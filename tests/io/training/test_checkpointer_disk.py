"""Checkpoints on disks that are full, limited or read-only."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys

import pytest

_START = """
import os, sys
import jax.numpy as jnp
import brickwork as bw
from brickwork.errors import CheckpointError

def network(size, value=0.0):
    net = bw.nn.Linear(size, in_features=size, bias=False)
    net.weight.value = jnp.full((size, size), value)
    return net

checkpoints = bw.Checkpointer(sys.argv[1], keep=1)
"""


def run(body, folder, mount=None):
    """Run a program, perhaps with a file system of its own at ``folder`` that only it sees."""
    command = [sys.executable, "-c", _START + body, str(folder)]
    if mount is not None:
        shell = f'mount {mount} none "$1" && shift && exec "$@"'
        command = ["unshare", "--map-root-user", "--mount", "sh", "-c", shell, "sh", str(folder), *command]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@functools.cache
def can_mount():
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


needs_mount = pytest.mark.skipif("not can_mount()", reason="this system permits no mounts of one's own (unshare)")

_FULL = """
checkpoints.save(1, network(400, 1.0))  # 640 kB
checkpoints.wait()
checkpoints.save(2, network(600, 2.0))  # 1440 kB, which doesn't fit beside it
try:
    checkpoints.wait()
except CheckpointError as error:
    print(error)
    print(error.errno)
print(checkpoints.steps(), sorted(os.listdir(sys.argv[1])))
checkpoints.save(3, network(400, 3.0))  # as much as before fits
checkpoints.wait()
net = network(400)
print(checkpoints.restore(net).step, float(net.weight[0, 0]), sorted(os.listdir(sys.argv[1])))
checkpoints.close()
"""


@needs_mount
def test_a_full_disk(tmp_path):
    message, number, listed, restored = run(_FULL, tmp_path, "-t tmpfs -o size=1900k")
    assert message.startswith("cannot write the checkpoint of step 2 (1,44")
    assert message.endswith(
        f" bytes) in '{tmp_path}': No space left on device; nothing of it was kept, and the latest is that of step 1"
    )
    assert number == "28"
    assert listed == "[1] ['.lock', 'step_00000001']"
    assert restored == "3 3.0 ['.lock', 'step_00000003']"


def test_a_limit_on_the_size_of_files(tmp_path):
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, -1))\n"
    message, _, listed, restored = run(limit + _FULL, tmp_path)
    assert "step 2 (1,44" in message
    assert "File too large; nothing of it was kept, and the latest is that of step 1" in message
    assert listed == "[1] ['.lock', 'step_00000001']"
    assert restored == "3 3.0 ['.lock', 'step_00000003']"


_READ_ONLY = """
for _ in range(2):
    try:
        checkpoints.save(1, network(3))
    except CheckpointError as error:
        print(error)
"""


@needs_mount
def test_a_read_only_disk(tmp_path):
    found = run(_READ_ONLY, tmp_path, "-t tmpfs -o ro")
    assert found == [f"cannot write checkpoints in '{tmp_path}': Read-only file system"] * 2


def test_a_read_only_directory(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere; see the read-only disk")
    tmp_path.chmod(0o555)
    assert run(_READ_ONLY, tmp_path) == [f"cannot write checkpoints in '{tmp_path}': Permission denied"] * 2


def test_a_file_in_its_place(tmp_path):
    (tmp_path / "runs").write_text("x")
    for folder, reason in ((tmp_path / "runs", "File exists"), (tmp_path / "runs" / "a", "Not a directory")):
        assert run(_READ_ONLY, folder) == [f"cannot write checkpoints in '{folder}': {reason}"] * 2


def test_what_is_read_only_can_be_read(tmp_path):
    run("checkpoints.save(1, network(3, 5.0))\ncheckpoints.close()", tmp_path)
    (tmp_path / ".lock").unlink()
    tmp_path.chmod(0o555)
    body = "net = network(3)\nprint(checkpoints.restore(net).step, float(net.weight[0, 0]))"
    assert run(body, tmp_path) == ["1 5.0"]
    assert sorted(os.listdir(tmp_path)) == ["step_00000001"]  # nor did it write what root could
