"""What makes a variable usable as an array: operators, indexing, conversion."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def unbox(x: Any) -> Any:
    """The value of a variable; anything else as it is."""
    return x.value if isinstance(x, ArrayMethods) else x


def missing(owner: Any, name: str, advice: str | None) -> Any:
    """The end of a ``__getattr__``: raise an ``AttributeError``, with advice if there is any."""
    own = getattr(type(owner), name, None)
    if isinstance(own, property) and own.fget is not None:
        return own.fget(owner)  # it raised an AttributeError of its own; let the user see that one
    start = f"{type(owner).__name__!r} object has no attribute {name!r}"
    if advice:
        raise AttributeError(f"{start}. {advice}", name="")  # without a name, Python would add a guess of its own
    raise AttributeError(start, name=name, obj=owner)


_CONCRETE = frozenset({"block_until_ready", "devices", "tobytes", "tolist", "weak_type"})  # of arrays, not of tracers


class ArrayMethods:
    """Everything an array can do, done by ``self.value``."""

    @staticmethod
    def _other_names(name: str) -> str | None:
        """What a name that frameworks have for something of these is called here; replaced from above."""
        return None

    __slots__ = ()
    # NumPy must leave `array + variable` to us.
    __array_priority__ = 1000
    value: Any

    def __jax_array__(self) -> jax.Array:
        return self.value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        host = np.asarray(self.value)
        return np.array(host, dtype, copy=True) if copy else np.asarray(host, dtype)

    def __getitem__(self, index: Any) -> jax.Array:
        value = self.value
        _check_index(self, value.shape, index)
        return value[unbox(index)]

    def __setitem__(self, index: Any, new: Any) -> None:
        old = self.value
        _check_index(self, old.shape, index)
        new = unbox(new)
        if not isinstance(new, jax.Array):
            new = jnp.asarray(new, old.dtype)
        self.value = old.at[unbox(index)].set(new.astype(old.dtype))

    def __len__(self) -> int:
        if not self.value.shape:
            raise TypeError(f"len() of a {type(self).__name__} without dimensions")
        return len(self.value)

    def __iter__(self) -> Iterator[jax.Array]:
        return iter(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __float__(self) -> float:
        return float(self.value)

    def __complex__(self) -> complex:
        return complex(self.value)

    def __index__(self) -> int:
        return operator.index(self.value)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec) if spec else str(self)

    def __getattr__(self, name: str) -> Any:
        # Methods of arrays (`sum`, `T`, `at`, `reshape`, ...); dunders are looked up on the class.
        if name.startswith("_") or hasattr(type(self), name) or not (hasattr(jax.Array, name) or name in _CONCRETE):
            return missing(self, name, self._other_names(name))
        return getattr(self.value, name)

    __hash__ = object.__hash__


def _check_index(owner: Any, shape: tuple[int, ...], index: Any) -> None:
    """NumPy's IndexError for a plain index out of range; JAX would clip it, and drop what is written there."""
    parts = index if isinstance(index, tuple) else (index,)
    if Ellipsis in [p for p in parts if p is Ellipsis]:
        return
    axes = (p for p in parts if p is not None)
    for axis, part in enumerate(axes):
        if isinstance(part, int) and not isinstance(part, bool) and axis < len(shape):
            if not -shape[axis] <= part < shape[axis]:
                raise IndexError(
                    f"{owner.described()}: index {part} is out of range for axis {axis} of size {shape[axis]}"
                )
        elif str(getattr(part, "dtype", "")) == "bool":
            return  # a mask takes several axes


_BINARY = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift"]


def _install_operators() -> None:
    def binary(name: str) -> None:
        function = getattr(operator, {"and": "and_", "or": "or_"}.get(name, name))

        def forward(self: ArrayMethods, other: Any) -> Any:
            return function(self.value, unbox(other))

        def backward(self: ArrayMethods, other: Any) -> Any:
            return function(other, self.value)

        def inplace(self: ArrayMethods, other: Any) -> ArrayMethods:
            self.value = function(self.value, unbox(other))
            return self

        setattr(ArrayMethods, f"__{name}__", forward)
        setattr(ArrayMethods, f"__r{name}__", backward)
        setattr(ArrayMethods, f"__i{name}__", inplace)

    def compare(name: str) -> None:
        function = getattr(operator, name)
        setattr(ArrayMethods, f"__{name}__", lambda self, other: function(self.value, unbox(other)))

    def unary(name: str) -> None:
        function = abs if name == "abs" else getattr(operator, name)
        setattr(ArrayMethods, f"__{name}__", lambda self: function(self.value))

    for name in _BINARY:
        binary(name)
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        compare(name)
    for name in ("neg", "pos", "abs", "invert"):
        unary(name)
    ArrayMethods.__divmod__ = lambda self, other: divmod(self.value, unbox(other))  # type: ignore[attr-defined]
    ArrayMethods.__rdivmod__ = lambda self, other: divmod(other, self.value)  # type: ignore[attr-defined]


_install_operators()
