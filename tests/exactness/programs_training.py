"""Programs about training: gradients of every order, ties, layers with state, optimisers inside loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp

import brickwork as bw
from brickwork import nn, optim

from .harness import program

X = jnp.asarray([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75], [-0.5, 1.0, 1.25], [2.0, -2.0, 0.125]])


def count():
    return bw.Buffer(jnp.zeros((), jnp.int32))


class Language(bw.Module):
    """An embedding that is used again, transposed, to read words off; the loop runs in between."""

    def __init__(self, t):
        self.t = t
        self.embed = nn.Embedding(5, 3)
        self.cell = nn.Linear(3, in_features=3)
        self.again = self.cell

    def forward(self, words):
        def body(h, word):
            h = jnp.tanh(self.cell(h) + self.embed(word))
            return self.again(h), h @ self.embed.weight.T

        start = self.embed.weight[0]
        last, scores = self.t.scan(body, start, words)
        return scores @ self.embed.weight.value + last


@program
def a_tie_across_a_scan_boundary(t):
    net = Language(t)

    def step(words):
        loss, grads = t.value_and_grad(lambda words: (net(words) ** 2).mean(), net)(words)
        for path, gradient in grads.items():
            parameter = net.get_parameter(path)
            parameter.value = parameter.value - 0.01 * gradient
        return loss, grads

    return step, [net], [(jnp.asarray(words),) for words in ([0, 3, 1], [4, 4, 2], [0, 0, 0])]


@program
def dropout_in_remat_in_scan_in_value_and_grad(t):
    block = nn.Sequential(nn.Linear(3), nn.Dropout(0.5), nn.Tanh(), nn.Linear(3))
    calls = count()

    def body(h, x):
        calls.value += 1
        return t.remat(block)(h + x), None

    def loss(xs):
        h, _ = t.scan(body, jnp.zeros_like(xs[0]), xs)
        return (h**2).sum()

    return t.value_and_grad(loss, block), [block, calls], [(X,), (X * 2,)]


@program(plain=False, rtol=2e-6)
def batch_norm_under_vmap_inside_scan(t):
    net = nn.Sequential(nn.Linear(3), nn.BatchNorm1d(momentum=0.3), nn.Tanh())

    def step(xs):
        def body(h, x):
            return bw.vmap(net)(h + x), net[1].running_mean.value

        return t.scan(body, xs * 0.5, jnp.stack([xs, xs + 1, xs - 1]))

    return step, [net], [(jnp.stack([X, X * 2]),), (jnp.stack([X - 1, X * X]),)]


@program
def batch_norm_in_branches(t):
    norm = nn.BatchNorm1d()

    def step(flags, x):
        def body(x, flag):
            return t.cond(flag, norm, lambda x: x * 2, x), norm.running_var.value

        return t.scan(body, x, flags)

    return step, [norm], [(jnp.asarray(f), X) for f in ([True, False, True], [False] * 3, [True] * 3)]


@program
def gradient_of_a_gradient_with_state(t):
    net = nn.Sequential(nn.Linear(4), nn.Tanh(), nn.Linear(1))
    calls = count()

    def score(x):
        calls.value += 1
        return net(x).sum()

    def penalised(x):
        point = bw.Parameter(x)
        slopes = t.grad(lambda: score(point.value + jax.random.normal(bw.random.key(), x.shape)), point)()
        (slope,) = slopes.values()
        return score(x) + ((slope**2).sum(-1) - 1).mean()

    return t.value_and_grad(penalised, net), [net, calls], [(X,), (X + 1,)]


@program(rtol=2e-6)
def an_inner_loop_that_writes_parameters(t):
    """MAML: adapt in a loop, differentiate through it, and go back to where it began."""
    net, calls = nn.Linear(2, in_features=3), count()

    def loss(x):
        calls.value += 1
        return ((net(x) - 1) ** 2).mean()

    def adapted(x):
        start = {path: p.value for path, p in net.named_parameters()}

        def descend(i, total):
            value, grads = t.value_and_grad(loss, net)(x)
            for path, p in net.named_parameters():
                p.value = p.value - 0.1 * grads[path]
            return total + value

        total = t.fori_loop(0, 3, descend, jnp.float32(0))
        result = loss(x) + total
        for path, p in net.named_parameters():
            p.value = start[path]
        return result

    return t.value_and_grad(adapted, net), [net, calls], [(X,), (X * 0.5,)]


@program
def a_gradient_for_each_example(t):
    net, calls = nn.Sequential(nn.Linear(3), nn.Dropout(0.25), nn.Linear(1)), count()

    def loss(x):
        calls.value += 1
        return (net(x) ** 2).sum()

    def step(xs):
        values, grads = t.vmap(t.value_and_grad(loss, net))(xs)
        return values, grads, t.grad(lambda xs: t.vmap(loss)(xs).mean(), net)(xs)

    return step, [net, calls], [(X,), (X * 2,)]


@program(plain=False, rtol=5e-6)
def gradients_of_an_ensemble(t):
    nets = bw.stack(
        [nn.Sequential(nn.Linear(3, in_features=3, bias=False), nn.BatchNorm1d(num_features=3)) for _ in range(2)]
    )

    def loss(nets, xs):
        return (bw.vmap(lambda net, x: net(x))(nets, xs) ** 3).sum()

    return t.value_and_grad(loss), [nets], [(nets, jnp.stack([X, X + 1])), (nets, jnp.stack([X * 2, X]))]


@program(rtol=5e-6)
def an_optimiser_inside_a_scan(t):
    net = nn.Sequential(nn.Linear(4), nn.Tanh(), nn.Linear(1))
    net.initialize(bw.spec(4, 3))
    opt = optim.adam(net, 1e-2)

    def epoch(xs):
        def step(_, x):
            loss, grads = t.value_and_grad(lambda x: ((net(x) - 1) ** 2).mean(), net)(x)
            opt.step(grads)
            return None, loss

        return t.scan(step, None, xs)[1]

    return epoch, [net, opt], [(jnp.stack([X, X + 1, X - 1]),), (jnp.stack([X, X * 2, X]),)]


@program(rtol=5e-6, compilations=3)
def gradients_added_up_in_a_scan(t):
    """The slots of the gradients are empty before the loop, filled in it, and empty again after the step."""
    net = nn.Linear(2, in_features=3)
    opt = optim.sgd(net, 1e-1, momentum=0.9)

    def epoch(xs, last):
        losses = t.scan(lambda _, x: (None, t.backward(lambda x: (net(x) ** 2).mean(), net)(x)), None, xs)[1]
        if last:
            opt.step()
        return losses

    xs = jnp.stack([X, X + 1])
    return epoch, [net, opt], [(xs, True), (xs * 2, False), (xs, False)]


@program
def remat_around_everything(t):
    net, calls = nn.Sequential(nn.Linear(3), nn.BatchNorm1d(), nn.Dropout(0.5), nn.Linear(3)), count()

    @t.remat
    def whole(xs, *, scale):
        def body(h, x):
            calls.value += 1
            return t.cond(x.sum() > 0, t.remat(lambda x: net(x) * scale), lambda x: x, h + x), h.mean()

        return t.scan(t.remat(body), xs[0] * 0, xs)

    def loss(xs):
        h, means = whole(xs, scale=0.5)
        return (h**2).mean() + means.sum()

    return t.value_and_grad(loss, net), [net, calls], [(jnp.stack([X, -X, X]),), (jnp.stack([-X, X, X + 1]),)]


@program
def a_gradient_through_switch_with_ties(t):
    shared = bw.Parameter(jnp.eye(3))
    arms = [nn.Linear(3, in_features=3, bias=False) for _ in range(3)]
    for arm in arms[:2]:
        arm.weight = shared

    def loss(index, x):
        y = t.switch(index, arms, x)
        return ((y @ shared.value - x) ** 2).mean()

    def step(index, x):
        return t.value_and_grad(lambda x: t.vmap(lambda i: loss(index, x + i))(jnp.arange(2.0)).sum(), arms)(x)

    return step, arms, [(jnp.int32(i), X) for i in (0, 1, 2)]


@program
def frozen_parts_and_auxiliary_results(t):
    net = nn.Sequential(nn.Linear(3), nn.Tanh(), nn.Linear(2))
    net[0].freeze()
    seen = bw.Buffer(jnp.zeros(2))

    def loss(x):
        def body(total, row):
            y = net(row)
            seen.value = y
            return total + (y**2).sum(), y

        total, ys = t.scan(body, jnp.float32(0), x)
        return total, {"ys": ys, "kind": "train", "rows": len(ys)}

    return t.value_and_grad(loss, net, has_aux=True), [net, seen], [(X,), (X + 1,)]


@program
def shapes_found_inside(t):
    """No size is known before the first call, which is deep inside."""
    net = nn.Sequential(nn.Linear(4), nn.BatchNorm1d(), nn.ReLU(), nn.Linear(3))

    def step(x):
        return t.fori_loop(0, 2, lambda i, x: t.remat(lambda x: t.cond(x.sum() > -1e9, net, net, x))(x), x)

    return step, [net], [(X,), (X * 2,)]


@program
def running_average_of_weights(t):
    net, average = nn.Linear(2, in_features=3), nn.Linear(2, in_features=3)
    average.load_state_dict(net.state_dict())
    average.freeze()

    def step(xs):
        def body(_, x):
            grads = t.grad(lambda x: (net(x) - average(x) + 1).sum(), net)(x)
            for mine, path in zip(average.parameters(), grads, strict=True):
                net.get_parameter(path).value = net.get_parameter(path).value - 0.1 * grads[path]
                mine.value = 0.9 * mine.value + 0.1 * net.get_parameter(path).value
            return None, average(x)

        return t.scan(body, None, xs)[1]

    return step, [net, average], [(jnp.stack([X, X + 1]),), (jnp.stack([X * 2, X]),)]
