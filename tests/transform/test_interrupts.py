"""Ctrl-C while a compiled step runs, and other threads that look at the network meanwhile."""

from __future__ import annotations

import os
import signal
import threading

import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn, optim


@pytest.fixture
def training():
    net = nn.Sequential(nn.Linear(64), nn.ReLU(), nn.Linear(4))
    x = jnp.ones((32, 16))
    net(x)
    opt = optim.adam(net, 1e-3)

    @bw.compile
    def step(x):
        loss, grads = bw.value_and_grad(lambda x: (net(x) ** 2).mean(), net)(x)
        opt.step(grads)
        return loss

    step(x)
    return net, opt, step, x


@pytest.mark.skipif(not hasattr(signal, "SIGINT") or os.name == "nt", reason="needs POSIX signals")
def test_an_interrupt_loses_nothing(training):
    net, opt, step, x = training
    rng = np.random.default_rng(0)
    for _ in range(12):
        timer = threading.Timer(0.01 + 0.01 * rng.random(), os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            while True:
                step(x)
        timer.join()
        for module in (net, opt):
            for name, value in module.state_dict().items():
                assert not value.is_deleted(), name
        assert np.isfinite(step(x))


@pytest.mark.parametrize("look", ["eager", "state", "print", "compiled"])
def test_other_threads_may_look(training, look):
    net, _, step, x = training
    predict = bw.compile(net)
    looks = {
        "eager": lambda: np.asarray(net(x)),
        "state": lambda: [np.asarray(v) for v in net.state_dict().values()],
        "print": lambda: repr(net[0].weight),
        "compiled": lambda: np.asarray(predict(x)),
    }
    looks[look]()
    errors: list[Exception] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            try:
                looks[look]()
            except Exception as error:
                errors.append(error)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    for _ in range(300):
        step(x)
    done.set()
    thread.join()
    assert not errors


def test_the_random_stream_goes_where_the_network_is(devices):
    x = jnp.ones((4, 3))
    nets = [nn.Sequential(nn.Linear(8), nn.Dropout(0.5)).to(d) for d in devices[1:3]]
    inputs = [bw.to(x, d) for d in devices[1:3]]
    compiled = [bw.compile(net) for net in nets]
    for _ in range(2):
        for f, net, value, device in zip(compiled, nets, inputs, devices[1:3], strict=True):
            assert f(value).device == device
            assert net(value).device == device


def test_an_input_from_elsewhere_is_refused_at_every_call(devices):
    net = nn.Linear(2).to(devices[1])
    f = bw.compile(net)
    here, there = jnp.ones((4, 3)), bw.to(jnp.ones((4, 3)), devices[1])
    f(there)
    for _ in range(2):
        with pytest.raises(bw.errors.DeviceMismatchError, match=r"'weight' is on .*1, array argument 0 is on .*0"):
            f(here)
    assert f(there).device == devices[1]
