from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brickwork import losses
from brickwork.errors import ShapeMismatchError

LOGITS = jnp.asarray(np.random.default_rng(0).standard_normal((5, 3)), jnp.float32)
TARGET = jnp.array([0, 1, 2, 0, 1])


def test_hard_and_one_hot_targets_agree():
    hard = losses.cross_entropy(LOGITS, TARGET, label_smoothing=0.1)
    soft = losses.cross_entropy(LOGITS, jax.nn.one_hot(TARGET, 3), label_smoothing=0.1)
    np.testing.assert_allclose(hard, soft, rtol=1e-6)


@pytest.mark.parametrize("bad", [3, -1, 1000])
def test_an_index_out_of_range_is_nan(bad):
    loss = losses.cross_entropy(LOGITS, TARGET.at[2].set(bad), reduction="none")
    assert jnp.isnan(loss).tolist() == [False, False, True, False, False]


def test_ignored_examples_have_no_gradient_not_even_from_nan():
    logits = LOGITS.at[1].set(jnp.nan)
    target = TARGET.at[1].set(-100)
    loss, grad = jax.value_and_grad(losses.cross_entropy)(logits, target)
    assert jnp.isfinite(loss)
    assert not grad[1].any() or jnp.isnan(grad[1]).all()
    assert jnp.isnan(losses.cross_entropy(LOGITS, jnp.full(5, -100)))


def test_large_logits_are_exact():
    logits = jnp.array([[1e6, 1e6 + 1]])
    loss = losses.cross_entropy(logits, jnp.array([0]))
    np.testing.assert_allclose(loss, np.log1p(np.e), rtol=1e-6)
    infinite = jnp.array([[0.0, -jnp.inf, 0.0]])  # a masked class that is not the target
    loss, grad = jax.value_and_grad(losses.cross_entropy)(infinite, jnp.array([0]))
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)
    assert jnp.isfinite(grad).all()


def test_dtypes():
    half = LOGITS.astype(jnp.bfloat16)
    loss = losses.cross_entropy(half, TARGET)
    assert loss.dtype == jnp.bfloat16
    wide = losses.cross_entropy(half.astype(jnp.float32), TARGET)
    assert loss == wide.astype(jnp.bfloat16)
    assert losses.cross_entropy(LOGITS, np.asarray(TARGET, np.uint8)) == losses.cross_entropy(LOGITS, TARGET)
    assert losses.mse(half, half).dtype == jnp.bfloat16


def test_twice_differentiable():
    x = LOGITS[:2]
    h = jax.hessian(lambda x: losses.cross_entropy(x, TARGET[:2]))(x)
    p = jax.nn.softmax(x)
    expected = (jnp.diag(p[0]) - jnp.outer(p[0], p[0])) / 2
    np.testing.assert_allclose(h[0, :, 0], expected, atol=1e-6)


CROSS_ENTROPY_ERRORS = [
    ((LOGITS, TARGET[:4]), {}, r"a target of integers holds class indices, .*Expected the shape \(5,\)"),
    ((LOGITS, TARGET[:, None]), {}, r"Remove the extra axis: target\.reshape\(-1\)"),
    (
        (LOGITS, jnp.ones((5, 3), int)),
        {},
        r"target\.argmax\(1\)\), or cast a one-hot target .* Got|Got logits: float32\[5, 3\]",
    ),
    (
        (LOGITS, jnp.ones(5)),
        {},
        r"a target of floats holds class probabilities .* Got logits: float32\[5, 3\], target: "
        r"float32\[5\]\. If these are class indices, cast them: target\.astype\(jnp\.int32\)",
    ),
    ((jnp.ones(()), jnp.array(1)), {}, r"logits need an axis of classes"),
    ((LOGITS, TARGET), {"weight": jnp.ones(2)}, r"weight must have shape \(3,\), one value per cl"),
]


@pytest.mark.parametrize(("args", "options", "message"), CROSS_ENTROPY_ERRORS)
def test_cross_entropy_shapes(args, options, message):
    with pytest.raises(ShapeMismatchError, match=message):
        losses.cross_entropy(*args, **options)


def test_cross_entropy_options():
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\], got 1\.5"):
        losses.cross_entropy(LOGITS, TARGET, label_smoothing=1.5)
    with pytest.raises(ValueError, match=r"cross_entropy: reduction must be .* got 'avg'"):
        losses.cross_entropy(LOGITS, TARGET, reduction="avg")
    with pytest.raises(TypeError, match=r"cross_entropy: logits holds int32 values"):
        losses.cross_entropy(jnp.ones((5, 3), int), TARGET)
    with pytest.raises(TypeError, match=r"cross_entropy: target holds bool values"):
        losses.cross_entropy(LOGITS, jnp.ones((5, 3), bool))


def test_mse_broadcasts_nothing():
    message = (
        r"mse: prediction and target must have the same shape\. Got prediction: float32\[4, 1\], "
        r"target: float32\[4\]\. Reshape one of them, e\.g\. target\.reshape\(prediction\.shape\)\."
    )
    with pytest.raises(ShapeMismatchError, match=message):
        losses.mse(jnp.ones((4, 1)), jnp.ones(4))
    with pytest.raises(ShapeMismatchError, match=r"Reshape one of them\.$"):
        losses.mse(jnp.ones((4, 1)), jnp.ones(()))
    with pytest.raises(TypeError, match=r"mse: target holds int32 values"):
        losses.mse(jnp.ones(4), jnp.ones(4, int))
    with pytest.raises(ValueError, match=r"mse: reduction must be"):
        losses.mse(jnp.ones(4), jnp.ones(4), reduction=None)
