"""Threads on modules with state in ``scan``, ``while_loop``, ``cond``, ``remat``, and over layers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import losses, nn, optim
from brickwork.errors import TraceLeakError

from .checks import close, drawn, either_way, same_state, state, stream, untraced

RNG = np.random.default_rng(0)
BOTH = pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])


def data(*shape):
    return RNG.normal(size=shape).astype(np.float32)


class MLP(nn.Module):
    def __init__(self):
        self.linear1 = nn.Linear(6, in_features=4)
        self.linear2 = nn.Linear(4, in_features=6)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.linear2(jax.nn.relu(self.dropout(self.linear1(x))))


@BOTH
def test_flax_4151_dropout_in_a_scan(compiled):
    """A network with dropout called in ``jax.lax.scan`` raised "cannot call RngStream from a different trace level".
    Here ``bw.scan`` gives what the Python loop gives, masks included; the raw one is refused with what to do.
    """
    net = MLP()
    twin = net.clone()
    xs = data(3, 2, 4)
    _, ys = either_way(lambda xs: bw.scan(lambda carry, x: (carry, net(x)), None, xs), compiled)(xs)
    after = stream()
    bw.seed(0)
    close(ys, jnp.stack([twin(x) for x in xs]))
    np.testing.assert_array_equal(stream(), after)
    untraced(net)

    bw.seed(0)
    with pytest.raises(TraceLeakError, match=r"raw JAX transform.*jax\.lax\.scan.*bw\.functional"):
        jax.lax.scan(lambda carry, x: (carry, net(x)), None, xs)
    assert drawn() == 0
    untraced(net)


@BOTH
def test_flax_4950_masks_differ_from_step_to_step(compiled):
    """In a scan over a function, rather than over a module, random numbers were the same in every step. Here there is
    one stream, however the step is written: as a function, a method, or a module.
    """
    net = nn.Dropout(0.5)

    class Step(nn.Module):
        def __init__(self):
            self.drop = net

        def step(self, carry, x):
            return carry, self.drop(x)

        def forward(self, carry, x):
            return self.step(carry, x)

    module = Step()
    for body in (lambda c, x: (c, net(x)), module.step, module):
        masks = np.asarray(either_way(lambda xs, body=body: bw.scan(body, None, xs)[1], compiled)(jnp.ones((3, 32))))
        assert len({mask.tobytes() for mask in masks}) == 3


@BOTH
def test_flax_1252_dropout_in_a_recurrent_cell(compiled):
    """A recurrent cell with dropout in a scan needed lifted transforms, with each kind of variable and each random
    stream declared. Here the cell is a module, and the gradient, the masks and the result are those of the loop.
    """

    class Cell(nn.Module):
        def __init__(self, width):
            self.hidden, self.drop = nn.Linear(width), nn.Dropout(0.3)

        def forward(self, h, x):
            h = jnp.tanh(self.hidden(jnp.concatenate([self.drop(h), x], axis=-1)))
            return h, h

    cell = Cell(3)
    cell.initialize(bw.spec(2, 3), bw.spec(2, 4))
    xs, h = data(5, 2, 4), jnp.zeros((2, 3))

    def by_loop(xs):
        state, ys = h, []
        for x in xs:
            state, y = cell(state, x)
            ys.append(y)
        return (jnp.stack(ys) ** 2).mean()

    scanned = bw.value_and_grad(lambda xs: (bw.scan(cell, h, xs)[1] ** 2).mean(), cell)
    result = either_way(scanned, compiled)(xs)
    bw.seed(0)
    close(result, bw.value_and_grad(by_loop, cell)(xs), rtol=1e-4)
    assert drawn() == 5


@BOTH
def test_keras_core_924_a_recurrent_layer_is_trained(compiled):
    """Parameters used in the loop of a recurrent layer were not the ones being trained, so it learned nothing. Here
    a sequence model learns, in steps of a scan inside the gradient.
    """

    class Recurrent(nn.Module):
        def __init__(self):
            self.cell, self.head = nn.Linear(4, in_features=5), nn.Linear(1, in_features=4)

        def forward(self, xs):
            start = jnp.zeros((xs.shape[1], 4))
            h, _ = bw.scan(lambda h, x: (jnp.tanh(self.cell(jnp.concatenate([h, x], -1))), None), start, xs)
            return self.head(h)

    net = Recurrent()
    before = state(net)
    opt = optim.adam(net, 0.05)
    xs = data(4, 16, 1)
    target = jnp.asarray(xs.sum(0) > 0, jnp.float32)

    def step(xs, target):
        loss, grads = bw.value_and_grad(lambda xs, y: losses.mse(net(xs), y), net)(xs, target)
        opt.step(grads)
        return loss

    run = either_way(step, compiled)
    values = [float(run(xs, target)) for _ in range(15 if compiled else 5)]
    assert values[-1] < values[0]
    assert all(np.any(value != before[path]) for path, value in state(net).items())


@BOTH
def test_flax_4713_a_random_start_of_a_recurrence(compiled):
    """A recurrent layer draws its first state; compiled, that raised a trace-level error. Here keys may be drawn
    before, in and after a loop, and the compiled function draws the eager ones.
    """
    net = MLP()

    def run(xs):
        h = jax.random.normal(bw.random.key(), (2, 4))
        h, ys = bw.scan(lambda h, x: (net(h) + x, h), h, xs)
        return h + jax.random.normal(bw.random.key(), h.shape), ys

    xs = data(3, 2, 4)
    results = []
    for f in (run, bw.compile(run) if compiled else run):
        bw.seed(0)
        results.append((f(xs), stream().tolist(), drawn()))
    close(results[0][0], results[1][0])
    assert results[0][1:] == results[1][1:]
    assert drawn() == 5


@BOTH
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_flax_2052_batchnorm_in_a_scan(training, compiled):
    """Statistics of batch normalisation carried through a scan worked at the top level and not in a module, and in
    evaluation they had to be declared mutable all the same. Here the scan may be in a module, and the statistics go
    from step to step as in a loop.
    """

    class Scanned(nn.Module):
        def __init__(self):
            self.norm, self.dense = nn.BatchNorm1d(num_features=3), nn.Linear(3, in_features=3)

        def forward(self, xs):
            return bw.scan(lambda carry, x: (carry + self.dense(self.norm(x)).mean(), self.norm(x)), 0.0, xs)

    net = Scanned()
    twin = net.clone()
    net.train(training)
    twin.train(training)
    xs = data(3, 4, 3)
    carry, ys = either_way(net, compiled)(xs)
    total, outs = 0.0, []
    for x in xs:
        total = total + twin.dense(twin.norm(x)).mean()
        outs.append(twin.norm(x))
    close((carry, ys), (total, jnp.stack(outs)), rtol=1e-4)
    same_state(net, twin)
    assert int(net.norm.num_batches_tracked) == (6 if training else 0)
    untraced(net)


@BOTH
def test_equinox_987_the_mode_of_a_network_in_a_scan(compiled):
    """With the network in the carry its ``inference`` flag was traced, and dropout failed on it. Here the network is
    not carried and its mode is Python's: each mode is a program of its own.
    """
    net = MLP()
    rollout = either_way(lambda x: bw.scan(lambda s, _: (net(s), s), x, length=4), compiled)
    x = data(2, 4)
    net.eval()
    assert np.array_equal(rollout(x)[0], rollout(x)[0])
    assert drawn() == 0
    net.train()
    assert not np.array_equal(rollout(x)[0], rollout(x)[0])
    assert drawn() == 8


class NoisyBlock(nn.Module):
    """A layer, dropout, and a counter of its own."""

    def __init__(self, rate=0.5):
        self.linear, self.dropout = nn.Linear(4, in_features=4), nn.Dropout(rate)
        self.calls = bw.Buffer(jnp.zeros((), jnp.int32))

    def forward(self, x):
        self.calls += 1
        return x + self.dropout(jnp.tanh(self.linear(x)))


@BOTH
def test_flax_4771_a_gradient_through_layers_that_are_scanned(compiled):
    """A network of scanned layers with dropout and other state worked, but not in ``jax.grad``. Here the gradient is
    that of the network with its layers written out.
    """
    blocks = nn.Repeat(lambda: NoisyBlock(0.0), 3)
    plain = nn.Sequential(*[NoisyBlock(0.0) for _ in range(3)])
    plain.load_state_dict(blocks.state_dict())
    x = data(2, 4)
    value, grads = either_way(bw.value_and_grad(lambda x: (blocks(x) ** 2).mean(), blocks), compiled)(x)
    expected, expected_grads = bw.value_and_grad(lambda x: (plain(x) ** 2).mean(), plain)(x)
    close(value, expected, rtol=1e-4)
    for name in ("linear.weight", "linear.bias"):
        close(grads[f"block.{name}"], jnp.stack([expected_grads[f"{i}.{name}"] for i in range(3)]), rtol=1e-4)
    close(dict(blocks.state_dict()), dict(plain.state_dict()))
    untraced(blocks)


@BOTH
def test_flax_4153_random_numbers_of_layers_that_are_scanned(compiled):
    """A release changed how random state is split over stacked layers, and networks scanned by hand broke. Here each
    layer has its own numbers, they change from call to call, and the outer stream goes on.
    """
    blocks = nn.Repeat(NoisyBlock, 3)
    x = jnp.ones((2, 4))
    f = either_way(blocks, compiled)
    assert np.any(f(x) != f(x))
    seen = stream()
    f(x)
    assert np.any(stream() != seen)
    probe = nn.Repeat(lambda: nn.Dropout(0.5), 2)
    survived = np.asarray(either_way(probe, compiled)(jnp.ones(400))) != 0
    assert 60 < survived.sum() < 140  # a quarter: the masks of the two layers are independent


@BOTH
def test_equinox_934_caches_in_layers_that_are_scanned(compiled):
    """Layers made by ``vmap`` and scanned over could not have state: it came back batched. Here each layer of a
    repeated block has buffers of its own, under its own name.
    """

    class Caching(nn.Module):
        def __init__(self):
            self.linear = nn.Linear(4, in_features=4)
            self.keys, self.index = bw.Buffer(jnp.zeros((3, 4))), bw.Buffer(jnp.zeros((), jnp.int32))

        def forward(self, x):
            new = jax.lax.dynamic_update_slice_in_dim(self.keys.value, x[None], self.index.value, axis=0)
            self.keys.value = new
            self.index += 1
            return jnp.tanh(self.linear(x)) + new.sum(0)

    net = nn.Repeat(Caching, 2)
    plain = nn.Sequential(Caching(), Caching())
    plain.load_state_dict(net.state_dict())
    f = either_way(net, compiled)
    for _ in range(2):
        x = data(4)
        close(f(x), plain(x), rtol=1e-4)
    close(dict(net.state_dict()), dict(plain.state_dict()), rtol=1e-4)
    assert int(net.state_dict()["1.index"]) == 2
    untraced(net)


@BOTH
@pytest.mark.parametrize("remat", [False, True], ids=["scan", "remat"])
def test_flax_4819_a_while_loop_around_scanned_layers(remat, compiled):
    """Decoding in a ``while_loop`` failed as soon as the network scanned its layers, or recomputed them. Here they
    nest.
    """
    net = nn.Repeat(lambda: NoisyBlock(0.0), 2, remat=remat)
    plain = nn.Sequential(*[NoisyBlock(0.0) for _ in range(2)])
    plain.load_state_dict(net.state_dict())
    x = data(2, 4)

    def decode(x):
        return bw.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, net(c[1])), (jnp.asarray(0), x))[1]

    expected = x
    for _ in range(3):
        expected = plain(expected)
    close(either_way(decode, compiled)(x), expected, rtol=1e-4)
    close(dict(net.state_dict()), dict(plain.state_dict()))
    assert int(net.state_dict()["0.calls"]) == 3


def test_flax_4871_a_loop_around_scanned_layers_needs_no_more_memory_with_more_turns():
    """Parameters that a scanned function closes over were copied for each turn of a loop around it, until memory
    was full. Here the memory of the program does not depend on the number of turns.
    """
    net = nn.Repeat(lambda: nn.Linear(16, in_features=16), 4)
    x = jnp.ones(16)
    peaks = []
    for turns in (2, 200):
        f = bw.compile(lambda x, n=turns: bw.fori_loop(0, n, lambda i, x: jnp.tanh(net(x)), x))
        f(x)
        peaks.append(f.stats().peak_memory)
    assert peaks[0] == peaks[1]
    assert peaks[0] < 3 * sum(p.value.nbytes for p in net.parameters())


@BOTH
def test_flax_4626_recomputed_dropout_has_the_same_mask(compiled):
    """Networks with dropout and recomputation gave junk: the second pass drew another mask than the first. Here
    gradients with and without recomputation are equal, and the stream advances by the masks of one pass.
    """
    net = nn.Sequential(MLP(), MLP())
    x = data(2, 4)
    results = []
    for f in (net, bw.remat(net)):
        bw.seed(3)
        gradient = either_way(bw.value_and_grad(lambda x, f=f: (f(x) ** 2).sum(), net), compiled)
        results.append(gradient(x))
        assert drawn() == 2
    close(dict(results[0][1]), dict(results[1][1]), rtol=1e-6, atol=1e-7)
    close(results[0][0], results[1][0], rtol=1e-6)


@BOTH
def test_olmo_core_828_recomputation_does_not_change_the_loss(compiled):
    """Training with recomputed activations ended at another loss than without, because the recomputed dropout masks
    were fresh ones. Here the two trainings are the same.
    """
    runs = []
    for wrap in (lambda block: block, bw.remat):
        bw.seed(1)
        net = MLP()
        block, opt = wrap(net), optim.sgd(net, 0.1)

        def step(x, net=net, block=block, opt=opt):
            loss, grads = bw.value_and_grad(lambda x: (block(x) ** 2).mean(), net)(x)
            opt.step(grads)
            return loss

        run = either_way(step, compiled)
        runs.append([float(run(jnp.ones((2, 4)))) for _ in range(4)])
    np.testing.assert_allclose(runs[0], runs[1], rtol=1e-5)


class RandomNoise(nn.Module):
    """Adds noise, or not, by a random decision."""

    def __init__(self, rate):
        self.rate = rate

    def forward(self, x):
        apply = jax.random.uniform(bw.random.key()) < self.rate
        return bw.cond(apply, lambda: x + jax.random.uniform(bw.random.key(), x.shape), lambda: x)


def test_keras_20724_random_numbers_in_a_branch():
    """A layer that draws a number in one branch of a ``cond`` leaked a tracer out of its seed generator. Here the
    branch draws only when it is taken, compiled as in eager.
    """
    net = RandomNoise(0.5)
    runs = []
    for f in (net, bw.compile(net)):
        bw.seed(0)
        runs.append(([np.asarray(f(jnp.ones(3))) for _ in range(6)], drawn()))
    np.testing.assert_allclose(runs[0][0], runs[1][0], rtol=1e-6)
    assert runs[0][1] == runs[1][1]
    changed = [bool(np.any(y != 1)) for y in runs[0][0]]
    assert any(changed)
    assert not all(changed)
    assert runs[0][1] == 6 + sum(changed)
    untraced(net)


def test_keras_18404_stochastic_depth_with_a_smaller_last_batch():
    """Training leaked a tracer at the end of the epoch, where the batch is smaller: the layer's random state was
    left over from the trace of the other size. Here each size is a program, and all draw from one stream.
    """

    class StochasticDepth(nn.Module):
        def __init__(self, inner, rate):
            self.inner, self.rate = inner, rate

        def forward(self, x):
            if not self.training:
                return x + self.inner(x)
            keep = jax.random.bernoulli(bw.random.key(), 1 - self.rate, (x.shape[0], 1))
            return x + jnp.where(keep, self.inner(x) / (1 - self.rate), 0.0)

    net = nn.Sequential(StochasticDepth(nn.Linear(3, in_features=3), 0.5), nn.Linear(1, in_features=3))
    opt = optim.sgd(net, 0.1)

    @bw.compile
    def step(x):
        loss, grads = bw.value_and_grad(lambda x: (net(x) ** 2).mean(), net)(x)
        opt.step(grads)
        return loss

    values = data(10, 3)
    for _ in range(2):
        for start in range(0, 10, 4):
            step(values[start : start + 4])
            untraced(net, opt)
    assert drawn() == 6
    assert step.stats().compilations == 2
