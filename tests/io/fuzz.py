"""Damaged files by the thousand: every reader reads them or raises ``CheckpointError``, soon and in little memory.

``python -m tests.io.fuzz --count 100000`` runs that many cases over the fixtures of all readers in
:data:`TARGETS`; ``--kind torch`` over those of one. A case is made of ``--seed``, the kind and its number
alone, so that a failure can be repeated with ``--kind K --seed S --first N --count 1``; its input is kept
in the folder ``--keep``. To register a format, add a line to :data:`TARGETS`.
"""

from __future__ import annotations

import argparse
import functools
import io
import itertools
import pickletools
import random
import resource
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tests.io.foreign import FIXTURES, PWNED

from brickwork.errors import CheckpointError
from brickwork.io._formats import read_source
from brickwork.io._source import Reader, Source
from brickwork.io._structure import fields_of
from brickwork.io.formats import _keras, _mxnet, _numpy, _paddle, _tensorflow, _torch

SECONDS = 2.0  # of the processor
MEGABYTES = 100  # beyond the size of the file


@dataclass(frozen=True)
class Target:
    """A reader, and the files to damage: patterns below the folder of fixtures."""

    kind: str
    read: Reader
    patterns: tuple[str, ...]

    @functools.cached_property
    def seeds(self) -> list[bytes]:
        paths = [path for pattern in self.patterns for path in sorted(FIXTURES.glob(pattern))]
        return [path.read_bytes() for path in paths if path.stat().st_size < 2**18 and path.suffix != ".json"]


TARGETS = [
    Target("torch", _torch.read, ("torch/*.pt", "torch/*.params", "torch/x-file*", "torch/mydict")),
    Target("paddle", _paddle.read, ("paddle*/*.pd*", "paddle*/x-file*", "paddle*/mydict")),
    Target("mxnet", _mxnet.read, ("mxnet/*.params", "mxnet/*x-file*", "mxnet/*mydict", "mxnet2/legacy*")),
    Target("keras", _keras.read, ("keras*/*.h5", "keras*/*.keras")),
    Target("tensorflow", _tensorflow.read, ("keras*/*.index", "keras/*.tensorproto")),
    Target("safetensors", read_source, ("torch/*.safetensors", "brickwork/*")),
    Target("any", read_source, ("*/*",)),
    Target("numpy", _numpy.read, ("mxnet2/[!l]*.params", "mxnet2/x-file*", "mxnet2/mydict", "keras/*.np[yz]")),
]


# --- mutations ------------------------------------------------------------------------------------

_NUMBERS = [
    0,
    1,
    2,
    127,
    128,
    255,
    256,
    2**15,
    2**16 - 1,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63 - 1,
    2**64 - 1,
]


def _truncate(data: bytes, rng: random.Random, other: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _flip(data: bytes, rng: random.Random, other: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _set_byte(data: bytes, rng: random.Random, other: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])]) + data[at + 1 :]


def _set_number(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """A length, an offset, a count ... or whatever is there."""
    width = rng.choice([1, 2, 4, 8])
    at = rng.randrange(len(data))
    number = rng.choice([*_NUMBERS, len(data), rng.getrandbits(64)]) % 256**width
    return data[:at] + number.to_bytes(width, rng.choice(["little", "big"])) + data[at + width :]


def _grow_number(data: bytes, rng: random.Random, other: bytes) -> bytes:
    width = rng.choice([1, 2, 4, 8])
    at = rng.randrange(len(data))
    number = int.from_bytes(data[at : at + width], "little")
    number = (number + rng.choice([-1, 1, 8, number, 255 * number])) % 256**width
    return data[:at] + number.to_bytes(width, "little") + data[at + width :]


def _insert(data: bytes, rng: random.Random, other: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice([1, 2, 4, 30])) + data[at:]


def _delete(data: bytes, rng: random.Random, other: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.choice([1, 2, 4, 8, 100]) :]


def _repeat(data: bytes, rng: random.Random, other: bytes) -> bytes:
    at = rng.randrange(len(data))
    part = data[at : at + rng.choice([1, 2, 5, 20, 200])]
    return data[:at] + part * rng.choice([2, 2, 3, 1000]) + data[at + len(part) :]


def _splice(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """A part of another file in the place of a part of this one."""
    at, size, start = rng.randrange(len(data)), rng.choice([1, 4, 16, 100, 1000]), rng.randrange(len(other))
    return data[:at] + other[start : start + size] + data[at + rng.choice([0, size]) :]


def _join(data: bytes, rng: random.Random, other: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other)) :]


_MUTATIONS: list[Callable[[bytes, random.Random, bytes], bytes]] = [
    *(_truncate, _flip, _flip, _set_byte, _set_byte, _set_number, _set_number, _grow_number, _grow_number),
    *(_insert, _delete, _repeat, _splice, _splice, _join),
]


def mutate(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """``data`` with one to four changes; ``other`` is a file to take parts of.

    Half of the changes are made near the beginning, where formats have most of their structure. Half of
    the zip archives are changed inside of a member and packed again, so that the checksums are right, and
    half of the pickles by whole opcodes, so that they go on.
    """
    if data.startswith(b"PK\x03\x04") and rng.random() < 0.5:
        return _mutate_member(data, rng, other)
    if data[:1] == b"\x80" and rng.random() < 0.5:
        return _mutate_opcodes(data, rng)
    head = rng.choice([len(data), len(data), 64, 512])
    head, rest = data[:head], data[head:]
    for _ in range(rng.choice([1, 1, 2, 4])):
        head = rng.choice(_MUTATIONS)(head, rng, other) if head else head
    return head + rest


def _opcodes(data: bytes) -> tuple[list[bytes], bytes]:
    """The opcodes of all pickles that ``data`` begins with, but for frames, and what follows."""
    at, found = 0, []
    while data[at : at + 1] == b"\x80":
        starts: list[int] = []
        try:
            starts += [at + (start or 0) for _, _, start in pickletools.genops(io.BytesIO(data[at:]))]
        except (ValueError, UnicodeDecodeError):  # a fixture that is damaged already
            break
        pieces = [data[start:stop] for start, stop in itertools.pairwise([*starts, starts[-1] + 1])]
        found += [piece for piece in pieces if piece[0] != 0x95]
        at = starts[-1] + 1
    return found, data[at:]


def _mutate_opcodes(data: bytes, rng: random.Random) -> bytes:
    opcodes, rest = _opcodes(data)
    if not opcodes:
        return _flip(data, rng, data)
    for _ in range(rng.choice([1, 1, 2, 4])):
        at, other = rng.randrange(len(opcodes)), rng.randrange(len(opcodes))
        count = rng.choice([1, 1, 2, 5])
        match rng.randrange(6):
            case 0:
                opcodes[at], opcodes[other] = opcodes[other], opcodes[at]
            case 1:
                opcodes[at : at + count] = opcodes[other : other + count]
            case 2:
                opcodes[at:at] = opcodes[other : other + count]
            case 3 if len(opcodes) > count:
                del opcodes[at : at + count]
            case 4:
                opcodes[at:at] = opcodes[at : at + count] * rng.choice([1, 10, 1000])
            case _:
                opcodes[at] = opcodes[at][:1] + _set_number(opcodes[at][1:] or b"0", rng, data)
        if not opcodes:
            break
    return b"".join(opcodes) + rest


def _mutate_member(data: bytes, rng: random.Random, other: bytes) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError):  # a fixture that is damaged already
        return _flip(data, rng, other)
    names = [name for name in members if members[name]]
    structure = [name for name in names if name.endswith((".pkl", ".npy", ".json"))]
    name = rng.choice(structure if structure and rng.random() < 0.8 else names)
    members[name] = mutate(members[name], rng, other) if members[name] else b""
    if rng.random() < 0.1:
        del members[rng.choice(list(members))]
    packed = io.BytesIO()
    with zipfile.ZipFile(
        packed, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    ) as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(name), member)
    return packed.getvalue()


def case(target: Target, seed: int, number: int) -> bytes:
    """The input of one case."""
    rng = random.Random(f"{seed}/{target.kind}/{number}")
    return mutate(rng.choice(target.seeds), rng, rng.choice(target.seeds))


# --- running --------------------------------------------------------------------------------------


def _peak() -> int:
    """The most memory that the process has had so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


_LEAVES = (np.ndarray, str, bytes, int, float, complex, type(None), set, frozenset)


def use(tree: Any, own: bool = False) -> None:
    """Look at all of a result: nothing but plain values, and the arrays can be read. Our own files may hold more."""
    if isinstance(tree, (list, tuple)):
        for item in tree:
            use(item, own)
    elif isinstance(tree, dict):
        for item in tree.values():
            use(item, own)
    elif own and (fields := fields_of(tree)):
        use([getattr(tree, name) for name in fields], own)
    elif own and isinstance(tree, jax.Array):
        use(np.asarray(jax.random.key_data(tree)))
    elif own and isinstance(tree, np.generic):
        use(tree.item())
    elif type(tree) not in _LEAVES and type(tree) is not bool:
        raise TypeError(f"a {type(tree).__name__} came out")
    elif isinstance(tree, np.ndarray) and tree.size:
        if tree.flags.writeable:
            raise TypeError("a writable array came out")
        tree[(0,) * tree.ndim], tree[(-1,) * tree.ndim]
        if tree.nbytes < 2**20:
            tree.tobytes()


def check(target: Target, data: bytes) -> str:
    """Read one input. Returns ``"read"`` or ``"refused"``; raises whatever else comes of it."""
    peak, start = _peak(), time.process_time()
    try:
        contents = target.read(Source("fuzz", np.frombuffer(data, np.uint8)))
        use(contents.tree, own=contents.kind == "brickwork")
        outcome = "read"
    except CheckpointError as error:
        if not str(error).startswith(("fuzz", "cannot load 'fuzz'")):
            raise ValueError(f"the message does not name the file: {error}") from error
        outcome = "refused"
    seconds, grown = time.process_time() - start, _peak() - peak
    if seconds > SECONDS:
        raise TimeoutError(f"it took {seconds:.1f} s")
    if grown > MEGABYTES * 10**6 + len(data):
        raise MemoryError(f"it took {grown / 1e6:.0f} MB for a file of {len(data):,} bytes")
    if PWNED.exists():
        raise PermissionError(f"it created {PWNED}")
    return outcome


def run(targets: list[Target], seed: int, first: int, count: int, keep: Path) -> int:
    """Run ``count`` cases, and return how many failed."""
    failed = 0
    PWNED.unlink(missing_ok=True)
    for i, target in enumerate(targets):
        outcomes: Counter[str] = Counter()
        share = count // len(targets) + (i < count % len(targets))
        start = time.perf_counter()
        for number in range(first, first + share):
            data = case(target, seed, number)
            try:
                outcomes[check(target, data)] += 1
            except Exception:
                path = keep / f"{target.kind}-{seed}-{number}"
                path.write_bytes(data)
                print(f"--kind {target.kind} --seed {seed} --first {number} --count 1 failed; its input is {path}")
                traceback.print_exc()
                PWNED.unlink(missing_ok=True)
                outcomes["FAILED"] += 1
        failed += outcomes["FAILED"]
        found = ", ".join(f"{n:,} {outcome}" for outcome, n in sorted(outcomes.items()))
        print(f"{target.kind}: {share:,} cases in {time.perf_counter() - start:.0f} s: {found}", flush=True)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.io.fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000, help="how many cases in all (default: 10000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case of each kind")
    parser.add_argument("--kind", choices=[target.kind for target in TARGETS], help="one kind only")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()), help="folder for inputs that failed")
    options = parser.parse_args()
    targets = [target for target in TARGETS if options.kind in (None, target.kind)]
    sys.exit(1 if run(targets, options.seed, options.first, options.count, options.keep) else 0)


if __name__ == "__main__":
    main()
