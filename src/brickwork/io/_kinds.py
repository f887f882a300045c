"""Telling kinds of files apart by their first bytes."""

from __future__ import annotations

__all__ = ["HEAD", "is_safetensors", "name_kind"]

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


def name_kind(head: bytes) -> tuple[str, str] | None:
    """What a file looks like that no reader knows, and what to do about it.

    Args:
        head: its first :data:`HEAD` bytes.
    """
    if head[257:262] == b"ustar":
        return "a tar archive", "unpack it"
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
