"""Recurrent layers."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

import jax.numpy as jnp

from ..core import Parameter, next_key
from ..functional import gru, lstm, rnn
from ..functional._dropout import check_rate
from ..functional._recurrent import sequence_width
from ..functional._recurrent_cells import GATES, rnn_kind
from ..init import uniform
from ..module import Module
from . import _args as args

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


class _Recurrent(Module):
    """What the recurrent layers share: their parameters and options."""

    weight_ih_l0: Parameter
    arguments_elsewhere: ClassVar = {"proj_size": "Only an LSTM projects its states."}

    def __init__(
        self,
        kind: str,
        hidden_size: int,
        input_size: int | None,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int,
        dtype: Any,
    ) -> None:
        name = type(self).__name__
        self.hidden_size = args.size(hidden_size, name, "hidden_size")
        inputs = args.optional_size(input_size, name, "input_size")
        self.num_layers = args.size(num_layers, name, "num_layers")
        self.bias = args.flag(bias, name, "bias")
        self.batch_first = args.flag(batch_first, name, "batch_first")
        self.dropout = check_rate(dropout, name, "dropout")
        self.bidirectional = args.flag(bidirectional, name, "bidirectional")
        self.proj_size = args.integer(proj_size, name, "proj_size", 0)
        if self.proj_size >= self.hidden_size:
            raise ValueError(
                f"{name}: proj_size={proj_size} must be smaller than hidden_size={hidden_size}, or 0 for no projection."
            )
        if self.dropout and self.num_layers == 1:
            warnings.warn(
                f"{name}: dropout={dropout} has no effect with num_layers=1: it is applied between layers. "
                "Put nn.Dropout behind the layer instead.",
                stacklevel=3,
            )
        rows = GATES[kind] * self.hidden_size
        out = self.proj_size or self.hidden_size
        for i in range(self.num_layers):
            for suffix in self._suffixes(i):
                shapes = {"weight_ih": (rows, inputs), "weight_hh": (rows, out)}
                if self.bias:
                    shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
                if self.proj_size:
                    shapes["weight_hr"] = (out, self.hidden_size)
                for prefix, shape in shapes.items():
                    setattr(self, prefix + suffix, Parameter(shape=shape, dtype=dtype, init=_uniform(self.hidden_size)))
            inputs = out * (1 + self.bidirectional)

    def _suffixes(self, layer: int) -> tuple[str, ...]:
        return (f"_l{layer}", f"_l{layer}_reverse")[: 1 + self.bidirectional]

    @property
    def input_size(self) -> int | None:
        """Size of the input's last axis; ``None`` while it is not known."""
        return self.weight_ih_l0.shape[1]

    @property
    def uses_random(self) -> bool:
        """Whether random numbers are drawn in training mode."""
        return self.dropout > 0 and self.num_layers > 1

    def build(self, x: Any, hx: Any = None, lengths: Any = None) -> None:
        """Take the input size from the last axis."""
        width = sequence_width(x, type(self).__name__, self.batch_first)
        for suffix in self._suffixes(0):
            weight = getattr(self, f"weight_ih{suffix}")
            if weight.shape[1] is None:
                weight.shape = (None, width)

    def _settings_of_call(self) -> dict[str, Any]:
        """The weights and the options of the function."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")[: 5 if self.proj_size else 4]
        weights = [
            tuple(getattr(self, name + suffix, None) for name in names)
            for i in range(self.num_layers)
            for suffix in self._suffixes(i)
        ]
        drops = self.training and self.uses_random
        return {
            "weights": weights,
            "bidirectional": self.bidirectional,
            "batch_first": self.batch_first,
            "dropout": self.dropout if drops else 0.0,
            "key": next_key() if drops else None,
        }

    def extra_repr(self) -> str:
        rest = args.options(
            self, num_layers=1, bias=True, batch_first=False, dropout=0.0, bidirectional=False, proj_size=0
        )
        return f"{args.show(self.input_size)} → {self.hidden_size}{rest}"


def _uniform(hidden: int) -> uniform:
    bound = 1 / math.sqrt(hidden)
    return uniform(-bound, bound)


class RNN(_Recurrent):
    r"""Simple recurrent network over sequences.

    .. math:: h_t = \tanh(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh})

    Args:
        hidden_size: size of the state.
        input_size: size of the input's last axis; taken from the first input when not given.
        num_layers: number of layers, each of which runs over the states of the one before.
        nonlinearity: ``"tanh"``, or ``"relu"`` in its place.
        bias: whether to add :math:`b`.
        batch_first: whether the axis of the batch comes before that of time.
        dropout: the probability of dropping an element of what one layer passes to the next, in training mode.
        bidirectional: whether each layer also runs backwards; the results are put side by side.
        dtype: of the parameters.

    Shape:
        ``layer(x, hx=None, lengths=None)`` gives ``(output, h_n)``:

        - ``x``: ``(T, N, input_size)``; ``(N, T, input_size)`` with ``batch_first``; or one sequence
          ``(T, input_size)``.
        - ``hx``: the initial states, ``(num_layers * directions, N, hidden_size)``, without ``N`` for one
          sequence; zeros when not given.
        - ``lengths``: ``(N,)`` integers, how long each sequence is; the rest of it is padding, which is not looked
          at. A backward direction begins at each sequence's own end. All are of length ``T`` when not given.
        - ``output``: the last layer's states, ``(T, N, directions * hidden_size)``; zeros in padding.
        - ``h_n``: all layers' states at the last element of each sequence, of the shape of ``hx``.

    Parameters:
        weight_ih_l0: ``(hidden_size, input_size)``; of further layers, ``weight_ih_l1`` and so on,
            ``(hidden_size, directions * hidden_size)``. With ``bidirectional`` there are those of the backward
            direction too: ``weight_ih_l0_reverse`` and so on.
        weight_hh_l0: ``(hidden_size, hidden_size)``.
        bias_ih_l0: ``(hidden_size,)``.
        bias_hh_l0: ``(hidden_size,)``.

        All are drawn from :math:`U(-k, k)` with :math:`k = 1 / \sqrt{\text{hidden\_size}}`.

    Raises:
        ShapeMismatchError: in a call, when shapes do not fit or there is no element in time.
        TypeError: an argument has the wrong type.
        ValueError: a size is not positive, or there is no such nonlinearity.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.RNN(4, num_layers=2)
        >>> output, h = layer(jnp.ones((5, 2, 3)))
        >>> output.shape, h.shape
        ((5, 2, 4), (2, 2, 4))
        >>> layer
        RNN(3 → 4, num_layers=2)

    Reference:
        Elman, "Finding structure in time", 1990; ``torch.nn.RNN``. ``lengths`` does what
        ``torch.nn.utils.rnn.pack_padded_sequence`` is for.
    """

    @args.torch_order(
        "input_size",
        "hidden_size",
        "num_layers",
        "nonlinearity",
        "bias",
        "batch_first",
        "dropout",
        "bidirectional",
    )
    def __init__(
        self,
        hidden_size: int,
        *,
        input_size: int | None = None,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Any = jnp.float32,
    ) -> None:
        self.nonlinearity = nonlinearity
        kind = rnn_kind(nonlinearity, "RNN")
        super().__init__(kind, hidden_size, input_size, num_layers, bias, batch_first, dropout, bidirectional, 0, dtype)

    def forward(
        self,
        x: Float[Array, "*shape in"],
        hx: Float[Array, "*states hidden"] | None = None,
        lengths: Int[Array, " n"] | None = None,
    ) -> tuple[Float[Array, "*shape out"], Float[Array, "*states hidden"]]:
        """Run over the sequences."""
        return rnn(x, hx=hx, lengths=lengths, nonlinearity=self.nonlinearity, **self._settings_of_call())

    def extra_repr(self) -> str:
        return super().extra_repr() + args.options(self, nonlinearity="tanh")


class LSTM(_Recurrent):
    r"""Long short-term memory over sequences.

    .. math::

        (i_t, f_t, g_t, o_t) &= W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh} \\
        c_t &= \sigma(f_t) c_{t-1} + \sigma(i_t) \tanh(g_t) \\
        h_t &= \sigma(o_t) \tanh(c_t)

    Args:
        hidden_size: size of the states.
        input_size: size of the input's last axis; taken from the first input when not given.
        num_layers: number of layers, each of which runs over the :math:`h` of the one before.
        bias: whether to add :math:`b`.
        batch_first: whether the axis of the batch comes before that of time.
        dropout: the probability of dropping an element of what one layer passes to the next, in training mode.
        bidirectional: whether each layer also runs backwards; the results are put side by side.
        proj_size: when it is not 0, :math:`h_t` is multiplied by a matrix :math:`W_{hr}` to this size.
        dtype: of the parameters.

    Shape:
        ``layer(x, hx=None, lengths=None)`` gives ``(output, (h_n, c_n))``, with ``out`` for ``proj_size`` or, if
        that is 0, ``hidden_size``:

        - ``x``: ``(T, N, input_size)``; ``(N, T, input_size)`` with ``batch_first``; or one sequence
          ``(T, input_size)``.
        - ``hx``: the initial states ``(h, c)``, ``(num_layers * directions, N, out)`` and
          ``(num_layers * directions, N, hidden_size)``, without ``N`` for one sequence; zeros when not given.
        - ``lengths``: ``(N,)`` integers, how long each sequence is; the rest of it is padding, which is not looked
          at. A backward direction begins at each sequence's own end. All are of length ``T`` when not given.
        - ``output``: the last layer's :math:`h`, ``(T, N, directions * out)``; zeros in padding.
        - ``h_n``, ``c_n``: all layers' states at the last element of each sequence, of the shapes of ``hx``.

    Parameters:
        weight_ih_l0: ``(4 * hidden_size, input_size)``, the rows of ``i``, ``f``, ``g``, ``o`` in this order; of
            further layers, ``weight_ih_l1`` and so on, ``(4 * hidden_size, directions * out)``. With
            ``bidirectional`` there are those of the backward direction too: ``weight_ih_l0_reverse`` and so on.
        weight_hh_l0: ``(4 * hidden_size, out)``.
        bias_ih_l0: ``(4 * hidden_size,)``.
        bias_hh_l0: ``(4 * hidden_size,)``.
        weight_hr_l0: ``(proj_size, hidden_size)``, with ``proj_size`` only.

        All are drawn from :math:`U(-k, k)` with :math:`k = 1 / \sqrt{\text{hidden\_size}}`.

    Raises:
        ShapeMismatchError: in a call, when shapes do not fit or there is no element in time.
        TypeError: an argument has the wrong type.
        ValueError: a size is not positive, or ``proj_size`` not smaller than ``hidden_size``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.LSTM(4, bidirectional=True)
        >>> output, (h, c) = layer(jnp.ones((5, 2, 3)))
        >>> output.shape, h.shape, c.shape
        ((5, 2, 8), (2, 2, 4), (2, 2, 4))
        >>> output, _ = layer(jnp.ones((5, 2, 3)), lengths=jnp.array([5, 1]))
        >>> bool(output[1:, 1].any())
        False
        >>> layer
        LSTM(3 → 4, bidirectional=True)

    Reference:
        Hochreiter and Schmidhuber, "Long short-term memory", 1997; ``torch.nn.LSTM``. ``lengths`` does what
        ``torch.nn.utils.rnn.pack_padded_sequence`` is for.
    """

    @args.torch_order(
        "input_size",
        "hidden_size",
        "num_layers",
        "bias",
        "batch_first",
        "dropout",
        "bidirectional",
        "proj_size",
    )
    def __init__(
        self,
        hidden_size: int,
        *,
        input_size: int | None = None,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        dtype: Any = jnp.float32,
    ) -> None:
        super().__init__(
            "lstm", hidden_size, input_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, dtype
        )

    def forward(
        self,
        x: Float[Array, "*shape in"],
        hx: tuple[Float[Array, "*states out"], Float[Array, "*states hidden"]] | None = None,
        lengths: Int[Array, " n"] | None = None,
    ) -> tuple[Float[Array, "*shape out"], tuple[Float[Array, "*states out"], Float[Array, "*states hidden"]]]:
        """Run over the sequences."""
        return lstm(x, hx=hx, lengths=lengths, **self._settings_of_call())


class GRU(_Recurrent):
    r"""Gated recurrent units over sequences.

    .. math::

        r_t &= \sigma(W_{ir} x_t + b_{ir} + W_{hr} h_{t-1} + b_{hr}) \\
        z_t &= \sigma(W_{iz} x_t + b_{iz} + W_{hz} h_{t-1} + b_{hz}) \\
        n_t &= \tanh(W_{in} x_t + b_{in} + r_t (W_{hn} h_{t-1} + b_{hn})) \\
        h_t &= (1 - z_t) n_t + z_t h_{t-1}

    Args:
        hidden_size: size of the state.
        input_size: size of the input's last axis; taken from the first input when not given.
        num_layers: number of layers, each of which runs over the states of the one before.
        bias: whether to add :math:`b`.
        batch_first: whether the axis of the batch comes before that of time.
        dropout: the probability of dropping an element of what one layer passes to the next, in training mode.
        bidirectional: whether each layer also runs backwards; the results are put side by side.
        dtype: of the parameters.

    Shape:
        ``layer(x, hx=None, lengths=None)`` gives ``(output, h_n)``:

        - ``x``: ``(T, N, input_size)``; ``(N, T, input_size)`` with ``batch_first``; or one sequence
          ``(T, input_size)``.
        - ``hx``: the initial states, ``(num_layers * directions, N, hidden_size)``, without ``N`` for one
          sequence; zeros when not given.
        - ``lengths``: ``(N,)`` integers, how long each sequence is; the rest of it is padding, which is not looked
          at. A backward direction begins at each sequence's own end. All are of length ``T`` when not given.
        - ``output``: the last layer's states, ``(T, N, directions * hidden_size)``; zeros in padding.
        - ``h_n``: all layers' states at the last element of each sequence, of the shape of ``hx``.

    Parameters:
        weight_ih_l0: ``(3 * hidden_size, input_size)``, the rows of ``r``, ``z``, ``n`` in this order; of further
            layers, ``weight_ih_l1`` and so on, ``(3 * hidden_size, directions * hidden_size)``. With
            ``bidirectional`` there are those of the backward direction too: ``weight_ih_l0_reverse`` and so on.
        weight_hh_l0: ``(3 * hidden_size, hidden_size)``.
        bias_ih_l0: ``(3 * hidden_size,)``.
        bias_hh_l0: ``(3 * hidden_size,)``.

        All are drawn from :math:`U(-k, k)` with :math:`k = 1 / \sqrt{\text{hidden\_size}}`.

    Raises:
        ShapeMismatchError: in a call, when shapes do not fit or there is no element in time.
        TypeError: an argument has the wrong type.
        ValueError: a size is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.GRU(4, batch_first=True)
        >>> output, h = layer(jnp.ones((2, 5, 3)))
        >>> output.shape, h.shape
        ((2, 5, 4), (1, 2, 4))
        >>> layer
        GRU(3 → 4, batch_first=True)

    Reference:
        Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, with the reset
        gate after the product; ``torch.nn.GRU``. ``lengths`` does what
        ``torch.nn.utils.rnn.pack_padded_sequence`` is for.
    """

    @args.torch_order(
        "input_size",
        "hidden_size",
        "num_layers",
        "bias",
        "batch_first",
        "dropout",
        "bidirectional",
    )
    def __init__(
        self,
        hidden_size: int,
        *,
        input_size: int | None = None,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Any = jnp.float32,
    ) -> None:
        super().__init__(
            "gru", hidden_size, input_size, num_layers, bias, batch_first, dropout, bidirectional, 0, dtype
        )

    def forward(
        self,
        x: Float[Array, "*shape in"],
        hx: Float[Array, "*states hidden"] | None = None,
        lengths: Int[Array, " n"] | None = None,
    ) -> tuple[Float[Array, "*shape out"], Float[Array, "*states hidden"]]:
        """Run over the sequences."""
        return gru(x, hx=hx, lengths=lengths, **self._settings_of_call())
