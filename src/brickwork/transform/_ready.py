"""A program bound to the variables of one set of arguments: gathering, running, writing back."""

from __future__ import annotations

import itertools
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import jax

from .._onednn import lowering
from ..core import Parameter, Structure, Variable, random_stream
from ..core._epoch import EPOCH, bump
from ..core._frame import UPDATE_LOCK, leak, outside
from ..core._jax import Tracer
from ..core._parameter import Slot
from ..core._places import lies_on, settled, undivided
from ..core._variable import LENDS, UPDATER
from ..errors import DeviceMismatchError
from ._program import ARRAY, Program
from ._signature import ARRAY_TYPE
from ._speculate import Uncompiled

_ATTEMPTS = 20
_set_value = Variable.__dict__["_value"].__set__


class _Probe:
    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value = object()


def _holders(box: Any) -> int:
    value = box._value
    return sys.getrefcount(value)


_ALONE = _holders(_Probe())
"""The reference count of an array that only its variable holds, as :func:`_holders` sees it."""


class Ready:
    """A program together with the variables of one set of arguments: all that a call needs."""

    __slots__ = (
        "bound",
        "cleared",
        "draws",
        "epoch",
        "jitted",
        "lends",
        "near",
        "onednn",
        "overwritten",
        "place",
        "program",
        "read_only",
        "watch",
        "written",
    )

    def __init__(self, program: Program, boxes: Structure, dispose: Callable[[Any], None]) -> None:
        self.program = program
        self.jitted = program.jitted
        self.onednn = program.onednn

        def resolve(sources: list[Any]) -> list[Any]:
            return [boxes.variables[s] if isinstance(s, int) else s for s in sources]

        self.read_only = resolve(program.read_only)
        self.overwritten = resolve(program.overwritten)
        self.written = resolve(program.written)
        self.cleared = resolve(program.cleared)
        modules = [m for m in (r() for r in program.modules) if m is not None]
        self.watch = [weakref.ref(m, dispose) for m in (*modules, *boxes.modules)]
        for module in boxes.modules:
            module._bw.watched = True
        stream = random_stream()
        self.draws = any(v is stream for v in (*self.read_only, *self.overwritten))
        self.place: Any = None  # where the parameters are
        self.bound = False  # whether they were put there
        self.near: dict[int, Any] = {}  # shardings of inputs that have been found to be there too
        self.lends: object = None
        self.epoch: object = EPOCH[0]

    def run(self, arrays: list[Any]) -> Any:
        """Call the program and write its results back."""
        if not self.onednn:
            return self._run(arrays)
        with lowering(True):  # for arrays that lie elsewhere, JAX compiles the program once more
            return self._run(arrays)

    def _run(self, arrays: list[Any]) -> Any:
        if self.place is not None:
            for array in arrays:  # JAX would copy one from elsewhere silently, at every call
                if type(array) is ARRAY_TYPE[0] and id(array.sharding) not in self.near:
                    self._approach(array, arrays)
        if self.program.path:
            out = self._speculate(arrays)
        elif not self.written and not self.cleared:
            out = self._read(arrays)[0]
        elif self.program.cautious:  # its callbacks may want the lock, and nothing is overwritten
            out = self._update(arrays)
        else:
            with UPDATE_LOCK:
                UPDATER[0] = threading.get_ident()
                out = self._update(arrays)
        return out if self.program.out_tree is None else self.rebuild(out)

    def _speculate(self, arrays: list[Any]) -> Any:
        """Run a program that assumes a path through the function; keep its results only if it was the right one.

        Raises:
            Mispredicted: it was another path. Nothing has been written or overwritten.
            Uncompiled: the function runs as it is from now on.
        """
        if self.program.eager:
            raise Uncompiled
        try:
            return self._try(arrays)
        except FloatingPointError:  # by jax_debug_nans; perhaps only because the path was wrong
            raise Uncompiled from None

    def _try(self, arrays: list[Any]) -> Any:
        if not self.written and not self.cleared:
            out, _, seen = self._read(arrays)
            self.program.path.verify(seen)
            return out
        with UPDATE_LOCK:
            if self.draws:
                self._bring_stream()
            out, writes, seen = self.jitted([v._value for v in self.read_only], [], arrays)
            self.program.path.verify(seen)
            self._store(out, writes)
        return out

    def _update(self, arrays: list[Any]) -> Any:
        if LENDS[0] is not self.lends:
            self.protect()
        if self.draws:
            self._bring_stream()
        done: list[Any] = []
        try:
            # The call and keeping its result are one step of C, so that an interrupt (Ctrl-C) can't fall between
            # them, when the old arrays are gone already. What it did is stored in any case.
            inputs = [v._value for v in self.read_only], [v._value for v in self.overwritten], arrays
            done.extend(itertools.starmap(self.jitted, (inputs,)))
        finally:
            if done:
                self._store(*done[0])
        return done[0][0]

    def _store(self, out: Any, writes: list[Any]) -> None:
        if writes and type(writes[0]) is not ARRAY_TYPE[0]:
            self.check(writes)
        program = self.program
        if program.cautious:
            jax.block_until_ready((out, writes))  # an error in a callback shows now, before anything changes
        deque(map(_set_value, self.written, writes), maxlen=0)  # a loop that can't be interrupted
        for variable in self.cleared:
            variable._value = None
        if program.reshapes:
            for variable in self.written:
                if not isinstance(variable, Slot):
                    variable._shape, variable._dtype = variable._value.shape, variable._value.dtype
            bump()

    def _read(self, arrays: list[Any]) -> Any:
        for _ in range(_ATTEMPTS):
            values = [v._value for v in self.read_only]
            try:
                return self.jitted(values, [], arrays)
            except (RuntimeError, ValueError):
                # Another thread may have overwritten one of them between the two lines above.
                leaves = jax.tree_util.tree_leaves(values)
                if not any(x.is_deleted() for x in leaves if isinstance(x, jax.Array)):
                    raise
        with UPDATE_LOCK:
            return self.jitted([v._value for v in self.read_only], [], arrays)

    def _bring_stream(self) -> None:
        """Take the random stream to where the parameters are: the last to use it may have been elsewhere."""
        stream, target = random_stream(), self.place
        if target is None or not stream._value.committed:
            return
        if target.device_set != stream._value.sharding.device_set:
            # Where no parameter was put anywhere they go anywhere, to a mesh for example, and so must the stream.
            given = (stream._value, undivided(target)) if self.bound else (stream.__array__(),)
            stream._value = jax.device_put(*given)

    def look_at_devices(self, arrays: list[Any]) -> None:
        """Note where the parameters are, and refuse parameters or inputs on several devices."""
        inputs = [v for v in (*self.read_only, *self.overwritten) if v is not random_stream()]
        held = [v.concrete() for v in inputs if isinstance(v, Parameter)]
        others = jax.tree_util.tree_leaves([v.concrete() for v in inputs if not isinstance(v, Parameter)])
        # Of parameters and buffers on one and on several devices, those on several decide.
        places = (x.sharding for x in (*held, *others))
        self.place = max(places, key=lambda place: len(place.device_set)) if held else None
        self.bound = any(x.committed for x in held)
        self.near = {}
        given = [a for a in arrays if isinstance(a, jax.Array)]
        if held and not all(lies_on(x, self.place.device_set) for x in (*held, *given)):
            raise self.mismatch(arrays)
        spread = isinstance(getattr(self.place, "mesh", None), jax.sharding.Mesh)
        home = self.place if self.bound or spread else next((a.sharding for a in given if a.committed), None)
        if not held or home is None:
            return
        # What is somewhere by default only and will be written goes along now, the optimiser's state, say: it will be
        # there after this call, and for that JAX would compile once more. On a mesh so does what is read, or it would
        # be copied there at every call.
        for variable in (*self.written, *((*self.read_only, *self.overwritten) if spread else ())):
            variable._value = settled(variable._value, home)

    def _approach(self, array: jax.Array, arrays: list[Any]) -> None:
        if not lies_on(array, self.place.device_set):
            raise self.mismatch(arrays)
        if len(self.near) > 64:
            self.near.clear()
        self.near[id(array.sharding)] = array.sharding

    def mismatch(self, arrays: list[Any]) -> DeviceMismatchError:
        """The error for operands on different devices, which says what is where."""
        where: dict[frozenset[Any], str] = {}
        for variable in (*self.read_only, *self.overwritten):
            for value in jax.tree_util.tree_leaves(variable._value):
                where.setdefault(frozenset(value.sharding.device_set), repr(variable.name or "a variable"))
        for i, array in enumerate(arrays):
            if isinstance(array, jax.Array):
                where.setdefault(frozenset(array.sharding.device_set), f"array argument {i}")
        ordered = [(what, sorted(devices, key=lambda d: d.id)) for devices, what in where.items()]
        parts = ", ".join(f"{what} is on {', '.join(map(str, devices))}" for what, devices in ordered)
        return DeviceMismatchError(
            f"{self.program.name}: operands are on different devices: {parts}. Move the network with "
            "net.to(device) or the input with bw.to(x, device); copies are never made silently."
        )

    def check(self, writes: list[Any]) -> None:
        """Refuse to store tracers: the function was called inside a raw JAX transform."""
        for variable, value in zip(self.written, writes, strict=True):
            if any(isinstance(x, Tracer) for x in jax.tree_util.tree_leaves(value)):
                raise leak(variable, "a compiled function that a raw JAX transform called")

    def protect(self) -> None:
        """Copy the arrays about to be overwritten that someone else may hold, so that theirs survive."""
        token = LENDS[0]
        for variable in self.overwritten:
            if variable._lent or _holders(variable) > _ALONE:
                with outside():
                    variable._value = jax.tree_util.tree_map(_copy, variable._value)
                variable._lent = False
        self.lends = token

    def rebuild(self, arrays: list[Any]) -> Any:
        """A result that has more than arrays in it."""
        given = iter(arrays)
        leaves = [next(given) if s is ARRAY else s for s in self.program.out_static]
        return jax.tree_util.tree_unflatten(self.program.out_tree, leaves)

    def compile(self, arrays: list[Any]) -> None:
        """Compile the program for the present values."""
        if self.draws:
            self._bring_stream()
        self.program.compile([v._value for v in self.read_only], [v._value for v in self.overwritten], arrays)


def _copy(array: jax.Array) -> jax.Array:
    # Unlike jnp.copy this compiles nothing, and without a device it keeps the array's placement.
    return jax.device_put(array, may_alias=False)
