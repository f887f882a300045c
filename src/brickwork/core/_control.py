"""Messages for Python control flow that asks a traced value what it is."""

from __future__ import annotations

import functools
import linecache
import os
import sys
import traceback
from types import TracebackType
from typing import Any

import jax

from ..errors import ControlFlowError

_INTERNAL = tuple(os.path.dirname(os.path.abspath(path)) + os.sep for path in (jax.__file__, os.path.dirname(__file__)))

UNDECIDED = (jax.errors.ConcretizationTypeError, jax.errors.TracerIntegerConversionError)
"""What JAX raises where Python asks a tracer what it is."""


@functools.lru_cache(maxsize=4096)
def _is_internal(file: str) -> bool:
    """Whether code is JAX's or ours."""
    return os.path.abspath(file).startswith(_INTERNAL)


def user_location(trace: TracebackType | None) -> tuple[str, int]:
    """File and line of the innermost frame of a traceback that is the user's own code."""
    place = ("<unknown>", 0)
    for frame, line in traceback.walk_tb(trace):
        if not _is_internal(frame.f_code.co_filename):
            place = (frame.f_code.co_filename, line)
    return place


def place_of_caller() -> tuple[str, int]:
    """File and line of the user's code that is running: the innermost frame that is neither JAX's nor ours."""
    frame: Any = sys._getframe(1)
    while frame.f_back is not None and _is_internal(frame.f_code.co_filename):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def explain_concretization(error: BaseException, doing: str, hint: str = "") -> ControlFlowError:
    """Say where a program asked for a value that is not known while tracing, and what to do."""
    file, line = user_location(error.__traceback__)
    source = linecache.getline(file, line).strip()
    number = next((name for name in ("float", "complex") if f"with the `{name}` function" in str(error)), None)
    return ControlFlowError(
        f"{file}:{line}: `{source}` needs the value of an array, which is not known during {doing}. "
        "Use jnp.where, bw.cond or bw.while_loop there, or run this part eagerly"
        + (": call the network on data instead of specs." if doing == "shape inference" else ".")
        + (
            f" {number}() also loses the gradient of what is differentiated; x.item() does that knowingly."
            if number
            else ""
        )
        + hint
    )
