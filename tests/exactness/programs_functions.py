"""Programs about Python: every way to write a function, and what functions may do around the transforms."""

from __future__ import annotations

import contextlib
import functools
import operator

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


class Counter(bw.Module):
    """A module of which every kind of method is used somewhere below."""

    scale = 2.0

    def __init__(self):
        self.n = count()
        self.total = scalar()

    def forward(self, x):
        self.n.value += 1
        return x * self.scale

    def step(self, carry, x):
        self.total.value += x.sum()
        return carry + self(x), self.total.value

    @classmethod
    def double(cls, x):
        return x * cls.scale

    @staticmethod
    def halve(x):
        return x / 2


@program
def methods_of_every_kind(t):
    counter = Counter()

    class Callable:
        def __call__(self, x):
            counter.n.value += 10
            return x - 1

    def step(xs):
        carry, ys = t.scan(counter.step, X[0], xs)
        carry = t.fori_loop(0, 2, lambda i, x: Counter.double(Counter.halve(counter.forward(x))), carry)
        return t.remat(Callable())(carry), ys, t.vmap(counter)(xs)

    return step, [counter], [(X,), (X - 1,)]


@program
def partials(t):
    a, b = Counter(), Counter()

    def body(module, factor, carry, x, *, shift=0.0):
        module.total.value += x.sum() * factor
        return carry + module(x) + shift, module.total.value

    def step(xs):
        first = t.scan(functools.partial(body, a, 0.5), X[0], xs)
        second = t.scan(functools.partial(functools.partial(body, b), 2.0, shift=1.0), first[0], xs)
        third = t.scan(functools.partial(body, a, -1.0, shift=-1.0), second[0], xs)
        return first, second, functools.reduce(operator.add, (third[0], *third[1]))

    return step, [a, b], [(X,), (X * 2,)]


@program
def closures_over_a_loop_variable(t):
    buffers = [scalar(float(i)) for i in range(3)]

    def step(x):
        late = []
        for i in range(3):

            def body(k, x):
                buffers[i].value += x + k.astype(x.dtype)  # noqa: B023
                return x * (i + 1)  # noqa: B023

            x = t.fori_loop(0, 2, body, x)
            late.append(lambda x: x * buffers[i].value)  # noqa: B023
        return x, [t.remat(f)(x) for f in late]  # all of them see the last i

    return step, buffers, [(jnp.float32(1),), (jnp.float32(-0.5),)]


@program
def default_arguments(t):
    shared = Counter()

    def make(i):
        def body(carry, x, module=shared, factor=float(i), names=("n", "total")):
            for name in names:
                buffer = getattr(module, name)
                buffer.value += jnp.asarray(factor).astype(buffer.dtype)
            return carry * factor + x, None

        return body

    made = tuple(map(make, range(1, 4)))

    def step(xs, bodies=made):
        carry = jnp.float32(0)
        for body in bodies:
            carry, _ = t.scan(body, carry, xs)
        return carry

    return step, [shared], [(X[0],), (X[1],)]


@program
def lambdas_that_return_lambdas(t):
    total = scalar(1.0)

    def put(value):
        total.value = value
        return value

    curry = lambda a: lambda b: lambda c: put(total.value * a + b - c)
    step = lambda x: t.cond(x > 0, lambda y: curry(y)(1.0)(2.0), lambda y: curry(-y)(y)(y), x)
    return step, [total], [(jnp.float32(v),) for v in (1.0, -2.0, 0.0)]


@program
def modules_in_dicts(t):
    class Routes(bw.Module):
        def __init__(self):
            self.routes = {"left": nn.Linear(3), "right": {"deep": [nn.Linear(3), Counter()]}}
            self.pair = (Counter(), nn.LayerNorm())
            self.order = ["right", "left"]

        def forward(self, x):
            for name in self.order:
                route = self.routes[name]
                if isinstance(route, dict):
                    for layer in route["deep"]:
                        x = layer(x)
                else:
                    x = route(x)
            return self.pair[1](self.pair[0](x))

    net = Routes()
    loose = {"a": Counter(), "b": {"c": nn.Linear(3)}}  # a plain dict of modules

    def step(xs):
        return t.scan(lambda c, x: (loose["b"]["c"](loose["a"](net(c + x))), None), X[0], xs)[0]

    return step, {"net": net, "loose": [loose["a"], loose["b"]["c"]]}, [(X,), (X + 1,)]


@program
def generators(t):
    total, counter = scalar(), Counter()

    def doubled(xs):
        for x in xs:
            total.value += x.sum()
            yield counter(x)

    def step(xs):
        lazy = (x + total.value for x in doubled(xs))
        first = next(lazy)
        rest = t.scan(lambda c, x: (c + x + next(doubled([x])), None), first, xs)[0]
        return first, rest, sum(x.sum() for x in lazy), dict(enumerate(doubled(xs[:2])))

    return step, [total, counter], [(X,), (-X,)]


@program
def context_managers_and_exceptions_inside(t):
    depth, total, counter = count(), scalar(), Counter()

    @contextlib.contextmanager
    def deeper():
        depth.value += 1
        try:
            yield depth.value
        finally:
            total.value += depth.value.astype(jnp.float32)

    def fails(x):
        counter(x)
        total.value += 100
        raise KeyError("half way")

    def step(x):
        with deeper() as level, contextlib.suppress(KeyError):
            fails(x)  # what it wrote stays, as in Python
        with contextlib.suppress(KeyError):
            t.remat(lambda x: x + level.astype(x.dtype))(fails(x))
        try:
            raise ValueError
        except ValueError as error:
            kind = type(error).__name__
            return t.remat(lambda x: (counter(x), level, kind))(x)

    return step, [depth, total, counter], [(X[0],), (X[1],)]


@program(plain=False)
def a_body_that_fails_leaves_nothing(t):
    total, counter, parameter = scalar(), Counter(), bw.Parameter(X[0])

    def body(carry, x):
        total.value += 1
        counter(x)
        bw.random.key()
        raise KeyError("half way")

    def step(xs):
        for attempt in (
            lambda: t.scan(body, X[0], xs),
            lambda: t.vmap(lambda x: body(x, x))(xs),
            lambda: t.fori_loop(0, 3, lambda i, x: body(x, x)[0], xs),
            lambda: t.while_loop(lambda x: x.sum() < 3, lambda x: body(x, x)[0], xs),
            lambda: t.value_and_grad(lambda x: body(x, x), parameter)(xs),
        ):
            with contextlib.suppress(KeyError):
                attempt()
        return xs + total.value + jax.random.normal(bw.random.key(), ())

    return step, [total, counter, parameter], [(X,), (X + 1,)]


@program
def recursion(t):
    depth, total = count(), scalar(1.0)

    def descend(x, n):
        depth.value += 1
        if n == 0:
            return x * total.value
        total.value += x
        left = t.cond(x > 0, lambda x: descend(x - 1, n - 1), lambda x: x + total.value, x)
        return left + descend(x * 0.5, n - 1)

    return lambda x: descend(x, 2), [depth, total], [(jnp.float32(v),) for v in (2.0, -1.0, 0.5)]


@program
def mutual_recursion_of_modules(t):
    class Node(bw.Module):
        def __init__(self, depth):
            self.visits = count()
            self.left = Node(depth - 1) if depth else None
            self.right = self.left

        def forward(self, x):
            self.visits.value += 1
            if self.left is None:
                return jnp.sin(x)
            return self.left(x) + self.right(x * 0.5)

    tree = Node(3)
    return lambda x: t.fori_loop(0, 2, lambda i, x: tree(x), x), [tree], [(X[0],), (X[1],)]


@program
def compiled_functions_that_call_each_other(t):
    total, counter = scalar(1.0), Counter()

    @t.compile
    def inner(x):
        total.value = total.value * 1.5 + 1
        return counter(x) + jax.random.normal(bw.random.key(), x.shape)

    @t.compile
    def halve(x, n):  # calls itself
        total.value += 1
        return x if n == 0 else halve(inner(x) / 2, n - 1)

    class Holder:
        @t.compile
        def method(self, x):
            return halve(x, 1) - inner(x)

    holder = Holder()

    def step(xs):
        y, _ = t.scan(lambda c, x: (inner(c + x), None), xs[0], xs)
        return holder.method(y), t.vmap(holder.method)(xs), inner(halve(y, 2))

    return step, [total, counter], [(X,), (X / 2,)]


@program
def a_compiled_module_inside(t):
    net = nn.Sequential(nn.Linear(3), nn.Dropout(0.5), Counter())
    fast = t.compile(net)

    def step(xs):
        loss, grads = t.value_and_grad(lambda x: (fast(x) ** 2).sum(), net)(xs)
        return loss, grads, t.scan(lambda c, x: (fast(c) + x, None), xs[0], xs)[0]

    return step, [net], [(X,), (X / 2,)]


@program
def a_module_that_replaces_its_own_child(t):
    class Lazy(bw.Module):
        def __init__(self):
            self.inner = None
            self.calls = count()

        def forward(self, x):
            self.calls.value += 1
            if not isinstance(self.inner, nn.Linear):
                self.inner = nn.Linear(3, bias=False)
            return self.inner(x)

    net = nn.Sequential(Lazy(), Lazy())
    net[1].inner = Counter()
    return lambda x: net(x), [net], [(X,), (X + 1,), (X,)]


@program
def modes_switched_inside(t):
    net = nn.Sequential(nn.Linear(3), nn.BatchNorm1d(), nn.Dropout(0.5))

    def step(x):
        first = net.train()(x)
        net.eval()
        try:
            return first, t.scan(lambda c, _: (net(c), None), x, length=2)[0]
        finally:
            net.train()

    return step, [net], [(X,), (X * 3,)]


@program
def hooks_that_write(t):
    net = nn.Sequential(nn.Linear(3), nn.Tanh(), nn.Linear(3))
    norm, largest = scalar(), scalar()

    def forward(module, args, out):
        norm.value = 0.9 * norm.value + 0.1 * (out**2).sum()
        return out + 0.25

    def before(module, args):
        largest.value = jnp.maximum(largest.value, abs(args[0]).max())

    net[0].register_forward_hook(forward)
    net[2].register_forward_pre_hook(before)

    def step(xs):
        return t.scan(lambda c, x: (t.remat(net)(c + x), None), xs[0], xs)[0]

    return step, [net, norm, largest], [(X,), (X * 2,)]


@program
def raw_jax_that_only_reads(t):
    net, scale = nn.Linear(3), scalar(2.0)

    @jax.custom_vjp
    def squash(x):
        return jnp.tanh(x) * scale.value

    squash.defvjp(lambda x: (squash(x), x), lambda x, g: (g * scale.value * (1 - jnp.tanh(x) ** 2),))

    def step(xs):
        scale.value *= 1.5
        mapped = jax.vmap(lambda x: net(x) * scale.value)(xs)
        looped = jax.lax.scan(lambda c, x: (jax.jit(net)(c) + x, c.sum()), xs[0], xs)
        return mapped, looped, t.value_and_grad(lambda x: squash(net(x)).sum(), net)(xs)

    return step, [net, scale], [(X,), (X - 2,)]


@program
def variables_as_arguments_and_results(t):
    a, b = scalar(3.0), bw.Buffer(X[0])

    def lane(shared, own, x):
        return shared * own + x, {"kind": "lane", "shared": shared}

    def step(x):
        mapped, notes = bw.vmap(lane, in_axes=(None, 0, 0), out_axes=(0, {"kind": None, "shared": None}))(a, b, x)
        carry, _ = t.scan(lambda c, x: (c + x, None), a, b.value)
        b.value = mapped
        return mapped, notes, carry, t.fori_loop(0, 2, lambda i, x: x * a, b), t.remat(lambda v: v + 1)(b)

    return step, [a, b], [(X[1],), (X[2],)]


@program
def keywords_flags_and_early_returns(t):
    total = scalar()

    def body(carry, x):
        if carry.ndim == 0:
            return carry + x.sum(), None
        total.value += x.sum()
        return carry, None

    def step(*xs, deep=False, **more):
        if not xs:
            return None
        first, *rest = xs
        carry = t.scan(body, first.sum() if deep else first, jnp.stack(rest or [first]))[0]
        return {"carry": carry, **{k: t.vmap(lambda x: x * 2)(v) for k, v in more.items()}}

    fixed = functools.partial(step, deep=True)
    return lambda x, y: (step(x, y), fixed(x, y, z=x), step(x, w=y, deep=False)), [total], [(X[0], X[1]), (X[2], X[3])]


@program
def variables_made_inside(t):
    """They belong to the trace that made them, and the transforms inside it may write them."""
    outside = scalar()

    def lane(xs):
        total, turns = bw.Buffer(jnp.zeros(3)), scalar()

        def body(carry, x):
            local = scalar(2.0)
            local.value *= x[0]
            total.value += x * local.value
            turns.value += 1
            return carry + local.value, total.value

        carry, ys = t.scan(body, jnp.float32(0), xs)
        t.cond(xs.sum() > 0, lambda: turns.value, lambda: write(turns, -turns.value))
        t.vmap(lambda x: write(turns, turns.value + 100))(xs)
        return carry, ys, total.value, turns

    def write(buffer, value):
        buffer.value = value
        return value

    def step(xs):
        outside.value += lane(xs)[3].value
        return lane(xs)[:3], t.vmap(lambda xs: lane(xs)[:3])(jnp.stack([xs, -xs]))

    return step, [outside], [(X,), (-X,)]
