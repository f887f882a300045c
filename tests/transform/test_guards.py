"""What makes a compiled function look again, and what must not."""

from __future__ import annotations

import dataclasses
from collections import deque
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

import brickwork as bw
from brickwork import nn, optim

X = jnp.ones((2, 3))


class Trainer:
    def __init__(self):
        self.net = nn.Linear(1)
        self.opt = optim.sgd(self.net, 0.1)
        self.step = self.mean = 0
        self.history = []
        self.scale = 1.0

    @bw.compile
    def train(self, x):
        loss, grads = bw.value_and_grad(lambda x: (self.net(x) * self.scale).mean(), self.net)(x)
        self.opt.step(grads)
        return loss


def test_counters_beside_methods_of_the_same_name_do_not_matter():
    trainer = Trainer()

    def change(i):
        trainer.step += 1
        trainer.mean = float(i)
        trainer.history.append(i)

    for i in range(4):
        change(i)
        trainer.train(X)
    assert trainer.train.stats().compilations == 1
    trainer.scale = 2.0
    trainer.train(X)
    assert trainer.train.stats().compilations == 2


class Config:
    rate = 1.0


@dataclasses.dataclass(slots=True)
class Slotted:
    rate: float = 1.0


def makers():
    def with_class():
        class C:
            rate = 1.0

        return C, lambda: C.rate, lambda r: setattr(C, "rate", r)

    def with_default():
        c = Config()
        return c, lambda: c.rate, lambda r: setattr(c, "rate", r)

    def with_slots():
        c = Slotted()
        return c, lambda: c.rate, lambda r: setattr(c, "rate", r)

    def with_namespace():
        c = SimpleNamespace(inner=SimpleNamespace(rate=1.0))
        return c, lambda: c.inner.rate, lambda r: setattr(c.inner, "rate", r)

    def with_tuple():
        c = ({"rate": 1.0}, 5)
        return c, lambda: c[0]["rate"], lambda r: c[0].__setitem__("rate", r)

    def with_nested_lists():
        c = [[1.0]]
        return c, lambda: c[0][0], lambda r: c[0].__setitem__(0, r)

    return [with_class, with_default, with_slots, with_namespace, with_tuple, with_nested_lists]


@pytest.mark.parametrize("make", makers(), ids=lambda m: m.__name__)
def test_configurations_of_all_kinds_are_seen_to_change(make):
    _, read, write = make()
    f = bw.compile(lambda x: x * read())
    assert float(f(1.0 * X)[0, 0]) == 1
    write(3.0)
    assert float(f(1.0 * X)[0, 0]) == 3
    assert f.stats().compilations == 2


class Awkward:
    """Answers no question about itself."""

    rate = 2.0

    def __getattr__(self, name):
        raise KeyError(name)

    @property
    def __class__(self):
        raise RuntimeError("not bound")

    def __eq__(self, other):
        raise RuntimeError("not comparable")

    __hash__ = None


class AwkwardDict(dict):
    def items(self):
        raise RuntimeError("no")


def test_objects_that_do_not_want_to_be_looked_at():
    awkward, items = Awkward(), AwkwardDict(a=1)
    f = bw.compile(lambda x: x * type(awkward).rate * len(items))
    assert float(f(X)[0, 0]) == 2
    f(X)
    assert f.stats().compilations == 1


def test_large_captured_data_costs_nothing_at_a_call():
    data = [[float(i * j) for j in range(100)] for i in range(100)]
    recent = deque(range(1000), maxlen=1000)
    f = bw.compile(lambda x: x * data[0][0] + len(recent))
    f(X)
    guards = next(iter(f._ready.values())).program.guards
    assert sum(1 + len(memory.inside) for _, _, memory in guards.guards) < 600


def test_what_the_names_stand_for_in_the_warning():
    config = {"rate": 0.0}
    f = bw.compile(lambda x: x * config["rate"])

    def change(i):
        config["rate"] = float(i)

    with pytest.warns(bw.RecompileWarning, match=r"captured variable 'config'\['rate'\]"):
        for i in range(12):
            change(i)
            f(X)


def test_programs_are_bounded(monkeypatch):
    from brickwork.transform import _compile

    monkeypatch.setattr(_compile, "_MOST_PROGRAMS", 3)
    f = bw.compile(lambda x, n: x * n)
    for n in range(6):
        f(X, n)
    assert len(f._made) == sum(map(len, f._programs.values())) == 3
    assert float(f(X, 5)[0, 0]) == 5
    assert f.stats().compilations == 6
    assert float(f(X, 0)[0, 0]) == 0
    assert f.stats().compilations == 7
