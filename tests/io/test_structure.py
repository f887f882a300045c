"""Round trips of nests through files, and what cannot be saved."""

from __future__ import annotations

import collections
import enum
import json
import math
import re

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from brickwork.errors import CheckpointError
from brickwork.io import _structure, load, save

Point = collections.namedtuple("Point", "x y")


@pytest.fixture
def roundtrip(tmp_path):
    def run(tree):
        save(tmp_path / "tree.safetensors", tree)
        return load(tmp_path / "tree.safetensors")

    return run


def same(a, b):
    """Equality of type and value all the way down; NaN equals NaN, 0.0 does not equal -0.0."""
    if isinstance(a, (np.ndarray, np.generic, jax.Array)):
        if isinstance(a, jax.Array) != isinstance(b, jax.Array) or a.dtype != b.dtype:
            return False
        x, y = np.asarray(a), np.asarray(b)
        return isinstance(b, np.ndarray) == isinstance(a, np.ndarray) and (
            x.shape == y.shape and x.tobytes() == y.tobytes()
        )
    if isinstance(a, tuple) and hasattr(a, "_fields"):
        named = type(a).__name__ == type(b).__name__ and a._fields == b._fields
        return named and all(map(same, a, b))
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        pairs = zip(a.items(), b.items())
        return len(a) == len(b) and all(same(j, k) and same(x, y) for (j, x), (k, y) in pairs)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, float):
        return a.hex() == b.hex()
    return a == b


NUMPY_DTYPES = [
    *("float64", "float32", "float16", "complex64", "complex128", "bool"),
    *(f"{u}int{b}" for u in ("", "u") for b in (8, 16, 32, 64)),
]
ML_DTYPES = [
    *("bfloat16", "int4", "uint4", "int2", "uint2", "float4_e2m1fn"),
    *("float6_e2m3fn", "float6_e3m2fn", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
]
JAX_DTYPES = [
    *("float32", "float16", "complex64", "bool", "int8", "int32", "uint8", "uint16", "uint32"),
    *(name for name in ML_DTYPES if "float6" not in name),
]

arrays = st.sampled_from(NUMPY_DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0))
)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.complex_numbers(), st.binary())
text = st.text(st.characters(codec=None, exclude_categories=()))
keys = st.recursive(
    st.one_of(text, st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False)),
    lambda inner: st.lists(inner, max_size=2).map(tuple),
    max_leaves=3,
)
trees = st.recursive(
    st.one_of(scalars, text, arrays, arrays.map(lambda a: a.reshape(-1)[:1].sum())),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(text, inner, max_size=4),
        st.dictionaries(keys, inner, max_size=4),
        st.builds(Point, inner, inner),
    ),
    max_leaves=12,
)


@hypothesis.settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(tree=trees)
def test_any_nest(roundtrip, tree):
    assert same(tree, roundtrip(tree))


def values_of(dtype):
    raw = np.array([[0, 1, 2.5], [-1, 3, 0]])
    if dtype.startswith(("u", "b")) and dtype != "bfloat16":
        raw = abs(raw)
    return raw.astype(np.dtype(getattr(ml_dtypes, dtype, dtype)))


@pytest.mark.parametrize("dtype", [*NUMPY_DTYPES, *ML_DTYPES])
def test_numpy_arrays_of_every_dtype(roundtrip, dtype):
    values = values_of(dtype)
    tree = {"a": values, "scalar": values[1, 1], "zero": values[0, 0].reshape(()), "e": values[:0]}
    back = roundtrip(tree)
    assert same(tree, back)
    back["a"][0, 0] = back["a"][1, 1]  # a writable array of its own


@pytest.mark.parametrize("dtype", JAX_DTYPES)
def test_jax_arrays_of_every_dtype(roundtrip, dtype):
    values = jnp.asarray(values_of(dtype))
    assert values.dtype == values_of(dtype).dtype
    tree = {"a": values, "zero": values[0, 0], "empty": values[:0]}
    assert same(tree, roundtrip(tree))


def test_sub_byte_integers_are_small_integers_to_others(tmp_path):
    numpy_side = pytest.importorskip("safetensors.numpy")
    save(tmp_path / "x", {"a": jnp.array([-8, 7, -1], jnp.int4), "c": np.array([1 + 2j])})
    found = numpy_side.load_file(tmp_path / "x")
    np.testing.assert_array_equal(found["a"], np.array([-8, 7, -1], np.int8))
    np.testing.assert_array_equal(found["c"], [[1.0, 2.0]])


def test_64_bits_survive_without_64_bit_mode(roundtrip):
    with jax.enable_x64(True):
        tree = {"i": jnp.array([2**40 + 1]), "f": jnp.array(1 / 3)}
        assert tree["i"].dtype == np.int64
        assert same(tree, roundtrip(tree))
    back = roundtrip(tree)
    assert isinstance(back["i"], np.ndarray)
    assert (back["i"].dtype, back["i"][0], float(back["f"])) == (np.int64, 2**40 + 1, 1 / 3)


def test_tied_arrays_are_stored_once(tmp_path):
    x, y = jnp.ones((100, 100)), np.ones((100, 100), np.float32)
    save(tmp_path / "x", {"a": x, "b": [x, y], "c": (y,)})
    back = load(tmp_path / "x")
    assert back["a"] is back["b"][0]
    assert back["b"][1] is back["c"][0]
    assert back["a"] is not back["b"][1]
    assert (tmp_path / "x").stat().st_size < 2 * x.nbytes + 2000


def test_equal_arrays_are_not_tied(roundtrip):
    back = roundtrip([jnp.ones(3), jnp.ones(3)])
    assert back[0] is not back[1]


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_random_keys(roundtrip, impl):
    key = jax.random.split(jax.random.key(3, impl=impl), 2)
    back = roundtrip({"key": key})["key"]
    assert back.dtype == key.dtype
    np.testing.assert_array_equal(jax.random.key_data(back), jax.random.key_data(key))
    np.testing.assert_array_equal(jax.random.bits(back[1]), jax.random.bits(key[1]))


def test_layouts_that_are_not_contiguous(roundtrip):
    values = np.arange(24.0).reshape(4, 6)
    for view in (values.T, values[::2, ::-1], values[:, 3], np.asfortranarray(values)):
        np.testing.assert_array_equal(roundtrip(view), view)
    swapped = values.astype(">f8")
    back = roundtrip(swapped)
    assert back.dtype.isnative
    np.testing.assert_array_equal(back, values)


def test_sharded_arrays(roundtrip, devices):
    mesh = jax.sharding.Mesh(np.array(devices[:4]).reshape(2, 2), ("a", "b"))
    x = jnp.arange(64.0).reshape(8, 8)
    for spec in (("a", "b"), ("b",), (None, ("a", "b")), ()):
        placed = jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec)))
        np.testing.assert_array_equal(roundtrip(placed), x)


def test_saving_leaves_no_copy_on_the_array(roundtrip):
    x = jnp.ones(3)
    roundtrip({"x": x})
    assert x._npy_value is None


class Box:
    def __init__(self, value):
        self.value = value

    def __jax_array__(self):
        return self.value


def test_variables_are_unwrapped_and_ties_kept(roundtrip):
    x = jnp.arange(3.0)
    back = roundtrip({"a": Box(x), "b": Box(x), "c": x})
    assert back["a"] is back["b"] is back["c"]
    assert isinstance(back["a"], jax.Array)


def test_named_tuples_come_back_with_their_fields(roundtrip):
    a, b = roundtrip([Point(1, [2]), Point(3, 4)])
    assert (a.x, a.y, a) == (1, [2], Point(1, [2]))
    assert type(a) is type(b) is type(roundtrip(Point(0, 0)))
    assert jax.tree.map(lambda x: x + 1, b) == Point(4, 5)
    odd = collections.namedtuple("odd", "x _1 class", rename=True)(1, 2, 3)
    assert roundtrip(odd)._fields == ("x", "_1", "_2")


def test_subclasses_come_back_as_what_they_extend(roundtrip):
    class Text(str):
        pass

    tree = [collections.OrderedDict(b=1, a=2), collections.deque([1]), Text("x"), np.str_("y")]
    back = roundtrip(tree)
    assert back == [{"b": 1, "a": 2}, [1], "x", "y"]
    assert [type(x) for x in back] == [dict, list, str, str]
    assert list(back[0]) == ["b", "a"]


def test_mappings_and_sequences_of_any_class(roundtrip):
    assert roundtrip(collections.ChainMap({"a": 1})) == {"a": 1}
    assert roundtrip(collections.UserList([1, 2])) == [1, 2]


# --- names of tensors -----------------------------------------------------------------------------


def numbered(tree):
    """The same nest with arrays in the place of numbers."""
    if isinstance(tree, dict):
        return {key: numbered(x) for key, x in tree.items()}
    if isinstance(tree, (list, tuple)):
        items = [numbered(x) for x in tree]
        return Point(*items) if isinstance(tree, Point) else type(tree)(items)
    return np.array(tree)


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        ({"b.weight": 0, "a/x": 1, "": 2}, ["b.weight", "a/x", ""]),
        ({"opt": [{"m": 0}, 1], "n": (2,)}, ["opt.0.m", "opt.1", "n.0"]),
        ({"a": {"b": 0}, "a.b": 1}, ["a.b", "a.b~2"]),
        ({"a.b": 0, "a.b~2": 1, "a": {"b": 2}}, ["a.b", "a.b~2", "a.b~3"]),
        ({"__metadata__": 0}, ["__metadata__~2"]),
        ({1: 0, (1, "x"): 1, None: 2}, ["1", "(1, 'x')", "None"]),
        ({"\ud800": 0}, ["\\ud800"]),
        (0, ["value"]),
        (Point(0, 1), ["x", "y"]),
    ],
)
def test_names_of_tensors(tmp_path, tree, names):
    numpy_side = pytest.importorskip("safetensors.numpy")
    tree = numbered(tree)
    save(tmp_path / "x", tree)
    found = numpy_side.load_file(tmp_path / "x")
    assert {name: int(found[name]) for name in found} == {n: i for i, n in enumerate(names)}
    assert same(tree, load(tmp_path / "x"))


# --- what cannot be saved -------------------------------------------------------------------------


class Color(enum.IntEnum):
    RED = 1


class Network:
    def state_dict(self):
        return {}


class ArrayLike:
    def __array__(self, dtype=None, copy=None):
        return np.ones(3)


TAKES = "save takes dicts, lists, tuples, JAX and NumPy arrays, numbers, strings, bytes and None, nested in any way"


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            {"opt": [0, 1, 2, object()]},
            f"tree['opt'][3] is an object, which cannot be saved; {TAKES}",
        ),
        (print, f"tree is a builtin_function_or_method, which cannot be saved; {TAKES}"),
        ({1: {2, 3}}, "tree[1] is a set; save sorted(...) of it, a list"),
        (Point(1, bytearray(2)), "tree.y is a bytearray; save bytes(...) of it"),
        (
            (Network(),),
            "tree[0] is a Network; save its state instead: save(path, x.state_dict()), or x.save(path)",
        ),
        ([ArrayLike()], "tree[0] is an ArrayLike; convert it with numpy.asarray first"),
        ([Color.RED], "tree[0] is the enum member <Color.RED: 1>; save its .value"),
        ([np.ma.zeros(3)], "tree[0] is a masked array; save its .data and .mask"),
        (
            {"x": np.array(["a"])},
            "tree['x'] is an array of dtype <U1, which cannot be saved; convert it to numbers, or to a list of strings",
        ),
        ({"x": np.array([None])}, "tree['x'] is an array of dtype object, which cannot be saved"),
        (
            {frozenset(): 1},
            "tree has the key frozenset(), a frozenset; keys that can be saved are strings, "
            "numbers, None, and tuples of these",
        ),
        ({"a": {(1, b"x"): 1}}, "tree['a'] has the key b'x', a bytes; keys that can be saved"),
        ({Color.RED: 1}, "tree has the key <Color.RED: 1>, a Color; keys that can be saved"),
    ],
)
def test_what_cannot_be_saved(tmp_path, tree, message):
    with pytest.raises(TypeError, match=f"^{re.escape(message)}"):
        save(tmp_path / "x", tree)
    assert not list(tmp_path.iterdir())


def test_traced_values(tmp_path):
    message = (
        "tree['x'] is a traced value, which exists only while a function is being compiled; call "
        "save outside of compiled and transformed functions"
    )

    def f(x):
        save(tmp_path / "x", {"x": x})
        return x

    with pytest.raises(TypeError, match=re.escape(message)):
        jax.jit(f)(1.0)


def test_deleted_arrays(tmp_path):
    x = jnp.ones(3)
    x.delete()
    message = "tree['x'] is an array that was deleted or donated to a computation"
    with pytest.raises(ValueError, match=re.escape(message)):
        save(tmp_path / "x", {"x": x})


def test_errors_of_variables_come_before_anything_is_written(tmp_path):
    class Deferred:
        def __jax_array__(self):
            raise RuntimeError("not known yet")

    with pytest.raises(RuntimeError, match="not known yet"):
        save(tmp_path / "x", {"a": jnp.ones(3), "b": Deferred()})
    assert not list(tmp_path.iterdir())


def test_cycles_and_depth(tmp_path, roundtrip):
    cycle = {"a": []}
    cycle["a"].append(cycle)
    message = "tree['a'][0] contains itself, directly or through others"
    with pytest.raises(ValueError, match=re.escape(message)):
        save(tmp_path / "x", cycle)
    shared = [1]
    assert roundtrip([shared, shared]) == [[1], [1]]
    deep = {(1, 2): 0}
    for _ in range(63):
        deep = {(1, 2): deep}
    assert roundtrip(deep) == deep
    with pytest.raises(ValueError, match="is nested deeper than 64 levels"):
        save(tmp_path / "x", [deep])


# --- structures that no encoder wrote -------------------------------------------------------------


def write(path, structure, tensors=None):
    """A file of ours with any structure in it."""
    numpy_side = pytest.importorskip("safetensors.numpy")
    text = structure if isinstance(structure, str) else json.dumps(structure)
    numpy_side.save_file(tensors or {}, path, metadata={"brickwork": text})


X = {"x": np.arange(3, dtype=np.float32)}


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ({"what": 1}, "'what' is no kind of object"),
        ({}, "'' is no kind of object"),
        ({"array": "y"}, "the tensor 'y' is not in the file"),
        ({"array": ["x"]}, "the tensor ['x'] is not in the file"),
        (1, "it has no place for the tensor 'x'"),
        ({"bytes": "x"}, "'x' is not the tensor of a bytes"),
        ({"scalar": "x"}, "'x' is not the tensor of a scalar"),
        ({"key": "x", "impl": "rbg"}, "'x' is not the tensor of a key"),
        ({"array": "x", "dtype": 3, "shape": []}, "the tensor 'x' has a malformed dtype or shape"),
        ({"array": "x", "dtype": "int4"}, "the tensor 'x' has a malformed dtype or shape"),
        (
            {"array": "x", "dtype": "int4", "shape": [3]},
            "the tensor 'x': dtype 'int4' is not stored as float32",
        ),
        (
            {"array": "x", "dtype": "object", "shape": [3]},
            "the tensor 'x': dtype 'object' is not stored as float32",
        ),
        ({"map": [1]}, "'map' does not contain an object"),
        ({"dict": 1}, "a list was expected"),
        ({"dict": [[1, 2, 3]]}, "'dict' does not contain pairs"),
        ({"dict": [[[], 2]]}, "a key of a dict is of a kind that cannot be a key"),
        ({"dict": [[{"tuple": [{"map": {}}]}, 2]]}, "a key of a dict is of a kind that cannot"),
        ({"dict": [[1, 2], [1.0, 2]]}, "'dict' contains the same key twice"),
        ({"tuple": "abc"}, "a list was expected"),
        ({"int": "12", "x": 1}, "a number is malformed"),
        ({"int": 12}, "a number is malformed"),
        ({"int": "0xg"}, "invalid literal for int() with base 16: '0xg'"),
        ({"float": "1.5"}, "a number is malformed"),
        ({"complex": [1, 2]}, "a number is malformed"),
        ({"complex": [1.0]}, "a number is malformed"),
        (
            {"namedtuple": "P", "fields": ["x"], "values": []},
            "'namedtuple' has not as many fields as values",
        ),
        (
            {"namedtuple": "P", "fields": ["x y=print()"], "values": [1]},
            "'namedtuple' has impossible names",
        ),
        ({"namedtuple": "class", "fields": [], "values": []}, "'namedtuple' has impossible names"),
        ({"namedtuple": 1, "fields": [], "values": []}, "'namedtuple' has impossible names"),
        ({"namedtuple": "P", "fields": ["ﬁ"], "values": [1]}, "'namedtuple' has impossible names"),
    ],
)
def test_malformed_structures(tmp_path, tree, reason):
    write(tmp_path / "x", {"format": 1, "tree": tree}, X)
    message = f"{tmp_path / 'x'}: the structure in the metadata entry 'brickwork' is not valid: "
    with pytest.raises(CheckpointError, match=f"^{re.escape(message + reason)}"):
        load(tmp_path / "x")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name"),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"format": 1, "tree": ' + "[" * 300 + "]" * 300 + "}", "it is nested too deeply"),
        ("[1]", "it does not say its format"),
        ("{}", "it does not say its format"),
        ('{"format": true}', "it does not say its format"),
        (
            '{"format": 2}',
            "it has format 2, this version of brickwork reads format 1; install a newer brickwork",
        ),
        ('{"format": 1}', "it has no tree"),
        ('{"format": 1, "tree": 0, "aliases": []}', "its aliases are not an object of strings"),
        ('{"format": 1, "tree": 1' + "0" * 5000 + "}", "Exceeds the limit"),
    ],
)
def test_malformed_structure_texts(tmp_path, text, reason):
    write(tmp_path / "x", text)
    with pytest.raises(CheckpointError, match=re.escape(f"is not valid: {reason}")):
        load(tmp_path / "x")


def test_malformed_keys_and_bytes(tmp_path):
    tensors = {"k": np.zeros(3, np.uint32), "i": np.array([100], np.int8)}
    node = {"tuple": [{"key": "k", "impl": "none"}, {"array": "i"}]}
    write(tmp_path / "x", {"format": 1, "tree": node}, tensors)
    with pytest.raises(CheckpointError, match="the random key 'k' is malformed"):
        load(tmp_path / "x")
    node = {"tuple": [{"array": "k"}, {"array": "i", "dtype": "int4", "shape": [1]}]}
    write(tmp_path / "x", {"format": 1, "tree": node}, tensors)
    with pytest.raises(CheckpointError, match="some of its bytes are no values of dtype int4"):
        load(tmp_path / "x")


NAMES = st.sampled_from(["x", "k", "b", "i", "P", "dtype", "shape", "fields", "values", "impl"])
NODES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(0, 4), st.floats(), st.text(max_size=3), NAMES),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(NAMES, inner, max_size=2).flatmap(
            lambda more: st.builds(
                lambda kind, value: {kind: value} | more, st.sampled_from(sorted(_structure._KINDS)), inner
            )
        ),
    ),
    max_leaves=8,
)


@hypothesis.settings(max_examples=200, deadline=None, derandomize=True)
@hypothesis.given(node=NODES)
def test_any_json_is_understood_or_refused(node):
    tensors = {"x": np.ones(3, np.float32), "k": np.ones(2, np.uint32), "b": np.ones((2, 2))}
    tensors |= {"i": np.ones(2, np.int8)}
    try:
        _structure.decode(json.loads(json.dumps(node)), tensors, lambda x: x)
    except ValueError as error:
        assert str(error)


def test_nan_is_nan(roundtrip):
    assert math.isnan(roundtrip(float("nan")))
