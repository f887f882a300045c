"""docs/footguns.md is what the programs in tests/footguns make of it."""

from __future__ import annotations

import pytest
from docs import generate_footguns as generator


def test_the_page_is_up_to_date() -> None:
    assert generator.PAGE.read_text(encoding="utf-8") == generator.page(), (
        "the programs have changed; run `python docs/generate_footguns.py`"
    )


def test_links_lead_to_sections() -> None:
    found = generator.footguns()
    assert len({f.anchor for f in found}) == len(found)
    text = generator.page()
    for footgun in found:
        assert f"\n## {footgun.title}\n" in text
        assert f"(#{footgun.anchor})" in text


def test_a_file_that_lacks_something_is_refused(tmp_path) -> None:
    path = tmp_path / "test_incomplete.py"
    path.write_text('"""A title"""\n\nSEVERITY = "dreadful"\n')
    with pytest.raises(ValueError, match=r"test_incomplete\.py.*SEVERITY as one of \['high', 'medium', 'low'\]"):
        generator.read(path)
