"""Initializers that only layers need."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._init_base import require_float, standard
from ..core import Parameter, Variable
from ..init import ElementwiseInitializer, Initializer, normal

Shape = tuple[int, ...]


class fan_in_uniform(ElementwiseInitializer):
    r"""Uniform distribution, :math:`U(-1/\sqrt{n}, 1/\sqrt{n})` for ``n`` inputs to each output.

    Args:
        weight: the weight whose inputs count, for the initializer of a bias; ``None`` for that
            of a weight ``(out, in, ...)`` itself. It may have a shape that is not known yet.
        first: whether only the axis behind that of the outputs counts.

    Example:
        >>> import numpy as np
        >>> from brickwork.nn._init import fan_in_uniform
        >>> values = fan_in_uniform().draw(np.random.default_rng(0), (2, 100), np.float32)
        >>> bool((abs(values) <= 0.1).all())
        True
    """

    def __init__(self, weight: Variable | None = None, *, first: bool = False) -> None:
        self._first = first
        # The bias's initializer refers to the weight, never back: there is no reference cycle,
        # and a deep copy of the layer copies both together.
        self._weight = weight

    def draw_block(self, rng: np.random.Generator, n: int, shape: Shape, dtype: Any) -> Any:
        """Draw ``n`` of them."""
        require_float(self, dtype)
        inputs = shape if self._weight is None else self._weight.known_shape[self._weight.stacked :]
        values = standard(rng, n, dtype, uniform=True)
        counted = inputs[1:2] if self._first else inputs[1:]
        values *= 1 / math.sqrt(max(math.prod(counted), 1))
        return values

    @property
    def ready(self) -> bool:
        """Whether the number of inputs is known."""
        return self._weight is None or None not in self._weight.shape

    def follow(self, weight: Variable) -> None:
        """Count the inputs of this weight from now on."""
        self._weight = weight


class normal_but_row(Initializer):
    """Standard normal distribution, except for one row of zeros.

    Args:
        row: the index of the row.

    Example:
        >>> import numpy as np
        >>> from brickwork.nn._init import normal_but_row
        >>> normal_but_row(0).draw(np.random.default_rng(0), (2, 1), np.float32)[0].tolist()
        [0.0]
    """

    def __init__(self, row: int) -> None:
        self.row = row

    def draw(self, rng: np.random.Generator, shape: Shape, dtype: Any) -> Any:
        """Draw all of them."""
        values = normal().draw(rng, shape, dtype)
        values[self.row] = 0
        return values


def follow_weight(bias: Parameter | None, weight: Variable) -> None:
    """Let the bias's first values depend on this weight: another may have taken the old one's place."""
    initializer = None if bias is None else bias.init
    if isinstance(initializer, fan_in_uniform) and isinstance(weight, Variable):  # not a parametrised one
        initializer.follow(weight)
