"""Many equal blocks in a row, as one loop."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..core import Frame, ModuleBase
from ..core._arguments import Like
from ..core._calls import describe, device_error
from ..core._deferred import is_box
from ..core._frame import TrialFrame, current_frame, outside
from ..core._jax import Tracer, base_state, is_staged, trace_state
from ..core._parts import join, part
from ..core._places import lies_on
from ..core._variable import depth
from ..errors import ShapeMismatchError, StructureError
from ..functional import _checks as checks
from ..module import Module
from ..transform._lift import Lanes, Split
from ..transform._loops import scan_lanes
from ..transform._remat import call_remat
from ..transform._stack import adopt_shapes, example_of, part_of, stack_all
from ..transform._wrt import infer_shapes


class Repeat(Module):
    """``n`` equal blocks in a row: the output of each is the input of the next.

    Compiled, the blocks are one loop, so that compile time and the size of the program do not grow with
    ``n``. Their variables are kept stacked: ``block.weight`` has shape ``(n, *)``. In ``state_dict`` and in
    files they are ``0.weight``, ``1.weight`` ..., so that what was saved from a ``Sequential`` of the blocks can be
    loaded, and the other way round. Each block has its own initial values, random numbers and
    running statistics, the same as in a ``Sequential``. A variable that all blocks share stays one.

    Args:
        make_block: a function without arguments that makes one block; called ``n`` times.
        n: the number of blocks.
        remat: whether each block is computed again in the backward pass instead of keeping what it computed;
            see :func:`brickwork.remat`.
        unroll: how many blocks to write out in one turn of the loop.

    Shape:
        A block's output must have the structure, shapes and dtypes of its (first) input. Further arguments go
        to every block.

    Raises:
        ValueError: ``n`` or ``unroll`` is less than 1.
        StructureError: the blocks differ in structure.
        ShapeMismatchError: a block's output has another shape than its input.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax.numpy as jnp
        >>> net = nn.Repeat(lambda: nn.Sequential(nn.Linear(8), nn.Tanh()), 3)
        >>> net(jnp.ones((2, 8))).shape
        (2, 8)
        >>> net.block[0].weight.shape
        (3, 8, 8)
        >>> list(net.state_dict())[:2]
        ['0.0.weight', '0.0.bias']
    """

    def __init__(self, make_block: Callable[[], Any], n: int, *, remat: bool = False, unroll: int = 1) -> None:
        if isinstance(make_block, ModuleBase) or not callable(make_block):
            raise TypeError(
                f"Repeat: make_block must be a function that makes a block, got a {type(make_block).__name__}; "
                "write Repeat(lambda: Block(...), n)"
            )
        for name, number in (("n", n), ("unroll", unroll)):
            if isinstance(number, bool) or not isinstance(number, numbers.Integral):
                raise TypeError(f"Repeat: {name} must be an integer, got {number!r}")
            if number < 1:
                raise ValueError(f"Repeat: {name} must be at least 1, got {number}")
        n, unroll = int(n), int(unroll)
        self.block = stack_all(_make(make_block, n), "Repeat", "block")
        self._repeated = n, 0
        self.remat = checks.flag(remat, "Repeat", "remat")
        self.unroll = unroll

    def build(self, *args: Any, **kwargs: Any) -> None:
        """Infer the shapes of one block, which are those of all."""
        block = self.block
        if all(v.is_drawn or v.is_drawable for v in block.variables()) and not _may_make_variables(block):
            return
        probe = example_of(block)
        before = probe.variables()
        with TrialFrame():
            infer_shapes(probe, args, kwargs)
        after = probe.variables()
        if len(before) != len(after) or any(a is not b for a, b in zip(before, after, strict=True)):
            self._build_others(probe, args, kwargs)
            return
        adopt_shapes(block, probe)

    def _build_others(self, first: Any, args: Any, kwargs: Any) -> None:
        """Let all blocks make the variables that the first made in ``build``, in the order of a ``Sequential``."""
        with outside():
            others = [self[i] for i in range(1, len(self))]
        with TrialFrame():
            for block in others:
                infer_shapes(block, args, kwargs)
        self.block = stack_all([first, *others], "Repeat", "block")

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Apply the blocks in turn; further arguments go to each of them."""
        block, staged = self.block, is_staged()
        remat = self.remat and not (current_frame() is None and trace_state() == base_state())

        def step(h: Any, _: Any) -> tuple[Any, None]:
            if remat:  # a loop of XLA's keeps what is common to both passes apart by itself
                out = call_remat(block, (h, *args), kwargs, prevent_cse=not staged)
            else:
                out = block(h, *args, **kwargs)
            _require_form(h, out)
            return out, None

        lanes = Lanes("Repeat", [v for v in block.variables() if depth(v)], len(self))
        if staged:
            return scan_lanes("Repeat", step, x, Split(None), lanes, len(self), unroll=self.unroll)[0]
        return self._one_by_one(step, x, lanes)

    def _one_by_one(self, step: Callable[[Any, Any], Any], x: Any, lanes: Lanes) -> Any:
        """A loop in Python: eagerly, one of XLA's would be compiled at each call."""
        if current_frame() is None:
            self._require_place(x, lanes.values)
        changed: dict[int, dict[int, Any]] = {}  # what was written to the blocks' own variables, by block
        shared: dict[int, Any] = {}  # and to others
        for i in range(len(self)):
            with Frame() as frame:
                lanes.bind(frame, [part(value, (i,)) for value in lanes.values])
                for variable, value in shared.values():
                    frame.bind(variable, value)
                x, _ = step(x, None)
                new = lanes.collect(frame)
                for variable, value in zip(lanes.written, new, strict=True):
                    changed.setdefault(id(variable), {})[i] = value
                shared |= {id(v): (v, value) for v, value in zip(*frame.writes(), strict=True)}
        for variable, value in shared.values():
            variable.value = value
        for variable, value in zip(lanes.variables, lanes.values, strict=True):
            mine = changed.get(id(variable))
            if mine is not None:
                variable.value = join([mine[i] if i in mine else part(value, (i,)) for i in range(len(self))])
        return x

    def _require_place(self, x: Any, values: list[Any]) -> None:
        """Refuse an input on other devices than the blocks, which JAX might copy silently."""
        here = next((v.sharding.device_set for v in values if not isinstance(v, Tracer)), None)
        given = [a for a in jax.tree_util.tree_leaves(x) if isinstance(a, jax.Array) and not isinstance(a, Tracer)]
        if here is not None and not all(lies_on(a, here) for a in given):
            raise device_error(self, (x,))

    def __len__(self) -> int:
        return self._repeated[0]  # type: ignore[index]

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: int) -> Any:
        """A copy of one block, with the values it has now."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            several = f"range({start}, {stop}{f', {step}' if step != 1 else ''})"
            raise TypeError(
                "Repeat: the index of a block must be an integer; blocks are kept stacked, so some of them can only be "
                f"had as copies: nn.Sequential(*[repeat[i] for i in {several}])"
            )
        if not hasattr(type(index), "__index__"):
            raise TypeError(f"Repeat: the index of a block must be an integer, got {describe(index)}")
        number = operator.index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"Repeat has {len(self)} blocks, no index {index}")
        return part_of(self.block, number % len(self))

    def constructor_arguments(self) -> dict[str, Any]:
        """The arguments that make such a module."""
        return {"make_block": Like(example_of(self.block)), "n": len(self), "remat": self.remat, "unroll": self.unroll}

    def extra_repr(self) -> str:
        more = ", remat=True" if self.remat else ""
        return f"{len(self)}{more}"


def _make(make_block: Callable[[], Any], n: int) -> list[Any]:
    """Call a function that makes blocks, and check what it makes."""
    blocks = []
    for _ in range(n):
        try:
            blocks.append(make_block())
        except TypeError as error:
            if isinstance(make_block, type):
                name = make_block.__name__
                error.add_note(f"  Repeat calls {name}() without arguments: write Repeat(lambda: {name}(...), n)")
            raise
        if not isinstance(blocks[-1], ModuleBase):
            raise TypeError(f"Repeat: make_block must return a module, got {type(blocks[-1]).__name__}")
        if any(blocks[-1] is block for block in blocks[:-1]):
            raise StructureError("Repeat: make_block returned the same module twice; make a new one at each call")
    return blocks


def _may_make_variables(block: ModuleBase) -> bool:
    """Whether there is a ``build`` to come that could do more than fill in shapes, as those of the library do."""
    waiting = (m for m in block.modules() if not m._bw.built and not m.keeps_nothing)
    return any(type(m).build is not ModuleBase.build for m in waiting)


def _require_form(before: Any, after: Any) -> None:
    """Refuse the output of a block if the next one can't get it in place of its input."""
    (old, structure), (new, other) = (jax.tree_util.tree_flatten(x, is_leaf=is_box) for x in (before, after))
    text = (
        f"Repeat: each block gets the output of the one before, so that must be like its input; a block got "
        f"{describe(before)} and gave {describe(after)}"
    )
    if structure != other:
        raise TypeError(text)
    if any(jnp.shape(a) != jnp.shape(b) for a, b in zip(old, new, strict=True)):
        raise ShapeMismatchError(f"{text}. Put a layer that changes the shape before or after the Repeat.")
    if any(getattr(a, "dtype", None) != getattr(b, "dtype", None) for a, b in zip(old, new, strict=True)):
        raise TypeError(f"{text}. Convert it with .astype.")
