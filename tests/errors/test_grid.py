"""What sampling on grids, one-hot vectors and distances of pairs say to what they can't take."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.errors.checks import refuse

from brickwork import functional as F
from brickwork.errors import ShapeMismatchError


def x(*shape, dtype=jnp.float32):
    return jnp.ones(shape, dtype)


IMAGES = "for images (N, C, H, W) the grid must be (N, HO, WO, 2), with the same N=1."
CASES = {
    "axes of x": (
        lambda: F.grid_sample(x(2, 3), x(2, 3)),
        ShapeMismatchError,
        "grid_sample: x must be images (N, C, H, W), or volumes (N, C, D, H, W), not of 2 axes. Got x: float32[2, 3]. "
        "Reshape the data.",
    ),
    "coordinates": (
        lambda: F.grid_sample(x(1, 1, 2, 2), x(1, 2, 2, 3)),
        ShapeMismatchError,
        f"grid_sample: {IMAGES} Got x: float32[1, 1, 2, 2], grid: float32[1, 2, 2, 3]. Check the two.",
    ),
    "batch": (
        lambda: F.grid_sample(x(1, 1, 2, 2), x(2, 2, 2, 2)),
        ShapeMismatchError,
        f"grid_sample: {IMAGES} Got x: float32[1, 1, 2, 2], grid: float32[2, 2, 2, 2]. Check the two.",
    ),
    "nothing to read": (
        lambda: F.grid_sample(x(1, 1, 0, 2), x(1, 2, 2, 2)),
        ShapeMismatchError,
        "grid_sample: x has no elements to read. Got x: float32[1, 1, 0, 2]. Check the data.",
    ),
    "mode": (
        lambda: F.grid_sample(x(1, 1, 2, 2), x(1, 2, 2, 2), "linear"),
        ValueError,
        "grid_sample: mode must be one of 'bilinear', 'nearest', 'bicubic', got 'linear'.",
    ),
    "padding_mode": (
        lambda: F.grid_sample(x(1, 1, 2, 2), x(1, 2, 2, 2), padding_mode="reflect"),
        ValueError,
        "grid_sample: padding_mode must be one of 'zeros', 'border', 'reflection', got 'reflect'.",
    ),
    "bicubic volumes": (
        lambda: F.grid_sample(x(1, 1, 2, 2, 2), x(1, 2, 2, 2, 3), "bicubic"),
        ValueError,
        "grid_sample: mode 'bicubic' is for images, use 'bilinear'. Got float32[1, 1, 2, 2, 2].",
    ),
    "integers": (
        lambda: F.grid_sample(x(1, 1, 2, 2, dtype=jnp.int32), x(1, 2, 2, 2)),
        TypeError,
        "grid_sample: x holds int32 values, but floating-point values are needed. Cast it: x.astype(jnp.float32). "
        "Got int32[1, 1, 2, 2].",
    ),
    "theta": (
        lambda: F.affine_grid(x(1, 2, 3), (2, 1, 3, 3)),
        ShapeMismatchError,
        "affine_grid: for a size of (2, 1, 3, 3) theta must have shape (2, 2, 3). Got theta: float32[1, 2, 3]. "
        "Check the two.",
    ),
    "size": (
        lambda: F.affine_grid(x(1, 2, 3), (1, 3, 3)),
        ValueError,
        "affine_grid: size must be that of images (N, C, H, W) or volumes (N, C, D, H, W), got (1, 3, 3).",
    ),
    "class": (
        lambda: F.one_hot(np.array([0, 5]), 3),
        IndexError,
        "one_hot: x holds 5 at [1], which is out of range: expected 0 to 2, the classes.",
    ),
    "classes that aren't known": (
        lambda: jax.jit(F.one_hot)(jnp.array([1])),
        ValueError,
        "one_hot: the number of classes can't depend on values that are not known while a program is compiled. "
        "Pass it: one_hot(x, num_classes).",
    ),
    "no classes": (
        lambda: F.one_hot(np.zeros(0, int)),
        ValueError,
        "one_hot: num_classes must be at least 1, or -1 with indices to count, got -1.",
    ),
    "vectors": (
        lambda: F.pdist(x(2, 3, 4)),
        ShapeMismatchError,
        "pdist: x must have 2 axes (N, D), not 3. Got x: float32[2, 3, 4]. Reshape the data.",
    ),
    "dtype": (
        lambda: F.softmax(x(3), dtype=jnp.int32),
        TypeError,
        "softmax: dtype must be one of floating-point numbers, got int32.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case):
    call, kind, message = CASES[case]
    refuse(call, kind, message, note=...)
