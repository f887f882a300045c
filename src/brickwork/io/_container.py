"""The safetensors container: named tensors behind a JSON header.

A file is eight bytes with the length of the header (little endian), the header, and the tensors'
bytes one after the other without gaps. This reader and writer exist beside the ``safetensors``
package because brickwork maps files into memory, checks everything that a file says before it
believes it, writes without a second copy in memory, and stores dtypes that the format lacks.
"""

from __future__ import annotations

import collections
import io
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

import ml_dtypes
import numpy as np

from ..errors import CheckpointError
from ._source import Source

__all__ = [
    "CHECKSUMS",
    "Container",
    "Tensor",
    "is_native",
    "is_storable",
    "read_container",
    "restore",
    "write_container",
]

CHECKSUMS = "brickwork.crc32"  # metadata: CRC-32 of each tensor's bytes, 8 hex digits each, in the order of the data
MAX_HEADER = 100_000_000  # bytes; the limit of the format
ALIGNMENT = 64  # of the data in files we write: XLA's CPU backend uses such memory as it is
_WORTH_A_THREAD = 1 << 18  # bytes
_MAX_WAITING = 1 << 25  # bytes
_MAX_NDIM = 64  # NumPy's
_MAX_SIZE = 2**63

_NATIVE = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "C64": "complex64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
# Dtypes that the format lacks, and what they are stored as: complex128 as pairs, integers as wider
# integers, floats as bytes.
_STORED_AS = {
    "complex128": "F64",
    "int4": "I8",
    "int2": "I8",
    "int1": "I8",
    "uint4": "U8",
    "uint2": "U8",
    "uint1": "U8",
    "float4_e2m1fn": "U8",
    "float6_e2m3fn": "U8",
    "float6_e3m2fn": "U8",
    "float8_e3m4": "U8",
    "float8_e4m3": "U8",
    "float8_e4m3b11fnuz": "U8",
}
# What may be stored for dtypes that use less than their byte.
_RANGES = {
    "bool": (0, 1),
    "int4": (-8, 7),
    "int2": (-2, 1),
    "int1": (-1, 0),
    "uint4": (0, 15),
    "uint2": (0, 3),
    "uint1": (0, 1),
    "float4_e2m1fn": (0, 15),
    "float6_e2m3fn": (0, 63),
    "float6_e3m2fn": (0, 63),
}


def _named_dtype(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name, name))


_DTYPES = {code: _named_dtype(name) for code, name in _NATIVE.items()}
_CODES = {name: code for code, name in _NATIVE.items()}


def is_native(dtype: np.dtype) -> bool:
    """Whether safetensors has ``dtype`` itself."""
    return dtype.name in _CODES


def is_storable(dtype: np.dtype) -> bool:
    """Whether ``dtype`` can be stored in some way."""
    return is_native(dtype) or dtype.name in _STORED_AS


@dataclass(frozen=True)
class Tensor:
    """A tensor to be written. ``fetch`` returns its values when their turn comes.

    ``held`` says that these are in host memory anyway, so that a reference to them costs nothing.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    fetch: Callable[[], np.ndarray]
    held: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return math.prod(self.shape) * self.dtype.itemsize


# --- writing --------------------------------------------------------------------------------------


def write_container(file: BinaryIO, tensors: dict[str, Tensor], metadata: dict[str, str]) -> int:
    """Write a whole container into ``file``, which is empty, one tensor in memory at a time.

    Tensors are placed by the largest power of two that divides their sizes, so that all of them
    are aligned although the format allows no padding between them. Their checksums are part of the metadata; being
    known last, they are filled in last.

    Returns:
        The CRC-32 of the header with the eight bytes before it; it stands for the whole file, by the checksums.
    """
    ordered = {name: tensors[name] for name in sorted(tensors, key=lambda name: -_divisor(tensors[name].nbytes))}
    file.write(_header(ordered, {**metadata, CHECKSUMS: "0" * 8 * len(ordered)}))
    with _Checksums() as checksums:
        for name, tensor in ordered.items():
            values = _stored(name, tensor)
            checksums.add(values, held=tensor.held)
            file.write(values)
        if checksums.pending:
            _sync(file)  # in the meantime
        digits = "".join(f"{n:08x}" for n in checksums.results())
    header = _header(ordered, {**metadata, CHECKSUMS: digits})
    file.seek(0)
    file.write(header)
    file.seek(0, 2)
    return zlib.crc32(header)


def _stored(name: str, tensor: Tensor) -> memoryview:
    """The bytes of a tensor."""
    values = np.ascontiguousarray(tensor.fetch(), tensor.dtype)
    if _is_small_integer(tensor.dtype.name):
        values = values.astype(_DTYPES[_STORED_AS[tensor.dtype.name]])
    if values.nbytes != tensor.nbytes:
        raise RuntimeError(f"tensor {name!r} changed its size while it was saved")
    return values.reshape(-1).view(np.uint8).data


def _sync(file: BinaryIO) -> None:
    file.flush()
    try:
        descriptor = file.fileno()
    except io.UnsupportedOperation:  # not on a disk
        return
    os.fsync(descriptor)


class _Checksums:
    """Checksums of one tensor after the other, computed on another thread while the system writes."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "brickwork-checksum")
        self._found: list[int | Future[int]] = []
        self._waiting: collections.deque[tuple[Future[int], int]] = collections.deque()
        self._bytes = 0  # that are in memory for a checksum only

    def __enter__(self) -> _Checksums:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, data: memoryview, held: bool) -> None:
        """Let one be computed. ``held`` says that the bytes are in memory in any case."""
        if len(data) < _WORTH_A_THREAD:
            self._found.append(zlib.crc32(data))
            return
        try:
            future = self._pool.submit(zlib.crc32, data)
        except RuntimeError:  # the interpreter is about to end, and starts no threads
            self._found.append(zlib.crc32(data))
            return
        self._found.append(future)
        self._waiting.append((future, 0 if held else len(data)))
        self._bytes += self._waiting[-1][1]
        while self._bytes > _MAX_WAITING:
            first, size = self._waiting.popleft()
            first.result()
            self._bytes -= size

    @property
    def pending(self) -> bool:
        """Whether some are not known yet."""
        return any(not future.done() for future, _ in self._waiting)

    def results(self) -> list[int]:
        """All of them, in order."""
        return [found if isinstance(found, int) else found.result() for found in self._found]


def _is_small_integer(dtype_name: str) -> bool:
    return "int" in dtype_name and dtype_name in _STORED_AS


def _divisor(nbytes: int) -> int:
    return math.gcd(nbytes, ALIGNMENT)


def _header(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for name, tensor in tensors.items():
        code, shape = _CODES.get(tensor.dtype.name), list(tensor.shape)
        if code is None:
            code = _STORED_AS[tensor.dtype.name]
            shape += [2] if code == "F64" else []
        end = offset + tensor.nbytes
        entries[name] = {"dtype": code, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % ALIGNMENT)
    if len(text) > MAX_HEADER:
        raise CheckpointError(
            f"names and structure take {len(text):,} bytes; a safetensors header holds at most "
            f"{MAX_HEADER:,}. Put many small values into arrays, or save several files"
        )
    return len(text).to_bytes(8, "little") + text


# --- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Container:
    """What a file contains. The arrays are read-only views of the mapped file."""

    path: str
    tensors: dict[str, np.ndarray]
    metadata: dict[str, str]


@dataclass(frozen=True)
class _Entry:
    name: str
    code: str
    shape: tuple[int, ...]
    start: int
    stop: int


class _Reader:
    """Reads one file; holds what the messages need."""

    def __init__(self, source: Source) -> None:
        self.source, self.size, self.data_start = source, source.size, 8
        self.fail = source.fail

    def header(self, data: Any) -> dict[str, Any]:
        """The parsed header."""
        length = int.from_bytes(data[:8], "little")
        if length > self.size - 8:
            self.fail(
                0,
                f"the header should be {length:,} bytes long, but only {self.size - 8:,} follow; "
                "the file is truncated or its first bytes are damaged",
            )
        if length > MAX_HEADER:
            self.fail(0, f"the header is {length:,} bytes long; at most {MAX_HEADER:,} are allowed")
        self.data_start = 8 + length
        return self._parse(bytes(data[8 : 8 + length]))

    def _parse(self, raw: bytes) -> dict[str, Any]:
        text = ""
        try:
            text = raw.decode("utf-8")
            header = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
        except UnicodeDecodeError as error:
            self.fail(8 + error.start, "the header is not UTF-8 text")
        except json.JSONDecodeError as error:
            at = 8 + len(text[: error.pos].encode())
            self.fail(at, f"the header is not valid JSON: {error.msg}")
        except RecursionError:
            self.fail(8, "the header is nested too deeply")
        except ValueError as error:  # from the hooks, or an integer of thousands of digits
            self.fail(8, f"the header is not valid: {error}")
        if not isinstance(header, dict):
            self.fail(8, "the header is not a JSON object")
        return header

    def metadata(self, header: dict[str, Any]) -> dict[str, str]:
        found = header.pop("__metadata__", None)
        found = {} if found is None else found
        if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
            self.fail(8, "__metadata__ is not an object of strings")
        return found

    def entry(self, name: str, fields: Any) -> _Entry:
        """One tensor's description, checked by itself."""
        if not isinstance(fields, dict) or not {"dtype", "shape", "data_offsets"} <= fields.keys():
            self.fail(8, f"tensor {name!r} lacks dtype, shape or data_offsets")
        code, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
        if code != "F4" and (not isinstance(code, str) or code not in _DTYPES):
            self.fail(8, f"tensor {name!r} has the unknown dtype {code!r}")
        if not _are_sizes(shape) or len(shape) > _MAX_NDIM:
            self.fail(8, f"tensor {name!r} has the impossible shape {_short(shape)}")
        if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            self.fail(8, f"tensor {name!r} has the impossible data_offsets {_short(offsets)}")
        bits = 4 if code == "F4" else 8 * _DTYPES[code].itemsize
        # NumPy counts the bytes of an empty array without its empty axes.
        if math.prod(n for n in shape if n) * bits >= 8 * _MAX_SIZE:
            self.fail(8, f"tensor {name!r} has the impossible shape {_short(shape)}")
        start, stop = offsets
        need, odd = divmod(math.prod(shape) * bits, 8)
        if odd or need != stop - start:
            at = self.data_start + start
            self.fail(
                at,
                f"tensor {name!r} of shape {tuple(shape)} and dtype {code} takes {need:,} bytes, "
                f"but its data_offsets {offsets} span {stop - start:,}",
            )
        return _Entry(name, code, tuple(shape), start, stop)

    def check_layout(self, entries: Iterable[_Entry]) -> None:
        """The tensors must cover the data exactly: no overlap, no gap, no rest, nothing missing."""
        end, previous = 0, ""
        for entry in sorted(entries, key=lambda e: (e.start, e.stop)):
            if entry.start != end:
                what = "overlaps" if entry.start < end else "leaves a gap after"
                before = f"tensor {previous!r}" if previous else "the header"
                at = self.data_start + entry.start
                self.fail(at, f"tensor {entry.name!r} {what} {before}, which ends at offset {end}")
            end, previous = entry.stop, entry.name
        have = self.size - self.data_start
        if end > have:
            self.fail(
                self.size,
                f"the file ends here, but its header describes {end - have:,} more bytes; it was "
                "truncated, perhaps by an interrupted copy",
            )
        if end < have:
            self.fail(self.data_start + end, f"{have - end:,} bytes follow that belong to no tensor")

    def array(self, data: np.ndarray, entry: _Entry) -> np.ndarray:
        raw = data[self.data_start + entry.start : self.data_start + entry.stop]
        if entry.code == "F4":
            nibbles = np.stack([raw & 15, raw >> 4], axis=-1)
            return _read_only(nibbles.view(ml_dtypes.float4_e2m1fn).reshape(entry.shape))
        try:
            return _view(raw, _DTYPES[entry.code], entry.shape)
        except ValueError as error:
            self.fail(self.data_start + entry.start, f"tensor {entry.name!r}: {error}")


def read_container(source: Source, header_checksum: int | None = None) -> Container:
    """Check all that a file says about itself, and with ``source.verify`` its bytes.

    Args:
        source: the file, of at least 8 bytes.
        header_checksum: what :func:`write_container` returned, if that is known; compared when verifying.

    Raises:
        CheckpointError: whatever is wrong with the file, and at which byte; or it is to be verified, and has no
            checksums.
    """
    source.what = "safetensors file"
    reader = _Reader(source)
    header = reader.header(source.data)
    metadata = reader.metadata(header)
    entries = [reader.entry(name, fields) for name, fields in header.items()]
    reader.check_layout(entries)
    container = Container(source.path, {e.name: reader.array(source.data, e) for e in entries}, metadata)
    if source.verify:
        _verify(reader, entries, metadata.get(CHECKSUMS), header_checksum)
    return container


def _verify(reader: _Reader, entries: list[_Entry], checksums: str | None, header_checksum: int | None) -> None:
    """Compare the bytes of a file with their checksums."""
    source, start = reader.source, reader.data_start
    if header_checksum is not None and zlib.crc32(source.data[:start].data) != header_checksum:
        reader.fail(0, f"its header has another CRC-32 than the {header_checksum:08x} of what was written")
    if checksums is None:
        source.cannot_verify("it has no checksums, since another tool or an older brickwork wrote it")
    if len(checksums) != 8 * len(entries):
        reader.fail(8, f"{len(checksums)} digits of checksums for {len(entries)} tensors")
    for i, entry in enumerate(entries):
        found = f"{zlib.crc32(source.data[start + entry.start : start + entry.stop].data):08x}"
        expected = checksums[8 * i : 8 * i + 8]
        if found != expected:
            reader.fail(
                start + entry.start,
                f"the {entry.stop - entry.start:,} bytes of tensor {entry.name!r} have the CRC-32 {found}, but "
                f"{expected} when they were written; the file was damaged since then",
            )


def _view(raw: np.ndarray, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """``raw`` bytes as an array, without a copy unless the processor needs one."""
    _check_range(raw, dtype.name)
    array = raw.view(dtype).reshape(shape)
    return array if array.flags.aligned else _read_only(array.copy())


def _check_range(stored: np.ndarray, dtype_name: str) -> None:
    low, high = _RANGES.get(dtype_name, (0, -1))
    if low <= high and stored.size and (stored.min() < low or stored.max() > high):
        raise ValueError(f"some of its bytes are no values of dtype {dtype_name}")


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def restore(stored: np.ndarray, dtype_name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Undo the storing of a dtype that the format lacks.

    Raises:
        ValueError: ``stored`` is not how an array of that dtype and shape is stored.
    """
    if _STORED_AS.get(dtype_name) != _CODES.get(stored.dtype.name):
        raise ValueError(f"dtype {dtype_name!r} is not stored as {stored.dtype}")
    if (*shape, 2) != stored.shape if dtype_name == "complex128" else shape != stored.shape:
        raise ValueError(f"shape {shape} is not stored as {stored.shape}")
    shape = stored.shape[: len(shape)]  # equal, and surely of integers
    if _is_small_integer(dtype_name):
        _check_range(stored, dtype_name)
        return _read_only(stored.astype(_named_dtype(dtype_name)))
    return _view(stored.reshape(-1).view(np.uint8), _named_dtype(dtype_name), shape)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(n) is int and 0 <= n < _MAX_SIZE for n in values)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object names the same key twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
