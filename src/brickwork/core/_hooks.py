"""Forward hooks and the capture of intermediate outputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ._parameter import Slot

_numbers = itertools.count()


class HookHandle:
    """Removes a hook: call ``remove()``, or use as a context manager."""

    def __init__(self, module: Any, hooks: dict[int, Callable[..., Any]], number: int) -> None:
        self._module, self._hooks, self._number = module, hooks, number

    def remove(self) -> None:
        """Remove the hook; nothing happens when it is gone already."""
        if self._hooks.pop(self._number, None) is not None:
            self._module.touched()

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def add_hook(module: Any, hooks: dict[int, Callable[..., Any]], fn: Callable[..., Any]) -> HookHandle:
    """Register a hook and give its handle."""
    if not callable(fn):
        raise TypeError(f"a hook must be callable, got {type(fn).__name__}")
    number = next(_numbers)
    hooks[number] = fn
    module.touched()
    return HookHandle(module, hooks, number)


class Capture(Mapping[str, Any]):
    """The outputs of some inner modules while the context is open: a mapping from path to output.

    A module that is called several times keeps its last output. Works inside and around compiled
    functions: the outputs are state like any other.
    """

    def __init__(self, root: Any, modules: list[tuple[str, Any]]) -> None:
        self._slots = {path: Slot.outlasting() for path, _ in modules}
        self._modules = modules
        self._handles: list[HookHandle] = []

    def __enter__(self) -> Capture:
        for path, module in self._modules:
            self._handles.append(module.register_forward_hook(_Record(self._slots[path])))
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __getitem__(self, path: str) -> Any:
        if path not in self._slots:
            raise KeyError(f"{path!r} was not captured; captured are {list(self._slots)}")
        value = self._slots[path].value
        if value is None:
            raise KeyError(f"{path!r} has not been called while capturing")
        return value

    def __iter__(self) -> Iterator[str]:
        return (path for path, slot in self._slots.items() if slot.value is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Record:
    def __init__(self, slot: Slot) -> None:
        self.slot = slot

    def __call__(self, module: Any, args: Any, output: Any) -> None:
        self.slot.value = output
