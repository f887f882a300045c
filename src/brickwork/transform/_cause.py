"""In words, why none of the programs that a function has fits a call."""

from __future__ import annotations

from typing import Any, Self

import jax

from ..core import Structure, Variable
from ..core._jax import trace_config
from ._program import Program, alive, aval_of, identities
from ._ready import Ready
from ._record import Record, Remains
from ._signature import Signature, difference, show

_NUMBERS = "pass numbers that change as arrays (jnp.asarray) or keep them in a Buffer."
_FIXED = "Keep it fixed: pad or drop a last, smaller batch; " + _NUMBERS
_REBOUND = "Keep it fixed, or pass it as an argument; " + _NUMBERS
_OTHER_MODULE = "Keep numbers that change in a Buffer; call it before with each kind of module that it will meet."
_CHANGED = "Keep numbers that change in a Buffer; make other changes to modules first, and call it once after them."
_SETTING = "Set it once, before the first call."


class Cause(str):
    """In words, why a function is compiled anew, and what to do about it."""

    advice: str

    def __new__(cls, text: str, advice: str = "") -> Self:
        self = super().__new__(cls, text)
        self.advice = advice
        return self

    @property
    def avoidable(self) -> bool:
        """Whether all that may come can be tried beforehand."""
        return self.advice in (_FIXED, _REBOUND)


NEVER = Cause("it was never compiled")


def cause(record: Record, signature: Signature, boxes: Structure) -> Cause:
    """What differs between the program that a function used last and the one that a call needs."""
    old = record.last or record.past
    if old is None:
        return NEVER
    causes = (
        (lambda: difference(record.fn, old.footprint, signature), _FIXED),
        (lambda: _argument_difference(record, old, signature, boxes), _OTHER_MODULE),
        (lambda: "a changed setting of JAX" if old.config != trace_config() else None, _SETTING),
        (old.guards.changed, _REBOUND),
        (lambda: _outside_difference(old), _CHANGED),
        (lambda: _aval_difference(old, boxes) if isinstance(old, Program) else None, _CHANGED),
    )
    found = ((look(), advice) for look, advice in causes)
    text, advice = next(
        ((text, advice) for text, advice in found if text),
        ("an argument that it also reaches from outside, or no longer does", _CHANGED),
    )
    return Cause(text, advice)


def _argument_difference(record: Record, old: Program | Remains, signature: Signature, boxes: Structure) -> str | None:
    """How the modules among the arguments differ."""
    if old.arguments == boxes.encoding:
        return None
    names = [n for n, kind in zip(signature.paths(record.fn), signature.kinds, strict=True) if kind == "box"]
    for name, a, b in zip(names, old.arguments.code, boxes.encoding.code, strict=True):
        if a != b:
            return f"argument {name!r}: {first_difference(a, b, '')}"
    return None


def _outside_difference(old: Program | Remains) -> str | None:
    """How the modules that the function reaches otherwise differ now from when it was traced."""
    roots = alive(old.roots)
    if roots is None:
        return "a module that it was compiled for and that is gone"
    now = Structure(roots)
    for root, a, b in zip(roots, old.encoding.code, now.encoding.code, strict=True):
        if a != b:
            return f"a change in {type(root).__name__}: {first_difference(a, b, '')}"
    before = [module() for module in old.modules]  # one that is gone may have left its identity to its successor
    same = [a is b for a, b in zip(before, now.modules, strict=True)]
    same += [a == b for a, b in zip(old.identities, identities(now), strict=True)][len(same) :]
    for item, unchanged in zip((*now.modules, *now.variables), same, strict=True):
        if not unchanged:
            paths = {id(x): path for root in roots for path, x in (*root.named_modules(), *root.named_variables())}
            return f"another {type(item).__name__} in the place of {paths.get(id(item), '')!r}"
    return None


def _aval_difference(old: Program, boxes: Structure) -> str | None:
    """Which variable has another shape or dtype."""
    for variable, before in zip(old.inputs(boxes), old.avals, strict=True):
        after = aval_of(variable)
        if before != after:
            name = variable.name or f"a {type(variable).__name__}"
            return f"{name}: {_show_aval(before)} became {_show_aval(after)}"
    return None


def _show_aval(aval: tuple[Any, ...]) -> str:
    if isinstance(aval[0], jax.tree_util.PyTreeDef):
        return "[" + ", ".join(_show_aval(x) for x in aval[1]) + "]"
    if isinstance(aval[0], str):
        return f"{aval[0]} {aval[1]}"
    return show((*aval, False))


def first_difference(old: Any, new: Any, path: str) -> str:
    """Where two encodings of one module, variable or value differ first, and how: ``layers.0.rate: 0.1 became 0.2``.

    Args:
        old, new: two that differ; see :class:`brickwork.core.Structure`.
        path: where they are.
    """
    place = f"{path}: " if path else ""
    if not (isinstance(old, tuple) and isinstance(new, tuple)) or old[0] != new[0]:
        return f"{place}{_show_item(old)} became {_show_item(new)}"
    kind = old[0]
    if kind == "list" or kind == "tuple":
        before, after = list(enumerate(old[-1])), list(enumerate(new[-1]))
        if len(before) != len(after):
            return f"{place}{len(before)} items became {len(after)}"
    elif kind == "dict":
        before, after = ([(key.value, item) for key, item in code[1]] for code in (old, new))
    elif kind in ("seen module", "seen variable"):
        return f"{place}another tie"
    elif issubclass(kind, Variable):
        before, after = list(old[1:]), list(new[1:])
    else:
        before, after = list(old[1]), list(new[1])
    names, new_names = [name for name, _ in before], [name for name, _ in after]
    for name, item in before:
        found = [x for n, x in after if n == name]
        if found and found[0] != item:
            nameless = name == getattr(kind, "_bw_nameless", None)
            return first_difference(item, found[0], path if nameless else f"{path}.{name}" if path else str(name))
    gone = [str(n) for n in names if n not in new_names]
    come = [str(n) for n in new_names if n not in names]
    if gone or come:
        parts = [f"without {', '.join(gone)}"] * bool(gone) + [f"with {', '.join(come)}"] * bool(come)
        return f"{place}now {' and '.join(parts)}"
    return f"{place}{'another order' if names != new_names else 'other hooks'}"


def _show_item(code: Any) -> str:
    if isinstance(code, tuple):
        return code[0] if isinstance(code[0], str) else code[0].__name__
    return f"{code!r:.40}"


def placement_cause(record: Record, ready: Ready, signature: Signature) -> Cause:
    """Why JAX compiles a program anew that was traced already."""
    named = [(v.name or f"a {type(v).__name__}", v.concrete()) for v in (*ready.read_only, *ready.overwritten)]
    paths = zip(signature.paths(record.fn), signature.kinds, strict=True)
    names = [f"argument {name!r}" for name, kind in paths if kind == "array"]
    named += zip(names, signature.arrays, strict=True)
    moved = _moved(ready.program, named)
    if moved is None and not ready.program.frozen:
        return Cause("jax.clear_caches(), which dropped what was compiled", "Call the function once after that.")
    return Cause(
        moved or _committed(named),
        "Place inputs in the same way each time, for example with bw.to, or call the function before with both.",
    )


def _moved(program: Program, named: list[tuple[str, Any]]) -> str | None:
    """The first input that is not where the program was compiled for, and both places."""
    groups = program.executable.input_shardings[0] if program.executable is not None else ()
    places = [place for group in groups for place in group]
    for (name, value), place in zip(named, places, strict=False):
        leaves = jax.tree_util.tree_leaves(value)
        for x, s in zip(leaves, jax.tree_util.tree_leaves(place), strict=False):
            if isinstance(x, jax.Array) and x.committed and not x.sharding.is_equivalent_to(s, x.ndim):
                return f"{name}: {_show_place(s)} became {_show_place(x.sharding)}"
    return None


def _committed(named: list[tuple[str, Any]]) -> str:
    """Which inputs are bound to a device; compared to others they may be so for the first time, or no more."""
    leaves = [(name, x) for name, value in named for x in jax.tree_util.tree_leaves(value)]
    found = [name for name, x in leaves if isinstance(x, jax.Array) and x.committed]
    if not found:
        return "inputs that are not committed to a device any more"
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return (
        f"{found[0]}{more}, committed to a device (by jax.device_put with one, or computed from such an array) where "
        "inputs before were not, or the reverse"
    )


def _show_place(sharding: Any) -> str:
    """A sharding in words: the device, or how it is laid out over several."""
    devices = sharding.device_set
    if len(devices) == 1:
        return str(next(iter(devices)))
    spec = getattr(sharding, "spec", None)
    return f"{spec if spec is not None else type(sharding).__name__} over {len(devices)} devices"
