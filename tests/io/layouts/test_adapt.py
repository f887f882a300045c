"""Networks load what other frameworks saved, and compute what those computed."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from tests.io.foreign import FIXTURES, expected
from tests.io.layouts.networks import MLP, EmbedLSTM, error_of, keras_lenet, lenet, mlp, norm_mlp, tied

import brickwork as bw
from brickwork import nn
from brickwork.errors import CheckpointError, LoadError
from brickwork.io._source import Contents
from brickwork.io.layouts._adapt import adapt

# framework, network, name of the expected outputs, files
CASES = [
    ("torch", MLP, "mlp", ["mlp.params", "mlp_legacy.params"]),
    ("torch", lenet, "lenet_bn", ["lenet_bn.params", "lenet_bn.safetensors"]),
    ("torch", tied, "tied", ["tied.params", "tied.safetensors"]),
    ("torch", EmbedLSTM, "embed_lstm", ["embed_lstm.params", "embed_lstm.safetensors"]),
    ("mxnet", MLP, "mlp", ["mlp.params"]),
    ("mxnet", MLP, "mlp_export", ["mlp_export-0000.params"]),
    ("mxnet", mlp, "mlp_export", ["mlp_export-0000.params"]),
    ("mxnet", lenet, "lenet_bn", ["lenet_bn.params"]),
    ("mxnet", tied, "tied", ["tied.params", "tied_dedup.params"]),
    ("mxnet", EmbedLSTM, "embed_lstm", ["embed_lstm.params"]),
    ("mxnet", norm_mlp, "legacy_mlp", ["legacy_mlp.params", "legacy_mlp_namescope.params"]),
    ("mxnet2", MLP, "mlp", ["mlp.params"]),
    ("mxnet2", mlp, "mlp_export", ["mlp_export-0000.params"]),
    ("mxnet2", lenet, "lenet_bn", ["lenet_bn.params"]),
    ("mxnet2", tied, "tied", ["tied.params", "tied_dedup.params"]),
    ("mxnet2", EmbedLSTM, "embed_lstm", ["embed_lstm.params"]),
    *(
        (framework, network, name, [f"{name}.pdparams"])
        for framework in ("paddle", "paddle2")
        for network, name in ((MLP, "mlp"), (lenet, "lenet_bn"), (tied, "tied"), (EmbedLSTM, "embed_lstm"))
    ),
    ("keras", mlp, "mlp", ["mlp.weights.h5", "mlp.keras", "mlp.h5", "mlp_sharded.weights.json", "mlp_tfckpt"]),
    ("keras", MLP, "mlp", ["mlp.weights.h5", "mlp.keras", "mlp.h5", "mlp_sharded.weights.json", "mlp_tfckpt"]),
    ("keras", MLP, "mlp_subclass", ["mlp_subclass.weights.h5", "mlp_subclass.keras"]),
    ("keras", mlp, "mlp_trained", ["mlp_trained.weights.h5", "mlp_trained.keras"]),
    ("keras", keras_lenet, "lenet_bn", ["lenet_bn.weights.h5", "lenet_bn.keras", "lenet_bn.h5"]),
    ("keras", tied, "tied", ["tied.weights.h5", "tied.keras", "tied.h5"]),
    ("keras", EmbedLSTM, "embed_lstm", ["embed_lstm.weights.h5", "embed_lstm.keras", "embed_lstm.h5"]),
    ("keras2", MLP, "mlp", ["mlp.weights.h5", "mlp.h5weights.h5", "mlp.params"]),
    (
        "keras2",
        keras_lenet,
        "lenet_bn",
        ["lenet_bn.weights.h5", "lenet_bn.keras", "lenet_bn.h5", "lenet_bn.h5weights.h5"],
    ),
]
FILES = [(framework, network, name, file) for framework, network, name, files in CASES for file in files]


@pytest.mark.parametrize("sizes", [True, False], ids=["sizes", "deferred"])
@pytest.mark.parametrize(
    ("framework", "network", "name", "file"), FILES, ids=[f"{f}-{n.__name__}-{file}" for f, n, _, file in FILES]
)
def test_networks_compute_what_the_framework_computed(framework, network, name, file, sizes):
    net = network(sizes)
    assert not net.load(FIXTURES / framework / file)
    assert error_of(net, framework, name) < 1e-5


@pytest.mark.parametrize("version", [0, 1])
def test_convolutions_of_old_mxnet(version):
    net = nn.Sequential(
        nn.Conv2d(4, 3, padding=1),
        nn.BatchNorm2d(eps=1e-3),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(5),
        nn.Softmax(dim=-1),
    )
    net.load(FIXTURES / "mxnet" / f"v{version}_convnet-0007.params")
    assert error_of(net, "mxnet", f"v{version}_convnet") < 1e-5


def test_modules_of_old_mxnet_by_their_own_names():
    class Net(nn.Module):
        def __init__(self):
            self.fc2 = nn.Linear(3)  # the order says nothing where there are names
            self.bn1 = nn.BatchNorm1d(eps=1e-3)
            self.fc1 = nn.Linear(6)

        def forward(self, x):
            return nn.Softmax(dim=-1)(self.fc2(nn.ReLU()(self.bn1(self.fc1(x)))))

    net = Net()
    net.load(FIXTURES / "mxnet" / "legacy_module-0003.params")
    assert error_of(net, "mxnet", "legacy_module") < 1e-5


# --- names and layouts one by one -----------------------------------------------------------------


def state(net, kind, tree, **metadata):
    return adapt(net, Contents(tree, kind, metadata))


def numbers(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_positions_may_differ_names_may_not():
    class Net(nn.Module):
        def __init__(self):
            self.features = nn.Sequential(nn.Linear(3, in_features=2), nn.ReLU(), nn.Linear(3, in_features=3))
            self.head = nn.Linear(3, in_features=3)

    weights = {f"features.{i}.weight": numbers(3, 2 + i) for i in (0, 1)}
    biases = {f"features.{i}.bias": numbers(3) for i in (0, 1)}
    found = state(Net(), "mxnet", weights | biases | {"output.weight": numbers(3, 3), "output.bias": numbers(3)})
    names = [name for name in found if name.startswith("features.")]
    assert names == ["features.0.weight", "features.0.bias", "features.2.weight", "features.2.bias"]
    assert list(found)[4:] == ["output.weight", "output.bias"]


def test_positions_that_all_exist_are_meant():
    net = nn.Sequential(nn.Linear(3, in_features=3), nn.ReLU(), nn.Linear(3, in_features=3), nn.Linear(3))
    found = state(net, "mxnet", {f"{i}.{role}": numbers(3, *more) for i in (0, 3) for role, more in ROLES})
    assert list(found) == ["0.weight", "0.bias", "3.weight", "3.bias"]


ROLES = (("weight", (3,)), ("bias", ()))


def test_numbered_names_of_mxnet_count_as_numbers():
    net = nn.Sequential(*(nn.Linear(3, in_features=3) for _ in range(12)))
    tree = {f"net0_dense{i}_{role}": i + numbers(3, *more) for i in range(8, 20) for role, more in ROLES}
    found = state(net, "mxnet", tree)
    assert [float(found[f"{i}.bias"][0]) for i in range(12)] == list(range(8, 20))


def test_names_without_an_order_are_matched_by_what_fits():
    net = nn.Sequential(nn.Linear(3, in_features=2), nn.Linear(4, in_features=3))
    tree = {"b_weight": numbers(4, 3), "b_bias": numbers(4), "a_weight": numbers(3, 2), "a_bias": numbers(3)}
    assert state(net, "mxnet", tree).keys() == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_what_fits_in_several_ways_is_an_error():
    net = nn.Sequential(nn.Linear(3, in_features=3), nn.Linear(3, in_features=3))
    tree = {f"{name}_{role}": numbers(3, *more) for name in "ab" for role, more in ROLES}
    with pytest.raises(LoadError) as caught:
        state(net, "mxnet", tree)
    lines = str(caught.value).splitlines()
    assert lines[0] == "the file: it can't be told which layer of the network some layers of the file belong to:"
    assert lines[1] == "    a (shapes (3, 3), (3,)) fits '0', '1'"
    assert "rename={pattern: replacement}" in lines[3]


def test_renaming_says_which_is_which(tmp_path):
    from tests.io.formats.test_mxnet import dense, file

    path = tmp_path / "x.params"
    arrays = [dense(np.float32(x)) for x in ([[1]], [1], [[2]], [2])]
    path.write_bytes(file(*arrays, names=["a_weight", "a_bias", "b_weight", "b_bias"]))
    net = nn.Sequential(nn.Linear(1, in_features=1), nn.Linear(1, in_features=1))
    with pytest.raises(LoadError, match="can't be told which layer"):
        net.load(path)
    net.load(path, rename={"^a": "1", "^b": "0"})
    assert net[0].weight.item() == 2 and net[1].weight.item() == 1


def test_recurrent_layers_of_gluon():
    net = nn.Sequential({"rnn": nn.GRU(4, input_size=3, num_layers=2, bidirectional=True)})
    wanted = {entry: np.asarray(value) for entry, value in net.state_dict().items()}
    forms = {
        "unfused": lambda layer, side, part, what: f"rnn._unfused.{layer}.{side}_cell.{part}_{what}",
        "flat": lambda layer, side, part, what: f"rnn.{side}{layer}_{part}_{what}",
        "scope": lambda layer, side, part, what: f"model0_gru0_{side}{layer}_{part}_{what}",
    }
    for form in forms.values():
        tree = {}
        for name, value in wanted.items():
            _, what, part, layer = name.replace("rnn.", "rnn_").split("_")[:4]
            side = "r" if name.endswith("_reverse") else "l"
            tree[form(layer[1:], side, {"ih": "i2h", "hh": "h2h"}[part], what)] = value
        assert state(net, "mxnet", tree).keys() == wanted.keys()


def test_recurrent_layers_of_mxnet_2_in_one_array():
    for known in (3, None):
        net = nn.LSTM(4, input_size=known, num_layers=2, bidirectional=True)
        reference = nn.LSTM(4, input_size=3, num_layers=2, bidirectional=True).state_dict()
        parts = [k for k in reference if k.startswith("weight")] + [k for k in reference if k.startswith("bias")]
        flat = np.concatenate([np.asarray(reference[name]).ravel() for name in parts])
        found = state(net, "numpy", {"rnn_param": flat})
        assert all((found[name] == reference[name]).all() for name in reference)
        assert list(state(net, "numpy", {"rnn_param": flat[1:]})) == ["rnn_param"]


def test_norms_and_slopes_of_gluon():
    class Net(nn.Module):
        def __init__(self):
            self.norm = nn.LayerNorm(normalized_shape=3)
            self.slope = nn.PReLU()

    tree = {"norm.gamma": numbers(3), "norm.beta": numbers(3), "slope.alpha": numbers(1)}
    assert list(state(Net(), "mxnet", tree)) == ["norm.weight", "norm.bias", "slope.weight"]


def test_the_same_name_twice():
    with pytest.raises(LoadError, match="'arg:a_gamma' and 'a_weight' are the same for brickwork; keep one of them"):
        state(nn.Linear(2), "mxnet", {"arg:a_gamma": numbers(2), "a_weight": numbers(2)})


def test_names_that_fit_already_are_left_alone():
    net = nn.MultiheadAttention(2, embed_dim=4)
    tree = {name: np.asarray(value) for name, value in net.state_dict().items()}
    assert state(net, "numpy", tree).keys() == tree.keys()


def test_paddle_by_the_layers_of_the_network():
    class Net(nn.Module):
        def __init__(self):
            self.dense = nn.Linear(3, in_features=3)
            self.table = nn.Embedding(4, 4)
            self.up = nn.ConvTranspose2d(2, 3, in_channels=4)
            self.rnn = nn.LSTM(2, input_size=3, bidirectional=True)

    rnn = {name: np.asarray(value) for name, value in Net().state_dict().items() if name.startswith("rnn.")}
    cells = {}
    for name, value in rnn.items():
        role, _, reverse = name.removeprefix("rnn.").partition("_l0")
        cells[f"rnn.0.cell_{'bw' if reverse else 'fw'}.{role}"] = value
    tree = {
        "dense.weight": numbers(3, 3),
        "table.weight": numbers(4, 4),
        "up.weight": numbers(4, 2, 3, 3),
        **rnn,
        **cells,
    }
    found = state(Net(), "paddle", tree)
    assert found.keys() == tree.keys() - cells.keys()
    assert (found["dense.weight"] == numbers(3, 3).T).all()
    assert all((found[name] == tree[name]).all() for name in found if name != "dense.weight")


def test_counts_of_batches_stay_as_they_are():
    net = nn.BatchNorm1d(num_features=3)
    net(jnp.ones((2, 3)))
    tree = {"gamma": numbers(3), "beta": numbers(3), "running_mean": numbers(3), "running_var": numbers(3)}
    assert int(state(net, "mxnet", tree)["num_batches_tracked"]) == 1


def test_what_does_not_fit_is_reported_under_the_names_of_the_file():
    net = mlp()
    with pytest.raises(LoadError) as caught:
        net.load(FIXTURES / "keras" / "tied.weights.h5")
    message = str(caught.value)
    assert "0.weight" in message and "layers/dense/vars/0" in message


def test_weights_of_paddle_without_a_file():
    net = MLP(sizes=False)
    net.load_state_dict(state(net, "paddle", expected("paddle", "mlp")))
    assert error_of(net, "paddle", "mlp") < 1e-5


@pytest.mark.parametrize("file", ["mxnet/mlp.params", "keras/mlp.h5", "keras2/mlp.params", "keras/x-file.tensorproto"])
def test_formats_without_checksums_say_so(file):
    with pytest.raises(CheckpointError, match=r"cannot verify this .*; load it without verify=True"):
        bw.load(FIXTURES / file, verify=True)


def test_stacked_layers_have_the_names_of_single_ones():
    net = nn.Sequential({"stack": nn.Repeat(lambda: nn.Linear(3, in_features=3), 3)})
    names = [name for name in net.state_dict() if name.endswith("weight")]
    assert len(names) == 3
    layers = {f"layers/dense{f'_{i}' if i else ''}": (numbers(3, 3) + i, numbers(3) + i) for i in range(3)}
    tree = {f"{path}/vars/{i}": array for path, arrays in layers.items() for i, array in enumerate(arrays)}
    net.load_state_dict(state(net, "keras", tree))
    for i, name in enumerate(names):
        assert (net.state_dict()[name] == numbers(3, 3).T + i).all()
