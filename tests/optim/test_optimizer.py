"""Optimisers against optax on plain arrays, and their state."""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import brickwork as bw
from brickwork import nn, optim
from brickwork.errors import DeferredShapeError


class Linear(bw.Module):
    def __init__(self, out, *, in_features=None):
        self.weight = bw.Parameter(shape=(out, in_features))
        self.bias = bw.Parameter(shape=(out,))

    def build(self, x):
        self.weight.shape = (None, x.shape[-1])

    def forward(self, x):
        return x @ self.weight.T + self.bias


class Net(bw.Module):
    def __init__(self):
        self.a = Linear(4, in_features=3)
        self.b = Linear(1, in_features=4)

    def forward(self, x):
        return self.b(jnp.tanh(self.a(x)))


X = jnp.linspace(-1, 1, 6).reshape(2, 3)


def loss(net):
    return lambda: ((net(X) - 1) ** 2).mean()


def train(net, opt, n=4, compiled=False):
    def step():
        value, grads = bw.value_and_grad(loss(net), net)()
        opt.step(grads)
        return value

    step = bw.compile(step) if compiled else step
    return [float(step()) for _ in range(n)]


def by_hand(net, tx, n=4):
    pure, values = bw.functional(net)

    def f(p):
        return ((pure(p, X)[0] - 1) ** 2).mean()

    with jax.numpy_dtype_promotion("standard"):
        state = tx.init(values)
        for _ in range(n):
            updates, state = tx.update(jax.grad(f)(values), state, values)
            values = optax.apply_updates(values, updates)
    return values


CASES = {
    "sgd": (lambda n: optim.sgd(n, 0.1), optax.sgd(0.1)),
    "momentum": (lambda n: optim.sgd(n, 0.1, momentum=0.9), optax.sgd(0.1, momentum=0.9)),
    "nesterov": (lambda n: optim.sgd(n, 0.1, momentum=0.9, nesterov=True), optax.sgd(0.1, 0.9, True)),
    "decay": (
        lambda n: optim.sgd(n, 0.1, weight_decay=0.1),
        optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1)),
    ),
    "adam": (lambda n: optim.adam(n, 0.05, b1=0.8), optax.adam(0.05, b1=0.8)),
    "adamw": (lambda n: optim.adamw(n, 0.05, weight_decay=0.2), optax.adamw(0.05, weight_decay=0.2)),
    "schedule": (
        lambda n: optim.adam(n, optax.linear_schedule(0.1, 0.0, 4)),
        optax.adam(optax.linear_schedule(0.1, 0.0, 4)),
    ),
    "own": (lambda n: optim.Optimizer(n, optax.lion(0.01)), optax.lion(0.01)),
    "groups": (
        lambda n: optim.sgd(n, 0.1, groups={r".*bias": {"learning_rate": 0.0}, r"b\..*": {"momentum": 0.5}}),
        optax.partition(
            {"w": optax.sgd(0.1), "0": optax.sgd(0.0), "m": optax.sgd(0.1, 0.5)},
            {"a.weight": "w", "a.bias": "0", "b.weight": "m", "b.bias": "0"},
        ),
    ),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_against_optax(name, compiled):
    make, tx = CASES[name]
    net = Net()
    want = by_hand(net, tx)
    train(net, make(net), compiled=compiled)
    for k, v in net.state_dict().items():
        np.testing.assert_allclose(v, want[k], rtol=1e-4, atol=1e-6)


def test_learning_rate_without_recompilation():
    net = Net()
    opt = optim.adam(net, 0.1)

    @bw.compile
    def step():
        _, grads = bw.value_and_grad(loss(net), net)()
        opt.step(grads)

    step()
    opt.learning_rate = 0.0
    before = {k: np.array(v) for k, v in net.state_dict().items()}
    step()
    assert step.stats().compilations == 1 and float(opt.learning_rate) == 0
    for k, v in net.state_dict().items():
        np.testing.assert_array_equal(v, before[k])
    opt.learning_rate = 1.0
    step()
    assert not np.array_equal(net.a.weight, before["a.weight"])


def test_learning_rate_before_shapes_are_known():
    net = Linear(2)
    opt = optim.sgd(net, 0.1)
    assert float(opt.learning_rate) == pytest.approx(0.1)
    opt.learning_rate = 0.01
    _, grads = bw.value_and_grad(lambda: net(X).sum(), net)()
    opt.step(grads)
    np.testing.assert_allclose(net.bias, -0.02, rtol=1e-5)


def test_assigning_the_learning_rate_of_a_schedule_is_not_ignored():
    net = Net()
    opt = optim.sgd(net, optax.constant_schedule(0.1))
    try:
        opt.learning_rate = 0.0
    except (AttributeError, ValueError):
        return
    before = np.array(net.a.weight)
    train(net, opt, 1)
    np.testing.assert_array_equal(net.a.weight, before)


def test_learning_rate_of_other_transformations():
    with pytest.raises(AttributeError, match="inject_hyperparams"):
        optim.Optimizer(Net(), optax.sgd(0.1)).learning_rate
    opt = optim.Optimizer(Net(), optax.inject_hyperparams(optax.sgd)(learning_rate=0.25))
    assert float(opt.learning_rate) == 0.25


def test_group_hyperparameters():
    opt = optim.sgd(Net(), 0.1, groups={r".*bias": {"learning_rate": 0.5}})
    found = {k: float(v) for k, v in opt.hyperparameters.items()}
    assert found == pytest.approx({"learning_rate": 0.1, ".*bias: learning_rate": 0.5})


def test_freezing_keeps_the_others_state():
    net = Net()
    opt = optim.sgd(net, 0.1, momentum=0.9)
    train(net, opt, 3)
    before = {k: np.array(v) for k, v in opt.state_dict().items()}
    net.freeze(r"a\..*")
    weight = np.array(net.a.weight)
    state = {k: np.array(v) for k, v in opt.state_dict().items()}
    assert state.keys() == before.keys()  # what is frozen keeps its momentum for later, as in PyTorch
    for k, v in state.items():
        np.testing.assert_array_equal(v, before[k])
    train(net, opt, 1)
    np.testing.assert_array_equal(net.a.weight, weight)
    frozen = [k for k in before if ".a." in k]
    assert frozen
    for k in frozen:
        np.testing.assert_array_equal(opt.state_dict()[k], before[k])
    net.unfreeze()
    train(net, opt, 1)
    net.freeze()
    with pytest.raises(ValueError, match="frozen"):
        opt.step({})


def test_freezing_in_turns_compiles_twice():
    net = Net()
    opt = optim.adam(net, 0.1)

    @bw.compile
    def step(v):
        value, grads = bw.value_and_grad(lambda v: (net(v) ** 2).mean(), net)(v)
        opt.step(grads)
        return value

    for _ in range(3):
        net.unfreeze()
        step(X)
        net.freeze(r"a\..*")
        step(X)
    assert step.stats().compilations == 2


def test_a_state_saved_while_frozen_fits_later():
    net = Net()
    opt = optim.adam(net, 0.1)
    train(net, opt, 2)
    net.freeze(r"a\..*")
    train(net, opt, 1)
    state = opt.state_dict()
    twin = net.clone().unfreeze()
    other = optim.adam(twin, 0.1)
    other.load_state_dict(state)
    np.testing.assert_array_equal(other.state_dict()["inner.mu.a.weight"], state["inner.mu.a.weight"])


def test_a_state_saved_while_frozen_loads_into_a_frozen_network(tmp_path):
    net = Net()
    opt = optim.adam(net, 0.1)
    train(net, opt, 2)
    net.freeze(r"a\..*")
    train(net, opt, 1)
    opt.save(tmp_path / "opt")
    twin = net.clone()
    other = optim.adam(twin, 0.1)
    other.load(tmp_path / "opt")
    want = opt.state_dict()
    assert other.state_dict().keys() == want.keys()
    for k, v in other.state_dict().items():
        np.testing.assert_array_equal(v, want[k])
    net.unfreeze(), twin.unfreeze()
    assert train(net, opt, 2) == train(twin, other, 2)


def test_the_state_can_be_read_while_everything_is_frozen():
    net = Net()
    opt = optim.adam(net, 0.1)
    train(net, opt, 1)
    before = opt.state_dict()
    net.freeze()
    assert opt.state_dict().keys() == before.keys()
    opt.load_state_dict(before)
    with pytest.raises(ValueError, match="every parameter of the network is frozen"):
        opt.step({})


def test_a_layer_of_unknown_shape_added_while_training():
    net = bw.Sequential(Linear(3))
    net(X)
    opt = optim.sgd(net, 0.1)

    @bw.compile
    def step(v):
        value, grads = bw.value_and_grad(lambda v: (net(v) ** 2).mean(), net)(v)
        opt.step(grads)
        return value

    step(X)
    step(X)
    net.append(Linear(2))
    assert np.isfinite(step(X))


def test_a_replaced_layer_starts_anew():
    net = Net()
    opt = optim.adam(net, 0.1)
    train(net, opt, 3)
    kept = np.array(opt.state_dict()["inner.mu.a.weight"])
    new = Linear(net.b.weight.shape[0])
    net.b = new
    net(X)
    state = opt.state_dict()
    assert not np.any(state["inner.mu.b.weight"])
    np.testing.assert_array_equal(state["inner.mu.a.weight"], kept)


def test_what_the_learning_rate_may_be():
    opt = optim.sgd(Net(), 0.1)
    for bad in (-1.0, float("nan"), np.ones(3), float("inf")):
        with pytest.raises(ValueError, match="finite number that is not negative"):
            opt.learning_rate = bad
    opt.lr = 0.5
    assert float(opt.learning_rate) == 0.5


def test_a_learning_rate_computed_inside_a_compiled_step():
    net = Net()
    opt = optim.sgd(net, 0.1)

    @bw.compile
    def step(v, scale):
        opt.learning_rate = opt.learning_rate * scale
        value, grads = bw.value_and_grad(lambda v: (net(v) ** 2).mean(), net)(v)
        opt.step(grads)
        return value

    for _ in range(2):
        step(X, jnp.float32(0.5))
    assert float(opt.learning_rate) == pytest.approx(0.025)
    assert step.stats().compilations == 1


def test_a_schedule_stays_precise_in_half_precision():
    net = Net().to(jnp.bfloat16)
    opt = optim.sgd(net, optax.cosine_decay_schedule(1e-3, 10_000))
    grads = {k: jnp.ones_like(p.value) for k, p in net.named_parameters()}
    rates = set()
    for _ in range(20):
        opt.step(grads)
        rates.add(float(opt.learning_rate))
    assert len(rates) > 10


def test_state_round_trip():
    net = Net()
    opt = optim.adam(net, 0.1)
    train(net, opt, 2)
    twin = net.clone()
    other = optim.adam(twin, 0.5)
    assert not other.load_state_dict(opt.state_dict())
    assert float(other.learning_rate) == pytest.approx(0.1)
    assert train(net, opt, 2) == train(twin, other, 2)
    names = list(opt.state_dict())
    assert any(k.endswith("mu.a.weight") for k in names) and len(set(names)) == len(names)


def test_copying_network_and_optimiser_together():
    net = Net()
    opt = optim.adam(net, 0.1)
    train(net, opt, 2)
    twin, other = copy.deepcopy((net, opt))
    assert other.net is twin
    assert train(net, opt, 2) == train(twin, other, 2)


def test_pickling_with_the_network():
    net = Net()
    opt = optim.adam(net, 0.1)
    train(net, opt, 2)
    twin, other = pickle.loads(pickle.dumps((net, opt)))
    assert other.net is twin
    assert train(net, opt, 2) == train(twin, other, 2)


def test_list_of_parameters():
    net = Net()
    same = net.clone()
    opt = optim.sgd([net.a.weight, net.b.bias], 0.1)
    grads = bw.grad(loss(net), [net.a.weight, net.b.bias])()
    opt.step(grads)
    want = bw.grad(loss(same), same)()
    np.testing.assert_allclose(net.a.weight, same.a.weight - 0.1 * want["a.weight"], rtol=1e-5)
    np.testing.assert_array_equal(net.a.bias, same.a.bias)
    assert net.a.weight.name == "a.weight"
    optim.sgd(net.b.bias, 0.1).step(bw.grad(loss(net), net.b.bias)())


def test_loose_parameters_in_another_order():
    p, q = bw.Parameter(jnp.zeros(2)), bw.Parameter(jnp.zeros(2))
    grads = bw.grad(lambda: (p.value + 10 * q.value).sum(), [q, p])()
    opt = optim.sgd([p, q], 1.0)
    try:
        opt.step(grads)
    except ValueError:
        return
    np.testing.assert_array_equal(p, [-1, -1])
    np.testing.assert_array_equal(q, [-10, -10])


def test_deferred():
    net = Linear(2)
    opt = optim.adam(net, 0.1)
    with pytest.raises(DeferredShapeError, match="weight"):
        opt.step({"weight": jnp.ones((2, 3)), "bias": jnp.ones(2)})
    with pytest.raises(DeferredShapeError):
        opt.state_dict()
    train_loss = lambda: (net(X) ** 2).mean()
    _, grads = bw.value_and_grad(train_loss, net)()
    opt.step(grads)
    assert len(opt.state_dict()) > 4


def test_one_slot_per_tied_parameter():
    net = Net()
    net.c = net.a
    net.d = Linear(4, in_features=3)
    net.d.weight = net.a.weight
    opt = optim.sgd(net, 0.1, momentum=0.9)
    slots = [k for k in opt.state_dict() if k.endswith("weight")]
    assert len(slots) == 2


def test_step_from_gradients():
    a, b = Net(), None
    b = a.clone()
    opt_a, opt_b = optim.sgd(a, 0.1, momentum=0.9), optim.sgd(b, 0.1, momentum=0.9)
    for _ in range(2):
        bw.backward(loss(a), a)()
        opt_a.step()
        assert all(p.grad is None for p in a.parameters())
        opt_b.step(bw.grad(loss(b), b)())
    for k, v in a.state_dict().items():
        np.testing.assert_allclose(v, b.state_dict()[k], rtol=1e-6)
    bw.backward(loss(a), a)()
    opt_a.zero_grad()
    with pytest.raises(ValueError, match="no parameter has one"):
        opt_a.step()


def test_a_parameter_without_gradient_is_left_with_its_state():
    net = Net()
    opt = optim.sgd(net, 0.1, momentum=0.9)
    bw.backward(loss(net), net)()
    opt.step()
    weight = np.array(net.b.weight)
    slot = next(k for k in opt.state_dict() if k.endswith("b.weight"))
    before = np.array(opt.state_dict()[slot])
    net.a.bias.grad = jnp.ones(4)
    opt.step()
    np.testing.assert_array_equal(net.b.weight, weight)
    np.testing.assert_array_equal(opt.state_dict()[slot], before)


def test_compiled_backward_and_step():
    net = Net()
    opt = optim.adam(net, 0.1)

    @bw.compile
    def step():
        value = bw.backward(loss(net), net)()
        opt.step()
        return value

    losses = [float(step()) for _ in range(5)]
    assert losses[-1] < losses[0] and step.stats().compilations == 1
    assert all(p.grad is None for p in net.parameters())


def test_error_texts():
    net = Net()
    with pytest.raises(TypeError, match="module or a non-empty list of parameters"):
        optim.sgd(3, 0.1)
    with pytest.raises(TypeError, match="non-empty list"):
        optim.sgd([], 0.1)
    with pytest.raises(TypeError, match=r"optax\.GradientTransformation"):
        optim.Optimizer(net, 0.1)
    with pytest.raises(ValueError, match="learning_rate must not be negative"):
        optim.sgd(net, -0.1)
    with pytest.raises(TypeError, match="learning_rate must be a number"):
        optim.adam(net, "fast")
    with pytest.raises(ValueError, match="b1 must be below 1"):
        optim.adam(net, 0.1, b1=1.0)
    with pytest.raises(ValueError, match="nesterov"):
        optim.sgd(net, 0.1, nesterov=True)
    with pytest.raises(TypeError, match=r"unknown settings \['lr'\]"):
        optim.sgd(net, 0.1, groups={".*": {"lr": 1}})
    opt = optim.sgd(net, 0.1)
    grads = bw.grad(loss(net), net)()
    with pytest.raises(ValueError, match=r"missing \['a.weight'\].*unexpected \['z'\]"):
        opt.step({("z" if k == "a.weight" else k): v for k, v in grads.items()})
    with pytest.raises(ValueError, match=r"'a.bias' has shape \(3,\), the parameter \(4,\)"):
        opt.step(grads | {"a.bias": jnp.ones(3)})
    with pytest.raises(TypeError, match="grads must be a dict"):
        opt.step([1])


def test_a_transformation_that_wants_more_than_gradients():
    net = Net()
    opt = optim.Optimizer(net, optax.lbfgs())
    for way in (lambda f: f, bw.compile):
        with pytest.raises(
            TypeError, match=r"step: the transformation wants more than .*'value_fn'\), as line searches do"
        ):
            way(lambda: opt.step(bw.grad(loss(net), net)()))()


def test_a_failed_step_changes_nothing():
    net = Net()
    opt = optim.adam(net, 0.1)
    train(net, opt, 1)
    before = {k: np.array(v) for k, v in (net.state_dict() | opt.state_dict()).items()}
    with pytest.raises(ValueError):
        opt.step({"a.weight": jnp.ones(1)})
    for k, v in (net.state_dict() | opt.state_dict()).items():
        np.testing.assert_array_equal(v, before[k])


def test_low_precision_parameters():
    net = Net().to(jnp.bfloat16)
    opt = optim.adam(net, 0.1)
    grads = bw.grad(lambda: net(X.astype(jnp.bfloat16)).sum(), net)()
    opt.step(grads)
    assert net.a.weight.dtype == jnp.bfloat16


def test_two_optimisers_for_one_network():
    net = Net()
    first, second = optim.sgd(net.a, 0.1), optim.adam(net.b, 0.1)

    @bw.compile
    def step():
        first.step(bw.grad(loss(net), net.a)())
        second.step(bw.grad(loss(net), net.b)())
        return loss(net)()

    losses = [float(step()) for _ in range(5)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("rate", [0.05, lambda count: 0.05], ids=["number", "schedule"])
def test_learning_rates_of_float64_parameters_are_float64(rate):
    with jax.enable_x64(True):
        net = nn.Linear(1, in_features=3, bias=False, dtype=jnp.float64)
        net.weight.value = jnp.ones((1, 3), jnp.float64)
        opt = optim.sgd(net, rate)
        opt.step({"weight": jnp.ones((1, 3), jnp.float64)})
        np.testing.assert_array_equal(net.weight, np.full((1, 3), 1 - 0.05))
        if not callable(rate):
            assert float(opt.learning_rate) == 0.05
    half = bw.Parameter(jnp.ones(3, jnp.bfloat16))
    assert optim.sgd(half, 0.05).learning_rate == np.float32(0.05)


# -- several modules, and parameters that a loss leaves out ------------------------------------------


def test_a_list_of_modules_as_for_gradients():
    encoder, decoder = nn.Linear(2, in_features=3), nn.Linear(1, in_features=2)
    opt = optim.sgd([encoder, decoder], 1.0)
    before = {k: np.asarray(v) for k, v in decoder.state_dict().items()}
    grads = bw.grad(lambda x: decoder(encoder(x)).sum(), [encoder, decoder])(jnp.ones((1, 3)))
    assert list(grads) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    opt.step(grads)
    np.testing.assert_allclose(decoder.weight, before["weight"] - grads["1.weight"], rtol=1e-6)
    loose = bw.Parameter(jnp.ones(2))
    opt = optim.adam([encoder, loose], 0.1)
    opt.step(bw.grad(lambda x: (encoder(x) * loose).sum(), [encoder, loose])(jnp.ones((1, 3))))
    assert loose.tolist() != [1, 1] and list(opt.targets()) == ["0.weight", "0.bias", loose.any_name]
    assert optim.sgd([encoder], 0.1).net is encoder


class TwoHeads(bw.Module):
    def __init__(self):
        self.a, self.b = (nn.Linear(1, in_features=1, bias=False) for _ in range(2))
        self.load_state_dict({"a.weight": jnp.ones((1, 1)), "b.weight": jnp.ones((1, 1))})


@pytest.mark.parametrize("wrap", [lambda f: f, bw.compile])
def test_backward_leaves_out_what_a_loss_does_not_read(wrap):
    net = TwoHeads()
    opt = optim.sgd(net, 0.1, momentum=0.9, weight_decay=0.1)
    x = jnp.ones((1, 1))

    def step(first):
        head = net.a if first else net.b
        bw.backward(bw.remat(lambda x: bw.vmap(head)(x[None]).sum()), net)(x)
        opt.step()

    step = wrap(step)
    step(True)
    assert float(net.b.weight.squeeze()) == 1
    a = float(net.a.weight.squeeze())
    step(False)
    assert float(net.a.weight.squeeze()) == a
    assert float(net.b.weight.squeeze()) == a  # its first step, like that of the other
    assert net.a.weight.grad is None and net.b.weight.grad is None
    assert set(bw.grad(lambda x: net.a(x).sum(), net)(x)) == {"a.weight", "b.weight"}


def test_l2_penalty_of_adam():
    net = nn.Linear(2, in_features=3)
    twin = net.clone()
    opt, other = optim.adam(net, 0.1, weight_decay=0.5), optim.adam(twin, 0.1)
    x = jnp.ones((1, 3))
    for _ in range(3):
        opt.step(bw.grad(lambda x: net(x).sum(), net)(x))
        grads = bw.grad(lambda x: twin(x).sum(), twin)(x)
        other.step({name: g + 0.5 * twin.get_parameter(name) for name, g in grads.items()})
    np.testing.assert_allclose(net.weight, twin.weight.value, rtol=1e-6)


def test_what_is_said_of_lists_of_groups_and_of_iterators():
    net = nn.Linear(2, in_features=3)
    with pytest.raises(TypeError, match=r'Other settings for some parameters go by pattern: groups=\{r"\.\*bias"'):
        optim.sgd([{"params": net}], 0.1)
    with pytest.raises(TypeError, match="Pass the network itself; what is frozen is left out"):
        optim.sgd(net.named_parameters(), 0.1)
