"""Saving and loading."""

from ._files import (
    FileInfo as FileInfo,
    load as load,
    save as save,
)
from ._save_as import save_as as save_as
from .architecture._networks import load_module as load_module
from .export._export import export as export
from .export._exported import Exported as Exported, load_exported as load_exported
from .training._checkpointer import Checkpointer as Checkpointer, Restored as Restored
