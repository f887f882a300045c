"""The past of a compiled function: what it has done, what that took, and the programs that were made."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from ..core import ModuleBase
from ._guards import Guards
from ._program import Program


@dataclass(frozen=True, eq=False)
class Remains:
    """What is worth keeping of a program that is dropped, to say how later calls differ; holds no modules."""

    footprint: Any
    arguments: Any
    config: Any
    guards: Guards
    roots: list[weakref.ref[ModuleBase]]
    modules: list[weakref.ref[ModuleBase]]
    encoding: Any
    identities: Any

    @classmethod
    def of(cls, program: Program) -> Remains:
        """What remains of a program."""
        return cls(**{f.name: getattr(program, f.name) for f in fields(cls)})


@dataclass(eq=False)
class Record:
    """What is known of one compiled function; it counts, the statistics and messages read."""

    fn: Callable[..., Any]
    name: str
    made: deque[tuple[Any, Program]] = field(default_factory=deque)  # programs with their keys, the oldest first
    calls: int = 0
    misses: int = 0  # calls that compiled
    compilations: int = 0
    other_paths: int = 0  # how many of them were made for control flow
    trace_seconds: float = 0.0
    compile_seconds: float = 0.0
    last: Program | None = None
    past: Remains | None = None  # what is left of the last one where that was dropped
