"""Guide, part 7: layers of one's own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import init, nn, optim


class CenteredLayer(nn.Module):
    def forward(self, X):
        return X - X.mean()


class MyLinear(nn.Module):
    def __init__(self, in_units, units):
        self.weight = nn.Parameter(shape=(in_units, units), init=init.normal())
        self.bias = nn.Parameter(shape=(units,), init=init.normal())

    def forward(self, X):
        return jax.nn.relu(X @ self.weight + self.bias)


class MyArrayLinear(nn.Module):
    """With parameters from values."""

    def __init__(self, in_units, units):
        self.weight = nn.Parameter(jax.random.normal(jax.random.key(0), (in_units, units)))
        self.bias = nn.Parameter(jnp.zeros(units))

    def forward(self, X):
        return jax.nn.relu(X @ self.weight + self.bias)


class MyDense(nn.Module):
    """The number of inputs follows from the data."""

    def __init__(self, units):
        self.weight = nn.Parameter(shape=(None, units), init=init.normal(0.1))
        self.bias = nn.Parameter(shape=(units,), init=init.zeros)

    def build(self, X):
        self.weight.shape = (X.shape[-1], None)

    def forward(self, X):
        return X @ self.weight + self.bias


class TensorReduction(nn.Module):
    """y_k = sum_ij W_ijk x_i x_j"""

    def __init__(self, units):
        self.weight = nn.Parameter(shape=(None, None, units), init=init.normal())

    def build(self, X):
        n = X.shape[-1]
        self.weight.shape = (n, n, None)

    def forward(self, X):
        return jnp.einsum("...i,...j,ijk->...k", X, X, self.weight)


class HalfFourier(nn.Module):
    """The leading half of the Fourier coefficients."""

    def forward(self, X):
        return jnp.fft.fft(X)[..., : X.shape[-1] // 2]


def uniform(*shape, seed=0):
    return jax.random.uniform(jax.random.key(seed), shape)


# -- without parameters --------------------------------------------------------------------------


def test_centered_layer_alone():
    layer = CenteredLayer()
    Y = layer(jnp.array([1.0, 2, 3, 4, 5]))
    np.testing.assert_array_equal(Y, [-2.0, -1.0, 0.0, 1.0, 2.0])
    assert layer.parameters() == []
    assert layer.state_dict() == {}
    assert repr(layer) == "CenteredLayer()"


def test_centered_layer_inside_of_a_network():
    net = nn.Sequential(nn.Linear(128), CenteredLayer())
    Y = net(uniform(4, 8))
    assert Y.shape == (4, 128)
    assert abs(float(Y.mean())) < 1e-6
    np.testing.assert_allclose(Y, net[0](uniform(4, 8)) - net[0](uniform(4, 8)).mean(), rtol=1e-5)
    np.testing.assert_allclose(bw.compile(net)(uniform(4, 8)), Y, rtol=1e-4, atol=1e-6)


# -- with parameters -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MyLinear, MyArrayLinear])
def test_my_linear(kind):
    linear = kind(5, 3)
    print(linear.weight)
    assert linear.weight.shape == (5, 3)
    assert type(linear.weight) is bw.Parameter
    x = uniform(2, 5)
    expected = np.maximum(np.asarray(x) @ np.asarray(linear.weight) + np.asarray(linear.bias), 0)
    np.testing.assert_allclose(linear(x), expected, rtol=1e-5)
    assert [name for name, _ in linear.named_parameters()] == ["weight", "bias"]


def test_my_linear_in_a_network():
    net = nn.Sequential(MyLinear(64, 8), MyLinear(8, 1))
    Y = net(uniform(2, 64))
    assert Y.shape == (2, 1)
    assert str(net) == (
        "Sequential(\n"
        "  (0): MyLinear(\n"
        "    (weight): Parameter(64, 8)\n"
        "    (bias): Parameter(8,)\n"
        "  )\n"
        "  (1): MyLinear(\n"
        "    (weight): Parameter(8, 1)\n"
        "    (bias): Parameter(1,)\n"
        "  )\n"
        ")"
    )


def test_my_linear_is_trained(tmp_path):
    net = nn.Sequential(MyLinear(4, 8), nn.Linear(1))
    x, y = uniform(32, 4), uniform(32, 4).sum(1, keepdims=True)
    opt = optim.adam(net, 1e-2)

    @bw.compile
    def step(x, y):
        loss, grads = bw.value_and_grad(lambda: ((net(x) - y) ** 2).mean(), net)()
        opt.step(grads)
        return loss

    first = float(step(x, y))
    for _ in range(100):
        last = float(step(x, y))
    assert last < first / 4
    net.save(tmp_path / "net.safetensors")
    other = nn.Sequential(MyLinear(4, 8), nn.Linear(1))
    other.load(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(other(x), net(x))


def test_the_default_initialiser():
    class Bare(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter(shape=(64, 16))
            self.scale = nn.Parameter(shape=(3,))

        def forward(self, x):
            return x

    layer = Bare()
    assert np.abs(layer.weight).max() <= 1 / 4
    assert np.std(layer.weight) == pytest.approx(1 / 4 / np.sqrt(3), rel=0.1)
    np.testing.assert_array_equal(layer.scale, np.zeros(3))


# -- with deferred sizes -------------------------------------------------------------------------


def test_my_dense():
    layer = MyDense(3)
    assert layer.weight.shape == (None, 3)
    assert str(layer) == "MyDense(\n  (weight): Parameter(?, 3)\n  (bias): Parameter(3,)\n)"
    x = uniform(2, 5)
    Y = layer(x)
    assert layer.weight.shape == (5, 3)
    np.testing.assert_allclose(Y, np.asarray(x) @ np.asarray(layer.weight), rtol=1e-5)


def test_my_dense_behaves_as_the_library_s_own(tmp_path):
    net = nn.Sequential(MyDense(8), nn.ReLU(), MyDense(2))
    net.initialize(bw.spec(1, 6))
    assert [p.shape for p in net.parameters(".*weight")] == [(6, 8), (8, 2)]
    Y = net(uniform(3, 6))
    net.save(tmp_path / "net.safetensors")
    other = nn.Sequential(MyDense(8), nn.ReLU(), MyDense(2))
    other.load(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(other(uniform(3, 6)), Y)


def test_a_contradiction_found_by_build():
    layer = MyDense(3)
    layer.weight.shape = (6, 3)
    with pytest.raises(bw.errors.ShapeMismatchError) as info:
        nn.Sequential(nn.Identity(), layer)(uniform(2, 5))
    assert str(info.value).startswith("Parameter '1.weight' has shape (6, 3), which contradicts (5, ?):")
    assert info.value.__notes__ == ["  in net.1 (MyDense()), called with float32[2, 5]"]


def test_another_width_in_a_later_call_says_where():
    net = nn.Sequential(nn.Identity(), MyDense(3))
    net(uniform(2, 5))
    with pytest.raises((TypeError, ValueError)) as info:
        net(uniform(2, 7))
    assert info.value.__notes__[-1] == "  in net.1 (MyDense()), called with float32[2, 7]"


def test_build_runs_once():
    calls = []

    class Counting(MyDense):
        def build(self, X):
            calls.append(X.shape)
            super().build(X)

    net = nn.Sequential(Counting(3))
    compiled = bw.compile(net)
    compiled(uniform(2, 5))
    compiled(uniform(2, 5))
    net(uniform(4, 5))
    net.clone()(uniform(2, 5))
    assert calls == [(2, 5)]


def test_build_may_make_layers():
    class Bottleneck(nn.Module):
        """Ends with as many features as it began with."""

        def __init__(self, width):
            self.down = nn.Linear(width)

        def build(self, x):
            self.up = nn.Linear(x.shape[-1])

        def forward(self, x):
            return x + self.up(jax.nn.relu(self.down(x)))

    net = nn.Sequential(Bottleneck(2), Bottleneck(3))
    x = uniform(2, 5)
    Y = bw.compile(net)(x)
    assert Y.shape == (2, 5)
    np.testing.assert_allclose(net(x), Y, rtol=1e-5)
    assert len(net.parameters()) == 8
    planned = nn.Sequential(Bottleneck(2), Bottleneck(3))
    planned.initialize(bw.spec(2, 5))
    assert [p.shape for p in planned.parameters()] == [p.shape for p in net.parameters()]


# -- exercises -----------------------------------------------------------------------------------


def test_tensor_reduction():
    layer = TensorReduction(3)
    x = np.asarray(uniform(2, 5))
    Y = layer(jnp.asarray(x))
    assert Y.shape == (2, 3)
    W = np.asarray(layer.weight)
    assert W.shape == (5, 5, 3)
    for n in range(2):
        for k in range(3):
            y = sum(W[i, j, k] * x[n, i] * x[n, j] for i in range(5) for j in range(5))
            np.testing.assert_allclose(Y[n, k], y, rtol=1e-4)


def test_tensor_reduction_gradient():
    layer = TensorReduction(3)
    x = uniform(5)
    grads = bw.grad(lambda v: layer(v)[1], layer)(x)
    expected = np.zeros((5, 5, 3))
    expected[:, :, 1] = np.outer(x, x)
    np.testing.assert_allclose(grads["weight"], expected, rtol=1e-5)


def test_half_fourier():
    layer = HalfFourier()
    x = np.asarray(uniform(3, 8))
    Y = layer(jnp.asarray(x))
    assert Y.shape == (3, 4)
    assert Y.dtype == jnp.complex64
    np.testing.assert_allclose(Y, np.fft.fft(x)[:, :4], rtol=1e-4, atol=1e-5)
    t = np.arange(8)
    wave = jnp.asarray(np.cos(2 * np.pi * t / 8), jnp.float32)
    np.testing.assert_allclose(np.abs(layer(wave)), [0, 4, 0, 0], atol=1e-5)
    np.testing.assert_allclose(bw.compile(layer)(x), Y, rtol=1e-4, atol=1e-5)


def test_half_fourier_in_a_network():
    net = nn.Sequential(HalfFourier(), jnp.abs, nn.Linear(2))
    assert net(uniform(3, 8)).shape == (3, 2)
    assert net[2].weight.shape == (2, 4)
    grads = bw.grad(lambda x: net(x).sum(), net)(uniform(3, 8))
    assert np.isfinite(grads["2.weight"]).all()
