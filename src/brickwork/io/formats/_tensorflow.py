"""TensorFlow's checkpoints (``.index`` and ``.data-00000-of-00001``), and tensors of ``tf.io.serialize_tensor``.

The index of a checkpoint is a table of LevelDB: sorted keys in blocks, with a block of blocks. A key is the path of a
variable, its value a message that says where the bytes are in which of the data files. The formats:
https://github.com/google/leveldb/blob/main/doc/table_format.md, and TensorFlow's ``tensor_bundle.proto``,
``tensor.proto`` and ``tensor_shape.proto``.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from ...errors import CheckpointError
from .._source import Contents, Source
from ._arrays import array_at, check_shape, typed
from ._protobuf import Field, fields, varint

__all__ = ["is_index", "is_tensor", "read"]

_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER = 48
_TRAILER = 5  # behind each block: how it is compressed, and a checksum
_MAX_KEY = 4096
_MAX_VALUES = 2**20  # bytes of values that are not in one piece
_MAX_INDEX, _TYPICAL = 8 * 2**20, 64  # bytes of what the index says of all variables, and of one
_STRING = 7
_DTYPES = {
    1: np.dtype("f4"),
    2: np.dtype("f8"),
    3: np.dtype("i4"),
    4: np.dtype("u1"),
    5: np.dtype("i2"),
    6: np.dtype("i1"),
    8: np.dtype("c8"),
    9: np.dtype("i8"),
    10: np.dtype("?"),
    14: np.dtype(ml_dtypes.bfloat16),
    17: np.dtype("u2"),
    18: np.dtype("c16"),
    19: np.dtype("f2"),
    22: np.dtype("u4"),
    23: np.dtype("u8"),
    24: np.dtype(ml_dtypes.float8_e5m2),
    25: np.dtype(ml_dtypes.float8_e4m3fn),
}


def is_index(source: Source) -> bool:
    """Whether a file is the index of a checkpoint."""
    return source.data[-8:].tobytes() == _MAGIC


def read(source: Source) -> Contents:
    """Read a checkpoint by its index, the file that ends in ``.index``, or what ``tf.io.serialize_tensor`` makes.

    The tree of a checkpoint is a dict, its data files are beside the index; of a tensor it is the array.

    Names are those of the index, such as ``hidden/kernel/.ATTRIBUTES/VARIABLE_VALUE``. Texts, like the description of
    the objects that TensorFlow puts into each checkpoint, are left out; the metadata says which.

    Raises:
        CheckpointError: it is damaged, a data file is missing, a variable is stored in slices, or a tensor does not
            hold numbers.
    """
    if not is_index(source):
        return _read_tensor(source)
    source.what = "TensorFlow checkpoint"
    if source.verify:
        source.cannot_verify("its checksums are CRC-32C, which brickwork does not compute")
    count = None
    entries: dict[str, _Entry] = {}
    left = _MAX_INDEX
    for key, at, end in _pairs(source):
        left -= max(end - at, _TYPICAL)
        if left < 0:
            source.refuse(f"its index says more about its variables than {_MAX_INDEX:,} bytes")
        if key == b"":
            count = _shard_count(source, at, end)
            continue
        name = _decoded(source, key, at)
        if name in entries:
            source.fail(at, f"two variables have the name {name!r}")
        entries[name] = _entry(source, at, end, name)
    if count is None:
        source.fail(0, "the index does not say how many data files there are")
    shards: dict[int, Source] = {}
    tree: dict[str, Any] = {}
    texts = [name for name, entry in entries.items() if entry.code == _STRING]
    for name, entry in entries.items():
        if entry.code != _STRING:
            tree[name] = _array(source, shards, count, name, entry)
    return Contents(tree, "tensorflow", {"left out": json.dumps(texts)} if texts else {})


# --- the index ------------------------------------------------------------------------------------


def _pairs(source: Source) -> Iterator[tuple[bytes, int, int]]:
    """The keys of the table, each with the place of its value."""
    footer = source.size - _FOOTER
    if footer < 0:
        source.fail(0, f"an index takes at least {_FOOTER} bytes")
    at = footer
    for _ in range(2):  # the block of the blocks about the file is not needed
        _, at = varint(source, at, source.size - 8)
    index, at = varint(source, at, source.size - 8)
    size, _ = varint(source, at, source.size - 8)
    left = source.size
    for _, place, end in _block(source, index, size):
        start, place = varint(source, place, end)
        length, _ = varint(source, place, end)
        left -= length
        if left < 0:
            source.fail(index, "the same blocks are used again and again")
        yield from _block(source, start, length)


def _block(source: Source, start: int, size: int) -> Iterator[tuple[bytes, int, int]]:
    source.view(start, size + _TRAILER, "a block")
    if source.unsigned(start + size, 1, "a block") != 0:
        source.refuse("its index is compressed, as TensorFlow never writes it")
    restarts = source.unsigned(start + size - 4, 4, "a block") if size >= 4 else 0
    end = start + size - 4 * (restarts + 1)
    if end < start:
        source.fail(start, "a block is shorter than what it should hold")
    at, key = start, b""
    while at < end:
        begin = at
        shared, at = varint(source, at, end)
        own, at = varint(source, at, end)
        length, at = varint(source, at, end)
        if shared > len(key) or shared + own > _MAX_KEY or at + own + length > end:
            source.fail(begin, "an entry of the index is longer than the key before it, or than its block")
        key = key[:shared] + source.bytes(at, own, "a key")
        source.spend(len(key), "the names of the variables")
        yield key, at + own, at + own + length
        at += own + length


def _decoded(source: Source, key: bytes, at: int) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError:
        source.fail(at, f"the name {key[:80]!r} is not UTF-8 text")


def _shard_count(source: Source, at: int, end: int) -> int:
    said = {field.number: field.value for field in fields(source, at, end) if field.wire == 0}
    if said.get(2, 0):
        source.refuse("it was written on a big-endian machine")
    return said.get(1, 0)


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a variable is."""

    code: int = 0
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0


def _entry(source: Source, at: int, end: int, name: str) -> _Entry:
    shape: tuple[int, ...] = ()
    said: dict[int, int] = {}
    for field in fields(source, at, end):
        if field.number == 2 and field.wire == 2:
            shape = _shape(source, field.at, field.at + field.size)
        elif field.number == 7:
            source.refuse(f"the variable {name!r} is stored in slices; save it whole")
        else:
            said[field.number] = field.value
    return _Entry(said.get(1, 0), shape, said.get(3, 0), said.get(4, 0), said.get(5, 0))


def _shape(source: Source, at: int, end: int) -> tuple[int, ...]:
    sizes = []
    for field in fields(source, at, end):
        if field.number == 2 and field.wire == 2:
            inner = fields(source, field.at, field.at + field.size)
            sizes.append(next((x.value for x in inner if x.number == 1 and x.wire == 0), 0))
        elif field.number == 3 and field.value:
            source.fail(field.at, "the number of axes of a tensor is not known")
    return tuple(sizes)


# --- the values -----------------------------------------------------------------------------------


def _array(source: Source, shards: dict[int, Source], count: int, name: str, entry: _Entry) -> np.ndarray:
    dtype = _DTYPES.get(entry.code)
    if dtype is None:
        source.refuse(f"the variable {name!r} has the dtype {entry.code} of TensorFlow, which has no counterpart")
    if entry.shard not in shards:
        if not 0 <= entry.shard < count:
            source.refuse(f"the variable {name!r} should be in data file {entry.shard} of {count}")
        shards[entry.shard] = _open_shard(source, entry.shard, count)
    shard, what = shards[entry.shard], f"the variable {name!r}"
    if entry.size != math.prod(entry.shape) * dtype.itemsize:
        source.refuse(f"{what} of shape {entry.shape} and dtype {dtype} can't take {entry.size:,} bytes")
    return array_at(shard, entry.offset, dtype, entry.shape, what)


def _open_shard(source: Source, shard: int, count: int) -> Source:
    if not source.path.endswith(".index"):
        source.refuse("its name does not end in '.index', so its data files can't be found; give it its name back")
    path = f"{source.path.removesuffix('.index')}.data-{shard:05d}-of-{count:05d}"
    try:
        with open(path, "rb") as file:
            found = Source.of(path, file)
    except OSError as error:
        source.refuse(f"its data file {os.path.basename(path)!r} can't be opened: {error.strerror or error}")
    found.what = "data file of a TensorFlow checkpoint"
    return found


# --- single tensors -------------------------------------------------------------------------------

# Fields of a TensorProto with typed values: the dtypes that they are for.
_TYPED = {5: "f4", 6: "f8", 7: "i4 u1 i2 i1 u2", 10: "i8", 11: "b1", 16: "u4", 17: "u8"}


def is_tensor(source: Source) -> bool:
    """Whether a file is a message with one tensor; nothing marks such a file, so it must fit in every respect."""
    if source.data[:1].tobytes() != b"\x08" or source.size < 2:
        return False
    try:
        _read_tensor(Source(source.path, source.data))
    except CheckpointError:
        return False
    return True


def _read_tensor(source: Source) -> Contents:
    source.what = "TensorFlow tensor"
    if source.verify:
        source.cannot_verify("a serialized tensor has no checksum")
    code, shape, content = 0, (), None
    values: list[Any] = []
    kinds: set[str] = set()
    for field in fields(source, 0, source.size):
        if field.number == 1 and field.wire == 0:
            code = field.value
        elif field.number == 2 and field.wire == 2:
            shape = _shape(source, field.at, field.at + field.size)
        elif field.number == 4 and field.wire == 2:
            content = field
        elif field.number in _TYPED:
            if field.size > _MAX_VALUES:
                source.refuse("it has many values one by one; save it with tf.io.serialize_tensor, which packs them")
            values.extend(_numbers(source, field))
            kinds.add(_TYPED[field.number])
        elif field.number != 3 or field.value:
            source.fail(field.at, f"a tensor of numbers has no field {field.number}")
    dtype = _DTYPES.get(code)
    if dtype is None:
        source.refuse(f"it has the dtype {code} of TensorFlow, which has no counterpart")
    try:
        size = math.prod(check_shape(shape, dtype.itemsize))
        if content is not None:
            if content.size != size * dtype.itemsize or values:
                source.fail(content.at, f"{content.size:,} bytes are no array of shape {shape} and dtype {dtype}")
            raw = source.view(content.at, content.size, "the array")
            return Contents(typed(source, raw, dtype).reshape(shape), "tensorflow")
    except ValueError as error:
        source.fail(0, str(error))
    if kinds and not (len(kinds) == 1 and dtype.str[1:] in next(iter(kinds)).split()):
        source.fail(0, f"its values are not those of the dtype {dtype}")
    return Contents(_filled(source, dtype, shape, size, values), "tensorflow")


def _numbers(source: Source, field: Field) -> list[Any]:
    """The values of a field: one, or several in a row."""
    wide = {5: np.dtype("<f4"), 6: np.dtype("<f8")}.get(field.number)
    if wide is None and field.wire in (0, 2):
        found, at, end = [], field.at, field.at + field.size
        while at < end:
            value, at = varint(source, at, end)
            found.append(value)
        return found
    if wide is None or field.wire == 0 or field.size % wide.itemsize:
        source.fail(field.at, "the values of a tensor are malformed")
    return source.view(field.at, field.size, "values").view(wide).tolist()


def _filled(source: Source, dtype: np.dtype, shape: tuple[int, ...], size: int, values: list[Any]) -> np.ndarray:
    """The array of some values, the last of which is repeated."""
    if len(values) > size or (size and not values):
        source.fail(0, f"it has {len(values):,} values for the shape {shape}")
    source.spend(size * dtype.itemsize, "the array")
    found = np.empty(size, dtype)
    if size:
        # Integers come as 64 bits, negative ones in two's complement.
        given = np.array(values, None if dtype.kind == "f" else np.uint64).astype(dtype)
        found[: len(given)], found[len(given) :] = given, given[-1]
    found.flags.writeable = False
    return found.reshape(shape)
