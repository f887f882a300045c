"""Dense layers, and reshaping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ..core import Parameter
from ..functional import _checks as checks, bilinear, flatten, linear, unflatten
from ..functional._linear import split_sizes
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
        has_bias = args.flag(bias, "Linear", "bias")
        self.bias = Parameter(shape=(outputs,), dtype=dtype, init=fan_in_uniform(self.weight)) if has_bias else None

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


class Bilinear(Module):
    r"""Bilinear layer: a map of the last axes of two arrays that is linear in each.

    .. math:: y_o = x_1^T W_o x_2 + b_o

    Args:
        out_features: size of the output's last axis.
        in1_features: size of the first input's last axis; taken from the first call when not given.
        in2_features: size of the second input's last axis; taken from the first call when not given.
        bias: whether to add :math:`b`.
        dtype: of the parameters.

    Shape:
        ``(*, in1_features)`` and ``(*, in2_features)`` to ``(*, out_features)``, with any number of leading axes.

    Parameters:
        weight: ``(out_features, in1_features, in2_features)``, drawn from :math:`U(-k, k)` with
            :math:`k = 1 / \sqrt{\text{in1\_features}}`.
        bias: ``(out_features,)``, drawn from the same distribution.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.Bilinear(5)
        >>> layer(jnp.ones((2, 3)), jnp.ones((2, 4))).shape
        (2, 5)
        >>> layer
        Bilinear(3, 4 → 5)

    Reference:
        ``torch.nn.Bilinear``.
    """

    @args.torch_order("in1_features", "in2_features", "out_features", "bias")
    def __init__(
        self,
        out_features: int,
        *,
        in1_features: int | None = None,
        in2_features: int | None = None,
        bias: bool = True,
        dtype: Any = jnp.float32,
    ) -> None:
        outputs = args.size(out_features, "Bilinear", "out_features")
        inputs1 = args.optional_size(in1_features, "Bilinear", "in1_features")
        inputs2 = args.optional_size(in2_features, "Bilinear", "in2_features")
        self.weight = Parameter(shape=(outputs, inputs1, inputs2), dtype=dtype, init=fan_in_uniform(first=True))
        init = fan_in_uniform(self.weight, first=True)
        has_bias = args.flag(bias, "Bilinear", "bias")
        self.bias = Parameter(shape=(outputs,), dtype=dtype, init=init) if has_bias else None

    @property
    def in1_features(self) -> int | None:
        """Size of the first input's last axis; ``None`` while it is not known."""
        return self.weight.shape[1]

    @property
    def in2_features(self) -> int | None:
        """Size of the second input's last axis; ``None`` while it is not known."""
        return self.weight.shape[2]

    @property
    def out_features(self) -> int:
        """Size of the output's last axis."""
        return self.weight.shape[0]

    def build(self, x1: Any, x2: Any) -> None:
        """Take the numbers of inputs from the last axes."""
        sizes = list(self.weight.shape)
        for i, (name, x) in enumerate((("x1", x1), ("x2", x2)), 1):
            shape = checks.shape_of(x, "Bilinear", name)
            if not shape:
                checks.shape_error(
                    "Bilinear",
                    f"{name} is a scalar, but its last axis must hold the features.",
                    "Pass an array of shape (*, features).",
                    **{name: x},
                )
            if sizes[i] is None:
                sizes[i] = shape[-1]
        self.weight.shape = tuple(sizes)
        follow_weight(self.bias, self.weight)

    def forward(self, x1: Num[Array, "*batch in1"], x2: Num[Array, "*batch in2"]) -> Num[Array, "*batch out"]:
        """Apply the map."""
        return bilinear(x1, x2, self.weight, self.bias)

    def extra_repr(self) -> str:
        bias = "" if self.bias is not None else ", bias=False"
        return f"{args.show(self.in1_features)}, {args.show(self.in2_features)} → {self.out_features}{bias}"


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


class Unflatten(Module):
    r"""Split one axis into several.

    .. math:: (\dots, d_i, \dots) \to (\dots, u_1, \dots, u_n, \dots), \quad \prod_j u_j = d_i

    Args:
        dim: the axis to split; may be negative.
        unflattened_size: the sizes to split it into; one of them may be -1, for what is left.

    Shape:
        ``(*, d, *)`` to ``(*, *unflattened_size, *)``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.Unflatten(1, (3, 4))
        >>> layer(jnp.ones((2, 12))).shape
        (2, 3, 4)
        >>> layer
        Unflatten(dim=1, unflattened_size=(3, 4))

    Reference:
        ``torch.nn.Unflatten``, without named axes.
    """

    def __init__(self, dim: int, unflattened_size: tuple[int, ...]) -> None:
        self.dim = args.integer(dim, "Unflatten", "dim")
        self.unflattened_size = split_sizes(unflattened_size, "Unflatten", "unflattened_size")

    def forward(self, x: Num[Array, "*shape"]) -> Num[Array, "*split"]:
        """Split the axis."""
        return unflatten(x, self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
