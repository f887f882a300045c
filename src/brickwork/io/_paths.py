"""Paths in arguments and messages, and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import difflib
import os
import secrets
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO, NoReturn

from ..errors import CheckpointError

__all__ = [
    "FilePermissionError",
    "MissingFileError",
    "NotAFileError",
    "Path",
    "checked_path",
    "fail",
    "opened",
    "replacing",
    "shown",
    "sync_folder",
]

Path = str | os.PathLike[str]


class MissingFileError(CheckpointError, FileNotFoundError):
    """There is no such file."""


class NotAFileError(CheckpointError, IsADirectoryError):
    """The path is a directory or something else that is no file."""


class FilePermissionError(CheckpointError, PermissionError):
    """The operating system does not permit it."""


def checked_path(path: Any, usage: str) -> str:
    """``path`` as a string; ``usage`` shows the right call in the message where it is none."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            f"path must be a string or a pathlib.Path, got {type(path).__name__}; the path comes first: {usage}"
        )
    return os.fsdecode(path)


def fail(kind: type[CheckpointError], message: str, cause: OSError | None = None) -> NoReturn:
    """Raise a ``CheckpointError`` that carries the number of the system's error."""
    error = kind(message)
    if cause is not None:
        error.errno = cause.errno
    raise error from cause


def shown(path: str) -> str:
    """The path as given, and where that is unless it says so itself."""
    where = os.path.abspath(path)
    return repr(path) if where == path else f"{path!r} ({where})"


# --- writing --------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` if the block succeeds, and else disappears."""
    target = os.path.realpath(path)  # a link stays a link
    folder, base = os.path.split(target)
    mode = _writable_mode(path, target, folder)
    temporary = os.path.join(folder, f".{base[:60]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb", opener=lambda p, flags: os.open(p, flags, 0o666)) as file:
            try:
                if mode is not None:
                    os.chmod(temporary, mode)
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, target)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        sync_folder(folder)
    except CheckpointError:
        raise
    except OSError as error:
        kind = FilePermissionError if isinstance(error, PermissionError) else CheckpointError
        was = "; the file that was there is unchanged" if os.path.exists(target) else ""
        fail(kind, f"cannot write {shown(path)}: {error.strerror or error}{was}", error)


def _writable_mode(path: str, target: str, folder: str) -> int | None:
    """Permissions of the file to be replaced, or ``None`` where there is none."""
    if not os.path.isdir(folder):
        fail(
            MissingFileError,
            f"cannot write {shown(path)}: the directory {folder!r} does not exist; create it with os.makedirs first",
        )
    try:
        found = os.stat(target).st_mode
    except OSError:
        return None
    if stat.S_ISDIR(found):
        fail(NotAFileError, f"cannot write {shown(path)}: it is a directory; give the name of a file in it")
    if not stat.S_ISREG(found):
        fail(NotAFileError, f"cannot write {shown(path)}: it is not a regular file")
    return stat.S_IMODE(found)


def sync_folder(folder: str) -> None:
    """Make what was renamed in a directory survive a crash of the machine."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- reading --------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """The regular file at ``path``, open for reading; every failure is a ``CheckpointError``."""
    try:
        with open(path, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                fail(NotAFileError, f"cannot load {shown(path)}: it is not a regular file")
            yield file
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        fail(MissingFileError, f"cannot load {shown(path)}: {_why_missing(path)}", error)
    except OSError as error:
        kind = FilePermissionError if isinstance(error, PermissionError) else CheckpointError
        fail(kind, f"cannot load {shown(path)}: {error.strerror or error}", error)


def _why_missing(path: str) -> str:
    folder, base = os.path.split(os.path.abspath(path))
    if not os.path.isdir(folder):
        home = "; ~ is not expanded, use os.path.expanduser" if path.startswith("~") else ""
        return f"the directory {folder!r} does not exist{home}"
    names = sorted(os.listdir(folder))
    close = [name for name in names if name.startswith(base + ".")]
    close += [x for x in difflib.get_close_matches(base, names, n=3) if x not in close]
    hint = f"; did you mean {' or '.join(map(repr, close[:3]))}?" if close else ""
    return f"there is no such file{hint}"
