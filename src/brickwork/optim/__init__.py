"""Optimisers: optax transformations with their state in buffers."""

from ._optimizer import Optimizer as Optimizer
from ._rules import adam as adam
from ._rules import adamw as adamw
from ._rules import sgd as sgd
