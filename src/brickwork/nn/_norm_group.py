"""Normalisation over groups of channels, and by neighbouring ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ..core import Parameter
from ..functional import _checks as checks, cross_map_lrn2d, group_norm, local_response_norm
from ..functional._norm_response import check_response, require_response_axes
from ..init import ones, zeros
from ..module import Module
from . import _args as args

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class GroupNorm(Module):
    r"""Normalise each example by the mean and variance of groups of its channels.

    .. math:: y = \frac{x - \mu_{n,g}}{\sqrt{\sigma_{n,g}^2 + \epsilon}} \gamma_c + \beta_c

    Args:
        num_groups: number of groups into which the channels are split; it must divide their number.
        num_channels: number of channels; taken from the first input when not given.
        eps: added to the variance.
        affine: whether there are :math:`\gamma` and :math:`\beta`.
        bias: whether there is :math:`\beta`, where there is :math:`\gamma`.
        dtype: of the parameters.

    Shape:
        ``(N, C, *)``; the output has the shape of the input.

    Parameters:
        weight: :math:`\gamma`, ``(C,)``, ones.
        bias: :math:`\beta`, ``(C,)``, zeros.

    Raises:
        ShapeMismatchError: the number of channels is not a multiple of ``num_groups``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.GroupNorm(2)
        >>> layer(jnp.ones((4, 6, 8, 8))).shape
        (4, 6, 8, 8)
        >>> layer
        GroupNorm(2, 6)

    Reference:
        Wu and He, "Group Normalization", 2018; ``torch.nn.GroupNorm``.
    """

    _given: int | None = None  # num_channels, where nothing else keeps it

    @args.torch_order("num_groups", "num_channels", "eps", "affine")
    def __init__(
        self,
        num_groups: int,
        *,
        num_channels: int | None = None,
        eps: float = 1e-5,
        affine: bool = True,
        bias: bool = True,
        dtype: Any = jnp.float32,
    ) -> None:
        self.num_groups = args.size(num_groups, "GroupNorm", "num_groups")
        channels = args.optional_size(num_channels, "GroupNorm", "num_channels")
        if channels is not None and channels % self.num_groups:
            raise ValueError(
                f"GroupNorm: num_channels={channels} can't be split into num_groups={self.num_groups} equal groups."
            )
        self.eps = args.epsilon(eps, "GroupNorm")
        affine = args.flag(affine, "GroupNorm", "affine")
        both = args.flag(bias, "GroupNorm", "bias") and affine
        self.weight = Parameter(shape=(channels,), dtype=dtype, init=ones()) if affine else None
        self.bias = Parameter(shape=(channels,), dtype=dtype, init=zeros()) if both else None
        if channels is not None and not affine:
            self._given = channels

    @property
    def num_channels(self) -> int | None:
        """Number of channels; ``None`` while it is not known, or where nothing depends on it."""
        return self._given if self.weight is None else self.weight.shape[0]

    def build(self, x: Any) -> None:
        """Take the number of channels from axis 1."""
        self._require(x)
        for variable in (self.weight, self.bias):
            if variable is not None and variable.shape[0] is None:
                variable.shape = (x.shape[1],)

    def _require(self, x: Any) -> None:
        shape = checks.shape_of(x, "GroupNorm")
        if len(shape) < 2:
            problem = f"x must have at least 2 axes (N, C, ...), not {len(shape)}."
            checks.shape_error("GroupNorm", problem, "Add the batch axis: x[None].", x=x)
        known = self.num_channels
        if known is not None and shape[1] != known:
            problem = f"x must have {known} channels in axis 1, as the layer was given or has seen before"
            fix = "Check the data, or make a new layer."
            checks.shape_error("GroupNorm", f"{problem}, not {shape[1]}.", fix, x=x)
        if shape[1] % self.num_groups:
            problem = f"x has {shape[1]} channels in axis 1, which can't be split into {self.num_groups} equal groups."
            fix = "Choose a num_groups that divides the number of channels."
            checks.shape_error("GroupNorm", problem, fix, x=x)

    def forward(self, x: Float[Array, "n c *space"]) -> Float[Array, "n c *space"]:
        """Normalise."""
        x = checks.to_array(x, "GroupNorm", "x")
        self._require(x)
        if math.prod(x.shape) == self.num_groups:
            raise ValueError(
                f"GroupNorm: expected more than 1 value per group, got {checks.describe(x)} and "
                f"num_groups={self.num_groups}. Use fewer groups."
            )
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        if self.weight is None:
            rest = ", affine=False"
        else:
            rest = "" if self.bias is not None else ", bias=False"
        known = "" if self.weight is None and self._given is None else f", {args.show(self.num_channels)}"
        return f"{self.num_groups}{known}{args.options(self, eps=1e-5)}{rest}"


class _ResponseNorm(Module):
    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        self.size, self.alpha, self.beta, self.k = check_response(size, alpha, beta, k, type(self).__name__)

    def extra_repr(self) -> str:
        return f"{self.size}{args.options(self, alpha=1e-4, beta=0.75, k=1.0)}"


class LocalResponseNorm(_ResponseNorm):
    r"""Divide each channel by a power of what the channels around it hold.

    .. math:: y_c = x_c \Big(k + \frac{\alpha}{n}
        \sum_{i = c - \lfloor n/2 \rfloor}^{c + \lfloor (n-1)/2 \rfloor} x_i^2 \Big)^{-\beta}

    Channels that do not exist count as zeros.

    Args:
        size: the number :math:`n` of channels to sum over.
        alpha: :math:`\alpha`.
        beta: :math:`\beta`.
        k: :math:`k`.

    Shape:
        ``(N, C, *)`` with at least one axis after the channels; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.LocalResponseNorm(5)
        >>> layer(jnp.ones((4, 6, 8, 8))).shape
        (4, 6, 8, 8)
        >>> layer
        LocalResponseNorm(5)

    Reference:
        Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural
        Networks", 2012; ``torch.nn.LocalResponseNorm``.
    """

    def forward(self, x: Float[Array, "n c *space"]) -> Float[Array, "n c *space"]:
        """Divide."""
        x = checks.to_array(x, "LocalResponseNorm", "x")
        require_response_axes(x, "LocalResponseNorm", at_least=3)
        return local_response_norm(x, self.size, self.alpha, self.beta, self.k)


class CrossMapLRN2d(_ResponseNorm):
    r"""Divide each channel of images by a power of what the channels around it hold.

    .. math:: y_c = x_c \Big(k + \frac{\alpha}{n} \sum_{i = c - r}^{c + r} x_i^2 \Big)^{-\beta},
        \quad r = \lfloor (n - 1) / 2 \rfloor

    As in Torch, from which networks of this kind come, the first channel stays in the sum for all
    channels once it has got into it. For a new network, take :class:`LocalResponseNorm`.

    Args:
        size: the number :math:`n` of channels to sum over; odd, or else one channel fewer is summed.
        alpha: :math:`\alpha`.
        beta: :math:`\beta`.
        k: :math:`k`.

    Shape:
        ``(N, C, H, W)``; the output has the shape of the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.CrossMapLRN2d(5, k=2)
        >>> layer(jnp.ones((4, 6, 8, 8))).shape
        (4, 6, 8, 8)
        >>> layer
        CrossMapLRN2d(5, k=2.0)

    Reference:
        ``torch.nn.CrossMapLRN2d``.
    """

    def forward(self, x: Float[Array, "n c h w"]) -> Float[Array, "n c h w"]:
        """Divide."""
        x = checks.to_array(x, "CrossMapLRN2d", "x")
        require_response_axes(x, "CrossMapLRN2d", exactly=4)
        return cross_map_lrn2d(x, self.size, self.alpha, self.beta, self.k)
