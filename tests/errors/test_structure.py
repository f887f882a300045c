"""Networks put together wrongly: activations, class attributes, overwritten parameters, ..."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from tests.errors.checks import refuse, unchanged

import brickwork as bw
from brickwork import init, nn, optim
from brickwork.errors import BrickworkError, StructureError, TraceLeakError

X = jnp.ones((2, 20))


def built():
    net = nn.Sequential(nn.Linear(6), nn.ReLU(), nn.Linear(4))
    net(X)
    return net


# -- activations -----------------------------------------------------------------------------------

ACTIVATIONS = {
    "a name": (
        "relu",
        "layer 1 must be a module or a function, got str 'relu'; for an activation pass a layer or "
        "a function, such as nn.ReLU()",
    ),
    "a name that isn't one": (
        "swoosh",
        "layer 1 must be a module or a function, got str 'swoosh'; for an activation pass a layer or "
        "a function, such as nn.ReLU()",
    ),
    "a class": (nn.ReLU, "layer 1 is the class ReLU, not a layer; write ReLU(...)"),
    "a number": (3, "layer 1 must be a module or a function, got int 3"),
    "None": (None, "layer 1 must be a module or a function, got NoneType None"),
    "a list": (
        [nn.ReLU()],
        "layer 1 must be a module or a function, got list [ReLU()]; unpack it: Sequential(*layers)",
    ),
    "an array": (jnp.float32(1), "layer 1 must be a module or a function, got ..."),
}


@pytest.mark.parametrize("case", ACTIVATIONS)
def test_an_activation_that_can_not_be_called(case):
    bad, message = ACTIVATIONS[case]
    refuse(lambda: nn.Sequential(nn.Linear(3), bad), TypeError, message)


def test_the_same_by_list_operations():
    net = built()
    with unchanged(net):
        refuse(lambda: net.append("relu"), TypeError, ACTIVATIONS["a name"][1].replace("layer 1", "layer 3"))
        refuse(lambda: net.insert(1, None), TypeError, ACTIVATIONS["None"][1])
        refuse(lambda: net.__setitem__(1, 3), TypeError, ACTIVATIONS["a number"][1])
        refuse(lambda: net.extend([nn.ReLU(), 3]), TypeError, ACTIVATIONS["a number"][1].replace("1", "4"))
        refuse(lambda: net.__setitem__(slice(0, 1), [3]), TypeError, "layer 0 must be ..., got int 3")


def test_the_suggested_activation_exists():
    for name in ("relu", "Sigmoid", "tanh", "gelu", "softmax"):
        with pytest.raises(TypeError) as info:
            nn.Sequential(name)
        suggested = str(info.value).rpartition("nn.")[2].removesuffix("()")
        assert callable(getattr(nn, suggested)), suggested
        assert suggested.lower() == name.lower()


def test_an_activation_in_a_layer_of_ones_own():
    class Dense(nn.Module):
        def __init__(self, units, activation):
            self.linear = nn.Linear(units)
            self.activation = activation

        def forward(self, x):
            return self.activation(self.linear(x))

    net = nn.Sequential(Dense(3, "relu"))
    with unchanged(net):
        refuse(
            lambda: net(X),
            TypeError,
            "'str' object is not callable",
            note="in net.0 (Dense()), called with float32[2, 20]",
        )


# -- class attributes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "held"),
    [
        (lambda: nn.Linear(3), "Linear"),
        (lambda: bw.Parameter(shape=(3,)), "Parameter"),
        (lambda: bw.Buffer(jnp.zeros(3)), "Buffer"),
        (lambda: [nn.Linear(3)], "list"),
        (lambda: (1, nn.Linear(3)), "tuple"),
        (lambda: {"a": [nn.Linear(3)]}, "dict"),
    ],
    ids=["module", "parameter", "buffer", "list", "tuple", "dict"],
)
def test_a_module_as_a_class_attribute(make, held):
    def define():
        class Net(nn.Module):
            layer = make()

            def forward(self, x):
                return self.layer(x)

    error = refuse(
        define,
        StructureError,
        f"class Net has a class attribute 'layer' that holds a {held}: every instance would share "
        "it. Create it in __init__ instead: `self.layer = ...`",
    )
    assert isinstance(error, TypeError)
    assert isinstance(error, BrickworkError)


def test_other_class_attributes_are_fine():
    class Net(nn.Module):
        kind: type = nn.Linear
        sizes = (3, 4)
        names = ["a"]
        factory = staticmethod(lambda: nn.Linear(3))

        def __init__(self):
            self.layer = self.factory()

        def forward(self, x):
            return self.layer(x)

    assert Net()(X).shape == (2, 3)


def test_plain_values_in_tuples_and_lists_are_fine():
    class Net(nn.Module):
        def __init__(self):
            self.kernel = (3, 3)
            self.unknown = (None, "same", (1, 2.0))
            self.table = [1, "two", None]
            self.options = {"a": (1, None)}
            self.layer = nn.Linear(2)

        def forward(self, x):
            return self.layer(x)

    net = nn.Sequential(Net())
    assert [name for name, _ in net.named_parameters()] == ["0.layer.weight", "0.layer.bias"]
    assert net(X).shape == (2, 2)
    print(net.summary(X))
    assert net.clone()[0].unknown == (None, "same", (1, 2.0))


# -- attributes ------------------------------------------------------------------------------------


def test_an_array_over_a_parameter():
    net = built()
    with unchanged(net):
        refuse(
            lambda: setattr(net[0], "weight", jnp.ones((6, 20))),
            TypeError,
            "Linear.weight is a Parameter; assigning an array over it would drop it from the network: "
            "write `.weight.value = ...` to change its value",
        )
        refuse(
            lambda: setattr(net[0], "weight", nn.ReLU()),
            TypeError,
            "Linear.weight is a Parameter; assigning a ReLU over it would drop it from the network: "
            "delete the attribute first (`del net.weight`) to turn it into something else",
        )


def test_modules_in_a_set():
    class Net(nn.Module):
        def __init__(self):
            self.layers = {nn.Linear(3)}

    refuse(
        Net,
        StructureError,
        "Net.layers is a set that holds modules or parameters; their order and changes can't be "
        "followed. Use a plain list or dict.",
    )


def test_a_key_that_can_not_be_part_of_a_name():
    net = built()
    with unchanged(net):
        refuse(
            lambda: setattr(net, "extra", {"a.b": nn.Linear(2)}),
            StructureError,
            "dict key 'a.b' holds a Linear, so it becomes part of parameter names; use a non-empty "
            "string without dots, or an integer",
        )


def test_no_forward():
    class Net(nn.Module):
        pass

    refuse(
        lambda: Net()(X),
        TypeError,
        "Net defines no forward(self, ...): add the method that computes its output",
        note="in net (Net()), called with float32[2, 20]",
    )


def test_no_such_parameter():
    net = built()
    refuse(
        lambda: net.get_parameter("0.wieght"),
        KeyError,
        "Sequential has no Parameter at '0.wieght'; did you mean '0.weight', '2.weight'?",
    )
    refuse(lambda: net[7], IndexError, "Sequential has 3 layers, no index 7")


def test_a_traced_value_kept():
    class Keeper(nn.Module):
        def forward(self, x):
            self.last = x * 2
            return x

    net = nn.Sequential(Keeper())
    assert net(X).shape == X.shape  # eagerly there is nothing wrong
    del net[0].last
    with unchanged(net):
        refuse(
            lambda: bw.compile(net)(X),
            TraceLeakError,
            "a traced value (float32[2,20]) would be kept in Keeper.last, where it outlives the "
            "trace. Make it a Buffer, `self.x = bw.Buffer(...)` in __init__, and write "
            "`self.x.value = ...`.",
            note="in net.0 (Keeper()), called with float32[2, 20]",
        )
    assert not hasattr(net[0], "last")


# -- initial values, optimisers, devices -----------------------------------------------------------


def test_no_initialiser():
    net = built()
    accepted = (
        "init= takes an initializer such as init.normal(0.01), a number, or a function (key, shape, "
        "dtype) -> array such as those of jax.nn.initializers; got "
    )
    with unchanged(net):
        refuse(lambda: net.initialize(init="normal"), TypeError, f"{accepted}str 'normal'")
        refuse(lambda: net.initialize(init=jax.nn.relu), TypeError, f"{accepted}relu(...")
        refuse(
            lambda: net.initialize(init=init.constant),
            TypeError,
            "init=constant lacks its arguments: pass constant(value)",
        )
    refuse(lambda: init.normal(-1), ValueError, "normal: std must not be negative, got -1.0")


def test_an_initialiser_that_does_not_fit_changes_nothing():
    net = built()
    with unchanged(net):
        refuse(
            lambda: net[0].bias.initialize(init.xavier_uniform()),
            bw.errors.ShapeMismatchError,
            "xavier_uniform(gain=1.0) (for parameter '0.bias'): shape (6,) has fewer than the 2 "
            "dimensions, (out, in, *kernel), that fan-in and fan-out are counted from. Choose the "
            'weights with initialize(init=..., pattern=r".*weight"), or give this parameter an '
            "initializer that works on any shape, such as init.normal(0.01) or init.zeros",
        )
        net(X)  # works as before
    net[0].bias.initialize()  # with the initialiser it had


OWN = {
    "shape": (
        lambda self, rng, shape, dtype: rng.normal(size=3),
        "Mine() (for parameter '0.weight') returned values of shape (3,) where (6, 20) was asked for",
    ),
    "error": (
        lambda self, rng, shape, dtype: rng.nothing,
        "'numpy.random._generator.Generator' object has no attribute 'nothing'",
    ),
}


@pytest.mark.parametrize(("draw", "message"), OWN.values(), ids=OWN)
def test_an_initialiser_of_ones_own_that_fails_changes_nothing(draw, message):
    Mine = type("Mine", (init.Initializer,), {"draw": draw})
    net = built()
    with unchanged(net):
        refuse(lambda: net[0].weight.initialize(Mine()), Exception, message)
        net(X)


def test_an_error_in_an_initialiser_is_not_disguised():
    """An AttributeError on the way must not turn into "has no attribute 'value'"."""
    Mine = type("Mine", (init.Initializer,), {"draw": OWN["error"][0]})
    net = nn.Sequential(nn.Linear(6))
    net.initialize(init=Mine())
    refuse(
        lambda: net(X),
        AttributeError,
        OWN["error"][1],
        note="in net.0 (Linear(20 → 6)), called with float32[2, 20]",
    )


def test_optimisers():
    net = built()
    refuse(lambda: optim.sgd(net, -0.1), ValueError, "sgd: learning_rate must not be negative, got -0.1")
    refuse(
        lambda: optim.sgd("net", 0.1),
        TypeError,
        "an optimiser takes a module or a non-empty list of parameters or modules, got str: 'net'",
    )
    with unchanged(net):
        refuse(
            lambda: optim.sgd(net, 0.1).step(),
            ValueError,
            "step() without gradients: no parameter has one; call bw.backward(fn, net)(...) first, or "
            "pass the gradients that bw.value_and_grad returns",
        )
        grads = bw.grad(lambda x: net(x).sum(), net)(X)
        del grads["0.bias"]
        refuse(
            lambda: optim.sgd(net, 0.1).step(grads),
            ValueError,
            "step: the gradients aren't those of the optimiser's parameters: missing ['0.bias']. "
            "Differentiate by the same network: bw.value_and_grad(fn, net).",
        )


def test_gradients():
    net = built()
    refuse(
        lambda: bw.grad(net, net)(X),
        ValueError,
        "fn must return a scalar to be differentiated, got float32[2, 4]; reduce it, for example with .mean()",
    )
    net.freeze()
    refuse(
        lambda: bw.grad(lambda x: net(x).sum(), net)(X),
        TypeError,
        "there is no trainable parameter to differentiate by: all are frozen",
    )


def test_to():
    net = built()
    with unchanged(net):
        refuse(
            lambda: net.to("cuda"),
            TypeError,
            "to: expected a jax.Device, a sharding or a dtype, got 'cuda' (str); a device is bw.cpu(), bw.gpu(0) or "
            "one of jax.devices()",
        )
        refuse(
            lambda: net.to(jnp.int32),
            TypeError,
            "to: parameters are floating-point, so dtype int32 can't hold them",
        )


# -- names -----------------------------------------------------------------------------------------


def test_slots():
    def define():
        class Net(bw.Module):
            __slots__ = ("layer",)

    def define_by_dataclass():
        @dataclasses.dataclass(slots=True)
        class Net(bw.Module):
            layer: object = None

    for way in (define, define_by_dataclass):
        refuse(
            way,
            StructureError,
            "class Net has __slots__ = ('layer',): what is kept there would be no part of the network, nor of its "
            "copies. Leave __slots__ out, and slots=True of a dataclass",
        )


def test_keys_that_give_the_same_name():
    net = bw.Module()
    message = (
        "dict keys 1 and '1' would both give the name '1' to what they hold, a Linear and a ReLU; rename one of them"
    )
    refuse(lambda: setattr(net, "d", {1: nn.Linear(3), "1": nn.ReLU()}), StructureError, message)
    net.d = {1: nn.Linear(3), "01": nn.ReLU(), "-1": 3}
    with unchanged(net):
        refuse(lambda: net.d.setdefault("1", nn.ReLU()), StructureError, message)
    net.d[-1] = nn.Linear(2)  # beside what is no part of the network
    net.d[1] = nn.Linear(2)
    net.d["2"] = nn.Linear(2)
    message = (
        "dict keys '2' and 2 would both give the name '2' to what they hold, a Linear and a Linear; rename one of them"
    )
    refuse(lambda: net.d.update({2: nn.Linear(1)}), StructureError, message)


def test_a_name_with_a_dot():
    net = bw.Module()
    refuse(
        lambda: setattr(net, "a.b", nn.Linear(3)),
        StructureError,
        "Module: attribute 'a.b' holds a Linear, so it becomes part of parameter names, in which dots separate: use a "
        "name without dots",
    )
    setattr(net, "a.b", 3)
