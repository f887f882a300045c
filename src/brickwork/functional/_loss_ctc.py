"""Connectionist temporal classification."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..core._jax import Tracer, varying_alike
from . import _checks as checks, _loss_base as base
from ._explicit import left_to_xla

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

    from ._types import ArrayLike

    Lengths = Int[ArrayLike, " *n"] | Sequence[int] | int


def ctc_loss(
    log_probs: Float[ArrayLike, "t *n c"],
    targets: Int[ArrayLike, "*n s"],
    input_lengths: Lengths,
    target_lengths: Lengths,
    *,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Float[Array, "*reduced"]:
    r"""Measure how improbable sequences of labels are, whatever their alignment with the frames.

    .. math:: \ell_n = -\log \sum_{\pi \in A(t_n)} \prod_{k=1}^{T_n} e^{y_{k,n,\pi_k}}

    :math:`A(t)` are the sequences of one class per frame that become :math:`t` when repetitions are merged and then
    blanks removed. The mean is that of :math:`\ell_n / S_n`, where :math:`S_n` is the length of the target, at
    least 1.

    Args:
        log_probs: logarithms of the probabilities of the classes in each frame, ``(T, N, C)``, or ``(T, C)`` for one
            example: the result of ``log_softmax``.
        targets: class indices, integers in ``[0, C)`` other than ``blank``: ``(N, S)``, of which the first
            ``target_lengths`` count; or all targets one after the other, ``(sum(target_lengths),)``.
        input_lengths: how many frames each example has, ``(N,)``, at most ``T``; an int for one example.
        target_lengths: how many labels each example has, ``(N,)``, at most ``S``; an int for one example.
        blank: the index of the class that stands for no label.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the losses of all examples.
        zero_infinity: whether losses that are infinite, because there are too few frames for the labels, count as
            zero, and their gradients too.

    Returns:
        The loss, in the dtype of ``log_probs``; computed in at least float32. What is out of range gives NaN while
        compiling, when values are not known.

    Raises:
        IndexError: a label out of range in a NumPy array, with lengths that are known.
        ShapeMismatchError: the shapes do not fit.
        TypeError: an argument is not an array, or of the wrong kind of dtype.
        ValueError: a length or ``blank`` is out of range, or there is no such ``reduction``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from brickwork import losses
        >>> log_probs = jax.nn.log_softmax(jnp.zeros((2, 1, 2)))
        >>> round(float(losses.ctc(log_probs, jnp.array([[1]]), [2], [1])), 4)  # 3 of 4 paths
        0.2877

    Reference:
        Graves et al., "Connectionist Temporal Classification", 2006; ``torch.nn.functional.ctc_loss``, whose gradient
        by ``log_probs`` is already that by the logits: both are equal after ``log_softmax``.
    """
    (log_probs,) = base.floats("ctc", log_probs=log_probs)
    targets = base.indices(targets, "ctc", "targets")
    reduction = checks.reduction(reduction, "ctc")
    blank = checks.integer(blank, "ctc", "blank", 0)
    if log_probs.ndim not in (2, 3):
        problem = f"log_probs must have the axes (T, N, C), or (T, C) for one example, not {log_probs.ndim} axes."
        checks.shape_error("ctc", problem, "Reshape the data.", log_probs=log_probs)
    if blank >= log_probs.shape[-1]:
        raise ValueError(f"ctc: blank={blank} is no class; log_probs have {log_probs.shape[-1]} classes in axis -1.")
    single = log_probs.ndim == 2
    frames = log_probs[:, None] if single else log_probs
    count = frames.shape[1]
    inputs = _lengths(input_lengths, count, single, "input_lengths", log_probs)
    labels = _lengths(target_lengths, count, single, "target_lengths", log_probs)
    longest = _width(targets, labels, count, log_probs)
    _check_range(inputs, frames.shape[0], "input_lengths", "log_probs have {} frames")
    _check_range(labels, longest, "target_lengths", "targets have room for {} labels")
    _check_labels(targets, labels, log_probs.shape[-1])
    loss = _ctc(
        frames,
        targets,
        inputs,
        labels,
        width=longest,
        blank=blank,
        zero_infinity=checks.flag(zero_infinity, "ctc", "zero_infinity"),
        reduction=reduction,
    )
    return loss[0] if single and reduction == "none" else loss


def _lengths(lengths: Any, count: int, single: bool, argument: str, log_probs: Array) -> Array | np.ndarray:
    """Return lengths as an array ``(N,)``, one of NumPy where their values are known."""
    if isinstance(lengths, (int, list, tuple)):
        lengths = np.asarray(lengths, None if np.size(lengths) else np.int32)
    array = base.indices(lengths, "ctc", argument)
    if not isinstance(array, Tracer):
        array = np.asarray(array)
    if single and array.shape == ():
        array = array.reshape(1)
    if array.shape != (count,):
        problem = f"{argument} must have shape ({count},), one length for each example."
        checks.shape_error("ctc", problem, "Check the two.", **{argument: array, "log_probs": log_probs})
    return array


def _width(targets: Array, lengths: Array | np.ndarray, count: int, log_probs: Array) -> int:
    """Return the largest number of labels that an example may have."""
    if targets.ndim == 2:
        if targets.shape[0] != count:
            _wrong_targets(f"targets must have the axes (N, S) with N={count}.", targets, log_probs)
        return targets.shape[1]
    if targets.ndim != 1:
        _wrong_targets(f"targets must have the axes (N, S), or one axis, not {targets.ndim} axes.", targets, log_probs)
    if log_probs.ndim == 2 or not isinstance(lengths, np.ndarray):
        return targets.shape[0]  # what is not known is at most that
    if lengths.sum() != targets.shape[0]:
        _wrong_targets(
            f"targets of one axis must have as many elements as target_lengths add up to, {lengths.sum()}.",
            targets,
            log_probs,
        )
    return int(lengths.max(initial=0))


def _wrong_targets(problem: str, targets: Array, log_probs: Array) -> NoReturn:
    checks.shape_error("ctc", problem, "Check the two.", targets=targets, log_probs=log_probs)


def _check_range(lengths: Array | np.ndarray, most: int, argument: str, have: str) -> None:
    if isinstance(lengths, np.ndarray) and lengths.size and not (lengths.min() >= 0 and lengths.max() <= most):
        bad = next(int(n) for n in lengths if not 0 <= n <= most)
        raise ValueError(f"ctc: {argument} must be at least 0 and at most {most}, got {bad}: {have.format(most)}.")


def _check_labels(targets: Array, lengths: Array | np.ndarray, classes: int) -> None:
    """Raise for a label that is no class, where it is known that it is one."""
    host = checks.host_array(targets)
    if host is not None and isinstance(lengths, np.ndarray):
        if host.ndim == 2:
            host = np.where(np.arange(host.shape[1]) < lengths[:, None], host, 0)  # what is behind doesn't count
        elif len(lengths) == 1:
            host = host[: lengths[0]]
        checks.require_index(host, classes, "ctc", "targets", "classes of log_probs")


@functools.partial(jax.jit, static_argnames=("width", "blank", "zero_infinity", "reduction"))
@left_to_xla
def _ctc(
    log_probs: Array,
    targets: Array,
    input_lengths: Array,
    target_lengths: Array,
    *,
    width: int,
    blank: int,
    zero_infinity: bool,
    reduction: str,
) -> Array:
    (y,) = base.widen(log_probs)
    labels, frames, lengths = map(checks.as_index, (targets, input_lengths, target_lengths))
    if labels.ndim == 1:
        labels = _unpack(labels, lengths, width)
    loss = -_log_likelihood(y, labels, frames, lengths, blank)
    if zero_infinity:
        loss = jnp.where(loss == jnp.inf, 0, loss)
    wrong = (labels < 0) | (labels >= y.shape[2])
    wrong = (wrong & (jnp.arange(width, dtype=jnp.int32) < lengths[:, None])).any(1)
    wrong |= (frames < 0) | (frames > y.shape[0]) | (lengths < 0) | (lengths > width)
    loss = jnp.where(wrong, jnp.nan, loss)
    if reduction == "mean":
        loss = loss / jnp.maximum(lengths, 1).astype(loss.dtype)
    return base.reduce(loss, reduction, log_probs.dtype)


def _unpack(labels: Array, lengths: Array, width: int) -> Array:
    """Return targets that come one after the other as rows ``(N, width)``."""
    if not width:
        return jnp.zeros((lengths.shape[0], 0), labels.dtype)
    first = jnp.cumsum(lengths) - lengths
    return labels.at[first[:, None] + jnp.arange(width)].get(mode="fill", fill_value=0)


def _log_likelihood(y: Array, labels: Array, frames: Array, lengths: Array, blank: int) -> Array:
    """Sum over all alignments, by the forward recursion in logarithms.

    ``between`` holds the states of the blanks before, between and after the labels, ``at`` those of the labels.
    """
    _, n, classes = y.shape
    width = labels.shape[1]
    index = jnp.clip(labels, 0, classes - 1)
    emitted = jnp.take_along_axis(y, index[None], 2)
    blanks = y[:, :, blank, None]
    never = jnp.full((n, 1), -jnp.inf, y.dtype)
    repeated = jnp.concatenate([jnp.ones((n, 1), bool), labels[:, 1:] == labels[:, :-1]], 1)[:, :width]

    def step(state: tuple[Array, Array, Array], frame: tuple[Array, Array, Array]) -> tuple[Any, None]:
        between, at, scale = state
        t, label, gap = frame
        before = jnp.concatenate([never, at], 1)  # the label before each blank
        skip = jnp.where(repeated, -jnp.inf, before[:, :-1])  # a label may follow another one directly
        after = _log_sum(between, before) + gap, _log_sum(at, between[:, :-1], skip) + label
        # The largest is kept apart, or the rounding of ever larger numbers would show in the gradients.
        largest = lax.stop_gradient(jnp.concatenate(after, 1).max(1, keepdims=True))
        largest = jnp.where(jnp.isinf(largest), 0, largest)
        new = after[0] - largest, after[1] - largest, scale + largest
        running = (t < frames)[:, None]
        return tuple(jnp.where(running, a, b) for a, b in zip(new, state, strict=True)), None

    start = (
        jnp.full((n, width + 1), -jnp.inf, y.dtype).at[:, 0].set(0),
        jnp.full((n, width), -jnp.inf, y.dtype),
        jnp.zeros((n, 1), y.dtype),
    )
    _, _, *start = varying_alike(emitted, frames, *start)
    (between, at, scale), _ = lax.scan(step, tuple(start), (jnp.arange(y.shape[0], dtype=jnp.int32), emitted, blanks))
    last = jnp.clip(lengths, 0, width)[:, None]
    end = jnp.take_along_axis(between, last, 1), jnp.take_along_axis(jnp.concatenate([never, at], 1), last, 1)
    return (scale + _log_sum(*end))[:, 0]


def _log_sum(*terms: Array) -> Array:
    """Return the logarithm of a sum of exponentials, with gradients of zero where all are zero."""
    largest = lax.stop_gradient(functools.reduce(jnp.maximum, terms))
    none = largest == -jnp.inf
    shift = jnp.where(none, 0, largest)
    total = sum(jnp.exp(term - shift) for term in terms)
    return jnp.where(none, -jnp.inf, shift + jnp.log(jnp.where(none, 1, total)))
