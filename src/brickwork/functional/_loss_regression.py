"""Losses between numbers and predictions of them."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

from . import _checks as checks, _loss_base as base

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Num

    from ._types import ArrayLike


def l1_loss(
    prediction: Float[ArrayLike, "*shape"],
    target: Float[ArrayLike, "*shape"],
    *,
    weight: Float[ArrayLike, "*shape"] | None = None,
    reduction: str = "mean",
) -> Float[Array, "*reduced"]:
    r"""Measure the absolute difference.

    .. math:: \ell_i = w_i |y_i - t_i|

    The mean is :math:`\sum_i \ell_i / \sum_i w_i`.

    Args:
        prediction: array of any shape.
        target: array of the same shape: nothing is broadcast.
        weight: array of the same shape; ones by default.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the differences themselves.

    Returns:
        The loss, in the dtype of ``prediction``; computed in at least float32. The gradient is zero where there is no
        difference.

    Raises:
        ShapeMismatchError: the shapes differ.
        TypeError: an argument is not an array of floating-point numbers.
        ValueError: no such ``reduction``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import losses
        >>> float(losses.l1(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))
        1.0

    Reference:
        ``torch.nn.functional.l1_loss``.
    """
    prediction, target = base.pair(prediction, target, "l1")
    weight = _weight(weight, prediction, "l1")
    return _l1(prediction, target, weight, reduction=checks.reduction(reduction, "l1"))


def mse_loss(
    prediction: Float[ArrayLike, "*shape"],
    target: Float[ArrayLike, "*shape"],
    *,
    weight: Float[ArrayLike, "*shape"] | None = None,
    reduction: str = "mean",
) -> Float[Array, "*reduced"]:
    r"""Measure the squared difference.

    .. math:: \ell_i = w_i (y_i - t_i)^2

    The mean is :math:`\sum_i \ell_i / \sum_i w_i`.

    Args:
        prediction: array of any shape.
        target: array of the same shape: nothing is broadcast, since a loss between ``(N, 1)``
            and ``(N,)`` would silently compare everything with everything.
        weight: array of the same shape; ones by default.
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
    prediction, target = base.pair(prediction, target, "mse")
    weight = _weight(weight, prediction, "mse")
    return _mse(prediction, target, weight, reduction=checks.reduction(reduction, "mse"))


def smooth_l1_loss(
    prediction: Float[ArrayLike, "*shape"],
    target: Float[ArrayLike, "*shape"],
    *,
    beta: float = 1.0,
    reduction: str = "mean",
) -> Float[Array, "*reduced"]:
    r"""Measure the absolute difference, with a parabola in place of the corner at zero.

    .. math:: \ell_i = \begin{cases} d_i^2 / (2 \beta) & d_i < \beta \\ d_i - \beta / 2 & \text{otherwise} \end{cases},
        \quad d_i = |y_i - t_i|

    Args:
        prediction: array of any shape.
        target: array of the same shape: nothing is broadcast.
        beta: where the parabola ends, at least 0; with 0 it is the absolute difference.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the losses of all elements.

    Returns:
        The loss, in the dtype of ``prediction``; computed in at least float32.

    Raises:
        ShapeMismatchError: the shapes differ.
        TypeError: an argument is not an array of floating-point numbers, or ``beta`` is not a number.
        ValueError: ``beta`` is negative, or there is no such ``reduction``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import losses
        >>> losses.smooth_l1(jnp.array([1.0, 3.0]), jnp.zeros(2), reduction="none").tolist()
        [0.5, 2.5]

    Reference:
        Girshick, "Fast R-CNN", 2015; ``torch.nn.functional.smooth_l1_loss``.
    """
    prediction, target = base.pair(prediction, target, "smooth_l1")
    beta = checks.number(beta, "smooth_l1", "beta", 0)
    if beta == 0:
        return _l1(prediction, target, None, reduction=checks.reduction(reduction, "smooth_l1"))
    return _smooth_l1(prediction, target, beta=beta, reduction=checks.reduction(reduction, "smooth_l1"))


def huber_loss(
    prediction: Float[ArrayLike, "*shape"],
    target: Float[ArrayLike, "*shape"],
    *,
    delta: float = 1.0,
    weight: Float[ArrayLike, "*shape"] | None = None,
    reduction: str = "mean",
) -> Float[Array, "*reduced"]:
    r"""Measure the squared difference, with straight lines in place of the far parts of the parabola.

    .. math:: \ell_i = w_i \begin{cases} d_i^2 / 2 & d_i \le \delta \\ \delta (d_i - \delta / 2) & \text{otherwise}
        \end{cases}, \quad d_i = |y_i - t_i|

    The mean is over the number of elements, with weights too.

    Args:
        prediction: array of any shape.
        target: array of the same shape: nothing is broadcast.
        delta: where the lines begin, greater than 0.
        weight: array of the same shape; ones by default.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the losses of all elements.

    Returns:
        The loss, in the dtype of ``prediction``; computed in at least float32.

    Raises:
        ShapeMismatchError: the shapes differ.
        TypeError: an argument is not an array of floating-point numbers, or ``delta`` is not a number.
        ValueError: ``delta`` is not positive, or there is no such ``reduction``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import losses
        >>> losses.huber(jnp.array([1.0, 3.0]), jnp.zeros(2), delta=2.0, reduction="none").tolist()
        [0.5, 4.0]

    Reference:
        Huber, "Robust Estimation of a Location Parameter", 1964; ``torch.nn.functional.huber_loss``.
    """
    prediction, target = base.pair(prediction, target, "huber")
    weight = _weight(weight, prediction, "huber")
    delta = checks.number(delta, "huber", "delta", above=0)
    return _huber(prediction, target, weight, delta=delta, reduction=checks.reduction(reduction, "huber"))


def poisson_nll_loss(
    prediction: Float[ArrayLike, "*shape"],
    target: Num[ArrayLike, "*shape"],
    *,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> Float[Array, "*reduced"]:
    r"""Measure how improbable counts are under Poisson distributions.

    .. math:: \ell_i = e^{y_i} - t_i y_i \quad\text{or}\quad \ell_i = y_i - t_i \log(y_i + \epsilon)

    With ``full``, Stirling's approximation of :math:`\log t_i!` is added where :math:`t_i > 1`:
    :math:`t_i \log t_i - t_i + \frac{1}{2} \log(2 \pi t_i)`.

    Args:
        prediction: logarithms of the rates, or the rates, of any shape.
        target: the counts, an array of the same shape; integers or floats.
        log_input: whether ``prediction`` holds logarithms.
        full: whether to add the term that depends on ``target`` alone.
        eps: keeps the logarithm of rates away from that of zero; at least 0.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the losses of all elements.

    Returns:
        The loss, in the dtype of ``prediction``; computed in at least float32.

    Raises:
        ShapeMismatchError: the shapes differ.
        TypeError: ``prediction`` is not an array of floating-point numbers, or ``target`` not an array.
        ValueError: ``eps`` is negative, or there is no such ``reduction``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import losses
        >>> float(losses.poisson_nll(jnp.zeros(2), jnp.array([1, 3])))
        1.0

    Reference:
        ``torch.nn.functional.poisson_nll_loss``.
    """
    (prediction,) = base.floats("poisson_nll", prediction=prediction)
    target = base.labels(target, "poisson_nll")
    base.require_same_shape("poisson_nll", prediction=prediction, target=target)
    return _poisson_nll(
        prediction,
        target,
        log_input=checks.flag(log_input, "poisson_nll", "log_input"),
        full=checks.flag(full, "poisson_nll", "full"),
        eps=checks.number(eps, "poisson_nll", "eps", 0),
        reduction=checks.reduction(reduction, "poisson_nll"),
    )


def gaussian_nll_loss(
    prediction: Float[ArrayLike, "*shape"],
    target: Float[ArrayLike, "*shape"],
    var: Float[ArrayLike, "*variances"] | float,
    *,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Float[Array, "*reduced"]:
    r"""Measure how improbable numbers are under normal distributions.

    .. math:: \ell_i = \frac{1}{2} \left(\log v_i + \frac{(y_i - t_i)^2}{v_i}\right), \quad
        v_i = \max(\sigma_i^2, \epsilon)

    Args:
        prediction: the means, of any shape.
        target: array of the same shape: nothing is broadcast.
        var: the variances :math:`\sigma^2`: an array of the same shape, or without the last axis, or with size 1 in
            one axis; or one number for all. A negative variance gives NaN.
        full: whether to add the constant :math:`\frac{1}{2} \log 2 \pi`.
        eps: the smallest variance, greater than 0. Gradients pass as if smaller ones were not replaced.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the losses of all elements.

    Returns:
        The loss, in the dtype of ``prediction``; computed in at least float32.

    Raises:
        ShapeMismatchError: the shapes do not fit.
        TypeError: an argument is not an array of floating-point numbers.
        ValueError: ``eps`` is not positive, ``var`` is a negative number, or there is no such ``reduction``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import losses
        >>> float(losses.gaussian_nll(jnp.zeros(2), jnp.array([1.0, 3.0]), jnp.ones(2)))
        2.5

    Reference:
        Nix and Weigend, "Estimating the Mean and Variance of the Target Probability Distribution", 1994;
        ``torch.nn.functional.gaussian_nll_loss``.
    """
    prediction, target = base.pair(prediction, target, "gaussian_nll")
    if not hasattr(var, "shape"):
        var = checks.number(var, "gaussian_nll", "var", 0)
    (var,) = base.floats("gaussian_nll", var=var)
    shape = prediction.shape
    if var.shape not in ((), shape):
        if var.shape == shape[:-1]:
            var = var[..., None]
        elif var.ndim != len(shape) or [v for v, n in zip(var.shape, shape, strict=True) if v != n] != [1]:
            checks.shape_error(
                "gaussian_nll",
                "var must have the shape of prediction, or that without the last axis, or size 1 in one axis.",
                "Reshape var.",
                prediction=prediction,
                var=var,
            )
    return _gaussian_nll(
        prediction,
        target,
        var,
        full=checks.flag(full, "gaussian_nll", "full"),
        eps=checks.number(eps, "gaussian_nll", "eps", above=0),
        reduction=checks.reduction(reduction, "gaussian_nll"),
    )


def _weight(weight: ArrayLike | None, prediction: Array, function: str) -> Array | None:
    if weight is None:
        return None
    (weight,) = base.floats(function, weight=weight)
    base.require_same_shape(function, prediction=prediction, weight=weight)
    return weight


def _weighted(loss: Array, weight: Array | None, reduction: str, dtype: jnp.dtype) -> Array:
    if weight is None:
        return base.reduce(loss, reduction, dtype)
    weight = weight.astype(loss.dtype)
    if reduction == "mean":
        return ((loss * weight).sum() / weight.sum()).astype(dtype)
    return base.reduce(loss * weight, reduction, dtype)


@functools.partial(jax.jit, static_argnames="reduction")
def _l1(prediction: Array, target: Array, weight: Array | None, *, reduction: str) -> Array:
    y, t = base.widen(prediction, target)
    return _weighted(base.absolute(y - t), weight, reduction, prediction.dtype)


@functools.partial(jax.jit, static_argnames="reduction")
def _mse(prediction: Array, target: Array, weight: Array | None, *, reduction: str) -> Array:
    y, t = base.widen(prediction, target)
    difference = y - t
    return _weighted(difference * difference, weight, reduction, prediction.dtype)


@functools.partial(jax.jit, static_argnames=("beta", "reduction"))
def _smooth_l1(prediction: Array, target: Array, *, beta: float, reduction: str) -> Array:
    y, t = base.widen(prediction, target)
    difference = y - t
    size = base.absolute(difference)
    near = jnp.where(size < beta, difference, 0)  # and not what is far away, whose gradient would be 0 * infinity
    loss = jnp.where(size < beta, near * near / (2 * beta), size - beta / 2)
    return base.reduce(loss, reduction, prediction.dtype)


@functools.partial(jax.jit, static_argnames=("delta", "reduction"))
def _huber(prediction: Array, target: Array, weight: Array | None, *, delta: float, reduction: str) -> Array:
    y, t, w = base.widen(prediction, target, weight)
    difference = y - t
    size = base.absolute(difference)
    if math.isinf(delta):
        loss = difference * difference / 2
    else:
        near = jnp.where(size <= delta, difference, 0)  # not what is far away, whose gradient would be 0 * infinity
        loss = jnp.where(size <= delta, near * near / 2, delta * (size - delta / 2))
    return base.reduce(loss if w is None else loss * w, reduction, prediction.dtype)


@jax.custom_jvp
def _rate(y: Array) -> Array:
    """``exp(y)``. On CPUs XLA fuses the last product of its own with a difference, which then doesn't overflow."""
    return jnp.where(y > math.log(float(jnp.finfo(y.dtype).max)), jnp.inf, jnp.exp(y))


@_rate.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    rate = _rate(*primals)
    return rate, tangents[0] * rate


@functools.partial(jax.jit, static_argnames=("log_input", "full", "eps", "reduction"))
def _poisson_nll(prediction: Array, target: Array, *, log_input: bool, full: bool, eps: float, reduction: str) -> Array:
    y, t = base.widen(prediction, target)
    loss = _rate(y) - t * y if log_input else y - t * jnp.log(y + eps)
    if full:
        safe = jnp.where(t <= 1, 1, t)
        stirling = safe * jnp.log(safe) - safe + 0.5 * jnp.log(2 * math.pi * safe)
        loss = loss + jnp.where(t <= 1, 0, stirling)
    return base.reduce(loss, reduction, prediction.dtype)


@functools.partial(jax.jit, static_argnames=("full", "eps", "reduction"))
def _gaussian_nll(prediction: Array, target: Array, var: Array, *, full: bool, eps: float, reduction: str) -> Array:
    y, t, v = base.widen(prediction, target, var)
    raised = jnp.where(v < eps, eps + (v - lax.stop_gradient(v)), v)  # the bracket is zero, its gradient one
    v = jnp.where(v < 0, jnp.nan, raised)
    loss = 0.5 * (jnp.log(v) + (y - t) ** 2 / v)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return base.reduce(loss, reduction, prediction.dtype)
