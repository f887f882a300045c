"""Division by what neighbouring channels hold, and by norms of vectors."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from . import _checks as checks

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Inexact

    from ._types import ArrayLike

_FEW = 16  # channels whose sum is written out; a window over more is left to XLA


def local_response_norm(
    x: Float[ArrayLike, "n c *space"], size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Float[Array, "n c *space"]:
    r"""Divide each channel by a power of what the channels around it hold.

    .. math:: y_c = x_c \Big(k + \frac{\alpha}{n}
        \sum_{i = c - \lfloor n/2 \rfloor}^{c + \lfloor (n-1)/2 \rfloor} x_i^2 \Big)^{-\beta}

    Channels that do not exist count as zeros.

    Args:
        x: ``(N, C, *)`` with at least one axis after the channels.
        size: the number :math:`n` of channels to sum over.
        alpha: :math:`\alpha`.
        beta: :math:`\beta`.
        k: :math:`k`.

    Returns:
        Array of the shape and dtype of ``x``; half-precision input is computed in float32.

    Raises:
        ShapeMismatchError: ``x`` has fewer than three axes.
        TypeError: ``x`` is not an array of floating-point numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> x = jnp.ones((1, 3, 1))
        >>> F.local_response_norm(x, 2, alpha=2.0, beta=1.0, k=0.0).flatten().tolist()
        [1.0, 0.5, 0.5]

    Reference:
        Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural
        Networks", 2012; ``torch.nn.functional.local_response_norm``.
    """
    name = "local_response_norm"
    size, *numbers = check_response(size, alpha, beta, k, name)
    x = checks.to_array(x, name, "x")
    checks.require_floats(x, name, "x")
    require_response_axes(x, name, at_least=3)
    return _divide(x, size // 2, (size - 1) // 2, *numbers, size, False)


def cross_map_lrn2d(
    x: Float[ArrayLike, "n c h w"], size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Float[Array, "n c h w"]:
    r"""Divide each channel of images by a power of what the channels around it hold.

    .. math:: y_c = x_c \Big(k + \frac{\alpha}{n} \sum_{i = c - r}^{c + r} x_i^2 \Big)^{-\beta},
        \quad r = \lfloor (n - 1) / 2 \rfloor

    As in Torch, from which networks of this kind come, the first channel stays in the sum for all
    channels once it has got into it.

    Args:
        x: ``(N, C, H, W)``.
        size: the number :math:`n` of channels to sum over; odd, or else one channel fewer is summed.
        alpha: :math:`\alpha`.
        beta: :math:`\beta`.
        k: :math:`k`.

    Returns:
        Array of the shape and dtype of ``x``; half-precision input is computed in float32.

    Raises:
        ShapeMismatchError: ``x`` does not have four axes.
        TypeError: ``x`` is not an array of floating-point numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> x = jnp.ones((1, 3, 1, 1))
        >>> F.cross_map_lrn2d(x, 1, alpha=1.0, beta=1.0, k=0.0).flatten().tolist()
        [1.0, 0.5, 0.5]

    Reference:
        ``torch.nn.CrossMapLRN2d``.
    """
    name = "cross_map_lrn2d"
    size, *numbers = check_response(size, alpha, beta, k, name)
    x = checks.to_array(x, name, "x")
    checks.require_floats(x, name, "x")
    require_response_axes(x, name, exactly=4)
    radius = (size - 1) // 2
    return _divide(x, radius, radius, *numbers, size, True)


def normalize(
    x: Inexact[ArrayLike, "*shape"], p: float = 2.0, dim: int | tuple[int, ...] = 1, eps: float = 1e-12
) -> Inexact[Array, "*shape"]:
    r"""Divide vectors by their norm.

    .. math:: y = \frac{x}{\max(\lVert x \rVert_p, \epsilon)}

    Args:
        x: any array.
        p: which norm: :math:`(\sum |x_i|^p)^{1/p}`; ``inf`` and ``-inf`` for the largest and the
            smallest magnitude, 0 for the number of elements that are not zero.
        dim: the axis along which the vectors lie, or several.
        eps: the smallest number to divide by.

    Returns:
        Array of the shape and dtype of ``x``. The gradient at a vector of zeros is that of
        :math:`x / \epsilon`.

    Raises:
        ShapeMismatchError: ``dim`` is no axis of ``x``.
        TypeError: ``x`` is not an array of floating-point or complex numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.normalize(jnp.array([[1.0, 3.0]]), p=1).tolist()
        [[0.25, 0.75]]

    Reference:
        ``torch.nn.functional.normalize``.
    """
    p = checks.number(p, "normalize", "p")
    eps = checks.epsilon(eps, "normalize")
    x = checks.to_array(x, "normalize", "x")
    checks.require_inexact(x, "normalize", "x")
    dims = dim if isinstance(dim, (tuple, list)) else (dim,)
    axes = tuple(checks.axis(d, len(x.shape), "normalize") for d in dims)
    if not axes or len(set(axes)) < len(axes):
        raise ValueError(f"normalize: dim must name one axis or several different ones, got {dim!r}.")
    if not x.shape:  # a scalar counts as a vector of one element
        axes = ()
    return _normalize(x, p=p, axes=axes, eps=eps)


def check_response(size: Any, alpha: Any, beta: Any, k: Any, function: str) -> tuple[int, float, float, float]:
    """The options of a response norm, checked."""
    n = checks.integer(size, function, "size", 1)
    return (
        n,
        checks.number(alpha, function, "alpha"),
        checks.number(beta, function, "beta"),
        checks.number(k, function, "k"),
    )


def require_response_axes(x: Any, function: str, at_least: int = 0, exactly: int = 0) -> None:
    """Raise ``ShapeMismatchError`` unless ``x`` has as many axes as it must."""
    rank = len(x.shape)
    if (exactly and rank != exactly) or rank < at_least:
        expected = "4 axes (N, C, H, W)" if exactly else f"at least {at_least} axes (N, C, ...)"
        fix = "Add the missing axes, or reshape the data."
        if rank == (exactly or at_least) - 1:
            fix = "Add the batch axis: x[None]."
        checks.shape_error(function, f"x must have {expected}, not {rank}.", fix, x=x)


@functools.partial(jax.jit, static_argnums=range(1, 8))
def _divide(
    x: Array, before: int, after: int, alpha: float, beta: float, k: float, size: int, keeps_first: bool
) -> Array:
    wide = x.astype(checks.statistics_dtype(x.dtype))
    squares = wide * wide
    sums = _sums_of_neighbours(squares, before, after)
    if keeps_first and before + 1 < x.shape[1]:
        rest = [(0, 0)] * (x.ndim - 2)
        first = jnp.broadcast_to(squares[:, :1], (*x.shape[:1], x.shape[1] - before - 1, *x.shape[2:]))
        sums = sums + jnp.pad(first, [(0, 0), (before + 1, 0), *rest])
    return (wide * (k + sums * (alpha / size)) ** -beta).astype(x.dtype)


def _sums_of_neighbours(x: Array, before: int, after: int) -> Array:
    """For each channel the sum over itself, some channels before and some after."""
    channels = x.shape[1]
    before, after = min(before, channels), min(after, channels)
    rest = [(0, 0)] * (x.ndim - 2)
    if before + after < _FEW:
        padded = jnp.pad(x, [(0, 0), (before, after), *rest])
        parts = [lax.slice_in_dim(padded, i, i + channels, axis=1) for i in range(before + after + 1)]
        return functools.reduce(lax.add, parts)
    window = (1, before + after + 1, *(1 for _ in rest))
    zero = jnp.zeros((), x.dtype)
    return lax.reduce_window(x, zero, lax.add, window, (1,) * x.ndim, [(0, 0), (before, after), *rest])


@functools.partial(jax.jit, static_argnames=("p", "axes", "eps"))
def _normalize(x: Array, *, p: float, axes: tuple[int, ...], eps: float) -> Array:
    wide = x if x.dtype.itemsize >= 4 else x.astype(jnp.float32)
    norm = _norm(wide, p, axes)
    return (wide / jnp.maximum(norm, jnp.asarray(eps, norm.dtype)).astype(wide.dtype)).astype(x.dtype)


def _norm(x: Array, p: float, axes: tuple[int, ...]) -> Array:
    """The norm, with a gradient of zero where it has none."""
    if p == 0:
        return (x != 0).sum(axes, keepdims=True).astype(x.real.dtype)
    if math.isinf(p):
        return (jnp.max if p > 0 else jnp.min)(jnp.abs(x), axes, keepdims=True)
    if p == 2:
        powers = x.real * x.real + (x.imag * x.imag if jnp.iscomplexobj(x) else 0)
    else:
        zero = x == 0
        magnitude = jnp.abs(jnp.where(zero, 1, x))
        at_zero = 0.0 if p > 0 else math.inf
        powers = jnp.where(zero, at_zero, magnitude**p)
    total = powers.sum(axes, keepdims=True)
    ordinary = (total > 0) & (total < math.inf)
    root = jnp.where(ordinary, total, 1) ** (1 / p) if p != 2 else jnp.sqrt(jnp.where(ordinary, total, 1))
    return jnp.where(ordinary, root, total if p > 0 else 1 / total)
