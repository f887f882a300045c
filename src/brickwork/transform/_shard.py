"""``bw.shard_map``: the same function on every device of a mesh, each with its part of the data."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ..core import Frame, Variable, random_stream
from ..core._calls import describe
from ..core._deferred import is_box
from ..core._frame import current_frame, outside
from ..core._jax import current_trace, in_trace, is_collective_error, passing, varying_axes
from ..core._places import lies_on, mesh_axes, parts, settled
from ..errors import ShapeMismatchError, StructureError, TraceLeakError
from ._lift import Split, is_array, key_of, name_of, recall, remember, split_result
from ._signature import argument_names
from ._vmap import LaneFrame

_ROUNDS = 20


def shard_map(
    fn: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any, *, check_vma: bool = True
) -> Callable[..., Any]:
    """Run a function on every device of a mesh, on the parts of its arguments that lie there.

    As ``jax.shard_map``, but the function may use and change variables. They come in as they are placed: of one
    that is sharded over this mesh each device sees its part, of any other the whole; one that was on a single device
    by default is put on all of them, whole, and stays there. What is written must
    keep that form; a variable that is whole everywhere must be given the same value everywhere, so reduce it
    first, for example with ``jax.lax.pmean``. A gradient that is taken inside, by a parameter that is whole everywhere,
    is summed over the devices already, as JAX does it: reduce the loss with ``pmean`` before, and not the gradient.
    Running statistics of normalisation layers are reduced over the axes in
    ``in_specs``, as if the parts were one batch. Each device has a random stream of its own. Outside a compiled
    function every call is traced and compiled anew, so call it in one.

    Args:
        fn: the function of the parts.
        mesh: the devices.
        in_specs: for each argument, which are given by position, a ``PartitionSpec``, or a nest of them; what is no
            array is passed as it is.
        out_specs: the same for the result.
        check_vma: whether to check that what is said to be the same on all devices is; see ``jax.shard_map``.

    Raises:
        TraceLeakError: a variable that is whole everywhere would be written differently on each device.
        ShapeMismatchError: an axis of an argument can't be shared out evenly over the mesh as its spec says.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax, jax.numpy as jnp
        >>> from jax.sharding import PartitionSpec as P
        >>> mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
        >>> net = nn.Linear(2, in_features=3)
        >>> bw.shard_map(net, mesh, P("data"), P("data"))(jnp.ones((4, 3))).shape
        (4, 2)
    """
    if not callable(fn):
        raise TypeError(f"shard_map: fn must be a function or a module, got {describe(fn)}")
    if not isinstance(mesh, Mesh):
        raise TypeError(f"shard_map: mesh must be a jax.sharding.Mesh, got {describe(mesh)}")
    for which, specs in (("in_specs", in_specs), ("out_specs", out_specs)):
        _check_specs(mesh, which, specs)

    @functools.wraps(fn, updated=())
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            raise TypeError(
                f"shard_map: {getattr(fn, '__name__', type(fn).__name__)} gets its arguments by position only, in the "
                f"order of in_specs, but {', '.join(map(repr, kwargs))} came by keyword; pass it by position, or bind "
                "it first with functools.partial, so that every device gets the whole of it"
            )
        return _Sharded(fn, mesh, in_specs, out_specs, check_vma, args).run()

    return wrapped


class _NewVariables(BaseException):
    """Raised while JAX traces, when the function turns out to use further variables; not for the user's ``except``."""


class _ShardFrame(LaneFrame):
    """The frame of one device. Variables nobody had reckoned with stand in as zeros of the right shape."""

    def __init__(self, axes: tuple[Any, ...], mesh: Mesh, sharding_of: Any, checked: bool) -> None:
        super().__init__(axes)
        self.bound = mesh.axis_names
        self.sharding_of: Callable[[Any], NamedSharding] = sharding_of
        self.checked = checked
        self.used: dict[int, Variable] = {}
        self.unknown = False
        self.stream: Any = None  # the state of the random stream outside

    def axes_of(self, variable: Any, value: Any) -> tuple[Any, ...]:
        names = varying_axes(value) if self.checked else self.axes
        sharded = _all_names(self.sharding_of(variable).spec)
        return tuple(name for name in self.axes if name in names and name not in sharded)

    def read(self, variable: Any) -> Any:
        if variable._trace is None:
            self.used[id(variable)] = variable
        return super().read(variable)

    def resolve(self, variable: Any) -> Any:
        given = self.stream is not None and variable is random_stream()
        whole = self.stream if given else Frame.resolve(self, variable)
        if whole is None or variable._trace is not None:
            return whole
        if not given:
            self.unknown = True
            sharding = self.sharding_of(variable)
            with in_trace(self.trace):
                whole = jnp.zeros(sharding.shard_shape(whole.shape), whole.dtype)
                if self.checked and (names := _all_names(sharding.spec)):
                    whole = jax.lax.pcast(whole, tuple(names), to="varying")
        value = self.split(whole) if variable is random_stream() else whole
        self.bind(variable, value)
        return value

    def final(self, variable: Variable) -> Any:
        """The value of a variable at the end; of the random stream, that of the one outside."""
        if variable is not random_stream():
            return self.read(variable)
        if self.advanced is None:
            return self.stream
        drawn = jax.lax.pmax(self.read(variable)[-1], self.axes)  # a branch that draws may not have been taken
        return jnp.where(drawn > 0, self.advanced, self.stream)


class _Sharded:
    """One call of a function that is mapped over a mesh."""

    def __init__(
        self, fn: Any, mesh: Mesh, in_specs: Any, out_specs: Any, check_vma: bool, args: tuple[Any, ...]
    ) -> None:
        self.fn, self.mesh, self.check_vma = fn, mesh, check_vma
        self.out_specs = jax.tree_util.tree_map(lambda spec: spec or PartitionSpec(), out_specs, is_leaf=_is_spec)
        self.given = Split(args)
        self.in_specs = self.given.only_arrays(_spread(in_specs, args))
        self._check_arguments(args)
        self.axes = tuple(dict.fromkeys(name for spec in self.in_specs for name in _all_names(spec))) or mesh.axis_names
        key = key_of(fn)
        self.keys = [("shard_map reads", key)], [("shard_map writes", key)]
        self.reads: dict[int, Any]
        self.writes: dict[int, Any]
        self.reads, self.writes = ({id(v): v for v in recall(keys) if self._is_here(v)} for keys in self.keys)

    def _check_arguments(self, args: tuple[Any, ...]) -> None:
        """Refuse specs that don't fit the arguments."""
        names = argument_names(self.fn, jax.tree_util.tree_structure((args, {}), is_leaf=is_box))
        for name, x, spec in zip(self.given.only_arrays(names), self.given.arrays, self.in_specs, strict=True):
            what = f"argument {name}"
            _check_length(what, "in_specs", x, spec)
            for axis, (size, entry) in enumerate(zip(jnp.shape(x), spec, strict=False)):
                count = parts(self.mesh, entry)
                if size % count:
                    raise ShapeMismatchError(
                        f"shard_map: {what} has shape {jnp.shape(x)}, and in_specs has {spec} for it; its axis {axis}, "
                        f"of size {size}, can't be shared out evenly over {_show_axes(self.mesh, entry)}. Pad or drop "
                        "a last, smaller batch, or leave that axis whole, with None in the spec"
                    )

    def _check_result(self, result: Split) -> None:
        """Refuse specs that don't fit what the function returned on one device."""
        tree = result.fill(result.arrays)
        specs = _flat_specs("out_specs", self.out_specs, tree, "result")
        for (path, x), spec in zip(jax.tree_util.tree_flatten_with_path(tree)[0], specs, strict=True):
            what = f"the result{jax.tree_util.keystr(path)}"
            if not is_array(x) and not isinstance(x, (bool, int, float, complex)):
                raise TypeError(f"shard_map: {what} is {describe(x)}; return arrays alone, or nests of them")
            _check_length(what, "out_specs", x, spec)
            extra = self._undeclared(x, spec)
            if extra:
                raise ValueError(
                    f"shard_map: {what} ({describe(x)}) differs along {', '.join(map(repr, extra))} of the mesh, but "
                    f"out_specs has {spec} for it, as if it were the same there. Reduce it first, for example with "
                    f"jax.lax.pmean(value, {extra[0]!r}), or put the parts together, with {extra[0]!r} in out_specs"
                )

    def _undeclared(self, value: Any, spec: PartitionSpec) -> list[str]:
        """The mesh axes along which a value differs while its spec says that it is the same there."""
        return sorted(map(str, varying_axes(value) - set(_all_names(spec)))) if self.check_vma else []

    def sharding_of(self, variable: Variable) -> NamedSharding:
        """How a variable lies on the mesh; a gradient lies as its parameter does."""
        owner = next((v for v in self.reads.values() if getattr(v, "_grad", None) is variable), variable)
        return NamedSharding(self.mesh, _spec_on(self.mesh, owner))

    def _is_here(self, variable: Variable) -> bool:
        """Whether a variable that an earlier call used can be used in this one."""
        value = variable._value
        return not isinstance(value, jax.Array) or lies_on(value, set(self.mesh.devices.flat))

    def run(self) -> Any:
        for _ in range(_ROUNDS):
            try:
                out, new, written, used = self._attempt()
                break
            except _NewVariables:
                continue
        else:
            raise StructureError("shard_map: every trace of the function uses new variables; create them outside")
        changed = [v for i, v in self.writes.items() if i in written]
        for keys, variables in zip(self.keys, (used, changed), strict=True):
            remember(keys, variables)
        outer = current_frame()
        if outer is not None:
            look = functools.partial(_spec_on, self.mesh)
            for variable in self.reads.values():
                outer.assume(variable, look, look(variable))
        for (i, variable), value in zip(self.writes.items(), new, strict=True):
            if i in written:
                if variable is random_stream() and outer is None:
                    value = np.asarray(value)  # not tied to the mesh: whatever comes next may be elsewhere
                variable.value = value
        return out

    def _attempt(self) -> tuple[Any, list[Any], set[int], list[Variable]]:
        """The result, the new values, which variables were written, and all that were used."""
        seen: list[Any] = []
        outer = current_trace()

        def part(arrays: list[Any], values: list[Any]) -> Any:
            with passing(outer), _ShardFrame(self.axes, self.mesh, self.sharding_of, self.check_vma) as frame:
                for variable, value in zip(self.reads.values(), values, strict=True):
                    if variable is random_stream():
                        frame.stream = value
                    else:
                        frame.bind(variable, value)
                result = split_result("shard_map", self.fn(*self.given.fill(arrays)))
                self._settle(frame)
                self._check_result(result)
                new = [frame.final(v) for v in self.writes.values()]
                for variable, value in zip(self.writes.values(), new, strict=True):
                    self._require_form(variable, value)
            seen.append((set(frame.written), list(frame.used.values())))
            return result.fill(result.arrays), new

        specs = [[self.sharding_of(v).spec for v in group.values()] for group in (self.reads, self.writes)]
        mapped = jax.shard_map(
            part,
            mesh=self.mesh,
            in_specs=(self.in_specs, specs[0]),
            out_specs=(self.out_specs, specs[1]),
            check_vma=self.check_vma,
        )
        mapped = jax.jit(mapped)  # outside bw.compile, JAX would compile every operation by itself, at every call
        self._move_in()
        arrays = [self._laid_out(x, spec) for x, spec in zip(self.given.arrays, self.in_specs, strict=True)]
        values = [self._laid_out(v.value, spec) for v, spec in zip(self.reads.values(), specs[0], strict=True)]
        try:
            out, new = mapped(arrays, values)
        except (AssertionError, ValueError) as error:
            if is_collective_error(error):
                raise StructureError(
                    "shard_map: JAX can't reduce along an axis of vmap, as BatchNorm does in training, where it checks "
                    "what is the same on all devices; pass check_vma=False to shard_map"
                ) from error
            raise
        return out, new, *seen[-1]

    def _move_in(self) -> None:
        """Put on the mesh what lies elsewhere by default only: now, and not at every call."""
        with outside():
            for variable in self.reads.values():
                if variable is not random_stream() and variable._trace is None:
                    variable._value = settled(variable._value, self.mesh)

    def _laid_out(self, value: Any, spec: PartitionSpec) -> Any:
        """A value as ``spec`` says, for the axes for which that is part of its type; JAX sees to the others."""
        types = dict(zip(self.mesh.axis_names, self.mesh.axis_types, strict=True))
        if AxisType.Explicit not in types.values():
            return value
        explicit = [tuple(name for name in mesh_axes(entry) if types[name] == AxisType.Explicit) for entry in spec]
        sharding = NamedSharding(self.mesh, PartitionSpec(*explicit))
        return jax.tree_util.tree_map(lambda x: jax.sharding.reshard(x, sharding), value)

    def _settle(self, frame: _ShardFrame) -> None:
        """Try again if variables came up that weren't passed in, or out."""
        written = {i: v for i, v in frame.written.items() if v._trace is None}  # type: ignore[attr-defined]
        further = written.keys() - self.writes.keys()
        self.writes |= written
        self.reads |= frame.used | self.writes  # what is written at times only keeps its value at others
        if frame.unknown or further:
            raise _NewVariables

    def _require_form(self, variable: Variable, value: Any) -> None:
        """Refuse a value that isn't laid out as the variable is."""
        spec = self.sharding_of(variable).spec
        for leaf in jax.tree_util.tree_leaves(value):
            extra = self._undeclared(leaf, spec)
            if extra:
                raise TraceLeakError(
                    f"shard_map: {name_of(variable)} is placed as {spec}, but was written differently along "
                    f"{', '.join(map(repr, extra))} of the mesh. Reduce the value first, for example with "
                    f"jax.lax.pmean(value, {extra[0]!r}), or shard the variable."
                )


def _spec_on(mesh: Mesh, variable: Variable) -> PartitionSpec:
    """How a variable lies on a mesh; the whole of it everywhere if it has nothing to do with it."""
    value = variable._value
    placed = variable._placement if value is None else getattr(value, "sharding", None)
    if not isinstance(placed, NamedSharding) or placed.mesh != mesh:
        return PartitionSpec()
    entries = list(placed.spec)
    while entries and entries[-1] is None:  # equal ones are to compare equal
        entries.pop()
    return PartitionSpec(*entries)


def _all_names(spec: PartitionSpec) -> list[Any]:
    """The mesh axes in a spec."""
    return [name for entry in spec for name in mesh_axes(entry)]


def _spread(specs: Any, args: tuple[Any, ...]) -> list[Any]:
    """One spec for each leaf of the arguments."""
    if isinstance(specs, PartitionSpec):
        specs = (specs,) * len(args)
    if not isinstance(specs, (tuple, list)):
        raise TypeError(
            f"shard_map: in_specs must be a PartitionSpec, or a tuple with one entry for each argument, got {specs!r}"
        )
    if len(specs) != len(args):
        raise ValueError(
            f"shard_map: in_specs has {_count(len(specs), 'entry', 'entries')}, {tuple(specs)}, but the function was "
            f"called with {_count(len(args), 'argument', 'arguments')}; give one for each, PartitionSpec() for what "
            "every device gets whole"
        )
    return _flat_specs("in_specs", tuple(specs), args, "arguments")


def _flat_specs(which: str, specs: Any, tree: Any, what: str) -> list[Any]:
    """A nest of specs that stops short of the leaves of another, repeated for all of them."""
    short, structure = jax.tree_util.tree_flatten(specs, is_leaf=_is_spec)
    try:
        parts = structure.flatten_up_to(tree)
    except (TypeError, ValueError):
        raise ValueError(
            f"shard_map: {which}={specs!r} does not have the structure of the {what}, {describe(tree)}"
        ) from None
    pairs = zip(short, parts, strict=True)
    return [spec or PartitionSpec() for spec, x in pairs for _ in jax.tree_util.tree_leaves(x, is_leaf=is_box)]


def _check_specs(mesh: Mesh, which: str, specs: Any) -> None:
    """Refuse what is no spec, and one that doesn't fit the mesh."""
    for path, spec in jax.tree_util.tree_flatten_with_path(specs, is_leaf=_is_spec)[0]:
        if not _is_spec(spec):
            raise TypeError(f"shard_map: {which} must consist of jax.sharding.PartitionSpec and None, got {spec!r}")
        names = _all_names(spec or PartitionSpec())
        place = f"shard_map: {which}{jax.tree_util.keystr(path)} is {spec}"
        for name in names:
            if name not in mesh.axis_names:
                axes = ", ".join(map(repr, mesh.axis_names))
                raise ValueError(f"{place}, but the mesh has no axis {name!r}; it has {axes}")
            if names.count(name) > 1:
                raise ValueError(f"{place}, which shares out two axes over {name!r}; only one can be")


def _check_length(what: str, which: str, value: Any, spec: PartitionSpec) -> None:
    """Refuse a spec with more entries than a value has axes."""
    shape = jnp.shape(value)
    if len(spec) > len(shape):
        raise ShapeMismatchError(
            f"shard_map: {what} has shape {shape}, so {_count(len(shape), 'axis', 'axes')}, but {which} has {spec} for "
            f"it, with {_count(len(spec), 'entry', 'entries')}; give "
            + ("at most one for each axis" if shape else "PartitionSpec() for a scalar, or make it an array, x[None]")
        )


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _show_axes(mesh: Mesh, entry: Any) -> str:
    """The mesh axes in one entry of a spec, with their sizes."""
    return " and ".join(f"mesh axis {name!r} of size {mesh.shape[name]}" for name in mesh_axes(entry))


def _is_spec(x: Any) -> bool:
    return x is None or isinstance(x, PartitionSpec)
