"""The layers in files of MXNet's Gluon, Module and ``export``."""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Mapping

import numpy as np

from ...errors import LoadError
from ._match import Slot, Unit, Values, blank

__all__ = ["units"]

_ROLES = {
    "gamma": "weight",
    "beta": "bias",
    "alpha": "weight",
    "moving_mean": "running_mean",
    "moving_var": "running_var",
}
_PLAIN = re.compile(
    r"(?:(?P<path>.*)(?P<mark>[._]))?(?P<role>weight|bias|gamma|beta|alpha|(?:running|moving)_(?:mean|var)|rnn_param)"
)
# A part of a recurrent layer: rnn._unfused.0.l_cell.i2h_weight, rnn.l0_i2h_weight, lstm0_l0_i2h_weight; of a cell.
_RECURRENT = re.compile(
    r"(?:(?P<path>.*)(?P<mark>[._]))?"
    r"(?:_unfused\.(?P<layer>\d+)\.(?:(?P<side>[lr])_cell\.)?|(?P<way>[lr])(?P<level>\d+)_)"
    r"(?P<part>i2h|h2h|h2r)_(?P<what>weight|bias)"
)
_CELL = re.compile(r"(?:(?P<path>.*)(?P<mark>[._]))?(?P<part>i2h|h2h|h2r)_(?P<what>weight|bias)")
_PARTS = {"i2h": "ih", "h2h": "hh", "h2r": "hr"}
_SEQUENCES = frozenset({"lstm", "gru", "rnn"})


def units(tree: Mapping[str, np.ndarray], slots: list[Slot]) -> list[Unit]:
    """The layers in a file.

    A file of ``save_parameters`` has the paths of the layers. Those of a network differ from them at most in the
    numbers of positions, since layers of MXNet contain their activations. Files of other functions have names that
    MXNet made, with numbers in the order in which the layers were made.
    """
    layers: dict[tuple[str, bool], dict[str, tuple[str, np.ndarray]]] = {}
    for name, array in tree.items():
        path, role, structural = _split(name)
        roles = layers.setdefault((path, structural), {})
        if role in roles:
            raise LoadError(f"load: {roles[role][0]!r} and {name!r} are the same for brickwork; keep one of them")
        roles[role] = (name, array)
    known = {slot.name for slot in slots}
    moved = {blank(path) for path, structural in layers if structural and path not in known}
    sequence = _is_sequence([path for path, structural in layers if not structural])
    found = []
    for i, ((path, structural), roles) in enumerate(layers.items()):
        unit = Unit(
            path or "the file",
            dict(roles.values()),
            () if structural and _numbers(path, ".") and blank(path) in moved else (path,),
            _families(roles),
            functools.partial(_values, {role: array for role, (_, array) in roles.items()}),
        )
        if structural:
            unit.order, unit.row, unit.pattern = _numbers(path, "."), blank(path), blank(path)
        else:
            unit.order, unit.row = (i, None) if sequence else (_numbers(path, ""), re.sub(r"\d+", "#", path))
        found.append(unit)
    return found


def _split(name: str) -> tuple[str, str, bool]:
    """Path, role, and whether the path is that of the layer in the network."""
    name = re.sub(r"^(?:arg|aux):", "", name)
    found = _RECURRENT.fullmatch(name)
    if found:
        layer = found["layer"] or found["level"]
        reverse = "_reverse" if "r" in (found["side"], found["way"]) else ""
        role = f"{found['what']}_{_PARTS[found['part']]}_l{layer}{reverse}"
    elif found := _CELL.fullmatch(name):
        role = f"{found['what']}_{_PARTS[found['part']]}"
    elif found := _PLAIN.fullmatch(name):
        role = _ROLES.get(found["role"], found["role"])
    else:
        path, _, role = name.rpartition(".")
        return path, role, True
    return found["path"] or "", role, found["mark"] != "_"


def _numbers(path: str, mark: str) -> tuple[int, ...]:
    """The numbers in a path: those that are whole parts of it, or with ``mark=""`` all."""
    parts = path.split(".") if mark else re.findall(r"\d+", path)
    return tuple(int(part) for part in parts if part.isdecimal())


def _is_sequence(paths: list[str]) -> bool:
    """Whether the order of the file is that of the numbers in its names, so that it is that of the layers."""
    rows: dict[str, list[tuple[int, ...]]] = {}
    for path in paths:
        rows.setdefault(re.sub(r"\d+", "#", path), []).append(_numbers(path, ""))
    return max(map(len, rows.values()), default=0) > 1 and all(row == sorted(row) for row in rows.values())


def _families(roles: Mapping[str, tuple[str, np.ndarray]]) -> frozenset[str] | None:
    """What kinds of layers have these things."""
    originals = {name.rpartition(".")[2].rpartition("_")[2] for name, _ in roles.values()}
    if "running_mean" in roles:
        return frozenset({"batch_norm"})
    if "gamma" in originals:
        return frozenset({"layer_norm", "group_norm", "instance_norm"})
    if "alpha" in originals:
        return frozenset({"prelu"})
    if any(role.startswith(("weight_ih", "rnn_param")) for role in roles):
        return _SEQUENCES
    weight = roles.get("weight", ("", np.zeros(())))[1]
    if weight.ndim == 2:
        return frozenset({"dense"} if "bias" in roles else {"dense", "embedding"})
    if 3 <= weight.ndim <= 5:
        n = weight.ndim - 2
        return frozenset({f"conv{n}d", f"depthwise_conv{n}d", f"conv{n}d_transpose"})
    return None


def _values(roles: dict[str, np.ndarray], slot: Slot) -> Values | None:
    flat = roles.get("rnn_param")
    if flat is None:
        return roles
    if slot.family not in _SEQUENCES or any(role.startswith("weight_hr") for role in slot.shapes):
        return None
    return _unpacked(flat, slot)


def _unpacked(flat: np.ndarray, slot: Slot) -> Values | None:
    """The parts of the one array that MXNet 2 makes of a recurrent layer: all weights, then all biases."""
    weights = [role for role in slot.shapes if role.startswith("weight_")]
    roles = weights + [role for role in slot.shapes if role.startswith("bias_")]
    shapes = {role: [n for n in slot.shapes[role] if n is not None] for role in roles}
    first = [role for role in weights if len(shapes[role]) == 1]
    if first:  # the size of the input is not known yet: it is what makes the parts as long as the whole
        rest = flat.size - sum(math.prod(shapes[role]) for role in roles if role not in first)
        width = rest // sum(shapes[role][0] for role in first)
        for role in first:
            shapes[role].append(max(width, 0))
    ends = list(itertools.accumulate(math.prod(shapes[role]) for role in roles))
    if flat.ndim != 1 or ends[-1] != flat.size:
        return None
    parts = zip(roles, np.split(flat, ends[:-1]), strict=True)
    return {role: values.reshape(shapes[role]) for role, values in parts}
