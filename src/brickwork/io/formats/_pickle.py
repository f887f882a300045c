"""Pickles, read without executing them.

A pickle is a program for a small stack machine (the opcodes are documented in ``pickletools.py`` of
CPython). :func:`interpret` runs the opcodes that build plain values; a global is looked up in a table
of the caller's and nowhere else, so nothing is ever imported, and what a call gives is for the table's
functions to decide. ``finish`` in ``_unpickled.py`` then makes plain values of the result.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from .._source import Source

__all__ = ["Global", "Pending", "interpret", "looks_like_pickle", "name_of"]

_MAX_DEPTH = 256  # of what is being built
_LARGE = 4096  # bytes; strings of bytes from this size on are views until the end
_MAX_STACK = 2**20
_MAX_INTEGER = 1024  # bytes
_MAX_LINE = 4096  # bytes, of a text argument
_MAX_KEY = 2**16  # characters; equal keys are compared each time
_MAX_HASH = 2**60  # integers beyond may be chosen to have equal hashes
_MAX_TUPLE_KEYS = 4096  # these as well
_STOP = ord(".")
_UNSET = object()


def looks_like_pickle(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is a pickle of protocol 2 to 5."""
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


@dataclass(frozen=True)
class Global:
    """A class, function or constant that the pickle names.

    Attributes:
        name: what messages call it.
        target: from the table. A function is called with the tuple of arguments where the pickle calls the
            global, and raises ``ValueError`` if they are not what it knows. One of Python's container types
            makes such a container. A string is the global's plain value.
    """

    name: str
    target: Any


class Pending(ABC):
    """What a table's function returns for something that later opcodes, or later bytes of the file, complete."""

    offset = 0  # of the opcode that made it

    def build(self, state: Any) -> None:
        """Take the state that the opcode BUILD gives; ``ValueError`` if it is not as expected."""
        raise ValueError("it has a state, which it should not have")

    def set_item(self, key: Any, value: Any) -> None:
        """Take an item, as dicts do."""
        raise ValueError("it has items, which it should not have")

    @abstractmethod
    def finish(self, resolve: Callable[[Any], Any]) -> Any:
        """The value. ``resolve`` finishes another value that this one holds. Raises ``ValueError``."""


# --- the machine ----------------------------------------------------------------------------------


def interpret(
    source: Source,
    start: int,
    known: Mapping[tuple[str, str], Any],
    advice: Callable[[str, str], str],
    persistent: Callable[[Any], Any] | None = None,
) -> tuple[Any, int]:
    """Run one pickle.

    Args:
        source: the file.
        start: where the pickle begins.
        known: (module, name) -> the target of a :class:`Global`.
        advice: for the message about a global that is not known: what it is and what to do, from its
            module and name.
        persistent: makes an object of a persistent id; it raises ``ValueError``.

    Returns:
        The result, for ``finish``, and where the pickle ends.

    Raises:
        CheckpointError: it is damaged, or needs what is not known.
    """
    machine = _Machine(source, start, known, advice, persistent)
    return machine.run(), machine.pos


class _Machine:
    def __init__(
        self,
        source: Source,
        start: int,
        known: Mapping[tuple[str, str], Any],
        advice: Callable[[str, str], str],
        persistent: Callable[[Any], Any] | None,
    ) -> None:
        self.source, self.known, self.advice, self.persistent = source, known, advice, persistent
        self.code = memoryview(source.data.data)
        self.at = self.pos = start  # of the opcode, and of what is read next
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: list[Any] = []
        self.globals: dict[tuple[str, str], Global] = {}
        # Containers take far more memory than their opcodes; ordinary files have one for dozens of bytes.
        self.objects_left = 2**18 + source.size // 8
        self.items_left = 2**16 + source.size  # copied from one container to another
        self.tuple_keys = 0

    def fail(self, reason: str) -> NoReturn:
        self.source.fail(self.at, reason)

    def run(self) -> Any:
        code, size, stack = self.code, len(self.code), self.stack
        while self.pos < size:
            self.at = self.pos
            opcode = code[self.at]
            self.pos += 1
            if opcode == _STOP:
                return self.pop()
            step = _STEPS.get(opcode)
            if step is None:
                self.fail(f"{bytes([opcode])!r} is no opcode of the pickles that checkpoints consist of")
            step(self)
            if len(stack) > _MAX_STACK or self.objects_left < 0:
                self.fail(
                    "the pickle builds more objects than a file of this size should; it was made to exhaust memory"
                )
        self.at = self.pos
        self.fail("the pickle ends without the opcode STOP; the file is truncated")

    # reading

    def take(self, size: int) -> memoryview:
        stop = self.pos + size
        if stop > len(self.code):
            left = len(self.code) - self.pos
            self.fail(f"a value should take {size:,} bytes, but {left:,} are left; the file is truncated")
        data = self.code[self.pos : stop]
        self.pos = stop
        return data

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def byte(self) -> int:
        """``number(1)``, and faster."""
        at = self.pos
        if at == len(self.code):
            self.take(1)  # which says that the file is truncated
        self.pos = at + 1
        return self.code[at]

    def line(self) -> str:
        found = bytes(self.code[self.pos : self.pos + _MAX_LINE])
        end = found.find(b"\n")
        if end < 0:
            self.fail(f"a line of text has no end within {_MAX_LINE} bytes")
        self.pos += end + 1
        return self.text(found[:end])

    def text(self, data: bytes | memoryview) -> str:
        try:
            return str(data, "utf-8")
        except UnicodeDecodeError:
            self.fail("a string is not UTF-8")

    # the stack

    def pop(self) -> Any:
        if not self.stack:
            self.fail("the pickle takes a value from the empty stack")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack:
            self.fail("the pickle looks at the empty stack")
        return self.stack[-1]

    def push_new(self, value: Any) -> None:
        self.objects_left -= 1
        self.stack.append(value)

    def mark(self) -> None:
        if len(self.marks) == _MAX_DEPTH:
            self.fail("the pickle is nested too deeply")
        self.marks.append(len(self.stack))

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            self.fail("the pickle takes values up to a mark that it did not set")
        start = self.marks.pop()
        found = self.stack[start:]
        del self.stack[start:]
        return found

    def put(self, index: int) -> None:
        value, memo = self.top(), self.memo
        if index == len(memo) + 1:  # Python 2 counts from 1
            memo.append(_UNSET)
        if index > len(memo):
            self.fail(f"the pickle numbers an object {index}, but has only numbered {len(memo)}")
        memo[index : index + 1] = [value]

    def get(self, index: int) -> None:
        if index >= len(self.memo) or self.memo[index] is _UNSET:
            self.fail(f"the pickle refers to its object {index}, which is not there")
        self.stack.append(self.memo[index])

    # containers

    def key(self, key: Any) -> Any:
        """``key`` if it may be a key of a dict. Others could be made to hash slowly or alike."""
        if (type(key) in (str, bytes) and len(key) <= _MAX_KEY) or key is None or type(key) in (bool, float):
            return key
        if type(key) is int and -_MAX_HASH < key < _MAX_HASH:
            return key
        if type(key) is tuple and len(key) <= 8 and self.tuple_keys < _MAX_TUPLE_KEYS:
            self.tuple_keys += 1
            if not any(type(part) is tuple for part in key):
                return tuple(map(self.key, key))
        self.fail(f"a {type(key).__name__} is the key of a dict, or in a set; keys should be short strings or numbers")

    def set_items(self, items: list[Any]) -> None:
        target = self.top()
        if len(items) % 2:
            self.fail("a dict has a key without a value")
        pairs = zip(items[::2], items[1::2])
        if type(target) is dict:
            target.update((self.key(key), value) for key, value in pairs)
        elif isinstance(target, Pending):
            for key, value in pairs:
                self.guarded("an item", target.set_item, self.key(key), value)
        else:
            self.fail(f"{name_of(target)} is given keys and values, but is no dict")

    def append(self, items: list[Any]) -> None:
        target = self.top()
        if type(target) is not list:
            self.fail(f"{name_of(target)} is given items, but is no list")
        target.extend(items)

    def add(self, items: list[Any]) -> None:
        target = self.top()
        if type(target) is not set:
            self.fail(f"{name_of(target)} is given items, but is no set")
        target.update(map(self.key, items))

    # globals and calls

    def find(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            self.fail("the name of a global is not a string")
        found = self.globals.get((module, name))
        if found is None:
            if (module, name) not in self.known:
                where = f"at byte {self.at:,} it asks for `{module[:100]} {name[:100]}`"
                self.source.refuse(f"{where}: {self.why(module, name)}")
            found = Global(f"{module}.{name}", self.known[module, name])
            self.globals[module, name] = found
        self.stack.append(found)

    def why(self, module: str, name: str) -> str:
        if module.partition(".")[0] in _DANGEROUS:
            return (
                "no checkpoint needs to call that. The file may be malicious; nothing of it was executed. "
                "Don't open it with a program that unpickles it"
            )
        return self.advice(module, name)

    def call(self, function: Any, arguments: Any) -> None:
        if not isinstance(function, Global) or not callable(function.target):
            self.fail(f"the pickle calls {name_of(function)}, which is no function")
        if type(arguments) is not tuple:
            self.fail(f"the pickle calls {function.name} without a tuple of arguments")
        if isinstance(function.target, type):
            result = self.container(function, arguments)
        else:
            result = self.guarded(function.name, function.target, arguments)
        if isinstance(result, Pending):
            result.offset = self.at
        elif isinstance(result, bytes):
            self.copied(len(result))
        self.push_new(result)

    def container(self, function: Global, arguments: tuple[Any, ...]) -> Any:
        kind = function.target
        if kind is defaultdict:
            kind, arguments = dict, arguments[1:]  # its factory is of no use
        match arguments:
            case ():
                return kind()
            case (list() | tuple() | set() | frozenset() as items,):
                self.copied(len(items))
                if kind in (list, tuple):
                    return kind(items)
                if kind in (set, frozenset):
                    return kind(map(self.key, items))
                if all(type(pair) in (list, tuple) and len(pair) == 2 for pair in items):
                    return {self.key(key): value for key, value in items}
            case (dict() as items,) if kind is dict:
                self.copied(len(items))
                return dict(items)
        self.fail(f"{function.name} is called with arguments of which it can't be made")

    def copied(self, size: int) -> None:
        self.items_left -= size
        if self.items_left < 0:
            self.fail("the pickle copies the same values over and over; it was made to exhaust memory")

    def build(self) -> None:
        state = self.pop()
        target = self.top()
        if isinstance(target, Pending):
            self.guarded("the state of an object", target.build, state)
        elif type(target) is not dict:  # those of dicts are dropped: PyTorch's `_metadata`
            self.fail(f"{name_of(target)} is given a state, which it should not have")

    def persistent_object(self) -> None:
        if self.persistent is None:
            self.fail("the pickle refers to an object outside of it; such files have none")
        self.push_new(self.guarded("a persistent id", self.persistent, self.pop()))

    def guarded(self, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (ValueError, OverflowError) as error:
            self.fail(f"{what}: {error}")

    # text and numbers

    def frame(self) -> None:
        size = self.number(8)
        if size > len(self.code) - self.pos:
            self.fail(f"a frame of {size:,} bytes begins, but {len(self.code) - self.pos:,} are left; truncated")

    def protocol(self) -> None:
        protocol = self.byte()
        if protocol > 5:
            self.fail(f"the pickle has protocol {protocol}; 5 is the highest there is")

    def integer(self, size: int) -> None:
        if size > _MAX_INTEGER:
            self.fail(f"an integer of {size:,} bytes; at most {_MAX_INTEGER} are read")
        self.stack.append(int.from_bytes(self.take(size), "little", signed=True))

    def text_number(self) -> None:
        line = self.line().removesuffix("L")
        truth = {"00": False, "01": True}.get(line)  # how protocol 1 writes it
        self.stack.append(self.guarded("a number", int, line) if truth is None else truth)

    def byte_string(self, size: int) -> None:
        data = self.take(size)
        self.stack.append(data if size >= _LARGE else bytes(data))

    def old_string(self, size: int) -> None:
        """A ``str`` of Python 2: text, or bytes."""
        data = bytes(self.take(size))
        try:
            self.stack.append(data.decode())
        except UnicodeDecodeError:
            self.stack.append(data)


def name_of(value: Any) -> str:
    """What messages call a value that is not as it should be."""
    return value.name if isinstance(value, Global) else f"a {type(value).__name__.lstrip('_')}"


def _push(value: Any) -> Callable[[_Machine], object]:
    return lambda m: m.stack.append(value)


def _tuple(size: int) -> Callable[[_Machine], object]:
    return lambda m: m.push_new(tuple(reversed([m.pop() for _ in range(size)])))


def _pop_pair(m: _Machine) -> list[Any]:
    value = m.pop()
    return [m.pop(), value]


_STEPS: dict[int, Callable[[_Machine], object]] = {
    ord(opcode): step
    for opcode, step in {
        "\x80": _Machine.protocol,
        "\x95": _Machine.frame,
        # constants and numbers
        "N": _push(None),
        "\x88": _push(True),
        "\x89": _push(False),
        "J": lambda m: m.integer(4),
        "K": lambda m: m.stack.append(m.byte()),
        "M": lambda m: m.stack.append(m.number(2)),
        "\x8a": lambda m: m.integer(m.byte()),
        "\x8b": lambda m: m.integer(m.number(4)),
        "G": lambda m: m.stack.append(struct.unpack(">d", m.take(8))[0]),
        "I": _Machine.text_number,
        "L": _Machine.text_number,
        "F": lambda m: m.stack.append(m.guarded("a number", float, m.line())),
        # strings
        "X": lambda m: m.stack.append(m.text(m.take(m.number(4)))),
        "\x8c": lambda m: m.stack.append(m.text(m.take(m.byte()))),
        "\x8d": lambda m: m.stack.append(m.text(m.take(m.number(8)))),
        "B": lambda m: m.byte_string(m.number(4)),
        "C": lambda m: m.byte_string(m.byte()),
        "\x8e": lambda m: m.byte_string(m.number(8)),
        "\x96": lambda m: m.byte_string(m.number(8)),
        "T": lambda m: m.old_string(m.number(4)),
        "U": lambda m: m.old_string(m.byte()),
        # containers
        ")": _push(()),
        "\x85": _tuple(1),
        "\x86": _tuple(2),
        "\x87": _tuple(3),
        "t": lambda m: m.push_new(tuple(m.pop_mark())),
        "]": lambda m: m.push_new([]),
        "l": lambda m: m.push_new(m.pop_mark()),
        "}": lambda m: m.push_new({}),
        "\x8f": lambda m: m.push_new(set()),
        "\x91": lambda m: m.push_new(frozenset(map(m.key, m.pop_mark()))),
        "a": lambda m: m.append([m.pop()]),
        "e": lambda m: m.append(m.pop_mark()),
        "s": lambda m: m.set_items(_pop_pair(m)),
        "u": lambda m: m.set_items(m.pop_mark()),
        "\x90": lambda m: m.add(m.pop_mark()),
        # the stack and the memo
        "(": _Machine.mark,
        "0": lambda m: m.pop(),
        "1": lambda m: m.pop_mark(),
        "2": lambda m: m.stack.append(m.top()),
        "q": lambda m: m.put(m.byte()),
        "r": lambda m: m.put(m.number(4)),
        "\x94": lambda m: m.put(len(m.memo)),
        "h": lambda m: m.get(m.byte()),
        "j": lambda m: m.get(m.number(4)),
        # objects
        "c": lambda m: m.find(m.line(), m.line()),
        "\x93": lambda m: m.find(*_pop_pair(m)),
        "R": lambda m: m.call(*_pop_pair(m)),
        "\x81": lambda m: m.call(*_pop_pair(m)),
        "b": _Machine.build,
        "Q": _Machine.persistent_object,
    }.items()
}

# Modules whose functions run programs, or other code.
_DANGEROUS = frozenset(
    [
        *("__builtin__", "builtins", "os", "posix", "nt", "posixpath", "ntpath", "sys", "subprocess", "shutil"),
        *("importlib", "runpy", "imp", "code", "codeop", "commands", "operator", "ctypes", "signal", "pty"),
        *("socket", "http", "urllib", "asyncio", "multiprocessing", "webbrowser", "pip", "platform", "marshal"),
        *("pickle", "_pickle", "bdb", "pdb", "timeit", "profile", "cProfile"),
    ]
)
