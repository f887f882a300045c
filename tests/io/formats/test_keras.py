"""Files of Keras: the arrays by the file's own names, and what else they say."""

from __future__ import annotations

import json
import zipfile

import h5py
import numpy as np
import pytest
from tests.io import foreign
from tests.io.foreign import FIXTURES, expected

import brickwork as bw
from brickwork.errors import CheckpointError
from brickwork.io.formats._keras import is_keras_archive, read

KERAS, KERAS2 = FIXTURES / "keras", FIXTURES / "keras2"


def message_of(path):
    with pytest.raises(CheckpointError) as caught:
        foreign.read(read, path)
    return str(caught.value)


@pytest.mark.parametrize("name", ["mlp", "mlp_subclass", "lenet_bn", "tied", "embed_lstm", "nested"])
@pytest.mark.parametrize("ending", [".weights.h5", ".keras"])
def test_values_by_path(name, ending):
    contents = foreign.read(read, KERAS / f"{name}{ending}")
    weights = expected("keras", name)
    variables = json.loads((KERAS / f"names_{name}.json").read_text())["variables"]
    assert contents.kind == "keras" and len(contents.tree) == len(variables)
    for variable in variables:
        (place,) = variable["h5_candidates"]
        foreign.same(contents.tree[place], weights[variable["variable_path"]])


def test_what_an_archive_says():
    contents = foreign.read(read, KERAS / "lenet_bn.keras")
    assert json.loads(contents.metadata["model_config"])["class_name"] == "Sequential"
    assert contents.metadata["keras_version"] == "3.15.1"
    assert json.loads(contents.metadata["layer names"])["layers/dense"] == "dense_4"


def test_what_a_whole_model_says():
    metadata = foreign.read(read, KERAS / "tied.h5").metadata
    assert json.loads(metadata["model_config"])["class_name"] == "Functional"
    layers = json.loads(metadata["layers"])
    assert [name for name, _ in layers] == ["input_layer_2", "dense_8", "shared", "dense_7", "top_level_model_weights"]
    assert layers[1][1] == ["model_weights/dense_8/dense_8/kernel", "model_weights/dense_8/dense_8/bias"]
    metadata = foreign.read(read, KERAS2 / "mlp.h5weights.h5").metadata
    assert [name for name, paths in json.loads(metadata["layers"]) if paths] == ["dense", "dense_1"]


def test_attributes_that_were_split(tmp_path):
    path = tmp_path / "x.h5"
    names = [f"layer_{i}" for i in range(6)]
    with h5py.File(path, "w") as file:
        for name in names:
            file.create_group(name).attrs["weight_names"] = [f"{name}/kernel:0"]
            file[f"{name}/{name}/kernel:0"] = np.ones(1)
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:4], names[4:]
    assert json.loads(foreign.read(read, path).metadata["layers"]) == [[n, [f"{n}/{n}/kernel:0"]] for n in names]


def test_other_files_of_hdf5(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["a/b"] = np.arange(3)
    contents = foreign.read(read, path)
    assert contents.kind == "hdf5" and contents.tree["a/b"].tolist() == [0, 1, 2]


def test_values_without_a_datatype_are_named():
    assert json.loads(foreign.read(read, KERAS / "dtypes.keras").metadata["without a datatype"]) == [
        "layers/bag/vars/14"
    ]


def test_shards():
    tree = bw.load(KERAS / "mlp_sharded.weights.json", lazy=True)
    whole = bw.load(KERAS / "mlp.weights.h5", lazy=True)
    assert tree.keys() == whole.keys()


def test_code_in_a_configuration_is_never_run(tmp_path):
    foreign.PWNED.unlink(missing_ok=True)
    contents = foreign.read(read, KERAS / "malicious_lambda.keras")
    assert "__lambda__" in contents.metadata["model_config"] and contents.tree == {}
    assert not foreign.PWNED.exists()


def test_recognised_by_members():
    assert is_keras_archive(["metadata.json", "config.json", "model.weights.h5"])
    assert not is_keras_archive(["config.json", "data.pkl"])


# --- refused and damaged --------------------------------------------------------------------------


def test_weights_in_a_form_that_keras_does_not_load_itself():
    message = message_of(KERAS / "mlp_npz_weights.keras")
    assert "its weights are in ['model.weights.npz'], not in 'model.weights.h5'; in Keras, save them with" in message


def test_checksums_and_truncation():
    assert "'model.weights.h5' don't match their CRC-32" in message_of(KERAS / "corrupt_byte.keras")
    assert "truncated" in message_of(KERAS / "truncated.keras")
    assert "truncated" in message_of(KERAS / "truncated.weights.h5")


def archive(path, **members):
    with zipfile.ZipFile(KERAS / "mlp.keras") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, members.get(name.partition(".")[0], old.read(name)))
    return path


def test_texts_that_are_damaged(tmp_path):
    path = archive(tmp_path / "x.keras", metadata="[")
    assert "metadata.json is not valid JSON" in message_of(path)
    assert "metadata.json is not a JSON object" in message_of(archive(path, metadata="[]"))
    assert foreign.read(read, archive(path, config="[" * 100_000)).metadata["model_config"] == "[" * 100_000


def test_damage_inside_of_an_archive_names_the_member(tmp_path):
    path = archive(tmp_path / "x.keras", model=(KERAS / "truncated.weights.h5").read_bytes())
    assert "x.keras, member 'model.weights.h5': damaged HDF5 file, at byte 27,614" in message_of(path)


def test_lists_without_what_they_list(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["dense"]
    assert "it lists the layer 'dense', but has no such group" in message_of(path)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["dense"]
        file.create_group("dense").attrs["weight_names"] = ["kernel:0"]
    assert "it lists the weight 'dense/kernel:0', but has no such dataset" in message_of(path)
