"""Randomness: the process-wide random stream, and the numbers that initial values depend on.

There are two kinds. Initial values are drawn on the host (see ``_draw.py``) and depend on a seed and
on a number that each parameter takes when it is constructed. Everything else, dropout masks for
example, takes keys from one random stream, a :class:`Buffer` like any other state: a root key and a
count, where the i-th key is ``fold_in(root, i)``.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._frame import UPDATE_LOCK, current_frame, outside
from ._jax import Tracer, setting
from ._parameter import Buffer
from ._seed import current_count, current_seed, set_seed

_stream: list[Buffer] = []


def seed(n: int) -> None:
    """Set the seed of initial values and of the random stream.

    The seed is 0 unless set. The same program after the same ``seed`` gives the same parameters and
    the same masks, on any device and any number of devices.

    Args:
        n: a non-negative integer below 2**64.

    Raises:
        TypeError: ``n`` is not an integer.
        ValueError: ``n`` is out of range.

    Example:
        >>> import brickwork as bw
        >>> bw.seed(0)
        >>> a = bw.random.key()
        >>> bw.seed(0)
        >>> bool((bw.random.key() == a).all())
        True
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
        raise TypeError(f"seed: n must be an integer, got {n!r}")
    if not 0 <= n < 2**64:
        raise ValueError(f"seed: n must be in [0, 2**64), got {n}")
    set_seed(int(n))
    for stream in _stream:
        stream.value = _initial_state(int(n))


def _initial_state(n: int) -> Any:
    """The root key's words (those of ``jax.random.key(n)``), then a count of zero."""
    with outside():
        if setting("jax_default_prng_impl") == "threefry2x32":
            words = np.array([n >> 32, n & 0xFFFFFFFF], np.uint32)
        else:
            words = np.asarray(jax.random.key_data(jax.random.key(n & 0xFFFFFFFF)))
        return jnp.asarray(np.append(words, np.uint32(0)))


@jax.jit
def advance(state: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The next key of a random stream, and the state of the stream after it."""
    root = jax.random.wrap_key_data(state[:-1])
    return jax.random.fold_in(root, state[-1]), state.at[-1].add(jnp.uint32(1))


@jax.jit
def fork(key: jax.Array, number: jax.Array) -> jax.Array:
    """The state of a random stream of its own, the one with a given number of those that a key stands for."""
    words = jax.random.key_data(jax.random.fold_in(key, number))
    return jnp.append(words, jnp.zeros(1, words.dtype))


def random_stream() -> Buffer:
    """The buffer that holds the state of the random stream: the root key's words, then the count."""
    if not _stream:
        with outside():
            made = Buffer(_initial_state(current_seed()), persistent=False)
        _stream[:] = [made]
    return _stream[0]


def random_state() -> dict[str, Any]:
    """All that random numbers depend on, to be saved: seed, count of parameters, random stream."""
    stream = random_stream().value
    if isinstance(stream, Tracer):
        raise TypeError(
            "the random stream is a traced value, which exists only while a function is being compiled; call save "
            "outside of compiled and transformed functions"
        )
    return {"seed": current_seed(), "count": current_count(), "stream": np.array(stream)}


def set_random_state(state: dict[str, Any]) -> None:
    """Continue from what :func:`random_state` returned.

    Raises:
        ValueError: it was saved with another kind of random keys.
    """
    stream, words = random_stream(), np.asarray(state["stream"])
    if words.shape != stream.shape:
        raise ValueError(
            f"the state of the random stream has {len(words)} words, and here it has {stream.size}: it was saved with "
            "another setting of jax_default_prng_impl"
        )
    set_seed(int(state["seed"]), int(state["count"]))
    with outside():
        stream.value = jnp.asarray(words)


def next_key() -> jax.Array:
    """A new random key (a typed JAX key, shape ``()``), and one step of the random stream.

    Layers that draw random numbers call this in ``forward``. It works eagerly and inside every
    brickwork transform; a compiled function gives the same keys as the eager one.

    Example:
        >>> import brickwork as bw
        >>> import jax
        >>> jax.random.normal(bw.random.key(), (3,)).shape
        (3,)
    """
    stream = random_stream()
    with UPDATE_LOCK:
        state = stream.value
        if current_frame() is None and getattr(state, "committed", False):
            state = jnp.asarray(np.asarray(state))  # a compiled function left it on its device; keys go anywhere
        key, stream.value = advance(state)
    return key
