"""``bw.compile``: arguments, results, state, nesting, statistics."""

from __future__ import annotations

import copy
import functools
import gc
import pickle
import warnings
import weakref
from collections import namedtuple
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn, optim
from brickwork.errors import BrickworkError, ControlFlowError, TraceLeakError


class Linear(bw.Module):
    def __init__(self, out, *, in_features=None):
        self.weight = bw.Parameter(shape=(out, in_features))
        self.bias = bw.Parameter(shape=(out,))

    def build(self, x):
        self.weight.shape = (None, x.shape[-1])

    def forward(self, x):
        return x @ self.weight.T + self.bias


class Net(bw.Module):
    def __init__(self):
        self.a = Linear(4)
        self.b = Linear(2)

    def forward(self, x):
        return self.b(jnp.tanh(self.a(x)))


class Count(bw.Module):
    def __init__(self):
        self.n = bw.Buffer(jnp.zeros((), jnp.int32))

    def forward(self, x):
        self.n += 1
        return x * 2


X = np.ones((3, 5), np.float32)


def x():
    return jnp.asarray(X)


Pair = namedtuple("Pair", "a b")


@pytest.fixture
def net():
    made = Net()
    made(x())
    return made


# -- arguments and results -----------------------------------------------------------------------


def test_same_values_as_eager(net):
    f = bw.compile(lambda v: net(v))
    np.testing.assert_allclose(f(x()), net(x()), rtol=1e-6)
    np.testing.assert_allclose(f(2 * x()), net(2 * x()), rtol=1e-6)
    assert f.stats().compilations == 1


def test_nested_arguments_and_results():
    @bw.compile
    def f(batch, *, scale, extra=None):
        out = {"sum": batch["x"] + batch["y"][0], "pair": Pair(batch["y"][1] * scale, [batch["x"]])}
        return out, extra, "text", 2.5, None

    batch = {"x": x(), "y": (x(), x())}
    out, extra, text, number, none = f(batch, scale=2, extra="e")
    assert isinstance(out["pair"], Pair) and isinstance(out["pair"].b, list)
    np.testing.assert_array_equal(out["pair"].a, 2 * X)
    assert (extra, text, number, none) == ("e", "text", 2.5, None)
    assert f.stats().compilations == 1
    f(batch, scale=2, extra="e")
    assert f.stats().compilations == 1


def test_keyword_and_default_arguments():
    @bw.compile
    def f(a, b=2.0, *, c=3.0):
        return a * b + c

    assert float(f(jnp.float32(1))) == 5
    assert float(f(jnp.float32(1), c=4.0)) == 6
    assert float(f(a=jnp.float32(1), b=1.0)) == 4
    assert float(f(jnp.float32(1))) == 5
    assert f.stats().compilations == 3


def test_numpy_inputs_are_traced():
    f = bw.compile(lambda v: v + 1)
    for i in range(3):
        np.testing.assert_array_equal(f(np.full(3, i, np.float32)), np.full(3, i + 1))
    assert f.stats().compilations == 1
    assert int(f(np.int32(4))) == 5
    assert int(f(np.int32(5))) == 6
    assert f.stats().compilations == 2


def test_a_result_may_be_an_argument_or_a_constant():
    f = bw.compile(lambda v: (v, jnp.arange(3), np.arange(2)))
    a, b, c = f(x())
    np.testing.assert_array_equal(a, X)
    np.testing.assert_array_equal(b, [0, 1, 2])
    np.testing.assert_array_equal(c, [0, 1])


def test_a_variable_as_result_gives_its_value():
    p = bw.Parameter(jnp.arange(3.0))
    out = bw.compile(lambda: {"p": p})()
    assert isinstance(out["p"], jax.Array)
    np.testing.assert_array_equal(out["p"], [0, 1, 2])


def test_a_module_as_result_is_refused(net):
    with pytest.raises(TypeError, match=r"returned a Net"):
        bw.compile(lambda: net)()


def test_weak_types_are_kept_apart():
    f = bw.compile(lambda v: v * jnp.ones((), jnp.bfloat16))
    weak = jnp.asarray(2.0)
    weak = jax.lax.convert_element_type(weak, jnp.float32) if not weak.weak_type else weak
    weakly = jnp.add(2.0, 3.0)
    assert weakly.weak_type
    assert f(weakly).dtype == jnp.bfloat16
    with jax.numpy_dtype_promotion("standard"):
        assert f(jnp.ones((), jnp.float32)).dtype == jnp.float32
        assert f(weakly).dtype == jnp.bfloat16


def test_static_arguments_distinguish_types():
    f = bw.compile(lambda v, s: v * s)
    assert f(jnp.int32(2), 2).dtype == jnp.int32
    with jax.numpy_dtype_promotion("standard"):
        assert f(jnp.int32(2), 2.0).dtype == jnp.float32
        assert f(jnp.int32(2), True).dtype == jnp.int32


def test_static_negative_zero_is_not_zero():
    f = bw.compile(lambda v, s: jnp.copysign(v, s))
    assert float(f(jnp.float32(1), 0.0)) == 1
    assert float(f(jnp.float32(1), -0.0)) == -1


def test_static_nan_is_compiled_once():
    f = bw.compile(lambda v, s: v + s)
    for _ in range(3):
        f(jnp.float32(1), float("nan"))
    assert f.stats().compilations == 1


@pytest.mark.parametrize("bad", [{1, 2}, bytearray(b"a")])
def test_unhashable_static_argument_is_named(bad):
    f = bw.compile(lambda v, options: v)
    with pytest.raises(TypeError, match=r"argument options is a (set|bytearray).*neither an array nor hashable"):
        f(x(), bad)
    with pytest.raises(TypeError, match=r"argument options\['k'\] is a"):
        f(x(), {"k": bad})
    with pytest.raises(TypeError, match=r"argument options is a"):
        f(x(), options=bad)


def test_a_generator_argument_is_not_silently_exhausted():
    box = type("Box", (), {})()
    box.v = bw.Buffer(jnp.float32(1))

    @bw.compile
    def f(values):
        return box.v + sum(list(values), jnp.float32(0))

    try:
        first = f(v for v in (jnp.float32(1), jnp.float32(2)))
    except TypeError:
        return  # refusing is fine
    assert float(first) == 4


def test_a_compiled_generator_function_is_refused():
    with pytest.raises(TypeError):

        @bw.compile
        def f(v):
            yield v

        list(f(x()))
        list(f(x()))


def test_mutating_an_argument_list_inside_leaves_the_callers():
    @bw.compile
    def f(items):
        last = items.pop()
        return last + len(items)

    mine = [jnp.float32(1), jnp.float32(2)]
    assert float(f(mine)) == 3 and float(f(mine)) == 3 and len(mine) == 2


# -- what may be compiled ------------------------------------------------------------------------


def test_partial(net):
    f = bw.compile(functools.partial(lambda scale, v: net(v) * scale, 2.0))
    np.testing.assert_allclose(f(x()), 2 * net(x()), rtol=1e-6)
    assert "compiled" in repr(f)


def test_a_partial_warns_like_any_function():
    f = bw.compile(functools.partial(lambda scale, v: v * scale, 2.0))
    with pytest.warns(bw.RecompileWarning):
        for n in range(1, 11):
            f(jnp.ones(n))


def test_a_callable_object():
    class Scale:
        def __call__(self, v):
            return v * 3

    f = bw.compile(Scale())
    np.testing.assert_array_equal(f(x()), 3 * X)
    assert "compiled" in repr(f)


def test_decorator_with_options_and_metadata():
    @bw.compile(donate=False)
    def f(v):
        """Doc."""
        return v

    assert f.__name__ == "f" and f.__doc__ == "Doc."
    assert repr(f) == "<compiled f>"
    assert bw.compile(f) is f
    assert isinstance(f, bw.Compiled)


@pytest.mark.parametrize("bad", [3, "f", None.__class__ and 4.0, [1]])
def test_only_callables(bad):
    with pytest.raises(TypeError, match="expected a function or a module"):
        bw.compile(bad)


class WithMethod(bw.Module):
    def __init__(self, scale=1.0):
        self.weight = bw.Parameter(jnp.ones(5))
        self.count = bw.Buffer(jnp.zeros((), jnp.int32))
        self.scale = scale

    @bw.compile
    def step(self, v):
        self.count += 1
        return (v * self.weight).sum() * self.scale


def test_module_method():
    a, b = WithMethod(), WithMethod()
    before = WithMethod.step.stats().compilations
    assert float(a.step(x())) == 15
    assert float(a.step(x())) == 15
    assert float(b.step(x())) == 15
    assert int(a.count) == 2 and int(b.count) == 1
    assert WithMethod.step.stats().compilations == before + 1
    a.scale = 2.0
    assert float(a.step(x())) == 30
    assert float(b.step(x())) == 15
    reference = weakref.ref(a)
    gc.disable()
    try:
        del a
        assert reference() is None
    finally:
        gc.enable()


def test_module_method_has_stats():
    net = WithMethod()
    net.step(x())
    assert net.step.stats().calls >= 1


class Plain:
    def __init__(self, net, scale=1.0):
        self.net = net
        self.scale = scale

    @bw.compile
    def step(self, v):
        return self.net(v) * self.scale


def test_plain_class_method(net):
    a = Plain(net)
    np.testing.assert_allclose(a.step(x()), net(x()), rtol=1e-6)
    a.step(x())
    assert a.step.stats().compilations == 1
    other = Plain(Net())
    np.testing.assert_allclose(other.step(x()), other.net(x()), rtol=1e-6)


def test_plain_class_method_sees_changed_attributes(net):
    a = Plain(net)
    a.step(x())
    a.scale = 2.0
    np.testing.assert_allclose(a.step(x()), 2 * net(x()), rtol=1e-6)


def test_plain_class_method_sees_a_replaced_module(net):
    a = Plain(net)
    a.step(x())
    a.net = Net()
    np.testing.assert_allclose(a.step(x()), a.net(x()), rtol=1e-6)


def test_plain_instance_is_freed(net):
    a = Plain(net)
    a.step(x())
    reference = weakref.ref(a)
    gc.disable()
    try:
        del a
        assert reference() is None
    finally:
        gc.enable()


@dataclass
class Unhashable:
    net: bw.Module

    @bw.compile
    def step(self, v):
        return self.net(v)


def test_method_of_an_unhashable_instance(net):
    np.testing.assert_allclose(Unhashable(net).step(x()), net(x()), rtol=1e-6)


@dataclass(frozen=True)
class Equal:
    name: str
    nets: list = None

    def __hash__(self):
        return hash(self.name)

    def __eq__(self, other):
        return self.name == other.name

    @bw.compile
    def step(self, v):
        return self.nets[0](v)


def test_equal_instances_are_not_confused(net):
    a, b = Equal("n", [net]), Equal("n", [Net()])
    np.testing.assert_allclose(a.step(x()), net(x()), rtol=1e-6)
    np.testing.assert_allclose(b.step(x()), b.nets[0](x()), rtol=1e-6)


class Slotted:
    __slots__ = ("net",)

    def __init__(self, net):
        self.net = net

    @bw.compile
    def step(self, v):
        return self.net(v)


def test_method_of_an_instance_without_weak_references(net):
    np.testing.assert_allclose(Slotted(net).step(x()), net(x()), rtol=1e-6)


def test_static_and_class_methods(net):
    class Holder:
        @staticmethod
        @bw.compile
        def double(v):
            return v * 2

    np.testing.assert_array_equal(Holder.double(x()), 2 * X)
    np.testing.assert_array_equal(Holder().double(x()), 2 * X)


def test_compiled_module_behaves_as_the_module(net):
    fast = bw.compile(net)
    np.testing.assert_allclose(fast(x()), net(x()), rtol=1e-6)
    assert [n for n, _ in fast.named_parameters()] == [n for n, _ in net.named_parameters()]
    fast.eval()
    assert not net.training
    fast.extra = 3
    assert net.extra == 3
    assert fast.a is net.a
    _loss, grads = bw.value_and_grad(lambda v: fast(v).sum(), fast)(x())
    assert set(grads) == set(net.state_dict())
    assert "Net(" in repr(fast)
    with pytest.raises(AttributeError, match="nothing"):
        fast.nothing


def test_compiled_module_as_argument_of_value_and_grad(net):
    fast = bw.compile(net)
    _, grads = bw.value_and_grad(lambda m, v: m(v).sum())(fast, x())
    assert set(grads) == set(net.state_dict())


def test_compiled_module_inside_a_network_keeps_its_parameters():
    class Outer(bw.Module):
        def __init__(self):
            self.inner = bw.compile(Linear(2, in_features=5))

        def forward(self, v):
            return self.inner(v)

    try:
        outer = Outer()
    except TypeError:
        return  # refusing is fine, losing the parameters is not
    assert [n for n, _ in outer.named_parameters()] == ["inner.weight", "inner.bias"]


# -- state ---------------------------------------------------------------------------------------


def test_reads_and_writes_whatever_it_reaches():
    count, total = bw.Buffer(jnp.zeros((), jnp.int32)), {"t": bw.Buffer(jnp.zeros(5))}

    @bw.compile
    def f(v):
        count.value += 1
        total["t"][:] += v.sum(0)
        return count.value

    results = [int(f(x())) for _ in range(3)]
    assert results == [1, 2, 3]
    np.testing.assert_array_equal(total["t"], 9 * np.ones(5))
    assert f.stats().compilations == 1


def test_inplace_operators_inside():
    p = bw.Buffer(jnp.ones(3))

    @bw.compile
    def f():
        q = p
        q += 1
        q *= 2
        q[0] = 7

    f()
    np.testing.assert_array_equal(p, [7, 4, 4])


def test_written_and_never_read():
    p = bw.Buffer(jnp.zeros(2))

    @bw.compile
    def f(v):
        p.value = v

    f(jnp.ones(2))
    f(jnp.full(2, 3.0))
    np.testing.assert_array_equal(p, [3, 3])


def test_a_buffer_may_change_shape():
    b = bw.Buffer(jnp.zeros(0))

    @bw.compile
    def grow(v):
        b.value = jnp.concatenate([b.value, v])
        return b.value.sum()

    for i in range(1, 4):
        assert float(grow(jnp.ones(2))) == 2 * i
    assert b.shape == (6,)


def test_swapping_two_variables():
    a, b = bw.Parameter(jnp.zeros(2)), bw.Parameter(jnp.ones(2))

    @bw.compile
    def swap():
        a.value, b.value = b.value, a.value

    for i in range(5):
        swap()
        assert float(a[0]) == (i + 1) % 2 and float(b[0]) == i % 2
    for _ in range(4):
        swap()
    assert float(a[0]) == 1


def test_one_value_written_to_two_variables():
    a, b = bw.Parameter(jnp.zeros(2)), bw.Parameter(jnp.zeros(2))

    @bw.compile
    def f():
        a.value = a.value + 1
        b.value = a.value
        return a.value

    results = [f() for _ in range(4)]
    for i, r in enumerate(results):
        np.testing.assert_array_equal(r, [i + 1, i + 1])
    np.testing.assert_array_equal(a, b)


def test_variables_created_inside():
    @bw.compile
    def f(v):
        local = bw.Buffer(jnp.zeros(()))
        for _ in range(3):
            local += v.sum()
        layer = Linear(2)
        layer.weight.initialize(bw.init.ones)
        return local.value, local + 1

    a, b = f(x())
    assert (float(a), float(b)) == (45, 46)


def test_a_variable_created_inside_and_kept_is_an_error_when_used():
    kept = []

    @bw.compile
    def f(v):
        kept.append(bw.Buffer(v * 2))
        return v

    f(x())
    with pytest.raises(TraceLeakError, match="created inside"):
        kept[0].value


def test_a_typed_random_key_in_a_buffer():
    b = bw.Buffer(jax.random.key(0))

    @bw.compile
    def f():
        new, use = jax.random.split(b.value)
        b.value = new
        return jax.random.normal(use, (2,))

    key = jax.random.key(0)
    for _ in range(3):
        key, use = jax.random.split(key)
        np.testing.assert_array_equal(f(), jax.random.normal(use, (2,)))


def test_gradient_slots_in_and_out(net):
    @bw.compile
    def accumulate(v):
        return bw.backward(lambda v: net(v).sum(), net)(v)

    accumulate(x())
    one = {n: np.asarray(p.grad) for n, p in net.named_parameters()}
    accumulate(x())
    bw.backward(lambda v: net(v).sum(), net)(x())
    for n, p in net.named_parameters():
        np.testing.assert_allclose(p.grad, 3 * one[n], rtol=1e-5)

    @bw.compile
    def clear():
        for p in net.parameters():
            p.grad = None

    clear()
    assert all(p.grad is None for p in net.parameters())
    accumulate(x())
    for n, p in net.named_parameters():
        np.testing.assert_allclose(p.grad, one[n], rtol=1e-5)


def test_reading_a_gradient_that_appears_later(net):
    @bw.compile
    def has():
        return net.a.bias.grad is not None

    assert has() is False
    net.a.bias.grad = jnp.ones(4)
    assert has() is True
    net.a.bias.grad = None
    assert has() is False
    assert has.stats().compilations == 2


def test_capture_around_a_compiled_function(net):
    f = bw.compile(lambda v: net(v))
    f(x())
    with net.capture("a") as acts:
        f(x())
    np.testing.assert_allclose(acts["a"], net.a(x()), rtol=1e-6)
    f(x())
    assert f.stats().compilations == 2


def test_captures_do_not_pile_up(net):
    f = bw.compile(lambda v: net(v))
    f(x())
    dead = []
    for _ in range(3):
        with net.capture("a") as acts:
            f(x())
        dead.append(weakref.ref(acts["a"]))
        del acts
    f(x())
    gc.collect()
    assert sum(r() is not None for r in dead) <= 1


def test_random_stream_is_the_same_eager_and_compiled():
    def draw():
        return [jax.random.normal(bw.random.key(), (2,)) for _ in range(2)]

    bw.seed(3)
    eager = [draw() for _ in range(3)]
    state = np.asarray(bw.random.stream().value)
    bw.seed(3)
    f = bw.compile(draw)
    for e in eager:
        np.testing.assert_array_equal(np.stack(f()), np.stack(e))
    np.testing.assert_array_equal(bw.random.stream().value, state)
    assert f.stats().compilations == 1


# -- deferred networks ---------------------------------------------------------------------------


def test_deferred_network_is_built_while_compiling():
    made, same = Net(), Net()
    f = bw.compile(lambda v: made(v))
    out = f(x())
    assert made.a.weight.shape == (4, 5) and made.b.weight.shape == (2, 4)
    np.testing.assert_allclose(out, made(x()), rtol=1e-6)
    f(x())
    assert f.stats().compilations == 1
    del same


def test_a_deferred_train_step_compiles_once():
    made = Net()
    opt = bw.optim.adam(made, 0.1)

    @bw.compile
    def step(v):
        loss, grads = bw.value_and_grad(lambda v: (made(v) ** 2).mean(), made)(v)
        opt.step(grads)
        return loss

    losses = [float(step(x())) for _ in range(5)]
    assert losses[-1] < losses[0]
    assert step.stats().compilations == 1


# -- exceptions ----------------------------------------------------------------------------------


def boxes_hold_no_tracers(root):
    for _, v in root.named_variables():
        assert not isinstance(v._value, jax.core.Tracer)


def test_an_exception_half_way_leaves_everything(net):
    count = Count()
    before = {k: np.asarray(v) for k, v in net.state_dict().items()}

    @bw.compile
    def f(v):
        net.a.weight.value = net.a.weight.value * 2
        count(v)
        raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        f(x())
    for k, v in net.state_dict().items():
        np.testing.assert_array_equal(v, before[k])
    assert int(count.n) == 0
    boxes_hold_no_tracers(net)
    assert jnp.ones(2) @ jnp.ones(2) == 2  # no trace left behind
    assert f.stats().compilations == 0


def test_an_exception_while_tracing_leaves_shapes_unknown():
    made = Net()

    @bw.compile
    def f(v):
        made(v)
        raise KeyError("stop")

    with pytest.raises(KeyError):
        f(jnp.ones((2, 7)))
    assert made.a.weight.shape == (4, None)
    assert made(x()).shape == (3, 2)


def test_an_exception_then_success(net):
    fail = [True]
    n = bw.Buffer(jnp.zeros(()))

    @bw.compile
    def f(v):
        n.value = n.value + 1
        if fail[0]:
            raise ValueError("no")
        return n.value

    with pytest.raises(ValueError):
        f(x())
    fail[0] = False
    assert float(f(x())) == 1
    assert float(f(x())) == 2


def test_branching_on_a_value_names_the_line():
    @bw.compile(control_flow="error")
    def f(v):
        if v.sum() > 0:  # the line
            return v
        return -v

    with pytest.raises(ControlFlowError, match=r"test_compile\.py:\d+: `if v\.sum\(\) > 0:"):
        f(x())
    with pytest.raises(TypeError):
        f(x())


def test_keeping_a_traced_value_is_refused(net):
    @bw.compile
    def f(v):
        net.hidden = v * 2

    with pytest.raises(TraceLeakError, match=r"Net\.hidden.*Buffer"):
        f(x())
    assert not hasattr(net, "hidden")

    @bw.compile
    def g(v):
        net.hidden = {"k": [v * 2]}

    with pytest.raises(TraceLeakError):
        g(x())
    net.log = []

    @bw.compile
    def h(v):
        net.log.append(v * 2)

    with pytest.raises(TraceLeakError):
        h(x())
    assert net.log == []


# -- nesting -------------------------------------------------------------------------------------


def test_nested_compiled_functions(net):
    n = bw.Buffer(jnp.zeros(()))

    @bw.compile
    def inner(v):
        n.value = n.value + 1
        return net(v)

    @bw.compile
    def outer(v):
        return inner(v) + inner(v)

    np.testing.assert_allclose(outer(x()), 2 * net(x()), rtol=1e-6)
    assert float(n) == 2
    outer(x())
    assert float(n) == 4
    inner(x())
    assert float(n) == 5
    assert (inner.stats().compilations, outer.stats().compilations) == (1, 1)


def test_recursion():
    n = bw.Buffer(jnp.zeros((), jnp.int32))

    @bw.compile
    def power(v, k):
        n.value = n.value + 1
        return v if k == 1 else v * power(v, k - 1)

    assert float(power(jnp.float32(2), 5)) == 32
    assert int(n) == 5
    assert power.stats().compilations == 1


def test_inside_raw_transforms(net):
    f = bw.compile(lambda v: net(v))
    np.testing.assert_allclose(jax.jit(lambda v: f(v))(x()), net(x()), rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(f)(x()), net(x()), rtol=1e-6)
    g = jax.grad(lambda v: f(v).sum())(x())
    np.testing.assert_allclose(g, jax.grad(lambda v: net(v).sum())(x()), rtol=1e-6)
    boxes_hold_no_tracers(net)


def test_writing_inside_a_raw_jit_is_refused():
    count = Count()
    f = bw.compile(lambda v: count(v))
    f(x())
    with pytest.raises(TraceLeakError, match="n"):
        jax.jit(lambda v: f(v))(x())
    with pytest.raises(TraceLeakError):
        jax.jit(lambda: f(X))()
    assert int(count.n) == 1
    boxes_hold_no_tracers(count)


def test_raw_transforms_inside(net):
    @bw.compile
    def f(v):
        return jax.vmap(lambda r: net(r))(v), jax.grad(lambda w: net(w).sum())(v)

    a, b = f(x())
    np.testing.assert_allclose(a, net(x()), rtol=1e-6)
    assert b.shape == X.shape


# -- JAX's settings ------------------------------------------------------------------------------


def test_clear_caches_between_calls():
    n = bw.Buffer(jnp.zeros(()))

    @bw.compile
    def f(v):
        n.value = n.value + 1
        return v * n.value

    f(jnp.ones(2))
    for i in range(2, 5):
        jax.clear_caches()
        np.testing.assert_array_equal(f(jnp.ones(2)), [i, i])
    assert float(n) == 4


def test_clear_caches_for_keyword_calls():
    n = bw.Buffer(jnp.zeros(()))

    @bw.compile
    def f(*, v):
        n.value = n.value + 1
        return v * n.value

    for i in range(1, 4):
        np.testing.assert_array_equal(f(v=jnp.ones(2)), [i, i])
        jax.clear_caches()


def test_matmul_precision_is_part_of_the_program():
    f = bw.compile(lambda v: v @ v.T)
    f(x())
    with jax.default_matmul_precision("float32"):
        f(x())
        f(x())
    f(x())
    with jax.default_matmul_precision("float32"):
        f(x())
    assert f.stats().compilations == 2


def test_64_bit_mode():
    f = bw.compile(lambda v: jnp.asarray(v, float) * 2)
    assert f(np.float32(1)).dtype == jnp.float32
    with jax.enable_x64(True):
        assert f(np.float32(1)).dtype == jnp.float64
    assert f(np.float32(1)).dtype == jnp.float32


def test_disable_jit(net):
    n = bw.Buffer(jnp.zeros(()))

    @bw.compile
    def f(v):
        n.value = n.value + 1
        return net(v)

    with jax.disable_jit():
        np.testing.assert_allclose(f(x()), net(x()), rtol=1e-6)
        np.testing.assert_allclose(f(x()), net(x()), rtol=1e-6)
    np.testing.assert_allclose(f(x()), net(x()), rtol=1e-6)
    assert float(n) == 3


def test_strict_promotion_changes_the_program():
    f = bw.compile(lambda v: v * jnp.ones((), jnp.int32))
    with jax.numpy_dtype_promotion("standard"):
        assert f(jnp.float32(2)).dtype == jnp.float32
    with pytest.raises(Exception, match="promotion"):
        f(jnp.float32(2))


# -- statistics and warnings ---------------------------------------------------------------------


def test_stats(net):
    f = bw.compile(lambda v: net(v).sum())
    empty = f.stats()
    assert (empty.calls, empty.compilations, empty.flops) == (0, 0, None)
    for _ in range(4):
        f(x())
    f(jnp.ones((2, 5)))
    stats = f.stats()
    assert (stats.calls, stats.compilations, stats.cache_hits) == (5, 2, 3)
    assert stats.trace_seconds > 0 and stats.compile_seconds > 0
    assert stats.flops > 0 and stats.peak_memory > 0


def test_the_tenth_compilation_warns_and_names_the_argument():
    @bw.compile
    def f(batch, mode="a"):
        return batch["image"].sum()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in range(1, 10):
            f({"image": jnp.ones(n)})
    with pytest.warns(
        bw.RecompileWarning, match=r"f was compiled 10 times.*batch\['image'\].*float32\[9\] became float32\[10\]"
    ) as seen:
        f({"image": jnp.ones(10)})
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        f({"image": jnp.ones(11)})


def test_the_warning_names_a_static_argument_and_the_users_file():
    f = bw.compile(lambda v, lr: v * lr)
    with pytest.warns(bw.RecompileWarning, match=r"argument 'lr'.*9 became 10") as seen:
        for n in range(1, 11):
            f(x(), lr=n)
    assert seen[0].filename == __file__


def test_the_warning_names_an_attribute():
    net = WithMethod()
    f = bw.compile(lambda v: (v * net.weight).sum() * net.scale)
    with pytest.warns(bw.RecompileWarning, match=r"scale"):
        for n in range(10):
            net.scale = float(n)
            net.apply(lambda m: None)
            f(x())


_rate = 0.0


def test_the_warning_names_a_global():
    global _rate
    f = bw.compile(lambda v: v * _rate)
    with pytest.warns(bw.RecompileWarning, match=r"global '_rate'"):
        for n in range(10):
            _rate = float(n)
            f(x())


def test_the_warning_names_a_captured_name():
    rate = 0.0
    f = bw.compile(lambda v: v * rate)
    with pytest.warns(bw.RecompileWarning, match=r"'rate'"):
        for n in range(10):
            rate = float(n)
            f(x())


# -- modules as arguments ------------------------------------------------------------------------


def test_equal_modules_share_one_program():
    nets = [Net() for _ in range(3)]
    for n in nets:
        n(x())
    f = bw.compile(lambda m, v: m(v))
    for n in nets:
        np.testing.assert_allclose(f(n, x()), n(x()), rtol=1e-6)
    assert f.stats().compilations == 1


def test_writes_go_to_the_module_that_was_passed():
    a, b = Count(), Count()
    f = bw.compile(lambda m, v: m(v))
    f(a, x()), f(b, x()), f(b, x())
    assert (int(a.n), int(b.n)) == (1, 2)
    assert f.stats().compilations == 1


def test_modules_that_differ_do_not_share():
    a, b = WithMethod(1.0), WithMethod(2.0)
    f = bw.compile(lambda m, v: (v * m.weight).sum() * m.scale)
    assert (float(f(a, x())), float(f(b, x())), float(f(a, x()))) == (15, 30, 15)
    assert f.stats().compilations == 2


def test_aliased_arguments():
    def g(a, b):
        a.n.value = a.n.value + 1
        b.n.value = b.n.value * 10
        return a.n.value, b.n.value

    f = bw.compile(g)
    a, b, c = Count(), Count(), Count()
    assert [int(v) for v in f(a, b)] == [1, 0]
    assert [int(v) for v in f(c, c)] == [10, 10]
    assert [int(v) for v in f(a, b)] == [2, 0]
    assert [int(v) for v in f(c, c)] == [110, 110]
    assert f.stats().compilations == 2


def test_tie_across_two_arguments():
    def g(a, b):
        a.n.value = a.n.value + 1
        return b.n.value

    f = bw.compile(g)
    a, b = Count(), Count()
    assert int(f(a, b)) == 0
    b.n = a.n
    assert int(f(a, b)) == 2
    assert int(f(a, b)) == 3


def test_an_argument_that_is_also_captured():
    captured, other = Count(), Count()

    @bw.compile
    def f(m):
        m.n.value = m.n.value + 1
        return captured.n.value

    assert int(f(other)) == 0
    assert int(f(captured)) == 1
    assert int(f(other)) == 1
    assert int(f(captured)) == 2
    assert (int(captured.n), int(other.n)) == (2, 2)


def test_modules_nested_in_arguments():
    a, b = Count(), Count()

    @bw.compile
    def f(nets, *, extra):
        return nets["x"][0](extra[1]) + nets["x"][1](extra[1])

    f({"x": [a, b]}, extra=(None, x()))
    f({"x": [b, a]}, extra=(None, x()))
    assert (int(a.n), int(b.n)) == (2, 2)
    assert f.stats().compilations == 1


def test_a_variable_as_argument():
    a, b = bw.Buffer(jnp.zeros(2)), bw.Buffer(jnp.ones(2))

    @bw.compile
    def f(v):
        v.value = v.value + 1

    f(a), f(b), f(a)
    np.testing.assert_array_equal(a, [2, 2])
    np.testing.assert_array_equal(b, [2, 2])
    assert f.stats().compilations == 1


def test_many_variables_as_arguments_do_not_pile_up():
    f = bw.compile(lambda v: v.value * 2)
    dead = []
    for _ in range(5):
        b = bw.Buffer(jnp.ones(3))
        f(b)
        dead.append(weakref.ref(b))
        del b
    gc.collect()
    assert sum(r() is not None for r in dead) <= 1


def test_optimiser_and_network_as_arguments():
    @bw.compile
    def step(m, opt, v):
        loss, grads = bw.value_and_grad(lambda m, v: (m(v) ** 2).mean())(m, v)
        opt.step(grads)
        return loss

    m = Net()
    opt = bw.optim.sgd(m, 0.1, momentum=0.9)
    losses = [float(step(m, opt, x())) for _ in range(4)]
    assert losses[-1] < losses[0]
    assert step.stats().compilations <= 2
    references = [weakref.ref(m), weakref.ref(m.a.weight), weakref.ref(opt)]
    del m, opt
    gc.collect()
    assert [r() for r in references] == [None] * 3


# -- lifetimes -----------------------------------------------------------------------------------


def test_module_arguments_are_not_kept_alive():
    f = bw.compile(lambda m, v: m(v))
    gc.collect()
    gc.disable()
    try:
        net = Net()
        f(net, x())
        f(net, x())
        references = [weakref.ref(net), weakref.ref(net.a), weakref.ref(net.a.weight)]
        del net
        assert [r() for r in references] == [None] * 3
    finally:
        gc.enable()


def test_a_module_with_a_bound_method_attribute_is_not_kept_alive():
    class Self(bw.Module):
        def __init__(self):
            self.weight = bw.Parameter(jnp.ones(5))
            self.act = self.activate

        def activate(self, v):
            return jnp.tanh(v * self.weight)

        def forward(self, v):
            return self.act(v)

    f = bw.compile(lambda m, v: m(v))
    net = Self()
    f(net, x())
    reference = weakref.ref(net)
    del net
    gc.collect()
    assert reference() is None


def test_a_rebound_global_is_not_kept_alive():
    holder = [Net()]
    held = {"net": Net()}

    def g(v):
        return held["net"](v) if held else v

    f = bw.compile(g)
    f(x())
    reference = weakref.ref(held["net"])
    held = None
    assert f(x()).shape == X.shape
    gc.collect()
    assert reference() is None
    del holder


def test_programs_are_dropped_with_their_module():
    f = bw.compile(lambda m, v: m(v))
    for _ in range(3):
        net = Net()
        net(x())
        f(net, x())
        del net
        gc.collect()
    assert sum(len(p) for p in f._programs.values()) <= 1
    assert len(f._ready) == 0


def test_a_compiled_function_is_freed():
    net = Net()
    gc.disable()
    try:
        f = bw.compile(lambda v: net(v))
        f(x())
        reference = weakref.ref(f)
        del f
        assert reference() is None
    finally:
        gc.enable()


@pytest.mark.leaks
def test_no_tracer_leaks():
    net = Net()
    opt = bw.optim.sgd(net, 0.1)

    @bw.compile
    def step(v):
        loss, grads = bw.value_and_grad(lambda v: (net(v) ** 2).mean(), net)(v)
        opt.step(grads)
        return loss

    step(x())
    step(x())


def test_a_read_only_array_type_is_still_an_error_class():
    assert issubclass(TraceLeakError, BrickworkError)


@bw.compile
def add_one(x):
    return x + 1


class Scaled:
    def __init__(self, factor):
        self.factor = factor

    @bw.compile
    def run(self, x):
        return x * self.factor


class Holder(bw.Module):
    def __init__(self):
        self.linear = nn.Linear(3, in_features=3)
        self.step = bw.compile(lambda x: self.linear(x))

    def forward(self, x):
        return self.step(x)


@pytest.mark.parametrize("called", [False, True])
def test_copies_and_pickles_have_no_programs(called):
    """A compiled function is copied and pickled as the function is, a compiled module as the module."""
    x = jnp.ones((1, 3))
    net = bw.compile(nn.Linear(2, in_features=3))
    holder = Holder()
    if called:
        add_one(x), net(x), holder(x)
    for same in (copy.copy(add_one), copy.deepcopy(add_one), pickle.loads(pickle.dumps(add_one))):
        assert same is add_one
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert type(other) is type(net) and other.weight is not net.weight and other.stats().programs == 0
        assert other(x).tolist() == net(x).tolist()
    clone = holder.clone()
    assert clone.step is holder.step and clone(x).tolist() == holder(x).tolist()
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(bw.compile(lambda x: x))


def test_copies_of_compiled_methods():
    run = Scaled(2.0).run
    other = copy.deepcopy(run)
    other.__self__.factor = 5.0
    x = jnp.ones(2)
    assert run(x).tolist() == [2, 2] and other(x).tolist() == [5, 5]
    assert pickle.loads(pickle.dumps(other))(x).tolist() == [5, 5]


def test_what_jax_takes_for_the_same_dtype_is_one_program():
    """NumPy's default is float64, which is float32 to JAX, but not in 64-bit mode."""
    f = bw.compile(lambda x: x * 2)
    for x in (np.ones(3, np.float32), np.ones(3), jnp.ones(3), np.ones(3, np.float32)):
        assert f(x).dtype == f(x=x).dtype == np.float32
    assert f.stats().compilations == 2  # one each for what is given by position and by name
    with jax.enable_x64(True):
        assert f(np.ones(3)).dtype == np.float64 and f(np.ones(3, np.float32)).dtype == np.float32
    assert f(np.ones(3)).dtype == np.float32
    g = bw.compile(lambda n: n + 1)
    assert g(np.int64(3)).dtype == g(np.int32(3)).dtype == np.int32 and g.stats().compilations == 1


# -- variables that are found on the way -----------------------------------------------------------


def test_what_is_only_made_on_the_way_costs_no_second_trace():
    """Sizes that the first call infers, an optimiser's state, gradients: each becomes an input where it is read."""
    traces = []
    net = nn.Sequential(nn.Linear(4), nn.BatchNorm1d(), nn.Linear(1))
    opt = optim.adam(net, 0.1)
    other = nn.Sequential(nn.Linear(4, in_features=3), nn.BatchNorm1d(num_features=4), nn.Linear(1, in_features=4))
    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)

    def train(net, opt):
        loss, grads = bw.value_and_grad(lambda: (net(x) ** 2).mean(), net)()
        opt.step(grads)
        return loss

    @bw.compile
    def step():
        traces.append(None)
        return train(net, opt)

    losses = [float(step())]
    other.load_state_dict({k: np.asarray(v) for k, v in net.state_dict().items()})
    eager = optim.adam(other, 0.1)
    eager.load_state_dict({k: np.asarray(v) for k, v in opt.state_dict().items()})
    assert len(traces) == 1 and step.stats().compilations == 1
    for _ in range(3):
        losses.append(float(step()))
        assert losses[-1] == pytest.approx(float(train(other, eager)), rel=1e-4)
    assert len(traces) == 1 and losses[-1] < losses[0]
    read = step.explain().read
    assert any("running_mean" in name for name in read) and any("mu" in name for name in read)


def test_control_flow_on_what_is_found_on_the_way():
    """The first trace decides on a value that was no input of it when it began."""

    class Lazy(bw.Module):
        def build(self, x):
            self.count = bw.Buffer(jnp.zeros((), jnp.int32))

        def forward(self, x):
            self.count.value += 1
            return x * 10 if self.count.value > 2 else x

    lazy = Lazy()
    traces = []

    @bw.compile
    def f(x):
        traces.append(None)
        return lazy(x)

    assert [float(f(jnp.ones(()))) for _ in range(5)] == [1, 1, 10, 10, 10]
    assert len(traces) == 2 and int(lazy.count) == 5


def test_a_layer_that_is_made_in_the_first_call():
    """It is there when the function is traced once more."""
    net = nn.Sequential(nn.Linear(3, in_features=3))
    net.head = None

    @bw.compile
    def f(x):
        if net.head is None:
            net.head = nn.Linear(2)
        return net.head(net(x))

    x = jnp.ones((1, 3))
    assert np.array_equal(f(x), f(x)) and np.allclose(f(x), net.head(net(x)))
    net.head.weight[:] = 0
    net.head.bias[:] = 0
    assert not f(x).any()
