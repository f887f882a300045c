"""Cross-entropy with the dense layer before it, and softmax over classes in clusters."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from . import _checks as checks, _loss_base as base
from ._explicit import left_to_xla
from ._loss_classification import of_indices, of_probabilities, reduced

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

    from ._types import ArrayLike

_SCORES = 2**22  # that are computed at a time: 16 MB in float32


def linear_cross_entropy(
    x: Float[ArrayLike, "n features"],
    linear_weight: Float[ArrayLike, "c *d features"],
    target: Int[ArrayLike, " n *d"] | Float[ArrayLike, "n c *d"],
    *,
    linear_bias: Float[ArrayLike, " c *d"] | None = None,
    weight: Float[ArrayLike, " c"] | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    chunk: int | None = None,
) -> Float[Array, "*reduced"]:
    r"""Compute the cross-entropy of scores that a linear map gives, without keeping the scores.

    .. math:: z_n = W x_n + b, \quad \ell_n = -w_{t_n} \log \frac{e^{z_{n,t_n}}}{\sum_c e^{z_{n,c}}}

    It is ``cross_entropy(linear(x, linear_weight, linear_bias), target, ...)``, some examples at a time. The scores of
    those are computed once more for the gradients. With many classes, as in language models, the scores are what takes
    the most memory.

    Args:
        x: inputs, ``(N, E)``, or ``(E,)`` for one example.
        linear_weight: ``(C, E)``, or ``(C, d1, ..., E)`` for several targets of each example.
        target: class indices, integers in ``[0, C)`` of shape ``(N,)`` or ``(N, d1, ...)`` (``()`` or ``(d1, ...)``
            for one example); or class probabilities, floats of shape ``(N, C, d1, ...)``.
        linear_bias: ``(C,)`` or ``(C, d1, ...)``.
        weight: one number for each class, ``(C,)``.
        ignore_index: the class index that counts for nothing; -100 if not given.
        label_smoothing: the part of each target that is spread evenly over all classes, in ``[0, 1]``.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the losses of the shape of class indices.
        chunk: how many examples at a time; by default as many as give four million scores.

    Returns:
        The loss, in the dtype of ``x``; scores are computed in at least float32. A class index out of range that is not
        ``ignore_index`` gives NaN.

    Raises:
        IndexError: a class index out of range in a NumPy array.
        ShapeMismatchError: the shapes do not fit.
        TypeError: an argument is not an array, or of the wrong kind of dtype.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import losses
        >>> x, weight = jnp.eye(2), jnp.array([[2.0, 0.0], [0.0, 2.0]])
        >>> round(float(losses.linear_cross_entropy(x, weight, jnp.array([0, 1]))), 4)
        0.1269

    Reference:
        ``torch.nn.functional.linear_cross_entropy``.
    """
    name = "linear_cross_entropy"
    x, w = base.floats(name, x=x, linear_weight=linear_weight)
    if x.ndim not in (1, 2) or w.ndim < 2 or w.shape[-1] != x.shape[-1]:
        problem = "x must be (N, features) or (features,), and linear_weight (C, ..., features)."
        checks.shape_error(name, problem, "Check the two.", x=x, linear_weight=w)
    b = checks.optional_array(linear_bias, name, "linear_bias")
    if b is not None and b.shape != w.shape[:-1]:
        problem = f"linear_bias must have shape {w.shape[:-1]}, that of linear_weight without its last axis."
        checks.shape_error(name, problem, "Check the two.", linear_bias=b, linear_weight=w)
    ignored = -100 if ignore_index is None else checks.integer(ignore_index, name, "ignore_index")
    target = checks.to_array(target, name, "target")
    _check_target(name, x, w, target, ignored)
    weight = checks.optional_array(weight, name, "weight")
    if weight is not None:
        checks.require_length(weight, w.shape[0], name, "weight", "class", linear_weight=w)
    at_once = max(1, _SCORES // max(math.prod(w.shape[:-1]), 1))
    if chunk is not None:
        at_once = checks.integer(chunk, name, "chunk", 1)
    return _linear_cross_entropy(
        x,
        w,
        target,
        b,
        weight,
        ignore_index=ignored,
        smoothing=checks.number(label_smoothing, name, "label_smoothing", 0, 1),
        reduction=checks.reduction(reduction, name),
        chunk=at_once,
    )


def _check_target(name: str, x: Array, w: Array, target: Array, ignored: int) -> None:
    batch, classes, more = x.shape[:-1], w.shape[0], w.shape[1:-1]
    if checks.is_integer(target):
        if target.shape != batch + more:
            problem = f"a target of integers holds class indices and must have shape {batch + more}."
            checks.shape_error(name, problem, "Check the data.", x=x, linear_weight=w, target=target)
        checks.require_index(target, classes, name, "target", "classes of linear_weight", but=ignored)
        return
    checks.require_floats(target, name, "target")
    if target.shape != (*batch, classes, *more):
        problem = f"a target of floats holds class probabilities and must have shape {(*batch, classes, *more)}."
        fix = "Check the data."
        if target.shape == batch + more:
            fix = "If these are class indices, cast them: target.astype(jnp.int32)."
        checks.shape_error(name, problem, fix, x=x, linear_weight=w, target=target)


@functools.partial(jax.jit, static_argnames=("ignore_index", "smoothing", "reduction", "chunk"))
@left_to_xla
def _linear_cross_entropy(
    x: Array,
    w: Array,
    target: Array,
    b: Array | None,
    weight: Array | None,
    *,
    ignore_index: int,
    smoothing: float,
    reduction: str,
    chunk: int,
) -> Array:
    one, more = x.ndim == 1, w.shape[1:-1]
    soft = not checks.is_integer(target)
    inputs, targets = (x[None], target[None]) if one else (x, target)
    rows = w.reshape(-1, w.shape[-1])
    wide = jnp.promote_types(checks.statistics_dtype(x.dtype), checks.statistics_dtype(w.dtype))
    rows = rows.astype(jnp.promote_types(x.dtype, w.dtype))

    def losses(part: tuple[Array, Array]) -> tuple[Array, Array]:
        """Of some examples, and what each counts in the mean."""
        some, wanted = part
        scores = jnp.matmul(some.astype(rows.dtype), rows.T, preferred_element_type=wide)
        scores = scores.reshape(-1, w.shape[0], *more)
        if b is not None:
            scores = scores + b.astype(wide)
        if soft:
            loss = of_probabilities(scores, wanted.astype(wide), weight, smoothing)
            return loss, jnp.ones_like(loss)
        return of_indices(scores, wanted, weight, ignore_index, smoothing)

    loss, share = _in_chunks(losses, (inputs, targets), inputs.shape[0], chunk)
    if one:
        loss, share = loss[0], share[0]
    return reduced(loss, share, reduction).astype(x.dtype)


def _in_chunks(function: Callable[[Any], Any], arrays: Any, count: int, chunk: int) -> Any:
    """Apply a function to some rows of arrays at a time; what it computes is computed again for gradients."""
    if count <= chunk:
        return function(arrays)
    again = jax.checkpoint(function, prevent_cse=False)  # inside of the loop nothing can be merged
    whole = count - count % chunk
    parts = jax.tree.map(lambda a: a[:whole].reshape(-1, chunk, *a.shape[1:]), arrays)
    found = jax.tree.map(lambda y: y.reshape(whole, *y.shape[2:]), lax.map(again, parts))
    if whole == count:
        return found
    rest = jax.checkpoint(function)(jax.tree.map(lambda a: a[whole:], arrays))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), found, rest)


class AdaptiveLogSoftmaxOutput(NamedTuple):
    """Log-probabilities of the right classes ``(N,)``, and the loss ``()``: minus their mean."""

    output: Array
    loss: Array


def adaptive_log_softmax(
    head: Float[ArrayLike, "n head"], tail: Sequence[Float[ArrayLike, "n cluster"]], target: Int[ArrayLike, " n"]
) -> AdaptiveLogSoftmaxOutput:
    r"""Pick the log-probabilities of classes that are in clusters.

    .. math:: \log p_n = \begin{cases} \log \mathrm{softmax}(h_n)_{t_n} & t_n < S \\
        \log \mathrm{softmax}(h_n)_{S + i} + \log \mathrm{softmax}(c_{i,n})_{t_n - b_i} & t_n \text{ in cluster } i
        \end{cases}

    Args:
        head: scores of the :math:`S` frequent classes and of each cluster, ``(N, S + clusters)``; or without ``N``.
        tail: for each cluster the scores of its classes, which follow one another from class :math:`S` on.
        target: class indices, ``(N,)`` or ``()``.

    Returns:
        A named tuple: ``output``, the log-probabilities of the shape of ``target``, and ``loss``, minus their mean. A
        class index out of range gives NaN.

    Raises:
        IndexError: a class index out of range in a NumPy array.
        ShapeMismatchError: the shapes do not fit.
        TypeError: scores that are no floating-point numbers, or a target that holds no integers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> head, tail = jnp.zeros((1, 3)), [jnp.zeros((1, 4))]  # classes 0 and 1, and a cluster of 4
        >>> round(float(F.adaptive_log_softmax(head, tail, jnp.array([5])).loss), 4)  # log 3 + log 4
        2.4849

    Reference:
        Grave et al., "Efficient softmax approximation for GPUs", 2017.
    """
    name = "adaptive_log_softmax"
    (head,) = base.floats(name, head=head)
    clusters = [base.floats(name, **{f"tail[{i}]": scores})[0] for i, scores in enumerate(tail)]
    target = base.indices(target, name)
    base.require_examples(head, name)
    frequent = head.shape[-1] - len(clusters)
    if frequent < 1 or any(scores.shape[:-1] != head.shape[:-1] for scores in clusters):
        problem = "head must hold a score for each cluster and more, and tail as many examples."
        checks.shape_error(name, problem, "Check them.", head=head, **{f"tail[{i}]": s for i, s in enumerate(clusters)})
    if target.shape != head.shape[:-1]:
        problem = f"target holds class indices, one for each example, and must have shape {head.shape[:-1]}."
        checks.shape_error(name, problem, "Check the data.", head=head, target=target)
    classes = frequent + sum(scores.shape[-1] for scores in clusters)
    checks.require_index(target, classes, name, "target", "classes of head and tail")
    return AdaptiveLogSoftmaxOutput(*_adaptive(head, tuple(clusters), target))


@jax.jit
@left_to_xla
def _adaptive(head: Array, tail: tuple[Array, ...], target: Array) -> tuple[Array, Array]:
    wide, target = jax.nn.log_softmax(base.widen(head)[0], -1), checks.as_index(target)
    start = frequent = head.shape[-1] - len(tail)
    found = _at(wide, jnp.minimum(target, frequent - 1))  # of the frequent classes
    for i, scores in enumerate(tail):
        of_class = _at(jax.nn.log_softmax(base.widen(scores)[0], -1), target - start)
        found = jnp.where(target >= start, wide[..., frequent + i] + of_class, found)
        start += scores.shape[-1]
    found = jnp.where((target >= 0) & (target < start), found, jnp.nan)
    return found.astype(head.dtype), -found.mean().astype(head.dtype)


def _at(log_probs: Array, index: Array) -> Array:
    index = jnp.clip(index, 0, log_probs.shape[-1] - 1)
    return jnp.take_along_axis(log_probs, index[..., None], -1, mode="promise_in_bounds")[..., 0]
