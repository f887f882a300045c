"""Fixtures for tests of files."""

from __future__ import annotations

import threading

import pytest

from brickwork.io.training import _snapshot


@pytest.fixture
def gate(monkeypatch):
    """Writing waits until the event is set; ``gate.entered`` tells that it does."""
    opened, entered = threading.Event(), threading.Event()
    write = _snapshot.Snapshot.write

    def slow(self, path):
        entered.set()
        if not opened.wait(60):
            raise RuntimeError("nobody opened the gate")
        return write(self, path)

    monkeypatch.setattr(_snapshot.Snapshot, "write", slow)
    opened.entered = entered
    yield opened
    opened.set()
