"""Networks in the files of other frameworks."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from .._state import entries
from ..errors import CheckpointError
from ..module import Module
from ._modules import aliases_of
from ._paths import Path, checked_path, replacing
from .formats._writers import WRITERS
from .layouts._adapt import family_of, modules_and_owners

__all__ = ["save_as"]

_COUNT = "num_batches_tracked"  # which only PyTorch keeps
_SCALED = frozenset({"batch_norm", "layer_norm", "group_norm", "instance_norm"})
_PART = re.compile(r"(weight|bias)_(ih|hh|hr)_l(\d+)(_reverse)?")

Naming = Callable[[str, np.ndarray, Any], dict[str, np.ndarray]]  # role, values, layer -> values by the names below it


def save_as(kind: str, net: Module, path: Path) -> None:
    """Save a network's parameters and buffers in the format, the names and the layouts of another framework.

    ==============  ===========================================================================================
    ``"torch"``     safetensors, as ``safetensors.torch.load_model(net, path)`` reads it: of tied parameters one
                    is stored and the others are named in the metadata.
    ``"mxnet"``     what ``net.load_parameters(path)`` of MXNet's Gluon reads. Positions in a ``Sequential`` are
                    ours, whose activations are layers.
    ``"paddle"``    a ``.pdparams`` file for ``net.set_state_dict(paddle.load(path))``.
    ==============  ===========================================================================================

    The names are the paths in the network; a network of the other framework fits if its attributes have the same
    names. Keras names weights by the order of a model's layers, which a network alone doesn't tell: in Keras, read
    the safetensors file and call ``layer.set_weights``.

    Args:
        kind: the framework.
        net: the network. Its shapes must be known.
        path: the file, replaced atomically.

    Raises:
        ValueError: ``kind`` is none of these.
        CheckpointError: the file can't be written, or the format can't hold a dtype or a layer of the network.
        DeferredShapeError: a shape is not known yet.

    Example:
        >>> import os, tempfile
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> net = nn.Sequential(nn.Linear(3, in_features=2), nn.BatchNorm1d(num_features=3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "net.params")
        ...     bw.save_as("mxnet", net, path)
        ...     list(bw.load(path))
        ['0.weight', '0.bias', '1.gamma', '1.beta', '1.running_mean', '1.running_var']
    """
    if isinstance(kind, Module):
        raise TypeError("save_as: the kind comes first: save_as('torch', net, path)")
    if not isinstance(kind, str) or kind not in _NAMINGS:
        more = "; Keras files can't be written, see help(brickwork.save_as)" if kind == "keras" else ""
        raise ValueError(f"save_as: kind must be one of {', '.join(map(repr, _NAMINGS))}, got {kind!r}{more}")
    if not isinstance(net, Module):
        raise TypeError(f"save_as: expected a module after the kind, got {type(net).__name__}")
    path = checked_path(path, f"save_as({kind!r}, net, path)")
    net.prepare_state()
    arrays = _named(net, _NAMINGS[kind])
    with replacing(path) as file:
        WRITERS[kind](file, arrays)


def _named(net: Module, naming: Naming) -> dict[str, np.ndarray]:
    """All values by the other framework's names; those of tied variables are one object."""
    state: dict[str, Any] = net.state_dict()
    tied, (_, owners) = aliases_of(net), modules_and_owners(net)
    found: dict[str, np.ndarray] = {}
    made: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for entry in entries(net, aliases=True):
        if not entry.variable.persistent:
            continue
        above, _, role = entry.name.rpartition(".")
        stored = tied.get(entry.name, entry.name)
        if (stored, role) not in made:
            values = np.asarray(jax.device_get(state[stored]))
            made[stored, role] = naming(role, values, owners[id(entry.variable)])
        for new, values in made[stored, role].items():
            found[f"{above}.{new}".removeprefix(".")] = values
    return found


def _torch(role: str, values: np.ndarray, layer: Any) -> dict[str, np.ndarray]:
    return {role: values}


def _mxnet(role: str, values: np.ndarray, layer: Any) -> dict[str, np.ndarray]:
    family = family_of(layer)
    if role == _COUNT:
        return {}
    if family in _SCALED:
        return {{"weight": "gamma", "bias": "beta"}.get(role, role): values}
    if family == "prelu":
        return {"alpha": values}
    part = _recurrent(role, family, "MXNet's parameters")
    if part is None:
        return {role: values}
    what, which, level, reverse = part
    side = f"{'r' if reverse else 'l'}_cell." if layer.bidirectional else ""
    return {f"_unfused.{level}.{side}{which[0]}2h_{what}": values}


def _paddle(role: str, values: np.ndarray, layer: Any) -> dict[str, np.ndarray]:
    family = family_of(layer)
    if role == _COUNT:
        return {}
    if family == "batch_norm":
        return {{"running_mean": "_mean", "running_var": "_variance"}.get(role, role): values}
    if family == "prelu":
        return {"_weight": values}
    if family == "dense" and role == "weight":
        return {role: np.ascontiguousarray(values.T)}
    part = _recurrent(role, family, "Paddle's layers")
    if part is None:
        return {role: values}
    what, which, level, reverse = part
    cell = "cell" + (("_bw" if reverse else "_fw") if layer.bidirectional else "")
    return {role: values, f"{level}.{cell}.{what}_{which}": values}  # Paddle lists them twice


def _recurrent(role: str, family: str, who: str) -> tuple[str, str, str, str | None] | None:
    """Weight or bias, of what, level and direction of a part of a recurrent layer; ``None`` for anything else."""
    part = _PART.fullmatch(role) if family in ("lstm", "gru", "rnn") else None
    if part is None:
        return None
    if part[2] == "hr":
        raise CheckpointError(f"save_as: {who} can't hold {role!r}, the projection of a recurrent layer")
    return part[1], part[2], part[3], part[4]


_NAMINGS: dict[str, Naming] = {"torch": _torch, "mxnet": _mxnet, "paddle": _paddle}
