"""What the tests of messages share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest


def refuse(call: Callable[[], Any], kind: type[Exception], message: str, *, note: Any = None) -> Exception:
    """Assert that a call raises exactly this text, and this one note on where it happened.

    ``...`` in the message stands for anything, and so does ``...`` as the note.
    """
    with pytest.raises(kind) as info:
        call()
    pattern = ".*".join(re.escape(part) for part in message.split("..."))
    text = str(info.value.args[0] if isinstance(info.value, KeyError) else info.value)
    assert re.fullmatch(pattern, text, re.DOTALL), text
    places = [n for n in getattr(info.value, "__notes__", []) if n.startswith("  in net")]
    assert note is ... or places == ([] if note is None else [f"  {note}"])
    return info.value


def state_of(net: Any) -> dict[str, Any]:
    """Shapes, values, flags: everything that a failed call must leave alone."""
    found: dict[str, Any] = {"repr": repr(net)}
    for name, v in net.named_variables():
        found[name] = v
        found[f"{name} shape"] = v.shape
        found[f"{name} trainable"] = v.trainable
        if v.is_drawn:
            found[f"{name} value"] = np.asarray(v).tobytes()
            found[f"{name} dtype"] = v.dtype
    return found


@contextmanager
def unchanged(net: Any) -> Iterator[None]:
    """Assert that nothing in a network changes inside."""
    before = state_of(net)
    yield
    after = state_of(net)
    for name, old in before.items():  # a value may have been drawn in the meantime
        assert name in after, name
        assert after[name] is old or after[name] == old, name
