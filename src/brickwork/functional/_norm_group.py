"""Normalisation over groups of channels of each example."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from ..core._jax import varying_alike
from . import _checks as checks
from ._explicit import left_to_xla, whole
from ._moments import covariance, moments
from ._norm import check_channels

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from ._types import ArrayLike

    _Saved = tuple[Array, Array | None, Array | None, Array, Array]


def group_norm(
    x: Float[ArrayLike, "n c *space"],
    num_groups: int,
    weight: Float[ArrayLike, " c"] | None = None,
    bias: Float[ArrayLike, " c"] | None = None,
    eps: float = 1e-5,
) -> Float[Array, "n c *space"]:
    r"""Normalise each example by the mean and variance of groups of its channels.

    .. math:: y = \frac{x - \mu_{n,g}}{\sqrt{\sigma_{n,g}^2 + \epsilon}} \gamma_c + \beta_c

    Args:
        x: ``(N, C, *)``.
        num_groups: number of groups into which the channels are split; it must divide ``C``.
        weight: the scale :math:`\gamma` ``(C,)``, or ``None``.
        bias: the offset :math:`\beta` ``(C,)``, or ``None``.
        eps: added to the variance.

    Returns:
        Array of the shape and dtype of ``x``; half-precision input is computed in float32. It is
        differentiable any number of times in reverse mode (forward mode alone is not available).

    Raises:
        ShapeMismatchError: ``x`` has fewer than two axes, ``num_groups`` does not divide its
            channels, or a vector is not of length ``C``.
        TypeError: ``x`` is not an array of floating-point numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.group_norm(jnp.array([[1.0, 3.0, 5.0, 5.0]]), 2, eps=1e-9).round(3).tolist()
        [[-1.0, 1.0, 0.0, 0.0]]

    Reference:
        Wu and He, "Group Normalization", 2018; ``torch.nn.functional.group_norm``.
    """
    eps = checks.epsilon(eps, "group_norm")
    groups = checks.integer(num_groups, "group_norm", "num_groups", 1)
    x, weight, bias = check_channels(x, weight, bias, "group_norm")
    if x.shape[1] % groups:
        problem = f"x has {x.shape[1]} channels in axis 1, which can't be split into {groups} equal groups."
        checks.shape_error("group_norm", problem, "Choose a num_groups that divides the number of channels.", x=x)
    return _group_norm(x, weight, bias, groups=groups, eps=eps)[0]


def instance_norm(
    x: Float[ArrayLike, "n c *space"],
    *,
    weight: Float[ArrayLike, " c"] | None = None,
    bias: Float[ArrayLike, " c"] | None = None,
    eps: float = 1e-5,
) -> Float[Array, "n c *space"]:
    r"""Normalise each channel of each example by its own mean and variance.

    .. math:: y = \frac{x - \mu_{n,c}}{\sqrt{\sigma_{n,c}^2 + \epsilon}} \gamma_c + \beta_c

    Running statistics, which the function of this name in ``torch`` moves, are not among the
    arguments: see :func:`instance_norm_train`, and :func:`batch_norm_eval` for using them.

    Args:
        x: ``(N, C, *)``.
        weight: the scale :math:`\gamma` ``(C,)``, or ``None``.
        bias: the offset :math:`\beta` ``(C,)``, or ``None``.
        eps: added to the variance.

    Returns:
        Array of the shape and dtype of ``x``; half-precision input is computed in float32.

    Raises:
        ShapeMismatchError: ``x`` has fewer than two axes, or a vector is not of length ``C``.
        TypeError: ``x`` is not an array of floating-point numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.instance_norm(jnp.array([[[1.0, 3.0], [7.0, 5.0]]]), eps=0.0).tolist()
        [[[-1.0, 1.0], [1.0, -1.0]]]

    Reference:
        Ulyanov, Vedaldi and Lempitsky, "Instance Normalization", 2016;
        ``torch.nn.functional.instance_norm``.
    """
    return instance_norm_train(x, weight=weight, bias=bias, eps=eps)[0]


def instance_norm_train(
    x: Float[ArrayLike, "n c *space"],
    *,
    weight: Float[ArrayLike, " c"] | None = None,
    bias: Float[ArrayLike, " c"] | None = None,
    eps: float = 1e-5,
) -> tuple[Float[Array, "n c *space"], Float[Array, "n c"], Float[Array, "n c"]]:
    r"""Normalise as :func:`instance_norm`, and return the statistics too.

    .. math:: y = \frac{x - \mu_{n,c}}{\sqrt{\sigma_{n,c}^2 + \epsilon}} \gamma_c + \beta_c

    Args:
        x: ``(N, C, *)``.
        weight: the scale :math:`\gamma` ``(C,)``, or ``None``.
        bias: the offset :math:`\beta` ``(C,)``, or ``None``.
        eps: added to the variance.

    Returns:
        ``(y, mean, var)``: ``y`` of the shape and dtype of ``x``; ``mean`` and ``var`` (biased:
        divided by the number of elements) of shape ``(N, C)``, at least float32.

    Raises:
        ShapeMismatchError: ``x`` has fewer than two axes, or a vector is not of length ``C``.
        TypeError: ``x`` is not an array of floating-point numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> y, mean, var = F.instance_norm_train(jnp.array([[[1.0, 3.0], [7.0, 5.0]]]))
        >>> mean.tolist(), var.tolist()
        ([[2.0, 6.0]], [[1.0, 1.0]])

    Reference:
        Ulyanov, Vedaldi and Lempitsky, "Instance Normalization", 2016;
        ``torch.nn.functional.instance_norm``.
    """
    eps = checks.epsilon(eps, "instance_norm")
    x, weight, bias = check_channels(x, weight, bias, "instance_norm")
    return _group_norm(x, weight, bias, groups=x.shape[1], eps=eps)


@functools.partial(jax.jit, static_argnames=("groups", "eps"))
@functools.partial(left_to_xla, divided=whole)
def _group_norm(
    x: Array, weight: Array | None, bias: Array | None, *, groups: int, eps: float
) -> tuple[Array, Array, Array]:
    if x.size == 0:  # no example, or nothing in it; what is empty can't be split into groups
        nothing = jnp.zeros((x.shape[0], groups), checks.statistics_dtype(x.dtype))
        return x, nothing, nothing
    return _normalize(groups, eps, *varying_alike(x, weight, bias))


def _normalize_plain(
    groups: int, eps: float, x: Array, weight: Array | None, bias: Array | None
) -> tuple[Array, Array, Array]:
    return _normalize_forward(groups, eps, x, weight, bias)[0]


def _to_channels(v: Array, channels: int) -> Array:
    """Numbers for each group ``(N, G)`` as one for each channel, ``(N, C, 1)``."""
    return jnp.repeat(v, channels // v.shape[1], axis=1)[..., None]


def _normalize_forward(
    groups: int, eps: float, x: Array, weight: Array | None, bias: Array | None
) -> tuple[tuple[Array, Array, Array], _Saved]:
    dtype = checks.statistics_dtype(x.dtype)
    examples, channels = x.shape[:2]
    wide = x.astype(dtype)
    rows = wide.reshape(examples * groups, -1)
    each = moments(rows, lambda v: v.mean(1), lambda v: v[:, None])
    mean, var = (v.reshape(examples, groups) for v in each)
    rstd = lax.rsqrt(var + eps)
    scale = _to_channels(rstd, channels)
    if weight is not None:
        scale = scale * weight.astype(dtype)[:, None]
    y = (wide.reshape(examples, channels, -1) - _to_channels(mean, channels)) * scale
    if bias is not None:
        y = y + bias.astype(dtype)[:, None]
    return (y.reshape(x.shape).astype(x.dtype), mean, var), (x, weight, bias, mean, rstd)


def _normalize_backward(
    groups: int, eps: float, saved: _Saved, cotangents: tuple[Array, Array, Array]
) -> tuple[Array | None, ...]:
    """Return the gradients: ``dx = dy * a + (x - mean) * k1 + k0``, with numbers for each channel or group.

    All of them follow from two sums over each channel.
    """
    x, weight, bias, mean, rstd = saved
    dy, dmean, dvar = cotangents
    dtype = mean.dtype
    examples, channels = x.shape[:2]
    dy = dy.astype(dtype).reshape(examples, channels, -1)
    wide = x.astype(dtype).reshape(examples, channels, -1)
    means, rstds = _to_channels(mean, channels), _to_channels(rstd, channels)  # (N, C, 1)
    count = x.size // (examples * groups)
    by_bias = dy.sum(2)  # (N, C)
    by_scale = covariance(dy, by_bias, wide, means[..., 0], rstds[..., 0], lambda v: v.sum(2), lambda v: v[..., None])

    def total(v: Array) -> Array:  # over the channels of each group
        return (v if weight is None else v * weight.astype(dtype)).reshape(examples, groups, -1).sum(2)

    a = rstds
    if weight is not None:
        a = a * weight.astype(dtype)[:, None]
    k1 = (2 * dvar - total(by_scale) * rstd * rstd * rstd) / count
    k0 = (dmean - total(by_bias) * rstd) / count
    dx = dy * a + (wide - means) * _to_channels(k1, channels) + _to_channels(k0, channels)
    return (
        dx.reshape(x.shape).astype(x.dtype),
        None if weight is None else (by_scale * rstds[..., 0]).sum(0).astype(weight.dtype),
        None if bias is None else by_bias.sum(0).astype(bias.dtype),
    )


_normalize: Any = jax.custom_vjp(_normalize_plain, nondiff_argnums=(0, 1))
_normalize.defvjp(_normalize_forward, _normalize_backward)
