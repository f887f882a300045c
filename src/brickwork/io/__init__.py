"""Saving and loading."""

from ._checkpointer import Checkpointer as Checkpointer, Restored as Restored
from ._files import (
    FileInfo as FileInfo,
    load as load,
    save as save,
)
