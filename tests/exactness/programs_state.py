"""Programs about state: who writes what, in which order, through which transform."""

from __future__ import annotations

import jax
import jax.numpy as jnp

import brickwork as bw
from brickwork import nn

from .harness import program

X = jnp.asarray([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75], [-0.5, 1.0, 1.25], [2.0, -2.0, 0.125]])


def scalar(value=0.0):
    return bw.Buffer(jnp.asarray(value))


def count():
    return bw.Buffer(jnp.zeros((), jnp.int32))


@program
def buffer_in_both_branches_in_remat_in_vmap(t):
    total = scalar(1.0)

    def up(x):
        total.value = total.value * 2
        return x + total

    def down(x):
        total.value = total.value - 3
        return x * total

    def step(flag, xs):
        return t.vmap(t.remat(lambda x: t.cond(flag, up, down, x)))(xs)

    return step, [total], [(jnp.asarray(flag), X) for flag in (True, False, True)]


@program
def one_branch_writes_and_the_other_draws(t):
    seen = count()

    def write(x):
        seen.value += 1
        return x

    def step(flags):
        def body(x, flag):
            return t.cond(flag, write, lambda x: x + jax.random.normal(bw.random.key(), ()), x), x

        return t.scan(body, jnp.float32(0), flags)

    calls = [(jnp.asarray(flags),) for flags in ([True, False, False, True], [False] * 4, [True] * 4)]
    return step, [seen], calls


@program
def branches_in_branches_in_a_loop(t):
    low, high, both = count(), count(), count()

    def bump(buffer, x):
        buffer.value += 1
        return x

    def inner(x):
        both.value += 1
        return t.cond(x > 2, lambda x: bump(high, x * 0.5), lambda x: x * 1.5, x)

    def step(x):
        def body(i, x):
            return t.cond(x > 0, inner, lambda x: bump(low, x + 1), x)

        return t.fori_loop(0, 5, body, x)

    return step, [low, high, both], [(jnp.float32(x),) for x in (-2.5, 1.0, 30.0)]


@program
def switch_out_of_range_with_a_buffer_for_each_branch(t):
    buffers = [count() for _ in range(3)]

    def step(indices):
        def body(carry, index):
            def branch(i):
                def run(x):
                    buffers[i].value += index
                    return x + i

                return run

            return t.switch(index, [branch(i) for i in range(3)], carry), buffers[0].value

        return t.scan(body, jnp.int32(0), indices)

    return step, buffers, [(jnp.asarray(i),) for i in ([0, 1, 2, -5, 99], [2, 2, 2, 2, 2])]


@program
def swap_and_alias(t):
    a, b, c = scalar(1.0), scalar(2.0), scalar(3.0)

    def body(carry, x):
        a.value, b.value = b.value, a.value
        c.value = a.value  # the same array in two variables
        a.value += x
        return carry + c.value * a.value, b.value

    def step(xs):
        c.value = b.value
        return t.scan(body, jnp.float32(0), xs)

    return step, [a, b, c], [(X[0],), (X[1],), (X[2],)]


@program
def written_and_put_back(t):
    b = scalar(4.0)

    def body(carry, x):
        before = b.value
        try:
            b.value = before * x
            return carry + b.value, b.value
        finally:
            b.value = before

    return lambda xs: t.scan(body, jnp.float32(0), xs), [b], [(X[0],), (X[1],)]


@program
def one_buffer_under_two_names(t):
    class Pair(bw.Module):
        def __init__(self):
            self.left = scalar(1.0)
            self.right = self.left
            self.others = {"again": self.left}

    pair = Pair()

    def body(i, x):
        pair.left.value += x
        pair.others["again"].value *= 2
        return x + pair.right.value

    return lambda x: t.fori_loop(0, 3, body, x), [pair], [(jnp.float32(1),), (jnp.float32(-2),)]


@program
def in_place_edits_at_traced_places(t):
    ring, where = bw.Buffer(jnp.zeros((4, 3))), count()

    def body(carry, x):
        ring[where.value % 4] = x
        ring[:, 0] += 1
        where.value += 1
        return carry + ring[carry.astype(jnp.int32) % 4].sum(), None

    return lambda xs: t.scan(body, jnp.float32(0), xs)[0], [ring, where], [(X,), (-X,), (X[::-1],)]


@program
def integers_booleans_and_half_precision(t):
    flag, number, half = (
        bw.Buffer(jnp.asarray(False)),
        bw.Buffer(jnp.zeros(3, jnp.uint8)),
        bw.Buffer(jnp.ones(2, jnp.float16)),
    )

    def body(carry, x):
        flag.value = flag.value ^ (x > 1)
        number.value += jnp.asarray([1, 100, 200], jnp.uint8)  # wraps around
        half.value = half.value * 1.5
        return ~carry, (flag.value, number.value)

    return lambda xs: t.scan(body, jnp.asarray(True), xs), [flag, number, half], [(X[0],), (X[1],)]


@program
def python_numbers_written_and_carried(t):
    b, n = scalar(), count()

    def body(carry, x):
        n.value = 7
        b.value = 0.5
        b.value += 1
        return carry * 2 + 1, (b.value - carry, 3)

    return lambda xs: t.scan(body, 1.0, xs), [b, n], [(X[0],), (X[1],)]


@program
def loop_of_no_turns(t):
    b = scalar(2.0)

    def body(i, x):
        b.value *= 3
        return x + jax.random.normal(bw.random.key(), ())

    return lambda n, x: t.fori_loop(0, n, body, x), [b], [(jnp.int32(n), jnp.float32(1)) for n in (0, 3, -2, 1)]


@program
def while_loop_whose_condition_writes_and_draws(t):
    asked, drawn = count(), bw.Buffer(jnp.zeros(3))

    def again(state):
        asked.value += 1
        return (jax.random.uniform(bw.random.key(), ()) < 0.7) & (state[0] < 20)

    def body(state):
        n, x = state
        drawn.value += jax.random.normal(bw.random.key(), (3,))
        return n + 1, x + drawn.value

    return lambda x: t.while_loop(again, body, (jnp.int32(0), x)), [asked, drawn], [(X[i],) for i in range(4)]


@program
def backwards_scan_over_a_nest(t):
    seen = bw.Buffer(jnp.zeros(3))

    def body(carry, x):
        seen.value = seen.value * 0.5 + x["a"][0]
        noise = jax.random.uniform(bw.random.key(), (3,))
        return {"sum": carry["sum"] + x["b"], "n": carry["n"] + 1}, [seen.value, (noise, None)]

    def step(xs):
        return t.scan(body, {"sum": jnp.float32(0), "n": jnp.int32(0)}, xs, reverse=True)

    return step, [seen], [({"a": (X, X + 1), "b": X[:, 0]},), ({"a": (X * 2, X), "b": X[:, 1]},)]


@program
def random_numbers_in_maps_in_maps(t):
    drawn = []

    def inner(x):
        return x + jax.random.normal(bw.random.key(), ())

    def outer(row):
        first = jax.random.uniform(bw.random.key(), ())
        return t.vmap(inner)(row) * first, jax.random.bits(bw.random.key(), ())

    return lambda xs: (t.vmap(outer)(xs), t.vmap(inner)(xs[0])), drawn, [(X,), (X * 2,)]


@program
def a_map_that_may_not_draw(t):
    def lane(flag, x):
        return t.cond(flag, lambda x: x + jax.random.normal(bw.random.key(), ()), lambda x: x, x)

    def step(flag, xs):
        return t.vmap(lane, in_axes=(None, 0))(flag, xs)

    return step, [], [(jnp.asarray(flag), X[0]) for flag in (False, True, False)]


@program
def lanes_that_draw_differently_often(t):
    def lane(n, x):
        return t.fori_loop(0, n, lambda i, x: x + jax.random.normal(bw.random.key(), ()), x)

    def step(ns, xs):
        return t.vmap(lane)(ns, xs)

    return step, [], [(jnp.asarray(ns), X[0]) for ns in ([0, 0, 0], [3, 0, 1], [0, 0, 2])]


@program
def the_same_write_from_every_lane(t):
    calls, last = count(), bw.Buffer(jnp.zeros(3))

    def lane(x, y):
        calls.value += 1
        last.value = last.value + y
        return x + last.value.sum() * calls.value.astype(jnp.float32)

    return lambda xs, y: t.vmap(lane, in_axes=(1, None))(xs, y), [calls, last], [(X, X[0]), (X, X[1])]


@program
def keys_through_scan(t):
    def step(xs):
        keys = jax.random.split(bw.random.key(), 4)

        def body(key, inputs):
            own, x = inputs
            key, now = jax.random.split(key)
            return key, x + jax.random.normal(own, ()) + jax.random.normal(now, ()) + jax.random.normal(
                bw.random.key(), ()
            )

        last, ys = t.scan(body, bw.random.key(), (keys, xs))
        return jax.random.key_data(last), ys

    return step, [], [(X[:, 0],), (X[:, 1],)]


@program
def seeding_half_way(t):
    def step(x):
        a = jax.random.normal(bw.random.key(), ())
        bw.seed(5)
        b = jax.random.normal(bw.random.key(), ())
        return x + a, x + b

    return step, [], [(X[0],), (X[1],)]


@program(plain=False)
def a_stack_whose_lanes_branch_apart(t):
    class Cell(bw.Module):
        def __init__(self, start):
            self.level = scalar(start)
            self.steps = count()

        def forward(self, x):
            def rise(x):
                self.level.value += x
                return self.level.value

            def fall(x):
                self.level.value *= 0.5
                self.steps.value += 1
                return -self.level.value

            return bw.remat(lambda x: bw.cond(x > 0, rise, fall, x))(x)

    cells = bw.stack([Cell(float(i)) for i in range(4)])
    return lambda xs: bw.vmap(lambda cell, x: cell(x))(cells, xs), [cells], [(X[:, 0],), (X[:, 1],), (X[:, 2],)]


@program(plain=False)
def a_scan_over_layers_in_a_stack(t):
    layers = bw.stack([nn.Sequential(nn.Linear(3, in_features=3), nn.BatchNorm1d(num_features=3)) for _ in range(3)])

    def step(x):
        return bw.scan(lambda h, layer: (jnp.tanh(layer(h)), h.mean()), x, layers)

    return step, [layers], [(X,), (X * 2,)]


@program(plain=False)
def a_stack_made_inside(t):
    nets = [nn.BatchNorm1d(num_features=3) for _ in range(2)]

    def step(xs):
        made = bw.stack(nets)
        ys = bw.vmap(lambda net, x: net(x))(made, xs)
        return ys, [net.running_mean.value for net in bw.unstack(made)]

    return step, nets, [(jnp.stack([X, X + 1]),), (jnp.stack([X, X * 2]),)]
