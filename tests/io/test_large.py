"""Files beyond four gigabytes, many tensors, odd names."""

from __future__ import annotations

import json
import os

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from brickwork.io import load, save


def test_beyond_four_gigabytes(tmp_path):
    """A file with a hole, which takes no space; what is read of it is a few pages."""
    size = 5 * 2**30
    entries = {
        "zeros": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]},
        "last": {"dtype": "I32", "shape": [3], "data_offsets": [size, size + 12]},
    }
    header = json.dumps(entries).encode()
    header += b" " * (-(len(header) + 8) % 64)
    path = tmp_path / "large.safetensors"
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        try:
            os.truncate(file.fileno(), 8 + len(header) + size)
        except OSError as error:
            pytest.skip(f"no file of that size here: {error}")
        file.seek(0, 2)
        file.write(np.array([1, 2, 3], np.int32).tobytes())
    np.testing.assert_array_equal(load(path, names="last")["last"], [1, 2, 3])
    found = load(path, lazy=True)
    assert found["zeros"].nbytes == size
    assert found["zeros"][-1] == 0


def test_many_tensors(tmp_path):
    tree = {f"layers.{i}.weight": np.full(2, i, np.float32) for i in range(20_000)}
    save(tmp_path / "x", tree)
    found = load(tmp_path / "x", lazy=True, verify=True)
    assert list(found) == list(tree)
    assert all(found[name][0] == tree[name][0] for name in ("layers.0.weight", "layers.19999.weight"))
    assert load_file(tmp_path / "x").keys() == tree.keys()


def test_odd_names(tmp_path):
    names = ["", " ", "a/b\\c", "ü.日本", "\n\t", '"quoted"', "__metadata__", "a" * 5000, "🙂", "\x00", "{", "..", "~2"]
    tree = {name: jnp.full(1, i) for i, name in enumerate(names)}
    save(tmp_path / "x", tree)
    found = load(tmp_path / "x", verify=True)
    assert list(found) == names
    assert [int(x[0]) for x in found.values()] == list(range(len(names)))
    assert set(names) - set(load_file(tmp_path / "x")) == {"__metadata__"}  # which has another name in the file
