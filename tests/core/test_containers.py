"""Lists and dicts of modules behave as plain ones do."""

from __future__ import annotations

import copy
import pickle

import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork.core import TrackedDict, TrackedList
from brickwork.errors import StructureError


class Leaf(bw.Module):
    def __init__(self):
        self.w = bw.Parameter(jnp.ones(2))


class Holder(bw.Module):
    pass


@pytest.fixture
def net():
    made = Holder()
    made.items = [Leaf() for _ in range(3)]
    made.table = {"a": Leaf(), "b": 3}
    return made


def names(net):
    return [n for n, _ in net.named_parameters()]


def test_list_behaves_as_a_list(net):
    items = net.items
    plain = list(items)
    assert isinstance(items, list) and type(items) is TrackedList
    assert len(items) == 3 and items[0] is plain[0] and items[-1] is plain[2]
    assert items[:2] == plain[:2] and list(reversed(items)) == plain[::-1]
    assert items.index(plain[1]) == 1 and plain[1] in items
    assert [*items, 1] == [*plain, 1] and items * 2 == plain * 2
    assert items == plain


def test_list_changes(net):
    items = net.items
    a, b, c = items
    for change, want in [
        (lambda: items.append(a), [a, b, c, a]),
        (lambda: items.pop(), [a, b, c]),
        (lambda: items.insert(1, 5), [a, 5, b, c]),
        (lambda: items.remove(5), [a, b, c]),
        (lambda: items.extend(iter([1, 2])), [a, b, c, 1, 2]),
        (lambda: items.__delitem__(slice(3, None)), [a, b, c]),
        (lambda: items.reverse(), [c, b, a]),
        (lambda: items.sort(key=lambda m: [a, b, c].index(m)), [a, b, c]),
        (lambda: items.__setitem__(slice(0, 2), [b]), [b, c]),
        (lambda: items.__setitem__(slice(None, None, 2), [a]), None),
        (lambda: items.clear(), []),
    ]:
        if want is None:
            change()
            continue
        version = net._bw.version
        change()
        assert list(items) == want
        assert net._bw.version > version


def test_failed_changes_leave_the_list(net):
    plain = list(net.items)
    with pytest.raises(IndexError):
        net.items[9] = Leaf()
    with pytest.raises(ValueError):
        net.items[::2] = [1]
    with pytest.raises(IndexError):
        [].pop()
    with pytest.raises(ValueError):
        net.items.remove("no")
    assert list(net.items) == plain


def test_dict_changes(net):
    table = net.table
    leaf = table["a"]
    for change, want in [
        (lambda: table.update(c=1), {"a": leaf, "b": 3, "c": 1}),
        (lambda: table.pop("c"), {"a": leaf, "b": 3}),
        (lambda: table.setdefault("d", leaf), {"a": leaf, "b": 3, "d": leaf}),
        (lambda: table.popitem(), {"a": leaf, "b": 3}),
        (lambda: table.__delitem__("b"), {"a": leaf}),
        (lambda: table.__ior__({"e": 1}), {"a": leaf, "e": 1}),
        (lambda: table.clear(), {}),
    ]:
        version = net._bw.version
        change()
        assert dict(table) == want
        assert net._bw.version > version
    assert type(table) is TrackedDict and isinstance(table, dict)


@pytest.mark.parametrize("key", ["", "a.b", 1.5, (1, 2), None])
def test_bad_keys(net, key):
    before = dict(net.table)
    with pytest.raises(StructureError, match="key"):
        net.table[key] = Leaf()
    assert dict(net.table) == before
    net.table[key] = "plain values may have any key"


def test_integer_keys(net):
    net.table[7] = Leaf()
    assert names(net)[-1] == "table.7.w"


def test_nested(net):
    net.items[0] = [[Leaf()], {"x": (Leaf(), [Leaf()])}]
    assert names(net)[:3] == ["items.0.0.0.w", "items.0.1.x.0.w", "items.0.1.x.1.0.w"]
    f = bw.compile(lambda: sum(p.value.sum() for p in net.parameters()))
    total = float(f())
    net.items[0][1]["x"][1].append(Leaf())
    assert float(f()) == total + 2
    net.items[0][0].pop()
    assert float(f()) == total


def test_one_list_in_two_places(net):
    other = Holder()
    other.items = net.items
    assert other.items is net.items
    f, g = (bw.compile(lambda n=n: sum(p.value.sum() for p in n.parameters())) for n in (net, other))
    f(), g()
    net.items.append(Leaf())
    assert float(g()) == 8
    other.items.pop()
    assert float(f()) == 8


def test_one_list_in_two_lists_with_parameters_before_it():
    net = Holder()
    inner = TrackedList([Leaf()])
    net.a = [bw.Parameter(jnp.ones(3)), inner]
    net.b = [bw.Parameter(jnp.ones(3)), inner]
    assert net.a[1] is net.b[1]
    assert len(net.parameters()) == 3


def test_a_moved_item_has_its_new_name(net):
    item = net.items.pop(0)
    net.table["moved"] = item
    assert item.w.name == "table.moved.w"
    net.items.insert(0, net.table.pop("moved"))
    assert item.w.name == "items.0.w"


def test_copies(net):
    net.again = net.items
    net.items.append(net.items[0])
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert twin.again is twin.items and twin.items[3] is twin.items[0]
        assert type(twin.items) is TrackedList and type(twin.table) is TrackedDict
        assert names(twin) == names(net)
        version = twin._bw.version
        twin.items.append(Leaf())
        assert twin._bw.version > version
    plain = copy.copy(net.items)
    plain.append(1)
    assert len(net.items) == 4


def test_a_list_that_contains_itself():
    net = Holder()
    items = []
    items.append(items)
    with pytest.raises((StructureError, ValueError, RecursionError)):
        net.items = items


def test_sequential():
    a, b, c = Leaf(), jnp.tanh, Leaf()
    seq = bw.Sequential(a, b)
    assert seq.append(c) is seq and len(seq) == 3 and seq[-1] is c and a in seq
    assert isinstance(seq[1:], bw.Sequential) and seq[1:][1] is c
    assert list(seq) == [a, b, c]
    seq.insert(0, b)
    assert names(seq) == ["1.w", "3.w"]
    del seq[0]
    seq[1] = jnp.sin
    assert seq.pop() is c
    seq[0:1] = [c, a]
    assert names(seq) == ["0.w", "1.w"]
    seq.extend([b])
    assert len(seq + bw.Sequential(b)) == 5
    assert seq[0].w.name == "0.w"
    with pytest.raises(IndexError, match="4 layers, no index 9"):
        seq[9]
    for bad, text in [("relu", "nn.ReLU"), ([a], "unpack it"), (3, "got int"), (Leaf, r"write Leaf\(")]:
        with pytest.raises(TypeError, match=text):
            bw.Sequential(bad)
    assert bool(bw.Sequential())
    np.testing.assert_array_equal(bw.Sequential()(jnp.ones(2)), np.ones(2))
