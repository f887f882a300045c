"""Transformers: rows of layers, and encoder and decoder together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ..core import Parameter
from ..core._arguments import bound
from ..functional import _checks as checks
from ..init import xavier_uniform
from ..module import Module
from . import _args as args
from ._cache import KVCache
from ._norm_layer import LayerNorm
from ._transformer import ORDER, TransformerDecoderLayer, TransformerEncoderLayer, check_options

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class _Stack(Module):
    """Copies of one layer in a row, and perhaps a normalisation at the end."""

    def _fill(self, argument: str, layer: Any, num_layers: Any, norm: Any) -> None:
        name = type(self).__name__
        if not isinstance(layer, Module):
            raise TypeError(f"{name}: {argument} must be a layer, got {type(layer).__name__} {layer!r:.60}.")
        if not (norm is None or isinstance(norm, Module)):
            raise TypeError(f"{name}: norm must be a layer such as nn.LayerNorm(), or None, got {norm!r:.60}.")
        self.layers = [layer.clone() for _ in range(args.size(num_layers, name, "num_layers"))]
        self.norm = norm

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return len(self.layers)

    def _each(self, caches: Iterable[KVCache] | None) -> Iterator[tuple[Any, dict[str, Any]]]:
        """The layers, each with its cache among the options if there are any."""
        if caches is None:
            yield from ((layer, {}) for layer in self.layers)
            return
        name, count = type(self).__name__, len(self.layers)
        given = list(caches) if isinstance(caches, Iterable) else [caches]
        if not all(isinstance(cache, KVCache) for cache in given):
            raise TypeError(f"{name}: caches must be a list of nn.KVCache, one for each layer, got {caches!r:.60}.")
        different = len({id(cache) for cache in given})
        if different != count or len(given) != count:
            raise ValueError(
                f"{name}: caches must hold a cache of its own for each of the {count} layers, got {len(given)}, "
                f"different ones: {different}. Make them so: [nn.KVCache(max_length) for _ in range({count})]."
            )
        yield from zip(self.layers, ({"cache": cache} for cache in given), strict=True)

    def _end(self, x: Array) -> Array:
        return x if self.norm is None else self.norm(x)


class TransformerEncoder(_Stack):
    r"""Layers like a given one in a row.

    .. math:: y = \mathrm{norm}(f_n(\dots f_1(x)))

    The layers are copies, so they begin with the same values, as in PyTorch. To begin with different ones,
    call ``net.initialize(...)``, or use :class:`Repeat`, whose program doesn't grow with the number of layers either.

    Args:
        encoder_layer: a :class:`TransformerEncoderLayer`, or a layer that is called in the same way; copied.
        num_layers: how many copies to make.
        norm: a layer for the end, such as :class:`LayerNorm`.

    Shape:
        That of the layer. ``mask`` and ``src_key_padding_mask`` go to each layer. With ``caches``, a list of a
        :class:`KVCache` for each layer, ``src`` holds the positions that follow those seen before.

    Raises:
        TypeError: ``encoder_layer`` or ``norm`` is no layer, or ``caches`` holds something else.
        ValueError: there are not as many different caches as layers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.TransformerEncoderLayer(4, dim_feedforward=64, batch_first=True)
        >>> net = nn.TransformerEncoder(layer, 2, nn.LayerNorm())
        >>> net(jnp.ones((2, 5, 16))).shape
        (2, 5, 16)
        >>> next(iter(net.state_dict()))
        'layers.0.self_attn.in_proj_weight'

    Reference:
        Vaswani et al., "Attention Is All You Need", 2017; ``torch.nn.TransformerEncoder``.
    """

    def __init__(self, encoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        self._fill("encoder_layer", encoder_layer, num_layers, norm)

    def constructor_arguments(self) -> dict[str, Any]:
        """The arguments that make such a module."""
        return {"encoder_layer": self.layers[0].clone(), "num_layers": self.num_layers, "norm": self.norm}

    def forward(
        self,
        src: Float[Array, "*s n e"],
        mask: Any = None,
        src_key_padding_mask: Any = None,
        is_causal: bool | None = None,
        caches: Iterable[KVCache] | None = None,
    ) -> Float[Array, "*s n e"]:
        """Apply the layers in turn."""
        options = {"src_mask": mask, "src_key_padding_mask": src_key_padding_mask, "is_causal": bool(is_causal)}
        for layer, own in self._each(caches):
            src = layer(src, **options, **own)
        return self._end(src)


class TransformerDecoder(_Stack):
    r"""Layers like a given one in a row, all of which attend to the same memory.

    .. math:: y = \mathrm{norm}(f_n(\dots f_1(x, \mathrm{memory}), \mathrm{memory}))

    The layers are copies, so they begin with the same values, as in PyTorch.

    Args:
        decoder_layer: a :class:`TransformerDecoderLayer`, or a layer that is called in the same way; copied.
        num_layers: how many copies to make.
        norm: a layer for the end, such as :class:`LayerNorm`.

    Shape:
        That of the layer. The masks go to each layer. With ``caches``, a list of a :class:`KVCache` for each layer,
        ``tgt`` holds the positions that follow those seen before.

    Raises:
        TypeError: ``decoder_layer`` or ``norm`` is no layer, or ``caches`` holds something else.
        ValueError: there are not as many different caches as layers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.TransformerDecoderLayer(4, dim_feedforward=64, batch_first=True)
        >>> net = nn.TransformerDecoder(layer, 2)
        >>> net(jnp.ones((2, 5, 16)), jnp.ones((2, 7, 16)), tgt_is_causal=True).shape
        (2, 5, 16)

    Reference:
        Vaswani et al., "Attention Is All You Need", 2017; ``torch.nn.TransformerDecoder``.
    """

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        self._fill("decoder_layer", decoder_layer, num_layers, norm)

    def constructor_arguments(self) -> dict[str, Any]:
        """The arguments that make such a module."""
        return {"decoder_layer": self.layers[0].clone(), "num_layers": self.num_layers, "norm": self.norm}

    def forward(
        self,
        tgt: Float[Array, "*t n e"],
        memory: Float[Array, "*s n e"],
        tgt_mask: Any = None,
        memory_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
        caches: Iterable[KVCache] | None = None,
    ) -> Float[Array, "*t n e"]:
        """Apply the layers in turn."""
        options = {
            "tgt_mask": tgt_mask,
            "memory_mask": memory_mask,
            "tgt_key_padding_mask": tgt_key_padding_mask,
            "memory_key_padding_mask": memory_key_padding_mask,
            "tgt_is_causal": bool(tgt_is_causal),
            "memory_is_causal": memory_is_causal,
        }
        for layer, own in self._each(caches):
            tgt = layer(tgt, memory, **options, **own)
        return self._end(tgt)


class Transformer(Module):
    r"""Encoder and decoder for sequences.

    .. math:: y = \mathrm{decoder}(\mathrm{tgt}, \mathrm{encoder}(\mathrm{src}))

    All weights of two or more dimensions are drawn anew from ``xavier_uniform``, so that the layers differ.

    Args:
        nhead: number of heads; it divides ``d_model``.
        d_model: number of features; taken from the first input when not given.
        num_encoder_layers: number of layers of the encoder.
        num_decoder_layers: number of layers of the decoder.
        dim_feedforward: number of features between the dense layers.
        dropout: the probability of dropping in training mode, as in the layers.
        activation: ``"relu"``, ``"gelu"`` or any function or layer.
        custom_encoder: a module to use as the encoder, as it is.
        custom_decoder: a module to use as the decoder, as it is.
        layer_norm_eps: added to the variances.
        batch_first: whether the batch is the first axis instead of the second.
        norm_first: whether to normalise the input of each part of a layer instead of the sum.
        bias: whether dense layers, projections and normalisations have biases.
        dtype: of the parameters.

    Shape:
        ``src`` ``(S, N, E)`` and ``tgt`` ``(T, N, E)``, with the batch first if ``batch_first``, or both without N; the
        output has the shape of ``tgt``. The masks are those of :class:`TransformerEncoderLayer` and
        :class:`TransformerDecoderLayer`.

    Parameters:
        encoder.layers: those of :class:`TransformerEncoderLayer`.
        encoder.norm, decoder.norm: those of :class:`LayerNorm`.
        decoder.layers: those of :class:`TransformerDecoderLayer`.

    Raises:
        ShapeMismatchError: widths, batches or masks don't fit.
        TypeError: an input is not an array of floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> net = nn.Transformer(
        ...     nhead=4, num_encoder_layers=1, num_decoder_layers=1, dim_feedforward=64, batch_first=True
        ... )
        >>> net(jnp.ones((2, 7, 16)), jnp.ones((2, 5, 16)), tgt_is_causal=True).shape
        (2, 5, 16)

    Reference:
        Vaswani et al., "Attention Is All You Need", 2017; ``torch.nn.Transformer``.
    """

    _notes_arguments = True

    @args.torch_order("d_model", "nhead", "num_encoder_layers", "num_decoder_layers", *ORDER[2:5])
    def __init__(
        self,
        *,
        nhead: int = 8,
        d_model: int | None = None,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[Any], Any] = "relu",
        custom_encoder: Module | None = None,
        custom_decoder: Module | None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        dtype: Any = jnp.float32,
    ) -> None:
        name = type(self).__name__
        d = args.optional_size(d_model, name, "d_model")
        check_options(
            name, d, nhead, dropout, layer_norm_eps, batch_first=batch_first, norm_first=norm_first, bias=bias
        )
        for argument, value in (("custom_encoder", custom_encoder), ("custom_decoder", custom_decoder)):
            if not (value is None or isinstance(value, Module)):
                raise TypeError(f"{name}: {argument} must be a module, got {type(value).__name__} {value!r:.60}.")
        args.size(num_encoder_layers, name, "num_encoder_layers")
        args.size(num_decoder_layers, name, "num_decoder_layers")
        args.size(dim_feedforward, name, "dim_feedforward")
        options: dict[str, Any] = {
            "d_model": d_model,
            "dim_feedforward": dim_feedforward,
            "dropout": dropout,
            "activation": activation,
            "layer_norm_eps": layer_norm_eps,
            "batch_first": batch_first,
            "norm_first": norm_first,
            "bias": bias,
            "dtype": dtype,
        }
        norm: dict[str, Any] = {"normalized_shape": d_model, "eps": layer_norm_eps, "bias": bias, "dtype": dtype}
        if custom_encoder is None:
            layer = TransformerEncoderLayer(nhead, **options)
            self.encoder = TransformerEncoder(layer, num_encoder_layers, LayerNorm(**norm))
            _draw_apart(self.encoder)
        else:
            self.encoder = custom_encoder
        if custom_decoder is None:
            layer = TransformerDecoderLayer(nhead, **options)
            self.decoder = TransformerDecoder(layer, num_decoder_layers, LayerNorm(**norm))
            _draw_apart(self.decoder)
        else:
            self.decoder = custom_decoder
        self.batch_first = bool(batch_first)

    def forward(
        self,
        src: Float[Array, "*s n e"],
        tgt: Float[Array, "*t n e"],
        src_mask: Any = None,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        src_key_padding_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Float[Array, "*t n e"]:
        """Encode ``src``, and decode ``tgt``."""
        src, tgt = checks.to_array(src, "Transformer", "src"), checks.to_array(tgt, "Transformer", "tgt")
        batch = slice(0, 1) if self.batch_first else slice(1, 2)
        alike = src.ndim == tgt.ndim and src.shape[-1:] == tgt.shape[-1:]
        if not alike or (src.ndim == 3 and src.shape[batch] != tgt.shape[batch]):
            checks.shape_error(
                "Transformer",
                "src and tgt must have one batch size and one number of features.",
                "Check the data, and batch_first.",
                src=src,
                tgt=tgt,
            )
        memory = self.encoder(src, src_mask, src_key_padding_mask, src_is_causal)
        masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
        return self.decoder(tgt, memory, *masks, tgt_is_causal, memory_is_causal)

    def constructor_arguments(self) -> dict[str, Any]:
        """The arguments that make such a module."""
        return bound(self, custom_encoder=self.encoder, custom_decoder=self.decoder)

    @staticmethod
    def generate_square_subsequent_mask(sz: int, dtype: Any = jnp.float32) -> Float[Array, "sz sz"]:
        """Return the causal mask of floats: zeros, and minus infinity above the diagonal."""
        size = args.size(sz, "generate_square_subsequent_mask", "sz")
        return jnp.where(jnp.tri(size, dtype=bool), 0, -jnp.inf).astype(dtype)


def _draw_apart(module: Module) -> None:
    """Give copies their own initial values, by which they would otherwise be alike."""
    for path, parameter in module.named_parameters():
        if parameter.ndim > 1:
            owner, _, name = path.rpartition(".")
            drawn_anew = Parameter(shape=parameter.shape, dtype=parameter.dtype, init=xavier_uniform())
            setattr(module.get_submodule(owner), name, drawn_anew)
