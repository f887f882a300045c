"""Optimisers: optax transformations with their state in buffers."""

from typing import TYPE_CHECKING

from .._elsewhere import unknown_in as _unknown_in
from ._optimizer import Optimizer as Optimizer
from ._rules import adam as adam, adamw as adamw, sgd as sgd

if not TYPE_CHECKING:  # a type checker would take it that every name exists
    __getattr__ = _unknown_in(__name__)
