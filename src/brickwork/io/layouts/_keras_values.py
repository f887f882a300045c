"""The variables of one layer of Keras in the layout of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import LoadError
from ._match import Slot, Values

__all__ = ["CELLS", "KINDS", "RECURRENT", "ROLES", "families_of", "values_for"]

_KERNEL = ("kernel", "bias")
_CELL = ("kernel", "recurrent_kernel", "bias")
# Class of Keras' layer -> family of ours, and the names of its variables in their order.
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "dense": ("dense", _KERNEL),
    **{f"conv{n}d": (f"conv{n}d", _KERNEL) for n in (1, 2, 3)},
    **{f"conv{n}d_transpose": (f"conv{n}d_transpose", _KERNEL) for n in (1, 2, 3)},
    **{f"depthwise_conv{n}d": (f"depthwise_conv{n}d", _KERNEL) for n in (1, 2)},
    "batch_normalization": ("batch_norm", ("gamma", "beta", "moving_mean", "moving_variance")),
    "layer_normalization": ("layer_norm", ("gamma", "beta")),
    "group_normalization": ("group_norm", ("gamma", "beta")),
    "rms_normalization": ("rms_norm", ("scale",)),
    "embedding": ("embedding", ("embeddings",)),
    "lstm": ("lstm", _CELL),
    "gru": ("gru", _CELL),
    "simple_rnn": ("rnn", _CELL),
    "p_re_lu": ("prelu", ("alpha",)),
}
ROLES = frozenset(role for _, roles in KINDS.values() for role in roles) | {"depthwise_kernel"}
RECURRENT = frozenset({"lstm", "gru", "rnn"})
CELLS = {"lstm_cell": "lstm", "gru_cell": "gru", "simple_rnn_cell": "simple_rnn"}
_ROLES_OF = dict(KINDS.values())
_NORMS = frozenset({"batch_norm", "layer_norm", "group_norm", "instance_norm"})
_NORM_ROLES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def families_of(roles: Mapping[str, np.ndarray]) -> frozenset[str] | None:
    """What kinds of layers have variables with these names."""
    if "recurrent_kernel" in roles:
        return RECURRENT
    if "moving_mean" in roles:
        return frozenset({"batch_norm"})
    if "gamma" in roles or "beta" in roles:
        return frozenset({"layer_norm", "group_norm"})
    for role, family in (("embeddings", "embedding"), ("alpha", "prelu"), ("scale", "rms_norm")):
        if role in roles:
            return frozenset({family})
    kernel = roles.get("depthwise_kernel", roles.get("kernel"))
    if kernel is None or not 2 <= kernel.ndim <= 5:
        return None
    if kernel.ndim == 2:
        return frozenset({"dense"})
    depthwise = f"depthwise_conv{kernel.ndim - 2}d"
    plain = () if "depthwise_kernel" in roles else (f"conv{kernel.ndim - 2}d", f"conv{kernel.ndim - 2}d_transpose")
    return frozenset({depthwise, *plain})


def values_for(
    slot: Slot,
    roles: Sequence[str] | None,
    arrays: Sequence[np.ndarray],
    settings: Mapping[str, Any] | None,
    label: str,
) -> Values | None:
    """The values for a layer of the network by its own roles; ``None`` if the variables can't be those of its kind.

    Args:
        slot: the layer of the network.
        roles: what the variables are; without it, they are what a layer of this kind has, in Keras' order.
        arrays: the variables.
        settings: the configuration of Keras' layer, if the file has it.
        label: how messages call the layer of the file.

    Raises:
        LoadError: a layer of ours can't do what Keras' layer does, or the file doesn't say which variable is which.
    """
    family = slot.family.removesuffix("_reverse")
    if roles is None:
        roles = _roles(family, len(arrays), settings, label)
    if roles is None or len(roles) != len(arrays):
        return None
    given = {role: np.asarray(array) for role, array in zip(roles, arrays, strict=True)}
    if family in _NORMS:
        return _norm(given, slot)
    if family in RECURRENT:
        return _recurrent(given, family, settings, label)
    if family == "embedding":
        return _renamed(given, {"embeddings": "weight"})
    if family == "rms_norm":
        return _renamed(given, {"scale": "weight"})
    if family == "prelu":
        found = _renamed(given, {"alpha": "weight"})
        return found and {"weight": found["weight"].reshape(-1)}
    return _kernel(given, family)


def _renamed(given: Mapping[str, np.ndarray], names: Mapping[str, str]) -> dict[str, np.ndarray] | None:
    return {names[role]: array for role, array in given.items()} if given.keys() <= names.keys() else None


def _roles(family: str, count: int, settings: Mapping[str, Any] | None, label: str) -> list[str] | None:
    """What the variables of a layer are, from their number and its configuration."""
    known = _ROLES_OF.get(family, ())
    if "gamma" not in known:
        return list(known[:count]) if count <= len(known) else None
    rest = list(known[2:])
    if count == len(known):
        return list(known)
    if settings is None and count == len(rest) + 1:
        raise LoadError(
            f"load: {label!r} has {count} variables, so it was made with center=False or with scale=False, and a file "
            "of weights doesn't say which; load the whole model (a .keras file or the older .h5)"
        )
    said = settings or {"scale": False, "center": False}
    affine = [role for role, option in (("gamma", "scale"), ("beta", "center")) if said.get(option, True)]
    return affine + rest if len(affine) + len(rest) == count else None


def _norm(given: dict[str, np.ndarray], slot: Slot) -> Values | None:
    found = _renamed(given, _NORM_ROLES)
    if not found:
        return None
    like = next(iter(found.values()))
    for role, fill in (("weight", np.ones_like), ("bias", np.zeros_like)):  # with scale=False, center=False
        if role in slot.shapes and role not in found:
            found[role] = fill(like)
    return found


def _kernel(given: dict[str, np.ndarray], family: str) -> Values | None:
    """Dense layers and convolutions."""
    found = _renamed(given, {"kernel": "weight", "depthwise_kernel": "weight", "bias": "bias"})
    weight = found.get("weight") if found else None
    if found is None or weight is None:
        return None
    ndim = 0 if family == "dense" else int(family.partition("conv")[2][:1] or 9)
    if weight.ndim != ndim + 2:
        return None
    if family.startswith("depthwise"):  # (*window, in, multiplier) to (in * multiplier, 1, *window)
        weight = np.moveaxis(weight, (-2, -1), (0, 1))
        found["weight"] = weight.reshape(-1, 1, *weight.shape[2:])
    else:  # (*window, in, out) to (out, in, *window); transposed, (*window, out, in) to (in, out, *window)
        found["weight"] = np.moveaxis(weight, (-1, -2), (0, 1))
    return found


def _recurrent(
    given: dict[str, np.ndarray], family: str, settings: Mapping[str, Any] | None, label: str
) -> Values | None:
    found = _renamed(given, {"kernel": "weight_ih", "recurrent_kernel": "weight_hh", "bias": "bias_ih"})
    if found is None or not {"weight_ih", "weight_hh"} <= found.keys():
        return None
    inner, outer = found["weight_ih"], found["weight_hh"]
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[family]
    if (
        inner.ndim != 2
        or outer.ndim != 2
        or outer.shape[1] != gates * outer.shape[0]
        or inner.shape[1] != outer.shape[1]
    ):
        return None
    found["weight_ih"], found["weight_hh"] = inner.T, outer.T
    bias = found.get("bias_ih")
    if family == "gru":
        if (bias is not None and len(bias.shape) == 1) or (settings or {}).get("reset_after") is False:
            raise LoadError(
                f"load: {label!r} is a GRU with reset_after=False, which resets the state before it multiplies it; "
                "nn.GRU does so afterwards, as cuDNN and PyTorch do, and can't compute the same"
            )
        if bias is not None:
            if bias.shape[0] != 2:
                return None
            found |= {"bias_ih": bias[0], "bias_hh": bias[1]}
        return {role: _reset_first(array) for role, array in found.items()}
    if bias is not None:
        found["bias_hh"] = np.zeros_like(bias)
    return found


def _reset_first(array: np.ndarray) -> np.ndarray:
    """From the gates z, r, h to r, z, n."""
    update, reset, new = np.split(array, 3)
    return np.concatenate([reset, update, new])
