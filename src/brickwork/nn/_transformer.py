"""The layers of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ..core import ModuleBase
from ..functional import _checks as checks, gelu, relu
from ..functional._dropout import check_rate
from ..module import Module
from . import _args as args
from ._attention import MultiheadAttention, fill_outputs, open_linear
from ._cache import KVCache
from ._dropout import Dropout
from ._linear import Linear
from ._norm_layer import LayerNorm

if TYPE_CHECKING:
    from jaxtyping import Array, Float

_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {"relu": relu, "gelu": gelu}
ORDER = (
    "d_model",
    "nhead",
    "dim_feedforward",
    "dropout",
    "activation",
    "layer_norm_eps",
    "batch_first",
    "norm_first",
    "bias",
)


def check_options(layer: str, d_model: int | None, nhead: Any, dropout: Any, eps: Any, **flags: Any) -> None:
    """Raise for options which the layers inside would refuse in words of their own."""
    if args.size(nhead, layer, "nhead") and d_model is not None and d_model % nhead:
        raise ValueError(f"{layer}: nhead={nhead} must divide d_model={d_model}.")
    check_rate(dropout, layer, "dropout")
    args.epsilon(eps, layer, "layer_norm_eps")
    for name, value in flags.items():
        args.flag(value, layer, name)


class _Layer(Module):
    """What the layers of encoder and decoder share: attention to the sequence itself, and the dense layers."""

    _norms = 2

    @args.torch_order(*ORDER)
    def __init__(
        self,
        nhead: int,
        *,
        d_model: int | None = None,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[Any], Any] = "relu",
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
        wide = args.size(dim_feedforward, name, "dim_feedforward")
        attention = {"embed_dim": d, "dropout": dropout, "bias": bias, "batch_first": batch_first, "dtype": dtype}
        self.self_attn = MultiheadAttention(nhead, **attention)
        if self._norms == 3:
            self.multihead_attn = MultiheadAttention(nhead, **attention)
        self.linear1 = Linear(wide, in_features=d, bias=bias, dtype=dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = open_linear(d, wide, bias=bias, dtype=dtype)
        self.norm_first = bool(norm_first)
        for i in range(1, self._norms + 1):
            norm = LayerNorm(normalized_shape=d, eps=layer_norm_eps, bias=bias, dtype=dtype)
            setattr(self, f"norm{i}", norm)
        for i in range(1, self._norms + 1):
            setattr(self, f"dropout{i}", Dropout(dropout))
        self.activation = _activation(activation, name)
        if not isinstance(activation, str):
            self.keeps_nothing = False  # the function may

    def build(self, x: Any, *_: Any, **__: Any) -> None:
        """Take d_model, to which the dense layers return, from the last axis."""
        name = type(self).__name__
        shape = checks.shape_of(x, name)
        known = self.linear2.weight.shape[0]
        if shape and known is not None and shape[-1] != known:
            problem = f"x has {shape[-1]} features in its last axis, but {known} are expected."
            checks.shape_error(name, problem, f"Check the data, or make the layer with d_model={shape[-1]}.", x=x)
        if shape:
            fill_outputs(self.linear2, shape[-1])

    def _block(self, number: int, x: Array, inner: Callable[[Array], Array]) -> Array:
        """Add what ``inner`` computes to ``x``, and normalise before or after."""
        norm, drop = getattr(self, f"norm{number}"), getattr(self, f"dropout{number}")
        if self.norm_first:
            return x + drop(inner(norm(x)))
        return norm(x + drop(inner(x)))

    def _dense(self, x: Array) -> Array:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))

    def extra_repr(self) -> str:
        return args.options(self, norm_first=False)[2:]


class TransformerEncoderLayer(_Layer):
    r"""Self-attention and two dense layers, each with a shortcut and layer normalisation.

    .. math:: z = \mathrm{norm}_1(x + \mathrm{attention}(x)), \quad
        y = \mathrm{norm}_2(z + W_2 \, \phi(W_1 z + b_1) + b_2)

    With ``norm_first``: :math:`z = x + \mathrm{attention}(\mathrm{norm}_1(x))`, and the same for the second part.
    With ``is_causal`` it is the block of a GPT.

    Args:
        nhead: number of heads; it divides ``d_model``.
        d_model: number of features; taken from the first input when not given.
        dim_feedforward: number of features between the dense layers.
        dropout: the probability of dropping in training mode: attention weights, what the first dense layer
            gives, and what each part adds.
        activation: :math:`\phi`, ``"relu"``, ``"gelu"`` or any function or layer.
        layer_norm_eps: added to the variances.
        batch_first: whether the batch is the first axis instead of the second.
        norm_first: whether to normalise the input of each part instead of the sum.
        bias: whether dense layers, projections and normalisations have biases.
        dtype: of the parameters.

    Shape:
        ``(S, N, E)``, with ``batch_first`` ``(N, S, E)``, or ``(S, E)``; the output has the shape of the input. The
        masks are those of :class:`MultiheadAttention`: ``src_mask`` ``(S, S)`` or ``(N * nhead, S, S)``,
        ``src_key_padding_mask`` ``(N, S)``; ``True`` is ignored, floats are added. With ``cache`` (a
        :class:`KVCache`) the input continues the sequence in it.

    Parameters:
        self_attn: those of :class:`MultiheadAttention`.
        linear1, linear2: those of :class:`Linear`.
        norm1, norm2: those of :class:`LayerNorm`.

    Raises:
        ShapeMismatchError: widths or masks don't fit.
        TypeError: the input is not an array of floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.TransformerEncoderLayer(4, dim_feedforward=64, batch_first=True)
        >>> layer(jnp.ones((2, 5, 16)), is_causal=True).shape
        (2, 5, 16)

    Reference:
        Vaswani et al., "Attention Is All You Need", 2017; ``torch.nn.TransformerEncoderLayer``.
    """

    def forward(
        self,
        src: Float[Array, "*s n e"],
        src_mask: Any = None,
        src_key_padding_mask: Any = None,
        is_causal: bool = False,
        *,
        cache: KVCache | None = None,
    ) -> Float[Array, "*s n e"]:
        """Apply the layer."""

        def attend(x: Array) -> Array:
            y, _ = self.self_attn(x, x, x, src_key_padding_mask, False, src_mask, is_causal=is_causal, cache=cache)
            return y

        return self._block(2, self._block(1, src, attend), self._dense)


class TransformerDecoderLayer(_Layer):
    r"""Self-attention, attention to a memory, and two dense layers, each with a shortcut and layer normalisation.

    .. math:: z = \mathrm{norm}_1(x + \mathrm{attention}(x)), \quad
        u = \mathrm{norm}_2(z + \mathrm{attention}(z, \mathrm{memory})), \quad
        y = \mathrm{norm}_3(u + W_2 \, \phi(W_1 u + b_1) + b_2)

    With ``norm_first`` the inputs of the three parts are normalised instead of the sums.

    Args:
        nhead: number of heads; it divides ``d_model``.
        d_model: number of features; taken from the first input when not given.
        dim_feedforward: number of features between the dense layers.
        dropout: the probability of dropping in training mode: attention weights, what the first dense layer
            gives, and what each part adds.
        activation: :math:`\phi`, ``"relu"``, ``"gelu"`` or any function or layer.
        layer_norm_eps: added to the variances.
        batch_first: whether the batch is the first axis instead of the second.
        norm_first: whether to normalise the input of each part instead of the sum.
        bias: whether dense layers, projections and normalisations have biases.
        dtype: of the parameters.

    Shape:
        ``tgt`` ``(T, N, E)`` and ``memory`` ``(S, N, E)``, with the batch first if ``batch_first``, or both without N;
        the output has the shape of ``tgt``. The masks are those of :class:`MultiheadAttention`: ``tgt_mask``
        ``(T, T)``, ``memory_mask`` ``(T, S)``, ``tgt_key_padding_mask`` ``(N, T)`` and
        ``memory_key_padding_mask`` ``(N, S)``; ``True`` is ignored, floats are added. With ``cache`` (a
        :class:`KVCache`) ``tgt`` continues the sequence in it.

    Parameters:
        self_attn, multihead_attn: those of :class:`MultiheadAttention`.
        linear1, linear2: those of :class:`Linear`.
        norm1, norm2, norm3: those of :class:`LayerNorm`.

    Raises:
        ShapeMismatchError: widths or masks don't fit.
        TypeError: an input is not an array of floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.TransformerDecoderLayer(4, dim_feedforward=64, batch_first=True)
        >>> layer(jnp.ones((2, 5, 16)), jnp.ones((2, 7, 16)), tgt_is_causal=True).shape
        (2, 5, 16)

    Reference:
        Vaswani et al., "Attention Is All You Need", 2017; ``torch.nn.TransformerDecoderLayer``.
    """

    _norms = 3

    def forward(
        self,
        tgt: Float[Array, "*t n e"],
        memory: Float[Array, "*s n e"],
        tgt_mask: Any = None,
        memory_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
        *,
        cache: KVCache | None = None,
    ) -> Float[Array, "*t n e"]:
        """Apply the layer."""

        def attend(x: Array) -> Array:
            y, _ = self.self_attn(x, x, x, tgt_key_padding_mask, False, tgt_mask, is_causal=tgt_is_causal, cache=cache)
            return y

        def look_up(x: Array) -> Array:
            y, _ = self.multihead_attn(
                x, memory, memory, memory_key_padding_mask, False, memory_mask, is_causal=memory_is_causal
            )
            return y

        x = self._block(2, self._block(1, tgt, attend), look_up)
        return self._block(3, x, self._dense)


def _activation(activation: Any, layer: str) -> Callable[[Any], Any]:
    if isinstance(activation, str):
        if activation not in _ACTIVATIONS:
            raise ValueError(f"{layer}: activation must be 'relu', 'gelu' or a function, got {activation!r}.")
        return _ACTIVATIONS[activation]
    if isinstance(activation, type) and issubclass(activation, ModuleBase):
        kind = activation.__name__
        raise TypeError(f"{layer}: activation is the class {kind}, not a layer; write {kind}().")
    if not callable(activation):
        raise TypeError(f"{layer}: activation must be 'relu', 'gelu' or a function, got {activation!r:.60}.")
    return activation
