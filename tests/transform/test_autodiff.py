"""Gradients with respect to the parameters of modules."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork.errors import TraceLeakError


class Linear(bw.Module):
    def __init__(self, out, *, in_features=None):
        self.weight = bw.Parameter(shape=(out, in_features))
        self.bias = bw.Parameter(shape=(out,))

    def build(self, x):
        self.weight.shape = (None, x.shape[-1])

    def forward(self, x):
        return x @ self.weight.T + self.bias


class Norm(bw.Module):
    def __init__(self):
        self.mean = bw.Buffer(jnp.zeros(()))

    def forward(self, x):
        self.mean.value = 0.5 * self.mean.value + 0.5 * x.mean()
        return x - x.mean()


class Net(bw.Module):
    def __init__(self):
        self.a = Linear(4)
        self.norm = Norm()
        self.b = Linear(2)

    def forward(self, x):
        return self.b(self.norm(jnp.tanh(self.a(x))))


def x():
    return jnp.linspace(-1, 1, 15).reshape(3, 5)


def no_tracers(root):
    for name, v in root.named_variables():
        assert not isinstance(v._value, jax.core.Tracer), name


@pytest.fixture
def net():
    made = Net()
    made.initialize(bw.spec(3, 5))
    return made


def loss(net, v):
    return (net(v) ** 2).mean()


def by_hand(net, v):
    pure, state = bw.functional(net)
    names = [n for n, _ in net.named_parameters()]
    rest = {k: s for k, s in state.items() if k not in names}
    return jax.value_and_grad(lambda p: (pure(p | rest, v)[0] ** 2).mean())({n: state[n] for n in names})


def input_grad_by_hand(net):
    pure, state = bw.functional(net)
    return jax.grad(lambda v: (pure(state, v)[0] ** 2).mean())(x())


@pytest.mark.parametrize("compiled", [False, True])
def test_against_raw_jax(net, compiled):
    value, grads = by_hand(net, x())
    f = bw.value_and_grad(lambda v: loss(net, v), net)
    got, mine = (bw.compile(f) if compiled else f)(x())
    np.testing.assert_allclose(got, value, rtol=1e-6)
    assert set(mine) == set(grads)
    if not compiled:
        assert list(mine) == [n for n, _ in net.named_parameters()]
    for n in grads:
        np.testing.assert_allclose(mine[n], grads[n], rtol=1e-5, atol=1e-7)
    assert float(net.norm.mean) != 0
    no_tracers(net)


def test_state_is_written_once(net):
    net(x())
    once = float(net.norm.mean)
    net.norm.mean.value = jnp.zeros(())
    bw.value_and_grad(loss)(net, x())
    assert float(net.norm.mean) == pytest.approx(once)


def test_modules_in_aux(net):
    """One that was there before comes back itself, one made inside comes back with arrays in it."""

    def f(n):
        made = n.clone()
        return loss(made, x()), (n, made, n.a.weight)

    (_, (same, made, weight)), _ = bw.value_and_grad(f, has_aux=True)(net)
    assert same is net and weight is net.a.weight and made is not net
    no_tracers(made)
    made.a.bias.value = jnp.ones(4)  # an ordinary module
    assert float(made.a.bias.sum()) == 4 and float(net.a.bias.sum()) == 0


def test_aux(net):
    f = bw.value_and_grad(lambda v: (loss(net, v), {"v": v, "s": "text"}), net, has_aux=True)
    (value, aux), grads = f(x())
    np.testing.assert_array_equal(aux["v"], x())
    assert aux["s"] == "text" and value.shape == () and len(grads) == 4
    grads2, aux2 = bw.grad(lambda v: (loss(net, v), v), net, has_aux=True)(x())
    np.testing.assert_array_equal(aux2, x())
    assert set(grads2) == set(grads)
    with pytest.raises(TypeError, match="pair"):
        bw.value_and_grad(lambda v: loss(net, v), net, has_aux=True)(x())


def test_wrt_forms(net):
    def f(v):
        return loss(net, v)

    assert list(bw.grad(f, net.a)(x())) == ["weight", "bias"]
    assert list(bw.grad(f, net.a.weight)(x())) == ["a.weight"]
    assert list(bw.grad(f, [net.a.weight, net.b.bias])(x())) == ["a.weight", "b.bias"]
    assert list(bw.grad(f, net.parameters(r".*bias"))(x())) == ["a.bias", "b.bias"]
    both = bw.grad(f, [net.a, net.b])(x())
    assert len(both) == 4
    assert list(bw.grad(loss)(net, x())) == ["a.weight", "a.bias", "b.weight", "b.bias"]
    assert list(bw.grad(loss)(net=net, v=x())) == ["a.weight", "a.bias", "b.weight", "b.bias"]


def test_several_module_arguments():
    gen, disc = Linear(5, in_features=5), Linear(1, in_features=5)
    grads = bw.grad(lambda g, d, v: d(g(v)).mean())(gen, disc, x())
    assert list(grads) == ["g.weight", "g.bias", "d.weight", "d.bias"]
    shared = bw.grad(lambda a, b, v: a(v).sum() + b(v).sum())(disc, disc, x())
    assert len(shared) == 2
    np.testing.assert_allclose(next(iter(shared.values()))[0], 2 * x().sum(0), atol=1e-6)


def test_argument_positions(net):
    def f(n, v, w):
        return (n(v) ** 2).mean() * w["scale"] + w["shift"]

    args = net, x(), {"scale": jnp.float32(2), "shift": 3.0}
    value, by_hand_grads = by_hand(net, x())
    wanted = 2 * input_grad_by_hand(net)
    net.norm.mean.value = jnp.zeros(())
    np.testing.assert_allclose(bw.grad(f, 1)(*args), wanted, rtol=1e-5)
    assert float(net.norm.mean) != 0
    np.testing.assert_allclose(bw.grad(f, -2)(*args), wanted, rtol=1e-5)
    tree = bw.grad(f, wrt=np.int64(2))(*args)
    assert list(tree) == ["scale", "shift"] and float(tree["shift"]) == 1
    np.testing.assert_allclose(tree["scale"], value, rtol=1e-5)
    of_net = bw.grad(f, 0)(*args)
    assert list(of_net) == [n for n, _ in net.named_parameters()]
    np.testing.assert_allclose(of_net["a.weight"], 2 * by_hand_grads["a.weight"], rtol=1e-5)
    pair = bw.grad(f, (1, 0))(*args)
    assert isinstance(pair, tuple) and list(pair[1]) == list(of_net)
    np.testing.assert_allclose(pair[0], wanted, rtol=1e-5)
    (one,) = bw.grad(f, [1])(*args)
    np.testing.assert_allclose(one, wanted, rtol=1e-5)
    np.testing.assert_allclose(bw.grad(f, 1)(net, x(), w=args[2]), wanted, rtol=1e-5)


def test_positions_and_parameters_together(net):
    def f(n, v):
        return (n(v) ** 2).mean()

    _, grads = by_hand(net, x())
    v, bias, found, whole = bw.grad(f, [1, net.a.bias, r"b\..*", net.a])(net, x())
    assert v.shape == x().shape
    assert list(bias) == ["a.bias"] and list(found) == ["b.weight", "b.bias"] and list(whole) == ["weight", "bias"]
    np.testing.assert_allclose(bias["a.bias"], grads["a.bias"], rtol=1e-5, atol=1e-7)
    # An entry is complete in itself, also where it shares a parameter with another one.
    np.testing.assert_allclose(whole["bias"], grads["a.bias"], rtol=1e-5, atol=1e-7)


def test_the_same_array_twice_is_two_arguments():
    v = jnp.array([1.0, 2.0])
    a, b, again = bw.grad(lambda a, b: (a * b * b).sum(), (0, 1, -2))(v, v)
    np.testing.assert_allclose(a, v**2)
    np.testing.assert_allclose(b, 2 * v * v)
    np.testing.assert_allclose(again, a)


def test_modules_nested_in_an_argument(net):
    _, grads = by_hand(net, x())
    first, scale = bw.grad(lambda pair: (pair[0](x()) ** 2).mean() * pair[1], 0)((net, 1.0))
    np.testing.assert_allclose(first["b.weight"], grads["b.weight"], rtol=1e-5)
    assert scale.shape == ()
    stack = bw.Module()
    stack.layers = [Linear(3, in_features=5), Linear(1, in_features=3)]
    in_list = bw.grad(lambda layers: layers[1](layers[0](x())).sum(), 0)(stack.layers)
    assert list(in_list) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    p = bw.Parameter(jnp.float32(3))
    assert float(bw.grad(lambda p: p.value**2, 0)(p)) == 6


def test_patterns(net):
    assert list(bw.grad(loss, r".*bias")(net, x())) == ["a.bias", "b.bias"]
    scalar = Scalar()
    assert list(bw.grad(scalar, "w.*")()) == ["weight"]
    gen, disc = Linear(5, in_features=5), Linear(1, in_features=5)
    both = bw.grad(lambda g, d, v: d(g(v)).mean(), r"d\..*")(gen, disc, x())
    assert list(both) == ["d.weight", "d.bias"]
    assert list(bw.grad(loss, [r"a\..*", net.b.bias])(net, x())) == ["a.weight", "a.bias", "b.bias"]


class Scalar(bw.Module):
    def __init__(self):
        self.weight = bw.Parameter(jnp.ones(2))

    def forward(self):
        return self.weight.sum()


def test_pattern_errors(net):
    with pytest.raises(ValueError, match=r"grad: wrt: 'a.wieght' matches none of the paths \(a.weight, .*whole path"):
        bw.grad(loss, "a.wieght")(net, x())
    with pytest.raises(ValueError, match=r"everything below it, write r'a\\\.\.\*'"):
        bw.grad(loss, "a")(net, x())
    with pytest.raises(ValueError, match="not a regular expression"):
        bw.grad(loss, "*")
    with pytest.raises(TypeError, match=r"wrt='a.\*' is a regular expression on the paths.*there is none; pass the"):
        bw.grad(lambda v: loss(net, v), "a.*")(x())
    net.freeze(r"a\..*")
    with pytest.raises(TypeError, match="all are frozen"):
        bw.grad(loss, r"a\..*")(net, x())


def test_without_modules_the_first_argument_counts(net):
    v = jnp.array([1.0, 2.0])
    value, gradient = bw.value_and_grad(lambda v, w: (v**2 * w).sum())(v, 3)
    assert float(value) == 15
    np.testing.assert_allclose(gradient, 6 * v)
    np.testing.assert_allclose(bw.compile(bw.grad(lambda d: (d["a"] ** 2).sum()))({"a": v})["a"], 2 * v)
    assert float(bw.grad(lambda s: s**2)(3.0)) == 6
    net.freeze()
    assert bw.grad(lambda v: loss(net, v))(x()).shape == x().shape  # nothing trained is read


@pytest.mark.parametrize("inner", [False, True])
def test_without_modules_trained_parameters_must_not_be_read(net, inner):
    def f(v):
        return bw.grad(lambda: loss(net, v), net)()["a.bias"].sum() if inner else loss(net, v)

    with pytest.raises(TypeError, match=r"no module among the arguments.*reads Parameter 'a.weight'.*wrt=net.*wrt=0"):
        bw.value_and_grad(f)(x())
    np.testing.assert_allclose(bw.grad(lambda v: loss(net, v), 0)(x()), input_grad_by_hand(net), rtol=1e-5)


def test_a_network_may_be_made_inside():
    def f(v):
        scale = bw.Parameter(2 * v)
        return (scale.value * bw.grad(lambda: (scale.value**2).sum(), scale)()[scale.any_name]).sum()

    np.testing.assert_allclose(bw.grad(f)(jnp.array([1.0, 2.0])), [16.0, 32.0])


def test_errors_of_positions(net):
    def f(v, batch=None):
        return (v * 2).sum()

    for wrt in (2, -3):
        with pytest.raises(ValueError, match=rf"grad: wrt={wrt}, but fn was called with 2 positional arguments;"):
            bw.grad(f, wrt)(x(), x())
    with pytest.raises(ValueError, match=r"wrt=0, but fn was called with 0 positional arguments; .*by keyword"):
        bw.grad(f, 0)(v=x())
    with pytest.raises(TypeError, match="no module among the arguments"):
        bw.grad(f)(v=x())
    with pytest.raises(TypeError, match=r"grad: argument 0 \(v\) is int32\[3\], which can't be differentiated; conv"):
        bw.grad(f, 0)(jnp.arange(3))
    with pytest.raises(TypeError, match=r"argument 0 \(v\) is int32\[3\].*pass wrt=net"):
        bw.grad(f)(jnp.arange(3))
    with pytest.raises(TypeError, match=r"argument 1 \(batch\['y'\]\) is the int 3"):
        bw.grad(f, 1)(x(), {"x": x(), "y": 3})
    with pytest.raises(TypeError, match=r"argument 1 \(batch\) is the str 'text'"):
        bw.grad(f, 1)(x(), "text")
    with pytest.raises(TypeError, match=r"argument 1 \(batch\) holds nothing"):
        bw.grad(f, 1)(x(), None)
    with pytest.raises(TypeError, match=r"argument 1 \(batch\) is Buffer float32\[\]"):
        bw.grad(f, 1)(x(), net.norm.mean)
    net.freeze()
    with pytest.raises(TypeError, match=r"argument 0 \(net\) has no trainable parameter: all are frozen"):
        bw.grad(loss, 0)(net, x())
    with pytest.raises(TypeError, match=r"argument 0 \(v\) has no trainable parameter"):
        bw.grad(f, 0)(net.a.bias)


def test_backward_wants_parameters(net):
    bw.backward(loss, 0)(net, x())
    assert net.a.bias.grad is not None
    with pytest.raises(TypeError, match=r"backward adds gradients to parameters, but wrt=1 chooses an array"):
        bw.backward(loss, 1)(net, x())
    with pytest.raises(TypeError, match=r"backward: there is no module among the arguments.*\(fn, net\)\(x, y\)$"):
        bw.backward(lambda v: (v**2).sum())(x())


@pytest.mark.parametrize("wrt", [3.5, True, [], {}, [1, None], lambda: 0, bw.Buffer(jnp.zeros(())), jnp.zeros(())])
def test_wrt_errors(wrt):
    for transform in (bw.value_and_grad, bw.grad, bw.backward, bw.jacobian, bw.hessian):
        with pytest.raises(TypeError, match=rf"^{transform.__name__}: wrt must be"):
            transform(lambda v: v, wrt)


def test_a_generator_of_parameters(net):
    f = bw.grad(lambda v: loss(net, v), (p for p in net.parameters(r".*bias")))
    assert list(f(x())) == list(f(x())) == ["a.bias", "b.bias"]


def test_other_errors(net):
    for transform in (bw.value_and_grad, bw.grad, bw.backward):
        with pytest.raises(TypeError, match=rf"^{transform.__name__}: fn must be a function or a module, got int"):
            transform(3)
    with pytest.raises(TypeError, match="no module among the arguments"):
        bw.value_and_grad(lambda v: net(v).sum())(x())
    with pytest.raises(ValueError, match=r"scalar.*float32\[3, 2\]"):
        bw.value_and_grad(lambda v: net(v), net)(x())
    with pytest.raises(TypeError, match="floating-point"):
        bw.value_and_grad(lambda v: jnp.argmax(net(v)), net)(x())
    net.freeze()
    with pytest.raises(TypeError, match="frozen"):
        bw.value_and_grad(lambda v: loss(net, v), net)(x())
    no_tracers(net)


def test_frozen(net):
    net.freeze(r"a\..*")
    assert list(bw.grad(lambda v: loss(net, v), net)(x())) == ["b.weight", "b.bias"]
    net.unfreeze(r"a\.bias")
    assert list(bw.grad(lambda v: loss(net, v), net)(x())) == ["a.bias", "b.weight", "b.bias"]


@pytest.mark.parametrize("compiled", [False, True])
def test_tied_contributions_are_added(compiled):
    class Tied(bw.Module):
        def __init__(self):
            self.a = Linear(5, in_features=5)
            self.b = Linear(5, in_features=5)
            self.b.weight = self.a.weight

        def forward(self, v):
            return self.b(jnp.tanh(self.a(v))) @ self.a.weight

    net = Tied()
    w, ba, bb = net.a.weight.value, net.a.bias.value, net.b.bias.value

    def hand(w):
        return (((jnp.tanh(x() @ w.T + ba) @ w.T + bb) @ w) ** 2).mean()

    f = bw.grad(lambda v: loss(net, v), net)
    grads = (bw.compile(f) if compiled else f)(x())
    assert set(grads) == {"a.weight", "a.bias", "b.bias"}
    np.testing.assert_allclose(grads["a.weight"], jax.grad(hand)(w), rtol=1e-5)


def test_deferred_is_inferred_without_touching_state():
    net = Net()
    grads = bw.grad(lambda v: loss(net, v), net)(x())
    same = Net()
    same(x())
    assert grads["a.weight"].shape == (4, 5)
    assert float(net.norm.mean) == pytest.approx(float(0.5 * jnp.tanh(net.a(x())).mean()), rel=1e-5)


def test_deferred_dry_run_takes_no_random_numbers():
    class Drop(bw.Module):
        def __init__(self):
            self.a = Linear(2)

        def forward(self, v):
            return self.a(v) * jax.random.normal(bw.random.key(), ())

    net = Drop()
    bw.grad(lambda v: net(v).sum(), net)(x())
    assert int(bw.random.stream().value[-1]) == 1


def test_deferred_with_control_flow_on_values():
    net = Linear(2)

    def f(v):
        y = net(v)
        while jnp.abs(y).sum() > 1:
            y = y / 2
        return y.sum()

    assert bw.grad(f, net)(x())["weight"].shape == (2, 5)


def test_gradient_of_a_gradient():
    p = bw.Parameter(jnp.float32(3))

    def cube():
        return p.value**3

    def norm():
        return bw.grad(cube, p)()[p.any_name] ** 2

    assert float(bw.grad(cube, p)()[p.any_name]) == 27
    assert float(bw.grad(norm, p)()[p.any_name]) == pytest.approx(2 * 27 * 18)
    assert float(bw.compile(bw.grad(norm, p))()[p.any_name]) == pytest.approx(2 * 27 * 18)
    no_tracers_in = p._value
    assert not isinstance(no_tracers_in, jax.core.Tracer)


def test_state_written_in_nested_gradients():
    p, n = bw.Parameter(jnp.float32(2)), bw.Buffer(jnp.zeros(()))

    def inner():
        n.value = n.value + 1
        return p.value**2

    def outer():
        g = bw.grad(inner, p)()[p.any_name]
        n.value = n.value + 10
        return g * g

    bw.grad(outer, p)()
    assert float(n) == 11
    bw.compile(bw.grad(outer, p))()
    assert float(n) == 22


def test_mixed_with_raw_grad(net):
    raw = jax.grad(lambda v: loss(net.a, v))(x())
    assert raw.shape == x().shape
    penalty = bw.grad(lambda v: (jax.grad(lambda w: net.a(w).sum())(v) ** 2).sum(), net.a)(x())
    np.testing.assert_allclose(penalty["bias"], np.zeros(4))
    assert np.abs(penalty["weight"]).sum() > 0


def test_backward_adds_up(net):
    f = bw.backward(lambda v: loss(net, v), net)
    grads = bw.grad(lambda v: loss(net.eval(), v), net)(x())
    assert net.a.weight.grad is None
    value = f(x())
    f(x())
    assert value.shape == ()
    np.testing.assert_allclose(net.a.weight.grad, 2 * grads["a.weight"], rtol=1e-5)
    net.a.weight.grad = None
    assert net.a.weight.grad is None
    with pytest.raises(ValueError, match="shape"):
        net.a.weight.grad = jnp.ones(3)


def test_backward_of_frozen_leaves_no_gradient(net):
    net.freeze(r"a\..*")
    bw.backward(lambda v: loss(net, v), net)(x())
    assert net.a.weight.grad is None and net.b.weight.grad is not None


def test_exceptions_leave_everything(net):
    mean = float(net.norm.mean)

    def bad(v):
        net(v)
        net.a.bias.value = net.a.bias.value + 1
        raise KeyError("stop")

    for f in (bw.grad(bad, net), bw.backward(bad, net), bw.compile(bw.grad(bad, net))):
        with pytest.raises(KeyError):
            f(x())
        no_tracers(net)
        assert float(net.norm.mean) == mean
        np.testing.assert_array_equal(net.a.bias, np.zeros(4))


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: jax.jit(f)(x()),
        lambda f: jax.vmap(f)(x()),
        lambda f: jax.grad(lambda v: f(v).sum())(x()),
        lambda f: jax.lax.scan(lambda c, v: (c, f(v)), 0.0, x()),
        lambda f: jax.checkpoint(f)(x()),
        lambda f: jax.eval_shape(f, x()),
        lambda f: jax.lax.cond(True, f, f, x()),
    ],
)
@pytest.mark.parametrize("inside", ["eager", "compile", "grad"])
def test_writes_in_raw_transforms_are_refused(transform, inside):
    net = Norm()

    def f():
        return transform(lambda v: net(v))

    def scalar():
        f()
        return bw_p.value

    bw_p = bw.Parameter(jnp.ones(()))
    run = {"eager": f, "compile": bw.compile(f), "grad": bw.grad(scalar, bw_p)}[inside]
    with pytest.raises(TraceLeakError, match=r"'mean'.*brickwork's own transform"):
        run()
    no_tracers(net)
    assert float(net.mean) == 0


def test_a_module_copied_by_jit_refuses_writes():
    net = Norm()
    with pytest.raises(TraceLeakError, match="copy of a module"):
        jax.jit(lambda m, v: m(v))(net, x())
    assert float(net.mean) == 0
    np.testing.assert_allclose(jax.jit(lambda m, v: m(v))(Linear(2, in_features=5), x()).shape, (3, 2))


def test_a_compiled_module_as_wrt(net):
    fast = bw.compile(net)
    assert len(bw.grad(lambda v: loss(fast, v), fast)(x())) == 4


def test_complex_and_low_precision():
    p = bw.Parameter(jnp.ones(2, jnp.bfloat16))
    g = bw.grad(lambda: (p.value**2).sum(), p)()[p.any_name]
    assert g.dtype == jnp.bfloat16
