from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brickwork import functional as F, losses

X = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4)), jnp.float32)
Y = jnp.asarray(np.random.default_rng(1).standard_normal((3, 4)), jnp.float32)
SIGNS = jnp.array([1, -1, 1])
EACH_SIGN = jnp.broadcast_to(SIGNS[:, None], X.shape)
SHARE = jax.nn.sigmoid(Y)
ALL = {
    "l1": (X, Y),
    "mse": (X, Y),
    "smooth_l1": (X, Y),
    "huber": (X, Y),
    "poisson_nll": (X, SHARE),
    "gaussian_nll": (X, Y, SHARE),
    "cross_entropy": (X, jnp.array([0, 1, 3])),
    "linear_cross_entropy": (X, Y, jnp.array([0, 1, 2])),
    "nll": (X, jnp.array([0, 1, 3])),
    "kl_div": (X, SHARE),
    "bce": (jax.nn.sigmoid(X), SHARE),
    "bce_with_logits": (X, SHARE),
    "focal": (X, SHARE),
    "soft_margin": (X, EACH_SIGN),
    "hinge_embedding": (X, EACH_SIGN),
    "margin_ranking": (X, Y, EACH_SIGN),
    "multi_margin": (X, jnp.array([0, 1, 3])),
    "multilabel_margin": (X, jnp.array([[0, 1, -1, 0], [3, -1, 0, 0], [1, 2, 3, -1]])),
    "multilabel_soft_margin": (X, SHARE),
    "cosine_embedding": (X, Y, SIGNS),
    "triplet_margin": (X, Y, SHARE),
    "triplet_margin_with_distance": (X, Y, SHARE),
    "cosine_similarity": (X, Y),
    "pairwise_distance": (X, Y),
    "ctc": (jnp.stack([X, Y]), jnp.array([[1], [2], [3]]), [2, 2, 1], [1, 1, 0]),
}
every_loss = pytest.mark.parametrize("name", ALL)


def cast(args, dtype):
    return [a.astype(dtype) if isinstance(a, jax.Array) and a.dtype == jnp.float32 else a for a in args]


@every_loss
def test_half_precision_is_rounded_once(name):
    f = getattr(losses, name)
    half = cast(ALL[name], jnp.bfloat16)
    found = f(*half)
    assert found.dtype == jnp.bfloat16
    expected = f(*cast(half, jnp.float32)).astype(jnp.bfloat16)
    if name == "triplet_margin_with_distance":  # distances are the user's, and in bfloat16
        np.testing.assert_allclose(found.astype(jnp.float32), expected.astype(jnp.float32), rtol=0.01)
    else:
        np.testing.assert_array_equal(found, expected)


@every_loss
def test_numpy_and_lists_of_examples(name):
    f = getattr(losses, name)
    args = [np.asarray(a) if isinstance(a, jax.Array) else a for a in ALL[name]]
    np.testing.assert_array_equal(f(*args), f(*ALL[name]))
    assert isinstance(f(*args), jax.Array)


def test_short_names():
    assert sorted(losses.__all__) == sorted(ALL)
    for name in losses.__all__:
        function = getattr(losses, name)
        assert getattr(F, function.__name__) is function


def test_the_squared_error_of_nothing_has_no_gradient():
    for f in (losses.l1, losses.mse, losses.smooth_l1, losses.huber):
        np.testing.assert_array_equal(jax.grad(f)(X, X), jnp.zeros_like(X))
    np.testing.assert_array_equal(jax.grad(lambda x: losses.huber(x, Y, delta=float("inf")))(X), (X - Y) / 12)


def test_what_is_out_of_range_is_nan():
    none = {"reduction": "none"}
    assert jnp.isnan(losses.nll(X, jnp.array([0, 4, -1]), **none)).tolist() == [False, True, True]
    assert jnp.isnan(losses.multi_margin(X, jnp.array([0, 4, -1]), **none)).tolist() == [False, True, True]
    lists = jnp.array([[0, -1, 9, 0], [-1, 0, 0, 0], [0, 4, -1, 0]])
    assert jnp.isnan(losses.multilabel_margin(X, lists, **none)).tolist() == [False, False, True]
    assert jnp.isnan(losses.bce(jnp.array([-0.1, 0.5, 1.1]), jnp.ones(3), **none)).tolist() == [True, False, True]
    assert jnp.isnan(losses.kl_div(jnp.zeros(2), jnp.array([-0.1, 0.0]), **none)).tolist() == [True, False]
    variances = jnp.array([-1.0, 0.0])
    assert jnp.isnan(losses.gaussian_nll(jnp.zeros(2), jnp.ones(2), variances, **none)).tolist() == [True, False]


def test_kl_div_of_what_is_impossible():
    y, t = jnp.array([-jnp.inf, 0.0, jnp.nan]), jnp.array([0.0, 1.0, 0.0])
    loss, pull = jax.vjp(lambda y: losses.kl_div(y, t, reduction="none"), y)
    np.testing.assert_array_equal(loss, [0, 0, jnp.nan])
    np.testing.assert_array_equal(pull(jnp.ones(3))[0], [0, -1, 0])


@pytest.mark.parametrize("name", ["bce_with_logits", "focal", "multilabel_soft_margin"])
def test_large_logits(name):
    f = getattr(losses, name)
    x = jnp.array([-1e4, -200.0, 0.0, 200.0, 1e4])
    for t in (jnp.zeros(5), jnp.ones(5)):
        loss, slope = jax.value_and_grad(f)(x, t)
        assert jnp.isfinite(loss)
        assert jnp.isfinite(slope).all()
    assert losses.focal(x, (x > 0).astype(float), gamma=0.3) < 0.2
    assert jnp.isfinite(jax.grad(lambda x: losses.focal(x, x * 0 + 1, gamma=0.3))(x)).all()


def test_certain_logits_are_exact():
    """Where the usual formula would subtract large numbers."""
    found = losses.bce_with_logits(jnp.float32(-50.0), jnp.float32(0.0))
    np.testing.assert_allclose(found, np.exp(-50.0), rtol=1e-5)


def test_second_derivatives():
    second = jax.grad(jax.grad(losses.bce_with_logits))
    np.testing.assert_allclose(second(jnp.float32(0.0), jnp.float32(1.0)), 0.25)
    second = jax.grad(jax.grad(losses.bce))
    np.testing.assert_allclose(second(jnp.float32(0.25), jnp.float32(1.0)), 16, rtol=1e-5)


def test_triplets_of_one_point():
    gradients = jax.grad(losses.triplet_margin, (0, 1, 2))(X, X, X, eps=0.0)
    for g in gradients:
        np.testing.assert_array_equal(g, jnp.zeros_like(X))


def test_distances_of_ones_own():
    def manhattan(a, b):
        return jnp.abs(a - b).sum((-2, -1))

    a, p, n = (jnp.stack([v, v + 1]) for v in (X, Y, SHARE))
    found = losses.triplet_margin_with_distance(a, p, n, distance_function=manhattan, reduction="none")
    np.testing.assert_allclose(found, jnp.maximum(manhattan(a, p) - manhattan(a, n) + 1, 0), rtol=1e-6)


# --- CTC


def collapse(path, blank=0):
    return tuple(k for k, _ in itertools.groupby(path) if k != blank)


def test_ctc_against_all_alignments():
    y = jax.nn.log_softmax(jnp.stack([X, Y, X * Y, X + Y]))  # (T, N, C)
    targets, frames, lengths = [[1, 1], [2, 3], [3, 0]], [4, 3, 4], [2, 2, 1]
    found = losses.ctc(y, jnp.array(targets), frames, lengths, reduction="none")
    for n in range(3):
        wanted = tuple(targets[n][: lengths[n]])
        paths = [p for p in itertools.product(range(4), repeat=frames[n]) if collapse(p) == wanted]
        total = sum(np.exp(sum(float(y[t, n, k]) for t, k in enumerate(p))) for p in paths)
        np.testing.assert_allclose(found[n], -np.log(total), rtol=1e-5)


def ctc_case():
    y = jax.nn.log_softmax(jnp.stack([X, Y, X * Y, X + Y]))
    return y, jnp.array([[1, 1], [2, 3], [3, 0]]), jnp.array([4, 3, 4]), jnp.array([2, 2, 1])


def test_ctc_compiled_with_lengths_that_are_not_known():
    y, targets, frames, lengths = ctc_case()
    expected = losses.ctc(y, targets, frames, lengths)
    np.testing.assert_allclose(jax.jit(losses.ctc)(y, targets, frames, lengths), expected, rtol=1e-6)
    flat = jnp.array([1, 1, 2, 3, 3])
    np.testing.assert_allclose(losses.ctc(y, flat, frames, lengths), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(losses.ctc)(y, flat, frames, lengths), expected, rtol=1e-6)
    np.testing.assert_allclose(losses.ctc(y, targets, [4, 3, 4], (2, 2, 1)), expected, rtol=1e-6)


def test_ctc_of_what_is_out_of_range_is_nan():
    y, targets, frames, lengths = ctc_case()
    call = jax.jit(lambda *a: losses.ctc(*a, reduction="none"))
    for args in (
        (y, targets.at[1, 1].set(4), frames, lengths),
        (y, targets.at[1, 1].set(-1), frames, lengths),
        (y, targets, frames.at[1].set(5), lengths),
        (y, targets, frames, lengths.at[1].set(3)),
        (y, targets, frames, lengths.at[1].set(-1)),
    ):
        assert jnp.isnan(call(*args)).tolist() == [False, True, False]
    assert jnp.isfinite(call(y, targets.at[2, 1].set(99), frames, lengths)).all()  # padding


def test_ctc_without_labels():
    y, _, frames, _ = ctc_case()
    none = losses.ctc(y, jnp.zeros((3, 0), int), frames, [0, 0, 0], reduction="none")
    blanks = [-y[:t, n, 0].sum() for n, t in enumerate(frames.tolist())]
    np.testing.assert_allclose(none, jnp.stack(blanks), rtol=1e-5)
    np.testing.assert_array_equal(losses.ctc(y, jnp.zeros(0, int), frames, [0, 0, 0], reduction="none"), none)


def test_ctc_gradients_are_finite():
    y, targets, _, lengths = ctc_case()
    y = y.at[1, :, 1].set(-jnp.inf).at[2, 0].set(-jnp.inf)  # impossible classes, and a frame of nothing else

    def call(y, **options):
        return losses.ctc(y, targets, [4, 1, 0], lengths, reduction="none", **options)

    for options in ({}, {"zero_infinity": True}):
        values, pull = jax.vjp(functools.partial(call, **options), y)
        assert jnp.isinf(values).tolist() == [not options] * 3
        assert jnp.isfinite(pull(jnp.ones(3))[0]).all()


@pytest.mark.parametrize("shape", [(5,), (4, 5), (3, 5, 2)])
def test_both_ways_to_find_the_scores_of_targets(monkeypatch, shape):
    from brickwork.functional import _loss_classification as module

    axis = 0 if len(shape) == 1 else 1
    scores = jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)
    index = jnp.asarray(np.random.default_rng(1).integers(0, 5, shape[:axis] + shape[axis + 1 :]))

    def chosen(scores):
        return module._of_targets(scores, index, axis)

    def both(scores):
        return chosen(scores), jax.grad(lambda scores: (chosen(scores) ** 2).sum())(scores)

    found = both(scores)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for a, b in zip(found, both(scores), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("loss", [losses.huber, losses.smooth_l1])
def test_a_gradient_at_nan_is_nan(loss):
    slope = jax.grad(lambda y: loss(y, jnp.zeros(2)))(jnp.array([jnp.nan, 0.0]))
    assert jnp.isnan(slope[0])
    assert slope[1] == 0


def test_smooth_l1_without_a_smooth_part_is_flat_where_it_is_zero():
    assert jax.grad(lambda y: losses.smooth_l1(y, jnp.zeros(1), beta=0.0))(jnp.zeros(1)) == 0  # as in torch


@pytest.mark.parametrize("loss", [losses.huber, losses.smooth_l1])
def test_gradients_of_infinite_differences_are_bounded(loss):
    slope = jax.grad(lambda x: loss(x, jnp.zeros(4)))(jnp.array([jnp.inf, 1.0, -jnp.inf, 3e38]))
    np.testing.assert_array_equal(slope, [0.25, 0.25, -0.25, 0.25])


@pytest.mark.parametrize("delta", [1.0, float("inf")])
def test_a_difference_that_is_nan_stays_so(delta):
    x = jnp.array([jnp.nan, 1.0])
    np.testing.assert_array_equal(losses.huber(x, jnp.zeros(2), delta=delta, reduction="none"), [np.nan, 0.5])
    assert jnp.isnan(losses.smooth_l1(x, jnp.zeros(2)))


SMALL = [jnp.int8, jnp.uint8, jnp.int16, jnp.uint16, jnp.uint32]


@pytest.mark.parametrize("dtype", SMALL)
@pytest.mark.parametrize("classes", [256, 300])  # 0 and 44 in a byte, which -100 isn't either
@pytest.mark.parametrize("name", ["cross_entropy", "linear_cross_entropy", "nll", "multi_margin", "adaptive"])
def test_class_indices_of_any_dtype(name, classes, dtype):
    target = jnp.array([0, 100, 127, 156 if jnp.iinfo(dtype).max > 127 else 28])
    rows = jax.random.normal(jax.random.key(0), (classes, 6))
    scores = jax.random.normal(jax.random.key(1), (4, classes))
    head = jnp.concatenate([scores[:, :150], scores[:, -2:]], 1)
    call = {
        "linear_cross_entropy": lambda t: losses.linear_cross_entropy(scores[:, :6], rows, t, reduction="none"),
        "adaptive": lambda t: F.adaptive_log_softmax(head, [scores[:, :3], scores], t).output,
    }.get(name, lambda t: getattr(losses, name)(scores, t, reduction="none"))
    expected = call(target)
    assert jnp.isfinite(expected).all()
    np.testing.assert_array_equal(call(target.astype(dtype)), expected)


@pytest.mark.parametrize("dtype", SMALL)
def test_lengths_and_labels_of_any_dtype(dtype):
    y = jax.nn.log_softmax(jax.random.normal(jax.random.key(0), (300, 2, 260)))
    labels = jax.random.randint(jax.random.key(1), (140,), 1, 127)
    given = labels, jnp.array([127, 90]), jnp.array([70, 70])  # together more than a byte holds
    call = jax.jit(lambda *given: losses.ctc(y, *given, reduction="none"))
    np.testing.assert_array_equal(call(*(a.astype(dtype) for a in given)), call(*given))
    listed = jnp.where(jnp.arange(260) < 3, jnp.arange(260) + 100, -1)
    if jnp.issubdtype(dtype, jnp.signedinteger):
        np.testing.assert_array_equal(
            losses.multilabel_margin(y[0, 0], listed.astype(dtype)), losses.multilabel_margin(y[0, 0], listed)
        )


def test_an_ignored_index_that_the_dtype_does_not_have():
    target = jnp.array([156, 44, 1], jnp.uint8)
    scores = jax.random.normal(jax.random.key(0), (3, 160))
    expected = losses.cross_entropy(scores, target.astype(int))
    for ignored in (-100, 300, 2**40):
        loss = losses.cross_entropy(scores, target, ignore_index=ignored)
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
    ignored = losses.nll(scores, target, ignore_index=44, reduction="none")
    np.testing.assert_array_equal(ignored, losses.nll(scores, target.astype(int), ignore_index=44, reduction="none"))


@pytest.mark.parametrize("dtype", [jnp.int64, jnp.uint64, jnp.uint32])
def test_what_is_out_of_range_of_int32_is_nan_too(dtype):
    """And not the class that is left of it in 32 bits."""
    with jax.enable_x64(True):
        large = jnp.asarray(2**32 + 1 if dtype != jnp.uint32 else 2**32 - 1, dtype)
        target = jnp.array([1, 0, 1]).astype(dtype).at[1].set(large)
        for name in ("cross_entropy", "nll", "multi_margin"):
            loss = jax.jit(lambda x, t, name=name: getattr(losses, name)(x, t, reduction="none"))(X, target)
            np.testing.assert_array_equal(jnp.isnan(loss), [False, True, False])
        loss = jax.jit(losses.multilabel_margin)(X, jnp.zeros(X.shape, dtype).at[1, 0].set(large))
        assert jnp.isnan(loss)
        y = jax.nn.log_softmax(jax.random.normal(jax.random.key(0), (5, 3, 4)))
        lengths = jnp.array([1, 1, 1])
        ctc = jax.jit(lambda *given: losses.ctc(y, *given, reduction="none"))
        np.testing.assert_array_equal(jnp.isnan(ctc(target[:, None], lengths, lengths)), [False, True, False])
        np.testing.assert_array_equal(jnp.isnan(ctc(lengths[:, None], target, lengths)), [False, True, False])
        assert losses.cross_entropy(X, target.astype(jnp.int64), ignore_index=int(large)).shape == ()
        kept = losses.nll(X, target, ignore_index=int(large), reduction="none")
        np.testing.assert_array_equal(kept[1], 0)


@pytest.mark.parametrize("count", [1, 4, 33])  # alone, and in registers
def test_poisson_nll_of_rates_that_overflow(count):
    """As in torch: an infinite rate is never a good one."""
    target = jnp.full(count, 2.0)
    loss = lambda y, t: losses.poisson_nll(y, t, reduction="none")
    values = {89.0: jnp.inf, 1e38: jnp.inf, jnp.inf: jnp.nan, jnp.nan: jnp.nan, -jnp.inf: jnp.inf}
    for value, expected in values.items():
        y = jnp.full(count, value)
        np.testing.assert_array_equal(loss(y, target), jnp.full(count, expected))
        slope = jax.grad(lambda y: loss(y, target).sum())(y)
        np.testing.assert_array_equal(slope, jnp.exp(y) - 2)
    at_all = loss(jnp.full(count, 3e38), target)  # infinity, or the difference of two
    assert (jnp.isnan(at_all) | (at_all == jnp.inf)).all()
    y = jnp.linspace(-80, 85, 33)
    second = jax.grad(lambda y: jax.grad(lambda y: loss(y, jnp.ones(33)).sum())(y).sum())(y)
    np.testing.assert_allclose(second, jnp.exp(y), rtol=1e-6)
