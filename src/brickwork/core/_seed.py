"""The process's seed, and the stream numbers that initial values are drawn from."""

from __future__ import annotations

import threading


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
    with _state.lock:
        number = _state.count
        _state.count += 1
        return _state.value, number
