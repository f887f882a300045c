"""Transforms of functions that use modules: all of them thin uses of frames."""

from ._autodiff import backward as backward
from ._autodiff import grad as grad
from ._autodiff import value_and_grad as value_and_grad
from ._cache import CacheInfo as CacheInfo
from ._cache import cache_info as cache_info
from ._compile import Compiled as Compiled
from ._compile import RecompileWarning as RecompileWarning
from ._compile import Stats as Stats
from ._compile import compile as compile
from ._functional import functional as functional
