"""Saving to files and loading from them."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, NoReturn, overload

import jax
import numpy as np

from ..errors import CheckpointError
from ._container import Container, read_container, write_container
from ._kinds import HEAD, is_safetensors, name_kind
from ._structure import Encoder, decode

__all__ = ["FileInfo", "load", "save"]

_KEY = "brickwork"  # our entry in the metadata of a safetensors file
_FORMAT = 1
_Path = str | os.PathLike[str]


class MissingFileError(CheckpointError, FileNotFoundError):
    """There is no such file."""


class NotAFileError(CheckpointError, IsADirectoryError):
    """The path is a directory or something else that is no file."""


class FilePermissionError(CheckpointError, PermissionError):
    """The operating system does not permit it."""


@dataclass(frozen=True)
class FileInfo:
    """What a file says besides its contents; ``load(path, with_metadata=True)`` returns it.

    Attributes:
        metadata: the ``metadata`` given to :func:`save`, or that of another tool's file.
        aliases: name -> the name under which the same array is stored, for dicts of arrays.
        kind: ``"brickwork"`` or ``"safetensors"``, by who wrote it.
    """

    metadata: dict[str, str]
    aliases: dict[str, str]
    kind: str


# --- saving ---------------------------------------------------------------------------------------


def save(
    path: _Path,
    tree: Any,
    metadata: dict[str, str] | None = None,
    aliases: dict[str, str] | None = None,
) -> None:
    """Save a nest of arrays and plain values in one safetensors file.

    The nest may consist of dicts, lists, tuples and named tuples; of JAX and NumPy arrays of every
    dtype, JAX random keys and brickwork variables (their values are saved); and of numbers,
    strings, bytes and ``None``. :func:`load` gives all of it back, with three simplifications:
    subclasses of dict and list come back as dict and list; a named tuple comes back as one of a new
    class with the same name and fields; variables come back as JAX arrays. An array that occurs in
    several places is stored once and comes back as one object.

    Other tools read the file as well. The tensors of a flat dict are called as its keys, those of a
    nest by the keys joined with dots.

    The file is written beside its final place, synced to disk and renamed: after a crash there is
    the old file or the new one. A new file gets its permissions from the umask, an existing one
    keeps them.

    Args:
        path: where to. No ending is added.
        tree: what to save.
        metadata: more strings for the file, which every safetensors reader shows.
        aliases: for a dict of arrays, other names of entries (``alias -> name``). A name that is in
            ``tree`` itself must be bound to the same array.

    Raises:
        TypeError: the tree holds something that cannot be saved; the message says where.
        CheckpointError: the file cannot be written; an ``OSError``.

    Example:
        >>> import os, tempfile
        >>> import jax.numpy as jnp
        >>> from brickwork.io import load, save
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "state.safetensors")
        ...     save(path, {"weights": [jnp.ones(3)], "step": 7})
        ...     load(path)
        {'weights': [Array([1., 1., 1.], dtype=float32)], 'step': 7}
    """
    path = _path(path)
    metadata = _checked_metadata(metadata)
    encoder = Encoder()
    structure = {"format": _FORMAT, "tree": encoder.encode(tree)}
    tied = _aliases(tree, aliases)
    if tied:
        structure["aliases"] = tied
    metadata[_KEY] = json.dumps(structure, separators=(",", ":"), allow_nan=False)
    with _replacing(path) as file:
        write_container(file, encoder.tensors, metadata)


def _checked_metadata(metadata: dict[str, str] | None) -> dict[str, str]:
    found = dict(metadata or {})
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata takes strings only, got {key!r}: {value!r}")
        try:
            (key + value).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"metadata {key!r} is not valid Unicode text: {error}") from None
    if _KEY in found:
        raise ValueError(f"metadata may not have the key {_KEY!r}, which brickwork itself uses")
    return found


def _aliases(tree: Any, given: dict[str, str] | None) -> dict[str, str]:
    """The given aliases and those that ``tree`` itself has, if it is a flat dict of arrays."""
    flat = isinstance(tree, dict) and all(
        isinstance(key, str) and (hasattr(value, "dtype") and hasattr(value, "shape")) for key, value in tree.items()
    )
    if not flat:
        if given:
            raise TypeError("aliases go with a flat dict of names and arrays only")
        return {}
    arrays = {k: v.__jax_array__() if hasattr(v, "__jax_array__") else v for k, v in tree.items()}
    first = {id(array): name for name, array in reversed(arrays.items())}
    tied = {k: first[id(array)] for k, array in arrays.items() if first[id(array)] != k}
    for alias, name in (given or {}).items():
        if name not in arrays:
            raise ValueError(f"aliases: {alias!r} stands for {name!r}, which is not in the tree")
        if alias in arrays and arrays[alias] is not arrays[name]:
            raise ValueError(f"aliases: {alias!r} and {name!r} are both in the tree and differ")
        if alias not in arrays:
            tied[alias] = first[id(arrays[name])]
    return tied


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[BinaryIO]:
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
        _sync_folder(folder)
    except CheckpointError:
        raise
    except OSError as error:
        kind = FilePermissionError if isinstance(error, PermissionError) else CheckpointError
        was = "; the file that was there is unchanged" if os.path.exists(target) else ""
        _fail(kind, f"cannot write {_shown(path)}: {error.strerror or error}{was}", error)


def _writable_mode(path: str, target: str, folder: str) -> int | None:
    """Permissions of the file to be replaced, or ``None`` where there is none."""
    if not os.path.isdir(folder):
        _fail(
            MissingFileError,
            f"cannot write {_shown(path)}: the directory {folder!r} does not exist; create it with os.makedirs first",
        )
    try:
        found = os.stat(target).st_mode
    except OSError:
        return None
    if stat.S_ISDIR(found):
        _fail(
            NotAFileError,
            f"cannot write {_shown(path)}: it is a directory; give the name of a file in it",
        )
    if not stat.S_ISREG(found):
        _fail(NotAFileError, f"cannot write {_shown(path)}: it is not a regular file")
    return stat.S_IMODE(found)


def _sync_folder(folder: str) -> None:
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- loading --------------------------------------------------------------------------------------


@overload
def load(path: _Path, with_metadata: Literal[False] = False) -> Any: ...


@overload
def load(path: _Path, with_metadata: Literal[True]) -> tuple[Any, FileInfo]: ...


def load(path: _Path, with_metadata: bool = False) -> Any:
    """Load what :func:`save` saved, or any safetensors file as a dict of its arrays.

    The file is mapped into memory, not read: on a CPU the arrays use the mapped pages as they are.
    What was saved from JAX arrays comes back as JAX arrays, on the default device; what was saved
    from NumPy comes back as NumPy. Arrays of 64 bits come back as read-only NumPy arrays while JAX
    is not in 64-bit mode, instead of losing half of their bits. Nothing in a file is executed.

    Replacing the file later, as :func:`save` does, leaves loaded arrays intact. Do not let other
    programs overwrite it in place while they are in use.

    Args:
        path: the file.
        with_metadata: also return a :class:`FileInfo`.

    Returns:
        What was saved, or the pair of it and the :class:`FileInfo`.

    Raises:
        CheckpointError: there is no such file (then also a ``FileNotFoundError``), or it is
            damaged, truncated or of another kind; the message says what is wrong at which byte.

    Example:
        >>> import os, tempfile
        >>> import jax.numpy as jnp
        >>> from brickwork.io import load, save
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "x.safetensors")
        ...     save(path, {"x": jnp.arange(3)}, metadata={"author": "me"})
        ...     tree, info = load(path, with_metadata=True)
        >>> tree, info.metadata
        ({'x': Array([0, 1, 2], dtype=int32)}, {'author': 'me'})
    """
    container = _open_container(_path(path))
    metadata = dict(container.metadata)
    text = metadata.pop(_KEY, None)
    if text is None:
        tree = {name: _to_jax(array) for name, array in container.tensors.items()}
        aliases = {k: v for k, v in metadata.items() if v in tree and k not in tree}
        info = FileInfo(metadata, aliases, "safetensors")
    else:
        tree, aliases = _decode(container, text)
        info = FileInfo(metadata, aliases, "brickwork")
    return (tree, info) if with_metadata else tree


def _open_container(path: str) -> Container:
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                _fail(NotAFileError, f"cannot load {_shown(path)}: it is not a regular file")
            head = file.read(HEAD)
            if len(head) > 8 and is_safetensors(head):
                return read_container(path, file, status.st_size)
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        _fail(MissingFileError, f"cannot load {_shown(path)}: {_why_missing(path)}", error)
    except IsADirectoryError as error:
        _fail(NotAFileError, f"cannot load {_shown(path)}: {_inside(path)}", error)
    except OSError as error:
        kind = FilePermissionError if isinstance(error, PermissionError) else CheckpointError
        _fail(kind, f"cannot load {_shown(path)}: {error.strerror or error}", error)
    if len(head) <= 8:
        reason = f"it has {len(head)} bytes, too few for any checkpoint" if head else "it is empty"
        _fail(CheckpointError, f"cannot load {_shown(path)}: {reason}")
    kind = name_kind(head, path)
    if kind is None:
        _fail(
            CheckpointError,
            f"cannot load {_shown(path)}: it is not a safetensors file, nor of any other kind "
            f"that is recognised; it begins with {head[:16]!r}",
        )
    what, advice = kind
    _fail(
        CheckpointError,
        f"cannot load {_shown(path)}: this looks like {what}, and only safetensors files can be loaded; {advice}",
    )


def _decode(container: Container, text: str) -> tuple[Any, dict[str, str]]:
    try:
        structure = json.loads(text)
        if not isinstance(structure, dict) or type(structure.get("format")) is not int:
            raise ValueError("it does not say its format")
        if structure["format"] != _FORMAT:
            raise ValueError(
                f"it has format {structure['format']}, this version of brickwork reads format "
                f"{_FORMAT}; install a newer brickwork"
            )
        if "tree" not in structure:
            raise ValueError("it has no tree")
        aliases = structure.get("aliases", {})
        if not isinstance(aliases, dict) or not all(isinstance(v, str) for v in aliases.values()):
            raise ValueError("its aliases are not an object of strings")
        return decode(structure["tree"], container.tensors, _to_jax), aliases
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:
        reason = str(error)
    raise CheckpointError(f"{container.path}: the structure in the metadata entry {_KEY!r} is not valid: {reason}")


def _to_jax(array: np.ndarray) -> Any:
    """A JAX array with these values; NumPy's where JAX cannot hold them."""
    if array.dtype.name.startswith("float6_"):
        return array
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        return array
    with jax.ensure_compile_time_eval():
        return jax.device_put(array)


# --- paths and messages ---------------------------------------------------------------------------


def _path(path: Any) -> str:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            f"path must be a string or a pathlib.Path, got {type(path).__name__}; the path comes "
            "first: save(path, tree)"
        )
    return os.fsdecode(path)


def _fail(kind: type[CheckpointError], message: str, cause: OSError | None = None) -> NoReturn:
    error = kind(message)
    if cause is not None:
        error.errno = cause.errno
    raise error from cause


def _shown(path: str) -> str:
    """The path as given, and where that is unless it says so itself."""
    where = os.path.abspath(path)
    return repr(path) if where == path else f"{path!r} ({where})"


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


def _inside(path: str) -> str:
    found = [name for name in sorted(os.listdir(path)) if name.endswith(".safetensors")]
    listed = ", ".join(map(repr, found[:5])) + (", ..." if len(found) > 5 else "")
    return "it is a directory" + (f"; it contains {listed}" if found else "")
