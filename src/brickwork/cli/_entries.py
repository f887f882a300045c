"""What a file holds, entry by entry."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import Progress

from ..io._formats import read
from ..io._source import Contents
from ..io._structure import leaves

_T = TypeVar("_T")
_LARGE = 1 << 28  # bytes; work on fewer is over before a progress bar says anything


@dataclass(frozen=True)
class Entry:
    """An array or a plain value of a file.

    Attributes:
        name: the path to it, joined with dots.
        value: a read-only NumPy array, or the plain value.
        tied: the name of an earlier entry that is the same array, or an empty string.
    """

    name: str
    value: Any
    tied: str = ""

    @property
    def is_array(self) -> bool:
        """Whether it is an array."""
        return isinstance(self.value, np.ndarray)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an array; ``()`` for plain values."""
        return self.value.shape if self.is_array else ()

    @property
    def dtype(self) -> str:
        """The dtype of an array, the type of a plain value."""
        return self.value.dtype.name if self.is_array else type(self.value).__name__

    @property
    def nbytes(self) -> int:
        """Bytes of an array that is not tied to an earlier one."""
        return self.value.nbytes if self.is_array and not self.tied else 0


def open_file(path: str, verify: bool = False) -> tuple[Contents, list[Entry]]:
    """A file's contents, and its entries in order."""
    contents = read(path, verify)
    entries: list[Entry] = []
    first: dict[int, str] = {}
    found = list(leaves(contents.tree))
    if contents.kind == "safetensors":  # which orders tensors by dtype
        found.sort(key=lambda leaf: [(int(p), "") if p.isdecimal() else (-1, p) for p in leaf[0].split(".")])
    for name, value in found:
        value = np.asarray(value) if isinstance(value, np.generic) else value
        tied = first.setdefault(id(value), name) if isinstance(value, np.ndarray) else name
        entries.append(Entry(name, value, "" if tied == name else tied))
    by_name = {entry.name: entry for entry in entries}
    for alias, name in contents.aliases.items():
        if name in by_name and alias not in by_name:
            entries.append(Entry(alias, by_name[name].value, name))
    return contents, entries


def with_progress(items: Sequence[_T], sizes: Iterable[int], what: str) -> Iterator[_T]:
    """The items one after the other, with a progress bar on a terminal while they are many bytes."""
    sizes = list(sizes)
    console = Console(stderr=True)
    if sum(sizes) < _LARGE or not console.is_terminal:
        yield from items
        return
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(what, total=sum(sizes))
        for item, size in zip(items, sizes, strict=True):
            yield item
            progress.update(task, advance=size)


@contextlib.contextmanager
def working(path: str, what: str) -> Iterator[None]:
    """On a terminal, say what takes a while when the file is large."""
    console = Console(stderr=True)
    large = os.path.isdir(path) or (os.path.isfile(path) and os.path.getsize(path) >= _LARGE)
    with console.status(what) if large and console.is_terminal else contextlib.nullcontext():
        yield


def show_size(nbytes: int) -> str:
    """``1.5 MB``."""
    size, unit = float(nbytes), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{nbytes} B" if unit == "B" else f"{size:.3g} {unit}"


def show_shape(shape: tuple[int, ...]) -> str:
    """``2 x 3``; a dash for no axes."""
    return " x ".join(map(str, shape)) if shape else "-"


def show_path(path: str) -> str:
    """How titles call a file."""
    return os.path.basename(os.path.normpath(path)) or path
