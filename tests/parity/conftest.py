"""What the comparisons with PyTorch run under."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _seed_torch() -> None:
    """PyTorch's layers start from the same numbers, whichever tests ran before."""
    pytest.importorskip("torch").manual_seed(0)
