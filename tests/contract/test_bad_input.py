"""What every layer says to input that it can't take."""

from __future__ import annotations

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.contract.catalogue import Row, every_row, rows_where

import brickwork as bw
from brickwork import nn
from brickwork.errors import BrickworkError, ShapeMismatchError


class Net(nn.Module):
    def __init__(self, layer):
        self.body = nn.Sequential(nn.Identity(), layer)

    def forward(self, x):
        return self.body(x)


def check_note(error, layer, x):
    """The path, the layer's line and what it was called with; one such note, not one per level.

    ``layer`` is in the state in which the call found or left it.
    """
    notes = [note for note in error.__notes__ if note.startswith("  in net")]
    shown = f"{x.dtype}[{', '.join(map(str, x.shape))}]" if hasattr(x, "shape") else type(x).__name__
    line, *inside = repr(layer).splitlines()
    assert notes == [f"  in net.body.1 ({line}{')' if inside else ''}), called with {shown}"]


def shapes(layer):
    return {name: v.shape for name, v in layer.named_variables()}


compiled_too = pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])


@rows_where(lambda row: row.wrong_width is not None)
@compiled_too
def test_wrong_width(row: Row, compiled):
    net = Net(row.explicit())
    x = row.data(shape=row.wrong_width)
    with pytest.raises(ShapeMismatchError) as info:
        (bw.compile(net) if compiled else net)(x)
    check_note(info.value, net.body[1], x)
    message = str(info.value)
    assert f"float32[{', '.join(map(str, x.shape))}]" in message
    assert message.endswith(".")


@rows_where(lambda row: row.wrong_width is not None and row.is_deferred)
def test_wrong_width_in_a_later_call(row: Row):
    net = Net(row.make())
    net(row.data())
    before = shapes(net)
    x = row.data(shape=row.wrong_width)
    with pytest.raises(ShapeMismatchError) as info:
        net(x)
    check_note(info.value, net.body[1], x)
    assert shapes(net) == before


@rows_where(lambda row: row.wrong_rank is not None)
@pytest.mark.parametrize("kind", ["explicit", "make"])
def test_wrong_rank(row: Row, kind):
    layer = getattr(row, kind)()
    net = Net(layer)
    before = shapes(net)
    x = row.data(shape=row.wrong_rank)
    with pytest.raises(ShapeMismatchError) as info:
        net(x)
    check_note(info.value, layer, jnp.asarray(x))
    assert shapes(net) == before
    assert repr(layer) == repr(getattr(row, kind)())
    net(row.data())  # works after all


@rows_where(lambda row: row.integer == "refused")
@compiled_too
def test_integers(row: Row, compiled):
    net = Net(row.make())
    before = shapes(net)
    x = jnp.ones(row.shape, jnp.int32)
    with pytest.raises(TypeError, match=r"int32.*astype\(jnp\.float32\)") as info:
        (bw.compile(net) if compiled else net)(x)
    check_note(info.value, row.explicit(), x)
    assert shapes(net) == before


@rows_where(lambda row: row.integer == "accepted")
def test_integers_where_they_make_sense(row: Row):
    y = row.built()(jnp.ones(row.shape, jnp.int32))
    assert np.isfinite(np.asarray(y)).all()


@rows_where(lambda row: row.leaf and not row.takes_indices)
def test_complex_numbers_are_kept_or_refused(row: Row):
    """Kept by what only adds and multiplies, or is defined for them; never compared or cast."""
    net = Net(row.built())
    x = row.data().astype(jnp.complex64) * (1 + 1j)
    try:
        with jax.numpy_dtype_promotion("standard"):  # of float32 weights and complex64
            y = net(x)
    except TypeError as error:
        assert "must hold real numbers, got complex64[" in str(error)
        check_note(error, net.body[1], x)
    else:
        assert y.dtype == jnp.complex64


@rows_where(lambda row: row.takes_indices and row.leaf)
def test_floats_where_indices_are_needed(row: Row):
    net = Net(row.make())
    x = jnp.ones(row.shape)
    with pytest.raises(TypeError, match=r"float32.*astype\(jnp\.int32\)") as info:
        net(x)
    check_note(info.value, net.body[1], x)


WRONG = {
    "None": None,
    "a string": "text",
    "a list": [[1.0, 2.0]],
    "objects": lambda row: np.full(row.shape, None, dtype=object),
    "a spec": lambda row: bw.spec(*row.shape),
    "a module": nn.ReLU(),
}


@rows_where(lambda row: row.name != "Identity" and row.leaf)
@pytest.mark.parametrize("what", WRONG)
def test_no_array(row: Row, what):
    layer = row.make()
    before = shapes(layer)
    net = Net(layer)
    x = WRONG[what](row) if what in ("objects", "a spec") else WRONG[what]
    with pytest.raises(TypeError) as info:
        net(x)
    assert "array" in str(info.value)
    notes = [note for note in info.value.__notes__ if note.startswith("  in net")]
    assert len(notes) == 1
    assert notes[0].startswith("  in net.body.1 (")
    assert shapes(layer) == before


@rows_where(lambda row: row.name != "Identity" and row.leaf)
def test_too_many_arguments(row: Row):
    with pytest.raises(TypeError) as info:
        row.built()(*[row.data()] * 6)
    assert info.value.__notes__[-1].startswith("  in net (")


@rows_where(lambda row: not row.transient)
def test_an_empty_batch(row: Row):
    """No rows in, no rows out."""
    x = row.data()[:0]
    layer = row.deterministic()
    y = layer(x)
    assert y.shape == (0, *layer.eval()(row.data()).shape[1:])
    if row.stateful:  # nothing was learned from nothing
        for v in layer.buffers():
            assert np.isfinite(np.asarray(v)).all()


@every_row
def test_not_a_number_passes_through(row: Row):
    """NaN in, NaN out: never hidden."""
    if row.takes_indices:
        return
    x = row.data().at[(0,) * len(row.shape)].set(jnp.nan)
    assert jnp.isnan(row.deterministic()(x)).any()


def test_in_a_jax_transform_the_write_is_refused():
    net = Net(nn.BatchNorm1d(num_features=3))
    net(jnp.ones((4, 3)))
    with pytest.raises(bw.errors.TraceLeakError, match=r"bw\.compile for jax\.jit"):
        jax.jit(lambda x: net(x))(jnp.ones((4, 3)))
    np.asarray(net.body[1].running_mean)


@every_row
def test_a_number_of_python_is_an_array_of_no_axes(row: Row):
    with contextlib.suppress(BrickworkError, TypeError, ValueError, IndexError):
        row.make()(0.5)
