"""What the tests of peers' threads share: states to compare, and a search for tracers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

import brickwork as bw
from brickwork.core import random_stream
from brickwork.core._jax import Tracer
from brickwork.core._parameter import Slot


def either_way(fn: Callable[..., Any], compiled: bool) -> Any:
    """The function as it is, or compiled."""
    return bw.compile(fn) if compiled else fn


def stream() -> np.ndarray:
    """The state of the random stream: the words of the root key, then how many keys were drawn."""
    return np.asarray(random_stream().value)


def drawn() -> int:
    """How many keys have been drawn since the seed was set."""
    return int(stream()[-1])


def state(net: Any) -> dict[str, np.ndarray]:
    """Every variable's value, by path, those outside the ``state_dict`` included."""
    return {path: np.asarray(v.value) for path, v in net.named_variables() if not isinstance(v, Slot)}


def same_state(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Assert that two networks hold the same values, up to rounding; ``rtol=0, atol=0`` for bit by bit."""
    left, right = state(a), state(b)
    assert list(left) == list(right)
    for path, value in left.items():
        np.testing.assert_allclose(value, right[path], rtol=rtol, atol=atol, err_msg=path)


def close(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Assert that two nests of arrays are equal up to rounding."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


def _kept(net: Any) -> Iterator[tuple[str, Any]]:
    """Everything that a network keeps: values, gradients, plain attributes."""
    for path, variable in net.named_variables():
        yield path, variable._value
        gradient = getattr(variable, "_grad", None)
        yield f"{path}.grad", None if gradient is None else gradient._value
    for path, module in net.named_modules():
        for name, value in vars(module).items():
            if not isinstance(value, (bw.Variable, bw.Module)):
                yield f"{path}.{name}", value


def untraced(*nets: Any) -> None:
    """Assert that no variable and no attribute of the networks, nor the random stream, holds a tracer."""
    for net in nets:
        for path, value in _kept(net):
            leaves = jax.tree.leaves(value, is_leaf=lambda x: isinstance(x, (bw.Variable, bw.Module)))
            assert not any(isinstance(leaf, Tracer) for leaf in leaves), path
    assert not isinstance(random_stream()._value, Tracer)
