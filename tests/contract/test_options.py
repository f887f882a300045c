"""What every layer says to options that it can't take."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from tests.contract.catalogue import Row, rows_where

from brickwork import nn
from brickwork.core import ModuleBase
from brickwork.core._arguments import Like


def parameters(row: Row) -> list[inspect.Parameter]:
    return list(inspect.signature(type(row.explicit()).__init__).parameters.values())


def takes_any(row: Row) -> bool:
    return any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters(row)) or nn.is_parametrized(
        row.explicit()
    )


def switches(row: Row) -> list[str]:
    return [p.name for p in parameters(row) if p.annotation == "bool"]


def arguments(layer: Any) -> dict[str, Any]:
    """Those it was made with, so that they can be given again."""
    given: dict[str, Any] = layer.constructor_arguments()
    given = {k: v.clone() if isinstance(v, ModuleBase) else v for k, v in given.items()}
    return {k: (lambda v=v: v.module.clone()) if isinstance(v, Like) else v for k, v in given.items()}


@rows_where(lambda row: bool(switches(row)) and not takes_any(row))
@pytest.mark.parametrize("value", ["yes", 1, None], ids=repr)
def test_a_switch_is_true_or_false(row: Row, value: Any) -> None:
    layer = row.explicit()
    for switch in switches(row):
        with pytest.raises(TypeError) as error:
            type(layer)(**(arguments(layer) | {switch: value}))
        name, _, message = str(error.value).partition(": ")
        assert name in [cls.__name__ for cls in type(layer).__mro__[:2]]
        assert message == f"{switch} must be True or False, got {value!r} ({type(value).__name__})."


@rows_where(lambda row: not takes_any(row))
def test_an_argument_that_is_unknown(row: Row) -> None:
    layer = row.explicit()
    with pytest.raises(
        TypeError, match=rf"^{type(layer).__name__}(\(.*\): got an unexpected| takes no arguments, got)"
    ):
        type(layer)(**arguments(layer), zzz=1)
