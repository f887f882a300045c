"""What happens around a module's call: where an exception came from, and device checks."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import numpy as np

from ..errors import DeviceMismatchError, StructureError
from ._containers import Node
from ._jax import Tracer, is_device_error
from ._places import lies_on
from ._repr import describe_extra
from ._variable import Variable, depth
from ._walk import find_path

_NOTED = "  in net"
_MOST = 6  # items of a container that are shown
_DEEPEST = 4  # containers inside one another of which the items are shown
_LONGEST = 100  # text of a container inside another


def describe(value: Any, inside: int = 0) -> str:
    """An argument in a few words, ``float32[2, 21]`` for an array; ``inside`` so many containers."""
    if isinstance(value, Variable):
        shape = ", ".join("?" if d is None else str(d) for d in value.shape)
        return f"{type(value).__name__} {np.dtype(value.dtype).name}[{shape}]"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    if isinstance(value, (bool, int, float, str, type(None))):
        text = repr(value)
        return text if len(text) < 40 else text[:37] + "..."
    if isinstance(value, (dict, list, tuple)) and inside < _DEEPEST:
        text = _describe_items(value, inside + 1)
        if not inside or len(text) <= _LONGEST:
            return text
    return type(value).__name__


def _describe_items(value: Any, inside: int) -> str:
    """A container with the first of what it holds."""
    fields = getattr(value, "_fields", None)
    if isinstance(value, dict):
        shown = [f"{key!r:.40}: {describe(x, inside)}" for key, x in itertools.islice(value.items(), _MOST)]
    elif fields:
        shown = [f"{name}={describe(x, inside)}" for name, x in zip(fields[:_MOST], value, strict=False)]
    else:
        shown = [describe(x, inside) for x in value[:_MOST]]
    more = [f"... {len(value) - _MOST} more"] * (len(value) > _MOST)
    inner = ", ".join([*shown, *more])
    kind = type(value).__name__
    if fields:
        return f"{kind}({inner})"
    text = f"{{{inner}}}" if isinstance(value, dict) else f"[{inner}]" if isinstance(value, list) else f"({inner})"
    return text if type(value) in (dict, list, tuple) or isinstance(value, Node) else f"{kind}({text})"


def path_of_call(calls: list[Any]) -> str:
    """The path of the module being called, from the outermost one, which is called ``net``."""
    path = "net"
    for outer, inner in itertools.pairwise(calls):
        step = find_path(outer, inner)
        if step is None and getattr(outer, "_repeated", None):
            step = "block"  # one of them on its own, which stands for all
        path += f".<{type(inner).__name__}>" if step is None else f".{step}" if step else ""
    return path


def line_of(module: Any) -> str:
    """A module in one line: ``Linear(? → 256)``."""
    return f"{type(module).__name__}({describe_extra(module)})"


def annotate(error: Exception, calls: list[Any], args: Any, kwargs: Any) -> Exception | None:
    """Note on an exception which module it came from; the innermost one only.

    Returns a better exception to raise in its place, if there is one.
    """
    if any(note.startswith(_NOTED) for note in getattr(error, "__notes__", ())):
        return None
    given = [describe(a) for a in args] + [f"{k}={describe(v)}" for k, v in kwargs.items()]
    module = calls[-1]
    note = f"{_NOTED}{path_of_call(calls)[3:]} ({line_of(module)}), called with {', '.join(given) or 'nothing'}"
    better: Exception | None = None
    text = str(error)
    if is_device_error(error):
        better = device_error(module, args)
    elif "__jax_array__" in text:
        error.add_note(
            "  jax.lax functions, and those made of one alone, as jax.nn.sigmoid is, take arrays, not variables: pass "
            "`.value`"
        )
    elif type(error).__name__ == "ShardingTypeError":
        error.add_note(
            "  the array is on a mesh with explicit axes, as jax.make_mesh makes them by default: there JAX asks how "
            "to divide the result of some operations, as in jnp.reshape(..., out_sharding=jax.P('data')). brickwork's "
            "own layers leave that to XLA, and so does all code on a mesh of jax.make_mesh(shape, names, "
            "axis_types=(jax.sharding.AxisType.Auto,) * len(names))"
        )
    (better or error).add_note(note)
    return better


def refuse_stack(module: Any) -> None:
    """Refuse to call several modules as one: their shapes don't fit, or broadcast in a way that nobody meant."""
    for variable in module.__dict__.values():
        if isinstance(variable, Variable) and depth(variable):
            raise StructureError(
                f"{type(module).__name__} is a stack of {variable.shape[0]} modules, which can't be called as one. Map "
                "over it: bw.vmap(lambda net, x: net(x), in_axes=(0, None))(stack, x). Or call one of them: "
                "bw.unstack(stack)[i], and repeat[i] of an nn.Repeat."
            )


def device_error(module: Any, args: Any) -> DeviceMismatchError:
    variables = [(n, v) for n, v in module.named_variables() if v.is_drawn]
    parts = [f"argument {i} is on {a.device}" for i, a in enumerate(args) if isinstance(a, jax.Array)]
    held = {str(v.device): n for n, v in reversed(variables)}
    parts += [f"{name!r} is on {device}" for device, name in held.items()]
    return DeviceMismatchError(
        f"{type(module).__name__}: operands are on different devices: {', '.join(parts)}. "
        "Move the network with net.to(device) or the input with bw.to(x, device); copies are never made silently."
    )


def check_devices(module: Any, record: Any, args: Any) -> None:
    """Refuse an input on other devices than the module's own variables, which JAX might copy silently."""
    probe = record.probe
    if probe is False:
        refuse_stack(module)
        own = (v for v in module.__dict__.values() if isinstance(v, Variable))
        record.probe = probe = next(own, None)
        if probe is None:
            return
    value = probe._value
    if value is None or not args:
        return
    first = args[0]
    if type(first) is not type(value) or isinstance(value, Tracer) or first.sharding is value.sharding:
        return
    if not lies_on(first, value.sharding.device_set):
        raise device_error(module, args)
