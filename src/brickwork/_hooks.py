"""Forward hooks and the capture of intermediate outputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .core._parameter import Slot

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
    functions: the outputs are state like any other, and capturing the same modules again finds the
    same compiled program.
    """

    def __init__(self, modules: list[tuple[str, Any]]) -> None:
        self._modules = modules
        self._outputs: dict[str, Any] = {}
        self._open = False

    def __enter__(self) -> Capture:
        for _, module in self._modules:
            recorder = _recorder(module)
            if recorder.open == 0:
                recorder.slot.value = None
                recorder.handle = module.register_forward_hook(recorder)
            recorder.open += 1
        self._open = True
        return self

    def __exit__(self, *exc: object) -> None:
        self._outputs = {path: _recorder(module).slot.value for path, module in self._modules}
        self._open = False
        for _, module in self._modules:
            recorder = _recorder(module)
            recorder.open -= 1
            if recorder.open == 0:
                recorder.handle.remove()
                recorder.slot.value = None

    def _found(self) -> dict[str, Any]:
        if self._open:
            now = {path: _recorder(module).slot.value for path, module in self._modules}
        else:
            now = self._outputs
        return {path: output for path, output in now.items() if output is not None}

    def __getitem__(self, path: str) -> Any:
        found = self._found()
        if path in found:
            return found[path]
        if path not in (p for p, _ in self._modules):
            raise KeyError(f"{path!r} was not captured; captured are {[p for p, _ in self._modules]}")
        raise KeyError(f"{path!r} has not been called while capturing")

    def __iter__(self) -> Iterator[str]:
        return iter(self._found())

    def __len__(self) -> int:
        return len(self._found())


class _Recorder:
    """A hook that keeps the last output of one module."""

    def __init__(self) -> None:
        self.slot = Slot.outlasting()
        self.open = 0  # how many captures of this module are under way
        self.handle: Any = None

    def __call__(self, module: Any, args: Any, output: Any) -> None:
        self.slot.value = output


def _recorder(module: Any) -> _Recorder:
    """The recorder of a module, made at first use and kept, so that programs that include it are found again."""
    record = module._bw
    if record.recorder is None:
        record.recorder = _Recorder()
    return record.recorder
