"""Networks that are built from files: what is recorded, what is refused, and what a file may do."""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import gc
import json
import pickle
import weakref
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import brickwork as bw
from brickwork import init, nn
from brickwork.errors import DeferredShapeError
from brickwork.io.architecture._record import ARCHITECTURE

X = jnp.linspace(-1, 1, 8).reshape(2, 4)


class MLP(bw.Module):
    def __init__(self, width=8, *, act=jax.nn.relu, depth=1):
        self.hidden = [nn.Linear(width) for _ in range(depth)]
        self.out = nn.Linear(2)
        self.act = act

    def forward(self, x):
        for layer in self.hidden:
            x = self.act(layer(x))
        return self.out(x)


class Around(bw.Module):
    """Takes modules."""

    def __init__(self, body, *others, scale=1.0, **named):
        self.body = body
        self.others = others
        self.scale = scale
        self.named = named

    def forward(self, x):
        for layer in (self.body, *self.others, *self.named.values()):
            x = layer(x)
        return x * self.scale


class Mode(enum.Enum):
    FAST = 1
    SLOW = 2


@dataclasses.dataclass
class Config:
    width: int = 8
    mode: Mode = Mode.FAST
    sizes: tuple[int, ...] = (1, 2)


class Point(NamedTuple):
    x: int
    y: float


class Configured(bw.Module):
    def __init__(self, config, point=None, block=nn.Linear, dtype=jnp.float32):
        self.config = config
        self.point = point
        self.layer = block(config.width, dtype=dtype)

    def forward(self, x):
        return self.layer(x)


def double(x):
    return 2 * x


CLASSES = [MLP, Around, Configured, Config, Mode, Point, double]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


def rebuilt(net, path, classes: Any = CLASSES):
    net.save(path, architecture=True)
    return bw.load_module(path, classes=classes)


def check(net, path, x=X, classes: Any = CLASSES):
    """Save, build again, and compare; returns the new network and what the file says."""
    y = net(x)
    twin = rebuilt(net, path, classes)
    assert repr(twin) == repr(net)
    assert [n for n, _ in twin.named_variables()] == [n for n, _ in net.named_variables()]
    assert [p.trainable for p in twin.parameters()] == [p.trainable for p in net.parameters()]
    assert [v.dtype for v in twin.variables()] == [v.dtype for v in net.variables()]
    assert [m.training for m in twin.modules()] == [m.training for m in net.modules()]
    np.testing.assert_array_equal(twin(x), y)
    return twin, architecture(path)


def architecture(path):
    _, info = bw.load(path, with_metadata=True)
    return json.loads(info.metadata[ARCHITECTURE])


# -- what is recorded ------------------------------------------------------------------------------


def test_layers(path):
    net = nn.Sequential(nn.Linear(8), jax.nn.gelu, nn.LayerNorm(), nn.Linear(2, bias=False))
    _, found = check(net, path, classes=None)
    assert found["format"] == 1
    assert found["steps"][0] == {"class": "brickwork.nn:Linear", "arguments": {"out_features": 8}}
    assert found["steps"][-1] == {
        "class": "brickwork.nn:Sequential",
        "arguments": {"layers": {"tuple": [{"ref": [0]}, {"named": "jax.nn:gelu"}, {"ref": [1]}, {"ref": [2]}]}},
    }
    assert set(found) == {"format", "steps", "root"}


def test_a_class_of_the_users(path):
    _, found = check(MLP(5, depth=3, act=jnp.tanh), path)
    assert found["steps"] == [
        {"class": f"{__name__}:MLP", "arguments": {"width": 5, "act": {"named": "jax.nn:tanh"}, "depth": 3}}
    ]


def test_other_tools_and_plain_loading_see_an_ordinary_file(path):
    net = MLP()
    net(X)
    net.save(path, architecture=True)
    assert set(safetensors.numpy.load_file(path)) == set(net.state_dict())
    other = MLP()
    assert not other.load(path)
    np.testing.assert_array_equal(other(X), net(X))


def test_modules_as_arguments(path):
    shared = nn.Linear(4)
    net = Around(shared, nn.Tanh(), shared, scale=float("inf"), last=nn.Linear(3))
    net.scale = 0.5
    twin, _ = check(net, path)
    assert twin.body is twin.others[1]
    assert list(twin.named) == ["last"]


def test_dtypes_records_enums_and_classes_as_arguments(path):
    net = Configured(Config(3, Mode.SLOW), Point(1, float("nan")), dtype=jnp.bfloat16)
    net.config.sizes = (4,)
    twin, _ = check(net, path, X.astype(jnp.bfloat16))
    assert twin.config == net.config
    assert isinstance(twin.point, Point)
    assert np.isnan(twin.point.y)


def test_functions(path):
    net = nn.Sequential(nn.Linear(3), functools.partial(jax.nn.gelu, approximate=False), nn.Lambda(double), jnp.exp)
    twin, found = check(net, path)
    assert {"named": f"{__name__}:double"} in found["steps"][1]["arguments"].values()
    assert twin[2].fn is double


def test_initialisers(path):
    class Drawn(bw.Module):
        def __init__(self, init=init.zeros):
            self.weight = nn.Parameter(shape=(1, 4), init=init)

        def forward(self, x):
            return x * self.weight

    for initializer in (
        init.normal(0.5),
        init.constant(3),
        init.uniform(-1, 2),
        init.xavier_uniform(gain=2),
        init.kaiming_normal(a=1, mode="fan_out"),
        init.ones,
        7.0,
    ):
        twin, _ = check(Drawn(initializer), path, classes=[Drawn])
        assert repr(twin.weight.init) == repr(Drawn(initializer).weight.init)


def test_blocks_of_a_repeat(path):
    width = 4
    net = nn.Repeat(lambda: nn.Sequential(nn.Linear(width), nn.Dropout(0.5)), 3, remat=True).eval()
    twin, found = check(net, path)
    assert len(twin) == 3
    inner = found["steps"][0]["arguments"]["make_block"]["maker"]
    assert [step["class"] for step in inner["steps"]] == [
        f"brickwork.nn:{n}" for n in ("Linear", "Dropout", "Sequential")
    ]
    check(nn.Sequential(nn.Repeat(lambda: nn.Repeat(lambda: nn.Linear(4), 2), 2), nn.Linear(1)), path)


def test_a_class_may_say_its_arguments_itself(path):
    class Poly(bw.Module):
        def __init__(self, fn, n):
            self.steps = [fn] * n
            self.layer = nn.Linear(2)

        def constructor_arguments(self):
            return {"fn": self.steps[0], "n": len(self.steps)}

        def forward(self, x):
            return functools.reduce(lambda v, f: f(v), self.steps, self.layer(x))

    class Special(Poly):
        def __init__(self, n):
            super().__init__(double, n)

    check(Poly(double, 3), path, classes=[Poly, double])
    net = Special(2)
    assert net.constructor_arguments() == {"n": 2}
    check(net, path, classes=[Special])


# -- what was changed afterwards ---------------------------------------------------------------------


def test_attributes_and_layers_that_were_replaced(path):
    net = MLP(depth=2)
    net.act = jnp.sin
    net.out = nn.Sequential(nn.Linear(7), nn.Linear(2))
    net.hidden.append(nn.Linear(8))
    twin, found = check(net, path)
    assert twin.act is jnp.sin
    assert {"set": [0, "act"], "to": {"named": "jax.numpy:sin"}} in found["steps"]
    del net.hidden[2]
    net.hidden[0] = nn.Linear(8)
    net.extra = {"note": (1, None, "x"), "rate": 1j}
    twin, _ = check(net, path)
    assert twin.extra == net.extra
    net.hidden[1] = nn.Identity()
    check(net, path)


def test_items_of_containers_inside(path):
    class Net(bw.Module):
        def __init__(self):
            self.features = nn.Sequential(nn.Linear(4), nn.ReLU(), nn.Linear(4))

        def forward(self, x):
            return self.features(x)

    net = Net()
    net.features[1] = nn.GELU()
    check(net, path, classes=[Net])
    net.features.append(nn.Linear(1))
    del net.features[0]
    check(net, path, classes=[Net])


def test_attributes_that_were_deleted(path):
    net = MLP()
    net.extra = nn.Linear(1)
    del net.extra
    check(net, path)

    class Lazy(MLP):
        def __init__(self):
            super().__init__()
            self.unused = nn.Linear(3)

    net = Lazy()
    del net.unused
    _, found = check(net, path, classes=[Lazy])
    assert found["steps"][-1] == {"delete": [0, "unused"]}


@pytest.mark.parametrize("forwards", [True, False])
def test_ties(path, forwards):
    net = Around(nn.Linear(4, in_features=4), nn.Tanh(), nn.Linear(4, in_features=4))
    a, b = net.body, net.others[1]
    if forwards:
        b.weight = a.weight
    else:
        a.weight = b.weight
    twin, _ = check(net, path)
    assert twin.body.weight is twin.others[1].weight
    net = MLP(4)
    net.hidden.append(net.hidden[0])
    twin, _ = check(net, path)
    assert twin.hidden[0] is twin.hidden[1]


def test_parameters_of_another_shape(path):
    net = MLP(depth=1)
    net(X)
    net.out.weight = nn.Parameter(jnp.ones((5, 8)))
    net.out.bias = None
    net.steps = nn.Buffer(jnp.arange(3))
    check(net, path)


def test_modes_freezing_and_dtypes(path):
    net = Around(nn.Linear(4), nn.Dropout(0.5), nn.BatchNorm1d())
    net(X)
    net.others[0].eval()
    net.freeze(r"body\..*")
    _, found = check(net, path)
    assert found["eval"] == [2]
    assert found["frozen"] == ["body.weight", "body.bias"]
    _, found = check(net.eval(), path)
    assert found["eval"] is True
    net.freeze()
    net.to(jnp.bfloat16)
    _, found = check(net, path, X.astype(jnp.bfloat16))
    assert found["frozen"] is True
    assert set(found["dtypes"].values()) == {"bfloat16"}


class Halved(nn.Module):
    """A parametrisation with an inverse."""

    def forward(self, x):
        return x / 2

    def right_inverse(self, x):
        return x * 2


def test_adapters_quantised_and_parametrised_layers(path):
    net = MLP(depth=2)
    net(X)
    nn.quantize(net, r"hidden\.1")
    nn.lora(net, r"hidden\..*", rank=2)
    nn.weight_norm(net.out)
    net.hidden.append(nn.parametrize(nn.spectral_norm(nn.Linear(8)), "weight", Halved()))
    check(net.eval(), path, classes=[*CLASSES, Halved])
    nn.remove_parametrizations(net.out, "weight")
    check(net, path, classes=[*CLASSES, Halved])


def test_copies_know_their_arguments(path):
    net = Around(MLP(3), nn.Tanh(), last=nn.Linear(2))
    y = net(X)
    for twin in (
        net.clone(),
        copy.copy(net),
        pickle.loads(pickle.dumps(net)),
        jax.tree.map(lambda v: v, net),
        bw.unstack(bw.stack([net, net.clone()]))[1],
    ):
        np.testing.assert_array_equal(rebuilt(twin, path)(X), y)


def test_variables_that_build_makes(path):
    class Scaled(bw.Module):
        def build(self, x):
            self.scale = nn.Parameter(jnp.full(x.shape[-1:], 2.0))

        def forward(self, x):
            return x * self.scale

    net = nn.Sequential(Scaled(), nn.Linear(1))
    net(X)
    net[0].scale.value = jnp.arange(4.0)
    check(net, path, classes=[Scaled])


def test_saving_changes_nothing_about_randomness(path):
    def run(save):
        bw.seed(3)
        net = MLP(depth=2)
        net(X)
        if save:
            net.save(path, architecture=True)
            bw.load_module(path, classes=CLASSES)
        return nn.Linear(3, in_features=2).weight.value, jax.random.normal(bw.random.key())

    for a, b in zip(run(False), run(True), strict=True):
        np.testing.assert_array_equal(a, b)


def test_arguments_keep_nothing_alive():
    class Net(bw.Module):
        def __init__(self, first, table):
            self.size = 4
            self.first = first
            self.table = nn.Buffer(table)
            self.blocks = nn.Repeat(lambda: nn.Linear(self.size), 2)

    gc.collect()
    gc.disable()
    try:
        first, table = nn.Linear(3), np.ones(3)
        net = Net(first, table)
        dead = [weakref.ref(net), weakref.ref(first), weakref.ref(table)]
        net.first = None
        del first, table
        assert dead[1]() is None
        assert dead[2]() is None
        del net
        assert dead[0]() is None
    finally:
        gc.enable()


# -- what is refused -------------------------------------------------------------------------------


def refused(net, path, match):
    net(X)
    with pytest.raises(TypeError, match=match):
        net.save(path, architecture=True)
    assert not path.exists()
    net.save(path)


def test_functions_without_a_name(path):
    def local(x):
        return x

    refused(
        Around(nn.Linear(3), lambda x: x),
        path,
        r"save: the architecture can't be recorded: item 0 of argument others of net \(Around\) is .*<lambda>, a "
        r"function without a name to find it by again. Define it with def .* classes=\[...\]",
    )
    refused(
        nn.Sequential(nn.Linear(3), local),
        path.with_suffix(".b"),
        r"item 1 of argument layers of net \(Sequential\) is .*<locals>.local",
    )


def test_arguments_that_are_gone(path):
    class Gone(bw.Module):
        def __init__(self, table, layer):
            self.size = len(table)
            self.layer = layer

        def forward(self, x):
            return self.layer(x)

    net = nn.Sequential(nn.Linear(3), Gone(np.ones(3), nn.Linear(2)))
    refused(
        net,
        path,
        r"net.1 \(Gone\): its argument table was <ndarray>, which is not plain data; keep it as "
        r"an attribute, self.table = table, or let Gone define constructor_arguments\(self\)",
    )
    net[1].table = np.ones(3)
    refused(
        net,
        path.with_suffix(".b"),
        r"argument table of net.1 \(Gone\) is a ndarray, array\(\[1., 1., 1.\]\); arrays belong in var",
    )
    net[1].table = {1, 2}
    refused(net, path.with_suffix(".c"), r"is a set, \{1, 2\}; what can be recorded are numbers")


def test_hooks(path):
    net = MLP()
    handle = net.out.register_forward_hook(lambda m, args, y: 2 * y)
    refused(net, path, r"net.out has hooks, which are functions. Remove them \(handle.remove\(\)\)")
    handle.remove()
    check(net, path)


def test_what_a_constructor_does_not_repeat(path):
    count = iter(range(100))

    class Odd(bw.Module):
        def __init__(self):
            self.mark = {next(count)}
            self.layer = nn.Linear(2)

        def forward(self, x):
            return self.layer(x)

    refused(Odd(), path, r"net.mark is a set, \{0\}")

    class Counting(Odd):
        def __init__(self):
            self.layer = nn.Linear(4 + next(count))

    net = Counting()
    net(X)
    twin = rebuilt(net, path, [Counting])  # the parameter's shape was recorded
    np.testing.assert_array_equal(twin(X), net(X))


def test_constructors_that_fail(path):
    calls = []

    class Once(bw.Module):
        def __init__(self):
            calls.append(1)
            if len(calls) > 1:
                raise RuntimeError("only once")
            self.layer = nn.Linear(2)

        def forward(self, x):
            return self.layer(x)

    refused(Once(), path, r"net \(Once\), made again: .*Once\(\) failed with RuntimeError: only once")


def test_shapes_that_are_not_known(path):
    with pytest.raises(DeferredShapeError):
        MLP().save(path, architecture=True)
    assert not path.exists()


def test_arguments_in_another_order(path):
    net = nn.Sequential(nn.Conv2d(2, groups=1, padding=1, kernel_size=3, bias=False))
    twin = nn.Sequential(nn.Conv2d(2, 3, padding=1, bias=False, groups=1))
    for some in (net, twin):
        _, found = check(some, path, jnp.ones((1, 2, 4, 4)))
        assert len(found["steps"]) == 2
