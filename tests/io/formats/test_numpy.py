"""NumPy's files, and MXNet 2's."""

from __future__ import annotations

import io
import re
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, strategies as st
from tests.io.foreign import FIXTURES, PWNED, expected, read, same, same_arrays, source_of

from brickwork.errors import CheckpointError
from brickwork.io._source import Source
from brickwork.io.formats import _numpy
from brickwork.io.formats._numpy import is_numpy, is_numpy_archive

WEIGHTS = {name: name for name in ("mlp", "lenet_bn", "tied", "embed_lstm", "dtypes")}


def load(path: str, verify: bool | None = None):
    """What is in a file, which is verified if it is one of those that can be."""
    file = FIXTURES / path
    return read(_numpy.read, file, zipfile.is_zipfile(file) if verify is None else verify).tree


def saved(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version)
    return buffer.getvalue()


def packed(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


# --- the fixtures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "lenet_bn", "tied", "embed_lstm", "dtypes"])
def test_parameters_of_mxnet(name):
    same_arrays(load(f"mxnet2/{name}.params"), expected("mxnet2", name))


def test_other_files_of_mxnet():
    x, y = expected("mxnet2", "x").values()
    same(load("mxnet2/x-file"), x)
    same_arrays(load("mxnet2/x-files"), {"arr_0": x, "arr_1": y})
    same_arrays(load("mxnet2/mydict"), {"x": x, "y": y})
    mlp = expected("mxnet2", "mlp_export")
    same_arrays(load("mxnet2/mlp_export-0000.params"), {f"arg:{name}": array for name, array in mlp.items()})
    last = {n: a for n, a in expected("mxnet2", "tied").items() if not n.startswith("1.")}
    same_arrays(load("mxnet2/tied_dedup.params"), last)


def test_sparse_arrays_become_dense():
    tree = load("mxnet2/sparse.params")
    dense = expected("mxnet2", "sparse")["dense"]
    same_arrays(tree, {"dense": dense, "rsp": tree["rsp"], "csr": dense})
    parts = expected("mxnet2", "sparse")
    np.testing.assert_array_equal(tree["rsp"][parts["rsp/indices"]], parts["rsp/data"])
    assert tree["rsp"].shape == (5, 3) and np.count_nonzero(tree["rsp"]) == np.count_nonzero(parts["rsp/data"])


def test_arrays_of_numpy():
    x = expected("keras", "x")
    same(load("keras/x-file.npy"), x["x"])
    same(load("keras/x-files.npy"), np.stack([x["x"], x["y"]]))
    same_arrays(load("keras/mydict.npz"), {"x": x["x"], "y": x["y"]})


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*/weights_*.npz")), ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_the_same_as_numpy(path):
    with np.load(path) as file:
        same_arrays(load(str(path)), dict(file))


REFUSED = {
    "keras/mydict.npy": r"an array of Python objects, which is a pickle.*np.savez\(file, name=array, ...\) instead",
    "keras/malicious_mydict.npy": "an array of Python objects, which is a pickle and may run any code",
    "mxnet2/truncated.params": "at byte 19,688: .*; the file is truncated",
    "mxnet2/corrupt_byte.params": "the bytes of the member 'hidden.weight.npy' don't match their CRC-32",
}


@pytest.mark.parametrize("path", REFUSED)
def test_refused(path):
    PWNED.unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=REFUSED[path]):
        load(path)
    assert not PWNED.exists()


def test_a_flipped_bit_is_only_found_when_asked_for():
    found, wanted = load("mxnet2/corrupt_byte.params", verify=False), load("mxnet2/mlp.params")
    assert sum(int((found[name] != wanted[name]).sum()) for name in wanted) == 1


# --- made here ------------------------------------------------------------------------------------

DTYPES = ["bool", *["b", "B", "h", "H", "i", "I", "q", "Q", "e", "f", "d", "F", "D"]]


@given(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=4), st.booleans(), st.sampled_from([1, 2, 3]))
def test_every_dtype_shape_order_and_version(code, shape, fortran, version):
    array = np.arange(np.prod(shape, dtype=int)).astype(code).reshape(shape, order="F" if fortran else "C")
    found = _numpy.read(source_of(saved(array, (version, 0)))).tree
    same(found, array)
    assert found.flags.f_contiguous == array.flags.f_contiguous


@pytest.mark.parametrize("code", [">i2", ">f4", ">f8", ">c8", ">c16"])
def test_the_other_byte_order(code):
    found = _numpy.read(source_of(saved(np.arange(5).astype(code)))).tree
    same(found, np.arange(5).astype(code[1:]))


def test_bfloat16_of_np_save():
    values = np.arange(5, dtype=ml_dtypes.bfloat16)
    same(_numpy.read(source_of(saved(values))).tree, values)


def test_views_where_they_are_aligned():
    data = np.frombuffer(saved(np.arange(5.0)), np.uint8)
    assert np.shares_memory(_numpy.read(Source("x", data)).tree, data)


def test_compressed():
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.zeros(1000), b=np.arange(3))
    same_arrays(_numpy.read(source_of(buffer.getvalue())).tree, {"a": np.zeros(1000), "b": np.arange(3)})


def test_names_are_kept_as_they_are():
    arrays = {"layer.0/weight": np.ones(1), "é": np.ones(2), "x.npy": np.ones(3)}
    same_arrays(_numpy.read(source_of(packed(**arrays))).tree, arrays)


@pytest.mark.parametrize(
    "header",
    [
        '{"descr": "<f4", "shape": (2, ), "fortran_order": False}',
        "{ 'fortran_order':False , 'shape':(2L,), 'descr' : '<f4' , }  \n",
    ],
)
def test_headers_of_other_writers(header):
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + np.ones(2, "<f4").tobytes()
    same(_numpy.read(source_of(data)).tree, np.ones(2, np.float32))


def changed(old: str, new: str) -> bytes:
    """An array of two float32 whose header says something else in the same number of characters."""
    data = saved(np.ones(2, np.float32))
    text = data[10:128].decode().rstrip()
    assert old in text
    return data[:10] + (text.replace(old, new)).ljust(117).encode() + b"\n" + data[128:]


@pytest.mark.parametrize(
    "data, match",
    [
        (changed("<f4", "<U2"), "an array of dtype '<U2', which is none of numbers or truth values"),
        (changed("<f4", "<M8[s]"), r"an array of dtype '<M8\[s\]', which is none"),
        (changed("<f4", "|O"), "an array of Python objects"),
        (changed("<f4", "<f16"), "an array of dtype '<f16', which is none"),
        (changed("'<f4'", "[('a', '<f4')]"), "a structured array; save its fields as arrays of their own"),
        (changed("'<f4'", "(2,)"), "the header has no dtype|is not one of a NumPy array"),
        (changed("(2,)", "(3,)"), "at byte 128: the array should take 12 bytes, but 8 are left; the file is truncated"),
        (changed("(2,)", "(1,)"), "at byte 132: 4 bytes follow the array"),
        (changed("(2,)", "(-2,)"), "at byte 10: the header .* is not one of a NumPy array"),
        (changed("(2,)", "(99999999999999999999,)"), "the header has the impossible shape"),
        (changed("(2,)", "(9999999999, 9999999999)"), "the header has the impossible shape"),
        (changed("(2,)", "(2,).__class__"), "is not one of a NumPy array"),
        (changed("(2,)", "__import__('os')"), "is not one of a NumPy array"),
        (changed("False", "None"), "is not one of a NumPy array"),
        (changed("'shape': (2,), ", ""), "is not one of a NumPy array"),
        (changed("'shape': (2,)", "'descr': '<f4'"), "is not one of a NumPy array"),
        (changed("{", "["), "is not one of a NumPy array"),
        (b"\x93NUMPY\x04\x00" + bytes(20), "at byte 6: the version 4 of the format"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(20), "takes 4,294,967,295 bytes; at most 10,000 are read"),
        (b"\x93NUMPY\x01\x00\xff\x00" + bytes(20), "the header should take 255 bytes, but 20 are left"),
        (b"\x93NUM", "the beginning of an array should take 6 bytes, but 4 are left"),
        (b"something else", "it does not begin as a NumPy array does"),
        (saved(np.ones(2, bool)).replace(b"\x01\x01", b"\x01\x03"), "some of its bytes are no truth values"),
    ],
)
def test_damaged(data, match):
    with pytest.raises(CheckpointError, match=match):
        _numpy.read(source_of(data))


def test_long_headers_are_matched_in_linear_time():
    for part in ("'descr': '<f4', ", "'shape': (" + "1," * 10, "'descr': [(", " ", "\t", "'"):
        header = ("{" + part * 10_000)[:9_999] + "}"
        data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
        with pytest.raises(CheckpointError, match="is not one of a NumPy array"):
            _numpy.read(source_of(data))


def test_archives_of_other_things():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"its member 'readme.txt' is no array; an .npz archive"):
        _numpy.read(source_of(buffer.getvalue()))
    with pytest.raises(CheckpointError, match=r"x, member 'a.npy': damaged NumPy file, at byte 0"):
        _numpy.read(source_of(packed(a=np.ones(2)).replace(b"\x93NUMPY", b"\x93NUMPX")))


SPARSE = {
    "s/shape": np.array([3, 2]),
    "s/indices": np.array([0, 1]),
    "s/data": np.ones(2),
    "s/indptr": np.array([0, 1, 1, 2]),
}


def sparse(kind: str, **changes: np.ndarray) -> bytes:
    arrays = SPARSE | {f"s/{name}": array for name, array in changes.items()}
    word = np.frombuffer(kind.encode(), np.uint8)  # the header of format.npy doesn't matter
    return packed(**arrays, **{"s/format": word})


def test_a_sparse_array_made_by_hand():
    tree = _numpy.read(source_of(sparse("csr"))).tree
    same_arrays(tree, {"s": np.array([[1.0, 0], [0, 0], [0, 1]])})
    rows = {"data": np.ones((2, 2)), "indices": np.array([2, 0])}
    same_arrays(_numpy.read(source_of(sparse("row_sparse", **rows))).tree, {"s": np.array([[1.0, 1], [0, 0], [1, 1]])})


@pytest.mark.parametrize(
    "data, match",
    [
        (sparse("coo"), "the sparse array 's' has the unknown format b'coo'"),
        (sparse("csr", indices=np.array([0, 2])), "'s' is malformed: its indices go beyond 2"),
        (sparse("csr", indices=np.array([0, -1])), "its indices go beyond 2"),
        (sparse("csr", indices=np.ones(2)), "its indices are not a list of integers"),
        (sparse("csr", data=np.ones(3)), "'s' is malformed: "),
        (sparse("csr", indptr=np.array([0, 2])), "it does not say where its rows begin"),
        (sparse("csr", indptr=np.array([0, 2, 1, 2])), "its rows do not follow each other"),
        (sparse("csr", indptr=np.array([0, 1, 1, 9])), "its rows do not follow each other"),
        (sparse("csr", shape=np.array([3, -2])), r"the impossible shape \[3, -2\]"),
        (sparse("csr", shape=np.array(3)), "the impossible shape 3"),
        (sparse("csr", shape=np.array([], int)), "'s' is malformed"),
        (sparse("csr", shape=np.array([2.0, 2.0])), "the impossible shape"),
        (sparse("csr", shape=np.array([2**31, 2**30])), "the impossible shape|made to exhaust memory"),
        (sparse("row_sparse"), r"2 rows of shape \(2,\) are not of shape \(2,\)"),
        (
            sparse("row_sparse", shape=np.array([2**20, 2**10])),
            "the sparse array 's' takes 8,589,934,592 bytes, .*exhaust",
        ),
    ],
)
def test_sparse_arrays_that_are_damaged(data, match):
    with pytest.raises(CheckpointError, match=match):
        _numpy.read(source_of(data))


def test_recognised_by_content():
    assert is_numpy(saved(np.ones(1))) and not is_numpy(packed(a=np.ones(1)))
    assert is_numpy_archive(["a.npy", "b/c.npy"])
    assert not is_numpy_archive([]) and not is_numpy_archive(["a.npy", "data.pkl"])
    assert re.match("numpy", _numpy.read(source_of(saved(np.ones(1)))).kind)
