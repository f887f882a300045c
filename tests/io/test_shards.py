"""Checkpoints of several files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import brickwork as bw
from brickwork import nn
from brickwork.errors import CheckpointError
from brickwork.io import load, save

PARTS = {
    "model-00001-of-00002.safetensors": {"a.weight": np.ones((2, 3), np.float32)},
    "model-00002-of-00002.safetensors": {"a.bias": np.zeros(2, np.float32), "b": np.ones(1, np.float32)},
}
WHERE = {name: file for file, tensors in PARTS.items() for name in tensors}


@pytest.fixture
def folder(tmp_path):
    for name, tensors in PARTS.items():
        save_file(tensors, tmp_path / name, metadata={"format": "pt"})
    return tmp_path


def write_index(folder, where, name="model.safetensors.index.json"):
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 36}, "weight_map": where}))
    return folder / name


def check(found):
    assert found.keys() == WHERE.keys()
    np.testing.assert_array_equal(found["a.weight"], np.ones((2, 3)))


def test_an_index(folder):
    check(load(write_index(folder, WHERE)))
    check(load(folder))
    assert load(folder, names="b").keys() == {"b"}


def test_a_network_from_an_index(folder):
    write_index(folder, {k: v for k, v in WHERE.items() if k != "b"})
    layer = nn.Linear(2)
    report = layer.load(folder, strict=False, rename={"a.(.*)": r"\1"})
    assert report.unexpected == ["b"]
    np.testing.assert_array_equal(layer.weight.value, np.ones((2, 3)))


def test_shards_without_an_index(folder):
    check(load(folder))
    (folder / "model-00002-of-00002.safetensors").unlink()
    save_file({"x": np.ones(1)}, folder / "model-00003-of-00004.safetensors")
    with pytest.raises(CheckpointError, match="is a directory of several checkpoints; name one: 'model-00001-of-00002"):
        load(folder)


def test_shards_that_are_missing(folder):
    for name in PARTS:
        (folder / name).rename(folder / name.replace("00002.s", "00003.s"))
    with pytest.raises(CheckpointError) as info:
        load(folder)
    assert str(info.value) == (
        f"cannot load '{folder}': it holds 2 of the 3 files like 'model-00001-of-00003.safetensors'; get the others"
    )


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({**WHERE, "b": "../model-00001-of-00002.safetensors"}, "which is not the name of a file beside it"),
        ({**WHERE, "b": "/etc/passwd"}, "which is not the name of a file beside it"),
        ({**WHERE, "b": 3}, "it places 'b' in 3, which"),
        ({**WHERE, "c": "model-00001-of-00002.safetensors"}, "it places 'c' in 'model-00001-of-00002.safetensors', wh"),
        ({**WHERE, "b": "model-3.safetensors"}, "there is no such file"),
        ({}, 'a JSON file with "weight_map" lists the files of a checkpoint, and this one has none'),
    ],
)
def test_indices_that_do_not_fit(folder, where, message):
    path = write_index(folder, where)
    with pytest.raises(CheckpointError) as info:
        load(path)
    assert message in str(info.value)


def test_an_index_that_names_itself(folder):
    path = write_index(folder, {"a": "model.safetensors.index.json"})
    with pytest.raises(CheckpointError, match="lists itself or another index"):
        load(path)


def test_json_that_is_no_index(tmp_path):
    (tmp_path / "x").write_text('{"a":   [1, 2')
    with pytest.raises(CheckpointError, match="cannot load this JSON file: it is not valid JSON"):
        load(tmp_path / "x")


def test_names_in_two_shards(folder):
    write_index(folder, WHERE)
    second = {"a.bias": np.ones(2), "b": np.ones(1), "a.weight": np.ones(1)}
    save_file(second, folder / "model-00002-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=r"'a\.weight' is in two of its files, 'model-00001-of"):
        load(folder)


def test_a_directory_with_our_file(tmp_path):
    net = nn.Linear(2, in_features=3)
    net.save(tmp_path / "net.safetensors")
    (tmp_path / "config.json").write_text("{}")
    assert bw.load(tmp_path).keys() == {"weight", "bias"}
    save(tmp_path / ".hidden", {})
    assert bw.load(tmp_path).keys() == {"weight", "bias"}
