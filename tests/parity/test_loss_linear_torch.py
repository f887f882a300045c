"""Cross-entropy with its dense layer, and softmax in clusters, against torch's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.parity.harness import compare_layers, move_state, normal  # noqa: E402

from brickwork import functional as F, losses, nn  # noqa: E402

T = torch.nn
RNG = np.random.default_rng(0)
WEIGHT = np.array([0.5, 2.0, 1.0, 0.25])
INDICES = np.array([0, 3, 1, -100, 2])
PROBABILITIES = RNG.dirichlet(np.ones(4), 5)
OPTIONS = [
    {},
    {"bias": True, "label_smoothing": 0.1},
    {"weight": WEIGHT, "reduction": "sum"},
    {"weight": WEIGHT, "label_smoothing": 0.3, "ignore_index": 2, "bias": True},
    {"reduction": "none"},
]


def pair(in_features=3, chunk=2, **options):
    """Our layer, in parts of two examples and one of one, and theirs."""
    weight = options.pop("weight", None)
    ours = nn.LinearCrossEntropyLoss(4, chunk=chunk, weight=weight, **options)
    theirs = None if weight is None else torch.tensor(weight)
    return ours, T.LinearCrossEntropyLoss(in_features, 4, weight=theirs, **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("target", [INDICES, PROBABILITIES], ids=["indices", "probabilities"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_linear_cross_entropy(options, target, dtype):
    if target is PROBABILITIES and "ignore_index" in options:
        pytest.skip("for class indices")
    if target is INDICES and options.get("ignore_index") == 2:
        target = np.abs(INDICES) % 4
    ours, theirs = pair(**options)
    compare_layers(ours, theirs, normal(0, 5, 3), target, dtype=dtype, wrt=[0])


def test_linear_cross_entropy_in_half_precision():
    compare_layers(*pair(bias=True), normal(0, 5, 3), INDICES, dtype="bfloat16", wrt=[0])


@pytest.mark.parametrize("chunk", [1, 2, 4, 5, 100])
def test_several_targets_of_each_example(chunk):
    options = {"chunk": chunk, "out_features": (3, 2), "bias": True}
    compare_layers(*pair(**options), normal(0, 4, 3), RNG.integers(0, 4, (4, 3, 2)))
    probabilities = RNG.dirichlet(np.ones(4), (4, 3, 2)).transpose(0, 3, 1, 2)
    compare_layers(*pair(**options), normal(0, 4, 3), probabilities, wrt=[0])


def test_one_example():
    compare_layers(*pair(bias=True), normal(0, 3), np.array(2))
    ours = nn.LinearCrossEntropyLoss(4, out_features=(2,), reduction="none")
    x, target = normal(0, 3).astype(np.float32), np.array([2, 1])  # which torch takes in a batch only
    np.testing.assert_allclose(ours(x, target), ours(x[None], target[None])[0], rtol=1e-6)


def test_it_is_cross_entropy_of_the_linear_map():
    x, w, t = (jnp.asarray(a, jnp.float32) for a in (normal(0, 7, 3), normal(1, 4, 3), normal(2, 7, 3)))
    target = jnp.arange(7) % 4

    def plain(x, w):
        return losses.cross_entropy(F.linear(x, w), target)

    def parts(x, w):
        return losses.linear_cross_entropy(x, w, target, chunk=3)

    for ours, reference in zip(
        jax.value_and_grad(parts, (0, 1))(x, w), jax.value_and_grad(plain, (0, 1))(x, w), strict=True
    ):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, reference)
    forward = [jax.jvp(f, (x, w), (t, jnp.ones_like(w)))[1] for f in (parts, plain)]
    np.testing.assert_allclose(*forward, rtol=1e-5)
    curved = [jax.jvp(jax.grad(f), (x, w), (t, jnp.ones_like(w)))[1] for f in (parts, plain)]
    np.testing.assert_allclose(*curved, rtol=1e-4, atol=1e-6)


def test_memory_of_the_parts():
    """With many classes a step's temporary memory is a fraction of that of all scores."""
    n, classes, width = 1024, 8192, 16
    scores = 4 * n * classes

    def temporary(loss):
        specs = (jax.ShapeDtypeStruct((n, width), np.float32), jax.ShapeDtypeStruct((classes, width), np.float32))
        compiled = jax.jit(jax.grad(loss, (0, 1))).lower(*specs).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    target = jnp.arange(n)
    assert temporary(lambda x, w: losses.cross_entropy(F.linear(x, w), target)) >= scores
    assert temporary(lambda x, w: losses.linear_cross_entropy(x, w, target, chunk=64)) < scores / 4


# -- classes in clusters ---------------------------------------------------------------------------


def clusters(head_bias=True):
    ours = nn.AdaptiveLogSoftmaxWithLoss(20, [4, 9], div_value=2.0, head_bias=head_bias)
    return ours, T.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 9], div_value=2.0, head_bias=head_bias)


CLASSES = np.array([0, 3, 4, 8, 9, 19])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("head_bias", [False, True])
def test_adaptive_softmax(head_bias, dtype):
    compare_layers(*clusters(head_bias), normal(0, 6, 8), CLASSES, dtype=dtype)


@pytest.mark.parametrize("target", [1, 6, 15])
def test_adaptive_softmax_of_one_example(target):
    compare_layers(*clusters(), normal(0, 8), np.array(target))


def test_adaptive_softmax_of_all_classes():
    ours, theirs = clusters()
    move_state(ours, theirs)
    x = normal(0, 6, 8).astype(np.float32) * 4
    np.testing.assert_allclose(ours.log_prob(x), theirs.log_prob(torch.tensor(x)).detach(), rtol=1e-5)
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(torch.tensor(x)))
    np.testing.assert_allclose(jnp.exp(ours.log_prob(x)).sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(ours(x, CLASSES).output, ours.log_prob(x)[np.arange(6), CLASSES], rtol=1e-5)


def test_initial_values():
    ours, theirs = (
        nn.AdaptiveLogSoftmaxWithLoss(2000, [500, 1000]),
        T.AdaptiveLogSoftmaxWithLoss(256, 2000, [500, 1000]),
    )
    ours(jnp.ones((1, 256)), jnp.array([0]))
    for name, value in theirs.state_dict().items():
        found = ours.state_dict()[name]
        assert found.shape == tuple(value.shape)
        np.testing.assert_allclose(np.abs(found).max(), value.abs().max(), rtol=0.05)
        np.testing.assert_allclose(found.std(), value.std(), rtol=0.05)
