"""The safetensors container: others read ours, we read theirs, damage is found."""

from __future__ import annotations

import json
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from brickwork.errors import CheckpointError
from brickwork.io import load, save

safetensors = pytest.importorskip("safetensors")
numpy_side = pytest.importorskip("safetensors.numpy")


def write(path, header, data=b"", length=None):
    """A file from its parts, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + text + data)
    return path


def tensor(dtype="F32", shape=(2,), offsets=(0, 8), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


# --- interoperation -------------------------------------------------------------------------------

KNOWN_TO_NUMPY = [
    *("float64", "float32", "float16", "complex64", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
]


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)])
def test_safetensors_reads_ours(tmp_path, shape):
    tree = {dtype: np.ones(shape, dtype) for dtype in KNOWN_TO_NUMPY}
    save(tmp_path / "x", tree, metadata={"author": "me"})
    found = numpy_side.load_file(tmp_path / "x")
    assert found.keys() == tree.keys()
    for dtype, values in tree.items():
        assert (found[dtype].dtype, found[dtype].shape) == (values.dtype, shape)
        np.testing.assert_array_equal(found[dtype], values)
    with safetensors.safe_open(tmp_path / "x", "np") as file:
        assert file.metadata()["author"] == "me"
        assert file.metadata().keys() == {"author", "brickwork", "brickwork.crc32"}


def test_we_read_those_of_safetensors(tmp_path):
    with jax.enable_x64(True):
        tree = {dtype: np.arange(6).reshape(2, 3).astype(dtype) for dtype in KNOWN_TO_NUMPY}
        numpy_side.save_file(tree, tmp_path / "x", metadata={"a": "b"})
        found, info = load(tmp_path / "x", with_metadata=True)
        assert found.keys() == tree.keys()
        for dtype, values in tree.items():
            assert isinstance(found[dtype], jax.Array)
            assert found[dtype].dtype == values.dtype
            np.testing.assert_array_equal(found[dtype], values)
    assert (info.kind, info.metadata, info.aliases) == ("safetensors", {"a": "b"}, {})


def test_torch_reads_ours(tmp_path):
    torch = pytest.importorskip("torch")
    torch_side = pytest.importorskip("safetensors.torch")
    tree = {"half": jnp.ones((2, 3), jnp.bfloat16), "f8": jnp.ones(3, jnp.float8_e4m3fn)}
    tree |= {"f32": jnp.arange(3.0), "zero": jnp.float32(2), "empty": jnp.zeros((0, 3))}
    save(tmp_path / "x", tree)
    found = torch_side.load_file(tmp_path / "x")
    assert (found["half"].dtype, found["half"].shape) == (torch.bfloat16, (2, 3))
    assert (found["f8"].dtype, found["zero"].shape) == (torch.float8_e4m3fn, ())
    assert found["empty"].shape == (0, 3)
    np.testing.assert_array_equal(found["f32"], [0, 1, 2])


def test_we_read_those_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    torch_side = pytest.importorskip("safetensors.torch")
    tree = {"half": torch.ones(2, 3, dtype=torch.bfloat16), "n": torch.tensor(7)}
    tree |= {
        "f8": torch.ones(3).to(torch.float8_e5m2),
        "w": torch.randn(3, 4),
        "c": torch.ones(3) > 0,
    }
    torch_side.save_file(tree, tmp_path / "x")
    found = load(tmp_path / "x")
    assert (found["half"].dtype, found["f8"].dtype) == (jnp.bfloat16, jnp.float8_e5m2)
    np.testing.assert_array_equal(found["w"], tree["w"].numpy())
    assert isinstance(found["n"], np.ndarray)  # 64 bits, which JAX cannot hold by default
    assert (found["n"].dtype, int(found["n"])) == (np.int64, 7)


def test_ties_that_torch_recorded(tmp_path):
    torch = pytest.importorskip("torch")
    torch_side = pytest.importorskip("safetensors.torch")
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    net[1].weight = net[0].weight
    torch_side.save_model(net, str(tmp_path / "x"))
    found, info = load(tmp_path / "x", with_metadata=True)
    assert len(found) == 3
    assert {*info.aliases, *info.aliases.values()} == {"0.weight", "1.weight"}


def test_packed_4_bit_floats(tmp_path):
    path = write(tmp_path / "x", {"x": tensor("F4", (2, 2), (0, 2))}, bytes([0x21, 0xF4]))
    found = load(path)["x"]
    assert found.dtype == ml_dtypes.float4_e2m1fn
    assert found.astype(jnp.float32).tolist() == [[0.5, 1.0], [2.0, -6.0]]


def test_tensors_are_aligned_for_jax(tmp_path):
    tree = {"a": np.ones(3, bool), "b": jnp.ones(64), "c": np.ones(5), "d": jnp.ones((8, 4))}
    save(tmp_path / "x", tree)
    raw = (tmp_path / "x").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert (8 + length) % 64 == 0
    header = json.loads(raw[8 : 8 + length])
    assert header["b"]["data_offsets"][0] % 64 == header["d"]["data_offsets"][0] % 64 == 0
    assert header["c"]["data_offsets"][0] % 8 == 0
    assert list(load(tmp_path / "x")) == ["a", "b", "c", "d"]


def test_unaligned_tensors_of_others(tmp_path):
    values = np.arange(3.0)
    header = {"a": tensor("U8", (1,), (0, 1)), "b": tensor("F64", (3,), (1, 25))}
    header |= {"c": tensor("F32", (1,), (25, 29))}
    data = b"\x07" + values.tobytes() + np.float32(5).tobytes()
    found = load(write(tmp_path / "x", header, data))
    np.testing.assert_array_equal(found["b"], values)
    assert (int(found["a"][0]), float(found["c"][0])) == (7, 5.0)


def test_empty_tensors_and_none(tmp_path):
    header = {"a": tensor("F32", (0, 5), (0, 0)), "b": tensor("U8", (1,), (0, 1))}
    header |= {"c": tensor("F64", (0,), (1, 1))}
    assert load(write(tmp_path / "x", header, b"\x01"))["a"].shape == (0, 5)
    assert load(write(tmp_path / "y", {})) == {}
    assert load(write(tmp_path / "z", b"{}      ")) == {}


# --- damage ---------------------------------------------------------------------------------------


@pytest.fixture
def good(tmp_path):
    tree = {"w": jnp.arange(12.0).reshape(3, 4), "b": jnp.ones(4, bool), "n": [1, "two", (3.0,)]}
    save(tmp_path / "good", tree)
    return (tmp_path / "good").read_bytes()


def test_truncated_anywhere(tmp_path, good):
    for size in [*range(100), *range(100, len(good), 7), len(good) - 1]:
        (tmp_path / "x").write_bytes(good[:size])
        with pytest.raises(CheckpointError):
            load(tmp_path / "x")


def test_extended(tmp_path, good):
    (tmp_path / "x").write_bytes(good + b"\0")
    with pytest.raises(CheckpointError, match="1 bytes follow that belong to no tensor"):
        load(tmp_path / "x")


def test_flipped_header_bytes(tmp_path, good):
    """Damage is an error of ours or harmless, never any other exception."""
    length = int.from_bytes(good[:8], "little")
    rng = np.random.default_rng(0)
    failures = 0
    for position in [*range(16), *rng.integers(8, 8 + length, 400)]:
        damaged = bytearray(good)
        damaged[position] ^= 1 << rng.integers(8)
        (tmp_path / "x").write_bytes(damaged)
        try:
            load(tmp_path / "x")
        except CheckpointError:
            failures += 1
    assert failures > 250


@pytest.mark.parametrize(
    ("header", "offset", "reason"),
    [
        (b"{]", 9, "the header is not valid JSON: Expecting property name enclosed in double"),
        ('{"é": }'.encode(), 15, "the header is not valid JSON: Expecting value"),
        (b'{"\xff": 1}', 10, "the header is not UTF-8 text"),
        (b"{" + b'"a":{' * 50_000, 8, "the header is n"),
        (b'{"a":NaN}', 8, "the header is not valid: NaN is not JSON"),
        (b'{"a":1,"a":1}', 8, "the header is not valid: an object names the same key twice"),
        (b'{"a":' + b"1" * 5000 + b"}", 8, "the header is not valid: Exceeds the limit"),
        ({"__metadata__": []}, 8, "__metadata__ is not an object of strings"),
        ({"__metadata__": {"a": 1}}, 8, "__metadata__ is not an object of strings"),
        ({"x": 1}, 8, "tensor 'x' lacks dtype, shape or data_offsets"),
        ({"x": {"dtype": "F32"}}, 8, "tensor 'x' lacks dtype, shape or data_offsets"),
        ({"x": tensor("F31")}, 8, "tensor 'x' has the unknown dtype 'F31'"),
        ({"x": tensor([])}, 8, "tensor 'x' has the unknown dtype []"),
        ({"x": tensor("F6_E2M3")}, 8, "tensor 'x' has the unknown dtype 'F6_E2M3'"),
        ({"x": tensor(shape=(-2,))}, 8, "tensor 'x' has the impossible shape [-2]"),
        ({"x": tensor(shape=(2.0,))}, 8, "tensor 'x' has the impossible shape [2.0]"),
        ({"x": tensor(shape=(True,))}, 8, "tensor 'x' has the impossible shape [True]"),
        ({"x": tensor(shape=(2**63,))}, 8, "tensor 'x' has the impossible shape [9223372036854"),
        ({"x": tensor(shape=(2**62, 8))}, 8, "tensor 'x' has the impossible shape [461168601842"),
        ({"x": tensor(shape=(0, 2**62), offsets=(0, 0))}, 8, "tensor 'x' has the impossible shape"),
        ({"x": tensor(shape=[1] * 65)}, 8, "tensor 'x' has the impossible shape [1, 1, 1,"),
        ({"x": tensor(offsets=(8, 0))}, 8, "tensor 'x' has the impossible data_offsets [8, 0]"),
        ({"x": tensor(offsets=(0,))}, 8, "tensor 'x' has the impossible data_offsets [0]"),
        ({"x": tensor(offsets=(-8, 0))}, 8, "tensor 'x' has the impossible data_offsets [-8, 0]"),
        ({"x": {**tensor(), "shape": 3}}, 8, "tensor 'x' has the impossible shape 3"),
        (
            {"x": tensor(shape=(3,))},
            64,
            "tensor 'x' of shape (3,) and dtype F32 takes 12 bytes, but its data_offsets [0, 8] span 8",
        ),
        ({"x": tensor("F4", (3,), (0, 1))}, 62, "tensor 'x' of shape (3,) and dtype F4 takes 1 "),
        (
            {"x": tensor(), "y": tensor(offsets=(4, 12))},
            129,
            "tensor 'y' overlaps tensor 'x', which ends at offset 8",
        ),
        (
            {"x": tensor(), "y": tensor(offsets=(9, 17))},
            129,
            "tensor 'y' leaves a gap after tensor 'x', which ends at offset 8",
        ),
        (
            {"x": tensor(offsets=(4, 12))},
            69,
            "tensor 'x' leaves a gap after the header, which ends at offset 0",
        ),
        (
            {"x": tensor(shape=(20,), offsets=(0, 80))},
            86,
            "the file ends here, but its header describes 60 more bytes; it was truncated, perhaps "
            "by an interrupted copy",
        ),
        (
            {"x": tensor("BOOL", (20,), (0, 20))},
            67,
            "some of its bytes are no values of dtype",
        ),
    ],
)
def test_what_is_wrong_and_where(tmp_path, header, offset, reason):
    path = write(tmp_path / "x", header, bytes(range(20)))
    start = f"{path}: damaged safetensors file, at byte "
    with pytest.raises(CheckpointError, match=f"^{re.escape(start)}") as caught:
        load(path)
    message = str(caught.value).removeprefix(start)
    assert reason in message
    if len(str(header)) < 1000:
        assert int(message.split(":")[0]) in range(offset - 12, offset + 13)


def test_impossible_header_lengths(tmp_path):
    path = write(tmp_path / "x", b"{}", length=2**63)
    message = "at byte 0: the header should be 9,223,372,036,854,775,808 bytes long, but only 2 "
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load(path)
    with open(path, "r+b") as file:
        file.truncate(200_000_000)  # a hole: takes no space
        file.write((150_000_000).to_bytes(8, "little"))
    message = "at byte 0: the header is 150,000,000 bytes long; at most 100,000,000 are allowed"
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load(path)


def test_headers_that_no_reader_would_take(tmp_path, monkeypatch):
    monkeypatch.setattr("brickwork.io._container.MAX_HEADER", 1000)
    message = "names and structure take .* bytes; a safetensors header holds at most 1,000"
    with pytest.raises(CheckpointError, match=message):
        save(tmp_path / "x", {"x" * 500: jnp.ones(3)})
    assert not list(tmp_path.iterdir())
