"""``bw.remat``: the same numbers, less memory, and a module that is still the module."""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.exactness.harness import assert_same

import brickwork as bw
from brickwork import nn, optim
from brickwork.core import random_stream
from brickwork.core._jax import Tracer
from brickwork.errors import TraceLeakError

X = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)
BOTH = pytest.mark.parametrize("way", [lambda f: f, bw.compile], ids=["eager", "compiled"])


def block():
    return nn.Sequential(nn.Linear(8), nn.BatchNorm1d(), nn.Dropout(0.5), jax.nn.gelu, nn.Linear(3))


def stream():
    return np.asarray(random_stream().value)


def values(*nets):
    return [np.asarray(v.value) for net in nets for v in net.variables()]


def gradients(way, net, fn, *args):
    bw.seed(5)
    return way(bw.value_and_grad(lambda *args: (fn(*args) ** 2).sum(), net))(*args), stream()


# -- the same numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "way"),
    [("module", bw.compile), ("module", lambda f: f), ("function", bw.compile), ("method", bw.compile)],
    ids=["module", "module, eagerly", "function", "method"],
)
def test_gradients_masks_and_state_are_the_same(way, form):
    net, twin = block(), None
    net(X)
    twin = net.clone()
    wrapped = {
        "module": lambda: bw.remat(net),
        "function": lambda: bw.remat(lambda x: net(x)),
        "method": lambda: bw.remat(net.forward),
    }[form]()
    for i in range(2):
        got, random = gradients(way, net, wrapped, X + i)
        expected, plain = gradients(way, twin, twin, X + i)
        assert_same(got, expected, 1e-6)
        np.testing.assert_array_equal(random, plain)
    assert_same(values(net), values(twin))
    assert int(net[1].num_batches_tracked) == 3  # written once for each call
    assert not any(isinstance(v._value, Tracer) for v in net.variables())


def test_gradients_are_equal_bit_by_bit():
    net = nn.Sequential(nn.Linear(8, in_features=3), nn.Dropout(0.5), nn.Tanh(), nn.Linear(3, in_features=8))
    for way in (lambda f: f, bw.compile):
        got, _ = gradients(way, net, bw.remat(net), X)
        expected, _ = gradients(way, net, net, X)
        assert_same(got, expected, 0.0)


@BOTH
def test_nothing_differentiated(way):
    net, twin = block(), None
    net(X)
    twin = net.clone()
    bw.seed(1)
    y = way(bw.remat(net))(X)
    bw.seed(1)
    np.testing.assert_allclose(y, twin(X), rtol=1e-6, atol=1e-6)
    assert_same(values(net), values(twin))


def test_inside_everything():
    net = nn.Sequential(nn.Linear(3, in_features=3), nn.Dropout(0.5))

    def loss(wrap, x):
        f = wrap(wrap(net))
        y = bw.vmap(f)(x)
        y, _ = bw.scan(wrap(lambda c, _: (f(c) + 1, None)), y, length=2)
        return (bw.cond(y.sum() > 0, f, wrap(lambda y: y * 2), y) ** 2).sum()

    bw.seed(2)
    got = bw.compile(bw.value_and_grad(lambda x: loss(bw.remat, x), net))(X)
    bw.seed(2)
    assert_same(got, bw.compile(bw.value_and_grad(lambda x: loss(lambda f: f, x), net))(X), 2e-6)


def test_gradients_of_gradients():
    net = nn.Sequential(nn.Linear(3, in_features=3), nn.Tanh(), nn.Linear(1, in_features=3))

    def penalty(f):
        def fn(x):
            p = bw.Parameter(x)
            (g,) = bw.grad(lambda: f(p.value).sum(), p)().values()
            return (g**2).sum()

        return bw.value_and_grad(fn, net)(X)

    assert_same(penalty(bw.remat(net)), penalty(net), 2e-6)


@BOTH
def test_arguments_and_results_of_every_kind(way):
    scale = bw.Buffer(jnp.float32(2))

    @bw.remat
    def fn(net, batch, *rest, mode, nothing=None):
        """Doc."""
        scale.value = scale.value + 1
        return {"y": net(batch["x"]) * rest[0], "mode": mode, "n": 3, "scale": scale, "none": nothing}

    net = nn.Linear(2, in_features=3)

    def loss(x):
        out = fn(net, {"x": x}, jnp.float32(3), mode="train")
        scale.value = scale.value * 10
        assert (out["mode"], out["n"], out["none"]) == ("train", 3, None)
        return out["y"].sum() * out["scale"]

    value, grads = way(bw.value_and_grad(loss, net))(X)
    assert_same(value, net(X).sum() * 9, 1e-5)
    np.testing.assert_allclose(grads["bias"], [36.0, 36.0], rtol=1e-6)
    assert float(scale) == 30
    assert (fn.__name__, fn.__doc__) == ("fn", "Doc.")
    assert float(fn(net, {"x": X}, 1.0, mode="eval")["scale"]) == 31


def test_a_variable_in_the_result_is_its_value_then():
    b = bw.Buffer(jnp.float32(1))
    y = bw.remat(lambda: b)()
    b.value += 1
    assert float(y) == 1


# -- less work kept --------------------------------------------------------------------------------


def program(wrap):
    blocks = [nn.Sequential(nn.Linear(64, in_features=64), nn.Tanh(), nn.Linear(64, in_features=64)) for _ in range(8)]
    net = bw.stack(wrap(block) for block in blocks)

    @bw.compile
    def step(x):
        def loss(x):
            return (bw.scan(lambda x, block: (jnp.sin(block(x)), None), x, net)[0] ** 2).sum()

        return bw.value_and_grad(loss, net)(x)

    step(jnp.ones((512, 64)))
    return step.stats()


def test_memory_by_xlas_own_analysis():
    """In a loop: between written-out blocks XLA may undo it on the CPU, with raw ``jax.checkpoint`` too."""
    kept, again = program(lambda block: block), program(bw.remat)
    assert again.temp_bytes < 0.8 * kept.temp_bytes
    assert again.flops > 1.1 * kept.flops


def count(policy):
    net = nn.Sequential(nn.Linear(8, in_features=3), nn.Tanh(), nn.Linear(3, in_features=8), nn.Tanh())
    f = bw.remat(net, policy=policy)
    text = str(jax.make_jaxpr(jax.grad(lambda x: f(x).sum()))(X))
    return text.count("dot_general")


def test_policy():
    keep_all, keep_nothing = jax.checkpoint_policies.everything_saveable, jax.checkpoint_policies.nothing_saveable
    assert count(keep_all) < count(keep_nothing) == count(None)
    net = bw.remat(nn.Linear(3, in_features=3), policy=keep_all)
    assert_same(
        bw.value_and_grad(lambda x: net(x).sum(), net)(X), bw.value_and_grad(lambda x: net._inner(x).sum(), net)(X)
    )


# -- a module is still the module ------------------------------------------------------------------


def test_names_and_counts():
    plain = nn.Sequential(block(), nn.Linear(2))
    net = nn.Sequential(bw.remat(block()), bw.remat(nn.Linear(2)))
    for each in (plain, net):
        each.initialize(bw.spec(4, 3))
    assert list(net.state_dict()) == list(plain.state_dict())
    assert [n for n, _ in net.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert len(net.parameters()) == len(plain.parameters())
    assert net.get_parameter("0.4.weight").name == "0.4.weight"
    assert isinstance(net.get_submodule("0.1"), nn.BatchNorm1d)
    assert list(bw.value_and_grad(lambda x: net(x).sum(), net)(X)[1]) == [n for n, _ in plain.named_parameters()]
    net.load_state_dict(plain.state_dict())
    assert_same(net.eval()(X), plain.eval()(X))
    assert next(iter(bw.remat(bw.remat(block())).named_parameters()))[0] == "0.weight"


def test_files(tmp_path):
    net, plain = bw.remat(block()), block()
    net(X)
    net.save(tmp_path / "net.safetensors")
    plain.load(tmp_path / "net.safetensors")
    again = bw.remat(block())
    again.load(tmp_path / "net.safetensors")
    assert_same(net.eval()(X), plain.eval()(X))
    assert_same(net(X), again.eval()(X))


@pytest.mark.parametrize("copied", [lambda n: n.clone(), copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])
def test_copies(copied):
    net = bw.remat(nn.Sequential(nn.Linear(3), nn.Tanh()))
    net(X)
    again = copied(net)
    assert_same(again(X), net(X))
    assert again[0].weight is not net[0].weight
    assert type(again) is type(net)


def test_as_a_pytree():
    net = bw.remat(nn.Linear(3, in_features=3))
    doubled = jax.tree.map(lambda x: 2 * x, net)
    assert_same(doubled(X), 2 * net(X))
    assert_same(jax.jit(lambda n, x: n(x))(net, X), net(X))


def test_attributes_are_the_inner_ones():
    inner, other = nn.Linear(3, in_features=3), nn.Linear(3, in_features=3)
    net = bw.remat(inner)
    assert net.weight is inner.weight
    net.weight = other.weight  # ties, as without remat
    assert inner.weight is other.weight
    assert_same(net(X) - inner.bias.value, other(X) - other.bias.value)
    drop = bw.remat(nn.Dropout(0.5))
    drop.p = 0.0
    assert_same(drop(X), X)
    with pytest.raises(AttributeError, match="'Dropout' object has no attribute 'q'"):
        drop.q
    drop.note = "hello"
    assert drop._inner.note == "hello"
    del drop.note
    assert not hasattr(drop, "note")


def test_a_sequential_inside():
    net = bw.remat(nn.Sequential(nn.Linear(3), nn.Tanh()))
    net.append(nn.Linear(2))
    net[1] = nn.ReLU()
    assert (len(net), bool(net)) == (3, True)
    assert [type(m).__name__ for m in net] == ["Linear", "ReLU", "Linear"]
    assert net(X).shape == (4, 2)
    del net[2]
    assert net(X).shape == (4, 3)
    assert [type(m).__name__ for m in net[:1]] == ["Linear"]
    with pytest.raises(TypeError, match="has no len"):
        len(bw.remat(nn.Linear(2)))


def test_modes_freezing_dtypes_and_hooks():
    net, seen = bw.remat(nn.Sequential(nn.Linear(3), nn.Dropout(0.5))), []
    net(X)
    net[0].register_forward_hook(lambda module, args, out: seen.append(out.shape))
    assert_same(net.eval()(X), net(X))
    assert not net[1].training
    net.training = True
    assert net._inner.training
    net.freeze("0.weight")
    assert [p.trainable for p in net.parameters()] == [False, True]
    assert list(bw.grad(lambda x: net(x).sum(), net)(X)) == ["0.bias"]
    assert seen[0] == (4, 3)
    assert net.to(jnp.bfloat16)[0].weight.dtype == jnp.bfloat16


def test_training():
    net = nn.Sequential(bw.remat(nn.Sequential(nn.Linear(8), nn.Tanh())), nn.Linear(1))
    plain = nn.Sequential(nn.Sequential(nn.Linear(8), nn.Tanh()), nn.Linear(1))
    net.initialize(bw.spec(4, 3))
    losses, start = [], net.state_dict()
    for each in (net, plain):
        each.load_state_dict(start)
        opt = optim.adam(each, 1e-2)

        @bw.compile
        def step(x, each=each, opt=opt):
            loss, grads = bw.value_and_grad(lambda x: ((each(x) - 1) ** 2).mean(), each)(x)
            opt.step(grads)
            return loss

        losses.append([step(X) for _ in range(3)])
        assert step.stats().compilations == 1
    assert_same(*losses)
    assert losses[0][2] < losses[0][0]


def test_printed_and_summed_up():
    net = bw.remat(nn.Sequential(nn.Linear(3)))
    assert "Linear(? → 3)" in repr(net)
    assert "12 parameters" in str(net.summary(bw.spec(4, 3)))


# -- wrong -----------------------------------------------------------------------------------------


def test_wrong_arguments():
    with pytest.raises(TypeError, match=r"policy must be a function, one of jax.checkpoint_policies, got 'dots'"):
        bw.remat(jnp.sin, policy="dots")
    with pytest.raises(TypeError, match="remat: expected a function or a module, got int"):
        bw.remat(3)
    net = nn.Linear(2, in_features=3)
    with pytest.raises(TypeError, match="remat: the function returned a Linear; modules are changed in place"):
        bw.compile(bw.remat(lambda x: net))(X)


@BOTH
def test_a_failure_half_way_changes_nothing(way):
    net = block()
    net(X)
    before, random = values(net), stream()

    @bw.remat
    def fails(x):
        net(x)
        raise KeyError("half way")

    with pytest.raises(KeyError, match="half way"):
        way(bw.value_and_grad(fails, net))(X)
    assert_same(values(net), before)
    np.testing.assert_array_equal(stream(), random)


def test_an_exception_says_where():
    net = nn.Sequential(nn.Tanh(), bw.remat(nn.Sequential(nn.Linear(2, in_features=5))))
    with pytest.raises(ValueError, match="3 features in its last axis") as caught:
        bw.grad(lambda x: net(x).sum(), net)(X)
    assert any("in net.1.0 (Linear(5 → 2))" in note for note in caught.value.__notes__)


def test_raw_jax_around():
    net = bw.remat(nn.Linear(2, in_features=3))
    assert_same(jax.grad(lambda x: net(x).sum())(X), jnp.broadcast_to(net.weight.value.sum(0), X.shape))
    norm = bw.remat(nn.BatchNorm1d(num_features=3))
    with pytest.raises(TraceLeakError, match="written inside a raw JAX transform"):
        jax.grad(lambda x: norm(x).sum())(X)
    assert int(norm.num_batches_tracked) == 0


def test_compiled_modules():
    net = nn.Linear(2, in_features=3)
    assert_same(bw.remat(bw.compile(net))(X), net(X))
    assert_same(bw.compile(bw.remat(net))(X), net(X))
