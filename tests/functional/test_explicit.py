"""Meshes with explicit axes: the same numbers, and how results are divided."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import brickwork as bw
from brickwork import functional as F, losses, nn, optim
from brickwork.functional._multihead import merge_heads, split_heads


@pytest.fixture
def mesh(devices):
    return jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2, devices=devices[:4])


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def check(mesh, function, specs, expected, *arrays):
    """That a function gives the same, divided as expected, and gradients that are divided as its arguments."""

    def loss(*arrays):
        return jnp.sum(function(*arrays) ** 2)

    placed = [jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in zip(arrays, specs, strict=True)]
    with jax.set_mesh(mesh):
        y = jax.jit(function)(*placed)
        floats = [i for i, a in enumerate(arrays) if a.dtype == np.float32]
        gradients = jax.jit(jax.grad(loss, floats))(*placed)
    np.testing.assert_allclose(y, function(*arrays), rtol=1e-5, atol=1e-5)
    assert y.sharding.is_equivalent_to(NamedSharding(mesh, expected), y.ndim)
    for g, e, i in zip(gradients, jax.grad(loss, floats)(*arrays), floats, strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-4, atol=1e-4)
        assert g.sharding.is_equivalent_to(placed[i].sharding, g.ndim)


@pytest.mark.parametrize(
    ("x", "w", "y"),
    [
        (P("data"), P(), P("data", None, None)),
        (P("data", "model"), P(), P("data", "model", None)),  # a part of each sequence
        (P("data"), P("model"), P("data", None, "model")),  # the outputs
        (P("data", None, "model"), P(None, "model"), P("data", None, None)),  # the inputs, which are added up
        (P("data"), P("data"), P("data", None, None)),  # along the same axis of the mesh as the batch
        (P("data"), P(("data", "model")), P("data", None, None)),
        (P(("data", "model")), P(), P(("data", "model"), None, None)),
    ],
)
def test_linear(mesh, x, w, y):
    check(mesh, F.linear, [x, w], y, normal(4, 6, 8), normal(8, 8))


def test_linear_of_one_vector(mesh):
    check(mesh, F.linear, [P(), P("model")], P("model"), normal(8), normal(4, 8))


@pytest.mark.parametrize(
    ("x", "w", "y"),
    [
        (P("data"), P(), P("data", None, None, None)),
        (P("data"), P("model"), P("data", "model", None, None)),
        (P("data", "model"), P(None, "model"), P("data", None, None, None)),
    ],
)
def test_convolution(mesh, x, w, y):
    check(mesh, lambda x, w: F.conv2d(x, w, padding=1), [x, w], y, normal(4, 2, 5, 5), normal(4, 2, 3, 3))


def test_embedding(mesh):
    tokens = np.arange(12, dtype=np.int32).reshape(4, 3)
    check(mesh, F.embedding, [P("data"), P("model")], P("data", None, None), tokens, normal(12, 4))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("heads", [4, 3])
def test_heads(mesh, heads, batch_first):
    """Are divided as the features are, where their number allows it."""
    names = "model" if heads == 4 else None
    lead = ("data", None) if batch_first else (None, "data")
    split, merged = P("data", names, None, None), P(*lead, names)
    options = {"heads": heads, "parts": 1, "batch_first": batch_first}
    check(mesh, lambda x: split_heads(x, **options)[0], [P(*lead, "model")], split, normal(4, 4, 2 * heads))
    check(mesh, lambda x: merge_heads(x, batch_first=batch_first), [split], merged, normal(4, heads, 4, 2))


def test_batch_norm_with_divided_channels(mesh):
    def function(x, w, b):
        return F.batch_norm_train(x, w, b)[0]

    check(mesh, function, [P("data", "model"), P(), P()], P("data", "model"), normal(4, 4), normal(4), normal(4))


def test_cross_entropy_with_divided_classes(mesh):
    target = np.arange(4, dtype=np.int32)
    check(mesh, losses.cross_entropy, [P("data", "model"), P("data")], P(), normal(4, 4), target)


class Classifier(nn.Module):
    def __init__(self):
        self.tokens = nn.Embedding(16, 8)
        self.block = nn.TransformerEncoderLayer(2, dim_feedforward=16, dropout=0.1, batch_first=True)
        self.recurrent = nn.GRU(8, batch_first=True)
        self.out = nn.Linear(4)

    def forward(self, x):
        return self.out(self.recurrent(self.block(self.tokens(x)))[0][:, -1])


def test_training(mesh):
    """A step with weights that are divided gives the same, and leaves them where they are."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 16, (4, 3)).astype(np.int32), rng.integers(0, 4, 4).astype(np.int32)

    def run(place):
        bw.seed(0)
        net = Classifier().initialize(bw.spec(*x.shape, dtype=x.dtype))
        where = {name: P("model") if p.ndim == 2 else P() for name, p in net.named_parameters()}
        if place:
            for name, p in net.named_parameters():
                p.value = jax.device_put(p.value, NamedSharding(mesh, where[name]))
        opt = optim.adam(net, 1e-2)

        @bw.compile
        def step(x, y):
            loss, grads = bw.value_and_grad(lambda x, y: losses.cross_entropy(net(x), y), net)(x, y)
            opt.step(grads)
            return loss

        batch = [jax.device_put(a, NamedSharding(mesh, P("data"))) for a in (x, y)] if place else (x, y)
        values = [float(step(*batch)) for _ in range(3)]
        if place:
            for name, p in net.named_parameters():
                assert p.sharding.is_equivalent_to(NamedSharding(mesh, where[name]), p.ndim)
        return values

    expected = run(place=False)
    with jax.set_mesh(mesh):
        np.testing.assert_allclose(run(place=True), expected, rtol=1e-3)


@pytest.mark.parametrize("manual", ["data", "model"])
def test_within_shard_map_over_the_other_axis(mesh, manual):
    net = nn.Sequential(nn.Conv2d(4, 3, padding=1), nn.GroupNorm(2), nn.Flatten(), nn.Linear(6))
    x = normal(4, 2, 4, 4)
    expected = net(x)
    pure, state = bw.functional(net)
    with jax.set_mesh(mesh):
        run = jax.shard_map(
            lambda state, x: pure(state, x)[0],
            mesh=mesh,
            in_specs=(P(), P(manual)),
            out_specs=P(manual),
            axis_names={manual},
            check_vma=False,
        )
        y = jax.jit(run)(*(jax.device_put(a, NamedSharding(mesh, s)) for a, s in ((state, P()), (x, P(manual)))))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
