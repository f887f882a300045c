"""Containers of parameters."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core import ModuleBase, Parameter, Variable
from ._items import ItemDict, ItemList


class ParameterList(ItemList):
    r"""A list of parameters, as an attribute of a layer.

    A plain list of parameters is followed just as well; this one has PyTorch's interface: arrays and numbers
    that are put into it become parameters.

    Args:
        values: what it begins with: parameters, buffers, arrays and numbers of floats; ``None`` stays ``None``.

    Raises:
        TypeError: something else, integers (which can't be trained); or the list itself is called.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> params = nn.ParameterList([jnp.ones((2, 3)), 0.5])
        >>> params
        ParameterList(
          (0): Parameter(2, 3)
          (1): Parameter()
        )
        >>> params.append(jnp.zeros(4))[-1].shape
        (4,)

    Reference:
        ``torch.nn.ParameterList``.
    """

    _nouns = "parameters"

    def __init__(self, values: Iterable[Any] = ()) -> None:
        self._start(values)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: a list computes nothing."""
        raise TypeError("ParameterList holds parameters and can't be called; compute with them: `x @ self.params[i]`.")

    def _accept(self, item: Any, place: str) -> Any:
        return as_parameter(item, place, "ParameterList", "ModuleList")

    def _several(self, items: Any) -> Iterable[Any]:
        if isinstance(items, (Mapping, ItemDict)):
            raise TypeError("ParameterList takes a list, got a dict; use nn.ParameterDict")
        if isinstance(items, Variable) or not isinstance(items, Iterable) or _is_array(items):
            raise TypeError(f"ParameterList takes a list of parameters, got one {type(items).__name__}; write [value]")
        return items

    def constructor_arguments(self) -> dict[str, Any]:
        """The arguments that make such a module."""
        return {"values": self._contents()}

    def _like(self, items: list[Any]) -> ParameterList:
        return ParameterList(items)


class ParameterDict(ItemDict):
    r"""A dict of parameters, as an attribute of a layer.

    A plain dict of parameters is followed just as well; this one has PyTorch's interface: arrays and numbers
    that are put into it become parameters. Keys are in the order in which they were added; parameters are
    attributes too, ``params.left``.

    Args:
        parameters: what it begins with: a dict, or pairs of keys and values. Keys are strings without dots; values
            parameters, buffers, arrays and numbers of floats; ``None`` stays ``None``.

    Raises:
        TypeError: something else, integers (which can't be trained); or the dict itself is called.
        ValueError: a key with a dot.
        KeyError: there is no such key.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> params = nn.ParameterDict({"left": jnp.ones((2, 3)), "right": 0.5})
        >>> list(params.state_dict())
        ['left', 'right']
        >>> params.left.shape
        (2, 3)

    Reference:
        ``torch.nn.ParameterDict``.
    """

    def __init__(self, parameters: Any = ()) -> None:
        self._start(parameters)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: a dict computes nothing."""
        raise TypeError(
            "ParameterDict holds parameters and can't be called; compute with them: `x @ self.params[key]`."
        )

    def _accept(self, item: Any, place: str) -> Any:
        return as_parameter(item, place, "ParameterDict", "ModuleDict")

    def constructor_arguments(self) -> dict[str, Any]:
        """The arguments that make such a module."""
        return {"parameters": dict(self.items())}

    def copy(self) -> ParameterDict:
        """Another dict with the same parameters, which are shared."""
        return ParameterDict(self)

    def fromkeys(self, keys: Iterable[str], default: Any = None) -> ParameterDict:
        """A new dict with these keys and one value."""
        return ParameterDict((key, default) for key in keys)

    def __or__(self, other: Any) -> ParameterDict:
        new = self.copy()
        new.update(other)
        return new

    def __ror__(self, other: Any) -> ParameterDict:
        return ParameterDict(other) | self

    def __ior__(self, other: Any) -> ParameterDict:
        self.update(other)
        return self


def _is_array(value: Any) -> bool:
    return isinstance(value, (jax.Array, np.ndarray, np.generic))


def as_parameter(value: Any, place: str, owner: str, for_modules: str) -> Any:
    """A variable as it is; an array or a number as a parameter."""
    if value is None or isinstance(value, Variable):
        return value
    if isinstance(value, numbers.Real) and not isinstance(value, (bool, np.generic)):
        return Parameter(jnp.asarray(float(value), jnp.float32))
    if _is_array(value) and not jnp.issubdtype(value.dtype, jnp.inexact):
        raise TypeError(
            f"{owner}: item {place} holds {value.dtype} values, which can't be trained; convert it to floats, or wrap "
            "it: bw.Buffer(value)"
        )
    if _is_array(value):
        return Parameter(value)
    hint = f"; layers belong in an nn.{for_modules}" if isinstance(value, ModuleBase) else ""
    raise TypeError(
        f"{owner}: item {place} must be a parameter, an array or a number, got {type(value).__name__}{hint}"
    )
