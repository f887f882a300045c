"""The one traversal: order, names, ties, cycles."""

from __future__ import annotations

import gc
import weakref

import jax.numpy as jnp

import brickwork as bw
from brickwork.core import walk
from brickwork.core._walk import find_path


class Leaf(bw.Module):
    def __init__(self):
        self.w = bw.Parameter(jnp.ones(2))


class Tree(bw.Module):
    def __init__(self):
        self.first = Leaf()
        self.parts = [Leaf(), {"a": Leaf(), 3: Leaf()}, (Leaf(), 4, None)]
        self.own = bw.Buffer(jnp.zeros(()))
        self.again = self.first
        self.number = 7


def test_paths_come_in_the_order_of_definition():
    assert [path for path, _ in walk(Tree())] == [
        "",
        "first",
        "first.w",
        "parts.0",
        "parts.0.w",
        "parts.1.a",
        "parts.1.a.w",
        "parts.1.3",
        "parts.1.3.w",
        "parts.2.0",
        "parts.2.0.w",
        "own",
    ]


def test_aliases_are_yielded_on_request():
    tree = Tree()
    paths = [path for path, item in walk(tree, aliases=True) if item is tree.first.w]
    assert paths == ["first.w", "again.w"]


def test_direct_contents_only():
    paths = [path for path, _ in walk(Tree(), into_modules=False)]
    assert paths == ["", "first", "parts.0", "parts.1.a", "parts.1.3", "parts.2.0", "own"]


def test_cycles_end():
    tree = Tree()
    tree.first.up = tree
    assert len(list(walk(tree))) == 12
    assert ("first.up", tree) not in list(walk(tree, aliases=True))


def test_find_path():
    tree = Tree()
    assert find_path(tree, tree.parts[1][3].w) == "parts.1.3.w"
    assert find_path(tree, tree) == ""
    assert find_path(tree, Leaf()) is None


def test_a_walk_keeps_nothing_alive():
    gc.collect()
    gc.disable()
    try:
        tree = Tree()
        list(walk(tree))
        next(walk(tree))  # one that is not finished
        reference = weakref.ref(tree)
        del tree
        assert reference() is None
    finally:
        gc.enable()
