"""What counts as an array, and what the messages say where something does not."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import brickwork as bw
from brickwork import functional as F
from brickwork.errors import ShapeMismatchError
from brickwork.functional import _checks as checks


def test_arrays_and_tracers_pass_unchanged():
    x = jnp.ones(3)
    assert checks.to_array(x, "f", "x") is x
    jax.jit(lambda t: (checks.to_array(t, "f", "x") is t, t)[1])(x)


@pytest.mark.parametrize("x", [np.ones(2, np.float32), np.float32(1), 2.0, 3])
def test_numbers_are_accepted(x):
    assert F.relu(x).shape == np.shape(x)


def test_numpy_of_an_extension_dtype_is_accepted():
    assert F.relu(np.ones(2, ml_dtypes.bfloat16)).dtype == jnp.bfloat16


def test_variables_are_unwrapped():
    assert F.relu(bw.Parameter(jnp.array([-1.0, 1.0]))).tolist() == [0.0, 1.0]
    assert F.linear(jnp.ones((2, 3)), bw.Parameter(jnp.ones((4, 3)))).shape == (2, 4)


class Frame:
    def __array__(self):
        return np.ones(2)


REFUSED = [
    ([1.0, 2.0], r"relu: x must be an array, got a list\. Convert it with jnp\.asarray\(\.\.\.\)"),
    ((1, 2), r"got a tuple\. Convert it with jnp\.asarray"),
    (None, r"got None\. Pass the array; a function without a return statement returns None\."),
    ({"x": 1}, r"got a dict\. Pass one of its values\."),
    ("text", r"got a str\. Convert it with jnp\.asarray\(\.\.\.\) if it holds numbers\."),
    (jax.ShapeDtypeStruct((2,), jnp.float32), r"An abstract array holds no values; use net\.init"),
    (Frame(), r"got a \S+ Frame\. Convert it with jnp\.asarray\(\.\.\.\)\."),
    (np.array(["a"]), r"relu: x is a NumPy array of dtype <U1, which JAX cannot compute with"),
    (np.array([None]), r"dtype object, .* Convert it to numbers first, e\.g\. x\.astype\('float32'\)"),
]


@pytest.mark.parametrize(("x", "message"), REFUSED, ids=lambda v: str(v)[:20])
def test_what_is_no_array(x, message):
    with pytest.raises(TypeError, match=message):
        F.relu(x)


def test_a_module_is_no_array():
    with pytest.raises(TypeError, match=r"got a brickwork ReLU\. Call the module on an array"):
        F.relu(bw.nn.ReLU())


def test_sizes():
    assert checks.integer(np.int64(3), "f", "n") == 3
    with pytest.raises(TypeError, match=r"f: n must be an int, got 1\.5 \(float\)\."):
        checks.integer(1.5, "f", "n")
    with pytest.raises(TypeError, match=r"f: n must be an int, got True \(bool\)\."):
        checks.integer(True, "f", "n")
    with pytest.raises(ValueError, match=r"f: n must be at least 1, got 0\."):
        checks.integer(0, "f", "n", 1)
    assert checks.sizes([1, np.int32(2)], 2, "f", "n") == (1, 2)
    with pytest.raises(ValueError, match=r"f: n must be an int or a pair \(height, width\), got"):
        checks.sizes((1, 2, 3), 2, "f", "n")


def test_axes():
    assert checks.axis(-1, 3, "f") == 2
    with pytest.raises(ShapeMismatchError, match=r"f: dim=3 is no axis of an array of 3 .* -3 to 2"):
        checks.axis(3, 3, "f")
    with pytest.raises(ShapeMismatchError, match=r"expected 0 or -1"):
        checks.axis(1, 0, "f")


def test_unknown_reduction():
    with pytest.raises(ValueError, match=r"f: reduction must be 'mean', 'sum' or 'none', got 'm'"):
        checks.reduction("m", "f")
