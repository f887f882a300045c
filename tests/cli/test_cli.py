"""The command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import brickwork as bw
from brickwork import nn
from brickwork.cli import main
from brickwork.io import load, save

FIXTURES = Path(__file__).parent.parent / "fixtures"


@pytest.fixture
def run(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")

    def call(*arguments):
        code = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def path(tmp_path):
    tree = {"epoch": 3, "model": {"a.weight": jnp.ones((2, 3)), "bias": jnp.array([1.0, jnp.nan, -2.0])}, "note": "hi"}
    tree["model"]["tied"] = tree["model"]["a.weight"]
    save(tmp_path / "x", tree, metadata={"author": "me"})
    return tmp_path / "x"


def report(run, *arguments):
    code, out, err = run(*arguments, "--json")
    assert not err
    return code, json.loads(out)


# --- inspect --------------------------------------------------------------------------------------


def test_inspect(run, path):
    code, out, err = run("inspect", path)
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert "x (brickwork)" in out
    assert ["epoch", "-", "int", "3"] in rows
    assert ["model.a.weight", "2", "x", "3", "float32", "24", "B"] in rows
    assert ["model.tied", "2", "x", "3", "float32", "=", "model.a.weight"] in rows
    assert "2 arrays, 9 elements, 36 B" in out
    assert "author: me" in out


def test_inspect_json(run, path):
    code, found = report(run, "inspect", path, "--stats")
    assert code == 0
    entries = found.pop("entries")
    assert found == {
        "file": str(path),
        "kind": "brickwork",
        "metadata": {"author": "me"},
        "arrays": 2,
        "elements": 9,
        "bytes": 36,
    }
    assert entries[0] == {"name": "epoch", "dtype": "int", "value": 3}
    statistics = {"nan": 1, "min": -2.0, "mean": -0.5, "max": 1.0}
    assert entries[2] == {"name": "model.bias", "dtype": "float32", "shape": [3], "bytes": 12, **statistics}
    assert entries[3]["tied"] == "model.a.weight"
    assert entries[4]["value"] == "hi"


def test_statistics_of_every_dtype(run, tmp_path):
    dtypes = ["bool", "int8", "uint64", "float16", "float64", "complex64", ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn]
    save(tmp_path / "x", {str(i): np.ones(3, dtype) for i, dtype in enumerate(dtypes)} | {"empty": np.ones(0)})
    _, found = report(run, "inspect", tmp_path / "x", "--stats")
    for entry in found["entries"]:
        if entry["dtype"] == "complex64" or entry["name"] == "empty":
            assert "mean" not in entry
        else:
            assert (entry["min"], entry["mean"], entry["max"], entry["nan"]) == (1, 1, 1, 0)


def test_inspect_tree(run, tmp_path):
    net = nn.Sequential(nn.Linear(2, in_features=3), nn.Sequential(nn.Linear(1, in_features=2)))
    net.save(tmp_path / "net.safetensors")
    code, out, _ = run("inspect", "--tree", tmp_path / "net.safetensors")
    assert code == 0
    assert [line.rstrip() for line in out.splitlines()] == [
        "net.safetensors  44 B",
        "├── 0  32 B",
        "│   ├── weight  2 x 3  float32  24 B",
        "│   └── bias  2  float32  8 B",
        "└── 1  12 B",
        "    └── 0  12 B",
        "        ├── weight  1 x 2  float32  8 B",
        "        └── bias  1  float32  4 B",
    ]


def test_aliases_of_other_tools(run):
    _, found = report(run, "inspect", FIXTURES / "torch" / "tied.safetensors")
    tied = {entry["name"]: entry["tied"] for entry in found["entries"] if "tied" in entry}
    assert tied == {"4.weight": "2.weight", "4.bias": "2.bias"}


def test_names_in_natural_order(run, tmp_path):
    save_file({f"layers.{i}.w": np.ones(1) for i in range(12)} | {"a": np.ones(1)}, tmp_path / "x")
    _, found = report(run, "inspect", tmp_path / "x")
    assert [entry["name"] for entry in found["entries"]] == ["a", *(f"layers.{i}.w" for i in range(12))]


def test_markup_in_names_is_text(run, tmp_path):
    save(tmp_path / "x", {"[red]w[/red]": np.ones(1), "[/]": np.ones(1)})
    _, out, _ = run("inspect", tmp_path / "x")
    assert "[red]w[/red]" in out
    _, out, _ = run("inspect", "--tree", tmp_path / "x")
    assert "[/]" in out


# --- diff -----------------------------------------------------------------------------------------


def test_diff_of_equal_files(run, path):
    code, out, _ = run("diff", path, path)
    assert (code, out) == (0, "equal: 5 entries\n")


def test_diff(run, tmp_path):
    first = {
        "same": jnp.ones(2),
        "w": jnp.ones((2, 2)),
        "s": jnp.ones(3),
        "d": jnp.ones(2),
        "gone": jnp.ones(1),
        "n": 1,
    }
    second = {
        "same": jnp.ones(2),
        "w": jnp.array([[1, 1], [1, 1.5]]),
        "s": jnp.ones((3, 1)),
        "d": jnp.ones(2, "float16"),
    }
    save(tmp_path / "a", first)
    save(tmp_path / "b", second | {"n": 2, "new": jnp.ones(1)})
    code, found = report(run, "diff", tmp_path / "a", tmp_path / "b")
    assert code == 1
    assert found == {
        "only_in_first": ["gone"],
        "only_in_second": ["new"],
        "changed": {
            "w": {"largest": 0.5, "relative": 0.5 / 1.5, "elements": 1},
            "s": {"shape": [[3], [3, 1]]},
            "d": {"dtype": ["float32", "float16"]},
            "n": {"value": ["1", "2"]},
        },
        "same": 1,
        "equal": False,
    }
    code, out, _ = run("diff", tmp_path / "a", tmp_path / "b")
    assert code == 1
    assert "1 elements differ, by at most 0.5 (relative 0.333)" in out
    assert "shape 3 and 3 x 1" in out
    assert "dtype float32 and float16" in out
    assert "only in a" in out
    assert "only in b" in out


def test_diff_of_odd_numbers(run, tmp_path):
    save(tmp_path / "a", {"nan": np.array([np.nan, 1]), "zero": np.zeros(1), "large": np.array([2**53], np.int64)})
    save(tmp_path / "b", {"nan": np.array([np.nan, np.inf]), "zero": -np.zeros(1), "large": np.array([2**53 + 1])})
    _, found = report(run, "diff", tmp_path / "a", tmp_path / "b")
    assert found["changed"]["nan"]["largest"] == float("inf")
    assert found["changed"]["nan"]["elements"] == 1
    assert found["changed"]["zero"] == {"largest": 0.0, "elements": 0}
    assert found["changed"]["large"]["elements"] == 1


# --- verify ---------------------------------------------------------------------------------------


def test_verify(run, path):
    assert run("verify", path) == (0, f"{path}: intact (brickwork, 2 arrays, 36 B)\n", "")
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    code, out, err = run("verify", path)
    assert (code, out) == (1, "")
    assert "have the CRC-32" in err
    code, found = report(run, "verify", path)
    assert code == 1
    assert "have the CRC-32" in found["error"]


def test_verify_without_checksums(run):
    file = FIXTURES / "torch" / "mlp.safetensors"
    code, found = report(run, "verify", file)
    assert code == 0
    assert found == {"file": str(file), "kind": "safetensors", "arrays": 4, "bytes": 31784, "checksums": False}
    assert "well-formed, but without checksums: damage inside of arrays can't be seen" in run("verify", file)[1]


def test_verify_truncated(run):
    code, _, err = run("verify", FIXTURES / "torch" / "truncated.safetensors")
    assert code == 1
    assert "truncated" in err


# --- convert --------------------------------------------------------------------------------------


def test_convert_to_safetensors_and_npz(run, tmp_path):
    source = FIXTURES / "torch" / "mlp.safetensors"
    target = tmp_path / "mlp.npz"
    assert run("convert", source, target) == (0, f"{target}: npz, from {source} (safetensors)\n", "")
    expected = load_file(source)
    with np.load(target) as found:
        assert set(found) == set(expected)
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])


def test_convert_keeps_ties(run, tmp_path):
    assert run("convert", FIXTURES / "torch" / "tied.safetensors", tmp_path / "x.safetensors")[0] == 0
    tree, info = load(tmp_path / "x.safetensors", with_metadata=True, verify=True)
    assert info.aliases == {"4.weight": "2.weight", "4.bias": "2.bias"}
    assert not isinstance(tree["0.weight"], np.ndarray)
    assert run("convert", tmp_path / "x.safetensors", "--to", "torch", tmp_path / "y.safetensors")[0] == 0
    _, info = load(tmp_path / "y.safetensors", with_metadata=True)
    assert info.aliases == {"4.weight": "2.weight", "4.bias": "2.bias"}
    assert info.metadata["format"] == "pt"


def test_convert_refuses(run, path, tmp_path):
    code, _, err = run("convert", path, tmp_path / "y.npz")
    assert code == 2
    assert "the entry 'epoch' is a int, no array; npz files hold a dict of names and arrays" in " ".join(err.split())
    assert not (tmp_path / "y.npz").exists()
    assert "PyTorch reads safetensors: name the output *.safetensors" in run("convert", path, tmp_path / "y.pt")[2]
    assert "exists; --force replaces it" in run("convert", path, path)[2]
    assert load(path)["epoch"] == 3


def test_convert_over_itself(run, path):
    assert run("convert", path, path, "--to", "safetensors", "--force")[0] == 0
    assert load(path)["epoch"] == 3


# --- around ---------------------------------------------------------------------------------------


def test_files_that_cannot_be_read(run, tmp_path):
    code, out, err = run("inspect", tmp_path / "nothing")
    assert (code, out) == (2, "")
    assert err.startswith("brickwork inspect: cannot load")
    code, found = report(run, "verify", tmp_path / "nothing")
    assert code == 2
    assert "there is no such file" in found["error"]


def test_wrong_usage(capsys):
    with pytest.raises(SystemExit) as info:
        main(["explode"])
    assert info.value.code == 2
    assert "invalid choice: 'explode'" in capsys.readouterr().err


def test_as_a_program(path):
    call = [sys.executable, "-m", "brickwork", "inspect", str(path), "--json"]
    source = str(Path(bw.__file__).parent.parent)
    done = subprocess.run(call, capture_output=True, text=True, env={"PYTHONPATH": source, "PATH": "/usr/bin:/bin"})
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["arrays"] == 2
