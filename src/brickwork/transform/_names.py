"""The names that a function's code reads: globals, attributes, and attributes that it asks for by a string."""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

_BY_STRING = frozenset({"getattr", "hasattr", "vars", "attrgetter", "asdict", "__dict__", "__getattribute__"})
_KEYS = ("BUILD_CONST_KEY_MAP", "CALL_KW")  # take a tuple of keys, or of keywords


class Names(NamedTuple):
    """What some code mentions, and the functions inside it."""

    globals: tuple[str, ...]
    attributes: frozenset[str]
    loads: frozenset[str]  # those of the attributes that are more than calls of methods
    tried: frozenset[str]  # those that it may do without
    strings: frozenset[str]  # constants that might name an attribute
    by_string: bool  # whether it asks for attributes by strings


def _instructions(code: types.CodeType) -> Iterator[tuple[str, Any, str]]:
    for instruction in dis.get_instructions(code):
        yield instruction.opname, instruction.argval, instruction.argrepr
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _instructions(constant)


@functools.lru_cache(maxsize=4096)
def names_in(code: types.CodeType) -> Names:
    """The names in the code of a function."""
    used = list(_instructions(code))
    loads = tuple(dict.fromkeys(arg for op, arg, _ in used if op in ("LOAD_GLOBAL", "LOAD_NAME")))
    attributes = [(op, arg, show) for op, arg, show in used if op in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR")]
    # A method call is LOAD_METHOD up to Python 3.11, then a LOAD_ATTR that also pushes the object.
    plain = frozenset(arg for op, arg, show in attributes if op != "LOAD_METHOD" and "NULL" not in show)
    pairs = list(zip(used, [*(op for op, _, _ in used[1:]), ""], strict=True))  # with what comes next
    constants = [arg for (op, arg, _), then in pairs if op == "LOAD_CONST" and then not in _KEYS]
    matched = attribute_names(arg for (_, arg, _), then in pairs if then == "MATCH_CLASS")  # case Point(x=0)
    names = matched.union(arg for _, arg, _ in attributes)
    return Names(
        globals=loads,
        attributes=names - {"__dict__"},  # or all that is in there would matter
        loads=plain | matched,
        tried=matched | plain if "AttributeError" in loads else matched,
        strings=attribute_names(constants),
        by_string=not _BY_STRING.isdisjoint((*loads, *names)),
    )


def attribute_names(values: Iterable[Any]) -> frozenset[str]:
    """The strings among some values, and in tuples and frozensets there, that can name an attribute.

    A dotted path, as ``operator.attrgetter`` takes, names each of its parts.
    """
    found: set[str] = set()
    for value in values:
        if type(value) is str:
            parts = value.split(".")
            if all(part.isidentifier() for part in parts):
                found.update(parts)
        elif type(value) in (tuple, frozenset):
            found |= attribute_names(value)
    return frozenset(found)
