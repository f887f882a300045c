"""Losses that ask for a margin, and their smooth relatives."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

from . import _checks as checks, _loss_base as base
from ._loss_binary import sigmoid_cross_entropy

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Num

    from ._types import ArrayLike


def soft_margin_loss(
    scores: Float[ArrayLike, "*shape"], target: Num[ArrayLike, "*shape"], *, reduction: str = "mean"
) -> Float[Array, "*reduced"]:
    r"""Measure how improbable the labels 1 and -1 are under the sigmoid of the scores.

    .. math:: \ell_i = \log\left(1 + e^{-t_i x_i}\right)

    Args:
        scores: array of any shape.
        target: labels 1 and -1, an array of the same shape.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the losses of all elements.

    Returns:
        The loss, in the dtype of ``scores``; computed in at least float32.

    Raises:
        ShapeMismatchError: the shapes differ.
        TypeError: ``scores`` are not an array of floating-point numbers, or ``target`` not one of numbers.
        ValueError: no such ``reduction``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import losses
        >>> round(float(losses.soft_margin(jnp.zeros(2), jnp.array([1, -1]))), 4)
        0.6931

    Reference:
        ``torch.nn.functional.soft_margin_loss``.
    """
    (scores,) = base.floats("soft_margin", scores=scores)
    target = base.labels(target, "soft_margin", signs=True)
    base.require_same_shape("soft_margin", scores=scores, target=target)
    return _soft_margin(scores, target, reduction=checks.reduction(reduction, "soft_margin"))


def hinge_embedding_loss(
    distances: Float[ArrayLike, "*shape"],
    target: Num[ArrayLike, "*shape"],
    *,
    margin: float = 1.0,
    reduction: str = "mean",
) -> Float[Array, "*reduced"]:
    r"""Ask that what is alike be close, and what is not be apart by a margin.

    .. math:: \ell_i = \begin{cases} x_i & t_i = 1 \\ \max(0, \Delta - x_i) & t_i = -1 \end{cases}

    Args:
        distances: array of any shape.
        target: labels 1 for alike and -1 for not, an array of the same shape.
        margin: :math:`\Delta`.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the losses of all elements.

    Returns:
        The loss, in the dtype of ``distances``; computed in at least float32.

    Raises:
        ShapeMismatchError: the shapes differ.
        TypeError: ``distances`` are not an array of floating-point numbers, or ``target`` not one of numbers.
        ValueError: no such ``reduction``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import losses
        >>> distances = jnp.array([0.25, 0.25])
        >>> losses.hinge_embedding(distances, jnp.array([1, -1]), reduction="none").tolist()
        [0.25, 0.75]

    Reference:
        ``torch.nn.functional.hinge_embedding_loss``.
    """
    (distances,) = base.floats("hinge_embedding", distances=distances)
    target = base.labels(target, "hinge_embedding", signs=True)
    base.require_same_shape("hinge_embedding", distances=distances, target=target)
    margin = checks.number(margin, "hinge_embedding", "margin")
    reduction = checks.reduction(reduction, "hinge_embedding")
    return _hinge_embedding(distances, target, margin=margin, reduction=reduction)


def margin_ranking_loss(
    x1: Float[ArrayLike, "*shape"],
    x2: Float[ArrayLike, "*shape"],
    target: Num[ArrayLike, "*shape"],
    *,
    margin: float = 0.0,
    reduction: str = "mean",
) -> Float[Array, "*reduced"]:
    r"""Ask that one score be greater than the other, by a margin.

    .. math:: \ell_i = \max(0, -t_i (x_{1,i} - x_{2,i}) + \Delta)

    Args:
        x1: scores, of any shape.
        x2: the others, an array of the same shape.
        target: 1 where ``x1`` should be the greater and -1 where ``x2`` should, an array of the same shape.
        margin: :math:`\Delta`.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the losses of all elements.

    Returns:
        The loss, in the dtype of ``x1``; computed in at least float32.

    Raises:
        ShapeMismatchError: the shapes differ.
        TypeError: ``x1`` or ``x2`` is not an array of floating-point numbers, or ``target`` not one of numbers.
        ValueError: no such ``reduction``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import losses
        >>> float(losses.margin_ranking(jnp.array([1.0]), jnp.array([3.0]), jnp.array([1])))
        2.0

    Reference:
        ``torch.nn.functional.margin_ranking_loss``.
    """
    x1, x2 = base.floats("margin_ranking", x1=x1, x2=x2)
    target = base.labels(target, "margin_ranking", signs=True)
    base.require_same_shape("margin_ranking", x1=x1, x2=x2, target=target)
    margin = checks.number(margin, "margin_ranking", "margin")
    return _margin_ranking(x1, x2, target, margin=margin, reduction=checks.reduction(reduction, "margin_ranking"))


def multi_margin_loss(
    scores: Float[ArrayLike, "*n c"],
    target: Int[ArrayLike, " *n"],
    *,
    p: int = 1,
    margin: float = 1.0,
    weight: Float[ArrayLike, " c"] | None = None,
    reduction: str = "mean",
) -> Float[Array, "*reduced"]:
    r"""Ask that the score of the right class be greater than all others, by a margin.

    .. math:: \ell_n = \frac{w_{t_n}}{C} \sum_{c \ne t_n} \max(0, \Delta - x_{n,t_n} + x_{n,c})^p

    Args:
        scores: ``(N, C)``, or ``(C,)`` for one example.
        target: class indices, integers in ``[0, C)`` of shape ``(N,)`` or ``()``.
        p: 1 or 2.
        margin: :math:`\Delta`.
        weight: one number for each class, ``(C,)``.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the losses of all examples.

    Returns:
        The loss, in the dtype of ``scores``; computed in at least float32. A class index outside ``[0, C)`` gives NaN.

    Raises:
        IndexError: a class index out of range in a NumPy array.
        ShapeMismatchError: the shapes do not fit.
        TypeError: an argument is not an array, or of the wrong kind of dtype.
        ValueError: ``p`` is neither 1 nor 2, or there is no such ``reduction``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import losses
        >>> float(losses.multi_margin(jnp.array([[1.0, 2.0]]), jnp.array([0])))
        1.0

    Reference:
        ``torch.nn.functional.multi_margin_loss``.
    """
    (scores,) = base.floats("multi_margin", scores=scores)
    target = base.indices(target, "multi_margin")
    base.require_examples(scores, "multi_margin")
    if target.shape != scores.shape[:-1]:
        problem = "target holds class indices, one for each example."
        fix = f"Expected the shape {scores.shape[:-1]}."
        checks.shape_error("multi_margin", problem, fix, scores=scores, target=target)
    checks.require_index(target, scores.shape[-1], "multi_margin", "target", "classes of scores")
    weight = checks.optional_array(weight, "multi_margin", "weight")
    if weight is not None:
        checks.require_length(weight, scores.shape[-1], "multi_margin", "weight", "class", scores=scores)
    return _multi_margin(
        scores,
        target,
        weight,
        p=one_or_two(p, "multi_margin"),
        margin=checks.number(margin, "multi_margin", "margin"),
        reduction=checks.reduction(reduction, "multi_margin"),
    )


def one_or_two(p: int, function: str) -> int:
    """Check the exponent of ``multi_margin_loss``."""
    if checks.integer(p, function, "p") not in (1, 2):
        raise ValueError(f"{function}: p must be 1 or 2, got {p!r}.")
    return int(p)


def multilabel_margin_loss(
    scores: Float[ArrayLike, "*n c"], target: Int[ArrayLike, "*n c"], *, reduction: str = "mean"
) -> Float[Array, "*reduced"]:
    r"""Ask that the scores of several right classes be greater than those of all others, by 1.

    .. math:: \ell_n = \frac{1}{C} \sum_{j \in T_n} \sum_{c \notin T_n} \max(0, 1 - x_{n,j} + x_{n,c})

    Args:
        scores: ``(N, C)``, or ``(C,)`` for one example.
        target: integers of the same shape: the indices :math:`T_n` of the right classes, and -1 after the last one.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the losses of all examples.

    Returns:
        The loss, in the dtype of ``scores``; computed in at least float32. An index of ``C`` or more gives NaN.

    Raises:
        IndexError: a class index out of range in a NumPy array.
        ShapeMismatchError: the shapes do not fit.
        TypeError: ``scores`` are not an array of floating-point numbers, or ``target`` not one of integers.
        ValueError: no such ``reduction``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import losses
        >>> scores = jnp.array([1.0, 2.0, 3.0, 4.0])
        >>> float(losses.multilabel_margin(scores, jnp.array([3, 0, -1, 1])))
        1.25

    Reference:
        ``torch.nn.functional.multilabel_margin_loss``.
    """
    (scores,) = base.floats("multilabel_margin", scores=scores)
    target = base.indices(target, "multilabel_margin")
    base.require_examples(scores, "multilabel_margin")
    base.require_same_shape("multilabel_margin", scores=scores, target=target)
    checks.require_index(target, scores.shape[-1], "multilabel_margin", "target", "classes of scores", least=-1)
    return _multilabel_margin(scores, target, reduction=checks.reduction(reduction, "multilabel_margin"))


def multilabel_soft_margin_loss(
    logits: Float[ArrayLike, "*n c"],
    target: Num[ArrayLike, "*n c"],
    *,
    weight: Float[ArrayLike, " c"] | None = None,
    reduction: str = "mean",
) -> Float[Array, "*reduced"]:
    r"""Measure how improbable the yes-or-no labels of several classes are: the mean over the classes.

    .. math:: \ell_n = -\frac{1}{C} \sum_c w_c \left(t_{n,c} \log \sigma(x_{n,c})
        + (1 - t_{n,c}) \log \sigma(-x_{n,c})\right)

    Args:
        logits: scores before the sigmoid, ``(*, C)``.
        target: labels 0 and 1, or probabilities, an array of the same shape.
        weight: factors that broadcast to the shape of ``logits``; one for each class, usually.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the losses of all examples.

    Returns:
        The loss, in the dtype of ``logits``; computed in at least float32.

    Raises:
        ShapeMismatchError: the shapes do not fit.
        TypeError: ``logits`` are not an array of floating-point numbers, or ``target`` is no array.
        ValueError: no such ``reduction``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import losses
        >>> loss = losses.multilabel_soft_margin(jnp.zeros((1, 2)), jnp.array([[0, 1]]))
        >>> round(float(loss), 4)
        0.6931

    Reference:
        ``torch.nn.functional.multilabel_soft_margin_loss``.
    """
    (logits,) = base.floats("multilabel_soft_margin", logits=logits)
    target = base.labels(target, "multilabel_soft_margin")
    base.require_vector(logits, "multilabel_soft_margin", "logits")
    base.require_same_shape("multilabel_soft_margin", logits=logits, target=target)
    weight = base.factor(weight, "multilabel_soft_margin", "weight", logits=logits)
    reduction = checks.reduction(reduction, "multilabel_soft_margin")
    return _multilabel_soft_margin(logits, target, weight, reduction=reduction)


@functools.partial(jax.jit, static_argnames="reduction")
def _soft_margin(scores: Array, target: Array, *, reduction: str) -> Array:
    x, t = base.widen(scores, target)
    return base.reduce(jax.nn.softplus(-t * x), reduction, scores.dtype)


@functools.partial(jax.jit, static_argnames=("margin", "reduction"))
def _hinge_embedding(distances: Array, target: Array, *, margin: float, reduction: str) -> Array:
    x, t = base.widen(distances, target)
    # Labels that are neither 1 nor -1 count as both, as in PyTorch.
    loss = jnp.where(t != 1, base.clamp(margin - x), 0) + jnp.where(t != -1, x, 0)
    return base.reduce(loss, reduction, distances.dtype)


@functools.partial(jax.jit, static_argnames=("margin", "reduction"))
def _margin_ranking(x1: Array, x2: Array, target: Array, *, margin: float, reduction: str) -> Array:
    a, b, t = base.widen(x1, x2, target)
    return base.reduce(base.clamp(-t * (a - b) + margin), reduction, x1.dtype)


@functools.partial(jax.jit, static_argnames=("p", "margin", "reduction"))
def _multi_margin(
    scores: Array, target: Array, weight: Array | None, *, p: int, margin: float, reduction: str
) -> Array:
    x, w = base.widen(scores, weight)
    chosen = lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1) == checks.as_index(target)[..., None]
    right = jnp.where(chosen, x, 0).sum(-1, keepdims=True)
    short = margin - right + x
    short = jnp.where((short <= 0) | chosen, 0, short)  # unlike base.clamp no gradient at zero, as in PyTorch
    if p == 2:
        short = short * short
    loss = short.sum(-1) / x.shape[-1]
    if w is not None:
        loss = loss * jnp.where(chosen, w, 0).sum(-1)
    loss = jnp.where(chosen.any(-1), loss, jnp.nan)
    return base.reduce(loss, reduction, scores.dtype)


@functools.partial(jax.jit, static_argnames="reduction")
def _multilabel_margin(scores: Array, target: Array, *, reduction: str) -> Array:
    (x,) = base.widen(scores)
    classes = x.shape[-1]
    target = checks.as_index(target)
    listed = jnp.cumsum(target < 0, -1) == 0  # up to the first negative index
    # axes: example, place in the list, class
    chosen = (lax.broadcasted_iota(jnp.int32, (*x.shape, classes), x.ndim) == target[..., None]) & listed[..., None]
    right = jnp.where(chosen, x[..., None, :], 0).sum(-1, keepdims=True)
    short = 1 - right + x[..., None, :]
    others = listed[..., None] & ~chosen.any(-2, keepdims=True)
    loss = jnp.where((short <= 0) | ~others, 0, short).sum((-2, -1)) / classes
    known = (chosen.any(-1) | ~listed).all(-1)
    return base.reduce(jnp.where(known, loss, jnp.nan), reduction, scores.dtype)


@functools.partial(jax.jit, static_argnames="reduction")
def _multilabel_soft_margin(logits: Array, target: Array, weight: Array | None, *, reduction: str) -> Array:
    x, t, w = base.widen(logits, target, weight)
    loss = sigmoid_cross_entropy(x, t)
    loss = (loss if w is None else loss * w).sum(-1) / x.shape[-1]
    return base.reduce(loss, reduction, logits.dtype)
