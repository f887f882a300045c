"""Which reader reads a file. Importing this imports all of them."""

from __future__ import annotations

from .._kinds import HEAD
from .._source import Reader, Source
from . import _keras, _mxnet, _numpy, _paddle, _tensorflow, _torch
from ._hdf5 import is_hdf5
from ._zip import Archive, is_zip

__all__ = ["find_reader"]

_READERS = (  # by the first bytes
    (_mxnet.is_mxnet, _mxnet.read),
    (is_hdf5, _keras.read),
    (_torch.is_torch, _torch.read),
    (_paddle.is_paddle, _paddle.read),
    (_numpy.is_numpy, _numpy.read),
)
_ARCHIVES = (  # by the names of an archive's members
    (_torch.is_torch_archive, _torch.read),
    (_keras.is_keras_archive, _keras.read),
    (_numpy.is_numpy_archive, _numpy.read),
)
_WHOLE = ((_tensorflow.is_index, _tensorflow.read), (_tensorflow.is_tensor, _tensorflow.read))  # by more than that


def find_reader(source: Source) -> Reader | None:
    """What reads a file, found out from its bytes."""
    head = source.data[:HEAD].tobytes()
    found = next((reader for recognises, reader in _READERS if recognises(head)), None)
    if found is None and is_zip(head):
        source.what = "zip archive"
        names = Archive(source).names()
        found = next((reader for recognises, reader in _ARCHIVES if recognises(names)), None)
    return found or next((reader for recognises, reader in _WHOLE if recognises(source)), None)
