"""Keras' layers in ours: each kind against its definition, and the ways in which files name them."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.io.foreign import FIXTURES
from tests.io.layouts.networks import error_of

from brickwork import nn
from brickwork.errors import CheckpointError, LoadError
from brickwork.io._source import Contents
from brickwork.io.layouts._adapt import adapt
from brickwork.io.layouts._keras_config import layers_of, snake

RNG = np.random.default_rng(0)


def some(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def file(layers, titles=None, config=None):
    """The contents of a ``.weights.h5``, of a ``.keras`` with ``config``."""
    tree = {f"{path}/vars/{i}": array for path, arrays in layers.items() for i, array in enumerate(arrays)}
    metadata = {"layer names": json.dumps(titles)} if titles else {}
    if config is not None:
        metadata["model_config"] = json.dumps(config)
    return Contents(tree, "keras", metadata)


def sequential(*layers, name="model"):
    items = [{"class_name": kind, "config": {"name": title, **options}} for kind, title, options in layers]
    return {"class_name": "Sequential", "config": {"name": name, "layers": items}}


def loaded(net, contents):
    net.load_state_dict(adapt(net, contents))
    return net.eval()


def close(found, wanted):
    np.testing.assert_allclose(np.asarray(found), np.asarray(wanted), rtol=1e-5, atol=1e-5)


# --- kinds of layers ------------------------------------------------------------------------------

CONV = ("NHWC", "HWIO", "NHWC")


def first(x):
    return jnp.moveaxis(x, -1, 1)


def last(x):
    return jnp.moveaxis(x, 1, -1)


def test_convolutions():
    kernel, bias, x = some(3, 2, 4, 6), some(6), some(2, 7, 8, 4)
    net = loaded(nn.Sequential(nn.Conv2d(6, (3, 2))), file({"layers/conv2d": [kernel, bias]}))
    close(last(net(first(x))), jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=CONV) + bias)


def test_convolutions_in_one_and_three_dimensions():
    kernel, x = some(3, 4, 6), some(2, 7, 4)
    net = loaded(nn.Sequential(nn.Conv1d(6, 3, bias=False)), file({"layers/conv1d": [kernel]}))
    wanted = jax.lax.conv_general_dilated(x, kernel, (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC"))
    close(last(net(first(x))), wanted)
    kernel, x = some(3, 2, 1, 4, 6), some(2, 5, 4, 3, 4)
    net = loaded(nn.Sequential(nn.Conv3d(6, (3, 2, 1), bias=False)), file({"layers/conv3d": [kernel]}))
    wanted = jax.lax.conv_general_dilated(x, kernel, (1, 1, 1), "VALID", dimension_numbers=("NDHWC", "DHWIO", "NDHWC"))
    close(last(net(first(x))), wanted)


def test_depthwise_convolutions():
    kernel, bias, x = some(3, 3, 4, 2), some(8), some(2, 7, 7, 4)
    net = nn.Sequential(nn.Conv2d(8, 3, groups=4), nn.Conv2d(8, 1))
    point = some(1, 1, 8, 8), some(8)
    loaded(net, file({"layers/conv2d": point, "layers/depthwise_conv2d": [kernel, bias]}))
    # Channel i of the input makes the channels 2 i and 2 i + 1 of the output.
    parts = [
        jax.lax.conv_general_dilated(
            x[..., i : i + 1], kernel[:, :, i : i + 1], (1, 1), "VALID", dimension_numbers=CONV
        )
        for i in range(4)
    ]
    close(last(net[0](first(x))), jnp.concatenate(parts, -1) + bias)


def test_transposed_convolutions():
    kernel, bias, x = some(3, 2, 5, 4), some(5), some(2, 4, 4, 4)
    net = loaded(
        nn.Sequential(nn.ConvTranspose2d(5, (3, 2), stride=2)), file({"layers/conv2d_transpose": [kernel, bias]})
    )
    wanted = jax.lax.conv_transpose(x, kernel, (2, 2), "VALID", dimension_numbers=CONV, transpose_kernel=True)
    close(last(net(first(x))), wanted + bias)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def keras_gru(x, kernel, recurrent, bias):
    """``keras.layers.GRUCell`` with ``reset_after=True``."""
    h = np.zeros((x.shape[0], recurrent.shape[0]), np.float32)
    outputs = []
    for t in range(x.shape[1]):
        xz, xr, xh = np.split(x[:, t] @ kernel + bias[0], 3, axis=-1)
        hz, hr, hh = np.split(h @ recurrent + bias[1], 3, axis=-1)
        z, r = sigmoid(xz + hz), sigmoid(xr + hr)
        h = z * h + (1 - z) * np.tanh(xh + r * hh)
        outputs.append(h)
    return np.stack(outputs, 1)


def keras_lstm(x, kernel, recurrent, bias):
    h = c = np.zeros((x.shape[0], recurrent.shape[0]), np.float32)
    outputs = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, 1)


@pytest.mark.parametrize("known", [3, None])
def test_gru(known):
    weights = some(3, 12), some(4, 12), some(2, 12)
    layer = nn.GRU(4, input_size=known, batch_first=True)
    net = loaded(nn.Sequential({"rnn": layer}), file({"layers/gru/cell": weights}, {"layers/gru/cell": "gru_cell"}))
    x = some(2, 5, 3)
    close(net(x)[0], keras_gru(x, *weights))


@pytest.mark.parametrize("config", [True, False])
def test_gru_that_resets_before(config):
    weights = [some(3, 12), some(4, 12)] + ([] if config else [some(12)])
    options = sequential(("GRU", "gru", {"reset_after": False})) if config else None
    with pytest.raises(
        LoadError, match=r"'layers/gru/cell' is a GRU with reset_after=False, .* can't compute the same"
    ):
        adapt(nn.GRU(4), file({"layers/gru/cell": weights}, {"layers/gru/cell": "gru_cell"}, options))


def test_simple_rnn():
    kernel, recurrent, bias = some(3, 4), some(4, 4), some(4)
    net = loaded(nn.RNN(4, batch_first=True), file({"layers/simple_rnn/cell": [kernel, recurrent, bias]}))
    x, h = some(2, 5, 3), np.zeros((2, 4), np.float32)
    for t in range(5):
        h = np.tanh(x[:, t] @ kernel + h @ recurrent + bias)
    close(net(x)[0][:, -1], h)


def both_ways(x, forward, backward):
    back = keras_lstm(x[:, ::-1], *backward)[:, ::-1]
    return np.concatenate([keras_lstm(x, *forward), back], -1)


@pytest.mark.parametrize("titles", [True, False])
def test_bidirectional_layers_become_levels(titles):
    levels = [[(some(n, 16), some(4, 16), some(16)) for _ in range(2)] for n in (3, 8)]
    layers, names = {}, {}
    for i, (forward, backward) in enumerate(levels):
        place = f"layers/bidirectional{'_1' if i else ''}"
        layers |= {f"{place}/backward_layer/cell": backward, f"{place}/forward_layer/cell": forward}
        names |= {f"{path}": "lstm_cell" for path in layers}
    net = nn.LSTM(4, num_layers=2, bidirectional=True, batch_first=True)
    inner = {"layer": {"class_name": "LSTM", "config": {"name": "lstm"}}}
    config = sequential(("Bidirectional", "bidirectional", inner), ("Bidirectional", "bidirectional_1", inner))
    loaded(net, file(layers, names) if titles else file(layers, None, config))
    x = some(2, 5, 3)
    wanted = both_ways(both_ways(x, *levels[0]), *levels[1])
    close(net(x)[0], wanted)


def test_norms_without_scale_or_center():
    beta, mean, variance = some(3), some(3), np.abs(some(3))
    config = sequential(("BatchNormalization", "n", {"scale": False, "center": True}))
    net = loaded(nn.BatchNorm1d(), file({"layers/batch_normalization": [beta, mean, variance]}, None, config))
    close(net.weight, np.ones(3))
    close(net.bias, beta)
    net = loaded(nn.BatchNorm1d(), file({"layers/batch_normalization": [mean, variance]}))
    close(net.running_mean, mean)
    close(net.bias, np.zeros(3))
    with pytest.raises(LoadError, match="has 3 variables, so it was made with center=False or with scale=False"):
        adapt(nn.BatchNorm1d(), file({"layers/batch_normalization": [beta, mean, variance]}))
    with pytest.raises(LoadError, match=r"has 1 variables.* load the whole model \(a \.keras file or the older \.h5\)"):
        adapt(nn.LayerNorm(), file({"layers/layer_normalization": [beta]}))


def test_other_layers():
    net = nn.Sequential(nn.GroupNorm(2), nn.PReLU(num_parameters=4), nn.Embedding(5, 4), nn.RMSNorm())
    gamma, beta, alpha, table, scale = some(4), some(4), some(1, 1, 4), some(5, 4), some(4)
    layers = {"layers/group_normalization": [gamma, beta], "layers/p_re_lu": [alpha], "layers/embedding": [table]}
    found = adapt(net, file(layers | {"layers/rms_normalization": [scale]}))
    close(found["0.weight"], gamma)
    close(found["1.weight"], alpha.reshape(-1))
    close(found["2.weight"], table)
    close(found["3.weight"], scale)


# --- names ----------------------------------------------------------------------------------------


class Branchy(nn.Module):
    """The network ``nested``, in another order than that of the file."""

    def __init__(self, sizes=True):
        self.aa_last = nn.Linear(2, in_features=5 if sizes else None, bias=False)
        self.zz_first = nn.Linear(5, in_features=6 if sizes else None)
        self.inner_block = nn.Sequential(
            {"in_a": nn.Linear(5, in_features=6 if sizes else None), "ln": nn.LayerNorm(eps=1e-3)}
        )

    def forward(self, x):
        return self.aa_last(self.inner_block(x) + self.zz_first(x))


class Nameless(nn.Module):
    """The same with other names, in the order of the file."""

    def __init__(self):
        self.block = nn.Sequential(nn.Linear(5), nn.LayerNorm(eps=1e-3))
        self.side, self.out = nn.Linear(5), nn.Linear(2, bias=False)

    def forward(self, x):
        return self.out(self.block(x) + self.side(x))


@pytest.mark.parametrize("ending", [".weights.h5", ".keras", ".h5"])
@pytest.mark.parametrize("sizes", [True, False])
def test_models_inside_of_models_by_name(ending, sizes):
    net = Branchy(sizes)
    net.load(FIXTURES / "keras" / f"nested{ending}")
    assert error_of(net, "keras", "nested") < 1e-5


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_models_inside_of_models_by_order(ending):
    net = Nameless()
    net.load(FIXTURES / "keras" / f"nested{ending}")
    assert error_of(net, "keras", "nested") < 1e-5


def test_models_inside_of_models_without_names_or_order():
    with pytest.raises(LoadError) as caught:
        Nameless().load(FIXTURES / "keras" / "nested.weights.h5")
    assert "layers/dense (shapes (6, 5), (5,)) fits 'block.0', 'side'" in str(caught.value)
    net = Nameless()
    net.load(FIXTURES / "keras" / "nested.weights.h5", rename={"^layers/dense/": "side/"})
    assert error_of(net, "keras", "nested") < 1e-5


def test_automatic_names_are_no_names():
    class Net(nn.Module):
        def __init__(self):
            self.dense_1, self.dense = nn.Linear(3, in_features=3), nn.Linear(3, in_features=3)

    arrays = {"layers/dense": [some(3, 3), some(3)], "layers/dense_1": [some(3, 3), some(3)]}
    found = adapt(Net(), file(arrays, {"layers/dense": "dense", "layers/dense_1": "dense_1"}))
    close(found["dense_1.bias"], arrays["layers/dense"][1])


def test_many_layers_count_as_numbers():
    net = nn.Sequential(*(nn.Linear(2, in_features=2) for _ in range(12)))
    layers = {f"layers/dense{f'_{i}' if i else ''}": [some(2, 2), np.full(2, i, np.float32)] for i in range(12)}
    found = adapt(net, file(dict(sorted(layers.items()))))
    assert [found[f"{i}.bias"][0] for i in range(12)] == list(range(12))


def test_attributes_are_names():
    class Net(nn.Module):
        def __init__(self):
            self.b, self.a = nn.Linear(2, in_features=2), nn.Linear(2, in_features=2)

    layers = {"a": [some(2, 2), some(2)], "b": [some(2, 2), some(2)]}
    found = adapt(Net(), file(layers, {"a": "dense", "b": "dense_1"}))
    close(found["a.bias"], layers["a"][1])


def test_state_that_is_not_of_layers_is_left_out():
    layers = {"layers/dense": [some(2, 2), some(2)], "layers/dropout/seed_generator": [np.zeros(2, np.uint32)]}
    found = adapt(nn.Linear(2), file(layers | {"optimizer": [np.int64(3), some(2, 2)]}))
    assert found.keys() == {"weight", "bias"}


def test_layers_without_a_counterpart_are_reported():
    layers = {"layers/dense": [some(2, 2), some(2)], "layers/einsum_dense": [some(2, 2)]}
    found = adapt(nn.Linear(2), file(layers))
    assert found.keys() == {"weight", "bias", "layers/einsum_dense/vars/0"}


def test_older_files_without_a_configuration():
    tree = {"a/a/kernel:0": some(3, 4), "a/a/bias:0": some(4), "b/gru/gru_cell/kernel:0": some(4, 6)}
    tree |= {"b/gru/gru_cell/recurrent_kernel:0": some(2, 6), "b/gru/gru_cell/bias:0": some(2, 6)}
    layers = json.dumps([["a", list(tree)[:2]], ["b", list(tree)[2:]]])
    net = nn.Sequential(nn.Linear(4), nn.GRU(2))
    found = adapt(net, Contents(tree, "keras", {"layers": layers}))
    close(found["0.weight"], tree["a/a/kernel:0"].T)
    close(found["1.weight_ih_l0"][:2], tree["b/gru/gru_cell/kernel:0"].T[2:4])


# --- flattened images -----------------------------------------------------------------------------


def flattened(channels=3, positions=4):
    """A dense kernel for inputs with channels last, and the weight for channels first."""
    kernel = some(positions * channels, 2)
    return kernel, kernel.reshape(positions, channels, 2).swapaxes(0, 1).reshape(-1, 2).T


CONVOLUTION = [some(2, 2, 1, 3), some(3)]


class ByHand(nn.Module):
    """A network that flattens without a ``Flatten``."""

    def __init__(self, inputs=None, flatten=None):
        self.conv, self.fc = nn.Conv2d(3, 2), nn.Linear(2, in_features=inputs)
        self.flatten = flatten

    def forward(self, x):
        return self.fc(self.conv(x).reshape(x.shape[0], -1))


def weights_of(kernel, *more):
    return {"layers/conv2d": CONVOLUTION, "layers/dense": [kernel, some(2)], **dict(more)}


NETWORKS = [
    lambda: nn.Sequential(nn.Conv2d(3, 2), nn.Flatten(), nn.Linear(2)),
    lambda: nn.Sequential(nn.Sequential(nn.Conv2d(3, 2), nn.ReLU()), nn.Sequential(nn.Flatten(), nn.Linear(2))),
    lambda: ByHand(flatten=nn.Flatten()),
    lambda: ByHand(12, nn.Flatten()),
]


@pytest.mark.parametrize("make", NETWORKS)
def test_the_network_says_that_it_flattens(make):
    kernel, wanted = flattened()
    found = adapt(make(), file(weights_of(kernel)))
    (weight,) = [array for name, array in found.items() if name.endswith("weight") and array.shape == (2, 12)]
    close(weight, wanted)


def test_nobody_says_whether_it_is_flattened():
    kernel, _ = flattened()
    with pytest.raises(LoadError) as caught:
        adapt(ByHand(), file(weights_of(kernel)))
    assert "fc.weight has 12 inputs, which look like a flattened image of 3 channels" in str(caught.value)
    assert "Load the whole model (a .keras file or the older .h5), or use an nn.Flatten" in str(caught.value)


def model(*between, **options):
    layers = [
        ("InputLayer", "input", {"batch_shape": [None, 3, 3, 1]}),
        ("Conv2D", "conv2d", {"filters": 3, **options}),
    ]
    return sequential(*layers, *between, ("Dense", "dense", {}))


def test_the_configuration_says_whether_it_is_flattened():
    kernel, wanted = flattened()
    flatten, relu, pool = ("Flatten", "flatten", {}), ("ReLU", "re_lu", {}), ("MaxPooling2D", "pool", {})
    for between in ([flatten], [relu, pool, flatten, ("Dropout", "dropout", {})]):
        close(adapt(ByHand(), file(weights_of(kernel), None, model(*between)))["fc.weight"], wanted)
    plain = [("GlobalAveragePooling2D", "pool", {})]
    for between, options in ((plain, {}), ([flatten], {"data_format": "channels_first"})):
        found = adapt(ByHand(), file(weights_of(kernel), None, model(*between, **options)))
        close(found["fc.weight"], kernel.T)


def test_as_many_inputs_as_channels_need_no_order():
    kernel = some(3, 2)
    close(adapt(ByHand(), file(weights_of(kernel)))["fc.weight"], kernel.T)


def test_sequences_are_flattened_as_they_are():
    config = sequential(
        ("Embedding", "e", {}), ("Flatten", "f", {}), ("Dense", "d", {}), ("Conv1D", "c", {"filters": 2})
    )
    kernel = some(12, 2)
    layers = {"layers/embedding": [some(5, 3)], "layers/dense": [kernel, some(2)], "layers/conv1d": [some(1, 1, 2)]}
    net = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(2), nn.Conv1d(2, 1, bias=False))
    close(adapt(net, file(layers, None, config))["2.weight"], kernel.T)
    close(adapt(net, file(layers))["2.weight"], kernel.T)


def test_two_heads_on_one_flattened_image():
    class Net(nn.Module):
        def __init__(self):
            self.conv, self.flatten = nn.Conv2d(3, 2), nn.Flatten()
            self.policy, self.value, self.after = nn.Linear(2), nn.Linear(2), nn.Linear(2)

    heads = [flattened(), flattened()]
    layers = weights_of(
        heads[0][0], ("layers/dense_1", [heads[1][0], some(2)]), ("layers/dense_2", [some(2, 2), some(2)])
    )
    items = [("Conv2D", "conv", {"filters": 3}, []), ("Flatten", "flatten", {}, ["conv"])]
    items += [("Dense", "p", {}, ["flatten"]), ("Dense", "v", {}, ["flatten"]), ("Dense", "a", {}, ["p"])]
    config = {"class_name": "Functional", "config": {"name": "m", "layers": []}}
    for kind, name, options, before in items:
        nodes = [{"args": [{"config": {"keras_history": [x, 0, 0]}} for x in before]}]
        older = [[[x, 0, 0, {}] for x in before]]
        item = {"class_name": kind, "name": name, "config": {"name": name, **options}}
        config["config"]["layers"].append({**item, "inbound_nodes": older if name == "v" else nodes})
    for contents in (file(layers), file(layers, None, config)):
        found = adapt(Net(), contents)
        close(found["policy.weight"], heads[0][1])
        close(found["value.weight"], heads[1][1])
        close(found["after.weight"], layers["layers/dense_2"][0].T)


def test_a_configuration_that_is_damaged():
    contents = Contents({"layers/dense/vars/0": some(2, 2)}, "keras", {"model_config": "[" * 100_000})
    with pytest.raises(CheckpointError, match="the file: the configuration of the model is not valid JSON"):
        adapt(nn.Linear(2), contents)
    for text in ("1", "[]", '{"config": {"layers": [1, {"config": [], "class_name": 3, "inbound_nodes": 1}]}}'):
        assert len(layers_of(text, "x")) in (0, 2)


@pytest.mark.parametrize("filters", [True, -3, 2.0, "3", None, 5])
def test_numbers_of_channels_that_cannot_be_leave_it_to_the_network(filters):
    kernel, wanted = flattened()
    config = model(("Flatten", "flatten", {}), filters=filters)
    close(adapt(ByHand(flatten=nn.Flatten()), file(weights_of(kernel), None, config))["fc.weight"], wanted)


def test_names_of_classes():
    names = {"Conv2DTranspose": "conv2d_transpose", "PReLU": "p_re_lu", "LSTM": "lstm", "SimpleRNN": "simple_rnn"}
    assert {name: snake(name) for name in names} == names
