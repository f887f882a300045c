"""Weights of 8 bits: small, close, and not trained."""

from __future__ import annotations

import pickle
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn, optim
from brickwork.errors import DeferredShapeError, LoadError, StructureError

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(3, 2, 5, 5)), jnp.float32)


def make():
    return nn.Sequential(
        nn.Conv2d(4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, groups=2, bias=False), nn.Flatten(), nn.Linear(6)
    )


def built():
    net = make()
    net(X)
    return net


LAYERS = [
    (nn.Linear(4, in_features=3), jnp.asarray(RNG.normal(size=(2, 5, 3)), jnp.float32)),
    (nn.Linear(4, in_features=3, bias=False), jnp.asarray(RNG.normal(size=3), jnp.float32)),
    (nn.Conv2d(4, (2, 3), in_channels=2, stride=2, padding=1, dilation=(1, 2)), X),
    (nn.Conv2d(4, 3, in_channels=2, groups=2, padding="same"), X[0]),
    (nn.Embedding(7, 3, padding_idx=1), jnp.array([[0, 1], [6, 1]])),
]


@pytest.mark.parametrize(("layer", "x"), LAYERS, ids=lambda v: repr(v) if isinstance(v, nn.Module) else "")
def test_the_error_is_bounded_by_the_scales(layer, x):
    """Each weight differs by at most half of its scale, and outputs by what follows from that."""
    quantised = nn.Quantized(layer)
    w, q, scale = (np.asarray(v, np.float64) for v in (layer.weight, quantised.weight, quantised.scale))
    scale = scale.reshape(-1, *[1] * (w.ndim - 1))
    rounded = q * scale
    assert (abs(rounded - w) <= scale / 2 * (1 + 1e-6)).all()
    assert (abs(q).max(tuple(range(1, w.ndim))) == 127).sum() >= len(w) - 1  # but for the row of padding
    y, close = np.asarray(layer(x)), np.asarray(quantised(x))
    twin = layer.clone()
    twin.weight.value = jnp.asarray(rounded, jnp.float32)
    np.testing.assert_allclose(close, twin(x), rtol=1e-4, atol=1e-4)
    if not isinstance(layer, nn.Embedding):  # the largest output of half a scale everywhere
        twin.weight.value = jnp.broadcast_to(jnp.asarray(scale / 2, jnp.float32), w.shape)
        twin.bias = None
        bound = np.asarray(twin(abs(x)))
        assert (abs(close - y) <= bound * 1.01).all()
        assert 1e-5 < abs(close - y).max() < 0.02 * abs(y).max()
    np.testing.assert_allclose(bw.compile(quantised)(x), close, rtol=1e-5, atol=1e-6)


def test_a_network():
    net = built()
    expected = net(X)
    bias = net[0].bias
    assert nn.quantize(net) is net
    assert [type(m).__name__ for m in net] == ["Quantized", "ReLU", "Quantized", "Flatten", "Quantized"]
    assert repr(net[2]) == "Quantized(Conv2d(4 → 4, kernel_size=3, groups=2, bias=False))"
    assert list(net.state_dict()) == [
        "0.weight",
        "0.scale",
        "0.bias",
        "2.weight",
        "2.scale",
        *[f"4.{n}" for n in ("weight", "scale", "bias")],
    ]
    assert net[0].bias is bias and net[4].weight.name == "4.weight"
    assert abs(net(X) - expected).max() < 0.02 * abs(expected).max()
    assert repr(nn.quantize(built(), r"4")[0]).startswith("Conv2d")


def test_a_quarter_of_the_memory():
    net = nn.Sequential(nn.Linear(256, in_features=512), nn.Linear(64, in_features=256), nn.Embedding(300, 40))
    before = sum(v.value.nbytes for v in net.variables())
    dead = [weakref.ref(layer.weight) for layer in net]
    nn.quantize(net)
    after = sum(v.value.nbytes for v in net.variables())
    assert after < 0.27 * before
    assert [r() for r in dead] == [None] * 3  # nothing keeps the old weights


def test_files(tmp_path):
    net = nn.quantize(built())
    net.save(tmp_path / "net")
    assert bw.load(tmp_path / "net")["0.weight"].dtype == np.int8
    bw.seed(5)
    other = nn.quantize(built())
    assert (np.asarray(other[4].weight) != np.asarray(net[4].weight)).any()
    assert not other.load(tmp_path / "net")
    np.testing.assert_array_equal(other(X), net(X))
    for twin in (net.clone(), pickle.loads(pickle.dumps(net)), jax.tree.map(lambda v: v, net)):
        np.testing.assert_array_equal(twin(X), net(X))


def test_a_file_of_floats_does_not_become_integers(tmp_path):
    plain = built()
    plain.save(tmp_path / "plain")
    net = nn.quantize(built())
    before = net(X)
    with pytest.raises(LoadError, match=r"0\.weight: the network has int8, the state fractions"):
        net.load(tmp_path / "plain", strict=False)
    np.testing.assert_array_equal(net(X), before)
    counters = nn.Sequential(nn.BatchNorm1d(num_features=2))
    state = counters.state_dict()
    counters.load_state_dict(state | {"0.num_batches_tracked": np.float32(3)})  # whole numbers lose nothing
    assert int(counters[0].num_batches_tracked) == 3


@pytest.mark.parametrize("strict", [False, True])
def test_integers_do_not_become_weights_of_floats(tmp_path, strict):
    nn.quantize(built()).save(tmp_path / "small")
    net = built()
    before = net(X)
    problem = (
        r"0\.weight: the network has float32, the state integers of 8 bits, .* quantise this one first, nn\.quantize"
    )
    with pytest.raises(LoadError, match=problem):
        net.load(tmp_path / "small", strict=strict)
    for convert in (np.asarray, jnp.asarray):
        for dtype in (np.int8, np.uint8):
            with pytest.raises(LoadError, match=r"0\.bias: the network has float32"):
                net.load_state_dict({"0.bias": convert(np.ones(4, dtype))}, strict=strict)
    np.testing.assert_array_equal(net(X), before)
    repeat = nn.Repeat(lambda: nn.Linear(3, in_features=3), 2)
    with pytest.raises(LoadError, match=r"1\.weight: the network has float32"):
        repeat.load_state_dict(repeat.state_dict() | {"1.weight": np.ones((3, 3), np.int8)}, strict=strict)


def test_whole_numbers_that_are_loaded_as_floats():
    net = nn.Sequential(nn.BatchNorm1d(num_features=2))
    for dtype in (np.int32, np.int64, np.float16, bool):
        net.load_state_dict(net.state_dict() | {"0.weight": np.array([1, 0], dtype)})
        np.testing.assert_array_equal(net[0].weight, [1, 0])
    net.load_state_dict({"0.weight": [3, 4], "0.running_mean": np.array([1, 2], np.int8)}, strict=False)
    np.testing.assert_array_equal(net[0].weight, [3, 4])
    np.testing.assert_array_equal(net[0].running_mean, [1, 2])


def test_a_computed_bias_is_refused():
    """It would have no place among what is saved."""
    net = nn.Sequential(nn.Linear(4, in_features=3))
    nn.parametrize(net[0], "bias", nn.Tanh())
    with pytest.raises(StructureError, match=r"Quantized: the bias of ParametrizedLinear is computed by a param"):
        nn.quantize(net)
    assert list(net.state_dict()) == ["0.weight", "0.parametrizations.bias.original"]


def test_weights_are_not_trained_but_gradients_pass_through():
    net = built()
    twin = net.clone()
    nn.quantize(net)
    for i in (0, 2, 4):  # the same in floats
        scale = net[i].scale.value.reshape(-1, *[1] * (net[i].weight.ndim - 1))
        twin[i].weight.value = net[i].weight.value.astype(jnp.float32) * scale
    gradients = []
    for each in (net, twin):
        pure, state = bw.functional(each)
        gradients.append(jax.grad(lambda x, pure=pure, state=state: (pure(state, x)[0] ** 2).sum())(X))
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-3, atol=1e-4)
    gradients = bw.grad(lambda x: net(x).sum(), net)(X)
    assert list(gradients) == ["0.bias", "4.bias"]
    with pytest.raises(TypeError, match="wrt must be a module, a parameter"):
        bw.grad(lambda x: net(x).sum(), [net[4].weight])(X)


def test_an_adapter_on_quantised_weights():
    net = nn.lora(nn.quantize(built()), r"[024]", rank=2)
    before = net(X)
    opt = optim.adam(net, 0.02)
    assert [n for n, p in net.named_parameters() if p.trainable][:2] == ["0.lora_A", "0.lora_B"]

    @bw.compile
    def step(x):
        loss, grads = bw.value_and_grad(lambda x: ((net(x) - 1) ** 2).mean(), net)(x)
        opt.step(grads)
        return loss

    losses = [float(step(X)) for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0] and step.stats().compilations == 1
    assert (net(X) != before).any() and net[4].weight.dtype == jnp.int8
    with pytest.raises(StructureError, match="merge_lora: the weight of '0' is quantised"):
        nn.merge_lora(net)
    assert type(net[0]) is nn.LoRA
    # the other way round
    other = nn.lora(built(), r"4", rank=2)
    nn.quantize(other)
    assert type(other[4]) is nn.LoRA and type(other[4].base) is nn.Quantized
    other(X)


def test_ties():
    class Tied(nn.Module):
        def __init__(self):
            self.encoder = nn.Embedding(7, 4)
            self.decoder = nn.Linear(7, in_features=4)
            self.decoder.weight = self.encoder.weight
            self.again = self.decoder

        def forward(self, x):
            return self.decoder(self.encoder(x)) + self.again(self.encoder(x))

    net, x = Tied(), jnp.array([[0, 3, 6]])
    expected = net(x)
    nn.quantize(net)
    assert net.again is net.decoder
    assert net.encoder.weight is net.decoder.weight and net.encoder.scale is net.decoder.scale
    assert list(net.state_dict()) == ["encoder.weight", "encoder.scale", "decoder.bias"]
    assert abs(net(x) - expected).max() < 0.03 * abs(expected).max()


def test_in_a_repeat():
    net = nn.Repeat(lambda: nn.Sequential(nn.Linear(4), nn.Tanh()), 3)
    x = jnp.ones((2, 4))
    expected = net(x)
    nn.quantize(net)
    assert net.block[0].weight.shape == (3, 4, 4) and net.block[0].scale.shape == (3, 4)
    assert list(net.state_dict())[:3] == ["0.0.weight", "0.0.scale", "0.0.bias"]
    assert 0 < abs(net(x) - expected).max() < 0.02
    np.testing.assert_allclose(bw.compile(net)(x), net(x), rtol=1e-5, atol=1e-6)
    blocks = nn.Sequential(*[net[i] for i in range(3)])
    np.testing.assert_allclose(blocks(x), net(x), rtol=1e-5, atol=1e-6)


def test_sizes_must_be_known():
    net = make()
    with pytest.raises(DeferredShapeError, match=r"0\.weight"):
        nn.quantize(net)
    assert type(net[0]) is nn.Conv2d
    assert type(nn.quantize(net.initialize(bw.spec(*X.shape)))[0]) is nn.Quantized


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_floats(dtype):
    layer = nn.Linear(4, in_features=64).to(dtype)
    quantised = nn.Quantized(layer)
    assert quantised.scale.dtype == dtype
    error = abs(
        np.asarray(quantised.weight, np.float64) * np.asarray(quantised.scale, np.float64)[:, None]
        - np.asarray(layer.weight, np.float64)
    )
    assert (error <= np.asarray(quantised.scale, np.float64)[:, None] * 0.8).all()  # the scale is rounded, too
    x = jnp.asarray(RNG.normal(size=(3, 64)), dtype)
    assert quantised(x).dtype == dtype
    np.testing.assert_allclose(quantised(x).astype(jnp.float32), layer(x).astype(jnp.float32), atol=0.03)


def test_hooks_stay():
    net = built()
    seen = []
    net[4].register_forward_hook(lambda module, args, output: seen.append(type(module)))
    nn.quantize(net)(X)
    assert seen == [nn.Quantized]
