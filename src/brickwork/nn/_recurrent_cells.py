"""Single steps of recurrent layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ..core import Parameter
from ..functional import gru_cell, lstm_cell, rnn_cell
from ..functional._recurrent_cells import GATES, cell_width, rnn_kind
from ..init import uniform
from ..module import Module
from . import _args as args

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class _Cell(Module):
    """What the cells share: their parameters."""

    def __init__(self, kind: str, hidden_size: int, input_size: int | None, bias: bool, dtype: Any) -> None:
        name = type(self).__name__
        self.hidden_size = args.size(hidden_size, name, "hidden_size")
        inputs = args.optional_size(input_size, name, "input_size")
        rows = GATES[kind] * self.hidden_size
        bound = 1 / math.sqrt(self.hidden_size)

        def parameter(*shape: int | None) -> Parameter:
            return Parameter(shape=shape, dtype=dtype, init=uniform(-bound, bound))

        self.weight_ih = parameter(rows, inputs)
        self.weight_hh = parameter(rows, self.hidden_size)
        has_bias = args.flag(bias, name, "bias")
        self.bias_ih = parameter(rows) if has_bias else None
        self.bias_hh = parameter(rows) if has_bias else None

    @property
    def input_size(self) -> int | None:
        """Size of the input's last axis; ``None`` while it is not known."""
        return self.weight_ih.shape[1]

    def build(self, x: Any, hx: Any = None) -> None:
        """Take the input size from the last axis."""
        width = cell_width(x, type(self).__name__)
        if self.weight_ih.shape[1] is None:
            self.weight_ih.shape = (None, width)

    def extra_repr(self) -> str:
        bias = "" if self.bias_ih is not None else ", bias=False"
        return f"{args.show(self.input_size)} → {self.hidden_size}{bias}"


class RNNCell(_Cell):
    r"""One step of a simple recurrent network.

    .. math:: h' = \tanh(W_{ih} x + b_{ih} + W_{hh} h + b_{hh})

    Args:
        hidden_size: size of the state.
        input_size: size of the input's last axis; taken from the first input when not given.
        bias: whether to add :math:`b`.
        nonlinearity: ``"tanh"``, or ``"relu"`` in its place.
        dtype: of the parameters.

    Shape:
        ``layer(x, hx=None)``: ``x`` of shape ``(N, input_size)`` and the state ``hx`` of shape ``(N, hidden_size)``,
        zeros when not given, to the new state of that shape; all also without ``N``.

    Parameters:
        weight_ih: ``(hidden_size, input_size)``.
        weight_hh: ``(hidden_size, hidden_size)``.
        bias_ih: ``(hidden_size,)``.
        bias_hh: ``(hidden_size,)``.

        All are drawn from :math:`U(-k, k)` with :math:`k = 1 / \sqrt{\text{hidden\_size}}`.

    Raises:
        ShapeMismatchError: in a call, when shapes do not fit.
        TypeError: an argument has the wrong type.
        ValueError: a size is not positive, or there is no such nonlinearity.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.RNNCell(4)
        >>> h = layer(jnp.ones((2, 3)))
        >>> layer(jnp.ones((2, 3)), h).shape
        (2, 4)
        >>> layer
        RNNCell(3 → 4)

    Reference:
        Elman, "Finding structure in time", 1990; ``torch.nn.RNNCell``.
    """

    @args.torch_order("input_size", "hidden_size", "bias", "nonlinearity")
    def __init__(
        self,
        hidden_size: int,
        *,
        input_size: int | None = None,
        bias: bool = True,
        nonlinearity: str = "tanh",
        dtype: Any = jnp.float32,
    ) -> None:
        kind = rnn_kind(nonlinearity, "RNNCell")
        self.nonlinearity = nonlinearity
        super().__init__(kind, hidden_size, input_size, bias, dtype)

    def forward(
        self, x: Float[Array, "*batch in"], hx: Float[Array, "*batch hidden"] | None = None
    ) -> Float[Array, "*batch hidden"]:
        """Take the step."""
        return rnn_cell(x, hx, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, self.nonlinearity)

    def extra_repr(self) -> str:
        return super().extra_repr() + args.options(self, nonlinearity="tanh")


class LSTMCell(_Cell):
    r"""One step of an LSTM.

    .. math::

        (i, f, g, o) &= W_{ih} x + b_{ih} + W_{hh} h + b_{hh} \\
        c' &= \sigma(f) c + \sigma(i) \tanh(g) \\
        h' &= \sigma(o) \tanh(c')

    Args:
        hidden_size: size of the states.
        input_size: size of the input's last axis; taken from the first input when not given.
        bias: whether to add :math:`b`.
        dtype: of the parameters.

    Shape:
        ``layer(x, hx=None)``: ``x`` of shape ``(N, input_size)`` and the states ``hx = (h, c)``, each of shape
        ``(N, hidden_size)``, zeros when not given, to the new states ``(h, c)``; all also without ``N``.

    Parameters:
        weight_ih: ``(4 * hidden_size, input_size)``, the rows of ``i``, ``f``, ``g``, ``o`` in this order.
        weight_hh: ``(4 * hidden_size, hidden_size)``.
        bias_ih: ``(4 * hidden_size,)``.
        bias_hh: ``(4 * hidden_size,)``.

        All are drawn from :math:`U(-k, k)` with :math:`k = 1 / \sqrt{\text{hidden\_size}}`.

    Raises:
        ShapeMismatchError: in a call, when shapes do not fit.
        TypeError: an argument has the wrong type.
        ValueError: a size is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.LSTMCell(4)
        >>> h, c = layer(jnp.ones((2, 3)))
        >>> h, c = layer(jnp.ones((2, 3)), (h, c))
        >>> h.shape, c.shape
        ((2, 4), (2, 4))
        >>> layer
        LSTMCell(3 → 4)

    Reference:
        Hochreiter and Schmidhuber, "Long short-term memory", 1997; ``torch.nn.LSTMCell``.
    """

    @args.torch_order("input_size", "hidden_size", "bias")
    def __init__(
        self,
        hidden_size: int,
        *,
        input_size: int | None = None,
        bias: bool = True,
        dtype: Any = jnp.float32,
    ) -> None:
        super().__init__("lstm", hidden_size, input_size, bias, dtype)

    def forward(
        self,
        x: Float[Array, "*batch in"],
        hx: tuple[Float[Array, "*batch hidden"], Float[Array, "*batch hidden"]] | None = None,
    ) -> tuple[Float[Array, "*batch hidden"], Float[Array, "*batch hidden"]]:
        """Take the step."""
        return lstm_cell(x, hx, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)


class GRUCell(_Cell):
    r"""One step of a GRU.

    .. math::

        r &= \sigma(W_{ir} x + b_{ir} + W_{hr} h + b_{hr}) \\
        z &= \sigma(W_{iz} x + b_{iz} + W_{hz} h + b_{hz}) \\
        n &= \tanh(W_{in} x + b_{in} + r (W_{hn} h + b_{hn})) \\
        h' &= (1 - z) n + z h

    Args:
        hidden_size: size of the state.
        input_size: size of the input's last axis; taken from the first input when not given.
        bias: whether to add :math:`b`.
        dtype: of the parameters.

    Shape:
        ``layer(x, hx=None)``: ``x`` of shape ``(N, input_size)`` and the state ``hx`` of shape ``(N, hidden_size)``,
        zeros when not given, to the new state of that shape; all also without ``N``.

    Parameters:
        weight_ih: ``(3 * hidden_size, input_size)``, the rows of ``r``, ``z``, ``n`` in this order.
        weight_hh: ``(3 * hidden_size, hidden_size)``.
        bias_ih: ``(3 * hidden_size,)``.
        bias_hh: ``(3 * hidden_size,)``.

        All are drawn from :math:`U(-k, k)` with :math:`k = 1 / \sqrt{\text{hidden\_size}}`.

    Raises:
        ShapeMismatchError: in a call, when shapes do not fit.
        TypeError: an argument has the wrong type.
        ValueError: a size is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.GRUCell(4)
        >>> h = layer(jnp.ones((2, 3)))
        >>> layer(jnp.ones((2, 3)), h).shape
        (2, 4)
        >>> layer
        GRUCell(3 → 4)

    Reference:
        Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, with the reset
        gate after the product; ``torch.nn.GRUCell``.
    """

    @args.torch_order("input_size", "hidden_size", "bias")
    def __init__(
        self,
        hidden_size: int,
        *,
        input_size: int | None = None,
        bias: bool = True,
        dtype: Any = jnp.float32,
    ) -> None:
        super().__init__("gru", hidden_size, input_size, bias, dtype)

    def forward(
        self, x: Float[Array, "*batch in"], hx: Float[Array, "*batch hidden"] | None = None
    ) -> Float[Array, "*batch hidden"]:
        """Take the step."""
        return gru_cell(x, hx, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
