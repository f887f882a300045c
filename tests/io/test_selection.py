"""Loading a part, to a place, lazily, with checksums verified."""

from __future__ import annotations

import dataclasses
import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from jax.sharding import NamedSharding, PartitionSpec as P

from brickwork.errors import CheckpointError
from brickwork.io import load, save

STATE = {
    "embed.weight": jnp.arange(6.0).reshape(3, 2),
    "layers.0.weight": jnp.ones((8, 2)),
    "layers.0.bias": jnp.zeros(8, jnp.bfloat16),
    "layers.1.weight": jnp.full((8, 2), 2.0),
}


@pytest.fixture
def path(tmp_path):
    save(tmp_path / "x", STATE)
    return tmp_path / "x"


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert isinstance(found[name], jax.Array)
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


# --- names ----------------------------------------------------------------------------------------


def test_names_select(path):
    same(
        load(path, names=r"layers\.\d\.weight"), {k: v for k, v in STATE.items() if k.endswith("weight") and "la" in k}
    )
    same(load(path, names="embed.*"), {"embed.weight": STATE["embed.weight"]})


class Point(NamedTuple):
    x: jax.Array
    y: int


@dataclasses.dataclass
class Record:
    value: jax.Array
    note: str


def test_names_of_a_nest_are_paths(tmp_path):
    shared = jnp.ones(2)
    tree = {"a": [shared, {"b": np.arange(3)}], "p": Point(jnp.zeros(1), 3), "r": Record(shared, "hi"), 5: jnp.ones(1)}
    save(tmp_path / "x", tree)
    assert list(load(tmp_path / "x", names=".*")) == ["a.0", "a.1.b", "p.x", "r.value", "5"]
    found = load(tmp_path / "x", names=r"r\..*|a\.1\.b")
    assert isinstance(found["a.1.b"], np.ndarray)
    assert found["a.1.b"].flags.writeable
    np.testing.assert_array_equal(found["r.value"], shared)


def test_names_that_match_nothing(path):
    with pytest.raises(ValueError) as info:
        load(path, names="layers")
    assert "names=...): 'layers' matches none of the paths (embed.weight, layers.0.weight" in str(info.value)
    assert r"write r'layers\..*'" in str(info.value)
    with pytest.raises(ValueError, match=r"is not a regular expression.*for a wildcard write '\.\*'"):
        load(path, names="*")


# --- records --------------------------------------------------------------------------------------


def test_dataclasses_come_back_with_their_fields(tmp_path):
    save(tmp_path / "x", {"state": Record(jnp.arange(3), "hello")})
    found = load(tmp_path / "x")["state"]
    assert dataclasses.is_dataclass(found)
    assert type(found).__name__ == "Record"
    assert found.note == "hello"
    np.testing.assert_array_equal(found.value, [0, 1, 2])


# --- places ---------------------------------------------------------------------------------------


def test_a_device(path, devices):
    found = load(path, device=devices[3])
    same(found, STATE)
    assert {d for x in found.values() for d in x.devices()} == {devices[3]}


def test_shardings(path, devices):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, everywhere = NamedSharding(mesh, P("x")), NamedSharding(mesh, P())
    found = load(path, sharding={r"layers\..*": rows, ".*": everywhere})
    same(found, STATE)
    assert found["layers.0.weight"].sharding == found["layers.0.bias"].sharding == rows
    assert found["embed.weight"].sharding == everywhere
    found = load(path, sharding=lambda name, shape: rows if shape[0] == 8 else None)
    assert found["layers.0.weight"].sharding == rows
    assert len(found["embed.weight"].devices()) == 1
    assert load(path, sharding=everywhere)["layers.0.bias"].sharding == everywhere


def test_impossible_places(path, devices):
    place = jax.sharding.SingleDeviceSharding(devices[0])
    with pytest.raises(TypeError, match="give device= for one device or sharding= for several, not both"):
        load(path, device=devices[0], sharding=place)
    with pytest.raises(TypeError, match=r"device must be a JAX device, such as brickwork\.gpu\(0\), got 'cuda:0'"):
        load(path, device="cuda:0")
    with pytest.raises(TypeError, match=r"sharding must be a jax\.sharding\.Sharding, a dict of patterns"):
        load(path, sharding=3)
    with pytest.raises(TypeError, match="leave out device= and sharding="):
        load(path, device=devices[0], lazy=True)


# --- lazily ---------------------------------------------------------------------------------------


def test_lazy_arrays_are_views_of_the_file(path):
    found = load(path, lazy=True)
    assert list(found) == list(STATE)
    for name, value in STATE.items():
        array = found[name]
        assert type(array) is np.ndarray
        assert not array.flags.writeable
        assert not array.flags.owndata
        np.testing.assert_array_equal(array, np.asarray(value))


def test_lazy_arrays_of_numpy_are_not_copied(tmp_path):
    save(tmp_path / "x", [np.arange(3)])
    (found,) = load(tmp_path / "x", lazy=True)
    assert not found.flags.owndata


# --- checksums ------------------------------------------------------------------------------------


def test_checksums_are_those_of_the_bytes(path):
    with safetensors.safe_open(path, "np") as file:
        digits = file.metadata()["brickwork.crc32"]
    order = ["layers.0.weight", "layers.1.weight", "layers.0.bias", "embed.weight"]  # by their alignment
    assert digits == "".join(f"{zlib.crc32(np.asarray(STATE[name])):08x}" for name in order)


def test_large_tensors_have_checksums(tmp_path):
    tree = {"x": np.arange(300_000), "y": jnp.ones(500_000)}
    save(tmp_path / "x", tree)
    found = load(tmp_path / "x", verify=True)
    for name in tree:
        np.testing.assert_array_equal(found[name], tree[name])


def test_every_flipped_byte_is_found(path):
    assert load(path, verify=True).keys() == STATE.keys()
    raw = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    for offset in range(start, len(raw)):
        raw[offset] ^= 4
        path.write_bytes(raw)
        with pytest.raises(CheckpointError, match=r"bytes of tensor '.*' have the CRC-32 .* damaged since then"):
            load(path, verify=True)
        raw[offset] ^= 4


def test_the_message_of_a_damaged_tensor(path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    load(path)  # nobody asked
    with pytest.raises(CheckpointError) as info:
        load(path, verify=True)
    at = len(raw) - 24
    assert str(info.value).startswith(
        f"{path}: damaged safetensors file, at byte {at}: the 24 bytes of tensor 'embed.weight' have the CRC-32 "
    )


def test_files_without_checksums_cannot_be_verified(tmp_path):
    from safetensors.numpy import save_file

    save_file({"x": np.ones(2)}, tmp_path / "x")
    load(tmp_path / "x")
    with pytest.raises(CheckpointError, match=r"it has no checksums.*save it with bw\.save to add ch"):
        load(tmp_path / "x", verify=True)


def test_malformed_checksums(tmp_path):
    from safetensors.numpy import save_file

    save_file({"x": np.ones(2)}, tmp_path / "x", metadata={"brickwork.crc32": "123"})
    with pytest.raises(CheckpointError, match="3 digits of checksums for 1 tensors"):
        load(tmp_path / "x", verify=True)
