"""TensorFlow's checkpoints and serialized tensors."""

from __future__ import annotations

import json
import shutil

import ml_dtypes
import numpy as np
import pytest
from tests.io import foreign
from tests.io.foreign import FIXTURES, expected, source_of

import brickwork as bw
from brickwork.errors import CheckpointError
from brickwork.io._source import Source
from brickwork.io.formats._tensorflow import is_index, is_tensor, read

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def message_of(source):
    with pytest.raises(CheckpointError) as caught:
        read(source)
    return str(caught.value)


def opened(path):
    with open(path, "rb") as file:
        return Source.of(str(path), file)


def test_checkpoints():
    contents = read(opened(FIXTURES / "keras2" / "mlp.params.index"))
    assert contents.kind == "tensorflow"
    assert json.loads(contents.metadata["left out"]) == ["_CHECKPOINTABLE_OBJECT_GRAPH"]
    weights = list(expected("keras2", "mlp").values())
    for name in ("hidden/kernel", "hidden/bias", "out/kernel", "out/bias"):
        found = contents.tree[name + SUFFIX]
        assert any(found.shape == w.shape and found.tobytes() == w.tobytes() for w in weights)
    assert len(contents.tree) == 4


def test_checkpoints_by_the_name_that_tensorflow_uses():
    folder = FIXTURES / "keras2"
    assert bw.load(folder / "mlp.params").keys() == bw.load(folder / "mlp.params.index").keys()


def test_missing_data_files(tmp_path):
    index = FIXTURES / "keras2" / "mlp.params.index"
    shutil.copy(index, tmp_path / "x.index")
    message = message_of(opened(tmp_path / "x.index"))
    assert "its data file 'x.data-00000-of-00001' can't be opened: No such file or directory" in message
    shutil.copy(index, tmp_path / "x")
    assert "its name does not end in '.index', so its data files can't be found" in message_of(opened(tmp_path / "x"))


def test_truncated_data_files(tmp_path):
    folder = FIXTURES / "keras2"
    shutil.copy(folder / "mlp.params.index", tmp_path / "x.index")
    data = (folder / "mlp.params.data-00000-of-00001").read_bytes()
    (tmp_path / "x.data-00000-of-00001").write_bytes(data[:9000])
    message = message_of(opened(tmp_path / "x.index"))
    assert "x.data-00000-of-00001: damaged data file of a TensorFlow checkpoint, at byte" in message
    assert "truncated" in message


def test_damaged_indices():
    data = (FIXTURES / "keras2" / "mlp.params.index").read_bytes()
    for at in range(len(data) - 48):
        damaged = bytearray(data)
        damaged[at] ^= 0xFF
        message_of(source_of(bytes(damaged)))  # at the latest when the data files are opened
    assert "an index takes at least 48 bytes" in message_of(source_of(data[-20:]))
    assert is_index(source_of(data)) and not is_index(source_of(data[:-1]))


# --- single tensors -------------------------------------------------------------------------------


def test_tensors():
    for name, key in (("x-file", "x"), ("y-file", "y_tensorproto")):
        foreign.same(foreign.read(read, FIXTURES / "keras" / f"{name}.tensorproto").tree, expected("keras", "x")[key])


def varint(n):
    found = b""
    while n > 127:
        found, n = found + bytes([n & 127 | 128]), n >> 7
    return found + bytes([n])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value % 2**64)
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(code, shape, *fields):
    sizes = b"".join(field(2, field(1, n)) for n in shape)
    return field(1, code) + field(2, sizes) + b"".join(fields)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (tensor(1, (2,), field(4, np.float32([1, 2]).tobytes())), np.float32([1, 2])),
        (tensor(14, (2,), field(4, b"\x80\x3f\0\x40")), np.array([1, 2], ml_dtypes.bfloat16)),
        (tensor(1, (), field(5, np.float32(3).tobytes())), np.float32(3)),
        (tensor(2, (2, 2), field(6, np.float64([1, 2]).tobytes())), np.array([[1.0, 2], [2, 2]])),
        (tensor(3, (3,), field(7, varint(2**64 - 5))), np.int32([-5, -5, -5])),
        (tensor(6, (2,), field(7, -1), field(7, 7)), np.int8([-1, 7])),
        (tensor(9, (1,), field(10, b"\x01")), np.int64([1])),
        (tensor(10, (2,), field(11, b"\1\0")), np.array([True, False])),
        (tensor(23, (1,), field(17, 2**64 - 1)), np.uint64([2**64 - 1])),
        (tensor(1, (0, 3), field(4, b"")), np.zeros((0, 3), np.float32)),
    ],
)
def test_forms_of_values(data, wanted):
    assert is_tensor(source_of(data))
    foreign.same(read(source_of(data)).tree, np.asarray(wanted))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tensor(1, (3,), field(4, bytes(8))), "8 bytes are no array of shape (3,) and dtype float32"),
        (tensor(7, (1,)), "it has the dtype 7 of TensorFlow, which has no counterpart"),
        (tensor(1, (2**40, 2**40), field(4, b"")), "the impossible shape"),
        (tensor(1, (2**33,), field(5, bytes(4))), "the array takes 34,359,738,368 bytes"),
        (tensor(1, (1,), field(7, 1)), "its values are not those of the dtype float32"),
        (tensor(1, (1,), field(5, bytes(3))), "the values of a tensor are malformed"),
        (tensor(3, (1,), field(7, b"\1\2")), "it has 2 values for the shape (1,)"),
        (tensor(3, (1,)), "it has 0 values for the shape (1,)"),
        (tensor(3, (1,), field(8, b"x")), "a tensor of numbers has no field 8"),
        (tensor(3, (1,), b"\x3b"), "a field has the unknown encoding 3"),
        (tensor(3, (1,), b"\x22\x7f"), "a field should take 127 bytes, but 0 are left; it is truncated"),
        (tensor(3, (1,), b"\x38" + b"\xff" * 12), "a number has no end"),
        (tensor(3, (1,), b"\x18\0" * 2000), "a message has more than 1000 fields"),
    ],
)
def test_damaged_tensors(data, message):
    assert message in message_of(source_of(data))
    assert not is_tensor(source_of(data))
