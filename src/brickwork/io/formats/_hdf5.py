"""HDF5 files, as far as Keras uses them: groups, plain datasets and attributes of text.

The HDF5 library is not made for files that nobody vouches for: damaged ones make it crash, and it follows links to
other files. Keras writes only the oldest structures of the format, without compression and without links, and this
reader knows only those. It maps datasets instead of copying them, and refuses everything else by name.

The format: https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np

from .._source import Source
from ._arrays import array_at
from ._hdf5_types import Strings, Type, parse_space, parse_type

__all__ = ["Hdf5", "is_hdf5", "read_hdf5"]

Text = str | list[str]

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_NOWHERE = 2**64 - 1  # the address of what does not exist
_MAX_DEPTH = 32
_MAX_NAME = 1024
_MAX_STEPS = 500_000
_OPAQUE = {
    name: np.dtype(getattr(ml_dtypes, name))
    for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e4m3b11fnuz")
}
_ADVICE = "open it with h5py and write the arrays to a new file, which h5py does in the old form by default"


def is_hdf5(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is an HDF5 file."""
    return head[:8] == _SIGNATURE


@dataclass(frozen=True)
class Hdf5:
    """What a file holds, by path without a leading slash.

    Attributes:
        datasets: arrays; of text, a string or a list of strings.
        attributes: of each group, including ``""`` for the root, those that are text.
        untyped: datasets of bytes whose meaning the file does not say; they are ``uint8``.
    """

    datasets: dict[str, np.ndarray | Text] = field(default_factory=dict)
    attributes: dict[str, dict[str, Text]] = field(default_factory=dict)
    untyped: list[str] = field(default_factory=list)


def read_hdf5(source: Source) -> Hdf5:
    """Read all datasets of a file, and the attributes of its groups.

    Raises:
        CheckpointError: the file is damaged, or has links, compressed or chunked datasets, or structures that are
            newer than Keras' files.
    """
    reader = _Reader(source)
    reader.visit("", reader.root(), 0)
    return reader.found


_MESSAGE = struct.Struct("<HHB")
_ENTRY = struct.Struct("<QQL")


@dataclass(frozen=True, slots=True)
class _Message:
    kind: int
    at: int  # where its body is
    size: int


# Kinds of messages in the header of an object.
_SPACE, _LINKS, _TYPE, _LINK, _EXTERNAL, _LAYOUT = 0x01, 0x02, 0x03, 0x06, 0x07, 0x08
_FILTERS, _ATTRIBUTE, _CONTINUED, _TABLE, _ATTRIBUTES = 0x0B, 0x0C, 0x10, 0x11, 0x15


class _Reader:
    """Reads one file. What it does is bounded by the size of the file, however its parts refer to each other."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.raw = source.data.data
        self.found = Hdf5()
        self.seen: dict[int, str] = {}
        self.steps = min(source.size // 8, _MAX_STEPS)  # the smallest parts take 8 bytes
        self.text = source.size  # bytes of text that may still be copied
        self.heaps: dict[int, dict[int, tuple[int, int]]] = {}

    def spend(self, at: int, steps: int = 1) -> None:
        self.steps -= steps
        if self.steps < 0:
            self.source.fail(at, "the file refers to the same parts again and again, or has too many of them")

    def u(self, at: int, size: int) -> int:
        """The unsigned integer of ``size`` bytes at a place."""
        if at + size > len(self.raw):
            self.source.view(at, size, "a structure of HDF5")  # which says that it isn't there
        return int.from_bytes(self.raw[at : at + size], "little")

    def expect(self, at: int, magic: bytes, what: str) -> None:
        if self.source.bytes(at, len(magic), what) != magic:
            self.source.fail(at, f"{what} should begin with {magic!r}")

    def root(self) -> int:
        """The address of the root group."""
        self.expect(0, _SIGNATURE, "the file")
        version = self.u(8, 1)
        if version in (2, 3):
            self.source.refuse(f"it has structures newer than those of Keras (superblock version {version}); {_ADVICE}")
        if version > 3:
            self.source.fail(8, f"there is no superblock of version {version}")
        if (self.u(13, 1), self.u(14, 1)) != (8, 8):
            self.source.refuse("its addresses are not of 8 bytes")
        at = 24 + 4 * version
        if self.u(at, 8) != 0:
            self.source.refuse("its addresses do not count from its beginning")
        end = self.u(at + 16, 8)
        if end > self.source.size:
            missing = end - self.source.size
            self.source.fail(self.source.size, f"the file ends here, {missing:,} bytes too early; it was truncated")
        return self.u(at + 40, 8)

    # --- objects ----------------------------------------------------------------------------------

    def visit(self, path: str, address: int, depth: int) -> None:
        """Collect what an object holds."""
        self.spend(address, 1 + len(path) // 64)
        if depth > _MAX_DEPTH:
            self.source.fail(address, f"groups are nested deeper than {_MAX_DEPTH} levels, at {path[:80]!r}...")
        if address in self.seen:
            other = self.seen[address] or "/"
            self.source.fail(address, f"{path!r} and {other!r} are the same object, which Keras never writes")
        self.seen[address] = path
        messages = list(self.messages(address))
        kinds = {message.kind: message for message in messages}
        if _LAYOUT in kinds:
            self.dataset(path, address, messages, kinds)
        elif _TABLE in kinds or _LINKS in kinds:
            self.found.attributes[path] = dict(self.attributes(messages))
            for name, child in self.members(path, messages):
                self.visit(f"{path}/{name}" if path else name, child, depth + 1)
        else:
            self.source.refuse(f"{path or '/'!r} is neither a group nor a dataset")

    def messages(self, address: int) -> Iterator[_Message]:
        """The messages in the header of an object."""
        if self.source.bytes(address, 4, "the header of an object") == b"OHDR":
            self.source.refuse(f"it has structures newer than those of Keras (at byte {address:,}); {_ADVICE}")
        version, count = self.u(address, 1), self.u(address + 2, 2)
        if version != 1:
            self.source.fail(address, f"the header of an object has the unknown version {version}")
        blocks = [(address + 16, self.u(address + 8, 4))]
        for start, size in blocks:  # which grows meanwhile
            self.source.view(start, size, "the header of an object")
            at, end = start, start + size
            while at + 8 <= end and count:
                self.spend(at)
                count -= 1
                kind, length, flags = _MESSAGE.unpack_from(self.raw, at)
                body, at = at + 8, at + 8 + length
                if at > end:
                    self.source.fail(body - 8, f"a message of {length:,} bytes is longer than what is left for it")
                if flags & 2 and kind in (_SPACE, _TYPE, _ATTRIBUTE, _LAYOUT):
                    self.source.refuse(f"it has committed datatypes (at byte {body - 8:,}); {_ADVICE}")
                if kind == _CONTINUED:
                    blocks.append((self.u(body, 8), self.u(body + 8, 8)))
                else:
                    yield _Message(kind, body, length)

    # --- groups -----------------------------------------------------------------------------------

    def members(self, path: str, messages: list[_Message]) -> Iterator[tuple[str, int]]:
        names: set[str] = set()
        for message in messages:
            found: Iterator[tuple[str, int]] = iter(())
            if message.kind == _TABLE:
                found = self.table(path, message)
            elif message.kind == _LINK:
                found = iter([self.link(path, message)])
            elif message.kind == _LINKS:
                flags = self.u(message.at + 1, 1)
                if self.u(message.at + 2 + 8 * (flags & 1), 8) != _NOWHERE:
                    self.source.refuse(f"the group {path!r} has structures newer than those of Keras; {_ADVICE}")
            for name, address in found:
                if name in names:
                    self.source.fail(address, f"the group {path!r} has two members called {name!r}")
                names.add(name)
                yield name, address

    def table(self, path: str, message: _Message) -> Iterator[tuple[str, int]]:
        """The members that a B-tree lists."""
        tree, heap = self.u(message.at, 8), self.u(message.at + 8, 8)
        self.expect(heap, b"HEAP", "the names of a group")
        size, start = self.u(heap + 8, 8), self.u(heap + 24, 8)
        names = self.source.view(start, size, "the names of a group")
        for node in self.leaves(tree, None):
            self.expect(node, b"SNOD", "the members of a group")
            for i in range(self.u(node + 6, 2)):
                at = node + 8 + 40 * i
                self.spend(at)
                offset, address, kind = _ENTRY.unpack(self.source.bytes(at, 20, "a member of a group"))
                name = self.name(names[offset : offset + _MAX_NAME + 1].tobytes(), at)
                if kind == 2:
                    self.refuse_link(path, name, "soft")
                yield name, address

    def leaves(self, node: int, level: int | None) -> Iterator[int]:
        """The addresses at the ends of a B-tree."""
        self.expect(node, b"TREE", "a node of a B-tree")
        kind, own = self.u(node + 4, 1), self.u(node + 5, 1)
        if kind != 0:
            self.source.fail(node + 4, f"a B-tree of a group has type {kind}, not 0")
        if own > 16 or (level is not None and own != level):
            self.source.fail(node + 5, f"a node of a B-tree is on the impossible level {own}")
        for i in range(self.u(node + 6, 2)):
            self.spend(node)
            child = self.u(node + 32 + 16 * i, 8)
            if own:
                yield from self.leaves(child, own - 1)
            else:
                yield child

    def link(self, path: str, message: _Message) -> tuple[str, int]:
        flags, at, kind = self.u(message.at + 1, 1), message.at + 2, 0
        if flags & 8:
            kind, at = self.u(at, 1), at + 1
        at += 8 * bool(flags & 4) + bool(flags & 16)
        size = self.u(at, 1 << (flags & 3))
        at += 1 << (flags & 3)
        name = self.name(self.source.bytes(at, min(size, _MAX_NAME + 1), "a name") + b"\0", at)
        if kind:
            self.refuse_link(path, name, {1: "soft", 64: "external"}.get(kind, "user-defined"))
        return name, self.u(at + size, 8)

    def name(self, raw: bytes, at: int) -> str:
        end = raw.find(b"\0")
        try:
            name = raw[:end].decode() if end > 0 else ""
        except UnicodeDecodeError:
            name = ""
        if not name or "/" in name or name in (".", ".."):
            self.source.fail(at, f"{raw[: max(end, 0)][:80]!r} is no name for a member of a group")
        return name

    def refuse_link(self, path: str, name: str, kind: str) -> None:
        where = f"{path}/{name}" if path else name
        self.source.refuse(f"{where!r} is a link of the kind {kind!r}, and links are not followed; {_ADVICE}")

    # --- attributes -------------------------------------------------------------------------------

    def attributes(self, messages: list[_Message]) -> Iterator[tuple[str, Text]]:
        """The attributes that are text."""
        for message in messages:
            if (
                message.kind == _ATTRIBUTES
                and self.u(message.at + 2 + 2 * (self.u(message.at + 1, 1) & 1), 8) != _NOWHERE
            ):
                self.source.refuse(f"it has attributes in a form newer than that of Keras; {_ADVICE}")
            elif message.kind == _ATTRIBUTE:
                name, value = self.attribute(message)
                if value is not None:
                    yield name, value

    def attribute(self, message: _Message) -> tuple[str, Text | None]:
        version = self.u(message.at, 1)
        if version not in (1, 2, 3):
            self.source.fail(message.at, f"an attribute has the unknown version {version}")
        sizes = [self.u(message.at + 2 * i, 2) for i in (1, 2, 3)]
        at = message.at + (9 if version == 3 else 8)
        parts = []
        for size in sizes:
            parts.append((at, size))
            at += -(-size // 8) * 8 if version == 1 else size
        if at > message.at + message.size:
            self.source.fail(message.at, "an attribute is longer than its message")
        raw = self.source.bytes(parts[0][0], parts[0][1], "the name of an attribute")
        name = raw.split(b"\0")[0].decode("utf-8", "replace")
        kind = parse_type(self.source, *parts[1])
        shape = parse_space(self.source, *parts[2])
        if kind.text is None:
            return name, [] if 0 in shape else None
        return name, self.strings(at, message.at + message.size, kind, shape)

    def strings(self, at: int, end: int, kind: Type, shape: tuple[int, ...]) -> Text:
        """Text that is stored at a place: one string, or the strings of an array in order."""
        count = math.prod(shape)
        if count * kind.size > end - at:
            self.source.fail(at, f"{count:,} strings of {kind.size} bytes should be here, in {end - at:,} bytes")
        found = []
        for i in range(count):
            self.spend(at)
            place = at + i * kind.size
            if kind.text is Strings.FIXED:
                where, size = place, kind.size
            else:
                where, size = self.heap_object(place)
            self.text -= size
            if self.text < 0:
                self.source.fail(place, "the file refers to the same text again and again")
            raw = self.source.bytes(where, size, "text").split(b"\0")[0]
            found.append(raw.decode("utf-8", "replace"))
        return found if shape else found[0]

    def heap_object(self, at: int) -> tuple[int, int]:
        """Where the text is that a reference at ``at`` points to, and its size."""
        size, heap, index = self.u(at, 4), self.u(at + 4, 8), self.u(at + 12, 4)
        if size == 0:
            return at, 0
        if heap not in self.heaps:
            self.heaps[heap] = dict(self.heap_objects(heap))
        where, length = self.heaps[heap].get(index, (0, -1))
        if size > length:
            self.source.fail(at, f"this should refer to text of {size:,} bytes, but there is none")
        return where, size

    def heap_objects(self, heap: int) -> Iterator[tuple[int, tuple[int, int]]]:
        self.expect(heap, b"GCOL", "a collection of texts")
        end = heap + self.u(heap + 8, 8)
        self.source.view(heap, end - heap, "a collection of texts")
        at = heap + 16
        while at + 16 <= end:
            self.spend(at)
            index, size = self.u(at, 2), self.u(at + 8, 8)
            if index == 0:  # the free space, which comes last
                return
            if at + 16 + size > end:
                self.source.fail(at, f"text of {size:,} bytes is longer than its collection")
            yield index, (at + 16, size)
            at += 16 + -(-size // 8) * 8

    # --- datasets ---------------------------------------------------------------------------------

    def dataset(self, path: str, address: int, messages: list[_Message], kinds: dict[int, _Message]) -> None:
        if _EXTERNAL in kinds:
            self.source.refuse(f"the dataset {path!r} has its values in other files, which are not opened")
        if _FILTERS in kinds:
            self.source.refuse(f"the dataset {path!r} is compressed, as Keras never writes it; {_ADVICE}")
        if _SPACE not in kinds or _TYPE not in kinds:
            self.source.fail(address, f"the dataset {path!r} lacks its shape or datatype")
        shape = parse_space(self.source, kinds[_SPACE].at, kinds[_SPACE].size)
        kind = parse_type(self.source, kinds[_TYPE].at, kinds[_TYPE].size)
        at, size = self.storage(path, kinds[_LAYOUT])
        if at == _NOWHERE:
            if 0 not in shape:
                self.source.refuse(f"the dataset {path!r} of shape {shape} has no values stored")
            at, size = 0, 0
        if kind.text is not None:
            self.found.datasets[path] = self.strings(at, at + size, kind, shape)
            return
        dtype = kind.dtype
        if dtype is None:
            dtype = self.opaque(path, kind, dict(self.attributes(messages)).get("dtype"))
        if math.prod(shape) * dtype.itemsize != size:
            self.source.fail(
                kinds[_LAYOUT].at,
                f"the dataset {path!r} of shape {shape} and dtype {dtype} takes "
                f"{math.prod(shape) * dtype.itemsize:,} bytes, but {size:,} are stored",
            )
        self.found.datasets[path] = array_at(self.source, at, dtype, shape, f"the dataset {path!r}", kind.swapped)

    def storage(self, path: str, layout: _Message) -> tuple[int, int]:
        """Where the values of a dataset are, and how many bytes they take."""
        version, kind = self.u(layout.at, 1), self.u(layout.at + 1, 1)
        if version in (3, 4) and kind == 0:
            size = self.u(layout.at + 2, 2)
            if 4 + size > layout.size:
                self.source.fail(layout.at, f"the values of {path!r} are longer than their message")
            return layout.at + 4, size
        if version in (3, 4) and kind == 1:
            return self.u(layout.at + 2, 8), self.u(layout.at + 10, 8)
        names = {2: "chunked", 3: "virtual"}
        known = names.get(kind) if version in (3, 4) else f"stored in the form {version}"
        if known is None:
            self.source.fail(layout.at, f"the dataset {path!r} has the unknown layout {kind}")
        self.source.refuse(f"the dataset {path!r} is {known}, as Keras never writes it; {_ADVICE}")

    def opaque(self, path: str, kind: Type, said: Text | None) -> np.dtype:
        """The dtype of values that HDF5 has no name for; Keras puts it into an attribute."""
        dtype = _OPAQUE.get(said) if isinstance(said, str) else None
        if dtype is not None and dtype.itemsize == kind.size:
            return dtype
        if said is None and kind.size == 1:  # Keras does not say which of the float8 these are
            self.found.untyped.append(path)
            return np.dtype(np.uint8)
        self.source.refuse(f"the dataset {path!r} is of the datatype {kind.name}{f' ({said!r})' if said else ''}")
