"""Networks out of files that say how to build them."""

from __future__ import annotations

import os
from typing import Any

from ...errors import CheckpointError, LoadError
from .._formats import read
from .._modules import load_module as load_into
from .._paths import checked_path
from ._known import Named
from ._record import ARCHITECTURE, build

__all__ = ["load_module"]

_SPARE = 4_000  # modules and parameters that a network may have for no array of the file
_SPARE_BYTES = 64 * 2**20  # of values that are drawn while it is built


def load_module(path: str | os.PathLike[str], classes: Named = None) -> Any:
    """Build the network that ``net.save(path, architecture=True)`` has saved, and load its values.

    Constructors are called with the arguments that they were called with before; what was changed afterwards, such as
    a layer that was replaced, parameters that were tied or frozen, or ``eval()``, is changed again. Nothing is imported
    or executed on the file's word: besides the layers and functions of brickwork and the activations of JAX only what
    is passed in ``classes`` is used.

    Args:
        path: the file.
        classes: classes of modules and functions that the network is made of: a list, or a dict from the names that
            the file has for them, where they were renamed. A class is found by its own name, whichever module it was
            in when the network was saved.

    Returns:
        The network.

    Raises:
        CheckpointError: the file can't be read, has no architecture, or needs classes that weren't passed; or the
            network can't be built from it.

    Example:
        >>> import os, tempfile
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax
        >>> net = nn.Sequential(nn.Linear(8), jax.nn.relu, nn.Linear(2)).initialize(bw.spec(1, 4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "net.safetensors")
        ...     net.save(path, architecture=True)
        ...     bw.load_module(path)
        Sequential(
          (0): Linear(4 → 8)
          (1): relu
          (2): Linear(8 → 2)
        )
    """
    path = checked_path(path, "load_module(path)")
    contents = read(path)
    text = contents.metadata.get(ARCHITECTURE)
    if text is None:
        raise CheckpointError(
            f"{path}: has no architecture, so the network can't be built from it; build it and call net.load(path), or "
            "save it with net.save(path, architecture=True)"
        )
    arrays = [x for x in contents.tree.values() if hasattr(x, "nbytes")] if isinstance(contents.tree, dict) else []
    most, most_bytes = _SPARE + 10 * len(arrays), _SPARE_BYTES + sum(x.nbytes for x in arrays)
    try:
        net = build(text, classes, most, most_bytes)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    try:
        load_into(net, path, strict=True, rename=None)
    except (
        LoadError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:  # all by what the file has made of the network
        raise CheckpointError(f"{path}: its arrays don't fit the network that it describes: {error}") from error
    return net
