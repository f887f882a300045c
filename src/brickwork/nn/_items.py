"""What modules that behave as lists and dicts have in common."""

from __future__ import annotations

import operator
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import TYPE_CHECKING, Any, overload

from .._elsewhere import missing_from
from ..core import ModuleBase, TrackedDict, TrackedList
from ..module import Module

if TYPE_CHECKING:
    from typing import Self

Layer = Callable[..., Any]

_NO_DEFAULT: Any = object()


class _Items(Module):
    """Items in a tracked container, whose own name adds nothing to theirs; named ones are attributes too."""

    _items: Any
    _bw_nameless = "_items"

    def _accept(self, item: Any, place: str) -> Any:
        """An item in the form in which it is kept, or an error about what is to stand at ``place``."""
        raise TypeError(f"{type(self).__name__} does not define _accept(self, item, place)")

    def _named_items(self) -> Iterable[tuple[str, Any]]:
        return self._items.edges()

    def _key(self, name: str) -> Any:
        """The index or key of the item with a name; ``None`` when there is none."""
        raise TypeError(f"{type(self).__name__} does not define _key(self, name)")

    def edges(self) -> Iterator[tuple[str, Any]]:
        """The items under their names, in the place of the container, and other attributes."""
        for name, value in self.__dict__.items():
            if name == "_items":
                yield from self._named_items()
            else:
                yield name, value

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __getattr__(self, name: str) -> Any:
        key = self._key(name) if "_items" in self.__dict__ else None
        if key is None:
            return missing_from(self, name)
        return self._items[key]

    def __setattr__(self, name: str, value: Any) -> None:
        key = self._key(name) if "_items" in self.__dict__ and name not in self.__dict__ else None
        if key is None:
            super().__setattr__(name, value)
        else:
            self._items[key] = self._accept(value, repr(name))

    def __delattr__(self, name: str) -> None:
        key = self._key(name) if name not in self.__dict__ else None
        if key is None:
            super().__delattr__(name)
        else:
            del self[key]

    def __delitem__(self, key: Any) -> None:
        del self._items[key]


class ItemList(_Items):
    """A module that behaves as a list: its items go by their numbers, or by names where it was given a dict."""

    _items: TrackedList
    _names: tuple[str | None, ...] | None = None  # of the items, where any has one

    def _start(self, items: Iterable[Any] | Mapping[str, Any]) -> None:
        """Begin with some items."""
        self._items = TrackedList()
        if isinstance(items, (Mapping, ItemDict)):
            names = [check_name(name, self) for name in items]
            self.extend(list(items.values()))
            self._rename(slice(None), names)
        else:
            self.extend(items)

    def _several(self, items: Any) -> Iterable[Any]:
        """The items to extend with."""
        return items

    def _like(self, items: list[Any]) -> Any:
        """A container for some of the items, without their names."""
        raise TypeError(f"{type(self).__name__} does not define _like(self, items)")

    def _named_items(self) -> Iterable[tuple[str, Any]]:
        return zip(_paths(self._names or (None,) * len(self)), self._items, strict=True)

    def _key(self, name: str) -> int | None:
        names = self.__dict__.get("_names") or ()
        return names.index(name) if name in names else None

    def _rename(self, index: slice, new: list[Any]) -> None:
        """Let some places have these names; ``None`` is for the number of the place."""
        if self._names is None and not any(new):
            return
        names: list[Any] = list(self._names or (None,) * len(self))
        names[index] = new
        paths = list(_paths(names))
        twice = [path for path in paths if paths.count(path) > 1]
        if twice:
            raise ValueError(f"{type(self).__name__}: two items would have the name {twice[0]!r}")
        self._names = tuple(names) if any(names) else None

    def append(self, item: Any) -> Self:
        """Add an item at the end; returns this container."""
        return self.insert(len(self), item)

    def insert(self, index: int, item: Any) -> Self:
        """Add an item before the one at ``index``; returns this container."""
        item = self._accept(item, str(index))
        self._rename(slice(index, index), [None])
        self._items.insert(index, item)
        return self

    def extend(self, items: Iterable[Any]) -> Self:
        """Add several items at the end; returns this container."""
        new = [self._accept(x, str(i)) for i, x in enumerate(self._several(items), len(self))]
        self._rename(slice(len(self), None), [None] * len(new))
        self._items.extend(new)
        return self

    def pop(self, index: int | slice = -1) -> Any:
        """Remove an item and return it."""
        item = self[index]
        del self[index]
        return item

    def clear(self) -> None:
        """Remove all items."""
        del self[:]

    def __contains__(self, item: object) -> bool:
        return any(x is item for x in self._items)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            new = self._like(self._items[index])
            new._rename(slice(None), list((self._names or (None,) * len(self))[index]))
            return new
        return self._items[self._place(index)]

    def _place(self, index: Any) -> int:
        number = operator.index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"{type(self).__name__} has {len(self)} {self._nouns}, no index {number}")
        return number

    _nouns = "layers"

    def __setitem__(self, index: int | slice, item: Any) -> None:
        if isinstance(index, slice):
            places = range(len(self))[index]
            new = [self._accept(x, str(i)) for i, x in enumerate(item, places.start)]
            if places.step == 1 or len(new) == len(places):  # else the list complains
                self._rename(index, [None] * len(new))
            self._items[index] = new
        else:
            self._items[self._place(index)] = self._accept(item, str(index))

    def __delitem__(self, index: int | slice) -> None:
        places = index if isinstance(index, slice) else slice(place := self._place(index) % len(self), place + 1)
        if self._names is not None:
            kept = set(range(len(self))) - set(range(len(self))[places])
            names = [self._names[i] for i in sorted(kept)]
            self._rename(slice(None), names)
        del self._items[index]

    def _contents(self) -> list[Any] | dict[str, Any]:
        """What it would have to begin with to be as it is now."""
        if self._names is None:
            return list(self._items)
        return dict(zip(_paths(self._names), self._items, strict=True))

    def __iadd__(self, items: Iterable[Any]) -> Self:
        return self.extend(items)

    def __add__(self, other: Iterable[Any]) -> Any:
        return self._like([*self, *other])


class ItemDict(_Items):
    """A module that behaves as a dict, in the order in which keys were added; items are attributes as well."""

    _items: TrackedDict

    def _start(self, items: Any) -> None:
        self._items = TrackedDict()
        self.update(items)

    def _key(self, name: str) -> str | None:
        return name if name in self._items else None

    def __getitem__(self, key: str) -> Any:
        try:
            return self._items[key]
        except KeyError:
            raise KeyError(f"{type(self).__name__} has no {key!r}; it has {list(self._items)[:20]}") from None

    def __setitem__(self, key: str, item: Any) -> None:
        self._items[check_key(key, self)] = self._accept(item, repr(key))

    def __delitem__(self, key: str) -> None:
        self[key]
        del self._items[key]

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._items)

    def keys(self) -> KeysView[str]:
        """The keys, in the order in which they were added."""
        return self._items.keys()

    def values(self) -> ValuesView[Any]:
        """The items."""
        return self._items.values()

    def items(self) -> ItemsView[str, Any]:
        """The pairs of keys and items."""
        return self._items.items()

    def get(self, key: str, default: Any = None) -> Any:
        """The item with a key, or ``default``."""
        return self._items.get(key, default)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The item with a key, which is added if it isn't there."""
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str, default: Any = _NO_DEFAULT) -> Any:
        """Remove an item and return it."""
        if default is not _NO_DEFAULT and key not in self:
            return default
        item = self[key]
        del self[key]
        return item

    def popitem(self) -> tuple[str, Any]:
        """Remove the item that was added last, and return it with its key."""
        if not self._items:
            raise KeyError(f"{type(self).__name__} is empty")
        return self._items.popitem()

    def clear(self) -> None:
        """Remove all items."""
        self._items.clear()

    def update(self, items: Any) -> None:
        """Add or replace items, from a dict or pairs of keys and items; all of them or none."""
        pairs = items.items() if isinstance(items, (Mapping, ItemDict)) else items
        if isinstance(items, ModuleBase) and not isinstance(items, ItemDict):
            raise TypeError(f"{type(self).__name__} takes a dict, got one {type(items).__name__}")
        new: dict[str, Any] = {}
        for i, pair in enumerate(pairs):
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise TypeError(
                    f"{type(self).__name__} takes a dict or pairs of keys and items, got {type(pair).__name__} at "
                    f"place {i}"
                )
            new[check_key(pair[0], self)] = self._accept(pair[1], repr(pair[0]))
        self._items.update(new)


def unpacked(items: ItemList) -> tuple[Any, ...]:
    """The contents of a list as positional arguments: one dict, where they have names."""
    contents = items._contents()
    return (contents,) if isinstance(contents, dict) else tuple(contents)


def _paths(names: Iterable[str | None]) -> Iterator[str]:
    for i, name in enumerate(names):
        yield str(i) if name is None else name


def check_key(key: Any, owner: Any) -> str:
    """A key that can be part of the names of parameters."""
    if not isinstance(key, str):
        raise TypeError(f"{type(owner).__name__}: keys are strings, got {key!r} ({type(key).__name__})")
    if not key or "." in key:
        raise ValueError(
            f"{type(owner).__name__}: key {key!r} becomes part of the names of parameters, so it must be a non-empty "
            "string without dots"
        )
    return key


def check_name(name: Any, owner: Any) -> str:
    """A name under which an item is an attribute as well."""
    if hasattr(type(owner), check_key(name, owner)) or name in owner.__dict__:
        raise ValueError(f"{type(owner).__name__}: {name!r} is an attribute of every {type(owner).__name__}; rename it")
    return name


def check_layer(layer: Any, place: str, what: str = "layer", unpack: str = "") -> Any:
    """A module or function, or an error that says what was meant perhaps."""
    if isinstance(layer, type) and issubclass(layer, ModuleBase):
        raise TypeError(f"{what} {place} is the class {layer.__name__}, not a layer; write {layer.__name__}(...)")
    if not callable(layer):
        hint = ""
        if isinstance(layer, str):
            from . import _activation, _activation_piecewise, _activation_softmax  # for the names in them

            wanted = layer.lower().replace("_", "")
            known = vars(_activation) | vars(_activation_piecewise) | vars(_activation_softmax)
            names = (n for n, kind in known.items() if isinstance(kind, type) and n.lower() == wanted)
            hint = f"; for an activation pass a layer or a function, such as nn.{next(names, 'ReLU')}()"
        elif isinstance(layer, (list, tuple)) and unpack:
            hint = f"; unpack it: {unpack}"
        raise TypeError(
            f"{what} {place} must be a module or a function, got {type(layer).__name__} {layer!r:.60}{hint}"
        )
    return layer
