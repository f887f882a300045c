"""Threads may trace and run at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

import brickwork as bw
from brickwork.transform._ready import Ready


class Linear(bw.Module):
    def __init__(self, out):
        self.weight = bw.Parameter(shape=(out, None))

    def build(self, x):
        self.weight.shape = (None, x.shape[-1])

    def forward(self, x):
        return x @ self.weight.T


def together(fn, n=8):
    """Run ``fn(i)`` in ``n`` threads that start at the same time; results in order."""
    barrier = threading.Barrier(n)

    def run(i):
        barrier.wait()
        return fn(i)

    with ThreadPoolExecutor(n) as pool:
        return [f.result() for f in [pool.submit(run, i) for i in range(n)]]


def test_tracing_own_networks():
    nets = [Linear(3) for _ in range(8)]

    def train(i):
        net = nets[i]
        opt = bw.optim.sgd(net, 0.1, momentum=0.5)

        @bw.compile
        def step(v):
            loss, grads = bw.value_and_grad(lambda v: (net(v) ** 2).mean(), net)(v)
            opt.step(grads)
            return loss

        return [float(step(jnp.ones((2, i + 1)))) for _ in range(5)]

    for losses in together(train):
        assert losses[-1] < losses[0]
    for net in nets:
        assert isinstance(net.weight._value, jax.Array)
        assert not isinstance(net.weight._value, jax.core.Tracer)


def test_one_function_called_by_many():
    net = Linear(3)
    net(jnp.ones((1, 4)))
    f = bw.compile(lambda v: net(v).sum())
    expected = [float(net(jnp.ones((i + 1, 4))).sum()) for i in range(8)]
    for _ in range(3):
        got = together(lambda i: [float(f(jnp.ones((i + 1, 4)))) for _ in range(5)])
        for values, want in zip(got, expected):
            np.testing.assert_allclose(values, want, rtol=1e-5)


def test_first_call_by_many_with_equal_shapes():
    net = Linear(3)
    net(jnp.ones((1, 4)))
    for _ in range(3):
        f = bw.compile(lambda v: net(v).sum())
        values = together(lambda i, f=f: float(f(jnp.full((2, 4), 1.0))))
        assert len(set(values)) == 1


def test_inference_while_training():
    net = Linear(3)
    net(jnp.ones((1, 4)))
    stop = threading.Event()

    @bw.compile
    def step(v):
        _, grads = bw.value_and_grad(lambda v: (net(v) ** 2).mean(), net)(v)
        net.weight.value = net.weight.value - 0.01 * grads["weight"]

    predict = bw.compile(lambda v: net(v))
    v = jnp.ones((2, 4))
    step(v), predict(v)

    def infer(_):
        n = 0
        while not stop.is_set():
            np.asarray(predict(v))
            n += 1
        return n

    with ThreadPoolExecutor(3) as pool:
        others = [pool.submit(infer, i) for i in range(2)]
        try:
            for _ in range(500):
                step(v)
        finally:
            stop.set()
        assert all(o.result() > 0 for o in others)


def test_random_numbers_in_many_threads():
    f = bw.compile(lambda v: v + jax.random.normal(bw.random.key(), (3,)))
    f(jnp.zeros(3))
    values = together(lambda i: [np.asarray(f(jnp.zeros(3))).tobytes() for _ in range(100)])
    flat = [v for row in values for v in row]
    assert len(set(flat)) == len(flat)


def test_keys_taken_eagerly_in_many_threads_differ():
    bw.random.key()
    rows = together(lambda i: [np.asarray(jax.random.key_data(bw.random.key())).tobytes() for _ in range(50)])
    flat = [v for row in rows for v in row]
    assert len(set(flat)) == len(flat)


def test_structural_changes_while_others_run():
    nets = [Linear(2) for _ in range(4)]
    for n in nets:
        n(jnp.ones((1, 3)))
    fs = [bw.compile(lambda v, n=n: n(v) if n.training else -n(v)) for n in nets]

    def work(i):
        v = jnp.ones((1, 3))
        want = np.asarray(nets[i](v))
        for k in range(20):
            nets[i].train(k % 2 == 0)
            np.testing.assert_allclose(fs[i](v), want if k % 2 == 0 else -want, rtol=1e-6)

    together(work, 4)
    assert all(f.stats().compilations == 2 for f in fs)


def test_a_thread_does_not_see_anothers_trace():
    p = bw.Parameter(jnp.ones(2))
    inside, done = threading.Event(), threading.Event()
    seen = []

    def look():
        inside.wait(10)
        seen.append(p.value)
        done.set()

    thread = threading.Thread(target=look)
    thread.start()

    @bw.compile
    def f():
        p.value = p.value * 2
        inside.set()
        done.wait(10)

    f()
    thread.join()
    np.testing.assert_array_equal(seen[0], [1, 1])
    np.testing.assert_array_equal(p, [2, 2])


def test_a_call_during_the_first_compilation_waits_for_it(monkeypatch):
    """Else JAX would compile the same program in both threads."""
    f = bw.compile(lambda x: x * 2)
    results, others = [], []

    def compile_while_another_calls(ready, arrays):
        others.append(threading.Thread(target=lambda: results.append(float(f(np.float32(3))))))
        others[0].start()
        others[0].join(0.2)
        assert not results
        compile(ready, arrays)

    compile = Ready.compile
    monkeypatch.setattr(Ready, "compile", compile_while_another_calls)
    assert float(f(np.float32(2))) == 4
    others[0].join()
    assert results == [6] and f.stats().compilations == 1
