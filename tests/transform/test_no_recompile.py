"""``bw.no_recompile()``: what it refuses, what it says, where it holds."""

from __future__ import annotations

import threading
import weakref
from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import losses, nn, optim
from brickwork.core import random_stream
from brickwork.errors import BrickworkError, RecompileError
from brickwork.transform import Stats


def x(n=2, width=4):
    return jnp.ones((n, width))


class Net(bw.Module):
    def __init__(self, scale=1.0):
        self.layer = nn.Linear(3, in_features=4)
        self.seen = bw.Buffer(jnp.zeros((), jnp.int32))
        self.scale = scale

    def forward(self, v):
        self.seen += 1
        return self.layer(v) * self.scale


@pytest.fixture
def net():
    return Net()


# -- what it refuses, and what it says ------------------------------------------------------------


def test_a_call_that_is_ready_passes(net):
    f = bw.compile(lambda v: net(v))
    f(x())
    with bw.no_recompile():
        f(x())
        net.eval()
    f(x())
    net.train()
    with bw.no_recompile():
        f(x())  # an earlier program
    assert f.stats().compilations == 2


def test_it_names_the_function_and_the_argument():
    @bw.compile
    def step(batch):
        return batch["image"].sum()

    step({"image": x(2)})
    with bw.no_recompile(), pytest.raises(RecompileError) as caught:
        step({"image": x(3)})
    assert str(caught.value) == (
        "step would be compiled again inside bw.no_recompile(), because of argument \"batch['image']\": float32[2, 4] "
        "became float32[3, 4]. Keep it fixed: pad or drop a last, smaller batch; pass numbers that change as arrays "
        "(jnp.asarray) or keep them in a Buffer. Or call it before with all that it will meet."
    )
    assert isinstance(caught.value, BrickworkError) and isinstance(caught.value, RuntimeError)


def test_a_first_compilation_is_unexpected_too():
    @bw.compile
    def step(v):
        return v

    for call in (step, step.explain):
        with bw.no_recompile(), pytest.raises(RecompileError) as caught:
            call(x())
        assert str(caught.value) == (
            "step was never compiled, and would be now, inside bw.no_recompile(). Call it, or its explain(), with such "
            "arguments before."
        )
    assert step.stats() == Stats(0, 0, 0, 0.0, 0.0, *[None] * 7, 0, None)


_rate = 1.0


def _set_rate(value):
    global _rate
    _rate = value


class Holder:
    rate = 1.0


def _changes():
    """Programs, what is done to them, and the cause that is named."""
    net = Net()
    holder = Holder()
    rate = 1.0

    def set_captured():
        nonlocal rate
        rate = 2.0

    def deepen():
        net.extra = nn.Linear(1)

    old = net.layer

    def replace():
        net.layer = nn.Linear(3, in_features=4)
        assert old is not net.layer  # and is still alive

    def to_half():
        net.to(jnp.bfloat16)

    return {
        "a global": (lambda v: v * _rate, lambda: _set_rate(2.0), "global '_rate'"),
        "a captured name": (lambda v: v * rate, set_captured, "captured variable 'rate'"),
        "an attribute of an object": (lambda v: v * holder.rate, lambda: setattr(holder, "rate", 2.0), "Holder.rate"),
        "an attribute": (lambda v: net(v), lambda: setattr(net, "scale", 2.0), "in Net: scale: 1.0 became 2.0"),
        "evaluation": (lambda v: net(v), net.eval, "in Net: training: True became False"),
        "freezing": (lambda v: net(v), net.freeze, "layer.weight.trainable: True became False"),
        "a new layer": (lambda v: net(v), deepen, "in Net: now with extra"),
        "another layer": (lambda v: net(v), replace, "another Linear in the place of 'layer'"),
        "another dtype": (lambda v: net(v.astype(net.layer.weight.dtype)), to_half, "float32.* became bfloat16"),
        "a setting": (
            lambda v: v @ v.T,
            lambda: jax.config.update("jax_default_matmul_precision", "highest"),
            "a changed setting of JAX",
        ),
    }


@pytest.mark.parametrize("what", _changes())
def test_it_names_what_changed(what):
    _set_rate(1.0)
    fn, change, cause = _changes()[what]
    f = bw.compile(fn)
    f(x())
    before = jax.config.jax_default_matmul_precision
    try:
        with bw.no_recompile(), pytest.raises(RecompileError, match=f"because of .*{cause}"):
            change()
            f(x())
        f(x())
    finally:
        jax.config.update("jax_default_matmul_precision", before)
    assert f.stats().compilations == 2 and cause.split()[-1] in f.stats().cause


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda v: jnp.ones((2, 5)), r"argument 'v': float32\[2, 4\] became float32\[2, 5\]"),
        (lambda v: v.astype(jnp.bfloat16), r"argument 'v': float32\[2, 4\] became bfloat16\[2, 4\]"),
        (lambda v: [v], "the number or nesting of the arguments"),
        (lambda v: 3.0, r"argument 'v': float32\[2, 4\] became 3.0"),
    ],
)
def test_it_names_arguments(change, cause):
    f = bw.compile(lambda v: jax.tree.map(jnp.sum, v))
    f(x())
    with bw.no_recompile(), pytest.raises(RecompileError, match=f"because of {cause}"):
        f(change(x()))


def test_it_names_what_differs_in_a_module_argument():
    f = bw.compile(lambda v, model: model(v))
    f(x(), Net(1.0))
    with bw.no_recompile():
        f(x(), Net(1.0))
        with pytest.raises(RecompileError, match=r"because of argument 'model': scale: 1.0 became 2.0\."):
            f(x(), Net(2.0))
        with pytest.raises(RecompileError, match=r"argument 'model': Net became Linear\."):
            f(x(), nn.Linear(3, in_features=4))
    g = bw.compile(lambda v, model: model(v))
    g(x(), nn.Sequential(nn.Tanh(), nn.Tanh()))
    with bw.no_recompile(), pytest.raises(RecompileError, match=r"argument 'model': .*2 items became 3"):
        g(x(), nn.Sequential(nn.Tanh(), nn.Tanh(), nn.Tanh()))


@pytest.mark.parametrize(
    ("container", "cause"),
    [
        (dict, r"captured variable 'holder'\[0\]\. Keep it fixed, or pass it as an argument; pass numbers"),
        (lambda pairs: deque([Net()]), r"a module that it was compiled for and that is gone\. Keep numbers"),
    ],
)
def test_modules_that_are_gone(container, cause):
    holder = container([(0, Net())])
    f = bw.compile(lambda v: holder[0](v))
    f(x())
    holder[0] = Net()
    with bw.no_recompile(), pytest.raises(RecompileError, match=f"because of {cause}"):
        f(x())


@pytest.mark.parametrize("kept", [False, True])
def test_a_layer_put_in_the_place_of_another(kept):
    net = nn.Sequential(nn.Linear(4, in_features=4), nn.ReLU())
    f = bw.compile(lambda v: net(v))
    f.__name__ = "f"
    f(x())
    old = net[0] if kept else None
    net[0] = nn.Linear(4, in_features=4, bias=False)
    with bw.no_recompile(), pytest.raises(RecompileError) as caught:
        f(x())
    assert str(caught.value) == (
        "f would be compiled again inside bw.no_recompile(), because of a change in Sequential: 0.bias: Parameter "
        "became None. Keep numbers that change in a Buffer; make other changes to modules first, and call it once "
        "after them."
    )
    f(x())
    old = net[0] if kept else None
    net[0] = nn.Linear(4, in_features=4, bias=False)
    with bw.no_recompile(), pytest.raises(RecompileError, match="of another Linear in the place of '0'"):
        f(x())
    assert f.explain(x()).cause == "another Linear in the place of '0'"
    assert (old is None) is not kept


def test_what_is_kept_of_a_dropped_program_keeps_nothing_alive():
    net = nn.Sequential(nn.Linear(4, in_features=4))
    f = bw.compile(lambda v: net(v))
    f(x())
    layer, weight = weakref.ref(net[0]), weakref.ref(net[0].weight)
    net[0] = nn.Linear(4, in_features=4)
    assert layer() is None and weight() is None
    assert f._record.past is not None


@pytest.mark.parametrize(
    ("what", "advice"),
    [
        ("a captured name", "Keep it fixed, or pass it as an argument; pass numbers that change as arrays"),
        ("evaluation", "Keep numbers that change in a Buffer; make other changes to modules first"),
        ("a setting", "Set it once, before the first call"),
    ],
)
def test_its_advice_fits(what, advice):
    fn, change, _ = _changes()[what]
    f = bw.compile(fn)
    f(x())
    before = jax.config.jax_default_matmul_precision
    try:
        change()
        with bw.no_recompile(), pytest.raises(RecompileError, match=advice) as caught:
            f(x())
    finally:
        jax.config.update("jax_default_matmul_precision", before)
    assert "batch" not in str(caught.value)


def test_another_path():
    f = bw.compile(lambda v: v if v.sum() > 0 else -v)
    f(x())
    with (
        bw.no_recompile(),
        pytest.raises(RecompileError, match=rf"another path through its control flow at {__file__}"),
    ):
        f(-x())
    np.testing.assert_array_equal(f(-x()), x())


def test_a_refused_call_changes_nothing():
    net = nn.Sequential(nn.Linear(3), nn.Dropout(0.5))
    count = bw.Buffer(jnp.zeros(()))

    @bw.compile
    def f(model, v):
        count.value += 1
        return model(v)

    f(net, x())
    other, stream = nn.Sequential(nn.Linear(3), nn.Dropout(0.5)), np.asarray(random_stream())
    stats, n = f.stats(), len(f._programs)
    with bw.no_recompile(), pytest.raises(RecompileError):
        f(other, x(2, 7))
    assert f.stats() == stats and len(f._programs) == n
    assert other[0].weight.shape == (3, None) and float(count) == 1
    np.testing.assert_array_equal(stream, random_stream())
    assert f(other, x(2, 7)).shape == (2, 3)


# -- what JAX compiles on its own, when inputs lie elsewhere ---------------------------------------


def test_inputs_placed_otherwise(devices):
    count = bw.Buffer(jnp.zeros(()))

    @bw.compile
    def f(v):
        count.value += v.sum()
        return v

    f(x())
    there = jax.device_put(x(), devices[0])
    with bw.no_recompile():
        with pytest.raises(RecompileError) as caught:
            f(there)
        f(x())
    assert str(caught.value) == (
        "f would be compiled again inside bw.no_recompile(), because of argument 'v', committed to a device (by "
        "jax.device_put with one, or computed from such an array) where inputs before were not, or the reverse. Place "
        "inputs in the same way each time, for example with bw.to, or call the function before with both."
    )
    assert float(count) == 16 and f.stats().compilations == 1
    f(there)
    assert float(count) == 24
    stats = f.stats()
    assert (stats.compilations, stats.programs, stats.calls - stats.cache_hits) == (2, 1, 2)


def test_inputs_on_another_device(devices):
    f = bw.compile(lambda v: v * 2)
    f(jax.device_put(x(), devices[0]))
    elsewhere = jax.device_put(x(), devices[1])
    with bw.no_recompile(), pytest.raises(RecompileError, match=r"argument 'v': .*0 became .*1\. Place inputs"):
        f(elsewhere)
    e = f.explain(elsewhere)
    assert e.compiles and e.cause.startswith("argument 'v': ") and e.programs == 1
    with bw.no_recompile():
        f(elsewhere)
    assert f.stats().compilations == 2 and not f.explain(elsewhere).compiles


def test_inputs_over_several_devices(devices):
    f = bw.compile(lambda v: v * 2)
    mesh = jax.make_mesh((2,), ("data",), devices=devices[:2])
    whole, split = (
        jax.device_put(x(), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes)))
        for axes in ((), ("data",))
    )
    f(whole)
    with (
        bw.no_recompile(),
        pytest.raises(RecompileError, match=r"argument 'v': .*over 2 devices became .*'data'.* over 2"),
    ):
        f(split)


def test_jax_dropped_its_caches():
    f = bw.compile(lambda v: v * 2)
    f(x())
    y = x()
    jax.clear_caches()
    with bw.no_recompile(), pytest.raises(RecompileError, match=r"because of jax.clear_caches\(\), which dropped what"):
        f(y)
    np.testing.assert_array_equal(f(y), 2 * y)


def test_what_is_not_a_compiled_function_may_compile():
    f = bw.compile(lambda v: v * 2)
    f(x())
    with bw.no_recompile():
        jax.jit(lambda v: v + 17)(f(x()))
        nn.Linear(5)(jnp.ones((1, 17)))


# -- where it holds ------------------------------------------------------------------------------


def test_nesting_and_exceptions():
    f = bw.compile(lambda v: v)
    context = bw.no_recompile()
    with pytest.raises(KeyError), context, context:
        raise KeyError
    f(x())
    with context:
        with bw.no_recompile():
            pass
        with pytest.raises(RecompileError):
            f(x(3))
    f(x(3))


def test_as_a_decorator():
    f = bw.compile(lambda v: v)
    f(x())

    @bw.no_recompile()
    def serve(v):
        """Answer."""
        return f(v)

    @bw.no_recompile
    def serve_too(v):
        return f(v)

    for fn in (serve, serve_too):
        fn(x())
        with pytest.raises(RecompileError):
            fn(x(3))
    assert (serve.__name__, serve.__doc__) == ("serve", "Answer.")
    f(x(4))


def test_what_it_cannot_decorate():
    def batches():
        yield 1

    async def serve():
        pass

    for fn, kind in ((batches, "generator"), (serve, "coroutine")):
        with pytest.raises(TypeError, match=rf"no_recompile: {fn.__name__} is a {kind} function, .*write `with"):
            bw.no_recompile(fn)


def test_other_threads_may_compile():
    f = bw.compile(lambda v: v)
    shapes = []
    with bw.no_recompile():
        thread = threading.Thread(target=lambda: shapes.append(f(x()).shape))
        thread.start()
        thread.join()
        f(x())
    assert shapes == [(2, 4)]


def test_inside_another_compiled_function(net):
    inner = bw.compile(lambda v: net(v))
    outer = bw.compile(lambda v: inner(v) * 2)
    outer(x())
    with bw.no_recompile():
        outer(x())  # inner is part of it, and needs no program of its own
        with pytest.raises(RecompileError, match="never compiled"):
            inner(x())


def test_a_training_step_in_a_block():
    net = nn.Linear(1)
    opt = optim.adam(net, 1e-2)

    @bw.compile
    def step(v):
        loss, grads = bw.value_and_grad(lambda v: losses.mse(net(v), v[:, :1]), net)(v)
        opt.step(grads)
        return loss

    step(x())
    with bw.no_recompile():
        found = [float(step(x())) for _ in range(5)]
    assert found == sorted(found, reverse=True) and step.stats().compilations == 1
