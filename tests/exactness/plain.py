"""Loops, branches and maps in plain Python: what the transforms of brickwork have to agree with.

Each function has the signature of the one it stands for. Bodies run as they are, one step or lane after the
other, so state and random numbers follow from nothing but the order in which Python runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

import brickwork as bw
from brickwork.core import Frame, random_stream
from brickwork.core._deferred import is_box
from brickwork.core._random import advance, fork


def scan(fn: Callable[..., Any], init: Any, xs: Any = None, length: int | None = None, *, reverse: bool = False) -> Any:
    boxes = any(is_box(x) for x in jax.tree.leaves(xs, is_leaf=is_box))
    n = length if length is not None else len(jax.tree.leaves(xs)[0])
    steps = [xs] * n if boxes else [jax.tree.map(lambda x, i=i: jnp.asarray(x)[i], xs) for i in range(n)]
    carry, ys = jax.tree.map(jnp.asarray, init), []
    for x in reversed(steps) if reverse else steps:
        carry, y = fn(carry, x)
        ys.append(y)
    return carry, _stacked(reversed(ys) if reverse else ys) if ys else None


def fori_loop(lower: Any, upper: Any, body_fn: Callable[..., Any], init: Any) -> Any:
    carry = init
    for i in range(int(lower), int(upper)):
        carry = body_fn(jnp.asarray(i), carry)
    return carry


def while_loop(cond_fn: Callable[..., Any], body_fn: Callable[..., Any], init: Any) -> Any:
    carry = init
    while cond_fn(carry):
        carry = body_fn(carry)
    return carry


def cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], *operands: Any) -> Any:
    return true_fn(*operands) if pred else false_fn(*operands)


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    return branches[min(max(int(index), 0), len(branches) - 1)](*operands)


def remat(fn: Any, *, policy: Any = None) -> Any:
    return fn


def vmap(fn: Callable[..., Any], in_axes: Any = 0, *, axis_size: int | None = None) -> Callable[..., Any]:
    """Lanes one after the other, each from the same state and with a random stream of its own."""

    def mapped(*args: Any) -> Any:
        axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(args)
        sizes = [x.shape[a] for x, a in zip(args, axes, strict=True) if a is not None]
        key, advanced = advance(random_stream().value)
        results, draws = [], []
        for lane in range((sizes or [axis_size])[0]):
            with Frame() as frame:
                frame.bind(random_stream(), fork(key, lane))
                given = [x if a is None else jnp.take(x, lane, axis=a) for x, a in zip(args, axes, strict=True)]
                results.append(fn(*given))
                draws.append(int(random_stream().value[-1]))
                frame.written.pop(id(random_stream()), None)
                written = list(zip(*frame.writes(), strict=True))
        for variable, value in written:  # the same in every lane
            variable.value = value
        if any(draws):
            random_stream().value = advanced
        return _stacked(results)

    return mapped


class nn:
    """The containers that compiled functions run as loops."""

    @staticmethod
    def Repeat(make_block: Callable[[], Any], n: int, **_: Any) -> Any:
        return bw.nn.Sequential(*[make_block() for _ in range(n)], fold=False)

    @staticmethod
    def Sequential(*layers: Any) -> Any:
        return bw.nn.Sequential(*layers, fold=False)


def compile(fn: Callable[..., Any]) -> Callable[..., Any]:
    return fn


value_and_grad = bw.value_and_grad
grad = bw.grad
backward = bw.backward


def _stacked(results: Any) -> Any:
    return jax.tree.map(lambda *xs: jnp.stack([jnp.asarray(x) for x in xs]), *results)
