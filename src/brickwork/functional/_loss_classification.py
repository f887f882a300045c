"""Losses between classes and scores for them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

from . import _checks as checks, _loss_base as base
from ._explicit import left_to_xla

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

    from ._types import ArrayLike


def cross_entropy(
    logits: Float[ArrayLike, "n c *d"],
    target: Int[ArrayLike, " n *d"] | Float[ArrayLike, "n c *d"],
    *,
    weight: Float[ArrayLike, " c"] | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Float[Array, "*reduced"]:
    r"""Measure how improbable the right classes are under ``softmax(logits)``.

    .. math:: \ell_n = -w_{t_n} \log \frac{e^{z_{n,t_n}}}{\sum_c e^{z_{n,c}}}
        \quad\text{or}\quad
        \ell_n = -\sum_c w_c \, t_{n,c} \log \frac{e^{z_{n,c}}}{\sum_k e^{z_{n,k}}}

    The mean over class indices is the weighted one, :math:`\sum_n \ell_n / \sum_n w_{t_n}`, over
    the targets that are not ignored (NaN when all are); that over probabilities is
    :math:`\sum_n \ell_n / N`.

    Args:
        logits: scores before the softmax: ``(N, C)``, ``(N, C, d1, ...)``, or ``(C,)`` for one
            example.
        target: class indices, integers in ``[0, C)`` of shape ``(N,)``, ``(N, d1, ...)`` or
            ``()``; or class probabilities, floats of the shape of ``logits``.
        weight: one number for each class, ``(C,)``.
        ignore_index: the class index whose examples count for nothing.
        label_smoothing: the part of each target that is spread evenly over all classes, in
            ``[0, 1]``.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the losses of the shape of the
            class indices.

    Returns:
        The loss, in the dtype of ``logits``; computed in at least float32. A class index outside
        ``[0, C)`` that is not ``ignore_index`` gives NaN.

    Raises:
        IndexError: a class index out of range in a NumPy array.
        ShapeMismatchError: the shapes of ``logits``, ``target`` and ``weight`` do not fit.
        TypeError: an argument is not an array, or of the wrong kind of dtype.
        ValueError: ``reduction`` or ``label_smoothing`` is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import losses
        >>> logits = jnp.array([[2.0, 0.0], [0.0, 2.0]])
        >>> round(float(losses.cross_entropy(logits, jnp.array([0, 1]))), 4)
        0.1269

    Reference:
        ``torch.nn.functional.cross_entropy``.
    """
    logits = checks.to_array(logits, "cross_entropy", "logits")
    target = checks.to_array(target, "cross_entropy", "target")
    weight = checks.optional_array(weight, "cross_entropy", "weight")
    checks.require_floats(logits, "cross_entropy", "logits")
    checks.reduction(reduction, "cross_entropy")
    smoothing = checks.number(label_smoothing, "cross_entropy", "label_smoothing", 0, 1)
    ignored = checks.integer(ignore_index, "cross_entropy", "ignore_index")
    soft = not checks.is_integer(target)
    if soft:
        _check_probabilities(logits, target)
    else:
        _check_indices("cross_entropy", target, ignored, logits=logits)
    if weight is not None:
        classes = logits.shape[0 if logits.ndim == 1 else 1]
        checks.require_length(weight, classes, "cross_entropy", "weight", "class", logits=logits)
    if soft:
        return _soft_cross_entropy(logits, target, weight, smoothing=smoothing, reduction=reduction)
    return _cross_entropy(logits, target, weight, ignore_index=ignored, smoothing=smoothing, reduction=reduction)


def nll_loss(
    log_probs: Float[ArrayLike, "n c *d"],
    target: Int[ArrayLike, " n *d"],
    *,
    weight: Float[ArrayLike, " c"] | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Float[Array, "*reduced"]:
    r"""Pick the negative log-probabilities of the right classes.

    .. math:: \ell_n = -w_{t_n} y_{n,t_n}

    The mean is the weighted one, :math:`\sum_n \ell_n / \sum_n w_{t_n}`, over the targets that are not ignored (NaN
    when all are). After ``log_softmax`` this is ``cross_entropy``, which does both at once.

    Args:
        log_probs: logarithms of probabilities: ``(N, C)``, ``(N, C, d1, ...)``, or ``(C,)`` for one example.
        target: class indices, integers in ``[0, C)`` of shape ``(N,)``, ``(N, d1, ...)`` or ``()``.
        weight: one number for each class, ``(C,)``.
        ignore_index: the class index whose examples count for nothing.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the losses of the shape of ``target``.

    Returns:
        The loss, in the dtype of ``log_probs``; computed in at least float32. A class index outside ``[0, C)`` that is
        not ``ignore_index`` gives NaN.

    Raises:
        IndexError: a class index out of range in a NumPy array.
        ShapeMismatchError: the shapes of ``log_probs``, ``target`` and ``weight`` do not fit.
        TypeError: an argument is not an array, or of the wrong kind of dtype.
        ValueError: no such ``reduction``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import losses
        >>> float(losses.nll(jnp.array([[-1.0, -2.0], [-3.0, -4.0]]), jnp.array([0, 1])))
        2.5

    Reference:
        ``torch.nn.functional.nll_loss``.
    """
    (log_probs,) = base.floats("nll", log_probs=log_probs)
    target = base.indices(target, "nll")
    weight = checks.optional_array(weight, "nll", "weight")
    ignored = checks.integer(ignore_index, "nll", "ignore_index")
    _check_indices("nll", target, ignored, log_probs=log_probs)
    if weight is not None:
        classes = log_probs.shape[_axis(log_probs)]
        checks.require_length(weight, classes, "nll", "weight", "class", log_probs=log_probs)
    return _nll(log_probs, target, weight, ignore_index=ignored, reduction=checks.reduction(reduction, "nll"))


def _check_probabilities(logits: Array, target: Array) -> None:
    checks.require_floats(target, "cross_entropy", "target")
    if logits.ndim == 0 or target.shape != logits.shape:
        fix = "Check the two."
        if target.ndim == logits.ndim - 1:
            fix = "If these are class indices, cast them: target.astype(jnp.int32)."
        checks.shape_error(
            "cross_entropy",
            "a target of floats holds class probabilities and must have the shape of logits.",
            fix,
            logits=logits,
            target=target,
        )


def _check_indices(function: str, target: Array, ignored: int, **given: Array) -> None:
    ((name, scores),) = given.items()
    if scores.ndim == 0:
        checks.shape_error(function, f"{name} need an axis of classes.", "Check the model.", **given)
    expected = scores.shape[:1] + scores.shape[2:] if scores.ndim > 1 else ()
    if target.shape != expected:
        fix = f"Expected the shape {expected}: that of {name} without the axis of classes."
        if target.shape == scores.shape:
            fix = "Pass class indices (target.argmax(1))"
            fix += ", or cast a one-hot target to a floating-point dtype." if function == "cross_entropy" else "."
        elif target.size == scores[..., :1].size and scores.ndim == 2:
            fix = "Remove the extra axis: target.reshape(-1)."
        problem = "a target of integers holds class indices, one for each example."
        checks.shape_error(function, problem, fix, **given, target=target)
    checks.require_index(target, scores.shape[_axis(scores)], function, "target", f"classes of {name}", but=ignored)


def _class_weights(weight: Array, like: Array, axis: int) -> Array:
    shape = [1] * like.ndim
    shape[axis] = -1
    return weight.astype(like.dtype).reshape(shape)


@functools.partial(jax.jit, static_argnames=("ignore_index", "smoothing", "reduction"))
@left_to_xla
def _cross_entropy(
    logits: Array, target: Array, weight: Array | None, *, ignore_index: int, smoothing: float, reduction: str
) -> Array:
    (wide,) = base.widen(logits)
    loss, share = of_indices(wide, target, weight, ignore_index, smoothing)
    return reduced(loss, share, reduction).astype(logits.dtype)


def of_indices(
    logits: Array, target: Array, weight: Array | None, ignore_index: int, smoothing: float
) -> tuple[Array, Array]:
    """The losses of examples with class indices, and what each counts in the mean."""
    axis = _axis(logits)
    top = lax.stop_gradient(logits.max(axis, keepdims=True))
    # The choice changes nothing, but keeps XLA from writing all the differences out on CPUs, with the maximum's loop.
    scores = logits - jnp.where(top == -jnp.inf, 0, top)
    norm = jnp.log(jnp.exp(scores).sum(axis))
    return _pick(scores, norm, target, weight, ignore_index, smoothing)


def reduced(loss: Array, share: Array, reduction: str) -> Array:
    """The weighted mean, the sum, or all losses."""
    if reduction == "mean":
        return loss.sum() / share.sum()
    return loss.sum() if reduction == "sum" else loss


@functools.partial(jax.jit, static_argnames=("ignore_index", "reduction"))
@left_to_xla
def _nll(log_probs: Array, target: Array, weight: Array | None, *, ignore_index: int, reduction: str) -> Array:
    (wide,) = base.widen(log_probs)
    norm = jnp.zeros((), wide.dtype)
    loss, share = _pick(wide, norm, target, weight, ignore_index, 0)
    return reduced(loss, share, reduction).astype(log_probs.dtype)


def _axis(scores: Array) -> int:
    return 0 if scores.ndim == 1 else 1


def _pick(
    scores: Array, norm: Array, target: Array, weight: Array | None, ignore_index: int, smoothing: float
) -> tuple[Array, Array]:
    """Minus the logarithms of the targets' probabilities, where ``scores - norm`` are those of all classes; and what
    each example counts in the mean.
    """
    axis = _axis(scores)
    counted = ~checks.equals(target, ignore_index)
    target = checks.as_index(target)
    known = (target >= 0) & (target < scores.shape[axis])
    index = jnp.where(known, target, 0)
    loss = norm - _of_targets(scores, index, axis)
    share = counted.astype(scores.dtype)
    every = norm - scores.mean(axis) if smoothing else loss
    if weight is not None:
        of_class = weight.astype(scores.dtype)[index]
        share, loss = share * of_class, loss * of_class
        if smoothing:
            per_class = _class_weights(weight, scores, axis)
            every = norm * per_class.mean() - (scores * per_class).mean(axis)
    if smoothing:
        loss = loss * (1 - smoothing) + every * smoothing
    return jnp.where(counted, jnp.where(known, loss, jnp.nan), 0), share


def _of_targets(scores: Array, index: Array, axis: int) -> Array:
    """The scores at the targets' classes."""
    index = jnp.expand_dims(index, axis)
    if jax.default_backend() == "cpu":  # a third of the time of the other form with its gradient
        return jnp.take_along_axis(scores, index, axis, mode="promise_in_bounds").squeeze(axis)
    # A sum over a comparison fuses with the softmax, and so does its gradient.
    chosen = lax.broadcasted_iota(jnp.int32, scores.shape, axis) == index
    return jnp.where(chosen, scores, 0).sum(axis)


@functools.partial(jax.jit, static_argnames=("smoothing", "reduction"))
@left_to_xla
def _soft_cross_entropy(
    logits: Array, target: Array, weight: Array | None, *, smoothing: float, reduction: str
) -> Array:
    wide, share = base.widen(logits, target)
    return base.reduce(of_probabilities(wide, share, weight, smoothing), reduction, logits.dtype)


def of_probabilities(logits: Array, share: Array, weight: Array | None, smoothing: float) -> Array:
    """The losses of examples with probabilities of classes."""
    axis = _axis(logits)
    nlp = -jax.nn.log_softmax(logits, axis)
    if smoothing:
        share = share * (1 - smoothing) + smoothing / logits.shape[axis]
    if weight is not None:
        share = share * _class_weights(weight, nlp, axis)
    return (nlp * share).sum(axis)
