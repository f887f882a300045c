"""Activation functions against torch's: values, and gradients at the kinks too."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.parity.harness import compare_layers, normal  # noqa: E402

from brickwork import functional as F, nn  # noqa: E402

T = torch.nn

ELEMENTWISE = [
    ("ReLU", ()),
    ("ReLU6", ()),
    ("LeakyReLU", ()),
    ("LeakyReLU", (0.3,)),
    ("PReLU", ()),
    ("PReLU", (1, 0.5)),
    ("RReLU", ()),
    ("ELU", ()),
    ("ELU", (0.7,)),
    ("SELU", ()),
    ("CELU", ()),
    ("CELU", (0.5,)),
    ("GELU", ()),
    ("GELU", ("tanh",)),
    ("SiLU", ()),
    ("Mish", ()),
    ("Softplus", ()),
    ("Softplus", (2.0, 3.0)),
    ("Softsign", ()),
    ("Softshrink", ()),
    ("Softshrink", (1.0,)),
    ("Hardshrink", ()),
    ("Hardshrink", (1.0,)),
    ("Hardsigmoid", ()),
    ("Hardswish", ()),
    ("Hardtanh", ()),
    ("Hardtanh", (-2.0, 3.0)),
    ("Tanh", ()),
    ("Tanhshrink", ()),
    ("Sigmoid", ()),
    ("LogSigmoid", ()),
    ("Threshold", (1.0, 5.0)),
]
# kinks, values beyond which a naive exponential overflows, and ordinary ones
POINTS = np.array([0, -0.0, 0.5, -0.5, 1, -1, 2, -2, 3, -3, 6, -6, 25, -25, 150, -150, 0.3, -0.7, 1.6, -1.2])


def pair(name, options):
    return getattr(nn, name)(*options), getattr(T, name)(*options)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize(("name", "options"), ELEMENTWISE, ids=str)
def test_elementwise(name, options, dtype):
    # torch's gradient of hardsigmoid multiplies by 1/6 rounded to float32, whatever the dtype
    tolerance = 5e-8 if (name, dtype) == ("Hardsigmoid", "float64") else None
    x = POINTS.reshape(4, 5)
    compare_layers(*pair(name, options), x, dtype=dtype, training=name != "RReLU", tolerance=tolerance)


@pytest.mark.parametrize(("name", "options"), [("PReLU", (3,)), ("PReLU", ()), ("ELU", ()), ("Softplus", ())], ids=str)
@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (1, 3, 5), (2, 3, 1, 2)], ids=str)
def test_shapes(name, options, shape):
    compare_layers(*pair(name, options), normal(0, *shape))


def test_prelu_of_a_scalar_and_of_a_vector():
    for shape in ((), (3,)):
        compare_layers(nn.PReLU(), T.PReLU(), normal(0, *shape))


AXES = [("Softmax", -1), ("Softmax", 0), ("LogSoftmax", 1), ("LogSoftmax", -3), ("Softmin", 1), ("GLU", 1), ("GLU", -1)]


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize(("name", "dim"), AXES, ids=str)
def test_along_an_axis(name, dim, dtype):
    compare_layers(*pair(name, (dim,)), 3 * normal(0, 2, 4, 6), dtype=dtype)


@pytest.mark.parametrize("shape", [(2, 3, 2, 4), (3, 2, 1), (0, 3, 2, 2)], ids=str)
def test_softmax2d(shape):
    compare_layers(nn.Softmax2d(), T.Softmax2d(), normal(0, *shape))


def test_input_that_is_not_contiguous():
    x = normal(0, 6, 4, 2).transpose(2, 0, 1)
    compare_layers(nn.GLU(1), T.GLU(1), x)
    compare_layers(nn.PReLU(6), T.PReLU(6), x)


@pytest.mark.parametrize("name", ["ReLU", "ReLU6"])
def test_integers(name):
    x = np.array([-1, 0, 3, 9])
    found = getattr(nn, name)()(jnp.asarray(x))
    assert found.dtype == jnp.int32
    assert found.tolist() == getattr(T, name)()(torch.tensor(x)).tolist()


@pytest.mark.parametrize(("name", "options"), ELEMENTWISE, ids=str)
def test_infinities_and_nan(name, options):
    x = np.array([np.inf, -np.inf, np.nan], np.float32)
    ours, theirs = pair(name, options)
    found, expected = ours.eval()(jnp.asarray(x)), theirs.eval()(torch.tensor(x)).detach()
    if name in ("GELU", "Mish", "SiLU"):  # inf * 0 is NaN in torch's kernels, in some of ours as well
        found, expected = found[2:], expected[2:]
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected.numpy()))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)


def test_rrelu_has_the_moments_of_torchs():
    bounds = (0.1, 0.5)
    x = np.full(20000, -1.0, np.float32)
    ours = -np.asarray(F.rrelu(jnp.asarray(x), *bounds, key=jax.random.key(0)))
    theirs = -T.functional.rrelu(torch.tensor(x), *bounds, training=True).numpy()
    for slopes in (ours, theirs):
        assert slopes.min() >= 0.1
        assert slopes.max() <= 0.5
        np.testing.assert_allclose(slopes.mean(), 0.3, atol=5e-3)
        np.testing.assert_allclose(slopes.std(), 0.4 / np.sqrt(12), atol=5e-3)


@pytest.mark.parametrize("name, options", [("hardtanh", (-1, 3)), ("threshold", (1, -7))])
def test_integers_and_whole_limits(name, options):
    x = np.arange(-4, 6)
    found = getattr(F, name)(jnp.asarray(x), *options)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, getattr(T.functional, name)(torch.tensor(x), *options))
    with pytest.raises(TypeError, match=f"{name}: x holds int32 values, but floating-point"):
        getattr(F, name)(jnp.asarray(x), 0.5, 2)


@pytest.mark.parametrize("name", ["softsign", "tanhshrink"])
def test_integers_become_floats(name):
    x = np.arange(-4, 6)
    found = getattr(F, name)(jnp.asarray(x))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, getattr(T.functional, name)(torch.tensor(x)), rtol=1e-5)


@pytest.mark.parametrize("hard", [False, True])
def test_gumbel_softmax_has_the_frequencies_of_torchs(hard):
    logits = np.log(np.array([0.1, 0.2, 0.7], np.float32))
    many = np.broadcast_to(logits, (20000, 3)).copy()
    ours = np.asarray(F.gumbel_softmax(jnp.asarray(many), jax.random.key(0), 0.5, hard))
    torch.manual_seed(0)
    theirs = T.functional.gumbel_softmax(torch.tensor(many), 0.5, hard).numpy()
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=0.015)
    np.testing.assert_allclose(ours.std(0), theirs.std(0), atol=0.015)
    if hard:
        np.testing.assert_allclose(ours.mean(0), [0.1, 0.2, 0.7], atol=0.015)
