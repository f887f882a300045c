"""The mechanism: variables, modules, frames, deferred shapes, random streams.

Nothing here imports the rest of the package, except the exceptions. See ``README.md`` beside this
file for the design and its invariants.
"""

from ._base import ModuleBase as ModuleBase
from ._containers import TrackedDict as TrackedDict
from ._containers import TrackedList as TrackedList
from ._deferred import dry_run as dry_run
from ._draw import Initializer as Initializer
from ._frame import Frame as Frame
from ._random import next_key as next_key
from ._random import random_stream as random_stream
from ._random import seed as seed
from ._state import LoadReport as LoadReport
from ._structure import Structure as Structure
from ._variable import Buffer as Buffer
from ._variable import Parameter as Parameter
from ._variable import Variable as Variable
from ._walk import walk as walk


def __getattr__(name):  # TEMPORARY: layers import from brickwork.module and brickwork.nn._containers
    if name == "Module":
        from ..module import Module

        return Module
    if name == "Sequential":
        from ..nn._containers import Sequential

        return Sequential
    raise AttributeError(name)
