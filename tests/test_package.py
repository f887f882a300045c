"""What ``import brickwork`` gives, and what it leaves for later."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import brickwork as bw

_SCRIPT = """
import sys
import brickwork as bw
late = ("brickwork.io", "brickwork.cli", "optax", "safetensors", "h5py", "rich", "torch", "jax.extend")
print([name for name in late if name in sys.modules])
assert {"io", "save", "load", "Checkpointer", "nn"} <= set(dir(bw))
net = bw.nn.Linear(2, in_features=2)
net.save(sys.argv[1])
net.load(sys.argv[1])
assert "brickwork.io" in sys.modules
from brickwork import Checkpointer, save
assert bw.io.save is save is bw.save and bw.Checkpointer is Checkpointer
"""


def test_files_and_extras_are_imported_when_they_are_used(tmp_path: Path):
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path / "net.safetensors")]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    assert out.stdout == "[]\n" and out.returncode == 0, out.stderr


def test_what_there_is_not():
    with pytest.raises(AttributeError, match="module 'brickwork' has no attribute 'save_all'"):
        bw.save_all  # type: ignore[attr-defined]
