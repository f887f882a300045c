"""What a compiled function has cost, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._record import Record


@dataclass(frozen=True)
class Stats:
    """What a compiled function has cost so far. Times in seconds, sizes in bytes.

    ``compilations`` counts all that XLA compiled: for new arguments, for changed modules, and again for
    inputs that lie on other devices; ``programs`` is how many are kept. A call that compiled nothing is a
    cache hit.

    The rest is about the program that was made or looked up last, ``None`` before the first: ``flops``,
    ``bytes_accessed``, the bytes of its arguments (variables included), results and temporaries, those
    ``donated`` (results that overwrite arguments) and ``peak_memory``, which is the sum of the former
    three less the latter. They are XLA's figures, for one device, without the FLOPs of what oneDNN
    computes. ``cause`` says why it was made.

    Example:
        >>> import brickwork as bw
        >>> import jax.numpy as jnp
        >>> double = bw.compile(lambda x: 2 * x)
        >>> for n in (3, 3, 4):
        ...     y = double(jnp.ones(n))
        >>> stats = double.stats()
        >>> stats.calls, stats.compilations, stats.cache_hits
        (3, 2, 1)
        >>> stats.cause
        "argument 'x': float32[3] became float32[4]"
    """

    calls: int
    compilations: int
    cache_hits: int
    trace_seconds: float
    compile_seconds: float
    flops: float | None
    bytes_accessed: float | None
    peak_memory: int | None
    donated: int | None
    argument_bytes: int | None
    result_bytes: int | None
    temp_bytes: int | None
    programs: int
    cause: str | None

    def __str__(self) -> str:
        text = (
            f"{count(self.calls, 'call')}, {count(self.compilations, 'compilation')} "
            f"({self.trace_seconds:.3g} s tracing, {self.compile_seconds:.3g} s compiling), "
            f"{count(self.programs, 'program')} kept"
        )
        if self.flops is not None:
            text += f", {scaled(self.flops)}FLOPs"
        if self.peak_memory is not None:
            text += f", {scaled(self.peak_memory)}B of memory, {scaled(self.donated)}B donated"
        return text


@dataclass(frozen=True)
class Figures:
    """XLA's own figures for one executable; ``None`` where it has none."""

    flops: float | None = None
    bytes_accessed: float | None = None
    argument_bytes: int | None = None
    result_bytes: int | None = None
    temp_bytes: int | None = None
    donated_bytes: int | None = None

    @classmethod
    def of(cls, executable: Any) -> Figures:
        """Those of a ``jax.stages.Compiled``, or of none."""
        if executable is None:
            return cls()
        cost = executable.cost_analysis() or {}
        memory = executable.memory_analysis()
        return cls(
            cost.get("flops"),
            cost.get("bytes accessed"),
            *(() if memory is None else (
                memory.argument_size_in_bytes,
                memory.output_size_in_bytes,
                memory.temp_size_in_bytes,
                memory.alias_size_in_bytes,
            )),
        )  # fmt: skip

    @property
    def peak_memory(self) -> int | None:
        """Arguments, results and temporaries, less the results that overwrite arguments."""
        sizes = self.argument_bytes, self.result_bytes, self.temp_bytes, self.donated_bytes
        if any(size is None for size in sizes):
            return None
        return sizes[0] + sizes[1] + sizes[2] - sizes[3]  # type: ignore[operator]


def gather(record: Record) -> Stats:
    """The statistics of a compiled function."""
    last = record.last
    figures = Figures.of(None if last is None else last.executable)
    return Stats(
        calls=record.calls,
        compilations=record.compilations,
        cache_hits=record.calls - record.misses,
        trace_seconds=record.trace_seconds,
        compile_seconds=record.compile_seconds,
        flops=figures.flops,
        bytes_accessed=figures.bytes_accessed,
        peak_memory=figures.peak_memory,
        donated=figures.donated_bytes,
        argument_bytes=figures.argument_bytes,
        result_bytes=figures.result_bytes,
        temp_bytes=figures.temp_bytes,
        programs=len(record.made),
        cause=None if last is None else last.cause,
    )


def count(n: int, what: str) -> str:
    """``1 call``, ``2 calls``."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def scaled(n: float | None) -> str:
    """A number with a prefix for thousands, to be followed by its unit: ``1.5 M``."""
    if n is None:
        return "? "
    for prefix in ("", "k", "M", "G"):
        if abs(n) < 999.5:
            return f"{n:.3g} {prefix}"
        n /= 1000
    return f"{n:.3g} T"
