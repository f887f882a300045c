"""Work on another thread whose errors come back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

__all__ = ["Background"]


class Background:
    """Runs jobs one after the other on threads that the interpreter waits for before it exits."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._turn = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []

    def start(self, job: Callable[[], None], note: str) -> None:
        """Run ``job`` on another thread; ``note`` goes with what it raises."""
        thread = threading.Thread(target=self._run, args=(job, note), name=self._name, daemon=False)
        thread.start()
        self._threads.append(thread)

    def _run(self, job: Callable[[], None], note: str) -> None:
        with self._turn:
            try:
                job()
            except BaseException as error:
                error.add_note(note)
                self._failures.append(error)

    def wait(self) -> None:
        """Return when the jobs that have been started are done."""
        for thread in tuple(self._threads):
            if thread is not threading.current_thread():  # the garbage collector may call from there
                thread.join()
            with contextlib.suppress(ValueError):  # someone else may have waited too
                self._threads.remove(thread)

    def check(self) -> None:
        """Raise what a job has raised, once."""
        if self._failures:
            raise self._failures.pop(0)
