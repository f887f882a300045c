"""Missing files, files of other networks, damaged files, and saving that can't work."""

from __future__ import annotations

import os

import jax.numpy as jnp
import numpy as np
import pytest
from tests.errors.checks import refuse, unchanged

import brickwork as bw
from brickwork import nn, optim
from brickwork.errors import BrickworkError, CheckpointError, DeferredShapeError, LoadError

X = np.ones((2, 20), np.float32)


def mlp(*widths):
    layers = []
    for width in widths or (6, 4):
        layers += [nn.Linear(width), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.fixture
def net():
    net = mlp()
    net(X)
    return net


@pytest.fixture
def path(net, tmp_path):
    net.save(tmp_path / "mlp.safetensors")
    return tmp_path / "mlp.safetensors"


def test_a_missing_file(net, tmp_path):
    path = tmp_path / "nothing.safetensors"
    with unchanged(net):
        for call in (lambda: net.load(path), lambda: bw.load(path)):
            error = refuse(call, CheckpointError, f"cannot load '{path}': there is no such file")
            assert isinstance(error, FileNotFoundError)
            assert isinstance(error, BrickworkError)


def test_a_missing_file_with_a_neighbour(net, path):
    wrong = path.with_name("mpl.safetensors")
    refuse(
        lambda: net.load(wrong),
        CheckpointError,
        f"cannot load '{wrong}': there is no such file; did you mean 'mlp.safetensors'?",
    )


def test_a_directory(net, path):
    folder = path.parent
    net.save(folder / "other.safetensors")
    with unchanged(net):
        error = refuse(
            lambda: net.load(folder),
            CheckpointError,
            f"cannot load '{folder}': it is a directory of several checkpoints; name one: 'mlp.safetensors', "
            "'other.safetensors'",
        )
    assert isinstance(error, IsADirectoryError)


def test_an_empty_file(net, tmp_path):
    path = tmp_path / "empty"
    path.touch()
    refuse(lambda: net.load(path), CheckpointError, f"cannot load '{path}': it is empty")


def test_no_checkpoint(net, tmp_path):
    path = tmp_path / "letter.txt"
    path.write_text("Dear Sir or Madam, ...")
    with unchanged(net):
        refuse(
            lambda: net.load(path),
            CheckpointError,
            f"cannot load '{path}': it is of no known format; it begins with b'Dear Sir or Mada'. Known are ...",
        )


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_a_truncated_file(net, path, keep):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with unchanged(net):
        refuse(lambda: net.load(path), CheckpointError, f"...{path}...byte ...truncated...")


def test_a_file_of_another_network(path):
    other = nn.Sequential(nn.Linear(6), nn.Linear(4))
    with unchanged(other):
        error = refuse(
            lambda: other.load(path),
            LoadError,
            f"{path} does not fit the network:\n"
            "  missing (the network has it, the state does not):\n"
            "    1.weight  (similar: 2.weight)\n"
            "    1.bias  (similar: 2.bias)\n"
            "  unexpected (the state has it, the network does not):\n"
            "    2.weight  (similar: 1.weight)\n"
            "    2.bias  (similar: 1.bias)\n"
            "  Use strict=False to skip missing and unexpected names, or rename={pattern: replacement}.",
        )
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("strict", [True, False])
def test_a_file_of_a_network_of_other_sizes(path, strict):
    other = mlp(5, 4)
    with unchanged(other):
        error = refuse(
            lambda: other.load(path, strict=strict),
            LoadError,
            f"{path} does not fit the network:\n"
            "  mismatched:\n"
            "    0.weight: the network has (5, ?), the state (6, 20)\n"
            "    0.bias: the network has (5,), the state (6,)...",
        )
    assert "strict=False" not in str(error)  # which would not help
    assert other[0].weight.shape == (5, None)


def test_a_file_that_fits_only_in_part_changes_nothing(path):
    other = mlp(6, 3)
    other(X)
    with unchanged(other):
        refuse(
            lambda: other.load(path, strict=False),
            LoadError,
            f"{path} does not fit the network:\n"
            "  mismatched:\n"
            "    2.weight: the network has (3, 6), the state (4, 6)\n"
            "    2.bias: the network has (3,), the state (4,)...",
        )


def test_a_file_that_fits_what_is_known_but_not_itself(tmp_path):
    """Weight and bias of different widths; each fits the layer's unknown sizes."""
    bw.save(tmp_path / "x", {"weight": jnp.ones(3), "bias": jnp.ones(4),
                             "running_mean": jnp.ones(3), "running_var": jnp.ones(3),
                             "num_batches_tracked": jnp.zeros((), jnp.int32)})  # fmt: skip
    layer = nn.BatchNorm1d()
    layer.load(tmp_path / "x")
    with pytest.raises(bw.errors.ShapeMismatchError):
        layer(jnp.ones((2, 3)))


def test_a_file_of_something_else(net, tmp_path):
    path = tmp_path / "list"
    bw.save(path, [jnp.ones(2)])
    with unchanged(net):
        refuse(
            lambda: net.load(path),
            CheckpointError,
            f"{path}: holds a list, not a plain dict from names to arrays; open it with bw.load and "
            "pass the part that belongs to the network to net.load_state_dict",
        )
    bw.save(path, {"net": net.state_dict(), "step": 3})
    refuse(
        lambda: net.load(path),
        CheckpointError,
        f"{path}: holds a dict with the entries ['net', 'step'], not a plain dict from names to "
        "arrays; load(path, prefix='net.') takes what is in 'net'",
    )
    net.load(path, prefix="net.")  # as it says


def test_a_state_that_is_no_state(net):
    with unchanged(net):
        refuse(
            lambda: net.load_state_dict([1, 2]),
            TypeError,
            "load: expected a mapping from names to arrays, got list",
        )
        refuse(
            lambda: net.load_state_dict(net.state_dict() | {"0.bias": np.full(6, None)}),
            TypeError,
            "Parameter '0.bias': a variable holds numbers, got ndarray with dtype object; convert it "
            "to a numeric array first",
        )


def test_renaming_two_into_one(net, path):
    with unchanged(net):
        refuse(
            lambda: net.load(path, rename={r"^\d": "0"}),
            LoadError,
            "load: two names become '0.weight' after renaming; one of them is '2.weight'",
        )


# -- saving --------------------------------------------------------------------------------------


def test_saving_before_shapes_are_known_keeps_the_old_file(path):
    before = path.read_bytes()
    net = mlp()
    with unchanged(net):
        refuse(
            lambda: net.save(path),
            DeferredShapeError,
            "Parameter '0.weight' has shape (6, ?): a size is not known yet. Call the network on data "
            "once, give it the shape of its input with net.initialize(bw.spec(...)), load a file, or "
            "give the size when constructing the layer.",
        )
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["mlp.safetensors"]


def test_saving_where_there_is_no_directory(net, tmp_path):
    path = tmp_path / "no" / "such"
    error = refuse(
        lambda: net.save(path),
        CheckpointError,
        f"cannot write '{path}': the directory '{path.parent}' does not exist; create it with os.makedirs first",
    )
    assert isinstance(error, FileNotFoundError)
    assert os.listdir(tmp_path) == []


def test_saving_over_a_directory(net, tmp_path):
    refuse(
        lambda: net.save(tmp_path),
        CheckpointError,
        f"cannot write '{tmp_path}': it is a directory; give the name of a file in it",
    )


def test_saving_what_can_not_be_saved_keeps_the_old_file(path):
    before = path.read_bytes()
    for bad, message in (
        (np.array([1, None]), "tree['a'] is an array of dtype object, which cannot be saved; ..."),
        (object(), "tree['a'] is ..."),
        ({1, 2}, "tree['a'] is a set...list..."),
    ):
        refuse(lambda bad=bad: bw.save(path, {"b": jnp.ones(2), "a": bad}), TypeError, message)
        assert path.read_bytes() == before
        assert os.listdir(path.parent) == ["mlp.safetensors"]


def test_a_disk_that_is_full(net, path, monkeypatch):
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refuse(
        lambda: net.save(path),
        CheckpointError,
        f"cannot write '{path}': No space left on device; the file that was there is unchanged",
    )
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["mlp.safetensors"]


def test_the_state_of_another_optimiser(net, tmp_path):
    adam, sgd = optim.adam(net, 0.1), optim.sgd(net, 0.1, momentum=0.9)
    adam.save(tmp_path / "adam")
    sgd.state_dict()
    with unchanged(sgd):
        error = refuse(lambda: sgd.load(tmp_path / "adam"), LoadError, f"{tmp_path / 'adam'} does not fit...")
    assert "missing" in str(error) and "unexpected" in str(error)
