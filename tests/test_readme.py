"""The programs in the README run, in the order in which a reader meets them."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

_README = Path(__file__).parent.parent / "README.md"
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _blocks() -> list[tuple[int, str]]:
    """The Python blocks of the README, each with the line it starts on."""
    text = _README.read_text(encoding="utf-8")
    return [(text.count("\n", 0, m.start(1)), m.group(1)) for m in _BLOCK.finditer(text)]


def test_there_are_blocks() -> None:
    assert len(_blocks()) >= 5


@pytest.mark.timeout(300)
def test_blocks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One session for all of them: a block may use what an earlier one defined."""
    monkeypatch.chdir(tmp_path)
    session = types.ModuleType("readme")  # pickling looks the classes up in their module
    monkeypatch.setitem(sys.modules, "readme", session)
    for line, source in _blocks():
        code = compile("\n" * line + source, str(_README), "exec")
        exec(code, session.__dict__)


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_commands_exist(command: str) -> None:
    """What the README tells people to type is a target of the Makefile."""
    assert command in _README.read_text(encoding="utf-8")
    makefile = (_README.parent / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE)
