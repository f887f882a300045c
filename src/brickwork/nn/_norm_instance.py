"""Normalisation of each channel of each example."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jax import lax

from ..core import Buffer
from ..core._frame import lane_axes
from ..functional import (
    _checks as checks,
    batch_norm_eval,
    instance_norm,
    instance_norm_train,
    update_running_statistics,
)
from . import _args as args
from ._norm import ChannelNorm

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class InstanceNorm(ChannelNorm):
    """What all InstanceNorms have in common."""

    _affine = False
    _ndim = 0  # spatial axes

    @args.torch_order("num_features", "eps", "momentum", "affine", "track_running_stats")
    def __init__(
        self,
        *,
        num_features: int | None = None,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        bias: bool = True,
        dtype: Any = jnp.float32,
    ) -> None:
        self._declare(num_features, eps, momentum, affine, track_running_stats, bias, dtype)

    def _channel_axis(self, x: Any) -> int:
        return len(checks.shape_of(x, type(self).__name__)) - self._ndim - 1

    def _require_axes(self, x: Any) -> None:
        checks.require_spatial(x, self._ndim, type(self).__name__)

    def forward(self, x: Float[Array, "*n c *space"]) -> Float[Array, "*n c *space"]:
        """Normalise, and in training mode move the running statistics, if there are any."""
        x = self._checked(x)
        single = self._channel_axis(x) == 0
        y = self._normalize(x[None] if single else x)
        return y[0] if single else y

    def _normalize(self, x: Array) -> Array:
        mean, var = self.running_mean, self.running_var
        if mean is None or var is None:
            self._require_several(x)
            return instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)
        if not self.training:
            return batch_norm_eval(x, mean, var, self.weight, self.bias, self.eps)
        self._require_several(x)
        y, means, variances = instance_norm_train(x, weight=self.weight, bias=self.bias, eps=self.eps)
        if self.momentum is not None and x.size:  # torch's layer doesn't move them without a momentum
            self._move(mean, var, means.mean(0), variances.mean(0), math.prod(x.shape[2:]))
        return y

    def _move(self, mean: Buffer, var: Buffer, new_mean: Any, new_var: Any, count: int) -> None:
        axes = lane_axes(mean, new_mean)
        if axes:
            new_mean, new_var = lax.pmean((new_mean, new_var), axes)
        batches = jnp.zeros((), jnp.int32)  # which torch's layer does not count
        mean.value, var.value, _ = update_running_statistics(
            mean.value, var.value, batches, new_mean, new_var, count=count, momentum=self.momentum
        )

    def _require_several(self, x: Any) -> None:
        if math.prod(x.shape[2:]) == 1:
            raise ValueError(
                f"{type(self).__name__}: expected more than 1 spatial element to normalise by its own mean and "
                f"variance, got {checks.describe(x)}. Use larger inputs, or leave this layer out."
            )


class InstanceNorm1d(InstanceNorm):
    r"""Normalise each channel of each sequence by its own mean and variance.

    .. math:: y = \frac{x - \mu_{n,c}}{\sqrt{\sigma_{n,c}^2 + \epsilon}} \gamma_c + \beta_c

    With ``track_running_stats``, running statistics move in training mode towards the averages over the
    batch, :math:`\hat\mu_c \gets (1 - m) \hat\mu_c + m \bar\mu_c`, likewise for the variance without
    bias, and are used in evaluation mode.

    Args:
        num_features: number of channels; taken from the first input when not given.
        eps: added to the variance.
        momentum: the weight :math:`m` of the batch; ``None``: the running statistics stay as they are.
        affine: whether there are :math:`\gamma` and :math:`\beta`.
        track_running_stats: whether there are running statistics.
        bias: whether there is :math:`\beta`, where there is :math:`\gamma`.
        dtype: of the parameters; statistics are at least float32.

    Shape:
        ``(N, C, L)`` or ``(C, L)``; the output has the shape of the input.

    Parameters:
        weight: :math:`\gamma`, ``(C,)``, ones; with ``affine``.
        bias: :math:`\beta`, ``(C,)``, zeros; with ``affine``.
        running_mean: buffer ``(C,)``, zeros; with ``track_running_stats``, as the two below.
        running_var: buffer ``(C,)``, ones.
        num_batches_tracked: buffer ``()``, int32, zero; it stays zero, as in PyTorch.

    Raises:
        ValueError: there is one spatial element, which is its own mean.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.InstanceNorm1d(affine=True)
        >>> layer(jnp.ones((4, 6, 8))).shape
        (4, 6, 8)
        >>> layer
        InstanceNorm1d(6, affine=True)

    Reference:
        Ulyanov, Vedaldi and Lempitsky, "Instance Normalization", 2016; ``torch.nn.InstanceNorm1d``.
    """

    _ndim = 1


class InstanceNorm2d(InstanceNorm):
    r"""Normalise each channel of each image by its own mean and variance.

    .. math:: y = \frac{x - \mu_{n,c}}{\sqrt{\sigma_{n,c}^2 + \epsilon}} \gamma_c + \beta_c

    With ``track_running_stats``, running statistics move in training mode towards the averages over the
    batch, :math:`\hat\mu_c \gets (1 - m) \hat\mu_c + m \bar\mu_c`, likewise for the variance without
    bias, and are used in evaluation mode.

    Args:
        num_features: number of channels; taken from the first input when not given.
        eps: added to the variance.
        momentum: the weight :math:`m` of the batch; ``None``: the running statistics stay as they are.
        affine: whether there are :math:`\gamma` and :math:`\beta`.
        track_running_stats: whether there are running statistics.
        bias: whether there is :math:`\beta`, where there is :math:`\gamma`.
        dtype: of the parameters; statistics are at least float32.

    Shape:
        ``(N, C, H, W)`` or ``(C, H, W)``; the output has the shape of the input.

    Parameters:
        weight: :math:`\gamma`, ``(C,)``, ones; with ``affine``.
        bias: :math:`\beta`, ``(C,)``, zeros; with ``affine``.
        running_mean: buffer ``(C,)``, zeros; with ``track_running_stats``, as the two below.
        running_var: buffer ``(C,)``, ones.
        num_batches_tracked: buffer ``()``, int32, zero; it stays zero, as in PyTorch.

    Raises:
        ValueError: there is one spatial element, which is its own mean.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.InstanceNorm2d(affine=True)
        >>> layer(jnp.ones((4, 6, 8, 8))).shape
        (4, 6, 8, 8)
        >>> layer
        InstanceNorm2d(6, affine=True)

    Reference:
        Ulyanov, Vedaldi and Lempitsky, "Instance Normalization", 2016; ``torch.nn.InstanceNorm2d``.
    """

    _ndim = 2


class InstanceNorm3d(InstanceNorm):
    r"""Normalise each channel of each volume by its own mean and variance.

    .. math:: y = \frac{x - \mu_{n,c}}{\sqrt{\sigma_{n,c}^2 + \epsilon}} \gamma_c + \beta_c

    With ``track_running_stats``, running statistics move in training mode towards the averages over the
    batch, :math:`\hat\mu_c \gets (1 - m) \hat\mu_c + m \bar\mu_c`, likewise for the variance without
    bias, and are used in evaluation mode.

    Args:
        num_features: number of channels; taken from the first input when not given.
        eps: added to the variance.
        momentum: the weight :math:`m` of the batch; ``None``: the running statistics stay as they are.
        affine: whether there are :math:`\gamma` and :math:`\beta`.
        track_running_stats: whether there are running statistics.
        bias: whether there is :math:`\beta`, where there is :math:`\gamma`.
        dtype: of the parameters; statistics are at least float32.

    Shape:
        ``(N, C, D, H, W)`` or ``(C, D, H, W)``; the output has the shape of the input.

    Parameters:
        weight: :math:`\gamma`, ``(C,)``, ones; with ``affine``.
        bias: :math:`\beta`, ``(C,)``, zeros; with ``affine``.
        running_mean: buffer ``(C,)``, zeros; with ``track_running_stats``, as the two below.
        running_var: buffer ``(C,)``, ones.
        num_batches_tracked: buffer ``()``, int32, zero; it stays zero, as in PyTorch.

    Raises:
        ValueError: there is one spatial element, which is its own mean.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.InstanceNorm3d(affine=True)
        >>> layer(jnp.ones((4, 6, 2, 8, 8))).shape
        (4, 6, 2, 8, 8)
        >>> layer
        InstanceNorm3d(6, affine=True)

    Reference:
        Ulyanov, Vedaldi and Lempitsky, "Instance Normalization", 2016; ``torch.nn.InstanceNorm3d``.
    """

    _ndim = 3
