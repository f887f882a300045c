"""Random nestings of transforms around small bodies with state: eager, compiled and plain Python agree.

A program is a nest of tuples, which hypothesis makes and, when something differs, makes as small as it can.
``BRICKWORK_EXAMPLES=500`` runs that many, others at each run.
"""

from __future__ import annotations

import os
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn
from brickwork.core import random_stream
from brickwork.core._jax import Tracer

from . import plain
from .harness import EAGER, SEED, assert_same, values, variables

MORE = os.environ.get("BRICKWORK_EXAMPLES")
START = (jnp.asarray([0.5, -1.0, 2.0]), jnp.asarray([-0.25, 0.75, -1.5]))


class World:
    """What the bodies read and write."""

    def __init__(self, t):
        self.first = nn.Linear(3, in_features=3)
        self.last = nn.Linear(3, in_features=3)
        self.last.weight = self.first.weight
        self.deep = t.nn.Repeat(lambda: nn.Sequential(nn.Linear(3, in_features=3), nn.Dropout(0.25), nn.Tanh()), 2)
        self.count = bw.Buffer(jnp.zeros((), jnp.int32))
        self.total = bw.Buffer(jnp.zeros(3))
        self.ring = bw.Buffer(jnp.zeros((4, 3)))
        self.norm = nn.BatchNorm1d(num_features=3)
        self.drop = nn.Dropout(0.5)
        for p in self.first.parameters():
            p.grad = jnp.zeros(p.shape)

    @property
    def state(self):
        return [self.first, self.last, self.deep, self.count, self.total, self.ring, self.norm]


# -- bodies: functions of a vector ------------------------------------------------------------------


def count(w, t, x):
    w.count.value += 1
    return x


def add(w, t, x):
    w.total.value = 0.5 * w.total.value + x
    return x - w.total.value


def push(w, t, x):
    w.ring[w.count.value % 4] = x
    return x + w.ring.value.mean(0)


def accumulate(w, t, x):
    return x + 0.1 * t.backward(lambda: jnp.sin(w.first(x)).sum(), w.first)()


SHARED = {  # may stand in the lanes of a map, where all lanes must write the same
    "count": count,
    "dense": lambda w, t, x: jnp.tanh(w.first(x)),
    "tied": lambda w, t, x: jnp.tanh(w.last(x) @ w.first.weight.value),
    "draw": lambda w, t, x: x + 0.1 * jax.random.normal(bw.random.key(), (3,)),
    "drop": lambda w, t, x: w.drop(x),
    "deep": lambda w, t, x: x - w.deep(x),
    "read": lambda w, t, x: x + 0.1 * w.total.value * w.count.value.astype(x.dtype),
}
OWN = {
    "add": add,
    "push": push,
    "accumulate": accumulate,
    "norm": lambda w, t, x: w.norm(jnp.stack([x, 2 * x, jnp.sin(x)])).sum(0) * 0.1 + x,
}

# -- combinators: a body out of bodies --------------------------------------------------------------


def build(program: Any, w: World, t: Any) -> Any:
    """The function that a program describes."""
    kind, *rest = program
    if kind in SHARED or kind in OWN:
        body = (SHARED | OWN)[kind]
        return lambda x: body(w, t, x)
    numbers = [r for r in rest if not isinstance(r, tuple)]
    inner = [build(r, w, t) for r in rest if isinstance(r, tuple)]
    return lambda x: COMBINE[kind](w, t, x, *numbers, *inner)


def then(w, t, x, *fs):
    for f in fs:
        x = f(x)
    return x


def scan(w, t, x, n, reverse, f):
    steps = jnp.linspace(0.0, 0.3, n) if n else jnp.zeros(0)
    x, ys = t.scan(lambda c, s: (f(c + s), c * s), x, steps, reverse=reverse)
    return x + ys.sum(0) if n else x


def while_loop(w, t, x, n, f):
    return t.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, f(s[1])), (jnp.int32(0), x))[1]


def gradient(w, t, x, f):
    value, grads = t.value_and_grad(lambda x: jnp.sin(f(x)).sum(), w.first)(x)
    return x * 0.5 + 0.1 * (value + grads["weight"].sum(0) + grads["bias"])


def slope(w, t, x, f):
    return x + 0.1 * t.grad(lambda x: jnp.sin(f(x)).sum(), 0)(x)


COMBINE = {
    "then": then,
    "compile": lambda w, t, x, f: t.compile(f)(x),
    "if": lambda w, t, x, f, g: f(x) if x.sum() > 0 else g(x),
    "remat": lambda w, t, x, f: t.remat(f)(x),
    "scan": scan,
    "fori": lambda w, t, x, n, f: t.fori_loop(0, n, lambda i, x: f(x + 0.1), x),
    "fori on state": lambda w, t, x, n, f: t.fori_loop(w.count.value % 2, w.count.value % 2 + n, lambda i, x: f(x), x),
    "while": while_loop,
    "cond": lambda w, t, x, f, g: t.cond(x.sum() > 0, f, g, x),
    "cond on state": lambda w, t, x, f, g: t.cond(w.count.value % 2 == 0, f, g, x),
    "switch": lambda w, t, x, f, g, h: t.switch(jnp.floor(x[0] * 2).astype(jnp.int32), [f, g, h], x),
    "switch on state": lambda w, t, x, f, g, h: t.switch(w.count.value % 4 - 1, [f, g, h], x),
    "vmap": lambda w, t, x, f: t.vmap(f)(jnp.stack([x, x + 0.5])).mean(0),
    "grad": gradient,
    "slope": slope,
}


PATHS = {"then", "compile", "if", "grad", "slope"}  # through these a program may decide in Python
MANY = {"cond": 2, "cond on state": 2, "if": 2, "switch": 3, "switch on state": 3}


@st.composite
def programs(draw: Any, depth: int = 4, lanes: bool = False, reverse: bool = False, path: bool = True) -> Any:
    """A program: ``lanes`` in a map, ``reverse`` where differentiated in reverse, ``path`` where it may decide."""
    if depth == 0 or (depth < 4 and draw(st.integers(0, 5)) == 0):
        return (draw(st.sampled_from(sorted(SHARED) if lanes else sorted(SHARED | OWN))),)
    unfit = set() if path else {"if"}
    unfit |= {"cond", "switch"} if lanes else set()  # a branch that lanes take apart may not write
    unfit |= {"while", "fori on state"} if reverse else set()  # the number of turns must be known
    kind = draw(st.sampled_from([k for k in sorted(COMBINE) if k not in unfit]))
    inner = programs(depth - 1, lanes or kind == "vmap", reverse or kind in ("grad", "slope"), path and kind in PATHS)
    numbers: list[Any] = [draw(st.integers(0, 3))] if kind in ("scan", "fori", "fori on state", "while") else []
    numbers += [draw(st.booleans())] if kind == "scan" else []
    bodies = draw(st.integers(2, 3)) if kind == "then" else MANY.get(kind, 1)
    return (kind, *numbers, *(draw(inner) for _ in range(bodies)))


def run(program: Any, t: Any, compiled: bool) -> tuple[list[Any], Any]:
    bw.seed(SEED)
    world = World(t)
    f = build(program, world, t)
    f = bw.compile(f) if compiled else f
    records = []
    for x in START:
        record = {"result": f(x), "state": values(world.state), "random": np.asarray(random_stream().value)}
        assert not any(isinstance(v._value, Tracer) for _, v in variables(world.state))
        records.append(record)
    return records, f


def check(program: Any) -> None:
    eager, _ = run(program, EAGER, compiled=False)
    compiled, f = run(program, bw, compiled=True)
    assert_same(eager, compiled, 2e-5, "eager and compiled")
    assert f.stats().compilations == 1 or "'if'" in repr(program)  # the second call may take another path
    expected, _ = run(program, plain, compiled=False)
    assert_same(eager, expected, 2e-5, "eager and plain Python")


@pytest.mark.timeout(300 if MORE is None else 36_000)
@hypothesis.settings(
    max_examples=int(MORE or 12),
    deadline=None,
    derandomize=MORE is None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(program=programs())
def test_nestings(program):
    check(program)


@pytest.mark.parametrize(
    "program",
    [
        ("vmap", ("then", ("cond on state", ("draw",), ("count",)), ("draw",))),
        ("grad", ("scan", 2, False, ("remat", ("then", ("drop",), ("dense",), ("accumulate",))))),
        ("compile", ("vmap", ("compile", ("fori", 2, ("then", ("draw",), ("count",)))))),
        ("slope", ("grad", ("vmap", ("then", ("tied",), ("drop",))))),
        ("grad", ("then", ("if", ("deep",), ("drop",)), ("if", ("draw",), ("norm",)))),
        ("scan", 2, True, ("cond on state", ("then", ("deep",), ("count",)), ("then", ("deep",), ("draw",)))),
        ("while", 2, ("switch", ("norm",), ("push",), ("grad", ("then", ("add",), ("tied",))))),
    ],
    ids=str,
)
def test_chosen_nestings(program):
    check(program)
