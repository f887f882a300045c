"""What a module's constructor was called with, as far as it is plain data.

Noting arguments must not keep anything alive that would otherwise be freed, nor make a cycle. So modules, arrays,
closures and the like are not kept; a constructor usually has them in an attribute of the argument's name.
"""

from __future__ import annotations

import enum
import inspect
from typing import Any

import numpy as np

from .._draw import Initializer
from ._containers import Node
from ._functions import is_global, portable
from ._variable import Variable

NOTHING: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
_PLAIN = frozenset({bool, int, float, complex, str, type(None)})
_MOST = 1000  # items of a container that is kept


class Left:
    """Stands for an argument that isn't plain data and was left where it is."""

    __slots__ = ("what",)

    def __init__(self, what: str) -> None:
        self.what = what

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Left) and other.what == self.what

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{self.what}>"


class Like:
    """An argument that is a function which makes modules like this one."""

    def __init__(self, module: Any) -> None:
        self.module = module


def note(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, with something in place of those that aren't plain data."""
    for value in args:
        if type(value) not in _PLAIN:
            args = tuple(map(_kept, args))
            break
    for value in kwargs.values():
        if type(value) not in _PLAIN:
            kwargs = {name: _kept(value) for name, value in kwargs.items()}
            break
    return args, kwargs


def _kept(value: Any) -> Any:
    kind = type(value)
    if kind in _PLAIN or isinstance(value, (np.dtype, enum.Enum)):
        return value
    if kind in (list, tuple, dict):
        kept = [x if type(x) in _PLAIN else _kept(x) for x in (value.values() if kind is dict else value)]
        if not any(isinstance(x, Left) for x in kept) and len(kept) <= _MOST:
            return dict(zip(value, kept, strict=True)) if kind is dict else kind(kept)
    elif isinstance(value, (Node, Variable)):
        return Left(kind.__name__)
    elif (callable(value) and is_global(value)) or (isinstance(value, Initializer) and _is_plain(value)):
        return value
    return Left(getattr(value, "__qualname__", None) or kind.__name__)


def _is_plain(initializer: Initializer) -> bool:
    return all(type(x) in _PLAIN for x in vars(initializer).values())


def bound(module: Any, **elsewhere: Any) -> dict[str, Any]:
    """The arguments by name; those left behind are taken from the attributes of their names, or from ``elsewhere``.

    Raises:
        TypeError: they aren't known, or an attribute is missing.
    """
    found = named(module)
    if found is None:
        raise TypeError(f"it was not made by calling {type(module).__name__}, so its arguments are not known")
    return {name: _looked_up(module, name, value, elsewhere) for name, value in found.items()}


def named(module: Any) -> dict[str, Any] | None:
    """The noted arguments by name; ``None`` when nothing is known of them."""
    if module._bw.arguments is None:
        return None
    args, kwargs = module._bw.arguments
    found = inspect.signature(type(module).__init__).bind(module, *args, **kwargs).arguments
    found.pop(next(iter(found)))  # self
    return dict(found)


def _looked_up(module: Any, name: str, value: Any, elsewhere: dict[str, Any]) -> Any:
    if not isinstance(value, Left) and not (isinstance(value, (tuple, dict)) and _holds_left(value)):
        return value
    if name in elsewhere:
        return elsewhere[name]
    for attribute in (name, f"_{name}"):
        if attribute in module.__dict__ or isinstance(getattr(type(module), attribute, None), property):
            return getattr(module, attribute)
    raise TypeError(
        f"its argument {name} was {value!r}, which is not plain data; keep it as an attribute, self.{name} = {name}, "
        f"or let {type(module).__name__} define constructor_arguments(self), which returns a dict of arguments that "
        "make such a module"
    )


def _holds_left(value: Any) -> bool:
    """Whether a value has been left in a variadic argument."""
    return any(isinstance(x, Left) for x in (value.values() if isinstance(value, dict) else value))


def carried(arguments: Any) -> Any:
    """Noted arguments in a form that can be pickled."""
    if arguments is None:
        return None
    args, kwargs = arguments
    return tuple(map(_carried, args)), {name: _carried(value) for name, value in kwargs.items()}


def _carried(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(map(_carried, value))
    if isinstance(value, dict):
        return {key: _carried(x) for key, x in value.items()}
    if isinstance(value, (enum.Enum, Initializer)) and not is_global(type(value)):
        return Left(type(value).__name__)
    return portable(value)
