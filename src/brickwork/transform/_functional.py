"""The door to raw JAX: a module as a pure function of its state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from ..core import Frame, ModuleBase, random_stream
from ..errors import TraceLeakError

RANDOM = "__random__"
"""The key under which the state of the random stream travels."""


def functional(
    net: ModuleBase, random: bool | None = None
) -> tuple[Callable[..., tuple[Any, dict[str, jax.Array]]], dict[str, jax.Array]]:
    """A module as ``(pure, state)``, for use with any JAX transform.

    ``pure(state, *args, **kwargs)`` returns ``(output, new state)`` and changes nothing; ``state`` is
    a dict from path to array with all parameters and buffers, a tied one once; of an ``nn.Repeat`` the stacked ones,
    under ``block``. To put a state back: ``net.load_state_dict(state, strict=False)``, which leaves ``"__random__"``
    alone.

    Args:
        net: the module; every shape must be known.
        random: whether the state includes the random stream, under ``"__random__"``. By default it
            does when a module inside has ``uses_random = True``, as dropout layers have.

    Raises:
        DeferredShapeError: a shape is not known yet.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax, jax.numpy as jnp
        >>> pure, state = bw.functional(nn.Linear(2, in_features=3))
        >>> out, state = jax.jit(pure)(state, jnp.ones((4, 3)))
        >>> out.shape
        (4, 2)
    """
    net = getattr(net, "__brickwork_module__", net)
    if not isinstance(net, ModuleBase):
        raise TypeError(f"functional: expected a module, got {type(net).__name__}")
    if random is None:
        random = any(getattr(m, "uses_random", False) for m in net.modules())

    def boxes() -> dict[str, Any]:
        named = dict(net.named_variables())
        return named | {RANDOM: random_stream()} if random else named

    def pure(state: dict[str, Any], *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        named = boxes()
        if set(state) != set(named):
            missing, extra = sorted(set(named) - set(state)), sorted(set(state) - set(named))
            raise ValueError(f"functional: the state lacks {missing} and has unknown entries {extra}")
        with Frame() as frame:
            for path, variable in named.items():
                frame.bind(variable, state[path])
            out = net(*args, **kwargs)
            known = {id(v) for v in named.values()}
            for variable in frame.writes()[0]:
                if id(variable) not in known:
                    raise _foreign_write(variable)
            return out, {path: frame.read(v) for path, v in named.items()}

    return pure, {path: v.value for path, v in boxes().items()}


def _foreign_write(variable: Any) -> TraceLeakError:
    if variable is random_stream():
        return TraceLeakError(
            "functional: the network draws random numbers, but the state does not include the random stream; "
            "use `pure, state = bw.functional(net, random=True)`"
        )
    return TraceLeakError(
        f"functional: {type(variable).__name__} {variable.name!r} was written but isn't part of the network; "
        "make it an attribute of a module inside, so that it becomes part of the state"
    )
