"""Saving and loading."""

from ._checkpointer import Checkpointer as Checkpointer, Restored as Restored
from ._export import export as export
from ._exported import Exported as Exported, load_exported as load_exported
from ._files import (
    FileInfo as FileInfo,
    load as load,
    save as save,
)
from ._networks import load_module as load_module
