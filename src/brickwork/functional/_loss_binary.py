"""Losses between probabilities."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from . import _checks as checks, _loss_base as base

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Num

    from ._types import ArrayLike


def kl_div(
    log_probs: Float[ArrayLike, "*shape"],
    target: Float[ArrayLike, "*shape"],
    *,
    log_target: bool = False,
    reduction: str = "mean",
) -> Float[Array, "*reduced"]:
    r"""Measure the Kullback-Leibler divergence of a distribution from a target.

    .. math:: \ell_i = t_i (\log t_i - y_i) \quad\text{or}\quad \ell_i = e^{t_i} (t_i - y_i)

    The divergence of distributions is the *sum* over their elements: ``reduction="batchmean"``. The ``"mean"``
    divides by the number of elements as well.

    Args:
        log_probs: logarithms :math:`y` of the probabilities, of any shape.
        target: the probabilities they should have, or their logarithms, an array of the same shape. Where a
            probability is zero the loss is zero.
        log_target: whether ``target`` holds logarithms.
        reduction: ``"batchmean"`` for the sum divided by the size of axis 0 (if there is one), ``"mean"``, ``"sum"``,
            or ``"none"`` for the losses of all elements.

    Returns:
        The loss, in the dtype of ``log_probs``; computed in at least float32. A negative probability gives NaN.

    Raises:
        ShapeMismatchError: the shapes differ.
        TypeError: an argument is not an array of floating-point numbers.
        ValueError: no such ``reduction``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import losses
        >>> half = jnp.full((1, 2), 0.5)
        >>> float(losses.kl_div(jnp.log(half), half, reduction="batchmean"))
        0.0

    Reference:
        ``torch.nn.functional.kl_div``.
    """
    log_probs, target = base.floats("kl_div", log_probs=log_probs, target=target)
    base.require_same_shape("kl_div", log_probs=log_probs, target=target)
    check_kl_reduction(reduction, "kl_div")
    return _kl_div(log_probs, target, log_target=checks.flag(log_target, "kl_div", "log_target"), reduction=reduction)


def check_kl_reduction(value: str, function: str) -> str:
    """Check the name of a reduction, for the one loss that has four."""
    if value not in ("batchmean", "mean", "sum", "none"):
        raise ValueError(f"{function}: reduction must be 'batchmean', 'mean', 'sum' or 'none', got {value!r}.")
    return value


def binary_cross_entropy(
    probabilities: Float[ArrayLike, "*shape"],
    target: Num[ArrayLike, "*shape"],
    *,
    weight: Float[ArrayLike, "*weights"] | None = None,
    reduction: str = "mean",
) -> Float[Array, "*reduced"]:
    r"""Measure how improbable yes-or-no labels are.

    .. math:: \ell_i = -w_i \left(t_i \log p_i + (1 - t_i) \log(1 - p_i)\right)

    Logarithms are at least -100, so that the loss of a wrong certainty is finite. Prefer
    ``binary_cross_entropy_with_logits``, which needs no such limit.

    Args:
        probabilities: numbers in ``[0, 1]``, of any shape; others give NaN.
        target: labels 0 and 1, or probabilities, an array of the same shape.
        weight: factors that broadcast to the shape of ``probabilities``.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the losses of all elements.

    Returns:
        The loss, in the dtype of ``probabilities``; computed in at least float32.

    Raises:
        ShapeMismatchError: the shapes do not fit.
        TypeError: ``probabilities`` are not an array of floating-point numbers, or ``target`` is no array.
        ValueError: no such ``reduction``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import losses
        >>> round(float(losses.bce(jnp.array([0.5, 0.5]), jnp.array([0, 1]))), 4)
        0.6931

    Reference:
        ``torch.nn.functional.binary_cross_entropy``.
    """
    (probabilities,) = base.floats("bce", probabilities=probabilities)
    target = base.labels(target, "bce")
    base.require_same_shape("bce", probabilities=probabilities, target=target)
    weight = base.factor(weight, "bce", "weight", probabilities=probabilities)
    return _bce(probabilities, target, weight, reduction=checks.reduction(reduction, "bce"))


def binary_cross_entropy_with_logits(
    logits: Float[ArrayLike, "*shape"],
    target: Num[ArrayLike, "*shape"],
    *,
    weight: Float[ArrayLike, "*weights"] | None = None,
    pos_weight: Float[ArrayLike, "*weights"] | None = None,
    reduction: str = "mean",
) -> Float[Array, "*reduced"]:
    r"""Measure how improbable yes-or-no labels are under ``sigmoid(logits)``.

    .. math:: \ell_i = -w_i \left(q_i t_i \log \sigma(x_i) + (1 - t_i) \log \sigma(-x_i)\right)

    Args:
        logits: scores before the sigmoid, of any shape.
        target: labels 0 and 1, or probabilities, an array of the same shape.
        weight: factors :math:`w` that broadcast to the shape of ``logits``.
        pos_weight: factors :math:`q` of positive labels, which broadcast to the shape of ``logits``; one for each
            class, usually.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the losses of all elements.

    Returns:
        The loss, in the dtype of ``logits``; computed in at least float32.

    Raises:
        ShapeMismatchError: the shapes do not fit.
        TypeError: ``logits`` are not an array of floating-point numbers, or ``target`` is no array.
        ValueError: no such ``reduction``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import losses
        >>> round(float(losses.bce_with_logits(jnp.zeros(2), jnp.array([0, 1]))), 4)
        0.6931

    Reference:
        ``torch.nn.functional.binary_cross_entropy_with_logits``.
    """
    (logits,) = base.floats("bce_with_logits", logits=logits)
    target = base.labels(target, "bce_with_logits")
    base.require_same_shape("bce_with_logits", logits=logits, target=target)
    weight = base.factor(weight, "bce_with_logits", "weight", logits=logits)
    pos_weight = base.factor(pos_weight, "bce_with_logits", "pos_weight", logits=logits)
    reduction = checks.reduction(reduction, "bce_with_logits")
    return _bce_with_logits(logits, target, weight, pos_weight, reduction=reduction)


def sigmoid_focal_loss(
    logits: Float[ArrayLike, "*shape"],
    target: Num[ArrayLike, "*shape"],
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "mean",
) -> Float[Array, "*reduced"]:
    r"""Measure how improbable yes-or-no labels are, with little weight on what is easy.

    .. math:: \ell_i = -\alpha_i (1 - p_i)^\gamma \log p_i, \quad
        p_i = t_i \sigma(x_i) + (1 - t_i) \sigma(-x_i), \quad \alpha_i = t_i \alpha + (1 - t_i) (1 - \alpha)

    Args:
        logits: scores before the sigmoid, of any shape.
        target: labels 0 and 1, an array of the same shape.
        alpha: the weight of positive labels, in ``[0, 1]``, against :math:`1 - \alpha` of negative ones; -1 for no
            weights.
        gamma: the exponent, at least 0; with 0 it is the binary cross-entropy.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the losses of all elements.

    Returns:
        The loss, in the dtype of ``logits``; computed in at least float32.

    Raises:
        ShapeMismatchError: the shapes differ.
        TypeError: ``logits`` are not an array of floating-point numbers, or ``target`` is no array.
        ValueError: ``alpha`` or ``gamma`` is out of range, or there is no such ``reduction``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import losses
        >>> round(float(losses.focal(jnp.zeros(2), jnp.array([0, 1]))), 4)
        0.0866

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", 2017; ``torchvision.ops.sigmoid_focal_loss``, whose
        default is ``reduction="none"``.
    """
    (logits,) = base.floats("focal", logits=logits)
    target = base.labels(target, "focal")
    base.require_same_shape("focal", logits=logits, target=target)
    alpha, gamma = focal_options(alpha, gamma, "focal")
    return _focal(logits, target, alpha=alpha, gamma=gamma, reduction=checks.reduction(reduction, "focal"))


def focal_options(alpha: Any, gamma: Any, function: str) -> tuple[float, float]:
    """Check the options of the focal loss."""
    if checks.number(alpha, function, "alpha") != -1:
        alpha = checks.number(alpha, function, "alpha", 0, 1)
    return float(alpha), checks.number(gamma, function, "gamma", 0)


@functools.partial(jax.jit, static_argnames=("log_target", "reduction"))
def _kl_div(log_probs: Array, target: Array, *, log_target: bool, reduction: str) -> Array:
    y, t = base.widen(log_probs, target)
    if log_target:
        loss = jnp.exp(t) * (t - y)
    else:
        # 0 log 0 is 0, and so is 0 (log 0 - log 0)
        loss = t * (jnp.log(jnp.where(t == 0, 1, t)) - jnp.where((t == 0) & (y == -jnp.inf), 0, y))
    if reduction == "batchmean" and log_probs.ndim:
        return (loss.sum() / log_probs.shape[0]).astype(log_probs.dtype)
    return base.reduce(loss, reduction, log_probs.dtype)


@jax.custom_jvp
def _improbability(p: Array, t: Array) -> Array:
    return -(t * jnp.maximum(jnp.log(p), -100) + (1 - t) * jnp.maximum(jnp.log1p(-p), -100))


@_improbability.defjvp
def _improbability_jvp(primals: Any, tangents: Any) -> Any:
    # As PyTorch's: beyond the limit of the logarithms, where the plain gradient by p is zero, it is not.
    p, t = primals
    by_p = (p - t) / jnp.maximum((1 - p) * p, 1e-12)
    by_t = jnp.maximum(jnp.log1p(-p), -100) - jnp.maximum(jnp.log(p), -100)
    return _improbability(p, t), by_p * tangents[0] + by_t * tangents[1]


@functools.partial(jax.jit, static_argnames="reduction")
def _bce(probabilities: Array, target: Array, weight: Array | None, *, reduction: str) -> Array:
    p, t, w = base.widen(probabilities, target, weight)
    loss = _improbability(p, t)
    return base.reduce(loss if w is None else loss * w, reduction, probabilities.dtype)


def sigmoid_cross_entropy(x: Array, t: Array, positive: Array | None = None) -> Array:
    """Elementwise; not ``(1 - t) x + softplus(-x)``, in which large numbers cancel."""
    yes = t if positive is None else t * positive
    return yes * jax.nn.softplus(-x) + (1 - t) * jax.nn.softplus(x)


@functools.partial(jax.jit, static_argnames="reduction")
def _bce_with_logits(
    logits: Array, target: Array, weight: Array | None, pos_weight: Array | None, *, reduction: str
) -> Array:
    x, t, w, q = base.widen(logits, target, weight, pos_weight)
    loss = sigmoid_cross_entropy(x, t, q)
    return base.reduce(loss if w is None else loss * w, reduction, logits.dtype)


@functools.partial(jax.jit, static_argnames=("alpha", "gamma", "reduction"))
def _focal(logits: Array, target: Array, *, alpha: float, gamma: float, reduction: str) -> Array:
    x, t = base.widen(logits, target)
    loss = sigmoid_cross_entropy(x, t)
    if gamma:
        miss = t * jax.nn.sigmoid(-x) + (1 - t) * jax.nn.sigmoid(x)  # 1 - p, exact when p is close to 1
        hit = miss <= 0  # the gradient of the power may be infinite there
        loss = loss * jnp.where(hit, 0, jnp.where(hit, 1, miss) ** gamma)
    if alpha != -1:
        loss = loss * (t * alpha + (1 - t) * (1 - alpha))
    return base.reduce(loss, reduction, logits.dtype)
