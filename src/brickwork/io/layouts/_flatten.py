"""Dense layers behind flattened images: Keras has channels last when it flattens, brickwork has them first."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ... import nn
from ...core import ModuleBase
from ...core._walk import walk
from ...errors import LoadError
from ...nn._conv import KernelLayer

__all__ = ["flattened", "reordered"]

_OTHER = (nn.Embedding, nn.LSTM, nn.GRU, nn.RNN)  # what follows these is no image


def reordered(weight: np.ndarray, channels: int) -> np.ndarray:
    """A dense weight ``(out, positions * channels)`` for inputs that are ``(channels, positions)`` when flattened."""
    outputs, inputs = weight.shape
    return weight.reshape(outputs, inputs // channels, channels).swapaxes(1, 2).reshape(outputs, inputs)


def flattened(net: ModuleBase, inputs: Mapping[str, int], what: str) -> dict[str, int]:
    """Which dense layers of a network take a flattened image, and how many channels that has.

    A network says so by its layers, where they stand in the order in which they are used: behind a convolution and a
    ``Flatten`` comes a dense layer with several inputs for each channel.

    Args:
        net: the network.
        inputs: path of a dense layer -> its number of inputs, for those to look at.
        what: how messages call the file.

    Raises:
        LoadError: there is no ``Flatten``, but sizes that look like it.
    """
    items = list(walk(net))
    explicit = any(isinstance(item, nn.Flatten) for _, item in items)
    found: dict[str, int] = {}
    channels: int | None = None
    image: tuple[int, int] | None = None  # channels and inputs of the last flattened image
    last: int | None = None  # outputs of the dense layer before
    for path, item in items:
        if isinstance(item, KernelLayer):
            channels, image, last = item.out_channels, None, None
        elif isinstance(item, _OTHER):
            channels = image = last = None
        elif isinstance(item, nn.Linear):
            size = inputs.get(path, 0)
            if channels and size > channels and size % channels == 0:
                image = (channels, size)
            if image and size == image[1] != last:
                if not explicit:
                    raise _doubt(path, size, image[0], what)
                found[path] = image[0]
            channels, last = None, item.out_features
    return found


def _doubt(path: str, size: int, channels: int, what: str) -> LoadError:
    return LoadError(
        f"{what}: {path}.weight has {size} inputs, which look like a flattened image of {channels} channels. Keras "
        "flattens images with channels last, this network with channels first, so they would have to be reordered; "
        "but neither the file nor the network, which has no nn.Flatten, says that it is so. Load the whole model (a "
        ".keras file or the older .h5), or use an nn.Flatten in the network."
    )
