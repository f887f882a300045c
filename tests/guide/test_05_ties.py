"""Guide, part 5: tied parameters."""

from __future__ import annotations

import copy
import gc
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn, optim

X = np.asarray(jax.random.uniform(jax.random.key(0), (2, 4)))


def shared_net():
    shared = nn.Linear(8)
    return nn.Sequential(nn.Linear(8), nn.ReLU(), shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(1))


class Autoencoder(nn.Module):
    """A decoder whose weight is the encoder's, and a bias of its own."""

    def __init__(self):
        self.encoder = nn.Linear(4, in_features=4)
        self.decoder = nn.Linear(4, in_features=4)
        self.decoder.weight = self.encoder.weight

    def forward(self, x):
        return self.decoder(jnp.tanh(self.encoder(x)))


def is_tied(net):
    return net[2] is net[4] and net[2].weight is net[4].weight


def test_equal_and_the_same_object():
    net = shared_net()
    net(X)
    np.testing.assert_array_equal(net[2].weight[0], net[4].weight[0])
    net[2].weight[0, 0] = 100
    assert net[4].weight[0, 0] == 100
    np.testing.assert_array_equal(net[2].weight[0], net[4].weight[0])
    assert is_tied(net)


def test_counted_once():
    net = shared_net()
    net(X)
    names = [name for name, _ in net.named_parameters()]
    assert names == ["0.weight", "0.bias", "2.weight", "2.bias", "6.weight", "6.bias"]
    assert list(net.state_dict()) == names
    assert net.get_parameter("4.weight") is net[2].weight
    assert net[4].weight.name == "2.weight"
    assert net.summary().parameters == 8 * 4 + 8 + 8 * 8 + 8 + 8 + 1


def test_printed_once():
    text = str(shared_net())
    assert text.splitlines()[3] == "  (2): Linear(? → 8)"
    assert text.splitlines()[5] == "  (4): Linear(? → 8)  (shared)"


def test_gradients_add():
    net = shared_net()
    net(X)
    apart = copy.deepcopy(net)
    apart[4] = copy.deepcopy(apart[2])
    assert apart[4].weight is not apart[2].weight
    loss, tied = bw.value_and_grad(lambda x: (net(x) ** 2).sum(), net)(X)
    same, separate = bw.value_and_grad(lambda x: (apart(x) ** 2).sum(), apart)(X)
    np.testing.assert_allclose(loss, same, rtol=1e-6)
    for kind in ("weight", "bias"):
        total = separate[f"2.{kind}"] + separate[f"4.{kind}"]
        np.testing.assert_allclose(tied[f"2.{kind}"], total, rtol=1e-5, atol=1e-7)
        assert np.any(np.asarray(separate[f"4.{kind}"]) != 0)
        assert f"4.{kind}" not in tied
    for name in ("0.weight", "6.bias"):
        np.testing.assert_allclose(tied[name], separate[name], rtol=1e-5, atol=1e-7)


def test_gradients_add_with_backward():
    net = Autoencoder()
    bw.backward(lambda x: (net(x) ** 2).sum(), net)(X)
    assert net.decoder.weight.grad is net.encoder.weight.grad

    def pure(w_in, w_out):
        h = jnp.tanh(X @ w_in.T + net.encoder.bias.value)
        return ((h @ w_out.T + net.decoder.bias.value) ** 2).sum()

    w = net.encoder.weight.value
    first, second = jax.grad(pure, argnums=(0, 1))(w, w)
    np.testing.assert_allclose(net.encoder.weight.grad, first + second, rtol=1e-5, atol=1e-7)


def test_one_entry_in_the_optimiser():
    net = Autoencoder()
    opt = optim.adam(net, 0.1)
    assert list(opt.targets()) == ["encoder.weight", "encoder.bias", "decoder.bias"]
    mu = [name for name in opt.state_dict() if ".mu." in f".{name}"]
    assert len(mu) == 3
    assert not any("decoder.weight" in name for name in opt.state_dict())


def test_one_update_per_step():
    net = Autoencoder()
    before = np.asarray(net.encoder.weight)
    opt = optim.sgd(net, 0.5)
    _, grads = bw.value_and_grad(lambda x: (net(x) ** 2).sum(), net)(X)
    opt.step(grads)
    np.testing.assert_allclose(
        net.encoder.weight, before - 0.5 * np.asarray(grads["encoder.weight"]), rtol=1e-6, atol=1e-7
    )
    assert net.decoder.weight is net.encoder.weight


def test_one_entry_in_the_file(tmp_path):
    from safetensors import safe_open

    net = shared_net()
    net(X)
    path = tmp_path / "tied.safetensors"
    net.save(path)
    with safe_open(path, "np") as file:
        assert set(file.keys()) == {
            "0.weight", "0.bias", "2.weight", "2.bias", "6.weight", "6.bias",
        }  # fmt: skip


@pytest.mark.parametrize(
    "duplicate",
    [
        lambda net: net.clone(),
        copy.deepcopy,
        lambda net: pickle.loads(pickle.dumps(net)),
        lambda net: jax.tree.map(lambda v: v, net),
    ],
    ids=["clone", "deepcopy", "pickle", "tree.map"],
)
def test_still_tied_in_a_copy(duplicate):
    net = shared_net()
    Y = net(X)
    other = duplicate(net)
    assert is_tied(other)
    assert other[2].weight is not net[2].weight
    np.testing.assert_array_equal(other(X), Y)
    other[2].weight[0, 0] = 100
    assert other[4].weight[0, 0] == 100
    assert net[2].weight[0, 0] != 100


def test_tied_weights_of_two_layers_survive_too(tmp_path):
    net = Autoencoder()
    Y = net(X)
    net.save(tmp_path / "a.safetensors")
    loaded = Autoencoder()
    loaded.load(tmp_path / "a.safetensors")
    for other in (net.clone(), pickle.loads(pickle.dumps(net)), loaded):
        assert other.decoder.weight is other.encoder.weight
        assert other.decoder.bias is not other.encoder.bias
        np.testing.assert_array_equal(other(X), Y)


def test_still_tied_after_save_and_load(tmp_path):
    net = shared_net()
    Y = net(X)
    net.save(tmp_path / "tied.safetensors")
    other = shared_net()
    other.load(tmp_path / "tied.safetensors")
    assert is_tied(other)
    np.testing.assert_array_equal(other(X), Y)


def test_a_file_of_a_tied_network_into_an_untied_one(tmp_path):
    """Its second name is in the file's alias table; a network with two separate layers needs both."""
    net = shared_net()
    Y = net(X)
    net.save(tmp_path / "tied.safetensors")
    untied = shared_net()
    untied[4] = nn.Linear(8)
    untied.load(tmp_path / "tied.safetensors")
    assert untied[4] is not untied[2]
    np.testing.assert_array_equal(untied[4].weight, untied[2].weight)
    np.testing.assert_array_equal(untied(X), Y)


def test_a_tie_before_shapes_are_known():
    class Late(nn.Module):
        def __init__(self):
            self.a = nn.Linear(4)
            self.b = nn.Linear(4)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    net = Late()
    twin = net.clone()
    assert twin.a.weight is twin.b.weight
    np.testing.assert_array_equal(net(X), twin(X))
    assert net.a.weight is net.b.weight
    assert len(net.parameters()) == 3


def test_trained_together_when_compiled():
    net = shared_net()
    net(X)
    opt = optim.sgd(net, 0.01)

    @bw.compile
    def step(x):
        loss, grads = bw.value_and_grad(lambda: (net(x) ** 2).sum(), net)()
        opt.step(grads)
        return loss

    before = np.asarray(net[2].weight)
    step(X)
    step(X)
    assert not np.array_equal(net[2].weight, before)
    assert is_tied(net)
    assert step.stats().compilations == 1


def test_untying():
    net = Autoencoder()
    compiled = bw.compile(net)
    compiled(X)
    net.decoder.weight = bw.Parameter(jnp.zeros((4, 4)))
    assert len(net.parameters()) == 4
    np.testing.assert_allclose(compiled(X), np.broadcast_to(net.decoder.bias, (2, 4)), rtol=1e-6)


def test_a_tied_weight_has_a_name_after_its_first_owner_is_gone():
    net = Autoencoder()
    net.encoder = nn.Linear(4)
    gc.collect()
    assert net.decoder.weight.name == "decoder.weight"
    assert [name for name, _ in net.named_parameters(".*weight")] == [
        "encoder.weight",
        "decoder.weight",
    ]
