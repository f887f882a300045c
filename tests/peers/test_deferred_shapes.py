"""Threads on sizes that are inferred: what should work before the first forward pass, and what after."""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import losses, nn, optim
from brickwork.errors import DeferredShapeError, LoadError

from .checks import drawn, same_state, state, untraced

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def mlp(**sizes):
    return nn.Sequential(nn.Linear(5, **sizes), nn.Tanh(), nn.Linear(2))


def test_pytorch_44538_lazy_order_does_not_change_the_weights():
    """A lazy layer was drawn at the first forward pass, after the layers that are not, so that the same seed
    gave other weights. Here they depend on the order of construction alone.
    """
    bw.seed(3)
    deferred = mlp()
    bw.seed(3)
    explicit = mlp(in_features=4)
    bw.seed(3)
    by_spec = mlp().initialize(bw.spec(1, 4))
    bw.seed(3)
    touched_late = mlp()
    touched_late[2](X[:, :1].repeat(5, 1))  # the last layer first

    for net in (deferred, explicit, by_spec, touched_late):
        net(X)
        same_state(net, deferred, rtol=0, atol=0)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: net.clone(), lambda n: pickle.loads(pickle.dumps(n))])
def test_pytorch_65051_deepcopy_of_a_network_that_was_never_called(copied):
    """``copy.deepcopy`` of a lazy module raised until it was initialised. Here copies are lazy as well and then
    get the values that the original gets.
    """
    net = mlp()
    twin = copied(net)
    assert twin[0].weight.shape == (5, None)
    np.testing.assert_array_equal(twin(X), net(X))
    assert twin[0].weight is not net[0].weight


def test_pytorch_147389_printing_after_loading():
    """A lazy layer whose sizes came from a state dict went on printing ``in_features=0``, even after a call.
    Here the printed sizes are those of the parameters, wherever they came from.
    """
    source, target = nn.Linear(16), nn.Linear(16)
    assert repr(target) == "Linear(? → 16)"
    source(X)
    target.load_state_dict(source.state_dict())
    assert repr(target) == repr(source) == "Linear(4 → 16)"
    target(X)
    assert repr(target) == "Linear(4 → 16)"


@pytest.mark.parametrize(
    ("layer", "shape", "path", "expected"),
    [
        (lambda: nn.LayerNorm(), (2, 3, 4), "weight", (4,)),
        (lambda: nn.BatchNorm1d(), (3, 4), "running_mean", (4,)),
        (lambda: nn.BatchNorm2d(), (2, 4, 3, 3), "running_var", (4,)),
        (lambda: nn.Conv2d(2, 3), (2, 4, 5, 5), "weight", (2, 4, 3, 3)),
        (lambda: nn.Linear(2), (3, 4), "weight", (2, 4)),
    ],
    ids=["LayerNorm", "BatchNorm1d", "BatchNorm2d", "Conv2d", "Linear"],
)
def test_pytorch_158832_every_layer_infers_not_thirteen_of_them(layer, shape, path, expected):
    """Only some layers had a lazy twin; ``LazyLayerNorm`` was declined. Here every layer infers what its input
    determines, by data or by a spec.
    """
    by_data, by_spec = layer(), layer()
    by_data(jnp.ones(shape))
    by_spec.initialize(bw.spec(*shape))
    for net in (by_data, by_spec):
        assert dict(net.named_variables())[path].shape == expected


def test_mlx_513_parameters_before_the_first_forward_pass():
    """Lazy layers were refused, because ``parameters()`` would have nothing to return before a forward pass.
    Here the parameters exist from the start, with the sizes that are not known yet left open, so that an
    optimiser can be made, and frozen or tied parameters chosen, before any data.
    """
    net = mlp()
    assert {name: p.shape for name, p in net.named_parameters()} == {
        "0.weight": (5, None),
        "0.bias": (5,),
        "2.weight": (2, None),
        "2.bias": (2,),
    }
    opt = optim.adam(net, 1e-2)
    net.freeze("0.bias")
    before = net[0].bias
    loss = bw.backward(lambda x: (net(x) ** 2).mean(), net)(X)
    opt.step()
    assert np.isfinite(loss)
    assert net[0].bias is before
    assert net[0].weight.shape == (5, 4)


class WithUnused(nn.Module):
    """A layer that ``forward`` never calls."""

    def __init__(self):
        self.used = nn.Linear(3)
        self.unused = nn.Linear(3)

    def forward(self, x):
        return self.used(x)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_mxnet_9226_the_error_names_the_layer_that_never_ran(compiled):
    """``trainer.step`` failed after a successful forward pass, because some layer had taken no part in it; people
    searched for hours. Here the error names the parameter and says how to give its size.
    """
    net = WithUnused()
    opt = optim.sgd(net, 0.1)

    def step(x):
        loss, grads = bw.value_and_grad(lambda x: net(x).sum(), net)(x)
        opt.step(grads)
        return loss

    with pytest.raises(DeferredShapeError, match=r"unused\.weight.*\(3, \?\).*when constructing the layer"):
        (bw.compile(step) if compiled else step)(X)
    net.freeze("unused.*")  # one way out
    assert np.isfinite((bw.compile(step) if compiled else step)(X))


def test_mxnet_8419_the_first_step_of_training_initialises():
    """The first ``trainer.step`` of a U-Net raised ``DeferredInitializationError``: a block built from blocks had
    not been reached. Here blocks within lists of blocks are reached, in the first compiled step already.
    """

    class Block(nn.Module):
        def __init__(self, width):
            self.convs = [nn.Conv2d(width, 3, padding=1) for _ in range(2)]

        def forward(self, x):
            for conv in self.convs:
                x = jax.nn.relu(conv(x))
            return x

    class UNet(nn.Module):
        def __init__(self):
            self.down, self.up = [Block(2), Block(3)], {"a": Block(2), "b": nn.Conv2d(1, 1)}

        def forward(self, x):
            kept = []
            for block in self.down:
                x = block(x)
                kept.append(x)
            x = self.up["a"](jnp.concatenate(kept, axis=1))
            return self.up["b"](x)

    net = UNet()
    opt = optim.sgd(net, 0.1)

    @bw.compile
    def step(x, y):
        loss, grads = bw.value_and_grad(lambda x, y: losses.mse(net(x), y), net)(x, y)
        opt.step(grads)
        return loss

    x = jnp.ones((1, 1, 6, 6))
    assert float(step(x, x)) > float(step(x, x))
    assert step.stats().compilations == 1
    assert net.up["a"].convs[0].weight.shape == (2, 5, 3, 3)


def test_byteps_44_state_before_the_first_call():
    """A tool that broadcasts parameters met uninitialised ones, caught the error and met it again. Here the
    state of such a network is one clear error, and a spec is all it takes to have it.
    """
    net = mlp()
    with pytest.raises(DeferredShapeError, match=r"'0\.weight' has shape \(5, \?\).*net\.initialize\(bw\.spec"):
        net.state_dict()
    net.initialize(bw.spec(1, 4))
    assert [v.shape for v in net.state_dict().values()] == [(5, 4), (5,), (2, 5), (2,)]


def test_mxnet_15470_a_constant_and_a_branch_on_the_mode_in_a_deferred_network():
    """A hybridised block with a constant and a branch on the training mode could not initialise its layers.
    Here the first compiled call does, in either mode.
    """

    class Generator(nn.Module):
        def __init__(self):
            self.body = nn.Sequential(nn.Conv2d(3, 3, padding=1), nn.BatchNorm2d())
            self.anchors = bw.Buffer(jnp.arange(9.0).reshape(3, 3))

        def forward(self, x):
            if self.training:
                return self.body(x)
            return self.body(x) + self.anchors

    x = jnp.ones((1, 3, 3, 3))
    for mode in (True, False):
        bw.seed(0)
        net = Generator().train(mode)
        bw.seed(0)
        twin = Generator().train(mode)
        np.testing.assert_allclose(bw.compile(net)(x), twin(x), rtol=1e-5, atol=1e-6)
        same_state(net, twin)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_mxnet_21146_arguments_by_keyword(compiled):
    """A recurrent layer could not infer its sizes when a second argument, the sequence lengths, was given by
    keyword. Here ``build`` gets the arguments as ``forward`` does.
    """

    class Masked(nn.Module):
        def __init__(self, width):
            self.weight = bw.Parameter(shape=(width, None))

        def build(self, x, lengths=None):
            self.weight.shape = (None, x.shape[-1])

        def forward(self, x, lengths=None):
            y = x @ self.weight.T
            if lengths is not None:
                y = jnp.where(jnp.arange(x.shape[1])[None, :, None] < lengths[:, None, None], y, 0.0)
            return y

    net = Masked(2)
    y = (bw.compile(net) if compiled else net)(jnp.ones((2, 3, 4)), lengths=jnp.array([1, 2]))
    assert net.weight.shape == (2, 4)
    assert np.count_nonzero(y[..., 0], axis=1).tolist() == [1, 2]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_mxnet_16182_layers_inside_a_branch(compiled):
    """``contrib.cond`` could not infer the shapes of blocks in its branches. Here both branches' layers have
    their sizes after the first call, whichever branch was taken.
    """

    class Routed(nn.Module):
        def __init__(self):
            self.small, self.large = nn.Linear(2), nn.Linear(2)

        def forward(self, x):
            return bw.cond(jnp.abs(x).sum() > 10, self.large, self.small, x)

    net = Routed()
    f = bw.compile(net) if compiled else net
    small, large = f(0.01 * X), f(10 * X)
    assert net.small.weight.shape == net.large.weight.shape == (2, 4)
    np.testing.assert_allclose(small, net.small(0.01 * X), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(large, net.large(10 * X), rtol=1e-5, atol=1e-5)
    untraced(net)


class Stack(nn.Module):
    def __init__(self, depth):
        self.dense = [nn.Linear(4) for _ in range(depth)]
        self.norms = [nn.LayerNorm() for _ in range(depth)]

    def forward(self, x):
        for dense, norm in zip(self.dense, self.norms, strict=True):
            x = norm(dense(x))
        return x


def test_keras_18823_loading_into_layers_that_were_never_built(tmp_path):
    """Reloading failed with "layer was never built", because layers in lists of a nested model get their weights
    at the first call only. Here a file fills the sizes of a network that was never called.
    """
    net = nn.Sequential(Stack(2), nn.Linear(2))
    net(X)
    net.save(tmp_path / "net.safetensors")
    fresh = nn.Sequential(Stack(2), nn.Linear(2))
    report = fresh.load(tmp_path / "net.safetensors")
    assert not report.missing
    assert not report.unexpected
    np.testing.assert_array_equal(fresh(X), net(X))


class Late(nn.Module):
    """Makes its layers when it sees the input."""

    def __init__(self, width):
        self.width = width

    def build(self, x):
        self.hidden = nn.Linear(self.width, in_features=x.shape[-1])

    def forward(self, x):
        return self.hidden(x)


def test_keras_core_334_layers_made_in_build(tmp_path):
    """A model that makes its layers in ``build`` could be saved and not loaded: an ``IndexError``. Here the error
    says that the file has more than the network, and after a spec it loads.
    """
    net = Late(3)
    net(X)
    net.save(tmp_path / "late.safetensors")
    fresh = Late(3)
    with pytest.raises(LoadError, match=r"(?s)unexpected.*hidden\.weight\s+hidden\.bias"):
        fresh.load(tmp_path / "late.safetensors")
    fresh.initialize(bw.spec(1, 4))
    fresh.load(tmp_path / "late.safetensors")
    np.testing.assert_array_equal(fresh(X), net(X))


def test_torch_nn_863_a_dummy_pass_leaves_no_trace():
    """A pass with dummy data, made to learn the sizes, moved the statistics of batch normalisation. Here the dry
    run of ``initialize`` and ``summary`` changes no value, no mode and no random number.
    """
    net = nn.Sequential(nn.Linear(4), nn.BatchNorm1d(), nn.Dropout(0.5))
    net.initialize(bw.spec(8, 3))
    str(net.summary(bw.spec(8, 3)))
    assert drawn() == 0
    assert net.training
    values = state(net)
    assert not values["1.running_mean"].any()
    assert (values["1.running_var"] == 1).all()
    assert values["1.num_batches_tracked"] == 0


def test_equinox_605_networks_made_long_before_the_sizes_are_known():
    """A code base makes its MLPs while it builds a graph, when the features of the data are not known; with sizes
    by hand it had to be turned inside out. Here the same networks run on features of any number.
    """

    class Graph(nn.Module):
        def __init__(self):
            self.edge, self.node = mlp(), mlp()

        def forward(self, nodes, senders, receivers):
            edges = self.edge(jnp.concatenate([nodes[senders], nodes[receivers]], axis=-1))
            received = jnp.zeros((len(nodes), edges.shape[-1])).at[receivers].add(edges)
            return self.node(jnp.concatenate([nodes, received], axis=-1))

    senders, receivers = np.array([0, 1, 2]), np.array([1, 2, 0])
    for features in (3, 7):
        net = Graph()
        assert bw.compile(net)(jnp.ones((4, features)), senders, receivers).shape == (4, 2)
        assert net.edge[0].weight.shape == (5, 2 * features)
        assert net.node[0].weight.shape == (5, features + 2)


def test_equinox_949_a_linear_layer_after_convolutions_and_batchnorm():
    """Inferring the size of the layer after a stack of convolutions took a run on dummy data under ``vmap`` with
    state and keys. Here it is the plain network and a spec; no value is drawn for it.
    """
    net = nn.Sequential(
        nn.Conv2d(4, 3, stride=2),
        nn.BatchNorm2d(),
        nn.MaxPool2d(2, padding=1),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(3),
    )
    net.initialize(bw.spec(1, 2, 17, 13))
    assert net[5].weight.shape == (3, 4 * 5 * 4)
    assert not any(p.is_drawn for p in net.parameters())
    assert net(jnp.ones((2, 2, 17, 13))).shape == (2, 3)


@pytest.mark.parametrize("size", [9, 10, 11])
def test_pytorch_17448_sizes_after_strides_and_padding(size):
    """The features after strides and padding had to be worked out by hand, from the formula of each layer. Here
    nothing is worked out, and what is inferred is what the layers give.
    """
    net = nn.Sequential(nn.Conv2d(2, 3, stride=2, padding=1), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(1))
    features = net[:3](jnp.ones((1, 1, size, size))).shape[1]
    assert net.initialize(bw.spec(1, 1, size, size))[3].weight.shape == (1, features)
