"""The persistent compilation cache: on by default, out of the way when the user has set up JAX's own."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..core._jax import FetchedAhead, setting, use_compilation_cache


@dataclass(frozen=True)
class CacheInfo:
    """The persistent compilation cache: programs found in it, programs compiled, bytes on disk."""

    directory: str | None
    hits: int
    misses: int
    size: int


class _State:
    lock = threading.Lock()
    enabled = False
    listening = False
    hits = 0
    misses = 0


def _default_directory() -> Path:
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "brickwork" / "xla"


def enable_cache() -> None:
    """Turn the cache on, once, unless the user has decided otherwise.

    ``BRICKWORK_CACHE=off`` turns it off, ``BRICKWORK_CACHE=DIR`` puts it elsewhere. A cache directory
    that JAX was given already is left alone.
    """
    with _State.lock:
        if _State.enabled:
            return
        _State.enabled = True
        jax.monitoring.register_event_listener(_count)
        wanted = os.environ.get("BRICKWORK_CACHE", "")
        configured = setting("jax_compilation_cache_dir") is not None
        if wanted.lower() == "off" or configured or not setting("jax_enable_compilation_cache"):
            return
        directory = Path(wanted).expanduser() if wanted else _default_directory()
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError:
            if wanted:
                raise
            return  # a home that can't be written to: compile every time, as JAX does by default
        use_compilation_cache(str(directory))


def fetch_ahead(fn: Any, arrays: list[Any], number: int) -> FetchedAhead:
    """Begin to fetch the program that the ``number``-th compilation of a function made in the last process.

    It is guessed by what can be told before the function is traced, and is the same in every process.
    """
    named = fn if hasattr(fn, "__qualname__") else type(fn)
    code = getattr(named, "__code__", None)
    text = code and (code.co_filename, code.co_code)
    shapes = [(np.shape(x), str(getattr(x, "dtype", ""))) for x in arrays]
    return FetchedAhead(named.__module__, named.__qualname__, text, number, shapes)


def _count(event: str, **kwargs: Any) -> None:
    if event == "/jax/compilation_cache/cache_hits":
        _State.hits += 1
    elif event == "/jax/compilation_cache/cache_misses":
        _State.misses += 1


def cache_info() -> CacheInfo:
    """Hits and misses of the persistent compilation cache in this process, and its size on disk.

    Example:
        >>> import brickwork as bw
        >>> bw.cache_info().hits >= 0
        True
    """
    directory = setting("jax_compilation_cache_dir")
    size = 0
    if directory and os.path.isdir(directory):
        size = sum(entry.stat().st_size for entry in os.scandir(directory) if entry.is_file())
    return CacheInfo(directory=directory, hits=_State.hits, misses=_State.misses, size=size)
