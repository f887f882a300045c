"""Where arrays lie: devices, meshes, shardings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..errors import ShapeMismatchError
from ._arrays import show_shape


def mesh_axes(entry: Any) -> tuple[Any, ...]:
    """The axes of a mesh in one entry of a spec."""
    return () if entry is None else entry if isinstance(entry, tuple) else (entry,)


def parts(mesh: Any, entry: Any) -> int:
    """Into how many parts an entry of a spec divides an axis on a mesh."""
    return math.prod(mesh.shape[name] for name in mesh_axes(entry))


def undivided(place: Any) -> Any:
    """The place, a mesh or sharding or device, for something that is whole on every device of it."""
    mesh = place if isinstance(place, Mesh) else getattr(place, "mesh", None)
    return place if mesh is None else NamedSharding(mesh, PartitionSpec())


def lies_on(array: jax.Array, devices: set[Any]) -> bool:
    """Whether an array is where others are; on one of many devices, it is if it got there by default only."""
    here = array.sharding.device_set
    return here == devices or (here < devices and not array.committed)


def settled(value: Any, place: Any) -> Any:
    """A value that lies where it does by default only, put where others are; any other as it is.

    Args:
        value: arrays.
        place: a sharding, or a mesh; on a mesh the value is whole on every device.
    """
    home = undivided(place)

    def settle(x: Any) -> Any:
        return x if not isinstance(x, jax.Array) or x.committed else jax.device_put(x, home)

    return jax.tree_util.tree_map(settle, value)


def check_fits(shape: Sequence[int | None], place: Any, what: str) -> None:
    """Refuse a sharding that can't divide an array of a shape; sizes that are not known are left out."""
    if not isinstance(place, NamedSharding):
        return
    problem = f"there is no axis {len(shape)}" if len(place.spec) > len(shape) else ""
    for axis, (size, entry) in enumerate(zip(shape, place.spec, strict=False)):
        count = parts(place.mesh, entry)
        if size is not None and size % count and not problem:
            problem = f"axis {axis} can't be divided into {count} parts of one size"
    if problem:
        raise ShapeMismatchError(
            f"{what} of shape {show_shape(shape)} can't be placed as {place.spec} on a mesh of "
            f"{dict(place.mesh.shape)}: {problem}. Give a sharding that fits, or place this one by itself: "
            "bw.to(net.get_parameter(path), sharding)."
        )
