"""Putting other modules in the place of layers, wherever they are held: for adapters and quantisation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..core import ModuleBase, TrackedDict, TrackedList, Variable
from ..core._patterns import no_match
from ..errors import StructureError
from ._conv import Conv1d, Conv2d, Conv3d
from ._embedding import Embedding
from ._linear import Linear
from ._parametrize import class_without

LAYERS: dict[type[Any], str] = {
    Conv1d: "convolution",
    Conv2d: "convolution",
    Conv3d: "convolution",
    Embedding: "embedding",
    Linear: "linear",
}
"""The layers that can be wrapped. Their ``forward`` uses ``weight`` and ``bias``, and their ``weight`` is

- ``(out, in / groups, *kernel)`` for a convolution, which has an attribute ``groups``;
- ``(num, dim)`` for an embedding, and there is no ``bias``;
- ``(out, in)`` for a linear layer.
"""

OPAQUE: tuple[type[Any], ...] = ()
"""Layers that compute with the weights of the layers inside them and don't call those, which are left alone."""


def kind_of(layer: Any, layers: dict[type[Any], str] = LAYERS) -> str | None:
    """Which kind of layer this is; ``None`` for one that can't be wrapped."""
    for cls, kind in layers.items():
        if isinstance(layer, cls) and type(layer).forward is cls.forward:
            return kind
    return None


def standing_in(form: Any, weight: Any, bias: Any = None) -> Any:
    """A layer with the options of another, and other arrays. Only its ``forward`` may be called."""
    return with_attributes(form, weight=weight, bias=bias)


def with_attributes(form: Any, **attributes: Any) -> Any:
    """A layer like another, but for some attributes. Only its ``forward`` may be called."""
    layer = object.__new__(class_without(form, attributes))
    layer.__dict__.update(form.__dict__, **attributes)
    return layer


def require_stored(layer: Any, what: str, name: str = "weight") -> None:
    """Refuse a layer whose weight, or what else is named, is computed from others, as ``nn.spectral_norm`` makes it.

    Raises:
        StructureError: it is; ``what`` says who asks.
    """
    found = getattr(layer, name, None)
    if found is not None and not isinstance(found, Variable):
        raise StructureError(
            f"{what}: the {name} of {type(layer).__name__} is computed by a parametrisation; take that away first, "
            f"nn.remove_parametrizations(layer, {name!r})"
        )


def form_of(layer: Any) -> Any:
    """A layer's class and options, without its arrays."""
    form = object.__new__(type(layer))
    form._prepare()
    form._adopt({**layer.__dict__, "weight": None, "bias": None})
    form._bw.built = True
    form._bw.arguments = layer._bw.arguments
    return form


def module_of(net: Any, what: str) -> Any:
    """The module that a user means by ``net``."""
    net = getattr(net, "__brickwork_module__", net)
    if not isinstance(net, ModuleBase):
        raise TypeError(f"{what}: net must be a module, got {type(net).__name__}")
    return net


def choose(
    net: Any, pattern: str | None, what: str, suits: Any, layers: dict[type[Any], str] = LAYERS
) -> list[tuple[str, Any]]:
    """The layers inside a network that suit and whose path matches, with their paths; at least one.

    Raises:
        ValueError: there is none, or the network itself is one, which can't be put in its own place.
    """
    hidden = {id(inner) for module in net.modules() if isinstance(module, OPAQUE) for inner in module.modules()}
    candidates = [(path, layer) for path, layer in net.named_modules() if suits(layer) and id(layer) not in hidden]
    if any(layer is net for _, layer in candidates):
        raise ValueError(f"{what}: net is itself a {type(net).__name__}; put it into a network, nn.Sequential(layer)")
    chosen = {id(layer) for _, layer in net.named_modules(pattern)}
    found = [(path, layer) for path, layer in candidates if id(layer) in chosen]
    if found:
        return found
    if candidates and pattern is not None:
        raise no_match(what, pattern, [path for path, _ in candidates])
    names = ", ".join(cls.__name__ for cls in layers)
    raise ValueError(f"{what}: {type(net).__name__} holds no layer that can be wrapped; those are {names}")


def replace(net: Any, new: dict[int, Any]) -> None:
    """Put modules in the place of others, given by identity, in every attribute, list, dict and tuple of a network."""
    for module in net.modules():
        for name, value in list(module.__dict__.items()):
            changed = _replaced(value, new)
            if changed is not value:
                ModuleBase.__setattr__(module, name, changed)


def _replaced(value: Any, new: dict[int, Any]) -> Any:
    if isinstance(value, ModuleBase):
        return new.get(id(value), value)
    if isinstance(value, tuple):
        items = [_replaced(x, new) for x in value]
        if all(a is b for a, b in zip(items, value, strict=True)):
            return value
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    for key, inner in _entries(value):
        changed = _replaced(inner, new)
        if changed is not inner:
            value[key] = changed
    return value


def _entries(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, TrackedList):
        yield from enumerate(list(value))
    elif isinstance(value, TrackedDict):
        yield from list(value.items())
