"""What a call of a compiled function would do."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import jax

from .._onednn import TARGET as ONEDNN
from ..core import ModuleBase, Parameter, Variable, random_stream
from ..core._frame import local
from ..memory import would_be_kept
from ._guards import Guards
from ._program import alive
from ._ready import Ready
from ._recompile import lower_as_called, tentative
from ._record import Record
from ._signature import Signature, array_key, learn_array_type, parameter_names, quick_key, show
from ._stats import Figures, count, scaled


@dataclass(frozen=True)
class VariableUse:
    """What a program does with one variable.

    ``name`` is its path from the module through which it is reached. ``owner`` says how the function reaches
    the module: ``"argument 'net'"``, ``"global 'opt'"``, ``"captured variable 'net'"``. A variable outside
    of modules has no owner, and this as its name. ``bytes`` is the size of its value.
    """

    name: str
    owner: str
    kind: str
    shape: tuple[int, ...] | None
    dtype: Any
    bytes: int
    read: bool
    written: bool
    donated: bool

    def __str__(self) -> str:
        what = "-" if self.shape is None else show((self.shape, self.dtype, False))
        marks = ("read", self.read), ("written", self.written), ("donated", self.donated)
        return f"{self.name}: {self.kind} {what} {'+'.join(word for word, true in marks if true)}"


@dataclass(frozen=True)
class Explanation:
    """What a call of a compiled function with particular arguments does; made by ``step.explain(...)``.

    Attributes:
        function: its name.
        variables: what is read or written, one :class:`VariableUse` each; ``read``, ``written`` and
            ``donated`` are the names of those.
        traced: the array arguments, by name, as ``jax.ShapeDtypeStruct``.
        static: the arguments that are part of the program, by name.
        modules: the modules and variables among the arguments: name and class.
        predicates: what is assumed of conditions on values, ``(file, line, value)`` each. Which path a call
            takes shows when it runs; this is the one of the program that would be tried first.
        eager: whether the function runs as it is, because its control flow can't be compiled. Then there is
            no program, and there are no figures.
        compiles: whether a call would have had to compile. It won't any more.
        cause: why, if so: what differs from the program before.
        programs: how many are kept for the function.
        flops, bytes_accessed, argument_bytes, result_bytes, temp_bytes, donated_bytes, peak_memory: XLA's
            figures, for one device; ``None`` where it has none. ``peak_memory`` is arguments (variables
            included), results and temporaries, less the results that overwrite arguments.
        onednn: how many products and convolutions oneDNN computes (``bw.compile(onednn=True)``); their work is not
            among the ``flops``.
        hlo: the text of the optimised program, with ``hlo=True``.

    ``str()`` gives a page to read.
    """

    function: str
    variables: tuple[VariableUse, ...]
    traced: dict[str, jax.ShapeDtypeStruct]
    static: dict[str, Any]
    modules: dict[str, str]
    predicates: tuple[tuple[str, int, Any], ...]
    eager: bool
    compiles: bool
    cause: str | None
    programs: int
    flops: float | None
    bytes_accessed: float | None
    argument_bytes: int | None
    result_bytes: int | None
    temp_bytes: int | None
    donated_bytes: int | None
    peak_memory: int | None
    onednn: int
    hlo: str | None

    @property
    def read(self) -> tuple[str, ...]:
        """The names of the variables whose values are inputs of the program."""
        return tuple(v.name for v in self.variables if v.read)

    @property
    def written(self) -> tuple[str, ...]:
        """The names of the variables that a call gives new values."""
        return tuple(v.name for v in self.variables if v.written)

    @property
    def donated(self) -> tuple[str, ...]:
        """The names of the variables whose old arrays are overwritten by the new ones."""
        return tuple(v.name for v in self.variables if v.donated)

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def _lines(e: Explanation) -> Iterable[str]:
    what = "would run without being compiled" if e.eager else "would run at once"
    yield f"{e.function} " + (f"would compile ({e.cause})" if e.compiles and not e.eager else what)
    yield f"  programs kept: {e.programs}"
    groups = (
        ("traced arguments", [f"{n}: {show((s.shape, s.dtype, s.weak_type))}" for n, s in e.traced.items()]),
        ("static arguments", [f"{n}: {value!r:.60}" for n, value in e.static.items()]),
        ("modules among the arguments", [f"{n}: {kind}" for n, kind in e.modules.items()]),
        ("assumed", [f"{file}:{line} is {value!r}" for file, line, value in e.predicates]),
    )
    for title, lines in groups:
        if lines:
            yield f"  {title}:"
            yield from (f"    {line}" for line in lines)
    used = e.variables
    yield f"  variables: {len(e.read)} read, {len(e.written)} written, {len(e.donated)} donated" + ":" * bool(used)
    for owner in dict.fromkeys(v.owner for v in used):
        if owner:
            yield f"    of {owner}:"
        yield from (f"    {'  ' * bool(owner)}{v}" for v in used if v.owner == owner)
    if e.flops is not None:
        yield f"  work: {scaled(e.flops)}FLOPs, {scaled(e.bytes_accessed)}B accessed"
    if e.onednn:
        yield f"  besides: {count(e.onednn, 'call')} of oneDNN"
    if e.peak_memory is not None:
        yield (
            f"  memory: {scaled(e.peak_memory)}B at most = {scaled(e.argument_bytes)}B of arguments + "
            f"{scaled(e.result_bytes)}B of results + {scaled(e.temp_bytes)}B of temporaries - "
            f"{scaled(e.donated_bytes)}B donated"
        )
        if would_be_kept(e.temp_bytes or 0):
            yield "    (cleared anew at each call; bw.keep_memory() at the start of the script keeps the temporaries)"
    if e.hlo is not None:
        yield ""
        yield e.hlo


def explain(
    record: Record,
    lock: AbstractContextManager[Any],
    prepare: Callable[[Any, Signature], Ready],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    hlo: bool | None,
) -> Explanation:
    """What a call of a compiled function would do; see :meth:`brickwork.Compiled.explain`."""
    if hlo is not None:
        _require_own_hlo(record, args)
    signature = Signature(args, kwargs)
    if local.context.frame is not None or signature.traced:
        raise RuntimeError(
            f"{record.name}.explain: called inside another transform, where the function is a part of what that "
            "one traces and has no program of its own; explain the outermost compiled function instead"
        )
    with lock, tentative():
        before = record.compilations
        ready = prepare(_key(record, signature, args, kwargs), signature)
        if record.last is None:
            record.last = ready.program  # what a later cause is relative to
        program = ready.program
        why = program.cause if record.compilations > before else None
        executable, placement = (None, None) if program.eager else lower_as_called(record, ready, signature)
        compiles = record.compilations > before
    figures = Figures.of(executable)
    text = executable.as_text() if executable is not None and (hlo or ready.onednn) else None
    names = signature.paths(record.fn)
    given = list(zip(names, signature.kinds, signature.leaves, strict=True))
    return Explanation(
        function=record.name,
        variables=_uses(ready, [(n, x) for n, kind, x in given if kind == "box"]),
        traced={n: _spec(x) for n, kind, x in given if kind == "array"},
        static={n: x for n, kind, x in given if kind == "static"},
        modules={n: type(x).__name__ for n, kind, x in given if kind == "box"},
        predicates=() if program.eager else tuple((d.file, d.line, d.answer) for d in program.path.decisions),
        eager=program.eager,
        compiles=compiles,
        cause=why or placement,
        programs=len(record.made),
        flops=figures.flops,
        bytes_accessed=figures.bytes_accessed,
        argument_bytes=figures.argument_bytes,
        result_bytes=figures.result_bytes,
        temp_bytes=figures.temp_bytes,
        donated_bytes=figures.donated_bytes,
        peak_memory=figures.peak_memory,
        onednn=text.count(ONEDNN) if text is not None and ready.onednn else 0,
        hlo=text if hlo else None,
    )


def _require_own_hlo(record: Record, args: tuple[Any, ...]) -> None:
    """Refuse the keyword ``hlo`` where it may be meant for the function, which has a parameter of that name."""
    fn = record.fn
    try:
        parameters = inspect.signature(fn.forward if isinstance(fn, ModuleBase) else fn).parameters
    except (TypeError, ValueError):
        return
    found = parameters.get("hlo")
    if found is None or found.kind in (found.POSITIONAL_ONLY, found.VAR_POSITIONAL, found.VAR_KEYWORD):
        return
    names = parameter_names(fn)
    if "hlo" in names[: len(args)]:
        return  # the function has its own already
    fix = "pass that by position" if "hlo" in names else "rename it, or let the function take it by position"
    raise TypeError(
        f"{record.name}.explain: hlo= asks for the text of the program, but the function has a parameter of that "
        f"name too; {fix}, and hlo=True besides for the text"
    )


def _key(record: Record, signature: Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The key under which a call looks for its program."""
    learn_array_type()
    quick = None if kwargs else quick_key(args)
    if quick is not None:
        return quick[0]
    try:
        hash(signature.key)
    except TypeError:
        signature.check_static(record.fn)
        raise
    return signature.key, tuple(id(b) for b in signature.boxes)


def _spec(array: Any) -> jax.ShapeDtypeStruct:
    shape, dtype, weak = array_key(array)
    return jax.ShapeDtypeStruct(shape, dtype, weak_type=weak)


def _uses(ready: Ready, boxes: list[tuple[str, Any]]) -> tuple[VariableUse, ...]:
    """What a program does with each variable, in the order in which the variables are defined."""
    read = {id(v) for v in (*ready.read_only, *ready.overwritten)}
    written = {id(v) for v in (*ready.written, *ready.cleared)}
    donated = {id(v) for v in ready.overwritten}
    labels = _labels(ready, boxes)
    used = {id(v): v for v in (*ready.read_only, *ready.overwritten, *ready.written, *ready.cleared)}
    order = {number: i for i, number in enumerate(labels)}
    uses = []
    for number, variable in sorted(used.items(), key=lambda item: order.get(item[0], len(order))):
        owner, name = labels.get(number, ("", variable.name or f"a {type(variable).__name__}"))
        value = variable._value
        plain = isinstance(value, jax.Array)
        uses.append(
            VariableUse(
                name=name,
                owner=owner,
                kind=type(variable).__name__,
                shape=value.shape if plain else None,
                dtype=value.dtype if plain else None,
                bytes=sum(x.nbytes for x in jax.tree_util.tree_leaves(value)),
                read=number in read,
                written=number in written,
                donated=number in donated,
            )
        )
    return tuple(uses)


def _labels(ready: Ready, boxes: list[tuple[str, Any]]) -> dict[int, tuple[str, str]]:
    """For each variable that the program can reach: by what the function reaches it, and its path from there."""
    program = ready.program
    captured = _captured(program.guards)
    labels: dict[int, tuple[str, str]] = {}

    def add(variable: Variable, owner: str, path: str) -> None:
        labels.setdefault(id(variable), (owner, path))
        if isinstance(variable, Parameter) and variable._grad is not None:
            labels.setdefault(id(variable._grad), (owner, f"{path}.grad"))

    roots = [(captured.get(id(root), type(root).__name__), root) for root in alive(program.roots) or ()]
    for owner, box in (*((f"argument {name!r}", box) for name, box in boxes), *roots):
        box = getattr(box, "__brickwork_module__", box)
        if isinstance(box, ModuleBase):
            for path, variable in box.named_variables():
                add(variable, owner, path)
        else:
            add(box, "", owner)
    for variable in (*ready.read_only, *ready.overwritten, *ready.written, *ready.cleared):
        if id(variable) in captured and not variable.name:
            add(variable, "", captured[id(variable)])
    labels.setdefault(id(random_stream()), ("", "the random stream"))
    return labels


def _captured(guards: Guards) -> dict[int, str]:
    """By which name a function captures a module or a variable."""
    found: dict[int, str] = {}
    todo = [memory for _, _, memory in guards.guards]
    for memory in todo:
        todo += [inner for _, inner in memory.inside]
        if isinstance(memory.known, weakref.ref):
            found.setdefault(id(memory.known()), memory.label)
    return found
