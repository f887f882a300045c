"""Checkpoints of a training run: written in the background, atomically, and verified when they are restored."""

from __future__ import annotations

import functools
import operator
import os
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax

from ...errors import CheckpointError
from .._paths import MissingFileError
from ._background import Background
from ._lock import DirectoryLock
from ._manifest import Entry, scan
from ._publish import Mode, Publisher, Rules, best_of
from ._state import Modules, SavedState, named, snapshots

__all__ = ["Checkpointer", "Restored"]


@dataclass(frozen=True)
class Restored:
    """What :meth:`Checkpointer.restore` returns.

    Attributes:
        step: the step that the checkpoint was saved at.
        extra: what was given as ``extra``.
        metrics: what was given as ``metrics``.
        skipped: what was wrong with the later checkpoints that ``fallback=True`` passed over.
    """

    step: int
    extra: Any
    metrics: dict[str, float]
    skipped: tuple[str, ...] = ()


class Checkpointer:
    """Saves the complete state of a training run, and continues from it bit for bit.

    A checkpoint holds parameters and buffers, optimisers, gradients added up so far, random numbers (the stream that
    dropout draws from, ``bw.seed``, the global generators of NumPy and Python), the step, and whatever else you give
    as ``extra``: where the data loader is, for example. What the program itself decides is not in it: which parameters
    are frozen, training or evaluation mode, buffers with ``persistent=False``.

    Each checkpoint is a directory ``step_00001200`` with ``net.safetensors``, which ``net.load`` reads,
    ``opt.safetensors``, ``state.safetensors`` and ``manifest.json``. It appears complete or not at all, whenever the
    process or the machine dies. One process at a time may write in a directory; any number may read.

    ``save`` takes the values as they are and returns; they are written on another thread. If that fails, the next
    call of ``save``, ``wait``, ``restore`` or ``close`` raises the error. While a checkpoint is being written the disk
    holds one more than ``keep`` says: the old one goes when the new one is complete.

    Args:
        directory: where checkpoints are; made when the first is saved.
        keep: how many of the latest to keep, or ``None`` for all.
        every: save at each multiple of this many steps, or as often as this ``timedelta`` says; then ``save`` may be
            called after every step. Without it each call saves.
        keep_best: metric -> ``"min"`` or ``"max"``; the best checkpoint by each of them is kept as well.
        keep_every: checkpoints at multiples of this many steps are kept for good.

    Raises:
        TypeError, ValueError: arguments of other kinds.

    Example:
        >>> import tempfile
        >>> import brickwork as bw
        >>> from brickwork import nn, optim
        >>> import jax.numpy as jnp
        >>> def train(directory, steps):
        ...     bw.seed(0)
        ...     net = nn.Sequential(nn.Linear(8), nn.Dropout(0.5), nn.Linear(1))
        ...     opt = optim.adam(net, 0.1)
        ...     grad = bw.value_and_grad(lambda x: net(x).mean(), net)
        ...     with bw.Checkpointer(directory, every=10) as checkpoints:
        ...         start = 0
        ...         if checkpoints.latest is not None:
        ...             start = checkpoints.restore(net, opt).step
        ...         for step in range(start + 1, steps + 1):
        ...             loss, grads = grad(jnp.ones((4, 3)))
        ...             opt.step(grads)
        ...             checkpoints.save(step, net, opt)
        ...     return float(loss)
        >>> with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        ...     _ = train(one, steps=25)
        ...     train(one, steps=30) == train(other, steps=30)
        True
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        keep: int | None = 3,
        every: int | timedelta | None = None,
        *,
        keep_best: Mapping[str, Mode] | None = None,
        keep_every: int | None = None,
    ) -> None:
        if not isinstance(directory, (str, os.PathLike)):
            raise TypeError(f"directory must be a string or a pathlib.Path, got {type(directory).__name__}")
        self.directory = Path(os.path.abspath(os.fsdecode(directory)))
        self.every = _interval(every)
        self._rules = Rules(
            None if keep is None else _count("keep", keep),
            {name: _mode(mode) for name, mode in (keep_best or {}).items()},
            None if keep_every is None else _count("keep_every", keep_every),
        )
        self._last_step = 0
        self._last_time = time.monotonic()
        self._mutex = threading.RLock()
        self._closed = False
        lock = DirectoryLock(self.directory)
        self._publisher = Publisher(self.directory, lock, self._rules)
        self._background = Background(f"brickwork: checkpoints in {self.directory}")
        # Also runs when the object is forgotten and when the interpreter exits, so that no error is lost.
        self._finish = weakref.finalize(self, _finish, self._background, lock)

    # -- saving --------------------------------------------------------------------------------

    def save(
        self,
        step: int,
        net: Modules | None = None,
        opt: Modules | None = None,
        extra: Any = None,
        *,
        metrics: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> bool:
        """Save the state, if it is time to.

        The values are those at the call; whatever is done to the network, or to arrays in ``extra``, while they are
        being written makes no difference. At most one checkpoint is being written: a second call that is due waits.

        Args:
            step: how many steps have been done.
            net: the network, or a dict of several.
            opt: the optimiser, or a dict of several.
            extra: anything that :func:`brickwork.save` takes: ``{"epoch": 3, "batch": 17}``.
            metrics: name -> number, for :meth:`best` and ``keep_best``.
            force: save even if ``every`` says that it isn't time.

        Returns:
            Whether it is being saved.

        Raises:
            CheckpointError: the directory can't be written to, another process writes there, or the checkpoint
                before could not be written.
            TypeError: something that can't be saved; the message says where it is.
            DeferredShapeError: a shape is not known yet.
        """
        with self._mutex:
            self._check_open()
            self._background.check()
            step = _step(step)
            if not self._publisher.ready:  # at the first call, due or not: a second run learns of the first at once
                self._publisher.prepare()
            if not force and not self.due(step):
                return False
            if net is None and opt is None and extra is None:
                raise TypeError("save: give at least one of net=..., opt=... and extra=...")
            modules = named("net", net) | named("opt", opt)
            numbers = _numbers(metrics)
            _check_single_process()
            self._background.wait()
            self._background.check()
            self._publisher.prepare()
            files = snapshots(modules, extra)
            self._last_step, self._last_time = step, time.monotonic()
            self._background.start(
                functools.partial(self._publisher.publish, files, step, numbers),
                f"This was raised in the background, for the checkpoint of step {step}",
            )
            return True

    def due(self, step: int) -> bool:
        """Whether ``save`` would save at this step, without ``force``."""
        if self.every is None:
            return True
        if isinstance(self.every, timedelta):
            return time.monotonic() - self._last_time >= self.every.total_seconds()
        return step // self.every != self._last_step // self.every

    # -- what there is -------------------------------------------------------------------------

    def steps(self) -> list[int]:
        """The steps that there are checkpoints of, the one written last at the end."""
        return [entry.step for entry in self._entries()]

    @property
    def latest(self) -> int | None:
        """The step of the checkpoint written last; ``None`` while there is none."""
        steps = self.steps()
        return steps[-1] if steps else None

    def best(self, metric: str, mode: Mode | None = None) -> int | None:
        """The step of the checkpoint with the best value of a metric, the later one of equals.

        Args:
            metric: its name, as given to ``save``.
            mode: whether ``"min"`` or ``"max"`` is best; by default what ``keep_best`` says, or ``"min"``.

        Returns:
            The step; ``None`` while there are no checkpoints.

        Raises:
            ValueError: there are checkpoints, and none has a number for this metric.
        """
        mode = self._rules.keep_best.get(metric, "min") if mode is None else _mode(mode)
        entries = self._entries()
        best = best_of(entries, metric, mode)
        if best is None and entries:
            known = sorted({name for entry in entries if entry.manifest for name in entry.manifest.metrics})
            raise ValueError(
                f"no checkpoint in {str(self.directory)!r} has a value of the metric {metric!r} that is a number; "
                f"the metrics are {known}"
            )
        return None if best is None else best.step

    def path(self, step: int | None = None) -> Path:
        """The directory of a checkpoint, the latest by default.

        Raises:
            CheckpointError: there is none.
        """
        return self._up_to(step)[-1].path

    def _entries(self) -> list[Entry]:
        if not self._closed:
            self._background.wait()
        return scan(self.directory)[0]

    def _up_to(self, step: int | None) -> list[Entry]:
        """The checkpoints up to that of a step, at least one."""
        entries = self._entries()
        if not entries:
            why = "there is none in it" if self.directory.is_dir() else "the directory does not exist"
            raise MissingFileError(f"no checkpoint in {str(self.directory)!r}: {why}")
        if step is None:
            return entries
        steps = [entry.step for entry in entries]
        if step not in steps:
            raise MissingFileError(
                f"no checkpoint of step {step} in {str(self.directory)!r}; there are those of {sorted(steps)}"
            )
        return entries[: steps.index(step) + 1]

    # -- restoring -----------------------------------------------------------------------------

    def restore(
        self,
        net: Modules | None = None,
        opt: Modules | None = None,
        *,
        step: int | None = None,
        fallback: bool = False,
        random: bool = True,
    ) -> Restored:
        """Continue from a checkpoint. Everything is verified and loaded or, on an error, nothing.

        Args:
            net: the network to load, or a dict of several; not all that were saved need be given.
            opt: the optimiser, or a dict of several.
            step: which checkpoint; the latest if not given.
            fallback: whether to take the next earlier one if a checkpoint is damaged.
            random: whether random numbers continue too: the stream of ``bw.random``, ``bw.seed``, and the global
                generators of NumPy and Python.

        Returns:
            The step, ``extra`` and ``metrics`` that were saved.

        Raises:
            CheckpointError: there is no such checkpoint, or it is damaged; the message names the file.
            LoadError: it doesn't fit; the message lists what.
        """
        with self._mutex:
            _check_single_process()
            modules = named("net", net) | named("opt", opt)
            if not self._closed:
                self._background.wait()
                self._background.check()
            entries = self._up_to(step)
            skipped: list[str] = []
            for entry in reversed(entries):
                try:
                    manifest = entry.read()
                    saved = SavedState(entry.path, manifest.files, modules)
                except CheckpointError as error:
                    skipped.append(str(error))
                    if not fallback:
                        hint = "; restore(fallback=True) takes the one before" if len(entries) > 1 else ""
                        raise CheckpointError(f"{error}{hint}") from error
                    continue
                saved.put_in_place(random=random)
                self._last_step, self._last_time = entry.step, time.monotonic()
                return Restored(entry.step, saved.extra, manifest.metrics, tuple(skipped))
            raise CheckpointError("\n  ".join((f"all checkpoints in {str(self.directory)!r} are damaged:", *skipped)))

    # -- the end -------------------------------------------------------------------------------

    def wait(self) -> None:
        """Return when what was saved is on the disk.

        Raises:
            CheckpointError: it could not be written.
        """
        with self._mutex:
            self._background.wait()
            self._background.check()

    def close(self) -> None:
        """Wait, and let other processes write in the directory. Reading stays possible.

        Raises:
            CheckpointError: the last checkpoint could not be written.
        """
        with self._mutex:
            self._closed = True
            self._finish()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("save: this Checkpointer has been closed; make another one")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.close()
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"Besides, the last checkpoint could not be written: {failure}")

    def __repr__(self) -> str:
        return f"Checkpointer({str(self.directory)!r}, keep={self._rules.keep}, every={self.every})"


def _finish(background: Background, lock: DirectoryLock) -> None:
    background.wait()
    lock.release()
    background.check()


# --- arguments ------------------------------------------------------------------------------------


def _step(step: Any) -> int:
    try:
        number = -1 if isinstance(step, bool) else operator.index(step)
    except TypeError:
        number = -1
    if not 0 <= number < 10**18:
        raise TypeError(f"save: step must be an integer that is not negative, and comes first, got {step!r:.80}")
    return number


def _count(what: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{what} must be a positive integer or None, got {value!r}")
    return value


def _interval(every: Any) -> int | timedelta | None:
    if every is None or (isinstance(every, timedelta) and every > timedelta(0)):
        return every
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(
            f"every must be a positive number of steps (int) or a positive datetime.timedelta, got {every!r}; "
            "for seconds: timedelta(seconds=600)"
        )
    return every


def _mode(mode: Any) -> Mode:
    if mode not in ("min", "max"):
        raise ValueError(f"whether a metric is best when small or large is 'min' or 'max', got {mode!r}")
    return mode


def _numbers(metrics: Mapping[str, Any] | None) -> dict[str, float]:
    found = {}
    for name, value in (metrics or {}).items():
        try:
            found[str(name)] = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"save: metrics[{name!r}] must be a number, got {value!r:.80}") from None
    return found


def _check_single_process() -> None:
    count = jax.process_count()
    if count > 1:
        raise RuntimeError(
            f"Checkpointer works in programs of one process, and jax.process_count() is {count}: no process has all "
            "of the arrays. Use orbax.checkpoint with net.state_dict() there"
        )
