"""Meshes with explicit axes, where the type of an array says how it is divided among devices.

There JAX asks how to divide each result of what reshapes or indexes. Functions here leave that to XLA, as on other
meshes, and say only how their own results are divided.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast

import jax
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from ..core._places import mesh_axes, parts

_EXPLICIT = AxisType.Explicit

F = TypeVar("F", bound=Callable[..., Any])
Rule: TypeAlias = Callable[[Any, tuple[Any, ...]], list[Any]]


def alike(y: Any, args: tuple[Any, ...]) -> list[Any]:
    """Divide each axis of a result as the same of the first argument, where that is of the same size."""
    x = args[0]
    return [entry if a == b else None for a, b, entry in zip(y.shape, x.shape, entries(x), strict=False)]


def whole(y: Any, args: tuple[Any, ...]) -> list[Any]:
    """As ``alike``, what has the shape of the first argument; statistics beside it are on each device."""
    return alike(y, args) if y.shape == args[0].shape else []


def products(y: Any, args: tuple[Any, ...]) -> list[Any]:
    """As ``alike``, but outputs as weights ``(out, in, *window)`` are, the second argument; unless their axis of the
    mesh divides the result already.
    """
    found, (by_outputs, *_) = alike(y, args), entries(args[1])
    axis = y.ndim + 1 - args[1].ndim
    found[axis] = None
    if {name for entry in found for name in mesh_axes(entry)}.isdisjoint(mesh_axes(by_outputs)):
        found[axis] = by_outputs
    return found


def left_to_xla(function: F, divided: Rule = alike) -> F:
    """Let XLA choose how to divide what a function computes, also on a mesh with explicit axes.

    Args:
        function: of arrays, and of keywords that are none.
        divided: how a result of the function is divided.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **options: Any) -> Any:
        meshes = (jax.typeof(a).sharding.mesh for a in jax.tree.leaves(args))
        mesh = next((m for m in meshes if _EXPLICIT in m.axis_types), None)
        compute = functools.partial(function, **options)
        if mesh is None:
            return compute(*args)
        with jax.sharding.use_abstract_mesh(AbstractMesh((), ())):
            types = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), args)
            out = jax.tree.map(lambda y: PartitionSpec(*divided(y, args)), jax.eval_shape(compute, *types))
        explicit = tuple(name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == _EXPLICIT)
        with jax.sharding.use_abstract_mesh(mesh):
            return jax.sharding.auto_axes(compute, axes=explicit, out_sharding=out)(*args)

    return cast("F", wrapped)


def entries(x: Any) -> tuple[Any, ...]:
    """For each axis of an array, along which axes of the mesh it is divided."""
    return tuple(jax.typeof(x).sharding.spec)


def parts_of(entry: Any, x: Any) -> int:
    """Into how many parts such an entry divides an axis, on the mesh of an array."""
    return parts(jax.typeof(x).sharding.mesh, entry)
