"""``bw.vmap``: a function of one example as a function of many."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..core import Frame, ModuleBase, Variable, random_stream
from ..core._calls import describe
from ..core._deferred import is_box
from ..core._frame import current_frame
from ..core._jax import in_trace, is_batched, whole
from ..core._random import advance, fork
from ..core._variable import depth
from ..errors import ShapeMismatchError, TraceLeakError
from ._lift import Lanes, Split, is_array, name_of, split_result
from ._signature import argument_names
from ._stack import infer_stacks
from ._wrt import infer_shapes


def vmap(
    fn: Callable[..., Any],
    in_axes: Any = 0,
    out_axes: Any = 0,
    *,
    axis_size: int | None = None,
    axis_name: Any = None,
) -> Callable[..., Any]:
    """Map a function over an axis of its arguments, with the state that it uses.

    State follows one rule per kind. Parameters and other variables are the same in every lane. Each lane
    has a random stream of its own, split off the outer one, which advances by one step if a lane draws. Running
    statistics of normalisation layers move as if the lanes were one batch. Anything else that is
    written must come out the same in every lane.

    A module that :func:`brickwork.stack` made has its own variables in each lane, and these may be
    written: pass it as an argument.

    Args:
        fn: the function of one lane.
        in_axes: the axis to map for each argument, ``None`` for an argument that all lanes share; a nest
            of these for a nested argument. One number applies to all arguments but modules that are not
            stacked, which are shared. For a module, 0 maps the first axis of its variables.
        out_axes: where the mapped axis goes in the results.
        axis_size: the number of lanes, needed only when no argument is mapped.
        axis_name: a name for the axis, for collectives such as ``jax.lax.pmean``.

    Raises:
        ValueError: the mapped axes of the arguments differ in size, or there is none.
        TraceLeakError: a variable would be written differently in each lane.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax.numpy as jnp
        >>> nets = bw.stack([nn.Linear(2, in_features=3) for _ in range(5)])
        >>> bw.vmap(lambda net, x: net(x), in_axes=(0, None))(nets, jnp.ones((4, 3))).shape
        (5, 4, 2)
    """
    if not callable(fn):
        raise TypeError(f"vmap: fn must be a function or a module, got {type(fn).__name__}")

    @functools.wraps(fn, updated=())
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return _Mapped(fn, args, kwargs, in_axes, axis_size).run(out_axes, axis_name)

    return wrapped


class LaneFrame(Frame):
    """The frame of one lane, or of one device of a mesh. The random stream is split when it is first used."""

    def __init__(self, axes: tuple[Any, ...], mapped: frozenset[int] = frozenset()) -> None:
        super().__init__()
        self.axes = self.bound = axes
        self.mapped = mapped
        self.advanced: Any = None  # the outer stream after the split

    def resolve(self, variable: Any) -> Any:
        outer = super().resolve(variable)
        if variable is not random_stream():
            return outer
        lane = self.split(outer)
        self.bind(variable, lane)
        return lane

    def split(self, stream: Any) -> Any:
        """The state of this lane's random stream, for that of the stream outside."""
        with in_trace(self.trace):  # the reader may be in a loop of the lane's own
            key, self.advanced = advance(stream)
            return fork(key, jax.lax.axis_index(self.axes))

    def take_draws(self) -> Any:
        """How many keys this lane has drawn from its own stream, ``None`` for certainly none; asked once, at the end.

        Where drawing depends on a value (in a branch, say), only the number tells whether it happened, and only
        then does the outer stream move, as it would in plain Python.
        """
        if self.advanced is None or self.written.pop(id(random_stream()), None) is None:
            return None
        return self.read(random_stream())[-1]


class _Mapped:
    """One call of a mapped function."""

    def __init__(
        self, fn: Callable[..., Any], args: Any, kwargs: Any, in_axes: Any, size: int | None, shared: Any = ()
    ) -> None:
        self.fn, self.size = fn, size
        self.given = args, kwargs, in_axes
        self.split = Split((args, kwargs))
        self.names = argument_names(fn, self.split.tree)
        self.axes: list[int | None] = []
        self.stacks: list[Any] = []
        self.shared = shared  # examples of stacks, when shapes are inferred
        whole, _ = jax.tree_util.tree_flatten((args, kwargs), is_leaf=is_box)
        for name, leaf, axis in zip(self.names, whole, _axes_of(args, kwargs, in_axes), strict=True):
            leaf = getattr(leaf, "__brickwork_module__", leaf)
            if isinstance(leaf, (ModuleBase, Variable)):
                if not any(leaf is module for module in shared) and _is_mapped(name, leaf, axis):
                    self.stacks.append(leaf)
            elif is_array(leaf):
                axis = axis.axis if isinstance(axis, _Each) else axis
                self.axes.append(axis)
                if axis is not None:
                    self._count(name, leaf, axis)
            elif isinstance(axis, int):
                raise ValueError(
                    f"vmap: argument {name} is a {type(leaf).__name__}, which has no axis {axis}; give None"
                )

    def _open_lanes(self) -> Lanes:
        """The variables that have a value for each lane; how many lanes there are is known then."""
        lanes = Lanes("vmap", self.stacks, self.size)
        self.size = self.size if lanes.size is None else lanes.size
        if self.size is None:
            raise ValueError(
                f"vmap: no argument of {getattr(self.fn, '__name__', self.fn)!r} is mapped; give one of them an axis, "
                "pass a stack of modules that have variables, or say axis_size"
            )
        return lanes

    def _infer(self, out_axes: Any, axis_name: Any) -> None:
        """Infer the shapes of stacks, with one module of each in its place."""

        def rehearse(one: Callable[[Any], Any]) -> None:
            *given, in_axes = self.given
            args, kwargs = jax.tree_util.tree_map(one, tuple(given), is_leaf=is_box)
            shared = [one(module) for module in self.stacks]
            size = next((v.shape[0] for module in self.stacks for v in module.variables() if depth(v)), self.size)

            def mapped(*args: Any, **kwargs: Any) -> Any:
                return _Mapped(self.fn, args, kwargs, in_axes, size, shared).run(out_axes, axis_name)

            infer_shapes(mapped, args, kwargs)

        infer_stacks(self.stacks, rehearse)

    def _count(self, name: str, leaf: Any, axis: int) -> None:
        """Check that an array has the axis, and as many lanes along it as the others."""
        if not -leaf.ndim <= axis < leaf.ndim:
            raise ShapeMismatchError(
                f"vmap: argument {name} has shape {leaf.shape}, so there is no axis {axis} to map; give None in "
                "in_axes for an argument that all lanes share"
            )
        if self.size is not None and leaf.shape[axis] != self.size:
            raise ShapeMismatchError(
                f"vmap: argument {name} has shape {leaf.shape}, so there are {leaf.shape[axis]} lanes along its axis "
                f"{axis}, but {self.size} elsewhere; give None in in_axes for an argument that all lanes share"
            )
        self.size = leaf.shape[axis]

    def run(self, out_axes: Any, axis_name: Any) -> Any:
        self._infer(out_axes, axis_name)
        name = _fresh_name() if axis_name is None else axis_name
        lanes = self._open_lanes()

        def lane(arrays: list[Any], slices: list[Any]) -> Any:
            with LaneFrame((name,), lanes.mapped) as frame:
                lanes.bind(frame, slices)
                args, kwargs = self.split.fill(arrays)
                result = split_result("vmap", self.fn(*args, **kwargs))
                in_lanes = lanes.collect(frame)
                drawn = frame.take_draws()
                self._forget_examples(frame)
                for variable, value in zip(*frame.writes(), strict=True):
                    self._require_same(variable, value, frame.trace)
            axes = self._result_axes(result, out_axes, frame.trace)
            # What all lanes share was computed outside of them: it goes around jax.vmap and is no tracer of its.
            shared = [x for x, axis in zip(result.arrays, axes, strict=True) if axis is None]
            variables, values = frame.writes()
            around = jax.tree_util.tree_map(lambda x: whole(x, frame.trace), (shared, values, frame.advanced))
            seen.append((result.emptied(), axes, variables, *around))
            return [x for x, axis in zip(result.arrays, axes, strict=True) if axis is not None], in_lanes, drawn

        seen: list[Any] = []
        mapped = jax.vmap(lane, (self.axes, 0), 0, axis_size=self.size, axis_name=name)
        arrays, in_lanes, drawn = mapped(self.split.arrays, lanes.values)
        result, axes, variables, shared, values, advanced = seen[-1]
        for variable, value in zip(variables, values, strict=True):
            variable.value = value
        lanes.store(in_lanes)
        if drawn is not None:
            random_stream().value = jnp.where(drawn.any(), advanced, random_stream().value)
        mapped_on, whole_ones = iter(arrays), iter(shared)
        return result.fill([next(whole_ones) if axis is None else _moved(next(mapped_on), axis) for axis in axes])

    def _result_axes(self, result: Split, out_axes: Any, trace: Any) -> list[int | None]:
        """The axis for each array of the result; none only for those that all lanes share."""
        where = _spread(out_axes, result.fill(result.arrays), "out_axes", "the result")
        axes = result.only_arrays(where)
        for axis, value in zip(axes, result.arrays, strict=True):
            if axis is None and is_batched(value, trace):
                raise ValueError(
                    f"vmap: a result ({value.dtype}{list(value.shape)}) differs from lane to lane, but out_axes says "
                    "None for it; give an axis"
                )
        return axes

    def _forget_examples(self, frame: LaneFrame) -> None:
        """What was written to the one module in the place of a stack, in whose lanes it may differ, goes no further."""
        for module in self.shared:
            for variable in module.variables() if isinstance(module, ModuleBase) else [module]:
                frame.written.pop(id(variable), None)

    def _require_same(self, variable: Variable, value: Any, trace: Any) -> None:
        if any(is_batched(x, trace) for x in jax.tree_util.tree_leaves(value)):
            raise TraceLeakError(
                f"vmap: {name_of(variable)} was written differently in each of {self.size} "
                "lanes, but it is one variable that they share. For state of each lane's own, pass a stack as a "
                "mapped argument: bw.vmap(lambda net, x: net(x))(bw.stack([net1, net2, ...]), xs). To write one value, "
                "reduce it first: bw.vmap(..., axis_name='lanes') and jax.lax.pmean(value, 'lanes')."
            )


def _fresh_name() -> str:
    """An axis name that no ``vmap`` around has; always the same one in the same place, so that JAX's caches hit."""
    depth, frame = 0, current_frame()
    while frame is not None:
        depth, frame = depth + isinstance(frame, LaneFrame), frame.parent
    return f"lanes {depth}"


def _moved(x: Any, axis: int) -> Any:
    """The array with its first axis, that of the lanes, elsewhere."""
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"vmap: out_axes={axis}, but a result has shape {x.shape[1:]} in a lane, so the lanes can be axis "
            f"{-x.ndim} to {x.ndim - 1}"
        )
    return x if axis == 0 else jnp.moveaxis(x, 0, axis)


class _Each:
    """One axis for all arguments that have axes; modules that aren't stacked, and values, are shared."""

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def __repr__(self) -> str:
        return str(self.axis)


def _axes_of(args: Any, kwargs: Any, in_axes: Any) -> list[Any]:
    """``in_axes`` spread over the leaves of the arguments."""
    if isinstance(in_axes, (tuple, list)):
        if len(in_axes) != len(args):
            raise ValueError(f"vmap: in_axes has {len(in_axes)} entries for {len(args)} positional arguments")
        positional = tuple(in_axes)
    elif in_axes is None or (isinstance(in_axes, int) and not isinstance(in_axes, bool)):
        positional = tuple(None if in_axes is None else _Each(in_axes) for _ in args)
    else:
        raise TypeError(f"vmap: in_axes must be a number, None or a tuple of these, got {in_axes!r}")
    return _spread((positional, dict.fromkeys(kwargs, _Each(0))), (args, kwargs), "in_axes", "the arguments")


def _spread(axes: Any, tree: Any, what: str, whole: str) -> list[Any]:
    """A nest of axes that stops short of the leaves of ``tree``, repeated for all of them."""
    short, structure = jax.tree_util.tree_flatten(axes, is_leaf=lambda x: x is None)
    for axis in short:
        if axis is not None and not isinstance(axis, _Each) and (isinstance(axis, bool) or not isinstance(axis, int)):
            raise TypeError(f"vmap: {what} must consist of numbers and None, got {axis!r}")
    try:
        parts = structure.flatten_up_to(tree)
    except (TypeError, ValueError):
        shown = describe(tree if what == "out_axes" else tree[0])
        given = axes if what == "out_axes" else axes[0]
        raise ValueError(f"vmap: {what}={given!r} does not have the structure of {whole}, {shown}") from None
    pairs = zip(short, parts, strict=True)
    return [axis for axis, part in pairs for _ in jax.tree_util.tree_leaves(part, is_leaf=is_box)]


def _is_mapped(name: str, module: Any, axis: Any) -> bool:
    if axis is None:
        return False
    if isinstance(axis, _Each):
        mine = [module] if isinstance(module, Variable) else module.variables()
        return any(depth(v) for v in mine)
    if axis != 0:
        raise ValueError(f"vmap: argument {name} is a module, whose variables can be mapped along axis 0, not {axis}")
    return True
