"""Layers with weights of 8 bits, for inference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import jax.numpy as jnp
import numpy as np

from ..core import Buffer, Parameter
from ..core._calls import line_of
from ..functional import dequantize, quantize as quantize_array
from ..functional._quantize import quantized_linear, quantized_rows
from ..module import Module
from ._init import follow_weight
from ._wrapping import LAYERS, choose, form_of, kind_of, module_of, replace, require_stored, standing_in

if TYPE_CHECKING:
    from jaxtyping import Array

Net = TypeVar("Net")


class Quantized(Module):
    r"""A layer whose weight is kept as integers of 8 bits, with one scale for each output channel.

    .. math:: W_{o} \approx s_o \, q_o, \quad s_o = \max |W_o| / 127, \quad q_o = \mathrm{round}(W_o / s_o)

    It computes what the layer would with the weight :math:`s q`, each element of which differs from :math:`W` by at
    most :math:`s_o / 2`. The weight and its scale are buffers and not trained; gradients by the input and by the bias
    are as those of any layer, so that an adapter (:func:`lora`) can be trained on top. Usually made by
    :func:`quantize`.

    Args:
        layer: a ``Linear``, ``Embedding``, ``Conv1d``, ``Conv2d`` or ``Conv3d`` whose sizes are known, or one of a
            subclass with the same ``forward``. It is left as it is.

    Shape:
        As that of the layer.

    Parameters:
        weight: a buffer of int8, of the shape of the layer's weight.
        scale: a buffer, one number for each index along the first axis of the weight: for each output feature or
            channel, or for each row of an ``Embedding``.
        bias: the layer's own.

    Raises:
        DeferredShapeError: sizes are not known yet.
        StructureError: the weight or the bias is computed by a parametrisation.
        TypeError: a layer of another kind.
        ValueError: the weight holds infinite numbers or NaN.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.Quantized(nn.Linear(3, in_features=4))
        >>> layer
        Quantized(Linear(4 → 3))
        >>> layer.weight.dtype, layer.scale.shape
        (dtype('int8'), (3,))

    Reference:
        Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
        2018.
    """

    _form: Any

    def __init__(self, layer: Any) -> None:
        if kind_of(layer) is None:
            names = ", ".join(cls.__name__ for cls in LAYERS)
            raise TypeError(f"Quantized: layer must be one of {names}, got a {type(layer).__name__}")
        for name in ("weight", "bias"):
            require_stored(layer, "Quantized", name)
        weight = layer.weight
        stack = weight.stacked
        values, scale = quantize_array(weight.value, tuple(range(stack + 1, weight.ndim)))
        if not bool(jnp.isfinite(scale).all()):
            raise ValueError(
                f"Quantized: {weight.described()} holds infinite numbers or NaN, which no integer stands for"
            )
        self._take(layer, Buffer(values), Buffer(scale))

    def _take(self, layer: Any, weight: Buffer, scale: Buffer) -> None:
        """Take the place of a layer."""
        self.weight, self.scale = weight, scale
        self.weight._stacked = self.scale._stacked = layer.weight.stacked
        self.bias = getattr(layer, "bias", None)
        follow_weight(self.bias, self.weight)  # or its initialiser would keep the old weight
        self._form = form_of(layer)
        self.training = layer.training
        self._copy_record(layer._bw)

    def edges(self) -> Any:
        """The attributes, without the layer's options."""
        return ((name, value) for name, value in super().edges() if name != "_form")

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Array:
        """Compute what the layer would."""
        kind = kind_of(self._form)
        if kind == "linear":
            return quantized_linear(x, self.weight, self.scale, self.bias)
        if kind == "embedding":
            return quantized_rows(x, self.weight, self.scale)
        weight = dequantize(self.weight, self.scale, tuple(range(1, self.weight.ndim)))
        return standing_in(self._form, weight, self.bias).forward(x, *args, **kwargs)

    def constructor_arguments(self) -> dict[str, Any]:
        """What :meth:`_without_values` takes."""
        layer = form_of(self._form)
        layer._adopt({"weight": Parameter(shape=self.weight.shape, dtype=self.scale.dtype), "bias": self.bias})
        if kind_of(layer) == "embedding":
            del layer.__dict__["bias"]
        return {"layer": layer, "shape": self.weight.shape}

    @classmethod
    def _without_values(cls, layer: Any, shape: Any) -> Quantized:
        """One whose values will be loaded, in the place of a layer."""
        new = cls.__new__(cls)
        layer.weight.shape = shape
        new._take(layer, Buffer(shape=shape, dtype=jnp.int8), Buffer(shape=shape[:1], dtype=layer.weight.dtype))
        return new

    def extra_repr(self) -> str:
        return line_of(standing_in(self._form, self.weight, self.bias))


def quantize(net: Net, pattern: str | None = None, *, dtype: Any = jnp.int8) -> Net:
    """Keep the weights of layers as integers of 8 bits: a quarter of the memory, for inference.

    Each layer is replaced by a :class:`Quantized` one, wherever it is held; a layer or weight that is used twice is
    quantised once. Supported are ``Linear``, ``Embedding``, ``Conv1d``, ``Conv2d`` and ``Conv3d``, inside other layers
    too, as in ``MultiheadAttention`` its ``out_proj``. All others stay as they are, and no error says so where there
    are some to replace: transposed convolutions, recurrent layers, the weight of ``MultiheadAttention`` for queries,
    keys and values, and layers of subclasses with a ``forward`` of their own, which may use the weight in another way.
    Parameters that are not weights of those replaced stay too, with their dtype. Quantised weights aren't trained;
    nothing else changes for training.

    Files have the integers under the weight's own name, and ``scale`` beside it. Such a file fits a network that was
    quantised alike, and is refused by others; a file of floats has to be loaded before.

    Args:
        net: a module whose sizes are known. It is changed.
        pattern: a regular expression that must match the whole path of a layer; all layers without it.
        dtype: of the integers; only int8 so far.

    Returns:
        The network.

    Raises:
        DeferredShapeError: sizes are not known yet; nothing is changed.
        StructureError: a weight or bias is computed by a parametrisation; nothing is changed.
        ValueError: the pattern matches no such layer; another dtype.

    Example:
        >>> import brickwork as bw
        >>> from brickwork import nn
        >>> net = nn.Sequential(nn.Linear(64), nn.ReLU(), nn.Linear(2)).initialize(bw.spec(1, 32))
        >>> nn.quantize(net, "0")
        Sequential(
          (0): Quantized(Linear(32 → 64))
          (1): ReLU()
          (2): Linear(64 → 2)
        )
        >>> list(net.state_dict())
        ['0.weight', '0.scale', '0.bias', '2.weight', '2.bias']
    """
    module = module_of(net, "quantize")
    if np.dtype(dtype) != np.int8:
        raise ValueError(f"quantize: dtype must be int8, got {np.dtype(dtype)}")
    new: dict[int, Any] = {}
    first: dict[int, Quantized] = {}  # by weight
    for _, layer in choose(module, pattern, "quantize", kind_of):
        made = new[id(layer)] = Quantized(layer)
        other = first.setdefault(id(layer.weight), made)
        made.weight, made.scale = other.weight, other.scale
    replace(module, new)
    return net
