"""Traced values in objects that JAX can't look into don't leave a transform, silently or otherwise."""

from __future__ import annotations

import collections
import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

import brickwork as bw
from brickwork import nn
from brickwork.errors import TraceLeakError

X = jnp.arange(3.0) + 1


@dataclasses.dataclass
class Output:
    loss: object


class Slots:
    __slots__ = ("loss",)


class Model(bw.Module):
    def __init__(self):
        self.linear = nn.Linear(1, in_features=3)

    def forward(self, x):
        return Output((self.linear(x) ** 2).sum())


def in_slots(x):
    slots = Slots()
    slots.loss = x.sum()
    return slots


def pair(x):
    return x.sum(), Output(x.sum())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bw.compile(Model())(X), r"compile: Model returned a Output that holds a traced value \(float32\[\]\)"),
        (lambda: bw.compile(lambda x: {"a": [Output([x])]})(X), r"a Output that holds a traced value \(float32\[3\]\)"),
        (lambda: bw.compile(in_slots)(X), "compile: in_slots returned a Slots that holds"),
        (lambda: bw.compile(lambda x: lambda: x + 1)(X), "returned a function that holds"),
        (lambda: bw.compile(lambda x: functools.partial(jnp.add, x + 1))(X), "returned a partial that holds"),
        (lambda: bw.compile(lambda x: collections.deque([x]))(X), "returned a deque that holds .* dicts of arrays"),
        (lambda: bw.compile(lambda x: (y for y in [x]))(X), "returned a generator that holds"),
        (lambda: bw.grad(lambda x: bw.remat(lambda x: Output(x.sum()))(x).loss)(X), "remat: the function returned"),
        (lambda: bw.grad(lambda x: bw.remat(Model())(x).loss)(X), r"register_dataclass\(Output\)"),
        (lambda: bw.vmap(lambda x: Output(x * 2))(X), "vmap: the function returned a Output"),
        (lambda: bw.scan(lambda c, x: (c, Output(x)), 0.0, X), "scan: the function returned a Output"),
        (
            lambda: bw.compile(lambda p: bw.cond(p, lambda: None, lambda: Output(~p)))(jnp.asarray(True)),
            "cond: the func",
        ),
        (lambda: bw.grad(pair, has_aux=True)(X), "grad: pair returned a Output"),
        (lambda: bw.compile(bw.grad(pair, has_aux=True))(X), "grad: pair returned a Output"),
        (lambda: bw.backward(lambda: pair(X * P.value), P, has_aux=True)(), "backward: <lambda> returned a Output"),
        (lambda: bw.jvp(pair, (X,), (X,), has_aux=True), "jvp: pair returned a Output"),
        (lambda: bw.vjp(pair, X, has_aux=True), "vjp: pair returned a Output"),
        (lambda: bw.jacobian(pair, has_aux=True)(X), "jacobian: pair returned a Output"),
        (lambda: bw.hessian(pair, has_aux=True)(X), "hessian: pair returned a Output"),
    ],
)
def test_what_the_error_says(call, message):
    with pytest.raises(TraceLeakError, match=message):
        call()


P = bw.Parameter(jnp.ones(3))


def test_what_was_written_is_forgotten():
    count = bw.Buffer(jnp.zeros(()))

    @bw.compile
    def step(x):
        count.value += 1
        return Output(x)

    with pytest.raises(TraceLeakError):
        step(X)
    assert float(count) == 0


def test_what_is_known_outside_may_be_held():
    """A value of a trace further out, and what holds none at all."""

    @bw.compile
    def step(x):
        out = Output(x * 2)
        lanes, same = bw.vmap(lambda y: (y * x, out), out_axes=(0, None))(x)
        gradient, kept = bw.grad(lambda y: (y.sum(), out), has_aux=True)(x)
        return lanes.sum() + gradient + same.loss + kept.loss, Output(3), len, {"rate": 0.1}

    total, plain, function, settings = step(X)
    assert total.tolist() == [41, 45, 49] and plain == Output(3) and function is len and settings == {"rate": 0.1}


def test_registered_classes_pass():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Known:
        loss: object

    out = bw.compile(lambda x: bw.remat(lambda x: Known((x**2).sum()))(x))(X)
    assert isinstance(out, Known) and float(out.loss) == 14
    assert bw.grad(lambda x: bw.remat(lambda x: Known((x**2).sum()))(x).loss)(X).tolist() == [2, 4, 6]
