"""The past of a compiled function: what it has done, what that took, and the programs that were made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ._program import Program


class Remains:
    """What is worth keeping of a program that is dropped, to say how later calls differ; holds no modules."""

    __slots__ = ("arguments", "config", "encoding", "footprint", "guards", "identities", "modules", "roots")

    def __init__(self, program: Program) -> None:
        self.footprint, self.arguments, self.config = program.footprint, program.arguments, program.config
        self.guards, self.roots, self.modules = program.guards, program.roots, program.modules
        self.encoding, self.identities = program.encoding, program.identities


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
