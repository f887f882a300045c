"""The process's seed, and the stream numbers that initial values are drawn from."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Seed:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value = 0
        self.count = 0


_state = _Seed()


def set_seed(n: int, count: int = 0) -> None:
    """Set the seed, and how many parameters have been counted since."""
    with _state.lock:
        _state.value, _state.count = n, count


def current_seed() -> int:
    """The seed."""
    return _state.value


def current_count() -> int:
    """How many parameters have been counted."""
    return _state.count


def next_number() -> tuple[int, int]:
    """The seed and the next stream number: what the initial value of one parameter depends on."""
    if TALLIES and (tally := TALLIES.get(threading.get_ident())) is not None:
        tally.spend()
        return 0, tally.count
    with _state.lock:
        number = _state.count
        _state.count += 1
        return _state.value, number


class Tally:
    """Counts what a thread constructs."""

    def __init__(self, most: int | None, most_bytes: int | None) -> None:
        self.count, self.most = 0, most
        self.bytes_left = most_bytes

    def spend(self, nbytes: int = 0) -> None:
        """Count one thing more, or the bytes of one that was counted.

        Raises:
            TooMany: there may be no more.
        """
        self.count += not nbytes
        if self.bytes_left is not None:
            self.bytes_left -= nbytes
            if self.bytes_left < 0:
                raise TooMany(f"it draws a value of {nbytes:,} bytes, more than a network of this size needs")
        if self.most is not None and self.count > self.most:
            raise TooMany(f"it makes more than {self.most:,} modules and parameters")


class TooMany(Exception):
    """More was constructed than was allowed."""


TALLIES: dict[int, Tally] = {}


@contextmanager
def aside(most: int | None = None, most_bytes: int | None = None) -> Iterator[None]:
    """What this thread constructs meanwhile takes no stream numbers from others, and may be limited."""
    me = threading.get_ident()
    before, TALLIES[me] = TALLIES.get(me), Tally(most, most_bytes)
    try:
        yield
    finally:
        if before is None:
            del TALLIES[me]
        else:
            TALLIES[me] = before


def count(nbytes: int = 0) -> None:
    """Count a module that this thread makes, or the bytes of a value that it draws, where these are limited."""
    if (tally := TALLIES.get(threading.get_ident())) is not None:
        tally.spend(nbytes)
