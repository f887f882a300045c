"""Equal layers in a row as one loop, inside a program.

Tracing and compiling a network takes longer the deeper it is, and a loop takes the time of one layer. So where a
``Sequential`` has equal layers in a row, a compiled function runs them as a loop over their variables, stacked for
the purpose. Stacking copies the variables at each call and is itself compiled, and a gradient has to be taken apart
again, so it is done only where it was measured to pay: see :func:`pays`. ``nn.Repeat`` keeps its variables stacked
and pays none of that.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from ..core import ModuleBase, Structure, Variable
from ..core._deferred import is_box
from ..core._frame import TrialFrame
from ..core._jax import current_trace, is_differentiated, passing
from ..errors import StructureError
from ._lift import Lanes, Split
from ._loops import scan_lanes
from ._stack import columns

FEWEST = 4
"""A shorter row is not even looked at."""

_FROM = 24  # layers
_MOST_BYTES = 16 * 2**20  # of variables, copied at each call


def pays(table: Sequence[tuple[Variable, ...]]) -> bool:
    """Whether a loop over layers with these variables, one tuple for each place, is better than writing them out.

    By the figures of ``benchmarks/fold.py``: with a gradient, taking it apart again costs more to compile than the
    layers themselves; without, the loop wins from about two dozen layers on, while copying their variables is
    little against computing with them.
    """
    if not table or len(table[0]) < _FROM:
        return False
    values = [v.value for column in table for v in column]
    size = sum(x.size * x.dtype.itemsize for x in values)
    return size <= _MOST_BYTES and not any(is_differentiated(x) for x in values)


def runs(layers: Sequence[Any]) -> list[tuple[int, int]]:
    """Where equal layers stand in a row: ``(first, last + 1)`` for each such row that is long enough for a loop."""
    found = []
    start = 0
    encodings = [_encoding(layer) for layer in layers]
    for i in range(1, len(layers) + 1):
        if i < len(layers) and encodings[start] is not None and encodings[i] == encodings[start]:
            continue
        if i - start >= FEWEST and encodings[start] is not None:
            found.append((start, i))
        start = i
    return found


def _encoding(layer: Any) -> Any:
    """What is the same for layers that one loop can run; ``None`` for what can't be in one."""
    if not isinstance(layer, ModuleBase):
        return None
    structure = Structure([layer], by_meaning=True)
    if any(m._bw.hooks or m._bw.pre_hooks for m in structure.modules):
        return None  # a hook wants to see the layer itself
    if not structure.variables or any(not v.is_drawn or v.stacked for v in structure.variables):
        return None
    return structure.encoding, tuple((v.shape, v.dtype) for v in structure.variables)


def fold(layers: Sequence[Any], x: Any) -> Any:
    """Apply equal layers in turn, as one loop; ``NotImplemented`` where that can't be done."""
    try:
        table = columns([Structure([layer]).variables for layer in layers])
    except StructureError:  # some of them share a variable
        return NotImplemented
    first, own = layers[0], [column for column in table if len(column) > 1]
    if not pays(own) or not _keeps_form(first, x):
        return NotImplemented
    lanes = Lanes.across(own)
    return scan_lanes("Sequential", lambda h, _: (first(h), None), x, Split(None), lanes, len(layers))[0]


def _keeps_form(layer: Any, x: Any) -> bool:
    """Whether a layer's output has the structure, shapes and dtypes of its input, and nothing else comes of a call."""

    def call(arrays: list[Any]) -> Any:
        with passing(outer), TrialFrame():
            out = twin(given.fill(arrays))
        if isinstance(out, Iterator):
            raise TypeError("no nest of arrays")
        return out

    if isinstance(x, Iterator):
        return False
    given, outer = Split(x, unbox=True), current_trace()
    if given.boxes:
        return False
    try:
        # The same variables, but attributes of its own: a layer that sets some when it is called is none for a loop.
        twin = copy.deepcopy(layer, {id(v): v for v in layer.variables()})
        modules = twin.modules()
        versions = [m._bw.version for m in modules]
        out = jax.eval_shape(call, given.arrays)
    except Exception:  # it can't be copied, gives no nest of arrays, decides by values; or fails, and is to say where
        return False
    if versions != [m._bw.version for m in modules]:
        return False
    before = jax.tree_util.tree_map(_form, given.fill(given.arrays), is_leaf=is_box)
    return jax.tree_util.tree_structure(out) == jax.tree_util.tree_structure(before) and (
        jax.tree_util.tree_leaves(jax.tree_util.tree_map(_form, out)) == jax.tree_util.tree_leaves(before)
    )


def _form(x: Any) -> Any:
    return jax.ShapeDtypeStruct(x.shape, x.dtype) if hasattr(x, "dtype") else x
