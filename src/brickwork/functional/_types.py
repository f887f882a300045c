"""What the functions accept as an array; seen by type checkers only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jax
    import numpy as np

    from ..core import Variable

    ArrayLike = jax.Array | np.ndarray | Variable
