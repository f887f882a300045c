"""Frames: overlays that nothing leaks from."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork.core import Frame
from brickwork.core._frame import all_or_nothing, current_frame, outside


def test_reads_fall_through_and_writes_stay():
    v, w = bw.Buffer(jnp.zeros(())), bw.Buffer(jnp.ones(()))
    with Frame() as outer:
        v.value = 1.0
        with Frame() as inner:
            assert float(v) == 1
            v.value, w.value = 2.0, 3.0
            assert [float(x) for x in (v, w)] == [2, 3]
        assert float(v) == 1
        variables, values = inner.writes()
        assert [x is y for x, y in zip(variables, (v, w), strict=True)] == [True, True]
        assert [float(x) for x in values] == [2, 3]
        assert outer.writes()[0] == [v] or outer.writes()[0][0] is v
    assert current_frame() is None
    assert [float(x) for x in (v, w)] == [0, 1]


def test_a_bound_value_is_no_write():
    v = bw.Buffer(jnp.zeros(()))
    with Frame() as frame:
        frame.bind(v, jnp.float32(5))
        assert float(v) == 5
    assert frame.writes() == ([], [])


def test_outside_leaves_frames_and_traces():
    v = bw.Buffer(jnp.zeros(()))

    def f(x):
        with Frame() as frame:
            frame.bind(v, x)
            with outside():
                assert current_frame() is None
                assert float(v) == 0
                assert not isinstance(jnp.ones(2) + 1, jax.core.Tracer)
            assert v.value is x
        return x

    jax.jit(f)(1.0)


def test_an_exception_leaves_no_frame_behind():
    with pytest.raises(KeyError), Frame():
        raise KeyError
    assert current_frame() is None


def test_a_raw_transform_inside_a_frame_may_read_but_not_write():
    v = bw.Buffer(jnp.full((), 2.0))
    with Frame():
        np.testing.assert_allclose(jax.vmap(lambda x: x * v.value)(jnp.ones(3)), 2)
        with pytest.raises(bw.errors.TraceLeakError):
            jax.vmap(lambda x: setattr(v, "value", x))(jnp.ones(3))
    assert float(v) == 2


def test_shapes_inferred_in_a_body_that_fails_become_unknown_again():
    p = bw.Parameter(shape=(2, None))
    with pytest.raises(RuntimeError), all_or_nothing():
        p.shape = (None, 3)
        assert p.value.shape == (2, 3)
        raise RuntimeError
    assert p.shape == (2, None)
    with all_or_nothing(), all_or_nothing():
        p.shape = (None, 4)
    assert p.shape == (2, 4)
