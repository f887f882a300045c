"""The programs in docs/checkpoints.md run, in the order in which a reader meets them."""

from __future__ import annotations

import re
import signal
from pathlib import Path

_PAGE = Path(__file__).parent.parent / "docs" / "checkpoints.md"


def test_programs(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    text = _PAGE.read_text(encoding="utf-8")
    session = {"__name__": "checkpoints"}
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert len(blocks) == 4
    try:
        for block in blocks:
            line = text.count("\n", 0, block.start(1))
            exec(compile("\n" * line + block.group(1), str(_PAGE), "exec"), session)
    finally:
        signal.signal(signal.SIGTERM, before)
