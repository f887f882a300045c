"""Files of Keras: weights (``.weights.h5``), archives (``.keras``), whole models (``.h5``).

All of them hold HDF5. Names are those of the datasets, such as ``layers/dense/vars/0``. What else is needed to tell
which is which, Keras' names of layers, their order and the configuration of the model, is in the metadata; a
configuration is never more than text here. :mod:`brickwork.io.layouts._keras` makes layers of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from .._source import Contents, Source
from ._hdf5 import Hdf5, read_hdf5
from ._zip import Archive, is_zip

__all__ = ["is_keras_archive", "read"]

_CONFIG, _WEIGHTS, _MAX_CONFIG = "config.json", "model.weights.h5", 64 * 2**20
_TOP = "top_level_model_weights"  # where Keras puts what belongs to no layer


def is_keras_archive(names: Iterable[str]) -> bool:
    """Whether a zip archive with these members is a ``.keras`` file."""
    names = list(names)
    return _CONFIG in names and any(name.startswith("model.weights.") for name in names)


def read(source: Source) -> Contents:
    """Read an HDF5 file, of weights or a whole model of Keras 2 or 3 or any other with plain datasets, or an archive.

    Raises:
        CheckpointError: it is damaged, or has links, compressed datasets or other things that Keras doesn't write.
    """
    if is_zip(source.bytes(0, min(source.size, 4), "the file")):
        return _read_archive(source)
    source.what = "HDF5 file"
    if source.verify:
        source.cannot_verify("Keras writes HDF5 without checksums, except in .keras archives")
    file = read_hdf5(source)
    return Contents(file.datasets, "keras" if _is_keras(file) else "hdf5", _metadata(source, file))


def _read_archive(source: Source) -> Contents:
    source.what = "Keras archive"
    archive = Archive(source)
    if _WEIGHTS not in archive:
        found = [name for name in archive.names() if name.startswith("model.weights.")]
        source.refuse(f"its weights are in {found}, not in {_WEIGHTS!r}; in Keras, save them with save_weights")
    inner = archive.open(_WEIGHTS)
    inner.what = "HDF5 file"
    file = read_hdf5(inner)
    metadata = _metadata(inner, file)
    metadata["model_config"] = _member_text(archive, _CONFIG, source)
    if "metadata.json" in archive:
        said = _parsed(_member_text(archive, "metadata.json", source), source, "metadata.json")
        metadata |= {key: value for key, value in said.items() if isinstance(value, str)}
    return Contents(file.datasets, "keras", metadata)


def _member_text(archive: Archive, name: str, source: Source) -> str:
    member = archive.open(name)
    if member.size > _MAX_CONFIG:
        source.refuse(f"its member {name!r} takes {member.size:,} bytes; at most {_MAX_CONFIG:,} are read")
    return member.data.tobytes().decode("utf-8", "replace")


def _parsed(text: str, source: Source, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        source.fail(0, f"{what} is not valid JSON: {error}")
    if not isinstance(found, dict):
        source.fail(0, f"{what} is not a JSON object")
    return found


# --- what the file says besides its arrays --------------------------------------------------------


def _is_keras(file: Hdf5) -> bool:
    return any(path.split("/")[-1] == "vars" or "layer_names" in said for path, said in file.attributes.items())


def _metadata(source: Source, file: Hdf5) -> dict[str, str]:
    """Attributes of the whole file, names of layers, and the order of the weights in the older layout."""
    root = file.attributes.get("", {})  # a damaged file may have a dataset there
    metadata = {key: value for key, value in root.items() if isinstance(value, str)}
    names = _layer_names(file)
    if names:
        metadata["layer names"] = json.dumps(names)
    for top in ("model_weights", ""):
        if "layer_names" in _joined(file.attributes.get(top, {})):
            metadata["layers"] = json.dumps(_legacy_layers(source, file, top))
            break
    if file.untyped:
        metadata["without a datatype"] = json.dumps(file.untyped)
    return metadata


def _layer_names(file: Hdf5) -> dict[str, str]:
    """Path of a layer -> its name, in the newer layout."""
    found = {}
    for path, said in file.attributes.items():
        above, _, last = path.rpartition("/")
        name = said.get("name")
        if last == "vars" and isinstance(name, str):
            found[above] = name
    return found


def _joined(attributes: dict[str, Any]) -> dict[str, Any]:
    """With the lists put together that Keras has split because HDF5 allows no attributes over 64 KiB."""
    found = dict(attributes)
    for name in ("layer_names", "weight_names"):
        parts: list[list[str]] = []
        while isinstance(part := attributes.get(f"{name}{len(parts)}"), list):
            parts.append(part)
        if parts:
            found[name] = [text for part in parts for text in part]
    return found


def _legacy_layers(source: Source, file: Hdf5, top: str) -> list[tuple[str, list[str]]]:
    """Layers in their order, each with the names of its datasets in their order."""
    layers = []
    for layer in [*_texts(_joined(file.attributes[top]).get("layer_names")), _TOP]:
        group = f"{top}/{layer}" if top else layer
        if group not in file.attributes:
            if layer == _TOP:
                continue
            source.refuse(f"it lists the layer {layer!r}, but has no such group")
        weights = _texts(_joined(file.attributes[group]).get("weight_names"))
        paths = [f"{group}/{name}" for name in weights]
        for path in paths:
            if not isinstance(file.datasets.get(path), np.ndarray):
                source.refuse(f"it lists the weight {path!r}, but has no such dataset")
        layers.append((layer, paths))
    return layers


def _texts(value: Any) -> list[str]:
    return value if isinstance(value, list) else []
