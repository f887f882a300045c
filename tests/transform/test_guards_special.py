"""What compiled functions notice of objects whose methods are called by operators and the like."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import brickwork as bw
from brickwork import nn

X = jnp.ones(2)
RATE = 1.0


class Scale:
    """Its special methods read an attribute, or a global."""

    def __init__(self) -> None:
        self.k = 2.0
        self.calls = 0

    def __rmul__(self, x: Any) -> Any:
        return x * self.k

    def __matmul__(self, x: Any) -> Any:
        return x + self.k

    def __radd__(self, x: Any) -> Any:  # for +=
        return x + RATE

    def __neg__(self) -> float:
        return -self.k

    def __getitem__(self, i: int) -> float:
        return RATE * i

    def __len__(self) -> int:
        return int(self.k)

    def __iter__(self) -> Any:
        return iter([self.k, RATE])

    def __contains__(self, x: float) -> bool:
        return self.k == x

    def __bool__(self) -> bool:
        return self.k > 2.5

    def __lt__(self, x: float) -> bool:
        return self.k < x

    def __float__(self) -> float:
        return float(self.k)

    def __enter__(self) -> float:
        return self.k

    def __exit__(self, *args: object) -> None:
        pass

    def __getattr__(self, name: str) -> float:
        if name == "other":
            return self.k
        raise AttributeError(name)

    def __jax_array__(self) -> Any:
        return jnp.float32(self.k)

    def __repr__(self) -> str:
        return f"Scale({self.k}, {self.calls})"


class Made:
    def __init__(self, x: Any) -> None:
        self.value = x * RATE


def added(x: Any, s: Scale) -> Any:
    x += s
    return x


def entered(x: Any, s: Scale) -> Any:
    with s as k:
        return x * k


WAYS = {
    "*": lambda x, s: x * s,
    "@": lambda x, s: s @ x,
    "+=": added,
    "-": lambda x, s: x * -s,
    "item": lambda x, s: x * s[2],
    "len": lambda x, s: x * len(s),
    "iteration": lambda x, s: x * sum(k for k in s),
    "unpacking": lambda x, s: x * next(iter([*s])),
    "zip": lambda x, s: x * next(zip(s, s, strict=True))[0],
    "max": lambda x, s: x * max(s),
    "in": lambda x, s: x * int(2.0 in s),
    "truth": lambda x, s: x if s else x * 5,
    "not": lambda x, s: x * int(not s),
    "<": lambda x, s: x * int(s < 2.5),
    "float": lambda x, s: x * float(s),
    "with": entered,
    "getattr": lambda x, s: x * s.other,
    "as an array": lambda x, s: x * jnp.asarray(s),
    "made inside": lambda x, s: Made(x).value,
}


class Holder(bw.Module):
    keeps_nothing = False

    def __init__(self, s: Scale, way: Any) -> None:
        self.s, self.way = s, way

    def forward(self, x: Any) -> Any:
        return self.way(x, self.s)


@pytest.mark.parametrize("held", [False, True], ids=["captured", "held by a module"])
@pytest.mark.parametrize("way", WAYS)
def test_special_methods(way: str, held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    s, call = Scale(), WAYS[way]
    plain: Any = Holder(s, call) if held else lambda x: call(x, s)
    compiled = bw.compile(plain)
    np.testing.assert_array_equal(compiled(X), plain(X))
    before = plain(X)
    s.k = 3.0
    monkeypatch.setitem(globals(), "RATE", 10.0)
    assert (before != plain(X)).any()
    np.testing.assert_array_equal(compiled(X), plain(X))
    assert compiled.stats().compilations == 2
    s.calls += 1  # only what shows the object reads it
    compiled(X)
    assert compiled.stats().compilations == 2


def test_a_special_method_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    s = Scale()
    f = bw.compile(lambda x: s @ x)
    f(X)
    monkeypatch.setattr(Scale, "__matmul__", lambda self, x: x + 7)
    assert f(X).tolist() == [8, 8]


def test_what_dataclasses_compare_does_not_matter() -> None:
    @dataclasses.dataclass
    class Config:
        rate: float = 1.0
        step: int = 0

    config = Config()
    f = bw.compile(lambda x: x * config.rate * (x == 1).astype(x.dtype))
    f(X)
    config.step += 1
    f(X)
    assert f.stats().compilations == 1
    config.rate = 2.0
    assert f(X).tolist() == [2, 2]


def test_a_special_method_of_a_module() -> None:
    class Indexed(bw.Module):
        def __init__(self) -> None:
            self.layer = nn.Identity()

        def __getitem__(self, i: int) -> float:
            return RATE * i

        def forward(self, x: Any) -> Any:
            return self.layer(x) * self[2]

    net = Indexed()
    f = bw.compile(net)
    assert f(X).tolist() == [2, 2]
    global RATE
    RATE, before = 4.0, RATE
    try:
        assert f(X).tolist() == [8, 8]
    finally:
        RATE = before


def test_lists_among_the_arguments_of_a_partial() -> None:
    def scaled(factors: list[float], x: Any, *, more: dict[str, float]) -> Any:
        return x * factors[0] * more["k"]

    factors, more = [2.0, 3.0], {"k": 1.0}
    f = bw.compile(functools.partial(scaled, factors, more=more))
    assert f(X).tolist() == [2, 2]
    factors[0] = 5.0
    assert f(X).tolist() == [5, 5]
    more["k"] = 2.0
    assert f(X).tolist() == [10, 10]
    assert f.stats().compilations == 3
    f(X)
    assert f.stats().compilations == 3
