"""Checks of the arguments that layers are constructed with."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from ..functional import _checks as checks

Init = TypeVar("Init", bound=Callable[..., None])

epsilon = checks.epsilon
flag = checks.flag
integer = checks.integer
number = checks.number
nonzero = checks.nonzero
sizes = checks.sizes


def size(value: Any, layer: str, argument: str) -> int:
    """Return a size as an ``int`` of at least 1."""
    return checks.integer(value, layer, argument, 1)


def optional_size(value: Any, layer: str, argument: str) -> int | None:
    """Return a size as an ``int`` of at least 1, or ``None`` while it is not known."""
    return None if value is None else checks.integer(value, layer, argument, 1)


def sizes_or_int(value: Any, ndim: int, layer: str, argument: str, minimum: int = 1) -> Any:
    """Check an int, or one int for each of ``ndim`` spatial axes, and return it in the form it was given."""
    found = checks.sizes(value, ndim, layer, argument, minimum)
    return found if isinstance(value, (tuple, list)) else found[0]


def show(size: int | None) -> str:
    """Return a size as it is printed: ``?`` while it is not known."""
    return "?" if size is None else str(size)


def options(layer: Any, **defaults: Any) -> str:
    """Return those attributes of a layer that differ from the defaults: ``, stride=2``."""
    given = ((name, getattr(layer, name), default) for name, default in defaults.items())
    return "".join(f", {name}={value!r}" for name, value, default in given if value != default)


def torch_order(*names: str) -> Callable[[Init], Init]:
    """Make a constructor explain itself when it is called with the positions of ``torch.nn``.

    A size that the input determines is an optional keyword here and the first argument there, so
    ``nn.Linear(20, 256)`` must not pass for a layer with 20 outputs.

    Args:
        *names: the parameters of the torch class, in order.
    """

    def decorate(init: Init) -> Init:
        parameters = list(inspect.signature(init).parameters.values())[1:]
        own = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]

        known = {p.name for p in parameters} | set(names)

        def explain(layer: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
            if not kwargs.keys() <= known or not kwargs.keys().isdisjoint(names[: len(args)]):
                return None  # there is something else to say first
            if len(args) > len(own) or not kwargs.keys().isdisjoint(own[: len(args)]):
                return _explain(layer, own, names, args, kwargs)
            return None

        init.explain_arguments = explain  # type: ignore[attr-defined]
        return init

    return decorate


def _explain(layer: str, own: list[str], names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    inferred = names[0] if names[0] not in own else None
    signature = ", ".join([*own, "*", f"{inferred}=None" if inferred else "..."])
    kind = "sizes" if len(args) <= 2 and all(type(a) is int for a in args) else "arguments"
    if len(args) == 1:
        kind = kind[:-1]
    shown = ", ".join([*map(repr, args), *(f"{k}={v!r}" for k, v in kwargs.items())])
    got = f"({shown})" if kwargs else f"{len(args)} positional {kind} ({shown})"
    problem = f"{layer}({signature}): got {got}; write nn.{layer}"
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    missing = [name for name in own[:1] if name not in given]
    if missing:
        return f"{layer}({signature}): got {got}; missing {missing[0]!r}, which is given first."
    if any(isinstance(given.get(name), bool) for name in own):  # not torch's order
        return f"{problem}({', '.join(own)}, ...) and give the others by keyword"
    front = [repr(given.pop(name)) for name in own if name in given]
    known = [f"{inferred}={given.pop(inferred)!r}"] if inferred in given else []
    rest = [f"{name}={value!r}" for name, value in given.items()]
    value = args[0] if known and args else None
    if not known or (isinstance(value, (tuple, list)) and len(value) != 1):  # the input decides one size
        return f"{problem}({', '.join(front + known + rest)})"
    short, full = ", ".join(front + rest), ", ".join(front + known + rest)
    return f"{problem}({short}) and let the input decide, or nn.{layer}({full})"
