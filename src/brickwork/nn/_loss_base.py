"""What the losses share, as layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core import Buffer
from ..functional import _checks as checks
from ..module import Module
from . import _args as args


class Loss(Module):
    """A loss with a reduction; ``_shown`` are the options that are printed unless they have these values."""

    _shown: Mapping[str, Any] = {}

    def __init__(self, *, reduction: str = "mean") -> None:
        self.reduction = checks.reduction(reduction, type(self).__name__)

    def extra_repr(self) -> str:
        return args.options(self, **self._shown, reduction="mean")[2:]


def constant_buffer(value: Any, layer: str, argument: str) -> Buffer | None:
    """Return weights that belong to the state but are not trained."""
    if value is None:
        return None
    array = checks.to_array(value, layer, argument)
    checks.require_floats(array, layer, argument)
    return Buffer(array)


def class_weights(value: Any, layer: str) -> Buffer | None:
    """Return one weight for each class."""
    weight = constant_buffer(value, layer, "weight")
    if weight is not None and len(weight.shape) != 1:
        checks.shape_error(layer, "weight must have one axis, (C,).", "Check weight.", weight=weight)
    return weight
