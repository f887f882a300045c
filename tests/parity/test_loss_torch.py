"""Losses against torch's: values, gradients by all inputs, also at the corners, and the state dicts of weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.parity.harness import compare_layers, normal  # noqa: E402

from brickwork import losses, nn  # noqa: E402

T = torch.nn
pytestmark = pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")


def grid(*cases):
    """All cases in float32; the last of each layer in float64 and bfloat16 as well, without a reduction."""
    last = dict(cases)
    more = [(*case, dtype, "none") for case in last.items() for dtype in ("float64", "bfloat16")]
    found = [(*case, "float32", "mean") for case in cases] + more
    return pytest.mark.parametrize(
        ("name", "options", "dtype", "reduction"), found, ids=lambda v: str(v).partition(" at 0x")[0]
    )


WEIGHT = np.array([0.5, 2.0, 0.25, 1.5], np.float32)  # exact in every dtype


def pair(name, **options):
    ours = {k: jnp.asarray(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    theirs = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    return getattr(nn, name)(**ours), getattr(T, name)(**theirs)


def uniform(seed, *shape):
    return np.random.default_rng(seed).uniform(0.05, 0.95, shape)


X, Y = normal(0, 3, 4), normal(1, 3, 4)
# differences of 0, of exactly beta and delta, and of both sides of them
CORNERS = np.array([[0, 1, -1, 0.5], [-0.5, 3, -3, 0.25]])
SIGNS = np.array([[1, -1, 1, -1], [1, 1, -1, -1], [-1, -1, 1, 1]])

CORNERED = [
    ("L1Loss", {}),
    ("MSELoss", {}),
    ("SmoothL1Loss", {"beta": 0.0}),
    ("SmoothL1Loss", {"beta": 0.5}),
    ("HuberLoss", {"delta": 0.5}),
]


@grid(*CORNERED, ("HuberLoss", {}), ("SmoothL1Loss", {}), ("PoissonNLLLoss", {}), ("KLDivLoss", {"log_target": True}))
def test_two_arrays(name, options, dtype, reduction):
    compare_layers(*pair(name, reduction=reduction, **options), X, Y, dtype=dtype)


@pytest.mark.parametrize(("name", "options"), CORNERED, ids=str)
def test_corners(name, options):
    compare_layers(*pair(name, reduction="sum", **options), CORNERS, np.zeros_like(CORNERS))


def test_scalars_and_nothing():
    for reduction in ("mean", "sum"):
        compare_layers(*pair("MSELoss", reduction=reduction), normal(0, 0, 4), target=normal(1, 0, 4))
    compare_layers(*pair("MSELoss"), normal(0), target=normal(1))
    compare_layers(*pair("KLDivLoss", reduction="none"), normal(0), target=uniform(1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_poisson(dtype):
    counts = np.array([[0.0, 1, 2, 5], [3, 1, 0, 20], [1, 0, 7, 2]])
    rates = uniform(0, 3, 4)
    compare_layers(*pair("PoissonNLLLoss", full=True), X, target=counts, dtype=dtype)
    compare_layers(*pair("PoissonNLLLoss", log_input=False, eps=0.01), rates, target=counts, dtype=dtype)
    compare_layers(*pair("PoissonNLLLoss", full=True, reduction="none"), X, counts + 1.5, dtype=dtype)


def test_poisson_at_rates_that_overflow():
    rates = np.array([[np.inf, -np.inf, np.nan, 89, 1e38]] * 3, np.float32)
    counts = np.array([[0.0], [0.5], [2.0]], np.float32).repeat(5, 1)
    compare_layers(*pair("PoissonNLLLoss", reduction="none"), rates, target=counts)


@pytest.mark.parametrize("shape", [(3, 4), (3,), (3, 1), (1, 4)], ids=str)
def test_gaussian(shape):
    compare_layers(*pair("GaussianNLLLoss", full=shape == (3,)), X, Y, uniform(2, *shape))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_gaussian_of_small_variances(dtype):
    small = np.array([0.0, 1e-7, 0.5, 2.0])
    compare_layers(*pair("GaussianNLLLoss", full=True, reduction="none"), X[0], Y[0], small, dtype=dtype)
    if dtype == "float32":
        compare_layers(*pair("GaussianNLLLoss", eps=0.1, reduction="sum"), X, Y, 0.25)


@grid(("KLDivLoss", {}))
def test_kl_div(name, options, dtype, reduction):
    compare_layers(*pair(name, reduction=reduction), X, uniform(1, 3, 4), dtype=dtype)
    if dtype == "float32":
        compare_layers(*pair(name, reduction="batchmean"), X, uniform(1, 3, 4))
        compare_layers(*pair(name, reduction="sum"), X[0], target=np.array([0.0, 0.25, 0.75, 0.0]))


CLASSES = [
    {},
    {"weight": WEIGHT},
    {"ignore_index": 1},
    {"label_smoothing": 0.2},
    {"label_smoothing": 0.2, "weight": WEIGHT, "ignore_index": 3},
]
INDICES = np.array([[3, 1], [0, 2], [1, 3]])


@grid(*[("CrossEntropyLoss", options) for options in CLASSES], *[("NLLLoss", options) for options in CLASSES[:3]])
def test_class_indices(name, options, dtype, reduction):
    compare_layers(*pair(name, reduction=reduction, **options), normal(0, 3, 4, 2), INDICES, dtype=dtype)


@pytest.mark.parametrize("classes", [156, 157, 256, 300])
def test_class_indices_of_bytes(classes):
    """PyTorch takes these too; -100 is no class of theirs, nor are 256 or 300 classes 0 or 44."""
    scores, target = normal(0, 4, classes), np.array([0, 127, 155, min(classes, 256) - 1], np.uint8)
    for name in ("CrossEntropyLoss", "NLLLoss"):
        ours, theirs = pair(name, reduction="none")
        expected = theirs(torch.tensor(scores), torch.tensor(target))
        np.testing.assert_allclose(ours(jnp.asarray(scores), jnp.asarray(target)), expected, rtol=1e-5)


def test_class_indices_of_one_example():
    for name in ("CrossEntropyLoss", "NLLLoss", "MultiMarginLoss"):
        compare_layers(*pair(name, weight=WEIGHT), X[0], np.array(2))
    compare_layers(*pair("NLLLoss", weight=WEIGHT, reduction="sum"), X, np.array([3, 1, 0]))


@grid(("CrossEntropyLoss", {}), ("CrossEntropyLoss", {"label_smoothing": 0.2, "weight": WEIGHT}))
def test_class_probabilities(name, options, dtype, reduction):
    compare_layers(*pair(name, reduction=reduction, **options), X, uniform(1, 3, 4), dtype=dtype)


@grid(
    ("BCELoss", {}),
    ("BCELoss", {"weight": WEIGHT}),
    ("BCEWithLogitsLoss", {}),
    ("BCEWithLogitsLoss", {"weight": WEIGHT}),
    ("BCEWithLogitsLoss", {"weight": WEIGHT, "pos_weight": WEIGHT}),
    ("MultiLabelSoftMarginLoss", {}),
    ("MultiLabelSoftMarginLoss", {"weight": WEIGHT}),
)
def test_binary_labels(name, options, dtype, reduction):
    x = uniform(0, 3, 4) if name == "BCELoss" else X
    compare_layers(*pair(name, reduction=reduction, **options), x, uniform(1, 3, 4), dtype=dtype)


def test_binary_cross_entropy_at_the_ends():
    """Not by the target: torch's gradient by it is infinite there, although the loss is limited."""
    p, t = np.array([0.0, 1, 0, 1]), np.array([1.0, 0, 0, 1])
    compare_layers(*pair("BCELoss", reduction="none"), p, target=t)
    compare_layers(*pair("BCEWithLogitsLoss", reduction="none"), np.array([-200.0, 200, 0, 0]), t)


class Focal(T.Module):
    """Written from the paper, so that torchvision isn't needed."""

    def __init__(self, alpha, gamma):
        super().__init__()
        self.options = alpha, gamma

    def forward(self, x, target):
        alpha, gamma = self.options
        p = torch.sigmoid(x)
        ce = T.functional.binary_cross_entropy_with_logits(x, target, reduction="none")
        loss = ce * (1 - (p * target + (1 - p) * (1 - target))) ** gamma
        return loss if alpha < 0 else loss * (alpha * target + (1 - alpha) * (1 - target))


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (-1, 1.5), (0.9, 0.0), (0.5, 0.5)])
def test_focal(alpha, gamma):
    labels = (Y > 0).astype(float)
    for dtype in ("float32", "float64", "bfloat16") if gamma == 2 else ("float32",):
        both = nn.FocalLoss(alpha, gamma, reduction="none"), Focal(alpha, gamma)
        compare_layers(*both, X, target=labels, dtype=dtype)


@grid(("SoftMarginLoss", {}), ("HingeEmbeddingLoss", {}), ("HingeEmbeddingLoss", {"margin": 0.25}))
def test_signs(name, options, dtype, reduction):
    compare_layers(*pair(name, reduction=reduction, **options), X, SIGNS, dtype=dtype)


@grid(("MarginRankingLoss", {}), ("MarginRankingLoss", {"margin": 0.25}))
def test_margin_ranking(name, options, dtype, reduction):
    compare_layers(*pair(name, reduction=reduction, **options), X, Y, SIGNS, dtype=dtype)


def test_corners_of_margins():
    zeros = np.zeros((2, 4))
    compare_layers(*pair("HingeEmbeddingLoss", margin=0.5, reduction="sum"), CORNERS, -np.ones((2, 4), int))
    compare_layers(*pair("MarginRankingLoss", margin=0.5, reduction="sum"), CORNERS, zeros, np.ones((2, 4), int))
    compare_layers(*pair("MultiMarginLoss", reduction="sum"), CORNERS, np.array([0, 3]))
    compare_layers(*pair("MultiLabelMarginLoss", reduction="sum"), CORNERS, np.array([[0, 2, -1, 1], [3, -1, 0, 0]]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])  # torch has no others
@pytest.mark.parametrize("options", [{"p": 2}, {"margin": 0.5, "weight": WEIGHT}, {"p": 2, "weight": WEIGHT}], ids=str)
def test_multi_margin(options, dtype):
    compare_layers(*pair("MultiMarginLoss", **options), X, np.array([3, 0, 1]), dtype=dtype)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_multilabel_margin(reduction):
    lists = np.array([[2, 0, -1, 1], [-1, 1, 1, 1], [3, 2, 1, 0]])
    compare_layers(*pair("MultiLabelMarginLoss", reduction=reduction), X, lists)
    compare_layers(*pair("MultiLabelMarginLoss", reduction=reduction), X[0], lists[0], dtype="float64")


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_cosine_similarity(dtype):
    compare_layers(*pair("CosineSimilarity"), X, Y, dtype=dtype)
    small = np.array([[0.0, 0], [3e-3, 4e-3]])
    compare_layers(*pair("CosineSimilarity", eps=0.1), small, np.ones((2, 2)), dtype=dtype)
    if dtype == "float32":
        compare_layers(*pair("CosineSimilarity", dim=0), X, Y)
        compare_layers(*pair("CosineSimilarity", dim=-1), X[:, None], Y[None])


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0, 3.0, float("inf")])
def test_pairwise_distance(p):
    compare_layers(*pair("PairwiseDistance", p=p, keepdim=p == 1), X, Y)
    if p > 1:
        compare_layers(*pair("PairwiseDistance", p=p), X[0], Y[0], dtype="float64")


def test_pairwise_distance_where_there_is_none():
    ones = np.ones((1, 3))
    for p in (1.0, 1.5, 2.0, float("inf")):
        compare_layers(*pair("PairwiseDistance", p=p, eps=0.0), ones, ones)
    compare_layers(*pair("PairwiseDistance", p=0.0, eps=0.0), CORNERS, np.zeros((2, 4)), gradients=False)
    compare_layers(*pair("PairwiseDistance", p=float("inf"), eps=0.0), CORNERS, np.zeros((2, 4)))


@grid(("CosineEmbeddingLoss", {}), ("CosineEmbeddingLoss", {"margin": 0.3}))
def test_cosine_embedding(name, options, dtype, reduction):
    compare_layers(*pair(name, reduction=reduction, **options), X, Y, np.array([1, -1, -1]), dtype=dtype)
    if dtype == "float32":
        compare_layers(*pair(name, **options), X[0], Y[0], np.array(-1))


def squared(a, b):
    return ((a - b) ** 2).sum(-1)


@grid(
    ("TripletMarginLoss", {}),
    ("TripletMarginLoss", {"p": 1.0, "margin": 2.5}),
    ("TripletMarginLoss", {"swap": True}),
    ("TripletMarginWithDistanceLoss", {"margin": 2.0}),
    ("TripletMarginWithDistanceLoss", {"swap": True, "distance_function": squared}),
)
def test_triplets(name, options, dtype, reduction):
    compare_layers(*pair(name, reduction=reduction, **options), X, Y, normal(2, 3, 4), dtype=dtype)


def test_weights_of_elements():
    """Options of the functions that the layers don't have."""
    arrays = [a.astype(np.float32) for a in (X, Y, uniform(2, 3, 4))]
    tensors = [torch.tensor(a) for a in arrays]
    for ours, theirs in (
        (losses.mse, T.functional.mse_loss),
        (losses.l1, T.functional.l1_loss),
        (losses.huber, T.functional.huber_loss),
    ):
        for reduction in ("mean", "sum", "none"):
            found = ours(*arrays[:2], weight=arrays[2], reduction=reduction)
            expected = theirs(*tensors[:2], weight=tensors[2], reduction=reduction)
            np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)


def through_log_softmax(layer, x, *rest):
    """torch's gradient of the CTC loss is right only together with that of a log-softmax."""
    soft = torch.log_softmax if isinstance(x, torch.Tensor) else nn.LogSoftmax(-1)
    return layer(soft(x, -1) if isinstance(x, torch.Tensor) else soft(x), *rest)


FRAMES = 2 * normal(0, 7, 4, 5)
TARGETS = np.array([[1, 2, 2], [3, 1, 4], [2, 4, 1], [4, 4, 4]])


@pytest.mark.parametrize(("dtype", "reduction"), [("float64", "none"), ("float32", "sum")])
def test_ctc(dtype, reduction):
    both = pair("CTCLoss", reduction=reduction)
    lengths = np.array([7, 6, 5, 7]), np.array([3, 2, 0, 3])
    targets = TARGETS
    if reduction == "sum":  # one after the other
        targets = np.concatenate([row[:n] for row, n in zip(TARGETS, lengths[1], strict=True)])
    compare_layers(*both, FRAMES, targets, *lengths, dtype=dtype, call=through_log_softmax)


@pytest.mark.parametrize("zero_infinity", [False, True])
def test_ctc_of_too_few_frames(zero_infinity):
    both = pair("CTCLoss", reduction="mean" if zero_infinity else "none", blank=3, zero_infinity=zero_infinity)
    lengths = np.array([4, 3, 2, 0]), np.array([3, 2, 3, 1])
    targets = np.array([[1, 2, 2], [1, 1, 1], [0, 4, 2], [0, 0, 0]])
    options = {"call": through_log_softmax, "gradients": zero_infinity}
    compare_layers(*both, FRAMES, targets, *lengths, **options)


def test_ctc_of_one_example():
    lengths = np.array(6), np.array(2)
    compare_layers(*pair("CTCLoss"), FRAMES[:, 0], TARGETS[0, :2], *lengths, call=through_log_softmax)


def test_ctc_of_many_frames():
    """In float64, where torch is exact; in float32 torch's gradients are off by 4e-4, ours by 2e-6."""
    x = normal(0, 300, 2, 20)
    targets = np.random.default_rng(1).integers(1, 20, (2, 60))
    lengths = np.array([300, 250]), np.array([60, 41])
    theirs = torch.tensor(x, requires_grad=True)
    options = [torch.tensor(v) for v in (targets, *lengths)]
    T.functional.ctc_loss(theirs.log_softmax(-1), *options, reduction="sum").backward()

    def loss(x):
        return losses.ctc(jax.nn.log_softmax(x, -1), targets, *lengths, reduction="sum")

    found = jax.grad(loss)(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, theirs.grad.numpy(), atol=1e-5)
    with jax.enable_x64(True):
        np.testing.assert_allclose(jax.grad(loss)(jnp.asarray(x)), theirs.grad.numpy(), atol=1e-11)
