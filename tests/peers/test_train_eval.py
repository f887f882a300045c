"""Threads on training and evaluation mode, and on what batch normalisation keeps."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn, optim

from .checks import drawn, same_state, state

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 4)).astype(np.float32)


def network():
    net = nn.Sequential(nn.Linear(4), nn.BatchNorm1d(), nn.Dropout(0.5), nn.Linear(2))
    return net.initialize(bw.spec(8, 4))


def stepper(net):
    opt = optim.sgd(net, 0.1)

    @bw.compile
    def step(x):
        loss, grads = bw.value_and_grad(lambda x: (net(x) ** 2).mean(), net)(x)
        opt.step(grads)
        return loss

    return step


def test_lerobot_3668_training_after_an_evaluation_is_training():
    """An evaluation in the middle of training called ``eval()`` and nobody called ``train()``: no dropout and frozen
    statistics from then on, unnoticed. Here as well the mode is the caller's; but a compiled step is never that of
    another mode, going back costs no compilation, and the state shows which one ran.
    """
    net = network()
    step, predict = stepper(net), bw.compile(net)
    for _ in range(2):
        net.train()
        before, keys = state(net), drawn()
        step(X)
        assert np.any(state(net)["1.running_mean"] != before["1.running_mean"])
        assert drawn() == keys + 1

        net.eval()
        before, keys = state(net), drawn()
        np.testing.assert_array_equal(predict(X), predict(X))
        assert all(np.array_equal(value, before[path]) for path, value in state(net).items())
        assert drawn() == keys
    assert predict.stats().compilations == 1
    net.train()
    compilations = step.stats().compilations
    step(X)
    assert step.stats().compilations == compilations


def test_lerobot_3721_the_modes_of_single_layers_can_be_restored():
    """The mend restores the mode after evaluation also when it raises, and leaves a network alone that was in
    evaluation mode before. Here modes are plain attributes of modules: a few lines restore each of them.
    """
    net = network()
    net[1].eval()  # fine-tuning with fixed statistics
    modes = {module: module.training for module in net.modules()}
    with pytest.raises(ZeroDivisionError):
        try:
            net.eval()
            raise ZeroDivisionError
        finally:
            for module, mode in modes.items():
                module.training = mode
    assert [module.training for module in net] == [True, False, True, True]
    before = state(net)
    stepper(net)(X)
    assert np.array_equal(state(net)["1.running_mean"], before["1.running_mean"])


def test_ethics_5_the_mode_of_a_network_is_that_of_all_its_layers():
    """A network stayed in evaluation mode after the first epoch. Here ``train()`` reaches every layer, in lists and
    dicts and shared ones too, and says so in ``training``.
    """
    shared = nn.Dropout(0.5)
    net = nn.Sequential(network(), shared)
    net.heads = {"a": [nn.Dropout(0.5), shared]}
    assert not any(m.training for m in net.eval().modules())
    assert all(m.training for m in net.train().modules())


def test_pytorch_60528_the_example_with_the_two_variances():
    """A report took the unbiased variance in the running statistics for a bug: the output uses the biased one. It is
    the convention, and here its example gives the numbers given there.
    """
    first = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    x = np.stack([first, first + 1, first + 2, first + 3])
    layer = nn.BatchNorm1d(momentum=0.1)
    y = layer(x)
    np.testing.assert_allclose(y[0, 0], [-1.8974, -1.2649, -0.6325, 0.0], atol=1e-4)
    np.testing.assert_allclose(layer.running_var, [1.1667] * 3, atol=1e-4)


def test_pytorch_7028_the_whole_of_the_new_statistics():
    """With a momentum of one the running variance did not equal NumPy's: it is divided by n - 1. Here as well."""
    x = np.array([[2, 15, 2, 1], [2, 17, 2, 1], [-4, -2, -2, -1]], np.float32)
    layer = nn.BatchNorm1d(momentum=1.0)
    layer(x)
    np.testing.assert_allclose(layer.running_mean, x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(layer.running_var, x.var(0, ddof=1), rtol=1e-5)


def test_pytorch_19902_the_output_is_normalised_by_the_biased_variance():
    """The other half of that convention: in training the batch has variance one afterwards, by its biased variance."""
    y = np.asarray(nn.BatchNorm1d(eps=0.0)(X))
    np.testing.assert_allclose(y.var(0), np.ones(4), rtol=1e-4)


def test_pytorch_15298_a_momentum_of_zero_keeps_the_old_statistics():
    """Which share ``momentum`` is was taken the wrong way round by readers. Here it is the share of the new batch:
    nothing moves with zero, and each value goes a tenth of the way with 0.1.
    """
    still, slow = nn.BatchNorm1d(momentum=0.0), nn.BatchNorm1d(momentum=0.1)
    still(X)
    slow(X)
    assert not np.any(still.running_mean)
    assert np.all(np.asarray(still.running_var) == 1)
    np.testing.assert_allclose(slow.running_mean, 0.1 * X.mean(0), rtol=1e-4, atol=1e-7)


def test_algorithmic_efficiency_798_not_updating_statistics_can_be_asked_for_twice():
    """To leave statistics alone for a pass the momentum was stored and set to zero; doing it twice stored the zero,
    and they never moved again. Here the mode of the layers does it, as often as one likes, compiled as well.
    """
    net = network()
    step = stepper(net)
    step(X)
    moved = state(net)["1.running_mean"]
    for _ in range(2):
        net[1].eval()
        step(X)
        net[1].eval()
        step(X)
        assert np.array_equal(state(net)["1.running_mean"], moved)
        net[1].train()
        step(X)
        assert np.any(state(net)["1.running_mean"] != moved)
        moved = state(net)["1.running_mean"]
    assert net[1].momentum == 0.1


def test_flax_3982_evaluating_with_the_present_parameters():
    """A guide's evaluation step used the parameters of the beginning, so that the network seemed not to learn. Here
    a compiled function reads the parameters when it is called.
    """
    net = nn.Linear(1)
    predict, step = bw.compile(net), stepper(net)
    before = predict(X)
    for _ in range(5):
        step(X)
        np.testing.assert_allclose(predict(X), net(X), rtol=1e-6)
    assert np.sum(np.square(predict(X))) < np.sum(np.square(before))


def test_numpyro_1446_statistics_need_not_be_declared_mutable():
    """Calling batch normalisation in training raised that its collection is immutable, unless every caller said
    which ones are not. Here a buffer can be written, wherever the layer is.
    """

    class Policy(nn.Module):
        def __init__(self):
            self.features = network()

        def forward(self, x):
            return self.features(x).sum()

    net = Policy()
    tracked = net.features[1].num_batches_tracked
    for count, call in enumerate((net, bw.compile(net), bw.grad(net, net), net), start=1):
        call(X)
        assert int(tracked) == count


def test_equinox_238_the_structure_of_a_network_does_not_change_by_using_it():
    """The flattened form of a model with batch normalisation changed in the course of training, with errors on the
    number of leaves. Here it is the same before the first step, after it, and in a copy that is used.
    """
    net = network()
    before = jax.tree.structure(net)
    copy = net.clone()
    step = stepper(net)
    for _ in range(3):
        step(X)
        assert jax.tree.structure(net) == before
    copy(X)
    assert jax.tree.structure(copy) == before
    copy.load_state_dict(net.state_dict())
    same_state(copy, net, rtol=0, atol=0)
