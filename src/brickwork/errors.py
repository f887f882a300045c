"""The exceptions that brickwork raises.

Each one derives from :class:`BrickworkError` and from the built-in class that a user would
naturally catch, so ``except ValueError`` keeps working for code that does not know brickwork.
"""

from __future__ import annotations

__all__ = [
    "BrickworkError",
    "CheckpointError",
    "ControlFlowError",
    "DeferredShapeError",
    "DeviceMismatchError",
    "LoadError",
    "MissingExtraError",
    "RecompileError",
    "ShapeMismatchError",
    "StructureError",
    "TraceLeakError",
]


class BrickworkError(Exception):
    """Base class of every exception that brickwork defines."""


class DeferredShapeError(BrickworkError, RuntimeError):
    """A parameter was read before its shape was known."""


class ShapeMismatchError(BrickworkError, ValueError):
    """Two shapes, or a shape and a layer's configuration, contradict each other."""


class DeviceMismatchError(BrickworkError, ValueError):
    """Operands of one computation live on different devices."""


class TraceLeakError(BrickworkError, RuntimeError):
    """A traced value would have been stored where it outlives its trace."""


class ControlFlowError(BrickworkError, TypeError):
    """Python control flow depends on a value that is only known when the program runs."""


class RecompileError(BrickworkError, RuntimeError):
    """A compiled function would have been compiled where :func:`brickwork.no_recompile` forbids it."""


class StructureError(BrickworkError, TypeError):
    """A module was put together in a way that cannot work."""


class CheckpointError(BrickworkError, OSError):
    """A file cannot be read or written as a checkpoint: damaged, truncated or not of a known kind."""


class LoadError(BrickworkError, ValueError):
    """The contents of a checkpoint do not fit the network they are loaded into."""


class MissingExtraError(BrickworkError, ImportError):
    """An optional dependency is not installed."""
