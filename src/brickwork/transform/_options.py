"""What can be chosen about a compiled function."""

from __future__ import annotations

from typing import NamedTuple


class Options(NamedTuple):
    """How a function is compiled; see :func:`brickwork.compile`."""

    donate: bool = True
    speculate: bool = True
    onednn: bool = False

    def require(self, others: Options, name: str) -> None:
        """Raise where something else is asked for of a function that is compiled with these already."""
        if others in (self, Options()):
            return
        given = ", ".join(f"{option}={value!r}" for option, value in others.as_arguments().items())
        raise ValueError(
            f"compile: {name} is compiled already, and can't be compiled with {given} in addition. "
            "Give the options where it is compiled first."
        )

    def as_arguments(self) -> dict[str, object]:
        """What of this isn't the default, as given to :func:`brickwork.compile`."""
        flow = "speculate" if self.speculate else "error"
        given = {"donate": self.donate, "control_flow": flow, "onednn": self.onednn}
        usual = {"donate": True, "control_flow": "speculate", "onednn": False}
        return {option: value for option, value in given.items() if value != usual[option]}


def checked(donate: bool, control_flow: str, onednn: bool) -> Options:
    """Raise for an option that there is not."""
    if control_flow not in ("speculate", "error"):
        raise ValueError(f'compile: control_flow must be "speculate" or "error", got {control_flow!r}')
    for name, value in (("donate", donate), ("onednn", onednn)):
        if not isinstance(value, bool):
            raise TypeError(f"compile: {name} must be True or False, got {value!r}")
    return Options(donate, control_flow == "speculate", onednn)
