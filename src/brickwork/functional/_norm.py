"""Normalisation over a batch."""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from ..core._jax import varying_alike
from . import _checks as checks
from ._explicit import left_to_xla, whole
from ._moments import covariance, moments

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from ._types import ArrayLike

    _Saved = tuple[Array, Array | None, Array | None, Array | None, Array, Array]

_SHIFT_SAMPLES = 32  # elements of each channel whose mean is taken as the shift


def batch_norm_train(
    x: Float[ArrayLike, "n c *space"],
    weight: Float[ArrayLike, " c"] | None = None,
    bias: Float[ArrayLike, " c"] | None = None,
    eps: float = 1e-5,
    shift: Float[ArrayLike, " c"] | None = None,
    axis_name: Hashable | tuple[Hashable, ...] | None = None,
) -> tuple[Float[Array, "n c *space"], Float[Array, " c"], Float[Array, " c"]]:
    r"""Normalise each channel by its mean and variance over the batch.

    .. math:: y = \frac{x - \mu_c}{\sqrt{\sigma_c^2 + \epsilon}} \gamma_c + \beta_c

    Mean and variance are computed in one pass over the data, and the gradient is a product of
    the data with two numbers per channel. Both are differentiable, any number of times in
    reverse mode (forward mode is available with ``axis_name`` only).

    Args:
        x: ``(N, C, *)``.
        weight: the scale :math:`\gamma` ``(C,)``, or ``None``.
        bias: the offset :math:`\beta` ``(C,)``, or ``None``.
        eps: added to the variance.
        shift: ``(C,)``, numbers near the means, subtracted before squaring so that nothing
            cancels. The result does not depend on it but for rounding. ``None``: the mean over a
            few elements of the batch. It isn't needed on a CPU.
        axis_name: the name of a mapped axis around, of ``shard_map`` or ``vmap``, or several: mean and
            variance are then those of the batches of all devices, or lanes, together.

    Returns:
        ``(y, mean, var)``: ``y`` of the shape and dtype of ``x``; ``mean`` and ``var`` (biased:
        divided by the number of elements) of shape ``(C,)``, at least float32.

    Raises:
        ShapeMismatchError: ``x`` has fewer than two axes, or a vector is not of length ``C``.
        TypeError: ``x`` is not an array of floating-point numbers.
        NameError: there is no mapped axis of the name ``axis_name`` around.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> y, mean, var = F.batch_norm_train(jnp.array([[1.0], [3.0]]))
        >>> mean.tolist(), var.tolist()
        ([2.0], [1.0])

    Reference:
        Ioffe and Szegedy, "Batch Normalization", 2015; ``torch.nn.functional.batch_norm``.
    """
    eps = checks.epsilon(eps, "batch_norm_train")
    x, weight, bias = check_channels(x, weight, bias, "batch_norm_train")
    shift = checks.optional_array(shift, "batch_norm_train", "shift")
    if shift is not None:
        checks.require_length(shift, x.shape[1], "batch_norm_train", "shift", "channel", x=x)
    if axis_name is None:
        return _batch_norm_train(x, weight, bias, shift, eps=eps)
    return _batch_norm_together(x, weight, bias, shift, eps=eps, axis_name=axis_name)


def batch_norm_eval(
    x: Float[ArrayLike, "n c *space"],
    mean: Float[ArrayLike, " c"],
    var: Float[ArrayLike, " c"],
    weight: Float[ArrayLike, " c"] | None = None,
    bias: Float[ArrayLike, " c"] | None = None,
    eps: float = 1e-5,
) -> Float[Array, "n c *space"]:
    r"""Normalise each channel by a given mean and variance.

    .. math:: y = \frac{x - \mu_c}{\sqrt{\sigma_c^2 + \epsilon}} \gamma_c + \beta_c

    Args:
        x: ``(N, C, *)``.
        mean: :math:`\mu`, ``(C,)``.
        var: :math:`\sigma^2`, ``(C,)``.
        weight: the scale :math:`\gamma` ``(C,)``, or ``None``.
        bias: the offset :math:`\beta` ``(C,)``, or ``None``.
        eps: added to the variance.

    Returns:
        Array of the shape and dtype of ``x``.

    Raises:
        ShapeMismatchError: ``x`` has fewer than two axes, or a vector is not of length ``C``.
        TypeError: ``x`` is not an array of floating-point numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> F.batch_norm_eval(jnp.array([[5.0]]), jnp.ones(1), jnp.full(1, 4.0), eps=0.0).tolist()
        [[2.0]]

    Reference:
        Ioffe and Szegedy, "Batch Normalization", 2015; ``torch.nn.functional.batch_norm``.
    """
    eps = checks.epsilon(eps, "batch_norm_eval")
    x, weight, bias = check_channels(x, weight, bias, "batch_norm_eval")
    mean = checks.to_array(mean, "batch_norm_eval", "mean")
    var = checks.to_array(var, "batch_norm_eval", "var")
    channels = x.shape[1]
    if mean.shape != (channels,) or var.shape != (channels,):
        checks.require_length(mean, channels, "batch_norm_eval", "mean", "channel", x=x)
        checks.require_length(var, channels, "batch_norm_eval", "var", "channel", x=x)
    return _batch_norm_eval(x, mean, var, weight, bias, eps=eps)


def check_channels(x: Any, weight: Any, bias: Any, function: str) -> tuple[Array, Array | None, Array | None]:
    """The arrays, for a function that treats every channel of ``x`` in axis 1 on its own."""
    x = checks.to_array(x, function, "x")
    weight = checks.optional_array(weight, function, "weight")
    bias = checks.optional_array(bias, function, "bias")
    checks.require_floats(x, function, "x")
    shape = x.shape
    if len(shape) < 2:
        checks.shape_error(
            function,
            f"x must have at least 2 axes (N, C, ...), not {len(shape)}.",
            "Add the batch axis: x[None].",
            x=x,
        )
    if weight is not None and weight.shape != shape[1:2]:
        checks.require_length(weight, shape[1], function, "weight", "channel", x=x)
    if bias is not None and bias.shape != shape[1:2]:
        checks.require_length(bias, shape[1], function, "bias", "channel", x=x)
    return x, weight, bias


def _along_channels(v: Array, x: Array) -> Array:
    return v.reshape(1, -1, *(1,) * (x.ndim - 2))


def _channel_sum(x: Array) -> Array:
    return x.sum((0, *range(2, x.ndim)))


def _channel_mean(x: Array) -> Array:
    return _channel_sum(x) / _per_channel(x)


def _per_channel(x: Array) -> int:
    return x.size // max(x.shape[1], 1)


def _affine(centred: Array, rstd: Array, weight: Array | None, bias: Array | None) -> Array:
    """Scale what is centred, channel by channel."""
    scale = rstd if weight is None else rstd * weight.astype(rstd.dtype)
    y = centred * _along_channels(scale, centred)
    return y if bias is None else y + _along_channels(bias.astype(y.dtype), y)


@functools.partial(jax.jit, static_argnames="eps")
@left_to_xla
def _batch_norm_eval(
    x: Array,
    mean: Array,
    var: Array,
    weight: Array | None,
    bias: Array | None,
    *,
    eps: float,
) -> Array:
    dtype = checks.statistics_dtype(x.dtype)
    centred = x.astype(dtype) - _along_channels(mean.astype(dtype), x)
    return _affine(centred, lax.rsqrt(var.astype(dtype) + eps), weight, bias).astype(x.dtype)


@functools.partial(jax.jit, static_argnames="eps")
@functools.partial(left_to_xla, divided=whole)
def _batch_norm_train(
    x: Array, weight: Array | None, bias: Array | None, shift: Array | None, *, eps: float
) -> tuple[Array, Array, Array]:
    shift = None if jax.default_backend() == "cpu" else _near_mean(x, shift)
    return _normalize(eps, *varying_alike(x, weight, bias, shift))


@functools.partial(jax.jit, static_argnames=("eps", "axis_name"))
def _batch_norm_together(
    x: Array, weight: Array | None, bias: Array | None, shift: Array | None, *, eps: float, axis_name: Any
) -> tuple[Array, Array, Array]:
    """As ``_batch_norm_train``, over all devices; JAX finds the gradient, with the collectives that belong to it."""
    shift = _near_mean(x, shift)
    mean, var = _moments_around(shift, x)
    whole = lax.pmean(mean, axis_name)
    var = lax.pmean(var + jnp.square(mean - whole), axis_name)
    return _batch_norm_eval(x, whole, var, weight, bias, eps=eps), whole, var


def _near_mean(x: Array, shift: Array | None) -> Array:
    """Numbers near the means of the channels: given ones, or the means of a few elements."""
    dtype = checks.statistics_dtype(x.dtype)
    if shift is None:
        per_sample = max(math.prod(x.shape[2:]), 1)
        few = x[: -(-_SHIFT_SAMPLES // per_sample)].astype(dtype)
        shift = _channel_sum(few) / max(few.size // max(x.shape[1], 1), 1)
    return lax.stop_gradient(shift.astype(dtype))


def _moments_around(shift: Array, x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of each channel, in one pass over what ``shift`` brings close to zero."""
    shifted = x.astype(shift.dtype) - _along_channels(shift, x)
    offset = _channel_mean(shifted)
    var = jnp.maximum(_channel_mean(shifted * shifted) - offset * offset, 0)
    return offset + shift, var


def _normalize_plain(
    eps: float, x: Array, weight: Array | None, bias: Array | None, shift: Array | None
) -> tuple[Array, Array, Array]:
    return _normalize_forward(eps, x, weight, bias, shift)[0]


def _normalize_forward(
    eps: float, x: Array, weight: Array | None, bias: Array | None, shift: Array | None
) -> tuple[tuple[Array, Array, Array], _Saved]:
    wide = x.astype(checks.statistics_dtype(x.dtype))
    along = functools.partial(_along_channels, x=x)
    mean, var = moments(wide, _channel_mean, along) if shift is None else _moments_around(shift, x)
    rstd = lax.rsqrt(var + eps)
    y = _affine(wide - along(mean), rstd, weight, bias).astype(x.dtype)
    return (y, mean, var), (x, weight, bias, shift, mean, rstd)


def _normalize_backward(eps: float, saved: _Saved, cotangents: tuple[Array, Array, Array]) -> tuple[Array | None, ...]:
    """Return the gradients: ``dx = dy * a + (x - mean) * k1 + k0``, three numbers a channel."""
    x, weight, bias, shift, mean, rstd = saved
    if x.size == 0:  # the mean of nothing is NaN, and what follows from it would be
        return tuple(None if v is None else jnp.zeros_like(v) for v in (x, weight, bias, shift))
    dy, dmean, dvar = cotangents
    dtype = mean.dtype
    count = _per_channel(x)
    dy, wide = dy.astype(dtype), x.astype(dtype)
    along = functools.partial(_along_channels, x=x)
    dbias = _channel_sum(dy)
    dscale = covariance(dy, dbias, wide, mean, rstd, _channel_sum, along)  # with respect to weight * rstd
    a = rstd if weight is None else rstd * weight.astype(dtype)
    k1 = (2 * dvar - a * rstd * rstd * dscale) / count
    k0 = (dmean - a * dbias) / count
    dx = dy * along(a) + (wide - along(mean)) * along(k1) + along(k0)
    return (
        dx.astype(x.dtype),
        None if weight is None else (dscale * rstd).astype(weight.dtype),
        None if bias is None else dbias.astype(bias.dtype),
        None if shift is None else jnp.zeros_like(shift),
    )


_normalize = jax.custom_vjp(_normalize_plain, nondiff_argnums=(0,))
_normalize.defvjp(_normalize_forward, _normalize_backward)


@functools.partial(jax.jit, static_argnames=("count", "momentum"))
def update_running_statistics(
    running_mean: Array,
    running_var: Array,
    tracked: Array,
    mean: Array,
    var: Array,
    *,
    count: int,
    momentum: float | None,
) -> tuple[Array, Array, Array]:
    r"""Move running statistics towards those of a batch; return them and the number of batches.

    .. math:: \hat\mu \gets (1 - m) \hat\mu + m \mu, \quad
        \hat\sigma^2 \gets (1 - m) \hat\sigma^2 + m \frac{n}{n - 1} \sigma^2

    Args:
        running_mean: ``(C,)``.
        running_var: ``(C,)``.
        tracked: the number of batches so far, a scalar.
        mean: ``(C,)``, of the batch.
        var: ``(C,)``, of the batch, biased.
        count: the number ``n`` of elements that went into each mean.
        momentum: the weight ``m`` of the batch; ``None``: ``1 / (tracked + 1)``, so that the
            statistics are the plain average over all batches.

    Returns:
        The new ``(running_mean, running_var, tracked)``, in the dtypes of the old ones.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import functional as F
        >>> zero, one = jnp.zeros(1), jnp.ones(1)
        >>> mean, _, tracked = F.update_running_statistics(
        ...     zero, one, jnp.zeros((), jnp.int32), one, one, count=8, momentum=0.5
        ... )
        >>> mean.tolist(), int(tracked)
        ([0.5], 1)

    Reference:
        ``torch.nn.BatchNorm2d``.
    """
    mean, var = lax.stop_gradient((mean, var))
    tracked = tracked + jnp.ones((), tracked.dtype)
    m = 1 / tracked.astype(mean.dtype) if momentum is None else momentum
    if isinstance(count, int):
        unbiased = var * (count / max(count - 1, 1))
    else:  # a size of jax.export that is not known
        n = jnp.asarray(count, var.dtype)
        unbiased = var * (n / jnp.maximum(n - 1, 1))

    def mix(old: Array, new: Array) -> Array:
        wide = old.astype(new.dtype)
        return ((1 - m) * wide + m * new).astype(old.dtype)  # of the difference, a small one would be rounded away

    return mix(running_mean, mean), mix(running_var, unbiased), tracked
