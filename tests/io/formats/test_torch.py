"""PyTorch's files: what PyTorch wrote is read bit for bit, and what it should not have written is refused."""

from __future__ import annotations

import gc
import io
import json
import pickle
import re
import weakref
import zipfile

import numpy as np
import pytest
from tests.io.foreign import FIXTURES, PWNED, arrays, expected, read, same, same_arrays, source_of

from brickwork.errors import CheckpointError
from brickwork.io._source import Source
from brickwork.io.formats import _torch
from brickwork.io.formats._torch import is_torch, is_torch_archive

FOLDER = FIXTURES / "torch"
WEIGHTS = {
    **dict.fromkeys(["mlp.params", "mlp_legacy.params", "mlp_proto4.params", "mlp_byteorder_last.params"], "mlp"),
    **dict.fromkeys(["mlp_rezip_no_byteorder.params", "mlp_bigendian.params", "mlp_parameters.pt"], "mlp"),
    "mlp_fp16.params": "mlp_fp16",
    "mlp_bf16.params": "mlp_bf16_bits",
    **dict.fromkeys(["lenet_bn.params", "lenet_bn_legacy.params"], "lenet_bn"),
    **dict.fromkeys(["tied.params", "tied_legacy.params"], "tied"),
    "embed_lstm.params": "embed_lstm",
    **dict.fromkeys(["dtypes.pt", "dtypes_legacy.pt"], "dtypes"),
    "dtypes_extra.pt": "dtypes_extra",
    "mydict": "x",
}


def load(name: str, verify: bool | None = None):
    """What is in a file, which is verified if it is one of those that can be."""
    path = FOLDER / name
    return read(_torch.read, path, zipfile.is_zipfile(path) if verify is None else verify).tree


@pytest.mark.parametrize("name", WEIGHTS)
def test_arrays(name):
    tree = load(name)
    assert type(tree) is dict and all(isinstance(array, np.ndarray) for array in tree.values())
    same_arrays(tree, expected("torch", WEIGHTS[name]))


def test_one_tensor_and_a_list():
    x, y = expected("torch", "x").values()
    same(load("x-file"), x)
    tree = load("x-files")
    assert type(tree) is list and len(tree) == 2
    same(tree[0], x)
    same(tree[1], y)


@pytest.mark.parametrize("name", ["mlp_ckpt.pt", "mlp_ckpt_legacy.pt"])
def test_training_checkpoints(name):
    tree = load(name)
    assert (list(tree), tree["epoch"], tree["loss"]) == (["epoch", "model", "optimizer", "loss"], 3, 0.5)
    same_arrays({k: tree[k] for k in ("model", "optimizer")}, expected("torch", "mlp_ckpt"))
    notes = json.loads((FOLDER / "notes.json").read_text())["mlp_ckpt.pt"]["param_groups"]
    groups = tree["optimizer"]["param_groups"]
    assert groups == [{**notes[0], "betas": tuple(notes[0]["betas"])}]
    assert list(tree["optimizer"]["state"]) == [0, 1, 2, 3]


def test_plain_values():
    tree = load("nested.pt")
    same(tree.pop("a")[0], np.ones(2, np.float32))
    named = {"big_int": 2**70, "neg": -7, "bytes": b"\x00\xffabc", "size": (2, 3), "dtype": "float16", "device": "cpu"}
    assert tree == named | {5: "int key", "set": {1, 2}, "cplx": 1 + 2j, "unicode": "café 中"}
    values = load("nested.pt")["a"][1]
    same(values["b"][0], np.array([0]))
    assert values["b"][1:] == (3, 2.5, None, True, "text")


def test_numpy_inside():
    tree = load("with_numpy.pt")
    same(tree["n"], np.arange(3))
    assert tree["s"] == 1.5 and type(tree["s"]) is float


# --- sharing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tied.params", "tied_legacy.params"])
def test_tied_tensors_are_one_array(name):
    tree = load(name)
    assert tree["2.weight"] is tree["4.weight"] and tree["2.bias"] is tree["4.bias"]
    assert tree["0.weight"] is not tree["2.weight"]


@pytest.mark.parametrize("name", ["dtypes.pt", "dtypes_legacy.pt"])
def test_views_keep_their_geometry(name):
    tree = load(name)
    notes = json.loads((FOLDER / "notes.json").read_text())["dtypes.pt"]["layout"]
    for view in ("transposed", "row1", "col2", "every_other"):
        assert np.shares_memory(tree["base"], tree[view])
        array, note = tree[view], notes[view]
        assert [n // array.itemsize for n in array.strides] == note["stride"]
        start = array.__array_interface__["data"][0] - tree["base"].__array_interface__["data"][0]
        assert start // array.itemsize == note["storage_offset"]
    assert tree["expanded"].strides == (0, 4)


def test_arrays_are_views_of_the_file():
    data = np.fromfile(FOLDER / "mlp.params", np.uint8)
    tree = _torch.read(Source("mlp.params", data)).tree
    assert all(np.shares_memory(array, data) for array in tree.values())


@pytest.mark.parametrize("name", ["mlp_legacy.params", "mlp.params", "mlp_bigendian.params"])
def test_arrays_are_freed_at_once(name):
    gc.disable()
    try:
        tree = load(name)
        alive = weakref.ref(tree["hidden.weight"])
        del tree
        assert alive() is None
    finally:
        gc.enable()


# --- with PyTorch itself --------------------------------------------------------------------------


def saved(value, **options) -> bytes:
    torch = pytest.importorskip("torch")
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("zipped, protocol", [(True, 1), *((z, p) for z in (True, False) for p in (2, 3, 4, 5))])
def test_every_protocol(zipped, protocol):
    torch = pytest.importorskip("torch")
    tree = {"w": torch.arange(6.0).reshape(2, 3), "n": np.arange(4).reshape(2, 2).T, "s": (1, [2], {"x"}), "e": b"\xff"}
    data = saved(tree, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert zipped or is_torch(data[:512])
    found = _torch.read(source_of(data)).tree
    same(found["w"], tree["w"].numpy())
    np.testing.assert_array_equal(found["n"], tree["n"])
    assert (found["s"], found["e"]) == (tree["s"], tree["e"])


def test_modules_of_many_kinds_give_their_state():
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.LSTM(3, 4))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}
    found = _torch.read(source_of(saved(state), verify=True)).tree
    same_arrays(found["net"], {name: value.numpy() for name, value in net.state_dict().items()})
    same(found["rng"], state["rng"].numpy())
    assert found["optimizer"]["param_groups"][0]["lr"] == 0.1


def test_objects_that_are_only_attributes(tmp_path):
    import argparse
    import pathlib
    import types

    torch = pytest.importorskip("torch")
    tensor = torch.ones(2)
    tensor.note = "dropped"  # makes PyTorch write _rebuild_from_type_v2
    value = {
        "args": argparse.Namespace(lr=0.1, layers=[1, 2]),
        "space": types.SimpleNamespace(a=1),
        "path": pathlib.PurePosixPath("/a/b"),
        "device": torch.device("cuda:1"),
        "tensor": tensor,
        "scalar": np.float32(1.5),
    }
    found = _torch.read(source_of(saved(value))).tree
    same(found.pop("tensor"), np.ones(2, np.float32))
    assert found == {
        "args": {"lr": 0.1, "layers": [1, 2]},
        "space": {"a": 1},
        "path": "/a/b",
        "device": "cuda:1",
        "scalar": 1.5,
    }


@pytest.mark.parametrize(
    "name", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"]
)
def test_float8(name):
    import ml_dtypes

    torch = pytest.importorskip("torch")
    bits = torch.arange(0, 128, dtype=torch.uint8)
    found = _torch.read(source_of(saved(bits.view(getattr(torch, name))))).tree
    same(found, bits.numpy().view(getattr(ml_dtypes, name)))


# --- old files, made by hand ----------------------------------------------------------------------


def legacy(tree: bytes, keys: list[str], storages: bytes) -> bytes:
    """A file of PyTorch before 1.6 with that pickle."""
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    return b"".join(pickle.dumps(part, 2) for part in head) + tree + pickle.dumps(keys, 2) + storages


def storage(
    key: bytes = b"7", kind: bytes = b"torch\nFloatStorage", size: bytes = b"K\x04", part: bytes = b"N"
) -> bytes:
    return b"(U\x07storagec" + kind + b"\nU" + bytes([len(key)]) + key + b"U\x06cuda:0" + size + part + b"tQ"


def tensor(storage: bytes, function: bytes = b"_rebuild_tensor", rest: bytes = b"") -> bytes:
    """Of shape (2,), from element 1 of the storage on."""
    return b"ctorch._utils\n" + function + b"\n(" + storage + b"K\x01K\x02\x85K\x01\x85" + rest + b"tR"


FOUR = (4).to_bytes(8, "little") + np.arange(4, dtype="<f4").tobytes()


@pytest.mark.parametrize(
    "pickled, wanted",
    {
        "of 0.1": (tensor(storage()), [1, 2]),
        "on a GPU": (tensor(storage(kind=b"torch.cuda\nFloatStorage")), [1, 2]),
        "part of a storage": (tensor(storage(part=b"(U\x018K\x01K\x03t")), [2, 3]),
        "parameter of 0.3": (
            b"ctorch.nn.parameter\nParameter\n" + tensor(storage()) + b"\x85R(\x88\x89NtbP"[:-1],
            [1, 2],
        ),
        "parameter of 1.0": (
            b"ctorch._utils\n_rebuild_parameter\n("
            + tensor(storage(), b"_rebuild_tensor_v2", b"\x89ccollections\nOrderedDict\n)R")
            + b"\x88ccollections\nOrderedDict\n)RtR",
            [1, 2],
        ),
    }.values(),
)
def test_old_tensors(pickled, wanted):
    data = legacy(b"\x80\x02" + pickled + b".", ["7"], FOUR)
    same(_torch.read(source_of(data)).tree, np.array(wanted, np.float32))


@pytest.mark.parametrize(
    "data, match",
    {
        "truncated": (
            legacy(b"\x80\x02" + tensor(storage()) + b".", ["7"], FOUR[:-1]),
            "'7' should take 16 bytes, but 15",
        ),
        "no storage": (legacy(b"\x80\x02" + tensor(storage()) + b".", [], b""), "its storage '7' is not in the file"),
        "rest": (
            legacy(b"\x80\x02" + tensor(storage()) + b".", ["7"], FOUR + b"x"),
            "1 bytes follow that belong to nothing",
        ),
        "unknown": (legacy(b"\x80\x02N.", ["7"], FOUR), "'7' belongs to no tensor, or is there twice"),
        "twice": (legacy(b"\x80\x02" + tensor(storage()) + b".", ["7", "7"], FOUR * 2), "'7' belongs to no tensor"),
        "another size": (
            legacy(b"\x80\x02" + tensor(storage(size=b"K\x05")) + b".", ["7"], FOUR),
            "its storage '7' should take 20 bytes, but takes 16",
        ),
        "two types": (
            legacy(b"\x80\x02" + storage() + storage(kind=b"torch\nLongStorage") + b"\x86.", ["7"], FOUR),
            "the storage '7' has two types",
        ),
        "part too large": (
            legacy(b"\x80\x02" + tensor(storage(part=b"(U\x018K\x02K\x03t")) + b".", ["7"], FOUR),
            "malformed part of a storage",
        ),
        "part too small": (
            legacy(b"\x80\x02" + tensor(storage(part=b"(U\x018K\x01K\x02t")) + b".", ["7"], FOUR),
            "elements 1 to 2 of the storage '7', which has 2",
        ),
        "keys": (legacy(b"\x80\x02N.", [1], b""), "the keys of the storages are not a list of strings"),
        "module": (
            legacy(b"\x80\x02(U\x06modulec__main__\nNet\nNNtQ.", [], b""),
            "`__main__ Net`: the file holds an object of that class, perhaps a whole module.*save net.state_dict",
        ),
        "version": (
            legacy(b"\x80\x02N.", [], b"").replace(b"M\xe9\x03.", b"M\xe8\x03.", 1),
            "version of the format is not 1001",
        ),
    }.values(),
)
def test_old_files_that_are_damaged(data, match):
    with pytest.raises(CheckpointError, match=match):
        _torch.read(source_of(data))


# --- refused --------------------------------------------------------------------------------------

REFUSED = {
    "truncated.params": "truncated.params: damaged PyTorch file, at byte 20,383: .* the file is truncated",
    "truncated_legacy.params": "the storage '94271248666992' should take 20,480 bytes, but 7,442 are left",
    "corrupt_byte.params": "at byte 1,024: the bytes of the member 'mlp/data/0' don't match their CRC-32",
    "oob_size.pt": r"shape \(200,\) consists of elements 0 to 199 of the storage '0', which has 4",
    "oob_offset.pt": r"shape \(4,\) consists of elements 3 to 6 of the storage '0', which has 4",
    "oob_numel.pt": "at byte 146: its storage '0' should take 256 bytes, but takes 16",
    "missing_storage.pt": "its storage, the member 'missing_storage/data/0', is not in the archive",
    "mlp_whole_module.pt": "`__main__ MLP`: the file holds an object of that class, perhaps a whole module.*state_dict",
    "sparse_coo.pt": r"_rebuild_sparse_tensor`: a sparse tensor; in PyTorch, save x.to_dense\(\) instead",
    "quantized.pt": r"_rebuild_qtensor`: a quantized tensor; in PyTorch, save x.dequantize\(\)",
    "torchscript.pt": r"TorchScript program; .*torch.save\(torch.jit.load\(file\).state_dict\(\), new_file\)",
    "malicious_zip.pt": "member 'malicious_zip/data.pkl': .* at byte 181 it asks for `posix system`: .*malicious",
    "malicious_legacy.pt": "at byte 332 it asks for `posix system`: .*may be malicious",
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    PWNED.unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=REFUSED[name]):
        load(name)
    assert not PWNED.exists()


def test_every_fixture_is_tested():
    others = re.compile(r".*\.(npz|json|safetensors)$")
    names = {path.name for path in FOLDER.iterdir() if not others.match(path.name)}
    tested = {"x-file", "x-files", "mlp_ckpt.pt", "mlp_ckpt_legacy.pt", "nested.pt", "with_numpy.pt"}
    assert names == tested | WEIGHTS.keys() | REFUSED.keys()


def test_a_flipped_bit_is_only_found_when_asked_for():
    found, wanted = load("corrupt_byte.params", verify=False), load("mlp.params")
    assert (found["hidden.weight"] != wanted["hidden.weight"]).sum() == 1


def test_tar_files_are_refused():
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            tar.addfile(tarfile.TarInfo(name))
    assert is_torch(buffer.getvalue()[:512])
    with pytest.raises(CheckpointError, match=r"tar format of PyTorch before 0\.1\.10; load it with PyTorch and save"):
        _torch.read(source_of(buffer.getvalue()))


def rewritten(change, source: str = "mlp.params") -> bytes:
    """A fixture with other members: ``change`` gets and returns a dict of them."""
    with zipfile.ZipFile(FOLDER / source) as old:
        members = change({name: old.read(name) for name in old.namelist()})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as new:
        for name, data in members.items():
            new.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda m: m | {"mlp/byteorder": b"middle"}, "its byte order is b'middle', neither little nor big"),
        (lambda m: m | {"other/data.pkl": b""}, "should have one member data.pkl, but has 2"),
        (lambda m: {"x": b""}, "should have one member data.pkl, but has 0; it is no file of torch.save"),
        (lambda m: m | {"mlp/data.pkl": m["mlp/data.pkl"] + b"more"}, "data.pkl': .*4 bytes follow the pickle"),
        (
            lambda m: m | {"mlp/data.pkl": m["mlp/data.pkl"].replace(b"FloatStorage", b"QInt8Storage")},
            "convert what has it",
        ),
        (
            lambda m: m | {"mlp/data.pkl": m["mlp/data.pkl"].replace(b"X\x07\0\0\0storage", b"X\x07\0\0\0Storage")},
            "not the id of",
        ),
        (lambda m: m | {"mlp/data/1": b"short"}, "'hidden.bias': its storage '1' should take 1,024 bytes, but takes 5"),
        (
            lambda m: m | {"mlp/data.pkl": m["mlp/data.pkl"].replace(b"K\x14\x86", b"K\xff\x86", 1)},
            "'hidden.weight': .*elements",
        ),
    ],
)
def test_archives_that_are_damaged(change, match):
    with pytest.raises(CheckpointError, match=match):
        _torch.read(source_of(rewritten(change), verify=True))


def test_tensors_that_repeat_one_element():
    torch = pytest.importorskip("torch")
    small = saved(torch.ones(1).expand(1000, 1000))
    assert _torch.read(source_of(small)).tree.shape == (1000, 1000)
    large = saved(torch.ones(1).expand(2**20, 2**20))
    with pytest.raises(
        CheckpointError, match="a tensor that repeats elements of its storage takes 4,398,046,511,100 bytes"
    ):
        _torch.read(source_of(large))


def test_strides_and_shapes_that_are_impossible():
    start = b"\x80\x02ctorch._utils\n_rebuild_tensor\n(" + storage()
    for rest, match in {
        b"K\x01K\x02\x85K\x01K\x01\x86": "the strides (1, 1) for the shape (2,)",
        b"K\x01K\x02\x85J\xff\xff\xff\xff\x85": "the strides (-1,) for the shape (2,)",
        b"K\x01J\xff\xff\xff\xff\x85K\x01\x85": "the impossible shape (-1,)",
        b"J\xff\xff\xff\xffK\x02\x85K\x01\x85": "consists of elements -1 to 0",
        b"K\x01\x8a\x08" + b"\xff" * 7 + b"\x3f\x85K\x01\x85": "the impossible shape (4611686018427387903,)",
        b"K\x01K\x02\x85\x8a\x08" + b"\xff" * 7 + b"\x7f\x85": "consists of elements 1 to 9,223,372,036,854,775,808",
    }.items():
        with pytest.raises(CheckpointError, match=re.escape(match)):
            _torch.read(source_of(legacy(start + rest + b"tR.", ["7"], FOUR)))


def test_truth_values():
    torch = pytest.importorskip("torch")
    data = saved({"mask": torch.tensor([True, False, True])})
    at = data.index(b"\x01\x00\x01")
    with pytest.raises(CheckpointError, match="'mask': some of its bytes are no truth values"):
        _torch.read(source_of(data[:at] + b"\x02" + data[at + 1 :]))


def test_recognised_by_content():
    assert is_torch((FOLDER / "mlp_legacy.params").read_bytes()[:512])
    assert not is_torch((FIXTURES / "paddle" / "mlp.pdparams").read_bytes()[:512])
    assert is_torch_archive(["a/data.pkl", "a/version"]) and is_torch_archive(["data.pkl"])
    assert not is_torch_archive(["x.npy"]) and not is_torch_archive(["config.json", "model.weights.h5"])
    with pytest.raises(CheckpointError, match=r"at byte 0: it does not begin as a file of torch.save does"):
        _torch.read(source_of(b"something else"))
    assert dict(arrays(load("x-files"))).keys() == {"0", "1"}
