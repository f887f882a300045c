"""What ``torch.save`` writes: zip archives, and the files of PyTorch before 1.6.

Both hold a pickle that describes tensors as views of storages, and the bytes of each storage beside it.
The formats are defined by ``torch/serialization.py`` (and ``torch/_utils.py`` for what rebuilds tensors).
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._source import Contents, Source, brief
from ._arrays import check_shape, named_dtype, typed
from ._pickle import Global, Pending, interpret
from ._pickled_numpy import numpy_globals
from ._unpickled import BUILTINS, finish
from ._zip import Archive, is_zip

__all__ = ["is_torch", "is_torch_archive", "read"]

_WHAT = "PyTorch file"
# The magic number as a pickle; written with protocol 2 unless the user chose another.
_LEGACY = re.compile(rb"\x80[\x02-\x05](?:\x95.{8})?\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\.", re.DOTALL)
_LEGACY_VERSION = 1001
_TAR_MEMBERS = (b"sys_info\0", b"pickle\0", b"tensors\0", b"storages\0")

_STORAGES = {
    "Float": "float32",
    "Double": "float64",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}
_DTYPES = {
    name: named_dtype(name)
    for name in (
        *_STORAGES.values(),
        *("uint16", "uint32", "uint64"),
        *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
    )
}
_BYTES = np.dtype(np.uint8)


def is_torch(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is of PyTorch before 1.6. Newer ones are zip archives."""
    return _LEGACY.match(head) is not None or _is_tar(head)


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar" and head.startswith(_TAR_MEMBERS)


def is_torch_archive(names: Iterable[str]) -> bool:
    """Whether a zip archive of these members is PyTorch's."""
    return any(name == "data.pkl" or name.endswith("/data.pkl") for name in names)


def read(source: Source) -> Contents:
    """Read a file of ``torch.save``, without PyTorch and without executing anything.

    Tensors come as read-only arrays with the strides they had, views of the mapped file where it is
    aligned and in native byte order, as zip archives are. Tensors that share a storage share memory, and
    those of the same part of it are one array. Where a tensor was (``cuda:0``) and whether it requires a
    gradient is not kept. A ``torch.Size`` comes as a tuple, a dtype or device as its name, a namespace of
    ``argparse`` as a dict, NumPy's arrays as such and its scalars as numbers.

    Args:
        source: the file. With ``verify``, the bytes of tensors are compared with the checksums of the archive, which
            PyTorch itself never does.

    Raises:
        CheckpointError: it is damaged, or holds what is no plain data: modules and other objects,
            sparse and quantized tensors, TorchScript programs.
    """
    source.what = _WHAT
    head = source.bytes(0, min(source.size, 512), "the file")
    if is_zip(head):
        with source.scattered() if not source.verify else contextlib.nullcontext():
            return _read_zip(Archive(source))
    if _is_tar(head):
        source.refuse(
            "it is in the tar format of PyTorch before 0.1.10; load it with PyTorch and save it again with torch.save"
        )
    if not _LEGACY.match(head):
        source.fail(0, "it does not begin as a file of torch.save does")
    if source.verify:
        source.cannot_verify("PyTorch's format before 1.6 has no checksums")
    return _read_legacy(source)


# --- tensors --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _StorageType:
    """A storage class of PyTorch; its dtype is ``None`` if the storage is untyped."""

    dtype: np.dtype | None


@dataclass(frozen=True)
class _Storage:
    """A persistent id: a storage; old files have ids of parts of one."""

    key: str
    dtype: np.dtype | None
    size: int  # in elements, or bytes if untyped
    start: int = 0  # of the part that is meant, in elements
    part: int | None = None  # its size


class _Tensor(Pending):
    def __init__(self, reader: _Reader, arguments: tuple[Any, ...], dtype: np.dtype | None = None) -> None:
        match arguments:
            case (_Storage() as storage, int() as start, tuple() as shape, tuple() as strides):
                dtype = dtype or storage.dtype
            case _:
                raise ValueError("its arguments are not those of a tensor")
        if dtype is None:
            raise ValueError("an untyped storage is used without a dtype")
        check_shape(shape, dtype.itemsize)
        if len(strides) != len(shape) or not all(type(n) is int and n >= 0 for n in strides):
            raise ValueError(f"the strides {brief(strides)} for the shape {shape}")
        self.reader, self.storage, self.dtype = reader, storage, dtype
        self.geometry = start, shape, strides

    def build(self, state: Any) -> None:
        """Old parameters have a state of flags, and hooks; it says nothing of the values."""

    def finish(self, resolve: Callable[[Any], Any]) -> np.ndarray:
        return self.reader.array(self)


class _Attributes(Pending):
    """An object that is only its attributes, as a dict."""

    def __init__(self) -> None:
        self.values: dict[Any, Any] = {}

    @classmethod
    def made(cls, arguments: tuple[Any, ...]) -> _Attributes:
        return cls()

    def build(self, state: Any) -> None:
        if type(state) is not dict:
            raise ValueError("its attributes are not a dict")
        self.values.update(state)

    def set_item(self, key: Any, value: Any) -> None:
        self.values[key] = value

    def finish(self, resolve: Callable[[Any], Any]) -> dict[Any, Any]:
        return resolve(self.values)


class _Reader:
    """Makes arrays of storages.

    Args:
        source: the file.
        fetch: the bytes of a storage by its key; ``ValueError`` if there are none.
    """

    def __init__(self, source: Source, fetch: Callable[[str], np.ndarray], swapped: bool = False) -> None:
        self.source, self.fetch, self.swapped = source, fetch, swapped
        self.dtypes: dict[str, np.dtype] = {}  # of every storage that the pickle names
        self._storages: dict[str, np.ndarray] = {}
        self._typed: dict[tuple[str, np.dtype], np.ndarray] = {}
        self._arrays: dict[tuple[Any, ...], np.ndarray] = {}
        self._used: dict[str, int] = {}

    def interpret(self, source: Source, start: int) -> tuple[Any, int]:
        # The table refers to the reader. Kept in it, they would hold all arrays until Python collects cycles.
        known = {**BUILTINS, **numpy_globals(source), **_PLAIN, **self.rebuilders()}
        return interpret(source, start, known, _advice, self.storage)

    def rebuilders(self) -> dict[tuple[str, str], Any]:
        return {
            ("torch._utils", "_rebuild_tensor"): lambda a: _Tensor(self, a),
            ("torch._utils", "_rebuild_tensor_v2"): lambda a: _Tensor(self, a[:4]),
            ("torch._utils", "_rebuild_tensor_v3"): self.tensor_v3,
            ("torch._utils", "_rebuild_parameter"): _parameter,
            ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
            ("torch._tensor", "_rebuild_from_type_v2"): _of_type,
            ("torch.nn.parameter", "Parameter"): _parameter,
            ("torch.autograd.variable", "Variable"): _parameter,
        }

    def tensor_v3(self, arguments: tuple[Any, ...]) -> _Tensor:
        match arguments:
            case (*most, _, _, Global(target=str() as name)) | (*most, _, _, Global(target=str() as name), _) if (
                len(most) == 4 and name in _DTYPES
            ):
                return _Tensor(self, tuple(most), _DTYPES[name])
        raise ValueError("its arguments are not those of a tensor")

    def storage(self, identity: Any) -> _Storage:
        match identity:
            case ("storage", Global(target=_StorageType() as kind), str() as key, _, int() as size, *rest):
                pass
            case _:
                raise ValueError("it is not the id of a storage")
        if self.dtypes.setdefault(key, kind.dtype or _BYTES) != (kind.dtype or _BYTES):
            raise ValueError(f"the storage {key[:40]!r} has two types")
        match rest:
            case [] | [None]:
                return _Storage(key, kind.dtype, size)
            case [(_, int() as start, int() as part)] if start >= 0 and part >= 0 and start + part <= size:
                return _Storage(key, kind.dtype, size, start, part)
        raise ValueError("it is a malformed part of a storage")

    def array(self, tensor: _Tensor) -> np.ndarray:
        storage, dtype, (start, shape, strides) = tensor.storage, tensor.dtype, tensor.geometry
        identity = storage, dtype, tensor.geometry
        if identity not in self._arrays:
            flat = self.flat(storage, dtype)
            if 0 in shape:
                made = np.empty(shape, dtype)
                made.flags.writeable = False
            else:
                last = start + sum((n - 1) * stride for n, stride in zip(shape, strides))
                if start < 0 or last >= len(flat):
                    raise ValueError(
                        f"the tensor of shape {shape} consists of elements {start:,} to {last:,} of the storage "
                        f"{storage.key[:40]!r}, which has {len(flat):,}"
                    )
                steps = [stride * dtype.itemsize if n > 1 else 0 for n, stride in zip(shape, strides)]
                made = np.ndarray(shape, dtype, flat.view(np.uint8).data, start * dtype.itemsize, steps)
                self.account(storage, made.nbytes)
            self._arrays[identity] = made
        return self._arrays[identity]

    def flat(self, storage: _Storage, dtype: np.dtype) -> np.ndarray:
        """All elements of a storage."""
        key = storage.key
        if key not in self._storages:
            self._storages[key] = raw = self.fetch(key)
            size = storage.size * self.dtypes[key].itemsize
            if len(raw) != size:
                raise ValueError(f"its storage {key[:40]!r} should take {size:,} bytes, but takes {len(raw):,}")
        if (key, dtype) not in self._typed:
            self._typed[key, dtype] = typed(self.source, self._storages[key], dtype, self.swapped)
        flat = self._typed[key, dtype]
        return flat if storage.part is None else flat[storage.start : storage.start + storage.part]

    def account(self, storage: _Storage, nbytes: int) -> None:
        """Views are free, but whoever uses them all needs memory: a limit for what exceeds the storage."""
        before = max(self._used.get(storage.key, 0), len(self._storages[storage.key]))
        self._used[storage.key] = self._used.get(storage.key, 0) + nbytes
        if self._used[storage.key] > before:
            self.source.spend(self._used[storage.key] - before, "a tensor that repeats elements of its storage")


def _parameter(arguments: tuple[Any, ...]) -> _Tensor:
    match arguments:
        case (_Tensor() as tensor, *_):
            return tensor
    raise ValueError("its argument is not a tensor")


def _of_type(arguments: tuple[Any, ...]) -> Any:
    """A tensor with attributes, which are dropped: (what rebuilds it, type, arguments, attributes)."""
    match arguments:
        case (Global() as rebuild, Global(name=name), tuple() as given, _) if name in _PLAIN_TYPES:
            if rebuild.name.startswith("torch._utils._rebuild_"):
                return rebuild.target(given)
    raise ValueError("a tensor of a subclass; save it as a plain tensor")


def _device(arguments: tuple[Any, ...]) -> str:
    match arguments:
        case (str() as kind,):
            return kind
        case (str() as kind, int() as index):
            return f"{kind}:{index}"
    raise ValueError("its arguments are not those of a device")


def _path(arguments: tuple[Any, ...]) -> str:
    if not all(type(part) is str for part in arguments):
        raise ValueError("its arguments are not names of folders")
    return os.path.join("", *arguments)


_PLAIN_TYPES = ("torch.Tensor", "torch.nn.parameter.Parameter")
_PLAIN: dict[tuple[str, str], Any] = {
    ("torch", "Size"): tuple,
    ("torch", "device"): _device,
    ("torch", "Tensor"): None,
    **{("torch", name): name for name in _DTYPES},
    **{
        (module, f"{name}Storage"): _StorageType(_DTYPES[dtype])
        for name, dtype in _STORAGES.items()
        for module in ("torch", "torch.cuda")
    },
    **{(module, "UntypedStorage"): _StorageType(None) for module in ("torch", "torch.storage")},
    ("argparse", "Namespace"): _Attributes.made,
    ("types", "SimpleNamespace"): _Attributes.made,
    **{
        (module, name): _path
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    },
}

_ADVICE = {
    r"_rebuild_sparse": "a sparse tensor; in PyTorch, save x.to_dense() instead",
    r"_rebuild_qtensor": (
        "a quantized tensor; in PyTorch, save x.dequantize() instead, or x.int_repr() with its scale and zero point"
    ),
    r"_rebuild_nested": "a nested tensor; in PyTorch, save its parts x.unbind() instead",
    r"_rebuild_meta|_rebuild_device_tensor": "a tensor without values here; in PyTorch, save x.cpu() instead",
    r"_rebuild_wrapper|_rebuild_from_type|DTensor": (
        "a tensor of a subclass; in PyTorch, save a plain one instead, such as x.full_tensor() of a distributed one"
    ),
    r"^torch\.\w+$": "brickwork has nothing of that kind; in PyTorch, convert what has it, or leave it out",
    r"^torch\.nn\.": "the file holds a whole module, not a state dict; in PyTorch, save net.state_dict() instead",
}


def _advice(module: str, name: str) -> str:
    for pattern, text in _ADVICE.items():
        if re.search(pattern, f"{module}.{name}"):
            return text
    return (
        "the file holds an object of that class, perhaps a whole module, not plain data; where its code is installed, "
        "load it, and save net.state_dict() and values of Python's own types instead"
    )


# --- the two containers ---------------------------------------------------------------------------


def _read_zip(archive: Archive) -> Contents:
    source = archive.source
    names = archive.names()
    pickles = [name for name in names if is_torch_archive([name])]
    if len(pickles) != 1:
        source.refuse(f"it should have one member data.pkl, but has {len(pickles)}; it is no file of torch.save")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in archive or any(name.startswith(f"{root}code/") for name in names):
        source.refuse(
            "it is a TorchScript program; in PyTorch, save its parameters instead: "
            "torch.save(torch.jit.load(file).state_dict(), new_file)"
        )

    def fetch(key: str) -> np.ndarray:
        name = f"{root}data/{key}"
        if name not in archive:
            raise ValueError(f"its storage, the member {name[:80]!r}, is not in the archive")
        return archive.read(name, source.verify)

    order = archive.read(f"{root}byteorder").tobytes() if f"{root}byteorder" in archive else b"little"
    if order not in (b"little", b"big"):
        source.refuse(f"its byte order is {order[:20]!r}, neither little nor big")
    pickle = archive.open(pickles[0])
    reader = _Reader(source, fetch, swapped=order.decode() != sys.byteorder)
    value, end = reader.interpret(pickle, 0)
    if end != pickle.size:
        pickle.fail(end, f"{pickle.size - end:,} bytes follow the pickle")
    return Contents(finish(value, pickle, 0), "torch")


def _read_legacy(source: Source) -> Contents:
    storages: dict[str, np.ndarray] = {}

    def fetch(key: str) -> np.ndarray:
        if key not in storages:
            raise ValueError(f"its storage {key[:40]!r} is not in the file")
        return storages[key]

    reader = _Reader(source, fetch, swapped=sys.byteorder != "little")
    at = 0
    values, starts = [], []
    for _ in range(5):  # magic number, version, system, what was saved, keys of storages
        starts.append(at)
        value, at = reader.interpret(source, at)
        values.append(value)
    _, version, system, value, keys = values
    if version != _LEGACY_VERSION or type(system) is not dict:
        source.fail(starts[1], "the version of the format is not 1001, the only one there was")
    keys = finish(keys, source, starts[4])
    if type(keys) is not list or not all(type(key) is str for key in keys):
        source.fail(starts[4], "the keys of the storages are not a list of strings")
    for key in keys:
        dtype = reader.dtypes.get(key)
        if dtype is None or key in storages:
            source.fail(at, f"the storage {key[:40]!r} belongs to no tensor, or is there twice")
        size = source.unsigned(at, 8, "the size of a storage") * dtype.itemsize
        storages[key] = source.view(at + 8, size, f"the storage {key[:40]!r}")
        at += 8 + size
    if at != source.size:
        source.fail(at, f"{source.size - at:,} bytes follow that belong to nothing")
    return Contents(finish(value, source, starts[3]), "torch")
