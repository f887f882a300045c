"""What people write out of habit from other libraries, and what they are told."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import init, nn, optim

X = jnp.ones((4, 3))


@pytest.fixture
def net():
    made = nn.Sequential(nn.Linear(4), nn.ReLU(), nn.Linear(2))
    made(X)
    return made


def says(call, kind, text):
    with pytest.raises(kind, match=re.escape(text)):
        call()


PATHS = "matches none of the paths (0.weight, 0.bias, 2.weight, 2.bias)"


def test_patterns_that_match_nothing(net):
    says(lambda: net.freeze("0"), ValueError, f"freeze: '0' {PATHS}")
    says(lambda: net.freeze("0"), ValueError, r"write r'0\..*'")
    says(lambda: net.freeze("0.w"), ValueError, "write r'0.w.*'")
    says(lambda: net.unfreeze("x"), ValueError, f"unfreeze: 'x' {PATHS}")
    says(lambda: net.initialize(init=init.zeros, pattern="weight"), ValueError, f"initialize: 'weight' {PATHS}")
    says(lambda: net.capture("9"), ValueError, "capture: '9' matches none of the paths (0, 1, 2)")
    says(lambda: optim.sgd(net, 0.1, groups={"bais": {}}), ValueError, f"groups: 'bais' {PATHS}")
    says(lambda: net.parameters("*bias"), ValueError, "'*bias' is not a regular expression: nothing to repeat")
    assert all(p.trainable for p in net.parameters())


def test_arguments_in_the_manner_of_others(net):
    says(lambda: net.initialize(init.normal(0.01)), TypeError, "pass the initializer by name: initialize(init=normal(")
    says(lambda: net.initialize((2, 20)), TypeError, "initialize: (2, 20) is a shape; pass bw.spec(2, 20)")
    says(lambda: net.summary((2, 20)), TypeError, "summary: (2, 20) is a shape; pass bw.spec(2, 20)")
    says(lambda: bw.spec(None, 20), TypeError, "got None; for a batch of any size give any size, such as 1")
    says(lambda: net.to(None), TypeError, "expected a jax.Device, a sharding or a dtype, got None")
    says(lambda: net.to("cpu"), TypeError, "a device is bw.cpu()")


def test_what_a_loss_returns(net):
    def grad(fn):
        return lambda: bw.value_and_grad(fn, net)(X)

    says(grad(lambda x: None), TypeError, "got None; is a `return` missing?")
    says(grad(lambda x: (net(x).sum(), 1)), TypeError, "got a tuple of 2; for (loss, anything else) pass has_aux=True")
    says(grad(lambda x: {"loss": net(x).sum()}), TypeError, "got a dict")


def test_indices_out_of_range(net):
    weight = net[0].weight
    before = np.asarray(weight.value)
    says(lambda: weight[4, 0], IndexError, "Parameter '0.weight': index 4 is out of range for axis 0 of size 4")
    with pytest.raises(IndexError, match="index -5 is out of range for axis 0"):
        weight[-5] = 1.0
    np.testing.assert_array_equal(weight, before)
    assert weight[-4].shape == (3,)
    assert weight[..., 2].shape == (4,)
    assert weight[None, 3].shape == (1, 3)
    assert weight[weight > 100].shape == (0,)


def test_integers_assigned_to_a_parameter_stay_floats(net):
    net[0].weight.value = np.ones((4, 3), int)
    assert net[0].weight.dtype == jnp.float32


def test_attributes_that_would_hide_methods():
    class Net(bw.Module):
        pass

    made = Net()
    with pytest.raises(bw.errors.StructureError, match=r"Net\.train is a method; a Linear under that name would hide"):
        made.train = nn.Linear(2)
    with pytest.raises(bw.errors.StructureError, match=r"Net\.layers is a generator, which can be read only once"):
        made.layers = (nn.Linear(2) for _ in range(2))


def test_attributes_that_modules_need_themselves():
    class Net(bw.Module):
        pass

    made = Net()
    for name, value in {"parameters": "all", "children": [nn.Linear(2)], "state_dict": {}, "edges": 3}.items():
        with pytest.raises(bw.errors.StructureError, match=rf"Net\.{name} is a method"):
            setattr(made, name, value)
    with pytest.raises(bw.errors.StructureError, match=r"Net\.device is a property of modules; choose another name"):
        made.device = "cpu"
    made.forward = lambda x: x + 1  # a function may take the place of a method
    assert float(made(jnp.zeros(()))) == 1


def test_a_tracer_kept_in_a_list_is_named():
    class Net(bw.Module):
        def __init__(self):
            self.log = {"seen": []}

        def forward(self, x):
            self.log["seen"].append(x)
            return x

    says(lambda: bw.compile(Net())(X), bw.errors.TraceLeakError, "would be kept in Net.log['seen'][0]")


def test_networks_of_other_things_than_arrays_print(net):
    shapes = jax.tree.map(lambda a: a.shape, net)
    assert "Linear(?)" in repr(shapes)


def test_results_that_are_not_arrays():
    class Named(bw.Module):
        def __init__(self):
            self.layer = nn.Linear(2)

        def forward(self, x):
            return {"y": self.layer(x), "name": "it"}

    made = Named().initialize(bw.spec(2, 3))
    assert made.layer.weight.shape == (2, 3)
    assert "(2, 2)" in str(made.summary(bw.spec(2, 3)))


def test_parameters_in_lists_are_printed():
    class Net(bw.Module):
        def __init__(self):
            self.ws = [bw.Parameter(jnp.ones(2)), nn.Linear(2)]
            self.d = {"a": bw.Parameter(jnp.ones(3))}

    text = repr(Net())
    assert "(0): Parameter(2,)" in text
    assert "(a): Parameter(3,)" in text


@pytest.mark.parametrize(
    "use",
    [
        lambda net: nn.lora(net, ["0", "2"], rank=2),
        lambda net: nn.quantize(net, ["0", "2"]),
        lambda net: net.freeze(["0", "2"]),
        lambda net: list(net.named_parameters(["0", "2"])),
        lambda net: net.initialize(init=bw.init.zeros(), pattern=["0", "2"]),
    ],
)
def test_a_list_of_patterns(use):
    net = nn.Sequential(nn.Linear(4, in_features=3), nn.ReLU(), nn.Linear(2, in_features=4))
    with pytest.raises(
        TypeError, match=r"must be a regular expression in a string, got \['0', '2'\]; for several, write '0\|2'"
    ):
        use(net)
    with pytest.raises(TypeError, match="a pattern must be a regular expression in a string, got Linear"):
        nn.lora(net, net[0], rank=2)


@pytest.mark.parametrize("wrong", ["float33", True, [2], (2, 2)])
def test_what_is_no_dtype(wrong):
    with pytest.raises(TypeError, match=r"Parameter: dtype must be a dtype such as jnp\.float32 or 'float32', got .*"):
        nn.Linear(3, dtype=wrong)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: nn.Embedding(16, num_embeddings=20), "gives 'num_embeddings' both by position and by name"),
        (lambda: nn.BatchNorm2d(64, epsilon=1e-3), "unexpected argument 'epsilon'. Did you mean 'eps'?"),
        (
            lambda: nn.Linear(20, 256, device="cpu"),
            "unexpected argument 'device'. Leave it out, and move the whole net",
        ),
        (lambda: nn.Bilinear(3, 64), "missing 'out_features', which is given first"),
    ],
)
def test_what_is_suggested_can_be_called(make, match):
    with pytest.raises(TypeError, match=re.escape(match)):
        make()
