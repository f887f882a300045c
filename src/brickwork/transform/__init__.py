"""Transforms of functions that use modules: all of them thin uses of frames."""

from ._autodiff import backward as backward, grad as grad, value_and_grad as value_and_grad
from ._cache import CacheInfo as CacheInfo, cache_info as cache_info
from ._compile import Compiled as Compiled, RecompileWarning as RecompileWarning, Stats as Stats, compile as compile
from ._functional import functional as functional
