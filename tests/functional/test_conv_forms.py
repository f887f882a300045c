"""The forms of convolutions that CPUs use, against XLA's convolution."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import brickwork as bw
from brickwork import functional as F
from brickwork.functional import _conv_forms as forms, _conv_phases as phases
from brickwork.functional._conv_forms import Geometry

on_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the forms of CPUs")


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def assert_alike(form, reference, *arrays):
    """Equal values and gradients."""
    shape = jax.eval_shape(reference, *arrays).shape

    @jax.jit
    def both(dy, *arrays):
        results = []
        for f in (form, reference):
            y, pull = jax.vjp(f, *arrays)
            results.append((y, *pull(dy)))
        return results

    for found, wanted in zip(*both(normal(9, *shape), *arrays), strict=True):
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * max(1, float(jnp.abs(wanted).max())))


def geometry(ndim, stride=1, padding=0, dilation=1, groups=1):
    def each(v):
        return v if isinstance(v, tuple) else (v,) * ndim

    return Geometry(each(stride), tuple((p, p) for p in each(padding)), each(dilation), groups)


FORMS = [  # form, image, kernel, options
    ("_product", (2, 3, 5), (4, 3, 1), {"stride": 2}),
    ("_product", (2, 3, 2, 3, 2), (4, 3, 2, 2, 3), {"padding": 1, "stride": (1, 2, 3)}),
    ("_product", (2, 128, 8, 8), (128, 128, 3, 3), {"padding": 1}),  # as many windows as outputs
    ("_product", (4, 128, 8, 8), (128, 128, 3, 3), {"padding": 1}),  # twice as many, of many channels
    ("_bands", (43, 1, 4, 7), (6, 1, 3, 5), {"padding": (1, 2)}),
    ("_bands", (32, 6, 9, 14), (16, 6, 5, 5), {}),  # LeNet's second, lower: two blocks
    ("_bands", (16, 3, 9, 61), (16, 3, 4, 3), {"padding": (2, 1)}),  # the last block is not full
    ("_bands", (32, 2, 5, 7), (4, 2, 2, 3), {"padding": (0, 1)}),  # all columns in one block
    ("_columns", (16, 32, 32, 33), (32, 32, 3, 3), {"padding": (1, 2)}),
    ("_columns", (9, 3, 64, 61), (64, 3, 2, 3), {"padding": (0, 4), "stride": (1, 2), "dilation": (3, 2)}),
    ("_columns", (6, 64, 40, 40), (64, 64, 1, 5), {}),
    ("_columns", (8, 48, 61, 72), (16, 48, 2, 3), {"padding": (2, 3), "stride": (1, 1), "dilation": (3, 2)}),
    ("_columns", (36, 8, 60, 70), (8, 8, 3, 2), {"padding": (0, 1), "stride": (2, 1)}),
    ("_padded_first", (2, 3, 6), (4, 3, 3), {"padding": 2}),
    ("_padded_first", (2, 3, 6, 4), (4, 3, 2, 3), {"padding": (1, 3), "dilation": (1, 2)}),
    ("_planes", (2, 3, 5, 4, 6), (4, 3, 3, 1, 2), {"stride": (2, 1, 2), "padding": 1}),
    ("_planes", (2, 3, 5, 4, 6), (4, 3, 2, 2, 2), {"dilation": (2, 1, 2)}),
    ("_blocks", (2, 34, 5), (34, 2, 3), {"groups": 17, "padding": 1}),  # 16 groups in a block, and one
    ("_blocks", (2, 4, 5, 6), (8, 1, 3, 2), {"groups": 4, "stride": 2}),  # two kernels a channel
    ("_depthwise", (2, 3, 7), (3, 1, 4), {"groups": 3, "stride": 2, "padding": 3}),
    ("_depthwise", (2, 3, 7, 6), (3, 1, 3, 2), {"groups": 3, "stride": (3, 1), "padding": 1, "dilation": (1, 2)}),
    ("_depthwise", (2, 3, 7, 6), (3, 1, 5, 4), {"groups": 3, "padding": (2, 0)}),  # 20 elements: sums in two passes
    ("_depthwise", (2, 2, 3, 4, 3), (2, 1, 2, 2, 1), {"groups": 2, "stride": (1, 2, 1)}),
]


@on_cpu
@pytest.mark.parametrize(("name", "image", "kernel", "options"), FORMS, ids=str)
def test_forms(name, image, kernel, options):
    g = geometry(len(image) - 2, **options)
    x, weight = normal(0, *image), normal(1, *kernel)
    assert forms._form(x, weight, g).__name__ == name
    assert_alike(lambda x, w: forms.convolve(x, w, g), lambda x, w: forms.plain(x, w, g), x, weight)


PLAIN = [
    ((4, 3, 16, 16), (4, 3, 3, 3), {"padding": 1}),  # in every way ordinary
    ((0, 3, 5), (4, 3, 1), {}),  # empty
    ((5, 128, 8, 8), (128, 128, 3, 3), {"padding": 1}),  # too many windows to unfold
    ((2, 32, 5, 5), (32, 32, 3, 3), {"padding": 1}),  # of few channels
    ((16, 4, 9, 40), (16, 4, 3, 3), {"padding": 1}),  # too many channels for a band
    ((2, 1, 9, 9), (6, 1, 3, 3), {"padding": 1}),  # too few rows
    ((64, 1, 9, 9), (6, 1, 3, 3), {"padding": 1, "stride": 2}),
    ((16, 32, 31, 32), (32, 32, 3, 3), {"padding": 1}),  # not quite as many outputs
    ((16, 64, 64, 64), (32, 64, 3, 3), {"padding": 1, "stride": 2}),  # fewer channels to make than to copy, apart
    ((16, 32, 32, 32), (32, 32, 5, 5), {"padding": 2}),  # wide windows of few channels
]


@pytest.mark.parametrize(("image", "kernel", "options"), PLAIN, ids=str)
def test_what_is_left_to_xla(image, kernel, options):
    g = geometry(len(image) - 2, **options)
    assert forms._form(jnp.zeros(image), jnp.zeros(kernel), g) is forms.plain


def test_integers_are_left_to_xla():
    x = jnp.ones((1, 2, 3, 3), jnp.int32)
    y = F.conv2d(x, jnp.ones((2, 1, 3, 3), jnp.int32), groups=2)
    assert y.dtype == jnp.int32
    assert y.tolist() == [[[[9]], [[9]]]]


TRANSPOSED = [  # image, kernel, options, more at the end
    ((2, 3, 4), (3, 2, 5), {"stride": 3, "padding": 4}, (2,)),
    ((2, 4, 3, 5), (4, 2, 2, 3), {"stride": (3, 2), "groups": 2, "padding": (0, 1)}, (2, 1)),
    ((2, 2, 3, 4), (2, 3, 3, 2), {"stride": (2, 1), "dilation": (3, 2), "padding": 2}, (0, 1)),
    ((2, 2, 1, 1), (2, 3, 2, 3), {"dilation": (2, 1), "stride": 2}, (1, 1)),
    ((2, 2, 3, 2, 1), (2, 2, 2, 2, 2), {"stride": (2, 1, 2), "padding": (3, 1, 0)}, (1, 0, 0)),
]


@on_cpu
@pytest.mark.parametrize(("image", "kernel", "options", "more"), TRANSPOSED, ids=str)
def test_phases(image, kernel, options, more):
    g = geometry(len(image) - 2, **options)
    out = tuple(
        (n - 1) * s - 2 * p[0] + d * (k - 1) + 1 + e
        for n, s, p, d, k, e in zip(image[2:], g.stride, g.padding, g.dilation, kernel[2:], more, strict=True)
    )
    x, weight = normal(0, *image), normal(1, *kernel)

    def reference(x, w):
        return phases.plain_transposed(x, phases._exchanged(w, g.groups), g, out)

    assert_alike(lambda x, w: phases.transpose(x, w, g, out), reference, x, weight)


def test_depthwise_in_transforms():
    """A backward pass of its own: differentiated again, mapped, and in half precision."""
    x, weight = normal(0, 2, 3, 5, 4), normal(1, 3, 1, 3, 2)
    g = geometry(2, stride=(2, 1), padding=1, groups=3)

    def penalty(convolve):
        def inner(x, w):
            return (convolve(x, w, g) ** 3).sum()

        def outer(x, w):
            gx, gw = jax.grad(inner, (0, 1))(x, w)
            return (gx**2).sum() + jnp.sin(gw).sum()

        return jax.jit(jax.grad(outer, (0, 1)))(x, weight)

    for found, expected in zip(penalty(forms.convolve), penalty(forms.plain), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * float(jnp.abs(expected).max()))
    weights = jnp.stack([weight, -2 * weight])

    def gradient(x, w):
        return jax.grad(lambda w: (F.conv2d(x, w, groups=3) ** 2).sum())(w)

    mapped = jax.vmap(gradient, (None, 0))(x, weights)
    np.testing.assert_allclose(mapped[1], gradient(x, weights[1]), rtol=1e-5)
    half = x.astype(jnp.bfloat16), weight.astype(jnp.bfloat16)
    found = forms.convolve(*half, g)
    assert found.dtype == jnp.bfloat16
    wide = forms.plain(half[0].astype(jnp.float32), half[1].astype(jnp.float32), g)
    assert (found == wide.astype(jnp.bfloat16)).mean() > 0.95  # summed in float32, then rounded
    assert jax.grad(lambda w: forms.convolve(half[0], w, g).sum())(half[1]).dtype == jnp.bfloat16


def derivatives(convolve, x, weight):
    """A gradient of gradients, forward mode, and gradients of one argument alone."""

    def inner(x, w):
        return jnp.sin(convolve(x, w)).mean()

    def outer(x, w):
        gx, gw = jax.grad(inner, (0, 1))(x, w)
        return ((gx * 1e2) ** 2).mean() + (gw**2).sum()

    return (
        jax.grad(outer, (0, 1))(x, weight),
        jax.jvp(inner, (x, weight), (x, weight))[1],
        jax.jvp(lambda w: inner(x, w), (weight,), (weight,))[1],
        jax.grad(inner, 0)(x, weight),
        jax.grad(inner, 1)(x, weight),
        jax.vmap(jax.grad(inner, 1), (None, 0))(x, jnp.stack([weight, -2 * weight])),
        jax.jacfwd(lambda s: inner(x, s * weight))(1.0),
    )


@pytest.fixture
def few_outputs(monkeypatch):
    """The form for many outputs is used for few as well."""
    monkeypatch.setattr(forms, "_MANY_OUTPUTS", 100)


@on_cpu
@pytest.mark.usefixtures("few_outputs")
@pytest.mark.parametrize(("inputs", "outputs"), [(2, 19), (19, 2)])
def test_a_gradient_of_its_own_in_transforms(inputs, outputs):
    x, weight = normal(0, 4, inputs, 6, 7), normal(1, outputs, inputs, 3, 3) / 3
    g = geometry(2, padding=1)
    assert forms._form(x, weight, g) is forms._columns

    @jax.jit
    def both(x, w):
        return [derivatives(lambda x, w, f=f: f(x, w, g), x, w) for f in (forms.convolve, forms.plain)]

    found, expected = both(x, weight)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(jnp.abs(b).max()))


@on_cpu
@pytest.mark.usefixtures("few_outputs")
def test_no_gradient_by_the_input_is_computed_for_nothing():
    x, g = jnp.zeros((4, 2, 6, 7)), geometry(2, padding=1)
    gradient = jax.grad(lambda w: forms.convolve(x, w, g).sum())
    program = str(jax.make_jaxpr(gradient)(jnp.zeros((19, 2, 3, 3))))
    assert program.count("conv_general_dilated[") == 2  # forwards, and the gradient


@on_cpu
@pytest.mark.usefixtures("few_outputs")
def test_a_gradient_of_its_own_on_many_devices():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    x, weight = normal(0, 8, 2, 6, 7), normal(1, 19, 2, 3, 3)
    spec = jax.sharding.PartitionSpec

    def gradient(x, w):
        return jax.grad(lambda x, w: (F.conv2d(x, w) ** 2).mean(), (0, 1))(x, w)

    split = jax.shard_map(gradient, mesh=mesh, in_specs=(spec("data"), spec()), out_specs=(spec("data"), spec()))
    spread = jax.device_put(x, jax.NamedSharding(mesh, spec("data")))
    expected = gradient(x, weight)
    for found, factor in ((jax.jit(split)(x, weight), 2), (jax.jit(gradient)(spread, weight), 1)):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, factor * b, rtol=1e-4, atol=1e-4 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_forward_mode(ndim):
    x, weight = normal(0, 2, 2, *(3,) * ndim), normal(1, 2, 2, *(2,) * ndim)
    g = geometry(ndim, padding=1)
    _, found = jax.jvp(lambda w: forms.convolve(x, w, g), (weight,), (weight,))
    np.testing.assert_allclose(found, forms.plain(x, weight, g), rtol=1e-5, atol=1e-5)


def test_a_batch_of_any_size():
    (n,) = export.symbolic_shape("n")

    def f(x, y):
        z = F.conv2d(x, jnp.ones((4, 1, 3, 3)), padding=1, groups=2)
        return F.conv_transpose2d(z, jnp.ones((4, 1, 2, 2)), stride=2), F.unfold(y, 2)

    program = export.export(jax.jit(f))(bw.spec(n, 2, 4, 4), bw.spec(n, 2, 4, 4))
    x = normal(0, 3, 2, 4, 4)
    for found, expected in zip(program.call(x, x), f(x, x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_depthwise_on_many_devices():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    x, weight = normal(0, 4, 3, 5), normal(1, 3, 1, 2)

    def gradient(x, w):
        return jax.grad(lambda w: (F.conv1d(x, w, groups=3) ** 2).sum())(w)

    spec = jax.sharding.PartitionSpec
    split = jax.shard_map(gradient, mesh=mesh, in_specs=(spec("data"), spec()), out_specs=spec())
    np.testing.assert_allclose(split(x, weight), gradient(x, weight), rtol=1e-5)
