"""Zip archives: what zipfile writes is read, and what nobody should write is refused."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from brickwork.errors import CheckpointError
from brickwork.io._source import Source
from brickwork.io.formats._zip import Archive, is_zip

FIXTURES = Path(__file__).parents[2] / "fixtures"


def pack(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.comment = comment
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return buffer.getvalue()


def open_archive(data: bytes) -> Archive:
    return Archive(Source("x.zip", np.frombuffer(data, np.uint8), "archive"))


def put(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def directory(data: bytes) -> int:
    """Where the central directory begins."""
    return struct.unpack_from("<L", data, data.rindex(b"PK\x05\x06") + 16)[0]


MEMBERS = {"a": b"first", "folder/b.npy": bytes(1000), "empty": b"", "é中": b"x"}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("comment", [b"", b"a comment", b"PK\x05\x06 in it"])
def test_members_are_read(compression, comment):
    archive = open_archive(pack(MEMBERS, compression, comment))
    assert archive.names() == list(MEMBERS)
    assert {name: archive.read(name).tobytes() for name in archive.names()} == MEMBERS
    assert "a" in archive and "b" not in archive
    assert not archive.read("folder/b.npy").flags.writeable


def test_stored_members_are_views():
    data = np.frombuffer(pack({"a": bytes(100)}), np.uint8)
    assert np.shares_memory(Archive(Source("x", data)).read("a"), data)


def test_folders_are_not_members():
    assert open_archive(pack({"folder/": b"", "folder/x": b"1"})).names() == ["folder/x"]


def test_an_empty_archive():
    assert is_zip(pack({})) and open_archive(pack({})).names() == []


INTACT = [
    path
    for pattern in ("*/*.keras", "torch/*.pt", "torch/*.params")
    for path in sorted(FIXTURES.glob(pattern))
    if zipfile.is_zipfile(path) and "corrupt" not in path.name
]


@pytest.mark.parametrize("path", INTACT, ids=lambda path: path.name)
def test_the_same_as_zipfile(path):
    data = path.read_bytes()
    assert is_zip(data)
    archive = open_archive(data)
    with zipfile.ZipFile(path) as peer:
        assert archive.names() == peer.namelist()
        for name in archive.names():
            assert archive.read(name).tobytes() == peer.read(name)


def zip64(data: bytes) -> bytes:
    """The same archive of one member with every size and offset in its ZIP64 form."""
    start, end = directory(data), data.rindex(b"PK\x05\x06")
    entry = data[start:end]
    stored, size, n = *struct.unpack_from("<2L", entry, 20), struct.unpack_from("<H", entry, 28)[0]
    extra = struct.pack("<2H3Q", 1, 24, size, stored, 0)
    other = struct.pack("<2HL", 0x7777, 4, 0)  # a field of another kind before it
    entry = put(entry, 20, b"\xff" * 8)
    entry = put(entry, 30, struct.pack("<H", len(extra + other)))
    entry = put(entry, 42, b"\xff" * 4)[: 46 + n] + other + extra
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, len(entry), start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, start + len(entry), 1)
    end32 = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:start] + entry + end64 + locator + end32


def test_zip64():
    data = zip64(pack({"a": b"12345"}))
    with zipfile.ZipFile(io.BytesIO(data)) as peer:
        assert peer.read("a") == b"12345"
    assert open_archive(data).read("a").tobytes() == b"12345"


def test_zip64_that_lacks_its_sizes():
    data = zip64(pack({"a": b"12345"}))
    at = data.rindex(struct.pack("<2H", 1, 24))
    with pytest.raises(CheckpointError, match="'a' lacks its sizes in ZIP64 form"):
        open_archive(put(data, at, struct.pack("<2H", 1, 12)))


# --- refused --------------------------------------------------------------------------------------


def refuses(data: bytes, match: str, name: str = "a") -> None:
    with pytest.raises(CheckpointError, match=match):
        open_archive(data).read(name)


@pytest.mark.parametrize("kept", [0, 3, 21, 40, 100])
def test_truncated(kept):
    refuses(pack(MEMBERS)[:kept], "at byte .*the file is truncated")


def test_bytes_are_lost():
    data = pack(MEMBERS)
    refuses(data[10:], "directory should be .* truncated at its start, or bytes were inserted or lost")
    refuses(data[:100] + data[101:], "bytes were inserted or lost")


def test_a_flipped_byte():
    data = pack({"a": b"12345"})
    bad = put(data, data.index(b"12345"), b"0")
    refuses(bad, r"x\.zip: damaged archive, at byte 31: the bytes of the member 'a' don't match their CRC-32")
    assert open_archive(bad).read("a", verify=False).tobytes() == b"02345"


def test_a_flipped_byte_is_always_found_when_unpacking():
    data = pack({"a": bytes(1000)}, zipfile.ZIP_DEFLATED)
    bad = put(data, directory(data) + 16, b"\x01")
    with pytest.raises(CheckpointError, match="CRC-32"):
        open_archive(bad).read("a", verify=False)


def test_two_members_of_one_name():
    data = pack({"a": b"1", "b": b"2"})
    data = data.replace(b"b", b"a")
    refuses(data, "two members have the name 'a'")


def test_overlapping_members():
    data = pack({"a": b"1" * 50, "b": b"2" * 50})
    second = data.index(b"PK\x01\x02", directory(data) + 4)
    refuses(put(data, second + 42, bytes(4)), "member '[ab]' overlaps what follows it")
    longer = put(data, directory(data) + 20, struct.pack("<2L", 51, 51))
    refuses(longer, "at byte 0: the member 'a' overlaps")
    padded = put(data, 28, struct.pack("<H", 1))  # an extra field in the local header only
    refuses(padded, "at byte 0: the member 'a' overlaps")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "..\\x", "\\x", "a/..", "nul\0"])
def test_names_that_lead_out(name):
    data = pack({"q" * len(name): b"1"}).replace(b"q" * len(name), name.encode())
    refuses(data, "leads out of the archive; it was made to deceive")


def test_a_name_that_is_not_text():
    data = pack({"é": b"1"}).replace("é".encode(), b"\xff\xff")
    refuses(data, "is not UTF-8")


def test_encrypted():
    data = pack({"a": b"1"})
    refuses(put(data, directory(data) + 8, b"\x01"), "the member 'a' is encrypted; unpack it with its password")


@pytest.mark.parametrize("method, name", [(14, "LZMA"), (12, "bzip2"), (93, "Zstandard"), (77, "method 77")])
def test_other_compression(method, name):
    data = pack({"a": b"1"})
    word = struct.pack("<H", method)
    refuses(put(put(data, 8, word), directory(data) + 10, word), f"'a' is compressed with {name}; unpack it")


def test_headers_that_contradict_each_other():
    data = pack({"a": b"1"})
    refuses(put(data, 30, b"b"), "'a' has a header that contradicts the archive's directory")
    refuses(put(data, directory(data) + 42, b"\x01"), "'a' overlaps|header")
    refuses(put(data, directory(data) + 24, b"\x02"), "'a' is stored as it is, but in 1 bytes instead of 2")
    refuses(put(data, len(data) - 12, b"\x02"), "lists 1 members|several files")
    refuses(put(data, directory(data), b"XX"), "an entry of the archive's directory is malformed")


def test_archives_in_several_files():
    data = pack({"a": b"1"})
    refuses(put(data, len(data) - 18, b"\x01"), "several files; join them first")
    refuses(put(data, directory(data) + 34, b"\x01"), "several files; join them first")


def test_a_missing_member():
    refuses(pack({"a": b"1"}), "the archive has no member 'b'; it is incomplete", "b")


# --- bombs ----------------------------------------------------------------------------------------


def test_a_bomb_is_not_unpacked():
    data = pack({"a": bytes(200_000_000)}, zipfile.ZIP_DEFLATED)
    assert len(data) < 1_000_000
    tracemalloc.start()
    try:
        refuses(data, "the member 'a' takes 200,000,000 bytes, .* it was made to exhaust memory")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_bomb_of_many_members():
    archive = open_archive(pack({str(i): bytes(30_000_000) for i in range(4)}, zipfile.ZIP_DEFLATED))
    with pytest.raises(CheckpointError, match="in all the contents would need more than 8 times"):
        for name in archive.names():
            archive.open(name)


@pytest.mark.parametrize("claimed", [0, 10, 999, 1001])
def test_a_member_that_unpacks_to_another_size(claimed):
    data = pack({"a": bytes(1000)}, zipfile.ZIP_DEFLATED)
    refuses(put(data, directory(data) + 24, struct.pack("<L", claimed)), "'a' doesn't unpack to the")


def test_a_member_that_is_not_deflated():
    data = pack({"a": bytes(1000)}, zipfile.ZIP_DEFLATED)
    refuses(put(data, 31, b"\xff\xff\xff"), "'a' can't be unpacked: ")


def test_a_part_counts_from_its_own_start():
    part = open_archive(pack({"a": b"12345"})).open("a")
    with pytest.raises(CheckpointError, match=r"x\.zip, member 'a': damaged archive, at byte 3: no"):
        part.fail(3, "no")
