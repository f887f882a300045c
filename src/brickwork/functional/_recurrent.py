"""Recurrent layers: a stack of them, over whole sequences."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from . import _checks as checks
from ._dropout import check_rate, dropout as drop
from ._explicit import left_to_xla
from ._recurrent_cells import (
    GATES,
    Weights,
    check_states,
    check_weights,
    pair_of_states,
    rnn_kind,
    wrong_features,
)
from ._recurrent_scan import scan

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

    from ._types import ArrayLike

    LayerWeights = Sequence[ArrayLike | None]
    State = tuple[Array, ...]


def rnn(
    x: Float[ArrayLike, "*shape in"],
    weights: Sequence[LayerWeights],
    hx: Float[ArrayLike, "*states hidden"] | None = None,
    lengths: Int[ArrayLike, " n"] | None = None,
    *,
    nonlinearity: str = "tanh",
    bidirectional: bool = False,
    batch_first: bool = False,
    dropout: float = 0.0,
    key: Array | None = None,
) -> tuple[Float[Array, "*shape out"], Float[Array, "*states hidden"]]:
    r"""Run simple recurrent layers over sequences.

    .. math:: h_t = \tanh(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh})

    Args:
        x: ``(T, N, in)``; ``(N, T, in)`` with ``batch_first``; or one sequence ``(T, in)``.
        weights: for each layer, and in it for each direction, ``(weight_ih, weight_hh)`` or
            ``(weight_ih, weight_hh, bias_ih, bias_hh)``, of the shapes that :func:`rnn_cell` takes.
        hx: the initial states, ``(layers * directions, N, hidden)``, without ``N`` for one
            sequence; ``None``: zeros.
        lengths: the length of each sequence, ``(N,)``; the rest of it is padding, which is not looked at. ``None``:
            all of ``T``.
        nonlinearity: ``"tanh"`` or ``"relu"``.
        bidirectional: whether each layer also runs backwards; the results are put side by side.
        batch_first: whether the axis of the batch comes before that of time.
        dropout: the probability of dropping an element of what one layer passes to the next.
        key: the random key for it.

    Returns:
        ``(output, h_n)``: the last layer's states at all times, ``(T, N, directions * hidden)``, zeros in padding;
        and all layers' states at the last element of each sequence, of the shape of ``hx``.

    Raises:
        ShapeMismatchError: the shapes do not fit, or there is no element in time.
        TypeError: ``x`` is not an array of floating-point numbers, or there is no ``key`` for dropout.
        ValueError: ``dropout`` is outside ``[0, 1]``, or there is no such nonlinearity.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> y, h = F.rnn(jnp.ones((5, 2, 3)), [(jnp.ones((4, 3)), jnp.ones((4, 4)))])
        >>> y.shape, h.shape
        ((5, 2, 4), (1, 2, 4))

    Reference:
        Elman, "Finding structure in time", 1990; ``torch.nn.RNN``.
    """
    kind = rnn_kind(nonlinearity, "rnn")
    output, (h,) = _run("rnn", kind, x, weights, (hx,), lengths, bidirectional, batch_first, dropout, key)
    return output, h


def lstm(
    x: Float[ArrayLike, "*shape in"],
    weights: Sequence[LayerWeights],
    hx: Sequence[Float[ArrayLike, "*states hidden"]] | None = None,
    lengths: Int[ArrayLike, " n"] | None = None,
    *,
    bidirectional: bool = False,
    batch_first: bool = False,
    dropout: float = 0.0,
    key: Array | None = None,
) -> tuple[Float[Array, "*shape out"], tuple[Float[Array, "*states out"], Float[Array, "*states hidden"]]]:
    r"""Run LSTM layers over sequences.

    .. math::

        (i_t, f_t, g_t, o_t) &= W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh} \\
        c_t &= \sigma(f_t) c_{t-1} + \sigma(i_t) \tanh(g_t) \\
        h_t &= \sigma(o_t) \tanh(c_t)

    On a CPU, without projection, the gradient has a rule of its own: reverse mode can be applied any number of
    times, and forward mode only to a gradient (as for Hessian-vector products).

    Args:
        x: ``(T, N, in)``; ``(N, T, in)`` with ``batch_first``; or one sequence ``(T, in)``.
        weights: for each layer, and in it for each direction, ``(weight_ih, weight_hh)`` or
            ``(weight_ih, weight_hh, bias_ih, bias_hh)``, of the shapes that :func:`lstm_cell` takes. A fifth,
            ``weight_hr`` of shape ``(out, hidden)``, projects :math:`h_t`; ``weight_hh`` then is
            ``(4 * hidden, out)``. The biases may be ``None``.
        hx: the initial states ``(h, c)``, each ``(layers * directions, N, hidden)`` (``out`` for a projected
            ``h``), without ``N`` for one sequence; ``None``: zeros.
        lengths: as for :func:`rnn`.
        bidirectional: whether each layer also runs backwards; the results are put side by side.
        batch_first: whether the axis of the batch comes before that of time.
        dropout: the probability of dropping an element of what one layer passes to the next.
        key: the random key for it.

    Returns:
        ``(output, (h_n, c_n))``: the last layer's :math:`h` at all times, ``(T, N, directions * out)``, zeros in
        padding; and all layers' states at the last element of each sequence, of the shapes of ``hx``.

    Raises:
        ShapeMismatchError: the shapes do not fit, or there is no element in time.
        TypeError: ``x`` is not an array of floating-point numbers, ``hx`` is no pair, or there is no ``key``
            for dropout.
        ValueError: ``dropout`` is outside ``[0, 1]``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> y, (h, c) = F.lstm(jnp.ones((5, 2, 3)), [(jnp.ones((16, 3)), jnp.ones((16, 4)))])
        >>> y.shape, h.shape, c.shape
        ((5, 2, 4), (1, 2, 4), (1, 2, 4))

    Reference:
        Hochreiter and Schmidhuber, "Long short-term memory", 1997; ``torch.nn.LSTM``.
    """
    state = pair_of_states(hx, "lstm")
    output, (h, c) = _run("lstm", "lstm", x, weights, state, lengths, bidirectional, batch_first, dropout, key)
    return output, (h, c)


def gru(
    x: Float[ArrayLike, "*shape in"],
    weights: Sequence[LayerWeights],
    hx: Float[ArrayLike, "*states hidden"] | None = None,
    lengths: Int[ArrayLike, " n"] | None = None,
    *,
    bidirectional: bool = False,
    batch_first: bool = False,
    dropout: float = 0.0,
    key: Array | None = None,
) -> tuple[Float[Array, "*shape out"], Float[Array, "*states hidden"]]:
    r"""Run GRU layers over sequences.

    .. math::

        r_t &= \sigma(W_{ir} x_t + b_{ir} + W_{hr} h_{t-1} + b_{hr}) \\
        z_t &= \sigma(W_{iz} x_t + b_{iz} + W_{hz} h_{t-1} + b_{hz}) \\
        n_t &= \tanh(W_{in} x_t + b_{in} + r_t (W_{hn} h_{t-1} + b_{hn})) \\
        h_t &= (1 - z_t) n_t + z_t h_{t-1}

    Args:
        x: ``(T, N, in)``; ``(N, T, in)`` with ``batch_first``; or one sequence ``(T, in)``.
        weights: for each layer, and in it for each direction, ``(weight_ih, weight_hh)`` or
            ``(weight_ih, weight_hh, bias_ih, bias_hh)``, of the shapes that :func:`gru_cell` takes.
        hx: as for :func:`rnn`.
        lengths: as for :func:`rnn`.
        bidirectional: whether each layer also runs backwards; the results are put side by side.
        batch_first: whether the axis of the batch comes before that of time.
        dropout: the probability of dropping an element of what one layer passes to the next.
        key: the random key for it.

    Returns:
        ``(output, h_n)``, as for :func:`rnn`.

    Raises:
        ShapeMismatchError: the shapes do not fit, or there is no element in time.
        TypeError: ``x`` is not an array of floating-point numbers, or there is no ``key`` for dropout.
        ValueError: ``dropout`` is outside ``[0, 1]``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> y, h = F.gru(jnp.ones((5, 2, 3)), [(jnp.ones((12, 3)), jnp.ones((12, 4)))])
        >>> y.shape, h.shape
        ((5, 2, 4), (1, 2, 4))

    Reference:
        Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, with the reset
        gate after the product; ``torch.nn.GRU``.
    """
    output, (h,) = _run("gru", "gru", x, weights, (hx,), lengths, bidirectional, batch_first, dropout, key)
    return output, h


def _run(
    function: str,
    kind: str,
    x: Any,
    weights: Any,
    state: tuple[Any, ...],
    lengths: Any,
    bidirectional: bool,
    batch_first: bool,
    rate: Any,
    key: Any,
) -> tuple[Array, State]:
    """Check everything, and run."""
    x = checks.to_array(x, function, "x")
    checks.require_inexact(x, function, "x")
    batch_first = checks.flag(batch_first, function, "batch_first")
    sequence_width(x, function, batch_first)
    layers = _check_stack(weights, x, kind, function, bidirectional)
    batch = () if x.ndim == 2 else (x.shape[0] if batch_first else x.shape[1],)
    first = layers[0]
    sizes = (first.hh.shape[1], first.ih.shape[0] // GATES[kind])[: len(state)]
    state = check_states(state, sizes, (len(layers), *batch), function)
    lengths = _check_lengths(lengths, x, batch, function, batch_first)
    rate = check_rate(rate, function, "dropout")
    if rate == 0 or len(layers) == 1 + bidirectional:
        rate, key = 0.0, None
    else:
        checks.require_key(key, function)
    return _stack(
        x, layers, state, lengths, key, kind=kind, bidirectional=bidirectional, batch_first=batch_first, rate=rate
    )


def sequence_width(x: Any, function: str, batch_first: bool) -> int:
    """Check the axes of the input, and return the size of the last."""
    shape = checks.shape_of(x, function)
    axes = "(N, T, features)" if batch_first else "(T, N, features)"
    if len(shape) not in (2, 3):
        problem = f"x must have 3 axes {axes}, or 2 axes (T, features), not {len(shape)}."
        checks.shape_error(function, problem, "Reshape the data.", x=x)
    if shape[1 if batch_first and len(shape) == 3 else 0] == 0:
        checks.shape_error(function, "x has no element in time.", "Check the data, or batch_first.", x=x)
    return shape[-1]


def _check_stack(weights: Any, x: Array, kind: str, function: str, bidirectional: bool) -> tuple[Weights, ...]:
    directions = 1 + checks.flag(bidirectional, function, "bidirectional")
    if not isinstance(weights, (tuple, list)) or not weights or len(weights) % directions:
        got = len(weights) if isinstance(weights, (tuple, list)) else f"a {type(weights).__name__}"
        raise TypeError(
            f"{function}: weights must be a list of tuples (weight_ih, weight_hh, ...), "
            f"{'two for each layer' if bidirectional else 'one for each layer'}, got {got}."
        )
    inputs = x.shape[-1]
    layers: list[Weights] = []
    for i, given in enumerate(weights):
        if not isinstance(given, (tuple, list)) or not 2 <= len(given) <= (5 if kind == "lstm" else 4):
            raise TypeError(
                f"{function}: weights[{i}] must be a tuple (weight_ih, weight_hh) or (weight_ih, weight_hh, "
                f"bias_ih, bias_hh), got {f'one of {len(given)}' if isinstance(given, (tuple, list)) else type(given)}."
            )
        layer = Weights(*given)
        width = getattr(layer.ih, "shape", ())
        if i < directions and len(width) == 2 and width[1] != inputs:
            wrong_features(x, width[1], function)
        layers.append(check_weights(layer, inputs, kind, function, f" of weights[{i}]"))
        if (i + 1) % directions == 0:
            inputs = directions * layers[-1].hh.shape[1]
    return tuple(layers)


def _check_lengths(lengths: Any, x: Array, batch: tuple[int, ...], function: str, batch_first: bool) -> Array | None:
    if lengths is None:
        return None
    if isinstance(lengths, (tuple, list)):
        lengths = np.asarray(lengths)
    found = checks.to_array(lengths, function, "lengths")
    checks.require_integer(found, function, "lengths")
    if found.shape != batch or not batch:
        problem = f"lengths must have the shape {batch}, one for each sequence of the batch."
        if not batch:
            problem = "lengths are for a batch of sequences, and x is one sequence."
        checks.shape_error(function, problem, "Check lengths, or batch_first.", lengths=found, x=x)
    time = x.shape[1 if batch_first else 0]
    values = checks.host_array(found)
    if values is not None and values.size and not (values.min() >= 0 and values.max() <= time):
        raise ValueError(f"{function}: lengths must be in [0, {time}], the size of x in time, got {values.tolist()}.")
    return cast("Array", found)  # jit converts it


@functools.partial(jax.jit, static_argnames=("kind", "bidirectional", "batch_first", "rate"))
def _stack(
    x: Array,
    layers: tuple[Weights, ...],
    state: tuple[Array | None, ...],
    lengths: Array | None,
    key: Array | None,
    *,
    kind: str,
    bidirectional: bool,
    batch_first: bool,
    rate: float,
) -> tuple[Array, State]:
    one = x.ndim == 2
    if one:
        x = x[:, None]
        state = tuple(None if s is None else s[:, None] for s in state)
    elif batch_first:
        x = x.swapaxes(0, 1)
    x, new = _layers(x, layers, state, lengths, key, kind=kind, directions=1 + bidirectional, rate=rate)
    if one:
        return x[:, 0], tuple(s[:, 0] for s in new)
    return x.swapaxes(0, 1) if batch_first else x, new


@left_to_xla
def _layers(
    x: Array,
    layers: tuple[Weights, ...],
    state: tuple[Array | None, ...],
    lengths: Array | None,
    key: Array | None,
    *,
    kind: str,
    directions: int,
    rate: float,
) -> tuple[Array, State]:
    """Run all layers over ``(T, N, in)``; the last states are ``(layers * directions, N, *)``."""
    dtype = jnp.result_type(x, layers[0].ih)
    layers = jax.tree.map(lambda w: w.astype(dtype), layers)
    x = x.astype(dtype)
    valid = None
    if lengths is not None:
        lengths = checks.as_index(lengths)
        valid = (jnp.arange(x.shape[0], dtype=jnp.int32)[:, None] < lengths)[..., None]
        x = jnp.where(valid, x, jnp.zeros((), dtype))  # not even NaN gets out of padding
        wrong = ((lengths < 0) | (lengths > x.shape[0]))[:, None]
        x, valid = jnp.where(wrong, jnp.asarray(jnp.nan, dtype), x), valid | wrong
    final: list[State] = []
    for first in range(0, len(layers), directions):
        if key is not None and first:
            x = drop(x, rate, jax.random.fold_in(key, first))
        results = []
        for i in range(first, first + directions):
            start = tuple(None if s is None else s[i] for s in state)
            results.append(_layer(kind, x, layers[i], start, valid, reverse=i > first))
        x = results[0][0] if directions == 1 else jnp.concatenate([y for y, _ in results], -1)
        final += [last for _, last in results]
    return x, tuple(jnp.stack(s) for s in zip(*final, strict=True))


def _layer(
    kind: str, x: Array, weights: Weights, start: tuple[Array | None, ...], valid: Array | None, reverse: bool
) -> tuple[Array, State]:
    """Run one layer in one direction over ``(T, N, in)``."""
    wide = checks.statistics_dtype(x.dtype)
    sizes = (weights.hh.shape[1], weights.ih.shape[0] // GATES[kind])
    state = tuple(
        jnp.zeros((x.shape[1], size), wide) if s is None else s.astype(wide)
        for s, size in zip(start, sizes, strict=False)
    )
    output, last = scan(kind, x, state, weights, valid, reverse)
    return output.astype(x.dtype), tuple(s.astype(x.dtype) for s in last)
