"""NumPy's ``.npy`` and ``.npz``, also as MXNet 2 writes them.

The format is described in ``numpy/lib/_format_impl.py``. Its header is the text of a Python dict; it is
matched against the few forms that occur, and never evaluated.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable

import ml_dtypes
import numpy as np

from .._source import Contents, Source
from ._arrays import check_shape, typed
from ._zip import Archive, is_zip

__all__ = ["is_numpy", "is_numpy_archive", "read"]

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 10_000  # bytes, as NumPy has it
_ITEM = re.compile(
    r"""\s* (['"]) (?P<key>descr|fortran_order|shape) \1 \s*:\s*
    (?: (['"]) (?P<descr>[^'"]*) \3 | (?P<fields>\[[^\]]*\]) | (?P<order>True|False) | \( (?P<shape>[\d\s,L]*) \) )
    \s* (?:,|$) \s*""",
    re.VERBOSE,
)
_BFLOAT16_FIELDS = re.compile(r"""\[\s*\(\s*(['"])bfloat16\1\s*,\s*(['"])<u2\2\s*\)\s*,?\s*\]""")
_DESCR = re.compile(r"([<>|=])(b1|i[1248]|u[1248]|f[248]|c8|c16|V2)")
_OTHER_ORDER = ">" if sys.byteorder == "little" else "<"


def is_numpy(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is an ``.npy`` array."""
    return head.startswith(_MAGIC)


def is_numpy_archive(names: Iterable[str]) -> bool:
    """Whether a zip archive of these members is an ``.npz``."""
    names = list(names)
    return bool(names) and all(name.endswith(".npy") for name in names)


def read(source: Source) -> Contents:
    """Read the array of an ``.npy`` file, or a dict of those of an ``.npz``.

    An array is a view of the mapped file where it is aligned and in native byte order. Both ways to write
    bfloat16 give bfloat16: MXNet's, and that of ``np.save``, which only says that values have two bytes
    without a meaning. MXNet's sparse arrays become dense.

    Args:
        source: the file. With ``verify``, the bytes of an ``.npz`` are compared with its checksums.

    Raises:
        CheckpointError: it is damaged, or holds Python objects, text, dates or structured arrays.
    """
    source.what = "NumPy file"
    if not is_zip(source.bytes(0, min(source.size, 4), "the file")):
        if source.verify:
            source.cannot_verify("an .npy file has no checksum")
        return Contents(_read_array(source), "numpy")
    archive = Archive(source)
    names = archive.names()
    for name in names:
        if not name.endswith(".npy"):
            source.refuse(f"its member {name!r} is no array; an .npz archive has members of the ending .npy only")
    sparse = {folder for folder, _, base in (n.rpartition("/") for n in names) if base == "format.npy" and folder}
    tree = {}
    for name in names:
        folder = name.rpartition("/")[0]
        if folder not in sparse:
            tree[name.removesuffix(".npy")] = _read_array(archive.open(name, source.verify))
        elif folder not in tree:
            tree[folder] = _read_sparse(archive, folder)
    return Contents(tree, "numpy")


# --- one array ------------------------------------------------------------------------------------


def _header(source: Source) -> tuple[str, int]:
    """The text of the header, and where the data begins."""
    if source.bytes(0, len(_MAGIC), "the beginning of an array") != _MAGIC:
        source.fail(0, "it does not begin as a NumPy array does")
    version = source.unsigned(6, 1, "the version")
    if version not in (1, 2, 3):
        source.fail(6, f"the version {version} of the format is not 1, 2 or 3")
    width = 2 if version == 1 else 4
    size = source.unsigned(8, width, "the size of the header")
    if size > _MAX_HEADER:
        source.fail(8, f"the header takes {size:,} bytes; at most {_MAX_HEADER:,} are read")
    text = source.bytes(8 + width, size, "the header")
    return text.decode("latin-1"), 8 + width + size  # of version 3 it is UTF-8, for names of fields


def _read_array(source: Source) -> np.ndarray:
    text, start = _header(source)
    dtype, swapped, fortran, shape = _parse(source, text.strip())
    size = math.prod(shape) * dtype.itemsize
    raw = source.view(start, size, "the array")
    if start + size != source.size:
        source.fail(start + size, f"{source.size - start - size:,} bytes follow the array; it was damaged or extended")
    try:
        return typed(source, raw, dtype, swapped).reshape(shape, order="F" if fortran else "C")
    except ValueError as error:
        source.fail(start, f"the array: {error}")


def _parse(source: Source, text: str) -> tuple[np.dtype, bool, bool, tuple[int, ...]]:
    """dtype, whether its byte order is not native, whether it is in Fortran's order, and the shape."""
    items: dict[str, re.Match[str]] = {}
    inside = text[1:-1] if text.startswith("{") and text.endswith("}") else ""
    at = 0
    while at < len(inside):
        item = _ITEM.match(inside, at)
        if item is None or item["key"] in items:
            break
        items[item["key"]], at = item, item.end()
    descr, order, shape = (items.get(key) for key in ("descr", "fortran_order", "shape"))
    if at < len(inside) or not (descr and order and order["order"] and shape and shape["shape"] is not None):
        source.fail(10, f"the header {text[:120]!r} is not one of a NumPy array")
    try:
        sizes = check_shape(tuple(int(n.rstrip("L")) for n in shape["shape"].split(",") if n.strip()), 1)
        dtype, swapped = _dtype(source, descr)
        sizes = check_shape(sizes, dtype.itemsize)
    except ValueError as error:
        source.fail(10, f"the header has {error}")
    return dtype, swapped, order["order"] == "True", tuple(sizes)


def _dtype(source: Source, item: re.Match[str]) -> tuple[np.dtype, bool]:
    bfloat16 = np.dtype(ml_dtypes.bfloat16)
    if item["fields"] is not None:
        if _BFLOAT16_FIELDS.fullmatch(item["fields"]):
            return bfloat16, sys.byteorder != "little"
        source.refuse("it is a structured array; save its fields as arrays of their own")
    descr = item["descr"]
    if descr is None:
        raise ValueError("no dtype")
    if descr.lstrip("|<>=").startswith("O"):
        source.refuse(
            "it is an array of Python objects, which is a pickle and may run any code; save the arrays inside "
            "of it with np.savez(file, name=array, ...) instead"
        )
    known = _DESCR.fullmatch(descr)
    if known is None:
        source.refuse(f"it is an array of dtype {descr[:40]!r}, which is none of numbers or truth values")
    order, code = known.groups()
    return bfloat16 if code == "V2" else np.dtype(code), order == _OTHER_ORDER


# --- MXNet's sparse arrays ------------------------------------------------------------------------


def _read_sparse(archive: Archive, folder: str) -> np.ndarray:
    """A sparse array, made dense. It is a folder of its parts."""
    source = archive.open(f"{folder}/format.npy")
    _, start = _header(source)  # malformed, but for its size
    kind = source.bytes(start, source.size - start, "the format")
    if kind not in (b"csr", b"row_sparse"):
        source.refuse(f"the sparse array {folder!r} has the unknown format {kind[:20]!r}")
    data, indices, shape = (
        _read_array(archive.open(f"{folder}/{part}.npy", source.verify)) for part in ("data", "indices", "shape")
    )
    try:
        sizes = tuple(check_shape(shape.tolist(), data.dtype.itemsize))
        archive.source.spend(math.prod(sizes) * data.dtype.itemsize, f"the sparse array {folder!r}")
        dense = np.zeros(sizes, data.dtype)
        _check_indices(indices, sizes[-1 if kind == b"csr" else 0])
        if kind == b"row_sparse":
            if data.shape != (len(indices), *sizes[1:]):
                raise ValueError(f"{len(indices)} rows of shape {sizes[1:]} are not of shape {data.shape}")
            dense[indices] = data
        else:
            starts = _read_array(archive.open(f"{folder}/indptr.npy", source.verify))
            dense[_rows(starts, sizes, len(indices)), indices] = data
    except (ValueError, IndexError) as error:
        archive.source.refuse(f"the sparse array {folder!r} is malformed: {error}")
    dense.flags.writeable = False
    return dense


def _check_indices(indices: np.ndarray, limit: int) -> None:
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        raise ValueError("its indices are not a list of integers")
    if indices.size and (indices.min() < 0 or indices.max() >= limit):
        raise ValueError(f"its indices go beyond {limit}")


def _rows(starts: np.ndarray, shape: tuple[int, ...], count: int) -> np.ndarray:
    """The row of each value of a csr array, whose values of row i begin at ``starts[i]``."""
    if len(shape) != 2 or starts.shape != (shape[0] + 1,) or starts.dtype.kind not in "iu":
        raise ValueError("it does not say where its rows begin")
    lengths = np.diff(starts.astype(np.int64))
    if starts[0] != 0 or starts[-1] != count or (lengths < 0).any():
        raise ValueError("its rows do not follow each other")
    return np.repeat(np.arange(shape[0]), lengths)
