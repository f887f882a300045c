"""Telling kinds of files apart by their first bytes."""

from __future__ import annotations

import zipfile

from . import _keras, _mxnet, _numpy, _paddle, _tensorflow, _torch
from ._hdf5 import is_hdf5
from ._source import Reader, Source
from ._zip import Archive, is_zip

__all__ = ["HEAD", "find_reader", "is_safetensors", "name_kind"]

HEAD = 4096  # how many bytes to look at

_SAFETENSORS = "save it as safetensors, which brickwork reads"
_TORCH = f"in PyTorch, {_SAFETENSORS}: safetensors.torch.save_file(torch.load(file), new_file)"
_NUMPY = "read it with numpy.load and pass the arrays to brickwork.save"
_KERAS = f"in Keras, {_SAFETENSORS}: safetensors.numpy.save_file of its weights by name"

# First bytes -> (what the file is, what to do).
_MAGIC: dict[bytes, tuple[str, str]] = {
    b"\x93NUMPY": ("a NumPy .npy array", _NUMPY),
    b"\x89HDF\r\n\x1a\n": ("an HDF5 file, as Keras writes them (.h5)", _KERAS),
    b"\x12\x01\x00\x00\x00\x00\x00\x00": (
        "an MXNet parameter file",
        f"in MXNet, {_SAFETENSORS}: safetensors.numpy.save_file of its arrays by name",
    ),
    b"GGUF": ("a GGUF file (llama.cpp)", "get the model as safetensors"),
    b"version https://git-lfs": (
        "a Git LFS pointer, a placeholder for the file itself",
        "run `git lfs pull` where it was cloned",
    ),
    b"<!DOCTYPE": ("a web page", "download the file itself"),
    b"<!doctype": ("a web page", "download the file itself"),
    b"<html": ("a web page", "download the file itself"),
    b"\x1f\x8b": ("a gzip archive", "unpack it"),
    b"BZh": ("a bzip2 archive", "unpack it"),
    b"\xfd7zXZ\x00": ("an xz archive", "unpack it"),
    b"\x28\xb5\x2f\xfd": ("a Zstandard archive", "unpack it"),
    b"Rar!": ("a RAR archive", "unpack it"),
}


def is_safetensors(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is, or was meant to be, a safetensors file."""
    return head[8:9] == b"{"


_READERS = (  # by the first bytes
    (_mxnet.is_mxnet, _mxnet.read),
    (is_hdf5, _keras.read),
    (_torch.is_torch, _torch.read),
    (_paddle.is_paddle, _paddle.read),
    (_numpy.is_numpy, _numpy.read),
)
_ARCHIVES = (  # by the names of an archive's members
    (_torch.is_torch_archive, _torch.read),
    (_keras.is_keras_archive, _keras.read),
    (_numpy.is_numpy_archive, _numpy.read),
)
_WHOLE = ((_tensorflow.is_index, _tensorflow.read), (_tensorflow.is_tensor, _tensorflow.read))  # by more than that


def find_reader(source: Source) -> Reader | None:
    """What reads a file, found out from its bytes."""
    head = source.data[:HEAD].tobytes()
    found = next((reader for recognises, reader in _READERS if recognises(head)), None)
    if found is None and is_zip(head):
        names = Archive(source).names()
        found = next((reader for recognises, reader in _ARCHIVES if recognises(names)), None)
    return found or next((reader for recognises, reader in _WHOLE if recognises(source)), None)


def name_kind(head: bytes, path: str) -> tuple[str, str] | None:
    """What a file that is not safetensors looks like, and what to do about it.

    Args:
        head: its first :data:`HEAD` bytes.
        path: where it is, to look at the table of contents of an archive.
    """
    if head.startswith(b"PK\x03\x04"):
        return _name_zip(path)
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        # A legacy PyTorch file is several pickles; the first is this number of 10 bytes.
        if b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19" in head[:32]:
            return "a PyTorch file of the legacy format", _TORCH
        return (
            "a Python pickle, as PaddlePaddle (.pdparams) and others write them",
            f"in the framework that wrote it, {_SAFETENSORS}; pickles can run any code",
        )
    if head[257:262] == b"ustar":
        return "a tar archive", "unpack it"
    return None


def _name_zip(path: str) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "a zip archive that is damaged or truncated", "get the file again"
    if any(name.endswith("data.pkl") for name in names):
        return "a PyTorch zip archive", _TORCH
    if any(name.endswith("model.weights.h5") for name in names):
        return "a Keras archive (.keras)", _KERAS
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy .npz archive", _NUMPY
    return "a zip archive", "unpack it"
