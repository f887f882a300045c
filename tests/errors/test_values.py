"""Values that are no numbers, and numbers of the wrong kind."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from tests.errors.checks import refuse, unchanged

import brickwork as bw
from brickwork import functional, losses, nn

OBJECTS = np.array([[1, None]], dtype=object)
NUMBERS = "a variable holds numbers, got {}; convert it to a numeric array first"


def built():
    net = nn.Sequential(nn.Linear(6), nn.ReLU(), nn.Linear(4))
    net(jnp.ones((2, 20)))
    return net


@pytest.mark.parametrize("kind", [bw.Parameter, bw.Buffer, bw.Variable])
def test_a_variable_of_objects(kind):
    name = kind.__name__
    refuse(lambda: kind(OBJECTS), TypeError, f"{name}: {NUMBERS.format('ndarray with dtype object')}")
    refuse(lambda: kind("abc"), TypeError, f"{name}: {NUMBERS.format('str with dtype <U3')}")
    refuse(lambda: kind([None]), TypeError, f"{name}: {NUMBERS.format('list with dtype object')}")


def test_objects_assigned():
    net = built()
    message = f"Parameter '0.bias': {NUMBERS.format('ndarray with dtype object')}"
    with unchanged(net):
        refuse(lambda: setattr(net[0].bias, "value", np.full(6, None)), TypeError, message)
        refuse(lambda: net[0].bias.load(np.full(6, None)), TypeError, message)


def test_objects_as_input():
    net = built()
    with unchanged(net):
        refuse(
            lambda: net(OBJECTS),
            TypeError,
            "linear: x is a NumPy array of dtype object, which JAX cannot compute with. Convert it to "
            "numbers first, e.g. x.astype('float32').",
            note="in net.0 (Linear(20 → 6)), called with object[1, 2]",
        )


def test_objects_as_input_of_a_deferred_network():
    net = nn.Sequential(nn.Linear(6))
    with unchanged(net), pytest.raises(TypeError, match="NumPy array of dtype object"):
        net(OBJECTS)


@pytest.mark.parametrize("deferred", [False, True])
def test_objects_as_input_of_a_compiled_network(deferred):
    net = nn.Sequential(nn.Linear(6)) if deferred else built()
    with unchanged(net), pytest.raises(TypeError) as info:
        bw.compile(net)(OBJECTS)
    message = str(info.value)
    assert "object" in message
    assert "astype" in message or "Convert" in message or "convert" in message
    assert "_Traced" not in message and "static_argnums" not in message


def test_objects_as_argument_of_a_compiled_function():
    with pytest.raises(TypeError) as info:
        bw.compile(lambda a, batch: a)(jnp.ones(2), {"x": OBJECTS})
    assert "batch" in str(info.value) and "object" in str(info.value)


def test_arguments_that_are_neither_array_nor_hashable():
    refuse(
        lambda: bw.compile(lambda x, tags: x)(jnp.ones(2), {"a"}),
        TypeError,
        "argument tags is a set, which is neither an array nor hashable; pass it as an array, make it "
        "hashable (a frozen dataclass, a tuple), or capture it in a closure",
    )


def test_integers_as_input():
    net = built()
    with unchanged(net):
        refuse(
            lambda: net(jnp.ones((2, 20), jnp.int32)),
            TypeError,
            "linear: x holds int32 values, but weight is float32. Cast it: x.astype(jnp.float32). Got int32[2, 20].",
            note="in net.0 (Linear(20 → 6)), called with int32[2, 20]",
        )


def test_what_is_no_array():
    net = built()
    for x, what, advice in (
        (None, "None", "Pass the array; a function without a return statement returns None."),
        ([[1.0]], "a list", "Convert it with jnp.asarray(...), or jnp.stack(...) for a list of arrays."),
        ({"x": 1}, "a dict", "Pass one of its values."),
        (nn.ReLU(), "a brickwork ReLU", "Call the module on an array and pass its output."),
    ):
        with unchanged(net), pytest.raises(TypeError) as info:
            net(x)
        assert str(info.value) == f"linear: x must be an array, got {what}. {advice}"
        assert info.value.__notes__[-1].startswith("  in net.0 (Linear(20 → 6)), called with ")


def test_parameters():
    refuse(lambda: bw.Parameter(), TypeError, "Parameter: give either a value or shape=..., not neither")
    refuse(
        lambda: bw.Parameter(jnp.ones(2), shape=(2,)),
        TypeError,
        "Parameter: give either a value or shape=..., not both",
    )
    refuse(
        lambda: bw.Parameter(jnp.arange(3)),
        TypeError,
        "Parameter: dtype int32 can't be trained; use bw.Buffer, or pass trainable=False",
    )
    refuse(
        lambda: bw.Parameter(shape=(2,), dtype="float64"),
        ValueError,
        "Parameter: dtype float64 needs 64-bit mode; call jax.config.update('jax_enable_x64', True) at "
        "the start of the program",
    )
    refuse(
        lambda: bw.Parameter(jnp.ones(()), shape=()),
        TypeError,
        "Parameter: give either a value or shape=..., not both",
    )


def test_seeds():
    refuse(lambda: bw.seed(-1), ValueError, "seed: n must be in [0, 2**64), got -1")
    refuse(lambda: bw.seed("a"), TypeError, "seed: n must be an integer, got 'a'")


def test_losses():
    refuse(
        lambda: losses.cross_entropy(jnp.ones((2, 3)), jnp.ones((2, 1), jnp.int32)),
        bw.errors.ShapeMismatchError,
        "cross_entropy: a target of integers holds class indices, one for each example. Got logits: "
        "float32[2, 3], target: int32[2, 1]. Remove the extra axis: target.reshape(-1).",
    )


SCORES = np.zeros((2, 3), np.float32)
INDICES = {
    "embedding": (
        lambda x: functional.embedding(x, np.eye(3, dtype=np.float32)),
        [[0, 3]],
        "embedding: indices holds 3 at [0, 1], which is out of range: expected 0 to 2, the rows of weight.",
    ),
    "Embedding": (
        nn.Embedding(3, 2),
        [1, -1],
        "embedding: indices holds -1 at [1], which is out of range: expected 0 to 2, the rows of weight.",
    ),
    "EmbeddingBag": (
        nn.EmbeddingBag(3, 2),
        [[4]],
        "embedding_bag: indices holds 4 at [0, 0], which is out of range: expected 0 to 2, the rows of weight.",
    ),
    "cross_entropy": (
        lambda x: losses.cross_entropy(SCORES, x),
        [0, 3],
        "cross_entropy: target holds 3 at [1], which is out of range: expected 0 to 2, or -100, the classes of logits.",
    ),
    "nll": (
        lambda x: losses.nll(SCORES[0], x, ignore_index=-1),
        -2,
        "nll: target holds -2, which is out of range: expected 0 to 2, or -1, the classes of log_probs.",
    ),
    "multi_margin": (
        lambda x: losses.multi_margin(SCORES, x),
        [-1, 0],
        "multi_margin: target holds -1 at [0], which is out of range: expected 0 to 2, the classes of scores.",
    ),
    "multilabel_margin": (
        lambda x: losses.multilabel_margin(SCORES, x),
        [[0, -1, 0], [3, -1, 0]],
        "multilabel_margin: target holds 3 at [1, 0], which is out of range: expected -1 to 2, the classes of scores.",
    ),
    "ctc": (
        lambda x: losses.ctc(np.zeros((4, 2, 3), np.float32), x, [4, 4], [1, 2]),
        [[1, 9], [1, 9]],  # the first 9 lies behind the labels
        "ctc: targets holds 9 at [1, 1], which is out of range: expected 0 to 2, the classes of log_probs.",
    ),
}


@pytest.mark.parametrize("name", INDICES)
def test_indices_out_of_range(name):
    call, indices, message = INDICES[name]
    refuse(lambda: call(np.asarray(indices)), IndexError, message, note=...)
    assert jnp.isnan(call(jnp.asarray(indices))).any()  # on a device they aren't looked at


def test_what_is_ignored_may_be_out_of_range():
    assert losses.cross_entropy(SCORES, np.array([-100, 0])) > 0
    assert losses.cross_entropy(SCORES, np.array([7, 0]), ignore_index=7) > 0
    assert losses.multilabel_margin(SCORES, np.full((2, 3), -1)) == 0
