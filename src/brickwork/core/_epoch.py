"""A counter that moves whenever something changes that a compiled program depends on."""

from __future__ import annotations

EPOCH: list[object] = [object()]
"""Replaced, never incremented, so that changes in several threads can't be lost."""


def bump() -> None:
    """Make every compiled function check its assumptions at its next call."""
    EPOCH[0] = object()
