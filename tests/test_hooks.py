"""Forward hooks and capture."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn

X = jnp.ones((2, 3))


@pytest.fixture
def net():
    made = nn.Sequential(nn.Linear(4), nn.ReLU(), nn.Linear(2))
    made(X)
    return made


def test_hooks_see_and_replace(net):
    seen = []
    handle = net[0].register_forward_hook(lambda m, args, out: seen.append((m is net[0], args[0].shape, out.shape)))
    plain = net(X)
    assert seen == [(True, (2, 3), (2, 4))]
    handle.remove()
    handle.remove()
    with net.register_forward_hook(lambda m, args, out: out + 1):
        np.testing.assert_allclose(net(X), plain + 1, rtol=1e-6)
    with net.register_forward_pre_hook(lambda m, args: args[0] * 0):
        np.testing.assert_allclose(net(X), net(X * 0), rtol=1e-6)
    np.testing.assert_allclose(net(X), plain)


def test_a_hook_must_be_callable(net):
    with pytest.raises(TypeError, match="a hook must be callable, got int"):
        net.register_forward_hook(3)


def test_capture(net):
    with net.capture(r"[02]") as acts:
        out = net(X)
        assert acts["2"] is out
    assert list(acts) == ["0", "2"]
    np.testing.assert_array_equal(acts["2"], out)
    with pytest.raises(KeyError, match="'1' was not captured; captured are"):
        acts["1"]
    net(X * 2)
    np.testing.assert_array_equal(acts["2"], out)


def test_capture_of_what_is_not_called(net):
    with net.capture("0") as acts, pytest.raises(KeyError, match="'0' has not been called while capturing"):
        acts["0"]
    assert len(acts) == 0


def test_capture_inside_and_around_a_compiled_function(net):
    with net.capture("0") as acts:
        net(X)
    want = acts["0"]
    f = bw.compile(lambda x: net(x))
    f(X)
    for _ in range(3):
        with net.capture("0") as acts:
            f(X)
        assert not isinstance(acts["0"], jax.core.Tracer)
        np.testing.assert_allclose(acts["0"], want, rtol=1e-6)
    f(X)
    assert f.stats().compilations == 2  # with and without

    @bw.compile
    def inside(x):
        with net.capture("0") as acts:
            net(x)
        return acts["0"]

    np.testing.assert_allclose(inside(X), want, rtol=1e-6)


def test_captures_within_captures(net):
    with net.capture("0") as outer:
        out = net(X)
        with net.capture(".*") as inner:
            net(X)
        assert list(inner) == ["0", "1", "2"]
        assert list(outer) == ["0"]
    assert outer["0"].shape == (2, 4)
    assert inner["2"].shape == out.shape
