"""Devices, and moving things to them.

Example:
    >>> import brickwork as bw
    >>> import jax.numpy as jnp
    >>> x = bw.to(jnp.ones(3), bw.try_gpu())  # on the first GPU, or the CPU where there is none
"""

from __future__ import annotations

import copy
import operator
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.core
import numpy as np
from jax.sharding import Sharding, SingleDeviceSharding

if TYPE_CHECKING:
    from jaxlib._jax import Device  # what jax.Device is; JAX declares it as a variable
else:
    Device = jax.Device

__all__ = ["cpu", "gpu", "num_gpus", "to", "try_all_gpus", "try_gpu"]

_T = TypeVar("_T")


def cpu() -> Device:
    """The CPU.

    Raises:
        RuntimeError: JAX was told to leave it out (``JAX_PLATFORMS``).

    Example:
        >>> import brickwork as bw
        >>> bw.cpu().platform
        'cpu'
    """
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        raise RuntimeError(
            f"cpu(): JAX runs without its CPU backend, because its setting JAX_PLATFORMS is "
            f"{_platforms()!r}; add cpu to it, as in 'cuda,cpu'. Devices: {_present()}"
        ) from error


def _platforms() -> str | None:
    return getattr(jax.config, "jax_platforms", None)


def _gpus() -> list[Device]:
    try:
        return jax.local_devices(backend="gpu")
    except RuntimeError:  # no such backend
        return []


def num_gpus() -> int:
    """How many GPUs this process can use.

    Example:
        >>> import brickwork as bw
        >>> bw.num_gpus() == len([d for d in bw.try_all_gpus() if d.platform != "cpu"])
        True
    """
    return len(_gpus())


def gpu(i: int = 0) -> Device:
    """The GPU number ``i``, counted from 0.

    Raises:
        RuntimeError: there is no such GPU; the message says which devices there are.

    Example:
        >>> import brickwork as bw
        >>> device = bw.gpu(0) if bw.num_gpus() else bw.cpu()
    """
    number, found = _number(i), _gpus()
    if number < len(found):
        return found[number]
    if found:
        known = "gpu(0)" if len(found) == 1 else f"gpu(0) to gpu({len(found) - 1})"
        raise RuntimeError(f"gpu({number}): no such GPU, there is {known}. Devices: {_present()}")
    raise RuntimeError(f"gpu({number}): JAX sees no GPU. {_why_no_gpu()} Devices: {_present()}")


def try_gpu(i: int = 0) -> Device:
    """The GPU number ``i`` if there is one, otherwise the CPU.

    Example:
        >>> import brickwork as bw
        >>> bw.try_gpu(1000).platform
        'cpu'
    """
    number, found = _number(i), _gpus()
    return found[number] if number < len(found) else cpu()


def try_all_gpus() -> list[Device]:
    """All GPUs, or a list of just the CPU where there is none.

    Example:
        >>> import brickwork as bw
        >>> len(bw.try_all_gpus()) == max(1, bw.num_gpus())
        True
    """
    return _gpus() or [cpu()]


def _number(i: Any) -> int:
    try:
        number = operator.index(i)
    except TypeError:
        raise TypeError(f"the number of a GPU is an integer from 0 on, got {i!r}") from None
    if number < 0:
        raise ValueError(f"the number of a GPU is an integer from 0 on, got {number}")
    return number


def _present() -> str:
    return ", ".join(map(str, jax.local_devices()))


def _why_no_gpu() -> str:
    platforms = _platforms()
    if platforms and not {"gpu", "cuda", "rocm"} & set(platforms.split(",")):
        return f"Its setting JAX_PLATFORMS is {platforms!r}; remove it to use all devices."
    if os.path.exists("/proc/driver/nvidia/version"):
        return (
            "This machine has an NVIDIA driver, so JAX is probably installed without CUDA: "
            "pip install 'jax[cuda12]' (or cuda13)."
        )
    return "With an NVIDIA GPU and its driver, pip install 'jax[cuda12]' (or cuda13); try_gpu() falls back on the CPU."


def to(tree: _T, device: Device | Sharding) -> _T:
    """Move every array of a nest to a device, or distribute it as a sharding says.

    Arrays in dicts, lists, tuples and other pytrees are moved, NumPy arrays too; whatever is no
    array stays as it is. Modules, and other objects with a method ``to``, move themselves.

    Args:
        tree: an array, a module, or a nest of such.
        device: where to, for example ``bw.gpu(0)``; or a ``jax.sharding.Sharding``.

    Returns:
        The same kind of nest. Arrays that are there already are the same objects, and so is
        ``tree`` itself when nothing had to be moved.

    Example:
        >>> import brickwork as bw
        >>> import numpy as np
        >>> batch = bw.to({"x": np.zeros((2, 3), np.float32), "id": "a"}, bw.cpu())
        >>> batch["x"].devices() == {bw.cpu()}, batch["id"]
        (True, 'a')
        >>> bw.to(batch, bw.cpu()) is batch
        True
    """
    if isinstance(device, jax.Device):
        sharding: Sharding = SingleDeviceSharding(device)
    elif isinstance(device, Sharding):
        sharding = device
    else:
        raise TypeError(
            "to(tree, device) takes a device, such as bw.cpu() or bw.gpu(0), or a "
            f"jax.sharding.Sharding; got {device!r}"
        )

    def move(x: Any) -> Any:
        if isinstance(x, jax.Array):
            return _move_array(x, device, sharding)
        if hasattr(type(x), "__jax_array__"):  # a variable: a box whose content is moved
            if hasattr(x, "to"):
                x.to(device)
            elif (new := move(x.value)) is not x.value:
                x.value = new
            return x
        if isinstance(x, (np.ndarray, np.generic)) or _is_array(x):
            # A copy of our own: device_put may read or share the caller's memory later on, and the
            # caller may go on writing into it (device_put's may_alias=False does not prevent that).
            return jax.device_put(np.asarray(x).copy(), sharding)
        if callable(getattr(x, "to", None)):
            return x.to(device) or x
        return x

    return _map(move, tree)


def _is_array(x: Any) -> bool:
    return hasattr(x, "__array__") and hasattr(x, "shape") and hasattr(x, "dtype")


def _move_array(x: jax.Array, device: Any, sharding: Sharding) -> jax.Array:
    if isinstance(x, jax.core.Tracer):
        return jax.device_put(x, device)
    if x.sharding.is_equivalent_to(sharding, x.ndim):
        return x
    return jax.device_put(x, device)


def _map(move: Callable[[Any], Any], tree: Any) -> Any:
    """Apply ``move`` to the leaves; what is unchanged stays the same object.

    Not ``jax.tree.map``, which sorts the keys of dicts and always makes new containers.
    """
    if isinstance(tree, dict):
        moved = {key: _map(move, x) for key, x in tree.items()}
        if all(moved[key] is x for key, x in tree.items()):
            return tree
        if type(tree) is dict:
            return moved
        result = copy.copy(tree)
        result.update(moved)
        return result
    if isinstance(tree, (list, tuple)):
        items = [_map(move, x) for x in tree]
        if all(new is old for new, old in zip(items, tree, strict=True)):
            return tree
        return _rebuilt(tree, items)
    if _is_leaf(tree):
        return move(tree)
    leaves, structure = jax.tree.flatten(tree, is_leaf=_is_leaf)
    moved_leaves = [_map(move, x) if x is not tree else move(x) for x in leaves]
    if all(new is old for new, old in zip(moved_leaves, leaves, strict=True)):
        return tree
    return jax.tree.unflatten(structure, moved_leaves)


def _rebuilt(tree: list[Any] | tuple[Any, ...], items: list[Any]) -> Any:
    if hasattr(tree, "_fields"):
        return type(tree)(*items)
    if isinstance(tree, tuple) or type(tree) is list:
        return type(tree)(items)
    result = copy.copy(tree)  # a subclass of list, perhaps with more than its items
    result[:] = items
    return result


def _is_leaf(x: Any) -> bool:
    if isinstance(x, (jax.Array, np.ndarray, np.generic)) or hasattr(type(x), "__jax_array__"):
        return True
    return callable(getattr(x, "to", None)) and not isinstance(x, (dict, list, tuple))
