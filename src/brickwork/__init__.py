"""brickwork: deep-learning modules on JAX.

Write modules as in PyTorch, run them at the speed of ``jax.jit``.
"""

import types as _types
from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from . import (
    errors as errors,
    functional as functional,
    init as init,
    losses as losses,
    nn as nn,
    optim as optim,
    random as random,
)
from ._elsewhere import unknown_in as _unknown_in
from ._spec import spec as spec
from ._state import LoadReport as LoadReport
from .core import Buffer as Buffer, Parameter as Parameter, Variable as Variable, seed as seed
from .device import (
    cpu as cpu,
    gpu as gpu,
    num_gpus as num_gpus,
    to as to,
    try_all_gpus as try_all_gpus,
    try_gpu as try_gpu,
)
from .memory import keep_memory as keep_memory
from .module import Module as Module
from .nn import Sequential as Sequential
from .transform import (
    Compiled as Compiled,
    ControlFlowWarning as ControlFlowWarning,
    Explanation as Explanation,
    RecompileWarning as RecompileWarning,
    backward as backward,
    cache_info as cache_info,
    compile as compile,
    cond as cond,
    fori_loop as fori_loop,
    grad as grad,
    hessian as hessian,
    jacobian as jacobian,
    jvp as jvp,
    no_recompile as no_recompile,
    remat as remat,
    scan as scan,
    shard_map as shard_map,
    stack as stack,
    switch as switch,
    unstack as unstack,
    value_and_grad as value_and_grad,
    vjp as vjp,
    vmap as vmap,
    while_loop as while_loop,
)

if TYPE_CHECKING:
    from .io import (
        Checkpointer as Checkpointer,
        Exported as Exported,
        export as export,
        load as load,
        load_exported as load_exported,
        load_module as load_module,
        save as save,
        save_as as save_as,
    )
    from .transform import functional as functional
else:
    from .transform import functional as _pure

    class _FunctionalModule(_types.ModuleType):
        """``bw.functional`` is two things: the subpackage of pure functions, and the door to raw JAX."""

        def __call__(self, *args, **kwargs):
            return _pure(*args, **kwargs)

    functional.__class__ = _FunctionalModule

    # Reading and writing files takes a quarter of the time of importing the rest, and is imported when it is used.
    _IO = ("Checkpointer", "Exported", "export", "load", "load_exported", "load_module", "save", "save_as")

    def __getattr__(name):
        if name not in (*_IO, "io"):
            _unknown_in(__name__)(name)
        io = _import_module(f"{__name__}.io")
        globals().update({known: getattr(io, known) for known in _IO})
        return globals()[name]

    def __dir__():
        return sorted({*globals(), *_IO, "io"})


__version__ = "0.1.0"
