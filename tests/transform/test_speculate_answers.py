"""Control flow on values in compiled functions: the answers, to the last bit and for every dtype."""

from __future__ import annotations

import math
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw

pytestmark = pytest.mark.filterwarnings("error")


def alike(a, b):
    """The same structure, types and bits."""
    left, tree = jax.tree_util.tree_flatten(a)
    right, other = jax.tree_util.tree_flatten(b)
    assert tree == other
    for p, q in zip(left, right, strict=True):
        assert type(p) is type(q)
        if isinstance(p, jax.Array):
            assert p.dtype == q.dtype
            np.testing.assert_array_equal(np.asarray(p), np.asarray(q))
        else:
            assert repr(p) == repr(q)


DTYPES = ["bool", "int8", "uint8", "int32", "uint32", "float16", "bfloat16", "float32", "complex64"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype):
    def f(x):
        y = 1.0 if x else 2.0
        if dtype != "complex64":
            y = y + float(x) + int(x)
        if jnp.issubdtype(x.dtype, jnp.integer):
            y = y + [1, 2, 3, 4][x]
        return y, x.item(), complex(x)

    compiled = bw.compile(f)
    for n in (0, 1, 3, 1):
        x = jnp.asarray(n, dtype)
        alike(compiled(x), f(x))
    assert compiled.stats().compilations == (2 if dtype == "bool" else 3)


def test_64_bits():
    with jax.enable_x64(True):

        def f(x):
            return int(x), float(x), x + 1

        compiled = bw.compile(f)
        for x in (np.float64(1e300), np.float64(0.1), np.int64(2**40)):
            got = compiled(x)
            assert got[:2] == (int(x), float(x)) and got[2].dtype == x.dtype
    assert compiled.stats().compilations == 3


def test_what_jax_makes_narrower_is_asked_narrow():
    """An array of NumPy's in double precision is one in single precision from the start."""

    @bw.compile
    def f(x):
        return float(x), bool(x)

    assert f(np.asarray(0.1)) == (float(np.float32(0.1)), True)
    assert f(np.asarray(1e-60)) == (0.0, False)
    assert f.stats().compilations == 2


def test_nan_infinity_and_signs_of_zero():
    def f(x):
        return math.copysign(1.0, float(x)) if x == 0 else (x > 0, x != x, float(x))

    compiled = bw.compile(f)
    for v in (0.0, -0.0, math.nan, math.inf, -math.inf, 1e-40, 0.0, -0.0, math.nan):
        x = np.float32(v)
        alike(compiled(x), f(jnp.asarray(x)))
    assert compiled.stats().compilations == 6


@pytest.mark.parametrize(
    ("ask", "value", "error"),
    [
        (int, math.nan, ValueError),
        (int, math.inf, OverflowError),
        (bool, (1.0, 2.0), ValueError),
        (bool, (), ValueError),
        (int, (1.0, 2.0), TypeError),
        (operator.index, 1.5, TypeError),
        (lambda x: x.item(), (1.0, 2.0), ValueError),
    ],
)
def test_what_has_no_answer_fails_as_it_does_eagerly(ask, value, error):
    x = jnp.asarray(value, jnp.float32)
    with pytest.raises(error) as eager:
        ask(x)
    f = bw.compile(lambda x: ask(x) * x)
    for _ in range(2):
        with pytest.raises(error) as compiled:
            f(x)
        if not isinstance(compiled.value, bw.errors.ControlFlowError) and isinstance(value, float):
            assert str(compiled.value).split("\n")[0] == str(eager.value).split("\n")[0]
    if isinstance(value, float) and ask is int:  # and works where there is one
        alike(f(jnp.asarray(3.0)), jnp.asarray(9.0))
        with pytest.raises(error):
            f(x)


def test_a_huge_integer():
    @bw.compile
    def f(x):
        return int(x)

    assert f(np.float32(1e30)) == int(np.float32(1e30))
    assert f(np.uint32(2**32 - 1)) == 2**32 - 1


def test_indices_and_bounds_are_not_questions():
    """What JAX can take as a traced number stays one, so that there is one program for all values."""
    x, key = jnp.arange(12.0).reshape(3, 4), jax.random.key(0)

    @bw.compile
    def f(i):
        return (
            x[i],
            x[-i, i],
            x.at[:, i].set(0),
            jnp.take(x, i, axis=0),
            jnp.roll(x, i, axis=1),
            jax.lax.dynamic_slice(x, (i, 0), (1, 2)),
            jax.lax.dynamic_index_in_dim(x, i),
            jax.nn.one_hot(i, 4),
            jax.random.uniform(jax.random.fold_in(key, i)),
            bw.fori_loop(0, i, lambda k, c: c + k, jnp.zeros((), i.dtype)),
            jax.lax.fori_loop(0, i, lambda k, c: c + k, 0),
            bw.switch(i, [lambda: x[0], lambda: x[1], lambda: x[2]]),
            jnp.where(i > 1, x, -x) * (i**2).astype(x.dtype),
        )

    for i in range(3):
        alike(f(jnp.asarray(i)), f.__wrapped__(jnp.asarray(i)))
    assert f.stats().compilations == 1 and not f.explain(jnp.asarray(0)).predicates


def test_constants_are_asked_too():
    @bw.compile
    def f(x):
        if jnp.ones(3).sum() > 2 and np.float32(1) < jnp.float32(2):
            return x
        return -x

    assert float(f(np.float32(2))) == 2
    assert f.stats().compilations == 1


def test_a_number_with_a_gradient_is_refused_as_it_is_eagerly():
    """``float(x)`` would lose the gradient; ``x.item()`` says that this is meant."""

    def loss(x):
        return x * float(x)

    for f in (bw.grad(loss), bw.compile(bw.grad(loss))):
        with pytest.raises(bw.errors.ControlFlowError, match=r"float\(\) also loses the gradient.*x\.item\(\)"):
            f(jnp.asarray(3.0))
    for f in (bw.grad(lambda x: x * x.item()), bw.compile(bw.grad(lambda x: x * x.item()))):
        assert float(f(jnp.asarray(3.0))) == 3
    assert bw.compile(lambda x: float(bw.grad(lambda x: x * x)(x)))(jnp.asarray(3.0)) == 6
