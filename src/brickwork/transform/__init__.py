"""Transforms of functions that use modules: all of them thin uses of frames."""

from ._autodiff import backward as backward, grad as grad, value_and_grad as value_and_grad
from ._branches import cond as cond, switch as switch
from ._cache import CacheInfo as CacheInfo, cache_info as cache_info
from ._compile import Compiled as Compiled, compile as compile
from ._derivatives import hessian as hessian, jacobian as jacobian, jvp as jvp, vjp as vjp
from ._explain import Explanation as Explanation, VariableUse as VariableUse
from ._functional import functional as functional
from ._loops import fori_loop as fori_loop, scan as scan, while_loop as while_loop
from ._recompile import RecompileWarning as RecompileWarning, no_recompile as no_recompile
from ._remat import Remat as Remat, remat as remat
from ._shard import shard_map as shard_map
from ._speculate import ControlFlowWarning as ControlFlowWarning
from ._stack import stack as stack, unstack as unstack
from ._stats import Stats as Stats
from ._vmap import vmap as vmap
