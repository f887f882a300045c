"""Normalisation over the features of each example."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ..core import Parameter
from ..functional import _checks as checks, layer_norm, rms_norm
from ..init import ones, zeros
from ..module import Module
from . import _args as args

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class FeatureNorm(Module):
    """What norms over trailing axes have in common."""

    def _declare(self, normalized_shape: Any, elementwise_affine: bool, bias: bool, dtype: Any) -> None:
        name = type(self).__name__
        self._given = _sizes(normalized_shape, name)
        shape = self._given or (None,)
        elementwise_affine = args.flag(elementwise_affine, name, "elementwise_affine")
        both = args.flag(bias, name, "bias") and elementwise_affine
        self.weight = Parameter(shape=shape, dtype=dtype, init=ones()) if elementwise_affine else None
        self.bias = Parameter(shape=shape, dtype=dtype, init=zeros()) if both else None

    @property
    def normalized_shape(self) -> tuple[int | None, ...]:
        """Sizes of the axes normalised over; ``(None,)`` while that is not known."""
        return (self._given or (None,)) if self.weight is None else self.weight.shape

    def build(self, x: Any) -> None:
        """Take the number of features from the last axis."""
        shape = checks.shape_of(x, type(self).__name__)
        for variable in (self.weight, self.bias):
            if variable is not None and shape and None in variable.shape:
                variable.shape = shape[-1:]

    def _sizes_for(self, x: Any) -> tuple[int, ...]:
        """The sizes to normalise over."""
        known = self.normalized_shape
        shape = checks.shape_of(x, type(self).__name__)
        if not shape:
            problem = "x is a scalar, but its last axis must hold the features."
            checks.shape_error(type(self).__name__, problem, "Pass x[None].", x=jnp.asarray(x))
        sizes = tuple(n for n in known if n is not None)
        return sizes if len(sizes) == len(known) else shape[-1:]  # not known, and no parameter depends on it

    def _sizes_repr(self) -> str:
        sizes = ", ".join(map(args.show, self.normalized_shape))
        return f"({sizes})" if len(self.normalized_shape) > 1 else sizes


class LayerNorm(FeatureNorm):
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
        self.eps = args.epsilon(eps, "LayerNorm")
        self._declare(normalized_shape, elementwise_affine, bias, dtype)

    def forward(self, x: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
        """Normalise."""
        return layer_norm(x, self._sizes_for(x), self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        if self.weight is None:
            rest = ", elementwise_affine=False"
        else:
            rest = "" if self.bias is not None else ", bias=False"
        return self._sizes_repr() + args.options(self, eps=1e-5) + rest


class RMSNorm(FeatureNorm):
    r"""Divide each example by the root mean square of its own features.

    .. math:: y = \frac{x}{\sqrt{\mathrm{E}[x^2] + \epsilon}} \gamma

    Args:
        normalized_shape: sizes of the trailing axes to normalise over, an int or a tuple; the
            last axis of the first input when not given.
        eps: added to the mean square; ``None``: the precision of the dtype in which it is computed,
            about 1.2e-7 for float32 and for half precision.
        elementwise_affine: whether there is :math:`\gamma`.
        dtype: of the parameter.

    Shape:
        ``(*, *normalized_shape)``; the output has the shape of the input.

    Parameters:
        weight: :math:`\gamma`, of shape ``normalized_shape``, ones.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.RMSNorm()
        >>> layer(jnp.ones((2, 5, 16))).shape
        (2, 5, 16)
        >>> layer
        RMSNorm(16)

    Reference:
        Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019; ``torch.nn.RMSNorm``.
    """

    @args.torch_order("normalized_shape", "eps", "elementwise_affine")
    def __init__(
        self,
        *,
        normalized_shape: int | tuple[int, ...] | None = None,
        eps: float | None = None,
        elementwise_affine: bool = True,
        dtype: Any = jnp.float32,
    ) -> None:
        self.eps = None if eps is None else args.epsilon(eps, "RMSNorm")
        self._declare(normalized_shape, elementwise_affine, False, dtype)

    def forward(self, x: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
        """Normalise."""
        return rms_norm(x, self._sizes_for(x), self.weight, self.eps)

    def extra_repr(self) -> str:
        affine = "" if self.weight is not None else ", elementwise_affine=False"
        return self._sizes_repr() + args.options(self, eps=None) + affine


def _sizes(normalized_shape: Any, layer: str) -> tuple[int, ...] | None:
    if normalized_shape is None:
        return None
    if not isinstance(normalized_shape, (tuple, list)):
        return (args.size(normalized_shape, layer, "normalized_shape"),)
    if not normalized_shape:
        raise ValueError(f"{layer}: normalized_shape must name at least one axis, got ().")
    return tuple(args.size(n, layer, "normalized_shape") for n in normalized_shape)
