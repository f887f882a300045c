"""Layers and containers."""

from ..core import Buffer as Buffer
from ..core import Parameter as Parameter
from ..module import Module as Module
from ._containers import Sequential as Sequential
