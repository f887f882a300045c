"""``bw.remat``: compute again in the backward pass instead of keeping."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax

from ..core import Frame, ModuleBase
from ..core._frame import current_frame
from ..core._jax import base_state, trace_state
from ..module import Module
from ._lift import Split, split_result, unboxed


def remat(fn: Any, *, policy: Callable[..., bool] | None = None) -> Any:
    """Keep nothing of what a function computes for its gradient; compute it again when that is needed.

    Saves memory for time ("gradient checkpointing"). Gradients are the same, and so are random numbers: a
    dropout mask is the same in both passes. State is written once.

    Args:
        fn: a function, or a module. A module gives a module with the same names in its ``state_dict``,
            which can take its place in a network.
        policy: what may be kept after all, one of ``jax.checkpoint_policies``.

    Raises:
        TypeError: ``fn`` or ``policy`` can't be called.
        TraceLeakError: the result is an object that JAX can't look into, and holds arrays.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> import jax, jax.numpy as jnp
        >>> net = nn.Sequential(*[bw.remat(nn.Sequential(nn.Linear(8), jax.nn.gelu)) for _ in range(3)])
        >>> loss, grads = bw.value_and_grad(lambda x: net(x).sum(), net)(jnp.ones((2, 8)))
        >>> list(grads)[:2]
        ['0.0.weight', '0.0.bias']

    Reference:
        Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016; ``jax.checkpoint``.
    """
    fn = getattr(fn, "__brickwork_module__", fn)
    if policy is not None and not callable(policy):
        raise TypeError(
            f"remat: policy must be a function, one of jax.checkpoint_policies, got {policy!r:.60}; for example "
            "policy=jax.checkpoint_policies.dots_saveable"
        )
    if isinstance(fn, ModuleBase):
        return Remat(fn, policy)
    if not callable(fn):
        raise TypeError(f"remat: expected a function or a module, got {type(fn).__name__}")

    @functools.wraps(fn, updated=())
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return call_remat(fn, args, kwargs, policy=policy)

    return wrapped


def call_remat(fn: Callable[..., Any], args: Any, kwargs: Any, *, policy: Any = None, prevent_cse: bool = True) -> Any:
    """Call ``fn`` so that a gradient computes it again."""
    if current_frame() is None and trace_state() == base_state():
        return unboxed(fn(*args, **kwargs))  # nothing is being differentiated
    given = Split((args, kwargs))
    seen: list[Any] = []

    def pure(arrays: list[Any]) -> Any:
        with Frame() as frame:
            inner_args, inner_kwargs = given.fill(arrays)
            result = split_result("remat", fn(*inner_args, **inner_kwargs), numbers=False)
            written, values = frame.writes()
        seen.append((result.emptied(), written))
        return result.arrays, values

    arrays, values = jax.checkpoint(pure, prevent_cse=prevent_cse, policy=policy)(given.arrays)
    result, written = seen[-1]
    for variable, value in zip(written, values, strict=True):
        variable.value = value
    return result.fill(arrays)


class Remat(Module):
    """A module that is computed again in the backward pass; made by :func:`brickwork.remat`.

    Everything but the call is the inner module's own: attributes, names, state.
    """

    _bw_nameless = "_inner"

    def __init__(self, inner: ModuleBase, policy: Callable[..., bool] | None = None) -> None:
        self._inner = inner
        self._policy = policy

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the inner module."""
        return call_remat(self._inner, args, kwargs, policy=self._policy)

    def edges(self) -> Iterator[tuple[str, Any]]:
        """The inner module, which adds nothing to names."""
        yield "", self._inner

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        mine = name.startswith("_")
        if mine or name == "training":
            super().__setattr__(name, value)
        if not mine:
            setattr(self._inner, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._inner, name)

    def __len__(self) -> int:
        return len(self._inner)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: Any) -> Any:
        return self._inner[index]  # type: ignore[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self._inner[index] = value  # type: ignore[index]

    def __delitem__(self, index: Any) -> None:
        del self._inner[index]  # type: ignore[attr-defined]
