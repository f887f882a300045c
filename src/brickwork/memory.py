"""Keeping a computation's temporary memory in the process, on CPUs.

XLA asks the C library for the temporary memory of a compiled function at every call. glibc hands blocks above 32 MB
back to the system as soon as they are free, and the system clears every page of them at the next call.
"""

from __future__ import annotations

import ctypes
import platform

import jax

from .core._jax import has_devices

__all__ = ["keep_memory"]

# The parameters of mallopt(3), as in glibc's <malloc.h>.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_LARGEST_KEPT = 2**25  # bytes of a block that glibc keeps by itself (DEFAULT_MMAP_THRESHOLD_MAX)


class _State:
    kept = False


def keep_memory() -> bool:
    """Keep the memory that computations on the CPU free, for the next ones.

    A training step with more than 32 MB of temporaries (``step.explain(...)`` says how much) then takes up to a
    quarter less time; smaller ones, and steps on a GPU, take the same. In return the process gives back nothing of
    what it ever used, and grows to two or three times its size with such a step: free memory is not always in one
    piece. The settings are those of glibc's ``mallopt(3)``, for the whole process: no block comes from ``mmap``,
    nothing is given back, and all threads share one arena.

    Call it at the start of the script, before JAX's first array; calls after the first one do nothing.

    Returns:
        ``True`` if the C library took the settings; ``False`` where it isn't glibc (macOS, Windows, musl), and
        nothing was changed.

    Raises:
        RuntimeError: JAX has started its devices already: too late to have an effect.

    Example:
        >>> import brickwork as bw
        >>> bw.keep_memory()  # doctest: +SKIP
        True
    """
    if _State.kept or not _is_glibc():
        return _State.kept
    if has_devices():
        raise RuntimeError(
            "keep_memory() has to come before JAX's first array: JAX has started its devices already, and the threads "
            "that compute keep the memory pools that they started with. Call it right after the imports."
        )
    mallopt = ctypes.CDLL(None).mallopt
    _State.kept = all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, -1), mallopt(_ARENA_MAX, 1)])
    return _State.kept


def would_be_kept(size: int) -> bool:
    """Whether :func:`keep_memory` would keep a block of ``size`` bytes that is given back otherwise."""
    return size > _LARGEST_KEPT and not _State.kept and jax.default_backend() == "cpu" and _is_glibc()


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
