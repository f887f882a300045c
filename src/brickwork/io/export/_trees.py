"""Nests of arrays described by JSON: structure, shapes and dtypes, with symbolic sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import ShapeMismatchError
from .._structure import _is_name, _record_class

__all__ = ["Sizes", "check_template", "describe", "fill", "leaves", "show"]

MAX_DEPTH = 64


def describe(tree: Any, where: str, found: list[Any]) -> Any:
    """The JSON for a nest of arrays or abstract arrays, which are added to ``found`` in order.

    Raises:
        TypeError: there is something else in it.
    """
    if tree is None:
        return None
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        fields: Any = tree._fields  # type: ignore[attr-defined]
        values = [describe(x, f"{where}.{n}", found) for n, x in zip(fields, tree, strict=True)]
        return {"namedtuple": type(tree).__name__, "fields": list(fields), "values": values}
    if isinstance(tree, (list, tuple)):
        items = [describe(x, f"{where}[{i}]", found) for i, x in enumerate(tree)]
        return items if isinstance(tree, list) else {"tuple": items}
    if isinstance(tree, Mapping) and all(isinstance(key, str) for key in tree):
        return {"dict": {key: describe(x, f"{where}[{key!r}]", found) for key, x in tree.items()}}
    return _describe_array(tree, where, found)


def _describe_array(tree: Any, where: str, found: list[Any]) -> Any:
    if not hasattr(tree, "shape") or not hasattr(tree, "dtype"):
        raise TypeError(
            f"export: {where} is {tree!r:.60}, of type {type(tree).__name__}; an exported program takes and gives "
            "arrays, in tuples, lists and dicts with strings as keys. Fix other arguments in a module around the net"
        )
    found.append(tree)
    sizes = [n if isinstance(n, int) else str(n) for n in tree.shape]
    return {"shape": sizes, "dtype": np.dtype(tree.dtype).name}


def check_template(node: Any, depth: int = 0) -> None:
    """Refuse JSON that :func:`describe` doesn't give.

    Raises:
        ValueError: it is something else.
    """
    if depth > MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    match node:
        case None:
            inner: Any = []
        case list():
            inner = node
        case {"tuple": list(inner)} if len(node) == 1:
            pass
        case {"dict": dict(found)} if len(node) == 1:
            inner = found.values()
        case {"namedtuple": str(name), "fields": list(fields), "values": list(inner)}:
            if len(fields) != len(inner) or not all(map(_is_name, (name, *fields))):
                raise ValueError("it has a malformed named tuple")
        case {"shape": list(shape), "dtype": str(dtype)}:
            if not all((type(n) is int and n >= 0) or isinstance(n, str) for n in shape):
                raise ValueError(f"it has the impossible shape {shape!r:.60}")
            try:
                jnp.dtype(dtype)
            except TypeError:
                raise ValueError(f"it has the unknown dtype {dtype!r:.60}") from None
            inner = []
        case _:
            raise ValueError(f"{node!r:.60} describes no arrays")
    for x in inner:
        check_template(x, depth + 1)


def leaves(node: Any) -> Iterator[Any]:
    """The descriptions of arrays in a template, in order."""
    if isinstance(node, dict) and "shape" in node:
        yield node
    elif node is not None:
        for x in _inner(node).values():
            yield from leaves(x)


def _inner(node: Any) -> dict[Any, Any]:
    """What a template for a nest holds."""
    if isinstance(node, list):
        return dict(enumerate(node))
    if "tuple" in node:
        return dict(enumerate(node["tuple"]))
    return node["dict"] if "dict" in node else dict(zip(node["fields"], node["values"], strict=True))


def fill(node: Any, values: Iterator[Any]) -> Any:
    """The nest of a template with these arrays in it."""
    if node is None:
        return None
    if isinstance(node, dict) and "shape" in node:
        return next(values)
    made = {key: fill(x, values) for key, x in _inner(node).items()}
    if isinstance(node, list):
        return list(made.values())
    if "tuple" in node:
        return tuple(made.values())
    return (
        made
        if "dict" in node
        else _record_class("namedtuple", node["namedtuple"], *node["fields"])._make(made.values())
    )


class Sizes:
    """Takes arrays that fit a template out of a nest, and what symbolic sizes stand for."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[int, str]] = {}
        self.arrays: list[jax.Array] = []

    def take(self, node: Any, value: Any, where: str) -> None:
        """Take the arrays out of a value that should fit a template.

        Raises:
            TypeError: another structure or dtype.
            ShapeMismatchError: another shape.
        """
        if isinstance(node, dict) and "shape" in node:
            self._array(node, value, where)
            return
        kinds: tuple[Any, Callable[[Any], str]] = _expected(node)
        if not isinstance(value, kinds[0]):
            raise TypeError(f"{where} must be {kinds[1](node)}, got {_describe(value)}")
        if node is None:
            return
        inner = _inner(node)
        keys = set(value) if isinstance(value, Mapping) else set(range(len(value)))
        expected = set(inner) if isinstance(value, Mapping) else set(range(len(inner)))
        if keys != expected:
            raise TypeError(f"{where} must have {_keys(expected)}, it has {_keys(keys)}")
        for i, (key, x) in enumerate(inner.items()):
            self.take(x, value[key if isinstance(value, Mapping) else i], f"{where}[{key!r}]")

    def _array(self, node: Any, value: Any, where: str) -> None:
        try:
            array = jnp.asarray(value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{where} must be an array {show(node)}, got {_describe(value)}") from error
        got = f"{array.dtype.name}[{', '.join(map(str, array.shape))}]"
        if array.dtype.name != node["dtype"]:
            raise TypeError(f"{where} must be {show(node)}, got {got}; convert it with .astype({node['dtype']!r})")
        if array.ndim != len(node["shape"]):
            raise ShapeMismatchError(f"{where} must be {show(node)}, got {got}, which has another number of axes")
        for axis, (size, n) in enumerate(zip(node["shape"], array.shape, strict=True)):
            wanted, why = (size, "") if isinstance(size, int) else (n, "")
            if isinstance(size, str) and size.isidentifier():
                wanted, source = self.known.setdefault(size, (n, f"axis {axis} of {where}"))
                why = f", which {size} is by {source}"
            if wanted != n:
                raise ShapeMismatchError(
                    f"{where} must be {show(node)}, got {got}: axis {axis} has {n}, not {wanted}{why}"
                )
        self.arrays.append(array)


def _expected(node: Any) -> tuple[Any, Callable[[Any], str]]:
    if node is None:
        return type(None), lambda _: "None"
    if isinstance(node, list):
        return list, lambda n: f"a list of {len(n)}"
    if "dict" in node:
        return Mapping, lambda n: f"a dict with {_keys(set(n['dict']))}"
    return tuple, lambda n: f"a tuple of {len(n.get('tuple', n.get('values')))}"


def _keys(keys: set[Any]) -> str:
    if all(isinstance(key, int) for key in keys):
        return f"{len(keys)} items"
    return f"the keys {sorted(map(str, keys))}"


def _describe(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    return f"{type(value).__name__} {value!r:.60}"


def show(node: Any) -> str:
    """A template in words: ``float32[b, 4]``."""
    if node is None:
        return "None"
    if isinstance(node, dict) and "shape" in node:
        return f"{node['dtype']}[{', '.join(map(str, node['shape']))}]"
    shown = [show(x) for x in _inner(node).values()]
    if isinstance(node, dict) and "tuple" not in node:
        pairs = ", ".join(f"{key}: {text}" for key, text in zip(_inner(node), shown, strict=True))
        return f"{node.get('namedtuple', '')}{{{pairs}}}"
    return f"[{', '.join(shown)}]" if isinstance(node, list) else f"({', '.join(shown)})"
