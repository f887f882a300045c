"""Normalisation layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jax import lax

from ..core import Buffer, Parameter
from ..core._frame import lane_axes
from ..functional import (
    _checks as checks,
    batch_norm_eval,
    batch_norm_train,
    layer_norm,
    update_running_statistics,
)
from ..init import ones, zeros
from ..module import Module
from . import _args as args

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class _BatchNorm(Module):
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
        dtype: Any = jnp.float32,
    ) -> None:
        n = args.optional_size(num_features, type(self).__name__, "num_features")
        self.eps = float(eps)
        self.momentum = None if momentum is None else float(momentum)
        self.weight = Parameter(shape=(n,), dtype=dtype, init=ones()) if affine else None
        self.bias = Parameter(shape=(n,), dtype=dtype, init=zeros()) if affine else None
        wide = checks.statistics_dtype(jnp.dtype(dtype))
        track = bool(track_running_stats)
        self.running_mean = Buffer(shape=(n,), dtype=wide, init=zeros()) if track else None
        self.running_var = Buffer(shape=(n,), dtype=wide, init=ones()) if track else None
        self.num_batches_tracked = Buffer(jnp.zeros((), jnp.int32)) if track else None

    @property
    def num_features(self) -> int | None:
        """Number of channels; ``None`` while it is not known, or where nothing depends on it."""
        sized = self.running_mean if self.weight is None else self.weight
        return None if sized is None else sized.shape[0]

    def build(self, x: Any) -> None:
        """Take the number of channels from axis 1."""
        checks.shape_of(x, type(self).__name__)
        self._require_axes(x)
        for variable in (self.weight, self.bias, self.running_mean, self.running_var):
            if variable is not None and variable.shape[0] is None:
                variable.shape = (x.shape[1],)

    def _require_axes(self, x: Any) -> None:
        name, rank = type(self).__name__, len(x.shape)
        if rank in [len(axes) for axes in self._axes]:
            return
        forms = " or ".join(f"({', '.join(axes)})" for axes in self._axes)
        fix = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d"}.get(rank)
        checks.shape_error(
            name,
            f"x must have the axes {forms}, not {rank} axes.",
            f"Use nn.{fix}." if fix and fix != name else "Reshape the data.",
            x=x,
        )

    def forward(self, x: Float[Array, "n c *space"]) -> Float[Array, "n c *space"]:
        """Normalise, and in training mode move the running statistics."""
        x = checks.to_array(x, type(self).__name__, "x")
        self._require_axes(x)
        known = self.num_features
        if known is not None and x.shape[1] != known:
            checks.shape_error(
                type(self).__name__,
                f"x must have {known} channels in axis 1, as the layer was given or has seen before, not {x.shape[1]}.",
                "Check the data, or make a new layer.",
                x=x,
            )
        mean, var, tracked = self.running_mean, self.running_var, self.num_batches_tracked
        if mean is None or var is None or tracked is None:
            self._require_several(x)
            return batch_norm_train(x, self.weight, self.bias, self.eps)[0]
        if not self.training:
            return batch_norm_eval(x, mean, var, self.weight, self.bias, self.eps)
        count = self._require_several(x)
        y, batch_mean, batch_var = batch_norm_train(x, self.weight, self.bias, self.eps)
        if count:
            batch_mean, batch_var, count = _pooled(mean, batch_mean, batch_var, count)
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

    def _require_several(self, x: Any) -> int:
        """Return the number of values per channel; one is too few to train with."""
        count = math.prod(x.shape) // max(x.shape[1], 1)
        if self.training and count == 1:
            raise ValueError(
                f"{type(self).__name__}: expected more than 1 value per channel when training, "
                f"got {checks.describe(x)}. Use a larger batch, or evaluation mode: net.eval()."
            )
        return count

    def extra_repr(self) -> str:
        rest = args.options(self, eps=1e-5, momentum=0.1)
        affine = "" if self.weight is not None else ", affine=False"
        track = "" if self.running_mean is not None else ", track_running_stats=False"
        return f"{args.show(self.num_features)}{rest}{affine}{track}"


def _pooled(running: Buffer, mean: Any, var: Any, count: int) -> tuple[Any, Any, int]:
    """Mean and biased variance of a batch over all lanes of the mapped axes around, as if they were one batch."""
    axes = lane_axes(running, mean)
    if not axes:
        return mean, var, count
    whole = lax.pmean(mean, axes)
    return whole, lax.pmean(var + jnp.square(mean - whole), axes), count * lax.psum(1, axes)


class BatchNorm1d(_BatchNorm):
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


class BatchNorm2d(_BatchNorm):
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


class LayerNorm(Module):
    r"""Normalise each example by the mean and variance of its own features.

    .. math:: y = \frac{x - \mathrm{E}[x]}{\sqrt{\mathrm{Var}[x] + \epsilon}} \gamma + \beta

    Args:
        normalized_shape: sizes of the trailing axes to normalise over, an int or a tuple; the
            last axis of the first input when not given.
        eps: added to the variance.
        elementwise_affine: whether there are :math:`\gamma` and :math:`\beta`.
        bias: whether there is :math:`\beta`.
        dtype: of the parameters.

    Shape:
        ``(*, *normalized_shape)``; the output has the shape of the input.

    Parameters:
        weight: :math:`\gamma`, of shape ``normalized_shape``, ones.
        bias: :math:`\beta`, of shape ``normalized_shape``, zeros.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.LayerNorm()
        >>> layer(jnp.ones((2, 5, 16))).shape
        (2, 5, 16)
        >>> layer
        LayerNorm(16)

    Reference:
        Ba, Kiros and Hinton, "Layer Normalization", 2016; ``torch.nn.LayerNorm``.
    """

    @args.torch_order("normalized_shape", "eps", "elementwise_affine", "bias")
    def __init__(
        self,
        *,
        normalized_shape: int | tuple[int, ...] | None = None,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        dtype: Any = jnp.float32,
    ) -> None:
        self._given = _sizes(normalized_shape)
        shape = self._given or (None,)
        self.eps = float(eps)
        both = elementwise_affine and bias
        self.weight = Parameter(shape=shape, dtype=dtype, init=ones()) if elementwise_affine else None
        self.bias = Parameter(shape=shape, dtype=dtype, init=zeros()) if both else None

    @property
    def normalized_shape(self) -> tuple[int | None, ...]:
        """Sizes of the axes normalised over; ``(None,)`` while that is not known."""
        return (self._given or (None,)) if self.weight is None else self.weight.shape

    def build(self, x: Any) -> None:
        """Take the number of features from the last axis."""
        shape = checks.shape_of(x, "LayerNorm")
        for variable in (self.weight, self.bias):
            if variable is not None and shape and None in variable.shape:
                variable.shape = shape[-1:]

    def forward(self, x: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
        """Normalise."""
        known = self.normalized_shape
        if not checks.shape_of(x, "LayerNorm"):
            problem = "x is a scalar, but its last axis must hold the features."
            checks.shape_error("LayerNorm", problem, "Pass x[None].", x=jnp.asarray(x))
        shape = tuple(n for n in known if n is not None)
        if len(shape) < len(known):  # not known, and no parameter depends on it
            shape = checks.shape_of(x, "LayerNorm")[-1:]
        return layer_norm(x, shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        sizes = ", ".join(map(args.show, self.normalized_shape))
        if len(self.normalized_shape) > 1:
            sizes = f"({sizes})"
        if self.weight is None:
            rest = ", elementwise_affine=False"
        else:
            rest = "" if self.bias is not None else ", bias=False"
        return sizes + args.options(self, eps=1e-5) + rest


def _sizes(normalized_shape: Any) -> tuple[int, ...] | None:
    if normalized_shape is None:
        return None
    if not isinstance(normalized_shape, (tuple, list)):
        return (args.size(normalized_shape, "LayerNorm", "normalized_shape"),)
    if not normalized_shape:
        raise ValueError("LayerNorm: normalized_shape must name at least one axis, got ().")
    return tuple(args.size(n, "LayerNorm", "normalized_shape") for n in normalized_shape)
