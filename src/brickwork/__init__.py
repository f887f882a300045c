"""brickwork: deep-learning modules on JAX.

Write modules as in PyTorch, run them at the speed of ``jax.jit``.
"""

import types as _types
from typing import TYPE_CHECKING

from . import errors as errors
from . import functional as functional
from . import init as init
from . import losses as losses
from . import nn as nn
from . import optim as optim
from . import random as random
from ._spec import spec as spec
from .core import Buffer as Buffer
from .core import LoadReport as LoadReport
from .core import Parameter as Parameter
from .core import Variable as Variable
from .core import seed as seed
from .device import cpu as cpu
from .device import gpu as gpu
from .device import num_gpus as num_gpus
from .device import to as to
from .device import try_all_gpus as try_all_gpus
from .device import try_gpu as try_gpu
from .io import load as load
from .io import save as save
from .module import Module as Module
from .nn import Sequential as Sequential
from .transform import Compiled as Compiled
from .transform import RecompileWarning as RecompileWarning
from .transform import backward as backward
from .transform import cache_info as cache_info
from .transform import compile as compile
from .transform import grad as grad
from .transform import value_and_grad as value_and_grad

if TYPE_CHECKING:
    from .transform import functional as functional
else:
    from .transform import functional as _pure

    class _FunctionalModule(_types.ModuleType):
        """``bw.functional`` is two things: the subpackage of pure functions, and the door to raw JAX."""

        def __call__(self, *args, **kwargs):
            return _pure(*args, **kwargs)

    functional.__class__ = _FunctionalModule

__version__ = "0.1.0"
