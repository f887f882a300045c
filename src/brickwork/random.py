"""Random numbers: the process-wide random stream.

Layers that draw random numbers take a key with :func:`key`; :func:`brickwork.seed` starts the stream
anew. :func:`stream` is the buffer that holds its state, for saving and restoring it.
"""

from .core import next_key as key, random_stream as stream, seed as seed

__all__ = ["key", "seed", "stream"]
