"""Tables that describe a network without running it."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import jax

from ..core import ModuleBase, Parameter, dry_run, walk
from ..core._arrays import show_shape
from ..core._repr import describe_extra


@dataclass
class Row:
    """One module of a summary."""

    path: str
    layer: str
    output: str
    parameters: int | None


@dataclass
class Summary:
    """What ``net.summary()`` gives: print it, or look at ``rows`` and the totals.

    ``parameters`` counts every parameter once, also tied ones; ``None`` while a shape is not known.
    ``size`` is in bytes.
    """

    rows: list[Row] = field(default_factory=list)
    parameters: int | None = 0
    trainable: int | None = 0
    size: int | None = 0

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("path", "layer", "output"):
            table.add_column(title, no_wrap=True)
        table.add_column("parameters", justify="right", no_wrap=True)
        for row in self.rows:
            count = "?" if row.parameters is None else f"{row.parameters:,}" if row.parameters else ""
            table.add_row(row.path, row.layer, row.output, count)
        text = io.StringIO()
        Console(file=text, width=160, color_system=None, force_terminal=False).print(table)
        lines = [line.rstrip() for line in text.getvalue().splitlines()]
        if self.parameters is None:
            total = "some shapes are not known yet: pass bw.spec(...) of the input"
        else:
            total = f"{self.parameters:,} parameters, {self.trainable:,} trainable, {_size(self.size or 0)}"
        return "\n".join([*lines, total])

    __repr__ = __str__


def _size(n: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "bytes" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def _show(output: Any) -> str:
    shapes = [show_shape(x.shape) for x in jax.tree_util.tree_leaves(output) if hasattr(x, "shape")]
    return ", ".join(shapes[:3]) + (", ..." if len(shapes) > 3 else "")


def summarize(net: ModuleBase, *specs: Any) -> Summary:
    """The summary of a network; see ``Module.summary``."""
    outputs: dict[int, Any] = {}

    def record(module: ModuleBase, args: Any, output: Any) -> None:
        outputs[id(module)] = _show(output)

    if specs:
        handles = [m.register_forward_hook(record) for m in net.modules()]
        try:
            dry_run(net, *specs)
        finally:
            for handle in handles:
                handle.remove()
    summary = Summary()
    seen: set[int] = set()
    for path, module in net.named_modules():
        inside = walk(module, into_modules=False)
        own = [v for _, v in inside if isinstance(v, Parameter) and id(v) not in seen]
        seen |= {id(v) for v in own}
        known = all(v.is_drawable or v.is_drawn for v in own)
        count = sum(v.size for v in own) if known else None
        extra = describe_extra(module)
        name = type(module).__name__ + (f"({extra})" if extra else "")
        summary.rows.append(Row(path, name, outputs.get(id(module), ""), count))
    parameters = net.parameters()
    if any(None in p.shape for p in parameters):
        summary.parameters = summary.trainable = summary.size = None
    else:
        summary.parameters = sum(p.size for p in parameters)
        summary.trainable = sum(p.size for p in parameters if p.trainable)
        summary.size = sum(p.size * p.dtype.itemsize for p in parameters)
    return summary
