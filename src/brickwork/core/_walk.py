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
    return _visit("", root, _Tour(root, into_modules, aliases))


class _Tour:
    """What one traversal knows."""

    __slots__ = ("aliases", "into_modules", "open", "root", "seen")

    def __init__(self, root: Node, into_modules: bool, aliases: bool) -> None:
        self.root, self.into_modules, self.aliases = root, into_modules, aliases
        self.seen: set[int] = set()
        self.open: list[int] = []  # against cycles, when everything is visited more than once


def _visit(path: str, item: Any, tour: _Tour) -> Iterator[tuple[str, Any]]:
    # Not a closure inside walk(): one that calls itself would be a cycle and keep the root alive.
    if isinstance(item, tuple):
        for i, inner in enumerate(item):
            if isinstance(inner, (Node, Variable, tuple)):
                yield from _visit(f"{path}.{i}" if path else str(i), inner, tour)
        return
    is_container = isinstance(item, (list, dict))
    if not is_container:
        if (id(item) in tour.seen and not tour.aliases) or id(item) in tour.open:
            return
        tour.seen.add(id(item))
        yield path, item
    if isinstance(item, Variable) or (not tour.into_modules and not is_container and item is not tour.root):
        return
    node: Any = item
    tour.open.append(id(node))
    for name, value in node.edges():
        if isinstance(value, (Node, Variable, tuple)):
            yield from _visit(f"{path}.{name}" if path and name else path or name, value, tour)
    tour.open.pop()


def find_path(root: Node, target: Any) -> str | None:
    """The first path from ``root`` to ``target``; ``None`` when it isn't inside."""
    for path, item in walk(root):
        if item is target:
            return path
    return None
