"""``brickwork inspect``."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from ..io._source import Contents
from ._entries import Entry, open_file, show_path, show_shape, show_size, with_progress

_Numbers = dict[str, dict[str, float]]


def inspect(path: str, *, stats: bool, tree: bool) -> tuple[dict[str, Any], Any]:
    """What a file holds: as JSON, and to be printed."""
    contents, entries = open_file(path)
    numbers = _statistics(entries) if stats else {}
    report = _report(path, contents, entries, numbers)
    return report, _tree(path, entries) if tree else _Listing(entries, numbers, report)


def _statistics(entries: list[Entry]) -> _Numbers:
    arrays = [entry for entry in entries if entry.is_array and not entry.tied]
    return {
        entry.name: found
        for entry in with_progress(arrays, (e.nbytes for e in arrays), "reading")
        if (found := _statistics_of(entry.value))
    }


def _statistics_of(array: np.ndarray) -> dict[str, float]:
    if not array.size or np.issubdtype(array.dtype, np.complexfloating):
        return {}
    with np.errstate(all="ignore"):
        values = array if array.dtype.kind in "biu" else array.astype(np.float64)
        nan = np.isnan(values)
        known = values[~nan] if nan.any() else values
        found: dict[str, float] = {"nan": int(nan.sum())}
        if known.size:
            found |= {"min": float(known.min()), "mean": float(known.mean(dtype=np.float64)), "max": float(known.max())}
    return found


def _report(
    path: str, contents: Contents, entries: list[Entry], numbers: dict[str, dict[str, float]]
) -> dict[str, Any]:
    items = []
    for entry in entries:
        item: dict[str, Any] = {"name": entry.name, "dtype": entry.dtype}
        if entry.is_array:
            item |= {"shape": list(entry.shape), "bytes": entry.value.nbytes}
        else:
            item["value"] = entry.value if isinstance(entry.value, (bool, int, str, type(None))) else repr(entry.value)
        if entry.tied:
            item["tied"] = entry.tied
        items.append(item | numbers.get(entry.name, {}))
    own = [entry for entry in entries if entry.is_array and not entry.tied]
    return {
        "file": path,
        "kind": contents.kind,
        "metadata": contents.metadata,
        "arrays": len(own),
        "elements": sum(entry.value.size for entry in own),
        "bytes": sum(entry.nbytes for entry in own),
        "entries": items,
    }


class _Listing:
    """The table, and what stands below it."""

    def __init__(self, entries: list[Entry], numbers: _Numbers, report: dict[str, Any]) -> None:
        title = Text(f"{show_path(report['file'])} ({report['kind']})")
        self.table = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
        self.report = report
        longest = max((len(entry.name) for entry in entries), default=0)
        self.table.add_column("name", overflow="fold", min_width=min(longest, 40))
        for title, options in _COLUMNS[: 7 if numbers else 3]:
            self.table.add_column(title, **options)
        for entry in entries:
            found = numbers.get(entry.name, {})
            extra = [f"{found[k]:.4g}" if k in found else "" for k in ("min", "mean", "max", "nan")] if numbers else []
            self.table.add_row(*map(Text, (entry.name, *_description(entry), *extra)))

    def __rich_console__(self, console: Console, options: Any) -> Any:
        yield self.table
        r = self.report
        yield Text(f"{r['arrays']:,} arrays, {r['elements']:,} elements, {show_size(r['bytes'])}")
        for key, value in r["metadata"].items():
            yield Text(f"{key}: {value if len(value) <= 200 else value[:200] + ' ...'}")


_COLUMNS: list[tuple[str, dict[str, Any]]] = [
    ("shape", {"justify": "right", "no_wrap": True}),
    ("dtype", {"no_wrap": True}),
    ("size", {"justify": "right", "overflow": "fold"}),
    *((title, {"justify": "right", "no_wrap": True}) for title in ("min", "mean", "max", "NaN")),
]


def _description(entry: Entry) -> tuple[str, str, str]:
    if not entry.is_array:
        text = repr(entry.value)
        return "-", entry.dtype, text if len(text) <= 60 else text[:57] + "..."
    return show_shape(entry.shape), entry.dtype, f"= {entry.tied}" if entry.tied else show_size(entry.nbytes)


def _tree(path: str, entries: list[Entry]) -> Tree:
    root = Tree(Text(f"{show_path(path)}  {show_size(sum(entry.nbytes for entry in entries))}"))
    totals: dict[str, int] = {}
    for entry in entries:
        parts = entry.name.split(".")
        for n in range(1, len(parts)):
            prefix = ".".join(parts[:n])
            totals[prefix] = totals.get(prefix, 0) + entry.nbytes
    branches: dict[str, Tree] = {"": root}
    for entry in entries:
        *folders, last = entry.name.split(".")
        at = ""
        for folder in folders:
            inside = f"{at}.{folder}" if at else folder
            if inside not in branches:
                branches[inside] = branches[at].add(Text(f"{folder}  {show_size(totals[inside])}", style="bold"))
            at = inside
        branches[at].add(Text("  ".join((last, *_description(entry)))))
    return root
