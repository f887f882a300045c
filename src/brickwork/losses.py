"""Loss functions."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from .functional import _checks as checks

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

    from .functional._types import ArrayLike

__all__ = ["cross_entropy", "mse"]


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
    checks.require_inexact(logits, "cross_entropy", "logits")
    checks.reduction(reduction, "cross_entropy")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must be in [0, 1], got {label_smoothing!r}.")
    soft = not checks.is_integer(target)
    if soft:
        _check_probabilities(logits, target)
    else:
        _check_indices(logits, target)
    if weight is not None:
        classes = logits.shape[0 if logits.ndim == 1 else 1]
        checks.require_length(weight, classes, "cross_entropy", "weight", "class", logits=logits)
    options: dict[str, Any] = {
        "smoothing": float(label_smoothing),
        "reduction": reduction,
    }
    if soft:
        return _soft_cross_entropy(logits, target, weight, **options)
    return _cross_entropy(logits, target, weight, ignore_index=ignore_index, **options)


def _check_probabilities(logits: Array, target: Array) -> None:
    checks.require_inexact(target, "cross_entropy", "target")
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


def _check_indices(logits: Array, target: Array) -> None:
    if logits.ndim == 0:
        checks.shape_error("cross_entropy", "logits need an axis of classes.", "Check the model.", logits=logits)
    expected = logits.shape[:1] + logits.shape[2:] if logits.ndim > 1 else ()
    if target.shape != expected:
        fix = f"Expected the shape {expected}: that of logits without the axis of classes."
        if target.shape == logits.shape:
            fix = "Pass class indices (target.argmax(1)), or cast a one-hot target to a floating-point dtype."
        elif target.size == logits[..., :1].size and logits.ndim == 2:
            fix = "Remove the extra axis: target.reshape(-1)."
        checks.shape_error(
            "cross_entropy",
            "a target of integers holds class indices, one for each example.",
            fix,
            logits=logits,
            target=target,
        )


def _negative_log_probabilities(logits: Array) -> tuple[Array, int]:
    """Return them, and the axis of the classes."""
    axis = 0 if logits.ndim == 1 else 1
    wide = logits.astype(checks.statistics_dtype(logits.dtype))
    return -jax.nn.log_softmax(wide, axis), axis


def _class_weights(weight: Array, like: Array, axis: int) -> Array:
    shape = [1] * like.ndim
    shape[axis] = -1
    return weight.astype(like.dtype).reshape(shape)


@functools.partial(jax.jit, static_argnames=("ignore_index", "smoothing", "reduction"))
def _cross_entropy(
    logits: Array,
    target: Array,
    weight: Array | None,
    *,
    ignore_index: int,
    smoothing: float,
    reduction: str,
) -> Array:
    nlp, axis = _negative_log_probabilities(logits)
    counted = target != ignore_index
    index = jnp.expand_dims(target.astype(jnp.int32), axis)
    # Sums over a comparison, not gathers: they fuse with the softmax, and so do their gradients.
    chosen = lax.broadcasted_iota(jnp.int32, nlp.shape, axis) == index
    loss = jnp.where(chosen, nlp, 0).sum(axis)
    share = counted.astype(nlp.dtype)  # what each example counts in the mean
    weighted = nlp
    if weight is not None:
        per_class = _class_weights(weight, nlp, axis)
        share = share * jnp.where(chosen, per_class, 0).sum(axis)
        loss = loss * jnp.where(chosen, per_class, 0).sum(axis)
        weighted = nlp * per_class
    if smoothing:
        loss = loss * (1 - smoothing) + weighted.mean(axis) * smoothing
    loss = jnp.where(chosen.any(axis), loss, jnp.nan)
    loss = jnp.where(counted, loss, 0)
    if reduction == "mean":
        loss = loss.sum() / share.sum()
    elif reduction == "sum":
        loss = loss.sum()
    return loss.astype(logits.dtype)


@functools.partial(jax.jit, static_argnames=("smoothing", "reduction"))
def _soft_cross_entropy(
    logits: Array, target: Array, weight: Array | None, *, smoothing: float, reduction: str
) -> Array:
    nlp, axis = _negative_log_probabilities(logits)
    share = target.astype(nlp.dtype)
    if smoothing:
        share = share * (1 - smoothing) + smoothing / logits.shape[axis]
    if weight is not None:
        share = share * _class_weights(weight, nlp, axis)
    loss = (nlp * share).sum(axis)
    if reduction == "mean":
        loss = loss.mean()
    elif reduction == "sum":
        loss = loss.sum()
    return loss.astype(logits.dtype)


def mse(
    prediction: Float[ArrayLike, "*shape"],
    target: Float[ArrayLike, "*shape"],
    *,
    reduction: str = "mean",
) -> Float[Array, "*reduced"]:
    r"""Measure the squared difference.

    .. math:: \ell = \frac{1}{n} \sum_{i=1}^{n} (y_i - t_i)^2

    Args:
        prediction: array of any shape.
        target: array of the same shape: nothing is broadcast, since a loss between ``(N, 1)``
            and ``(N,)`` would silently compare everything with everything.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the squares themselves.

    Returns:
        The loss, in the dtype of ``prediction``; computed in at least float32.

    Raises:
        ShapeMismatchError: the shapes differ.
        TypeError: an argument is not an array of floating-point numbers.
        ValueError: no such ``reduction``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import losses
        >>> float(losses.mse(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))
        2.0

    Reference:
        ``torch.nn.functional.mse_loss``.
    """
    prediction = checks.to_array(prediction, "mse", "prediction")
    target = checks.to_array(target, "mse", "target")
    checks.require_inexact(prediction, "mse", "prediction")
    checks.require_inexact(target, "mse", "target")
    checks.reduction(reduction, "mse")
    if prediction.shape != target.shape:
        fix = "Reshape one of them."
        if prediction.size == target.size:
            fix = "Reshape one of them, e.g. target.reshape(prediction.shape)."
        checks.shape_error(
            "mse",
            "prediction and target must have the same shape.",
            fix,
            prediction=prediction,
            target=target,
        )
    return _mse(prediction, target, reduction=reduction)


@functools.partial(jax.jit, static_argnames="reduction")
def _mse(prediction: Array, target: Array, *, reduction: str) -> Array:
    dtype = checks.statistics_dtype(prediction.dtype)
    difference = prediction.astype(dtype) - target.astype(dtype)
    loss = difference * difference
    if reduction == "mean":
        loss = loss.mean()
    elif reduction == "sum":
        loss = loss.sum()
    return loss.astype(prediction.dtype)
