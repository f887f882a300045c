"""What can be chosen about a compiled function."""

from __future__ import annotations

from typing import NamedTuple


class Options(NamedTuple):
    """How a function is compiled; see :func:`brickwork.compile`."""

    donate: bool = True
    control_flow: str = "speculate"
    onednn: bool = False

    @property
    def speculate(self) -> bool:
        """Whether control flow on values is followed."""
        return self.control_flow == "speculate"

    def require(self, others: Options, function: str) -> None:
        """Raise where something else is asked for of a function that is compiled with these already."""
        if others in (self, Options()):
            return
        usual = self._field_defaults
        given = ", ".join(f"{name}={value!r}" for name, value in others._asdict().items() if value != usual[name])
        raise ValueError(
            f"compile: {function} is compiled already, and can't be compiled with {given} in addition. "
            "Give the options where it is compiled first."
        )


def checked(donate: bool, control_flow: str, onednn: bool) -> Options:
    """Raise for an option that there is not."""
    if control_flow not in ("speculate", "error"):
        raise ValueError(f'compile: control_flow must be "speculate" or "error", got {control_flow!r}')
    for name, value in (("donate", donate), ("onednn", onednn)):
        if not isinstance(value, bool):
            raise TypeError(f"compile: {name} must be True or False, got {value!r}")
    return Options(donate, control_flow, onednn)
