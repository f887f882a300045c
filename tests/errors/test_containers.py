"""What containers, adapters and quantised layers say about wrong use."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from tests.errors.checks import refuse, unchanged

import brickwork as bw
from brickwork import nn
from brickwork.errors import ShapeMismatchError, StructureError

X = jnp.ones((2, 4))


class Holder(nn.Module):
    def __init__(self, layers):
        self.layers = layers

    def forward(self, x):
        return self.layers(x)


CALLED = {
    "ModuleList": (
        lambda: nn.ModuleList([nn.Linear(3)]),
        "ModuleList holds layers and can't be called. Call them in a loop, `for layer in self.layers: x = layer(x)`, "
        "or use nn.Sequential.",
    ),
    "ModuleDict": (
        lambda: nn.ModuleDict({"a": nn.Linear(3)}),
        "ModuleDict holds layers and can't be called. Call one of them: `self.choices[key](x)`.",
    ),
    "ParameterList": (
        lambda: nn.ParameterList([jnp.ones(2)]),
        "ParameterList holds parameters and can't be called; compute with them: `x @ self.params[i]`.",
    ),
    "ParameterDict": (
        lambda: nn.ParameterDict({"a": jnp.ones(2)}),
        "ParameterDict holds parameters and can't be called; compute with them: `x @ self.params[key]`.",
    ),
}


@pytest.mark.parametrize("kind", CALLED)
def test_calling_what_computes_nothing(kind):
    make, message = CALLED[kind]
    for call in (lambda net: net(X), lambda net: bw.compile(net)(X)):
        with pytest.raises(TypeError) as info:
            call(Holder(make()))
        assert str(info.value) == message
        assert [n for n in info.value.__notes__ if n.startswith("  in net")] == [
            f"  in net.layers ({kind}()), called with float32[2, 4]"
        ]


WRONG = {
    "one layer": (
        lambda: nn.ModuleList(nn.Linear(3)),
        "ModuleList takes a list of layers, got one Linear; write [layer]",
    ),
    "a dict for a list": (
        lambda: nn.ModuleList({"a": nn.ReLU()}),
        "ModuleList takes a list of layers, got a dict; use nn.ModuleDict",
    ),
    "a number": (lambda: nn.ModuleList([nn.ReLU(), 3]), "layer 1 must be a module or a function, got int 3"),
    "a class": (lambda: nn.ModuleDict({"a": nn.ReLU}), "layer 'a' is the class ReLU, not a layer; write ReLU(...)"),
    "a list for a dict": (
        lambda: nn.ModuleDict([nn.ReLU()]),
        "ModuleDict takes a dict or pairs of keys and items, got ReLU at place 0",
    ),
    "a layer for a dict": (lambda: nn.ModuleDict(nn.Linear(3)), "ModuleDict takes a dict, got one Linear"),
    "a key that is a number": (lambda: nn.ModuleDict({1: nn.ReLU()}), "ModuleDict: keys are strings, got 1 (int)"),
    "an array for a list": (
        lambda: nn.ParameterList(jnp.ones(3)),
        "ParameterList takes a list of parameters, got one ArrayImpl; write [value]",
    ),
    "a parameter for a list": (
        lambda: nn.ParameterList(nn.Parameter(jnp.ones(3))),
        "ParameterList takes a list of parameters, got one Parameter; write [value]",
    ),
    "integers": (
        lambda: nn.ParameterList([np.arange(3)]),
        "ParameterList: item 0 holds int64 values, which can't be trained; convert it to floats, or wrap it: "
        "bw.Buffer(value)",
    ),
    "a string": (
        lambda: nn.ParameterDict({"a": "b"}),
        "ParameterDict: item 'a' must be a parameter, an array or a number, got str",
    ),
    "True": (
        lambda: nn.ParameterList([True]),
        "ParameterList: item 0 must be a parameter, an array or a number, got bool",
    ),
    "a layer among parameters": (
        lambda: nn.ParameterList([nn.Linear(3)]),
        "ParameterList: item 0 must be a parameter, an array or a number, got Linear; layers belong in "
        "an nn.ModuleList",
    ),
    "a branch": (
        lambda: nn.Parallel([nn.ReLU()]),
        "branch 0 must be a module or a function, got list [ReLU()]; unpack it: Parallel(*branches)",
    ),
    "a shortcut": (lambda: nn.Residual(shortcut=3), "Residual: shortcut must be a module or a function, got int 3"),
    "no function": (lambda: nn.Lambda("relu"), "Lambda: fn must be a module or a function, got str 'relu'; for an ..."),
    "a layer as a function": (
        lambda: nn.Lambda(nn.ReLU()),
        "Lambda takes a function, got a ReLU, which is a layer already",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_can_not_be_held(case):
    make, message = WRONG[case]
    refuse(make, TypeError, message)


def test_names():
    refuse(
        lambda: nn.ModuleDict({"a.b": nn.ReLU()}),
        ValueError,
        "ModuleDict: key 'a.b' becomes part of the names of parameters, so it must be a non-empty string without dots",
    )
    refuse(
        lambda: nn.Sequential({"forward": nn.ReLU()}),
        ValueError,
        "Sequential: 'forward' is an attribute of every Sequential; rename it",
    )
    refuse(lambda: nn.Sequential({"": nn.ReLU()}), ValueError, "Sequential: key '' becomes part of ...")
    refuse(
        lambda: nn.Parallel({"mode": nn.ReLU()}), ValueError, "Parallel: 'mode' is an attribute of every Parallel..."
    )


def test_what_is_not_there():
    net = nn.ModuleDict({"a": nn.ReLU()})
    for call in (lambda: net["b"], lambda: net.pop("b"), lambda: net.__delitem__("b")):
        refuse(call, KeyError, "ModuleDict has no 'b'; it has ['a']")
    refuse(nn.ParameterDict().popitem, KeyError, "ParameterDict is empty")
    layers = nn.ModuleList([nn.ReLU()])
    for call in (lambda: layers[1], lambda: layers.pop(-2), lambda: layers.__delitem__(3)):
        refuse(call, IndexError, "ModuleList has 1 layers, no index ...")
    refuse(lambda: nn.ParameterList([1.0])[1], IndexError, "ParameterList has 1 parameters, no index 1")
    refuse(nn.ModuleList().pop, IndexError, "ModuleList has 0 layers, no index -1")


def test_a_failed_change_changes_nothing():
    net = nn.Sequential({"a": nn.Linear(3), "b": nn.ReLU()})
    with unchanged(net):
        refuse(lambda: net.append(3), TypeError, "layer 2 must be ...")
        refuse(lambda: net.__setattr__("a", 3), TypeError, "layer 'a' must be ...")
        refuse(lambda: net.extend([nn.ReLU(), "x"]), TypeError, "layer 3 must be ...")
    choices = nn.ModuleDict({"a": nn.ReLU()})
    with unchanged(choices):
        refuse(lambda: choices.update({"b": nn.ReLU(), "c": 3}), TypeError, "layer 'c' must be ...")


def test_branches_that_do_not_fit():
    net = nn.Parallel({"wide": nn.Linear(3), "narrow": nn.Linear(2)}, mode="sum")
    with pytest.raises(ShapeMismatchError) as info:
        net(X)
    assert str(info.value) == (
        "Parallel: outputs must have the same shape for mode='sum'. Branch wide gives float32[2, 3], branch narrow "
        "float32[2, 2]. Change one of them, or choose another mode or dim."
    )
    assert info.value.__notes__ == ["  in net (Parallel(sum)), called with float32[2, 4]"]
    refuse(
        lambda: nn.Parallel(nn.Linear(3), jnp.transpose)(X),
        ShapeMismatchError,
        "Parallel: outputs must have the same shape except along axis 1 for mode='concatenate'. Branch 0 gives "
        "float32[2, 3], branch 1 float32[4, 2]. ...",
        note="in net (Parallel(concatenate, dim=1)), called with float32[2, 4]",
    )
    refuse(
        lambda: nn.Parallel(jnp.sin, lambda x: x.astype(jnp.bfloat16))(X),
        TypeError,
        "Parallel: branch 0 gives float32, branch 1 bfloat16. Convert one of them with .astype.",
        note="in net (Parallel(concatenate, dim=1)), called with float32[2, 4]",
    )
    refuse(
        lambda: nn.Parallel(jnp.sin, dim=2)(X),
        ShapeMismatchError,
        "Parallel: dim=2 is no axis of an array of 2 dimensions; expected -2 to 1.",
        note="in net (Parallel(concatenate, dim=2)), called with float32[2, 4]",
    )
    refuse(
        lambda: nn.Parallel()(X),
        ValueError,
        "Parallel: there are no branches; pass some, or append them.",
        note="in net (Parallel(concatenate, dim=1)), called with float32[2, 4]",
    )
    refuse(lambda: nn.Parallel(mode="max"), ValueError, "Parallel: mode must be one of 'concatenate', ..., got 'max'.")
    refuse(lambda: nn.Parallel(dim=1.0), TypeError, "Parallel: dim must be an int, got 1.0 (float).")


def test_residuals_that_do_not_fit():
    note = "in net (Residual()), called with float32[2, 4]"
    refuse(
        lambda: nn.Residual(nn.Linear(3))(X),
        ShapeMismatchError,
        "Residual: the layers turn x, float32[2, 4], into float32[2, 3]. The two are added, so they must have the same "
        "shape: give shortcut=..., a layer that changes x alike, such as nn.Linear or a convolution with "
        "kernel_size=1.",
        note=note,
    )
    refuse(
        lambda: nn.Residual(nn.Linear(3), shortcut=nn.Linear(5))(X),
        ShapeMismatchError,
        "Residual: the layers turn x, float32[2, 4], into float32[2, 3], and shortcut turns it into float32[2, 5]. The "
        "two are added, so they must have the same shape: change one of them.",
        note=note,
    )
    refuse(
        lambda: nn.Residual(lambda x: x.astype(jnp.bfloat16))(X),
        TypeError,
        "Residual: the layers turn x, float32[2, 4], into bfloat16[2, 4]. The two are added, so they must have the "
        "same dtype: convert one with .astype.",
        note=note,
    )


# --- adapters and quantised layers ----------------------------------------------------------------


def make():
    return nn.Sequential(nn.Linear(3, in_features=4), nn.ReLU(), nn.Linear(2, in_features=3))


def test_lora():
    net = make()
    with unchanged(net):
        refuse(
            lambda: nn.lora(net, r"head", 2),
            ValueError,
            "lora: 'head' matches none of the paths (0, 2); a pattern is a regular expression that must match the "
            "whole path",
        )
        refuse(lambda: nn.lora(net, r"1", 2), ValueError, "lora: '1' matches none of the paths (0, 2); ...")
        refuse(lambda: nn.lora(net, r"*", 2), ValueError, "'*' is not a regular expression: ...")
        refuse(lambda: nn.lora(net, r".*", 0), ValueError, "LoRA: rank must be at least 1, got 0.")
        refuse(lambda: nn.lora(net, r".*", 1.5), TypeError, "LoRA: rank must be an int, got 1.5 (float).")
        refuse(lambda: nn.lora(net, r".*", 1, alpha="x"), TypeError, "LoRA: alpha must be a number, got 'x'")
        refuse(lambda: nn.lora(net, r".*", 1, alpha=float("nan")), ValueError, "LoRA: alpha must be finite, got nan")
        refuse(lambda: nn.lora(net, r".*", 1, dropout=2), ValueError, "LoRA: dropout must be in [0, 1], got 2.0.")
        refuse(lambda: nn.lora(net, r".*", 1, init="x"), TypeError, "init= takes an initializer ...; got str 'x'")
        refuse(lambda: nn.merge_lora(net), ValueError, "merge_lora: Sequential has no adapters inside")
    refuse(lambda: nn.lora([net], r".*", 1), TypeError, "lora: net must be a module, got list")
    refuse(
        lambda: nn.lora(nn.Linear(3), r".*", 1),
        ValueError,
        "lora: net is itself a Linear; put it into a network, nn.Sequential(layer)",
    )
    refuse(
        lambda: nn.lora(nn.Sequential(nn.ReLU()), r".*", 1),
        ValueError,
        "lora: Sequential holds no layer that can be wrapped; those are Conv1d, Conv2d, Conv3d, Embedding, Linear, "
        "MultiheadAttention",
    )
    refuse(
        lambda: nn.LoRA(nn.ReLU(), 1),
        TypeError,
        "LoRA: base must be one of Conv1d, Conv2d, Conv3d, Embedding, Linear, MultiheadAttention, got a ReLU",
    )
    refuse(
        lambda: nn.lora(nn.lora(net, r"0", 2), r".*", 2),
        ValueError,
        "lora: '0' has an adapter already; fold it in with nn.merge_lora(net) first",
    )
    refuse(
        lambda: setattr(net[0], "weight", net[2].weight),
        StructureError,
        "LoRA: 'weight' belongs to the layer that is wrapped; set it there, `.base.weight = ...`. To tie weights, do "
        "so before the adapters are added.",
    )


def test_a_layer_of_ones_own_is_not_wrapped():
    """It may do anything with its weight."""

    class Scaled(nn.Linear):
        def forward(self, x):
            return super().forward(x) / jnp.linalg.norm(self.weight.value)

    net = nn.Sequential(Scaled(3), nn.Linear(2))
    refuse(lambda: nn.lora(net, r"0", 2), ValueError, "lora: '0' matches none of the paths (1); ...")
    nn.lora(net, r".*", 2)
    assert type(net[0]) is Scaled


def test_quantize():
    net = make()
    with unchanged(net):
        refuse(lambda: nn.quantize(net, dtype=jnp.int4), ValueError, "quantize: dtype must be int8, got int4")
        refuse(lambda: nn.quantize(net, r"7"), ValueError, "quantize: '7' matches none of the paths (0, 2); ...")
        net[2].weight[0, 0] = jnp.nan
        refuse(
            lambda: nn.quantize(net),
            ValueError,
            "Quantized: Parameter '2.weight' holds infinite numbers or NaN, which no integer stands for",
        )
        net[2].weight[0, 0] = 0.0
    refuse(
        lambda: nn.quantize(nn.Linear(3)), ValueError, "quantize: net is itself a Linear; put it into a network, ..."
    )
    refuse(lambda: nn.Quantized(nn.ReLU()), TypeError, "Quantized: layer must be one of ..., got a ReLU")
    refuse(
        lambda: nn.quantize(nn.quantize(net)),
        ValueError,
        "quantize: Sequential holds no layer that can be wrapped; those are Conv1d, Conv2d, Conv3d, Embedding, Linear",
    )
    refuse(
        lambda: net[0](jnp.ones((2, 5))),
        ShapeMismatchError,
        "linear: x has 5 features in its last axis, but weight of shape (3, 4) expects 4. Got x: float32[2, 5]. ...",
        note="in net (Quantized(Linear(4 → 3))), called with float32[2, 5]",
    )
    refuse(
        lambda: net[0](jnp.ones((2, 4), jnp.int32)),
        TypeError,
        "linear: x holds int32 values, but weight is float32. Cast it: x.astype(jnp.float32). Got int32[2, 4].",
        note="in net (Quantized(Linear(4 → 3))), called with int32[2, 4]",
    )
