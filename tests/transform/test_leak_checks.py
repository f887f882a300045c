"""JAX's check for leaked tracers (``jax_check_tracer_leaks``) finds none of brickwork's: users can look for theirs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import brickwork as bw
from brickwork import nn, optim

X = jnp.ones((4, 3))


def net():
    return nn.Sequential(nn.Linear(3, in_features=3), nn.Dropout(0.5), nn.BatchNorm1d(num_features=3))


def train():
    n = net()
    opt = optim.adam(n, 1e-3)

    def step(x):
        loss, grads = bw.value_and_grad(lambda x: n(x).sum(), n)(x)
        opt.step(grads)
        return loss

    return bw.compile(step)(X)


def over(*devices):
    return jax.sharding.Mesh(np.array(devices), ("data",))


CASES = {
    "scan": lambda n: bw.scan(lambda c, x: (n(c), x), X, X),
    "fori_loop": lambda n: bw.fori_loop(0, 2, lambda i, c: n(c), X),
    "while_loop": lambda n: bw.while_loop(lambda c: c.sum() > 100, n, X),
    "cond": lambda n: bw.compile(lambda x: bw.cond(x.sum() > 0, n, lambda x: x, x))(X),
    "switch": lambda n: bw.compile(lambda i: bw.switch(i, [lambda: n(X), lambda: X]))(jnp.int32(1)),
    "vmap": lambda n: bw.vmap(n)(X[None]),
    "vmap of a stack": lambda n: bw.vmap(lambda n, x: n(x), in_axes=(0, None))(bw.stack([net(), net()]), X),
    "vmap with a shared result": lambda n: bw.vmap(lambda x: (n(x), n[0].weight * 2), out_axes=(0, None))(X[None]),
    "remat": lambda n: bw.grad(bw.remat(lambda x: n(x).sum()), n)(X),
    "vjp": lambda n: bw.vjp(n, X)[1](X),
    "jvp": lambda n: bw.jvp(n[0], (X,), (X,)),
    "hessian": lambda n: bw.hessian(lambda x: n[0](x).sum(), n[0])(X),
    "backward": lambda n: bw.backward(lambda x: n(x).sum(), n)(X),
    "shard_map": lambda n: bw.shard_map(n, over(jax.devices()[0]), P("data"), P("data"))(X),
    "Repeat": lambda n: nn.Repeat(net, 2)(X),
    "folding": lambda n: bw.compile(nn.Sequential(*[nn.Linear(3) for _ in range(12)]))(X),
    "speculation": lambda n: bw.compile(lambda x: n(x) if x.sum() > 0 else x)(X),
    "functional": lambda n: jax.jit(bw.functional(n)[0])(bw.functional(n)[1], X),
    "initialize": lambda n: nn.Sequential(nn.Linear(3), nn.LSTM(4)).initialize(bw.spec(2, 3, 3)),
    "training": lambda n: train(),
}


@pytest.mark.parametrize("case", CASES)
def test_none_is_found(case):
    n = net()
    with jax.check_tracer_leaks(True):
        CASES[case](n)


KEPT = []  # not in a closure: there JAX fails to say where it is


def test_one_of_the_users_is_found():
    with jax.check_tracer_leaks(True), pytest.raises(Exception, match="Leaked"):
        bw.scan(lambda c, x: (c, KEPT.append(c * x)), jnp.float32(0), X[:, 0])
    KEPT.clear()
