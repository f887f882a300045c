"""What pickles are made into: the builtins they call, and the finished result."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from .._source import Source
from ._pickle import Global, Pending, name_of

__all__ = ["BUILTINS", "finish"]

MAX_DEPTH = 64  # of the result


def _complex(arguments: tuple[Any, ...]) -> complex:
    match arguments:
        case (float() | int() as real, float() | int() as imaginary):
            return complex(float(real), float(imaginary))
    raise ValueError("the arguments should be two numbers")


def _bytes(arguments: tuple[Any, ...]) -> bytes | memoryview:
    """``bytes()``, ``_codecs.encode(text, "latin1")``, ``bytearray(text, "latin-1")``."""
    match arguments:
        case ():
            return b""
        case (bytes() | memoryview() as data,):
            return data
        case (str() as text, "latin1" | "latin-1"):
            return text.encode("latin-1")  # a UnicodeEncodeError is a ValueError
    raise ValueError("the arguments should be a text and 'latin1'")


def _in_both(names: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """Under the name of the module in Python 3 and in Python 2."""
    return {(module, name): value for name, value in names.items() for module in ("builtins", "__builtin__")}


BUILTINS: dict[tuple[str, str], Any] = {
    **_in_both(
        {
            "set": set,
            "frozenset": frozenset,
            "list": list,
            "tuple": tuple,
            "dict": dict,
            "complex": _complex,
            "bytes": _bytes,
            "bytearray": _bytes,
            "int": None,  # these two as factories of defaultdict
            "float": None,
        }
    ),
    ("_codecs", "encode"): _bytes,
    ("collections", "OrderedDict"): dict,
    ("collections", "Counter"): dict,
    ("collections", "defaultdict"): defaultdict,
}


# --- the result -----------------------------------------------------------------------------------


def finish(value: Any, source: Source, offset: int, convert: Callable[[Any], Any] | None = None) -> Any:
    """What the pickle stands for, as new containers: everything pending finished, nothing nested without end.

    Args:
        value: from :func:`interpret`.
        source: the file.
        offset: where the pickle begins, for messages.
        convert: applied to every value and container in the result, innermost first.

    Raises:
        CheckpointError: the result contains itself, is nested deeper than 64 levels, would be far larger than
            the file if every repeated part were written out, or has something that can't be finished.
    """
    return _Finisher(source, offset, convert).make(value, ())


class _Finisher:
    def __init__(self, source: Source, offset: int, convert: Callable[[Any], Any] | None) -> None:
        self.source, self.offset, self.convert = source, offset, convert
        self.made: dict[int, tuple[Any, Any, int]] = {}  # by id: the original, kept alive; the result; its size
        self.open: set[int] = set()
        self.size = 0  # of what was made so far, with everything that repeats counted each time

    def make(self, value: Any, path: tuple[Any, ...]) -> Any:
        if type(value) in _PLAIN:
            self.size += 1
            return value if self.convert is None else self.convert(value)
        known = self.made.get(id(value))
        if known is not None:
            self.count(known[2])
            return known[1]
        if id(value) in self.open:
            self.source.fail(self.offset, f"{_shown(path)} contains itself")
        if len(self.open) > MAX_DEPTH:
            self.source.fail(self.offset, f"{_shown(path)} is nested deeper than {MAX_DEPTH} levels")
        self.open.add(id(value))
        before = self.size
        self.count(1)
        made = self.make_new(value, path)
        made = made if self.convert is None else self.convert(made)
        self.made[id(value)] = value, made, self.size - before
        self.open.discard(id(value))
        return made

    def count(self, size: int) -> None:
        self.size += size
        if self.size > 2**20 + self.source.size:
            self.source.fail(
                self.offset, "the same parts repeat within each other over and over; it was made to exhaust memory"
            )

    def make_new(self, value: Any, path: tuple[Any, ...]) -> Any:
        if isinstance(value, Pending):
            try:
                return value.finish(lambda part: self.make(part, path))
            except ValueError as error:
                self.source.fail(value.offset, f"{_shown(path)}: {error}" if path else str(error))
        if type(value) is dict:
            return {key: self.make(item, (*path, key)) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self.make(item, (*path, i)) for i, item in enumerate(value))
        if isinstance(value, memoryview):
            self.source.spend(len(value), _shown(path))
            return bytes(value)
        if type(value) in (set, frozenset):
            self.count(len(value))
            return value
        if isinstance(value, Global) and type(value.target) is str:
            return value.target
        self.source.fail(self.offset, f"{_shown(path)} is {name_of(value)} itself, not a value")


_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes})


def _shown(path: tuple[Any, ...]) -> str:
    """The place in the result, for messages."""
    text = ".".join(str(part)[:200] for part in path)
    if not text:
        return "the whole of it"
    return repr(text if len(text) <= 200 else f"{text[:197]}...")
