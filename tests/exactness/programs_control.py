"""Programs that decide by values in plain Python: they compile along the path they take, with all their state."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp

import brickwork as bw
from brickwork import nn

from .harness import program

X = jnp.asarray([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75], [-0.5, 1.0, 1.25], [2.0, -2.0, 0.125]])
path = functools.partial(program, compilations=None)


def count():
    return bw.Buffer(jnp.zeros((), jnp.int32))


@path(plain=False)
def if_and_while_with_state_and_random_numbers(t):
    turns, total = count(), bw.Buffer(jnp.zeros(3))

    def step(x):
        if x.sum() > 0:
            total.value += x
            x = x + jax.random.normal(bw.random.key(), x.shape)
        elif x.sum() < -1:
            total.value -= x
        while abs(x).sum() > 1:
            turns.value += 1
            x = x / 2 + 0.01 * jax.random.uniform(bw.random.key(), x.shape)
        return x

    return step, [turns, total], [(x,) for x in (X[0], -X[0] - 1, X[0] * 4, X[1] * 0, X[0])]


@path(plain=False)
def conversions_of_every_kind(t):
    layers = [nn.Linear(3), nn.Tanh(), nn.Linear(3)]
    used = count()

    def step(n, x):
        for i in range(int(n)):
            x = layers[n - i - 1](x)  # a list indexed by a traced number
            used.value += 1
        assert x.shape == (4, 3) and bool(n < 5) and not (n > 3 and x.sum() > 0)
        scale = float(x.max()) if n.item() else 2.0
        return x * scale, [1, 2, 3][n % 3], x.sum() > 0 or n == 2

    return step, [*layers, used], [(jnp.int32(n), X) for n in (0, 3, 1, 3, 2, 0)]


@path(plain=False, rtol=5e-6)
def gradients_along_the_path(t):
    class Fancy(bw.Module):
        def __init__(self):
            self.dense, self.seen = nn.Linear(3), count()
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            x = jnp.tanh(self.dense(x))
            x = self.drop(self.dense(x))  # the same layer again
            while jnp.abs(x).sum() > 1:
                self.seen.value += 1
                x = x / 2
            return x.sum() if x[0, 0] >= 0 else (x**2).sum()

    net = Fancy()

    def step(x):
        loss, grads = t.value_and_grad(net)(x)
        if loss > 0.1:
            net.dense.bias.value = net.dense.bias.value - 0.5 * grads["dense.bias"]
        return loss, grads

    return step, [net], [(x,) for x in (X, -X, X * 3, X * 0)]


@path(plain=False)
def breaks_returns_and_recursion(t):
    depth = count()

    def descend(x):
        depth.value += 1
        return x if abs(x) < 0.3 else descend(x * -0.5)

    def step(xs):
        for i in itertools.count():
            if i == len(xs) or xs[i].max() > 1.9:
                break
            if xs[i].min() > -0.6:
                continue
            if xs[i].sum() > 1.4:
                return descend(xs[i].sum()), "early"
        else:
            return xs.sum(), "never"
        try:
            if i % 2 == 0:
                raise KeyError(i)
        except KeyError:
            depth.value += 100
        return descend(xs.sum()), i

    return step, [depth], [(xs,) for xs in (X, X[1:], X[:2], X[::-1], X)]


@path(plain=False)
def decisions_around_transforms(t):
    net, kept = nn.Sequential(nn.Linear(3), nn.BatchNorm1d()), bw.Buffer(jnp.zeros(()))

    def step(x):
        y = t.scan(lambda h, _: (net(h), h.mean()), x, length=2)[1]
        if y[1] > kept.value:
            kept.value = y[1]
            y = t.vmap(lambda v: v * 2)(y)
        if not t.cond(y[0] > 0, lambda: True, lambda: False):
            y = t.fori_loop(0, 2, lambda i, y: y + jax.random.uniform(bw.random.key()), y)
        return y

    return step, [net, kept], [(x,) for x in (X, -X, X + 1, X)]
