"""Saving to files and loading from them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np

from ._container import write_container
from ._formats import FORMAT, KEY, read
from ._paths import Path, checked_path, replacing
from ._selection import Place, Shardings, chosen, placement
from ._structure import Encoder

__all__ = ["FileInfo", "load", "save"]


@dataclass(frozen=True)
class FileInfo:
    """What a file says besides its contents; ``load(path, with_metadata=True)`` returns it.

    Attributes:
        metadata: the ``metadata`` given to :func:`save`, or that of another tool's file.
        aliases: name -> the name under which the same array is stored, for dicts of arrays.
        kind: ``"brickwork"``, or the format of another tool: ``"safetensors"``, ``"torch"`` ...
    """

    metadata: dict[str, str]
    aliases: dict[str, str]
    kind: str


# --- saving ---------------------------------------------------------------------------------------


def save(
    path: Path,
    tree: Any,
    metadata: dict[str, str] | None = None,
    aliases: dict[str, str] | None = None,
) -> None:
    """Save a nest of arrays and plain values in one safetensors file.

    The nest may consist of dicts, lists, tuples, named tuples and dataclasses; of JAX and NumPy arrays of every
    dtype, JAX random keys and brickwork variables (their values are saved); and of numbers,
    strings, bytes and ``None``. :func:`load` gives all of it back, with three simplifications:
    subclasses of dict and list come back as dict and list; a named tuple or a dataclass comes back as one of a new
    class with the same name and fields; variables come back as JAX arrays. An array that occurs in
    several places is stored once and comes back as one object.

    Other tools read the file as well. The tensors of a flat dict are called as its keys, those of a
    nest by the keys joined with dots.

    A checksum of each tensor goes into the file, for ``load(path, verify=True)``.

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
    _save(checked_path(path, "save(path, tree)"), tree, metadata, aliases, Encoder())


def save_foreign(path: Path, tree: Any, metadata: dict[str, str], aliases: dict[str, str]) -> None:
    """Save what another framework's file held: its NumPy arrays come back as JAX arrays, as from that file."""
    known = {alias: name for alias, name in aliases.items() if name in tree}
    _save(os.fsdecode(path), tree, metadata, known, Encoder(numpy_as="array"))


def _save(
    path: str, tree: Any, metadata: dict[str, str] | None, aliases: dict[str, str] | None, encoder: Encoder
) -> None:
    metadata = _checked_metadata(metadata) | description(tree, encoder.encode(tree), aliases)
    with replacing(path) as file:
        write_container(file, encoder.tensors, metadata)


def description(tree: Any, encoded: Any, aliases: dict[str, str] | None) -> dict[str, str]:
    """Our entry in the metadata of a file with ``tree``, which is encoded already."""
    structure = {"format": FORMAT, "tree": encoded}
    tied = _aliases(tree, aliases)
    if tied:
        structure["aliases"] = tied
    return {KEY: json.dumps(structure, separators=(",", ":"), allow_nan=False)}


def _checked_metadata(metadata: dict[str, str] | None) -> dict[str, str]:
    found = dict(metadata or {})
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata takes strings only, got {key!r}: {value!r}")
        try:
            (key + value).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"metadata {key!r} is not valid Unicode text: {error}") from None
    if KEY in found:
        raise ValueError(f"metadata may not have the key {KEY!r}, which brickwork itself uses")
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


# --- loading --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Leaf:
    """An array of the file that nothing has touched yet."""

    kind: str
    name: str
    array: np.ndarray


@overload
def load(
    path: Path,
    with_metadata: Literal[False] = False,
    *,
    names: str | None = None,
    device: Any = None,
    sharding: Shardings | None = None,
    lazy: bool = False,
    verify: bool = False,
) -> Any: ...


@overload
def load(
    path: Path,
    with_metadata: Literal[True],
    *,
    names: str | None = None,
    device: Any = None,
    sharding: Shardings | None = None,
    lazy: bool = False,
    verify: bool = False,
) -> tuple[Any, FileInfo]: ...


def load(
    path: Path,
    with_metadata: bool = False,
    *,
    names: str | None = None,
    device: Any = None,
    sharding: Shardings | None = None,
    lazy: bool = False,
    verify: bool = False,
) -> Any:
    """Load what :func:`save` saved, or the checkpoint of another framework, found out from its bytes.

    The file is mapped into memory, not read: on a CPU the arrays use the mapped pages as they are.
    What was saved from JAX arrays comes back as JAX arrays, on the default device; what was saved
    from NumPy comes back as NumPy. Arrays of other frameworks come back as JAX arrays, under the names that their
    file uses. Arrays of 64 bits come back as read-only NumPy arrays while JAX
    is not in 64-bit mode, instead of losing half of their bits. Nothing in a file is executed.

    Replacing the file later, as :func:`save` does, leaves loaded arrays intact. Do not let other
    programs overwrite it in place while they are in use.

    Args:
        path: the file.
        with_metadata: also return a :class:`FileInfo`.
        names: a regular expression. Only arrays whose whole name matches are read, and come back as a flat dict by
            name; the name of an array in a nest is the path to it, joined with dots.
        device: the device to put JAX arrays on.
        sharding: how to spread JAX arrays over devices: a ``jax.sharding.Sharding`` for all of them, a dict from
            regular expressions on names to shardings, of which the first that matches is used, or a function of name
            and shape. Where none is given, the default device.
        lazy: give read-only NumPy arrays in the place of JAX arrays. They are views of the mapped file: their bytes
            are read from the disk at the first touch, and never if they aren't touched.
        verify: read the whole file and compare it with the checksums in it.

    Returns:
        What was saved, or the pair of it and the :class:`FileInfo`.

    Raises:
        CheckpointError: there is no such file (then also a ``FileNotFoundError``), or it is
            damaged, truncated or of another kind; the message says what is wrong at which byte.
        ValueError: ``names`` matches nothing.

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
    if lazy and (device is not None or sharding is not None):
        raise TypeError("load: lazy=True gives arrays that stay in the file; leave out device= and sharding=")
    path = checked_path(path, "load(path)")
    place = (lambda name, array: array) if lazy else placement(device, sharding)
    contents = read(path, verify)
    if names is None:
        tree = contents.build(lambda kind, name, array: _finished(kind, name, array, place, lazy))
    else:
        leaves = chosen(contents.build(_Leaf), _Leaf, names, path)
        tree = {name: _finished(leaf.kind, name, leaf.array, place, lazy) for name, leaf in leaves.items()}
    return (tree, FileInfo(contents.metadata, contents.aliases, contents.kind)) if with_metadata else tree


def _finished(kind: str, name: str, array: np.ndarray, place: Place, lazy: bool) -> Any:
    if kind == "numpy":
        return array if lazy else array.copy()
    return place(name, array)
