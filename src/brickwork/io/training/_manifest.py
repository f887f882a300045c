"""The directory of a checkpoint: its name, its manifest, and which of several came when.

A checkpoint is a directory such as ``step_00001200`` with a few files and ``manifest.json``, which says what they
are and is written after them. All of it is written under a hidden name that ends in ``.tmp``, synced to disk and
then renamed. So a directory without a manifest is none of ours, and a hidden one was left by a process that died.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...errors import CheckpointError

__all__ = ["Entry", "FileRecord", "Manifest", "free_name", "leftovers", "scan", "temporary_name"]

MANIFEST = "manifest.json"
_FORMAT = 1
_MAX_BYTES = 10_000_000
_NAME = re.compile(r"step_(\d{8,18})(?:-(\d{1,9}))?")
_LEFTOVER = re.compile(r"\.step_\d{8,18}.*\.tmp")
_FILE_NAME = re.compile(r"[\w-][\w.-]*")


@dataclass(frozen=True)
class FileRecord:
    """Size of a file as it was written, and the CRC-32 of its header, which has those of the tensors."""

    size: int
    checksum: int


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says about itself.

    Attributes:
        step: the step it was saved at.
        written: when, in nanoseconds since 1970, and after those that were there.
        metrics: name -> value.
        files: name -> size and checksum.
    """

    step: int
    written: int
    metrics: dict[str, float]
    files: dict[str, FileRecord]

    def write(self, folder: Path) -> None:
        """Write it into a checkpoint's directory and sync it to disk."""
        body = {
            "format": _FORMAT,
            "step": self.step,
            "written": self.written,
            "time": datetime.fromtimestamp(self.written / 1e9, UTC).isoformat(timespec="seconds"),
            "metrics": {name: repr(value) for name, value in self.metrics.items()},  # JSON has no NaN
            "files": {
                name: {"bytes": record.size, "crc32": f"{record.checksum:08x}"} for name, record in self.files.items()
            },
        }
        with open(folder / MANIFEST, "x", encoding="utf-8") as file:
            json.dump(body | {"crc32": _checksum(body)}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read that of a checkpoint.

        Raises:
            CheckpointError: it is damaged.
        """
        path = folder / MANIFEST
        try:
            with open(path, "rb") as file:
                raw = file.read(_MAX_BYTES)
            body = json.loads(raw)
            if body.pop("crc32") != _checksum(body):
                raise ValueError("its contents are not those that were written")
            if body["format"] != _FORMAT:
                raise ValueError(f"it has format {body['format']!r}; install a newer brickwork")
            files = {name: FileRecord(x["bytes"], int(x["crc32"], 16)) for name, x in body["files"].items()}
            if not all(map(_FILE_NAME.fullmatch, files)):
                raise ValueError("it names a file in another directory")
            metrics = {name: float(value) for name, value in body["metrics"].items()}
            return cls(int(body["step"]), int(body["written"]), metrics, files)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: damaged: {error}") from error


def _checksum(body: Any) -> str:
    return f"{zlib.crc32(json.dumps(body, sort_keys=True).encode()):08x}"


@dataclass(frozen=True)
class Entry:
    """A checkpoint in a directory. ``manifest`` is ``None`` where it is damaged, and ``problem`` says how."""

    path: Path
    step: int
    written: int
    manifest: Manifest | None = None
    problem: CheckpointError | None = field(default=None, compare=False)

    def read(self) -> Manifest:
        """The manifest.

        Raises:
            CheckpointError: it is damaged.
        """
        if self.manifest is None:
            raise self.problem or CheckpointError(f"{self.path}: has no manifest")
        return self.manifest


def scan(directory: Path) -> tuple[list[Entry], list[Path]]:
    """The checkpoints in a directory, the one written last at the end; and those that a later one replaces.

    The step doesn't tell which came last: who goes back to an earlier checkpoint and trains on saves lower steps
    than there are, and some steps a second time.

    Raises:
        CheckpointError: the directory can't be read.
    """
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise CheckpointError(f"cannot read {str(directory)!r}: {error.strerror or error}") from error
    matches = ((directory / name, _NAME.fullmatch(name)) for name in names)
    found = [_entry(path, int(m[1])) for path, m in matches if m and (path / MANIFEST).is_file()]
    entries = sorted(found, key=lambda entry: (entry.written, entry.step))
    last = {entry.step: entry for entry in entries}
    replaced = [e.path for e in entries if last[e.step] is not e and last[e.step].manifest is not None]
    return [entry for entry in entries if last[entry.step] is entry], replaced


def _entry(path: Path, step: int) -> Entry:
    try:
        manifest = Manifest.read(path)
        if manifest.step != step:
            raise CheckpointError(f"{path / MANIFEST}: is that of step {manifest.step}; was the directory renamed?")
    except CheckpointError as error:
        try:
            written = os.stat(path / MANIFEST).st_mtime_ns
        except OSError:
            written = 0
        return Entry(path, step, written, None, error)
    return Entry(path, step, manifest.written, manifest)


def leftovers(directory: Path) -> list[Path]:
    """What processes that died while writing or deleting left behind."""
    return [directory / name for name in os.listdir(directory) if _LEFTOVER.fullmatch(name)]


def temporary_name(directory: Path, step: int) -> Path:
    """A new hidden name."""
    return directory / f".step_{step:08d}.{os.getpid()}-{secrets.token_hex(4)}.tmp"


def free_name(directory: Path, step: int) -> Path:
    """The name for a finished checkpoint: another one where that step has been saved before."""
    path, copy = directory / f"step_{step:08d}", 1
    while path.exists():
        copy += 1
        path = directory / f"step_{step:08d}-{copy}"
    return path
