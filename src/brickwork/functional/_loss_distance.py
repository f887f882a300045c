"""Similarities, distances, and the losses made of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from . import _checks as checks, _loss_base as base

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Num

    from ._types import ArrayLike

    Distance = Callable[[Any, Any], Any]


def cosine_similarity(
    x1: Float[ArrayLike, "*shape1"], x2: Float[ArrayLike, "*shape2"], dim: int = 1, eps: float = 1e-8
) -> Float[Array, "*reduced"]:
    r"""Return the cosine of the angle between vectors.

    .. math:: y = \frac{x_1 \cdot x_2}{\max(\|x_1\|, \epsilon) \max(\|x_2\|, \epsilon)}

    Args:
        x1: vectors along one axis.
        x2: others, of a shape that broadcasts with that of ``x1``.
        dim: the axis of the vectors, after broadcasting.
        eps: the smallest norm, at least 0. Gradients pass as if smaller ones were not replaced.

    Returns:
        The cosines, in the dtype of ``x1``; computed in at least float32.

    Raises:
        ShapeMismatchError: the shapes do not broadcast, or there is no axis ``dim``.
        TypeError: an argument is not an array of floating-point numbers.
        ValueError: ``eps`` is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> round(float(F.cosine_similarity(jnp.array([3.0, 0.0]), jnp.array([1.0, 1.0]), 0)), 4)
        0.7071

    Reference:
        ``torch.nn.functional.cosine_similarity``.
    """
    x1, x2 = base.floats("cosine_similarity", x1=x1, x2=x2)
    rank = len(_broadcast("cosine_similarity", x1, x2))
    axis = checks.axis(dim, rank, "cosine_similarity")
    return _cosine_similarity(x1, x2, dim=axis - rank, eps=checks.number(eps, "cosine_similarity", "eps", 0))


def pairwise_distance(
    x1: Float[ArrayLike, "*shape1"],
    x2: Float[ArrayLike, "*shape2"],
    p: float = 2.0,
    eps: float = 1e-6,
    keepdim: bool = False,
) -> Float[Array, "*reduced"]:
    r"""Return the distance between vectors.

    .. math:: y = \left(\sum_i |x_{1,i} - x_{2,i} + \epsilon|^p\right)^{1/p}

    Args:
        x1: vectors along the last axis.
        x2: others, of a shape that broadcasts with that of ``x1``.
        p: the exponent, at least 0: 0 counts what differs, infinity takes the largest difference.
        eps: added to the differences, so that the norm has a gradient where they are zero.
        keepdim: whether to keep the last axis, with size 1.

    Returns:
        The distances, in the dtype of ``x1``; computed in at least float32.

    Raises:
        ShapeMismatchError: the shapes do not broadcast, or both are scalars.
        TypeError: an argument is not an array of floating-point numbers.
        ValueError: ``p`` is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> round(float(F.pairwise_distance(jnp.array([3.0, 4.0]), jnp.zeros(2))), 4)
        5.0

    Reference:
        ``torch.nn.functional.pairwise_distance``.
    """
    x1, x2 = base.floats("pairwise_distance", x1=x1, x2=x2)
    if not _broadcast("pairwise_distance", x1, x2):
        base.require_vector(x1, "pairwise_distance", "x1")
    p = checks.number(p, "pairwise_distance", "p", 0)
    eps = checks.number(eps, "pairwise_distance", "eps")
    return _pairwise_distance(x1, x2, p=p, eps=eps, keepdim=checks.flag(keepdim, "pairwise_distance", "keepdim"))


def pdist(x: Float[ArrayLike, "n d"], p: float = 2.0) -> Float[Array, " pairs"]:
    r"""Return the distances between all pairs of rows.

    .. math:: y_{(i,j)} = \Big( \sum_k |x_{i,k} - x_{j,k}|^p \Big)^{1/p}, \quad i < j

    Args:
        x: vectors, ``(N, D)``.
        p: the exponent, at least 0; 0 counts the elements that differ, ``math.inf`` takes the largest difference.

    Returns:
        ``N (N - 1) / 2`` distances: those of row 0 to the rows after it, then those of row 1, ... The gradient is zero
        where two rows are equal.

    Raises:
        ShapeMismatchError: ``x`` does not have two axes.
        TypeError: ``x`` is not an array of floating-point numbers, or ``p`` not a number.
        ValueError: ``p`` is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.pdist(jnp.array([[0.0, 0.0], [3.0, 4.0], [0.0, 4.0]])).tolist()
        [5.0, 4.0, 3.0]

    Reference:
        ``torch.nn.functional.pdist``.
    """
    (x,) = base.floats("pdist", x=x)
    if x.ndim != 2:
        checks.shape_error("pdist", f"x must have 2 axes (N, D), not {x.ndim}.", "Reshape the data.", x=x)
    return _pdist(x, p=checks.number(p, "pdist", "p", 0))


def cosine_embedding_loss(
    x1: Float[ArrayLike, "*n d"],
    x2: Float[ArrayLike, "*n d"],
    target: Num[ArrayLike, " *n"],
    *,
    margin: float = 0.0,
    reduction: str = "mean",
) -> Float[Array, "*reduced"]:
    r"""Ask that what is alike point in one direction, and what is not do not.

    .. math:: \ell_n = \begin{cases} 1 - \cos(x_{1,n}, x_{2,n}) & t_n = 1 \\
        \max(0, \cos(x_{1,n}, x_{2,n}) - \Delta) & t_n = -1 \end{cases}

    Args:
        x1: vectors, ``(N, D)``, or ``(D,)`` for one pair.
        x2: the others, an array of the same shape.
        target: labels 1 for alike and -1 for not, ``(N,)`` or ``()``.
        margin: :math:`\Delta`, between -1 and 1.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the losses of all pairs.

    Returns:
        The loss, in the dtype of ``x1``; computed in at least float32.

    Raises:
        ShapeMismatchError: the shapes do not fit.
        TypeError: ``x1`` or ``x2`` is not an array of floating-point numbers, or ``target`` not one of numbers.
        ValueError: ``margin`` is out of range, or there is no such ``reduction``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import losses
        >>> float(losses.cosine_embedding(jnp.array([0.0, 1.0]), jnp.array([2.0, 0.0]), jnp.array(1)))
        1.0

    Reference:
        ``torch.nn.functional.cosine_embedding_loss``.
    """
    x1, x2 = base.floats("cosine_embedding", x1=x1, x2=x2)
    target = base.labels(target, "cosine_embedding", signs=True)
    base.require_same_shape("cosine_embedding", x1=x1, x2=x2)
    if x1.ndim not in (1, 2):
        problem = f"x1 must have the axes (N, D), or (D) for one pair, not {x1.ndim} axes."
        checks.shape_error("cosine_embedding", problem, "Reshape the data.", x1=x1)
    if target.shape != x1.shape[:-1]:
        problem = f"target must have shape {x1.shape[:-1]}, one label for each pair."
        checks.shape_error("cosine_embedding", problem, "Reshape target.", x1=x1, target=target)
    margin = checks.number(margin, "cosine_embedding", "margin", -1, 1)
    reduction = checks.reduction(reduction, "cosine_embedding")
    return _cosine_embedding(x1, x2, target, margin=margin, reduction=reduction)


def triplet_margin_loss(
    anchor: Float[ArrayLike, "*n d"],
    positive: Float[ArrayLike, "*n d"],
    negative: Float[ArrayLike, "*n d"],
    *,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Float[Array, "*reduced"]:
    r"""Ask that an anchor be closer to what is like it than to what is not, by a margin.

    .. math:: \ell_n = \max\left(0, d(a_n, p_n) - d(a_n, n_n) + \Delta\right)

    Args:
        anchor: vectors along the last axis.
        positive: what is like them, an array of the same shape.
        negative: what is not, an array of the same shape.
        margin: :math:`\Delta`, greater than 0.
        p: the exponent of the distance :math:`d`, see ``pairwise_distance``.
        eps: added to the differences.
        swap: whether to take the distance from ``positive`` to ``negative`` where it is the smaller one.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the losses of all triplets.

    Returns:
        The loss, in the dtype of ``anchor``; computed in at least float32.

    Raises:
        ShapeMismatchError: the shapes differ.
        TypeError: an argument is not an array of floating-point numbers.
        ValueError: ``margin`` is not positive, ``p`` is negative, or there is no such ``reduction``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import losses
        >>> a, p, n = jnp.array([[0.0], [1.0], [3.0]])
        >>> round(float(losses.triplet_margin(a, p, n, margin=5.0)), 4)
        3.0

    Reference:
        Balntas et al., "Learning shallow convolutional feature descriptors with triplet losses", 2016;
        ``torch.nn.functional.triplet_margin_loss``.
    """
    anchor, positive, negative = base.floats("triplet_margin", anchor=anchor, positive=positive, negative=negative)
    base.require_same_shape("triplet_margin", anchor=anchor, positive=positive, negative=negative)
    base.require_vector(anchor, "triplet_margin", "anchor")
    return _triplet_margin(
        anchor,
        positive,
        negative,
        margin=checks.number(margin, "triplet_margin", "margin", above=0),
        p=checks.number(p, "triplet_margin", "p", 0),
        eps=checks.number(eps, "triplet_margin", "eps"),
        swap=checks.flag(swap, "triplet_margin", "swap"),
        reduction=checks.reduction(reduction, "triplet_margin"),
    )


def triplet_margin_with_distance_loss(
    anchor: Float[ArrayLike, "*shape"],
    positive: Float[ArrayLike, "*shape"],
    negative: Float[ArrayLike, "*shape"],
    *,
    distance_function: Distance | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Float[Array, "*reduced"]:
    r"""Ask that an anchor be closer to what is like it than to what is not, in a distance of one's own.

    .. math:: \ell_n = \max\left(0, d(a_n, p_n) - d(a_n, n_n) + \Delta\right)

    Args:
        anchor: array of any shape that the distance takes.
        positive: what is like it, an array of the same shape.
        negative: what is not, an array of the same shape.
        distance_function: :math:`d`, a function of two such arrays, or a module; ``pairwise_distance`` by default.
        margin: :math:`\Delta`, greater than 0.
        swap: whether to take the distance from ``positive`` to ``negative`` where it is the smaller one.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the losses of all triplets.

    Returns:
        The loss, in the dtype of the distances; computed in at least float32.

    Raises:
        ShapeMismatchError: the shapes differ.
        TypeError: an argument is not an array of floating-point numbers.
        ValueError: ``margin`` is not positive, or there is no such ``reduction``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import losses
        >>> a, p, n = jnp.array([[0.0], [1.0], [3.0]])
        >>> def squared(x, y):
        ...     return ((x - y) ** 2).sum(-1)
        >>> float(losses.triplet_margin_with_distance(a, p, n, distance_function=squared, margin=9.0))
        1.0

    Reference:
        ``torch.nn.functional.triplet_margin_with_distance_loss``.
    """
    name = "triplet_margin_with_distance"
    anchor, positive, negative = base.floats(name, anchor=anchor, positive=positive, negative=negative)
    base.require_same_shape(name, anchor=anchor, positive=positive, negative=negative)
    margin = checks.number(margin, name, "margin", above=0)
    reduction = checks.reduction(reduction, name)
    distance = pairwise_distance if distance_function is None else distance_function
    distances = {"distance": distance(anchor, positive), "distance_to_negative": distance(anchor, negative)}
    if checks.flag(swap, "triplet_margin_with_distance", "swap"):
        distances["distance_swapped"] = distance(positive, negative)
    near, far, *other = base.floats(name, **distances)
    return _triplet(near, far, other[0] if swap else None, margin=margin, reduction=reduction)


def _broadcast(function: str, x1: Array, x2: Array) -> tuple[int, ...]:
    try:
        return jnp.broadcast_shapes(x1.shape, x2.shape)
    except ValueError:
        checks.shape_error(function, "x1 and x2 do not broadcast to one shape.", "Check the two.", x1=x1, x2=x2)


def _length(x: Array, dim: int) -> Array:
    """Euclidean norm along an axis, which stays; the gradient at zero is zero."""
    squares = (x * x).sum(dim, keepdims=True)
    zero = squares == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, squares)))


def _norm(x: Array, p: float) -> Array:
    """Norm along the last axis, which stays; with PyTorch's gradients where they are not unique."""
    if p == 0:
        return (x != 0).sum(-1, keepdims=True).astype(x.dtype)
    if p == 2:
        return _length(x, -1)
    size = base.absolute(x)
    if p == 1:
        return size.sum(-1, keepdims=True)
    if math.isinf(p):
        return size.max(-1, keepdims=True)
    zero = size == 0
    total = jnp.where(zero, 0, jnp.where(zero, 1, size) ** p).sum(-1, keepdims=True)
    zero = total == 0
    return jnp.where(zero, 0, jnp.where(zero, 1, total) ** (1 / p))


@functools.partial(jax.jit, static_argnames=("dim", "eps"))
def _cosine_similarity(x1: Array, x2: Array, *, dim: int, eps: float) -> Array:
    a, b = base.widen(x1, x2)
    a, b = jnp.broadcast_arrays(a, b)

    def direction(x: Array) -> Array:
        length = _length(x, dim)
        # the bracket is zero, its gradient one
        return x / jnp.where(length < eps, eps + (length - lax.stop_gradient(length)), length)

    return (direction(a) * direction(b)).sum(dim).astype(x1.dtype)


@functools.partial(jax.jit, static_argnames=("p", "eps", "keepdim"))
def _pairwise_distance(x1: Array, x2: Array, *, p: float, eps: float, keepdim: bool) -> Array:
    a, b = base.widen(x1, x2)
    distance = _norm(a - b + eps, p)
    return (distance if keepdim else distance[..., 0]).astype(x1.dtype)


@functools.partial(jax.jit, static_argnames="p")
def _pdist(x: Array, *, p: float) -> Array:
    (wide,) = base.widen(x)
    return _distances(wide, p)[np.triu_indices(x.shape[0], 1)].astype(x.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _distances(x: Array, p: float) -> Array:
    """Distances between all rows, both ways: XLA fuses that, and takes longer to read rows by index."""
    return _norm(x[:, None] - x, p)[..., 0]


@_distances.defjvp
def _(p: float, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    distance = _distances(x, p)

    def part(row: tuple[Array, Array, Array]) -> Array:
        own, change, lengths = row
        zero = lengths[:, None] == 0
        slope = jnp.where(zero, 0, _slope(own - x, jnp.where(zero, 1, lengths[:, None]), p))
        return slope @ change

    # A row's own part is enough, since the other's is the same with the sign changed. On CPUs XLA takes 10 times as
    # long in one piece as row by row. Slopes are computed again backwards, or all N * N * D of them would be kept.
    part = jax.checkpoint(part, prevent_cse=False)
    rows = (x, tangent, distance)
    parts = lax.map(part, rows) if jax.default_backend() == "cpu" else jax.vmap(part)(rows)
    return distance, parts + parts.T


def _slope(x: Array, length: Array, p: float) -> Array:
    """The gradient of a norm that is ``length``, not zero, by the elements of ``x``."""
    if p == 2:
        return x / length
    if p in (0, 1):
        return jnp.sign(x) * p
    if math.isinf(p):
        return jnp.where(abs(x) == length, jnp.sign(x), 0)
    zero = x == 0
    return jnp.where(zero, 0, jnp.sign(x) * jnp.where(zero, 1, abs(x) / length) ** (p - 1))


@functools.partial(jax.jit, static_argnames=("margin", "reduction"))
def _cosine_embedding(x1: Array, x2: Array, target: Array, *, margin: float, reduction: str) -> Array:
    a, b, t = base.widen(x1, x2, target)
    tiny = 1e-12
    cosine = (a * b).sum(-1) / (jnp.sqrt((a * a).sum(-1) + tiny) * jnp.sqrt((b * b).sum(-1) + tiny))
    # Labels that are neither 1 nor -1 count for nothing, as in PyTorch.
    loss = jnp.where(t == 1, 1 - cosine, 0) + jnp.where(t == -1, base.clamp(cosine - margin), 0)
    return base.reduce(loss, reduction, x1.dtype)


@functools.partial(jax.jit, static_argnames=("margin", "p", "eps", "swap", "reduction"))
def _triplet_margin(
    anchor: Array,
    positive: Array,
    negative: Array,
    *,
    margin: float,
    p: float,
    eps: float,
    swap: bool,
    reduction: str,
) -> Array:
    dtype = anchor.dtype
    anchor, positive, negative = base.widen(anchor, positive, negative)
    distance = functools.partial(_pairwise_distance, p=p, eps=eps, keepdim=False)
    other = distance(positive, negative) if swap else None
    loss = _triplet(distance(anchor, positive), distance(anchor, negative), other, margin=margin, reduction=reduction)
    return loss.astype(dtype)


@functools.partial(jax.jit, static_argnames=("margin", "reduction"))
def _triplet(near: Array, far: Array, other: Array | None, *, margin: float, reduction: str) -> Array:
    close, distant, swapped = base.widen(near, far, other)
    if swapped is not None:
        distant = jnp.minimum(distant, swapped)
    return base.reduce(base.clamp(margin + close - distant), reduction, near.dtype)
