"""Compiled methods: a compiled function together with the object that it belongs to."""

from __future__ import annotations

import copy
import functools
import weakref
from collections.abc import Callable
from typing import Any

from ._explain import Explanation


class WeakMethod:
    """A function with its first argument given, which it does not keep alive."""

    def __init__(self, fn: Callable[..., Any], instance: weakref.ref[Any]) -> None:
        functools.update_wrapper(self, fn)
        self._instance = instance
        self._fn = fn

    @property
    def __self__(self) -> Any:
        return self._instance()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._fn(self._instance(), *args, **kwargs)


class BoundMethod:
    """A compiled method of an object.

    A module is passed as the first argument (``given``), so that equal modules share programs; other
    objects have programs of their own.
    """

    def __init__(self, compiled: Any, instance: Any, given: bool) -> None:
        self.__wrapped__ = compiled
        self.__self__ = instance
        self._given = given

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(self.__self__, *args, **kwargs) if self._given else self.__wrapped__(*args, **kwargs)

    def explain(self, *args: Any, hlo: bool | None = None, **kwargs: Any) -> Explanation:
        """As :meth:`Compiled.explain`, with the object as first argument."""
        given = (self.__self__, *args) if self._given else args
        return self.__wrapped__.explain(*given, hlo=hlo, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return getattr(copy.deepcopy(self.__self__, memo), self.__name__)

    def __reduce__(self) -> Any:
        return getattr, (self.__self__, self.__name__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)
