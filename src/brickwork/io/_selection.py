"""Choosing what to load by name, and where it goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from ..core._patterns import compiled, no_match
from ._structure import leaves

__all__ = ["Place", "Shardings", "chosen", "placed", "placement"]

Place = Callable[[str, np.ndarray], Any]  # of a name and values: the array, where it belongs
Shardings = Sharding | Mapping[str, Sharding] | Callable[[str, tuple[int, ...]], Sharding | None]


def chosen(tree: Any, leaf: type, names: str, path: str) -> dict[str, Any]:
    """The leaves of a nest by name, as far as the regular expression ``names`` matches all of the name.

    Raises:
        ValueError: it matches none; ``path`` is the file.
    """
    found = {name: value for name, value in leaves(tree, leaf) if isinstance(value, leaf)}
    pattern = compiled(names)
    picked = {name: value for name, value in found.items() if pattern.fullmatch(name)}
    if not picked:
        raise no_match(f"load({path!r}, names=...)", names, list(found))
    return picked


def placement(device: Any, sharding: Shardings | None) -> Place:
    """What makes JAX arrays in the right place; see :func:`brickwork.load`."""
    if device is not None and sharding is not None:
        raise TypeError("load: give device= for one device or sharding= for several, not both")
    if device is not None and not isinstance(device, (jax.Device, Sharding)):
        raise TypeError(f"load: device must be a JAX device, such as brickwork.gpu(0), got {device!r}")
    if sharding is None or isinstance(sharding, Sharding):
        target = device if sharding is None else sharding
        return lambda name, array: placed(array, target)
    if callable(sharding):
        return lambda name, array: placed(array, sharding(name, array.shape))
    if not isinstance(sharding, Mapping):
        raise TypeError(
            "load: sharding must be a jax.sharding.Sharding, a dict of patterns and shardings, or a function of name "
            f"and shape, got {sharding!r}"
        )
    patterns = {compiled(pattern): target for pattern, target in sharding.items()}

    def place(name: str, array: np.ndarray) -> Any:
        return placed(array, next((target for p, target in patterns.items() if p.fullmatch(name)), None))

    return place


def placed(array: np.ndarray, target: Any) -> Any:
    """A JAX array with these values; NumPy's where JAX cannot hold them."""
    if array.dtype.name.startswith("float6_"):
        return array
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        return array
    with jax.ensure_compile_time_eval():
        return jax.device_put(array, target)
