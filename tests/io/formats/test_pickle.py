"""Pickles are interpreted: plain values come out, everything else is refused, and nothing blows up."""

from __future__ import annotations

import collections
import fractions
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, strategies as st
from tests.io.foreign import source_of

from brickwork.errors import CheckpointError
from brickwork.io.formats._pickle import Pending, interpret, looks_like_pickle
from brickwork.io.formats._pickled_numpy import numpy_globals
from brickwork.io.formats._unpickled import BUILTINS, finish


def load(data: bytes, known=BUILTINS, **more):
    source = source_of(data)
    value, end = interpret(source, 0, known, lambda module, name: "advice", **more)
    assert end == len(data)
    return finish(value, source, 0)


def refuses(data: bytes, match: str, **more) -> None:
    with pytest.raises(CheckpointError, match=match):
        load(data, **more)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<L", len(value.encode())) + value.encode()


def name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


keys = st.one_of(st.text(max_size=5), st.integers(-(2**60) + 1, 2**60 - 1), st.booleans(), st.none())
keys = st.one_of(keys, st.tuples(keys, keys))
leaves = st.one_of(
    *(st.none(), st.booleans(), st.text(), st.binary(), st.floats(allow_nan=False)),
    *(st.integers(), st.integers(-(2**2000), 2**2000), st.complex_numbers(allow_nan=False)),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        *(st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(keys, inner)),
        *(st.sets(keys), st.frozensets(keys), st.dictionaries(keys, inner).map(collections.OrderedDict)),
    ),
)


@given(trees, st.integers(1, 5))
def test_what_python_pickles_comes_back(tree, protocol):
    data = pickle.dumps(tree, protocol)
    found = load(data)
    assert found == tree
    assert looks_like_pickle(data) == (protocol > 1)


@pytest.mark.parametrize("protocol", range(1, 6))
def test_types_and_order(protocol):
    tree = [(1, True), collections.OrderedDict(b=1, a=2), bytearray(b"\xff" * 5), b"x" * 5000, {"x": (), "y": 1.5}]
    found = load(pickle.dumps(tree, protocol))
    assert found == tree
    assert [type(item) for item in found] == [tuple, dict, bytes, bytes, dict]
    assert list(found[1]) == ["b", "a"]
    assert type(found[0][1]) is bool


def test_dict_subclasses_of_collections():
    tree = [collections.Counter("aab"), collections.defaultdict(list, {"x": [1]})]
    found = load(pickle.dumps(tree, 2))
    assert found == [{"a": 2, "b": 1}, {"x": [1]}] and type(found[0]) is type(found[1]) is dict


def test_objects_are_shared_as_they_were():
    inner = [1, 2]
    found = load(pickle.dumps({"a": inner, "b": inner, "c": [1, 2]}))
    assert found["a"] is found["b"] and found["a"] is not found["c"]


def test_attributes_of_ordered_dicts_are_dropped():
    value = collections.OrderedDict(x=1)
    value._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    assert load(pickle.dumps(value, 2)) == {"x": 1}


def test_strings_of_python_2():
    # {'w': '\xff\x00', 'n': 3L, 'ok': True} and OrderedDict([('a', 1)]), as cPickle wrote them
    data = b"\x80\x02}q\x01(U\x01wq\x02U\x02\xff\x00q\x03U\x01nq\x04\x8a\x01\x03U\x02okq\x05\x88u."
    assert load(data) == {"w": b"\xff\x00", "n": 3, "ok": True}
    assert load(b"\x80\x02" + name("collections", "OrderedDict") + b"](](U\x01aK\x01ee\x85R.") == {"a": 1}


def test_several_pickles_follow_each_other():
    data = pickle.dumps(1, 2) + pickle.dumps([2], 2)
    source = source_of(data)
    first, end = interpret(source, 0, {}, lambda *_: "")
    second, stop = interpret(source, end, {}, lambda *_: "")
    assert (first, second, stop) == (1, [2], len(data))


# --- globals --------------------------------------------------------------------------------------


class Thing:
    def __reduce__(self):
        return fractions.Fraction, (1, 2)


@pytest.mark.parametrize("protocol", [2, 4])
def test_unknown_globals_are_refused_by_name(protocol):
    refuses(pickle.dumps(Thing(), protocol), r"at byte \d+ it asks for `fractions Fraction`: advice")


@pytest.mark.parametrize(
    "where", ["os system", "posix system", "builtins eval", "__builtin__ getattr", "subprocess Popen"]
)
def test_dangerous_globals(where):
    refuses(
        b"\x80\x02" + name(*where.split()) + b".", f"at byte 2 it asks for `{where}`: no checkpoint needs.*malicious"
    )


def test_globals_are_never_looked_up_by_attribute():
    refuses(b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.", "`collections OrderedDict.__init__`")
    refuses(b"\x80\x04K\x01\x8c\x01a\x93.", "the name of a global is not a string")


def test_functions_that_are_not_called_are_no_values():
    refuses(b"\x80\x02}X\x01\0\0\0a" + name("builtins", "set") + b"s.", "'a' is builtins.set itself, not a value")
    assert load(b"\x80\x02" + name("m", "constant") + b".", known={("m", "constant"): "float16"}) == "float16"


class Box(Pending):
    def __init__(self):
        self.items = {}

    def build(self, state):
        if state == 7:
            raise ValueError("seven is too much")
        self.items["state"] = state

    def set_item(self, key, value):
        self.items[key] = value

    def finish(self, resolve):
        if "bad" in self.items:
            raise ValueError("it is bad")
        return resolve(self.items)


BOX = {("m", "Box"): lambda arguments: Box()}
NEW_BOX = b"\x80\x02" + name("m", "Box") + b")\x81"


def test_pending_objects():
    assert load(NEW_BOX + b"K\x05b" + text("k") + b"Ns.", BOX) == {"state": 5, "k": None}
    twice = load(NEW_BOX + b"q\x00h\x00\x86.", BOX)
    assert twice == ({}, {}) and twice[0] is twice[1]
    refuses(NEW_BOX + b"K\x07b.", "at byte 13: the state of an object: seven is too much", known=BOX)
    inside = b"\x80\x02}" + text("name") + NEW_BOX[2:] + text("bad") + b"Nss."
    refuses(inside, "at byte 20: 'name': it is bad", known=BOX)


def test_persistent_ids():
    seen = []
    assert load(b"\x80\x02K\x05Q.", {}, persistent=lambda key: seen.append(key) or "object") == "object"
    assert seen == [5]
    refuses(b"\x80\x02K\x05Q.", "refers to an object outside of it")


# --- damage ---------------------------------------------------------------------------------------

DAMAGED = {
    "": "ends without the opcode STOP; the file is truncated",
    "\x80\x02": "ends without the opcode STOP",
    "\x80\x06.": "protocol 6; 5 is the highest",
    "\x80\x02.": "takes a value from the empty stack",
    "\x80\x02X\xff\xff\xff\xffabc.": "should take 4,294,967,295 bytes, but 4 are left; the file is truncated",
    "\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff.": "should take 18,446,744,073,709,551,615 bytes",
    "\x80\x04\x95\xff\x00\x00\x00\x00\x00\x00\x00.": "a frame of 255 bytes begins, but 1 are left",
    "\x80\x02X\x01\x00\x00\x00\xff.": "a string is not UTF-8",
    "\x80\x02\x8b\xff\xff\xff\x7f.": "an integer of 2,147,483,647 bytes; at most 1024",
    "\x80\x02t.": "up to a mark that it did not set",
    "\x80\x02h\x05.": "refers to its object 5, which is not there",
    "\x80\x02q\x05.": "looks at the empty stack",
    "\x80\x02Nq\x05.": "numbers an object 5, but has only numbered 0",
    "\x80\x02Nq\x01h\x00.": "refers to its object 0, which is not there",
    "\x80\x02}(K\x01u.": "a key without a value",
    "\x80\x02]K\x01K\x02s.": "a list is given keys and values, but is no dict",
    "\x80\x02}K\x01a.": "a dict is given items, but is no list",
    "\x80\x04](K\x01\x90.": "a list is given items, but is no set",
    "\x80\x02]}b.": "a list is given a state",
    "\x80\x02K\x01)R.": "calls a int, which is no function",
    "\x80\x02cbuiltins\nset\nK\x01R.": "calls builtins.set without a tuple of arguments",
    "\x80\x02cbuiltins\nset\nK\x01\x85R.": "builtins.set is called with arguments of which it can't be made",
    "\x80\x02cbuiltins\ndict\n]K\x01a\x85R.": "builtins.dict is called with arguments",
    "\x80\x02cbuiltins\ncomplex\n)R.": "builtins.complex: the arguments should be two numbers",
    "\x80\x02cbuiltins\ncomplex\n\x8a\xff" + "\x7f" * 255 + "K\x01\x86R.": "builtins.complex: int too large",
    "\x80\x02cbuiltins\nbytes\nK\x08\x85R.": "builtins.bytes: the arguments should be a text and 'latin1'",
    "\x80\x02c_codecs\nencode\nX\x03\0\0\0\xe4\xb8\xadX\x06\0\0\0latin1\x86R.": "_codecs.encode: .*can't encode",
    "\x80\x02cbuiltins": "a line of text has no end",
    "\x80\x02ibuiltins\nset\n.": "b'i' is no opcode of the pickles that checkpoints consist of",
    "\x80\x02Ixyz\n.": "a number: invalid literal for int",
    "\x80\x02}]K\x01s.": "a list is the key of a dict, or in a set",
    "\x80\x04\x8f(]\x90.": "a list is the key of a dict, or in a set",
}


@pytest.mark.parametrize("data", DAMAGED)
def test_damaged(data):
    refuses(data.encode("latin-1"), f"x: damaged file, at byte .*{DAMAGED[data]}")


def test_trees_without_end():
    refuses(b"\x80\x02]q\x00h\x00a.", "'0' contains itself")
    refuses(b"\x80\x02}q\x00" + text("a") + b"]h\x00as.", "'a.0' contains itself")
    refuses(NEW_BOX + b"q\x00" + text("me") + b"h\x00s.", "'me' contains itself", known=BOX)


@pytest.mark.parametrize("step", [b"\x85", None])
def test_deep_nesting(step):
    assert load(b"N" + b"\x85" * 60 + b".")
    depth = 100_000
    data = b"N" + b"\x85" * depth + b"." if step else b"]" * depth + b"a" * (depth - 1) + b"."
    refuses(data, "is nested deeper than 64 levels")
    refuses(b"(" * depth, "the pickle is nested too deeply")


# --- what would take time or memory ---------------------------------------------------------------


def encode_again(count: int) -> bytes:
    long = text("x" * 100_000) + b"q\x00" + text("latin1") + b"q\x01"
    return long + name("_codecs", "encode") + b"q\x02]" + b"h\x02h\x00h\x01\x86Ra" * count + b"."


def copy_again(kind: str, count: int) -> bytes:
    return (
        b"](" + b"K\x01" * 10_000 + b"eq\x00" + name("builtins", kind) + b"q\x01]" + b"h\x01h\x00\x85Ra" * count + b"."
    )


def laughs(levels: int) -> bytes:
    return b"]" + b"q\x00]h\x00ah\x00a" * levels + b"."


def same_hash(count: int) -> bytes:
    keys = (i * (2**61 - 1) for i in range(1, count))
    return b"}(" + b"".join(b"\x8a\x0a" + k.to_bytes(10, "little") + b"N" for k in keys) + b"u."


def deep_key(depth: int) -> bytes:
    return b"}N" + b"\x85" * depth + b"Ns."


def same_array(count: int) -> bytes:
    array = pickle.dumps(np.zeros(100_001, np.uint8), 4)
    data = array.index(b"B\xa1\x86\x01\x00")
    one, after = array[: data + 5 + 100_001], array[data + 5 + 100_001 : -1]
    build = name("numpy._core.multiarray", "_reconstruct") + name("numpy", "ndarray") + b"K\x00\x85C\x01b\x87R"
    dtype = name("numpy", "dtype") + text("u1") + b"\x89\x88\x87R"
    again = build + b"(K\x01J\xa1\x86\x01\x00\x85" + dtype + b"\x89h\x12tb"
    return b"](" + one[2 + 9 :] + b"\x94" + after[after.index(b"t") :] + again * count + b"e."


BOMBS = {
    "marks": b"(" * 100_000,
    "lists": b"]" * 1_000_000,
    "lists in a list": b"]" + b"]a" * 500_000 + b".",
    "stack": b"N" * 1_500_000,
    "encode": encode_again(1000),
    "set": copy_again("set", 1000),
    "tuple": copy_again("tuple", 1000),
    "laughs": laughs(40),
    "same hash": same_hash(30_000),
    "deep key": deep_key(100_000),
    "tuple keys": b"}(" + b"".join(b"M" + i.to_bytes(2, "little") + b"\x85N" for i in range(5000)) + b"u.",
    "long key": text("x" * 100_000) + b"q\x00}" + b"h\x00Ns" * 1000 + b".",
    "same array": same_array(2000),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs(kind):
    data = BOMBS[kind]
    known = BUILTINS | numpy_globals(source_of(b"")) | {}
    tracemalloc.start()
    try:
        match = "made to exhaust memory|nested too deeply|is the key of a dict"
        refuses(data, match, known=known)
        assert tracemalloc.get_traced_memory()[1] < 100e6 + len(data)
    finally:
        tracemalloc.stop()
