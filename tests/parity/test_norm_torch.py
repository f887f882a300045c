"""Normalisation layers and functions against torch's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.parity.harness import assert_close, compare_layers, normal  # noqa: E402

from brickwork import functional as F, nn  # noqa: E402

T = torch.nn
DTYPES = ["float32", "float64", "bfloat16"]
SHAPES = {1: [(4, 3), (3, 3, 5)], 2: [(2, 3, 4, 5)], 3: [(2, 3, 2, 1, 3)]}
BATCH_OPTIONS = [
    {},
    {"affine": False},
    {"bias": False, "eps": 1e-2, "momentum": 0.7},
    {"track_running_stats": False},
    {"affine": False, "momentum": None},
]


def both(name, *first, **options):
    """Our layer, of unknown sizes, and torch's, with parameters and statistics that are not the initial ones."""
    theirs = getattr(T, name)(*first, **options)
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for tensor in (*theirs.parameters(), *(b for b in theirs.buffers() if b.dtype.is_floating_point)):
            tensor.copy_(torch.tensor(rng.uniform(0.5, 1.5, tensor.shape)))
    own = {"GroupNorm": first[:1]}.get(name, ())
    return getattr(nn, name)(*own, **options), theirs


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("ndim", "options"), [*((1, o) for o in BATCH_OPTIONS), (2, {}), (3, {})], ids=str)
def test_batch_norm(ndim, options, training):
    for shape in SHAPES[ndim]:
        ours, theirs = both(f"BatchNorm{ndim}d", 3, **options)
        compare_layers(ours, theirs, normal(0, *shape) * 2 + 1, training=training)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_batch_norm_in_other_dtypes(dtype, training):
    compare_layers(*both("BatchNorm3d", 3), normal(0, 2, 3, 2, 1, 3), dtype=dtype, training=training)


def test_batch_norm_over_several_batches():
    for momentum in (None, 0.3):
        ours, theirs = both("BatchNorm3d", 3, momentum=momentum)
        for i in range(3):
            compare_layers(ours, theirs, normal(i, 2, 3, 2, 1, 3) + i, gradients=False)


def test_batch_norm_of_few():
    compare_layers(*both("BatchNorm3d", 3), normal(0, 1, 3, 1, 2, 3))  # a batch of one
    compare_layers(*both("BatchNorm3d", 3), normal(0, 0, 3, 1, 2, 1), training=False)
    compare_layers(*both("BatchNorm3d", 3), np.moveaxis(normal(0, 2, 1, 3, 2, 3), -1, 1))  # not contiguous


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_sync_batch_norm(training):
    """One process, one device: torch's layer and ours are plain ones."""
    ours, theirs = both("SyncBatchNorm", 3, eps=1e-3)
    compare_layers(ours, theirs, normal(0, 4, 3, 2), training=training)


def test_converting():
    ours = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.BatchNorm1d(momentum=0.3)))
    theirs = T.SyncBatchNorm.convert_sync_batchnorm(T.Sequential(T.BatchNorm1d(3, momentum=0.3)))
    assert type(theirs[0]).__name__ == type(ours[0]).__name__ == "SyncBatchNorm"
    compare_layers(ours, theirs, normal(0, 4, 3))


INSTANCE_OPTIONS = [
    {},
    {"affine": True, "bias": False, "eps": 1e-2},
    {"track_running_stats": True},
    {"affine": True, "track_running_stats": True, "momentum": 0.6},
    {"track_running_stats": True, "momentum": None},
]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    ("ndim", "options"),
    [*((1, o) for o in INSTANCE_OPTIONS), (2, INSTANCE_OPTIONS[3]), (3, INSTANCE_OPTIONS[3])],
    ids=str,
)
def test_instance_norm(ndim, options, training):
    shape = {1: (2, 3, 5), 2: (2, 3, 2, 3), 3: (2, 3, 2, 1, 3)}[ndim]
    for x in (normal(0, *shape) * 2 + 1, normal(0, *shape[1:])):  # and no batch
        compare_layers(*both(f"InstanceNorm{ndim}d", 3, **options), x, training=training)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_instance_norm_in_other_dtypes(dtype):
    for training in (True, False):
        ours, theirs = both("InstanceNorm2d", 3, affine=True, track_running_stats=True)
        compare_layers(ours, theirs, normal(0, 2, 3, 2, 3), dtype=dtype, training=training)


@pytest.mark.parametrize(
    ("groups", "options"), [(1, {}), (2, {"bias": False}), (6, {"eps": 1e-2}), (3, {"affine": False})], ids=str
)
@pytest.mark.parametrize("shape", [(4, 6), (3, 6, 5), (2, 6, 2, 3), (1, 6, 1, 2, 3), (0, 6, 3)], ids=str)
def test_group_norm(groups, options, shape):
    if shape == (4, 6) and groups > 2:
        return  # torch refuses groups of one element, and two are +1 and -1 whatever they were
    compare_layers(*both("GroupNorm", groups, 6, **options), normal(0, *shape) * 2 + 1)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_group_norm_in_other_dtypes(dtype):
    compare_layers(*both("GroupNorm", 2, 6), normal(0, 2, 6, 2, 3), dtype=dtype)


FEATURES = [(5, (3, 5)), (5, (5,)), ((2, 4), (1, 3, 2, 4)), ((4,), (0, 4))]


@pytest.mark.parametrize(("sizes", "shape"), FEATURES, ids=str)
@pytest.mark.parametrize("options", [{}, {"eps": 0.1}, {"elementwise_affine": False}], ids=str)
@pytest.mark.parametrize("name", ["LayerNorm", "RMSNorm"])
def test_norms_over_features(name, options, sizes, shape):
    ours, theirs = both(name, sizes, **options)
    if isinstance(sizes, tuple):
        ours = getattr(nn, name)(normalized_shape=sizes, **options)
    compare_layers(ours, theirs, normal(0, *shape) * 2 + 1)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("name", ["LayerNorm", "RMSNorm"])
def test_norms_over_features_in_other_dtypes(name, dtype):
    compare_layers(*both(name, 5), normal(0, 3, 5) * 2 + 1, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tiny_numbers_show_the_epsilon(dtype):
    """What torch takes for eps=None depends on the dtype."""
    compare_layers(*both("RMSNorm", 5), normal(0, 3, 5) * 1e-4, dtype=dtype)


@pytest.mark.parametrize("size", [1, 2, 5, 20])
def test_local_response_norm(size):
    options = {"alpha": 2.0, "beta": 0.6, "k": 1.5}
    ours, theirs = nn.LocalResponseNorm(size, **options), T.LocalResponseNorm(size, **options)
    for shape in [(2, 7, 3), (2, 5, 2, 3), (1, 3, 1, 2, 2), (0, 3, 2)]:
        compare_layers(ours, theirs, normal(0, *shape))
    for dtype in ("float64", "bfloat16"):
        compare_layers(ours, theirs, normal(0, 2, 7, 3), dtype=dtype)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 20])
def test_cross_map_lrn(size):
    """Torch's gradient is not that of its output, unless all channels are in the sum."""
    ours, theirs = (module.CrossMapLRN2d(size, alpha=2.0, beta=0.6, k=1.5) for module in (nn, T))
    compare_layers(ours, theirs, normal(0, 2, 7, 2, 3), dtype="float64", gradients=size == 20)


@pytest.mark.parametrize("p", [0, 0.5, 1, 2, 3.0, -1, float("inf"), float("-inf")])
@pytest.mark.parametrize("dim", [1, -1, (0, 2)])
def test_normalize(p, dim):
    x = normal(0, 2, 4, 3).astype("float32")
    x[0, :, 1] = 0  # a vector of zeros, and one zero more
    x[1, 2, 2] = 0
    tensor = torch.tensor(x, requires_grad=True)
    weights = np.cos(np.arange(x.size)).reshape(x.shape).astype("float32")
    expected = T.functional.normalize(tensor, p, dim, eps=1e-3)
    (expected * torch.tensor(weights)).sum().backward()
    out, pull = jax.vjp(lambda a: F.normalize(a, p, dim, eps=1e-3), jnp.asarray(x))
    assert_close(out, expected, 1e-5, "output")
    assert_close(pull(jnp.asarray(weights))[0], tensor.grad, 1e-5, "gradient")


def test_normalize_in_other_dtypes():
    x = normal(0, 3, 4)
    with jax.enable_x64(True):
        assert_close(F.normalize(x), T.functional.normalize(torch.tensor(x)), 1e-12, "float64")
    half = F.normalize(jnp.asarray(x, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    assert_close(half, T.functional.normalize(torch.tensor(x).bfloat16()), 1e-2, "bfloat16")
    z = (x + 1j * x[::-1]).astype("complex64")
    assert_close(F.normalize(z), T.functional.normalize(torch.tensor(z)), 1e-5, "complex")
