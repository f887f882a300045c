"""A compiled function never runs a program that no longer fits, and finds earlier ones again."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw


class Scale(bw.Module):
    def __init__(self, factor=1.0):
        self.weight = bw.Parameter(jnp.ones(3))
        self.factor = factor

    def forward(self, x):
        y = x * self.weight * self.factor
        return y if self.training else -y


class Stack(bw.Module):
    def __init__(self, *factors):
        self.layers = [Scale(f) for f in factors]
        self.options = {"bias": 0.0}
        self.pair = (Scale(1.0), 1.0)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x + self.options["bias"]


def x():
    return jnp.ones(3)


def value(f, *args):
    """The one number in the result, the same from a second call."""
    first, second = f(*args), f(*args)
    np.testing.assert_array_equal(first, second)
    assert len(set(np.asarray(first).tolist())) == 1
    return float(first[0])


@pytest.fixture
def net():
    return Stack(2.0, 3.0)


@pytest.fixture
def f(net):
    return bw.compile(lambda v: net(v))


def test_replacing_a_layer(net, f):
    assert value(f, x()) == 6
    old = net.layers[0]
    net.layers[0] = Scale(5.0)
    assert value(f, x()) == 15
    net.layers[0] = old
    assert value(f, x()) == 6
    assert f.stats().compilations == 2


def test_list_changes(net, f):
    assert value(f, x()) == 6
    net.layers.append(Scale(4.0))
    assert value(f, x()) == 24
    last = net.layers.pop()
    assert value(f, x()) == 6
    net.layers.insert(0, last)
    assert value(f, x()) == 24
    del net.layers[0]
    assert value(f, x()) == 6
    net.layers[1:] = [Scale(7.0), Scale(2.0)]
    assert value(f, x()) == 28
    net.layers += [last]
    assert value(f, x()) == 112
    net.layers.extend([Scale(0.5)])
    assert value(f, x()) == 56
    net.layers.remove(last)
    assert value(f, x()) == 14
    net.layers.clear()
    assert value(f, x()) == 1
    net.layers *= 2
    assert value(f, x()) == 1


def test_reordering_layers(f, net):
    class Add(bw.Module):
        def forward(self, v):
            return v + 1

    net.layers = [Scale(2.0), Add()]
    assert value(f, x()) == 3
    net.layers.reverse()
    assert value(f, x()) == 4
    net.layers.sort(key=lambda m: type(m).__name__, reverse=True)
    assert value(f, x()) == 3


def test_dict_changes(net, f):
    assert value(f, x()) == 6
    net.options["bias"] = 1.0
    assert value(f, x()) == 7
    net.options.update(bias=2.0)
    assert value(f, x()) == 8
    net.options |= {"bias": 3.0}
    assert value(f, x()) == 9
    net.options["bias"] = 1.0
    assert value(f, x()) == 7
    assert f.stats().compilations == 4


def test_training_mode(net, f):
    assert value(f, x()) == 6
    net.layers[0].eval()
    assert value(f, x()) == -6
    net.eval()
    assert value(f, x()) == 6
    net.train()
    assert value(f, x()) == 6
    net.layers[0].eval()
    assert value(f, x()) == -6
    assert f.stats().compilations == 3


def test_hyperparameter(net, f):
    assert value(f, x()) == 6
    net.layers[0].factor = 4.0
    assert value(f, x()) == 12
    net.layers[0].factor = 2.0
    assert value(f, x()) == 6
    net.layers[0].factor = 2  # an integer computes in other dtypes
    assert value(f, x()) == 6
    assert f.stats().compilations == 3


def test_deleting_an_attribute():
    class Maybe(bw.Module):
        def __init__(self):
            self.bonus = 1.0

        def forward(self, v):
            return v + getattr(self, "bonus", 0.0)

    net = Maybe()
    f = bw.compile(lambda v: net(v))
    assert value(f, x()) == 2
    del net.bonus
    assert value(f, x()) == 1
    net.bonus = 1.0
    assert value(f, x()) == 2
    assert f.stats().compilations == 2


def test_freezing(net):
    @bw.compile
    def f(v):
        _, grads = bw.value_and_grad(lambda v: net(v).sum(), net.layers[0])(v)
        return len(grads), v

    net.layers[0].more = bw.Parameter(jnp.ones(3))
    assert f(x())[0] == 2
    net.layers[0].more.trainable = False
    assert f(x())[0] == 1
    net.unfreeze()
    assert f(x())[0] == 2
    assert f.stats().compilations == 2


def test_dtype(net, f):
    assert f(x()).dtype == jnp.float32
    net.to(jnp.bfloat16)
    assert f(x().astype(jnp.bfloat16)).dtype == jnp.bfloat16
    net.to(jnp.float32)
    assert f(x()).dtype == jnp.float32
    assert f.stats().compilations == 2


def test_assigning_a_value_of_another_dtype(net, f):
    f(x())
    for p in net.parameters():
        p.value = p.value.astype(jnp.bfloat16)
    assert f(x().astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_shapes_and_values(net, f):
    f(x())
    f(jnp.ones((2, 3)))
    f(x())
    f(jnp.ones((2, 3)))
    assert f.stats().compilations == 2
    net.layers[0].weight.value = jnp.full(3, 2.0)
    assert value(f, x()) == 12
    assert f.stats().compilations == 2


def test_tying_and_untying(net, f):
    value(f, x())
    old = net.layers[1].weight
    net.layers[1].weight = net.layers[0].weight
    net.layers[0].weight.value = jnp.full(3, 2.0)
    assert value(f, x()) == 24
    net.layers[1].weight = old
    assert value(f, x()) == 12


def test_replacing_a_parameter(net, f):
    value(f, x())
    net.layers[0].weight = bw.Parameter(jnp.full(3, 5.0))
    assert value(f, x()) == 30


def test_replacing_a_parameter_with_none():
    class Maybe(bw.Module):
        def __init__(self):
            self.bias = bw.Parameter(jnp.ones(3))

        def forward(self, v):
            return v if self.bias is None else v + self.bias

    net = Maybe()
    f = bw.compile(lambda v: net(v))
    assert value(f, x()) == 2
    net.bias = None
    assert value(f, x()) == 1


def test_tuples(net):
    f = bw.compile(lambda v: net.pair[0](v) * net.pair[1])
    assert value(f, x()) == 1
    net.pair = (net.pair[0], 2.0)
    assert value(f, x()) == 2
    net.pair[0].factor = 3.0
    assert value(f, x()) == 6


def test_hooks(net, f):
    assert value(f, x()) == 6
    handle = net.layers[0].register_forward_hook(lambda m, a, out: out * 10)
    assert value(f, x()) == 60
    pre = net.layers[0].register_forward_pre_hook(lambda m, a: (a[0] + 1,))
    assert value(f, x()) == 120
    handle.remove()
    assert value(f, x()) == 12
    pre.remove()
    assert value(f, x()) == 6
    assert f.stats().compilations == 4


class HookState:
    """A hook with an attribute, and a method that is one too."""

    def __init__(self):
        self.amount = 2.0

    def __call__(self, module, args, out=None):
        return args[0] * self.amount if out is None else out * self.amount

    hook = __call__


def hooks():
    """Hooks that multiply by two, before or after, and what makes them multiply by seven."""
    amount, state, settings = 2.0, HookState(), SimpleNamespace(amount=2.0)

    def set_captured():
        nonlocal amount
        amount = 7.0

    def named(m, args, out=None, by=2.0):
        return (args[0] if out is None else out) * by

    return {
        "captured": (lambda m, args, out=None: (args[0] if out is None else out) * amount, set_captured),
        "global": (_hook_global, lambda: _set(_rate=7.0)),
        "named": (_hook_named, lambda: _set(_rate=7.0)),
        "attribute": (
            lambda m, args, out=None: (args[0] if out is None else out) * settings.amount,
            lambda: setattr(settings, "amount", 7.0),
        ),
        "object": (state, lambda: setattr(state, "amount", 7.0)),
        "method": (state.hook, lambda: setattr(state, "amount", 7.0)),
        "partial": (functools.partial(_hook_of, settings), lambda: setattr(settings, "amount", 7.0)),
        "defaults": (named, lambda: setattr(named, "__defaults__", (None, 7.0))),
    }


def _hook_global(m, args, out=None):
    return (args[0] if out is None else out) * _rate


def _hook_named(m, args, out=None):
    return _helper(args[0] if out is None else out)


def _hook_of(settings, m, args, out=None):
    return (args[0] if out is None else out) * settings.amount


@pytest.mark.parametrize("before", [False, True], ids=["after", "before"])
@pytest.mark.parametrize("as_argument", [False, True], ids=["captured", "an argument"])
@pytest.mark.parametrize("kind", hooks())
def test_what_a_hook_reads(kind, as_argument, before):
    hook, change = hooks()[kind]
    net = bw.Sequential(Scale(1.0))
    (net[0].register_forward_pre_hook if before else net[0].register_forward_hook)(hook)
    f = bw.compile(lambda m, v: m(v)) if as_argument else bw.compile(net)
    args = (net, x()) if as_argument else (x(),)
    try:
        assert value(f, *args) == 2
        change()
        assert value(f, *args) == 7
        assert f.stats().compilations == 2
    finally:
        _set(_rate=2.0)


def test_a_module_used_through_a_method_only(net):
    f = bw.compile(lambda v: v * net.layers[0].factor)
    assert value(f, x()) == 2
    net.layers[0].factor = 7.0
    assert value(f, x()) == 7


def test_a_module_reached_through_a_plain_object():
    holder = SimpleNamespace(net=Scale(2.0))
    f = bw.compile(lambda v: holder.net(v))
    assert value(f, x()) == 2
    holder.net.factor = 3.0
    assert value(f, x()) == 3
    old, holder.net = holder.net, Scale(5.0)
    assert value(f, x()) == 5
    del old


def test_a_plain_object_changes():
    config = SimpleNamespace(rate=2.0)
    f = bw.compile(lambda v: v * config.rate)
    assert value(f, x()) == 2
    config.rate = 3.0
    assert value(f, x()) == 3


def test_a_captured_dict_or_list_changes():
    config, rates = {"rate": 2.0}, [1.0]
    f = bw.compile(lambda v: v * config["rate"] * rates[0])
    assert value(f, x()) == 2
    config["rate"] = 3.0
    assert value(f, x()) == 3
    rates[0] = 2.0
    assert value(f, x()) == 6


def test_a_captured_list_of_modules_changes():
    nets = [Scale(2.0)]
    f = bw.compile(lambda v: nets[0](v))
    assert value(f, x()) == 2
    old = nets[0]
    nets[0] = Scale(3.0)
    assert value(f, x()) == 3
    del old


_rate = 2.0
_net = Scale(2.0)


def _helper(v):
    return v * _rate


def _set(**changes):
    globals().update(changes)


def test_rebinding_a_global():
    f = bw.compile(lambda v: v * _rate)
    assert value(f, x()) == 2
    _set(_rate=3.0)
    assert value(f, x()) == 3
    _set(_rate=2.0)
    assert value(f, x()) == 2
    assert f.stats().compilations == 2


def test_rebinding_a_global_module():
    f = bw.compile(lambda v: _net(v))
    assert value(f, x()) == 2
    old = _net
    _set(_net=Scale(5.0))
    assert value(f, x()) == 5
    _set(_net=old)
    assert value(f, x()) == 2
    assert f.stats().compilations == 2


def test_a_global_of_a_helper():
    f = bw.compile(lambda v: _helper(v))
    assert value(f, x()) == 2
    _set(_rate=4.0)
    assert value(f, x()) == 4
    _set(_rate=2.0)


def test_rebinding_a_helper():
    f = bw.compile(lambda v: _helper(v))
    old = _helper
    assert value(f, x()) == 2
    _set(_helper=lambda v: v * 9)
    assert value(f, x()) == 9
    _set(_helper=old)
    assert value(f, x()) == 2


class ReadsGlobal(bw.Module):
    def forward(self, v):
        return v * _rate


def test_a_global_read_in_forward():
    net = ReadsGlobal()
    f = bw.compile(lambda v: net(v))
    assert value(f, x()) == 2
    _set(_rate=5.0)
    try:
        assert value(f, x()) == 5
    finally:
        _set(_rate=2.0)


def test_a_global_read_by_a_static_function_argument():
    f = bw.compile(lambda fn, v: fn(v))
    assert value(f, _helper, x()) == 2
    _set(_rate=5.0)
    try:
        assert value(f, _helper, x()) == 5
    finally:
        _set(_rate=2.0)


def test_a_global_read_by_a_function_in_a_network():
    net = bw.Sequential(Scale(1.0), _helper)
    f = bw.compile(lambda v: net(v))
    assert value(f, x()) == 2
    _set(_rate=5.0)
    try:
        assert value(f, x()) == 5
    finally:
        _set(_rate=2.0)


def test_rebinding_a_captured_name():
    rate, net = 2.0, Scale(1.0)

    def g(v):
        return net(v) * rate

    f = bw.compile(g)
    assert value(f, x()) == 2
    rate = 3.0
    assert value(f, x()) == 3
    net = Scale(4.0)
    assert value(f, x()) == 12
    rate = 2.0
    assert value(f, x()) == 8


def test_changed_defaults():
    def g(v, rate=2.0, *, more=1.0):
        return v * rate * more

    f = bw.compile(g)
    assert value(f, x()) == 2
    g.__defaults__ = (3.0,)
    assert value(f, x()) == 3
    g.__kwdefaults__ = {"more": 2.0}
    assert value(f, x()) == 6


def test_changed_defaults_of_a_helper():
    def helper(v, rate=2.0):
        return v * rate

    f = bw.compile(lambda v: helper(v))
    assert value(f, x()) == 2
    helper.__defaults__ = (3.0,)
    assert value(f, x()) == 3


def test_many_globals_are_all_watched():
    space = {f"g{i}": 1.0 for i in range(400)}
    exec("def big(v):\n    return v * (" + " * ".join(space) + ")", space)
    f = bw.compile(space["big"])
    assert value(f, x()) == 1
    space["g399"] = 2.0
    assert value(f, x()) == 2


def test_a_new_forward_method():
    class Local(bw.Module):
        def forward(self, v):
            return v

    net = Local()
    f = bw.compile(lambda v: net(v))
    assert value(f, x()) == 1
    Local.forward = lambda self, v: v * 2
    assert value(f, x()) == 2


def test_an_unrelated_change_costs_no_compilation(net, f):
    other = Stack(1.0)
    g = bw.compile(lambda v: other(v))
    f(x()), g(x())
    other.layers.append(Scale(2.0))
    f(x()), g(x())
    assert (f.stats().compilations, g.stats().compilations) == (1, 2)


def test_changes_of_a_module_argument():
    f = bw.compile(lambda m, v: m(v))
    a, b = Stack(2.0), Stack(2.0)
    assert value(f, a, x()) == 2 and value(f, b, x()) == 2
    a.layers[0].factor = 3.0
    assert value(f, a, x()) == 3 and value(f, b, x()) == 2
    b.layers[0].factor = 3.0
    assert value(f, b, x()) == 3
    a.eval()
    assert value(f, a, x()) == -3 and value(f, b, x()) == 3
    assert f.stats().compilations == 3


def test_a_tie_inside_a_module_argument():
    f = bw.compile(lambda m, v: m(v))
    a = Stack(1.0, 1.0)
    assert value(f, a, x()) == 1
    a.layers[1].weight = a.layers[0].weight
    a.layers[0].weight.value = jnp.full(3, 3.0)
    assert value(f, a, x()) == 9


def test_initialising_again(net, f):
    net.initialize(init=bw.init.constant(2.0), pattern=r".*weight")
    assert value(f, x()) == 24
    net.initialize(init=bw.init.constant(3.0), pattern=r".*weight")
    assert value(f, x()) == 54
    assert f.stats().compilations == 1


def test_loading(net, f):
    value(f, x())
    state = {k: jnp.full(3, 2.0) for k in net.state_dict()}
    net.load_state_dict(state)
    assert value(f, x()) == 24
    assert f.stats().compilations == 1


def test_moving_to_another_device(net, f, devices):
    value(f, x())
    net.to(devices[1])
    out = f(jax.device_put(x(), devices[1]))
    assert out.devices() == {devices[1]} and float(out[0]) == 6
    with pytest.raises(bw.errors.DeviceMismatchError):
        f(jax.device_put(x(), devices[2]))
    net.to(devices[0])
    assert value(f, x()) == 6


def test_setting_the_same_value_again_is_no_change(net, f):
    f(x())
    for _ in range(3):
        net.train()
        net.layers[0].factor = 2.0
        f(x())
    assert f.stats().compilations == 1


def test_a_variable_of_which_only_the_shape_is_used():
    b = bw.Buffer(jnp.zeros(2))
    f = bw.compile(lambda: jnp.ones(b.shape))
    assert f().shape == (2,)
    b.value = jnp.zeros(5)
    assert f().shape == (5,)


def test_a_variable_of_which_only_the_dtype_is_used(net):
    f = bw.compile(lambda v: v.astype(net.layers[0].weight.dtype))
    assert f(x()).dtype == jnp.float32
    net.layers[0].weight.value = jnp.ones(3, jnp.bfloat16)
    assert f(x()).dtype == jnp.bfloat16


class Shifted(bw.Module):
    """Reads a constant of its class through a method of its own."""

    amount = 1.0

    def shift(self, v):
        return v + self.amount

    @property
    def doubled(self):
        return self.amount * 2

    def forward(self, v):
        return self.shift(v) * self.doubled


def test_what_a_class_holds(monkeypatch):
    net = Shifted()
    f = bw.compile(lambda v: net(v))
    assert value(f, x()) == 4
    monkeypatch.setattr(Shifted, "amount", 2.0)
    assert value(f, x()) == 12
    monkeypatch.setattr(Shifted, "shift", lambda self, v: v)
    assert value(f, x()) == 4
    monkeypatch.setattr(Shifted, "doubled", property(lambda self: 5.0))
    assert value(f, x()) == 5


def test_methods_that_a_compiled_method_calls():
    class Trainer:
        weight = 1.0

        def __init__(self):
            self.net = Scale(2.0)
            self.extra = 0.0

        def loss(self, v):
            return self.net(v) * self.weight + self.extra

        @bw.compile
        def step(self, v):
            return self.loss(v)

    trainer = Trainer()
    assert value(trainer.step, x()) == 2
    trainer.extra = 1.0
    assert value(trainer.step, x()) == 3
    Trainer.weight = 2.0
    assert value(trainer.step, x()) == 5
    Trainer.loss = lambda self, v: v * 7
    assert value(trainer.step, x()) == 7


def test_deferred_modules_as_arguments_share_a_program():
    f = bw.compile(lambda m, v: m(v))
    for _ in range(3):
        f(bw.nn.Linear(4), x()[None])
    assert f.stats().compilations == 1
