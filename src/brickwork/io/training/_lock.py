"""A lock on a directory that the operating system takes back from a process that dies."""

from __future__ import annotations

import errno
import json
import os
import socket
import weakref
from pathlib import Path
from types import ModuleType

from ...errors import CheckpointError

__all__ = ["DirectoryLock"]

_ATTEMPTS = 10
_locks: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()


class DirectoryLock:
    """The right to write in a directory: one holder at a time, among processes and within one.

    The lock is that of the open file ``.lock`` (``flock``). The kernel releases it when the process ends, however
    that happens. The file says who holds it, for messages only, and is never deleted.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / ".lock"
        self._descriptor: int | None = None
        _locks.add(self)

    def acquire(self) -> bool:
        """Take the lock, if it isn't held already; returns whether it was taken just now.

        Raises:
            CheckpointError: somebody else holds it.
            OSError: the lock file can't be made.
        """
        if self._is_held():
            return False
        self.release()
        for _ in range(_ATTEMPTS):
            self._descriptor = self._locked()
            if self._is_held():
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, _identity().encode(), 0)
                return True
            self.release()  # somebody deleted the file between opening and locking it
        raise CheckpointError(f"cannot lock {str(self.directory)!r}: {self.path.name!r} is deleted again and again")

    def _locked(self) -> int:
        fcntl = _fcntl()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(os.pread(descriptor, 1000, 0))
            os.close(descriptor)
            raise CheckpointError(
                f"cannot write checkpoints in {str(self.directory)!r}: {holder} is writing there. Give each run a "
                "directory of its own; reading (restore, latest, best) is possible meanwhile"
            ) from None
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                error.strerror = "its file system can't lock files; use a directory on another one"
            raise
        return descriptor

    @property
    def taken(self) -> bool:
        """Whether the lock has been taken, and not given back."""
        return self._descriptor is not None

    def _is_held(self) -> bool:
        """Whether the lock is held, and on the file that others would try to lock."""
        if self._descriptor is None:
            return False
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False
        return os.path.samestat(os.fstat(self._descriptor), there)

    def require(self) -> None:
        """Make sure that the lock still is held.

        Raises:
            CheckpointError: the lock file was deleted meanwhile.
        """
        if not self._is_held():
            raise CheckpointError(
                f"{str(self.path)!r} was deleted while checkpoints were written, perhaps along with all that was there"
            )

    def release(self) -> None:
        """Give the lock back, if it is held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _fcntl() -> ModuleType:
    try:
        import fcntl
    except ImportError:
        raise CheckpointError(
            "Checkpointer locks its directory with fcntl, which this system (Windows) lacks"
        ) from None
    return fcntl


def _identity() -> str:
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname()})


def _holder(text: bytes) -> str:
    try:
        found = json.loads(text)
        pid, host = int(found["pid"]), str(found["host"])
    except (KeyError, TypeError, ValueError):
        return "another process"
    if (pid, host) == (os.getpid(), socket.gethostname()):
        return "another Checkpointer of this process, which has not been closed,"
    return f"process {pid} on host {host!r}"


def _forget() -> None:
    """In a forked child: close the inherited descriptors, which would keep the locks when the parent dies."""
    for lock in list(_locks):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
