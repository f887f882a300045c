"""What makes a compiled function look again, and what must not."""

from __future__ import annotations

import dataclasses
import functools
import gc
import operator
import weakref
from collections import OrderedDict, deque
from operator import attrgetter
from types import SimpleNamespace
from typing import NamedTuple

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
    assert len(f._record.made) == sum(map(len, f._programs.values())) == 3
    assert float(f(X, 5)[0, 0]) == 5
    assert f.stats().compilations == 6
    assert float(f(X, 0)[0, 0]) == 0
    assert f.stats().compilations == 7


# -- what modules hold ------------------------------------------------------------------------------


class Scaled(bw.Module):
    """Multiplies by what ``read`` finds in what it holds."""

    def __init__(self, held, read):
        self.held = held
        self.read = read

    def forward(self, v):
        return v * self.read(self.held)


class Plain:
    def __init__(self, rate=1.0):
        self.rate = rate


@dataclasses.dataclass
class Data:
    rate: float = 1.0


@dataclasses.dataclass(unsafe_hash=True)
class ByValue:
    name: str = "a"
    rate: float = dataclasses.field(default=1.0, hash=False, compare=False)


class Pair(NamedTuple):
    config: Plain
    n: int


class Halves:
    """Uses its own attribute in a method and a property."""

    def __init__(self):
        self.whole = 2.0

    def half(self):
        return self.whole / 2

    @property
    def again(self):
        return self.whole / 2


class Called(Halves):
    def __call__(self):
        return self.whole / 2


def rate(c):
    return c.rate


def held_things():
    """What a module holds, how it reads it, and how it changes."""

    class C:
        rate = 1.0

    def set_rate(c, r):
        c.rate = r

    def hide_default(c, r):
        vars(c).clear()
        if r != Config.rate:
            c.rate = r

    def set_first(c, r):
        c[0].rate = r

    def set_whole(c, r):
        c.whole = 2 * r

    def set_key(c, r):
        c["rate"] = r

    return {
        "object": (Plain(), rate, set_rate),
        "class": (C, rate, set_rate),
        "default of the class": (Config(), rate, hide_default),
        "dataclass": (Data(), rate, set_rate),
        "dataclass with slots": (Slotted(), rate, set_rate),
        "namespace": (SimpleNamespace(rate=1.0), rate, set_rate),
        "hashed by value": (ByValue(), rate, set_rate),
        "in an object": (SimpleNamespace(c=Plain()), lambda c: c.c.rate, lambda c, r: set_rate(c.c, r)),
        "slots in an object": (SimpleNamespace(c=Slotted()), lambda c: c.c.rate, lambda c, r: set_rate(c.c, r)),
        "in a list": ([Plain()], lambda c: c[0].rate, set_first),
        "in a tuple": ((Plain(), 1), lambda c: c[0].rate, set_first),
        "in a named tuple": (Pair(Plain(), 1), lambda c: c.config.rate, set_first),
        "in a dict": ({"a": [Plain()]}, lambda c: c["a"][0].rate, lambda c, r: set_first(c["a"], r)),
        "list in an object": (SimpleNamespace(c=[1.0]), lambda c: c.c[0], lambda c, r: c.c.__setitem__(0, r)),
        "another kind of dict": (OrderedDict(rate=1.0), lambda c: c["rate"], set_key),
        "method": (Halves(), lambda c: c.half(), set_whole),
        "property": (Halves(), lambda c: c.again, set_whole),
        "call": (Called(), lambda c: c(), set_whole),
        "function in a list": ([_late], lambda c: c[0](), lambda c, r: globals().update(_late_rate=r)),
    }


_late_rate = 1.0


def _late():
    return _late_rate


HOLDERS = {
    "the module itself": lambda m: bw.compile(m),
    "captured": lambda m: bw.compile(lambda v: m(v)),
    "inside another": lambda m: bw.compile(nn.Sequential(nn.Identity(), m)),
    "an argument": lambda m: functools.partial(bw.compile(lambda m, v: m(v)), m),
}


@pytest.mark.parametrize("how", HOLDERS)
@pytest.mark.parametrize("what", held_things())
def test_what_a_module_holds_is_seen_to_change(what, how):
    held, read, write = held_things()[what]
    net = Scaled(held, read)
    f = HOLDERS[how](net)
    compiled = f.func if isinstance(f, functools.partial) else f
    try:
        assert float(f(X)[0, 0]) == float(f(X)[0, 0]) == 1
        write(net.held, 3.0)
        assert float(f(X)[0, 0]) == float(f(X)[0, 0]) == 3
        assert compiled.stats().compilations == 2
        write(net.held, 1.0)
        assert float(f(X)[0, 0]) == 1
        assert compiled.stats().compilations == 2
    finally:
        globals().update(_late_rate=1.0)


def guards_of(f):
    return next(iter(f._ready.values())).program.guards


def test_other_attributes_of_what_a_module_holds_may_change():
    net = Scaled([Plain(), SimpleNamespace(rate=1.0, note="")], lambda c: c[0].rate * c[1].rate)
    f = bw.compile(net)
    for i in range(4):
        net.held[0].count = net.held[1].note = i
        f(X)
    assert f.stats().compilations == 1


def test_a_counter_on_what_a_module_holds_that_the_function_moves_itself():
    class Counting(bw.Module):
        def __init__(self):
            self.log = SimpleNamespace(calls=0)

        def forward(self, v):
            self.log.calls += 1
            return v

    f = bw.compile(Counting())
    for _ in range(4):
        f(X)
    assert f.stats().compilations == 1


def test_equal_modules_with_equal_constants_share_a_program():
    @dataclasses.dataclass(frozen=True)
    class Frozen:
        rate: float = 2.0

    f = bw.compile(lambda m, v: m(v))
    for _ in range(3):
        assert float(f(Scaled(Frozen(), rate), X)[0, 0]) == 2
    assert f.stats().compilations == 1


def test_objects_held_by_a_module_that_do_not_want_to_be_looked_at():
    net = Scaled(SimpleNamespace(it=Awkward()), lambda c: type(c.it).rate)
    f = bw.compile(net)
    assert float(f(X)[0, 0]) == float(f(X)[0, 0]) == 2
    assert f.stats().compilations == 1


def test_networks_of_layers_have_no_guards():
    net = nn.Sequential(nn.Linear(4), nn.ReLU(), nn.Dropout(0.1), nn.LayerNorm(), nn.Linear(1))
    opt = optim.adamw(net, 0.1)
    f, g = bw.compile(net), bw.compile(lambda m, v: m(v))

    @bw.compile
    def train(v):
        _, grads = bw.value_and_grad(lambda v: net(v).mean(), net)(v)
        opt.step(grads)

    f(X), g(net, X), train(X)
    with net.capture():
        f(X)
    assert [len(guards_of(c)._quick) for c in (f, g, train)] == [0, 0, 2]  # net and opt


def test_a_long_list_of_objects_in_a_module_costs_nothing_at_a_call():
    net = Scaled([Plain() for _ in range(1000)], lambda c: c[0].rate)
    f = bw.compile(net)
    f(X)
    assert len(guards_of(f)._quick) < 10


def test_what_a_module_holds_keeps_nothing_alive():
    f = bw.compile(lambda m, v: m(v))
    net = Scaled([Plain()], lambda c: c[0].rate)
    net.held[0].net = net
    net.register_forward_hook(lambda m, a, y: y * len(net.held))
    f(net, X)
    net, alive = None, weakref.ref(net)
    gc.collect()
    assert alive() is None


# -- attributes that code asks for by strings -------------------------------------------------------


def via(o, name):
    return getattr(o, name)


def ways_to_ask():
    """Readers of the attribute ``rate`` that call it by a string."""
    name = "rate"
    get = operator.attrgetter("rate")

    def with_default(o, key="rate"):
        return getattr(o, key)

    return {
        "getattr": lambda o: getattr(o, "rate"),  # noqa: B009
        "getattr with a default": lambda o: getattr(o, "rate", 0.0),
        "captured string": lambda o: getattr(o, name),
        "default": with_default,
        "loop": lambda o: sum(getattr(o, k) for k in ("rate", "zero")),
        "helper": lambda o: via(o, "rate"),
        "hasattr": lambda o: o.rate if hasattr(o, "rate") else 0.0,
        "vars": lambda o: vars(o)["rate"],
        "__dict__": lambda o: o.__dict__["rate"],
        "attrgetter": lambda o: attrgetter("rate")(o),
        "operator.attrgetter": lambda o: operator.attrgetter("rate")(o),
        "attrgetter made before": lambda o: get(o),
        "a path": lambda o: attrgetter("me.rate")(o),
    }


@pytest.mark.parametrize("way", ways_to_ask())
@pytest.mark.parametrize("held", [False, True], ids=["captured", "held by a module"])
def test_attributes_read_by_a_string(way, held):
    read, o = ways_to_ask()[way], SimpleNamespace(rate=1.0, zero=0.0, unread=0)
    o.me = o
    f = bw.compile(Scaled(o, read) if held else lambda v: v * read(o))
    assert float(f(X)[0, 0]) == 1
    o.rate = 3.0
    assert float(f(X)[0, 0]) == 3
    o.unread += 1
    assert float(f(X)[0, 0]) == 3
    assert f.stats().compilations == 2


def ways_to_try():
    """Readers of the attribute ``rate`` that do without, and then read 1."""

    def trying(o):
        try:
            return o.rate
        except AttributeError:
            return 1.0

    return {
        "getattr": lambda o: getattr(o, "rate", 1.0),
        "hasattr": lambda o: o.rate if hasattr(o, "rate") else 1.0,
        "vars": lambda o: vars(o).get("rate", 1.0),
        "helper": lambda o: via_default(o, "rate"),
        "try": trying,
    }


def via_default(o, name):
    return getattr(o, name, 1.0)


@pytest.mark.parametrize("way", ways_to_try())
@pytest.mark.parametrize("held", [False, True], ids=["captured", "held by a module"])
@pytest.mark.parametrize("what", ["object", "class", "function"])
def test_attributes_that_come_and_go(what, way, held):
    class Bare:
        pass

    def bare():
        pass

    o = {"object": Bare(), "class": Bare, "function": bare}[what]
    read = ways_to_try()[way]
    f = bw.compile(Scaled(o, read) if held else lambda v: v * read(o))
    assert float(f(X)[0, 0]) == 1
    o.rate = 3.0
    assert float(f(X)[0, 0]) == 3
    del o.rate
    assert float(f(X)[0, 0]) == 1
    assert f.stats().compilations == 2


def test_an_attribute_that_the_class_gets_later():
    o = Halves()
    f = bw.compile(lambda v: v * getattr(o, "late", 1.0))
    assert float(f(X)[0, 0]) == 1
    Halves.late = 3.0
    try:
        assert float(f(X)[0, 0]) == 3
    finally:
        del Halves.late


def test_an_attribute_of_a_function():
    def h(v):
        return v * h.rate

    h.rate, h.unread = 1.0, 0
    f, g = bw.compile(h), bw.compile(lambda v: h(v))
    assert float(f(X)[0, 0]) == float(g(X)[0, 0]) == 1
    h.rate = 3.0
    assert float(f(X)[0, 0]) == float(g(X)[0, 0]) == 3
    h.unread += 1
    f(X), g(X)
    assert (f.stats().compilations, g.stats().compilations) == (2, 2)


def test_attributes_in_a_pattern():
    o = SimpleNamespace(rate=1.0)

    def f(v):
        match o:
            case SimpleNamespace(rate=rate):
                return v * rate
        return v * 5

    f = bw.compile(f)
    assert float(f(X)[0, 0]) == 1
    o.rate = 3.0
    assert float(f(X)[0, 0]) == 3
    del o.rate
    assert float(f(X)[0, 0]) == 5


def test_strings_are_names_only_where_code_asks_by_them():
    o = SimpleNamespace(rate=1.0, loss=0.0)

    def results(v):
        return {"loss": v * o.rate}

    f = bw.compile(results)
    for i in range(3):
        o.loss = float(i)
        f(X)
    assert f.stats().compilations == 1
