"""Nests of Python objects as JSON and named tensors, and back.

In the JSON, ``null``, booleans, strings, small integers and finite floats stand for themselves and
an array for a list. Everything else is an object whose first key says what it is::

    {"map": {"a": 1}}                               a dict with string keys
    {"dict": [[1, "x"]]}                            any other dict, as pairs
    {"tuple": [1, 2]}
    {"namedtuple": "Point", "fields": ["x"], "values": [1]}
    {"dataclass": "State", "fields": ["step"], "values": [7]}
    {"int": "0x100000000000000"}                    beyond 2**53, where JSON readers round
    {"float": "nan"}                                or inf, -inf
    {"complex": [1.0, 2.0]}
    {"array": "a.weight"}                           a JAX array, by the name of its tensor
    {"numpy": "a.b"}, {"scalar": "a.c"}             a NumPy array, a NumPy scalar
    {"key": "rng", "impl": "threefry2x32"}          a JAX random key
    {"bytes": "a.d"}                                a tensor of bytes

``"dtype"`` and ``"shape"`` are added where safetensors lacks the dtype.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import keyword
import math
import unicodedata
from collections.abc import Callable, Iterator, Mapping, MutableSequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from ._container import Tensor, is_native, is_storable, restore
from ._source import Make

__all__ = ["Encoder", "decode", "fields_of", "leaves"]

MAX_DEPTH = 64
_KNOWN = "dicts, lists, tuples, JAX and NumPy arrays, numbers, strings, bytes and None"
_EXACT = 2**53


class Encoder:
    """Turns one tree into JSON, and collects its tensors.

    Args:
        numpy_as: ``"numpy"``, or ``"array"`` for NumPy arrays that shall come back as JAX arrays.

    Attributes:
        tensors: name -> tensor; the same array object in several places is there once.
    """

    def __init__(self, numpy_as: str = "numpy") -> None:
        self.numpy_as = numpy_as
        self.tensors: dict[str, Tensor] = {}
        self._leaves: dict[int, dict[str, Any]] = {}
        self._alive: list[Any] = []  # ids stay unique while their objects live
        self._open: set[int] = set()  # the containers around the current one

    def encode(self, value: Any, path: str = "tree", parts: tuple[str, ...] = ()) -> Any:
        """The JSON for ``value``, found at ``path``, whose tensors are named after ``parts``."""
        if isinstance(value, enum.Enum):
            raise TypeError(f"{path} is the enum member {value!r}; save its .value")
        if value is None or isinstance(value, (bool, str)):
            return value if value is None or isinstance(value, bool) else str(value)
        if isinstance(value, (np.ndarray, np.generic, jax.Array)):
            return self._array(value, path, parts)
        if isinstance(value, (int, float, complex)):
            return _number(value)
        if isinstance(value, bytes):
            data = np.frombuffer(value, np.uint8)
            return {"bytes": self._add(parts, data.shape, data.dtype, lambda: data)}
        if hasattr(type(value), "__jax_array__"):
            return self._array(value.__jax_array__(), path, parts)
        if isinstance(value, (Mapping, tuple)) or (
            isinstance(value, MutableSequence) and not isinstance(value, bytearray)
        ):
            return self._container(value, path, parts)
        if fields_of(value) is not None:
            return self._container(value, path, parts)
        raise TypeError(f"{path} is {_article(value)}{_advice(value)}")

    def _container(self, value: Any, path: str, parts: tuple[str, ...]) -> Any:
        if id(value) in self._open:
            raise ValueError(f"{path} contains itself, directly or through others")
        if len(self._open) == MAX_DEPTH:
            raise ValueError(f"{path[:80]}... is nested deeper than {MAX_DEPTH} levels")
        self._open.add(id(value))
        try:
            if isinstance(value, Mapping):
                return self._mapping(value, path, parts)
            fields = fields_of(value)
            if fields is not None:
                return self._record(value, fields, path, parts)
            items = [self.encode(x, f"{path}[{i}]", (*parts, str(i))) for i, x in enumerate(value)]
            return {"tuple": items} if isinstance(value, tuple) else items
        finally:
            self._open.discard(id(value))

    def _record(self, value: Any, fields: list[str], path: str, parts: tuple[str, ...]) -> Any:
        kind, name = "namedtuple" if isinstance(value, tuple) else "dataclass", type(value).__name__
        return {
            kind: name if _is_name(name) else "Record",
            "fields": fields,
            "values": [self.encode(getattr(value, f), f"{path}.{f}", (*parts, f)) for f in fields],
        }

    def _mapping(self, value: Mapping[Any, Any], path: str, parts: tuple[str, ...]) -> Any:
        pairs = [(_key(key, path), self.encode(x, f"{path}[{key!r}]", (*parts, str(key)))) for key, x in value.items()]
        if all(isinstance(key, str) for key in value):
            return {"map": dict(pairs)}
        return {"dict": [list(pair) for pair in pairs]}

    def _array(self, value: Any, path: str, parts: tuple[str, ...]) -> dict[str, Any]:
        known = self._leaves.get(id(value))
        if known is not None:
            return known
        leaf = self._new_array(value, path, parts)
        self._leaves[id(value)] = leaf
        self._alive.append(value)
        return leaf

    def _new_array(self, value: Any, path: str, parts: tuple[str, ...]) -> dict[str, Any]:
        kind, extra, held = "array", {}, True
        if isinstance(value, jax.Array):
            _check_readable(value, path)
            if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
                kind, extra = "key", {"impl": str(jax.random.key_impl(value))}
                value = jax.random.key_data(value)
            held = value.is_fully_replicated and all(device.platform == "cpu" for device in value.devices())
            fetch: Callable[[], np.ndarray] = lambda: _to_host(value)  # noqa: E731
        else:
            kind = self.numpy_as if isinstance(value, np.ndarray) else "scalar"
            if isinstance(value, np.ma.MaskedArray):
                raise TypeError(f"{path} is a masked array; save its .data and .mask")
            fetch = lambda: np.asarray(value)  # noqa: E731
        dtype = value.dtype if value.dtype.isnative else value.dtype.newbyteorder("=")
        if not is_storable(dtype):
            raise TypeError(
                f"{path} is an array of dtype {value.dtype}, which cannot be saved; "
                "convert it to numbers, or to a list of strings"
            )
        if not is_native(dtype):
            extra |= {"dtype": dtype.name, "shape": list(value.shape)}
        return {kind: self._add(parts, value.shape, dtype, fetch, held), **extra}

    def _add(
        self,
        parts: tuple[str, ...],
        shape: tuple[int, ...],
        dtype: np.dtype,
        fetch: Callable[[], np.ndarray],
        held: bool = True,
    ) -> str:
        """Register a tensor under a free name made of ``parts``."""
        wanted = ".".join(parts) if parts else "value"
        wanted = name = wanted.encode("utf-8", "backslashreplace").decode()
        count = 1
        while name in self.tensors or name == "__metadata__":
            count += 1
            name = f"{wanted}~{count}"
        self.tensors[name] = Tensor(tuple(shape), dtype, fetch, held)
        return name


def fields_of(value: Any) -> list[str] | None:
    """The names of the fields of a named tuple or a dataclass; ``None`` for anything else."""
    if isinstance(value, tuple):
        return list(value._fields) if hasattr(value, "_fields") else None  # pyright: ignore[reportAttributeAccessIssue]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [f.name for f in dataclasses.fields(value)]
    return None


def leaves(value: Any, leaf: type | tuple[type, ...] = (), path: str = "") -> Iterator[tuple[str, Any]]:
    """What is in a nest, by the path to it, joined with dots; ``leaf`` are types that are not looked into."""
    if isinstance(value, leaf):
        yield path[1:] or "value", value
    elif isinstance(value, dict):
        for key, x in value.items():
            yield from leaves(x, leaf, f"{path}.{key}")
    elif fields := fields_of(value):
        for name in fields:
            yield from leaves(getattr(value, name), leaf, f"{path}.{name}")
    elif isinstance(value, (list, tuple)):
        for i, x in enumerate(value):
            yield from leaves(x, leaf, f"{path}.{i}")
    else:
        yield path[1:] or "value", value


def _number(value: Any) -> Any:
    if isinstance(value, int):
        value = int(value)
        return value if -_EXACT <= value <= _EXACT else {"int": hex(value)}
    if isinstance(value, float):
        value = float(value)
        return value if math.isfinite(value) else {"float": repr(value)}
    return {"complex": [_number(value.real), _number(value.imag)]}


def _key(key: Any, path: str) -> Any:
    """The JSON for a key of the dict at ``path``."""
    if isinstance(key, tuple) and not hasattr(key, "_fields"):
        return {"tuple": [_key(part, path) for part in key]}
    if key is None or type(key) in (bool, str):
        return key
    if type(key) in (int, float, complex):
        return _number(key)
    raise TypeError(
        f"{path} has the key {key!r}, {_article(key)}; keys that can be saved are strings, "
        "numbers, None, and tuples of these"
    )


def _article(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _advice(value: Any) -> str:
    if callable(getattr(value, "state_dict", None)):
        return "; save its state instead: save(path, x.state_dict()), or x.save(path)"
    if hasattr(value, "__array__"):
        return "; convert it with numpy.asarray first"
    if isinstance(value, (set, frozenset)):
        return "; save sorted(...) of it, a list"
    if isinstance(value, (bytearray, memoryview)):
        return "; save bytes(...) of it"
    return f", which cannot be saved; save takes {_KNOWN}, nested in any way"


def _check_readable(value: jax.Array, path: str) -> None:
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"{path} is a traced value, which exists only while a function is being compiled; "
            "call save outside of compiled and transformed functions"
        )
    if value.is_deleted():
        raise ValueError(f"{path} is an array that was deleted or donated to a computation")
    if not value.is_fully_addressable and not value.is_fully_replicated:
        raise ValueError(
            f"{path} is spread over several processes; gather it first, for example with "
            "jax.experimental.multihost_utils.process_allgather"
        )


def _to_host(value: jax.Array) -> np.ndarray:
    """The values in host memory, without the copy that ``np.asarray`` leaves on the array."""
    shards = value.addressable_shards
    if value.is_fully_replicated:
        return np.asarray(shards[0].data)
    out = np.empty(value.shape, value.dtype)
    for shard in shards:
        if shard.replica_id == 0:
            out[shard.index] = np.asarray(shard.data)
    return out


# --- and back -------------------------------------------------------------------------------------


def decode(node: Any, tensors: dict[str, np.ndarray], make: Make) -> Any:
    """Rebuild what :class:`Encoder` took apart.

    Args:
        node: the JSON.
        tensors: the tensors by name.
        make: called with ``"array"`` or ``"numpy"``, the tensor's name and its values, once for each JAX array and
            each NumPy array.

    Raises:
        ValueError: the JSON is not what an encoder writes, or does not fit the tensors.
    """
    decoder = _Decoder(tensors, make)
    tree = decoder.decode(node, 0)
    if decoder.unused:
        raise ValueError(f"it has no place for the tensor {min(decoder.unused)!r}")
    return tree


class _Decoder:
    def __init__(self, tensors: dict[str, np.ndarray], make: Make) -> None:
        self.tensors, self.make = tensors, make
        self.unused = set(tensors)
        self.made: dict[tuple[str, str], Any] = {}

    def decode(self, node: Any, depth: int) -> Any:
        if depth > 3 * MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        if isinstance(node, list):
            return [self.decode(x, depth + 1) for x in node]
        if not isinstance(node, dict):
            return node
        kind = next(iter(node), "")
        make = _KINDS.get(kind)
        if make is None:
            raise ValueError(f"{kind!r} is no kind of object")
        return make(self, node, depth + 1)

    def items(self, values: Any, depth: int) -> list[Any]:
        if not isinstance(values, list):
            raise ValueError("a list was expected")
        return [self.decode(x, depth) for x in values]

    def map(self, node: dict[str, Any], depth: int) -> Any:
        values = node["map"]
        if not isinstance(values, dict):
            raise ValueError("'map' does not contain an object")
        return {key: self.decode(x, depth) for key, x in values.items()}

    def dict(self, node: dict[str, Any], depth: int) -> Any:
        found = {}
        for pair in self.items(node["dict"], depth):
            if not isinstance(pair, list) or len(pair) != 2:
                raise ValueError("'dict' does not contain pairs")
            _check_key(pair[0])
            found[pair[0]] = pair[1]
        if len(found) != len(node["dict"]):
            raise ValueError("'dict' contains the same key twice")
        return found

    def tuple(self, node: dict[str, Any], depth: int) -> Any:
        return tuple(self.items(node["tuple"], depth))

    def record(self, node: dict[str, Any], depth: int) -> Any:
        kind, name = next(iter(node.items()))
        fields, values = node.get("fields"), self.items(node.get("values"), depth)
        if not isinstance(fields, list) or len(fields) != len(values):
            raise ValueError(f"{kind!r} has not as many fields as values")
        if not all(map(_is_name, (name, *fields))) or len(set(fields)) != len(fields):
            raise ValueError(f"{kind!r} has impossible names")
        return _record_class(kind, name, *fields)(*values)

    def number(self, node: dict[str, Any], depth: int) -> Any:
        match node:
            case {"int": str(text)} if len(node) == 1:
                return int(text, 16)
            case {"float": "nan" | "inf" | "-inf" as text} if len(node) == 1:
                return float(text)
            case {"complex": [_, _] as parts} if len(node) == 1:
                real, imaginary = self.items(parts, depth)
                if type(real) is type(imaginary) is float:
                    return complex(real, imaginary)
        raise ValueError("a number is malformed")

    def leaf(self, node: dict[str, Any], depth: int) -> Any:
        kind, name = next(iter(node.items()))
        if not isinstance(name, str) or name not in self.tensors:
            raise ValueError(f"the tensor {name!r} is not in the file")
        if (kind, name) not in self.made:
            self.made[kind, name] = self._make(kind, node, self._stored(node, name))
        return self.made[kind, name]

    def _stored(self, node: dict[str, Any], name: str) -> np.ndarray:
        self.unused.discard(name)
        array = self.tensors[name]
        if "dtype" not in node:
            return array
        dtype, shape = node["dtype"], node.get("shape")
        if not isinstance(dtype, str) or not isinstance(shape, list):
            raise ValueError(f"the tensor {name!r} has a malformed dtype or shape")
        try:
            return restore(array, dtype, tuple(shape))
        except ValueError as error:
            raise ValueError(f"the tensor {name!r}: {error}") from None

    def _make(self, kind: str, node: dict[str, Any], array: np.ndarray) -> Any:
        if kind in ("array", "numpy"):
            return self.make(kind, node[kind], array)
        if kind == "scalar" and array.ndim == 0:
            return array[()]
        if kind == "bytes" and array.dtype == np.uint8:
            return array.tobytes()
        if kind == "key" and array.dtype == np.uint32:
            try:
                return jax.random.wrap_key_data(jnp.asarray(array), impl=node.get("impl"))
            except (ValueError, TypeError, AttributeError) as error:
                raise ValueError(f"the random key {node['key']!r} is malformed: {error}") from None
        raise ValueError(f"{node[kind]!r} is not the tensor of a {kind}")


_KINDS: dict[str, Callable[[_Decoder, dict[str, Any], int], Any]] = {
    "map": _Decoder.map,
    "dict": _Decoder.dict,
    "tuple": _Decoder.tuple,
    **dict.fromkeys(("namedtuple", "dataclass"), _Decoder.record),
    **dict.fromkeys(("int", "float", "complex"), _Decoder.number),
    **dict.fromkeys(("array", "numpy", "scalar", "key", "bytes"), _Decoder.leaf),
}


@functools.lru_cache(maxsize=256)
def _record_class(kind: str, name: str, *fields: str) -> Any:
    if kind == "dataclass":
        return dataclasses.make_dataclass(name, fields)
    return collections.namedtuple(name, fields, rename=True)


def _check_key(key: Any) -> None:
    if isinstance(key, tuple):
        for part in key:
            _check_key(part)
    elif not (key is None or isinstance(key, (bool, str, int, float, complex))):
        raise ValueError("a key of a dict is of a kind that cannot be a key")


def _is_name(name: Any) -> bool:
    """Whether ``name`` may name a namedtuple or a field of one."""
    return (
        isinstance(name, str)
        and name.isidentifier()
        and not keyword.iskeyword(name)
        and unicodedata.normalize("NFKC", name) == name
    )
