"""What a module's constructor says of arguments that it doesn't take."""

import abc
import dataclasses
import functools
from typing import Any

import pytest

import brickwork as bw
from brickwork import nn


class Plain(bw.Module):
    def forward(self, x: Any) -> Any:
        return x


class Sized(bw.Module):
    def __init__(self, width: int, *, depth: int = 3, kind: str = "a") -> None:
        self.width = width

    def forward(self, x: Any) -> Any:
        return x


SIZED = "Sized(width, *, depth=3, kind='a'): "
REFUSED = {
    "no constructor": (
        lambda: Plain(3, k=2),
        "Plain takes no arguments, got (3, k=2). Leave them out, or give Plain an __init__ that takes them.",
    ),
    "layer without options": (lambda: nn.ReLU(foo=2), "ReLU takes no arguments, got (foo=2). Leave them out."),  # type: ignore[call-arg]
    "inplace": (
        lambda: nn.ReLU(inplace=True),  # type: ignore[call-arg]
        "ReLU takes no arguments, got (inplace=True). Arrays can't be changed in place; leave it out.",
    ),
    "device": (
        lambda: nn.Dropout(device="cpu"),  # type: ignore[call-arg]
        "Dropout(p=0.5): got an unexpected argument 'device'. Leave it out, and move the whole network: net.to(...).",
    ),
    "misspelt": (lambda: Sized(1, dept=2), f"{SIZED}got an unexpected argument 'dept'. Did you mean 'depth'?"),  # type: ignore[call-arg]
    "unknown": (lambda: Sized(1, zz=2), f"{SIZED}got an unexpected argument 'zz'. Leave it out."),  # type: ignore[call-arg]
    "missing": (lambda: Sized(depth=1), f"{SIZED}got (depth=1); missing 'width'."),  # type: ignore[call-arg]
    "two missing": (lambda: nn.Conv2d(bias=False), "got (bias=False); missing 'out_channels' and 'kernel_size'."),  # type: ignore[call-arg]
    "twice": (lambda: Sized(1, width=2), f"{SIZED}got (1, width=2), which gives 'width' both by position and by name."),  # type: ignore[misc]
    "by position": (
        lambda: Sized(1, "b"),  # type: ignore[misc]
        f"{SIZED}got 2 positional arguments (1, 'b'); at most 1 is taken by position: write Sized(1, kind='b').",
    ),
    "by position, which is not clear": (
        lambda: Sized(1, None),  # type: ignore[misc]
        f"{SIZED}got 2 positional arguments (1, None); at most 1 is taken by position: give the others by keyword.",
    ),
    "a class behind a private base": (
        lambda: nn.L1Loss("sum"),  # type: ignore[misc]
        "L1Loss(*, reduction='mean'): got 1 positional argument ('sum'); none is taken so: "
        "write L1Loss(reduction='sum').",
    ),
    "several sizes in one": (
        lambda: nn.LayerNorm([3, 4]),  # type: ignore[misc]
        "got 1 positional argument ([3, 4]); write nn.LayerNorm(normalized_shape=[3, 4])",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    make, text = REFUSED[case]
    with pytest.raises(TypeError) as error:
        make()
    assert str(error.value).endswith(text)


def test_constructors_of_all_kinds() -> None:
    class Loose(bw.Module):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.given = (args, kwargs)

    class Mixin:
        def __init__(self, a: int, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.a = a

    class Mixed(Mixin, bw.Module):
        pass

    class Abstract(bw.Module, abc.ABC):
        def __init__(self, a: int, /, b: int = 1) -> None:
            self.a = a

    @dataclasses.dataclass(eq=False)
    class Data(bw.Module):
        a: int
        b: int = 2

    class Other(bw.Module):
        def __new__(cls, a: int) -> Any:
            return super().__new__(cls)

        def __init__(self, a: int) -> None:
            self.a = a

    assert Loose(1, k=2).given == ((1,), {"k": 2})
    assert Mixed(1).a == Abstract(1).a == Data(1).a == Other(1).a == 1
    with pytest.raises(TypeError, match=r"^Abstract\(a, b=1\): got \(a=1\); missing 'a'|unexpected argument 'a'"):
        Abstract(a=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^Data\(a, b=2\): got \(b=1\); missing 'a'"):
        Data(b=1)  # type: ignore[call-arg]


def test_a_decorated_constructor_takes_what_the_decorator_does() -> None:
    def with_width(init: Any) -> Any:
        @functools.wraps(init)
        def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
            init(self, 3, *args, **kwargs)

        return wrapped

    def passed_on(init: Any) -> Any:
        @functools.wraps(init)
        def wrapped(*args: Any, **kwargs: Any) -> None:
            init(*args, **kwargs)

        return wrapped

    class Passed(bw.Module):
        @passed_on
        def __init__(self, width: int, depth: int = 1) -> None:
            self.sizes = (width, depth)

    assert Passed(3, 2).sizes == Passed(3, depth=2).sizes == (3, 2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'deep'"):
        Passed(3, deep=2)  # type: ignore[call-arg]

    class Decorated(bw.Module):
        @with_width
        def __init__(self, width: int, depth: int = 1) -> None:
            self.sizes = (width, depth)

    assert Decorated(2).sizes == (3, 2) and Decorated().sizes == (3, 1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'deep'"):
        Decorated(deep=2)  # type: ignore[call-arg]


def test_a_replaced_constructor_counts() -> None:
    class Changing(bw.Module):
        def __init__(self) -> None:
            self.a = 0

    Changing()
    before = Changing.__init__

    @functools.wraps(before)
    def init(self: Changing, a: int = 0) -> None:
        self.a = a

    Changing.__init__ = init  # type: ignore[method-assign, assignment]
    assert Changing(3).a == 3  # type: ignore[call-arg]
