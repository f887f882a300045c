"""Containers of layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..core import ModuleBase
from ..core._jax import is_staged
from ..functional import _checks as checks
from ..transform._fold import FEWEST, fold, runs
from ._items import ItemDict, ItemList, Layer, check_layer, unpacked


class Sequential(ItemList):
    """Layers in a row: the output of each is the input of the next.

    Behaves like a list: ``len``, indexing, slicing (a slice shares the layers), iteration, ``append``,
    ``insert``, ``extend``, ``pop``, item assignment and deletion.

    Args:
        *layers: modules and plain callables such as ``jax.nn.relu``; or one dict of them, whose keys become their
            names instead of their numbers: ``Sequential({"conv": nn.Conv2d(6, 5)})`` has a ``conv.weight``, and an
            attribute ``conv``.

    Shape:
        What the layers make of it.

    Raises:
        TypeError: something that can't be called.
        ValueError: a name with a dot, or one that every module has for something else.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax, jax.numpy as jnp
        >>> net = nn.Sequential(nn.Linear(256), jax.nn.relu, nn.Linear(10))
        >>> net(jnp.ones((2, 20))).shape
        (2, 10)
        >>> net[0].weight.shape
        (256, 20)

    Reference:
        ``torch.nn.Sequential``.
    """

    shows_callables = True
    fold = True
    keeps_nothing = False  # the functions among its layers may

    def __init__(self, *layers: Layer | Mapping[str, Layer], fold: bool = True) -> None:
        if not checks.flag(fold, type(self).__name__, "fold"):
            self.fold = False
        self._start(layers[0] if len(layers) == 1 and isinstance(layers[0], (Mapping, ItemDict)) else layers)

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Apply the layers in turn; further arguments go to the first."""
        layers = iter(self._items)
        if args or kwargs:
            first = next(layers, None)
            if first is None:
                return x
            x = first(x, *args, **kwargs)
        if self.fold and len(self._items) >= FEWEST and is_staged():
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

    def __bool__(self) -> bool:
        return True

    def _accept(self, item: Any, place: str) -> Any:
        return check_layer(item, place, unpack="Sequential(*layers)")

    def _several(self, items: Any) -> Iterable[Any]:
        if isinstance(items, ModuleBase) and not isinstance(items, ItemList):
            raise TypeError(f"extend takes several layers, got one {type(items).__name__}; use append")
        return items

    def constructor_arguments(self) -> dict[str, Any]:
        """The arguments that make such a module."""
        return {"layers": unpacked(self)} | ({} if self.fold else {"fold": False})

    def _like(self, items: list[Any]) -> Sequential:
        return Sequential(*items)


class ModuleList(ItemList):
    r"""A list of layers, as an attribute of a network; to be used one by one, not called.

    A plain list, ``self.layers = [...]``, is followed just as well; this one has PyTorch's interface
    and prints equal layers in a row as one. ``len``, indexing, slicing (a slice shares the layers), iteration,
    ``append``, ``insert``, ``extend``, ``pop``, ``clear``, ``+``, ``+=``, item assignment and deletion.

    Args:
        modules: the layers it begins with: modules and plain callables.

    Raises:
        TypeError: something that can't be called; or the list itself is called.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax, jax.numpy as jnp
        >>> class Net(bw.Module):
        ...     def __init__(self):
        ...         self.layers = nn.ModuleList([nn.Linear(4) for _ in range(3)])
        ...
        ...     def forward(self, x):
        ...         for layer in self.layers:
        ...             x = x + jax.nn.relu(layer(x))
        ...         return x
        >>> net = Net()
        >>> net
        Net(
          (layers): ModuleList(
            (0-2): 3 x Linear(? → 4)
          )
        )
        >>> net(jnp.ones((2, 4))).shape
        (2, 4)
        >>> [name for name, _ in net.named_parameters(r".*weight")]
        ['layers.0.weight', 'layers.1.weight', 'layers.2.weight']

    Reference:
        ``torch.nn.ModuleList``.
    """

    shows_callables = True
    groups_equal = True

    def __init__(self, modules: Iterable[Layer] = ()) -> None:
        self._start(self._several(modules))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: a list computes nothing."""
        raise TypeError(
            "ModuleList holds layers and can't be called. Call them in a loop, `for layer in self.layers: "
            "x = layer(x)`, or use nn.Sequential."
        )

    def _accept(self, item: Any, place: str) -> Any:
        return check_layer(item, place)

    def _several(self, items: Any) -> Iterable[Any]:
        if isinstance(items, (Mapping, ItemDict)):
            raise TypeError("ModuleList takes a list of layers, got a dict; use nn.ModuleDict")
        if callable(items) and not isinstance(items, ItemList):
            raise TypeError(f"ModuleList takes a list of layers, got one {type(items).__name__}; write [layer]")
        return items

    def constructor_arguments(self) -> dict[str, Any]:
        """The arguments that make such a module."""
        return {"modules": self._contents()}

    def _like(self, items: list[Any]) -> ModuleList:
        return ModuleList(items)


class ModuleDict(ItemDict):
    r"""A dict of layers, as an attribute of a network; to be used by key, not called.

    A plain dict, ``self.choices = {...}``, is followed just as well; this one has PyTorch's interface.
    Keys are in the order in which they were added; layers are attributes too, ``choices.conv``.

    Args:
        modules: the layers it begins with: a dict, or pairs of keys and layers. Keys are strings without dots.

    Raises:
        TypeError: something that can't be called, a key that is no string; or the dict itself is called.
        ValueError: a key with a dot.
        KeyError: there is no such key.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax.numpy as jnp
        >>> class Net(bw.Module):
        ...     def __init__(self):
        ...         self.choices = nn.ModuleDict({"conv": nn.Conv2d(4, 3), "pool": nn.MaxPool2d(2)})
        ...
        ...     def forward(self, x, choice):
        ...         return self.choices[choice](x)
        >>> net = Net()
        >>> net(jnp.ones((2, 1, 6, 6)), "conv").shape
        (2, 4, 4, 4)
        >>> list(net.state_dict())
        ['choices.conv.weight', 'choices.conv.bias']

    Reference:
        ``torch.nn.ModuleDict``.
    """

    shows_callables = True

    def __init__(self, modules: Any = ()) -> None:
        self._start(modules)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: a dict computes nothing."""
        raise TypeError("ModuleDict holds layers and can't be called. Call one of them: `self.choices[key](x)`.")

    def constructor_arguments(self) -> dict[str, Any]:
        """The arguments that make such a module."""
        return {"modules": dict(self.items())}

    def _accept(self, item: Any, place: str) -> Any:
        return check_layer(item, place)
