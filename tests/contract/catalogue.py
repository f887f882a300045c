"""Every layer: the rows of all families, and how tests run over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from tests.contract.row import Row as Row
from tests.contract.rows import (
    activation,
    attention,
    containers,
    conv,
    dropout,
    embedding,
    linear,
    loss,
    norm,
    pad,
    parametrize,
    pool,
    recurrent,
    resize,
)

_FAMILIES = (
    activation,
    attention,
    containers,
    conv,
    dropout,
    embedding,
    linear,
    loss,
    norm,
    pad,
    parametrize,
    pool,
    recurrent,
    resize,
)
ROWS = [row for family in _FAMILIES for row in family.ROWS]

every_row = pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])


def rows_where(condition: Callable[[Row], bool]) -> Any:
    """Parametrise a test over some rows."""
    chosen = [row for row in ROWS if condition(row)]
    return pytest.mark.parametrize("row", chosen, ids=[row.name for row in chosen])


def close(a: Any, b: Any, dtype: Any = jnp.float32) -> None:
    """Assert that two arrays are equal but for rounding."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    tolerance = 1e-5 if dtype == jnp.float32 else 0.05
    np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), rtol=tolerance, atol=tolerance)
