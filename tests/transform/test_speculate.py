"""Control flow on values in compiled functions: every way to ask, and the same results as without compiling."""

from __future__ import annotations

import functools
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn

pytestmark = pytest.mark.filterwarnings("error")


def close(a, b):
    """The same structure and types; arrays up to rounding."""
    left, tree = jax.tree_util.tree_flatten(a)
    right, other = jax.tree_util.tree_flatten(b)
    assert tree == other
    for p, q in zip(left, right, strict=True):
        if isinstance(p, jax.Array) or isinstance(q, jax.Array):
            assert (p.shape, p.dtype) == (q.shape, q.dtype)
            np.testing.assert_allclose(np.asarray(p, np.float64), np.asarray(q, np.float64), rtol=1e-6, atol=1e-6)
        else:
            assert type(p) is type(q) and (p == q or p != p)


# -- statements -----------------------------------------------------------------------------------


def by_if(x):
    if x.sum() > 0:
        return x * 2
    return -x


def by_elif(x):
    if x.sum() < -1:
        x = x - 1
    elif x.sum() < 1:
        x = x * 3
    else:
        x = x + 1
    return x


def by_ternary(x):
    return x * 2 if x[0] > 0 else x * 3


def by_while(x):
    while jnp.abs(x).sum() > 1:
        x = x / 2
    return x


def by_while_with_break_and_else(x):
    turns = 0
    while x.sum() < 8:
        x = x + 1
        turns += 1
        if x[0] > 3:
            break
    else:
        x = x * 10
    return x * turns


def by_range(x):
    total = x * 0
    for i in range(int(jnp.abs(x[0]))):
        total = total + i * x
    return total


def by_and(x):
    return x + 1 if x[0] > 0 and x[1] > 0 and not x[2] > 0 else x


def by_or(x):
    y = (x[0] > 1) or (x[1] > 1)
    return jnp.where(y, x, -x)


def by_not(x):
    return x if not x.sum() else x / x.sum()


def by_assert(x):
    assert jnp.isfinite(x).all(), "not finite"
    return x


def by_int(x):
    return x * int(x.sum())


def by_float(x):
    return x / (1 + math.sqrt(abs(float(x.sum()))))


def by_complex(x):
    return x * abs(complex(jax.lax.complex(x[0], x[1])))


def by_item(x):
    return x * x.sum().item() + x[0:1].item()


def by_list_index(x):
    return x * [1.0, 2.0, 3.0][jnp.sum(x[:2] > 0)]


def by_tuple_index_and_slice(x):
    n = jnp.argmax(x)
    return (x, -x, x * x)[n] + sum(x[: operator.index(n)])


def by_dict(x):
    return {True: x, False: -x}[bool(x[0] > 0)]


def by_chain(x):
    return x * 2 if -1 < x[0] < 1 <= x[1] else x


def by_max(x):
    return x * max(x[0], x[1], x[2]) + min(x[0], x[1])


def by_sorted(x):
    return jnp.stack(sorted([x[0], x[1], x[2]], reverse=True))


def by_any(x):
    return -x if any(v > 1 for v in x) else x


def by_all(x):
    return -x if all(v > 0 for v in x) else x


def by_in(x):
    return x * 5 if x[0] in [1.0, -3.0] else x


def by_match(x):
    match x[0]:
        case 1.0:
            return x * 7
        case v if v > 1:
            return x * 8
        case _:
            return x


def by_walrus_and_generator(x):
    return sum((y for v in x if (y := v * 2) > 0), start=x)


def by_comprehension(x):
    kept = [v for v in x if v > 0]
    return jnp.stack([*kept, jnp.asarray(float(len(kept)), x.dtype)])


def by_recursion(x):
    return x if jnp.abs(x).max() < 1 else by_recursion(x / 2) * 3


def by_exception(x):
    try:
        if x.sum() < 0:
            raise KeyError("negative")
        return x
    except KeyError:
        return x * 100
    finally:
        x = None


def by_failing_conversion(x):
    try:
        n = int(x[0] / x[1])
    except (ValueError, OverflowError) as error:
        return x * 0 + len(str(error))
    return x * 0 + n


def by_list_count(x):
    return x * [v > 0 for v in x].count(True)


def by_float_truth(x):
    return x + 1 if x[0] else x


def by_size_one(x):
    return x * 2 if x[:1] > 0 else x * int(x[1].reshape(1, 1)[0, 0])


def by_generator(x):
    def halves(v):
        while v > 1:
            yield v
            v = v / 2

    return sum(halves(x[0]), start=x)


def by_filter(x):
    return sum(filter(lambda v: v > 0, x), start=x)


def by_round(x):
    return x * round(float(x[0])) + math.floor(x[1])


STATEMENTS = [f for name, f in list(globals().items()) if name.startswith("by_")]
INPUTS = [(1.0, 2.0, 3.0), (-3.0, 0.5, -1.0), (0.0, 0.0, 0.0), (4.0, -2.0, 1.0)]


@pytest.mark.parametrize("fn", STATEMENTS, ids=lambda fn: fn.__name__)
def test_every_way_to_ask(fn):
    """Twice through the inputs: the second time every path is there."""
    compiled = bw.compile(fn)
    for v in INPUTS:
        x = np.asarray(v, np.float32)
        close(compiled(x), fn(jnp.asarray(x)))
    made = compiled.stats().compilations
    assert 1 <= made <= len(INPUTS)
    for v in reversed(INPUTS):
        x = jnp.asarray(v, jnp.float32)
        close(compiled(x), fn(x))
    assert compiled.stats().compilations == made == compiled.stats().programs


GRADS = [by_elif, by_while, by_item, by_list_index, by_exception]


@pytest.mark.parametrize("fn", GRADS, ids=lambda fn: fn.__name__)
def test_inside_what_is_differentiated(fn):
    """With a gradient of a gradient, and of a variable that is read and written."""
    scale = bw.Parameter(jnp.asarray(1.5))
    seen = bw.Buffer(jnp.zeros(3))

    def loss(x):
        y = fn(x * scale)
        seen.value = x * scale
        return (y * y * x).sum()

    def both(x):
        inner = bw.value_and_grad(loss, scale)(x)
        outer = bw.grad(lambda x: (bw.grad(loss, 0)(x) ** 2).sum(), 0)(x)
        return inner, outer, seen.value

    compiled = bw.compile(both)
    for v in (INPUTS[0], INPUTS[1], INPUTS[0]):
        x = jnp.asarray(v, jnp.float32) * 1.01
        want = both(x)
        seen.value = jnp.zeros(3)
        close(compiled(x), want)
        close(seen.value, x * scale.value)
    assert compiled.stats().compilations == 2


def test_forward_mode_jacobians_and_hessians():
    def g(x):
        if x.sum() > 0:
            return x * x
        return jnp.sin(x)

    def f(x):
        return (
            bw.jvp(g, (x,), (x,)),
            bw.vjp(g, x)[1](x),
            bw.jacobian(g)(x),
            bw.jacobian(g, mode="fwd")(x),
            bw.hessian(lambda x: g(x).sum())(x),
            jax.grad(lambda x: g(x).sum())(x),
            jax.jacfwd(g)(x),
        )

    compiled = bw.compile(f)
    for v in ((1.0, 2.0), (-1.0, -2.0), (3.0, 2.0)):
        close(compiled(jnp.asarray(v)), f(jnp.asarray(v)))
    assert compiled.stats().compilations == 2


def test_through_whatever_jax_offers():
    """The value asked for comes out of primitives with functions inside."""

    @jax.custom_vjp
    def root(x):
        return jnp.sqrt(jnp.abs(x))

    root.defvjp(lambda x: (root(x), x), lambda x, t: (t * jnp.sign(x),))

    @jax.custom_jvp
    def twice(x):
        return x * 2

    @twice.defjvp
    def _(primals, tangents):
        return twice(*primals), tangents[0] * 2

    def f(x):
        y = jax.checkpoint(jnp.sin)(root(x) + twice(x)) + jax.nn.silu(x)
        y, _ = jax.lax.scan(lambda c, _: (c + 1, None), y, None, length=2)
        y = bw.cond(y.sum() > 7, jnp.sin, jnp.cos, y)
        y = jax.lax.while_loop(lambda y: (y < 1).all(), lambda y: y + 1, y)
        y = jax.jit(lambda y: y @ y)(y.astype(jnp.bfloat16)).astype(jnp.float32)
        return x if y > 5 else -x

    def grad(x):
        return bw.grad(lambda x: (f(x) ** 2).sum())(x)

    for fn in (f, grad):
        compiled = bw.compile(fn)
        for v in ((0.1, 0.2), (3.0, 1.0), (-1.0, 2.0)):
            close(compiled(jnp.asarray(v)), fn(jnp.asarray(v)))


# -- who asks -------------------------------------------------------------------------------------


class Halve(nn.Module):
    def __init__(self, limit=1.0):
        self.limit = bw.Buffer(jnp.asarray(limit))
        self.turns = bw.Buffer(jnp.zeros((), jnp.int32))

    def forward(self, x):
        while jnp.abs(x).max() > self.limit:
            x = x / 2
            self.turns += 1
        return x

    def double(self, x):
        return x * 2 if x.sum() > 0 else x


def test_variables_are_asked():
    flag, count = bw.Buffer(jnp.asarray(True)), bw.Buffer(jnp.asarray(2))
    names = ["a", "b", "c"]

    @bw.compile
    def f(x):
        count.value = count.value - 1  # before it is asked
        return (x if flag else -x) * (1 + int(count)), names[count], count.item()

    x = jnp.ones(2)
    close(f(x), (x * 2, "b", 1))
    flag.value = jnp.asarray(False)
    close(f(x), (-x, "a", 0))
    assert int(count) == 0
    flag.value, count.value = jnp.asarray(True), jnp.asarray(2)
    close(f(x), (x * 2, "b", 1))
    assert f.stats().compilations == 2


def callables():
    """One decision reached in many ways."""
    layer = Halve()

    def by_default(x, fn=by_if):
        return fn(x)

    return {
        "function": by_if,
        "lambda": lambda x: x * 2 if x.sum() > 0 else -x,
        "partial": functools.partial(lambda a, x: x * a if x.sum() > 0 else -x, 2),
        "method": layer.double,
        "module": nn.Sequential(nn.Identity(), layer, layer.double),
        "list": lambda x: functools.reduce(lambda v, step: step(v), [layer, layer.double, by_if], x),
        "default": by_default,
        "compiled": bw.compile(by_if),
        "jitted inside": lambda x: x * 2 if jax.jit(lambda v: v.sum() > 0)(x) else -x,
        "closure": (lambda limit: lambda x: x if x.sum() > limit else -x)(0.5),
    }


@pytest.mark.parametrize("name", callables())
def test_who_asks(name):
    fn = callables()[name]
    compiled = bw.compile(fn)
    plain = by_if if name == "compiled" else fn
    for v in INPUTS[:2] * 2:
        close(compiled(jnp.asarray(v)), plain(jnp.asarray(v)))
    assert compiled.stats().compilations == 2


def test_methods_of_modules_and_of_other_objects():
    class Net(nn.Module):
        def __init__(self):
            self.scale = bw.Parameter(jnp.asarray(2.0))

        @bw.compile
        def run(self, x):
            return x * self.scale.value if x > self.scale else x

    class Other:
        @bw.compile
        def run(self, x):
            return -x if x < 0 else x

    net = Net()
    for other in (net, net.clone()):
        assert [float(other.run(np.float32(v))) for v in (3, -1, 5)] == [6, -1, 10]
    assert Net.run.stats().compilations == 2
    assert [float(Other().run(np.float32(v))) for v in (3, -1)] == [3, 1]


def test_nested_compiled_functions_are_one_program():
    inner = bw.compile(by_if)

    @bw.compile
    def outer(x):
        y = inner(x)
        return y / 2 if y.max() > 10 else y

    for v in ((1.0, 2.0), (-1.0, -2.0), (20.0, 1.0), (-20.0, -1.0)):
        x = jnp.asarray(v)
        y = by_if(x)
        close(outer(x), y / 2 if y.max() > 10 else y)
    assert outer.stats().compilations == 4
    assert inner.stats().calls == 0
