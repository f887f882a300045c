"""Pooling layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..functional import avg_pool2d, max_pool2d
from ..module import Module
from . import _args as args

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Num

    IntOrPair = int | tuple[int, int]


class _Pool2d(Module):
    def __init__(self, kernel_size: IntOrPair, stride: IntOrPair | None, padding: IntOrPair, ceil_mode: bool) -> None:
        name = type(self).__name__
        self.kernel_size = args.sizes_or_int(kernel_size, 2, name, "kernel_size")
        self.stride = None if stride is None else args.sizes_or_int(stride, 2, name, "stride")
        self.padding = args.sizes_or_int(padding, 2, name, "padding", 0)
        self.ceil_mode = bool(ceil_mode)
        kernels = args.sizes(self.kernel_size, 2, name, "kernel_size")
        paddings = args.sizes(self.padding, 2, name, "padding", 0)
        if any(2 * p > k for k, p in zip(kernels, paddings, strict=True)):
            raise ValueError(
                f"{name}: padding must be at most half of kernel_size, "
                f"got padding={padding}, kernel_size={kernel_size}."
            )


class MaxPool2d(_Pool2d):
    r"""Largest value of each window of each channel.

    .. math:: y_{n,c,i,j} = \max_{u,v} \, x_{n,c,\, s i + d u - p,\, s j + d v - p}

    Args:
        kernel_size: size of the window; an int or a pair (height, width), as below.
        stride: the step between windows; ``None``: the size of the window.
        padding: rows and columns added on each side, which never are the maximum.
        dilation: the step between the elements of a window.
        ceil_mode: also use windows that reach beyond the end of the image.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, HO, WO)``, or the same without ``N``, with
        ``HO = (H + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.MaxPool2d(3, stride=2, padding=1)(jnp.ones((1, 8, 56, 56))).shape
        (1, 8, 28, 28)

    Reference:
        ``torch.nn.MaxPool2d``.
    """

    def __init__(
        self,
        kernel_size: IntOrPair,
        stride: IntOrPair | None = None,
        padding: IntOrPair = 0,
        dilation: IntOrPair = 1,
        *,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.dilation = args.sizes_or_int(dilation, 2, "MaxPool2d", "dilation")

    def forward(self, x: Num[Array, "*n c h w"]) -> Num[Array, "*n c ho wo"]:
        """Take the maxima."""
        return max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def extra_repr(self) -> str:
        rest = args.options(self, stride=None, padding=0, dilation=1, ceil_mode=False)
        return f"kernel_size={self.kernel_size}{rest}"


class AvgPool2d(_Pool2d):
    r"""Mean of each window of each channel.

    .. math:: y_{n,c,i,j} = \frac{1}{K_H K_W} \sum_{u,v} x_{n,c,\, s i + u - p,\, s j + v - p}

    Args:
        kernel_size: size of the window; an int or a pair (height, width), as below.
        stride: the step between windows; ``None``: the size of the window.
        padding: zeros added on each side.
        ceil_mode: also use windows that reach beyond the end of the image.
        count_include_pad: whether the zeros of the padding count in the mean.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, HO, WO)``, or the same without ``N``, with
        ``HO = (H + 2 * padding - kernel_size) // stride + 1``.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.AvgPool2d(2)(jnp.ones((1, 8, 28, 28))).shape
        (1, 8, 14, 14)

    Reference:
        ``torch.nn.AvgPool2d``.
    """

    def __init__(
        self,
        kernel_size: IntOrPair,
        stride: IntOrPair | None = None,
        padding: IntOrPair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.count_include_pad = bool(count_include_pad)

    def forward(self, x: Float[Array, "*n c h w"]) -> Float[Array, "*n c ho wo"]:
        """Take the means."""
        return avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        rest = args.options(self, stride=None, padding=0, ceil_mode=False, count_include_pad=True)
        return f"kernel_size={self.kernel_size}{rest}"
