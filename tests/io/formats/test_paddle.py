"""PaddlePaddle's files: what Paddle wrote is read bit for bit, and what it should not have written is refused."""

from __future__ import annotations

import gc
import pickle
import struct
import weakref

import ml_dtypes
import numpy as np
import pytest
from tests.io.foreign import FIXTURES, PWNED, expected, read, same, same_arrays, source_of

from brickwork.errors import CheckpointError
from brickwork.io.formats import _paddle
from brickwork.io.formats._paddle import is_paddle

BOTH = pytest.mark.parametrize("version", ["paddle", "paddle2"])
WEIGHTS = {
    **dict.fromkeys(["mlp.pdparams", "mlp_proto2.pdparams", "mlp_proto3.pdparams"], "mlp"),
    "mlp_chunked_small_threshold.pdparams": "mlp",
    **{f"{name}.pdparams": name for name in ("lenet_bn", "tied", "embed_lstm")},
    "mydict": "x",
}


def load(version: str, name: str):
    return read(_paddle.read, FIXTURES / version / name).tree


@BOTH
@pytest.mark.parametrize("name", WEIGHTS)
def test_arrays(version, name):
    tree = load(version, name)
    assert type(tree) is dict and all(isinstance(array, np.ndarray) for array in tree.values())
    same_arrays(tree, expected(version, WEIGHTS[name]))


def dtypes(version: str) -> dict[str, np.ndarray]:
    """As Paddle gives them back: its float8 come back as int8."""
    found = expected(version, "dtypes")
    return {k: v.view(np.int8) if k.startswith("float8") else v for k, v in found.items()}


@BOTH
def test_dtypes(version):
    wanted = dtypes(version)
    same_arrays(load(version, "dtypes.pdparams"), wanted)
    same_arrays(load(version, "dtypes_proto2.pdparams"), wanted)
    tree = load(version, "dtypes_list.pdparams")
    assert type(tree) is list
    same_arrays(tree, {str(i): array for i, array in enumerate(wanted.values())})


@BOTH
def test_single_tensors_and_lists(version):
    x, y = expected(version, "x").values()
    same(load(version, "x-file"), x)
    same(load(version, "dense_tensor.pdtensor"), x)
    same(load(version, "one_parameter.pdtensor"), expected(version, "one_parameter")["value"])
    for name in ("x-files", "dense_tensor_list.pdtensor"):
        tree = load(version, name)
        assert type(tree) is list
        same_arrays(tree, {"0": x, "1": y})


@BOTH
def test_training_checkpoints(version):
    tree = load(version, "mlp_ckpt.pdparams")
    assert (list(tree), tree["epoch"], tree["loss"]) == (["epoch", "model", "optimizer", "loss"], 3, 0.5)
    wanted = expected(version, "mlp_ckpt")
    same_arrays({k: tree[k] for k in ("model", "optimizer")}, wanted)
    optimizer = {k.partition("/")[2]: v for k, v in wanted.items() if k.startswith("optimizer/")}
    same_arrays(load(version, "mlp_adam.pdopt"), optimizer)


@BOTH
def test_streams(version):
    tree = load(version, "tensor_binary.pdtensor")
    same_arrays(tree, {"0": expected(version, "tensor_binary")["value"]})
    model = expected(version, "mlp_ckpt")
    names = ["hidden.bias", "hidden.weight", "output.bias", "output.weight"]  # linear_0.b_0, linear_0.w_0, ...
    same_arrays(load(version, "mlp_jit.pdiparams"), {str(i): model[f"model/{name}"] for i, name in enumerate(names)})


@pytest.mark.parametrize("name", ["mlp.pdparams", "mlp_chunked_small_threshold.pdparams", "mlp_jit.pdiparams"])
def test_arrays_are_freed_at_once(name):
    gc.disable()
    try:
        tree = load("paddle", name)
        alive = weakref.ref(tree[0] if isinstance(tree, list) else tree["hidden.weight"])
        del tree
        assert alive() is None
    finally:
        gc.enable()


REFUSED = {
    "truncated.pdparams": "truncated.pdparams: damaged PaddlePaddle file, at byte 2: a frame of 32,19. bytes begins",
    "truncated_binary.pdtensor": "at byte 27: a tensor should take 20,480 bytes, but 12,277 are left; the file",
    "malicious_proto2.pdparams": "at byte 26. it asks for `posix system`: .*may be malicious; nothing of it was",
    "malicious_proto4.pdparams": "at byte 20. it asks for `posix system`: .*may be malicious",
    "malicious_eval.pdtensor": r"at byte 24.: builtins.eval: the file asks to evaluate \(\"__import__.*malicious",
}


@BOTH
@pytest.mark.parametrize("name", REFUSED)
def test_refused(version, name):
    PWNED.unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=REFUSED[name]):
        load(version, name)
    assert not PWNED.exists()


@BOTH
def test_a_flipped_bit_can_not_be_found(version):
    found, wanted = load(version, "corrupt_byte.pdparams"), load(version, "mlp.pdparams")
    assert sum(int((found[name] != wanted[name]).sum()) for name in wanted) == 1


@BOTH
def test_every_fixture_is_tested(version):
    names = {path.name for path in (FIXTURES / version).iterdir() if path.suffix not in (".npz", ".json", ".info")}
    tested = {"x-file", "x-files", "dense_tensor.pdtensor", "dense_tensor_list.pdtensor", "one_parameter.pdtensor"}
    tested |= {"dtypes.pdparams", "dtypes_proto2.pdparams", "dtypes_list.pdparams", "corrupt_byte.pdparams"}
    tested |= {"mlp_ckpt.pdparams", "mlp_adam.pdopt", "tensor_binary.pdtensor", "mlp_jit.pdiparams"}
    assert names - {"mlp_by_paddle.safetensors"} == tested | WEIGHTS.keys() | REFUSED.keys()


# --- pickles --------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_and_numpy(protocol):
    tree = {
        "array": np.arange(6.0).reshape(2, 3).T,
        "empty": np.zeros((0, 2), np.int16),
        "swapped": np.arange(3, dtype=">i4"),
        "bits": np.array([0x3F80], np.uint16),
        "number": np.float64(0.5),
        "pair": ("name", np.ones(1)),
        "other": ("name", 5),
        "note": None,
    }
    found = _paddle.read(source_of(pickle.dumps(tree, protocol))).tree
    same(found["array"], tree["array"])
    assert found["array"].flags.f_contiguous
    same(found["empty"], tree["empty"])
    same(found["swapped"], np.arange(3, dtype=np.int32))
    same(found["bits"], np.ones(1, ml_dtypes.bfloat16))
    same(found["pair"], np.ones(1))
    assert (found["number"], found["other"], found["note"]) == (0.5, ("name", 5), None)


def test_large_arrays_are_views_where_they_are_aligned():
    data = np.frombuffer(pickle.dumps({"x": np.zeros(10_000, np.uint8)}, 4), np.uint8)
    from brickwork.io._source import Source

    assert np.shares_memory(_paddle.read(Source("x", data)).tree["x"], data)


@pytest.mark.parametrize(
    "tree, match",
    [
        (np.array([None, {}], object), "an array of Python objects; save arrays of numbers"),
        (np.array(["text"]), "the dtype 'U4' is none of numbers or truth values"),
        (np.zeros(2, [("a", "i4")]), "the dtype 'V4'|structured"),
        (np.zeros(2, "M8[s]"), "the dtype 'M8' is none of numbers"),
        (np.float64, "`numpy float64`: paddle.save writes nothing of that kind"),
        ({"UnpackBigParamInfor@@": 5}, "the table 'UnpackBigParamInfor@@' is malformed"),
        ({"UnpackBigParamInfor@@": {"x": 5}}, "the parts of 'x': their table is malformed"),
        ({"UnpackBigParamInfor@@": {"x": {"OriginShape": (2,), "slices": ["x@@.0"]}}}, "'x': some of them are missing"),
        (
            {"p": np.zeros(3), "UnpackBigParamInfor@@": {"x": {"OriginShape": (2,), "slices": ["p"]}}},
            r"'x': they do not make an array of shape \(2,\)",
        ),
        (
            {"p": np.zeros(3), "UnpackBigParamInfor@@": {"x": {"OriginShape": "ab", "slices": ["p"]}}},
            "'x': the impossible shape 'ab'",
        ),
    ],
)
def test_other_pickles(tree, match):
    with pytest.raises(CheckpointError, match=match):
        _paddle.read(source_of(pickle.dumps(tree, 4)))


def test_bytes_after_the_pickle():
    with pytest.raises(CheckpointError, match="3 bytes follow the pickle"):
        _paddle.read(source_of(pickle.dumps({}, 4) + b"abc"))


@pytest.mark.parametrize(
    "old, new, match",
    [
        (b"K\x03\x85", b"K\x04\x85", "should take 32 bytes, but are 24"),
        (b"K\x01K\x03", b"K\x01N\x03", "the contents of an array are malformed|opcode"),
        (b"f8", b"O8", "an array of Python objects"),
        (b"f8", b"f7", "the dtype 'f7' is none of numbers"),
        (b"C\x01b", b"C\x01c", "it makes something other than a plain array"),
        (b"<", b"?", "the dtype of an array is structured, or malformed"),
    ],
)
def test_arrays_that_are_damaged(old, new, match):
    data = pickle.dumps(np.ones(3), 4)
    assert old in data
    with pytest.raises(CheckpointError, match=match):
        _paddle.read(source_of(data.replace(old, new)))


def test_an_array_without_contents():
    data = pickle.dumps(np.ones(3), 2)
    at = data.index(b"(K\x01K\x03")
    with pytest.raises(CheckpointError, match="an array has no contents"):
        _paddle.read(source_of(data[:at] + b"."))


@pytest.mark.parametrize(
    "arguments", [("data", {"data": 5}), ("data",), ("data", {"data": np.ones(1), "x": 1}), ("data", {})]
)
def test_other_uses_of_eval(arguments):
    class Evaluated:
        def __reduce__(self):
            return eval, arguments

    with pytest.raises(
        CheckpointError, match=r"builtins.eval: the file asks to evaluate \('data',\).*nothing of it was"
    ):
        _paddle.read(source_of(pickle.dumps(Evaluated(), 4)))


# --- streams --------------------------------------------------------------------------------------


TWO = np.ones(2, "<f4").tobytes()


def stream(code=5, sizes=(2,), data=TWO, levels=(), packed=False, versions=(0, 0)) -> bytes:
    message = bytes([8, code])
    if packed:
        message += bytes([0x12, len(sizes), *sizes])
    else:
        message += b"".join(bytes([0x10, n]) for n in sizes)
    detail = b"".join(struct.pack("<Q", len(level)) + level for level in levels)
    return (
        struct.pack("<LQ", versions[0], len(levels))
        + detail
        + struct.pack("<LL", versions[1], len(message))
        + message
        + data
    )


def test_streams_made_by_hand():
    wanted = {"0": np.ones(2, np.float32)}
    for data in (stream(), stream(packed=True), stream(levels=[b"12345678", b""])):
        same_arrays(_paddle.read(source_of(data)).tree, wanted)
    scalar = stream(sizes=(), data=np.float32(1).tobytes())
    same_arrays(_paddle.read(source_of(scalar + stream())).tree, {"0": np.array(1, np.float32), "1": wanted["0"]})
    half = np.ones(2, ml_dtypes.bfloat16)
    same_arrays(_paddle.read(source_of(stream(22, data=half.tobytes()))).tree, {"0": half})


@pytest.mark.parametrize(
    "data, match",
    [
        (stream(versions=(1, 0)), "at byte 0: a tensor should begin here, but its version is not 0"),
        (stream(versions=(0, 7)), "at byte 12: the version of a tensor's contents is not 0"),
        (stream(code=7), "at byte 20: a tensor has the unknown type 7"),
        (stream()[:25], "a tensor should take 8 bytes, but 1 are left; the file is truncated"),
        (stream() + b"\0\0", "the version of a tensor should take 4 bytes, but 2 are left"),
        (stream(sizes=(127,) * 60), "the impossible shape"),
        (stream(sizes=(1,) * 70), "the impossible shape"),
        (stream(code=0, data=b"\1\2"), "a tensor: some of its bytes are no truth values"),
        (stream().replace(b"\x08\x05", b"\x18\x05"), "has an unknown field"),
        (stream().replace(b"\x10\x02", b"\x10\xff"), "a number in the description of a tensor has no end"),
        (struct.pack("<LQ", 0, 2**63) + bytes(100), "the size of a level should take 8 bytes|is truncated|unknown"),
        (struct.pack("<LQQ", 0, 1, 2**63) + bytes(100), "should take 4 bytes, but 0 are left"),
        (b"", "the version of a tensor should take 4 bytes, but 0 are left"),
    ],
)
def test_streams_that_are_damaged(data, match):
    with pytest.raises(CheckpointError, match=match):
        _paddle.read(source_of(data))


def test_recognised_by_content():
    for name in ("mlp.pdparams", "mlp_proto2.pdparams", "tensor_binary.pdtensor", "mlp_jit.pdiparams"):
        assert is_paddle((FIXTURES / "paddle" / name).read_bytes()[:512])
    for name in ("torch/mlp.params", "torch/mlp.safetensors", "mxnet/mlp.params", "keras/mlp.weights.h5"):
        assert not is_paddle((FIXTURES / name).read_bytes()[:512])
