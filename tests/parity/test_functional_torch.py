"""The functions against torch: values and gradients, over grids of options."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from brickwork import functional as F, losses  # noqa: E402

T = torch.nn.functional


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def compare(ours, theirs, *arrays, rtol=1e-5, atol=1e-5):
    """Compare outputs, and the gradients of a weighted sum of them, in every float array."""
    tensors = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    expected = theirs(*tensors)
    out = ours(*map(jnp.asarray, arrays))
    np.testing.assert_allclose(out, expected.detach().numpy(), rtol=rtol, atol=atol)
    weights = np.asarray(np.cos(np.arange(out.size)).reshape(out.shape), dtype=out.dtype)
    floats = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
    grads = jax.grad(lambda *a: (ours(*a) * weights).sum(), floats)(*map(jnp.asarray, arrays))
    (expected * torch.tensor(weights)).sum().backward()
    for i, grad in zip(floats, grads, strict=True):
        wanted = tensors[i].grad
        np.testing.assert_allclose(grad, wanted.numpy(), rtol=rtol, atol=atol)


def normal(rng, *shape, dtype=np.float32):
    return rng.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("lead", [(), (4,), (2, 3), (0,)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(rng, lead, bias):
    arrays = [normal(rng, *lead, 5), normal(rng, 7, 5)] + ([normal(rng, 7)] if bias else [])
    compare(F.linear, T.linear, *arrays)


CONVOLUTIONS = [
    {},
    {"stride": 2},
    {"stride": (2, 1), "padding": (0, 2)},
    {"padding": 1, "dilation": 2},
    {"padding": "same", "dilation": (1, 2)},
    {"padding": "valid"},
    {"groups": 2, "padding": 1},
    {"groups": 4, "stride": 2, "padding": 2},
]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_conv2d(rng, options):
    weight = normal(rng, 8, 4 // options.get("groups", 1), 3, 2)
    arrays = [normal(rng, 2, 4, 9, 8), weight, normal(rng, 8)]
    compare(lambda *a: F.conv2d(*a, **options), lambda *a: T.conv2d(*a, **options), *arrays, rtol=1e-4)


def test_conv2d_of_one_image_and_of_none(rng):
    compare(F.conv2d, T.conv2d, normal(rng, 3, 6, 6), normal(rng, 2, 3, 3, 3))
    compare(F.conv2d, T.conv2d, normal(rng, 0, 3, 6, 6), normal(rng, 2, 3, 3, 3))


POOLS = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (3, 2), "stride": (1, 2), "padding": (1, 0)},
    {"kernel_size": 2, "ceil_mode": True},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True, "padding": 1},
    {"kernel_size": 2, "stride": 3, "ceil_mode": True, "padding": 1},
    {"kernel_size": 7},
    {"kernel_size": 7, "stride": 2, "padding": 3},
    {"kernel_size": 8, "stride": 5, "padding": 2, "ceil_mode": True},
]


@pytest.mark.parametrize("options", POOLS, ids=str)
@pytest.mark.parametrize("ties", [False, True])
def test_max_pool2d(rng, options, ties):
    x = normal(rng, 2, 3, 14, 15)
    if ties:  # relu followed by rounding: many windows have several maxima
        x = np.maximum(np.round(x), 0)
    compare(lambda a: F.max_pool2d(a, **options), lambda a: T.max_pool2d(a, **options), x)


@pytest.mark.parametrize("kernel", [2, 3, 8])
def test_max_pool2d_dilated(rng, kernel):
    options = {"kernel_size": kernel, "stride": 2, "dilation": (2, 1), "padding": 1}
    x = normal(rng, 2, 16, 12)
    compare(lambda a: F.max_pool2d(a, **options), lambda a: T.max_pool2d(a, **options), x)


@pytest.mark.parametrize("options", POOLS, ids=str)
@pytest.mark.parametrize("count_include_pad", [True, False])
def test_avg_pool2d(rng, options, count_include_pad):
    options = {**options, "count_include_pad": count_include_pad}
    x = normal(rng, 2, 3, 14, 15)
    compare(lambda a: F.avg_pool2d(a, **options), lambda a: T.avg_pool2d(a, **options), x)


def test_pool_shapes_agree_with_torch_everywhere():
    grid = itertools.product(range(1, 7), (1, 2, 3, 4), (1, 2, 3), (0, 1, 2), (False, True))
    for size, kernel, stride, padding, ceil_mode in grid:
        if padding > kernel // 2 or size + 2 * padding < kernel:
            continue
        options = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode}
        expected = T.max_pool2d(torch.zeros(1, size, 6), kernel, **options).shape
        out = jax.eval_shape(lambda x, k=kernel, o=options: F.max_pool2d(x, k, **o), jnp.zeros((1, size, 6)))
        assert out.shape == tuple(expected), (size, kernel, options)


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (4, 3, 5, 2), (1, 3, 40, 2)])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_train(rng, shape, affine):
    arrays = [normal(rng, *shape) * 3 + 2] + ([normal(rng, 3), normal(rng, 3)] if affine else [])
    compare(
        lambda x, *wb: F.batch_norm_train(x, *wb)[0],
        lambda x, *wb: T.batch_norm(x, None, None, *wb, training=True),
        *arrays,
        rtol=1e-4,
    )


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics(rng, momentum):
    layer = torch.nn.BatchNorm1d(3, momentum=momentum)
    state = [jnp.zeros(3), jnp.ones(3), jnp.zeros((), jnp.int32)]
    for _ in range(3):
        x = normal(rng, 4, 3, 5)
        layer(torch.tensor(x))
        _, mean, var = F.batch_norm_train(x)
        state = F.update_running_statistics(*state, mean, var, count=20, momentum=momentum)
    for ours, theirs in zip(state, layer.buffers(), strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5)


def test_batch_norm_eval(rng):
    arrays = [normal(rng, 2, 3, 4), normal(rng, 3), normal(rng, 3) ** 2 + 1, *normal(rng, 2, 3)]
    m, v = arrays[1:3]
    compare(
        lambda x, w, b: F.batch_norm_eval(x, m, v, w, b, eps=1e-3),
        lambda x, w, b: T.batch_norm(x, torch.tensor(m), torch.tensor(v), w, b, eps=1e-3),
        arrays[0],
        *arrays[3:],
    )


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("extras", [0, 1, 2])
def test_layer_norm(rng, shape, rank, extras):
    if rank > len(shape):
        pytest.skip("more axes than there are")
    normalized = shape[-rank:]
    arrays = [normal(rng, *shape), *(normal(rng, *normalized) for _ in range(extras))]
    compare(
        lambda x, *wb: F.layer_norm(x, normalized, *wb),
        lambda x, *wb: T.layer_norm(x, normalized, *wb),
        *arrays,
        rtol=1e-4,
    )


@pytest.mark.parametrize("padding_idx", [None, 2, -1])
def test_embedding(rng, padding_idx):
    indices = rng.integers(0, 6, (3, 4))
    compare(
        lambda i, w: F.embedding(i, w, padding_idx),
        lambda i, w: T.embedding(i, w, padding_idx),
        indices.astype(np.int32),
        normal(rng, 6, 5),
    )


ACTIVATIONS = {
    "relu": (F.relu, T.relu),
    "sigmoid": (F.sigmoid, torch.sigmoid),
    "tanh": (F.tanh, torch.tanh),
    "gelu": (F.gelu, T.gelu),
    "gelu-tanh": (lambda x: F.gelu(x, "tanh"), lambda x: T.gelu(x, approximate="tanh")),
    "softmax": (F.softmax, lambda x: T.softmax(x, -1)),
    "softmax-0": (lambda x: F.softmax(x, 0), lambda x: T.softmax(x, 0)),
    "log_softmax": (lambda x: F.log_softmax(x, 1), lambda x: T.log_softmax(x, 1)),
    "flatten": (F.flatten, torch.flatten),
    "flatten-1": (lambda x: F.flatten(x, 1), lambda x: torch.flatten(x, 1)),
    "flatten-0--2": (lambda x: F.flatten(x, 0, -2), lambda x: torch.flatten(x, 0, -2)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_elementwise_and_softmax(rng, name):
    compare(*ACTIVATIONS[name], normal(rng, 3, 4, 5) * 4)


@pytest.mark.parametrize("shape", [(4,), (6, 4), (2, 4, 3, 2)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy(rng, shape, weighted, smoothing, reduction):
    weight = np.abs(normal(rng, 4)) + 0.1 if weighted else None
    indices = rng.integers(0, 4, shape[:1] + shape[2:] if len(shape) > 1 else ())
    logits = normal(rng, *shape)
    soft = np.asarray(jax.nn.softmax(normal(rng, *shape), axis=min(1, len(shape) - 1)))
    options = {"label_smoothing": smoothing, "reduction": reduction}

    def ours(x, t, **more):
        return losses.cross_entropy(x, t, weight=weight, **options, **more)

    def theirs(x, t, **more):
        w = None if weight is None else torch.tensor(weight)
        return T.cross_entropy(x, t, weight=w, **options, **more)

    compare(lambda x: ours(x, indices), lambda x: theirs(x, torch.tensor(indices)), logits)
    compare(
        lambda x: ours(x, indices, ignore_index=2),
        lambda x: theirs(x, torch.tensor(indices), ignore_index=2),
        logits,
    )
    compare(ours, theirs, logits, soft)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_mse(rng, reduction):
    compare(
        lambda x, t: losses.mse(x, t, reduction=reduction),
        lambda x, t: T.mse_loss(x, t, reduction=reduction),
        normal(rng, 3, 4),
        normal(rng, 3, 4),
    )


def test_float64(rng):
    with jax.enable_x64(True):
        wide = {"dtype": np.float64}
        tight = {"rtol": 1e-11, "atol": 1e-12}
        compare(F.linear, T.linear, normal(rng, 2, 5, **wide), normal(rng, 3, 5, **wide), **tight)
        images = normal(rng, 2, 3, 7, 7, **wide)
        compare(F.conv2d, T.conv2d, images, normal(rng, 4, 3, 3, 3, **wide), **tight)
        compare(lambda x: F.max_pool2d(x, 2), lambda x: T.max_pool2d(x, 2), images, **tight)
        compare(lambda x: F.avg_pool2d(x, 3, 2, 1), lambda x: T.avg_pool2d(x, 3, 2, 1), images, **tight)
        compare(
            lambda x, w, b: F.batch_norm_train(x, w, b)[0],
            lambda x, w, b: T.batch_norm(x, None, None, w, b, training=True),
            images,
            normal(rng, 3, **wide),
            normal(rng, 3, **wide),
            **tight,
        )
        compare(lambda x: F.layer_norm(x, 7), lambda x: T.layer_norm(x, (7,)), images, **tight)
        compare(F.gelu, T.gelu, images, **tight)
        target = rng.integers(0, 3, (2, 7, 7))
        compare(
            lambda x: losses.cross_entropy(x, target, label_smoothing=0.1),
            lambda x: T.cross_entropy(x, torch.tensor(target), label_smoothing=0.1),
            images,
            **tight,
        )
