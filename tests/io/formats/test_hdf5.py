"""The reader of HDF5 agrees with h5py on what Keras writes, and refuses by name what Keras doesn't write."""

from __future__ import annotations

import struct
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest
from tests.io.foreign import FIXTURES, source_of

from brickwork.errors import CheckpointError
from brickwork.io._source import Source
from brickwork.io.formats._hdf5 import read_hdf5

FILES = sorted(path for folder in ("keras", "keras2") for path in (FIXTURES / folder).glob("*.h5"))


def load(path):
    with open(path, "rb") as file:
        return read_hdf5(Source.of(path.name, file))


def made(tmp_path, make, **options):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", **options) as file:
        make(file)
    return path


def message_of(call, argument):
    with pytest.raises(CheckpointError) as caught:
        call(argument)
    return str(caught.value)


def plain(value: Any) -> Any:
    """An attribute as this reader gives it."""
    if isinstance(value, np.ndarray):
        return [x.decode() if isinstance(x, bytes) else x for x in value.tolist()]
    return value


def compare(path):
    found = load(path)
    datasets: dict[str, Any] = {}
    attributes: dict[str, Any] = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            datasets[name] = item[()]
        else:
            attributes[name] = {key: plain(value) for key, value in item.attrs.items()}

    with h5py.File(path) as file:
        visit("", file)
        file.visititems(visit)
    assert found.datasets.keys() == datasets.keys() and found.attributes == attributes
    for name, wanted in datasets.items():
        array = found.datasets[name]
        assert array.shape == wanted.shape and array.tobytes() == np.asarray(wanted).tobytes()
        assert array.dtype == wanted.dtype or wanted.dtype.kind == "V"
        assert not array.flags.writeable
    return found


@pytest.mark.parametrize(
    "path", [p for p in FILES if "truncated" not in p.name], ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_agrees_with_h5py(path):
    compare(path)


def test_datasets_are_views_of_the_file():
    source = source_of((FIXTURES / "keras" / "mlp.weights.h5").read_bytes())
    for array in read_hdf5(source).datasets.values():
        assert np.shares_memory(array, source.data)


def test_dtypes():
    found = load(FIXTURES / "keras" / "dtypes.weights.h5")
    assert found.datasets["layers/bag/vars/1"].dtype == ml_dtypes.bfloat16
    assert found.datasets["layers/bag/vars/11"].dtype == np.bool_
    assert found.datasets["layers/bag/vars/14"].dtype == np.uint8  # of which Keras doesn't say that it is float8
    assert found.untyped == ["layers/bag/vars/14"]


def test_many_members_and_big_attributes(tmp_path):
    def make(file):
        for i in range(700):
            group = file.create_group(f"layers/dense_{i}/vars")
            group["0"] = np.full((2, i % 3), i, np.float32)
            group.attrs["name"] = f"name {i}"
        file.attrs["fixed"] = np.array([b"a", b"bc", b"def"])
        file.attrs["layer_names"] = [f"a long name of a layer {i}" for i in range(500)]
        file.attrs["config"] = "ü" * 100_000

    compare(made(tmp_path, make))


def test_numbers_in_the_other_byte_order(tmp_path):
    wanted = {code: np.arange(3).astype(code) for code in (">f4", ">i2", ">u8", ">f2")}

    def make(file):
        for code, array in wanted.items():
            file[code] = array

    found = load(made(tmp_path, make)).datasets
    for code, array in wanted.items():
        assert found[code].dtype == np.dtype(code).newbyteorder("=") and (found[code] == array).all()


def test_texts(tmp_path):
    def make(file):
        file["one"] = "a text"
        file["several"] = ["a", "", "ü"]
        file["fixed"] = np.array([b"x", b"yz"])
        file["small"] = np.bool_(True)

    found = load(made(tmp_path, make)).datasets
    assert found == {"one": "a text", "several": ["a", "", "ü"], "fixed": ["x", "yz"], "small": np.array(True)}


def test_values_inside_of_the_header(tmp_path):
    def make(file):
        space, kind = h5py.h5s.create_simple((3,)), h5py.h5t.NATIVE_FLOAT
        options = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        options.set_layout(h5py.h5d.COMPACT)
        h5py.h5d.create(file.id, b"x", kind, space, options).write(space, space, np.arange(3, dtype=np.float32))

    assert compare(made(tmp_path, make)).datasets["x"].tolist() == [0, 1, 2]


# --- refused --------------------------------------------------------------------------------------


def soft(file):
    file["x"] = h5py.SoftLink("/y")


def external(file):
    file["group/x"] = h5py.ExternalLink("/etc/passwd", "/y")


def hard(file):
    file["x"] = np.ones(2)
    file["y"] = file["x"]


def virtual(file):
    layout = h5py.VirtualLayout((2,), np.float32)
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (2,))
    file.create_virtual_dataset("x", layout)


def stored_elsewhere(file):
    file.create_dataset("x", (2,), np.float32, external=[("/etc/passwd", 0, 8)])


def committed(file):
    file["kind"] = np.dtype("f4")
    file.create_dataset("x", (2,), file["kind"], data=[1, 2])


def unset(file):
    file.create_dataset("x", (1000, 1000), np.float32)


REFUSED = [
    (soft, "'x' is a link of the kind 'soft', and links are not followed; open it with h5py and write the arrays to"),
    (external, "'group/x' is a link of the kind 'external', and links are not followed"),
    (hard, "'y' and 'x' are the same object, which Keras never writes"),
    (virtual, "the dataset 'x' is virtual, as Keras never writes it"),
    (stored_elsewhere, "the dataset 'x' has its values in other files, which are not opened"),
    (committed, "'kind' is neither a group nor a dataset"),
    (unset, "the dataset 'x' of shape (1000, 1000) has no values stored"),
    (
        lambda f: f.create_dataset("x", data=np.ones(9), chunks=(3,)),
        "the dataset 'x' is chunked, as Keras never writes",
    ),
    (lambda f: f.create_dataset("x", data=np.ones(9), compression="gzip"), "the dataset 'x' is compressed, as Keras"),
    (lambda f: f.create_dataset("x", data=np.ones(2, complex)), "'x' is of the datatype compound of 16 bytes"),
    (lambda f: f.create_dataset("x", data=np.ones(2, "V3")), "'x' is of the datatype opaque of 3 bytes"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message[:25] for _, message in REFUSED])
def test_refused(tmp_path, make, message):
    assert message in message_of(load, made(tmp_path, make))


def test_newer_structures_are_refused(tmp_path):
    path = made(tmp_path, lambda file: file.create_dataset("x", data=np.ones(2)), libver="latest")
    assert "it has structures newer than those of Keras (superblock version 3); open it with h5py" in message_of(
        load, path
    )


def test_user_defined_order_is_refused(tmp_path):
    path = made(tmp_path, lambda file: file.create_group("g", track_order=True))
    assert "structures newer than those of Keras" in message_of(load, path)


# --- damaged --------------------------------------------------------------------------------------


def test_truncated():
    assert message_of(load, FIXTURES / "keras" / "truncated.weights.h5").endswith(
        "at byte 27,614: the file ends here, 18,410 bytes too early; it was truncated"
    )


@pytest.fixture
def data(tmp_path):
    """A file with the dataset ``g/x``, as bytes to damage."""
    return bytearray(made(tmp_path, lambda file: file.create_dataset("g/x", data=np.arange(4.0))).read_bytes())


def header_of(data):
    """Address of the header of the root group, and of its B-tree and its names."""
    header = struct.unpack_from("<Q", data, 64)[0]
    return header, *struct.unpack_from("<QQ", data, header + 24)


def test_every_truncation(data):
    for size in range(len(data)):
        message_of(read_hdf5, source_of(bytes(data[:size])))


def put(data, at, form, value):
    struct.pack_into(form, data, at, value)
    return message_of(read_hdf5, source_of(bytes(data)))


def test_structures_that_contradict(data):
    header, tree, names = header_of(data)
    assert "there is no superblock of version 7" in put(bytearray(data), 8, "B", 7)
    assert "its addresses are not of 8 bytes" in put(bytearray(data), 13, "B", 4)
    assert "its addresses do not count from its beginning" in put(bytearray(data), 24, "Q", 8)
    assert "the header of an object has the unknown version 9" in put(bytearray(data), header, "B", 9)
    assert "a node of a B-tree should begin with b'TREE'" in put(bytearray(data), tree, "B", 0)
    assert "the names of a group should begin with b'HEAP'" in put(bytearray(data), names, "B", 0)
    assert "a B-tree of a group has type 1, not 0" in put(bytearray(data), tree + 4, "B", 1)
    assert "a node of a B-tree is on the impossible level 200" in put(bytearray(data), tree + 5, "B", 200)
    assert "should take" in put(bytearray(data), 64, "Q", 2**63)


def test_groups_that_contain_themselves(data):
    _, tree, _ = header_of(data)
    leaf = struct.unpack_from("<Q", data, tree + 32)[0]
    root = struct.unpack_from("<Q", data, 64)[0]
    message = put(data, leaf + 16, "Q", root)
    assert "'g' and '/' are the same object" in message


def test_trees_that_contain_themselves(data):
    _, tree, _ = header_of(data)
    struct.pack_into("<B", data, tree + 5, 1)
    assert "a node of a B-tree is on the impossible level 1" in put(data, tree + 32, "Q", tree)


def test_names_that_lead_elsewhere(data):
    at = data.index(b"g\0\0\0")
    data[at : at + 3] = b"a/b"
    assert "'a/b' is no name for a member of a group" in message_of(read_hdf5, source_of(bytes(data)))


def test_sizes_that_contradict(data):
    at = data.index(struct.pack("<QQ", 4, 4))  # the shape, and the largest shape
    assert "takes 40 bytes, but 32 are stored" in put(bytearray(data), at, "Q", 5)
    assert "takes" in put(bytearray(data), at, "Q", 2**62)


def test_parts_used_again_and_again():
    """Many objects that share one long header, and one that continues in itself."""
    size = 2**21
    data = bytearray(size)
    data[:64] = b"\x89HDF\r\n\x1a\n" + bytes([0, 0, 0, 0, 0, 8, 8, 0, 4, 0, 16, 0]) + bytes(44)
    struct.pack_into("<QQQQ", data, 24, 0, 0, size, 0)
    struct.pack_into("<Q", data, 64, 96)
    message = struct.pack("<HHI", 0x11, 16, 0) + struct.pack("<QQ", 1024, 2048)
    data[96:136] = struct.pack("<BBHIII", 1, 0, 1, 1, 24, 0) + message
    data[1024:1048] = b"TREE" + struct.pack("<BBH", 0, 0, 1) + bytes(16)
    struct.pack_into("<Q", data, 1056, 2**20)
    data[2048:2080] = b"HEAP" + bytes(4) + struct.pack("<QQQ", 4096, 0, 4096)
    data[2**20 : 2**20 + 8] = b"SNOD" + struct.pack("<HH", 1, 1000)
    for i in range(1000):
        data[4096 + 4 * i : 4100 + 4 * i] = b"%03d\0" % i
        header = 2**17 + 64 * i
        struct.pack_into("<QQQ", data, 2**20 + 8 + 40 * i, 4 * i, header, 0)
        data[header : header + 24] = struct.pack("<BBHIIIHHI", 1, 0, 65535, 1, 24, 0, 0x10, 16, 0)
        struct.pack_into("<QQ", data, header + 24, 2**18, 2**19)
    empty = struct.pack("<HHIQQ", 0x11, 16, 0, 8192, 2048)
    data[2**18 : 2**18 + 24] = empty
    data[8192:8216] = b"TREE" + bytes(20)
    assert "the file refers to the same parts again and again" in message_of(read_hdf5, source_of(bytes(data)))
    endless = bytearray(data)
    endless[112:136] = struct.pack("<HHIQQ", 0x10, 16, 0, 112, 24)
    struct.pack_into("<H", endless, 98, 65535)
    assert "'/' is neither a group nor a dataset" in message_of(read_hdf5, source_of(bytes(endless)))
