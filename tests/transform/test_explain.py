"""``step.explain()`` and ``step.stats()``."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn, optim
from brickwork.core import random_stream
from brickwork.errors import ControlFlowError, DeviceMismatchError, ShapeMismatchError
from brickwork.transform import VariableUse


def x(n=2, width=4):
    return jnp.ones((n, width))


def names(uses, word):
    return {(v.owner, v.name) for v in uses if getattr(v, word)}


class Net(bw.Module):
    def __init__(self, scale=1.0):
        self.layer = nn.Linear(3, in_features=4)
        self.seen = bw.Buffer(jnp.zeros((), jnp.int32))
        self.scale = scale

    def forward(self, v):
        self.seen += 1
        return self.layer(v) * self.scale

    @bw.compile
    def total(self, v):
        return self(v).sum()


class Plain:
    """Not a module, but holds one."""

    def __init__(self):
        self.net = Net()

    @bw.compile
    def total(self, v, scale=1):
        return self.net(v).sum() * scale


@pytest.fixture
def net():
    return Net()


# -- what an explanation says --------------------------------------------------------------------


def test_variables_read_written_and_donated(net):
    opt = optim.sgd(net, 0.1, momentum=0.9)
    drawn = bw.Buffer(jnp.zeros(()))

    @bw.compile
    def step(v):
        loss, grads = bw.value_and_grad(lambda v: (net(v) ** 2).mean(), net)(v)
        opt.step(grads)
        drawn.value = jax.random.normal(bw.random.key())
        return loss

    e = step.explain(x())
    mine, state = "captured variable 'net'", "captured variable 'opt'"
    moved = {
        (mine, "layer.weight"),
        (mine, "layer.bias"),
        (mine, "seen"),
        (state, "inner.trace.layer.weight"),
        (state, "inner.trace.layer.bias"),
        (state, "inner.count"),
        ("", "the random stream"),
    }
    moved = {pair for pair in moved if pair in names(e.variables, "donated")} | (moved - {(state, "inner.count")})
    assert names(e.variables, "read") == moved | {(state, "hyperparams.learning_rate")}
    assert names(e.variables, "written") == moved | {("", "captured variable 'drawn'")}
    assert names(e.variables, "donated") == moved
    assert set(e.donated) <= set(e.written) and "layer.weight" in e.read
    sizes = {v.name: v.bytes for v in e.variables}
    assert (sizes["layer.weight"], sizes["layer.bias"], sizes["seen"]) == (48, 12, 4)
    assert e.donated_bytes == sum(v.bytes for v in e.variables if v.donated)
    weight = next(v for v in e.variables if v.name == "layer.weight")
    assert weight == VariableUse("layer.weight", mine, "Parameter", (3, 4), jnp.float32, 48, True, True, True)


def test_nothing_is_donated_when_asked(net):
    e = bw.compile(lambda v: net(v), donate=False).explain(x())
    assert (e.written, e.donated, e.donated_bytes) == (("seen",), (), 0)


def test_arguments():
    @bw.compile
    def f(batch, model, rate, *, mode="a", count):
        count.value += 1
        return model(batch["image"]) * rate

    e = f.explain({"image": x(), "label": np.zeros(3, np.int32)}, Net(), 2, mode="b", count=bw.Buffer(jnp.zeros(())))
    assert {n: (s.shape, s.dtype) for n, s in e.traced.items()} == {
        "batch['image']": ((2, 4), jnp.float32),
        "batch['label']": ((3,), jnp.int32),
    }
    assert e.static == {"rate": 2, "mode": "b"}
    assert e.modules == {"model": "Net", "count": "Buffer"}
    assert names(e.variables, "read") == {
        ("argument 'model'", "layer.weight"),
        ("argument 'model'", "layer.bias"),
        ("argument 'model'", "seen"),
        ("", "argument 'count'"),
    }
    assert names(e.variables, "written") == {("argument 'model'", "seen"), ("", "argument 'count'")}


def test_two_modules_with_the_same_paths_are_told_apart():
    e = bw.compile(lambda a, b, v: a(v) + b(v)).explain(Net(), Net(), x())
    assert e.read == ("layer.weight", "layer.bias", "seen") * 2
    assert {v.owner for v in e.variables} == {"argument 'a'", "argument 'b'"}


def test_gradients_written_by_backward(net):
    e = bw.compile(lambda v: bw.backward(lambda v: net(v).sum(), net)(v)).explain(x())
    assert {"layer.weight.grad", "layer.bias.grad"} <= set(e.written)
    assert all(p.grad is None for p in net.parameters())
    assert next(v for v in e.variables if v.name == "layer.weight.grad").shape is None


def test_figures():
    f = bw.compile(lambda a, b: a @ b)
    e = f.explain(jnp.ones((8, 16)), jnp.ones((16, 4)))
    assert e.flops == pytest.approx(2 * 8 * 16 * 4, rel=0.1)
    assert (e.argument_bytes, e.donated_bytes) == (4 * (8 * 16 + 16 * 4), 0)
    assert e.bytes_accessed >= e.argument_bytes and e.result_bytes >= 4 * 8 * 4
    assert e.peak_memory == e.argument_bytes + e.result_bytes + e.temp_bytes


def test_hlo_on_request():
    f = bw.compile(lambda v: jnp.tanh(v) * 2)
    assert f.explain(x()).hlo is None
    text = f.explain(x(), hlo=True).hlo
    assert text.startswith("HloModule") and "tanh" in text
    assert str(f.explain(x(), hlo=True)).endswith(text)
    assert f.stats().compilations == 1


def test_whether_and_why_it_would_compile(net):
    f = bw.compile(lambda v, mode="a": net(v))
    first = f.explain(x())
    assert (first.compiles, first.cause, first.programs) == (True, "it was never compiled", 1)
    again = f.explain(x())
    assert (again.compiles, again.cause, again.programs) == (False, None, 1)
    f(x())
    wider = f.explain(x(3))
    assert wider.compiles and wider.cause == "argument 'v': float32[2, 4] became float32[3, 4]"
    assert wider.programs == 2
    f(x(), mode="b")
    net.scale = 2.0
    assert f.explain(x(), mode="b").cause == "a change in Net: scale: 1.0 became 2.0"


def test_a_path_through_control_flow():
    @bw.compile
    def f(v):
        if v.sum() > 0:
            return v
        return -v

    e = f.explain(x())
    ((file, line, value),) = e.predicates
    assert file == __file__ and value is True and line == f.__wrapped__.__code__.co_firstlineno + 2
    assert not e.eager and f"{file}:{line} is True" in str(e)
    f(-x())
    assert [p[2] for p in f.explain(x()).predicates] == [False]  # the path taken last


def test_a_function_that_cannot_be_compiled():
    @bw.compile
    def f(v):
        if v.sum() > 0:
            jax.debug.callback(lambda: None)
        return v

    with pytest.warns(UserWarning, match="runs without being compiled"):
        e = f.explain(x())
    assert e.eager and e.flops is None and e.hlo is None and e.peak_memory is None
    assert str(e).startswith("f would run without being compiled\n")
    assert f.explain(x(), hlo=True).hlo is None


def test_a_function_that_is_not_compiled_any_more():
    f = bw.compile(lambda v: v + int(v))
    with pytest.warns(UserWarning, match="runs without being compiled"):
        for n in range(20):
            f(jnp.float32(n))
    e = f.explain(jnp.float32(99))
    assert e.eager and e.predicates == () and "assumed" not in str(e)


def test_the_page(net):
    f = bw.compile(lambda v, rate=1: net(v) * rate)
    f.__name__ = "f"
    lines = str(f.explain(x(), rate=3)).splitlines()
    assert lines[:11] == [
        "f would compile (it was never compiled)",
        "  programs kept: 1",
        "  traced arguments:",
        "    v: float32[2, 4]",
        "  static arguments:",
        "    rate: 3",
        "  variables: 3 read, 1 written, 1 donated:",
        "    of captured variable 'net':",
        "      layer.weight: Parameter float32[3, 4] read",
        "      layer.bias: Parameter float32[3] read",
        "      seen: Buffer int32[] read+written+donated",
    ]
    assert lines[11].startswith("  work: ") and "FLOPs" in lines[11]
    assert lines[12].startswith("  memory: ") and lines[12].endswith("- 4 B donated")
    assert str(f.explain(x(), rate=3)).splitlines()[0] == "f would run at once"


def test_an_explanation_is_frozen():
    e = bw.compile(lambda v: v).explain(x())
    with pytest.raises(dataclasses.FrozenInstanceError):
        e.flops = 0


# -- what can be explained -----------------------------------------------------------------------


def test_compiled_modules(net):
    compiled = bw.compile(net)
    e = compiled.explain(x())
    assert e.function == "Net" and e.read == ("layer.weight", "layer.bias", "seen")
    assert list(e.traced) == ["v"] and int(net.seen) == 0
    compiled(x())
    assert compiled.stats().compilations == 1


def test_methods_of_modules(net):
    before = Net.total.stats().compilations
    e = net.total.explain(x())
    assert names(e.variables, "written") == {("argument 'self'", "seen")}
    assert e.modules == {"self": "Net"} and list(e.traced) == ["v"]
    net.total(x())
    assert Net.total.stats().compilations == before + 1


def test_methods_of_other_objects():
    plain = Plain()
    e = plain.total.explain(x(), scale=2)
    assert (list(e.traced), e.static) == (["v"], {"scale": 2})
    assert e.written == ("seen",)
    plain.total(x(), scale=2)
    assert plain.total.stats().compilations == 1


def test_numpy_arrays_and_keywords():
    f = bw.compile(lambda v, w: v + w)
    e = f.explain(np.ones(3, np.float32), w=np.float32(2))
    assert {n: s.shape for n, s in e.traced.items()} == {"v": (3,), "w": ()}
    f(np.ones(3, np.float32), w=np.float32(2))
    assert f.stats().compilations == 1


# -- an explanation leaves everything as it is ---------------------------------------------------


def test_nothing_runs_and_nothing_changes():
    net = nn.Sequential(nn.Linear(3), nn.BatchNorm1d(), nn.Dropout(0.5), nn.Linear(1))
    opt = optim.adam(net, 1e-2)

    @bw.compile
    def step(v):
        loss, grads = bw.value_and_grad(lambda v: (net(v) ** 2).mean(), net)(v)
        opt.step(grads)
        return loss

    def state():
        variables = (*net.named_variables(), *opt.named_variables(), ("stream", random_stream()))
        return {name: np.asarray(v) for name, v in variables}

    step(x())
    before, counts = state(), dataclasses.asdict(step.stats())
    step.explain(x(3))
    step.explain(x())
    after = state()
    assert all(np.array_equal(before[k], after[k]) for k in before)
    stats = step.stats()
    assert (stats.calls, stats.cache_hits) == (counts["calls"], counts["cache_hits"])
    assert stats.compilations == counts["compilations"] + 1
    assert stats.flops == counts["flops"]  # still those of the program that was called


def test_the_next_call_finds_the_program(net):
    traces = []

    @bw.compile
    def f(v):
        traces.append(1)
        return net(v)

    f.explain(x())
    n = len(traces)
    with bw.no_recompile():
        f(x())
        f(x())
    stats = f.stats()
    assert len(traces) == n
    assert (stats.calls, stats.compilations, stats.cache_hits) == (2, 1, 2)


def test_an_array_the_user_holds_survives(net):
    held = net.seen.value
    f = bw.compile(lambda v: net(v))
    f.explain(x())
    f(x())
    f.explain(x())
    assert int(held) == 0 and int(net.seen) == 1


def test_deferred_shapes_become_known():
    net = nn.Linear(3)
    f = bw.compile(lambda v: net(v))
    e = f.explain(x())
    assert net.weight.shape == (3, 4) and e.read == ("weight", "bias")
    f(x())
    assert f.stats().compilations == 1


def test_after_jax_dropped_its_caches():
    f = bw.compile(lambda v: v * 2)
    f(x())
    jax.clear_caches()
    e = f.explain(x())
    assert e.compiles and e.cause.startswith("jax.clear_caches()") and f.stats().compilations == 2
    with bw.no_recompile():
        f(x())


# -- wrong arguments -----------------------------------------------------------------------------


def test_the_same_errors_as_a_call(net, devices):
    f = bw.compile(lambda v, option=None: net(v))
    net(x())
    for wrong in (
        lambda g: g(jnp.ones((2, 5))),
        lambda g: g(),
        lambda g: g(x(), option=[{1, 2}]),
        lambda g: g(x(), nonsense=1),
        lambda g: g(jax.device_put(x(), devices[1])),
    ):
        errors = []
        for g in (f, f.explain):
            with pytest.raises((TypeError, ValueError)) as caught:
                wrong(g)
            errors.append((type(caught.value), str(caught.value)))
        assert errors[0] == errors[1]
    assert (f.stats().calls, f.stats().compilations) == (0, 0) or f.stats().compilations == 1


def test_a_function_with_a_parameter_called_hlo():
    f = bw.compile(lambda v, hlo=False: 2 * v if hlo else v)
    f.__name__ = "f"
    for flag in (True, False):
        with pytest.raises(TypeError) as caught:
            f.explain(x(), hlo=flag)
        assert str(caught.value) == (
            "f.explain: hlo= asks for the text of the program, but the function has a parameter of that name too; pass "
            "that by position, and hlo=True besides for the text"
        )
    assert f.explain(x(), True).static == {"hlo": True} and f.explain(x(), True).hlo is None
    assert "multiply" in f.explain(x(), True, hlo=True).hlo and f.explain(x()).static == {}

    class Model(bw.Module):
        def forward(self, v, *, hlo=1):
            return v * hlo

        @bw.compile
        def method(self, hlo):
            return hlo

    with pytest.raises(TypeError, match="rename it, or let the function take it by position"):
        bw.compile(Model()).explain(x(), hlo=2)
    with pytest.raises(TypeError, match=r"method\.explain: hlo= asks .*pass that by position"):
        Model().method.explain(hlo=x())
    assert Model().method.explain(x(), hlo=True).hlo
    assert bw.compile(lambda v, **hlo: v).explain(x(), hlo=True).hlo


def test_errors_of_the_library_pass(net, devices):
    f = bw.compile(lambda v: net(v))
    with pytest.raises(ShapeMismatchError):
        f.explain(jnp.ones((2, 5)))
    with pytest.raises(DeviceMismatchError, match="operands are on different devices"):
        net.to(devices[0])
        f.explain(jax.device_put(x(), devices[1]))
    g = bw.compile(lambda v: v if v.sum() > 0 else -v, control_flow="error")
    with pytest.raises(ControlFlowError, match="needs the value of an array"):
        g.explain(x())


def test_inside_another_transform(net):
    inner = bw.compile(lambda v: net(v).sum())
    message = r"<lambda>.explain: called inside another transform.*explain the outermost compiled function"
    for outer in (bw.compile(lambda v: inner.explain(v)), jax.jit(lambda v: inner.explain(v))):
        with pytest.raises(RuntimeError, match=message):
            outer(x())


# -- statistics ----------------------------------------------------------------------------------


def test_statistics(net):
    f = bw.compile(lambda v: net(v))
    assert str(f.stats()) == "0 calls, 0 compilations (0 s tracing, 0 s compiling), 0 programs kept"
    f(x()), f(x()), f(x(3))
    stats = f.stats()
    assert (stats.calls, stats.compilations, stats.cache_hits, stats.programs) == (3, 2, 1, 2)
    assert stats.cause == "argument 'v': float32[2, 4] became float32[3, 4]"
    assert stats.argument_bytes == 4 * (12 + 12 + 3 + 1) and stats.donated == 4
    assert stats.peak_memory == stats.argument_bytes + stats.result_bytes + stats.temp_bytes - stats.donated
    assert str(stats).startswith("3 calls, 2 compilations (") and str(stats).endswith("B of memory, 4 B donated")
    e = f.explain(x(3))
    assert (e.flops, e.peak_memory, e.donated_bytes) == (stats.flops, stats.peak_memory, stats.donated)


def test_the_warning_names_a_module_argument():
    f = bw.compile(lambda model, v: model(v))
    with pytest.warns(
        bw.RecompileWarning, match=r"last because of argument 'model': scale: 8.0 became 9.0\. Keep numbers"
    ):
        for n in range(10):
            f(Net(float(n)), x())
