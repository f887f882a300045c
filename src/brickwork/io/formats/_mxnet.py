"""MXNet's list of NDArrays: ``mx.nd.save``, ``npx.save`` and ``save_parameters`` of MXNet 0.x and 1.x.

A file is a header, the arrays one after the other, each with a head of its own, and their names. The format is
described by ``NDArray::Load`` in MXNet's ``src/ndarray/ndarray.cc``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn

import ml_dtypes
import numpy as np

from .._source import Contents, Source
from ._arrays import array_at, check_shape

__all__ = ["is_mxnet", "read"]

_MAGIC = (0x112).to_bytes(8, "little")
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_DTYPES = [np.dtype(code) for code in ("f4", "f8", "f2", "u1", "i4", "i1", "i8", "?", "i2", "u2", "u4", "u8")]
_DTYPES.append(np.dtype(ml_dtypes.bfloat16))
_STORAGE = {1: ("row_sparse", 1), 2: ("csr", 2)}  # name, number of index arrays
_MAX_NDIM = 32  # MXNet's
_MAX_ARRAYS = 200_000


def is_mxnet(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is a list of NDArrays."""
    return head[:8] == _MAGIC


def read(source: Source) -> Contents:
    """Read a list of NDArrays: a dict by the names in the file, or a list where it has none.

    Sparse arrays are made dense, unless that takes much more memory than the file. An NDArray without a value is
    ``None``.
    """
    source.what = "MXNet parameter file"
    if source.verify:
        source.cannot_verify("MXNet's list of arrays has no checksums")
    return _Reader(source).contents()


class _Reader:
    """A place in a file, which moves on as the file is read."""

    def __init__(self, source: Source) -> None:
        self.source, self.at = source, 0
        self.sparse: list[str] = []

    def fail(self, reason: str) -> NoReturn:
        self.source.fail(self.at, reason)

    def number(self, size: int, what: str, signed: bool = False) -> int:
        raw = self.source.bytes(self.at, size, what)
        self.at += size
        return int.from_bytes(raw, "little", signed=signed)

    def contents(self) -> Contents:
        if self.number(8, "the magic number") != 0x112:
            self.source.fail(0, "it does not begin with the magic number 0x112")
        self.number(8, "the header")
        count = self.count("arrays", 4)
        arrays = [self.record(f"array {i} of {count}") for i in range(count)]
        names = self.names(count)
        if self.at != self.source.size:
            self.fail(f"{self.source.size - self.at:,} bytes follow the end of the list")
        sparse = ", ".join(names[int(i)] if names else i for i in self.sparse)
        metadata = {"made dense": sparse} if sparse else {}
        return Contents(dict(zip(names, arrays)) if names else arrays, "mxnet", metadata)

    def count(self, what: str, least: int) -> int:
        """How many of something follow that take at least so many bytes each."""
        at = self.at
        count = self.number(8, f"the number of {what}")
        left = self.source.size - self.at
        if count > left // least:
            self.source.fail(at, f"{count:,} {what} should follow, but only {left:,} bytes; the file is truncated")
        if count > _MAX_ARRAYS:
            self.source.fail(at, f"{count:,} {what} should follow; at most {_MAX_ARRAYS:,} are read")
        return count

    def names(self, arrays: int) -> list[str]:
        at = self.at
        count = self.count("names", 8)
        if count not in (0, arrays):
            self.source.fail(at, f"there are {count:,} names for {arrays:,} arrays")
        names: dict[str, None] = {}
        for i in range(count):
            at = self.at
            size = self.number(8, f"the length of name {i}")
            raw = self.source.bytes(self.at, size, f"name {i}")
            self.at += size
            try:
                name = raw.decode()
            except UnicodeDecodeError:
                self.source.fail(at, f"name {i} is not UTF-8 text")
            if name in names:
                self.source.fail(at, f"two arrays have the name {name!r}")
            names[name] = None
        return list(names)

    # --- arrays -----------------------------------------------------------------------------------

    def record(self, what: str) -> np.ndarray | None:
        """The next array; ``None`` for one without a value."""
        version = self.number(4, f"the head of {what}")
        if version not in (_V2, _V3):
            wide = version == _V1
            ndim = self.number(4, f"the number of axes of {what}", signed=True) if wide else version
            shape = self.shape(what, ndim, 8 if wide else 4)
            return self.dense(shape, self.dtype(what), what) if shape else None
        kind = self.number(4, f"the storage type of {what}", signed=True)
        if kind not in (0, *_STORAGE):
            self.at -= 4
            self.fail(f"{what} has the unknown storage type {kind}")
        stored = self.shape(what, self.ndim(what)) if kind else ()
        ndim = self.ndim(what)
        if ndim < 0 or (ndim == 0 and version == _V2):
            return None
        shape = self.shape(what, ndim)
        dtype = self.dtype(what)
        return self.indexed(kind, shape, stored, dtype, what) if kind else self.dense(shape, dtype, what)

    def ndim(self, what: str) -> int:
        return self.number(4, f"the number of axes of {what}", signed=True)

    def shape(self, what: str, ndim: int, size: int = 8) -> tuple[int, ...]:
        if not 0 <= ndim <= _MAX_NDIM:
            self.at -= 4
            self.fail(f"{what} has {ndim:,} axes, but there may be at most {_MAX_NDIM}")
        at = self.at
        shape = tuple(self.number(size, f"the shape of {what}", signed=size == 8) for _ in range(ndim))
        if any(n < 0 for n in shape):
            self.source.fail(at, f"{what} has the impossible shape {shape}")
        return shape

    def dtype(self, what: str, device: bool = True) -> np.dtype:
        if device:
            self.number(8, f"the device of {what}")  # where the array was; its bytes are here
        code = self.number(4, f"the dtype of {what}", signed=True)
        if not 0 <= code < len(_DTYPES):
            self.at -= 4
            self.fail(f"{what} has the unknown dtype {code}")
        return _DTYPES[code]

    def dense(self, shape: Sequence[int], dtype: np.dtype, what: str) -> np.ndarray:
        array = array_at(self.source, self.at, dtype, shape, what)
        self.at += array.nbytes
        return array

    def indexed(
        self, storage: int, shape: tuple[int, ...], stored: tuple[int, ...], dtype: np.dtype, what: str
    ) -> np.ndarray:
        """A sparse array as a dense one."""
        start = self.at
        name, count = _STORAGE[storage]
        parts = [f"index {i} of {what}" for i in range(count)]
        heads = [(self.dtype(part, device=False), self.shape(part, self.ndim(part))) for part in parts]
        data = self.dense(stored, dtype, f"the data of {what}")
        indices = [self.dense(sizes, kind, part) for part, (kind, sizes) in zip(parts, heads, strict=True)]
        takes = math.prod(shape) * dtype.itemsize
        try:
            check_shape(shape, dtype.itemsize)
        except ValueError as error:
            self.source.fail(start, f"{what}: {error}")
        self.source.spend(takes, f"{what}, a {name} array of shape {shape} that is made dense,")
        if any(x.ndim != 1 or x.dtype.kind not in "iu" for x in indices):
            self.source.fail(start, f"{what}, of storage type {name}, has indices that are no lists of integers")
        problem = _sparse_problem(storage, shape, data, indices)
        if problem:
            self.source.fail(start, f"{what}, of storage type {name} and shape {shape}, {problem}")
        out = np.zeros(shape, dtype)
        if storage == 1:
            out[indices[0]] = data
        else:
            rows = np.repeat(np.arange(shape[0]), np.diff(indices[0].astype(np.int64)))
            out[rows, indices[1]] = data
        out.flags.writeable = False
        self.sparse.append(what.split()[1])
        return out


def _sparse_problem(kind: int, shape: tuple[int, ...], data: np.ndarray, indices: list[np.ndarray]) -> str | None:
    """What is wrong with the parts of a sparse array."""

    def outside(index: np.ndarray, size: int) -> bool:
        return bool(index.size and (index.min() < 0 or index.max() >= size))

    if kind == 1:
        rows = indices[0]
        if not shape or data.shape != (len(rows), *shape[1:]):
            return f"has data of shape {data.shape} for {len(rows):,} rows"
        return f"names rows outside of 0 to {shape[0] - 1:,}" if outside(rows, shape[0]) else None
    starts, columns = indices
    if len(shape) != 2 or data.ndim != 1 or len(columns) != len(data) or len(starts) != shape[0] + 1:
        sizes = f"{len(starts):,} row starts, {len(columns):,} columns and data of shape {data.shape}"
        return f"has {sizes}, which do not fit together"
    steps = np.diff(starts.astype(np.int64))
    if starts[0] != 0 or int(starts[-1]) != len(data) or (steps < 0).any():
        return "has row starts that do not rise from 0 to the number of its elements"
    return f"names columns outside of 0 to {shape[1] - 1:,}" if outside(columns, shape[1]) else None
