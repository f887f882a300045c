"""What a file may make of its architecture: classes that are known, and errors for everything else."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest
from tests.io.architecture.test_record import CLASSES, MLP, Around, X, architecture, double

import brickwork as bw
from brickwork import nn
from brickwork.errors import CheckpointError
from brickwork.io.architecture._record import ARCHITECTURE

HERE = MLP.__module__


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


def edit(path, change):
    """Change what a file says about the network; ``change`` gets its JSON and may return another."""
    tree, info = bw.load(path, with_metadata=True)
    found = json.loads(info.metadata[ARCHITECTURE])
    found = change(found) or found
    text = found if isinstance(found, str) else json.dumps(found)
    bw.save(path, tree, metadata={ARCHITECTURE: text}, aliases=info.aliases)


def saved(path, net=None):
    net = MLP() if net is None else net
    net(X)
    net.save(path, architecture=True)
    return path


def fails(path, match, classes: Any = CLASSES):
    with pytest.raises(CheckpointError, match=match) as caught:
        bw.load_module(path, classes=classes)
    assert str(path) in str(caught.value)


def test_classes_that_were_not_passed(path):
    saved(path, Around(MLP(), nn.Lambda(double)))
    fails(
        path,
        rf"the network is made of {HERE}:Around, {HERE}:MLP, {HERE}:double, which brickwork doesn't know. "
        r"Nothing is imported on the file's word: pass what you trust, "
        r"load_module\(path, classes=\[Around, MLP, double\]\)",
        None,
    )


def test_classes_by_other_names(path):
    saved(path)
    name = f"{HERE}:MLP"

    class Renamed(MLP):
        def __init__(self, width=8):
            super().__init__(width)

    assert type(bw.load_module(path, classes={name: Renamed})) is Renamed
    other = type("MLP", (MLP,), {"__module__": "elsewhere"})
    assert type(bw.load_module(path, classes=[other])) is other
    assert type(bw.load_module(path, classes=[other, MLP])) is MLP
    third = type("MLP", (MLP,), {"__module__": "third"})
    fails(
        path,
        rf"the file's {name} could be any of elsewhere:MLP, third:MLP; pass classes=\{{'{name}': ...\}}",
        [other, third],
    )
    for wrong in (MLP, "MLP", 3, [3], {3: MLP}):
        with pytest.raises(TypeError, match=r"load_module: (classes must|the keys of classes)"):
            bw.load_module(path, classes=wrong)


def test_a_class_that_has_changed(path):
    saved(path, MLP(depth=2))

    class Changed(bw.Module):
        def __init__(self, size=8):
            self.out = nn.Linear(size)

    fails(path, r"has no argument 'depth', it has \['size'\]; the class has changed", {f"{HERE}:MLP": Changed})

    class Smaller(Changed):
        def __init__(self, depth):
            super().__init__(2)

    fails(path, "its arrays don't fit the network that it describes", {f"{HERE}:MLP": Smaller})


def test_versions(path):
    class Versioned(MLP):
        _version = 2

    saved(path, Versioned())
    assert architecture(path)["steps"][0]["version"] == 2
    Versioned._version = 3
    assert bw.load_module(path, classes=[Versioned])
    Versioned._version = 1
    fails(path, r"has version 2 of .*Versioned, and here is version 1; install the newer code", [Versioned])
    edit(path, lambda found: found | {"format": 2})
    fails(path, r"it has format 2, this version of brickwork reads format 1; install a newer one", [Versioned])


def test_files_without_an_architecture(path):
    net = MLP()
    net(X)
    net.save(path)
    fails(path, r"has no architecture, so the network can't be built from it; build it and call net.load")
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        bw.load_module(path.with_suffix(".gone"))


LINEAR = {"class": "brickwork.nn:Linear", "arguments": {"out_features": 2}}
MAKER = {"class": "brickwork.nn:Repeat", "arguments": {"n": 1000, "make_block": {"maker": None}}}
NESTED = functools.reduce(lambda x, _: [x], range(500), [])


def _blocks(depth):
    inner = {"steps": [{"class": "brickwork.nn:ReLU", "arguments": {}}], "root": 0}
    for _ in range(depth):
        inner = {"steps": [MAKER | {"arguments": {"n": 1000, "make_block": {"maker": inner}}}], "root": 0}
    return inner


@pytest.mark.parametrize(
    ("steps", "match"),
    [
        ([LINEAR | {"arguments": {"out_features": -1}}], r"step 0: brickwork.nn:Linear\(out_features=-1\) failed with"),
        ([LINEAR | {"arguments": []}], "step 0: 'arguments' is not an object"),
        ([LINEAR | {"version": "x"}], "the version of brickwork.nn:Linear is 'x', which is no number"),
        (
            [{"class": "os:system", "arguments": {"command": "true"}}],
            "is made of os:system, which brickwork doesn't know",
        ),
        ([{"class": "builtins:exec", "arguments": {}}], "is made of builtins:exec"),
        ([{"class": "jax.numpy:load", "arguments": {}}], "is made of jax.numpy:load"),
        ([{"class": "jax.nn:relu", "arguments": {}}], "jax.nn:relu is not a class of modules"),
        ([{"class": 3, "arguments": {}}], "3 is not the name of a class"),
        ([LINEAR, {"set": [0, "_bw"], "to": 1}], "'_bw' is not an attribute that can be set"),
        ([LINEAR, {"set": [0, "__class__"], "to": {"named": "brickwork.nn:ReLU"}}], "'__class__' is not an attribute"),
        ([LINEAR, {"set": [0, "forward"], "to": {"ref": [0]}}], "step 1: Linear.forward is a method"),
        ([LINEAR, {"set": [0, "in_features"], "to": 1}], "'in_features' is not an attribute that can be set"),
        ([LINEAR, {"set": [0], "to": 1}], "is a module, not a place in one"),
        ([LINEAR, {"set": [0, "weight", "shape"], "to": 1}], "there is no 'shape' in a Parameter"),
        ([LINEAR, {"set": [4, "x"], "to": 1}], "there is no module 4 yet"),
        ([LINEAR, {"set": "x", "to": 1}], "'x' is no place"),
        ([LINEAR, {"delete": [0, "gone"]}], "there is no attribute 'gone' to delete"),
        (
            [LINEAR, {"parametrize": [0], "name": "weight", "by": "eval", "arguments": {}}],
            "can't be parametrised by 'eval'",
        ),
        ([LINEAR, {"call": 1}], "'call' is no kind of step"),
        ([7], "step 0: it is not an object"),
        ([LINEAR | {"arguments": {"out_features": {"eval": "1"}}}], "'eval' is no kind of value"),
        ([LINEAR | {"arguments": {"out_features": 2, "dtype": {"dtype": "object"}}}], "'object' is no dtype"),
        (
            [LINEAR | {"arguments": {"out_features": {"variable": "Parameter", "shape": [-1], "dtype": "float32"}}}],
            "no shape",
        ),
        (
            [LINEAR | {"arguments": {"out_features": {"make": "brickwork.nn:Linear", "arguments": {}}}}],
            "no class of init",
        ),
        (
            [
                LINEAR
                | {
                    "arguments": {
                        "out_features": {"partial": {"named": "brickwork.nn:Linear"}, "args": [], "keywords": {}}
                    }
                }
            ],
            "'partial' is not of a function",
        ),
        ([LINEAR | {"arguments": {"out_features": NESTED}}], "nested too deeply"),
        ([{"class": "brickwork.nn:LSTM", "arguments": {"hidden_size": 2, "num_layers": 10**9}}], "makes more than"),
        (_blocks(3)["steps"], "makes more than"),
        (_blocks(20)["steps"], "nested too deeply|makes more than"),
        ([LINEAR | {"arguments": {"out_features": 10**12, "in_features": 10**12}}], "don't fit the network"),
        (
            [
                LINEAR,
                {"class": "brickwork.nn:Quantized", "arguments": {"layer": {"ref": [0]}, "shape": [10**9, 10**9]}},
            ],
            "failed with ShapeMismatchError|don't fit",
        ),
        ([], "the root is 0, which is no module"),
        ({}, "'steps' is not a list"),
    ],
)
def test_hostile_architectures(path, steps, match):
    net = nn.Linear(2)
    net(X)
    net.save(path, architecture=True)

    def change(found):
        found["steps"] = steps
        found["root"] = max(0, sum("class" in s for s in steps if isinstance(s, dict)) - 1) if steps else 0

    edit(path, change)
    fails(path, match, None)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "Expecting value"),
        ("[]", "it does not say its format"),
        ("[" * 100_000, "nested too deeply"),
        ('{"format": "1"}', "it does not say its format"),
        ('{"format": 1, "steps": [], "root": true}', "the root is True"),
    ],
    ids=["empty", "list", "deep", "format", "root"],
)
def test_text_that_is_no_architecture(path, text, match):
    saved(path, nn.Linear(2))
    bw.save(path, bw.load(path), metadata={ARCHITECTURE: text})
    fails(path, match)


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"eval": [7]}, "'eval' is not a list of numbers of modules"),
        ({"frozen": 3}, "'frozen' is not a list of names"),
        ({"built": {}}, "'built' is not a list"),
        ({"dtypes": {"weight": "int8"}}, "'weight' can't be converted to int8"),
        ({"dtypes": []}, "'dtypes' is not an object"),
    ],
)
def test_settings_that_do_not_fit(path, more, match):
    saved(path, nn.Linear(2))
    edit(path, lambda found: found | more)
    fails(path, match)
