"""Layers side by side, layers around which the input is led, and functions as layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ..core import ModuleBase
from ..errors import ShapeMismatchError
from ..functional import _checks as checks
from ..module import Module
from . import _args as args
from ._containers import Sequential
from ._items import ItemDict, ItemList, Layer, check_layer, unpacked

_MODES = ("concatenate", "stack", "sum", "mean", "tuple")


class Parallel(ItemList):
    r"""Branches that get the same input; what they give is combined.

    .. math:: y = [f_1(x), f_2(x), \dots] \quad\text{or}\quad y = f_1(x) + f_2(x) + \dots

    Behaves like a list, as ``Sequential`` does.

    Args:
        *branches: modules and functions; or one dict of them, whose keys become their names.
        mode: how outputs are combined: ``"concatenate"`` along an axis that exists, ``"stack"`` along a new one,
            ``"sum"``, ``"mean"``, or ``"tuple"``, which leaves them as they are.
        dim: the axis of ``"concatenate"`` and ``"stack"``; that of the channels by default.

    Shape:
        All arguments go to every branch. For ``"concatenate"`` outputs may differ along ``dim`` only, for the others
        not at all (nothing is broadcast); for ``"tuple"`` they may be anything.

    Raises:
        ShapeMismatchError: outputs don't fit together.
        TypeError: a branch that can't be called; outputs of different dtypes.
        ValueError: an unknown mode; there are no branches when it is called.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> net = nn.Parallel(nn.Conv2d(4, 1), nn.Conv2d(8, 3, padding=1))
        >>> net(jnp.ones((2, 3, 6, 6))).shape
        (2, 12, 6, 6)
        >>> net
        Parallel(concatenate, dim=1
          (0): Conv2d(3 → 4, kernel_size=1)
          (1): Conv2d(3 → 8, kernel_size=3, padding=1)
        )
    """

    shows_callables = True
    keeps_nothing = False  # the functions among its branches may
    _nouns = "branches"

    def __init__(self, *branches: Layer | Mapping[str, Layer], mode: str = "concatenate", dim: int = 1) -> None:
        if mode not in _MODES:
            raise ValueError(f"Parallel: mode must be one of {', '.join(map(repr, _MODES))}, got {mode!r}.")
        self.mode = mode
        self.dim = args.integer(dim, "Parallel", "dim")
        self._start(branches[0] if len(branches) == 1 and isinstance(branches[0], (Mapping, ItemDict)) else branches)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Apply all branches to the arguments, and combine."""
        if not self._items:
            raise ValueError("Parallel: there are no branches; pass some, or append them.")
        outputs = {name: branch(*args, **kwargs) for name, branch in self._named_items()}
        if self.mode == "tuple":
            return tuple(outputs.values())
        arrays = {name: checks.to_array(y, "Parallel", f"the output of branch {name}") for name, y in outputs.items()}
        return self._combined(arrays)

    def _combined(self, outputs: dict[str, Any]) -> Any:
        first, ndim = next(iter(outputs)), len(next(iter(outputs.values())).shape)
        joins = self.mode == "concatenate"
        axis = checks.axis(self.dim, ndim + (self.mode == "stack"), "Parallel") if self.mode in _MODES[:2] else None
        for name, y in outputs.items():
            here, there = (_without(v.shape, axis if joins else None) for v in (y, outputs[first]))
            if here != there or len(y.shape) != ndim:
                but = f" except along axis {axis}" if joins else ""
                raise ShapeMismatchError(
                    f"Parallel: outputs must have the same shape{but} for mode={self.mode!r}. Branch {first} gives "
                    f"{checks.describe(outputs[first])}, branch {name} {checks.describe(y)}. Change one of them, or "
                    "choose another mode or dim."
                )
            if y.dtype != outputs[first].dtype:
                raise TypeError(
                    f"Parallel: branch {first} gives {outputs[first].dtype}, branch {name} {y.dtype}. Convert one of "
                    "them with .astype."
                )
        values = list(outputs.values())
        if axis is not None:
            return jnp.concatenate(values, axis) if joins else jnp.stack(values, axis)
        total = values[0]
        for y in values[1:]:
            total = total + y
        return total if self.mode == "sum" else total / len(values)

    def __bool__(self) -> bool:
        return True

    def _accept(self, item: Any, place: str) -> Any:
        return check_layer(item, place, "branch", "Parallel(*branches)")

    def constructor_arguments(self) -> dict[str, Any]:
        """The arguments that make such a module."""
        return {"branches": unpacked(self), "mode": self.mode, "dim": self.dim}

    def _like(self, items: list[Any]) -> Parallel:
        return Parallel(*items, mode=self.mode, dim=self.dim)

    def extra_repr(self) -> str:
        return self.mode + (f", dim={self.dim}" if self.mode in _MODES[:2] else "")


def _without(shape: Any, axis: int | None) -> tuple[Any, ...]:
    return tuple(n for i, n in enumerate(shape) if i != axis)


class Residual(Sequential):
    r"""Layers in a row, to whose output the input is added.

    .. math:: y = a(s(x) + f(x))

    with the layers :math:`f`, the shortcut :math:`s` (the identity by default) and the activation :math:`a`
    (none by default). Behaves like a list of its layers, as ``Sequential`` does, and slices are ``Sequential``.

    Args:
        *layers: modules and functions; or one dict of them, whose keys become their names.
        shortcut: what the input passes through, where the layers change its shape.
        activation: a module or function that is applied to the sum.

    Shape:
        The layers and the shortcut must give the same shape; nothing is broadcast. Further arguments go to the first
        layer.

    Raises:
        ShapeMismatchError: the shapes differ.
        TypeError: the dtypes differ; something that can't be called.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from brickwork import nn
        >>> block = nn.Residual(nn.Linear(16), nn.ReLU(), nn.Linear(8), activation=jax.nn.relu)
        >>> block(jnp.ones((2, 8))).shape
        (2, 8)
        >>> wider = nn.Residual(nn.Linear(16), nn.ReLU(), shortcut=nn.Linear(16, bias=False))
        >>> wider(jnp.ones((2, 8))).shape
        (2, 16)

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", 2015.
    """

    def __init__(
        self,
        *layers: Layer | Mapping[str, Layer],
        shortcut: Callable[[Any], Any] | None = None,
        activation: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(*layers)
        self.shortcut = _optional(shortcut, "shortcut")
        self.activation = _optional(activation, "activation")

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Apply the layers, and add the input."""
        x = checks.to_array(x, "Residual", "x")
        y = checks.to_array(super().forward(x, *args, **kwargs), "Residual", "the output of the layers")
        around = x if self.shortcut is None else self.shortcut(x)
        around = jnp.asarray(checks.to_array(around, "Residual", "the output of shortcut"))
        if around.shape != y.shape or around.dtype != y.dtype:
            self._refuse(x, around, y)
        out = around + y
        return out if self.activation is None else self.activation(out)

    def constructor_arguments(self) -> dict[str, Any]:
        """The arguments that make such a module."""
        return super().constructor_arguments() | {"shortcut": self.shortcut, "activation": self.activation}

    def _refuse(self, x: Any, around: Any, y: Any) -> None:
        given, made, other = map(checks.describe, (x, y, around))
        text = f"Residual: the layers turn x, {given}, into {made}"
        text += f", and shortcut turns it into {other}. " if self.shortcut is not None else ". "
        if around.dtype != y.dtype:
            raise TypeError(f"{text}The two are added, so they must have the same dtype: convert one with .astype.")
        fix = "give shortcut=..., a layer that changes x alike, such as nn.Linear or a convolution with kernel_size=1"
        if self.shortcut is not None:
            fix = "change one of them"
        raise ShapeMismatchError(f"{text}The two are added, so they must have the same shape: {fix}.")


def _optional(layer: Any, argument: str) -> Any:
    return None if layer is None else check_layer(layer, argument, "Residual:")


class Lambda(Module):
    r"""A function as a layer.

    .. math:: y = f(x)

    ``Sequential`` takes functions as they are; this is for places that want a module, for hooks and for ``capture``. It
    can be pickled if the function can, which one written with ``lambda`` can not.

    Args:
        fn: the function; all arguments of a call go to it.

    Shape:
        What the function makes of it.

    Raises:
        TypeError: something that is no function.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.Lambda(jnp.square)
        >>> layer(jnp.array([1.0, 3.0])).tolist()
        [1.0, 9.0]
        >>> nn.Lambda(jax.nn.relu)
        Lambda(relu)
    """

    keeps_nothing = False  # the function may

    def __init__(self, fn: Callable[..., Any]) -> None:
        if isinstance(fn, ModuleBase):
            raise TypeError(f"Lambda takes a function, got a {type(fn).__name__}, which is a layer already")
        self.fn = check_layer(fn, "fn", "Lambda:")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.fn(*args, **kwargs)

    def extra_repr(self) -> str:
        return name_of(self.fn)


def name_of(fn: Any) -> str:
    """The name of a function; of a partial one, that of what it calls, with what is given."""
    if isinstance(fn, jax.tree_util.Partial) or hasattr(fn, "func"):
        given = [*map(repr, fn.args), *(f"{k}={v!r}" for k, v in fn.keywords.items())]
        return f"{name_of(fn.func)}({', '.join(['...', *given])})"
    return getattr(fn, "__name__", None) or type(fn).__name__
