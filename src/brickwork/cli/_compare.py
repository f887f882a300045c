"""``brickwork diff``."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from ._entries import Entry, open_file, show_path, show_shape, with_progress


def diff(first: str, second: str) -> tuple[dict[str, Any], Any]:
    """How two files differ: as JSON, and to be printed. ``"equal"`` says whether they don't."""
    left = {entry.name: entry for entry in open_file(first)[1]}
    right = {entry.name: entry for entry in open_file(second)[1]}
    both = [name for name in left if name in right]
    changed: dict[str, dict[str, Any]] = {}
    for name in with_progress(both, (left[name].nbytes for name in both), "comparing"):
        found = _difference(left[name], right[name])
        if found:
            changed[name] = found
    report = {
        "only_in_first": [name for name in left if name not in right],
        "only_in_second": [name for name in right if name not in left],
        "changed": changed,
        "same": len(both) - len(changed),
    }
    report["equal"] = not (report["only_in_first"] or report["only_in_second"] or changed)
    return report, _table(report, first, second)


def _difference(a: Entry, b: Entry) -> dict[str, Any]:
    if not (a.is_array and b.is_array):
        same = type(a.value) is type(b.value) and (a.value == b.value or a.value != a.value)
        return {} if same else {"value": [repr(a.value)[:200], repr(b.value)[:200]]}
    if a.shape != b.shape:
        return {"shape": [list(a.shape), list(b.shape)]}
    found: dict[str, Any] = {} if a.dtype == b.dtype else {"dtype": [a.dtype, b.dtype]}
    if a.dtype == b.dtype and np.array_equal(_bits(a.value), _bits(b.value)):
        return found
    wide = np.complex128 if "complex" in a.dtype + b.dtype else np.float64
    x, y = a.value.astype(wide), b.value.astype(wide)
    whole = a.value.dtype.kind in "biu" and b.value.dtype.kind in "biu"  # beyond 2**53 floats can't tell them apart
    differ = a.value != b.value if whole else ~((x == y) | (np.isnan(x) & np.isnan(y)))
    if not differ.any():  # but for the sign of a zero, the bits of a NaN, or the dtype
        return found or {"largest": 0.0, "elements": 0}
    with np.errstate(all="ignore"):
        gap = np.abs(x - y)[differ]
        relative = gap / np.maximum(np.abs(x), np.abs(y))[differ]
    return found | {
        "largest": float(np.nanmax(gap)) if np.isfinite(gap).any() else float("inf"),
        "relative": float(np.nanmax(relative)) if np.isfinite(relative).any() else float("inf"),
        "elements": int(differ.sum()),
    }


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _table(report: dict[str, Any], first: str, second: str) -> Any:
    if report["equal"]:
        return Text(f"equal: {report['same']} entries")
    title = Text(f"{show_path(first)} and {show_path(second)}")
    table = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("name", overflow="fold")
    table.add_column("difference")
    for side, key in ((first, "only_in_first"), (second, "only_in_second")):
        for name in report[key]:
            table.add_row(Text(name), Text(f"only in {show_path(side)}"))
    for name, found in report["changed"].items():
        table.add_row(Text(name), Text(_sentence(found)))
    table.caption = f"{report['same']} entries are the same"
    return table


def _sentence(found: dict[str, Any]) -> str:
    parts = []
    if "shape" in found:
        parts.append("shape " + " and ".join(show_shape(tuple(shape)) for shape in found["shape"]))
    if "dtype" in found:
        parts.append("dtype " + " and ".join(found["dtype"]))
    if "value" in found:
        parts.append("value " + " and ".join(found["value"]))
    if found.get("elements") == 0:
        parts.append("equal numbers of other bits")
    elif "largest" in found:
        size, relative = found["largest"], found["relative"]
        parts.append(f"{found['elements']:,} elements differ, by at most {size:.3g} (relative {relative:.3g})")
    return "; ".join(parts)
