from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn
from brickwork.errors import ShapeMismatchError

X = jnp.asarray(np.random.default_rng(0).standard_normal((6, 3, 4, 5)) * 2 + 1, jnp.float32)


def test_names_and_dtypes():
    layer = nn.BatchNorm2d(num_features=3)
    assert {k: (v.shape, v.dtype) for k, v in layer.state_dict().items()} == {
        "weight": ((3,), jnp.float32),
        "bias": ((3,), jnp.float32),
        "running_mean": ((3,), jnp.float32),
        "running_var": ((3,), jnp.float32),
        "num_batches_tracked": ((), jnp.int32),
    }
    half = nn.BatchNorm2d(num_features=3, dtype=jnp.bfloat16)
    assert (half.weight.dtype, half.running_var.dtype) == (jnp.bfloat16, jnp.float32)


def test_training_moves_the_statistics_and_evaluation_does_not():
    layer = nn.BatchNorm2d()
    layer(X)
    mean, var = np.asarray(X).mean((0, 2, 3)), np.asarray(X).var((0, 2, 3), ddof=1)
    np.testing.assert_allclose(layer.running_mean, 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(layer.running_var, 0.9 + 0.1 * var, rtol=1e-5)
    assert int(layer.num_batches_tracked) == 1
    y = layer.eval()(X)
    assert int(layer.num_batches_tracked) == 1
    expected = (X - 0.1 * mean[:, None, None]) / jnp.sqrt(0.9 + 0.1 * var + 1e-5)[:, None, None]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_compiled_training_moves_them_as_well():
    eager, compiled = nn.BatchNorm2d(), nn.BatchNorm2d()
    step = bw.compile(lambda x: compiled(x))
    for _ in range(3):
        eager(X)
        step(X)
    np.testing.assert_allclose(compiled.running_var, eager.running_var, rtol=1e-5)
    assert int(compiled.num_batches_tracked) == 3


def test_cumulative_average():
    layer = nn.BatchNorm1d(momentum=None)
    for shift in (0.0, 3.0, 6.0):
        layer(X[:, :, 0, 0] + shift)
    np.testing.assert_allclose(layer.running_mean, X[:, :, 0, 0].mean(0) + 3, rtol=1e-5)


def test_without_running_statistics_the_batch_counts_in_evaluation_too():
    layer = nn.BatchNorm2d(track_running_stats=False).eval()
    assert abs(float(layer(X).mean())) < 1e-5
    assert layer.buffers() == []
    bare = nn.BatchNorm2d(affine=False, track_running_stats=False)
    assert bare(X).shape == X.shape
    assert bare.num_features is None


def test_one_value_per_channel():
    layer = nn.BatchNorm1d()
    message = (
        r"BatchNorm1d: expected more than 1 value per channel when training, got float32\[1, 3\]\. "
        r"Use a larger batch, or evaluation mode: net\.eval\(\)"
    )
    with pytest.raises(ValueError, match=message):
        layer(X[:1, :, 0, 0])
    assert layer(X[:1, :, 0]).shape == (1, 3, 5)
    assert layer.eval()(X[:1, :, 0, 0]).shape == (1, 3)


def test_an_empty_batch_leaves_the_statistics_alone():
    layer = nn.BatchNorm2d()
    assert layer(X[:0]).shape == (0, 3, 4, 5)
    assert layer.running_var.value.tolist() == [1.0] * 3


def test_axes():
    with pytest.raises(ShapeMismatchError, match=r"axes \(N, C\) or \(N, C, L\), not 4 .* nn\.BatchNo"):
        nn.BatchNorm1d()(X)
    with pytest.raises(ShapeMismatchError, match=r"axes \(N, C, H, W\), not 2 axes\..* nn\.BatchNorm1d"):
        nn.BatchNorm2d()(X[:, :, 0, 0])
    with pytest.raises(ShapeMismatchError, match=r"x must have 3 channels in axis 1"):
        nn.BatchNorm2d(num_features=3)(jnp.swapaxes(X, 1, 3))


def test_layer_norm():
    layer = nn.LayerNorm()
    assert layer.normalized_shape == (None,)
    layer(X)
    assert layer.normalized_shape == (5,)
    several = nn.LayerNorm(normalized_shape=[4, 5])
    assert abs(float(several(X).mean())) < 1e-5
    assert nn.LayerNorm(elementwise_affine=False)(X).shape == X.shape
    with pytest.raises(ShapeMismatchError, match=r"x has 4 features in its last axis, but normaliz"):
        layer(X[..., :4])


def test_instances_of_half_precision_keep_their_statistics_in_float32():
    layer = nn.BatchNorm2d(dtype=jnp.bfloat16)
    assert layer(X.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    assert layer.running_mean.dtype == jnp.float32


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 2, 2)])
def test_gradients_of_an_empty_batch_are_zero(shape):
    layer = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)()
    grads = bw.grad(lambda x: layer(x).sum(), layer)(jnp.zeros(shape))
    assert not np.any(grads["weight"]) and not np.any(grads["bias"])


@pytest.mark.parametrize("momentum", [None, 1.0])
def test_a_small_variance_is_not_rounded_away(momentum):
    x = 1e-4 * np.random.default_rng(0).standard_normal((8, 1)).astype(np.float32)
    layer = nn.BatchNorm1d(momentum=momentum)
    layer(x)
    np.testing.assert_allclose(layer.running_var, x.var(0, ddof=1), rtol=1e-5)


def test_loading_a_state_in_a_compiled_function():
    """Integers in it are traced there."""
    a, b = (nn.BatchNorm1d(num_features=3) for _ in range(2))
    a(jnp.arange(12.0).reshape(4, 3))
    bw.compile(lambda: b.load_state_dict(a.state_dict()))()
    for name, value in a.state_dict().items():
        np.testing.assert_array_equal(b.state_dict()[name], value)
    with pytest.raises(ValueError, match="the network has int32, the state fractions"):
        bw.compile(lambda x: b.load_state_dict(a.state_dict() | {"num_batches_tracked": x}))(jnp.float32(1))
