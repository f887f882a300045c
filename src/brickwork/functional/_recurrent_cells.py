"""One step of recurrent layers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from . import _checks as checks

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from ._types import ArrayLike

    State = tuple[Array, ...]

GATES = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3}  # the parts that the weights are stacked of
NONLINEARITIES = ("tanh", "relu")


class Weights(NamedTuple):
    """The weights of one layer in one direction."""

    ih: Any  # (gates * hidden, in)
    hh: Any  # (gates * hidden, out)
    bias_ih: Any = None  # (gates * hidden,)
    bias_hh: Any = None
    hr: Any = None  # (out, hidden), the projection of an LSTM


def rnn_cell(
    x: Float[ArrayLike, "*batch in"],
    hx: Float[ArrayLike, "*batch hidden"] | None,
    weight_ih: Float[ArrayLike, "hidden in"],
    weight_hh: Float[ArrayLike, "hidden hidden"],
    bias_ih: Float[ArrayLike, " hidden"] | None = None,
    bias_hh: Float[ArrayLike, " hidden"] | None = None,
    nonlinearity: str = "tanh",
) -> Float[Array, "*batch hidden"]:
    r"""Take one step of a simple recurrent network.

    .. math:: h' = \tanh(W_{ih} x + b_{ih} + W_{hh} h + b_{hh})

    Args:
        x: ``(N, in)`` or ``(in,)``.
        hx: the state :math:`h`, ``(N, hidden)`` or ``(hidden,)``; ``None``: zeros.
        weight_ih: ``(hidden, in)``.
        weight_hh: ``(hidden, hidden)``.
        bias_ih: ``(hidden,)``, or ``None``.
        bias_hh: ``(hidden,)``, or ``None``.
        nonlinearity: ``"tanh"``, or ``"relu"`` in its place.

    Returns:
        The new state, of the shape of ``hx``.

    Raises:
        ShapeMismatchError: the shapes do not fit.
        TypeError: an argument is not an array of floating-point numbers.
        ValueError: there is no such nonlinearity.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.rnn_cell(jnp.ones((2, 3)), None, jnp.ones((4, 3)), jnp.ones((4, 4))).shape
        (2, 4)

    Reference:
        Elman, "Finding structure in time", 1990; ``torch.nn.RNNCell``.
    """
    kind = rnn_kind(nonlinearity, "rnn_cell")
    return _cell("rnn_cell", kind, x, (hx,), Weights(weight_ih, weight_hh, bias_ih, bias_hh))[0]


def lstm_cell(
    x: Float[ArrayLike, "*batch in"],
    hx: Sequence[Float[ArrayLike, "*batch hidden"]] | None,
    weight_ih: Float[ArrayLike, "4*hidden in"],
    weight_hh: Float[ArrayLike, "4*hidden hidden"],
    bias_ih: Float[ArrayLike, " 4*hidden"] | None = None,
    bias_hh: Float[ArrayLike, " 4*hidden"] | None = None,
) -> tuple[Float[Array, "*batch hidden"], Float[Array, "*batch hidden"]]:
    r"""Take one step of an LSTM.

    .. math::

        (i, f, g, o) &= W_{ih} x + b_{ih} + W_{hh} h + b_{hh} \\
        c' &= \sigma(f) c + \sigma(i) \tanh(g) \\
        h' &= \sigma(o) \tanh(c')

    Args:
        x: ``(N, in)`` or ``(in,)``.
        hx: the states ``(h, c)``, each ``(N, hidden)`` or ``(hidden,)``; ``None``: zeros.
        weight_ih: ``(4 * hidden, in)``, the rows of the gates ``i``, ``f``, ``g``, ``o`` in this order.
        weight_hh: ``(4 * hidden, hidden)``.
        bias_ih: ``(4 * hidden,)``, or ``None``.
        bias_hh: ``(4 * hidden,)``, or ``None``.

    Returns:
        The new states ``(h, c)``.

    Raises:
        ShapeMismatchError: the shapes do not fit.
        TypeError: an argument is not an array of floating-point numbers, or ``hx`` not a pair.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> h, c = F.lstm_cell(jnp.ones((2, 3)), None, jnp.ones((16, 3)), jnp.ones((16, 4)))
        >>> h.shape, c.shape
        ((2, 4), (2, 4))

    Reference:
        Hochreiter and Schmidhuber, "Long short-term memory", 1997; ``torch.nn.LSTMCell``.
    """
    state = pair_of_states(hx, "lstm_cell")
    h, c = _cell("lstm_cell", "lstm", x, state, Weights(weight_ih, weight_hh, bias_ih, bias_hh))
    return h, c


def gru_cell(
    x: Float[ArrayLike, "*batch in"],
    hx: Float[ArrayLike, "*batch hidden"] | None,
    weight_ih: Float[ArrayLike, "3*hidden in"],
    weight_hh: Float[ArrayLike, "3*hidden hidden"],
    bias_ih: Float[ArrayLike, " 3*hidden"] | None = None,
    bias_hh: Float[ArrayLike, " 3*hidden"] | None = None,
) -> Float[Array, "*batch hidden"]:
    r"""Take one step of a GRU.

    .. math::

        r &= \sigma(W_{ir} x + b_{ir} + W_{hr} h + b_{hr}) \\
        z &= \sigma(W_{iz} x + b_{iz} + W_{hz} h + b_{hz}) \\
        n &= \tanh(W_{in} x + b_{in} + r (W_{hn} h + b_{hn})) \\
        h' &= (1 - z) n + z h

    Args:
        x: ``(N, in)`` or ``(in,)``.
        hx: the state :math:`h`, ``(N, hidden)`` or ``(hidden,)``; ``None``: zeros.
        weight_ih: ``(3 * hidden, in)``, the rows of ``r``, ``z`` and ``n`` in this order.
        weight_hh: ``(3 * hidden, hidden)``.
        bias_ih: ``(3 * hidden,)``, or ``None``.
        bias_hh: ``(3 * hidden,)``, or ``None``.

    Returns:
        The new state, of the shape of ``hx``.

    Raises:
        ShapeMismatchError: the shapes do not fit.
        TypeError: an argument is not an array of floating-point numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.gru_cell(jnp.ones((2, 3)), None, jnp.ones((12, 3)), jnp.ones((12, 4))).shape
        (2, 4)

    Reference:
        Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, with the reset
        gate after the product; ``torch.nn.GRUCell``.
    """
    return _cell("gru_cell", "gru", x, (hx,), Weights(weight_ih, weight_hh, bias_ih, bias_hh))[0]


def rnn_kind(nonlinearity: Any, function: str) -> str:
    """Return the kind of step of a simple recurrent network."""
    if nonlinearity not in NONLINEARITIES:
        raise ValueError(f"{function}: nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}.")
    return f"rnn_{nonlinearity}"


def pair_of_states(hx: Any, function: str) -> tuple[Any, Any]:
    """Return the two states of an LSTM, both ``None`` where they are zeros."""
    if hx is None:
        return None, None
    if not isinstance(hx, (tuple, list)) or len(hx) != 2:
        got = f"a {type(hx).__name__} of {len(hx)}" if isinstance(hx, (tuple, list)) else f"a {type(hx).__name__}"
        raise TypeError(f"{function}: hx must be a pair (h, c) of arrays, got {got}.")
    return hx[0], hx[1]


def check_weights(weights: Weights, inputs: int, kind: str, function: str, place: str = "") -> Weights:
    """Check the weights of a layer of ``inputs`` features; ``place`` is put behind their names."""
    ih = checks.to_array(weights.ih, function, f"weight_ih{place}")
    gates = GATES[kind]
    if len(ih.shape) != 2 or ih.shape[0] % gates:
        checks.shape_error(
            function,
            f"weight_ih{place} must have the shape ({'' if gates == 1 else f'{gates} * '}hidden, in).",
            "Check the weights.",
            weight_ih=ih,
        )
    rows = ih.shape[0]
    hidden = rows // gates
    hr = checks.optional_array(weights.hr, function, f"weight_hr{place}")
    out = hidden if hr is None else hr.shape[0]
    found = {"weight_ih": (ih, (rows, inputs)), "weight_hr": (hr, (out, hidden))}
    for name, value, expected in (
        ("weight_hh", weights.hh, (rows, out)),
        ("bias_ih", weights.bias_ih, (rows,)),
        ("bias_hh", weights.bias_hh, (rows,)),
    ):
        required = checks.to_array if name == "weight_hh" else checks.optional_array
        found[name] = required(value, function, name + place), expected
    for name, (value, expected) in found.items():
        if value is not None and value.shape != expected:
            checks.shape_error(
                function,
                f"{name}{place} must have the shape {expected}.",
                "Check the weights.",
                **{name: value},
            )
    return Weights(ih, found["weight_hh"][0], found["bias_ih"][0], found["bias_hh"][0], hr)


def wrong_features(x: Array, expected: int, function: str) -> None:
    """Raise for data of the wrong width."""
    fix = f"Check the data, or make the layer for {x.shape[-1]} input features."
    if expected in x.shape:
        fix = f"The features seem to be axis {x.shape.index(expected)}; move them to the end."
    checks.shape_error(
        function,
        f"x has {x.shape[-1]} features in its last axis, but the input size is {expected}.",
        fix,
        x=x,
    )


def check_states(
    state: tuple[Any, ...], sizes: tuple[int, ...], lead: tuple[int, ...], function: str
) -> tuple[Array | None, ...]:
    """Check initial states, of the shape ``lead`` and one more axis of their size."""
    names = ("hx",) if len(sizes) == 1 else ("hx[0]", "hx[1]")
    found = tuple(checks.optional_array(s, function, name) for s, name in zip(state, names, strict=True))
    for s, size, name in zip(found, sizes, names, strict=True):
        if s is None and any(v is not None for v in found):
            raise TypeError(f"{function}: {name} must be an array, got None. Pass both states, or hx=None for zeros.")
        if s is not None:
            checks.require_inexact(s, function, name)
            if s.shape != (*lead, size):
                checks.shape_error(
                    function,
                    f"{name} must have the shape {(*lead, size)}, as x has a batch or not.",
                    f"Check {name}.",
                    hx=s,
                )
    return found


def cell_width(x: Any, function: str) -> int:
    """Check the axes of the input of one step, and return the size of the last."""
    shape = checks.shape_of(x, function)
    if len(shape) not in (1, 2):
        checks.shape_error(
            function,
            f"x must have 2 axes (N, features), or 1 axis (features,), not {len(shape)}.",
            "A cell takes one step; for a sequence, take the layer without Cell in its name.",
            x=x,
        )
    return shape[-1]


def _cell(function: str, kind: str, x: Any, state: tuple[Any, ...], weights: Weights) -> State:
    x = checks.to_array(x, function, "x")
    checks.require_inexact(x, function, "x")
    cell_width(x, function)
    width = getattr(weights.ih, "shape", ())
    if len(width) == 2 and width[1] != x.shape[-1]:
        wrong_features(x, width[1], function)
    weights = check_weights(weights, x.shape[-1], kind, function)
    size = weights.hh.shape[1]
    state = check_states(state, (size,) * len(state), x.shape[:-1], function)
    return _one_step(x, state, weights, kind=kind)


@functools.partial(jax.jit, static_argnames="kind")
def _one_step(x: Array, state: tuple[Array | None, ...], weights: Weights, *, kind: str) -> State:
    dtype = jnp.result_type(x, weights.ih)
    wide = checks.statistics_dtype(dtype)
    rows = jnp.atleast_2d(x).astype(dtype)
    weights = jax.tree.map(lambda w: w.astype(dtype), weights)
    shape = (rows.shape[0], weights.hh.shape[1])
    full = tuple(jnp.zeros(shape, wide) if s is None else jnp.atleast_2d(s).astype(wide) for s in state)
    new = step(kind, input_part(kind, rows, weights), full, weights)
    return tuple(s.reshape(*x.shape[:-1], s.shape[-1]).astype(dtype) for s in new)


class Turned(NamedTuple):
    """A weight that many steps multiply by, and the same transposed, which XLA on a CPU would do in each of them."""

    weight: Array
    transposed: Array


def turned(weight: Array) -> Turned:
    """Transpose a weight once."""
    return Turned(weight, lax.optimization_barrier(weight.T))


def matmul(x: Array, weight: Array | Turned) -> Array:
    """Return ``x @ weight.T``, added up in float32 at least."""
    if isinstance(weight, Turned):
        return _matmul_turned(x.astype(weight.transposed.dtype), *weight)
    return _contract(x.astype(weight.dtype), weight, 1)


def _contract(x: Array, weight: Array, axis: int) -> Array:
    wide = checks.statistics_dtype(weight.dtype)
    return lax.dot_general(x, weight, (((1,), (axis,)), ((), ())), preferred_element_type=wide)


@jax.custom_jvp
def _matmul_turned(x: Array, weight: Array, transposed: Array) -> Array:
    return _contract(x, transposed, 0)


@functools.partial(_matmul_turned.defjvp, symbolic_zeros=True)
def _matmul_turned_jvp(primals: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    """The gradient is that of the plain product, whose own factors lie as it wants them.

    It goes to the weight alone, also that of the other one, which is computed from it. (Without a tangent there, JAX
    0.10 gets second derivatives of a scan wrong.)
    """
    (x, weight, transposed), (dx, dweight, _) = primals, tangents
    terms = []
    if not isinstance(dx, SymbolicZero):
        terms.append(_contract(dx, weight, 1))
    if not isinstance(dweight, SymbolicZero):
        terms.append(_contract(x, dweight, 1))
    return _matmul_turned(x, weight, transposed), functools.reduce(jnp.add, terms)


def input_part(kind: str, x: Array, weights: Weights) -> Array:
    """Return what a step, or many, needs of its input: ``(rows, gates * hidden)``."""
    part = matmul(x, weights.ih)
    bias = weights.bias_ih
    if kind != "gru" and weights.bias_hh is not None:  # where the other bias only adds to it
        bias = weights.bias_hh if bias is None else bias + weights.bias_hh
    return part if bias is None else part + bias.astype(part.dtype)


def step(kind: str, part: Array, state: State, weights: Weights) -> State:
    """Return the states that follow, given the input's part; both in float32 at least."""
    h = state[0]
    recurrent = matmul(h, weights.hh)
    if kind == "gru":
        if weights.bias_hh is not None:
            recurrent = recurrent + weights.bias_hh.astype(recurrent.dtype)
        r, z, n = jnp.split(part, 3, -1)
        hr, hz, hn = jnp.split(recurrent, 3, -1)
        z = jax.nn.sigmoid(z + hz)
        n = jnp.tanh(n + jax.nn.sigmoid(r + hr) * hn)
        return (n + z * (h - n),)
    if kind == "lstm":
        i, f, g, o = jnp.split(part + recurrent, 4, -1)
        c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h if weights.hr is None else matmul(h, weights.hr)), c
    total = part + recurrent
    return (jnp.tanh(total) if kind == "rnn_tanh" else jax.nn.relu(total),)
