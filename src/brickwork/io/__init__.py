"""Saving and loading."""

from ._files import (
    FileInfo as FileInfo,
    load as load,
    save as save,
)
