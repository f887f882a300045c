"""What the configuration of a Keras model says about its layers. It is read as data; nothing in it is executed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ...errors import CheckpointError

__all__ = ["MODELS", "ConfigLayer", "layers_of", "snake"]

_MAX_DEPTH = 20
_CONVOLUTIONS = re.compile(r"(depthwise_|separable_)?conv[123]d(_transpose)?")
MODELS = frozenset({"sequential", "functional", "model"})
_WINDOWED = ("max_pooling", "average_pooling", "up_sampling", "zero_padding", "cropping")
_WINDOWS = frozenset(f"{name}{n}d" for name in _WINDOWED for n in (1, 2, 3))
# Layers that neither move nor mix the elements of what they get.
_PASSING = frozenset(
    {"activation", "re_lu", "leaky_re_lu", "elu", "softmax", "dropout", "gaussian_noise", "gaussian_dropout"}
)
# Layers behind which the channels are what they were before.
_NORMS = frozenset({"batch_normalization", "layer_normalization", "group_normalization"})
_MERGES = frozenset({"add", "subtract", "multiply", "average", "maximum", "minimum"})
_SPATIAL_DROPOUTS = frozenset(f"spatial_dropout{n}d" for n in (1, 2, 3))
_KEEPING = _PASSING | _WINDOWS | _NORMS | _MERGES | _SPATIAL_DROPOUTS | {"p_re_lu", "rescaling"}
# Layers behind which there is no image.
_NO_IMAGES = frozenset(
    {"embedding", "lstm", "gru", "simple_rnn", "rnn", "bidirectional", "time_distributed", "dense", "flatten"}
    | {"reshape", "permute", "repeat_vector", "multi_head_attention"}
)


@dataclass(eq=False)
class ConfigLayer:
    """A layer of a Keras model.

    Attributes:
        path: where its variables are in a ``.weights.h5``, such as ``layers/dense_1``.
        names: the names of the models around it and its own.
        kind: its class in snake case, such as ``batch_normalization``.
        config: its configuration.
        order: its place among all layers.
        before: the layers whose outputs it takes; empty where that is not known.
        channels: for a layer that takes a flattened image with channels last, how many channels the image has;
            0 where that can't be found out.
    """

    path: str
    names: tuple[str, ...]
    kind: str
    config: dict[str, Any]
    order: int = 0
    shape: list[Any] = field(default_factory=list)
    before: list[ConfigLayer] = field(default_factory=list)
    channels: int | None = None

    @property
    def name(self) -> str:
        """The layer's own name."""
        return self.names[-1]


def layers_of(text: str | None, what: str) -> list[ConfigLayer]:
    """The layers that a configuration lists, in their order; none for models whose structure is only in code.

    Args:
        text: the JSON; ``None`` where a file has none.
        what: how messages call the file.

    Raises:
        CheckpointError: it is not valid.
    """
    if text is None:
        return []
    try:
        model = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{what}: the configuration of the model is not valid JSON: {error}") from None
    found = list(_layers(_object(model), "", (), 0))
    for i, layer in enumerate(found):
        layer.order = i
    for layer in found:
        layer.channels = _flattened_channels(layer)
    return found


def snake(class_name: str) -> str:
    """``BatchNormalization`` -> ``batch_normalization``, as Keras makes names of classes."""
    name = re.sub(r"\W+", "", class_name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _size(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _layers(model: dict[str, Any], path: str, names: tuple[str, ...], depth: int) -> Iterator[ConfigLayer]:
    """The layers of a Sequential or Functional model, and of the models inside."""
    if depth > _MAX_DEPTH:
        return
    config = model.get("config")
    items = _list(config) or _list(_object(config).get("layers"))
    counts: dict[str, int] = {}
    here: dict[str, ConfigLayer] = {}
    inbound: dict[str, Any] = {}
    previous: ConfigLayer | None = None
    for item in map(_object, items):
        own = _object(item.get("config"))
        kind, name = snake(_text(item.get("class_name"))), _text(own.get("name")) or _text(item.get("name"))
        count = counts[kind] = counts.get(kind, -1) + 1
        place = f"{path}/layers/{kind}{f'_{count}' if count else ''}".removeprefix("/")
        shape = (
            own.get("batch_shape")
            or own.get("batch_input_shape")
            or _object(item.get("build_config")).get("input_shape")
        )
        layer = ConfigLayer(place, (*names, name), kind, own, shape=_list(shape))
        if "inbound_nodes" in item:
            inbound[name] = item["inbound_nodes"]
        elif previous is not None:
            layer.before = [previous]
        previous = here[name] = layer
        yield layer
        yield from _layers(item, place, layer.names, depth + 1)
    for name, nodes in inbound.items():
        here[name].before = [here[x] for x in _sources(nodes) if x in here]


def _sources(nodes: Any) -> list[str]:
    """The names of the layers that a layer's inbound nodes name."""
    found: dict[str, None] = {}
    stack = [nodes]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            history = node.get("keras_history")
            stack.extend([history] if history else node.values())
        elif isinstance(node, list):
            if len(node) >= 3 and isinstance(node[0], str) and isinstance(node[1], int):
                found[node[0]] = None
            else:
                stack.extend(node)
    return list(found)


# --- flattened images -----------------------------------------------------------------------------


def _flattened_channels(layer: ConfigLayer) -> int | None:
    """See :attr:`ConfigLayer.channels`."""
    if layer.kind != "dense":
        return None
    first = layer
    for first in _back(layer, _PASSING):
        if first.kind == "flatten":
            return _image_channels(first)
        if first.kind in MODELS:
            return 0
    starts = first is layer or first.kind == "input_layer" or (first.kind in _PASSING and not first.before)
    return 0 if starts and len(layer.names) > 1 else None  # what comes before a model that is inside another


def _back(layer: ConfigLayer, through: frozenset[str]) -> Iterator[ConfigLayer]:
    """The layers before a layer, and those before them where they are of the kinds ``through``."""
    seen: set[int] = set()
    stack = list(layer.before)
    while stack:
        source = stack.pop()
        if id(source) in seen:
            continue
        seen.add(id(source))
        yield source
        if source.kind in through:
            stack.extend(source.before)


def _image_channels(flatten: ConfigLayer) -> int | None:
    is_image = unknown = False
    channels = 0
    for source in _back(flatten, _KEEPING):
        if source.config.get("data_format") == "channels_first":
            return None
        if _CONVOLUTIONS.fullmatch(source.kind):
            is_image = True
            channels = _size(source.config.get("filters")) or channels
        elif source.kind in _WINDOWS:
            is_image = True
        elif source.kind == "input_layer":
            channels = channels or (_size(source.shape[-1]) if len(source.shape) > 3 else 0)
        elif source.kind not in _KEEPING | _NO_IMAGES:
            unknown = True
    last = _size(flatten.shape[-1]) if len(flatten.shape) > 2 else 0
    if is_image or (unknown and len(flatten.shape) > 3):
        return last or (0 if unknown else channels)
    return 0 if unknown else None
