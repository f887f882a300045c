"""The examples in the docstrings of the package run and give what they say."""

from __future__ import annotations

import doctest
import importlib
import io
import pkgutil

import pytest

import brickwork as bw

_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def _module_names() -> list[str]:
    found = pkgutil.walk_packages(bw.__path__, prefix="brickwork.")
    return ["brickwork", *(module.name for module in found if not module.name.endswith("__main__"))]


def _examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    tests = []
    for name in _module_names():
        for test in finder.find(importlib.import_module(name), name):
            if test.examples:
                tests.append(test)
    return tests


@pytest.mark.parametrize("example", _examples(), ids=lambda example: example.name)
def test_docstring_examples(example: doctest.DocTest) -> None:
    """Each docstring is one test; it imports what it uses, as a reader would."""
    example.globs = {"__name__": "__main__", "bw": bw}
    report = io.StringIO()
    outcome = doctest.DocTestRunner(optionflags=_FLAGS).run(example, out=report.write)
    assert not outcome.failed, report.getvalue()
