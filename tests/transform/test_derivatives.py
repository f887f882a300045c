"""vjp, jvp, Jacobians and Hessians of functions that use modules, against raw JAX on the same functions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn
from brickwork.errors import ShapeMismatchError

X = jnp.linspace(-1, 1, 12).reshape(3, 4)


class Counted(bw.Module):
    """A small network that counts its calls and draws random numbers."""

    def __init__(self, noise=True):
        self.a = nn.Linear(3)
        self.b = nn.Linear(2)
        self.calls = bw.Buffer(jnp.zeros((), jnp.int32))
        self.noise = noise

    def forward(self, x):
        self.calls.value = self.calls.value + 1
        h = jnp.tanh(self.a(x))
        if self.noise:
            h = h * jax.random.uniform(bw.random.key(), h.shape)
        return self.b(h)


@pytest.fixture
def net():
    made = Counted()
    made.initialize(bw.spec(3, 4))
    return made


def by_hand(net):
    """The network as a pure function ``(parameters, x, key number) -> y``, and its parameters."""
    params = {path: p.value for path, p in net.named_parameters()}

    def apply(p, x, number=0):
        h = jnp.tanh(x @ p["a.weight"].T + p["a.bias"])
        if net.noise:
            h = h * jax.random.uniform(jax.random.fold_in(jax.random.key(0), jnp.uint32(number)), h.shape)
        return h @ p["b.weight"].T + p["b.bias"]

    return apply, params


def close(got, wanted):
    assert jax.tree_util.tree_structure(got) == jax.tree_util.tree_structure(wanted)
    for a, b in zip(jax.tree_util.tree_leaves(got), jax.tree_util.tree_leaves(wanted), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def used_once(net):
    assert int(net.calls) == 1
    assert int(bw.random.stream().value[-1]) == int(net.noise)
    for name, v in net.named_variables():
        assert not isinstance(v._value, jax.core.Tracer), name


def apply(net, x):
    return net(x)


def loss(net, x):
    return (net(x) ** 2).mean()


# -- values, and state stored once -------------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True])
def test_vjp(net, compiled):
    pure, params = by_hand(net)
    ct = jnp.ones((3, 2)) * jnp.array([1.0, 2.0])

    def f(x, ct):
        y, pull = bw.vjp(apply, net, x)
        return y, pull(ct), pull(2 * ct)

    y, grads, twice = (bw.compile(f) if compiled else f)(X, ct)
    wanted, pull = jax.vjp(pure, params, X)
    close(y, wanted)
    close(grads, pull(ct))
    close(twice, pull(2 * ct))
    if not compiled:
        assert list(grads[0]) == ["a.weight", "a.bias", "b.weight", "b.bias"]
    used_once(net)


@pytest.mark.parametrize("compiled", [False, True])
def test_jvp(net, compiled):
    pure, params = by_hand(net)
    direction = {path: jnp.full_like(p, 0.5) for path, p in params.items()}

    def f(x):
        return bw.jvp(apply, (net, x), (direction, jnp.ones_like(x)))

    close((bw.compile(f) if compiled else f)(X), jax.jvp(pure, (params, X), (direction, jnp.ones_like(X))))
    used_once(net)


@pytest.mark.parametrize("mode", ["rev", "fwd"])
@pytest.mark.parametrize("compiled", [False, True])
def test_jacobian(net, mode, compiled):
    pure, params = by_hand(net)
    f = bw.jacobian(apply, mode=mode)
    got = (bw.compile(f) if compiled else f)(net, X)
    close(got, jax.jacrev(pure)(params, X))
    if not compiled:
        assert list(got) == ["a.weight", "a.bias", "b.weight", "b.bias"]
    used_once(net)


@pytest.mark.parametrize("compiled", [False, True])
def test_hessian(net, compiled):
    pure, params = by_hand(net)
    f = bw.hessian(loss)
    got = (bw.compile(f) if compiled else f)(net, X)
    close(got, jax.jit(jax.hessian(lambda p, x: (pure(p, x) ** 2).mean()))(params, X))
    used_once(net)


def test_hessian_by_argument_and_of_a_vector(net):
    pure, params = by_hand(net)
    wanted = jax.jit(jax.hessian(pure, (0, 1)))(params, X)
    got = bw.compile(bw.hessian(apply, (0, 1)))(net, X)
    close(got, wanted)
    used_once(net)


@pytest.mark.parametrize("mode", ["rev", "fwd"])
def test_forms_of_results_and_arguments(mode):
    def f(d, scale):
        return {"sum": d["a"].sum() * scale, "both": (d["a"] * 2, jnp.stack([d["b"], scale]))}

    d = {"a": jnp.arange(3.0), "b": jnp.float32(2)}
    raw = jax.jacrev if mode == "rev" else jax.jacfwd
    three = jnp.float32(3)
    close(bw.compile(bw.jacobian(f, (1, 0), mode=mode))(d, three), jax.jit(raw(f, (1, 0)))(d, three))
    close(bw.jacobian(f, -1, mode=mode)(d, 3.0), raw(f, 1)(d, 3.0))
    close(bw.compile(bw.jacobian(f, mode=mode))(d, scale=three), jax.jit(raw(f))(d, scale=three))
    close(bw.compile(bw.hessian(f))(d, three), jax.jit(jax.hessian(f))(d, three))


def test_wrt_forms(net):
    assert list(bw.jacobian(apply, r".*bias")(net, X)) == ["a.bias", "b.bias"]
    rows = bw.compile(bw.hessian(lambda x: loss(net, x), [net.a.bias, net.b.bias]))(X)
    assert {k: list(v) for k, v in rows.items()} == {key: ["a.bias", "b.bias"] for key in ("a.bias", "b.bias")}
    assert bw.jacobian(net)(X)["a.bias"].shape == (3, 2, 3)
    assert bw.compile(bw.hessian(lambda x: loss(net, x), 0))(X).shape == (3, 4, 3, 4)
    for transform in (bw.jacobian, bw.hessian):
        with pytest.raises(TypeError, match=rf"^{transform.__name__}: there is no module.*reads Parameter 'a.weight'"):
            transform(lambda x: loss(net, x))(X)


def test_aux(net):
    def f(net, x):
        y = net(x)
        return y, {"y": y, "note": "text", "net": net, "key": bw.random.key()}

    def scalar(net, x):
        y, aux = f(net, x)
        return (y**2).mean(), aux

    _, pull, a = bw.vjp(f, net, X, has_aux=True)
    assert pull(jnp.ones((3, 2)))[1].shape == X.shape
    _, tangent, b = bw.jvp(f, (net, X), (None, X), has_aux=True)
    assert tangent.shape == (3, 2)
    _, c = bw.jacobian(f, has_aux=True)(net, X)
    _, d = bw.jacobian(f, has_aux=True, mode="fwd")(net, X)
    _, e = bw.hessian(scalar, r"b\.bias", has_aux=True)(net, X)
    for aux in (a, b, c, d, e):
        assert aux["note"] == "text" and aux["net"] is net and aux["y"].shape == (3, 2)
        assert not isinstance(aux["y"], jax.core.Tracer) and jnp.issubdtype(aux["key"].dtype, jax.dtypes.prng_key)
    assert int(net.calls) == 5
    with pytest.raises(TypeError, match=r"has_aux=True: fn must return a pair \(result, aux\), got float32\[3, 2\]"):
        bw.jacobian(apply, has_aux=True)(net, X)


# -- what can't be differentiated --------------------------------------------------------------


def test_vjp_of_constants(net):
    def f(net, x, n, labels, mode, key, d, p):
        assert isinstance(n, int) and mode == "sum"  # as they were given
        return net(x) * n * d["scale"] + labels.astype(x.dtype) + p

    key = jax.random.key(3)
    frozen = bw.Parameter(jnp.ones(()), trainable=False)
    y, pull = bw.vjp(f, net, X, 2, jnp.arange(2), "sum", key, {"scale": 3.0, "n": 1, "none": None}, frozen)
    grads = pull(jnp.ones_like(y))
    assert len(grads) == 8 and list(grads[0]) == ["a.weight", "a.bias", "b.weight", "b.bias"]
    assert grads[2:6] == (None,) * 4 and grads[7] is None
    assert grads[6]["n"] is None and grads[6]["none"] is None and grads[6]["scale"].shape == ()
    moved = bw.vjp(lambda p: p.value * 2, bw.Parameter(jnp.ones(3)))[1](jnp.ones(3))
    np.testing.assert_allclose(moved[0], 2 * np.ones(3))


def test_integers_in_the_result():
    def f(x):
        return {"x": x * 2, "index": jnp.argmax(x)}

    x = jnp.arange(3.0)
    _, pull = bw.vjp(f, x)
    np.testing.assert_allclose(pull({"x": x, "index": None})[0], 2 * x)
    np.testing.assert_allclose(pull({"x": None, "index": np.zeros((), jax.dtypes.float0)})[0], 0 * x)
    with pytest.raises(TypeError, match=r"vjp: the cotangent\['index'\] must be None, since int32\[\] can't be diff"):
        pull({"x": x, "index": jnp.int32(1)})
    _, tangent = bw.jvp(f, (x,), (x,))
    assert tangent["index"] is None
    np.testing.assert_allclose(tangent["x"], 2 * x)
    with pytest.raises(TypeError, match=r"must return floating-point arrays.*got int32 at \['index'\].*has_aux=True"):
        bw.jacobian(f)(x)


def test_python_numbers_as_tangents():
    y, tangent = bw.jvp(lambda x: x * x, (3.0,), (1,))
    assert float(y) == 9 and float(tangent) == 6
    p = bw.Parameter(jnp.ones((), jnp.bfloat16))
    _, tangent = bw.jvp(lambda p: p.value * 2, (p,), (3.0,))
    assert tangent.dtype == jnp.bfloat16 and float(tangent) == 6
    _, pull = bw.vjp(lambda p: p.value * 2, p)
    assert float(pull(3)[0]) == 6


def test_missing_tangents_are_zeros(net):
    pure, params = by_hand(net)
    zeros = jax.tree_util.tree_map(jnp.zeros_like, params)
    only = {"a.bias": jnp.ones(3)}
    close(bw.jvp(apply, (net, X), (only, None))[1], jax.jvp(lambda p: pure(p, X), (params,), (zeros | only,))[1])
    _, still = bw.jvp(apply, [net, X], [{}, None])
    np.testing.assert_array_equal(still, np.zeros((3, 2)))


# -- errors ------------------------------------------------------------------------------------


def test_cotangent_errors(net):
    _, pull = bw.vjp(lambda net, x: {"y": net(x)}, net, X)
    with pytest.raises(ValueError, match=r"must have the structure PyTreeDef\({'y': \*}\), got PyTreeDef\(\*\)"):
        pull(jnp.ones((3, 2)))
    with pytest.raises(ShapeMismatchError, match=r"the cotangent\['y'\] has shape \(2,\), expected \(3, 2\)"):
        pull({"y": jnp.ones(2)})
    with pytest.raises(TypeError, match=r"\['y'\] has dtype bfloat16, expected float32; convert it with \.astype"):
        pull({"y": jnp.ones((3, 2), jnp.bfloat16)})
    with pytest.raises(TypeError, match=r"\['y'\] must be an array, float32\[3, 2\], got list"):
        pull({"y": [1.0]})


def test_tangent_errors(net):
    with pytest.raises(ValueError, match=r"argument 0 \(net\) has an entry 'a.wieght'.*did you mean 'a.weight'"):
        bw.jvp(apply, (net, X), ({"a.wieght": jnp.ones((3, 4))}, None))
    with pytest.raises(ShapeMismatchError, match=r"argument 0 \(net\) at 'a.bias' has shape \(4,\), expected \(3,\)"):
        bw.jvp(apply, (net, X), ({"a.bias": jnp.ones(4)}, None))
    with pytest.raises(TypeError, match=r"argument 0 \(net\) must be a dict from path to array, got ArrayImpl"):
        bw.jvp(apply, (net, X), (jnp.ones(3), None))
    with pytest.raises(ShapeMismatchError, match=r"tangent of argument 1 \(x\) has shape \(4,\), expected \(3, 4\)"):
        bw.jvp(apply, (net, X), (None, X[0]))
    with pytest.raises(TypeError, match=r"argument 1 \(x\) has dtype int32, expected float32"):
        bw.jvp(apply, (net, X), (None, jnp.ones((3, 4), jnp.int32)))
    with pytest.raises(ValueError, match=r"argument 0 \(d\) must have the structure .*'b'.* got "):
        bw.jvp(lambda d: d["a"], ({"a": X, "b": X},), ({"a": X},))
    with pytest.raises(TypeError, match=r"argument 1 \(n\) must be None, since the int 3 can't be differentiated"):
        bw.jvp(lambda x, n: x * n, (X, 3), (X, 1))
    with pytest.raises(ValueError, match=r"argument 1 \(b\) at 'a.bias' is given twice: the parameter is tied"):
        bw.jvp(lambda a, b: a(X), (net, net), ({"a.bias": jnp.ones(3)}, {"a.bias": jnp.ones(3)}))
    with pytest.raises(ValueError, match="jvp: there are 2 primals, but 1 tangents"):
        bw.jvp(apply, (net, X), (None,))
    with pytest.raises(TypeError, match=r"jvp: primals and tangents must be tuples, .* got ArrayImpl and tuple"):
        bw.jvp(jnp.sin, X, (X,))
    net.freeze("b.*")
    with pytest.raises(ValueError, match=r"an entry 'b.bias', which isn't the path of a trainable parameter"):
        bw.jvp(apply, (net, X), ({"b.bias": jnp.ones(2)}, None))


def test_result_errors():
    for transform in (bw.jacobian(lambda x: None), bw.hessian(lambda x: None), lambda x: bw.vjp(lambda x: None, x)):
        with pytest.raises(TypeError, match=r"fn must return arrays to be differentiated, got None; is a `return`"):
            transform(X)
    with pytest.raises(TypeError, match=r"got a str at \[1\]; return anything else as auxiliary data"):
        bw.vjp(lambda x: (x, "text"), X)
    with pytest.raises(TypeError, match=r"got a Linear; return"):
        bw.jvp(lambda x: nn.Linear(2), (X,), (X,))


def test_other_errors():
    with pytest.raises(ValueError, match='jacobian: mode must be "rev" or "fwd", got \'forward\''):
        bw.jacobian(jnp.sin, mode="forward")
    for transform in (bw.jacobian, bw.hessian, bw.vjp):
        with pytest.raises(TypeError, match=rf"^{transform.__name__}: fn must be a function or a module, got int"):
            transform(3)
    with pytest.raises(TypeError, match=r"^jvp: fn must be"):
        bw.jvp(3, (X,), (X,))
    with pytest.raises(TypeError, match=r"jacobian: argument 0 \(x\) is int32\[3\]"):
        bw.jacobian(lambda x: x)(jnp.arange(3))
    with pytest.raises(TypeError, match="complex64"):
        bw.hessian(lambda x: x.real)(jnp.array(1j))


def test_exceptions_leave_everything(net):
    def bad(net, x):
        net(x)
        net.a.bias.value = net.a.bias.value + 1
        raise KeyError("stop")

    for f in (
        lambda: bw.vjp(bad, net, X),
        lambda: bw.jvp(bad, (net, X), (None, X)),
        lambda: bw.jacobian(bad)(net, X),
        lambda: bw.jacobian(bad, mode="fwd")(net, X),
        lambda: bw.hessian(bad)(net, X),
        lambda: bw.compile(bw.hessian(bad))(net, X),
    ):
        before = float(net.a.bias[0])
        with pytest.raises(KeyError):
            f()
        assert int(net.calls) == 0 and float(net.a.bias[0]) == before
        assert not any(isinstance(v._value, jax.core.Tracer) for v in net.variables())


# -- functions with a backward pass of their own -----------------------------------------------


@pytest.fixture
def normed():
    made = nn.Sequential(nn.Linear(2), nn.BatchNorm1d(), nn.Linear(1))
    made.initialize(bw.spec(3, 4))
    return made


def test_hessian_through_batch_normalisation(normed):
    got = bw.compile(bw.hessian(loss))(normed, X)
    assert int(normed[1].num_batches_tracked) == 1
    reverse_twice = bw.compile(bw.jacobian(bw.grad(loss)))(normed, X)
    assert int(normed[1].num_batches_tracked) == 2
    for row in got:
        for column in got:
            np.testing.assert_allclose(got[row][column], reverse_twice[row][column], rtol=1e-4, atol=1e-5)
    direction = {"0.weight": jnp.ones((2, 4))}
    _, product = bw.jvp(bw.grad(loss), (normed, X), (direction, None))
    wanted = jnp.tensordot(got["2.weight"]["0.weight"], direction["0.weight"], 2)
    np.testing.assert_allclose(product["2.weight"], wanted, rtol=1e-4, atol=1e-5)


def test_forward_mode_through_batch_normalisation(normed):
    with pytest.raises(
        TypeError, match=r"^jvp: .*custom_vjp.*so has BatchNorm, but .* net.eval\(\). Here use bw.vjp"
    ) as info:
        bw.jvp(apply, (normed, X), (None, X))
    assert any("net.1 (BatchNorm1d" in note for note in info.value.__notes__)
    with pytest.raises(TypeError, match=r'^jacobian: .*custom_vjp.*use mode="rev"'):
        bw.jacobian(apply, mode="fwd")(normed, X)
    assert int(normed[1].num_batches_tracked) == 0
    assert bw.jacobian(apply)(normed, X)["1.bias"].shape == (3, 1, 2)
    normed.eval()
    assert bw.jvp(apply, (normed, X), (None, X))[1].shape == (3, 1)


def test_hessian_where_the_backward_pass_has_one_of_its_own():
    @jax.custom_vjp
    def double(x):
        return 2 * x

    double.defvjp(lambda x: (2 * x, None), lambda _, ct: (double(ct),))

    def f(x):
        return (double(x) ** 2).sum()

    with pytest.raises(TypeError, match=r"^hessian: .*bw.jacobian\(bw.grad\(fn, wrt\), wrt\) uses reverse mode twice"):
        bw.hessian(f)(jnp.ones(2))
    np.testing.assert_allclose(bw.jacobian(bw.grad(f))(jnp.ones(2)), 8 * np.eye(2))


# -- composition -------------------------------------------------------------------------------


def test_gradient_penalty(net):
    net.noise = False
    pure, params = by_hand(net)

    def penalty(net, x):
        slope = bw.grad(lambda x: net(x).sum(), 0)(x)
        return ((jnp.linalg.norm(slope, axis=-1) - 1) ** 2).mean()

    def raw(p, x):
        slope = jax.grad(lambda x: pure(p, x).sum())(x)
        return ((jnp.linalg.norm(slope, axis=-1) - 1) ** 2).mean()

    wanted = jax.grad(raw)(params, X)
    close(bw.grad(penalty)(net, X), wanted)
    assert int(net.calls) == 1
    close(bw.compile(bw.grad(penalty))(net, X), wanted)
    assert int(net.calls) == 2


def test_inner_loop_of_a_clone(net):
    net.noise = False
    pure, params = by_hand(net)

    def outer(net, x, y):
        fast = net.clone()
        for _ in range(2):
            grads = bw.grad(loss)(fast, x)
            for path, p in fast.named_parameters():
                p.value = p.value - 0.1 * grads[path]
        return loss(fast, y)

    def raw(p, x, y):
        for _ in range(2):
            grads = jax.grad(lambda p: (pure(p, x) ** 2).mean())(p)
            p = {path: v - 0.1 * grads[path] for path, v in p.items()}
        return (pure(p, y) ** 2).mean()

    wanted = jax.grad(raw)(params, X, X + 1)
    close(bw.grad(outer)(net, X, X + 1), wanted)
    meta = bw.compile(bw.grad(outer))
    close(meta(net, X, X + 1), wanted)
    close(meta(net, X, X + 1), wanted)
    assert meta.stats().compilations == 1
    assert int(net.calls) == 0  # the clones counted
    close({n: p.value for n, p in net.named_parameters()}, params)


@pytest.mark.parametrize("compiled", [False, True])
def test_product_of_hessian_and_vector(net, compiled):
    pure, params = by_hand(net)
    direction = {path: jnp.full_like(p, 0.5) for path, p in params.items()}

    def product(x):
        return bw.jvp(lambda _: bw.grad(lambda: loss(net, x), net)(), (net,), (direction,))[1]

    got = (bw.compile(product) if compiled else product)(X)
    gradient = jax.grad(lambda p: (pure(p, X) ** 2).mean())
    close(got, jax.jvp(gradient, (params,), (direction,))[1])
    used_once(net)


def test_gradient_of_each_example(net):
    plain = nn.Sequential(net.a, nn.Tanh(), net.b)
    got = bw.vmap(bw.grad(lambda net, x: net(x).sum()), in_axes=(None, 0))(plain, X)

    def raw(p, x):
        return (jnp.tanh(x @ p["0.weight"].T + p["0.bias"]) @ p["2.weight"].T + p["2.bias"]).sum()

    params = {path: p.value for path, p in plain.named_parameters()}
    close(got, jax.vmap(jax.grad(raw), in_axes=(None, 0))(params, X))


def test_derivatives_of_derivatives():
    p = bw.Parameter(jnp.float32(2))

    def cube(p):
        return p.value**3

    assert float(bw.grad(lambda p: bw.vjp(cube, p)[1](1.0)[0], 0)(p)) == 12
    assert float(bw.grad(lambda p: bw.jvp(cube, (p,), (1.0,))[1], 0)(p)) == 12
    assert float(bw.jacobian(lambda p: bw.hessian(cube, 0)(p), 0)(p)) == 6
    assert float(bw.compile(lambda: bw.jacobian(lambda p: bw.hessian(cube, 0)(p), 0)(p))()) == 6
    _, pull = bw.vjp(lambda p: bw.jacobian(cube, 0, mode="fwd")(p), p)
    assert float(pull(1.0)[0]) == 12


def test_pull_may_leave_a_compiled_function(net):
    pure, params = by_hand(net)

    @bw.compile
    def f(x):
        return bw.vjp(apply, net, x)

    for number in range(2):
        y, pull = f(X)
        wanted, by_jax = jax.vjp(lambda p, x, n=number: pure(p, x, n), params, X)
        close(y, wanted)
        close(pull(jnp.ones((3, 2))), by_jax(jnp.ones((3, 2))))
    assert f.stats().compilations == 1
    close(bw.compile(lambda ct: pull(ct))(jnp.ones((3, 2))), by_jax(jnp.ones((3, 2))))


def test_pull_survives_training(net):
    """A compiled step overwrites parameters in place, but not the arrays that ``pull`` holds."""
    net.noise = False

    @bw.compile
    def step():
        for p in net.parameters():
            p.value = p.value * 2

    step()
    step()
    wanted = bw.vjp(net, X)[1](jnp.ones((3, 2)))[0]
    _, pull = bw.vjp(net, X)
    step()
    np.testing.assert_allclose(pull(jnp.ones((3, 2)))[0], wanted)


# -- ties, deferred shapes, frozen parameters --------------------------------------------------


class Tied(bw.Module):
    def __init__(self):
        self.a = nn.Linear(4, in_features=4, bias=False)
        self.b = nn.Linear(4, in_features=4, bias=False)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(jnp.tanh(self.a(x)))


def test_tied_parameters():
    net = Tied()
    w = net.a.weight.value

    def pure(w):
        return jnp.tanh(X @ w.T) @ w.T

    ct, t = jnp.ones((3, 4)), jnp.full((4, 4), 0.5)
    (grads,) = bw.vjp(lambda net: net(X), net)[1](ct)
    close(grads, {"a.weight": jax.vjp(pure, w)[1](ct)[0]})
    close(bw.jvp(lambda net: net(X), (net,), ({"a.weight": t},))[1], jax.jvp(pure, (w,), (t,))[1])
    close(bw.compile(bw.jacobian(lambda net: net(X)))(net), {"a.weight": jax.jit(jax.jacrev(pure))(w)})
    wanted = jax.jit(jax.hessian(lambda w: (pure(w) ** 2).mean()))(w)
    close(bw.compile(bw.hessian(loss))(net, X), {"a.weight": {"a.weight": wanted}})
    # The same module as two arguments: each entry has the whole derivative.
    first, second = bw.vjp(lambda a, b: a(X), net, net)[1](ct)
    close(first, grads)
    close(second, grads)


@pytest.mark.parametrize(
    "run",
    [
        lambda net: bw.vjp(apply, net, X)[1](jnp.ones((3, 2)))[0],
        lambda net: bw.jvp(bw.grad(loss), (net, X), ({"a.bias": jnp.ones(3)}, None))[1],
        lambda net: bw.jacobian(apply)(net, X),
        lambda net: bw.compile(bw.hessian(loss))(net, X),
        lambda net: bw.grad(loss, r".*")(net, X),
    ],
)
def test_shapes_are_inferred_first(run):
    net = Counted()
    derivative = run(net)
    assert sorted(derivative) == ["a.bias", "a.weight", "b.bias", "b.weight"]
    assert net.a.weight.shape == (3, 4)
    used_once(net)


def test_shapes_of_captured_modules():
    net = Counted()
    assert bw.jacobian(lambda x: net(x), 0)(X).shape == (3, 2, 3, 4)
    used_once(net)


def test_frozen_parameters_are_left_out(net):
    net.freeze("a.*")
    assert list(bw.vjp(apply, net, X)[1](jnp.ones((3, 2)))[0]) == ["b.weight", "b.bias"]
    assert list(bw.jacobian(apply)(net, X)) == ["b.weight", "b.bias"]
    assert sorted(bw.compile(bw.hessian(loss))(net, X)["b.bias"]) == ["b.bias", "b.weight"]
    net.freeze()
    assert bw.vjp(apply, net, X)[1](jnp.ones((3, 2)))[0] == {}
    with pytest.raises(TypeError, match="there is no trainable parameter"):
        bw.hessian(loss)(net, X)


def test_mixed_precision():
    """Unit vectors of several dtypes, under strict promotion."""
    p, q = bw.Parameter(jnp.ones(2, jnp.bfloat16)), bw.Parameter(jnp.ones(2))

    def f():
        return (p.value.astype(jnp.float32) * q.value**2).sum()

    h = bw.hessian(f, [p, q])()
    np.testing.assert_allclose(h[p.any_name][q.any_name].astype(jnp.float32), 2 * np.eye(2))
    np.testing.assert_allclose(h[q.any_name][p.any_name], 2 * np.eye(2))
    with pytest.raises(ValueError, match="no available implicit dtype promotion"):
        bw.hessian(lambda: (p.value * q.value).sum(), q)()  # the function itself stays under the user's rule


@pytest.mark.leaks
def test_no_tracer_leaks(net):
    bw.vjp(apply, net, X)[1](jnp.ones((3, 2)))
    bw.jvp(apply, (net, X), (None, X))
    bw.jacobian(apply)(net, X)
    bw.hessian(loss, "b.bias")(net, X)
