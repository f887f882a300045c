"""What ``paddle.save`` writes: pickles with NumPy arrays, and the binary streams of its C++ side.

The pickles are defined by ``python/paddle/framework/io.py`` and ``io_utils.py``, the streams by
``SerializeToStream`` in ``paddle/phi/core/framework/dense_tensor_serialize.cc``.
"""

from __future__ import annotations

import math
import re
import sys
from typing import Any

import ml_dtypes
import numpy as np

from .._source import Contents, Source, brief
from ._arrays import check_shape, named_dtype, typed
from ._pickle import Pending, interpret, looks_like_pickle
from ._pickled_numpy import numpy_globals
from ._unpickled import BUILTINS, finish

__all__ = ["is_paddle", "read"]

# The start of a stream: version 0, no levels of detail, version 0, a small message that begins with its field 1.
_STREAM = re.compile(rb"\x00{16}.\x00{3}\x08", re.DOTALL)
_NAMES = "StructuredToParameterName@@"
_PARTS = "UnpackBigParamInfor@@"  # spelled so
_DTYPES = {
    code: named_dtype(name)
    for code, name in {
        0: "bool",
        1: "int16",
        2: "int32",
        3: "int64",
        4: "float16",
        5: "float32",
        6: "float64",
        20: "uint8",
        21: "int8",
        22: "bfloat16",
        23: "complex64",
        24: "complex128",
    }.items()
}


def is_paddle(head: bytes) -> bool:
    """Whether a file that begins with ``head`` may be PaddlePaddle's. Any pickle may; ask for PyTorch's first."""
    return looks_like_pickle(head) or _STREAM.match(head) is not None


def read(source: Source) -> Contents:
    """Read ``.pdparams``, ``.pdopt`` and other files of ``paddle.save``, or a stream such as ``.pdiparams``.

    Tensors come as read-only arrays, uint16 as the bfloat16 that Paddle means by it. A stream holds no
    names: it comes as the list of its tensors. Nothing in these files is a checksum.

    Args:
        source: the file.

    Raises:
        CheckpointError: it is damaged, or a pickle of something else.
    """
    source.what = "PaddlePaddle file"
    if source.verify:
        source.cannot_verify("PaddlePaddle writes no checksums")
    if not looks_like_pickle(source.bytes(0, min(source.size, 2), "the file")):
        return Contents(_read_stream(source), "paddle")
    known = {**BUILTINS, **numpy_globals(source)}
    known |= {(module, "eval"): _static_tensor for module in ("builtins", "__builtin__")}
    value, end = interpret(source, 0, known, _advice)
    if end != source.size:
        source.fail(end, f"{source.size - end:,} bytes follow the pickle")
    tree = finish(value, source, 0, _convert)
    if type(tree) is dict:
        tree.pop(_NAMES, None)  # Paddle's internal names
        _join_parts(source, tree)
    return Contents(tree, "paddle")


def _advice(module: str, name: str) -> str:
    if module.partition(".")[0] == "torch":
        return "it is a pickle of PyTorch's objects that torch.save did not write; write it with torch.save instead"
    return "paddle.save writes nothing of that kind, so something else was pickled; save a dict of arrays instead"


def _static_tensor(arguments: tuple[Any, ...]) -> Pending:
    """How tensors of static graphs are pickled: ``eval("data", {"data": array})``."""
    match arguments:
        case ("data", {"data": Pending() as array, **rest}) if not rest:
            return array
    raise ValueError(
        f"the file asks to evaluate {brief(arguments[:1])}, which no checkpoint needs. It may be malicious; "
        "nothing of it was executed. Don't open it with a program that unpickles it"
    )


def _convert(value: Any) -> Any:
    """Tensors as arrays: they are pairs of name and array, except in dicts of tensors."""
    if isinstance(value, np.ndarray):  # not by a pattern: NumPy's arrays are sequences since 2.5
        return value.view(ml_dtypes.bfloat16) if value.dtype == np.uint16 else value
    match value:
        case (str(), np.ndarray() as array) if type(value) is tuple:
            return array
    return value


def _join_parts(source: Source, tree: dict[Any, Any]) -> None:
    """Put together the arrays that were split because old pickles hold at most 4 GB in one piece."""
    table = tree.pop(_PARTS, {})
    if type(table) is not dict:
        source.fail(0, f"the table {_PARTS!r} is malformed")
    for name, entry in table.items():
        try:
            tree[name] = _joined(source, tree, entry)
        except ValueError as error:
            source.fail(0, f"the parts of {str(name)[:200]!r}: {error}")


def _joined(source: Source, tree: dict[Any, Any], entry: Any) -> np.ndarray:
    match entry:
        case {"OriginShape": shape, "slices": [*names]}:
            parts: list[Any] = [tree.pop(name, None) if type(name) is str else None for name in names]
        case _:
            raise ValueError("their table is malformed")
    if not parts or not all(isinstance(part, np.ndarray) and part.ndim == 1 for part in parts):
        raise ValueError("some of them are missing")
    dtype = parts[0].dtype
    shape = check_shape(shape, dtype.itemsize)
    if any(part.dtype != dtype for part in parts) or sum(map(len, parts)) != math.prod(shape):
        raise ValueError(f"they do not make an array of shape {tuple(shape)}")
    source.spend(math.prod(shape) * dtype.itemsize, "an array of several parts")
    whole = np.concatenate(parts).reshape(shape)
    whole.flags.writeable = False
    return whole


# --- streams --------------------------------------------------------------------------------------


def _read_stream(source: Source) -> list[np.ndarray]:
    at, found = 0, []
    while at < source.size or not found:
        tensor, at = _read_tensor(source, at)
        found.append(tensor)
    return found


def _read_tensor(source: Source, start: int) -> tuple[np.ndarray, int]:
    if source.unsigned(start, 4, "the version of a tensor") != 0:
        source.fail(start, "a tensor should begin here, but its version is not 0")
    at = start + 12
    for _ in range(source.unsigned(start + 4, 8, "the number of levels")):
        at += 8 + source.unsigned(at, 8, "the size of a level")
    if source.unsigned(at, 4, "the version of a tensor's contents") != 0:
        source.fail(at, "the version of a tensor's contents is not 0")
    size = source.unsigned(at + 4, 4, "the size of a tensor's description")
    dtype, shape = _description(source, at + 8, size)
    at += 8 + size
    try:
        shape = check_shape(shape, dtype.itemsize)
        raw = source.view(at, math.prod(shape) * dtype.itemsize, "a tensor")
        return typed(source, raw, dtype, sys.byteorder != "little").reshape(shape), at + len(raw)
    except ValueError as error:
        source.fail(at, f"a tensor: {error}")


def _description(source: Source, start: int, size: int) -> tuple[np.dtype, list[int]]:
    """Dtype and shape, from a protobuf message: field 1 the type, field 2 the sizes, packed or not."""
    at, code, shape = 0, None, []
    message = source.bytes(start, size, "a tensor's description")
    while at < size:
        tag, at = _varint(source, message, at, start)
        if tag not in (0x08, 0x10, 0x12):
            source.fail(start + at - 1, "the description of a tensor has an unknown field")
        value, at = _varint(source, message, at, start)
        if tag == 0x08:
            code = value
        elif tag == 0x10:
            shape.append(value)
        else:
            end = at + value
            while at < end:
                value, at = _varint(source, message, at, start)
                shape.append(value)
    if code not in _DTYPES:
        source.fail(start, f"a tensor has the unknown type {code}")
    return _DTYPES[code], shape


def _varint(source: Source, message: bytes, at: int, start: int) -> tuple[int, int]:
    value = 0
    for i, byte in enumerate(message[at : at + 10]):
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, at + i + 1
    source.fail(start + at, "a number in the description of a tensor has no end")
