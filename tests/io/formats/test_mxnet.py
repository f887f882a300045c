"""MXNet's list of NDArrays, in the layouts of all versions."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from tests.io import foreign
from tests.io.foreign import FIXTURES, expected, source_of

from brickwork.errors import CheckpointError
from brickwork.io.formats._mxnet import is_mxnet, read

V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA


def message_of(data):
    with pytest.raises(CheckpointError) as caught:
        read(source_of(data))
    return str(caught.value)


def words(*numbers):
    return struct.pack(f"<{len(numbers)}i", *(n - 2**32 if n >= 2**31 else n for n in numbers))


def sizes(*numbers):
    return struct.pack(f"<{len(numbers)}q", *numbers)


def file(*records, names=None, count=None):
    names = [f"a{i}" for i in range(len(records))] if names is None else names
    texts = b"".join(sizes(len(name.encode())) + name.encode() for name in names)
    count = len(records) if count is None else count
    return sizes(0x112, 0, count) + b"".join(records) + sizes(len(names)) + texts


def dense(array, version=V3):
    codes = {"float32": 0, "float64": 1, "int32": 4, "int64": 6, "bool": 7}
    array = np.asarray(array)
    return words(version, 0, array.ndim) + sizes(*array.shape) + words(1, 0, codes[array.dtype.name]) + array.tobytes()


def sparse(kind, shape, data, indices):
    head = words(V2, kind, data.ndim) + sizes(*data.shape) + words(len(shape)) + sizes(*shape) + words(1, 0, 0)
    for index in indices:
        head += words(6, index.ndim) + sizes(*index.shape)
    return head + data.tobytes() + b"".join(index.tobytes() for index in indices)


# --- what MXNet wrote -----------------------------------------------------------------------------

DICTS = [
    *(("mxnet", name, name.removesuffix(".params")) for name in ("mlp.params", "lenet_bn.params", "tied.params")),
    *(("mxnet", name, name.removesuffix(".params")) for name in ("embed_lstm.params", "dtypes.params")),
    *(("mxnet", f"{name}.params", name) for name in ("legacy_dtypes", "legacy_mlp", "legacy_mlp_namescope")),
    *(("mxnet", f"v{i}_dtypes.params", f"v{i}_dtypes") for i in (0, 1)),
    *(("mxnet", f"v{i}_convnet-0007.params", f"v{i}_convnet") for i in (0, 1)),
    ("mxnet", "legacy_module-0003.params", "legacy_module"),
    ("mxnet2", "legacy_dtypes.params", "legacy_dtypes"),
    *(("mxnet", f"{version}mydict", "x") for version in ("", "legacy_", "v0_", "v1_")),
    ("mxnet2", "legacy_mydict", "x"),
]


@pytest.mark.parametrize(("framework", "name", "weights"), DICTS, ids=lambda x: x)
def test_dicts(framework, name, weights):
    contents = foreign.read(read, FIXTURES / framework / name)
    assert contents.kind == "mxnet"
    foreign.same_arrays(contents.tree, expected(framework, weights))


@pytest.mark.parametrize("version", ["", "legacy_", "v0_", "v1_"])
def test_lists(version):
    wanted = expected("mxnet", "x")
    for name, names in ((f"{version}x-files", "xy"), (f"{version}x-file", "x")):
        path = FIXTURES / "mxnet" / name
        if not path.exists():  # MXNet 0.x saves a single array as a list of one under another name
            continue
        tree = foreign.read(read, path).tree
        assert isinstance(tree, list) and len(tree) == len(names)
        for found, key in zip(tree, names, strict=True):
            foreign.same(found, wanted[key])


def test_sparse_arrays_become_dense():
    contents = foreign.read(read, FIXTURES / "mxnet" / "legacy_sparse.params")
    wanted = expected("mxnet", "legacy_sparse")["dense"]
    kept = np.zeros_like(wanted)
    kept[expected("mxnet", "legacy_sparse")["rsp/indices"]] = expected("mxnet", "legacy_sparse")["rsp/data"]
    foreign.same_arrays(contents.tree, {"dense": wanted, "csr": wanted, "rsp": kept})
    assert contents.metadata == {"made dense": "rsp, csr"}


def test_arrays_are_views_of_the_file():
    source = source_of(file(dense(np.arange(4.0))))
    assert np.shares_memory(read(source).tree["a0"], source.data)


def test_none_and_odd_names():
    tree = read(source_of(file(words(V3, 0, -1), dense(np.float32(3)), words(V1, 0), names=["none", "ü", ""]))).tree
    assert tree["none"] is None and tree[""] is None and tree["ü"] == 3
    assert read(source_of(file(words(V2, 0, 0), words(0), names=[]))).tree == [None, None]
    assert read(source_of(file())).tree == []


def test_recognised_by_the_first_bytes():
    assert is_mxnet(file()) and not is_mxnet(b"\x12\x01\0\0") and not is_mxnet(b"\x93NUMPY\1\0")


# --- damaged files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "truncated.params",
            "at byte 64: array 0 of 4 should take 20,480 bytes, but 19,160 are left; the file is trunc",
        ),
        (
            "truncated_legacy.params",
            "at byte 21,632: array 2 of 8 should take 1,024 bytes, but 157 are left; the file ",
        ),
        ("truncated_names.params", "at byte 36,294: name 6 should take 8 bytes, but 3 are left; the file is truncated"),
    ],
)
def test_truncated_files(name, message):
    with pytest.raises(CheckpointError, match=f"^{name}: damaged MXNet parameter file, {message}"):
        foreign.read(read, FIXTURES / "mxnet" / name)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x13" + file()[1:], "at byte 0: it does not begin with the magic number 0x112"),
        (file() + b"x", "at byte 32: 1 bytes follow the end of the list"),
        (file(count=2**62), "4,611,686,018,427,387,904 arrays should follow, but only 8 bytes"),
        (sizes(0x112, 0, 10**6) + bytes(4 * 10**6), "1,000,000 arrays should follow; at most 200,000 are read"),
        (file(words(V3, 7, 1)), "at byte 28: array 0 of 1 has the unknown storage type 7"),
        (file(words(V3, 0, 33)), "at byte 32: array 0 of 1 has 33 axes, but there may be at most 32"),
        (file(words(77)), "array 0 of 1 has 77 axes"),
        (file(words(V3, 0, 1) + sizes(-2)), "array 0 of 1 has the impossible shape (-2,)"),
        (file(words(V3, 0, 2) + sizes(2**62, 2**62) + words(1, 0, 0)), "array 0 of 1: the impossible shape"),
        (file(words(V3, 0, 1) + sizes(1) + words(1, 0, 13)), "array 0 of 1 has the unknown dtype 13"),
        (file(words(V3, 0, 1) + sizes(1) + words(1, 0, 7) + b"\2"), "array 0 of 1: some of its bytes are no truth val"),
        (file(dense([1.0]), names=["a", "b"]), "there are 2 names for 1 arrays"),
        (file(dense([1.0]), dense([2.0]), names=["a", "a"]), "two arrays have the name 'a'"),
        (file(dense([1.0]))[:-2] + b"\xff\xff", "name 0 is not UTF-8 text"),
    ],
    ids=lambda x: x[:30] if isinstance(x, str) else "",
)
def test_messages(data, message):
    assert message in message_of(data)


INDEX = np.array([0, 2])
ROWS = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (sparse(1, (5, 3), ROWS, [INDEX + 3]), "(5, 3), names rows outside of 0 to 4"),
        (sparse(1, (5, 3), ROWS, [INDEX - 1]), "names rows outside of 0 to 4"),
        (sparse(1, (5, 4), ROWS, [INDEX]), "has data of shape (2, 3) for 2 rows"),
        (sparse(1, (5, 3), ROWS, [INDEX[None]]), "has indices that are no lists of integers"),
        (
            sparse(1, (10**15, 3), ROWS, [INDEX]),
            "array 0 of 1, a row_sparse array of shape (1000000000000000, 3) that is ",
        ),
        (sparse(1, (2**62, 3), ROWS, [INDEX]), "array 0 of 1: the impossible shape"),
        (
            sparse(2, (2, 3), ROWS[:, 0], [INDEX, INDEX]),
            "has 2 row starts, 2 columns and data of shape (2,), which do not",
        ),
        (sparse(2, (1, 2), ROWS[:, 0], [INDEX, INDEX]), "names columns outside of 0 to 1"),
        (sparse(2, (1, 3), ROWS[:, 0], [INDEX - 1, INDEX]), "has row starts that do not rise from 0 to the number of"),
        (sparse(2, (2, 3), ROWS[:, 0], [np.array([0, 3, 2]), INDEX]), "has row starts that do not rise from 0"),
    ],
    ids=lambda x: x[:30] if isinstance(x, str) else "",
)
def test_sparse_messages(data, message):
    assert message in message_of(file(data))


def test_sparse_arrays_of_other_shapes():
    empty = sparse(1, (4, 2), np.zeros((0, 2), np.float32), [np.zeros(0, np.int64)])
    assert read(source_of(file(empty))).tree["a0"].tolist() == [[0, 0]] * 4
    matrix = sparse(2, (3, 4), np.array([5, 6], np.float32), [np.array([0, 1, 1, 2]), np.array([3, 0])])
    assert read(source_of(file(matrix))).tree["a0"].tolist() == [[0, 0, 0, 5], [0, 0, 0, 0], [6, 0, 0, 0]]
