"""A few hundred of the damaged files that ``python -m tests.io.fuzz`` makes any number of."""

from __future__ import annotations

import numpy as np
import pytest
from tests.io.fuzz import TARGETS, Target, case, check, run, use

from brickwork.errors import CheckpointError
from brickwork.io._source import Contents

KINDS = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)


@KINDS
def test_damaged_files_are_read_or_refused(target):
    outcomes = [check(target, case(target, seed=1, number=number)) for number in range(200)]
    assert set(outcomes) == {"read", "refused"}  # else the mutations would be too weak, or too strong


@KINDS
def test_cases_can_be_repeated(target):
    assert case(target, 5, 7) == case(target, 5, 7) != case(target, 5, 8)
    assert len(target.seeds) > 3


def reader(outcome):
    def read(source):
        if isinstance(outcome, Exception):
            raise outcome
        return Contents(outcome, "test")

    return read


@pytest.mark.parametrize(
    "outcome",
    [ValueError("x"), RecursionError(), CheckpointError("no name"), {"a": object()}, [np.ones(2)], [np.float32(1)]],
)
def test_what_counts_as_a_failure(outcome, tmp_path, capsys):
    target = Target("test", reader(outcome), ("torch/x-file",))
    with pytest.raises((ValueError, RecursionError, TypeError)):
        check(target, b"data")
    assert run([target], 3, 10, 2, tmp_path) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test-3-10", "test-3-11"]
    assert "--kind test --seed 3 --first 10 --count 1 failed" in capsys.readouterr().out


def test_what_counts_as_a_success():
    use([1, ("a", {1: None}), b"", np.broadcast_to(np.float32(1), (10**6, 10**6))])
    assert check(Target("test", reader(CheckpointError("fuzz: no")), ()), b"") == "refused"
