"""Threads on compiling again: when it must not happen, and how one learns of it."""

from __future__ import annotations

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import losses, nn, optim

RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(23, 3)).astype(np.float32)
TARGETS = DATA[:, :1] * 2


def training(net):
    opt = optim.sgd(net, 0.05)

    @bw.compile
    def step(x, y):
        loss, grads = bw.value_and_grad(lambda x, y: losses.mse(net(x), y), net)(x, y)
        opt.step(grads)
        return loss

    return step


def batches(size):
    for start in range(0, len(DATA), size):
        yield DATA[start : start + size], TARGETS[start : start + size]


def test_diffrax_111_the_last_smaller_batch_compiles_once():
    """Step 39 of an example took minutes: the last batch is smaller, so everything compiled again, and nothing
    said so. Here it compiles once for each size whatever the number of epochs, and the figures tell.
    """
    step = training(nn.Linear(1))
    for _ in range(3):
        for x, y in batches(5):
            step(x, y)
    stats = step.stats()
    assert stats.compilations == 2
    assert stats.calls == 15


def test_tensorflow_29825_alternating_sizes_keep_their_programs():
    """People saw a compilation at the end of every epoch and asked whether the first program would be used again.
    Here both are kept: going back and forth costs no compilation.
    """
    step = training(nn.Linear(1))
    small, large = (DATA[:2], TARGETS[:2]), (DATA, TARGETS)
    for batch in (small, large, small, large, small):
        step(*batch)
    assert step.stats().compilations == 2


def test_bayesflow_370_a_warning_names_the_argument_whose_size_varies():
    """A simulator with a varying number of samples made compilation dominate the training, and a warning with a
    suggested fix was asked for. Here the tenth compilation warns, once, with the argument and its last two shapes.
    """
    net = nn.Linear(1)
    f = bw.compile(lambda x: net(x).sum())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for n in range(1, 14):
            f(DATA[:n])
    messages = [str(w.message) for w in caught if issubclass(w.category, bw.RecompileWarning)]
    assert len(messages) == 1
    assert "compiled 10 times" in messages[0]
    assert "argument 'x': float32[9, 3] became float32[10, 3]" in messages[0]
    assert "pad or drop a last, smaller batch" in messages[0]
    assert caught[0].filename == __file__  # the line of the user's call


def test_jax_4390_a_typo_that_compiles_at_every_call_is_named():
    """A typo led to a thousand compilations, noticed as "JAX got slow". Here the warning names the static argument
    that changes at every call.
    """
    f = bw.compile(lambda x, step: x * 2 if step < 0 else x)
    with pytest.warns(bw.RecompileWarning, match=r"argument 'step': 8 became 9.*pass numbers that change as arrays"):
        for step in range(10):
            f(DATA, step)


def test_jax_2814_a_function_defined_in_the_loop():
    """Many slow programs turned out to compile at every call, one asked for a warning. A function made anew in each
    iteration compiles anew here too, if it is compiled there; compiled once, outside, it does not.
    """
    net = nn.Linear(1)
    net(DATA)
    loss = bw.compile(lambda x, y: losses.mse(net(x), y))

    def epoch():
        return sum(float(loss(x, y)) for x, y in batches(23))

    assert epoch() == epoch()
    assert loss.stats().compilations == 1


def test_diffusers_1096_a_scale_that_changes_as_an_array():
    """An image generator compiled again whenever the guidance scale or a parameter changed. Here parameters are
    inputs, a scale passed as an array is one too, and one kept as a number compiles once for each value.
    """
    net = nn.Linear(3)
    f = bw.compile(lambda x, scale: net(x) * scale)
    for scale in (1.0, 7.5, 9.0):
        f(DATA, jnp.asarray(scale, jnp.float32))
        net.weight[:] *= 1.1
    assert f.stats().compilations == 1
    for scale in (1.0, 7.5, 1.0):
        f(DATA, scale)
    assert f.stats().compilations == 3


class Counting(nn.Module):
    """Counts its calls in a plain attribute that nothing depends on, and in a buffer."""

    def __init__(self):
        self.linear = nn.Linear(1)
        self.count = bw.Buffer(jnp.zeros((), jnp.int32))

    def forward(self, x):
        self.count += 1
        return self.linear(x) * (1 / (1 + self.count.value.astype(jnp.float32)))


def test_equinox_792_a_step_counter_does_not_compile_again():
    """A training state with ``step=self.step + 1`` was much slower: the counter was part of the program. Here a
    counter in a buffer is an input, and ten steps are one program.
    """
    net = Counting()
    step = training(net)
    for _ in range(10):
        step(DATA, TARGETS)
    assert int(net.count) == 10
    assert step.stats().compilations == 1


def test_tapnet_44_no_compilation_in_the_second_round():
    """Compilation in the middle of a loop over videos puzzled people: which call, and which size? Here a block of
    code can demand that nothing is compiled, and the error names the function and what changed.
    """
    net = nn.Linear(1)
    track = bw.compile(lambda frames, points: net(frames).sum() + points.sum())
    track(DATA, DATA[:2])
    with bw.no_recompile():
        track(DATA + 1, DATA[:2])
        with pytest.raises(Exception, match=r"argument 'points': float32\[2, 3\] became float32\[4, 3\]"):
            track(DATA, DATA[:4])
    track(DATA, DATA[:4])


def test_flax_4459_reading_and_printing_between_steps_costs_no_compilation():
    """Stateful modules were slow because every step went through all of the object. Here a step depends on what it
    reads: looking at the network, at names or at values between steps changes nothing.
    """
    net = nn.Sequential(nn.Linear(4), nn.BatchNorm1d(), nn.Linear(1))
    step = training(net)
    for _ in range(3):
        step(DATA, TARGETS)
        repr(net)
        net.state_dict()
        np.asarray(net[0].weight)
        list(net.named_parameters())
        net.notes = "a new attribute that forward doesn't read"
    assert step.stats().compilations <= 2
