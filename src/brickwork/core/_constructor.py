"""Whether a module's constructor takes the arguments it is called with, and what to say when it doesn't.

Python names the function that refused, which is often that of a private base class, and refuses nothing at all for a
class without ``__init__``: its arguments would be lost.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

_ELSEWHERE = {
    "inplace": "Arrays can't be changed in place; leave it out.",
    "device": "Leave it out, and move the whole network: net.to(...).",
    "requires_grad": "Leave it out; net.freeze() keeps parameters from training.",
}


class Constructor:
    """The parameters of an ``__init__``, in a form that calls are checked against quickly."""

    __slots__ = ("all", "init", "keywords", "needed", "parameters", "positional", "rest", "rest_by_name")

    def __init__(self, init: Any) -> None:
        self.init = init
        try:  # of a wrapper its own, since it may add arguments or take some away
            found = [] if init is object.__init__ else _parameters(init)
        except ValueError:  # compiled code that doesn't tell: Python itself will check
            found = [inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL)]
            found.append(inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD))
        self.all = found
        self.rest = any(p.kind is p.VAR_POSITIONAL for p in found)
        self.rest_by_name = any(p.kind is p.VAR_KEYWORD for p in found)
        self.parameters = [p for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        self.positional = [p.name for p in self.parameters if p.kind is not p.KEYWORD_ONLY]
        self.keywords = {p.name for p in self.parameters if p.kind is not p.POSITIONAL_ONLY}
        self.needed = [p.name for p in self.parameters if p.default is p.empty]

    def takes(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether a call with these arguments binds."""
        given = self.positional[: len(args)]
        return (
            (len(args) <= len(self.positional) or self.rest)
            and (self.rest_by_name or kwargs.keys() <= self.keywords)
            and (not kwargs or not given or kwargs.keys().isdisjoint(self.keywords.intersection(given)))
            and all(name in kwargs or name in given for name in self.needed)
        )

    def refusal(self, cls: type, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """What is wrong with arguments that the constructor doesn't take."""
        explain = getattr(self.init, "explain_arguments", None)
        own = explain(cls.__name__, args, kwargs) if explain is not None else None
        if own is not None:
            return own
        shown = f"({', '.join([*map(_short, args), *(f'{k}={_short(v)}' for k, v in kwargs.items())])})"
        if not (self.parameters or self.rest or self.rest_by_name):
            fix = "Leave them out."
            if not cls.__module__.startswith("brickwork."):
                fix = f"Leave them out, or give {cls.__name__} an __init__ that takes them."
            return f"{cls.__name__} takes no arguments, got {shown}. {_elsewhere(cls, kwargs) or fix}"
        start = f"{cls.__name__}({self._signature()}): "
        unknown = [k for k in kwargs if k not in self.keywords] if not self.rest_by_name else []
        if unknown:
            close = difflib.get_close_matches(unknown[0], self.keywords, 1)
            fix = _elsewhere(cls, kwargs) or (f"Did you mean {close[0]!r}?" if close else "Leave it out.")
            return f"{start}got an unexpected argument {unknown[0]!r}. {fix}"
        if len(args) > len(self.positional) and not self.rest:
            got = f"{len(args)} positional argument{'s' * (len(args) > 1)} {shown}"
            return f"{start}got {got}; {self._by_keyword(cls, args, kwargs)}."
        twice = [name for name in self.positional[: len(args)] if name in kwargs]
        if twice:
            return f"{start}got {shown}, which gives {twice[0]!r} both by position and by name."
        missing = [n for n in self.needed if n not in kwargs and n not in self.positional[: len(args)]]
        names = " and ".join(map(repr, missing))
        return f"{start}got {shown}; missing {names}."

    def _signature(self) -> str:
        parts = []
        star = False
        for p in self.all:
            if p.kind is p.KEYWORD_ONLY and not star:
                parts.append("*")
            star = star or p.kind in (p.KEYWORD_ONLY, p.VAR_POSITIONAL)
            name = {p.VAR_POSITIONAL: f"*{p.name}", p.VAR_KEYWORD: f"**{p.name}"}.get(p.kind, p.name)
            parts.append(name if p.default is p.empty else f"{name}={_short(p.default)}")
        shown = ", ".join(parts)
        return shown if len(shown) <= 200 else f"{shown[:200].rpartition(', ')[0]}, ..."

    def _by_keyword(self, cls: type, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """Which keywords the surplus positional arguments are likely meant for: those of such a type."""
        most, free = len(self.positional), [p for p in self.parameters if p.kind is p.KEYWORD_ONLY]
        limit = f"at most {most} {'is' if most == 1 else 'are'} taken by position" if most else "none is taken so"
        if not free:
            return limit
        written = [repr(value) for value in args[:most]]
        for value in args[most:]:
            fits = [p for p in free if p.name not in kwargs and type(p.default) is type(value)]
            if value is None or not fits:
                return f"{limit}: give the others by keyword"
            free.remove(fits[0])
            written.append(f"{fits[0].name}={_short(value)}")
        written += [f"{k}={_short(v)}" for k, v in kwargs.items()]
        return f"{limit}: write {cls.__name__}({', '.join(written)})"


def _parameters(init: Any) -> list[inspect.Parameter]:
    found = list(inspect.signature(init, follow_wrapped=False).parameters.values())
    return found if found and found[0].kind is inspect.Parameter.VAR_POSITIONAL else found[1:]  # without self


def _elsewhere(cls: type, kwargs: Mapping[str, Any]) -> str | None:
    known = _ELSEWHERE | getattr(cls, "arguments_elsewhere", {})
    return next((known[name] for name in kwargs if name in known), None)


def _short(value: Any) -> str:
    shown = value.__name__ if isinstance(value, type) else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
