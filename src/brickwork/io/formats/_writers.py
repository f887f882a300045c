"""Writing arrays by name in the formats of other frameworks.

The formats themselves are described where they are read: ``_mxnet.py``, ``_paddle.py``, ``_numpy.py``.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable, Container, Mapping
from typing import BinaryIO

import numpy as np

from ...errors import CheckpointError
from .._container import Tensor, write_container

__all__ = ["WRITERS", "Writer"]

Writer = Callable[[BinaryIO, Mapping[str, np.ndarray]], None]

_MXNET_DTYPES = {
    "float32": 0,
    "float64": 1,
    "float16": 2,
    "uint8": 3,
    "int32": 4,
    "int8": 5,
    "int64": 6,
    "bool": 7,
    "int16": 8,
    "uint16": 9,
    "uint32": 10,
    "uint64": 11,
    "bfloat16": 12,
}
_PADDLE_DTYPES = {
    *("bool", "uint8", "int8", "int16", "int32", "int64"),
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
}


def _check(arrays: Mapping[str, np.ndarray], known: Container[str], framework: str) -> None:
    for name, array in arrays.items():
        if array.dtype.name not in known:
            raise CheckpointError(
                f"{name!r} has dtype {array.dtype}, which {framework} files cannot hold; convert it first"
            )


def _write_torch(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Safetensors as ``safetensors.torch.save_model`` does: one of tied tensors, the other names in the metadata."""
    first: dict[int, str] = {}
    dropped = {name: first[id(x)] for name, x in arrays.items() if first.setdefault(id(x), name) != name}
    kept = {name: x for name, x in arrays.items() if name not in dropped}
    tensors = {name: Tensor(x.shape, x.dtype, lambda x=x: x, held=True) for name, x in kept.items()}
    write_container(file, tensors, {"format": "pt", **dropped})


def _write_mxnet(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """The NDArray list that MXNet 1.x and 2.0 read, with the semantics of NumPy (V3)."""
    _check(arrays, _MXNET_DTYPES, "MXNet")
    file.write(struct.pack("<QQQ", 0x112, 0, len(arrays)))
    for array in arrays.values():
        file.write(struct.pack("<Iii", 0xF993FACA, 0, array.ndim) + struct.pack(f"<{array.ndim}q", *array.shape))
        file.write(struct.pack("<iii", 1, 0, _MXNET_DTYPES[array.dtype.name]))
        file.write(_bytes_of(array))
    file.write(struct.pack("<Q", len(arrays)))
    for name in arrays:
        text = name.encode()
        file.write(struct.pack("<Q", len(text)) + text)


def _write_paddle(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """A pickled dict of arrays, as ``paddle.save`` writes a state dict. Paddle stores bfloat16 as the bits."""
    _check(arrays, _PADDLE_DTYPES, "Paddle")
    plain = {k: x.view(np.uint16) if x.dtype.name == "bfloat16" else np.ascontiguousarray(x) for k, x in arrays.items()}
    pickle.dump({**plain, "StructuredToParameterName@@": {name: name for name in plain}}, file, protocol=4)


def _write_npz(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    known = np.sctypeDict.values()
    for name, array in arrays.items():
        if array.dtype.type not in known:
            raise CheckpointError(f"{name!r} has dtype {array.dtype}, which NumPy files cannot hold; convert it first")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _bytes_of(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


WRITERS: dict[str, Writer] = {
    "torch": _write_torch,
    "mxnet": _write_mxnet,
    "paddle": _write_paddle,
    "npz": _write_npz,
}
