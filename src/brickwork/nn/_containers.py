"""Containers of layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, overload

from ..core import ModuleBase, TrackedList
from ..core._jax import is_staged
from ..module import Module
from ..transform._fold import FEWEST, fold, runs

Layer = Callable[..., Any]


class Sequential(Module):
    """Layers in a row: the output of each is the input of the next.

    Behaves like a list: ``len``, indexing, slicing (a slice shares the layers), iteration, ``append``,
    ``insert``, ``extend``, item assignment and deletion.

    Args:
        *layers: modules and plain callables such as ``jax.nn.relu``.

    Shape:
        What the layers make of it.

    Raises:
        TypeError: something that can't be called.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax, jax.numpy as jnp
        >>> net = nn.Sequential(nn.Linear(256), jax.nn.relu, nn.Linear(10))
        >>> net(jnp.ones((2, 20))).shape
        (2, 10)
        >>> net[0].weight.shape
        (256, 20)
    """

    shows_callables = True
    fold = True
    keeps_nothing = False  # the functions among its layers may

    def __init__(self, *layers: Layer, fold: bool = True) -> None:
        self._layers: TrackedList = TrackedList()
        if not fold:
            self.fold = False
        self.extend(layers)

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Apply the layers in turn; further arguments go to the first."""
        layers = iter(self._layers)
        if args or kwargs:
            first = next(layers, None)
            if first is None:
                return x
            x = first(x, *args, **kwargs)
        if self.fold and len(self._layers) >= FEWEST and is_staged():
            return self._folded(list(layers), x)
        for layer in layers:
            x = layer(x)
        return x

    def _folded(self, layers: list[Any], x: Any) -> Any:
        """Apply layers in turn, equal ones in a row as a loop."""
        ends = dict(runs(layers))
        i = 0
        while i < len(layers):
            out = fold(layers[i : ends[i]], x) if i in ends else NotImplemented
            if out is NotImplemented:
                x, i = layers[i](x), i + 1
            else:
                x, i = out, ends[i]
        return x

    def edges(self) -> Iterator[tuple[str, Any]]:
        """The layers under their numbers, then any other attributes."""
        for name, value in self.__dict__.items():
            if name == "_layers":
                yield from value.edges()
            else:
                yield name, value

    def name_of(self, item: Any) -> str | None:
        """The number of a layer; the list of layers itself adds nothing to names."""
        return "" if item is self._layers else super().name_of(item)

    def append(self, layer: Layer) -> Sequential:
        """Add a layer at the end; returns this network."""
        self._layers.append(_checked(layer, len(self)))
        return self

    def insert(self, index: int, layer: Layer) -> Sequential:
        """Add a layer before the one at ``index``; returns this network."""
        self._layers.insert(index, _checked(layer, index))
        return self

    def extend(self, layers: Iterable[Layer]) -> Sequential:
        """Add several layers at the end; returns this network."""
        if isinstance(layers, ModuleBase) and not isinstance(layers, Sequential):
            raise TypeError(f"extend takes several layers, got one {type(layers).__name__}; use append")
        self._layers.extend([_checked(x, i) for i, x in enumerate(layers, len(self))])
        return self

    def pop(self, index: int = -1) -> Any:
        """Remove a layer and return it."""
        return self._layers.pop(index)

    def __len__(self) -> int:
        return len(self._layers)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        return iter(self._layers)

    def __contains__(self, layer: object) -> bool:
        return any(x is layer for x in self._layers)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Sequential(*self._layers[index])
        try:
            return self._layers[index]
        except IndexError:
            raise IndexError(f"Sequential has {len(self)} layers, no index {index}") from None

    def __setitem__(self, index: int | slice, layer: Any) -> None:
        if isinstance(index, slice):
            self._layers[index] = [_checked(x, i) for i, x in enumerate(layer)]
        else:
            self._layers[index] = _checked(layer, index)

    def __delitem__(self, index: int | slice) -> None:
        del self._layers[index]

    def __add__(self, other: Sequential) -> Sequential:
        return Sequential(*self, *other)


def _checked(layer: Any, index: int) -> Any:
    if isinstance(layer, type) and issubclass(layer, ModuleBase):
        raise TypeError(f"layer {index} is the class {layer.__name__}, not a layer; write {layer.__name__}(...)")
    if not callable(layer):
        hint = ""
        if isinstance(layer, str):
            from . import _activation  # for the names in it

            wanted = layer.lower().replace("_", "")
            names = (n for n, kind in vars(_activation).items() if isinstance(kind, type) and n.lower() == wanted)
            hint = f"; for an activation pass a layer or a function, such as nn.{next(names, 'ReLU')}()"
        elif isinstance(layer, (list, tuple)):
            hint = "; unpack it: Sequential(*layers)"
        raise TypeError(f"layer {index} must be a module or a function, got {type(layer).__name__} {layer!r:.60}{hint}")
    return layer
