from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brickwork import functional as F
from brickwork.errors import ShapeMismatchError
from brickwork.functional._recurrent_cells import Weights
from brickwork.functional._recurrent_lstm import lstm_scan
from brickwork.functional._recurrent_scan import plain_scan

BATCH, INPUTS, HIDDEN = 3, 2, 4


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def layer(gates, inputs=INPUTS, hidden=HIDDEN):
    rows = gates * hidden
    return normal(1, rows, inputs), normal(2, rows, hidden), normal(3, rows), normal(4, rows)


# -- the LSTM's own backward pass ------------------------------------------------------------------


def lstm_arguments(time, masked):
    valid = jnp.arange(time)[:, None, None] < jnp.array([time, 1, max(time - 2, 1)])[:, None] if masked else None
    return normal(0, time, BATCH, INPUTS), (normal(5, BATCH, HIDDEN), normal(6, BATCH, HIDDEN)), valid


def both(time, masked, reverse, bias=True):
    """The loop with a backward pass of its own and the plain one, as functions of all they are differentiable by."""
    x, state, valid = lstm_arguments(time, masked)
    weights = layer(4) if bias else layer(4)[:2]

    def loss(run, x, state, weights):
        output, (h, c) = run(x, state, Weights(*weights), valid, reverse)
        return (output * normal(7, *output.shape)).sum() + (h * normal(8, *h.shape)).sum() + (c * c).sum()

    def plain(*args):
        return plain_scan("lstm", *args, at_once=True)

    arguments = (x, state, weights)
    return lambda *a: loss(lstm_scan, *a), lambda *a: loss(plain, *a), arguments


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("time", [1, 11, 16])  # less than, not a multiple of, and a multiple of the steps at once
def test_the_lstm_s_own_backward_pass(time, masked, reverse):
    own, plain, arguments = both(time, masked, reverse)
    found = jax.jit(jax.value_and_grad(own, (0, 1, 2)))(*arguments)
    expected = jax.jit(jax.value_and_grad(plain, (0, 1, 2)))(*arguments)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = float(abs(b).max()) + 1e-3
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6 * scale)


def test_its_second_derivatives():
    def slope(f):
        def norm_of_gradient(*args):
            return sum((g**2).sum() for g in jax.tree.leaves(jax.grad(f, (0, 1, 2))(*args)))

        return jax.jit(jax.grad(norm_of_gradient, (0, 1, 2)))(*arguments)

    with jax.enable_x64(True):
        own, plain, arguments = both(9, True, False, bias=False)
        arguments = jax.tree.map(lambda v: v.astype(jnp.float64), arguments)
        for a, b in zip(jax.tree.leaves(slope(own)), jax.tree.leaves(slope(plain)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * float(abs(b).max()))


def test_its_backward_pass_forwards():
    """Forward over reverse mode, as for Hessians, works; forward mode alone is refused by JAX."""
    weights = layer(4)[:2]
    x, tangent = normal(0, 3, 1, INPUTS), normal(9, 3, 1, INPUTS)

    def f(x):
        return (F.lstm(x, [weights])[0] ** 2).sum()

    found = jax.jvp(jax.grad(f), (x,), (tangent,))[1]
    expected = jax.grad(lambda x: jnp.vdot(jax.grad(f)(x), tangent))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(f, (x,), (tangent,))


def test_vmap_over_weights_and_data():
    weights = layer(4)
    xs = normal(0, 2, 5, BATCH, INPUTS)
    many = tuple(jnp.stack([w, w + 1]) for w in weights)

    def gradients(x, w):
        return jax.grad(lambda x, w: (F.lstm(x, [w])[0] ** 2).sum(), (0, 1))(x, w)

    found = jax.vmap(gradients)(xs, many)
    for i in range(2):
        expected = gradients(xs[i], tuple(w[i] for w in many))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5)


# -- all kinds -------------------------------------------------------------------------------------

KINDS = {"rnn": (F.rnn, F.rnn_cell, 1), "lstm": (F.lstm, F.lstm_cell, 4), "gru": (F.gru, F.gru_cell, 3)}
each_kind = pytest.mark.parametrize(("run", "cell", "gates"), KINDS.values(), ids=KINDS)


@each_kind
def test_a_layer_is_its_cell_step_by_step(run, cell, gates):
    weights = layer(gates)
    x = normal(0, 4, BATCH, INPUTS)
    output, last = run(x, [weights])
    state = None
    for t in range(4):
        state = cell(x[t], state, *weights)
        h = state[0] if isinstance(state, tuple) else state
        np.testing.assert_allclose(output[t], h, rtol=1e-5, atol=1e-6)
    for a, b in zip(jax.tree.leaves(last), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(a[0], b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["rnn_tanh", "rnn_relu", "gru", "lstm"])
@pytest.mark.parametrize("batch", [3, 6])  # with few rows, and with weights that are transposed beforehand
def test_the_inputs_part_at_once_or_step_by_step(kind, batch):
    weights = layer({"gru": 3, "lstm": 4}.get(kind, 1))
    x = normal(0, 5, batch, INPUTS)
    state = (normal(5, batch, HIDDEN),) * (2 if kind == "lstm" else 1)
    tangents = jax.tree.map(jnp.ones_like, (x, state, weights))

    def results(at_once):
        def run(x, state, weights):
            return plain_scan(kind, x, state, Weights(*weights), None, False, at_once=at_once)

        def loss(*args):
            return sum((v * normal(7, *v.shape)).sum() for v in jax.tree.leaves(run(*args)))

        def everything():
            args = x, state, weights
            found = [run(*args), jax.jvp(run, args, tangents)[1]]
            for by, then in ((2, 2), (0, 2), (2, 0), ((0, 1, 2), (0, 1, 2))):
                first = jax.grad(loss, by)
                norm = lambda *args, f=first: sum((g**2).sum() for g in jax.tree.leaves(f(*args)))
                found += [first(*args), jax.grad(norm, then)(*args)]
            return found

        return jax.jit(everything)()

    for a, b in zip(jax.tree.leaves(results(True)), jax.tree.leaves(results(False)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * (1 + float(abs(b).max())))


@each_kind
def test_padding_is_not_looked_at(run, cell, gates):
    """Not even when it is NaN; and it has no gradient."""
    weights = [layer(gates), layer(gates)]
    x = normal(0, 5, BATCH, INPUTS)
    lengths = jnp.array([2, 5, 0])
    padding = jnp.arange(5)[:, None] >= lengths
    bad = jnp.where(padding[..., None], jnp.nan, x)

    def total(x, weights):
        output, last = run(x, weights, lengths=lengths, bidirectional=True)
        return sum((v**2).sum() for v in jax.tree.leaves((output, last)))

    found = jax.value_and_grad(total, (0, 1))(bad, weights)
    expected = jax.value_and_grad(total, (0, 1))(x, weights)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert not np.asarray(found[1][0])[np.asarray(padding)].any()
    output, last = run(bad, weights, lengths=lengths, bidirectional=True)
    assert not np.asarray(output)[np.asarray(padding)].any()
    for s in jax.tree.leaves(last):
        assert not np.asarray(s)[:, 2].any()  # of a sequence without elements: the initial state


@each_kind
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision(run, cell, gates, dtype):
    weights = layer(gates)
    x = normal(0, 4, BATCH, INPUTS)
    half = tuple(w.astype(dtype) for w in weights)
    output, last = run(x.astype(dtype), [half])
    for a, b in zip(jax.tree.leaves((output, last)), jax.tree.leaves(run(x, [weights])), strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a.astype(jnp.float32), b, atol=0.05)
    gradients = jax.grad(lambda x, w: run(x, [w])[0].astype(jnp.float32).sum(), (0, 1))(x.astype(dtype), half)
    assert all(g.dtype == dtype for g in jax.tree.leaves(gradients))
    assert all(s.dtype == dtype for s in jax.tree.leaves(cell(x[0].astype(dtype), None, *half)))


def test_dropout_between_layers():
    weights = [layer(1), layer(1, inputs=HIDDEN)]
    x = normal(0, 3, BATCH, INPUTS)
    key = jax.random.key(0)
    plain = F.rnn(x, weights)[0]
    np.testing.assert_array_equal(F.rnn(x, weights, dropout=0.0)[0], plain)
    dropped = F.rnn(x, weights, dropout=0.5, key=key)[0]
    assert not np.allclose(dropped, plain)
    np.testing.assert_array_equal(F.rnn(x, weights, dropout=0.5, key=key)[0], dropped)
    # with everything dropped, the second layer sees zeros
    nothing = F.rnn(jnp.zeros((3, BATCH, HIDDEN)), weights[1:])[0]
    np.testing.assert_allclose(F.rnn(x, weights, dropout=1.0, key=key)[0], nothing, rtol=1e-6)
    # one layer has nothing behind it to drop for
    np.testing.assert_array_equal(F.rnn(x, weights[:1], dropout=0.5)[0], F.rnn(x, weights[:1])[0])


def test_numpy_arrays_and_lengths_in_a_list():
    weights = [tuple(np.asarray(w) for w in layer(4))]
    x = np.asarray(normal(0, 4, BATCH, INPUTS))
    output, _ = F.lstm(x, weights, lengths=[4, 1, 2])
    assert output.shape == (4, BATCH, HIDDEN)
    assert not np.asarray(output[1:, 1]).any()


def test_wrong_shapes_of_weights():
    ih, hh, bias, _ = layer(4)
    x = normal(0, 4, BATCH, INPUTS)
    for weights, name in (
        ((ih, hh[:, 1:]), r"weight_hh of weights\[0\] must have the shape \(16, 4\)"),
        ((ih, hh, bias[1:]), r"bias_ih of weights\[0\] must have the shape \(16,\)"),
        ((ih[:3], hh), r"weight_ih of weights\[0\] must have the shape \(4 \* hidden, in\)"),
        ((ih, hh, None, None, normal(0, 2, 4)), r"weight_hh of weights\[0\] must have the shape \(16, 2\)"),
    ):
        with pytest.raises(ShapeMismatchError, match=name):
            F.lstm(x, [weights])
    with pytest.raises(TypeError, match="weights must be a list of tuples"):
        F.lstm(x, ih)
    with pytest.raises(TypeError, match="two for each layer, got 1"):
        F.lstm(x, [(ih, hh)], bidirectional=True)
    with pytest.raises(TypeError, match=r"weights\[0\] must be a tuple"):
        F.gru(x, [(ih,)])


@each_kind
@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.int16, jnp.uint32])
def test_more_steps_than_the_dtype_of_lengths_holds(run, cell, gates, dtype):
    x, lengths = normal(0, 300, BATCH, INPUTS), jnp.array([127, 1, 0])
    expected = run(x, [layer(gates)], lengths=lengths)
    found = run(x, [layer(gates)], lengths=lengths.astype(dtype))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    assert jnp.isfinite(found[0]).all()


def test_a_length_out_of_range_of_int32_is_nan():
    with jax.enable_x64(True):
        lengths = jnp.array([3, 2**32 + 1, 1])
        y, _ = jax.jit(lambda n: F.rnn(normal(0, 4, BATCH, INPUTS), [layer(1)], lengths=n))(lengths)
    np.testing.assert_array_equal(jnp.isnan(y).any((0, 2)), [False, True, False])
