"""Telling kinds of files apart by their first bytes."""

from __future__ import annotations

from ._source import Reader, Source
from .formats import _keras, _mxnet, _numpy, _paddle, _tensorflow, _torch
from .formats._hdf5 import is_hdf5
from .formats._zip import Archive, is_zip

__all__ = ["HEAD", "find_reader", "is_safetensors", "name_kind"]

HEAD = 4096  # how many bytes to look at

# First bytes of what is no checkpoint, or none that can be read -> (what the file is, what to do).
_MAGIC: dict[bytes, tuple[str, str]] = {
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
    b"PK\x03\x04": ("a zip archive", "unpack it, and load what is inside"),
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
        source.what = "zip archive"
        names = Archive(source).names()
        found = next((reader for recognises, reader in _ARCHIVES if recognises(names)), None)
    return found or next((reader for recognises, reader in _WHOLE if recognises(source)), None)


def name_kind(head: bytes) -> tuple[str, str] | None:
    """What a file looks like that no reader knows, and what to do about it.

    Args:
        head: its first :data:`HEAD` bytes.
    """
    if head[257:262] == b"ustar":
        return "a tar archive", "unpack it"
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
