"""What can be chosen about a compiled function."""

from __future__ import annotations

from typing import NamedTuple


class Options(NamedTuple):
    """How a function is compiled; see :func:`brickwork.compile`."""

    donate: bool = True
    speculate: bool = True
    onednn: bool = False


def checked(donate: bool, control_flow: str, onednn: bool) -> Options:
    """Raise for an option that there is not."""
    if control_flow not in ("speculate", "error"):
        raise ValueError(f'compile: control_flow must be "speculate" or "error", got {control_flow!r}')
    for name, value in (("donate", donate), ("onednn", onednn)):
        if not isinstance(value, bool):
            raise TypeError(f"compile: {name} must be True or False, got {value!r}")
    return Options(donate, control_flow == "speculate", onednn)
