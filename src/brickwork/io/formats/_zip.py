"""Zip archives, read from a mapped file without trusting them.

Only the central directory says where members are and how long they are; local headers are checked
against it. Stored members are views of the file. The format: PKWARE's APPNOTE.TXT, 4.3 and 4.5.3.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from .._source import Source

__all__ = ["Archive", "is_zip"]

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_COMMENT = 0xFFFF
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000  # flags: encrypted, strongly encrypted, central directory masked
_UTF8 = 0x0800
_STORED, _DEFLATED = 0, 8
_METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "xz", 99: "AES"}


def is_zip(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is a zip archive; the second form is an empty one."""
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))


@dataclass(slots=True)
class _Member:
    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    stored: int  # bytes in the file
    size: int  # bytes when unpacked
    offset: int  # of the local header
    limit: int = 0  # where the next thing begins

    @property
    def least_end(self) -> int:
        """Where it ends at the earliest; its local header may have an extra field."""
        return self.offset + _LOCAL.size + len(self.raw_name) + self.stored


class Archive:
    """The members of a zip archive.

    Args:
        source: the file.

    Raises:
        CheckpointError: it is truncated, damaged, encrypted, or made to deceive: two members of one name,
            members that overlap, names that lead out of a folder.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        count, start, stop = self._find_directory()
        self._members = {member.name: member for member in self._read_directory(count, start, stop)}

    def names(self) -> list[str]:
        """Names of the members, in the order of the archive, without folders."""
        return [name for name in self._members if not name.endswith("/")]

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def read(self, name: str, verify: bool = True) -> np.ndarray:
        """The bytes of a member, read-only: a view of the file, or unpacked.

        Args:
            name: one of :meth:`names`.
            verify: check the CRC-32, at some GB/s. Unpacked members are always checked.

        Raises:
            CheckpointError: the member is not there or damaged.
        """
        member = self._members.get(name)
        if member is None:
            self.source.fail(self.source.size, f"the archive has no member {name!r}; it is incomplete")
        start = self._data_start(member)
        data = self.source.view(start, member.stored, f"the member {name!r}")
        if member.method == _DEFLATED:
            data = self._inflate(member, start, data)
        elif member.stored != member.size:
            self._fail(member, f"is stored as it is, but in {member.stored:,} bytes instead of {member.size:,}")
        if (verify or member.method == _DEFLATED) and zlib.crc32(data.data) != member.crc:
            self.source.fail(start, f"the bytes of the member {name!r} don't match their CRC-32; get the file again")
        return data

    def open(self, name: str, verify: bool = True) -> Source:
        """The same as a source of its own."""
        return self.source.part(name, self.read(name, verify))

    # --- the central directory ------------------------------------------------------------------------

    def _find_directory(self) -> tuple[int, int, int]:
        """How many entries the central directory has, where it begins and where it ends."""
        source = self.source
        at = self._find_end()
        _, disk, first_disk, here, count, size, offset, _ = _END.unpack(source.bytes(at, _END.size, "the end record"))
        stop = at
        if at >= _LOCATOR.size and source.bytes(at - _LOCATOR.size, 4, "the ZIP64 locator") == b"PK\x06\x07":
            stop, disk, first_disk, here, count, size, offset = self._read_end64(at - _LOCATOR.size)
        if disk or first_disk or here != count:
            source.refuse("it is one part of an archive in several files; join them first")
        if offset + size != stop:
            source.fail(
                at,
                f"the archive's directory should be {size:,} bytes from byte {offset:,} and end at byte {stop:,}; "
                "the file is truncated at its start, or bytes were inserted or lost",
            )
        return count, offset, stop

    def _find_end(self) -> int:
        """Where the record at the end of the archive is: last but for a comment."""
        source = self.source
        base = max(source.size - _END.size - _MAX_COMMENT, 0)
        tail = source.bytes(base, source.size - base, "the end of the archive")
        at = tail.rfind(b"PK\x05\x06")
        while at >= 0:
            comment = int.from_bytes(tail[at + 20 : at + 22], "little")
            if at + _END.size + comment == len(tail):
                return base + at
            at = tail.rfind(b"PK\x05\x06", 0, at)
        source.fail(source.size, "the directory that ends a zip archive is missing; the file is truncated")

    def _read_end64(self, locator: int) -> tuple[int, int, int, int, int, int, int]:
        source = self.source
        _, _, at, _ = _LOCATOR.unpack(source.bytes(locator, _LOCATOR.size, "the ZIP64 locator"))
        end = _END64.unpack(source.bytes(at, _END64.size, "the ZIP64 end record"))
        signature, length, _, _, disk, first_disk, here, count, size, offset = end
        if signature != b"PK\x06\x06" or at + 12 + length != locator:
            source.fail(at, "the ZIP64 end record is not where it should be")
        return at, disk, first_disk, here, count, size, offset

    def _read_directory(self, count: int, at: int, stop: int) -> list[_Member]:
        directory, found, names = at, [], set()
        while at < stop:
            member, end = self._read_entry(at, stop)
            if member.name in names:
                self.source.fail(at, f"two members have the name {member.name!r}")
            names.add(member.name)
            found.append(member)
            at = end
        if len(found) != count:
            self.source.fail(at, f"the directory lists {len(found)} members, but should list {count}")
        following = directory
        for member in sorted(found, key=lambda m: m.offset, reverse=True):
            if member.least_end > following:
                self.source.fail(member.offset, f"the member {member.name!r} overlaps what follows it")
            member.limit, following = following, member.offset
        return found

    def _read_entry(self, at: int, stop: int) -> tuple[_Member, int]:
        source = self.source
        fields = _ENTRY.unpack(source.bytes(at, _ENTRY.size, "an entry of the directory"))
        signature, _, _, flags, method, _, _, crc, stored, size, n, extra_size, comment, disk, _, _, offset = fields
        end = at + _ENTRY.size + n + extra_size + comment
        if signature != b"PK\x01\x02" or end > stop:
            source.fail(at, "an entry of the archive's directory is malformed")
        raw_name = source.bytes(at + _ENTRY.size, n, "a member's name")
        name = self._name(at, raw_name, flags)
        extra = source.bytes(at + _ENTRY.size + n, extra_size, "an extra field")
        size, stored, offset, disk = self._wide(at, name, extra, size, stored, offset, disk)
        if flags & _ENCRYPTED:
            source.refuse(f"the member {name!r} is encrypted; unpack it with its password first")
        if disk:
            source.refuse("it is one part of an archive in several files; join them first")
        return _Member(name, raw_name, flags, method, crc, stored, size, offset), end

    def _name(self, at: int, raw: bytes, flags: int) -> str:
        try:
            name = raw.decode("utf-8" if flags & _UTF8 else "cp437")
        except UnicodeDecodeError:
            self.source.fail(at, f"the member's name {raw[:100]!r} is not UTF-8")
        if not name or "\0" in name or name[0] in "/\\" or ".." in re.split(r"[/\\]", name):
            self.source.fail(at, f"the member's name {name[:100]!r} leads out of the archive; it was made to deceive")
        return name

    def _wide(self, at: int, name: str, extra: bytes, *fields: int) -> list[int]:
        """Size, stored size, offset and disk, taken from the ZIP64 extra field where they didn't fit."""
        position, wide = 0, b""
        while position + 4 <= len(extra):
            kind, length = struct.unpack_from("<HH", extra, position)
            if kind == 1:
                wide = extra[position + 4 : position + 4 + length]
                break
            position += 4 + length
        found = list(fields)
        for i, (width, full) in enumerate([(8, 0xFFFFFFFF)] * 3 + [(4, 0xFFFF)]):
            if found[i] == full and (wide or i < 3):
                if len(wide) < width:
                    self.source.fail(at, f"the member {name!r} lacks its sizes in ZIP64 form")
                found[i], wide = int.from_bytes(wide[:width], "little"), wide[width:]
        return found

    # --- members --------------------------------------------------------------------------------------

    def _data_start(self, member: _Member) -> int:
        header = self.source.bytes(member.offset, _LOCAL.size, f"the header of the member {member.name!r}")
        signature, _, flags, method, _, _, _, _, _, n, extra = _LOCAL.unpack(header)
        start = member.offset + _LOCAL.size + n + extra
        raw_name = self.source.bytes(member.offset + _LOCAL.size, n, "a member's name")
        if signature != b"PK\x03\x04" or (raw_name, method) != (member.raw_name, member.method) or flags & _ENCRYPTED:
            self._fail(member, "has a header that contradicts the archive's directory")
        if start + member.stored > member.limit:
            self._fail(member, "overlaps what follows it")
        if method not in (_STORED, _DEFLATED):
            how = _METHODS.get(method, f"method {method}")
            self.source.refuse(f"the member {member.name!r} is compressed with {how}; unpack it, and pack it anew")
        return start

    def _inflate(self, member: _Member, start: int, data: np.ndarray) -> np.ndarray:
        self.source.spend(member.size, f"the member {member.name!r}")
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            unpacked = unpacker.decompress(data.data, member.size + 1)
        except zlib.error as error:
            self.source.fail(start, f"the member {member.name!r} can't be unpacked: {error}")
        if len(unpacked) != member.size or not unpacker.eof or unpacker.unused_data:
            self._fail(member, f"doesn't unpack to the {member.size:,} bytes that the directory says")
        return np.frombuffer(unpacked, np.uint8)

    def _fail(self, member: _Member, reason: str) -> NoReturn:
        self.source.fail(member.offset, f"the member {member.name!r} {reason}")
