"""Threads on random numbers: keys to be carried around, and masks that repeat."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn, optim

from .checks import drawn, state, stream, untraced

X = jnp.ones((4, 8))


class TwoDropouts(nn.Module):
    def __init__(self):
        self.first, self.second = nn.Dropout(0.5), nn.Dropout(0.5)

    def forward(self, x):
        return self.first(x), self.second(x)


def masks(outputs):
    return [np.asarray(out) == 0 for out in outputs]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_equinox_498_no_keys_to_pass_around(compiled):
    """Dropout wants a key in every ``__call__``; someone stored one as an attribute instead, and so had the same
    mask at every step. Here there is no key to store: masks differ between calls and between layers.
    """
    net = TwoDropouts()
    f = bw.compile(net) if compiled else net
    found = [mask for _ in range(3) for mask in masks(f(X))]
    for i, mask in enumerate(found):
        assert all(np.any(mask != other) for other in found[i + 1 :])
    assert drawn() == 6


def test_equinox_1083_a_program_without_keys_can_be_repeated():
    """Keys are passed by hand for the sake of reproducibility from run to run. Here a seed gives that: the same
    numbers again, eager and compiled alike.
    """
    runs = []
    for f in (TwoDropouts(), bw.compile(TwoDropouts()), TwoDropouts()):
        bw.seed(7)
        runs.append(np.concatenate([np.asarray(out) for _ in range(3) for out in f(X)]))
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0], runs[2])


def test_flax_3815_eager_steps_and_compiled_steps_draw_from_one_stream():
    """A stream of random numbers was first passed at each call, then kept in each layer. Here there is one, wherever
    a step is run: eager and compiled steps may alternate and give what eager ones alone give.
    """
    net = nn.Dropout(0.5)
    compiled = bw.compile(net)
    mixed = [np.asarray(f(X)) for f in (net, compiled, compiled, net, compiled)]
    bw.seed(0)
    np.testing.assert_array_equal(mixed, [np.asarray(net(X)) for _ in range(5)])


def test_keras_core_650_random_numbers_are_not_frozen_by_compiling():
    """A random operation without a seed took a constant one while it was traced: every step had the same dropout
    mask, and no compiled program was ever found again. Here the stream is an input of the program.
    """

    class Noise(nn.Module):
        def forward(self, x):
            return x + jax.random.normal(bw.random.key(), x.shape)

    f = bw.compile(Noise())
    first, second = f(X), f(X)
    assert np.any(first != second)
    assert f.stats().compilations == 1
    bw.seed(0)
    np.testing.assert_array_equal(f(X), first)
    assert f.stats().compilations == 1


def test_keras_18426_lanes_do_not_share_random_numbers():
    """``SeedGenerator`` gave the same values on every replica. Here the lanes of a ``vmap`` have streams of their
    own, next to one another and from call to call, and the stream outside moves by one key a call.
    """
    net = nn.Dropout(0.5)
    vmapped = bw.vmap(net)
    calls = [np.asarray(vmapped(jnp.ones((3, 16)))) for _ in range(2)]
    lanes = [lane for call in calls for lane in call]
    for i, lane in enumerate(lanes):
        assert all(np.any(lane != other) for other in lanes[i + 1 :])
    assert drawn() == 2
    untraced(net)


def test_keras_core_248_a_dropout_layer_made_inside_a_compiled_function():
    """``Dropout(0.1)(x, training=True)`` in a jitted function failed: its seed had no value yet. Here a layer may be
    made where it is used.
    """

    @bw.compile
    def step(x):
        return nn.Dropout(0.5)(x)

    compiled = [np.asarray(step(X)) for _ in range(2)]
    bw.seed(0)
    np.testing.assert_array_equal(compiled, [np.asarray(nn.Dropout(0.5)(X)) for _ in range(2)])
    assert np.any(compiled[0] != compiled[1])


def test_jasmine_36_initial_values_and_masks_are_independent():
    """Parameters and dropout were given the same key by accident. Here initial values have a source of their own:
    drawing masks does not change them, nor the other way round.
    """
    nn.Dropout(0.5)(X)
    late = nn.Linear(3, in_features=8)
    bw.seed(0)
    early = nn.Linear(3, in_features=8)
    assert drawn() == 0
    for path, value in state(late).items():
        np.testing.assert_array_equal(value, state(early)[path])


def test_keras_18426_training_with_dropout_is_the_same_eager_and_compiled():
    """To get masks that change in compiled training, seeds had to be threaded through by hand. Here a compiled
    training step gives the parameters, bit for bit up to rounding, and leaves the stream where the eager one does.
    """
    results = []
    for compiled in (False, True):
        bw.seed(5)
        net = nn.Sequential(nn.Linear(6), nn.Dropout(0.5), nn.Linear(1))
        opt = optim.sgd(net, 0.1)

        def step(x, net=net, opt=opt):
            loss, grads = bw.value_and_grad(lambda x: (net(x) ** 2).mean(), net)(x)
            opt.step(grads)
            return loss

        run = bw.compile(step) if compiled else step
        losses = [float(run(X)) for _ in range(4)]
        results.append((losses, stream(), state(net)))
    (eager, eager_stream, eager_state), (fast, fast_stream, fast_state) = results
    np.testing.assert_allclose(eager, fast, rtol=1e-5)
    np.testing.assert_array_equal(eager_stream, fast_stream)
    for path, value in eager_state.items():
        np.testing.assert_allclose(value, fast_state[path], rtol=1e-4, atol=1e-6, err_msg=path)
