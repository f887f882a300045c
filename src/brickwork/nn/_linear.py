"""Dense layers, and reshaping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ..core import Parameter
from ..functional import _checks as checks, flatten, linear
from ..module import Module
from . import _args as args
from ._init import fan_in_uniform, follow_weight

if TYPE_CHECKING:
    from jaxtyping import Array, Num


class Linear(Module):
    r"""Dense layer: an affine map of the last axis.

    .. math:: y = x W^T + b

    Args:
        out_features: size of the output's last axis.
        in_features: size of the input's last axis; taken from the first input when not given.
        bias: whether to add :math:`b`.
        dtype: of the parameters.

    Shape:
        ``(*, in_features)`` to ``(*, out_features)``, with any number of leading axes.

    Parameters:
        weight: ``(out_features, in_features)``, drawn from :math:`U(-k, k)` with
            :math:`k = 1 / \sqrt{\text{in\_features}}`.
        bias: ``(out_features,)``, drawn from the same distribution.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.Linear(256)
        >>> layer(jnp.ones((2, 20))).shape
        (2, 256)
        >>> layer
        Linear(20 → 256)

    Reference:
        ``torch.nn.Linear``.
    """

    @args.torch_order("in_features", "out_features", "bias")
    def __init__(
        self,
        out_features: int,
        *,
        in_features: int | None = None,
        bias: bool = True,
        dtype: Any = jnp.float32,
    ) -> None:
        outputs = args.size(out_features, "Linear", "out_features")
        inputs = args.optional_size(in_features, "Linear", "in_features")
        self.weight = Parameter(shape=(outputs, inputs), dtype=dtype, init=fan_in_uniform())
        self.bias = Parameter(shape=(outputs,), dtype=dtype, init=fan_in_uniform(self.weight)) if bias else None

    @property
    def in_features(self) -> int | None:
        """Size of the input's last axis; ``None`` while it is not known."""
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        """Size of the output's last axis."""
        return self.weight.shape[0]

    def build(self, x: Any) -> None:
        """Take the number of inputs from the last axis."""
        shape = checks.shape_of(x, "Linear")
        if not shape:
            checks.shape_error(
                "Linear",
                "x is a scalar, but its last axis must hold the features.",
                "Pass an array of shape (*, features).",
                x=x,
            )
        if self.weight.shape[1] is None:
            self.weight.shape = (None, shape[-1])
        follow_weight(self.bias, self.weight)

    def forward(self, x: Num[Array, "*batch in"]) -> Num[Array, "*batch out"]:
        """Apply the map."""
        return linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        bias = "" if self.bias is not None else ", bias=False"
        return f"{args.show(self.in_features)} → {args.show(self.out_features)}{bias}"


class Identity(Module):
    r"""Layer that returns its input; a placeholder.

    .. math:: y = x

    Args:
        *args: ignored, so that any layer can be replaced by this one.
        **kwargs: ignored.

    Shape:
        Any; the output is the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.Identity()(jnp.ones(3)).shape
        (3,)

    Reference:
        ``torch.nn.Identity``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def forward(self, x: Any) -> Any:
        """Return the input."""
        return x


class Flatten(Module):
    r"""Merge neighbouring axes into one.

    .. math:: (d_0, \dots, d_s, \dots, d_e, \dots) \to (d_0, \dots, \prod_{i=s}^{e} d_i, \dots)

    Args:
        start_dim: first axis to merge.
        end_dim: last axis to merge.

    Shape:
        ``(N, *)`` to ``(N, prod(*))`` by default.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.Flatten()(jnp.ones((2, 3, 4))).shape
        (2, 12)

    Reference:
        ``torch.nn.Flatten``.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = args.integer(start_dim, "Flatten", "start_dim")
        self.end_dim = args.integer(end_dim, "Flatten", "end_dim")

    def forward(self, x: Num[Array, "*shape"]) -> Num[Array, "*flat"]:
        """Merge the axes."""
        return flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return args.options(self, start_dim=1, end_dim=-1)[2:]
