"""From the names and layouts of other frameworks to those of a network.

PyTorch's are ours. MXNet calls some things otherwise and counts positions differently, Paddle keeps dense weights
the other way round, and Keras, in :mod:`._keras`, does nearly everything in its own way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ... import nn
from ..._state import entries
from ...core import ModuleBase
from ...core._parts import part
from ...core._variable import Variable
from ...core._walk import walk
from .._source import Contents
from . import _gluon as gluon, _keras as keras
from ._flatten import flattened, reordered
from ._match import Slot, Unit, match

__all__ = ["adapt", "family_of", "is_foreign", "modules_and_owners"]

_COUNT = "num_batches_tracked"  # which only PyTorch and brickwork keep


def is_foreign(kind: str) -> bool:
    """Whether files of this kind have other names or layouts than PyTorch's."""
    return kind in _LAYOUTS


def adapt(
    net: ModuleBase, contents: Contents, names: Mapping[str, str] | None = None, what: str = "the file"
) -> dict[str, Any]:
    """The arrays of a file as a state dict for a network: under its names, in its layouts.

    What has no place in the network keeps its name, so that loading it says so.

    Args:
        net: the network. Sizes that it does not know yet are taken as they come.
        contents: of the file: arrays by name.
        names: name in ``contents.tree`` -> the file's own name, for those that were renamed.
        what: how messages call the file.

    Raises:
        LoadError: it can't be told which of several layers is which.
        CheckpointError: what the file says about the model is damaged.

    Source:
        The layouts were checked by computing the outputs of each framework's own networks.
    """
    layout = _LAYOUTS.get(contents.kind)
    state: dict[str, Any] = dict(contents.tree)
    if layout is None:
        return state
    accepted = {entry.name for entry in entries(net, aliases=True)}
    if layout is not _gluon or not state.keys() <= accepted:
        state = layout(net, contents, names or {}, what)
    for entry in entries(net):
        if entry.name.rpartition(".")[2] == _COUNT and entry.name not in state:
            value = entry.variable.value
            state[entry.name] = part(value, entry.index, entry.axes) if entry.index else value
    return state


# --- the layers of the network --------------------------------------------------------------------

_FAMILIES: tuple[tuple[type, str], ...] = (
    (nn.Linear, "dense"),
    (nn.Embedding, "embedding"),
    (nn.Conv1d, "conv1d"),
    (nn.Conv2d, "conv2d"),
    (nn.Conv3d, "conv3d"),
    (nn.ConvTranspose1d, "conv1d_transpose"),
    (nn.ConvTranspose2d, "conv2d_transpose"),
    (nn.ConvTranspose3d, "conv3d_transpose"),
    (nn.BatchNorm1d, "batch_norm"),
    (nn.BatchNorm2d, "batch_norm"),
    (nn.BatchNorm3d, "batch_norm"),
    (nn.InstanceNorm1d, "instance_norm"),
    (nn.InstanceNorm2d, "instance_norm"),
    (nn.InstanceNorm3d, "instance_norm"),
    (nn.LayerNorm, "layer_norm"),
    (nn.GroupNorm, "group_norm"),
    (nn.RMSNorm, "rms_norm"),
    (nn.LSTM, "lstm"),
    (nn.GRU, "gru"),
    (nn.RNN, "rnn"),
    (nn.LSTMCell, "lstm"),
    (nn.GRUCell, "gru"),
    (nn.RNNCell, "rnn"),
    (nn.PReLU, "prelu"),
)


def family_of(module: Any) -> str:
    """What kind of layer a module is, such as ``"dense"``; ``""`` for those that no other framework has."""
    found = next((family for kind, family in _FAMILIES if isinstance(module, kind)), "")
    if not found.startswith("conv") or found.endswith("transpose"):
        return found
    # Where the number of channels is not known yet, this is what groups are mostly for.
    return f"depthwise_{found}" if module.groups > 1 and module.weight.shape[1] in (None, 1) else found


def modules_and_owners(net: ModuleBase) -> tuple[dict[str, Any], dict[int, Any]]:
    """The modules of a network by all their paths; and by the id of each variable the module that it belongs to."""
    modules: dict[str, Any] = {}
    owners: dict[int, Any] = {}
    for path, item in walk(net, aliases=True):
        if isinstance(item, Variable):
            owners.setdefault(id(item), modules.get(path.rpartition(".")[0]))
        else:
            modules[path] = item
    return modules, owners


def _slots(net: ModuleBase) -> list[Slot]:
    """The layers of a network that have something to be loaded, under all of their names."""
    modules, owners = modules_and_owners(net)
    slots: dict[str, Slot] = {}
    seen: set[Any] = set()
    for entry in entries(net, aliases=True):
        above, _, role = entry.name.rpartition(".")
        if not entry.variable.persistent or role == _COUNT:
            continue
        if above not in slots:
            module = modules.get(above, owners[id(entry.variable)])
            key = (id(module) if module is not None else above, entry.index)
            slots[above] = Slot(above, module, family_of(module), key, alias=key in seen)
            seen.add(key)
        slots[above].entries[role] = entry.name
        slots[above].shapes[role] = entry.part_of(entry.variable.shape)
    return list(slots.values())


def _state(units: Sequence[Unit], found: Mapping[Unit, Slot]) -> dict[str, Any]:
    """The values of all units under the names of the slots that they belong to."""
    state: dict[str, Any] = {}
    for unit in units:
        slot = found.get(unit)
        values = None if slot is None else unit.values(slot)
        if slot is None or values is None:
            state |= unit.arrays
            continue
        for role, array in values.items():
            state[slot.entries.get(role, f"{slot.name}.{role}".removeprefix("."))] = array
    return state


# --- MXNet, Paddle, Keras -------------------------------------------------------------------------


def _gluon(net: ModuleBase, contents: Contents, names: Mapping[str, str], what: str) -> dict[str, Any]:
    slots = _slots(net)
    units = gluon.units(contents.tree, slots)
    return _state(units, match(units, slots, what))


def _keras(net: ModuleBase, contents: Contents, names: Mapping[str, str], what: str) -> dict[str, Any]:
    slots = keras.single(_slots(net))
    units, rest = keras.units(contents, names, what)
    found = match(units, slots, what)
    state = rest | _state(units, found)
    channels: dict[str, int] = {}  # of the flattened images that dense layers take
    unsaid: dict[str, int] = {}  # number of inputs where the file doesn't say whether they are one
    for unit, slot in found.items():
        weight = state.get(slot.entries["weight"]) if slot.family == "dense" else None
        if unit.channels is None or weight is None or weight.ndim != 2:
            continue
        if unit.channels and weight.shape[1] % unit.channels == 0:
            channels[slot.name] = unit.channels
        else:
            unsaid[slot.name] = weight.shape[1]
    for name, count in (channels | flattened(net, unsaid, what)).items():
        weight = f"{name}.weight".removeprefix(".")
        state[weight] = reordered(state[weight], count)
    return state


_PADDLE_CELL = re.compile(r"((?:.+\.)?)(\d+)\.cell(_fw|_bw)?\.((?:weight|bias)_[ih]h)")
_PADDLE_ROLES = {"_mean": "running_mean", "_variance": "running_var", "_weight": "weight"}


def _paddle(net: ModuleBase, contents: Contents, names: Mapping[str, str], what: str) -> dict[str, Any]:
    """Paddle's names are ours but for BatchNorm's, and recurrent layers list everything twice."""
    slots = {slot.name: slot for slot in _slots(net)}
    state: dict[str, Any] = {}
    for name, array in contents.tree.items():
        cell = _PADDLE_CELL.fullmatch(name)
        if cell is not None:
            reverse = "_reverse" if cell[3] == "_bw" else ""
            if f"{cell[1]}{cell[4]}_l{cell[2]}{reverse}" in contents.tree:
                continue
        above, dot, role = name.rpartition(".")
        slot = slots.get(above)
        if slot is not None and role not in slot.entries:
            role = _PADDLE_ROLES.get(role, role)
        if slot is not None and slot.family == "dense" and role == "weight" and array.ndim == 2:
            array = array.T
        state[f"{above}{dot}{role}"] = array
    return state


_LAYOUTS = {"mxnet": _gluon, "numpy": _gluon, "paddle": _paddle, "keras": _keras, "tensorflow": _keras}
