"""Modules, compiled functions and what was compiled for them are freed when the last reference goes.

By reference count alone: the garbage collector is off in these tests, so that one cycle anywhere shows.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import brickwork as bw
from brickwork import losses, nn, optim
from brickwork.errors import RecompileError, ShapeMismatchError


def _x(n: int = 2) -> jax.Array:
    return jnp.ones((n, 4))


def _net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3), nn.BatchNorm1d(), nn.Tanh(), nn.Dropout(0.5), nn.Linear(1))


def _loss(net: Any, v: Any) -> Any:
    return losses.mse(net(v), v[:, :1])


@pytest.fixture(scope="module")
def _nothing_older() -> Iterator[None]:
    """What earlier tests left is looked at once, and not in each of these, which takes seconds."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def no_collector(_nothing_older: None) -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _executables() -> int:
    return len(jax.devices()[0].client.live_executables())


def _parts(*compiled: Any) -> list[Any]:
    """Compiled functions, and what each of them holds that is worth watching."""
    found: list[Any] = []
    for c in compiled:
        programs = [program for _, program in c._record.made]
        found += [c, c._fn, *programs, *(p.executable for p in programs), *(p.jitted for p in programs)]
    return found


# Each of these makes things, uses them, and returns those that should be gone afterwards.


def closure() -> list[Any]:
    net = _net()
    f = bw.compile(lambda v: net(v))
    f(_x()), f(_x())
    return [net, *net.modules(), *net.variables(), *_parts(f)]


def several_programs() -> list[Any]:
    net = _net()
    f = bw.compile(lambda v: net(v))
    f(_x()), f(_x(3))
    net.eval()
    f(_x())
    net[0] = nn.Linear(3)
    f(_x())
    return [net, *net.modules(), *_parts(f)]


def module() -> list[Any]:
    net = bw.compile(_net())
    net(_x()), net(_x())
    return [net._fn, *_parts(net)]


def module_argument() -> list[Any]:
    net = _net()
    f = bw.compile(lambda model, v: model(v))
    f(net, _x()), f(net, _x())
    return [net, *net.variables(), *_parts(f)]


def training() -> list[Any]:
    net = _net()
    opt = optim.adam(net, 1e-2)

    @bw.compile
    def step(v: Any) -> Any:
        loss, grads = bw.value_and_grad(lambda v: _loss(net, v), net)(v)
        opt.step(grads)
        return loss

    step(_x()), step(_x())
    return [net, opt, *net.variables(), *opt.variables(), *_parts(step)]


def backward() -> list[Any]:
    net = _net()
    opt = optim.sgd(net, 1e-2, momentum=0.9)

    @bw.compile
    def step(v: Any) -> Any:
        loss = bw.backward(lambda v: _loss(net, v), net)(v)
        opt.step()
        return loss

    step(_x()), step(_x())
    return [net, opt, *net.variables(), *opt.variables(), *_parts(step)]


class _Trainer:
    def __init__(self) -> None:
        self.net = _net()
        self.opt = optim.sgd(self.net, 1e-2)

    @bw.compile
    def step(self, v: Any) -> Any:
        loss, grads = bw.value_and_grad(lambda v: _loss(self.net, v), self.net)(v)
        self.opt.step(grads)
        return loss


def method() -> list[Any]:
    trainer = _Trainer()
    trainer.step(_x()), trainer.step(_x())
    compiled = trainer.step.__wrapped__
    return [trainer, trainer.net, trainer.opt, *_parts(compiled)]


def nested() -> list[Any]:
    net = _net()
    inner = bw.compile(lambda v: net(v))
    outer = bw.compile(lambda v: inner(v) * 2)
    inner(_x()), outer(_x())
    return [net, *_parts(inner, outer)]


def eager() -> list[Any]:
    net = _net()
    opt = optim.sgd(net, 1e-2)
    _, grads = bw.value_and_grad(lambda v: _loss(net, v), net)(_x())
    opt.step(grads)
    other = net.clone()
    other.load_state_dict(net.state_dict())
    text = repr(other), str(other.summary(bw.spec(2, 4)))
    return [net, opt, other, *net.variables(), *other.variables(), *text[:0]]


def hooks() -> list[Any]:
    net = _net()
    seen: list[Any] = []
    handle = net.register_forward_hook(lambda *args: seen.append(1))
    f = bw.compile(lambda v: net(v))
    f(_x())
    handle.remove()
    f(_x())
    return [net, *_parts(f)]


def explained() -> list[Any]:
    net = _net()
    f = bw.compile(lambda v: net(v))
    str(f.explain(_x(), hlo=True))
    f(_x())
    f.stats()
    return [net, *_parts(f)]


def refused() -> list[Any]:
    net = _net()
    f = bw.compile(lambda v: net(v))
    f(_x())
    placed = jax.device_put(_x(), jax.devices()[0])
    with bw.no_recompile():
        for wrong in (_x(3), placed):
            with pytest.raises(RecompileError):
                f(wrong)
    return [net, *_parts(f)]


def threads() -> list[Any]:
    net = _net()
    f = bw.compile(lambda v: net(v))
    started = [threading.Thread(target=f, args=(_x(),)) for _ in range(3)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return [net, *_parts(f)]


def functional() -> list[Any]:
    net = _net()
    net(_x())
    pure, state = bw.functional(net)
    jax.jit(pure)(state, _x())
    return [net, *net.variables()]


_CASES: list[Callable[[], list[Any]]] = [
    closure,
    several_programs,
    module,
    module_argument,
    training,
    backward,
    method,
    nested,
    eager,
    hooks,
    explained,
    refused,
    threads,
    functional,
]


@pytest.mark.parametrize("case", _CASES, ids=lambda case: case.__name__)
def test_everything_is_freed_at_once(case: Callable[[], list[Any]], no_collector: None) -> None:
    case()  # what the library compiles once and keeps
    before = _executables()
    watched = [(f"{type(o).__name__} {getattr(o, '__name__', '')}", weakref.ref(o)) for o in case()]
    assert [name for name, ref in watched if ref() is not None] == []
    assert _executables() == before


def test_a_failed_trace_keeps_nothing(no_collector: None) -> None:
    net = _net()
    f = bw.compile(lambda v: net(v))
    f(_x())
    wrong, before = jnp.ones((2, 5)), _executables()
    for _ in range(3):
        with pytest.raises(ShapeMismatchError):
            f(wrong)
    assert len(f._programs) == len(f._record.made) == 1 and _executables() == before
    gone = weakref.ref(net)
    del f, net
    gc.collect()  # exceptions and their tracebacks are cycles
    assert gone() is None


def test_a_compiled_function_keeps_no_module_alive(no_collector: None) -> None:
    f = bw.compile(lambda model, v: model(v))
    net, twin = _net(), _net()
    f(net, _x())
    refs = [weakref.ref(o) for o in (net, *net.modules(), *net.variables())]
    del net
    assert all(ref() is None for ref in refs)
    f(twin, _x())
    assert f.stats().compilations == 1  # what was compiled serves the next one


def test_a_layer_that_was_replaced_is_freed_with_its_programs(no_collector: None) -> None:
    net = _net()
    f = bw.compile(lambda v: net(v))
    f(_x())
    ((_, program),) = f._record.made
    old, executable, program = weakref.ref(net[0]), weakref.ref(program.executable), weakref.ref(program)
    net[0] = nn.Linear(3)
    assert old() is None
    f(_x())
    assert (program(), executable()) == (None, None)
    assert f.stats().programs == 1


def test_arrays_are_freed_with_their_network(no_collector: None) -> None:
    def live() -> int:
        return sum(a.nbytes for a in jax.live_arrays())

    training()
    before = live()
    training()
    assert live() == before
