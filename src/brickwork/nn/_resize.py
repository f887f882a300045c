"""Layers that resize, and layers that move elements between channels and space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..functional import channel_shuffle, interpolate, pixel_shuffle, pixel_unshuffle
from ..functional._resize import check_options
from ..module import Module
from . import _args as args

if TYPE_CHECKING:
    from jaxtyping import Array, Num, Shaped

    Size = int | tuple[int, ...]
    Factor = float | tuple[float, ...]


class Upsample(Module):
    r"""Resize sequences, images or volumes to a size or by a factor.

    Output element ``i`` of an axis of ``S`` elements, resized to ``O``, lies at

    .. math:: \frac{S}{O} \big( i + \tfrac12 \big) - \tfrac12 \quad \text{or, with align\_corners,} \quad
        \frac{S - 1}{O - 1} \, i

    of the input, and is a weighted sum of the elements around it, or the nearest of them.

    Args:
        size: the new size, an int or one for each spatial axis.
        scale_factor: or the factor, a number or one for each spatial axis; the new size is rounded down.
        mode: ``"nearest"``, ``"nearest-exact"``, ``"area"``; ``"linear"`` (sequences), ``"bilinear"``,
            ``"bicubic"`` (images), ``"trilinear"`` (volumes).
        align_corners: whether the centres of the first and last elements stay where they are, instead of
            the outer edges; only for the linear and cubic modes, ``False`` by default.
        recompute_scale_factor: whether to compute positions from the sizes (``S / O`` above), where
            ``scale_factor`` is given. By default its inverse takes the place of ``S / O``.

    Shape:
        ``(N, C, L)`` to ``(N, C, LO)``, ``(N, C, H, W)`` to ``(N, C, HO, WO)`` or ``(N, C, D, H, W)`` to
        ``(N, C, DO, HO, WO)``, with ``HO = floor(H * scale_factor)``, or ``size``.

    Raises:
        ShapeMismatchError: a number of axes that the mode is not for.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> layer = nn.Upsample(scale_factor=2, mode="bilinear")
        >>> layer(jnp.ones((1, 8, 7, 5))).shape
        (1, 8, 14, 10)
        >>> layer
        Upsample(scale_factor=2.0, mode='bilinear')

    Reference:
        ``torch.nn.Upsample``.
    """

    def __init__(
        self,
        size: Size | None = None,
        scale_factor: Factor | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        check_options(type(self).__name__, size, scale_factor, mode, align_corners, recompute_scale_factor)
        self.size = tuple(size) if isinstance(size, (tuple, list)) else size
        if isinstance(scale_factor, (tuple, list)):
            self.scale_factor = tuple(map(float, scale_factor))
        else:
            self.scale_factor = None if scale_factor is None else float(scale_factor)
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, x: Num[Array, "n c *spatial"]) -> Num[Array, "n c *resized"]:
        """Resize."""
        options = (self.mode, self.align_corners, self.recompute_scale_factor)
        return interpolate(x, self.size, self.scale_factor, *options)

    def extra_repr(self) -> str:
        size = f"size={self.size}" if self.size is not None else f"scale_factor={self.scale_factor}"
        return f"{size}, mode={self.mode!r}{args.options(self, align_corners=None, recompute_scale_factor=None)}"


class UpsamplingNearest2d(Upsample):
    r"""Resize images by repeating elements.

    .. math:: y_{n,c,i,j} = x_{n,c,\, \lfloor i H / H_O \rfloor,\, \lfloor j W / W_O \rfloor}

    Args:
        size: the new size, an int or a pair (height, width).
        scale_factor: or the factor, a number or a pair; the new size is rounded down.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, HO, WO)``, with ``HO = floor(H * scale_factor)``, or ``size``.

    Raises:
        ShapeMismatchError: wrong number of axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.UpsamplingNearest2d(scale_factor=2)(jnp.ones((1, 8, 7, 5))).shape
        (1, 8, 14, 10)

    Reference:
        ``torch.nn.UpsamplingNearest2d``.
    """

    def __init__(self, size: Size | None = None, scale_factor: Factor | None = None) -> None:
        super().__init__(size, scale_factor, "nearest")

    def extra_repr(self) -> str:
        return f"size={self.size}" if self.size is not None else f"scale_factor={self.scale_factor}"


class UpsamplingBilinear2d(Upsample):
    r"""Resize images by linear interpolation along both axes, the corners staying where they are.

    Output row ``i`` lies at :math:`i \, (H - 1) / (H_O - 1)` of the input, and columns likewise.

    Args:
        size: the new size, an int or a pair (height, width).
        scale_factor: or the factor, a number or a pair; the new size is rounded down.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, HO, WO)``, with ``HO = floor(H * scale_factor)``, or ``size``.

    Raises:
        ShapeMismatchError: wrong number of axes.
        TypeError: the input holds integers.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.UpsamplingBilinear2d(size=(1, 3))(jnp.array([[[[1.0, 3.0]]]])).tolist()
        [[[[1.0, 2.0, 3.0]]]]

    Reference:
        ``torch.nn.UpsamplingBilinear2d``.
    """

    def __init__(self, size: Size | None = None, scale_factor: Factor | None = None) -> None:
        super().__init__(size, scale_factor, "bilinear", align_corners=True)

    def extra_repr(self) -> str:
        return f"size={self.size}" if self.size is not None else f"scale_factor={self.scale_factor}"


class PixelShuffle(Module):
    r"""Make an image ``r`` times as high and wide out of ``r * r`` times as many channels.

    .. math:: y_{c,\, r i + u,\, r j + v} = x_{c r^2 + u r + v,\, i,\, j}

    Args:
        upscale_factor: ``r``.

    Shape:
        ``(*, C * r * r, H, W)`` to ``(*, C, H * r, W * r)``, of any dtype.

    Raises:
        ShapeMismatchError: fewer than 3 axes, or a number of channels that ``r * r`` does not divide.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.PixelShuffle(2)(jnp.ones((1, 12, 5, 5))).shape
        (1, 3, 10, 10)

    Reference:
        Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
        Convolutional Neural Network", 2016; ``torch.nn.PixelShuffle``.
    """

    def __init__(self, upscale_factor: int) -> None:
        self.upscale_factor = args.size(upscale_factor, "PixelShuffle", "upscale_factor")

    def forward(self, x: Shaped[Array, "*n c h w"]) -> Shaped[Array, "*n co ho wo"]:
        """Move channels to pixels."""
        return pixel_shuffle(x, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    r"""Undo ``PixelShuffle``: an image ``1 / r`` as high and wide, with ``r * r`` times as many channels.

    .. math:: y_{c r^2 + u r + v,\, i,\, j} = x_{c,\, r i + u,\, r j + v}

    Args:
        downscale_factor: ``r``.

    Shape:
        ``(*, C, H * r, W * r)`` to ``(*, C * r * r, H, W)``, of any dtype.

    Raises:
        ShapeMismatchError: fewer than 3 axes, or a height or width that ``r`` does not divide.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.PixelUnshuffle(2)(jnp.ones((1, 3, 10, 10))).shape
        (1, 12, 5, 5)

    Reference:
        ``torch.nn.PixelUnshuffle``.
    """

    def __init__(self, downscale_factor: int) -> None:
        self.downscale_factor = args.size(downscale_factor, "PixelUnshuffle", "downscale_factor")

    def forward(self, x: Shaped[Array, "*n c h w"]) -> Shaped[Array, "*n co ho wo"]:
        """Move pixels to channels."""
        return pixel_unshuffle(x, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    r"""Mix the channels of ``g`` groups: first the first of each group, then the second of each, and so on.

    .. math:: y_{n,\, k g + j} = x_{n,\, j C / g + k}

    Args:
        groups: ``g``.

    Shape:
        ``(N, C, *)`` with at least 3 axes, of any dtype; the output has the same shape.

    Raises:
        ShapeMismatchError: fewer than 3 axes, or a number of channels that ``g`` does not divide.

    Example:
        >>> import jax.numpy as jnp
        >>> from brickwork import nn
        >>> nn.ChannelShuffle(2)(jnp.arange(6).reshape(1, 6, 1)).ravel().tolist()
        [0, 3, 1, 4, 2, 5]

    Reference:
        Zhang et al., "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile
        Devices", 2018; ``torch.nn.ChannelShuffle``.
    """

    def __init__(self, groups: int) -> None:
        self.groups = args.size(groups, "ChannelShuffle", "groups")

    def forward(self, x: Shaped[Array, "n c *spatial"]) -> Shaped[Array, "n c *spatial"]:
        """Mix the channels."""
        return channel_shuffle(x, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"
