"""Guide, part 6: sizes that the data decides."""

from __future__ import annotations

import contextlib
import copy
import gc
import itertools
import re
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import brickwork as bw
from brickwork import init, nn, optim

X = np.asarray(jax.random.uniform(jax.random.key(0), (2, 20)))


class Report(init.Initializer):
    """U(-10, 10), and a line for each parameter drawn."""

    def draw(self, rng, shape, dtype):
        print(f"Init {init.current_name()} {shape}")
        return rng.uniform(-10, 10, shape)


def mlp():
    return nn.Sequential(nn.Linear(256), nn.ReLU(), nn.Linear(10))


# -- the guide ---------------------------------------------------------------------------------


def test_parameters_exist_with_unknown_sizes():
    net = mlp()
    assert [(name, p.shape) for name, p in net.named_parameters()] == [
        ("0.weight", (256, None)),
        ("0.bias", (256,)),
        ("2.weight", (10, None)),
        ("2.bias", (10,)),
    ]
    print(net)
    print(net[0].weight)


@pytest.mark.parametrize(
    "access",
    [
        lambda p: p.value,
        lambda p: p + 1,
        lambda p: jnp.sum(p),
        lambda p: np.asarray(p),
        lambda p: p[0],
        lambda p: p.size,
        lambda p: p.sum(),
        lambda p: p.__setitem__((0, 0), 1.0),
    ],
    ids=["value", "add", "jnp.sum", "asarray", "getitem", "size", "method", "setitem"],
)
def test_access_raises(access):
    net = mlp()
    with pytest.raises(bw.errors.DeferredShapeError, match=re.escape("Parameter '2.weight' has shape (10, ?)")):
        access(net[2].weight)
    assert net[2].weight.shape == (10, None)


def test_nothing_happens_at_initialize_and_everything_at_the_first_forward(capsys):
    net = mlp()
    net.initialize(init=Report())
    assert capsys.readouterr().out == ""
    net(X)
    assert capsys.readouterr().out == "Init 0.weight (256, 20)\nInit 2.weight (10, 256)\n"
    net(X)
    assert capsys.readouterr().out == ""
    assert [p.shape for p in net.parameters()] == [(256, 20), (256,), (10, 256), (10,)]


def test_the_same_when_compiled(capsys):
    net = mlp()
    net.initialize(init=Report())
    compiled = bw.compile(net)
    y = compiled(X)
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "Init 0.weight (256, 20)",
        "Init 2.weight (10, 256)",
    ]
    np.testing.assert_allclose(compiled(X), net(X), rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(compiled(X), y)
    assert capsys.readouterr().out == ""


def test_the_same_when_differentiated(capsys):
    net = mlp()
    net.initialize(init=Report())
    _, grads = bw.value_and_grad(lambda x: net(x).sum(), net)(X)
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "Init 0.weight (256, 20)",
        "Init 2.weight (10, 256)",
    ]
    assert grads["0.weight"].shape == (256, 20)


def test_initialize_again_draws_again(capsys):
    net = mlp()
    net.initialize(init=Report())
    net(X)
    first = np.asarray(net[0].weight)
    capsys.readouterr()
    net.initialize(init=Report())
    assert capsys.readouterr().out == "Init 0.weight (256, 20)\nInit 2.weight (10, 256)\n"
    assert not np.array_equal(net[0].weight, first)
    net.initialize()  # with the initialiser it has
    assert capsys.readouterr().out == "Init 0.weight (256, 20)\nInit 2.weight (10, 256)\n"


def test_all_sizes_given_are_drawn_at_once(capsys):
    net = nn.Sequential(nn.Linear(256, in_features=20), nn.ReLU(), nn.Linear(10, in_features=256))
    net.initialize(init=Report())
    assert capsys.readouterr().out == "Init 0.weight (256, 20)\nInit 2.weight (10, 256)\n"
    assert np.abs(net[0].weight).max() > 5


def test_the_first_size_given_and_the_rest_not(capsys):
    net = nn.Sequential(nn.Linear(256, in_features=20), nn.ReLU(), nn.Linear(10))
    net.initialize(init=Report())
    assert capsys.readouterr().out == "Init 0.weight (256, 20)\n"
    assert net[0].weight.value.shape == (256, 20)
    assert net[2].weight.shape == (10, None)
    net(X)
    assert capsys.readouterr().out == "Init 2.weight (10, 256)\n"


def test_mismatched_sizes():
    net = nn.Sequential(nn.Linear(256, in_features=20), nn.ReLU(), nn.Linear(10, in_features=99))
    with pytest.raises(bw.errors.ShapeMismatchError) as info:
        net(X)
    message = str(info.value) + "\n" + "\n".join(info.value.__notes__)
    assert "(10, 99)" in message
    assert "256" in message
    assert "  in net.2 (Linear(99 → 10)), called with float32[2, 256]" in info.value.__notes__
    assert isinstance(info.value, ValueError)


def test_another_width_after_the_first_call():
    net = mlp()
    net(X)
    with pytest.raises(bw.errors.ShapeMismatchError) as info:
        net(X[:, :7])
    message = str(info.value)
    assert "(256, 20)" in message and "7" in message
    assert info.value.__notes__ == ["  in net.0 (Linear(20 → 256)), called with float32[2, 7]"]
    assert net(X).shape == (2, 10)


def test_built_without_data():
    net = mlp()
    assert net.initialize(bw.spec(2, 20)) is net
    assert [p.shape for p in net.parameters()] == [(256, 20), (256,), (10, 256), (10,)]
    assert str(net).splitlines()[1] == "  (0): Linear(20 → 256)"
    bw.seed(0)
    other = mlp()
    np.testing.assert_array_equal(other(X), net(X))


def test_built_without_data_and_drawn_with_an_initialiser(capsys):
    net = mlp()
    net.initialize(bw.spec(2, 20), init=Report())
    assert capsys.readouterr().out == "Init 0.weight (256, 20)\nInit 2.weight (10, 256)\n"


def test_a_load_before_any_forward(tmp_path):
    net = mlp()
    Y = net(X)
    net.save(tmp_path / "mlp.safetensors")
    clone = mlp()
    report = clone.load(tmp_path / "mlp.safetensors")
    assert not report
    assert clone[0].weight.shape == (256, 20)
    assert str(clone) == str(net)
    np.testing.assert_array_equal(clone(X), Y)


# -- the deferred matrix -----------------------------------------------------------------------

LAYERS = {
    "Linear": (
        lambda: nn.Linear(3),
        lambda: nn.Linear(3, in_features=5),
        (2, 5),
        "Linear(? → 3)",
        "Linear(5 → 3)",
    ),
    "Conv2d": (
        lambda: nn.Conv2d(4, 3, padding=1),
        lambda: nn.Conv2d(4, 3, in_channels=2, padding=1),
        (1, 2, 5, 5),
        None,
        None,
    ),
    "Conv2d groups": (
        lambda: nn.Conv2d(4, 3, groups=2),
        lambda: nn.Conv2d(4, 3, in_channels=2, groups=2),
        (1, 2, 5, 5),
        None,
        None,
    ),
    "BatchNorm1d": (
        lambda: nn.BatchNorm1d(),
        lambda: nn.BatchNorm1d(num_features=3),
        (4, 3),
        None,
        None,
    ),
    "BatchNorm2d": (
        lambda: nn.BatchNorm2d(),
        lambda: nn.BatchNorm2d(num_features=3),
        (2, 3, 2, 2),
        None,
        None,
    ),
    "LayerNorm": (
        lambda: nn.LayerNorm(),
        lambda: nn.LayerNorm(normalized_shape=6),
        (2, 6),
        None,
        None,
    ),
    "Embedding": (
        lambda: nn.Embedding(7, 3),
        lambda: nn.Embedding(7, 3),
        None,
        None,
        None,
    ),
}
matrix = pytest.mark.parametrize("name", LAYERS)
DEFERRED = [name for name in LAYERS if name != "Embedding"]
deferred_only = pytest.mark.parametrize("name", DEFERRED)


def given_input(name):
    shape = LAYERS[name][2]
    if shape is None:
        return jnp.array([[1, 2], [0, 6]])
    return jax.random.normal(jax.random.key(2), shape)


def random_weights(layer):
    """The layer with every parameter drawn from a distribution, zeros and ones included."""
    layer.initialize(init=init.normal(1.0), pattern=".*(weight|bias)")
    return layer


@matrix
def test_deferred_and_explicit_are_bit_identical(name):
    deferred, explicit, *_ = LAYERS[name]
    x = given_input(name)
    for prepare in (lambda layer: layer, random_weights):
        bw.seed(11)
        a = prepare(deferred())
        bw.seed(11)
        b = prepare(explicit())
        np.testing.assert_array_equal(a(x), b(x))
        left, right = a.state_dict(), b.state_dict()
        assert list(left) == list(right)
        for key in left:
            assert left[key].dtype == right[key].dtype
            np.testing.assert_array_equal(left[key], right[key])


@matrix
def test_the_explicit_layer_knows_its_shapes_at_once(name):
    deferred, explicit, *_ = LAYERS[name]
    a, b = deferred(), explicit()
    a(given_input(name))
    assert {n: v.shape for n, v in b.named_variables()} == {n: v.shape for n, v in a.named_variables()}


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_whatever_the_order_of_forward_calls(order):
    def layers():
        bw.seed(4)
        made = [nn.Linear(3), nn.Conv2d(2, 3), nn.BatchNorm2d()]
        for layer in made:
            random_weights(layer)
        return made

    images = jax.random.normal(jax.random.key(2), (2, 3, 5, 5))
    inputs = [jnp.asarray(X), images, images]
    expected = layers()
    for layer, x in zip(expected, inputs, strict=True):
        layer(x)
    found = layers()
    for i in order:
        found[i](inputs[i])
    for a, b in zip(found, expected, strict=True):
        for key, value in b.state_dict().items():
            np.testing.assert_array_equal(a.state_dict()[key], value)


def test_a_pattern_that_matches_everything():
    """The weights and biases are drawn; running statistics and counters are nobody's initial values."""
    net = nn.Sequential(nn.Linear(3), nn.BatchNorm1d())
    net(X)
    mean = np.asarray(net[1].running_mean)
    net.initialize(init=init.constant(5.0), pattern=".*")
    for p in net.parameters():
        np.testing.assert_array_equal(p, np.full(p.shape, 5.0))
    np.testing.assert_array_equal(net[1].running_mean, mean)
    assert int(net[1].num_batches_tracked) == 1


def test_whatever_is_read_first():
    a, b = (bw.seed(4) or nn.Sequential(nn.Linear(5), nn.Linear(3)) for _ in range(2))
    for net in (a, b):
        net.initialize(bw.spec(2, 20))
    backwards = [p.value for p in reversed(a.parameters())][::-1]
    for left, right in zip(backwards, b.parameters(), strict=True):
        np.testing.assert_array_equal(left, right)


@deferred_only
def test_uninitialised_can_be_copied(name):
    deferred, _, *_ = LAYERS[name]
    net = nn.Sequential(random_weights(deferred()))
    x = given_input(name)
    for duplicate in (copy.deepcopy(net), net.clone()):
        assert [v.shape for v in duplicate.variables()] == [v.shape for v in net.variables()]
        assert any(None in v.shape for v in duplicate.variables())
        y = duplicate(x)
        assert any(None in v.shape for v in net.variables()), "the original was touched"
    np.testing.assert_array_equal(net(x), y)


@deferred_only
def test_uninitialised_can_be_printed(name):
    deferred, explicit, _, before, after = LAYERS[name]
    layer = deferred()
    assert "?" in repr(layer)
    if before:
        assert repr(layer) == before
        assert repr(explicit()) == after
    layer(given_input(name))
    assert "?" not in repr(layer)
    assert repr(layer) == repr(explicit())


@deferred_only
def test_uninitialised_can_be_summarised(name):
    deferred, explicit, *_ = LAYERS[name]
    net = nn.Sequential(deferred())
    summary = net.summary()
    print(summary)
    assert summary.parameters is None
    assert "?" in str(summary)
    assert any(None in v.shape for v in net.variables())
    x = given_input(name)
    summary = net.summary(bw.spec(*x.shape, dtype=x.dtype))
    assert summary.parameters == sum(p.size for p in explicit().parameters())
    assert summary.rows[-1].output == str(net(x).shape)


@deferred_only
def test_uninitialised_can_not_be_saved_and_says_so(name, tmp_path):
    net = nn.Sequential(LAYERS[name][0]())
    first = next(n for n, v in net.named_variables() if v.persistent and None in v.shape)
    with pytest.raises(bw.errors.DeferredShapeError, match=re.escape(f"'{first}' has shape")):
        net.save(tmp_path / "net.safetensors")
    assert list(tmp_path.iterdir()) == []


@deferred_only
def test_uninitialised_can_be_loaded_into(name, tmp_path):
    deferred, explicit, *_ = LAYERS[name]
    full = random_weights(explicit())
    full(given_input(name))
    full.save(tmp_path / "layer.safetensors")
    other = deferred()
    assert not other.load(tmp_path / "layer.safetensors")
    for key, value in full.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[key], value)
    assert repr(other) == repr(full)
    third = deferred()
    third.load_state_dict(full.state_dict())
    np.testing.assert_array_equal(third.eval()(given_input(name)), full.eval()(given_input(name)))


@deferred_only
def test_uninitialised_can_be_given_to_an_optimiser(name):
    net = nn.Sequential(LAYERS[name][0]())
    opt = optim.adam(net, 0.1)
    print(opt)
    x = given_input(name)
    _, grads = bw.value_and_grad(lambda v: (net(v) ** 2).sum(), net)(x)
    before = {n: np.asarray(p) for n, p in net.named_parameters()}
    opt.step(grads)
    state = opt.state_dict()
    for n, p in net.named_parameters():
        (key,) = [k for k in state if f".mu.{n}" in f".{k}"]
        assert state[key].shape == p.shape
        moved = np.abs(grads[n]) > 1e-5  # the first step of Adam is the rate times the sign
        step = before[n] - np.asarray(p)
        np.testing.assert_allclose(step[moved], 0.1 * np.sign(grads[n])[moved], rtol=0.05)


def test_an_optimiser_before_any_shape_and_a_compiled_step():
    net = mlp()
    opt = optim.Optimizer(net, optax.sgd(0.1))

    @bw.compile
    def step(x):
        loss, grads = bw.value_and_grad(lambda: (net(x) ** 2).mean(), net)()
        opt.step(grads)
        return loss

    losses = [float(step(X)) for _ in range(3)]
    assert losses[2] < losses[1] < losses[0]
    assert step.stats().compilations == 1


def test_an_optimiser_asked_too_early():
    opt = optim.adam(mlp(), 0.1)
    with pytest.raises(bw.errors.DeferredShapeError, match=re.escape("'0.weight' has shape (256, ?)")):
        opt.state_dict()


def test_the_dry_run_leaves_state_untouched():
    net = nn.Sequential(nn.Conv2d(4, 3), nn.BatchNorm2d(), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(2))
    bw.seed(9)
    expected_key = jax.random.key_data(bw.random.key())
    bw.seed(9)
    net.initialize(bw.spec(2, 1, 6, 6))
    net.summary(bw.spec(2, 1, 6, 6))
    np.testing.assert_array_equal(jax.random.key_data(bw.random.key()), expected_key)
    np.testing.assert_array_equal(net[1].running_mean, np.zeros(4))
    np.testing.assert_array_equal(net[1].running_var, np.ones(4))
    assert int(net[1].num_batches_tracked) == 0
    # but a real call does change them
    net(jax.random.normal(jax.random.key(0), (2, 1, 6, 6)))
    assert int(net[1].num_batches_tracked) == 1
    assert np.any(np.asarray(net[1].running_mean) != 0)


def test_the_dry_run_draws_nothing(capsys):
    net = mlp()
    for p in net.parameters(".*weight"):
        p.initialize(Report())
    net.initialize(bw.spec(2, 20))
    assert capsys.readouterr().out == ""
    assert not any(p.is_drawn for p in net.parameters())
    net[2].weight.value
    assert capsys.readouterr().out == "Init 2.weight (10, 256)\n"


@contextlib.contextmanager
def host_memory():
    """The peak of what Python and NumPy allocate inside, in bytes, as a one-element list."""
    peak = [0]
    gc.collect()
    tracemalloc.start()
    try:
        yield peak
        peak[0] = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_network_of_a_billion_parameters_is_planned_without_memory():
    known = {id(a) for a in jax.live_arrays()}
    with host_memory() as peak:
        net = nn.Sequential(
            *[nn.Sequential(nn.Linear(8192), nn.ReLU(), nn.Linear(4096), nn.LayerNorm()) for _ in range(15)],
            nn.Linear(1000),
        )
        net.initialize(bw.spec(2, 4096))
        summary = net.summary(bw.spec(2, 4096))
    count = sum(p.size for p in net.parameters())
    assert count > 1_000_000_000
    assert summary.parameters == count
    assert summary.rows[-1].output == "(2, 1000)"
    assert peak[0] < 100e6
    big = [a for a in jax.live_arrays() if id(a) not in known and a.nbytes > 1e6]
    assert big == []
    assert net[0][2].weight.shape == (4096, 8192)
    assert net[14][3].weight.shape == (4096,)


def test_seventy_billion_too():
    """Wide layers: the plan costs the same, whatever the sizes are."""
    with host_memory() as peak:
        net = nn.Sequential(*[nn.Linear(65536) for _ in range(17)])
        net.initialize(bw.spec(1, 65536))
    assert sum(p.size for p in net.parameters()) > 70e9
    assert peak[0] < 100e6
