"""Lists and dicts as module attributes: plain in behaviour, but every change is seen."""

from __future__ import annotations

import functools
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

from ..errors import StructureError, TraceLeakError
from ._frame import expected_stamp, local
from ._functions import duplicate, portable
from ._jax import Tracer, trace_state
from ._variable import Variable


class Node:
    """Anything that can hold variables: what modules and tracked containers have in common."""

    __slots__ = ()
    _bw_holders: tuple[weakref.ref[Node], ...]  # who has this as an attribute or item, first come first
    _bw_nameless: ClassVar[str | None] = None  # the attribute whose own name adds nothing to those of what it holds

    def edges(self) -> Iterable[tuple[str, Any]]:
        """The names and values of what is held, in order."""
        raise TypeError(f"{type(self).__name__} must define edges()")

    def name_of(self, item: Any) -> str | None:
        """The name under which ``item`` itself is held; ``None`` when it isn't (any more)."""
        if self._bw_nameless is not None and item is getattr(self, self._bw_nameless, None):
            return ""
        for name, value in self.edges():
            if value is item:
                return name
            if isinstance(value, tuple):
                for inner, x in _tuple_items(name, value):
                    if x is item:
                        return inner
        return None

    def touched(self) -> None:
        """Called after what is held has changed."""


class _Tracked(Node):
    """The part that lists and dicts share: who holds them, and telling those of changes."""

    __slots__ = ()
    _bw_holders: tuple[weakref.ref[Node], ...] = ()

    def touched(self) -> None:
        for reference in self._bw_holders:
            holder = reference()
            if holder is not None:
                holder.touched()

    def _put_back(self, before: Any) -> None:
        """Hold again what was held before."""
        raise TypeError(f"{type(self).__name__} must define _put_back()")

    def _put_back_later(self) -> None:
        """Have what is held now held again, should what is being traced fail."""
        context = local.context
        if context.owned and context.undo is not None and not _is_new(self):
            context.undo.append(functools.partial(self._put_back, self.copy()))  # type: ignore[attr-defined]

    def _take(self, item: Any, key: Any) -> Any:
        item = tracked(item, f"[{key!r}]", holder=self)
        hold(self, item)
        return item


class TrackedList(list, _Tracked):
    """A list whose changes are seen by compiled functions. Behaves as ``list`` does."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        super().__init__()
        super().extend(self._take(x, i) for i, x in enumerate(items))

    def edges(self) -> Iterator[tuple[str, Any]]:
        for i, value in enumerate(self):
            yield str(i), value

    def __setitem__(self, index: Any, value: Any) -> None:
        self._put_back_later()
        if isinstance(index, slice):
            super().__setitem__(index, [self._take(v, index) for v in value])
        else:
            super().__setitem__(index, self._take(value, index))
        self.touched()

    def append(self, value: Any) -> None:
        self._put_back_later()
        super().append(self._take(value, len(self)))
        self.touched()

    def insert(self, index: Any, value: Any) -> None:
        self._put_back_later()
        super().insert(index, self._take(value, index))
        self.touched()

    def _put_back(self, before: Any) -> None:
        super().__setitem__(slice(None), before)
        self.touched()

    def extend(self, values: Iterable[Any]) -> None:
        self._put_back_later()
        super().extend([self._take(v, i) for i, v in enumerate(values, len(self))])
        self.touched()

    def __iadd__(self, values: Iterable[Any]) -> TrackedList:
        self.extend(values)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> TrackedList:
        new = TrackedList()
        memo[id(self)] = new
        new.extend(duplicate(x, memo) for x in self)
        return new

    def __reduce__(self) -> Any:
        return TrackedList, (), None, map(portable, self)


class TrackedDict(dict, _Tracked):
    """A dict whose changes are seen by compiled functions. Behaves as ``dict`` does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.update(*args, **kwargs)

    def edges(self) -> Iterator[tuple[str, Any]]:
        for key, value in self.items():
            yield str(key), value

    def __setitem__(self, key: Any, value: Any) -> None:
        value = self._take(value, key)
        if is_structure(value) and (not isinstance(key, (str, int)) or "." in str(key) or key == ""):
            raise StructureError(
                f"dict key {key!r} holds a {type(value).__name__}, so it becomes part of parameter names; "
                "use a non-empty string without dots, or an integer"
            )
        twin = _twin(key)
        if twin in self and is_structure(value) and is_structure(self[twin]):
            raise StructureError(
                f"dict keys {twin!r} and {key!r} would both give the name {str(key)!r} to what they hold, a "
                f"{type(self[twin]).__name__} and a {type(value).__name__}; rename one of them"
            )
        self._put_back_later()
        super().__setitem__(key, value)
        self.touched()

    def _put_back(self, before: Any) -> None:
        super().clear()
        super().update(before)
        self.touched()

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def __ior__(self, other: Any) -> TrackedDict:
        self.update(other)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> TrackedDict:
        new = TrackedDict()
        memo[id(self)] = new
        for key, value in self.items():
            new[key] = duplicate(value, memo)
        return new

    def __reduce__(self) -> Any:
        return TrackedDict, (), None, None, ((key, portable(value)) for key, value in self.items())


def _notify_after(base: type, name: str) -> Callable[..., Any]:
    method = getattr(base, name)

    def changed(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._put_back_later()
        result = method(self, *args, **kwargs)
        self.touched()
        return result

    changed.__name__, changed.__doc__ = name, method.__doc__
    return changed


for _name in ("__delitem__", "pop", "remove", "clear", "sort", "reverse", "__imul__"):
    setattr(TrackedList, _name, _notify_after(list, _name))
for _name in ("__delitem__", "pop", "popitem", "clear"):
    setattr(TrackedDict, _name, _notify_after(dict, _name))


def _tuple_items(name: str, value: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    for i, x in enumerate(value):
        inner = f"{name}.{i}" if name else str(i)
        yield inner, x
        if isinstance(x, tuple):
            yield from _tuple_items(inner, x)


def is_structure(value: Any) -> bool:
    """Whether a value is, or holds, modules or variables."""
    if isinstance(value, (Variable, Node)) and not isinstance(value, _Tracked):
        return True
    if isinstance(value, dict):
        return any(is_structure(v) for v in value.values())
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return any(is_structure(v) for v in value)
    return False


def _place(holder: Node | None, where: str) -> str:
    """Where something would be kept, in words: ``Net.cache['key']``."""
    while holder is not None and isinstance(holder, _Tracked) and holder._bw_holders:
        outer = holder._bw_holders[0]()
        name = None if outer is None else outer.name_of(holder)
        if outer is None or name is None:
            break
        if isinstance(outer, _Tracked):
            holder, where = outer, f"[{name!r}]{where}"
        else:
            return f"{type(outer).__name__}.{name}{where}"
    return where


def _twin(key: Any) -> Any:
    """The other key that gives the same name: ``1`` for ``"1"``, and the reverse."""
    if isinstance(key, str):
        return int(key) if key.removeprefix("-").isdecimal() and str(int(key)) == key else None
    return str(key) if isinstance(key, int) else None


def tracked(value: Any, where: str, *, traced: bool = False, holder: Node | None = None) -> Any:
    """The form in which a value is kept as an attribute or item: lists and dicts become tracked.

    ``traced`` allows tracers, for a holder that belongs to the running trace itself.

    Raises:
        TraceLeakError: the value is traced; keeping it would leak the tracer.
        StructureError: modules in a container that can't be tracked (a set, a ``defaultdict`` ...).
    """
    kind = type(value)
    if hasattr(kind, "__brickwork_module__"):  # a compiled module: what counts is the module
        value = value.__brickwork_module__
        kind = type(value)
    if kind is list:
        return TrackedList(value)
    if kind is dict:
        return TrackedDict(value)
    if isinstance(value, (Variable, Node)):
        if not traced and (holder is None or not _is_new(holder)):
            _refuse_traced(value, _place(holder, where))
        return value
    if isinstance(value, tuple):
        items = [tracked(v, f"{where}[{i}]", traced=traced, holder=holder) for i, v in enumerate(value)]
        if all(a is b for a, b in zip(items, value, strict=True)):
            return value
        return kind(*items) if hasattr(value, "_fields") else kind(items)
    if isinstance(value, Tracer) and not traced:
        raise TraceLeakError(
            f"a traced value ({value.aval}) would be kept in {_place(holder, where)}, where it outlives the trace. "
            "Make it a Buffer, `self.x = bw.Buffer(...)` in __init__, and write `self.x.value = ...`."
        )
    if isinstance(value, (list, dict, set, frozenset, deque)) and is_structure(value):
        raise StructureError(
            f"{where} is a {kind.__name__} that holds modules or parameters; their order and changes can't be "
            "followed. Use a plain list or dict."
        )
    return value


def _is_new(holder: Any) -> bool:
    """Whether a container belongs to nobody yet, or to a module that the running trace has made."""
    while isinstance(holder, _Tracked) and holder._bw_holders:
        holder = holder._bw_holders[0]()
    return holder is None or isinstance(holder, _Tracked) or made_here(holder._bw.trace)


def made_in_trace(item: Any) -> bool:
    """Whether a trace made a variable, or a module that has it as its own."""
    if isinstance(item, _Tracked) or (isinstance(item, Variable) and item._trace is None):
        holders = [reference() for reference in item._bw_holders]
        return any(made_in_trace(holder) for holder in holders if holder is not None)
    return (item._trace if isinstance(item, Variable) else item._bw.trace) is not None


def _refuse_traced(value: Any, place: str) -> None:
    """Refuse to keep a variable whose value is a tracer, or a module that holds one."""
    if isinstance(value, _Tracked) or (value._trace if isinstance(value, Variable) else value._bw.trace) is None:
        return
    inside = [value] if isinstance(value, Variable) else value.variables()
    if any(v._trace is not None and isinstance(v._value, Tracer) for v in inside):
        what = f"a {type(value).__name__}" + ("" if isinstance(value, Variable) else " with a traced value inside")
        raise TraceLeakError(
            f"{what} that was made inside a JAX transform would be kept in {place}, where it outlives the trace. "
            "Make it before, in __init__ or in build, and write its value inside."
        )


def hold(holder: Node, value: Any) -> None:
    """Tell a value who holds it, so that it knows its name and whom to tell of changes."""
    if isinstance(value, (Variable, Node)):
        known = value._bw_holders
        if not known:
            value._bw_holders = (weakref.ref(holder),)
        elif all(r() is not holder for r in known):
            value._bw_holders = (*(r for r in known if r() is not None), weakref.ref(holder))
    elif isinstance(value, tuple):
        for item in value:
            hold(holder, item)


def made_here(stamp: object) -> bool:
    """Whether an object with this trace stamp belongs to the trace that is running now."""
    return stamp is not None and stamp in (trace_state(), expected_stamp())
