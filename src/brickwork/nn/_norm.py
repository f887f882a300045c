"""Normalisation of channels over a batch."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jax import lax

from ..core import Buffer, Parameter
from ..core._arrays import check_dtype
from ..core._frame import lane_axes
from ..functional import (
    _checks as checks,
    batch_norm_eval,
    batch_norm_train,
    update_running_statistics,
)
from ..init import ones, zeros
from ..module import Module
from . import _args as args

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class ChannelNorm(Module):
    """What BatchNorm and InstanceNorm have in common: numbers for each channel."""

    _affine = True  # the default
    _given: int | None = None  # num_features, where nothing else keeps it

    def _declare(
        self,
        num_features: int | None,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        bias: bool,
        dtype: Any,
    ) -> None:
        name = type(self).__name__
        n = args.optional_size(num_features, name, "num_features")
        self.eps = args.epsilon(eps, name)
        self.momentum = None if momentum is None else args.number(momentum, name, "momentum")
        track = args.flag(track_running_stats, name, "track_running_stats")
        affine = args.flag(affine, name, "affine")
        both = args.flag(bias, name, "bias") and affine
        self.weight = Parameter(shape=(n,), dtype=dtype, init=ones()) if affine else None
        self.bias = Parameter(shape=(n,), dtype=dtype, init=zeros()) if both else None
        wide = checks.statistics_dtype(check_dtype(dtype, name))
        self.running_mean = Buffer(shape=(n,), dtype=wide, init=zeros()) if track else None
        self.running_var = Buffer(shape=(n,), dtype=wide, init=ones()) if track else None
        self.num_batches_tracked = Buffer(jnp.zeros((), jnp.int32)) if track else None
        if n is not None and not affine and not track:
            self._given = n

    @property
    def num_features(self) -> int | None:
        """Number of channels; ``None`` while it is not known, or where nothing depends on it."""
        sized = self.running_mean if self.weight is None else self.weight
        return self._given if sized is None else sized.shape[0]

    def _channel_axis(self, x: Any) -> int:
        return 1

    def _require_axes(self, x: Any) -> None:
        raise TypeError(f"{type(self).__name__} must define _require_axes")

    def build(self, x: Any) -> None:
        """Take the number of channels from their axis."""
        checks.shape_of(x, type(self).__name__)
        self._require_axes(x)
        for variable in (self.weight, self.bias, self.running_mean, self.running_var):
            if variable is not None and variable.shape[0] is None:
                variable.shape = (x.shape[self._channel_axis(x)],)

    def _checked(self, x: Any) -> Any:
        """The input as an array with the right axes."""
        x = checks.to_array(x, type(self).__name__, "x")
        self._require_axes(x)
        known, axis = self.num_features, self._channel_axis(x)
        if known is not None and x.shape[axis] != known:
            checks.shape_error(
                type(self).__name__,
                f"x must have {known} channels in axis {axis}, as the layer was given or has seen before, "
                f"not {x.shape[axis]}.",
                "Check the data, or make a new layer.",
                x=x,
            )
        return x

    def extra_repr(self) -> str:
        rest = args.options(self, eps=1e-5, momentum=0.1)
        affine = "" if (self.weight is not None) == self._affine else f", affine={not self._affine}"
        bias = "" if (self.weight is None) == (self.bias is None) else ", bias=False"
        tracked = self.running_mean is not None
        track = "" if tracked == self._affine else f", track_running_stats={tracked}"
        depends = self.num_features is not None or self.weight is not None or tracked
        size = args.show(self.num_features) if depends else ""
        return f"{size}{rest}{affine}{bias}{track}".removeprefix(", ")


class BatchNorm(ChannelNorm):
    """What all BatchNorms have in common."""

    _axes: tuple[str, ...] = ()  # what the input may look like

    @args.torch_order("num_features", "eps", "momentum", "affine", "track_running_stats")
    def __init__(
        self,
        *,
        num_features: int | None = None,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        bias: bool = True,
        dtype: Any = jnp.float32,
    ) -> None:
        self._declare(num_features, eps, momentum, affine, track_running_stats, bias, dtype)

    def _require_axes(self, x: Any) -> None:
        name, rank = type(self).__name__, len(checks.shape_of(x, type(self).__name__))
        if rank in [len(axes) for axes in self._axes]:
            return
        forms = " or ".join(f"({', '.join(axes)})" for axes in self._axes)
        fix = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d", 5: "BatchNorm3d"}.get(rank)
        checks.shape_error(
            name,
            f"x must have the axes {forms}, not {rank} axes.",
            f"Use nn.{fix}." if fix and fix != name else "Reshape the data.",
            x=x,
        )

    def _together(self, x: Any) -> tuple[Hashable, ...]:
        """The names of the mapped axes over which the batch is to be seen as one."""
        return ()

    def forward(self, x: Float[Array, "n c *space"]) -> Float[Array, "n c *space"]:
        """Normalise, and in training mode move the running statistics."""
        x = self._checked(x)
        mean, var, tracked = self.running_mean, self.running_var, self.num_batches_tracked
        if not self.training and mean is not None and var is not None:
            return batch_norm_eval(x, mean, var, self.weight, self.bias, self.eps)
        axes = self._together(x)
        count = self._require_several(x, axes)
        y, batch_mean, batch_var = batch_norm_train(
            x, self.weight, self.bias, self.eps, axis_name=axes if axes else None
        )
        if mean is None or var is None or tracked is None:
            return y
        if not count:  # nothing to learn from, but a batch
            tracked.value = tracked.value + jnp.ones((), tracked.dtype)
        else:
            batch_mean, batch_var, count = _pooled(mean, batch_mean, batch_var, count, axes)
            mean.value, var.value, tracked.value = update_running_statistics(
                mean.value,
                var.value,
                tracked.value,
                batch_mean,
                batch_var,
                count=count,
                momentum=self.momentum,
            )
        return y

    def _require_several(self, x: Any, axes: tuple[Hashable, ...]) -> int:
        """Return the number of values per channel; one is too few to train with."""
        count = math.prod(x.shape) // max(x.shape[1], 1)
        if axes:
            count *= lax.psum(1, axes)
        if self.training and count == 1:
            raise ValueError(
                f"{type(self).__name__}: expected more than 1 value per channel when training, "
                f"got {checks.describe(x)}. Use a larger batch, or evaluation mode: net.eval()."
            )
        return count


def _pooled(running: Buffer, mean: Any, var: Any, count: int, done: tuple[Hashable, ...]) -> tuple[Any, Any, int]:
    """Mean and biased variance of a batch over all lanes of the mapped axes around, as if they were one batch."""
    axes = tuple(name for name in lane_axes(running, mean) if name not in done)
    if not axes:
        return mean, var, count
    whole = lax.pmean(mean, axes)
    return whole, lax.pmean(var + jnp.square(mean - whole), axes), count * lax.psum(1, axes)


class BatchNorm1d(BatchNorm):
    r"""Normalise each feature by its mean and variance over the batch.

    .. math:: y = \frac{x - \mu_c}{\sqrt{\sigma_c^2 + \epsilon}} \gamma_c + \beta_c

    In training mode :math:`\mu` and :math:`\sigma^2` are those of the batch, and running
    statistics are moved towards them: :math:`\hat\mu \gets (1 - m) \hat\mu + m \mu`, likewise
    for the variance, without bias. In evaluation mode the running statistics are used.

    Args:
        num_features: number of channels; taken from the first input when not given.
        eps: added to the variance.
        momentum: the weight :math:`m` of the batch; ``None``: the plain average over all batches.
        affine: whether there are :math:`\gamma` and :math:`\beta`.
        track_running_stats: whether there are running statistics; without them those of the
            batch are used in evaluation mode too.
        bias: whether there is :math:`\beta`, where there is :math:`\gamma`.
        dtype: of the parameters; statistics are at least float32.

    Shape:
        ``(N, C)`` or ``(N, C, L)``; the output has the shape of the input.

    Parameters:
        weight: :math:`\gamma`, ``(C,)``, ones.
        bias: :math:`\beta`, ``(C,)``, zeros.
        running_mean: buffer ``(C,)``, zeros.
        running_var: buffer ``(C,)``, ones.
        num_batches_tracked: buffer ``()``, int32, zero.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.BatchNorm1d()
        >>> layer(jnp.ones((4, 10))).shape
        (4, 10)
        >>> layer
        BatchNorm1d(10)

    Reference:
        Ioffe and Szegedy, "Batch Normalization", 2015; ``torch.nn.BatchNorm1d``.
    """

    _axes = ("NC", "NCL")


class BatchNorm2d(BatchNorm):
    r"""Normalise each channel of images by its mean and variance over the batch.

    .. math:: y = \frac{x - \mu_c}{\sqrt{\sigma_c^2 + \epsilon}} \gamma_c + \beta_c

    In training mode :math:`\mu` and :math:`\sigma^2` are those of the batch, and running
    statistics are moved towards them: :math:`\hat\mu \gets (1 - m) \hat\mu + m \mu`, likewise
    for the variance, without bias. In evaluation mode the running statistics are used.

    Args:
        num_features: number of channels; taken from the first input when not given.
        eps: added to the variance.
        momentum: the weight :math:`m` of the batch; ``None``: the plain average over all batches.
        affine: whether there are :math:`\gamma` and :math:`\beta`.
        track_running_stats: whether there are running statistics; without them those of the
            batch are used in evaluation mode too.
        bias: whether there is :math:`\beta`, where there is :math:`\gamma`.
        dtype: of the parameters; statistics are at least float32.

    Shape:
        ``(N, C, H, W)``; the output has the shape of the input.

    Parameters:
        weight: :math:`\gamma`, ``(C,)``, ones.
        bias: :math:`\beta`, ``(C,)``, zeros.
        running_mean: buffer ``(C,)``, zeros.
        running_var: buffer ``(C,)``, ones.
        num_batches_tracked: buffer ``()``, int32, zero.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.BatchNorm2d()
        >>> layer(jnp.ones((4, 6, 8, 8))).shape
        (4, 6, 8, 8)
        >>> layer
        BatchNorm2d(6)

    Reference:
        Ioffe and Szegedy, "Batch Normalization", 2015; ``torch.nn.BatchNorm2d``.
    """

    _axes = ("NCHW",)


class BatchNorm3d(BatchNorm):
    r"""Normalise each channel of volumes by its mean and variance over the batch.

    .. math:: y = \frac{x - \mu_c}{\sqrt{\sigma_c^2 + \epsilon}} \gamma_c + \beta_c

    In training mode :math:`\mu` and :math:`\sigma^2` are those of the batch, and running
    statistics are moved towards them: :math:`\hat\mu \gets (1 - m) \hat\mu + m \mu`, likewise
    for the variance, without bias. In evaluation mode the running statistics are used.

    Args:
        num_features: number of channels; taken from the first input when not given.
        eps: added to the variance.
        momentum: the weight :math:`m` of the batch; ``None``: the plain average over all batches.
        affine: whether there are :math:`\gamma` and :math:`\beta`.
        track_running_stats: whether there are running statistics; without them those of the
            batch are used in evaluation mode too.
        bias: whether there is :math:`\beta`, where there is :math:`\gamma`.
        dtype: of the parameters; statistics are at least float32.

    Shape:
        ``(N, C, D, H, W)``; the output has the shape of the input.

    Parameters:
        weight: :math:`\gamma`, ``(C,)``, ones.
        bias: :math:`\beta`, ``(C,)``, zeros.
        running_mean: buffer ``(C,)``, zeros.
        running_var: buffer ``(C,)``, ones.
        num_batches_tracked: buffer ``()``, int32, zero.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.BatchNorm3d()
        >>> layer(jnp.ones((4, 6, 2, 8, 8))).shape
        (4, 6, 2, 8, 8)
        >>> layer
        BatchNorm3d(6)

    Reference:
        Ioffe and Szegedy, "Batch Normalization", 2015; ``torch.nn.BatchNorm3d``.
    """

    _axes = ("NCDHW",)
