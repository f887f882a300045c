"""Parametrised layers: what is stored, copies, transforms, training, removal."""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.errors.checks import refuse

import brickwork as bw
from brickwork import nn, optim
from brickwork.errors import DeferredShapeError, ShapeMismatchError, StructureError

X = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3)), jnp.float32)


class Symmetric(nn.Module):
    def forward(self, w):
        return jnp.triu(w) + jnp.triu(w, 1).T


class Exponential(nn.Module):
    def forward(self, w):
        return jnp.exp(w)

    def right_inverse(self, w):
        return jnp.log(w)


class Low(nn.Module):
    """A matrix as a product of two."""

    def forward(self, a, b):
        return a @ b

    def right_inverse(self, w):
        u, s, v = jnp.linalg.svd(w, full_matrices=False)
        return u * s, v


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


WRAPS = pytest.mark.parametrize("wrap", [nn.weight_norm, nn.spectral_norm], ids=["weight_norm", "spectral_norm"])


def test_the_layer_uses_what_is_computed():
    layer = nn.Linear(3)
    stored = layer.weight
    assert nn.parametrize(layer, "weight", Symmetric()) is layer
    y = layer(X)
    weight = np.asarray(layer.weight)
    np.testing.assert_array_equal(weight, weight.T)
    close(y, X @ weight.T + layer.bias.value)
    assert isinstance(layer, nn.Linear)
    assert layer.get_parameter("parametrizations.weight.original") is stored
    assert [name for name, _ in layer.named_parameters()] == ["bias", "parametrizations.weight.original"]
    assert (layer.weight.shape, layer.weight.dtype, layer.weight.ndim) == ((3, 3), jnp.float32, 2)
    close(jnp.sum(layer.weight) + layer.weight[0, 0] + layer.weight.T.sum(), 2 * weight.sum() + weight[0, 0])


def test_printing():
    assert repr(nn.weight_norm(nn.Linear(3), dim=None)) == (
        "ParametrizedLinear(? → 3\n"
        "  (parametrizations): dict(\n"
        "    (weight): ParametrizationList(\n"
        "      (original0): Parameter()\n"
        "      (original1): Parameter(3, ?)\n"
        "      (0): WeightNorm(dim=None)\n"
        "    )\n"
        "  )\n"
        ")"
    )
    assert repr(nn.weight_norm(nn.Linear(3)).weight) == "Computed(shape=(3, ?), dtype=float32, by WeightNorm)"
    stack = bw.stack([nn.weight_norm(nn.Linear(3, in_features=2)) for _ in range(4)])
    assert repr(stack).startswith("ParametrizedLinear(2 → 3, stack of 4\n")


@WRAPS
def test_initial_values_do_not_depend_on_when_the_size_is_known(wrap):
    bw.seed(1)
    plain = nn.Linear(4, in_features=3)
    for early in (False, True):
        bw.seed(1)
        layer = wrap(nn.Linear(4, in_features=3 if early else None)).eval()
        layer(X)
        np.testing.assert_array_equal(list(layer.parameters())[-1], plain.weight)
        close(layer.bias, plain.bias)
        if wrap is nn.weight_norm:
            close(layer.weight, plain.weight)
        else:
            top = np.linalg.svd(np.asarray(plain.weight), compute_uv=False)[0]
            np.testing.assert_allclose(layer.weight, plain.weight / top, rtol=1e-2)


def test_an_inverse_keeps_the_value():
    layer = nn.Linear(3, in_features=3)
    positive = jnp.abs(layer.weight.value) + 0.1
    layer.weight.value = positive
    stored = layer.weight
    nn.parametrize(layer, "weight", Exponential())
    close(layer.weight, positive)
    close(stored, jnp.log(positive))
    layer.weight.value = 2 * positive
    close(stored, jnp.log(2 * positive))
    low = nn.parametrize(nn.Linear(4, in_features=2), "weight", Low())
    assert {n: p.shape for n, p in low.named_parameters()} == {
        "bias": (4,),
        "parametrizations.weight.original0": (4, 2),
        "parametrizations.weight.original1": (2, 2),
    }
    assert low(X[:, :2]).shape == (4, 4)


@WRAPS
def test_copies_files_and_trees(wrap, tmp_path):
    net = nn.Sequential(wrap(nn.Linear(4)), nn.Tanh(), wrap(nn.Linear(2)))
    net(X)
    expected = net.eval()(X)
    for other in (net.clone(), copy.deepcopy(net), pickle.loads(pickle.dumps(net)), jax.tree.map(lambda a: a, net)):
        assert type(other[0]) is type(net[0])
        assert other[0].weight.name == net[0].weight.name
        np.testing.assert_array_equal(other(X), expected)
        first = other.parameters()[0]
        first.value = first.value + 1  # of its own
        np.testing.assert_array_equal(net(X), expected)
    net.save(tmp_path / "net.safetensors")
    loaded = nn.Sequential(wrap(nn.Linear(4)), nn.Tanh(), wrap(nn.Linear(2))).eval()
    loaded.load(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(loaded(X), expected)
    close(jax.jit(lambda net, x: net(x))(net, X), expected)


@WRAPS
def test_training(wrap):
    """Compiled as eager; frozen parts stay; the stored Parameter is the one that the optimiser has."""
    nets = []
    for compiled in (False, True):
        bw.seed(0)
        net = nn.Sequential(nn.Linear(4, in_features=3), nn.Tanh(), nn.Linear(2, in_features=4))
        opt = optim.sgd(net, 0.1)
        wrap(net[0])
        net.freeze(r"2\..*")

        def step(x, net=net, opt=opt):
            loss, grads = bw.value_and_grad(lambda x: (net(x) ** 2).sum(), net)(x)
            opt.step(grads)
            return loss

        run = bw.compile(step) if compiled else step
        before = np.asarray(net[2].weight)
        losses = [float(run(X)) for _ in range(3)]
        assert losses[2] < losses[0]
        np.testing.assert_array_equal(net[2].weight, before)
        nets.append(net)
    for name, value in nets[0].state_dict().items():
        close(nets[1].state_dict()[name], value)


@WRAPS
def test_gradients_are_those_of_the_formula(wrap):
    layer = wrap(nn.Linear(4, in_features=3)).eval()
    stored = [p.value for p in layer.parameters("param.*")]
    if wrap is nn.spectral_norm:
        u, v = layer.buffers()

    def loss(*stored):
        if wrap is nn.weight_norm:
            g, w = stored
            w = g * w / jnp.linalg.norm(w, axis=1, keepdims=True)
        else:
            (w,) = stored
            w = w / (u.value @ w @ v.value)
        return ((X @ w.T + layer.bias.value) ** 2).sum()

    wanted = jax.grad(loss, range(len(stored)))(*stored)
    grads = bw.grad(lambda x: (layer(x) ** 2).sum(), layer)(X)
    for p, grad in zip(layer.parameters("param.*"), wanted, strict=True):
        np.testing.assert_allclose(grads[p.name], grad, rtol=1e-4, atol=1e-5)


def test_spectral_vectors_move_in_training_mode_only():
    layer = nn.spectral_norm(nn.Linear(4), n_power_iterations=2)
    layer.eval()(X)
    u = layer.parametrizations["weight"][0]._u
    before = np.asarray(u)
    layer(X)
    np.testing.assert_array_equal(u, before)
    layer.train()(X)
    assert np.abs(np.asarray(u) - before).max() > 0
    for _ in range(30):
        layer(X)
    close(np.linalg.svd(np.asarray(layer.weight), compute_uv=False)[0], 1.0)


@WRAPS
def test_stacks_and_repeats(wrap):
    bw.seed(0)
    nets = [wrap(nn.Linear(3, in_features=3)) for _ in range(3)]
    expected = [net.eval()(X) for net in nets]
    bw.seed(0)
    stack = bw.stack([wrap(nn.Linear(3, in_features=3)) for _ in range(3)])  # before anything is drawn
    close(bw.vmap(lambda net, x: net(x), in_axes=(0, None))(stack.eval(), X), jnp.stack(expected))
    close(bw.unstack(stack)[1](X), expected[1])
    bw.seed(0)
    repeat = nn.Repeat(lambda: wrap(nn.Linear(3)), 3).eval()
    close(repeat(X), nets[2](nets[1](nets[0](X))))
    close(bw.compile(repeat)(X), repeat(X))


def test_a_layer_used_twice_and_a_tied_weight():
    shared = nn.weight_norm(nn.Linear(3))
    net = nn.Sequential(shared, nn.Tanh(), shared)
    net(X)
    assert len(net.parameters()) == 3
    assert net.clone()[0] is not net.clone()[2]
    copied = net.clone()
    assert copied[0] is copied[2]
    encoder, decoder = nn.Linear(3), nn.Linear(3)
    decoder.weight = encoder.weight
    nn.parametrize(encoder, "weight", Symmetric())
    assert decoder.weight is encoder.parametrizations["weight"].original


@WRAPS
def test_removing(wrap):
    layer = wrap(nn.Linear(4))
    layer(X)
    expected, weight = layer.eval()(X), layer.parametrizations["weight"].originals[-1]
    nn.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear
    assert not nn.is_parametrized(layer)
    assert layer.weight is weight
    assert list(layer.state_dict()) == ["weight", "bias"]
    close(layer(X), expected)


def test_all_kinds_of_layers():
    for layer in (nn.BatchNorm1d(), nn.LayerNorm(), nn.GroupNorm(1), nn.RMSNorm()):
        expected = layer.clone()(X)
        close(nn.weight_norm(layer)(X), expected)
    indices = jnp.array([3, 1])
    layer = nn.Embedding(5, 3)
    expected = layer(indices)
    close(nn.weight_norm(layer)(indices), expected)


@WRAPS
def test_a_long_row_of_equal_layers(wrap):
    """Which is compiled as a loop."""
    eager = nn.Sequential(*(wrap(nn.Linear(3)) for _ in range(10)))
    eager.eval()(X)
    compiled = eager.train().clone()
    close(eager(X), bw.compile(compiled)(X))
    for name, value in eager.state_dict().items():
        close(compiled.state_dict()[name], value)


def test_a_plan_of_large_layers_draws_nothing():
    net = nn.Sequential(nn.spectral_norm(nn.Linear(10_000)), nn.weight_norm(nn.Linear(10)))
    net.initialize(bw.spec(2, 100_000))
    assert not any(v.is_drawn for v in net.variables())
    assert net[0].parametrizations["weight"][0]._v.shape == (100_000,)


def test_a_compiled_function_notices():
    layer = nn.Linear(3, in_features=3)
    run = bw.compile(lambda x: layer(x))
    plain = run(X)
    nn.parametrize(layer, "weight", Symmetric())
    close(run(X), layer(X))
    assert np.abs(np.asarray(run(X) - plain)).max() > 1e-3
    nn.remove_parametrizations(layer, "weight", leave_parametrized=False)
    close(run(X), plain)


def test_moving_and_other_dtypes():
    layer = nn.weight_norm(nn.Linear(4)).to(jnp.bfloat16)
    assert layer(X.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    assert layer.weight.dtype == jnp.bfloat16


class Scalar(nn.Module):
    def forward(self, w):
        return w.sum()


def parametrized():
    return nn.weight_norm(nn.Linear(3, in_features=2))


ERRORS = {
    "no such parameter": (
        lambda: nn.parametrize(nn.Linear(3), "wieght", Symmetric()),
        ValueError,
        "parametrize: Linear has no parameter 'wieght'; it has ['weight', 'bias'].",
    ),
    "a parameter that is None": (
        lambda: nn.weight_norm(nn.Linear(3, bias=False), "bias"),
        ValueError,
        "weight_norm: Linear has no parameter 'bias'; it has ['weight'].",
    ),
    "no module": (
        lambda: nn.parametrize(nn.Linear(3), "weight", jnp.tanh),
        TypeError,
        "parametrize: parametrization must be a module that computes weight, got a ...",
    ),
    "no layer": (
        lambda: nn.spectral_norm(jnp.ones(3)),
        TypeError,
        "spectral_norm: module must be a module, got a ArrayImpl.",
    ),
    "another shape": (
        lambda: nn.parametrize(nn.Linear(3, in_features=2), "weight", Scalar()),
        ShapeMismatchError,
        "parametrize: Scalar must return an array of the shape and dtype of the parameter, float32[3, 2], but returned "
        "float32[].",
    ),
    "an inverse of nothing": (
        lambda: nn.parametrize(nn.Linear(3), "weight", Exponential()),
        DeferredShapeError,
        "parametrize: right_inverse of Exponential needs the value of Parameter 'weight', whose shape (3, ?) is not "
        "known yet. Call the network on data once before, give it the shape of its input with "
        "net.initialize(bw.spec(...)), or give the size when constructing the layer.",
    ),
    "assigning": (
        lambda: setattr(parametrized(), "weight", nn.Parameter(jnp.ones((3, 2)))),
        StructureError,
        "ParametrizedLinear.weight is computed by its parametrisation. Assign an array to .weight.value, or call "
        "nn.remove_parametrizations(layer, 'weight') first.",
    ),
    "assigning without an inverse": (
        lambda: setattr(
            nn.parametrize(nn.Linear(3, in_features=3), "weight", Symmetric()).weight, "value", jnp.ones((3, 3))
        ),
        TypeError,
        "Symmetric defines no right_inverse(value), so the parametrised value can't be assigned; add the method, or "
        "assign to what is stored: .parametrizations",
    ),
    "removing what is not there": (
        lambda: nn.remove_parametrizations(nn.Linear(3), "weight"),
        ValueError,
        "remove_parametrizations: 'weight' of Linear is not parametrised.",
    ),
    "removing several": (
        lambda: nn.remove_parametrizations(parametrized(), "weight", leave_parametrized=False),
        ValueError,
        "remove_parametrizations: 'weight' is computed from 2 variables, so none of them can take its place; pass "
        "leave_parametrized=True.",
    ),
    "twice": (
        lambda: nn.spectral_norm(parametrized()),
        ValueError,
        "spectral_norm: 'weight' of ParametrizedLinear is parametrised already; use nn.parametrize to add to that.",
    ),
    "no axis": (
        lambda: nn.weight_norm(nn.Linear(3), dim=2),
        ShapeMismatchError,
        "weight_norm: dim=2 is no axis of an array of 2 dimensions; expected -2 to 1.",
    ),
    "no iterations": (
        lambda: nn.spectral_norm(nn.Linear(3), n_power_iterations=0),
        ValueError,
        "spectral_norm: n_power_iterations must be at least 1, got 0.",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_messages(case):
    call, kind, message = ERRORS[case]
    refuse(call, kind, message)


# -- stacks ----------------------------------------------------------------------------------------


class Twice(nn.Module):
    def forward(self, x):
        return 2 * x

    def right_inverse(self, x):
        return x / 2


NORMS = [nn.weight_norm, nn.spectral_norm, lambda layer: nn.parametrize(layer, "weight", Twice())]


@pytest.mark.parametrize("norm", NORMS)
def test_reading_and_removing_those_of_a_stack(norm):
    x = jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)
    layers = [norm(nn.Linear(4, in_features=3)).eval() for _ in range(2)]
    stacked = bw.stack(layers)
    for one, value in zip(layers, stacked.weight.value, strict=True):
        np.testing.assert_allclose(value, one.weight.value, rtol=1e-6)
    assert nn.remove_parametrizations(stacked, "weight") is stacked
    assert list(stacked.state_dict()) == ["weight", "bias"] and stacked.weight.stacked == 1
    for one, layer in zip(layers, bw.unstack(stacked), strict=True):
        np.testing.assert_allclose(one(x), layer(x), rtol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_removing_those_of_blocks(norm):
    x = jnp.ones((2, 3))
    net = nn.Repeat(lambda: norm(nn.Linear(3, in_features=3)), 2).eval()
    y = net(x)
    nn.remove_parametrizations(net.block, "weight")
    np.testing.assert_allclose(net(x), y, rtol=1e-6)
    assert list(net.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    nn.quantize(net)


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm"])
@pytest.mark.parametrize("drawn", [False, True])
def test_norms_of_a_stack_are_refused_and_change_nothing(name, drawn):
    net = nn.Repeat(lambda: nn.Linear(3), 2).initialize(bw.spec(2, 3))
    if drawn:
        net(jnp.ones((2, 3)))
    with pytest.raises(StructureError) as info:
        getattr(nn, name)(net.block)
    assert str(info.value) == (
        f"{name}: Linear is a stack of 2 modules. Call nn.{name} on each of them before they are stacked; for "
        "nn.Repeat, in the function that makes a block."
    )
    net(jnp.ones((2, 3)))
