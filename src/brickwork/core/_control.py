"""Messages for Python control flow that asks a traced value what it is."""

from __future__ import annotations

import linecache
import os
import traceback
from types import TracebackType

import jax

from ..errors import ControlFlowError

_PACKAGES = (jax.__file__, os.path.dirname(__file__))  # jax/__init__.py and brickwork/core
_INTERNAL = tuple(os.path.dirname(os.path.abspath(path)) + os.sep for path in _PACKAGES)


def user_location(trace: TracebackType | None) -> tuple[str, int]:
    """File and line of the innermost frame of a traceback that is the user's own code."""
    place = ("<unknown>", 0)
    for frame, line in traceback.walk_tb(trace):
        path = os.path.abspath(frame.f_code.co_filename)
        if not path.startswith(_INTERNAL):
            place = (frame.f_code.co_filename, line)
    return place


def explain_concretization(error: BaseException, doing: str) -> ControlFlowError:
    """Say where a program asked for a value that is not known while tracing, and what to do."""
    file, line = user_location(error.__traceback__)
    source = linecache.getline(file, line).strip()
    return ControlFlowError(
        f"{file}:{line}: `{source}` needs the value of an array, which is not known during {doing}. "
        "Use jnp.where, jax.lax.cond or jax.lax.while_loop there, or run this part eagerly"
        + (": call the network on data instead of specs." if doing == "shape inference" else ".")
    )
