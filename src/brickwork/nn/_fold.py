"""Layers that write windows of images as columns, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..functional import fold, unfold
from ..module import Module
from . import _args as args

if TYPE_CHECKING:
    from jaxtyping import Array, Num

    IntOrPair = int | tuple[int, int]


class _Windows(Module):
    def __init__(self, kernel_size: IntOrPair, dilation: IntOrPair, padding: IntOrPair, stride: IntOrPair) -> None:
        name = type(self).__name__
        self.kernel_size = args.sizes_or_int(kernel_size, 2, name, "kernel_size")
        self.dilation = args.sizes_or_int(dilation, 2, name, "dilation")
        self.padding = args.sizes_or_int(padding, 2, name, "padding", 0)
        self.stride = args.sizes_or_int(stride, 2, name, "stride")

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}{args.options(self, dilation=1, padding=0, stride=1)}"


class Unfold(_Windows):
    r"""Windows of images as columns, as the attention over patches needs them.

    .. math:: y_{n,\, (c,u,v),\, (i,j)} = x_{n,\, c,\, s i + d u - p,\, s j + d v - p}

    Args:
        kernel_size: size of the window; an int or a pair (height, width), as below.
        dilation: the step between the elements of a window.
        padding: zeros added on each side.
        stride: the step between windows.

    Shape:
        ``(N, C, H, W)`` to ``(N, C * KH * KW, L)``, or the same without ``N``, with ``L = HO * WO``
        windows and ``HO = (H + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1``.

    Raises:
        ShapeMismatchError: the input has other axes, or is smaller than a window.
        TypeError: an argument has the wrong type.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.Unfold(4, stride=4)(jnp.ones((2, 3, 32, 32))).shape
        (2, 48, 64)

    Reference:
        ``torch.nn.Unfold``.
    """

    def __init__(
        self,
        kernel_size: IntOrPair,
        dilation: IntOrPair = 1,
        padding: IntOrPair = 0,
        stride: IntOrPair = 1,
    ) -> None:
        super().__init__(kernel_size, dilation, padding, stride)

    def forward(self, x: Num[Array, "*n c h w"]) -> Num[Array, "*n ckk l"]:
        """Write the windows as columns."""
        return unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)


class Fold(_Windows):
    r"""Columns as windows of images, which are added up where they overlap: the transpose of :class:`Unfold`.

    .. math:: y_{n,c,h,w} = \sum_{u,v,i,j} x_{n,\, (c,u,v),\, (i,j)}
        \quad \text{over} \quad s i + d u - p = h, \; s j + d v - p = w

    Args:
        output_size: size of the images; an int or a pair (height, width), as below.
        kernel_size: size of the window.
        dilation: the step between the elements of a window.
        padding: rows and columns on each side of the image, which are left out of the result.
        stride: the step between windows.

    Shape:
        ``(N, C * KH * KW, L)`` to ``(N, C, H, W)``, or the same without ``N``, where ``L`` is the number
        of windows in an image.

    Raises:
        ShapeMismatchError: the input has other axes, rows or columns.
        TypeError: an argument has the wrong type.
        ValueError: an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.Fold(32, 4, stride=4)(jnp.ones((2, 48, 64))).shape
        (2, 3, 32, 32)

    Reference:
        ``torch.nn.Fold``.
    """

    def __init__(
        self,
        output_size: IntOrPair,
        kernel_size: IntOrPair,
        dilation: IntOrPair = 1,
        padding: IntOrPair = 0,
        stride: IntOrPair = 1,
    ) -> None:
        super().__init__(kernel_size, dilation, padding, stride)
        self.output_size = args.sizes_or_int(output_size, 2, "Fold", "output_size")

    def forward(self, x: Num[Array, "*n ckk l"]) -> Num[Array, "*n c h w"]:
        """Add up the windows."""
        return fold(x, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, {super().extra_repr()}"
