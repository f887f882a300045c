"""Writing one checkpoint so that it is there completely or not at all, and deleting those that may go."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from ...errors import CheckpointError
from .._paths import FilePermissionError, sync_folder
from ._lock import DirectoryLock
from ._manifest import Entry, Manifest, free_name, leftovers, scan, temporary_name
from ._snapshot import Snapshot

__all__ = ["Mode", "Publisher", "Rules", "best_of"]

Mode = Literal["min", "max"]


@dataclass(frozen=True)
class Rules:
    """Which checkpoints stay; see :class:`Checkpointer`."""

    keep: int | None
    keep_best: dict[str, Mode]
    keep_every: int | None

    def outdated(self, entries: list[Entry]) -> list[Entry]:
        """Those that may go. Damaged ones don't count and stay, for people to look at."""
        if self.keep is None:
            return []
        good = [entry for entry in entries if entry.manifest is not None]
        stay = {entry.path for entry in good[-self.keep :]}
        stay |= {entry.path for entry in good if self.keep_every and entry.step % self.keep_every == 0}
        best = (best_of(good, metric, mode) for metric, mode in self.keep_best.items())
        stay |= {entry.path for entry in best if entry is not None}
        return [entry for entry in good if entry.path not in stay]


def best_of(entries: list[Entry], metric: str, mode: Mode) -> Entry | None:
    """The checkpoint with the best value of a metric, the later one of equals; ``None`` if none has a number."""
    best, score = None, -math.inf
    for entry in entries:
        value = math.nan if entry.manifest is None else entry.manifest.metrics.get(metric, math.nan)
        if (-value if mode == "min" else value) >= score:  # false for NaN
            best, score = entry, -value if mode == "min" else value
    return best


class Publisher:
    """Writes checkpoints into a directory."""

    def __init__(self, directory: Path, lock: DirectoryLock, rules: Rules) -> None:
        self._directory, self._lock, self._rules = directory, lock, rules

    @property
    def ready(self) -> bool:
        """Whether the directory has been prepared."""
        return self._lock.taken

    def prepare(self) -> None:
        """Make the directory, lock it, and remove what processes that died have left half-written.

        Raises:
            CheckpointError: it can't be written to, or another process writes there.
        """
        try:
            os.makedirs(self._directory, exist_ok=True)
            if self._lock.acquire():
                for path in leftovers(self._directory):
                    shutil.rmtree(path)
        except CheckpointError:
            raise
        except OSError as error:
            self._fail(f"cannot write checkpoints in {str(self._directory)!r}", error)

    def publish(self, files: dict[str, Snapshot], step: int, metrics: dict[str, float]) -> None:
        """Write one checkpoint, then delete those that may go.

        Raises:
            CheckpointError: something could not be written or deleted.
        """
        try:
            self._write(files, step, metrics)
        except OSError as error:
            if isinstance(error, CheckpointError):
                raise
            size = sum(snapshot.nbytes for snapshot in files.values())
            there = [entry.step for entry in scan(self._directory)[0]]
            latest = f"the latest is that of step {there[-1]}" if there else "there is none yet"
            self._fail(
                f"cannot write the checkpoint of step {step} ({size:,} bytes) in {str(self._directory)!r}",
                error,
                f"; nothing of it was kept, and {latest}",
            )
        entries, replaced = scan(self._directory)
        for path in (*replaced, *(entry.path for entry in self._rules.outdated(entries))):
            try:
                self._delete(path, step)
            except OSError as error:
                self._fail(f"cannot delete the old checkpoint {str(path)!r}", error)

    def _write(self, files: dict[str, Snapshot], step: int, metrics: dict[str, float]) -> None:
        temporary = temporary_name(self._directory, step)
        os.mkdir(temporary)
        try:
            records = {name: snapshot.write(temporary / name) for name, snapshot in files.items()}
            self._lock.require()
            before = max((entry.written for entry in scan(self._directory)[0]), default=0)
            written = max(time.time_ns(), before + 1)  # clocks go back at times
            Manifest(step, written, metrics, records).write(temporary)
            sync_folder(os.fspath(temporary))
            os.rename(temporary, free_name(self._directory, step))
        except BaseException:
            with contextlib.suppress(OSError):  # what remains is removed by the next one to write here
                shutil.rmtree(temporary)
            raise
        sync_folder(os.fspath(self._directory))

    def _delete(self, path: Path, step: int) -> None:
        """Delete a checkpoint; at no instant is there a part of it under its name."""
        hidden = temporary_name(self._directory, step)
        os.rename(path, hidden)
        shutil.rmtree(hidden)

    def _fail(self, what: str, error: OSError, more: str = "") -> NoReturn:
        kind = FilePermissionError if isinstance(error, PermissionError) else CheckpointError
        better = kind(f"{what}: {error.strerror or error}{more}")
        better.errno = error.errno
        raise better from error
