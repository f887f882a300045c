"""The one traversal: everything that looks inside a network goes through :func:`walk`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ._containers import Node
from ._variable import Variable


def walk(root: Node, *, into_modules: bool = True, aliases: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield ``(path, item)`` for the root (path ``""``) and every module and variable inside it.

    Attributes come in the order in which they were assigned, a module before what it holds. Lists,
    dicts and tuples are passed through and give their indices and keys to the paths.

    Args:
        root: a module.
        into_modules: whether to look inside the modules found.
        aliases: whether to yield an item again under each further path; once otherwise.
    """
    seen: set[int] = set()
    open_nodes: list[int] = []  # against cycles, when everything is visited more than once

    def visit(path: str, item: Any) -> Iterator[tuple[str, Any]]:
        node: Any = item
        if isinstance(item, tuple):
            for i, inner in enumerate(item):
                if isinstance(inner, (Node, Variable, tuple)):
                    yield from visit(f"{path}.{i}" if path else str(i), inner)
            return
        is_container = isinstance(item, (list, dict))
        if not is_container:
            if (id(item) in seen and not aliases) or id(item) in open_nodes:
                return
            seen.add(id(item))
            yield path, item
        if isinstance(item, Variable) or (not into_modules and not is_container and item is not root):
            return
        open_nodes.append(id(item))
        for name, value in node.edges():
            if isinstance(value, (Node, Variable, tuple)):
                yield from visit(f"{path}.{name}" if path and name else path or name, value)
        open_nodes.pop()

    return visit("", root)


def find_path(root: Node, target: Any) -> str | None:
    """The first path from ``root`` to ``target``; ``None`` when it isn't inside."""
    for path, item in walk(root):
        if item is target:
            return path
    return None
