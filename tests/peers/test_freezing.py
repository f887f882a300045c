"""Threads on parameters that must not be trained, and arrays that are none."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import brickwork as bw
from brickwork import nn, optim

X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def network():
    return nn.Sequential(nn.Linear(5, in_features=3), nn.Tanh(), nn.Linear(2, in_features=5))


def stepper(net, opt):
    @bw.compile
    def step(x):
        loss, grads = bw.value_and_grad(lambda x: (net(x) ** 2).mean(), net)(x)
        opt.step(grads)
        return loss, grads

    return step


def values(net):
    return {name: np.array(v.value) for name, v in net.named_variables()}


class Multiplied(nn.Module):
    """A parameter, a buffer, and an array that is a plain attribute."""

    def __init__(self):
        self.param = bw.Parameter(jnp.ones(3))
        self.buffer = bw.Buffer(jnp.full(3, 2.0))
        self.constant = jnp.full(3, 3.0)

    def forward(self, x):
        return self.param * x + self.buffer + self.constant


def test_equinox_31_freezing_does_not_follow_the_structure_of_the_model():
    """What to freeze was a filter of the model's own structure, to be written again for each architecture. Here it
    is a pattern on names.
    """
    for net in (network(), nn.Sequential(nn.Linear(3), network())):
        net(X)
        net.freeze(r".*bias")
        before = values(net)
        _, grads = stepper(net, optim.sgd(net, 0.1))(X)
        assert sorted(grads) == [name for name in before if name.endswith("weight")]
        after = values(net)
        for name in before:
            assert np.array_equal(before[name], after[name]) == name.endswith("bias"), name


def test_equinox_279_a_buffer_is_not_a_parameter_for_anybody():
    """An array attached to a module became a parameter; who uses the module in a loss of his own had to know and
    freeze it. Here a ``Buffer``, and an array that is a plain attribute, are no parameters for anybody.
    """
    net = Multiplied()
    assert [name for name, _ in net.named_parameters()] == ["param"]
    before = values(net)
    _, grads = stepper(net, optim.adamw(net, 0.1, weight_decay=0.5))(X)
    assert list(grads) == ["param"]
    after = values(net)
    assert np.any(after["param"] != before["param"])
    assert np.array_equal(after["buffer"], before["buffer"])
    assert net.constant.tolist() == [3, 3, 3]
    assert list(net.state_dict()) == ["param", "buffer"]


def test_equinox_710_constants_of_an_inner_solver_stay_constant():
    """Whether the constants of an optimisation inside the model would be trained, and whether each had to be
    wrapped, was not clear. Here they are not, under any way of taking gradients.
    """

    class Solver(nn.Module):
        def __init__(self):
            self.rate, self.start = jnp.asarray(0.1), jnp.zeros(3)
            self.target = bw.Parameter(jnp.ones(3))

        def forward(self, x):
            z = self.start
            for _ in range(3):
                z = z - self.rate * (z - self.target * x)
            return z

    net = Solver()
    assert list(bw.grad(lambda x: net(x).sum(), net)(X)) == ["target"]
    assert len(jax.tree.leaves(jax.grad(lambda n: n(X).sum())(net))) == 1


@pytest.mark.parametrize("rule", [optim.adamw, optim.sgd], ids=["adamw", "sgd"])
def test_equinox_866_weight_decay_leaves_what_is_frozen_alone(rule):
    """``stop_gradient`` freezes by making gradients zero, and weight decay shrinks such parameters all the same.
    Here a frozen parameter is no concern of the optimiser.
    """
    net = network()
    net.freeze("0.*")
    before = values(net)
    step = stepper(net, rule(net, 0.1, weight_decay=0.9))
    for _ in range(3):
        step(X)
    after = values(net)
    for name in before:
        assert np.array_equal(before[name], after[name]) == name.startswith("0."), name


def test_ocannl_673_frozen_parameters_do_not_count_in_the_gradient_norm():
    """Frozen parameters took part in clipping by the global norm. Here the norm is that of the trainable ones."""
    net = network()
    net.freeze("0.*")
    rule = optax.chain(optax.clip_by_global_norm(0.01), optax.sgd(1.0))
    gradient = bw.grad(lambda x: (net(x) ** 2).mean(), net)(X)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in gradient.values()))
    before = values(net)
    optim.Optimizer(net, rule).step(gradient)
    moved = before["2.weight"] - values(net)["2.weight"]
    np.testing.assert_allclose(moved, gradient["2.weight"] * min(1, 0.01 / norm), rtol=1e-4, atol=1e-7)


def test_optax_296_freezing_and_unfreezing_half_way():
    """Freezing took masks around the rule, and another rule to thaw. Here it is a flag that may change between
    steps: state is kept for who was frozen, the program follows, and going back costs no compilation.
    """
    net = network()
    step = stepper(net, optim.adam(net, 0.1))
    step(X)
    net.freeze("0.*")
    step(X)
    before = values(net)
    step(X)
    after = values(net)
    assert all(np.array_equal(before[n], after[n]) == n.startswith("0.") for n in before)
    compilations = step.stats().compilations
    net.unfreeze()
    step(X)
    net.freeze("0.*")
    step(X)
    assert step.stats().compilations == compilations


def test_equinox_909_frozen_parameters_have_no_gradient_and_no_slot():
    """Gradients of frozen leaves were ``None``, or zeros, in a tree of the model's shape, and the optimiser's state
    had places for them. Here there are neither: no gradient is computed, no state is held.
    """
    net = network()
    net.freeze("0.*")
    opt = optim.adam(net, 0.1)
    _, grads = stepper(net, opt)(X)
    assert sorted(grads) == ["2.bias", "2.weight"]
    moments = [v for v in opt.variables() if v.shape]
    assert sorted(v.size for v in moments) == [2, 2, 10, 10]
    flops = {}
    for frozen in (True, False):
        net.unfreeze()
        if frozen:
            net.freeze("0.*")
        gradient = bw.compile(lambda x: bw.grad(lambda x: (net(x) ** 2).mean(), net)(x))
        gradient(X)
        flops[frozen] = gradient.stats().flops
    assert flops[True] < flops[False]


def test_equinox_908_a_pattern_that_freezes_nothing_is_an_error():
    """Filters that select nothing, or the wrong things, were found out late. Here a pattern that matches no
    parameter is refused and shows what there is.
    """
    with pytest.raises(ValueError, match=r"(?s)freeze.*encoder.*0\.weight"):
        network().freeze("encoder.*")


def test_equinox_123_some_entries_of_an_array():
    """To freeze some entries of an array has to be done on gradients, which weight decay or momentum then undo.
    Here as well a parameter is frozen as a whole; what is fixed inside one is a buffer beside it.
    """

    class Partly(nn.Module):
        def __init__(self):
            self.free = bw.Parameter(jnp.ones(1))
            self.fixed = bw.Buffer(jnp.ones(1))

        def forward(self, x):
            return x[:, :2] * jnp.concatenate([self.free.value, self.fixed.value])

    net = Partly()
    step = stepper(net, optim.adamw(net, 0.1, weight_decay=0.5))
    for _ in range(3):
        step(X)
    assert float(net.fixed[0]) == 1
    assert float(net.free[0]) != 1


def test_curated_transformers_69_frozen_means_no_statistics_of_zero_gradients():
    """A frozen transformer's optimiser statistics were updated with zero gradients, so that thawing it began from
    worn-out moments. Here the moments stay as they were when it was frozen.
    """
    net = network()
    opt = optim.adam(net, 0.1)
    step = stepper(net, opt)
    step(X)
    before = values(opt)
    net.freeze("0.*")
    step(X)
    step(X)
    after = values(opt)
    for name in ("0.weight", "0.bias"):
        for moment in ("mu", "nu"):
            path = f"inner.{moment}.{name}"
            assert before[path].any()
            assert np.array_equal(before[path], after[path])
    assert np.any(before["inner.mu.2.weight"] != after["inner.mu.2.weight"])
