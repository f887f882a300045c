"""The random stream: the same keys eagerly and compiled, each key once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw


def keys(n):
    return [jax.random.key_data(bw.random.key()).tolist() for _ in range(n)]


def test_keys_differ_and_repeat_after_seeding():
    bw.seed(3)
    first = keys(5)
    assert len({tuple(k) for k in first}) == 5
    bw.seed(3)
    assert keys(5) == first
    bw.seed(4)
    assert keys(5) != first


def test_the_ith_key_is_folded_into_the_root():
    bw.seed(7)
    want = [jax.random.fold_in(jax.random.key(7), i) for i in range(3)]
    assert keys(3) == [jax.random.key_data(k).tolist() for k in want]


def test_large_seeds_differ_in_their_high_words():
    bw.seed(1)
    small = keys(1)
    bw.seed(1 + 2**32)
    assert keys(1) != small


def test_compiled_and_eager_draw_the_same():
    def draw():
        return [jax.random.uniform(bw.random.key(), (2,)) for _ in range(3)]

    bw.seed(0)
    eager = draw() + draw()
    bw.seed(0)
    compiled = bw.compile(draw)
    np.testing.assert_allclose(compiled() + compiled(), eager, rtol=1e-6)
    assert int(bw.random.stream()[-1]) == 6


def test_the_stream_can_be_saved_and_put_back():
    state = np.array(bw.random.stream())
    first = keys(2)
    bw.random.stream().value = state
    assert keys(2) == first


def test_a_dry_run_draws_nothing():
    net = bw.nn.Sequential(bw.nn.Linear(3), bw.nn.Dropout(0.5))
    before = np.array(bw.random.stream())
    net.initialize(bw.spec(2, 4))
    net.summary(bw.spec(2, 4))
    np.testing.assert_array_equal(bw.random.stream(), before)


@pytest.mark.parametrize(("bad", "kind"), [(1.5, TypeError), (True, TypeError), (-1, ValueError), (2**64, ValueError)])
def test_seeds_that_are_refused(bad, kind):
    with pytest.raises(kind, match="seed: n must be"):
        bw.seed(bad)


def test_a_raw_transform_may_not_draw():
    with pytest.raises(bw.errors.TraceLeakError, match=r"bw\.functional"):
        jax.jit(lambda: jax.random.uniform(bw.random.key()))()
    assert jnp.ndim(jax.random.uniform(bw.random.key())) == 0
