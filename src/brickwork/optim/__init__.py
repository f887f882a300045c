"""Optimisers: optax transformations with their state in buffers."""

from ._optimizer import Optimizer as Optimizer
from ._rules import adam as adam, adamw as adamw, sgd as sgd
