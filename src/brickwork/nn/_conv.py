"""Convolutional layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ..core import Parameter
from ..functional import _checks as checks, conv2d
from ..module import Module
from . import _args as args
from ._init import fan_in_uniform, follow_weight

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    IntOrPair = int | tuple[int, int]


class Conv2d(Module):
    r"""Convolution over images.

    .. math:: y_{n,o} = b_o + \sum_c W_{o,c} \star x_{n,c}

    Args:
        out_channels: number of channels of the output.
        kernel_size: size of the window; an int or a pair (height, width), as below.
        in_channels: number of channels of the input; taken from the first input when not given.
        stride: the step between windows.
        padding: zeros added on each side; or ``"valid"`` (none), or ``"same"`` (as many as keep
            the size; only for stride 1).
        dilation: the step between the elements of a window.
        groups: number of parts into which the channels are split, each seen only by its own
            ``out_channels / groups`` kernels.
        bias: whether to add :math:`b`.
        dtype: of the parameters.

    Shape:
        ``(N, C, H, W)`` to ``(N, out_channels, HO, WO)``, or the same without ``N``, with
        ``HO = (H + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1``.

    Parameters:
        weight: ``(out_channels, in_channels / groups, KH, KW)``, drawn from :math:`U(-k, k)` with
            :math:`k = 1 / \sqrt{K_H K_W \, \text{in\_channels} / \text{groups}}`.
        bias: ``(out_channels,)``, drawn from the same distribution.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.Conv2d(6, kernel_size=5, padding=2)
        >>> layer(jnp.ones((2, 1, 28, 28))).shape
        (2, 6, 28, 28)
        >>> layer
        Conv2d(1 → 6, kernel_size=5, padding=2)

    Reference:
        ``torch.nn.Conv2d``.
    """

    @args.torch_order(
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
        "bias",
    )
    def __init__(
        self,
        out_channels: int,
        kernel_size: IntOrPair,
        *,
        in_channels: int | None = None,
        stride: IntOrPair = 1,
        padding: IntOrPair | str = 0,
        dilation: IntOrPair = 1,
        groups: int = 1,
        bias: bool = True,
        dtype: Any = jnp.float32,
    ) -> None:
        outputs = args.size(out_channels, "Conv2d", "out_channels")
        inputs = args.optional_size(in_channels, "Conv2d", "in_channels")
        self.groups = args.size(groups, "Conv2d", "groups")
        self._require_divisible(outputs, "out_channels", ValueError)
        if inputs is not None:
            self._require_divisible(inputs, "in_channels", ValueError)
            inputs //= self.groups
        self.kernel_size = args.sizes_or_int(kernel_size, 2, "Conv2d", "kernel_size")
        self.stride = args.sizes_or_int(stride, 2, "Conv2d", "stride")
        self.dilation = args.sizes_or_int(dilation, 2, "Conv2d", "dilation")
        self.padding = _padding(padding, self.stride)
        shape = (outputs, inputs, *args.sizes(self.kernel_size, 2, "Conv2d", "kernel_size"))
        self.weight = Parameter(shape=shape, dtype=dtype, init=fan_in_uniform())
        self.bias = Parameter(shape=(outputs,), dtype=dtype, init=fan_in_uniform(self.weight)) if bias else None

    def _require_divisible(self, channels: int, name: str, error: type[Exception]) -> None:
        if channels % self.groups:
            raise error(f"Conv2d: groups={self.groups} must divide {name}={channels}.")

    @property
    def in_channels(self) -> int | None:
        """Number of channels of the input; ``None`` while it is not known."""
        per_group = self.weight.shape[1]
        return None if per_group is None else per_group * self.groups

    @property
    def out_channels(self) -> int:
        """Number of channels of the output."""
        return self.weight.shape[0]

    def build(self, x: Any) -> None:
        """Take the number of channels from the input."""
        checks.shape_of(x, "Conv2d")
        checks.require_spatial(x, 2, "Conv2d")
        if self.weight.shape[1] is None:
            channels = x.shape[-3]
            if channels % self.groups:
                checks.shape_error(
                    "Conv2d",
                    f"groups={self.groups} must divide the {channels} channels of x (axis {len(x.shape) - 3}).",
                    "Check the data (channels come before height and width), or change groups.",
                    x=x,
                )
            self.weight.shape = (None, channels // self.groups, None, None)
        follow_weight(self.bias, self.weight)

    def forward(self, x: Float[Array, "*n c h w"]) -> Float[Array, "*n out ho wo"]:
        """Convolve."""
        return conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        sizes = f"{args.show(self.in_channels)} → {self.out_channels}"
        rest = args.options(self, stride=1, padding=0, dilation=1, groups=1)
        bias = "" if self.bias is not None else ", bias=False"
        return f"{sizes}, kernel_size={self.kernel_size}{rest}{bias}"


def _padding(padding: Any, stride: Any) -> Any:
    if not isinstance(padding, str):
        return args.sizes_or_int(padding, 2, "Conv2d", "padding", 0)
    if padding not in ("same", "valid"):
        raise ValueError(f"Conv2d: padding must be an int, a pair of ints, 'same' or 'valid', got {padding!r}.")
    if padding == "same" and stride not in (1, (1, 1)):
        raise ValueError(
            "Conv2d: padding='same' keeps the size of the image, which needs stride 1, "
            f"got stride={stride}. Give the padding as a number instead."
        )
    return padding
