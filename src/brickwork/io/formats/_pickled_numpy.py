"""NumPy's arrays, scalars and dtypes within pickles.

How NumPy pickles them is in ``numpy/_core/src/multiarray/methods.c`` (``array_reduce``, ``array_setstate``)
and ``descriptor.c`` (``arraydescr_reduce``).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from .._source import Source
from ._arrays import check_shape, typed
from ._pickle import Global, Pending

__all__ = ["numpy_globals"]

_CODES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
_OTHER_ORDER = ">" if sys.byteorder == "little" else "<"


def numpy_globals(source: Source) -> dict[tuple[str, str], Any]:
    """What a pickle with NumPy arrays names, for :func:`~brickwork.io.formats._pickle.interpret`."""

    used: set[int] = set()  # the ids of the bytes that arrays have been made of

    def reconstruct(arguments: tuple[Any, ...]) -> Pending:
        match arguments:
            case (Global(name="numpy.ndarray"), (0,), b"b"):
                return _Array(source, used)
        raise ValueError("it makes something other than a plain array")

    def from_buffer(arguments: tuple[Any, ...]) -> Pending:
        match arguments:
            case (data, _Dtype() as dtype, shape, "C" | "F" as order):
                array = _Array(source, used)
                array.build((1, shape, dtype, order == "F", data))
                return array
        raise ValueError("its arguments are not those of an array")

    def scalar(arguments: tuple[Any, ...]) -> Any:
        match arguments:
            case (_Dtype() as dtype, data):
                return typed(source, _bytes_of(data, dtype.dtype.itemsize), dtype.dtype, dtype.swapped)[0].item()
        raise ValueError("its arguments are not those of a number")

    found: dict[tuple[str, str], Any] = {("numpy", "ndarray"): None, ("numpy", "dtype"): _Dtype.made}
    for core in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
        found[f"{core}.multiarray", "_reconstruct"] = reconstruct
        found[f"{core}.multiarray", "scalar"] = scalar
        found[f"{core}.numeric", "_frombuffer"] = from_buffer
    return found


class _Dtype(Pending):
    def __init__(self, code: str) -> None:
        self.dtype, self.swapped = np.dtype(code), False

    @classmethod
    def made(cls, arguments: tuple[Any, ...]) -> _Dtype:
        """``numpy.dtype("f4", False, True)``."""
        match arguments:
            case (str() as code, *_) if code in _CODES:
                return cls(code)
            case ("O" | "O8" | "O4", *_):
                raise ValueError("an array of Python objects; save arrays of numbers")
            case (str() as code, *_):
                raise ValueError(f"the dtype {code[:20]!r} is none of numbers or truth values")
        raise ValueError("the dtype of an array is structured, or malformed")

    def build(self, state: Any) -> None:
        match state:
            case (int(), "<" | ">" | "|" | "=" as order, None, None, None, *_):
                self.swapped = order == _OTHER_ORDER
            case _:
                raise ValueError("the dtype of an array is structured, or malformed")

    def finish(self, resolve: Callable[[Any], Any]) -> str:
        return self.dtype.name


class _Array(Pending):
    def __init__(self, source: Source, used: set[int]) -> None:
        self.source, self.used, self.state = source, used, None

    def build(self, state: Any) -> None:
        match state:
            case (int(), tuple() as shape, _Dtype() as dtype, bool() | 0 | 1 as fortran, data):
                shape = check_shape(shape, dtype.dtype.itemsize)
                raw = _bytes_of(data, math.prod(shape) * dtype.dtype.itemsize)
                if id(data) in self.used:
                    self.source.spend(len(data), "an array of the same bytes as another one")
                self.used.add(id(data))
                self.state = raw, shape, dtype, bool(fortran)
            case _:
                raise ValueError("the contents of an array are malformed")

    def finish(self, resolve: Callable[[Any], Any]) -> np.ndarray:
        if self.state is None:
            raise ValueError("an array has no contents")
        raw, shape, dtype, fortran = self.state
        return typed(self.source, raw, dtype.dtype, dtype.swapped).reshape(shape, order="F" if fortran else "C")


def _bytes_of(data: Any, size: int) -> np.ndarray:
    if type(data) is str:
        data = data.encode()  # of Python 2, and by chance valid text
    if type(data) not in (bytes, memoryview):
        raise ValueError("the contents of an array are not bytes")
    if len(data) != size:
        raise ValueError(f"the contents of an array should take {size:,} bytes, but are {len(data):,}")
    return np.frombuffer(data, np.uint8)
