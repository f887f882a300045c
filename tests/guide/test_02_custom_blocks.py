"""Guide, part 2: control flow, constants, and blocks of blocks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn, optim


class FixedHiddenMLP(nn.Module):
    def __init__(self):
        self.rand_weight = bw.Buffer(jax.random.uniform(jax.random.key(1), (20, 20)))
        self.dense = nn.Linear(20)

    def forward(self, X):
        X = self.dense(X)
        X = jax.nn.relu(X @ self.rand_weight + 1)
        X = self.dense(X)  # the same layer, with the same parameters
        while jnp.abs(X).sum() > 1:
            X = X / 2
        return X.sum()


class FancyMLP(FixedHiddenMLP):
    def forward(self, X):
        X = self.dense(X)
        X = jax.nn.relu(X @ self.rand_weight + 1)
        X = self.dense(X)
        while jnp.abs(X).sum() > 1:
            X = X / 2
        if jnp.abs(X).sum() < 0.8:
            X *= 10
        return X.sum()


class NestMLP(nn.Module):
    def __init__(self):
        self.net = nn.Sequential(nn.Linear(64), nn.ReLU(), nn.Linear(32), nn.ReLU())
        self.linear = nn.Linear(16)

    def forward(self, X):
        return self.linear(self.net(X))


class Parallel(nn.Module):
    """Two networks side by side, their outputs concatenated."""

    def __init__(self, net1, net2):
        self.net1 = net1
        self.net2 = net2

    def forward(self, X):
        return jnp.concatenate([self.net1(X), self.net2(X)], axis=-1)


def block(width=4):
    return nn.Sequential(nn.Linear(8), nn.ReLU(), nn.Linear(width), nn.ReLU())


def blocks(n):
    return nn.Sequential(*[block() for _ in range(n)])


X = np.asarray(jax.random.uniform(jax.random.key(0), (2, 20)))


def expected(net, x, boost):
    """The two networks with control flow, in NumPy."""
    w, b, c = (np.asarray(v, np.float64) for v in (net.dense.weight, net.dense.bias, net.rand_weight))
    x = np.asarray(x, np.float64) @ w.T + b
    x = np.maximum(x @ c + 1, 0)
    x = x @ w.T + b
    while np.abs(x).sum() > 1:
        x = x / 2
    if boost and np.abs(x).sum() < 0.8:
        x = x * 10
    return x.sum()


def test_fixed_hidden_mlp():
    net = FixedHiddenMLP()
    y = net(jnp.asarray(X))
    assert y.shape == ()
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, expected(net, X, boost=False), rtol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_fancy_mlp(seed):
    bw.seed(seed)
    net = FancyMLP()
    y = net(jnp.asarray(X))
    assert y.shape == ()
    np.testing.assert_allclose(y, expected(net, X, boost=True), rtol=1e-4)


def test_the_constant_weight_is_not_trained():
    net = FixedHiddenMLP()
    constant = np.asarray(net.rand_weight)
    assert [name for name, _ in net.named_parameters()] == ["dense.weight", "dense.bias"]
    assert [name for name, _ in net.named_buffers()] == ["rand_weight"]
    opt = optim.sgd(net, 0.1)
    net(jnp.asarray(X))
    _, grads = bw.value_and_grad(net, net)(jnp.asarray(X))
    assert set(grads) == {"dense.weight", "dense.bias"}
    before = np.asarray(net.dense.weight)
    opt.step(grads)
    assert not np.array_equal(net.dense.weight, before)
    np.testing.assert_array_equal(net.rand_weight, constant)


def test_the_constant_weight_is_saved_and_loaded(tmp_path):
    net = FixedHiddenMLP()
    y = net(jnp.asarray(X))
    net.save(tmp_path / "fixed.safetensors")
    other = FixedHiddenMLP()
    other.rand_weight.value = jnp.zeros((20, 20))
    other.load(tmp_path / "fixed.safetensors")
    np.testing.assert_array_equal(other.rand_weight, net.rand_weight)
    np.testing.assert_array_equal(other(jnp.asarray(X)), y)


def test_a_frozen_parameter_does_as_a_constant_too():
    class Fixed(nn.Module):
        def __init__(self):
            self.weight = bw.Parameter(shape=(20, 20), init=bw.init.uniform(), trainable=False)

        def forward(self, x):
            return x @ self.weight

    net = nn.Sequential(Fixed(), nn.Linear(1))
    before = np.asarray(net[0].weight)
    _, grads = bw.value_and_grad(lambda x: net(x).sum(), net)(jnp.asarray(X))
    assert set(grads) == {"1.weight", "1.bias"}
    optim.sgd(net, 0.1).step(grads)
    np.testing.assert_array_equal(net[0].weight, before)


def test_a_plain_array_is_a_constant_as_well():
    class Plain(nn.Module):
        def __init__(self):
            self.weight = jnp.eye(20) * 2

        def forward(self, x):
            return x @ self.weight

    net = Plain()
    np.testing.assert_array_equal(net(X), X * 2)
    np.testing.assert_array_equal(bw.compile(net)(X), X * 2)
    assert net.parameters() == []


def test_gradients_pass_through_the_loop():
    net = FixedHiddenMLP()
    x = jnp.asarray(X)
    net(x)
    _, grads = bw.value_and_grad(net, net)(x)
    total, halvings = jnp.abs(np.asarray(_raw(net, X))).sum(), 0
    while total > 1:
        total, halvings = total / 2, halvings + 1
    # every output contributes 2**-halvings to the sum, and the second use of the bias adds directly
    w = np.asarray(net.dense.weight, np.float64)
    h = np.asarray(X @ w.T + np.asarray(net.dense.bias))
    active = (h @ np.asarray(net.rand_weight) + 1) > 0
    upper = np.full((2, 20), 2.0**-halvings)
    second = upper.sum(0)
    first = (((upper @ w) * active) @ np.asarray(net.rand_weight).T).sum(0)
    np.testing.assert_allclose(grads["dense.bias"], first + second, rtol=1e-3)


def _raw(net, x):
    w, b, c = (np.asarray(v) for v in (net.dense.weight, net.dense.bias, net.rand_weight))
    return np.maximum((x @ w.T + b) @ c + 1, 0) @ w.T + b


def test_gradients_before_any_forward():
    """The first thing done with the network is to differentiate it."""
    net = FancyMLP()
    twin = net.clone()
    twin(jnp.asarray(X))
    y, grads = bw.value_and_grad(net, net)(jnp.asarray(X))
    expected_y, expected_grads = bw.value_and_grad(twin, twin)(jnp.asarray(X))
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(grads["dense.weight"], expected_grads["dense.weight"])


def test_compiled_branches_can_be_refused():
    """With ``control_flow="error"`` the message has the file and line of the branch."""
    net = FixedHiddenMLP()
    net(jnp.asarray(X))
    compiled = bw.compile(net, control_flow="error")
    with pytest.raises(bw.errors.ControlFlowError) as info:
        compiled(jnp.asarray(X))
    line = FixedHiddenMLP.forward.__code__.co_firstlineno + 4
    assert f"{__file__}:{line}: `while jnp.abs(X).sum() > 1:`" in str(info.value)
    assert net(jnp.asarray(X)).shape == ()


@pytest.mark.parametrize("kind", [FixedHiddenMLP, FancyMLP])
def test_compiled_control_flow(kind):
    """The compiled network takes the turns and the branch that its input asks for, and trains as the eager one."""
    net = kind()
    run = bw.compile(net)
    scales = [1.0, 0.1, 4.0, 1.0]
    for scale in scales * 2:
        np.testing.assert_allclose(run(X * scale), expected(net, X * scale, kind is FancyMLP), rtol=1e-4)
    assert run.stats().compilations <= len(set(scales))
    assert run.stats().calls == 2 * len(scales)

    twin = net.clone()
    opt, twin_opt = optim.sgd(net, 0.01), optim.sgd(twin, 0.01)

    @bw.compile
    def step(x):
        loss, grads = bw.value_and_grad(net, net)(x)
        opt.step(grads)
        return loss

    for scale in scales:
        x = jnp.asarray(X * scale)
        loss, grads = bw.value_and_grad(twin, twin)(x)
        twin_opt.step(grads)
        np.testing.assert_allclose(step(x), loss, rtol=1e-4)
    for name, value in twin.state_dict().items():
        np.testing.assert_allclose(net.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_nest_mlp():
    net = NestMLP()
    Y = net(jnp.asarray(X))
    assert Y.shape == (2, 16)
    h = jnp.asarray(X)
    for layer in net.net:
        h = layer(h)
    np.testing.assert_array_equal(net.linear(h), Y)
    assert [name for name, _ in net.named_parameters()] == [
        "net.0.weight",
        "net.0.bias",
        "net.2.weight",
        "net.2.bias",
        "linear.weight",
        "linear.bias",
    ]


def test_chimera():
    chimera = nn.Sequential(NestMLP(), nn.Linear(20), FixedHiddenMLP())
    y = chimera(jnp.asarray(X))
    assert y.shape == ()
    h = chimera[1](chimera[0](jnp.asarray(X)))
    np.testing.assert_allclose(y, expected(chimera[2], h, boost=False), rtol=1e-4)
    names = [name for name, _ in chimera.named_parameters()]
    assert names == [
        "0.net.0.weight",
        "0.net.0.bias",
        "0.net.2.weight",
        "0.net.2.bias",
        "0.linear.weight",
        "0.linear.bias",
        "1.weight",
        "1.bias",
        "2.dense.weight",
        "2.dense.bias",
    ]
    assert str(chimera) == (
        "Sequential(\n"
        "  (0): NestMLP(\n"
        "    (net): Sequential(\n"
        "      (0): Linear(20 → 64)\n"
        "      (1): ReLU()\n"
        "      (2): Linear(64 → 32)\n"
        "      (3): ReLU()\n"
        "    )\n"
        "    (linear): Linear(32 → 16)\n"
        "  )\n"
        "  (1): Linear(16 → 20)\n"
        "  (2): FixedHiddenMLP(\n"
        "    (rand_weight): Buffer(20, 20)\n"
        "    (dense): Linear(20 → 20)\n"
        "  )\n"
        ")"
    )


def test_chimera_is_differentiated_in_all_parts():
    chimera = nn.Sequential(NestMLP(), nn.Linear(20), FixedHiddenMLP())
    chimera(jnp.asarray(X))
    _, grads = bw.value_and_grad(lambda x: chimera(x), chimera)(jnp.asarray(X))
    assert list(grads) == [name for name, _ in chimera.named_parameters()]
    for name, g in grads.items():
        assert np.isfinite(g).all(), name
        assert np.any(np.asarray(g) != 0), name


def test_parallel_block():
    net = Parallel(nn.Sequential(nn.Linear(8), nn.ReLU()), nn.Linear(3))
    Y = net(jnp.asarray(X))
    assert Y.shape == (2, 11)
    np.testing.assert_array_equal(Y[:, :8], net.net1(X))
    np.testing.assert_array_equal(Y[:, 8:], net.net2(X))
    np.testing.assert_allclose(bw.compile(net)(X), Y, rtol=1e-5, atol=1e-6)


def test_parallel_with_itself_shares():
    one = nn.Linear(3)
    net = Parallel(one, one)
    Y = net(jnp.asarray(X))
    np.testing.assert_array_equal(Y[:, :3], Y[:, 3:])
    assert len(net.parameters()) == 2


def test_a_factory_of_blocks():
    net = blocks(3)
    net(jnp.asarray(X))
    assert len(net) == 3
    # every block has parameters of its own
    assert len(net.parameters()) == 12
    assert len({id(p) for p in net.parameters()}) == 12
    assert not np.array_equal(net[1][0].weight, net[2][0].weight)
    assert net[0][0].weight.shape == (8, 20)
    assert net[1][0].weight.shape == (8, 4)


def test_a_block_of_blocks():
    rgnet = nn.Sequential(nn.Sequential(block(), block(), block()), nn.Linear(1))
    Y = rgnet(jnp.asarray(X))
    assert Y.shape == (2, 1)
    bias = rgnet[0][1][0].bias
    assert isinstance(bias, bw.Parameter)
    assert bias.name == "0.1.0.bias"
    assert bias.shape == (8,)
    assert rgnet.get_parameter("0.1.0.bias") is bias
    bias.value = jnp.full(8, 100.0)
    np.testing.assert_array_equal(rgnet[0][1][0].bias, np.full(8, 100.0))
    assert not np.array_equal(rgnet(jnp.asarray(X)), Y)


def test_indexing_as_the_guide_writes_it():
    net = nn.Sequential(blocks(2), nn.Linear(1))
    net(jnp.asarray(X))
    print(net[0][1][0].bias)
    values = net[0][1][0].bias.value
    assert values.shape == (8,)
    np.testing.assert_array_equal(values, net.state_dict()["0.1.0.bias"])
