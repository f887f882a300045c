"""The mechanism: variables, modules, frames, deferred shapes, random streams.

Nothing here imports the rest of the package, except the exceptions and how initial values are drawn.
See ``README.md`` beside this file for the design and its invariants.
"""

from .._draw import Initializer as Initializer
from ._base import ModuleBase as ModuleBase
from ._containers import TrackedDict as TrackedDict, TrackedList as TrackedList
from ._deferred import dry_run as dry_run
from ._frame import Frame as Frame
from ._parameter import Buffer as Buffer, Parameter as Parameter
from ._random import next_key as next_key, random_stream as random_stream, seed as seed
from ._structure import Structure as Structure
from ._variable import Variable as Variable
from ._walk import walk as walk
