"""Loading values by name: all problems found first, then everything or nothing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import LoadError
from ._arrays import as_array, show_shape
from ._variable import Variable
from ._walk import walk

Rename = Mapping[str, str] | Callable[[str], str] | None


@dataclass
class LoadReport:
    """What a load found: names the state lacks, names the network lacks, shapes that don't fit."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether anything is amiss."""
        return bool(self.missing or self.unexpected or self.mismatched)


def _renamed(state: Mapping[str, Any], rename: Rename) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in state.items():
        new = str(name)
        if callable(rename):
            new = rename(new)
        elif rename is not None:
            for pattern, replacement in rename.items():
                new = re.sub(pattern, replacement, new)
        if new in result:
            raise LoadError(f"load: two names become {new!r} after renaming; one of them is {name!r}")
        result[new] = value
    return result


def _fits(variable: Variable, shape: tuple[int, ...]) -> bool:
    known = variable.shape
    return len(known) == len(shape) and all(a is None or a == b for a, b in zip(known, shape, strict=True))


def _report_text(report: LoadReport, names: list[str], what: str) -> str:
    lines = [f"{what} does not fit the network:"]
    groups = (
        ("missing (the network has it, the state does not)", report.missing, report.unexpected),
        ("unexpected (the state has it, the network does not)", report.unexpected, names),
        ("mismatched", report.mismatched, []),
    )
    for title, items, candidates in groups:
        if items:
            lines.append(f"  {title}:")
        for item in items[:20]:
            near = difflib.get_close_matches(item, candidates, n=1, cutoff=0.7)
            lines.append(f"    {item}" + (f"  (similar: {near[0]})" if near else ""))
        if len(items) > 20:
            lines.append(f"    ... and {len(items) - 20} more")
    if report.missing or report.unexpected:
        lines.append("  Use strict=False to skip missing and unexpected names, or rename={pattern: replacement}.")
    else:
        lines.append("  Build the network with the sizes of the state, or leave the sizes out.")
    return "\n".join(lines)


def load_state(
    root: Any, state: Mapping[str, Any], *, strict: bool, rename: Rename, what: str = "the state"
) -> LoadReport:
    """Set variables by path from ``state``; see ``Module.load_state_dict``."""
    if not isinstance(state, Mapping):
        raise TypeError(f"load: expected a mapping from names to arrays, got {type(state).__name__}")
    given = _renamed(state, rename)
    root.prepare_state(given)
    by_name: dict[str, Variable] = {}
    canonical: dict[int, str] = {}
    for path, item in walk(root, aliases=True):
        if isinstance(item, Variable):
            by_name[path] = item
            canonical.setdefault(id(item), path)
    report = LoadReport()
    chosen: dict[int, tuple[str, Variable, Any]] = {}
    for name, value in given.items():
        variable = by_name.get(name)
        if variable is None:
            report.unexpected.append(name)
            continue
        shape = tuple(np.shape(value))
        if not _fits(variable, shape):
            report.mismatched.append(f"{name}: the network has {show_shape(variable.shape)}, the state {shape}")
            continue
        first = chosen.setdefault(id(variable), (name, variable, value))
        if first[2] is not value and not np.array_equal(np.asarray(first[2]), np.asarray(value)):
            report.mismatched.append(f"{name}: tied to {first[0]} in the network, but the values differ")
    names = [path for path in canonical.values() if by_name[path].persistent]
    bad = {line.partition(":")[0] for line in report.mismatched}
    for path in names:
        variable = by_name[path]
        aliases = {n for n, v in by_name.items() if v is variable} if bad else {path}
        if id(variable) not in chosen and not aliases & bad:
            report.missing.append(path)
    if report.mismatched or (strict and report):
        raise LoadError(_report_text(report, names, what))
    ready = [(v, as_array(x, v, v.dtype)) for _, v, x in chosen.values()]
    for variable, value in ready:
        variable.load(value)
    return report
