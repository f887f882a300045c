"""Which layer of a file is which layer of a network."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from brickwork.errors import LoadError
from brickwork.io.layouts._match import Slot, Unit, blank, match


def slot(name, *shape, family="dense", key=None, alias=False):
    return Slot(
        name, None, family, name if key is None else key, {"weight": f"{name}.weight"}, {"weight": shape}, alias
    )


def unit(label, *shape, names=(), families=frozenset({"dense"}), **more):
    array = np.zeros(shape)
    return Unit(label, {label: array}, names, families, lambda slot: {"weight": array}, **more)


def pairs(units, slots):
    return {u.label: s.name for u, s in match(units, slots, "the file").items()}


def test_by_name_first():
    slots = [slot("a", 2), slot("b", 2)]
    assert pairs([unit("x", 2, names=("b",)), unit("y", 2, names=("no", "a"))], slots) == {"x": "b", "y": "a"}
    assert pairs([unit("x", 2, names=("b",)), unit("y", 2)], slots) == {"x": "b", "y": "a"}
    assert pairs([unit("x", 3, names=("b",))], slots) == {"x": "b"}  # for the error to name both


def test_names_that_two_want_are_no_names():
    slots = [slot("a", 2), slot("b", 3)]
    assert pairs([unit("x", 3, names=("a",)), unit("y", 2, names=("a",))], slots) == {"x": "b", "y": "a"}


def test_by_order_if_all_fit():
    slots = [slot("a", 2, None), slot("b", 2, None)]
    assert pairs([unit("x", 2, 7, order=2), unit("y", 2, 5, order=1)], slots) == {"x": "b", "y": "a"}
    rows = [unit("x", 2, 7, order=1, row="r"), unit("y", 2, 5, order=2, row="s")]
    with pytest.raises(LoadError, match="it can't be told which layer"):
        match(rows, slots, "the file")
    assert pairs([unit("x", 3, order=1), unit("y", 2, order=2)], [slot("a", 2), slot("b", 3)]) == {"x": "b", "y": "a"}


def test_order_counts_within_a_kind_and_among_what_fits():
    slots = [slot("a", 2), slot("n", 2, family="norm"), slot("b", 2), slot("wide", 9)]
    units = [unit("x", 2, order=1), unit("y", 2, order=2), unit("z", 2, order=0, families=frozenset({"norm"}))]
    assert pairs(units, slots) == {"x": "a", "y": "b", "z": "n"}


def test_layers_with_several_names():
    slots = [slot("a", 2), slot("b", 2, key="b"), slot("c", 2, key="b", alias=True)]
    assert pairs([unit(str(i), 2, order=i) for i in range(3)], slots) == {"0": "a", "1": "b", "2": "c"}
    assert pairs([unit(str(i), 2, order=i) for i in range(2)], slots) == {"0": "a", "1": "b"}
    assert pairs([unit("x", 2, names=("c",)), unit("y", 2)], slots) == {"x": "c", "y": "a"}


def test_by_what_fits_only_there():
    slots = [slot("a", 2), slot("b", None), slot("c", None)]
    with pytest.raises(LoadError, match="fits 'b', 'c'"):
        match([unit("x", 3), unit("y", 2), unit("z", 4)], slots, "the file")
    assert pairs([unit("x", 3), unit("y", 2)], slots[:2]) == {"x": "b", "y": "a"}
    assert pairs([unit("x", 3)], [slot("a", 3), slot("b", 2)]) == {"x": "a"}


def test_what_one_place_could_be_is_not_guessed():
    with pytest.raises(LoadError) as caught:
        match([unit("x", 2), unit("y", 2)], [slot("a", 2)], "the file")
    assert "x (shapes (2,)) fits 'a'" in str(caught.value) and "y (shapes (2,)) fits 'a'" in str(caught.value)


def test_what_fits_nowhere_is_left_out():
    assert pairs([unit("x", 7), unit("y", 2)], [slot("a", 2)]) == {"y": "a"}
    assert pairs([unit("x", 2, families=frozenset())], [slot("a", 2)]) == {}
    assert pairs([unit("x", 2, families=None)], [slot("a", 2, family="")]) == {}


def test_long_lists_are_cut():
    units = [unit(str(i), 2) for i in range(30)]
    with pytest.raises(LoadError) as caught:
        match(units, [slot(f"s{i}", 2) for i in range(30)], "the file")
    assert "fits 's0', 's1', 's2', 's3', 's4' and 25 more" in str(caught.value)
    assert "    ... and 10 more" in str(caught.value)


def test_patterns_restrict_places():
    slots = [slot("a.0", 2), slot("b.0", 2)]
    assert pairs([unit("x", 2, pattern="b.#")], slots) == {"x": "b.0"}
    assert blank("a.10.b2.3") == "a.#.b2.#"


@pytest.mark.parametrize("seed", range(30))
def test_the_only_way_is_found_and_no_other_taken(seed):
    """Against all ways to pair units with slots."""
    rng = random.Random(seed)
    n = rng.randrange(1, 5)
    slots = [slot(f"s{i}", rng.choice([None, 1, 2, 3]), rng.choice([None, 1, 2])) for i in range(n)]
    units = [unit(f"u{i}", rng.choice([1, 2, 3]), rng.choice([1, 2])) for i in range(n)]
    ways = [p for p in itertools.permutations(slots) if all(u.fits(s) for u, s in zip(units, p, strict=True))]
    if len(ways) == 1:
        assert match(units, slots, "x") == dict(zip(units, ways[0], strict=True))
    elif len(ways) > 1:
        with pytest.raises(LoadError):
            match(units, slots, "x")
